"""Plan one sharded einsum: the cheapest placement of mesh axes onto its indices, proven within the move set."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

from msgspec import Struct

from einscale.digits import Digits, digits_of
from einscale.errors import PlanError, UsageError, did_you_mean
from einscale.layout import Layout, Tensor
from einscale.mesh import Mesh
from einscale.plan import Plan, plan_flops, plan_received
from einscale.planner.counts import most_shards
from einscale.planner.emission import Prepared, assemble, assemble_one
from einscale.planner.objective import Bytes, Objective, Seconds
from einscale.planner.placing import Best, Placer
from einscale.planner.pricing import Pricing
from einscale.planner.prepare import check_question, prepared_all
from einscale.planner.question import Question, Wanted

if TYPE_CHECKING:
    from einscale.topology import Network

OBJECTIVES = ("bytes", "time")

CUT_SHORT = "the search stopped at its bound: a cheaper plan may exist"
"""Note of a plan whose search did not end by itself."""

KEEPS = 8
"""Most choices of which owed sums to keep through an einsum that are tried."""


class PlannedEinsum(Struct, frozen=True):
    """A plan for one einsum at given sizes.

    Args:
        plan: its steps.
        exact: whether the search ended by itself: no placement in the move set is cheaper.
        note: what cut the search short, in words; empty if nothing did.
        received: bytes a device receives.
        flops: FLOPs a device spends.
        seconds: time by the objective `time`: communication, and compute if a FLOP rate was given; else None.
    """

    plan: Plan
    exact: bool
    note: str
    received: int
    flops: int
    seconds: float | None = None


def plan_einsum(
    tensors: tuple[Tensor, ...],
    layouts: tuple[Layout, ...],
    output: Tensor,
    wanted: Wanted,
    sizes: Mapping[str, int],
    mesh: Mesh,
    *,
    network: Network | None = None,
    objective: str = "bytes",
    max_flops: int | None = None,
    flop_rate: float | None = None,
) -> PlannedEinsum:
    """Cheapest plan of one einsum.

    >>> from einscale.layout import make_layout
    >>> from einscale.mesh import make_mesh
    >>> x, w = Tensor("x", ("b", "d")), Tensor("w", ("d", "f"))
    >>> planned = plan_einsum(
    ...     (x, w),
    ...     (make_layout([("data",), ()]), make_layout([("data",), ("model",)])),
    ...     Tensor("y", ("b", "f")),
    ...     Wanted((("data",), ("model",))),
    ...     {"b": 1024, "d": 64, "f": 256},
    ...     make_mesh("data=4,model=2"),
    ... )
    >>> for step in planned.plan.steps:
    ...     print(step)
    all-gather(data) w: d/data f/model -> d f/model
    einsum x: b/data d, w: d f/model -> y: b/data f/model

    Args:
        tensors: the operands; `indices` are the labels of the einsum.
        layouts: the layout each is given in.
        output: the result.
        wanted: the layout it is to have, parts of which may be open.
        sizes: index -> size.
        mesh: the mesh.
        network: the mesh on its links; needed for the objective `time`.
        objective: `bytes`, or `time`.
        max_flops: cap on FLOPs per device. By default the least attainable for `bytes`, none for `time`.
        flop_rate: FLOP/s of a device; adds compute to the time.

    Raises:
        PlanError: the question is malformed, or no placement keeps within `max_flops`.
        LayoutError, SizeError: a layout or size is.
    """
    check_question(tensors, layouts, output, wanted, sizes, mesh)
    if objective not in OBJECTIVES:
        raise UsageError(f"unknown objective `{objective}`", hint=did_you_mean(objective, OBJECTIVES, "objectives"))
    if objective == "time" and network is None:
        raise UsageError("the objective `time` needs a network", expected="network=bind(mesh, system)")
    if len(tensors) == 1:
        return _plan_one(tensors[0], layouts[0], output, wanted, sizes, mesh, network if objective == "time" else None)
    prepared = prepared_all(tensors, layouts, output, sizes, mesh)
    digits = _digits(tensors, layouts, wanted, mesh)
    question = _question(prepared, output, wanted, sizes, digits)
    judge = Seconds(question, network, flop_rate) if objective == "time" and network is not None else Bytes(question)
    best = _search(question, prepared, judge, max_flops, sizes, mesh)
    return _result(question, prepared, best, sizes, mesh)


def _digits(tensors: tuple[Tensor, ...], layouts: tuple[Layout, ...], wanted: Wanted, mesh: Mesh) -> Digits:
    names = [axis for layout in layouts for axis in layout.axes]
    names += [axis for dim in wanted.dims if dim for axis in dim]
    return digits_of(mesh, (*names, *wanted.unreduced))


def _question(
    prepared: tuple[Prepared, ...], output: Tensor, wanted: Wanted, sizes: Mapping[str, int], digits: Digits
) -> Question:
    tensors = tuple(p.tensor for p in prepared)
    return Question(tensors, tuple(p.after for p in prepared), output, wanted, sizes, digits)


def _own_flops(prepared: tuple[Prepared, ...], sizes: Mapping[str, int], mesh: Mesh) -> int:
    """FLOPs of the local sums before the einsum."""
    plans = (Plan((), (), p.steps, p.tensor, p.after) for p in prepared)
    return sum(int(plan_flops(plan, sizes, mesh.degrees)) for plan in plans)


def _search(
    question: Question,
    prepared: tuple[Prepared, ...],
    objective: Objective,
    max_flops: int | None,
    sizes: Mapping[str, int],
    mesh: Mesh,
) -> Best:
    """The best placement over every choice of sums to keep."""
    needed = most_shards(question, (1 << len(question.radices)) - 1)
    if max_flops is None and isinstance(objective, Seconds):
        needed = 1
    elif max_flops is not None:
        left = max_flops - _own_flops(prepared, sizes, mesh)
        work = question.iterations * question.flops_factor
        if left * needed < work:
            raise PlanError(
                f"no placement keeps within {max_flops} FLOPs per device",
                hint=f"the least attainable is {-(-work // needed) + max_flops - left}",
            )
        needed = -(-work // left)
    best = Best()
    for kept in keeps(question):
        Placer(question, kept, needed, objective, best).run()
    if best.pricing is None:
        raise PlanError("no placement was found within the search's bounds")
    return best


def keeps(question: Question) -> list[tuple[int, ...]]:
    """Which owed sums each operand may keep through the einsum: none, or all of it, or of one axis; never two the same."""
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


def _result(
    question: Question, prepared: tuple[Prepared, ...], best: Best, sizes: Mapping[str, int], mesh: Mesh
) -> PlannedEinsum:
    assert best.pricing is not None
    plan = assemble(question, prepared, best.placement, best.pricing)
    note = "" if best.exact else CUT_SHORT
    return planned(plan, best.exact, note, sizes, mesh)


def planned(plan: Plan, exact: bool, note: str, sizes: Mapping[str, int], mesh: Mesh) -> PlannedEinsum:
    """A plan with its price."""
    received = int(plan_received(plan, sizes, mesh))
    return PlannedEinsum(plan, exact, note, received, int(plan_flops(plan, sizes, mesh.degrees)))


def _plan_one(
    tensor: Tensor,
    layout: Layout,
    output: Tensor,
    wanted: Wanted,
    sizes: Mapping[str, int],
    mesh: Mesh,
    network: Network | None,
) -> PlannedEinsum:
    """One operand: sum where the data lies, then bring the (smaller) result to the wanted layout.

    Moving first can save nothing: the operand is larger than what a local sum leaves of it, by more than the number
    of partial sums. A cap on FLOPs does not apply: there is nothing to trade.
    """
    prepared = prepared_all((tensor,), (layout,), output, sizes, mesh)
    digits = _digits((tensor,), (layout,), wanted, mesh)
    question = _question(prepared, output, wanted, sizes, digits)
    source = question.operands[0].source
    judge = Bytes(question) if network is None else Seconds(question, network, None)
    pricing = Pricing(question, (source[1],), judge)
    plan = assemble_one(question, prepared[0], source[0], pricing)
    note = "" if pricing.exact else CUT_SHORT
    return planned(plan, pricing.exact, note, sizes, mesh)


def forget() -> None:
    """Forget remembered plans."""
