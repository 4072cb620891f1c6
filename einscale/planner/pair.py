"""Plan an einsum of one or two operands: the cheapest placement of mesh axes onto its indices."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

from msgspec import Struct

from einscale.digits import Digits, digits_of
from einscale.errors import InfeasibleError, PlanError
from einscale.layout import Layout, Tensor
from einscale.mesh import Mesh
from einscale.plan import Plan, plan_flops, plan_received
from einscale.planner.counts import most_shards
from einscale.planner.emission import Prepared, assemble, assemble_one
from einscale.planner.objective import Bytes, Objective, Seconds
from einscale.planner.placing import ATOMS, Best, Divisions, Placer, divisions
from einscale.planner.prepare import prepared_all
from einscale.planner.pricing import Pricing
from einscale.planner.question import Placement, Question, Wanted
from einscale.reshard.search import UNIT
from einscale.reshard.timed import FEMTO

if TYPE_CHECKING:
    from einscale.topology import Network

CUT_SHORT = "the search stopped at its bound on work: a cheaper plan may exist"
"""Note of a plan whose search did not end by itself."""

GUESS = 0.05
"""Share of the work allowed by bytes that is spent on a first guess by time."""

SMALL = 8.0
"""Times more work by time on a small mesh, where single digits are handed out."""

KEEPS = 8
"""Most choices of which owed sums to keep through an einsum that are tried."""

REMEMBERED = 10_000
"""Placements kept; then all are forgotten."""


class PlannedEinsum(Struct, frozen=True):
    """A plan for one einsum at given sizes.

    Args:
        plan: its steps.
        exact: whether the search ended by itself: no placement in the move set is cheaper.
        note: what cut the search short, in words; empty if nothing did.
        received: bytes a device receives.
        flops: FLOPs a device spends.
        seconds: for the objective `time`, that of all moves and of the einsum itself, one after the other; else None.
    """

    plan: Plan
    exact: bool
    note: str
    received: int
    flops: int
    seconds: float | None = None


class Terms(Struct, frozen=True):
    """By what a plan is judged.

    Args:
        network: the mesh on its links, for the objective time; None judges by bytes.
        flop_rate: FLOP/s of a device; None takes the roofline of the network's chip.
        max_flops: cap on FLOPs per device; None is the least attainable by bytes, and no cap by time.
    """

    network: Network | None = None
    flop_rate: float | None = None
    max_flops: int | None = None

    def objective(self, question: Question) -> Objective:
        """The judge of a question's plans."""
        if self.network is None:
            return Bytes(question)
        return Seconds(question, self.network, self.flop_rate)


class Found(Struct, frozen=True):
    """What a search found, free of names: the placement, the sums kept, its cost and whether the search was exact."""

    placement: Placement
    kept: tuple[int, ...]
    cost: int
    exact: bool


_found: dict[object, Found] = {}


def forget() -> None:
    """Forget remembered placements."""
    _found.clear()


def plan_pair(
    tensors: tuple[Tensor, ...],
    layouts: tuple[Layout, ...],
    output: Tensor,
    wanted: Wanted,
    sizes: Mapping[str, int],
    mesh: Mesh,
    terms: Terms,
) -> PlannedEinsum:
    """Plan an einsum of one or two operands; arguments as of `plan_einsum`."""
    prepared = prepared_all(tensors, layouts, output, sizes, mesh)
    digits = _digits(layouts, wanted, mesh)
    question = Question(
        tuple(p.tensor for p in prepared), tuple(p.after for p in prepared), output, wanted, sizes, digits
    )
    objective = terms.objective(question)
    if len(tensors) == 1:
        return _plan_one(question, prepared[0], objective, sizes)
    key = _signature(question, prepared, sizes, terms)
    found = _found.get(key)
    if found is None:
        best = _search(question, objective, terms.max_flops, _own_flops(prepared, sizes, mesh))
        assert best.pricing is not None
        found = Found(best.placement, best.pricing.kept, best.cost, best.exact)
        if len(_found) >= REMEMBERED:
            _found.clear()
        _found[key] = found
        pricing = best.pricing
    else:
        pricing = Pricing(question, found.kept, objective)
    plan = assemble(question, prepared, found.placement, pricing)
    return _priced(plan, found.cost, found.exact, objective, sizes, mesh)


def pair_alternatives(
    tensors: tuple[Tensor, ...],
    layouts: tuple[Layout, ...],
    output: Tensor,
    wanted: Wanted,
    sizes: Mapping[str, int],
    mesh: Mesh,
    terms: Terms,
    count: int,
) -> tuple[PlannedEinsum, ...]:
    """Plans of a two-operand einsum that divide other indices, or over other axes, than the best and each other."""
    prepared = prepared_all(tensors, layouts, output, sizes, mesh)
    question = Question(
        tuple(p.tensor for p in prepared),
        tuple(p.after for p in prepared),
        output,
        wanted,
        sizes,
        _digits(layouts, wanted, mesh),
    )
    objective = terms.objective(question)
    own = _own_flops(prepared, sizes, mesh)
    avoid: frozenset[Divisions] = frozenset()
    result = []
    for number in range(count + 1):
        try:
            best = _search(question, objective, terms.max_flops, own, avoid)
        except PlanError:
            break
        assert best.pricing is not None
        avoid |= {divisions(best.placement, question)}
        if number:
            plan = assemble(question, prepared, best.placement, best.pricing)
            result.append(_priced(plan, best.cost, best.exact, objective, sizes, mesh))
    return tuple(result)


def _own_flops(prepared: tuple[Prepared, ...], sizes: Mapping[str, int], mesh: Mesh) -> int:
    """FLOPs of the local sums before the einsum."""
    plans = (Plan((), (), p.steps, p.tensor, p.after) for p in prepared)
    return sum(int(plan_flops(plan, sizes, mesh.degrees)) for plan in plans)


def _signature(question: Question, prepared: tuple[Prepared, ...], sizes: Mapping[str, int], terms: Terms) -> object:
    """Everything a placement depends on, with indices and tensors nameless."""
    operands = tuple((o.labels, o.layout, o.tensor.dtype) for o in question.operands)
    own = tuple((p.given.indices == p.tensor.indices, p.layout) for p in prepared)
    given = tuple(sizes[name] for name in question.names)
    asked = (question.out_labels, question.output.dtype, question.wanted)
    alone = tuple(sizes[i] for p in prepared if p.steps for i in p.given.indices) if terms.max_flops is not None else ()
    return (operands, own, given, asked, question.digits.mesh, terms, alone)


def _digits(layouts: tuple[Layout, ...], wanted: Wanted, mesh: Mesh) -> Digits:
    names = [axis for layout in layouts for axis in layout.axes]
    names += [axis for dim in wanted.dims if dim for axis in dim]
    return digits_of(mesh, (*names, *wanted.unreduced))


def _search(
    question: Question,
    objective: Objective,
    max_flops: int | None,
    own_flops: int,
    avoid: frozenset[Divisions] = frozenset(),
) -> Best:
    """The best placement over every choice of sums to keep; `own_flops` are those of local sums before the einsum."""
    most = most_shards(question, (1 << len(question.radices)) - 1)
    needed = most
    if max_flops is not None:
        work = question.iterations * question.flops_factor
        left = max_flops - own_flops
        if left * most < work:
            raise InfeasibleError(
                f"no placement keeps within {max_flops} FLOPs per device",
                hint=f"the least attainable is {-(-work // most) + own_flops}",
            )
        needed = -(-work // left)
    elif isinstance(objective, Seconds):
        needed = 1
    small = isinstance(objective, Seconds) and len(question.radices) <= ATOMS
    best = Best(SMALL if small else 1.0)
    for kept in keeps(question):

        def lean(kept: tuple[int, ...] = kept) -> Placement | None:
            """What moves the fewest bytes is a good guess of what is fast."""
            found = Best(4 * GUESS if small else GUESS)
            Placer(question, kept, max(needed, most), Bytes(question), found, avoid).run()
            return found.placement if found.pricing is not None else None

        Placer(question, kept, needed, objective, best, avoid, most).run(lean)
    if best.pricing is None:
        raise PlanError("no placement was found within the search's bound on work")
    return best


def keeps(question: Question) -> list[tuple[int, ...]]:
    """Which owed sums each operand may keep through the einsum: none, all, or one axis; never two the same axis."""
    options: list[list[int]] = []
    for operand in question.operands:
        owed = operand.source[1] if operand.linear else 0
        axes = [sum(1 << digit for digit in axis) & owed for axis in question.digits.whole.values()]
        options.append(list(dict.fromkeys((0, owed, *axes))))
    result = []
    for choice in product(*options):
        total = 0
        for mask in choice:
            if total & mask:
                break
            total |= mask
        else:
            result.append(choice)
    return result[:KEEPS]


def _plan_one(question: Question, prepared: Prepared, objective: Objective, sizes: Mapping[str, int]) -> PlannedEinsum:
    """One operand: sum where the data lies, then bring the (smaller) result to the wanted layout.

    Moving first can save nothing: the operand is larger than what a local sum leaves of it, by more than the number
    of partial sums. A cap on FLOPs does not apply: there is nothing to trade.
    """
    source = question.operands[0].source
    pricing = Pricing(question, (source[1],), objective)
    plan = assemble_one(question, prepared, source[0], pricing)
    cost = pricing.cost(source[0])
    return _priced(plan, cost, pricing.exact, objective, sizes, question.digits.mesh)


def _priced(
    plan: Plan, cost: int, exact: bool, objective: Objective, sizes: Mapping[str, int], mesh: Mesh
) -> PlannedEinsum:
    """A plan with its price."""
    return PlannedEinsum(
        plan,
        exact,
        "" if exact else CUT_SHORT,
        int(plan_received(plan, sizes, mesh)),
        int(plan_flops(plan, sizes, mesh.degrees)),
        cost / UNIT / FEMTO if isinstance(objective, Seconds) else None,
    )
