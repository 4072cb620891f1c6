"""Strategies side by side as a report: the verdict, one row a strategy, and the terms that make them differ."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from einscale.comparison import (
    About,
    Best,
    Comparison,
    Difference,
    Measure,
    MemoryTerm,
    Scope,
    Term,
)
from einscale.models import parameter_counts
from einscale.price.program import Totals
from einscale.report.causes import cause_words
from einscale.report.comparison.screen import compare_screen, sides_table
from einscale.report.comparison.words import doing_words, holding_words, memory_name, term_name
from einscale.report.screen import full_screen, part, verdict_block
from einscale.report.table import Column, Report, Row, Table
from einscale.units import format_bytes, format_count, format_flops, format_seconds
from einscale.vocabulary import BACKWARD, FORWARD

STEP_COLUMNS = (
    Column("strategy", "strategy", wrap=True),
    Column("seconds", "time", "seconds"),
    Column("of_first", "x first", "ratio"),
    Column("tokens_per_second", "tokens/s", "si"),
    Column("mfu", "MFU", "share"),
    Column("compute_seconds", "local", "seconds"),
    Column("communication_seconds", "exposed", "seconds"),
    Column("waiting_seconds", "waiting", "seconds"),
    Column("needed_bytes", "memory", "bytes"),
    Column("fits", "fits", "flag"),
)

LAYER_COLUMNS = (
    Column("layer", "layer"),
    Column("phase", "pass"),
    Column("strategy", "strategy", wrap=True),
    Column("flops", "FLOPs", "si"),
    Column("received_bytes", "received", "bytes"),
    Column("compute_seconds", "local", "seconds"),
    Column("communication_seconds", "exposed", "seconds"),
    Column("seconds", "time", "seconds"),
    Column("of_first", "x first", "ratio"),
)

TIME_COLUMNS = (
    Column("part", "part of the step"),
    Column("axis", "over"),
    Column("strategy", "strategy", wrap=True),
    Column("seconds", "time", "seconds"),
    Column("hidden_seconds", "hidden", "seconds"),
)

MEMORY_COLUMNS = (
    Column("strategy", "strategy", wrap=True),
    Column("parameters_bytes", "params", "bytes"),
    Column("gradients_bytes", "gradients", "bytes"),
    Column("optimizer_bytes", "optimizer", "bytes"),
    Column("saved_bytes", "saved", "bytes"),
    Column("gathered_bytes", "gathered", "bytes"),
    Column("working_bytes", "working", "bytes"),
    Column("overhead_bytes", "runtime", "bytes"),
    Column("needed_bytes", "needed", "bytes"),
    Column("fits", "fits", "flag"),
)

NOTHING = "nothing"


def compare_tables(
    comparison: Comparison, *, detail: bool = False, only: str | None = None, units: str = "iec"
) -> Report:
    """The comparison: one screen, or tables.

    Args:
        comparison: what was compared.
        detail: every term by itself, layers and parts of the step; else the largest terms, those that say the same of
            several tensors taken together.
        only: name of the one part that is wanted: `terms`, `memory`, or a table.
        units: `iec` or `si`, for the sentences; cells are written by the renderer.

    Raises:
        UsageError: there is no such part.
    """
    sides = [_step_table(comparison), _layer_table(comparison)]
    sides += [_time_table(comparison)] if comparison.scope is Scope.STEP else []
    terms = [_terms_table(difference) for difference in comparison.differences]
    held = [_memory_terms_table(difference) for difference in comparison.differences]
    memory = _memory_table(comparison)
    pairs = (table for pair in zip(terms, held, strict=True) for table in pair)
    tables = tuple(table for table in (*sides, memory, *pairs) if table.rows)
    title, *asked = _heading(comparison)
    if only is not None:
        groups = {"terms": tuple(terms), "memory": (memory, *(table for table in held if table.rows))}
        return part(Report((title,), tables), only, groups)
    verdicts = _verdict(comparison, units)
    best = _summary(comparison, units) if detail or len(comparison.sides) > 2 else ()
    conventions = _conventions(comparison)
    if detail:
        answer = verdict_block((title, *asked, *comparison.notes), (*verdicts, *((text, "") for text in best)))
        screen = full_screen(answer, [_narrow(table, comparison) for table in tables], (), conventions)
    else:
        told = (*verdicts, *((text, "") for text in best))
        screen = compare_screen(comparison, (title, "; ".join(asked)), told, units)
    return Report(
        heading=(title, *asked, *comparison.notes),
        tables=tables,
        summary=(*(text for text, _ in verdicts), *best),
        conventions=conventions,
        screen=screen,
    )


def _narrow(table: Table, comparison: Comparison) -> Table:
    """A table as it is drawn: columns that are told elsewhere are left out, parts of memory are rows."""
    if table.name == "strategies":
        return sides_table(comparison)
    if table.name == "layers":
        kept = [number for number, column in enumerate(table.columns) if column.key not in ("flops", "of_first")]
        rows = tuple(replace(row, cells=tuple(row.cells[number] for number in kept)) for row in table.rows)
        return replace(table, columns=tuple(table.columns[number] for number in kept), rows=rows)
    if table.name != "memory":
        return table
    columns = (Column("part", "held as"), Column("strategy", "strategy", wrap=True), Column("bytes", "bytes", "bytes"))
    parts = [number for number, column in enumerate(table.columns) if column.kind == "bytes"]
    rows = tuple(
        Row((table.columns[number].title, row.cells[0], row.cells[number]))
        for number in parts
        if any(row.cells[number] for row in table.rows)
        for row in table.rows
    )
    return replace(table, columns=columns, rows=rows)


def shown(label: str) -> str:
    """A label that may be broken between the strategy and its mesh."""
    return label.replace("@", " @", 1)


def _heading(comparison: Comparison) -> tuple[str, ...]:
    setup = comparison.sides[0].report.setup
    system = setup.network.system
    labels = " | ".join(side.label for side in comparison.sides)
    meshes = list(dict.fromkeys(str(side.report.setup.mesh) for side in comparison.sides))
    where = f"{setup.mesh.devices} x {system.name} ({meshes[0]})" if len(meshes) == 1 else system.name
    what = {
        Scope.STEP: "a training step",
        Scope.LAYER: "one microbatch through all layers",
    }[comparison.scope]
    return (
        f"{setup.model.name}: {format_count(parameter_counts(setup.model).total)} parameters on {where}: {labels}",
        f"batch {setup.batch} x {setup.sequence} tokens, {setup.precision.name}: {what}",
    )


def _step_table(comparison: Comparison) -> Table:
    """One row a strategy."""
    base = comparison.totals[0].seconds
    rows = []
    for side, totals in zip(comparison.sides, comparison.totals, strict=True):
        report, step = side.report, comparison.scope is Scope.STEP
        rows.append(
            Row(
                (
                    shown(side.label),
                    totals.seconds,
                    totals.seconds / base if base else None,
                    report.tokens_per_second if step else None,
                    report.mfu if step else None,
                    totals.compute_seconds,
                    totals.communication_seconds,
                    totals.waiting_seconds,
                    report.fullest.memory.needed,
                    report.fits,
                )
            )
        )
    title = "a step" if comparison.scope is Scope.STEP else "a microbatch"
    return Table("strategies", title, STEP_COLUMNS, tuple(rows))


def _layer_table(comparison: Comparison) -> Table:
    """Every kind of layer and pass under each strategy, for one microbatch."""
    rows: list[Row] = []
    for first in comparison.sides[0].report.layers:
        for phase in (FORWARD, BACKWARD):
            totals = [side.report.layer(first.kind).totals(phase) for side in comparison.sides]
            base = totals[0].seconds
            rows += [
                Row((first.kind, phase, shown(side.label), *_figures(one), one.seconds / base if base else None))
                for side, one in zip(comparison.sides, totals, strict=True)
                if any(each.seconds for each in totals)
            ]
    return Table("layers", "one layer, one microbatch", LAYER_COLUMNS, tuple(rows), "layers")


def _figures(totals: Totals) -> tuple[float, ...]:
    return (
        totals.flops,
        totals.received,
        totals.compute_seconds,
        totals.communication_seconds,
        totals.seconds,
    )


def _time_table(comparison: Comparison) -> Table:
    """Where the time of each step goes."""
    keys = dict.fromkeys((part.what, part.axis) for side in comparison.sides for part in side.report.spent)
    rows = []
    for what, axis in keys:
        for side in comparison.sides:
            part = next((one for one in side.report.spent if (one.what, one.axis) == (what, axis)), None)
            if part is not None:
                rows.append(Row((what.value, axis, shown(side.label), part.seconds, part.hidden)))
    return Table("time", "where the step goes", TIME_COLUMNS, tuple(rows))


def _memory_table(comparison: Comparison) -> Table:
    """What a device of each strategy's fullest stage holds."""
    rows = []
    for side in comparison.sides:
        memory = side.report.fullest.memory
        cells = (memory.parameters, memory.gradients, memory.optimizer, memory.saved, memory.gathered, memory.working)
        rows.append(Row((shown(side.label), *cells, memory.overhead, memory.needed, side.report.fits)))
    return Table("memory", "memory per device", MEMORY_COLUMNS, tuple(rows))


def _terms_table(difference: Difference) -> Table:
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
    change = difference.change
    rows = [_term_row(difference, term) for term in difference.terms]
    rows.append(Row(("sum", "", "", change.flops, change.received, change.seconds, ""), role="total"))
    title = f"{difference.other} against {difference.first}: what makes the difference"
    return Table(f"difference_{difference.other}", title, columns, tuple(rows), "differences")


def _term_row(difference: Difference, term: Term) -> Row:
    change, of_step = term.change, term.about is About.PART
    return Row(
        (
            term_name(term),
            doing_words(term.first) or ("" if of_step else NOTHING),
            doing_words(term.other) or ("" if of_step else NOTHING),
            change.flops,
            change.received,
            change.seconds,
            _cause(difference, term),
        ),
        role="collective" if term.about is About.COLLECTIVE else "",
    )


def _cause(difference: Difference, term: Term) -> str:
    """Why: the cause of each side's collectives; of local work that spends the same FLOPs, what else changes."""
    if term.about is About.COLLECTIVE:
        first, other = cause_words(term.first_cause), cause_words(term.other_cause)
        causes = [(difference.first, first), (difference.other, other)]
        if first == other:
            return first
        return "\n".join(f"{label}: {cause}" for label, cause in causes if cause)
    if term.about is About.COMPUTE and not term.change.flops and term.change.traffic:
        more = "more" if term.change.traffic > 0 else "less"
        return f"the same FLOPs, {format_bytes(abs(term.change.traffic))} {more} read and written in HBM"
    return ""


def _memory_terms_table(difference: Difference) -> Table:
    """What makes one strategy hold other amounts than the first, the largest term first, and the sum."""
    columns = (
        Column("term", "what", wrap=True),
        Column("first", shown(difference.first), wrap=True),
        Column("other", shown(difference.other), wrap=True),
        Column("bytes", "held", "+bytes"),
    )
    rows = [Row((memory_name(term, detail=True), *_ways(term), term.bytes)) for term in difference.memory_terms]
    if rows:
        rows.append(Row(("sum", "", "", difference.memory_change), role="total"))
    title = f"{difference.other} against {difference.first}: memory of a device"
    return Table(f"memory_{difference.other}", title, columns, tuple(rows), "memory_differences")


def _ways(term: MemoryTerm) -> tuple[str, str]:
    first, other = holding_words(term.first), holding_words(term.other)
    return (first or NOTHING, other or NOTHING) if term.names else (first, other)


def _verdict(comparison: Comparison, units: str) -> tuple[tuple[str, str], ...]:
    """Which is the fastest and whether it fits, then every other strategy against the first; each with its style."""
    differences = ((_sentence(difference, comparison, units), "") for difference in comparison.differences)
    return (_fitting(comparison, units), "good" if comparison.fitting else "bad"), *differences


def _summary(comparison: Comparison, units: str) -> tuple[str, ...]:
    return tuple(best_sentence(best, units) for best in comparison.best)


def _sentence(difference: Difference, comparison: Comparison, units: str) -> str:
    """One difference in one sentence."""
    base, change = comparison.totals[0], difference.change
    share = f" ({100 * change.seconds / base.seconds:+.3g} %)" if base.seconds and change.seconds else ""
    return (
        f"{difference.other} against {difference.first}: time {_signed(change.seconds, format_seconds)}{share},"
        f" received {_signed(change.received, lambda value: format_bytes(value, units))},"
        f" memory {_signed(difference.memory_change, lambda value: format_bytes(value, units))}"
    )


def _signed(value: float, write: Callable[[float], str]) -> str:
    """A change with its sign, in words where there is none."""
    if not value:
        return "the same"
    return f"+{write(value)}" if value > 0 else write(value)


def best_sentence(best: Best, units: str = "iec") -> str:
    """Who is best by one measure, in a sentence.

    >>> best_sentence(Best(Measure.MEMORY, ("fsdp",), 2**30, "dp", 2**31))
    'least memory: fsdp, 1 GiB; next is dp with 2 GiB (2 times as much)'
    >>> best_sentence(Best(Measure.TIME, ("dp", "fsdp"), 0.5, "", 0.5))
    'least time: dp and fsdp alike, 500 ms'
    """
    write: dict[Measure, Callable[[float], str]] = {
        Measure.TIME: format_seconds,
        Measure.FLOPS: format_flops,
        Measure.RECEIVED: lambda value: format_bytes(value, units),
        Measure.MEMORY: lambda value: format_bytes(value, units),
        Measure.DEVICE_TIME: lambda value: f"{value:.3g} device seconds",
    }
    word = "fewest" if best.measure in (Measure.FLOPS, Measure.RECEIVED) else "least"
    alike = " alike" if len(best.labels) > 1 else ""
    said = f"{word} {best.measure}: {' and '.join(best.labels)}{alike}, {write[best.measure](best.value)}"
    if not best.next_label:
        return said
    return f"{said}; next is {best.next_label} with {write[best.measure](best.next_value)}{_more(best)}"


def _more(best: Best) -> str:
    """How much more the next best takes."""
    if not best.value:
        return ""
    ratio = best.next_value / best.value
    return f" ({100 * (ratio - 1):.2g} % more)" if ratio < 2 else f" ({ratio:.3g} times as much)"


def _fitting(comparison: Comparison, units: str) -> str:
    """The verdict: which fit, and of those which is fastest."""
    capacity = format_bytes(comparison.sides[0].report.capacity, units)
    sides = [
        (side, totals.seconds)
        for side, totals in zip(comparison.sides, comparison.totals, strict=True)
        if side.report.fits or not comparison.fitting
    ]
    least = min(seconds for _, seconds in sides)
    first = [side.label for side, seconds in sides if seconds == least]
    fastest = f"{first[0]} is the fastest" if len(first) == 1 else f"{' and '.join(first)} are equally fast"
    fastest += f": {format_seconds(least)}"
    fitting = comparison.fitting
    if not fitting:
        return f"none fits in {capacity}; {fastest}"
    if len(fitting) == len(comparison.sides):
        return f"{fastest}; {'both' if len(fitting) == 2 else 'all'} fit in {capacity}"
    if len(fitting) == 1:
        return f"only {fitting[0]} fits in {capacity}: {format_seconds(least)}"
    return f"only {', '.join(fitting)} fit in {capacity}; of these {fastest}"


def _conventions(comparison: Comparison) -> tuple[str, ...]:
    setup = comparison.sides[0].report.setup
    return (
        "1 FLOP is half a multiply-add (2mnk); padded elements count as work and as memory",
        f"times: modelled for {setup.network.system.name} as `einscale train` models them, overlap included",
        "a term is the other strategy less the first; collectives are matched by the tensor they move, local work by"
        " the statement; the terms add up to the difference",
    )
