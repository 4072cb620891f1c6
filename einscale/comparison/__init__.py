"""Strategies side by side: the same step under each, and every difference as a sum of terms.

A term is one thing that one strategy does and the other does not, or does at another price: the collectives of one
tensor, the local work of one statement, or a part of the step's time such as the bubble. Terms are differences of what
the reports hold, so their sum is the difference of the totals: exactly for FLOPs and bytes, up to rounding for seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from einscale.comparison.memory import memory_terms
from einscale.comparison.pieces import Key, Piece, View, pieces, whole
from einscale.comparison.values import (
    About,
    Best,
    Comparison,
    Difference,
    Measure,
    MemoryTerm,
    Scope,
    Side,
    Term,
)
from einscale.price.program import NOTHING, Totals

__all__ = [
    "About",
    "Best",
    "Comparison",
    "Difference",
    "Measure",
    "MemoryTerm",
    "Scope",
    "Side",
    "Term",
    "compare_reports",
    "grouped",
    "grouped_memory",
]


def compare_reports(sides: Sequence[Side], notes: Iterable[str] = (), scope: Scope = Scope.STEP) -> Comparison:
    """Explain how steps of one model under several strategies differ.

    Args:
        sides: at least two, of the same model, batch, sequence and precision.
        notes: to keep beside the answer.
        scope: compare whole steps, or the passes of one microbatch through all layers.
    """
    sized = len({str(side.report.setup.mesh) for side in sides}) > 1
    views = [View(side.report, scope, sized) for side in sides]
    made = [pieces(view) for view in views]
    totals = tuple(map(whole, made))
    return Comparison(
        scope=scope,
        sides=tuple(sides),
        totals=totals,
        differences=tuple(
            Difference(
                first=sides[0].label,
                other=sides[at].label,
                change=minus(totals[at], totals[0]),
                terms=_terms(made[0], made[at]),
                memory_change=sides[at].report.fullest.memory.needed - sides[0].report.fullest.memory.needed,
                memory_terms=_ordered(memory_terms(views[0], views[at])),
            )
            for at in range(1, len(sides))
        ),
        best=_best(sides, totals),
        notes=(*notes, *(_runs_note(sides) if scope is Scope.STEP else ()), *_device_note(sides)),
    )


def _runs_note(sides: Sequence[Side]) -> tuple[str, ...]:
    """What the terms of passes have in them where the sides run other numbers of microbatches."""
    runs = {side.label: side.report.setup.microbatches for side in sides}
    if len(set(runs.values())) == 1:
        return ()
    counts = ", ".join(f"{label} {count}" for label, count in runs.items())
    return (f"microbatches of a step: {counts}; what they do as often as that is part of the terms",)


def _device_note(sides: Sequence[Side]) -> tuple[str, ...]:
    """What to mind where the meshes are of different size."""
    devices = {side.label: side.report.setup.mesh.devices for side in sides}
    if len(set(devices.values())) == 1:
        return ()
    counts = ", ".join(f"{label} on {count}" for label, count in devices.items())
    return (
        f"the meshes are of different size ({counts} devices): every figure is per device, and device time is what"
        " compares",
    )


def minus(one: Totals, other: Totals) -> Totals:
    """What the first totals have more than the others.

    >>> minus(Totals(5, 4, 3, 2.0, 1.0), Totals(1, 1, 1, 1.0, 1.0))
    Totals(flops=4, traffic=3, received=2, compute_seconds=1.0, communication_seconds=0.0, waiting_seconds=0.0)
    """
    return one.plus(other.times(-1))


def _terms(mine: Mapping[Key, Piece], theirs: Mapping[Key, Piece]) -> tuple[Term, ...]:
    """Pieces that differ, the largest first."""
    found = []
    for key in dict.fromkeys((*mine, *theirs)):
        before, after = mine.get(key), theirs.get(key)
        change = minus(after.totals if after else NOTHING, before.totals if before else NOTHING)
        if change != NOTHING:
            found.append(_term(before, after, change))
    return tuple(sorted(found, key=_weight))


def _term(before: Piece | None, after: Piece | None, change: Totals) -> Term:
    piece = after or before
    assert piece is not None
    return Term(
        about=piece.about,
        layer=piece.layer,
        phase=piece.phase,
        sections=(piece.section,),
        names=(piece.name,),
        what=piece.what,
        first=before.doing if before else None,
        other=after.doing if after else None,
        first_cause=before.cause if before else None,
        other_cause=after.cause if after else None,
        change=change,
    )


def _ordered(terms: Iterable[MemoryTerm]) -> tuple[MemoryTerm, ...]:
    return tuple(sorted((term for term in terms if term.bytes), key=lambda term: -abs(term.bytes)))


def grouped(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Terms that say the same of several tensors or statements taken together, the largest first; their sum stays."""
    groups: dict[tuple[object, ...], Term] = {}
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
    """Memory terms of one part and kind of layer taken together, the largest first; their sum stays."""
    groups: dict[tuple[object, ...], MemoryTerm] = {}
    for term in terms:
        key = (term.part, term.layer)
        held = groups.get(key)
        groups[key] = (
            term if held is None else replace(held, names=held.names + term.names, bytes=held.bytes + term.bytes)
        )
    return tuple(sorted(groups.values(), key=lambda term: -abs(term.bytes)))


def _weight(term: Term) -> tuple[float, int, int]:
    """Sort key: the longest time first, then bytes, then FLOPs."""
    return -abs(term.change.seconds), -abs(term.change.received), -abs(term.change.flops)


def _best(sides: Sequence[Side], totals: Sequence[Totals]) -> tuple[Best, ...]:
    """The best side by each measure; less is better in all of them."""
    devices = {side.label: side.report.setup.mesh.devices for side in sides}
    each = {side.label: one for side, one in zip(sides, totals, strict=True)}
    measures: dict[Measure, dict[str, float]] = {
        Measure.TIME: {label: one.seconds for label, one in each.items()},
        Measure.FLOPS: {label: one.flops for label, one in each.items()},
        Measure.RECEIVED: {label: one.received for label, one in each.items()},
        Measure.MEMORY: {side.label: side.report.fullest.memory.needed for side in sides},
    }
    if len(set(devices.values())) > 1:
        measures[Measure.DEVICE_TIME] = {label: one.seconds * devices[label] for label, one in each.items()}
    return tuple(_least(measure, values) for measure, values in measures.items())


def _least(measure: Measure, values: dict[str, float]) -> Best:
    least = min(values.values())
    rest = {label: value for label, value in values.items() if value > least}
    follower = min(rest, key=lambda label: rest[label]) if rest else ""
    labels = tuple(label for label, value in values.items() if value == least)
    return Best(measure, labels, least, follower, rest.get(follower, least))
