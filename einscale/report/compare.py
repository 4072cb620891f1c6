"""Strategies side by side as a report: the verdict, one row a strategy, and the terms that make them differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from einscale.compare import (
    About,
    Best,
    Comparison,
    Difference,
    Measure,
    MemoryTerm,
    Scope,
    Side,
    Term,
    grouped,
    grouped_memory,
)
from einscale.cost import Totals
from einscale.footprint import MemoryPart
from einscale.models import parameter_counts
from einscale.report.causes import cause_words
from einscale.report.compare_words import doing_words, holding_words
from einscale.report.table import Column, Report, Row, Table
from einscale.units import format_bytes, format_count, format_flops, format_seconds

STEP_COLUMNS = (
    Column("strategy", "strategy", wrap=True),
    Column("seconds", "time", "seconds"),
    Column("of_first", "x first", "ratio"),
    Column("tokens_per_second", "tokens/s", "si"),
    Column("mfu_percent", "MFU %", "ratio"),
    Column("compute_seconds", "local", "seconds"),
    Column("communication_seconds", "exposed", "seconds"),
    Column("waiting_seconds", "waiting", "seconds"),
    Column("needed_bytes", "memory", "bytes"),
    Column("fits", "fits"),
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
    Column("fits", "fits"),
)

NOTHING = "nothing"

FEW_NAMES = 2
"""Names of tensors or results that a term gives where not all are asked for."""

MOST_TERMS = 6
"""Terms of a difference that are shown where all are not asked for."""


def compare_tables(comparison: Comparison, *, detail: bool = False, units: str = "iec") -> Report:
    """The comparison as tables.

    Args:
        comparison: what was compared.
        detail: every term by itself, layers and parts of the step; else the largest terms, those that say the same of
            several tensors taken together.
        units: `iec` or `si`, for the sentences; cells are written by the renderer.
    """
    tables = [_step_table(comparison)]
    if detail or comparison.scope is Scope.LAYER:
        tables.append(_layer_table(comparison))
    if detail:
        tables.append(_time_table(comparison))
    tables.append(_memory_table(comparison))
    for difference in comparison.differences:
        tables += [_terms_table(difference, detail), _memory_terms_table(difference, detail)]
    return Report(
        heading=(*_heading(comparison), *_verdict(comparison, units), *comparison.notes),
        tables=tuple(table for table in tables if table.rows),
        summary=_summary(comparison, units) if detail or len(comparison.sides) > 2 else (),
        conventions=_conventions(comparison, detail),
    )


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
        Scope.STEP: "a training step; every figure is per device, of the stage that works longest",
        Scope.LAYER: "one layer of each kind for one microbatch; every figure is per device",
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
                    100 * report.mfu if step else None,
                    totals.compute_seconds,
                    totals.communication_seconds,
                    totals.waiting_seconds,
                    report.fullest.memory.needed,
                    "yes" if report.fits else "no",
                )
            )
        )
    title = "a step" if comparison.scope is Scope.STEP else "one layer of each kind"
    return Table("strategies", title, STEP_COLUMNS, tuple(rows))


def _layer_table(comparison: Comparison) -> Table:
    """Every kind of layer and pass under each strategy, for one microbatch."""
    rows: list[Row] = []
    for first in comparison.sides[0].report.layers:
        for phase in ("forward", "backward"):
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
    return Table("time", "where the step goes", TIME_COLUMNS, tuple(rows), "parts")


def _memory_table(comparison: Comparison) -> Table:
    """What a device of each strategy's fullest stage holds."""
    rows = []
    for side in comparison.sides:
        memory = side.report.fullest.memory
        cells = (memory.parameters, memory.gradients, memory.optimizer, memory.saved, memory.gathered, memory.working)
        fits = "yes" if side.report.fits else "no"
        rows.append(Row((shown(side.label), *cells, memory.overhead, memory.needed, fits)))
    return Table("memory", "memory per device", MEMORY_COLUMNS, tuple(rows))


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
    terms = tuple(term for term in terms if detail or _matters(term))
    few = terms if detail or len(terms) <= MOST_TERMS + 1 else terms[:MOST_TERMS]
    rows = [_term_row(difference, term, detail=detail) for term in few]
    if len(few) < len(terms):
        rest = _sum(term.change for term in terms[len(few) :])
        rows.append(_sum_row(f"{len(terms) - len(few)} smaller terms", rest, ""))
    rows.append(_sum_row("sum", difference.change, "total"))
    title = f"{difference.other} against {difference.first}: what makes the difference"
    return Table(f"difference_{difference.other}", title, columns, tuple(rows), "differences")


def _sum(changes: Iterable[Totals]) -> Totals:
    found = Totals(0, 0, 0, 0.0, 0.0)
    for change in changes:
        found = found.plus(change)
    return found


def _sum_row(name: str, change: Totals, role: str) -> Row:
    return Row((name, "", "", change.flops, change.received, change.seconds, ""), role=role)


def _matters(term: Term) -> bool:
    """Whether anything but traffic hidden behind compute changes."""
    return bool(term.change.flops or term.change.received or term.change.seconds)


def _term_row(difference: Difference, term: Term, *, detail: bool) -> Row:
    change, part = term.change, term.about is About.PART
    return Row(
        (
            term_name(term, detail=detail),
            doing_words(term.first) or ("" if part else NOTHING),
            doing_words(term.other) or ("" if part else NOTHING),
            change.flops,
            change.received,
            change.seconds,
            _cause(difference, term) if detail else "",
        ),
        role="collective" if term.about is About.COLLECTIVE else "",
    )


def term_name(term: Term, *, detail: bool = True) -> str:
    """What a term is about; of many names the first two, where not all are asked for."""
    names = ", ".join(term.names)
    if not detail and len(term.names) > FEW_NAMES + 1:
        names = f"{', '.join(term.names[:FEW_NAMES])} and {len(term.names) - FEW_NAMES} more"
    where = f"{term.layer} {term.phase}".strip()
    if term.about is About.PART:
        return " ".join((term.what, *(["of"] if where else []), where)).strip()
    what = f"{term.what}s" if term.about is About.COMPUTE and len(term.names) > 1 else term.what
    return f"{where}: {what} {names}" if where else f"{what}: {names}"


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


def _memory_terms_table(difference: Difference, detail: bool) -> Table:
    columns = (
        Column("term", "what", wrap=True),
        Column("first", shown(difference.first), wrap=True),
        Column("other", shown(difference.other), wrap=True),
        Column("bytes", "held", "+bytes"),
    )
    terms = difference.memory_terms if detail else grouped_memory(difference.memory_terms)
    columns = columns if detail else (columns[0], columns[-1])
    few = terms if detail or len(terms) <= MOST_TERMS + 1 else terms[:MOST_TERMS]
    rows = [Row((_memory_name(term, detail=detail), *(_ways(term) if detail else ()), term.bytes)) for term in few]
    blank = ("", "") if detail else ()
    if len(few) < len(terms):
        rest = sum(term.bytes for term in terms[len(few) :])
        rows.append(Row((f"{len(terms) - len(few)} smaller terms", *blank, rest)))
    if rows:
        rows.append(Row(("sum", *blank, difference.memory_change), role="total"))
    title = f"{difference.other} against {difference.first}: memory per device"
    return Table(f"memory_{difference.other}", title, columns, tuple(rows), "memory_differences")


def _memory_name(term: MemoryTerm, *, detail: bool) -> str:
    if term.part is None:
        return "written out to the host"
    if term.part is MemoryPart.OVERHEAD:
        return "runtime"
    return f"{term.part} of {term.layer}" + (f": {', '.join(term.names)}" if detail else "")


def _ways(term: MemoryTerm) -> tuple[str, str]:
    first, other = holding_words(term.first), holding_words(term.other)
    return (first or NOTHING, other or NOTHING) if term.names else (first, other)


def _verdict(comparison: Comparison, units: str) -> tuple[str, ...]:
    """Which is the fastest and whether it fits, then every other strategy against the first."""
    differences = (_sentence(difference, comparison, units) for difference in comparison.differences)
    return (_fitting(comparison, units), *differences)


def _summary(comparison: Comparison, units: str) -> tuple[str, ...]:
    return tuple(best_sentence(best, units) for best in comparison.best)


def _sentence(difference: Difference, comparison: Comparison, units: str) -> str:
    """One difference in one sentence."""
    base, change = comparison.totals[0], difference.change
    share = f" ({100 * change.seconds / base.seconds:+.3g} %)" if base.seconds and change.seconds else ""
    waits = f", waiting {_signed(change.waiting_seconds, format_seconds)}" if change.waiting_seconds else ""
    return (
        f"{difference.other} against {difference.first}: time {_signed(change.seconds, format_seconds)}{share},"
        f" local {_signed(change.compute_seconds, format_seconds)},"
        f" exposed network {_signed(change.communication_seconds, format_seconds)}{waits};"
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
    fitting = [side for side in comparison.sides if side.report.fits]
    if not fitting:
        return f"none fits in {capacity}"
    fastest = comparison.fastest_fitting
    seconds = next(
        one.seconds for side, one in zip(comparison.sides, comparison.totals, strict=True) if side.label == fastest
    )
    if len(fitting) == len(comparison.sides):
        everyone = "both" if len(fitting) == 2 else "all"
        return f"{fastest} is the fastest: {format_seconds(seconds)}; {everyone} fit in {capacity}"
    names = ", ".join(side.label for side in fitting)
    if len(fitting) == 1:
        return f"only {names} fits in {capacity}: {format_seconds(seconds)}"
    return f"only {names} fit in {capacity}; of these {fastest} is the fastest: {format_seconds(seconds)}"


def _conventions(comparison: Comparison, detail: bool) -> tuple[str, ...]:
    setup = comparison.sides[0].report.setup
    more = "" if detail else "; --detail has every term, layers, and parts of the step"
    return (
        "1 FLOP is half a multiply-add (2mnk); padded elements count as work and as memory",
        f"times: modelled for {setup.network.system.name} as `einscale train` models them, overlap included",
        "a term is the other strategy less the first; collectives are matched by the tensor they move, local work by the"
        f" statement; the terms add up to the difference{more}",
    )
