"""What one side of a comparison is made of: pieces of a step that add up to its time, FLOPs and bytes.

A piece is the collectives of one tensor, the local work of one statement, or a part of the step's time that belongs to
no statement. Pieces of two sides are matched by their key; their differences are the terms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from einscale.causes import Cause
from einscale.checks import role_names
from einscale.collectives import FREE
from einscale.comparison.values import About, Divided, Doing, LocalWork, Moves, Runs, Scope, WorkDivision
from einscale.layout import shards
from einscale.mesh import Mesh, join_parts, part_order, split_name
from einscale.numeric import ceil_div, product
from einscale.planner.planned import PlannedProgram
from einscale.price.overlap import what_moves
from einscale.price.program import NOTHING, PricedStatement, Totals
from einscale.price.spent import TimePart
from einscale.steps import LocalEinsum
from einscale.training.moves import step_moves
from einscale.training.step import trained_layers
from einscale.training.values import LayerCost, TrainReport
from einscale.vocabulary import CollectiveKind, Moving, Phase

Key = tuple[str, ...]
"""What a piece is matched by: about, layer, phase, section, name."""

OWN_PARTS = {
    TimePart.ACCUMULATE: "compute_seconds",
    TimePart.OFFLOADED_ACTIVATIONS: "communication_seconds",
    TimePart.OFFLOADED_OPTIMIZER: "communication_seconds",
    TimePart.BUBBLE: "waiting_seconds",
    TimePart.WAIT: "waiting_seconds",
    TimePart.FIRST_AND_LAST: "communication_seconds",
}
"""Parts of a step's time that belong to no statement, and what they count as."""


class Piece(Struct, frozen=True):
    """A piece of a side.

    Args:
        about: what it is.
        layer: kind of layer.
        phase: of the step.
        section: of the layer.
        name: the tensor that moves, or the result of the statement.
        what: class of the tensor, `einsum` or `map`, or the part of the step's time.
        doing: what the side does.
        cause: why its largest collective runs.
        totals: what it costs.
        weight: seconds of the collective that `cause` is of.
    """

    about: About
    layer: str
    phase: Phase | Literal[""]
    section: str
    name: str
    what: Moving | LocalWork | TimePart
    doing: Doing
    cause: Cause | None
    totals: Totals
    weight: float = 0.0

    @property
    def key(self) -> Key:
        """What it is matched by."""
        return self.about, self.layer, self.phase, self.section, self.name

    def joined(self, other: Piece) -> Piece:
        """Both as one: the collectives of one tensor."""
        assert isinstance(self.doing, tuple) and isinstance(other.doing, tuple)
        heavier = other if other.weight > self.weight else self
        moves = {(one.kind, one.axes): one.count for one in self.doing}
        for one in other.doing:
            moves[one.kind, one.axes] = moves.get((one.kind, one.axes), 0) + one.count
        doing = tuple(Moves(kind, axes, count) for (kind, axes), count in moves.items())
        return replace(heavier, doing=doing, totals=self.totals.plus(other.totals))


class View(Struct, frozen=True):
    """One side, and how its mesh axes are to be written.

    Args:
        report: its step.
        scope: what of it is looked at.
        sized: write the devices of a mesh axis beside its role, for meshes that differ.
    """

    report: TrainReport
    scope: Scope
    sized: bool

    def written(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Mesh axes as the roles they play; a part of an axis keeps its place, a whole one its devices if wanted."""
        mesh = self.report.setup.mesh
        roles = role_names(self.report.setup.strategy, mesh)
        names = []
        for axis in axes:
            whole = split_name(axis)[0]
            size = f"={mesh.size(axis)}" if self.sized and axis == whole else ""
            names.append(roles.get(whole, whole) + axis[len(whole) :] + size)
        return tuple(names)

    def divided(self, dims: Iterable[tuple[str, tuple[str, ...]]]) -> Divided:
        """The indices that are divided, mesh axes as the roles they play."""
        return tuple((index, self.written(axes)) for index, axes in dims if axes)

    @property
    def runs(self) -> dict[str, Runs]:
        """Kind of layer -> how often it is run: on the stage that works longest, or in the model for one microbatch."""
        setup = self.report.setup
        if self.scope is Scope.LAYER:
            return {layer.kind: Runs(layer.repeat, 1) for layer in trained_layers(setup)}
        return {kind: Runs(count, setup.each) for kind, count in self.report.busiest.layers}


def pieces(side: View) -> dict[Key, Piece]:
    """Everything a side is made of, by what it is matched by."""
    found: dict[Key, Piece] = {}
    for piece in (*_collectives(side), *_work(side), *_parts(side)):
        known = found.get(piece.key)
        found[piece.key] = known.joined(piece) if known is not None else piece
    return found


def whole(found: Mapping[Key, Piece]) -> Totals:
    """The sum of all pieces."""
    result = NOTHING
    for piece in found.values():
        result = result.plus(piece.totals)
    return result


def _collectives(side: View) -> Iterator[Piece]:
    if side.scope is Scope.LAYER:
        for layer in side.report.layers:
            yield from _layer_collectives(side, layer, side.runs[layer.kind].layers)
        return
    for move in step_moves(side.report):
        step = move.priced.step
        totals = replace(NOTHING, received=move.bytes, communication_seconds=move.exposed)
        yield _moved(
            side,
            step.kind,
            step.axes,
            step.cause,
            totals,
            (move.layer, move.phase, move.section),
            move.what,
            step.tensor.name,
        )


def _layer_collectives(side: View, layer: LayerCost, times: int) -> Iterator[Piece]:
    """Those of every layer of a kind, for one microbatch."""
    for row in layer.rows:
        for priced in row.collectives:
            step = priced.step
            if step.kind not in FREE:
                totals = replace(NOTHING, received=priced.bytes, communication_seconds=priced.exposed_seconds)
                where = layer.kind, row.planned.phase, row.planned.statement.section
                what = what_moves(layer.planned, priced)
                whole = totals.times(times)
                yield _moved(side, step.kind, step.axes, step.cause, whole, where, what, step.tensor.name)


def _moved(
    side: View,
    kind: CollectiveKind,
    axes: tuple[str, ...],
    cause: Cause | None,
    totals: Totals,
    where: tuple[str, Phase | Literal[""], str],
    what: Moving,
    name: str,
) -> Piece:
    """A piece of one collective."""
    layer, phase, section = where
    doing = (Moves(kind, side.written(axes)),)
    return Piece(
        About.COLLECTIVE, layer, phase, section, name, what, doing, cause, totals, totals.communication_seconds
    )


def _work(side: View) -> Iterator[Piece]:
    """Local work, statement by statement; of a whole step that of the update too."""
    for layer in side.report.layers:
        runs = side.runs.get(layer.kind)
        if runs is None:
            continue
        for row in layer.rows:
            yield _worked(side, layer.kind, row, layer.planned, runs.layers * runs.microbatches)
        if side.scope is Scope.STEP:
            for row in layer.update:
                yield _worked(side, layer.kind, row, layer.updated, runs.layers)


def _worked(side: View, kind: str, row: PricedStatement, planned: PlannedProgram, times: int) -> Piece:
    """A piece of one statement's local work."""
    statement = row.planned.statement
    local = replace(NOTHING, flops=row.flops, traffic=row.traffic, compute_seconds=float(row.local.seconds))
    return Piece(
        about=About.COMPUTE,
        layer=kind,
        phase=row.planned.phase,
        section=statement.section,
        name=statement.output,
        what=LocalWork.EINSUM if statement.op == "einsum" else LocalWork.MAP,
        doing=work_division(row, planned, side),
        cause=None,
        totals=local.times(times),
    )


def _parts(side: View) -> Iterator[Piece]:
    """Parts of a step's time that belong to no statement."""
    if side.scope is Scope.LAYER:
        for layer in side.report.layers:
            if layer.accumulate_seconds:
                totals = replace(NOTHING, compute_seconds=layer.accumulate_seconds)
                yield _part(TimePart.ACCUMULATE, layer.kind, totals.times(side.runs[layer.kind].layers))
        return
    for part in side.report.spent:
        counts = OWN_PARTS.get(part.what)
        if counts is not None and part.seconds:
            yield _part(part.what, "", replace(NOTHING, **{counts: part.seconds}))


def _part(what: TimePart, layer: str, totals: Totals) -> Piece:
    return Piece(About.PART, layer, "", "", what.value, what, None, None, totals)


def work_division(row: PricedStatement, planned: PlannedProgram, side: View) -> WorkDivision:
    """How a statement's work is divided, and what of it is not useful.

    The mesh axes that divide its iteration space; over the others the work is repeated, or done on partial sums.
    """
    mesh = planned.mesh
    work = row.planned.work
    pairs = list(zip(work.inputs, work.layouts, strict=True))
    if not isinstance(work, LocalEinsum):
        pairs += zip(work.outputs, work.output_layouts, strict=True)
    space: dict[str, tuple[str, ...]] = {}
    for tensor, layout in pairs:
        for index, axes in zip(tensor.indices, layout.dims, strict=True):
            space[index] = max(space.get(index, ()), axes, key=len)
    dividing = _joined((axis for axes in space.values() for axis in axes), mesh)
    ways = int(shards(dividing, mesh.degrees))
    owed = _joined((axis for layout in work.layouts for axis in layout.unreduced), mesh)
    parts = int(shards([axis for axis in owed if axis not in dividing], mesh.degrees))
    repeated = mesh.devices // (ways * parts)
    return WorkDivision(ways, side.divided(space.items()), repeated, parts, _padding(space, planned))


def _joined(axes: Iterable[str], mesh: Mesh) -> tuple[str, ...]:
    """Mesh axes, each once, parts of one joined where they make it whole."""
    return join_parts(sorted(dict.fromkeys(axes), key=part_order), mesh.degrees)


def _padding(space: Mapping[str, tuple[str, ...]], planned: PlannedProgram) -> float:
    """What padding adds to an iteration space, as a share of what is wanted of it."""
    sizes, degrees = planned.sizes, planned.mesh.degrees
    ways = {index: int(shards(axes, degrees)) for index, axes in space.items()}
    grown = (ceil_div(sizes[index], count) * count / sizes[index] for index, count in ways.items())
    return float(product(grown)) - 1
