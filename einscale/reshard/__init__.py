"""The cheapest way from one layout of a tensor to another, as collectives."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import gcd, lcm
from typing import TYPE_CHECKING

from einscale.causes import Cause, CauseRule
from einscale.collectives import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    FREE,
    MASK,
    PERMUTE,
    REDUCE_SCATTER,
    SLICE,
    Collective,
)
from einscale.digits import Digits, digits_of
from einscale.dtypes import bytes_of
from einscale.errors import LayoutError, UsageError, did_you_mean
from einscale.layout import Layout, Tensor, check_layout, chosen_share
from einscale.mesh import Mesh
from einscale.reshard.answers import solve
from einscale.reshard.moves import Move, State, digits_in, mask_of
from einscale.reshard.search import MERGED, fused_steps
from einscale.reshard.timed import DigitLinks, solve_timed
from einscale.vocabulary import BYTES, SUM, TIME

if TYPE_CHECKING:
    from einscale.topology import Network

__all__ = ["MERGED", "emit", "links_of", "reshard", "rooms", "solve", "to_state"]

OBJECTIVES = (BYTES, TIME)


def reshard(
    tensor: Tensor,
    before: Layout,
    after: Layout,
    sizes: Mapping[str, int],
    mesh: Mesh,
    *,
    network: Network | None = None,
    objective: str = "bytes",
    cause: Cause | None = None,
    split_axes: bool = True,
    share_replicas: bool = True,
) -> tuple[Collective, ...]:
    """Cheapest moves from `before` to `after`.

    By bytes received, then number of collectives; or, for the objective `time`, by seconds on the network's links.

    >>> from einscale.layout import make_layout
    >>> from einscale.mesh import make_mesh
    >>> before, after = make_layout([("y",), (), ("x",)]), make_layout([(), ("x", "y"), ()])
    >>> tensor = Tensor("A", ("i", "j", "k"))
    >>> for step in reshard(tensor, before, after, {"i": 8, "j": 8, "k": 8}, make_mesh("x=4,y=2")):
    ...     print(step)
    all-to-all(x,y) A: i/y j k/x -> i j/x/y k

    Args:
        tensor: what moves.
        before: the layout it is in.
        after: the layout it is to have.
        sizes: index -> size.
        mesh: the mesh.
        network: the mesh on its links, for the objective `time`.
        objective: `bytes` or `time`.
        cause: why it moves; by default each step says what it does.
        split_axes: whether parts of a mesh axis may move apart from each other.
        share_replicas: whether devices that hold the same data, along axes in neither layout, may share the work of a
            move and gather last. It moves fewer bytes in more steps.

    Raises:
        LayoutError: a layout is not one of this tensor on this mesh, or the two owe different reductions.
        UsageError: the objective is unknown, or `time` without a network.
    """
    if objective not in OBJECTIVES:
        raise UsageError(f"unknown objective `{objective}`", hint=did_you_mean(objective, OBJECTIVES, "objectives"))
    _check(tensor, before, after, mesh)
    digits = digits_of(mesh, before.axes + after.axes, split=split_axes)
    source, target = to_state(before, digits), to_state(after, digits)
    room = rooms(tensor, (source, target), sizes, digits)
    if objective == TIME:
        links = links_of(digits, network)
        path = solve_timed(
            source, target, room, volume(tensor, (source, target), sizes, digits), links, idle=share_replicas
        )
    else:
        path = solve(source, target, digits.radices, room, mesh.devices, idle=share_replicas)
    return emit(tensor, before, after, path.steps, digits, cause, merged=MERGED if objective == BYTES else FREE)


@lru_cache(maxsize=64)
def links_of(digits: Digits, network: Network | None) -> DigitLinks:
    """What moves cost on a network.

    Raises:
        UsageError: there is no network.
    """
    if network is None:
        raise UsageError("the objective `time` needs a network", expected="network=bind(mesh, system)")
    return DigitLinks(digits, network)


def _check(tensor: Tensor, before: Layout, after: Layout, mesh: Mesh) -> None:
    for layout in (before, after):
        check_layout(layout, mesh, f"`{tensor.name}`")
        if len(layout.dims) != len(tensor.indices):
            raise LayoutError(f"a layout of {len(layout.dims)} dims for {tensor}, which has {len(tensor.indices)}")
    if before.unreduced and after.unreduced and before.reduction != after.reduction:
        raise LayoutError(f"`{tensor.name}` owes a {before.reduction}, and cannot owe a {after.reduction} instead")


def to_state(layout: Layout, digits: Digits) -> State:
    """A layout in digits."""
    return digits.dims(layout.dims), mask_of(digits.expand(layout.unreduced))


def rooms(tensor: Tensor, states: tuple[State, ...], sizes: Mapping[str, int], digits: Digits) -> tuple[int, ...]:
    """Per dim the number that its shard count must divide, after padding to what the given layouts need."""
    result = []
    for d, index in enumerate(tensor.indices):
        counts = lcm(*(digits.size(state[0][d]) for state in states))
        result.append(gcd(-(-sizes[index] // counts) * counts, digits.mesh.devices))
    return tuple(result)


def volume(tensor: Tensor, states: tuple[State, ...], sizes: Mapping[str, int], digits: Digits) -> int:
    """Bytes of the whole tensor, its dims padded to what the given layouts need."""
    elements = 1
    for d, index in enumerate(tensor.indices):
        counts = lcm(*(digits.size(state[0][d]) for state in states))
        elements *= -(-sizes[index] // counts) * counts
    return int(bytes_of(chosen_share(elements, tensor.chosen, sizes), tensor.dtype))


def emit(
    tensor: Tensor,
    before: Layout,
    after: Layout,
    steps: tuple[Move, ...],
    digits: Digits,
    cause: Cause | None = None,
    *,
    merged: tuple[str, ...] = MERGED,
) -> tuple[Collective, ...]:
    """The steps of a path as collectives with named axes; neighbours of one of the kinds `merged` become one move."""
    fused = fused_steps(steps, merged)
    reduction = before.reduction if before.unreduced else after.reduction
    result = []
    here = before
    for k, (kind, moved, (dims, owed)) in enumerate(fused):
        there = after
        if k + 1 < len(fused):
            owes = tuple(sorted(digits.mesh_names(digits_in(owed))))
            there = Layout(tuple(digits.names(dim) for dim in dims), owes, reduction if owes else SUM)
        step = Collective(kind, tensor, digits.mesh_names(moved), here, there)
        result.append(Collective(kind, tensor, step.axes, here, there, cause or explained(step)))
        here = there
    return tuple(result)


_CAUSES = {
    SLICE: CauseRule.HELD_WHOLE,
    MASK: CauseRule.OWED,
    ALL_GATHER: CauseRule.WANTED_WHOLE,
    REDUCE_SCATTER: CauseRule.SUM_IN_PARTS,
    ALL_REDUCE: CauseRule.SUM_WHOLE,
    ALL_TO_ALL: CauseRule.OTHER_DIM,
    PERMUTE: CauseRule.OTHER_DEVICES,
}


def explained(step: Collective) -> Cause:
    """Why a move of a reshard is made: what it does."""
    pairs = zip(step.tensor.indices, step.before.dims, step.after.dims, strict=True)
    changed = tuple(index for index, one, other in pairs if one != other)
    divides = step.kind in (SLICE, REDUCE_SCATTER)
    before, after = ((), changed) if divides else (changed, ())
    return Cause(_CAUSES[step.kind], step.tensor.name, step.axes, before, after)
