"""The training report: one optimizer step as tables: its time, its stages, its memory, its collectives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from einscale.hardware import peak as peak_rate
from einscale.models import parameter_counts
from einscale.price.footprint import MemoryPart
from einscale.price.overlap import EFFICIENCY
from einscale.price.spent import SpentPart, TimeGroup, TimePart
from einscale.report.screen import TableBlock, Words, closing, full_screen, part, verdict_block
from einscale.report.table import Cell, Column, Report, Row, RowRole, Table
from einscale.report.training.detail import detail_tables, is_short, statement_tables, timeline_block
from einscale.report.training.parts import WORDS, moment_words, moved_words, part_name, part_words, verdict
from einscale.report.training.screen import money_verdicts, time_verdict, train_screen
from einscale.report.training.words import explain_table
from einscale.report.words import changes_words, hiders_words
from einscale.training import Advice, StageReport, TrainReport
from einscale.training.moves import Move, step_moves
from einscale.units import format_bytes, format_count
from einscale.vocabulary import UPDATE

if TYPE_CHECKING:
    from einscale.training.run import TrainRun

LARGEST = 8
"""Tensors that are listed without `detail`."""

BLAMED = 4
"""Groups of tensors that are named where a step does not fit."""


def train_tables(
    result: TrainRun,
    *,
    detail: bool = False,
    explain: bool = False,
    only: str | None = None,
    units: str = "iec",
    advice: tuple[Advice, ...] | None = None,
    changes: bool = True,
) -> Report:
    """The report: one screen, or tables.

    Args:
        result: what was priced.
        detail: all tables: also every collective, every tensor at the peak and the memory of every stage.
        explain: also how each number came about, its formula with the operands filled in.
        only: name of the one part that is wanted: of a table, of a kind of layer, or `timeline`.
        units: `iec` or `si`, for sentences; cells are written by the renderer.
        advice: changes with which the step would fit, or be faster if it fits; None to work them out.
        changes: name such changes.

    Raises:
        UsageError: there is no such part.
    """
    report = result.step
    moves = step_moves(report)
    verdicts = (
        (time_verdict(result), ""),
        (verdict(report, units), "good" if report.fits else "bad"),
        *((text, "") for text in money_verdicts(result)),
    )
    tables = [_step_table(result), *_run_tables(result), _time_table(report), _stages_table(report)]
    tables += [_memory_table(result), _alive_table(report, detail or only is not None)]
    tables += [_moves_table(report, moves)] if moves else []
    tables += detail_tables(report, moves) if detail or only is not None else []
    tables += [explain_table(result, units)] if explain or only is not None else []
    if changes and advice is None and not report.fits:
        advice = result.advice
    if advice and not report.fits:
        tables += _advice_tables(report, advice)
    title, *asked = _heading(report)
    conventions = _conventions(report, units)
    if only is not None:
        tables += statement_tables(report) if only not in {table.name for table in tables} else []
        return part(Report((title,), tuple(tables)), only, drawn=timeline_block(report))
    if detail:
        drawn = tuple(timeline_block(report).values()) if is_short(report) else ()
        answer = verdict_block((title, *asked, *report.notes), verdicts)
        screen = full_screen(answer, tables, drawn, conventions)
    else:
        found = (result.faster if advice is None else advice) if changes else None
        explained = tuple(TableBlock(table) for table in tables if table.name == "explained")
        shown = train_screen(result, moves, verdicts, (title, "; ".join(asked)), found, units)
        screen = (*shown, *explained, _closing(report))
    told = tuple(text for text, _ in verdicts)
    return Report((title, *asked, *report.notes), tuple(tables), told, conventions, screen=screen)


def _closing(report: TrainReport) -> Words:
    """The last lines of the screen."""
    kind = max(report.busiest.layers, key=lambda one: one[1])[0]
    timeline = ["timeline"] if report.setup.stages > 1 else []
    notes = tuple(note for note in report.notes if note not in report.setup.model.notes)
    return closing(notes, ["time", "memory", kind, *timeline])


def blamed(report: TrainReport, units: str) -> tuple[str, ...]:
    """The largest groups of tensors of the fullest stage, in words; what rests on the host is not among them.

    Args:
        report: the step.
        units: `iec` or `si`.
    """
    sums: dict[tuple[str, str], int] = {}
    for one in report.fullest.alive:
        share = 1 - report.setup.offload.activations if one.what is MemoryPart.SAVED else 1
        sums[one.what, one.kind] = sums.get((one.what, one.kind), 0) + int(share * one.total)
    largest = sorted(sums.items(), key=lambda item: -item[1])[:BLAMED]
    return tuple(f"{_held_words(what)} of {kind}: {format_bytes(size, units)}" for (what, kind), size in largest)


def _held_words(what: str) -> str:
    """A class of tensors in words."""
    return {
        "optimizer": "optimizer state",
        "saved": "saved activations",
        "gathered": "gathered parameters",
        "working": "working memory",
    }.get(what, what)


def _heading(report: TrainReport) -> tuple[str, ...]:
    setup = report.setup
    counts = parameter_counts(setup.model)
    active = f" ({format_count(counts.active)} active)" if counts.active != counts.total else ""
    replicas = f"{setup.replicas} replica" + ("s" if setup.replicas > 1 else "")
    lines = [
        f"{setup.model.name}: {format_count(counts.total)} parameters{active}; {setup.strategy.name} on"
        f" {setup.mesh.devices} x {setup.network.system.name} ({setup.mesh})",
        f"batch {setup.batch} x {setup.sequence} tokens = {replicas} x {_microbatches(setup.microbatches)} of"
        f" {setup.microbatch}; {setup.precision}, {setup.optimizer}",
    ]
    if setup.stages > 1:
        chunks = f", {setup.chunks} chunks a stage" if setup.chunks > 1 else ""
        lines.append(f"{setup.stages} stages, {setup.schedule}{chunks}")
    policy = setup.strategy.policy
    if policy.recompute:
        lines.append(f"recompute: {', '.join(_recomputed(policy.recompute))}")
    if setup.offload.optimizer or setup.offload.activations:
        lines.append(f"in the host's memory: {' and '.join(_offloaded(report))}")
    if setup.capacity > 1:
        lines.append(f"experts have room for {setup.capacity:g} times their even share of rows: the rest is padding")
    return tuple(lines)


def _microbatches(count: int) -> str:
    return f"{count} microbatch" + ("es" if count != 1 else "")


def _recomputed(groups: Iterable[str]) -> list[str]:
    """Recomputed groups in words."""
    words = {"full": "blocks", "alternate": "all but attention and every second product"}
    words["alternate-eager"] = words["alternate"]
    return [words.get(group, group) for group in groups]


def _offloaded(report: TrainReport) -> list[str]:
    """What rests in the host's memory, in words."""
    offload = report.setup.offload
    words = ["the optimizer"] if offload.optimizer else []
    return words + ([f"{100 * offload.activations:g} % of the saved activations"] if offload.activations else [])


def _step_table(result: TrainRun) -> Table:
    """The answer in one row."""
    report = result.step
    columns = (
        Column("step_seconds", "step", "seconds"),
        Column("tokens_per_second", "tokens/s", "si"),
        Column("tokens_per_second_per_device", "a device", "si"),
        Column("mfu", "MFU", "share"),
        Column("hfu", "HFU", "share"),
        Column("joules", "joules", "si"),
        Column("needed_bytes", "memory", "bytes"),
        Column("capacity_bytes", "of", "bytes"),
        Column("fits", "fits", "flag"),
    )
    cells = (
        report.step_seconds,
        report.tokens_per_second,
        report.tokens_per_second_per_device,
        report.mfu,
        report.hfu,
        report.joules,
        report.fullest.memory.needed,
        report.capacity,
        report.fits,
    )
    return Table("step", "the step: tokens and energy of all devices, memory of the fullest", columns, (Row(cells),))


def _run_tables(result: TrainRun) -> list[Table]:
    """Money, and the whole training run, as far as a price and its tokens are given."""
    columns: list[Column] = []
    cells: list[Cell] = []
    if result.training_steps is not None:
        columns += [
            Column("tokens", "tokens", "si"),
            Column("steps", "steps", "integer"),
            Column("days", "days", "si"),
        ]
        cells += [result.training_tokens, result.training_steps, result.training_days]
    if result.step_price is not None:
        columns += [
            Column("price_per_hour", "per device-hour", "si"),
            Column("step_price", "of a step", "si"),
        ]
        cells += [result.price_per_hour, result.step_price]
    if result.training_price is not None:
        columns.append(Column("training_price", "of it all", "si"))
        cells.append(result.training_price)
    title = "the whole run" if result.training_steps is not None else "money"
    return [Table("run", title, tuple(columns), (Row(tuple(cells)),))] if columns else []


def _time_table(report: TrainReport) -> Table:
    """Parts of the step on the busiest stage: work, collectives, waiting; they add up to the step."""
    columns = (
        Column("part", "part", wrap=True),
        Column("axis", "axis", wrap=True),
        Column("seconds", "time", "seconds"),
        Column("share", "share", "share"),
        Column("hidden_seconds", "hidden", "seconds"),
        Column("note", "what it is, what hides the rest", wrap=True),
    )
    rows: list[Row] = []
    for group in TimeGroup:
        parts = [part for part in report.spent if part.what.group is group]
        if not parts:
            continue
        if group is TimeGroup.COLLECTIVES:
            parts.sort(key=lambda part: -part.seconds)
        rows += [_spent_row(part, report) for part in parts]
        seconds, hidden = sum(part.seconds for part in parts), sum(part.hidden for part in parts)
        share = seconds / report.step_seconds
        rows.append(Row((group.value, "", seconds, share, hidden or None, ""), 0, "subtotal"))
    hidden = sum(part.hidden for part in report.spent)
    rows.append(Row(("the step", "", report.step_seconds, 1.0, hidden or None, ""), 0, "total"))
    where = f"stage {report.busiest.stage}, which works longest" if len(report.stages) > 1 else "each device"
    return Table("time", f"where the time goes, on {where}", columns, tuple(rows))


def _spent_row(part: SpentPart, report: TrainReport) -> Row:
    note = part_words(part, report.setup.optimizer)
    role: RowRole = ""
    if part.what in (TimePart.FORWARD, TimePart.BACKWARD):
        note = f"{_microbatches(report.setup.microbatches)} through the layers of the stage"
    if part.what.group is TimeGroup.COLLECTIVES:
        role = "collective"
        once = part.what in (TimePart.GRADIENTS_ONCE, TimePart.PARAMETERS_ONCE)
        behind = f"hidden behind {hiders_words(part.hidden_by)}" if part.hidden_by else ""
        note = behind if behind or once else note
    cells = (
        WORDS.get(part.what, part_name(part.what)),
        part.axis,
        part.seconds,
        part.seconds / report.step_seconds,
        part.hidden or None,
        note,
    )
    return Row(cells, 1, role)


def _stages_table(report: TrainReport) -> Table:
    """One row for each pipeline stage."""
    columns = (
        Column("stage", "stage", "integer"),
        Column("layers", "layers", wrap=True),
        Column("forward_seconds", "forward", "seconds"),
        Column("backward_seconds", "backward", "seconds"),
        Column("in_flight", "in flight", "si"),
        Column("busy_seconds", "busy", "seconds"),
        Column("bubble_seconds", "bubble", "seconds"),
        Column("needed_bytes", "memory", "bytes"),
    )
    rows = tuple(
        Row(
            (
                stage.stage,
                stage_layers(stage),
                stage.forward_seconds,
                stage.backward_seconds,
                stage.in_flight,
                stage.busy_seconds,
                report.idle_seconds(stage) if len(report.stages) > 1 else None,
                stage.memory.needed,
            )
        )
        for stage in report.stages
    )
    many = "pipeline stages" if len(report.stages) > 1 else "the only stage"
    title = f"{many}: forward and backward pass of one microbatch, microbatches in flight at the peak of memory"
    return Table("stages", title, columns, rows)


def stage_layers(stage: StageReport) -> str:
    """Layers of a stage in words.

    Args:
        stage: of a report.
    """
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in stage.layers)


def _memory_table(result: TrainRun) -> Table:
    """What the fullest stage holds when it holds most."""
    columns = (
        Column("part", "held"),
        Column("bytes", "bytes", "bytes"),
        Column("share", "of device", "share"),
        Column("what", "what it is", wrap=True),
    )
    report = result.step
    stage, setup = report.fullest, report.setup
    memory, precision = stage.memory, setup.precision
    parts = (
        ("parameters", memory.parameters, f"at rest, {precision.parameters}"),
        ("gradients", memory.gradients, f"added up over the microbatches, {precision.gradients}"),
        ("optimizer", memory.optimizer, _states_words(report)),
        ("saved", memory.saved, f"activations kept for the backward pass, {stage.in_flight:g} in flight"),
        ("gathered", memory.gathered, "parameters gathered and kept, or fetched ahead"),
        ("working", memory.working, "what the layer at work needs besides"),
        ("runtime", memory.overhead, "context, libraries, communication buffers: assumed (--overhead)"),
    )
    capacity = report.capacity
    rows = [Row((name, size, size / capacity, words)) for name, size, words in parts if size]
    rows.append(Row(("together", memory.needed, memory.needed / capacity, ""), 0, "total"))
    left = memory.left
    chip = setup.network.system.chip.name
    rows.append(Row(("device", capacity, 1.0, chip), 0, "subtotal"))
    rows.append(Row(("left" if left >= 0 else "too much", abs(left), abs(left) / capacity, ""), 0, "subtotal"))
    if result.reserved is not None:
        size = result.reserved
        words = "with what PyTorch's caching allocator keeps and cannot use again"
        rows.append(Row(("reserved", size, size / capacity, words), 0, "subtotal"))
    if memory.host:
        rows.append(Row(("on the host", memory.host, None, " and ".join(_offloaded(report))), 0, "subtotal"))
    where = f"stage {stage.stage}, which holds most" if len(report.stages) > 1 else "each device"
    moment = f", at its peak: the {moment_words(stage.moment)}" if stage.moment else ""
    return Table("memory", f"memory of {where}{moment}", columns, tuple(rows))


def _states_words(report: TrainReport) -> str:
    """What the optimizer keeps, and in which types."""
    states: dict[str, dict[str, None]] = {}
    for kind, _ in report.fullest.layers:
        for held in report.layer(kind).optimizer:
            name = held.reason.op.replace("_", " ")
            states.setdefault(name, {})[held.tensor.dtype] = None
    words = ", ".join(f"{name} {' or '.join(dtypes)}" for name, dtypes in states.items())
    return f"{report.setup.optimizer}: {words}" if words else report.setup.optimizer


def _alive_table(report: TrainReport, detail: bool) -> Table:
    """Tensors of the fullest stage at its peak, largest first."""
    columns = (
        Column("tensor", "tensor, as divided", wrap=True),
        Column("what", "held as", wrap=True),
        Column("local_shape", "local shape"),
        Column("bytes", "one", "bytes"),
        Column("copies", "copies", "integer"),
        Column("total_bytes", "together", "bytes"),
    )
    alive = report.fullest.alive
    shown = alive if detail else alive[:LARGEST]
    rows = [
        Row((one.text, f"{one.what}, {one.kind}", "x".join(map(str, one.shape)), one.bytes, one.copies, one.total))
        for one in shown
    ]
    rest = alive[len(shown) :]
    if rest:
        rows.append(Row((f"and {len(rest)} more (--detail)", "", "", None, None, sum(one.total for one in rest))))
    title = "tensors held then" if detail else "largest tensors held then"
    return Table("tensors", f"{title}; copies: layers x microbatches in flight", columns, tuple(rows))


def _moves_table(report: TrainReport, moves: tuple[Move, ...]) -> Table:
    """Collectives of a step by mesh axis, kind and what they move."""
    columns = (
        Column("collective", "collective", wrap=True),
        Column("axis", "over", wrap=True),
        Column("times", "times", "integer"),
        Column("received_bytes", "received", "bytes"),
        Column("seconds", "network", "seconds"),
        Column("exposed_seconds", "exposed", "seconds"),
        Column("hidden_seconds", "hidden", "seconds"),
    )
    rows: list[Row] = []
    for axis in dict.fromkeys(move.axis for move in moves):
        along = [move for move in moves if move.axis == axis]
        groups: dict[str, list[Move]] = {}
        for move in along:
            once = ", once a step" if move.phase == UPDATE else ""
            groups.setdefault(f"{moved_words(move)}{once}", []).append(move)
        for words, group in sorted(groups.items(), key=lambda item: -sum(move.seconds for move in item[1])):
            rows.append(_sums(words, axis, group, 1, "collective"))
        if len(groups) > 1:
            rows.append(_sums("all", axis, along, 0, "subtotal"))
    stage = f", on stage {report.busiest.stage}, which works longest" if report.setup.stages > 1 else ""
    return Table("collectives", f"collectives of a step by mesh axis{stage}", columns, tuple(rows))


def _sums(words: str, axis: str, group: list[Move], level: int, role: RowRole) -> Row:
    """One row for several collectives."""
    times = sum(move.times for move in group)
    received, seconds = sum(move.bytes for move in group), sum(move.seconds for move in group)
    counted = any(move.exposed_seconds is not None for move in group)
    exposed = sum(move.exposed for move in group) if counted else None
    hidden = sum(move.hidden for move in group) if counted else None
    return Row((words, axis, times, received, seconds, exposed, hidden), level, role)


def _advice_tables(report: TrainReport, advice: tuple[Advice, ...]) -> list[Table]:
    """Changes with which the step would fit, each priced."""
    if not advice:
        return []
    columns = (
        Column("change", "change", wrap=True),
        Column("devices", "devices", "integer"),
        Column("step_seconds", "step", "seconds"),
        Column("of_now", "x now", "ratio"),
        Column("needed_bytes", "memory", "bytes"),
    )
    rows = tuple(
        Row(
            (
                changes_words(one.changes),
                one.report.setup.mesh.devices,
                one.report.step_seconds,
                one.report.step_seconds / report.step_seconds,
                one.report.fullest.memory.needed,
            )
        )
        for one in advice
    )
    return [Table("advice", "changes with which it would fit", columns, rows)]


def _conventions(report: TrainReport, units: str) -> tuple[str, ...]:
    setup = report.setup
    system = setup.network.system
    rate = peak_rate(system.chip, setup.precision.compute)
    counted = (
        "the half of attention's square that its mask lets through"
        if setup.attention == "causal"
        else ("attention's full square")
    )
    overlap = setup.strategy.policy.overlap
    hides = f"{', '.join(overlap)}: {100 * EFFICIENCY:g} % of what local work beside them has time for is hidden"
    power = system.chip.power
    lines = [
        f"1 FLOP is half a multiply-add (2mnk); {'1 GiB = 2^30 bytes' if units == 'iec' else '1 GB = 10^9 bytes'};"
        " received: bytes that arrive at a device over the network",
        f"MFU: FLOPs of the model's einsums, forward and backward, with {counted}, over the datasheet's"
        f" {rate.datasheet / 1e12:g} TFLOP/s {rate.dtype} of {system.chip.name}; HFU: all FLOPs that the devices spend",
        f"overlap of {hides}" if overlap else "nothing overlaps but streamed collectives",
        _times_words(report),
        f"runtime: {format_bytes(setup.overhead, units)} assumed on every device beside tensors",
    ]
    if power is not None:
        lines.append(f"energy: {power.used:g} W for each device all the time; hosts, network and cooling come on top")
    return tuple(lines)


def _times_words(report: TrainReport) -> str:
    """Where the times come from."""
    system, execution = report.setup.network.system.name, report.setup.execution
    if report.setup.network.system.chip.kernels is None:
        return (
            f"times: modelled, not measured: rooflines of {system}, no figures of its kernels, attainable rates where a"
            " source states them, otherwise datasheet"
        )
    return (
        f"times: modelled, not measured: matrix products and kernels as {system} runs them (launched"
        f" {execution.launch}, elementwise kernels {execution.elementwise}), collectives at the bandwidth they sustain"
    )
