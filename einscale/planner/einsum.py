"""Plan one sharded einsum: the cheapest placement of mesh axes onto its indices, exact within its move set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from einscale.errors import UsageError, did_you_mean
from einscale.layout import Layout, Tensor
from einscale.mesh import Mesh
from einscale.planner import pair
from einscale.planner.nary import plan_many
from einscale.planner.pair import PlannedEinsum, Terms, pair_alternatives, plan_pair
from einscale.planner.prepare import check_question
from einscale.planner.question import Wanted
from einscale.vocabulary import BYTES, TIME

if TYPE_CHECKING:
    from einscale.topology import Network

__all__ = ["PlannedEinsum", "Wanted", "alternatives", "forget", "plan_einsum"]

OBJECTIVES = (BYTES, TIME)

REMEMBERED = 4_000
"""Whole plans kept; then all are forgotten."""

_plans: dict[object, PlannedEinsum] = {}


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
    effort: float = 1.0,
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
        objective: `bytes`, then number of collectives; or `time`.
        max_flops: cap on FLOPs per device. By default the least attainable without padding for `bytes`, none for
            `time`. One operand has nothing to trade, so no cap applies.
        flop_rate: FLOP/s of a device for the objective `time`; by default that of the network's chip.
        effort: share of the usual work that the search may do; it ends earlier where it has found the cheapest plan.

    Raises:
        PlanError: the question is malformed, or no placement keeps within `max_flops`.
        LayoutError, SizeError: a layout or size is.
        UsageError: the objective is unknown, or `time` without a network.
    """
    if objective not in OBJECTIVES:
        raise UsageError(f"unknown objective `{objective}`", hint=did_you_mean(objective, OBJECTIVES, "objectives"))
    if objective == TIME and network is None:
        raise UsageError("the objective `time` needs a network", expected="network=bind(mesh, system)")
    check_question(tensors, layouts, output, wanted, sizes, mesh)
    terms = Terms(network if objective == TIME else None, flop_rate, max_flops, effort)
    return _remembered(tensors, layouts, output, wanted, sizes, mesh, terms)


def _remembered(
    tensors: tuple[Tensor, ...],
    layouts: tuple[Layout, ...],
    output: Tensor,
    wanted: Wanted,
    sizes: Mapping[str, int],
    mesh: Mesh,
    terms: Terms,
) -> PlannedEinsum:
    """The plan, from memory where the same was asked before."""
    given = tuple(sizes[index] for tensor in tensors for index in tensor.indices)
    key = (tensors, layouts, output, wanted, given, mesh, terms)
    found = _plans.get(key)
    if found is None:
        ask = plan_pair if len(tensors) <= 2 else plan_many
        found = ask(tensors, layouts, output, wanted, sizes, mesh, terms)
        if len(_plans) >= REMEMBERED:
            _plans.clear()
        _plans[key] = found
    return found


def alternatives(
    tensors: tuple[Tensor, ...],
    layouts: tuple[Layout, ...],
    output: Tensor,
    wanted: Wanted,
    sizes: Mapping[str, int],
    mesh: Mesh,
    *,
    count: int = 3,
    network: Network | None = None,
    objective: str = "bytes",
    max_flops: int | None = None,
    flop_rate: float | None = None,
) -> tuple[PlannedEinsum, ...]:
    """The next-best plans of a two-operand einsum, best first: each divides other indices, or over other axes.

    Arguments as of `plan_einsum`. None for one operand, which leaves nothing to place, and for three and more.
    """
    if len(tensors) != 2:
        return ()
    check_question(tensors, layouts, output, wanted, sizes, mesh)
    terms = Terms(network if objective == TIME else None, flop_rate, max_flops)
    return pair_alternatives(tensors, layouts, output, wanted, sizes, mesh, terms, count)


def forget() -> None:
    """Forget every plan and placement, as a fresh process would."""
    _plans.clear()
    pair.forget()
