"""Strategies side by side: the same layers under each, and every difference as a sum of terms.

A term is one thing that one strategy does and the other does not, or does at another price: the collectives of one
tensor, or the local work of one statement. Terms are differences of what the reports hold, so their sum is the
difference of the totals: exactly for FLOPs and bytes, up to rounding for seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from einscale.collectives import FREE
from einscale.cost import NOTHING, PricedStatement, Totals
from einscale.layer import KindReport, LayerReport, role_names, tensor_class
from einscale.layout import shards
from einscale.memory import Held
from einscale.mesh import Mesh, join_parts, part_order, split_name
from einscale.numeric import ceil_div, product
from einscale.plan import LocalEinsum
from einscale.planner.program import PlannedProgram

COLLECTIVE = "collective"
COMPUTE = "compute"

PARAMETERS, GRADIENTS, OPTIMIZER, SAVED, WORKING = MEMORY_PARTS = (
    "parameters",
    "gradients",
    "optimizer",
    "saved activations",
    "working",
)
"""Parts of what a device holds, as the report of a layer adds them up."""


class Side(Struct, frozen=True):
    """One strategy of a comparison: what it is called there, and its priced layers."""

    label: str
    report: LayerReport


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
    cause: str

    def __str__(self) -> str:
        return f"{self.kind} over {','.join(self.axes)}"


class Term(Struct, frozen=True):
    """One difference between the first side and another.

    Args:
        about: `collective` or `compute`.
        layer: kind of layer.
        phase: `forward` or `backward`.
        sections: sections of the layer it belongs to, "" for none.
        names: the tensors that move, or the results of the statements.
        what: class of the tensors (`parameters`, `gradients`, `activations`, ...), or `einsum` or `map`.
        first: what the first side does, in words; "" for nothing.
        other: what the other side does.
        first_cause: why the first side's largest collective of the term runs.
        other_cause: the same of the other side.
        change: the other side less the first, for every layer of the kind.
    """

    about: str
    layer: str
    phase: str
    sections: tuple[str, ...]
    names: tuple[str, ...]
    what: str
    first: str
    other: str
    first_cause: str
    other_cause: str
    change: Totals


class MemoryTerm(Struct, frozen=True):
    """One difference in what a device holds.

    Args:
        part: one of `MEMORY_PARTS`.
        layer: kind of layer.
        names: tensors that rest otherwise, or are held by one side only; none where a part is counted as a whole.
        first: how the first side holds them, in words; "" for not at all.
        other: how the other side does.
        bytes: the other side less the first, for every layer of the kind.
    """

    part: str
    layer: str
    names: tuple[str, ...]
    first: str
    other: str
    bytes: int


class Difference(Struct, frozen=True):
    """One side against the first, term by term, the largest first.

    Args:
        first: label of the first side.
        other: label of the other.
        change: totals of the other less those of the first, every layer counted; the sum of the terms.
        terms: of FLOPs, bytes received and seconds.
        memory_change: bytes needed on a device, the other less the first; the sum of the memory terms.
        memory_terms: of bytes held.
    """

    first: str
    other: str
    change: Totals
    terms: tuple[Term, ...]
    memory_change: int
    memory_terms: tuple[MemoryTerm, ...]


class Best(Struct, frozen=True):
    """Which side is best by one measure.

    Args:
        measure: `time`, `FLOPs`, `bytes received`, `memory`, or `device time` (time x devices).
        unit: `second`, `FLOP`, `byte` or `device second`.
        labels: the best side, or all that share its value.
        value: its value.
        next_label: the next best; "" where all are the same.
        next_value: its value.
    """

    measure: str
    unit: str
    labels: tuple[str, ...]
    value: float
    next_label: str
    next_value: float


class Comparison(Struct, frozen=True):
    """Strategies side by side.

    Args:
        sides: in the order they were given.
        differences: every side but the first, against the first.
        best: the best side by each measure.
        notes: what was chosen where nothing was given, and what does not compare as it stands.
    """

    sides: tuple[Side, ...]
    differences: tuple[Difference, ...]
    best: tuple[Best, ...]
    notes: tuple[str, ...]

    @property
    def fitting(self) -> tuple[str, ...]:
        """Labels of the sides that fit in the memory of a chip."""
        return tuple(side.label for side in self.sides if side.report.memory.fits)


def compare_reports(sides: Sequence[Side], notes: Iterable[str] = ()) -> Comparison:
    """Explain how reports of one model under several strategies differ.

    Args:
        sides: at least two, of the same model, batch, sequence, dtype and phases.
        notes: to keep beside the answer.
    """
    first = sides[0]
    meshes = dict.fromkeys(str(side.report.mesh) for side in sides)
    devices = {side.label: side.report.mesh.devices for side in sides}
    found = list(notes)
    if len(set(devices.values())) > 1:
        counts = ", ".join(f"{label} on {count}" for label, count in devices.items())
        found.append(
            f"the meshes are of different size ({counts} devices): every figure is per device,"
            " and device time is what compares"
        )
    return Comparison(
        sides=tuple(sides),
        differences=tuple(difference(first, side, sized=len(meshes) > 1) for side in sides[1:]),
        best=_best(sides),
        notes=tuple(found),
    )


def difference(first: Side, other: Side, *, sized: bool = False) -> Difference:
    """How one side differs from the first.

    Args:
        first: what is compared with.
        other: the other side.
        sized: write the devices of a mesh axis beside its role, for meshes that differ.
    """
    terms: list[Term] = []
    memory: list[MemoryTerm] = []
    for mine, theirs in zip(first.report.kinds, other.report.kinds, strict=True):
        terms += _collective_terms(_View(first.report, mine, sized), _View(other.report, theirs, sized))
        terms += _compute_terms(_View(first.report, mine, sized), _View(other.report, theirs, sized))
        memory += _held_terms(PARAMETERS, mine, theirs)
        memory += _held_terms(SAVED, mine, theirs)
        memory += _whole_terms(mine, theirs)
    memory += _working_term(first.report, other.report)
    return Difference(
        first=first.label,
        other=other.label,
        change=minus(other.report.totals, first.report.totals),
        terms=tuple(sorted((term for term in terms if term.change != NOTHING), key=_weight)),
        memory_change=other.report.memory.needed - first.report.memory.needed,
        memory_terms=tuple(sorted((term for term in memory if term.bytes), key=lambda term: -abs(term.bytes))),
    )


def minus(one: Totals, other: Totals) -> Totals:
    """What the first totals have more than the others.

    >>> minus(Totals(5, 4, 3, 2.0, 1.0), Totals(1, 1, 1, 1.0, 1.0))
    Totals(flops=4, traffic=3, received=2, compute_seconds=1.0, communication_seconds=0.0)
    """
    return one.plus(other.times(-1))


def grouped(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Terms that say the same of several tensors or statements taken together, the largest first; their sum stays."""
    groups: dict[tuple[str, ...], Term] = {}
    for term in terms:
        key = (term.about, term.layer, term.phase, term.what, term.first, term.other)
        held = groups.get(key)
        if held is None:
            groups[key] = term
            continue
        groups[key] = replace(
            held,
            names=tuple(dict.fromkeys(held.names + term.names)),
            sections=tuple(dict.fromkeys(held.sections + term.sections)),
            change=held.change.plus(term.change),
        )
    return tuple(sorted(groups.values(), key=_weight))


def grouped_memory(terms: Iterable[MemoryTerm]) -> tuple[MemoryTerm, ...]:
    """Memory terms of one part and layer whose tensors are divided alike, taken together, the largest first."""
    groups: dict[tuple[str, ...], MemoryTerm] = {}
    for term in terms:
        key = (term.part, term.layer, term.first, term.other)
        held = groups.get(key)
        groups[key] = term if held is None else replace(held, names=held.names + term.names, bytes=held.bytes + term.bytes)
    return tuple(sorted(groups.values(), key=lambda term: -abs(term.bytes)))


def _weight(term: Term) -> tuple[float, int, int]:
    """Sort key: the longest time first, then bytes, then FLOPs."""
    return -abs(term.change.seconds), -abs(term.change.received), -abs(term.change.flops)


class _View(Struct, frozen=True):
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


def _collective_terms(first: _View, other: _View) -> Iterable[Term]:
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
            what=tensor_class(planned, name),
            first=_named(before),
            other=_named(after),
            first_cause=_main_cause(before),
            other_cause=_main_cause(after),
            change=replace(
                NOTHING,
                received=sum(move.bytes for move in after) - sum(move.bytes for move in before),
                communication_seconds=sum(move.seconds for move in after) - sum(move.seconds for move in before),
            ),
        )


def _moves(side: _View) -> dict[tuple[str, str, str], list[Move]]:
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


def _named(moves: Sequence[Move]) -> str:
    """Moves in words, those that are alike counted."""
    counts: dict[str, int] = {}
    for move in moves:
        counts[str(move)] = counts.get(str(move), 0) + 1
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in counts.items())


def _main_cause(moves: Sequence[Move]) -> str:
    return max(moves, key=lambda move: move.seconds).cause if moves else ""


def _compute_terms(first: _View, other: _View) -> Iterable[Term]:
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
            first=_divided(before, first) if before else "",
            other=_divided(after, other) if after else "",
            first_cause="",
            other_cause="",
            change=change,
        )


def _work(side: _View) -> dict[tuple[str, str], PricedStatement]:
    """(phase as the program has it, result) -> the statement."""
    return {(row.planned.statement.phase, row.planned.statement.output): row for row in side.kind.rows}


def _local(row: PricedStatement) -> Totals:
    """The local work of a statement, without its collectives."""
    return replace(NOTHING, flops=row.flops, traffic=row.traffic, compute_seconds=float(row.local.seconds))


def _divided(row: PricedStatement, side: _View) -> str:
    """How a statement's work is divided, and what of it is not useful, in words.

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
    division = " ".join("/".join((index, *side.written(axes))) for index, axes in space.items() if axes)
    words = [f"{ways} ways ({division})" if ways > 1 else "whole"]
    if mesh.devices > ways * parts:
        words.append(f"repeated {mesh.devices // (ways * parts)} times")
    if parts > 1:
        words.append(f"in {parts} partial sums")
    padding = _padding(space, side.kind.planned)
    if padding > 0:
        words.append(f"{100 * padding:.2g} % padding")
    return ", ".join(words)


def _whole(axes: Iterable[str], mesh: Mesh) -> tuple[str, ...]:
    """Mesh axes, each once, parts of one joined where they make it whole."""
    return join_parts(sorted(dict.fromkeys(axes), key=part_order), mesh.degrees)


def _padding(space: Mapping[str, tuple[str, ...]], planned: PlannedProgram) -> float:
    """What padding adds to an iteration space, as a share of what is wanted of it."""
    sizes, degrees = planned.sizes, planned.mesh.degrees
    ways = {index: int(shards(axes, degrees)) for index, axes in space.items()}
    grown = (ceil_div(sizes[index], count) * count / sizes[index] for index, count in ways.items())
    return float(product(grown)) - 1


def _held_terms(part: str, mine: KindReport, theirs: KindReport) -> Iterable[MemoryTerm]:
    """One term for each parameter, or saved activation, that takes another amount."""
    before, after = _tensors(part, mine), _tensors(part, theirs)
    for name in dict.fromkeys((*before, *after)):
        one, other = before.get(name), after.get(name)
        yield MemoryTerm(
            part=part,
            layer=mine.kind,
            names=(name,),
            first=_rests(one),
            other=_rests(other),
            bytes=(other.bytes * theirs.repeat if other else 0) - (one.bytes * mine.repeat if one else 0),
        )


def _tensors(part: str, kind: KindReport) -> dict[str, Held]:
    return {held.tensor.name: held for held in (kind.parameters if part == PARAMETERS else kind.saved)}


def _rests(held: Held | None) -> str:
    """How a tensor is divided, in words: only the dims that are."""
    if held is None:
        return ""
    return _slashed(zip(held.tensor.indices, held.layout.dims, strict=True)) or "whole"


def _slashed(dims: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    return " ".join("/".join((index, *axes)) for index, axes in dims if axes)


def _whole_terms(mine: KindReport, theirs: KindReport) -> Iterable[MemoryTerm]:
    """What is counted for a kind of layer as a whole: gradients and optimizer state."""
    counts = (
        (GRADIENTS, mine.gradient_bytes, theirs.gradient_bytes),
        (OPTIMIZER, mine.optimizer_bytes, theirs.optimizer_bytes),
    )
    for part, one, other in counts:
        yield MemoryTerm(part, mine.kind, (), "", "", other * theirs.repeat - one * mine.repeat)


def _working_term(first: LayerReport, other: LayerReport) -> Iterable[MemoryTerm]:
    """What the hungriest layer needs besides, with the statement at its peak."""
    change = other.memory.working - first.memory.working
    yield MemoryTerm(WORKING, _hungriest(other).kind, (), _peak(first), _peak(other), change)


def _hungriest(report: LayerReport) -> KindReport:
    return max(report.kinds, key=lambda kind: kind.peak.bytes - kind.saved_bytes - kind.gradient_bytes)


def _peak(report: LayerReport) -> str:
    kind = _hungriest(report)
    return f"at {kind.peak.statement} of {kind.kind}" if kind.peak.statement else ""


def _best(sides: Sequence[Side]) -> tuple[Best, ...]:
    """The best side by each measure; less is better in all of them."""
    totals = {side.label: side.report.totals for side in sides}
    devices = {side.label: side.report.mesh.devices for side in sides}
    measures: list[tuple[str, str, dict[str, float]]] = [
        ("time", "second", {label: one.seconds for label, one in totals.items()}),
        ("FLOPs", "FLOP", {label: one.flops for label, one in totals.items()}),
        ("bytes received", "byte", {label: one.received for label, one in totals.items()}),
        ("memory", "byte", {side.label: side.report.memory.needed for side in sides}),
    ]
    if len(set(devices.values())) > 1:
        spent = {label: one.seconds * devices[label] for label, one in totals.items()}
        measures.append(("device time", "device second", spent))
    return tuple(_least(*measure) for measure in measures)


def _least(measure: str, unit: str, values: dict[str, float]) -> Best:
    least = min(values.values())
    rest = {label: value for label, value in values.items() if value > least}
    follower = min(rest, key=lambda label: rest[label]) if rest else ""
    labels = tuple(label for label, value in values.items() if value == least)
    return Best(measure, unit, labels, least, follower, rest.get(follower, least))
