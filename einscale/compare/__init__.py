"""Strategies side by side: the same layers under each, and every difference as a sum of terms.

A term is one thing that one strategy does and the other does not, or does at another price: the collectives of one
tensor, or the local work of one statement. Terms are differences of what the reports hold, so their sum is the
difference of the totals: exactly for FLOPs and bytes, up to rounding for seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from einscale.compare.held import held_terms, whole_terms, working_term
from einscale.compare.terms import View, collective_terms, compute_terms, minus
from einscale.compare.values import (
    COLLECTIVE,
    COMPUTE,
    MEMORY_PARTS,
    PARAMETERS,
    SAVED,
    Best,
    Comparison,
    Difference,
    MemoryTerm,
    Side,
    Term,
)
from einscale.cost import NOTHING

__all__ = [
    "COLLECTIVE",
    "COMPUTE",
    "MEMORY_PARTS",
    "Best",
    "Comparison",
    "Difference",
    "MemoryTerm",
    "Side",
    "Term",
    "compare_reports",
    "difference",
    "grouped",
    "grouped_memory",
]


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
        one, two = View(first.report, mine, sized), View(other.report, theirs, sized)
        terms += [*collective_terms(one, two), *compute_terms(one, two)]
        memory += [*held_terms(PARAMETERS, one, two), *held_terms(SAVED, one, two)]
        memory += whole_terms(mine, theirs)
    memory += working_term(first.report, other.report)
    return Difference(
        first=first.label,
        other=other.label,
        change=minus(other.report.totals, first.report.totals),
        terms=tuple(sorted((term for term in terms if term.change != NOTHING), key=_weight)),
        memory_change=other.report.memory.needed - first.report.memory.needed,
        memory_terms=tuple(sorted((term for term in memory if term.bytes), key=lambda term: -abs(term.bytes))),
    )


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
    """Memory terms of one part and layer whose tensors are divided alike, taken together, the largest first."""
    groups: dict[tuple[object, ...], MemoryTerm] = {}
    for term in terms:
        key = (term.part, term.layer, term.first, term.other)
        held = groups.get(key)
        groups[key] = (
            term if held is None else replace(held, names=held.names + term.names, bytes=held.bytes + term.bytes)
        )
    return tuple(sorted(groups.values(), key=lambda term: -abs(term.bytes)))


def _weight(term: Term) -> tuple[float, int, int]:
    """Sort key: the longest time first, then bytes, then FLOPs."""
    return -abs(term.change.seconds), -abs(term.change.received), -abs(term.change.flops)


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
