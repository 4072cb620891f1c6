"""Strategies side by side as a report: tables of each kind of layer, of memory, and of the terms of a difference."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from einscale.compare import COLLECTIVE, Best, Comparison, Difference, MemoryTerm, Side, Term, grouped, grouped_memory
from einscale.cost import Totals
from einscale.layer import KindReport
from einscale.models import parameter_counts
from einscale.report.causes import cause_words
from einscale.report.compare_words import doing_words, holding_words
from einscale.report.table import Column, Report, Row, Table
from einscale.units import format_bytes, format_count, format_flops, format_seconds

COLUMNS = (
    Column("part", "part"),
    Column("strategy", "strategy", wrap=True),
    Column("flops", "FLOPs", "si"),
    Column("received_bytes", "received", "bytes"),
    Column("compute_seconds", "local", "seconds"),
    Column("communication_seconds", "network", "seconds"),
    Column("seconds", "time", "seconds"),
    Column("of_first", "x first", "ratio"),
)

MEMORY_COLUMNS = (
    Column("part", "part"),
    Column("strategy", "strategy", wrap=True),
    Column("parameters_bytes", "params", "bytes"),
    Column("gradients_bytes", "gradients", "bytes"),
    Column("optimizer_bytes", "optimizer", "bytes"),
    Column("saved_bytes", "saved", "bytes"),
    Column("gathered_bytes", "gathered", "bytes"),
    Column("working_bytes", "working", "bytes"),
    Column("needed_bytes", "needed", "bytes"),
    Column("fits", "fits"),
)

NOTHING = "nothing"


def compare_tables(comparison: Comparison, *, detail: bool = False, units: str = "iec") -> Report:
    """The comparison as tables.

    Args:
        comparison: what was compared.
        detail: every term by itself; else those that say the same of several tensors are taken together.
        units: `iec` or `si`, for the sentences; cells are written by the renderer.
    """
    kinds = range(len(comparison.sides[0].report.kinds))
    tables = [_kind_table(comparison, position) for position in kinds]
    tables += [_model_table(comparison), _memory_table(comparison)]
    for difference in comparison.differences:
        tables += [_terms_table(difference, detail), _memory_terms_table(difference, detail)]
    return Report(
        heading=_heading(comparison),
        tables=tuple(table for table in tables if table.rows),
        summary=_summary(comparison, units),
        conventions=_conventions(comparison),
    )


def shown(label: str) -> str:
    """A label that may be broken between the strategy and its mesh."""
    return label.replace("@", " @", 1)


def _heading(comparison: Comparison) -> tuple[str, ...]:
    report = comparison.sides[0].report
    system = report.network.system
    labels = " | ".join(side.label for side in comparison.sides)
    meshes = list(dict.fromkeys(str(side.report.mesh) for side in comparison.sides))
    where = f"{report.mesh.devices} x {system.name} ({meshes[0]})" if len(meshes) == 1 else system.name
    return (
        f"{report.model.name}: {format_count(parameter_counts(report.model).total)} parameters on {where}: {labels}",
        f"batch {report.batch} x {report.sequence} tokens, {report.dtype}, {' and '.join(report.phases)};"
        " every figure is per device",
        *comparison.notes,
    )


def _kind_table(comparison: Comparison, position: int) -> Table:
    """One kind of layer: every section and phase of it under each strategy."""
    rows: list[Row] = []
    first = comparison.sides[0].report.kinds[position]
    phases = comparison.sides[0].report.phases
    for phase in phases:
        if len(first.sections) > 1:
            for section in first.sections:
                name = f"{section or 'other'} {phase}"
                rows += _rows(
                    comparison, name, [_kind(side, position).totals(phase, section) for side in comparison.sides]
                )
        totals = [_kind(side, position).totals(phase) for side in comparison.sides]
        rows += _rows(comparison, phase, totals, "subtotal")
    one = [_kind(side, position).totals() for side in comparison.sides]
    if len(phases) > 1:
        rows += _rows(comparison, "one layer" if first.repeat > 1 else "both phases", one, "subtotal")
    if first.repeat > 1:
        rows += _rows(comparison, f"{first.repeat} layers", [each.times(first.repeat) for each in one], "subtotal")
    title = f"{first.kind} (x {first.repeat})" if first.repeat > 1 else first.kind
    return Table(first.kind, title, COLUMNS, tuple(rows), "parts")


def _kind(side: Side, position: int) -> KindReport:
    return side.report.kinds[position]


def _model_table(comparison: Comparison) -> Table:
    rows = _rows(comparison, "model", [side.report.totals for side in comparison.sides], "subtotal")
    return Table("model", "model, all layers", COLUMNS, tuple(rows), "parts")


def _rows(comparison: Comparison, part: str, totals: list[Totals], role: str = "") -> list[Row]:
    """One part under each strategy, none where nothing happens in it."""
    if not any(each.seconds for each in totals):
        return []
    base = totals[0].seconds
    return [
        Row(
            (
                part,
                shown(side.label),
                each.flops,
                each.received,
                each.compute_seconds,
                each.communication_seconds,
                each.seconds,
                each.seconds / base if base else None,
            ),
            role=role,
        )
        for side, each in zip(comparison.sides, totals, strict=True)
    ]


def _memory_table(comparison: Comparison) -> Table:
    """What a device holds: for one layer of each kind, and for the whole model."""
    rows: list[Row] = []
    for position, first in enumerate(comparison.sides[0].report.kinds):
        part = f"{first.kind}, one layer" if first.repeat > 1 else first.kind
        for side in comparison.sides:
            kind = _kind(side, position)
            rest = (kind.parameter_bytes, kind.gradient_bytes, kind.optimizer_bytes)
            held = (*rest, kind.saved_bytes, kind.gathered_bytes, kind.working_bytes)
            rows.append(Row((part, shown(side.label), *held, sum(held), "")))
    for side in comparison.sides:
        memory = side.report.memory
        cells = (memory.parameters, memory.gradients, memory.optimizer, memory.saved, memory.gathered, memory.working)
        fits = "yes" if memory.fits else "no"
        rows.append(Row(("model", shown(side.label), *cells, memory.needed, fits), role="subtotal"))
    table = Table("memory", "memory per device", MEMORY_COLUMNS, tuple(rows))
    keeps = any(side.report.memory.gathered for side in comparison.sides)
    return table if keeps else _without(table, "gathered_bytes")


def _without(table: Table, key: str) -> Table:
    """A table without one of its columns."""
    gone = next(number for number, column in enumerate(table.columns) if column.key == key)
    rows = tuple(replace(row, cells=row.cells[:gone] + row.cells[gone + 1 :]) for row in table.rows)
    return replace(table, columns=table.columns[:gone] + table.columns[gone + 1 :], rows=rows)


def _terms_table(difference: Difference, detail: bool) -> Table:
    """What makes one strategy differ from the first, the largest term first, and the sum."""
    columns = (
        Column("term", "what", wrap=True),
        Column("first", shown(difference.first), wrap=True),
        Column("other", shown(difference.other), wrap=True),
        Column("flops", "FLOPs", "+si"),
        Column("received_bytes", "received", "+bytes"),
        Column("seconds", "time", "+seconds"),
        Column("cause", "cause", detail=True),
    )
    terms = difference.terms if detail else grouped(difference.terms)
    rows = [_term_row(difference, term) for term in terms if detail or _matters(term)]
    change = difference.change
    rows.append(Row(("sum", "", "", change.flops, change.received, change.seconds, ""), role="total"))
    title = f"{difference.other} against {difference.first}: the terms of the difference, all layers"
    return Table(f"difference_{difference.other}", title, columns, tuple(rows), "differences")


def _matters(term: Term) -> bool:
    """Whether anything but traffic hidden behind compute changes."""
    return bool(term.change.flops or term.change.received or term.change.seconds)


def _term_row(difference: Difference, term: Term) -> Row:
    what = f"{term.what}s" if term.about != COLLECTIVE and len(term.names) > 1 else term.what
    change = term.change
    return Row(
        (
            f"{term.layer} {term.phase}: {what} {', '.join(term.names)}",
            doing_words(term.first) or NOTHING,
            doing_words(term.other) or NOTHING,
            change.flops,
            change.received,
            change.seconds,
            _cause(difference, term),
        ),
        role="collective" if term.about == COLLECTIVE else "",
    )


def _cause(difference: Difference, term: Term) -> str:
    """Why: the cause of each side's collectives; of local work that spends the same FLOPs, what else changes."""
    if term.about == COLLECTIVE:
        first, other = cause_words(term.first_cause), cause_words(term.other_cause)
        causes = [(difference.first, first), (difference.other, other)]
        if first == other:
            return first
        return "\n".join(f"{label}: {cause}" for label, cause in causes if cause)
    if not term.change.flops and term.change.traffic:
        more = "more" if term.change.traffic > 0 else "less"
        return f"the same FLOPs, {format_bytes(abs(term.change.traffic))} {more} read and written in HBM"
    return ""


def _memory_terms_table(difference: Difference, detail: bool) -> Table:
    columns = (
        Column("term", "what", wrap=True),
        Column("first", shown(difference.first), wrap=True),
        Column("other", shown(difference.other), wrap=True),
        Column("bytes", "held", "+bytes"),
    )
    terms = difference.memory_terms if detail else grouped_memory(difference.memory_terms)
    rows = [Row((_memory_name(term), *_ways(term), term.bytes)) for term in terms]
    if rows:
        rows.append(Row(("sum", "", "", difference.memory_change), role="total"))
    title = f"{difference.other} against {difference.first}: memory per device, all layers"
    return Table(f"memory_{difference.other}", title, columns, tuple(rows), "memory_differences")


def _memory_name(term: MemoryTerm) -> str:
    names = f": {', '.join(term.names)}" if term.names else ""
    return f"{term.part} of {term.layer}{names}" if term.part != "working" else term.part


def _ways(term: MemoryTerm) -> tuple[str, str]:
    first, other = holding_words(term.first), holding_words(term.other)
    return (first or NOTHING, other or NOTHING) if term.names else (first, other)


def _summary(comparison: Comparison, units: str) -> tuple[str, ...]:
    lines = [_sentence(difference, comparison, units) for difference in comparison.differences]
    lines += [best_sentence(best, units) for best in comparison.best]
    return (*lines, _fitting(comparison, units))


def _sentence(difference: Difference, comparison: Comparison, units: str) -> str:
    """One difference in one sentence."""
    base = next(side.report.totals for side in comparison.sides if side.label == difference.first)
    change = difference.change
    share = f" ({100 * change.seconds / base.seconds:+.3g} %)" if base.seconds and change.seconds else ""
    return (
        f"{difference.other} against {difference.first}: time {_signed(change.seconds, format_seconds)}{share},"
        f" local {_signed(change.compute_seconds, format_seconds)},"
        f" network {_signed(change.communication_seconds, format_seconds)};"
        f" received {_signed(change.received, lambda value: format_bytes(value, units))};"
        f" memory {_signed(difference.memory_change, lambda value: format_bytes(value, units))}"
    )


def _signed(value: float, write: Callable[[float], str]) -> str:
    """A change with its sign, in words where there is none."""
    if not value:
        return "the same"
    return f"+{write(value)}" if value > 0 else write(value)


def best_sentence(best: Best, units: str = "iec") -> str:
    """Who is best by one measure, in a sentence.

    >>> best_sentence(Best("memory", "byte", ("fsdp",), 2**30, "dp", 2**31))
    'least memory: fsdp, 1 GiB; next is dp with 2 GiB (2 times as much)'
    >>> best_sentence(Best("time", "second", ("dp", "fsdp"), 0.5, "", 0.5))
    'least time: dp and fsdp alike, 500 ms'
    """
    write: dict[str, Callable[[float], str]] = {
        "second": format_seconds,
        "FLOP": format_flops,
        "byte": lambda value: format_bytes(value, units),
        "device second": lambda value: f"{value:.3g} device seconds",
    }
    word = "fewest" if best.measure in ("FLOPs", "bytes received") else "least"
    alike = " alike" if len(best.labels) > 1 else ""
    said = f"{word} {best.measure}: {' and '.join(best.labels)}{alike}, {write[best.unit](best.value)}"
    if not best.next_label:
        return said
    return f"{said}; next is {best.next_label} with {write[best.unit](best.next_value)}{_more(best)}"


def _more(best: Best) -> str:
    """How much more the next best takes."""
    if not best.value:
        return ""
    ratio = best.next_value / best.value
    return f" ({100 * (ratio - 1):.2g} % more)" if ratio < 2 else f" ({ratio:.3g} times as much)"


def _fitting(comparison: Comparison, units: str) -> str:
    """Which fit, and of those which is fastest."""
    capacity = format_bytes(comparison.sides[0].report.memory.capacity, units)
    fitting = [side for side in comparison.sides if side.report.memory.fits]
    if not fitting:
        return f"none fits in {capacity}"
    if len(fitting) == len(comparison.sides):
        return f"{'both' if len(fitting) == 2 else 'all'} fit in {capacity}"
    names = ", ".join(side.label for side in fitting)
    return f"of these only {names} {'fit' if len(fitting) > 1 else 'fits'} in {capacity}" + (
        f"; {comparison.fastest_fitting} is the fastest that does" if len(fitting) > 1 else ""
    )


def _conventions(comparison: Comparison) -> tuple[str, ...]:
    report = comparison.sides[0].report
    return (
        "1 FLOP is half a multiply-add (2mnk); attention counts the full s x t square;"
        " padded elements count as work and as memory",
        f"times: {report.network.system.name}, attainable rates where a source states them, otherwise datasheet;"
        " no overlap but of streamed collectives",
        "a term is the other strategy less the first; collectives are matched by the tensor they move,"
        " local work by the statement; the terms add up to the difference of the totals",
    )
