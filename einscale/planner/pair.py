"""Plan an einsum of one or two operands: the cheapest placement of mesh axes onto its indices."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from msgspec import Struct

from einscale.collectives import Collective, received_total
from einscale.digits import Digits, digits_of
from einscale.errors import InfeasibleError, PlanError
from einscale.layout import Layout, Tensor
from einscale.mesh import Mesh
from einscale.planner.canonical import canonical_order
from einscale.planner.counts import classes_of, count_vectors, most_shards, single_digits
from einscale.planner.emission import Prepared, assemble
from einscale.planner.objective import Bytes, Objective, Seconds
from einscale.planner.placing import ATOMS, BestPlacing, Divisions, Guess, Placer, divisions
from einscale.planner.prepare import prepared_ways
from einscale.planner.pricing import Pricing
from einscale.planner.question import Placement, Question, Wanted
from einscale.reshard.search import UNIT
from einscale.reshard.timed import FEMTO
from einscale.roofline import local_seconds
from einscale.steps import Plan, Step, compute_dtype, plan_flops, plan_received, step_flops, work_traffic

if TYPE_CHECKING:
    from einscale.topology import Network

CUT_SHORT = "the search stopped at its bound on work: a cheaper plan may exist"
"""Note of a plan whose search did not end by itself."""

GUESS = 0.05
"""Share of the work allowed by bytes that is spent on a first guess by time."""

SMALL = 8.0
"""Times more work by time on a small mesh, where single digits are handed out."""

FIRST_LOOK = 0.25
"""Least share of the work allowed that each choice of sums to keep spends on whole axes by time."""

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
        seconds: for the objective `time`, that of all moves and of the local work, one after the other; else None.
        work: what the search looked at: partial placements, and moves in the reshards around them.
    """

    plan: Plan
    exact: bool
    note: str
    received: int
    flops: int
    seconds: float | None = None
    work: int = 0


class Terms(Struct, frozen=True):
    """By what a plan is judged.

    Args:
        network: the mesh on its links, for the objective time; None judges by bytes.
        flop_rate: FLOP/s of a device; None takes that of the network's chip.
        max_flops: cap on FLOPs per device; None is the least attainable without padding by bytes, and no cap by time.
        effort: share of the usual work that the search may do.
    """

    network: Network | None = None
    flop_rate: float | None = None
    max_flops: int | None = None
    effort: float = 1.0

    def objective(self, question: Question, most_points: int | None = None, base: int = 0) -> Objective:
        """The judge of a question's plans."""
        if self.network is None:
            return Bytes(question, most_points, base)
        return Seconds(question, self.network, self.flop_rate, most_points, base)


class Found(Struct, frozen=True):
    """What a search found, free of names.

    Args:
        way: number of the way to deal with lonely and repeated indices.
        placement: where the einsum runs; `kept`, the sums that stay owed through it.
        cost: by the objective.
        exact: whether the search ended by itself.
        work: what it looked at.
    """

    way: int
    placement: Placement
    kept: tuple[int, ...]
    cost: int
    exact: bool
    work: int


_found: dict[object, Found] = {}


def forget() -> None:
    """Forget remembered placements."""
    _found.clear()


class _Asked:
    """One question about two operands at most, in canonical order, and every way to put it.

    Args:
        tensors, layouts, output, wanted, sizes, mesh, terms: as of `plan_einsum`.
    """

    def __init__(
        self,
        tensors: tuple[Tensor, ...],
        layouts: tuple[Layout, ...],
        output: Tensor,
        wanted: Wanted,
        sizes: Mapping[str, int],
        mesh: Mesh,
        terms: Terms,
    ) -> None:
        """Find the order; questions are made when they are needed."""
        self.tensors, self.layouts = tensors, layouts
        self.output, self.wanted, self.sizes, self.mesh, self.terms = output, wanted, sizes, mesh, terms
        self.digits = _digits(layouts, wanted, mesh)
        self.order = canonical_order(tensors, layouts, output, wanted, sizes, self.digits)
        ordered = tuple(tensors[k] for k in self.order), tuple(layouts[k] for k in self.order)
        self.ways = prepared_ways(*ordered, output, sizes, mesh, terms.network)
        self._questions: dict[tuple[int, bool], Question] = {}

    def prepared(self, way: int) -> tuple[Prepared, ...]:
        """The operands of one way, as written."""
        place = {k: at for at, k in enumerate(self.order)}
        return tuple(self.ways[way][place[k]] for k in range(len(place)))

    def question(self, way: int, *, written: bool = False) -> Question:
        """The question of one way, in canonical order or as written; made once."""
        swapped = written and self.order != tuple(range(len(self.order)))
        found = self._questions.get((way, swapped))
        if found is None:
            ordered = self.prepared(way) if swapped else self.ways[way]
            found = self._questions[way, swapped] = self._put(ordered)
        return found

    def _put(self, ordered: tuple[Prepared, ...]) -> Question:
        return Question(
            tuple(p.tensor for p in ordered),
            tuple(p.after for p in ordered),
            self.output,
            self.wanted,
            self.sizes,
            self.digits,
        )

    def signature(self) -> object:
        """Everything a placement depends on, with indices and tensors nameless."""
        tensors = [self.tensors[k] for k in self.order]
        number: dict[str, int] = {}
        for tensor in tensors:
            for index in tensor.indices:
                number.setdefault(index, len(number))
        operands = tuple(
            (tuple(number[i] for i in t.indices), self.layouts[k], t.dtype, tuple((number[i], n) for i, n in t.chosen))
            for t, k in zip(tensors, self.order, strict=True)
        )
        chosen = tuple((number[i], n) for i, n in self.output.chosen)
        asked = (tuple(number[i] for i in self.output.indices), self.output.dtype, chosen, self.wanted)
        twins = len(set(tensors)) < len(tensors)
        return (operands, twins, tuple(self.sizes[i] for i in number), asked, self.mesh, self.terms)

    def base(self, way: int) -> int:
        """Cost of what is done to the operands first, in the objective's units."""
        steps = [step for p in self.ways[way] for step in p.steps]
        if self.terms.network is not None:
            return int(sum(self.seconds(step) for step in steps) * FEMTO)
        moved = sum(int(received_total(step, self.sizes, self.mesh)) for step in steps if isinstance(step, Collective))
        return moved * self.mesh.devices

    def seconds(self, step: Step) -> float:
        """Time of one step, as a report prints it."""
        from einscale.topology import step_seconds

        network, rate = self.terms.network, self.terms.flop_rate
        assert network is not None
        if isinstance(step, Collective):
            return float(step_seconds(step, self.sizes, network))
        flops = int(step_flops(step, self.sizes, self.mesh.degrees))
        traffic = int(work_traffic(step, self.sizes, self.mesh.degrees))
        chip = network.system.chip
        if rate is None:
            return float(local_seconds(flops, traffic, compute_dtype(step.inputs), chip).seconds)
        return float(max(flops / rate, traffic / chip.memory_bandwidth.used))

    def own_flops(self, way: int) -> int:
        """FLOPs of the local sums before the einsum."""
        plans = (Plan((), (), p.steps, p.tensor, p.after) for p in self.ways[way])
        return sum(int(plan_flops(plan, self.sizes, self.mesh.degrees)) for plan in plans)

    def plan(self, found: Found, pricing: Pricing | None) -> PlannedEinsum:
        """The plan of what was found; `pricing` of the search, if there was one just now."""
        prepared = self.prepared(found.way)
        placement = found.placement
        canonical, question = self.question(found.way), self.question(found.way, written=True)
        if pricing is None or canonical is not question:
            by_name = dict(zip(canonical.names, placement, strict=True))
            placement = tuple(by_name[name] for name in question.names)
            kept = dict(zip(self.order, found.kept, strict=True))
            objective = self.terms.objective(question)
            pricing = Pricing(question, tuple(kept[k] for k in range(len(self.order))), objective)
        plan = assemble(pricing.question, prepared, placement, pricing)
        seconds = None
        if self.terms.network is not None:
            sliced = any(p.steps for p in prepared)  # a slice may have come before a sum, which is then shorter
            seconds = sum(map(self.seconds, plan.steps)) if sliced else found.cost / UNIT / FEMTO
        return PlannedEinsum(
            plan,
            found.exact,
            "" if found.exact else CUT_SHORT,
            int(plan_received(plan, self.sizes, self.mesh)),
            int(plan_flops(plan, self.sizes, self.mesh.degrees)),
            seconds,
            found.work,
        )


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
    asked = _Asked(tensors, layouts, output, wanted, sizes, mesh, terms)
    key = asked.signature()
    found = _found.get(key)
    pricing = None
    if found is None:
        found, pricing = _search(asked)
        if len(_found) >= REMEMBERED:
            _found.clear()
        _found[key] = found
    return asked.plan(found, pricing)


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
    asked = _Asked(tensors, layouts, output, wanted, sizes, mesh, terms)
    avoid: frozenset[Divisions] = frozenset()
    result = []
    for number in range(count + 1):
        try:
            found, pricing = _search(asked, avoid)
        except PlanError:
            break
        avoid |= {divisions(found.placement, pricing.question)}
        if number:
            result.append(asked.plan(found, pricing))
    return tuple(result)


def _digits(layouts: tuple[Layout, ...], wanted: Wanted, mesh: Mesh) -> Digits:
    names = [axis for layout in layouts for axis in layout.axes]
    names += [axis for dim in wanted.dims if dim for axis in dim]
    return digits_of(mesh, (*names, *wanted.unreduced))


class _Cap(Struct, frozen=True):
    """How far the work must be divided.

    Args:
        most_points: most points of the iteration space on a device; None for no limit.
        needed: shards without which that cannot be.
        most: shards that keep within it for sure, and are worth a try.
    """

    most_points: int | None
    needed: int
    most: int


def _cap(question: Question, own_flops: int, limit: int | None) -> _Cap | None:
    """The cap on the work of one way to put a question; None if nothing keeps within it.

    Args:
        question: what is planned.
        own_flops: FLOPs of local sums before the einsum.
        limit: cap on all FLOPs; None for none.
    """
    padded, rooms = question.even
    most = most_shards(question, rooms)
    factor = question.flops_factor
    if limit is None or factor == 0:
        return _Cap(None, 1, most)
    points = (limit - own_flops) // factor
    if points < 1:
        return None
    whole = prod(padded)
    if points * most < whole and _fewest_points(question) > points:
        return None
    needed = -(-question.iterations // points)
    if all(size % limit == 0 for size, limit in zip(question.sizes, question.limits, strict=True)):
        return _Cap(None, needed, most)  # so many shards are enough, wherever they are
    return _Cap(points, needed, max(1, min(most, -(-whole // points))))


def _fewest_points(question: Question) -> int:
    """Fewest points of the iteration space on a device, padding allowed."""
    every = (1 << len(question.radices)) - 1
    found, _ = count_vectors(classes_of(question, single_digits(question), every), 1, question.limits)
    return min(question.points(counts) for counts in found)


def _least_flops(asked: _Asked) -> int:
    """Least FLOPs of a device without padding, the operands' own sums made first."""
    question = asked.question(0)
    padded, rooms = question.even
    return -(-prod(padded) // most_shards(question, rooms)) * question.flops_factor + asked.own_flops(0)


def _search(asked: _Asked, avoid: frozenset[Divisions] = frozenset()) -> tuple[Found, Pricing]:
    """The best placement over every way to put the question and every choice of sums to keep."""
    terms = asked.terms
    by_time = terms.network is not None
    alone = len(asked.tensors) == 1
    limit = None if alone else terms.max_flops
    if limit is None and not by_time and not alone:
        limit = _least_flops(asked)
    best: BestPlacing | None = None
    placers: list[tuple[int, Placer, _Cap]] = []
    every = True
    for number in range(len(asked.ways)):
        question = asked.question(number)
        cap = _cap(question, asked.own_flops(number), limit)
        if cap is None:
            continue
        if best is None:
            small = by_time and len(question.radices) <= ATOMS
            best = BestPlacing((SMALL if small else 1.0) * terms.effort)
        objective = terms.objective(question, cap.most_points, asked.base(number))
        choices, complete = keeps(question)
        every = every and complete
        for kept in choices:
            placers.append((number, Placer(question, kept, cap.needed, objective, best, avoid, cap.most), cap))
    if best is None:
        least = min(
            _fewest_points(question) * question.flops_factor + asked.own_flops(number)
            for number, question in enumerate(map(asked.question, range(len(asked.ways))))
        )
        raise InfeasibleError(
            f"no placement keeps within {limit} FLOPs per device", hint=f"the least attainable is {least}"
        )
    for _, placer, _ in placers:
        placer.start(max(FIRST_LOOK, 1 / len(placers)))
    placers.sort(key=lambda entry: entry[1].promise)
    for k, (_, placer, cap) in enumerate(placers):
        share = 1.0 if k + 1 == len(placers) else 1 - 0.5 ** (k + 1)
        placer.finish(share, _lean(placer, cap, avoid) if by_time else None)
    if best.pricing is None:
        raise PlanError("no placement was found within the search's bound on work")
    exact = best.exact and every and not (by_time and len(asked.ways) > 1)
    way = next(number for number, placer, _ in placers if placer.pricing is best.pricing)
    work = best.nodes + best.work + best.aside
    return Found(way, best.placement, best.pricing.kept, best.cost, exact, work), best.pricing


def _lean(placer: Placer, cap: _Cap, avoid: frozenset[Divisions]) -> Guess:
    """What moves the fewest bytes is a good guess of what is fast."""
    question, best = placer.question, placer.best

    def guess() -> Placement | None:
        found = BestPlacing(4 * GUESS if len(question.radices) <= ATOMS else GUESS)
        by_bytes = Bytes(question, cap.most_points)
        other = Placer(question, placer.pricing.kept, max(cap.needed, cap.most), by_bytes, found, avoid)
        other.start(1.0)
        other.finish(1.0)
        best.aside += found.work + found.nodes
        return found.placement if found.pricing is not None else None

    return guess


def keeps(question: Question) -> tuple[list[tuple[int, ...]], bool]:
    """Which owed sums each operand may keep through the einsum, and whether that is every choice there is.

    Any set of whole mesh axes that it owes; never two operands the same axis.
    """
    options: list[list[int]] = []
    parts = False
    for operand in question.operands:
        owed = operand.source[1] if operand.linear else 0
        axes = [sum(1 << digit for digit in axis) & owed for axis in question.digits.whole.values()]
        axes = [axis for axis in axes if axis]
        parts = parts or any(axis & (axis - 1) for axis in axes)
        sets = {0: None, owed: None, **dict.fromkeys(axes)}
        for some in product((0, 1), repeat=len(axes)):
            sets[sum(axis for axis, taken in zip(axes, some, strict=True) if taken)] = None
        options.append(list(sets))
    result = []
    for choice in product(*options):
        total = 0
        for mask in choice:
            if total & mask:
                break
            total |= mask
        else:
            result.append(choice)
    return result[:KEEPS], len(result) <= KEEPS and not parts
