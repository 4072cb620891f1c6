"""Terms of a difference: collectives matched by the tensor they move, local work by the statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from einscale.causes import Cause
from einscale.collectives import FREE
from einscale.compare.values import COLLECTIVE, COMPUTE, Divided, Moves, Term, WorkDivision
from einscale.cost import NOTHING, PricedStatement, Totals
from einscale.layer import KindReport, LayerReport, role_names
from einscale.layout import shards
from einscale.mesh import Mesh, join_parts, part_order, split_name
from einscale.numeric import ceil_div, product
from einscale.plan import LocalEinsum
from einscale.planner.classes import moved_class
from einscale.planner.planned import PlannedProgram


class Move(Struct, frozen=True):
    """One collective, its price for every layer of its kind.

    Args:
        kind: of the collective.
        axes: what it runs over: roles, with their devices where the meshes differ.
        bytes: bytes a device receives.
        seconds: time that nothing hides.
        cause: why it runs.
    """

    kind: str
    axes: tuple[str, ...]
    bytes: int
    seconds: float
    cause: Cause | None


class View(Struct, frozen=True):
    """One kind of layer of one side, and how its mesh axes are to be written."""

    report: LayerReport
    kind: KindReport
    sized: bool

    def written(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Mesh axes as the roles they play; a part of an axis keeps its place, a whole one its devices if wanted."""
        mesh = self.report.mesh
        roles = role_names(self.report.strategy, mesh)
        names = []
        for axis in axes:
            whole = split_name(axis)[0]
            size = f"={mesh.size(axis)}" if self.sized and axis == whole else ""
            names.append(roles.get(whole, whole) + axis[len(whole) :] + size)
        return tuple(names)

    def divided(self, dims: Iterable[tuple[str, tuple[str, ...]]]) -> Divided:
        """The indices that are divided, mesh axes as the roles they play."""
        return tuple((index, self.written(axes)) for index, axes in dims if axes)


def minus(one: Totals, other: Totals) -> Totals:
    """What the first totals have more than the others.

    >>> minus(Totals(5, 4, 3, 2.0, 1.0), Totals(1, 1, 1, 1.0, 1.0))
    Totals(flops=4, traffic=3, received=2, compute_seconds=1.0, communication_seconds=0.0)
    """
    return one.plus(other.times(-1))


def collective_terms(first: View, other: View) -> Iterable[Term]:
    """One term for each tensor that the sides move differently in a phase."""
    mine, theirs = _moves(first), _moves(other)
    for key in dict.fromkeys((*mine, *theirs)):
        phase, section, name = key
        before, after = _unlike(mine.get(key, []), theirs.get(key, []))
        if not before and not after:
            continue
        planned = (first if key in mine else other).kind.planned
        yield Term(
            about=COLLECTIVE,
            layer=first.kind.kind,
            phase=phase,
            sections=(section,),
            names=(name,),
            what=moved_class(planned.program, name),
            first=_alike(before),
            other=_alike(after),
            first_cause=_main_cause(before),
            other_cause=_main_cause(after),
            change=replace(
                NOTHING,
                received=sum(move.bytes for move in after) - sum(move.bytes for move in before),
                communication_seconds=sum(move.seconds for move in after) - sum(move.seconds for move in before),
            ),
        )


def _moves(side: View) -> dict[tuple[str, str, str], list[Move]]:
    """(phase, section, tensor) -> its collectives, free ones left out."""
    found: dict[tuple[str, str, str], list[Move]] = {}
    for row in side.kind.rows:
        for priced in row.collectives:
            step = priced.step
            if step.kind in FREE:
                continue
            key = row.planned.phase, row.planned.statement.section, step.tensor.name
            repeat = side.kind.repeat
            move = Move(
                step.kind,
                side.written(step.axes),
                priced.bytes * repeat,
                priced.exposed_seconds * repeat,
                step.cause,
            )
            found.setdefault(key, []).append(move)
    return found


def _unlike(before: Sequence[Move], after: Sequence[Move]) -> tuple[list[Move], list[Move]]:
    """The moves of two lists without those that are in both at the same price."""
    rest = list(after)
    left = []
    for move in before:
        twin = next((k for k, one in enumerate(rest) if _price(one) == _price(move)), None)
        if twin is None:
            left.append(move)
        else:
            del rest[twin]
    return left, rest


def _price(move: Move) -> tuple[str, tuple[str, ...], int, float]:
    return move.kind, move.axes, move.bytes, move.seconds


def _alike(moves: Sequence[Move]) -> tuple[Moves, ...]:
    """Moves, those that are alike counted."""
    counts: dict[tuple[str, tuple[str, ...]], int] = {}
    for move in moves:
        key = move.kind, move.axes
        counts[key] = counts.get(key, 0) + 1
    return tuple(Moves(kind, axes, count) for (kind, axes), count in counts.items())


def _main_cause(moves: Sequence[Move]) -> Cause | None:
    return max(moves, key=lambda move: move.seconds).cause if moves else None


def compute_terms(first: View, other: View) -> Iterable[Term]:
    """One term for each statement whose local work the sides price differently."""
    mine, theirs = _work(first), _work(other)
    for key in dict.fromkeys((*mine, *theirs)):
        before, after = mine.get(key), theirs.get(key)
        row = [row for row in (before, after) if row is not None][-1]
        change = minus(
            _local(after).times(other.kind.repeat) if after else NOTHING,
            _local(before).times(first.kind.repeat) if before else NOTHING,
        )
        if change == NOTHING:
            continue
        yield Term(
            about=COMPUTE,
            layer=first.kind.kind,
            phase=row.planned.phase,
            sections=(row.planned.statement.section,),
            names=(row.planned.statement.output,),
            what="einsum" if row.planned.statement.op == "einsum" else "map",
            first=_divided(before, first) if before else (),
            other=_divided(after, other) if after else (),
            first_cause=None,
            other_cause=None,
            change=change,
        )


def _work(side: View) -> dict[tuple[str, str], PricedStatement]:
    """(phase as the program has it, result) -> the statement."""
    return {(row.planned.statement.phase, row.planned.statement.output): row for row in side.kind.rows}


def _local(row: PricedStatement) -> Totals:
    """The local work of a statement, without its collectives."""
    return replace(NOTHING, flops=row.flops, traffic=row.traffic, compute_seconds=float(row.local.seconds))


def _divided(row: PricedStatement, side: View) -> WorkDivision:
    """How a statement's work is divided, and what of it is not useful.

    The mesh axes that divide its iteration space; over the others the work is repeated, or done on partial sums.
    """
    mesh = side.report.mesh
    work = row.planned.work
    pairs = list(zip(work.inputs, work.layouts, strict=True))
    if not isinstance(work, LocalEinsum):
        pairs += zip(work.outputs, work.output_layouts, strict=True)
    space: dict[str, tuple[str, ...]] = {}
    for tensor, layout in pairs:
        for index, axes in zip(tensor.indices, layout.dims, strict=True):
            space[index] = max(space.get(index, ()), axes, key=len)
    dividing = _whole((axis for axes in space.values() for axis in axes), mesh)
    ways = int(shards(dividing, mesh.degrees))
    owed = _whole((axis for layout in work.layouts for axis in layout.unreduced), mesh)
    parts = int(shards([axis for axis in owed if axis not in dividing], mesh.degrees))
    return WorkDivision(
        ways=ways,
        divided=side.divided(space.items()) if ways > 1 else (),
        repeated=mesh.devices // (ways * parts),
        partial_sums=parts,
        padding=_padding(space, side.kind.planned),
    )


def _whole(axes: Iterable[str], mesh: Mesh) -> tuple[str, ...]:
    """Mesh axes, each once, parts of one joined where they make it whole."""
    return join_parts(sorted(dict.fromkeys(axes), key=part_order), mesh.degrees)


def _padding(space: Mapping[str, tuple[str, ...]], planned: PlannedProgram) -> float:
    """What padding adds to an iteration space, as a share of what is wanted of it."""
    sizes, degrees = planned.sizes, planned.degrees
    ways = {index: int(shards(axes, degrees)) for index, axes in space.items()}
    grown = (ceil_div(sizes[index], count) * count / sizes[index] for index, count in ways.items())
    return float(product(grown)) - 1
