"""A comparison on one screen: the verdict, where the time of each goes, and the largest terms that make them differ."""

from __future__ import annotations

from collections.abc import Iterable

from einscale.comparison import About, Comparison, Difference, Scope, Term, grouped, grouped_memory
from einscale.price.program import NOTHING, Totals
from einscale.report.bars import Bar, Bars, Fill
from einscale.report.comparison.words import doing_words, memory_name, term_name
from einscale.report.screen import TableBlock, Words, verdict_block
from einscale.report.table import Block, Column, Row, Table, format_cell

TERMS, MEMORY_TERMS = 4, 4
"""Terms that are shown of a difference of time, and of memory."""

MOST_ROWS = 10
"""Terms that are shown of all differences together."""


def compare_screen(
    comparison: Comparison, heading: tuple[str, ...], verdicts: tuple[tuple[str, str], ...], units: str
) -> tuple[Block, ...]:
    """Blocks of the default report.

    Args:
        comparison: what was compared.
        heading: what was asked: a title, and lines on how.
        verdicts: the answer in lines, each with its style.
        units: `iec` or `si`, for sentences.
    """
    several = len(comparison.differences)
    terms, held = (max(1, min(most, MOST_ROWS // several)) for most in (TERMS, MEMORY_TERMS))
    differences: list[Block] = []
    for found in comparison.differences:
        differences.append(TableBlock(_terms_table(found, terms)))
        if found.memory_terms:
            differences.append(_memory_words(found, held, units))
    return (
        verdict_block(heading, verdicts),
        _time_bars(comparison),
        TableBlock(sides_table(comparison)),
        *differences,
        _closing(comparison),
    )


def _time_bars(comparison: Comparison) -> Bars:
    """The time of each strategy: work, exposed collectives, waiting; shares are of the first one's."""
    bars = tuple(
        Bar(
            side.label,
            totals.seconds,
            (
                (Fill.WORK, totals.compute_seconds),
                (Fill.EXPOSED, totals.communication_seconds),
                (Fill.WAITING, totals.waiting_seconds),
            ),
        )
        for side, totals in zip(comparison.sides, comparison.totals, strict=True)
    )
    what = "a step" if comparison.scope is Scope.STEP else "a microbatch"
    return Bars(f"{what} of each", bars, comparison.totals[0].seconds)


def sides_table(comparison: Comparison) -> Table:
    """One row a strategy; columns that say nothing are left out, so that 80 of a terminal are enough."""
    step = comparison.scope is Scope.STEP
    waits = any(totals.waiting_seconds for totals in comparison.totals)
    columns = (
        Column("strategy", "strategy", wrap=True),
        Column("compute_seconds", "local", "seconds"),
        Column("communication_seconds", "exposed", "seconds"),
        *((Column("waiting_seconds", "waiting", "seconds"),) if waits else ()),
        Column("received_bytes", "received", "bytes"),
        *((Column("tokens_per_second", "tokens/s", "si"), Column("mfu", "MFU", "share")) if step else ()),
        Column("needed_bytes", "memory", "bytes"),
        Column("fits", "fits", "flag"),
    )
    rows = []
    for side, totals in zip(comparison.sides, comparison.totals, strict=True):
        report = side.report
        rows.append(
            Row(
                (
                    side.label.replace("@", " @", 1),
                    totals.compute_seconds,
                    totals.communication_seconds,
                    *((totals.waiting_seconds,) if waits else ()),
                    totals.received,
                    *((report.tokens_per_second, report.mfu) if step else ()),
                    report.fullest.memory.needed,
                    report.fits,
                )
            )
        )
    return Table("strategies", "", columns, tuple(rows))


def _terms_table(difference: Difference, most: int) -> Table:
    """The largest terms, what both sides do on a line below each, the others together, and the sum."""
    columns = (
        Column("term", "what", wrap=True),
        Column("flops", "FLOPs", "+si"),
        Column("received_bytes", "received", "+bytes"),
        Column("seconds", "time", "+seconds"),
        Column("how", "how", detail=True),
    )
    terms = tuple(term for term in grouped(difference.terms) if _matters(term))
    few = terms if len(terms) <= most + 1 else terms[:most]
    rows = [Row((term_name(term, detail=False), *_figures(term.change), _how(difference, term))) for term in few]
    if len(few) < len(terms):
        rest = _sum(term.change for term in terms[len(few) :])
        rows.append(Row((f"{len(terms) - len(few)} smaller terms", *_figures(rest), "")))
    rows.append(Row(("sum", *_figures(difference.change), ""), role="total"))
    return Table("", f"what makes {difference.other} differ from {difference.first}", columns, tuple(rows))


def _how(difference: Difference, term: Term) -> str:
    """What both sides do, where that differs."""
    first, other = doing_words(term.first), doing_words(term.other)
    if term.about is About.PART and not (first or other):
        return ""
    if first == other:
        return f"both: {first}"
    return f"{first or 'nothing'} -> {other or 'nothing'}"


def _figures(change: Totals) -> tuple[float, float, float]:
    return change.flops, change.received, change.seconds


def _sum(changes: Iterable[Totals]) -> Totals:
    found = NOTHING
    for change in changes:
        found = found.plus(change)
    return found


def _matters(term: Term) -> bool:
    """Whether anything but traffic hidden behind compute changes."""
    return bool(term.change.flops or term.change.received or term.change.seconds)


def _memory_words(difference: Difference, most: int, units: str) -> Words:
    """The largest terms of memory, the others together, and the sum, in a paragraph."""
    terms = tuple(term for term in grouped_memory(difference.memory_terms) if term.bytes)
    few = terms if len(terms) <= most + 1 else terms[:most]
    told = [f"{memory_name(term, detail=False)} {format_cell(term.bytes, '+bytes', units)}" for term in few]
    if len(few) < len(terms):
        rest = format_cell(sum(term.bytes for term in terms[len(few) :]), "+bytes", units) or "+0 B"
        told.append(f"{len(terms) - len(few)} smaller terms {rest}")
    change = format_cell(difference.memory_change, "+bytes", units) or "the same"
    return Words(((f"memory of a device {change}: {', '.join(told)}", ""),))


def _closing(comparison: Comparison) -> Words:
    """The last lines: what was decided, how to read it, and what else there is."""
    models = comparison.sides[0].report.setup.model.notes
    read = (
        "a term is the other strategy less the first; terms add up; times are modelled as `einscale train` models them"
    )
    notes = (*(note for note in comparison.notes if note not in models), read)
    parts = ["terms", "memory"] if comparison.scope is Scope.LAYER else ["terms", "memory", "time"]
    more = f"--detail: every term; --only NAME: {', '.join(parts)}, layers, ..."
    return Words((("; ".join(notes), "note"), (more, "note")))
