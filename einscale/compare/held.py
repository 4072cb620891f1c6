"""Terms of what a device holds: tensors that rest otherwise, and the parts that are counted as a whole."""

from __future__ import annotations

from collections.abc import Iterable

from einscale.compare.terms import View
from einscale.compare.values import GATHERED, GRADIENTS, OPTIMIZER, PARAMETERS, WORKING, AtPeak, MemoryTerm, Rests
from einscale.layer import KindReport, LayerReport
from einscale.memory import Held


def held_terms(part: str, first: View, other: View) -> Iterable[MemoryTerm]:
    """One term for each parameter, or saved activation, that takes another amount."""
    before, after = _tensors(part, first.kind), _tensors(part, other.kind)
    for name in dict.fromkeys((*before, *after)):
        mine, theirs = before.get(name), after.get(name)
        yield MemoryTerm(
            part=part,
            layer=first.kind.kind,
            names=(name,),
            first=_rests(mine, first),
            other=_rests(theirs, other),
            bytes=(theirs.bytes * other.kind.repeat if theirs else 0) - (mine.bytes * first.kind.repeat if mine else 0),
        )


def _tensors(part: str, kind: KindReport) -> dict[str, Held]:
    return {held.tensor.name: held for held in (kind.parameters if part == PARAMETERS else kind.saved)}


def _rests(held: Held | None, side: View) -> Rests | None:
    """How a tensor is divided: only the dims that are."""
    if held is None:
        return None
    return Rests(side.divided(zip(held.tensor.indices, held.layout.dims, strict=True)))


def whole_terms(mine: KindReport, theirs: KindReport) -> Iterable[MemoryTerm]:
    """What is counted for a kind of layer as a whole: gradients, optimizer state, gathered parameters that are kept."""
    counts = (
        (GRADIENTS, mine.gradient_bytes, theirs.gradient_bytes),
        (OPTIMIZER, mine.optimizer_bytes, theirs.optimizer_bytes),
        (GATHERED, mine.gathered_bytes, theirs.gathered_bytes),
    )
    for part, one, other in counts:
        yield MemoryTerm(part, mine.kind, (), None, None, other * theirs.repeat - one * mine.repeat)


def working_term(first: LayerReport, other: LayerReport) -> Iterable[MemoryTerm]:
    """What the hungriest layer needs besides, with the statement at its peak."""
    change = other.memory.working - first.memory.working
    yield MemoryTerm(WORKING, _hungriest(other).kind, (), _peak(first), _peak(other), change)


def _hungriest(report: LayerReport) -> KindReport:
    return max(report.kinds, key=lambda kind: kind.working_bytes)


def _peak(report: LayerReport) -> AtPeak | None:
    kind = _hungriest(report)
    return AtPeak(kind.peak.statement, kind.kind) if kind.peak.statement else None
