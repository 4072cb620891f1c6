"""Requests under several strategies side by side, and every difference as a sum of terms.

A term is one part of the time until the first token, of the time of a token after it, or of what a device holds: what
the other side spends on it less what the first does. So the terms add up to the differences, up to rounding for seconds
and exactly for bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TypeVar

from msgspec import Struct

from einscale.price.footprint import Memory, MemoryPart
from einscale.price.spent import Spent, TimePart
from einscale.serving import Instance, RequestReport, cost_per_million_tokens

AnyTerm = TypeVar("AnyTerm")

ROUNDING = 1e-12
"""Share of a time by which it may be off for having been added up in another order."""


class ServingPhase(StrEnum):
    """What a user waits for."""

    PREFILL = "prefill"
    """The first token: prompts are read."""

    DECODE = "decode"
    """Each token after it: the mean of the steps."""


class ServingMeasure(StrEnum):
    """What sides are judged by."""

    FIRST_TOKEN = "first token"
    TOKEN = "token"
    REQUEST = "request"
    RATE = "tokens a second and device"
    MEMORY = "memory"
    COST = "cost of a million tokens"

    @property
    def more(self) -> bool:
        """Whether more of it is better; of everything else, less is."""
        return self is ServingMeasure.RATE


class ServedSide(Struct, frozen=True):
    """One strategy of a comparison.

    Args:
        label: what it is called there.
        report: its requests.
        price_per_hour: of one device, None if not given.
    """

    label: str
    report: RequestReport
    price_per_hour: float | None = None

    @property
    def instance(self) -> Instance:
        """What answers."""
        return self.report.prefill.instance

    @property
    def first_token_seconds(self) -> float:
        """Time to first token."""
        return self.report.first_token_seconds

    @property
    def seconds_per_token(self) -> float:
        """Time per output token after the first; 0 where there is none."""
        return self.report.seconds_per_token

    @property
    def seconds(self) -> float:
        """Time of the whole request."""
        return self.report.seconds

    @property
    def tokens_per_second_per_device(self) -> float:
        """Output tokens a second for each device, one batch after the other."""
        return self.report.tokens_per_second / self.instance.devices

    @property
    def memory(self) -> Memory:
        """Bytes on a device of the fullest stage."""
        return self.report.memory

    @property
    def fits(self) -> bool:
        """Whether it fits."""
        return bool(self.memory.fits)

    @property
    def cost_per_million_tokens(self) -> float | None:
        """Money for a million output tokens, None without a price."""
        if self.price_per_hour is None:
            return None
        return cost_per_million_tokens(self.price_per_hour, self.instance.devices, self.report.tokens_per_second)

    def spent(self, phase: ServingPhase) -> Spent:
        """Where the time of a phase goes."""
        if phase is ServingPhase.PREFILL:
            return self.report.prefill.spent
        return self.report.decode.spent if self.report.decode else Spent()

    def measured(self, measure: ServingMeasure) -> float | None:
        """The side by one measure; None where it has no value."""
        values = {
            ServingMeasure.FIRST_TOKEN: self.first_token_seconds,
            ServingMeasure.TOKEN: self.seconds_per_token or None,
            ServingMeasure.REQUEST: self.seconds,
            ServingMeasure.RATE: self.tokens_per_second_per_device,
            ServingMeasure.MEMORY: self.memory.needed,
            ServingMeasure.COST: self.cost_per_million_tokens,
        }
        found: float | None = values[measure]
        return found


class ServingTerm(Struct, frozen=True):
    """A part of the time of a phase that the sides spend differently.

    Args:
        phase: what is waited for.
        what: what the time goes to.
        axis: mesh axes, for communication.
        first: seconds of the first side.
        other: seconds of the other.
    """

    phase: ServingPhase
    what: TimePart
    axis: str
    first: float
    other: float

    @property
    def seconds(self) -> float:
        """The other side less the first."""
        return self.other - self.first


class ServingMemoryTerm(Struct, frozen=True):
    """A part of what a device holds that differs.

    Args:
        part: which.
        first: bytes of the first side.
        other: bytes of the other.
    """

    part: MemoryPart
    first: int
    other: int

    @property
    def bytes(self) -> int:
        """The other side less the first."""
        return self.other - self.first


class ServingDifference(Struct, frozen=True):
    """One side against the first, term by term, the largest first.

    Args:
        first: label of the first side.
        other: label of the other.
        first_token_change: seconds to first token, the other less the first; the sum of the terms of the prefill.
        token_change: seconds per token after it; the sum of the terms of decoding.
        seconds_change: seconds of the whole request.
        terms: of time.
        memory_change: bytes needed on a device; the sum of the memory terms.
        memory_terms: of bytes held.
    """

    first: str
    other: str
    first_token_change: float
    token_change: float
    seconds_change: float
    terms: tuple[ServingTerm, ...]
    memory_change: int
    memory_terms: tuple[ServingMemoryTerm, ...]

    def of(self, phase: ServingPhase) -> tuple[ServingTerm, ...]:
        """The terms of one phase."""
        return tuple(term for term in self.terms if term.phase is phase)


class ServingBest(Struct, frozen=True):
    """Which side is best by one measure.

    Args:
        measure: by what.
        labels: the best side, or all that share its value.
        value: its value: seconds, tokens/s, bytes or money.
        next_label: the next best; "" where all are the same.
        next_value: its value.
    """

    measure: ServingMeasure
    labels: tuple[str, ...]
    value: float
    next_label: str
    next_value: float


class ServingComparison(Struct, frozen=True):
    """Requests under several strategies side by side.

    Args:
        sides: in the order they were given.
        differences: every side but the first, against the first.
        best: the best side by each measure.
        notes: what was chosen where nothing was given.
    """

    sides: tuple[ServedSide, ...]
    differences: tuple[ServingDifference, ...]
    best: tuple[ServingBest, ...]
    notes: tuple[str, ...] = ()

    @property
    def fitting(self) -> tuple[str, ...]:
        """Labels of the sides that fit in the memory of a device."""
        return tuple(side.label for side in self.sides if side.fits)

    def best_fitting(self, measure: ServingMeasure) -> str:
        """Label of the best side that fits, by one measure; "" where none does."""
        found = _best([side for side in self.sides if side.fits], measure)
        return found.labels[0] if found else ""


def compare_requests(sides: Sequence[ServedSide], notes: Iterable[str] = ()) -> ServingComparison:
    """Explain how requests to one model under several strategies differ from those under the first.

    Args:
        sides: of the same model, batch, prompt and output.
        notes: to keep beside the answer.
    """
    best = (_best(sides, measure) for measure in ServingMeasure)
    return ServingComparison(
        sides=tuple(sides),
        differences=tuple(_difference(sides[0], side) for side in sides[1:]),
        best=tuple(one for one in best if one is not None),
        notes=tuple(notes),
    )


def _difference(first: ServedSide, other: ServedSide) -> ServingDifference:
    terms = (term for phase in ServingPhase for term in _terms(first, other, phase))
    held = (ServingMemoryTerm(part, first.memory.part(part), other.memory.part(part)) for part in MemoryPart)
    return ServingDifference(
        first=first.label,
        other=other.label,
        first_token_change=other.first_token_seconds - first.first_token_seconds,
        token_change=other.seconds_per_token - first.seconds_per_token,
        seconds_change=other.seconds - first.seconds,
        terms=_ordered((term for term in terms if _differs(term)), lambda term: term.seconds),
        memory_change=other.memory.needed - first.memory.needed,
        memory_terms=_ordered((term for term in held if term.bytes), lambda term: term.bytes),
    )


def _terms(first: ServedSide, other: ServedSide, phase: ServingPhase) -> Iterable[ServingTerm]:
    """One term for each part of the time of a phase that either side spends."""
    mine, theirs = first.spent(phase).table(), other.spent(phase).table()
    for what, axis in dict.fromkeys((*mine, *theirs)):
        before, after = mine.get((what, axis)), theirs.get((what, axis))
        yield ServingTerm(phase, what, axis, before.seconds if before else 0.0, after.seconds if after else 0.0)


def _differs(term: ServingTerm) -> bool:
    """Whether a term is more than what is rounded when the same is added up in another order."""
    return abs(term.seconds) > ROUNDING * max(term.first, term.other)


def _ordered(terms: Iterable[AnyTerm], size: Callable[[AnyTerm], float]) -> tuple[AnyTerm, ...]:
    """Terms, the largest change first."""
    return tuple(sorted(terms, key=lambda term: -abs(size(term))))


def _best(sides: Sequence[ServedSide], measure: ServingMeasure) -> ServingBest | None:
    """The best side by one measure; None where no side has a value."""
    values = {side.label: value for side in sides if (value := side.measured(measure)) is not None}
    if not values:
        return None
    sign = -1 if measure.more else 1
    ordered = sorted(values, key=lambda label: sign * values[label])
    best = values[ordered[0]]
    rest = [label for label in ordered if values[label] != best]
    labels = tuple(label for label in values if values[label] == best)
    return ServingBest(measure, labels, best, rest[0] if rest else "", values[rest[0]] if rest else best)
