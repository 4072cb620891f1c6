"""The layer report in full: for each kind of layer a table, a row for each statement, its collectives below it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from einscale.collectives import FREE
from einscale.free_plans import Gain
from einscale.layers import KindReport, LayerReport
from einscale.layout import Layout, Tensor, local_shape
from einscale.models import parameter_counts
from einscale.planner.planned import PlannedProgram
from einscale.price.footprint import MemoryPart
from einscale.price.program import PricedCollective, PricedStatement, Totals, bound_ratio
from einscale.report.causes import cause_words
from einscale.report.layer.screen import layer_screen, layers_table, once_words, padding_words
from einscale.report.screen import TableBlock, Words, full_screen, part, verdict_block
from einscale.report.table import Column, Report, Row, RowRole, Table, format_ratio
from einscale.report.training.parts import verdict
from einscale.report.words import hider_words, reason_words, unexpected_words
from einscale.steps import work_results
from einscale.units import format_bytes, format_count, format_flops, format_seconds
from einscale.vocabulary import BACKWARD, UPDATE

COLUMNS = (
    Column("statement", "statement", wrap=True),
    Column("layout", "result, divided", wrap=True),
    Column("local_shape", "local shape", spare=True),
    Column("flops", "FLOPs", "si"),
    Column("hbm_bytes", "HBM", "bytes"),
    Column("received_bytes", "received", "bytes"),
    Column("seconds", "time", "seconds"),
    Column("bound", "bound by", wrap=True),
    Column("cause", "cause", detail=True),
)


def layer_tables(
    report: LayerReport,
    gains: tuple[Gain, ...] | None = None,
    *,
    detail: bool = False,
    only: str | None = None,
    units: str = "iec",
) -> Report:
    """The report: one screen, or tables.

    Args:
        report: what was priced.
        gains: where a free plan would beat the strategy; None to leave that out.
        detail: every statement, its operands' layouts, moves that are free, and what is held tensor by tensor.
        only: name of the one part that is wanted: of a kind of layer, or of a table.
        units: `iec` or `si`, for the sentences; cells are written by the renderer.

    Raises:
        UsageError: there is no such part.
    """
    title, *asked = _heading(report)
    free = (_gains_table(gains),) if gains else ()
    tables = [layers_table(report), *(_kind_table(report, kind, detail) for kind in report.kinds)]
    tables += [_held_table(kind) for kind in report.kinds] if detail or only is not None else []
    if only is not None:
        return part(Report((title,), (*tables, *free)), only)
    verdicts = (*((text, "") for text in _summary(report, units)), _verdict(report, units))
    told, conventions = _gains_summary(gains), _conventions(report)
    if detail:
        answer = verdict_block((title, *asked, *report.notes), verdicts)
        extra = Words(tuple((text, "") for text in (*_memory_words(report, units), *_notes(report), *told)))
        screen = full_screen(answer, (*tables, *free), (extra,), conventions)
    else:
        gained = (*map(TableBlock, free), *((Words(tuple((text, "") for text in told)),) if told else ()))
        shown = layer_screen(report, (title, "; ".join(asked)), verdicts, units)
        screen = (*shown[:-1], *gained, shown[-1])
    summary = (*(text for text, _ in verdicts), *_memory_words(report, units), *_notes(report), *told)
    heading = (title, *asked, *report.notes)
    return Report(heading, (*tables, *free), summary, conventions, main="statements", screen=screen)


def _heading(report: LayerReport) -> tuple[str, ...]:
    counts = parameter_counts(report.model)
    system, setup = report.network.system, report.setup
    replicas = f", {setup.microbatch} for each of {setup.replicas} replicas" if setup.replicas > 1 else ""
    return (
        f"{report.model.name}: {format_count(counts.total)} parameters; {report.strategy.name}"
        f" on {report.mesh.devices} x {system.name} ({report.mesh})",
        f"one microbatch of {report.batch} x {report.sequence} tokens{replicas}; {setup.precision.name},"
        f" {' and '.join(report.phases)}",
    )


def _kind_table(report: LayerReport, kind: KindReport, detail: bool) -> Table:
    rows: list[Row] = []
    for phase in report.phases:
        rows.append(Row((phase, *("",) * 8), 0, "section"))
        priced_rows = [row for row in kind.rows if row.planned.phase == phase]
        last = {row.planned.statement.section: position for position, row in enumerate(priced_rows)}
        for position, priced in enumerate(priced_rows):
            rows += statement_rows(priced, kind.planned, detail)
            section = priced.planned.statement.section
            if last[section] == position:
                rows += _section_total(kind, phase, section)
        if phase == BACKWARD and kind.cost.accumulate_seconds:
            rows.append(_adding_row(kind))
        rows.append(total_row(f"{kind.kind} {phase}", kind.totals(phase), "subtotal"))
    if len(report.phases) > 1:
        name = f"{kind.kind}, one layer" if kind.repeat > 1 else kind.kind
        rows.append(total_row(name, kind.totals(), "total"))
    if kind.repeat > 1:
        rows.append(total_row(f"{kind.repeat} layers", kind.totals().times(kind.repeat), "total"))
    if kind.update:
        rows.append(Row(("update, once a step", *("",) * 8), 0, "section"))
        for priced in kind.update:
            rows += statement_rows(priced, kind.cost.updated, detail)
        rows.append(total_row(f"{kind.kind} update", kind.totals(UPDATE), "subtotal"))
    title = f"{kind.kind} (x {kind.repeat})" if kind.repeat > 1 else kind.kind
    return Table(kind.kind, title, COLUMNS, tuple(rows), "statements")


def _adding_row(kind: KindReport) -> Row:
    """Gradients of earlier microbatches, read back to be added to."""
    cells = ("gradients added up", "", "", None, None, None, kind.cost.accumulate_seconds, "memory", "")
    return Row(cells, 1)


def _section_total(kind: KindReport, phase: str, section: str) -> list[Row]:
    """Sub-total of a section, unless the section has no name or is the whole phase."""
    if not section or len(kind.sections) == 1:
        return []
    return [total_row(f"{section} {phase}", kind.totals(phase, section), "subtotal")]


def total_row(name: str, totals: Totals, role: RowRole) -> Row:
    """Sums over statements, in the columns of `COLUMNS`.

    Args:
        name: what they are the sums of.
        totals: the sums.
        role: of the row.
    """
    share = totals.communication_seconds / totals.seconds if totals.seconds else 0.0
    local, network = format_seconds(totals.compute_seconds), format_seconds(totals.communication_seconds)
    cells = (totals.flops, totals.traffic, totals.received, totals.seconds, f"net {100 * share:.0f} %")
    return Row((name, "", "", *cells, f"local {local} + network {network}"), 0, role)


def statement_rows(priced: PricedStatement, planned: PlannedProgram, detail: bool) -> Iterable[Row]:
    """The row of a statement, after the collectives that feed it and before those that bring its result to rest.

    Args:
        priced: the statement.
        planned: its program.
        detail: also show operands' layouts and moves that are free.
    """
    early = len(priced.planned.before)
    for collective in priced.collectives[:early]:
        yield from _collective_rows(collective, planned, detail)
    result, layout = work_results(priced.planned.work)[0]
    yield Row(
        (
            _described(priced, planned.strategy.policy.fuse),
            layout.text(result.indices),
            _shape(result, layout, planned),
            priced.flops,
            priced.traffic,
            None,
            priced.local.seconds,
            str(priced.local.bound),
            _operands(priced) if detail else "",
        ),
        1,
    )
    for collective in priced.collectives[early:]:
        yield from _collective_rows(collective, planned, detail)


def _described(priced: PricedStatement, fuse: Collection[str]) -> str:
    statement = priced.planned.statement
    return f"{statement.output}  {statement.op}" + (" (fused)" if statement.group in fuse else "")


def _operands(priced: PricedStatement) -> str:
    """Operands in the layouts the work reads."""
    work = priced.planned.work
    pairs = zip(work.inputs, work.layouts, strict=True)
    return "reads " + ", ".join(f"{tensor.name}: {layout.text(tensor.indices)}" for tensor, layout in pairs)


def _shape(tensor: Tensor, layout: Layout, planned: PlannedProgram) -> str:
    return "x".join(str(n) for n in local_shape(layout, tensor.indices, planned.sizes, planned.degrees))


def _collective_rows(priced: PricedCollective, planned: PlannedProgram, detail: bool) -> Iterable[Row]:
    step = priced.step
    if step.kind in FREE and not detail:
        return
    yield Row(
        (
            f"{step.kind} {','.join(step.axes)}  {step.tensor.name}",
            step.after.text(step.tensor.indices),
            "",
            None,
            None,
            priced.bytes,
            priced.exposed_seconds,
            "network",
            f"{format_ratio(bound_ratio(priced, planned))} x bound{_hidden(priced)}: {cause_words(step.cause)}",
        ),
        2,
        "collective",
    )


def _hidden(priced: PricedCollective) -> str:
    """The whole time of a collective that other work hides; its row shows what is exposed."""
    if priced.hidden_by is None:
        return ""
    streamed = ", streamed" if priced.step.streamed else ""
    return f"{streamed}, {format_seconds(priced.seconds)} in all, hidden behind {hider_words(priced.hidden_by)}"


def _held_table(kind: KindReport) -> Table:
    """Parameters and saved activations of one layer, tensor by tensor."""
    columns = (
        Column("tensor", "tensor, as divided", wrap=True),
        Column("what", "what"),
        Column("bytes", "bytes", "bytes"),
        Column("reason", "kept for", wrap=True),
    )
    rows = [Row((held.text, "parameter", held.bytes, "the layer")) for held in kind.parameters]
    rows += [Row((held.text, "saved", held.bytes, reason_words(held.reason))) for held in kind.saved]
    return Table(f"{kind.kind}_held", f"{kind.kind}: held by one layer", columns, tuple(rows), "held")


def _gains_table(gains: tuple[Gain, ...]) -> Table:
    """Statements that a free plan would run faster, with that plan."""
    columns = (
        Column("statement", "left to the free planner", wrap=True),
        Column("phase", "phase"),
        Column("strategy_seconds", "layer now", "seconds"),
        Column("free_seconds", "with it", "seconds"),
        Column("saved_seconds", "saved", "seconds"),
        Column("plan", "how", detail=True),
    )
    rows = tuple(
        Row(
            (
                f"{gain.kind} {gain.statement}",
                gain.phase,
                gain.strategy_seconds,
                gain.free_seconds,
                gain.saved_seconds,
                "\n".join(str(step) for step in gain.plan.steps),
            )
        )
        for gain in gains
    )
    return Table("free", "where a free plan would beat the strategy", columns, rows)


def _gains_summary(gains: tuple[Gain, ...] | None) -> tuple[str, ...]:
    if gains is None:
        return ()
    if not gains:
        return ("free plans: no statement is better left to the free planner",)
    count = f"{len(gains)} statement" + ("s" if len(gains) > 1 else "")
    return (f"free plans: {count} would make a layer faster if left to the free planner (policy `auto`)",)


def _summary(report: LayerReport, units: str) -> tuple[str, ...]:
    """What a microbatch takes, and the step it is of."""
    totals, setup = report.totals, report.setup
    waits = f" + waiting {format_seconds(totals.waiting_seconds)}" if totals.waiting_seconds else ""
    microbatch = (
        f"a microbatch takes {format_seconds(totals.seconds)} through all layers: local"
        f" {format_seconds(totals.compute_seconds)} + exposed network"
        f" {format_seconds(totals.communication_seconds)}{waits};"
        f" {format_flops(totals.flops)}, {format_bytes(totals.received, units)} received"
    )
    if report.step is None:
        return (microbatch,)
    count = setup.microbatches
    runs = f"{count} microbatches" if count > 1 else "1 microbatch"
    stages = f", {setup.stages} stages" if setup.stages > 1 else ""
    batch = f"{setup.batch} sequence{'s' if setup.batch > 1 else ''}"
    return (
        microbatch,
        f"a step of {batch} ({runs}{stages}) takes {format_seconds(report.step.step_seconds)}",
    )


def _verdict(report: LayerReport, units: str) -> tuple[str, str]:
    """Whether it fits, and how that is shown."""
    if report.step is not None:
        return verdict(report.step, units), "good" if report.fits else "bad"
    needed, capacity = report.memory.needed, report.memory.capacity
    words = f"a device needs {format_bytes(needed, units)} of {format_bytes(capacity, units)}"
    return (f"fits: {words}", "good") if report.fits else (f"does not fit: {words}", "bad")


def _memory_words(report: LayerReport, units: str) -> tuple[str, ...]:
    """What the memory is made of, in a line."""
    words = {
        "saved": "saved activations",
        "gathered": "gathered parameters",
        "overhead": "runtime",
    }
    sizes = ((what.value, report.memory.part(what)) for what in MemoryPart)
    parts = [f"{words.get(name, name)} {format_bytes(size, units)}" for name, size in sizes if size]
    return (f"memory per device{_fullest(report)}: {', '.join(parts)}",)


def _notes(report: LayerReport) -> tuple[str, ...]:
    """What is done once a step, what is padded, and what is not expected."""
    once = once_words(report)
    unexpected = (f"not expected by {report.strategy.name}: {unexpected_words(one)}" for one in report.unexpected)
    return (*((once,) if once else ()), *padding_words(report), *unexpected)


def _fullest(report: LayerReport) -> str:
    """Which devices the memory is of, where they hold different layers."""
    return f" of stage {report.step.fullest.stage}" if report.step and len(report.step.stages) > 1 else ""


def _conventions(report: LayerReport) -> tuple[str, ...]:
    system = report.network.system
    hidden = ", ".join(report.strategy.policy.overlap) or "nothing"
    lines = [
        "1 FLOP is half a multiply-add (2mnk); fused attention counts the pairs that its mask lets through;"
        " padded elements count as work and as memory",
        f"times: modelled for {system.name} as `einscale train` models them; overlap hides {hidden}, and the times of"
        " collectives are what is left exposed",
    ]
    if report.step is not None:
        lines.append(f"optimizer: {report.setup.optimizer}, its states by the precision's types")
    return tuple(lines)
