"""The move between two layouts that does not depend on sizes: one collective where one does it, else a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from einscale.causes import Cause
from einscale.collectives import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, REDUCE_SCATTER, SLICE, Collective, check_move
from einscale.errors import LayoutError
from einscale.layout import Layout, Tensor
from einscale.mesh import Mesh, split_name
from einscale.planner.decisions import Searched
from einscale.planner.planned import Decision
from einscale.reshard import reshard
from einscale.vocabulary import SUM, CollectiveKind

_Move: TypeAlias = tuple[CollectiveKind, tuple[str, ...], Layout]


def direct(
    tensor: Tensor,
    before: Layout,
    after: Layout,
    sizes: Mapping[str, int],
    mesh: Mesh,
    cause: Cause | None,
    decisions: list[Decision] | None = None,
) -> tuple[Collective, ...]:
    """Moves of a tensor between two layouts of a program under a strategy.

    A slice, a gather, a reduction (and then a gather or an all-to-all), or a reduce-scatter (and a reduction of what
    else is owed) is taken where it does the whole move, though a detour over mesh axes that hold the tensor whole may
    move fewer bytes: that is what frameworks run, and one structure then holds for every size. Everything else is the
    cheapest path, which sizes have a say in: `decisions` is told.

    >>> from einscale.layout import make_layout
    >>> from einscale.mesh import make_mesh
    >>> owing, resting = make_layout([()], ["data", "model"]), make_layout([("data",)])
    >>> [str(m) for m in direct(Tensor("g", ("d",)), owing, resting, {"d": 64}, make_mesh("data=2,model=4"), None)]
    ['reduce-scatter(data) g: d {U:data,model} -> d/data {U:model}', 'all-reduce(model) g: d/data {U:model} -> d/data']
    """
    lost, gained = _difference(before, after), _difference(after, before)
    owed = tuple(axis for axis in before.unreduced if axis not in after.unreduced)
    rest = tuple(axis for axis in owed if axis not in gained)
    moves: list[_Move] = []
    settled = Layout(before.dims, tuple(axis for axis in before.unreduced if axis not in owed), before.reduction)
    settled = settled if settled.unreduced else settled.reduced()
    if gained and not lost and not owed:
        moves = [(SLICE, gained, after)]
    elif lost and not gained:
        moves = [(ALL_REDUCE, owed, settled)] if owed else []
        moves += [(ALL_GATHER, lost, after)]
    elif owed and not lost and not gained:
        moves = [(ALL_REDUCE, owed, after)]
    elif owed and not lost and set(gained) <= set(owed):
        left = tuple(axis for axis in before.unreduced if axis not in gained)
        scattered = Layout(after.dims, left, before.reduction if left else SUM)
        moves = [(REDUCE_SCATTER, gained, scattered)]
        moves += [(ALL_REDUCE, rest, after)] if rest else []
    elif owed and set(lost) == set(gained) and not set(lost) & set(owed):
        moves = [(ALL_REDUCE, owed, settled), (ALL_TO_ALL, lost, after)]
    chain = _chain(tensor, before, moves, mesh, cause)
    if chain:
        return chain
    found = reshard(tensor, before, after, sizes, mesh, cause=cause)
    if decisions is not None:
        decisions.append(Searched(tensor, before, after, found))
    return found


def _difference(one: Layout, other: Layout) -> tuple[str, ...]:
    """Mesh axes that divide a dim of the first layout and not of the second, in the first's order."""
    pairs = zip(one.dims, other.dims, strict=True)
    return tuple(axis for mine, theirs in pairs for axis in mine if axis not in theirs)


def _chain(
    tensor: Tensor,
    before: Layout,
    moves: list[_Move],
    mesh: Mesh,
    cause: Cause | None,
) -> tuple[Collective, ...]:
    """The moves as collectives, or nothing if one of them is none that a collective makes."""
    steps = []
    for kind, axes, after in moves:
        ordered = tuple(sorted(axes, key=lambda axis: _place(axis, mesh)))
        step = Collective(kind, tensor, ordered, before, after, cause)
        try:
            check_move(step, mesh)
        except LayoutError:
            return ()
        steps.append(step)
        before = after
    return tuple(steps)


def _place(axis: str, mesh: Mesh) -> tuple[int, int]:
    """Where an axis or a part of one stands in the mesh, major to minor."""
    name, before, _ = split_name(axis)
    return mesh.names.index(name), before
