"""Requests under several strategies as a report: the verdict, one row a strategy, and the terms that differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from einscale.comparison.serving import (
    ServingBest,
    ServingComparison,
    ServingDifference,
    ServingMeasure,
    ServingPhase,
    ServingTerm,
)
from einscale.models import parameter_counts
from einscale.report.comparison.tables import shown
from einscale.report.screen import TableBlock, Words, full_screen, part, verdict_block
from einscale.report.serving.parts import execution_words, part_title
from einscale.report.table import Column, Report, Row, Table
from einscale.serving.run import InferRun
from einscale.units import format_bytes, format_count, format_seconds, format_si

MOST_TERMS = 4
"""Terms of a phase that are shown where all are not asked for."""

MOST_ROWS = 12
"""Terms that are shown of all differences together."""

ALL = 10**6
"""Terms that are shown where all are asked for."""

NAMES = {ServingPhase.PREFILL: "first token", ServingPhase.DECODE: "a token"}
"""What a user waits for, in words."""


def requests_compare_tables(
    comparison: ServingComparison, first: InferRun, *, detail: bool = False, only: str | None = None, units: str = "iec"
) -> Report:
    """The comparison: one screen, or tables.

    Args:
        comparison: what was compared.
        first: the requests under the first strategy.
        detail: every term by itself, memory, and who is best by each measure; else the largest terms of each phase.
        only: name of the one part that is wanted: `terms`, `memory`, or a table.
        units: `iec` or `si`, for the sentences; cells are written by the renderer.

    Raises:
        UsageError: there is no such part.
    """
    several = len(comparison.differences)
    most = ALL if detail or only else max(1, min(MOST_TERMS, MOST_ROWS // (2 * several)))
    sides, memory = _sides_table(comparison), _memory_table(comparison)
    terms = tuple(_terms_table(difference, comparison, most) for difference in comparison.differences)
    held = tuple(table for difference in comparison.differences if (table := _memory_terms_table(difference)).rows)
    tables = (sides, memory, *terms, *held)
    title, *asked = _heading(comparison, first)
    if only is not None:
        return part(Report((title,), tables), only, {"terms": terms, "memory": (memory, *held)})
    best = tuple(best_words(one, units) for one in comparison.best)
    verdicts = _verdict(comparison, units)
    conventions = (
        "no request waits for another: a batch arrives together and is answered together",
        execution_words(first.instance),
        "a term is the other strategy less the first, in the time to first token or in that of a token after it;"
        " the terms add up to the differences",
    )
    if detail:
        answer = verdict_block((title, *asked, *comparison.notes), ((text, "") for text in (*verdicts, *best)))
        screen = full_screen(answer, tables, (), conventions)
    else:
        answer = verdict_block((title, *asked), ((text, "") for text in verdicts))
        screen = (answer, TableBlock(sides), *map(TableBlock, terms), _closing(comparison))
    return Report(
        heading=(title, *asked, *comparison.notes),
        tables=tables,
        summary=(*verdicts, *best),
        conventions=conventions,
        screen=screen,
    )


def _closing(comparison: ServingComparison) -> Words:
    """The last lines: what was decided, how to read it, and what else there is."""
    read = (
        "a term is the other strategy less the first; terms add up; times are modelled as `einscale infer` models them"
    )
    more = "--detail: every term and what is held; --only NAME: terms, memory, strategies, ..."
    return Words((("; ".join((*comparison.notes, read)), "note"), (more, "note")))


def _heading(comparison: ServingComparison, first: InferRun) -> tuple[str, ...]:
    asked, instance = first.asked, first.instance
    labels = " | ".join(side.label for side in comparison.sides)
    return (
        f"{instance.model.name}: {format_count(parameter_counts(instance.model).total)} parameters on"
        f" {instance.system.name}: {labels}",
        f"batch {asked.batch} x ({asked.prompt} tokens of prompt + {asked.output} of output); {instance.precision}",
    )


def _sides_table(comparison: ServingComparison) -> Table:
    """One row a strategy."""
    several = len({side.instance.devices for side in comparison.sides}) > 1
    priced = any(side.cost_per_million_tokens is not None for side in comparison.sides)
    columns = [
        Column("strategy", "strategy", wrap=True),
        *([Column("devices", "devices", "integer")] if several else []),
        Column("first_token_seconds", "first token", "seconds"),
        Column("seconds_per_token", "a token", "seconds"),
        Column("request_seconds", "request", "seconds"),
        Column("tokens_per_second_per_device", "tokens/s", "si"),
        *([Column("million_tokens_price", "a million", "si")] if priced else []),
        Column("needed_bytes", "memory", "bytes"),
        Column("fits", "fits", "flag"),
    ]
    rows = [
        Row(
            (
                shown(side.label),
                *([side.instance.devices] if several else []),
                side.first_token_seconds,
                side.seconds_per_token or None,
                side.seconds,
                side.tokens_per_second_per_device,
                *([side.cost_per_million_tokens] if priced else []),
                side.memory.needed,
                side.fits,
            )
        )
        for side in comparison.sides
    ]
    return Table("strategies", "requests; tokens of output a second for each device", tuple(columns), tuple(rows))


def _memory_table(comparison: ServingComparison) -> Table:
    """What a device of each strategy holds."""
    columns = (
        Column("strategy", "strategy", wrap=True),
        Column("weights_bytes", "weights", "bytes"),
        Column("cache_bytes", "cache", "bytes"),
        Column("working_bytes", "working", "bytes"),
        Column("overhead_bytes", "runtime", "bytes"),
        Column("needed_bytes", "needed", "bytes"),
        Column("left_bytes", "left", "+bytes"),
    )
    rows = []
    for side in comparison.sides:
        memory = side.memory
        held = (memory.parameters, memory.cache, memory.working, memory.overhead)
        rows.append(Row((shown(side.label), *held, memory.needed, memory.left)))
    return Table("memory", "memory of a device", columns, tuple(rows))


def _terms_table(difference: ServingDifference, comparison: ServingComparison, most: int) -> Table:
    """What makes one strategy differ from the first: the terms of each phase, the largest first, and the whole."""
    sides = {side.label: side for side in comparison.sides}
    first, other = sides[difference.first], sides[difference.other]
    columns = (
        Column("phase", "of"),
        Column("term", "what", wrap=True),
        Column("first_seconds", "first", "seconds"),
        Column("other_seconds", "other", "seconds"),
        Column("seconds", "change", "+seconds"),
    )
    rows: list[Row] = []
    for phase in ServingPhase:
        terms = difference.of(phase)
        few = terms if len(terms) <= most + 1 else terms[:most]
        rows += [
            Row((NAMES[phase], part_title(term.what, term.axis), term.first, term.other, term.seconds)) for term in few
        ]
        if len(few) < len(terms):
            rows.append(_rest_row(NAMES[phase], terms[len(few) :]))
        if terms:
            mine, theirs = first.spent(phase).seconds, other.spent(phase).seconds
            rows.append(Row((NAMES[phase], "together", mine, theirs, theirs - mine), role="subtotal"))
    title = f"{difference.other} against {difference.first}: what makes the difference"
    return Table(f"difference_{difference.other}", title, columns, tuple(rows), "serving_differences")


def _rest_row(phase: str, terms: Sequence[ServingTerm]) -> Row:
    """Terms that are not shown one by one."""
    first, other = sum(term.first for term in terms), sum(term.other for term in terms)
    return Row((phase, f"{len(terms)} smaller terms", first, other, sum(term.seconds for term in terms)))


def _memory_terms_table(difference: ServingDifference) -> Table:
    """What a device holds more or less of, and the sum."""
    columns = (
        Column("part", "held"),
        Column("first_bytes", "first", "bytes"),
        Column("other_bytes", "other", "bytes"),
        Column("bytes", "change", "+bytes"),
    )
    terms = difference.memory_terms
    rows = [Row((term.part.value, term.first, term.other, term.bytes)) for term in terms]
    if rows:
        rows.append(Row(("sum", None, None, difference.memory_change), role="total"))
    title = f"{difference.other} against {difference.first}: memory of a device"
    return Table(f"memory_{difference.other}", title, columns, tuple(rows), "serving_memory_differences")


def _verdict(comparison: ServingComparison, units: str) -> tuple[str, ...]:
    """What fits and serves most, then every other strategy against the first."""
    return (_fitting(comparison), *(_sentence(one, comparison, units) for one in comparison.differences))


def _fitting(comparison: ServingComparison) -> str:
    fitting = comparison.fitting
    if not fitting:
        return "none fits"
    most, first = comparison.best_fitting(ServingMeasure.RATE), comparison.best_fitting(ServingMeasure.FIRST_TOKEN)
    everyone = len(fitting) == len(comparison.sides)
    who = ("both fit" if len(fitting) == 2 else "all fit") if everyone else f"only {', '.join(fitting)} fit"
    if len(fitting) == 1:
        return f"only {fitting[0]} fits"
    best = f"{most} serves most tokens a device" + ("" if first == most else f", {first} gives the first token soonest")
    return f"{best}; {who}"


def _sentence(difference: ServingDifference, comparison: ServingComparison, units: str) -> str:
    """One difference in one sentence."""
    base = comparison.sides[0]
    token = f", a token {_change(difference.token_change, base.seconds_per_token)}" if base.seconds_per_token else ""
    memory = _signed(difference.memory_change, lambda size: format_bytes(size, units))
    return (
        f"{difference.other} against {difference.first}: first token"
        f" {_change(difference.first_token_change, base.first_token_seconds)}{token}, memory {memory}"
    )


def _change(seconds: float, base: float) -> str:
    """A change of a time, and its share."""
    return _signed(seconds, format_seconds) + (f" ({100 * seconds / base:+.3g} %)" if seconds and base else "")


def _signed(value: float, write: Callable[[float], str]) -> str:
    """A change with its sign, in words where there is none."""
    if not value:
        return "the same"
    return f"+{write(value)}" if value > 0 else write(value)


def best_words(best: ServingBest, units: str = "iec") -> str:
    """Who is best by one measure, in a sentence.

    >>> best_words(ServingBest(ServingMeasure.RATE, ("megatron",), 200.0, "dp", 100.0))
    'most tokens a second and device: megatron, 200; next is dp with 100'
    >>> best_words(ServingBest(ServingMeasure.FIRST_TOKEN, ("dp", "megatron"), 0.5, "", 0.5))
    'least time to first token: dp and megatron alike, 500 ms'
    """
    names = {
        ServingMeasure.FIRST_TOKEN: "least time to first token",
        ServingMeasure.TOKEN: "least time a token",
        ServingMeasure.REQUEST: "least time of a request",
        ServingMeasure.RATE: "most tokens a second and device",
        ServingMeasure.MEMORY: "least memory",
        ServingMeasure.COST: "least money for a million tokens",
    }
    write: dict[ServingMeasure, Callable[[float], str]] = {
        **dict.fromkeys((ServingMeasure.RATE, ServingMeasure.COST), format_si),
        ServingMeasure.MEMORY: lambda value: format_bytes(value, units),
    }
    written = write.get(best.measure, format_seconds)
    alike = " alike" if len(best.labels) > 1 else ""
    said = f"{names[best.measure]}: {' and '.join(best.labels)}{alike}, {written(best.value)}"
    return f"{said}; next is {best.next_label} with {written(best.next_value)}" if best.next_label else said
