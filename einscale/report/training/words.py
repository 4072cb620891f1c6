"""How each number of a training step came about: formulas with their operands filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.hardware import peak as peak_rate
from einscale.models import model_flops
from einscale.price.footprint import MemoryPart
from einscale.price.overlap import EFFICIENCY
from einscale.report.causes import cause_words
from einscale.report.table import Column, Row, Table
from einscale.report.training.detail import is_short
from einscale.report.training.parts import moment_words
from einscale.report.words import hider_words
from einscale.schedule import find_schedule, timeline_text
from einscale.topology import explain_step
from einscale.training import TrainReport
from einscale.training.moves import STAGES, Move, step_moves
from einscale.training.pipeline import pipeline_figures, sending_program, sent_times, step_timeline
from einscale.units import format_bytes, format_flops, format_seconds, format_si
from einscale.vocabulary import BACKWARD, COMPUTE, FORWARD, UPDATE

if TYPE_CHECKING:
    from einscale.training.run import TrainRun

TIMELINE_WIDTH = 74
"""Columns of a timeline among formulas."""

FORMULAS = 12
"""Most formulas of collectives: one for each kind, axis and class, for the tensor that takes most of the step."""

Line = tuple[str, str, str]
"""What it is, its value, how it came about."""


def explain_table(result: TrainRun, units: str) -> Table:
    """Every number of the report that is derived, with its formula.

    Args:
        result: what was priced.
        units: `iec` or `si`.
    """
    columns = (
        Column("number", "number", wrap=True),
        Column("value", "value"),
        Column("formula", "formula", detail=True),
    )
    report = result.step
    sections: tuple[tuple[str, list[Line]], ...] = (
        ("the step", _step_lines(report)),
        ("one microbatch in one layer", _layer_lines(report)),
        ("money", _money_lines(result)),
        ("pipeline", _pipeline_lines(report) if report.setup.stages > 1 else []),
        ("memory", _memory_lines(report, units)),
        ("overlap", _overlap_lines(report)),
        ("collectives: of each kind the one that takes most of the step", _collective_lines(report, units)),
    )
    rows: list[Row] = []
    for title, lines in sections:
        if lines:
            rows.append(Row((title, "", ""), 0, "section"))
            rows += [Row(line, 1) for line in lines]
    return Table("explained", "how each number came about", columns, tuple(rows))


def _step_lines(report: TrainReport) -> list[Line]:
    setup = report.setup
    chip = setup.network.system.chip
    rate = peak_rate(chip, setup.precision.compute)
    counted = model_flops(setup.model, setup.sequence, convention=setup.attention)
    parts = [f"projections {format_flops(counted.projections)}"]
    parts += [f"attention ({setup.attention}) {format_flops(counted.attention)}"] if counted.attention else []
    parts += [f"recurrences {format_flops(counted.recurrence)}"] if counted.recurrence else []
    promised = f"({format_seconds(report.step_seconds)} x {setup.mesh.devices} x {rate.datasheet / 1e12:g} TFLOP/s)"
    update = report.step_seconds - report.passes_seconds
    lines = [
        (
            "microbatches",
            str(setup.microbatches),
            f"batch / (replicas x microbatch) = {setup.batch} / ({setup.replicas} x {setup.microbatch})",
        ),
        (
            "step",
            format_seconds(report.step_seconds),
            f"forward and backward passes {format_seconds(report.passes_seconds)} + what comes once a step"
            f" {format_seconds(update)}",
        ),
        (
            "tokens/s",
            format_si(report.tokens_per_second),
            f"batch x sequence / step = {setup.batch} x {setup.sequence} / {format_seconds(report.step_seconds)}",
        ),
        (
            "model FLOPs",
            format_flops(report.model_flops),
            f"{setup.batch} sequences x ({' + '.join(parts)}); forward and backward: 3 x the forward einsums",
        ),
        ("MFU", f"{100 * report.mfu:.3g} %", f"{format_flops(report.model_flops)} / {promised}"),
        ("HFU", f"{100 * report.hfu:.3g} %", f"{format_flops(report.hardware_flops)} / {promised}"),
    ]
    if report.joules is not None and chip.power is not None:
        formula = f"{chip.power.used:g} W x {setup.mesh.devices} devices x {format_seconds(report.step_seconds)}"
        lines.append(("energy", format_flops(report.joules).replace("FLOP", "J"), formula))
    return lines


def _layer_lines(report: TrainReport) -> list[Line]:
    """Time of one microbatch in one layer of each kind on the busiest stage: local work, and what stays exposed."""
    lines: list[Line] = []
    for kind, count in report.busiest.layers:
        layer = report.layer(kind)
        for phase, seconds in ((FORWARD, layer.forward_seconds), (BACKWARD, layer.backward_seconds)):
            sums = layer.totals(phase)
            rows = [row for row in layer.rows if row.planned.phase == phase]
            bound = [row for row in rows if row.local.bound == COMPUTE]
            matrices = sum(float(row.local.seconds) for row in bound)
            others = sums.compute_seconds - matrices
            words = (
                f"{format_seconds(matrices)} in {len(bound)} statements bound by compute"
                f" + {format_seconds(others)} in {len(rows) - len(bound)} by memory or launches"
                f" + {format_seconds(sums.communication_seconds)} of collectives exposed"
            )
            if phase == BACKWARD and layer.accumulate_seconds:
                words += f" + {format_seconds(layer.accumulate_seconds)} to add up gradients"
            lines.append((f"{phase}, {kind}", format_seconds(seconds), f"{words}; {count} on the stage"))
    return lines


def _money_lines(result: TrainRun) -> list[Line]:
    setup = result.step.setup
    step = format_seconds(result.step.step_seconds)
    lines: list[Line] = []
    if result.step_price is not None:
        formula = f"{result.price_per_hour:g} an hour x {setup.mesh.devices} devices x {step} / 3600 s"
        lines.append(("price of a step", format_si(result.step_price), formula))
    if result.training_steps is not None and result.training_days is not None:
        formula = f"{result.training_tokens:,} tokens / ({setup.batch} x {setup.sequence}), rounded up"
        lines.append(("steps", f"{result.training_steps:,}", formula))
        formula = f"{result.training_steps:,} x {step} / 86400 s, nothing ever failing"
        lines.append(("days", format_si(result.training_days), formula))
    return lines


def _pipeline_lines(report: TrainReport) -> list[Line]:
    setup, found = report.setup, pipeline_figures(report)
    schedule = find_schedule(setup.schedule)
    p, m, v = setup.stages, setup.microbatches, setup.chunks
    means = (("F", found.forward), ("B", found.backward), ("W", found.weight))
    times = ", ".join(f"{name} {format_seconds(time)}" for name, time in means if time)
    operands = f"p {p}, m {m}" + (f", v {v}" if v > 1 else "")
    lines: list[Line] = []
    if found.closed_bubble is not None:
        formula = f"{schedule.bubble_text}, {operands}; a chunk takes on average {times}"
        lines.append(("bubble, closed form", format_seconds(found.closed_bubble), formula))
    if found.outside is not None:
        formula = f"every pass in its order: {found.outside}"
        lines.append(("bubble, simulated", format_seconds(found.bubble), formula))
    stage = report.fullest.stage
    each = f" = {found.held} chunks, of {found.parts} on a device" if found.parts > 1 else ""
    formula = f"{schedule.in_flight_text}, {operands}, i {stage}{each}"
    lines.append((f"microbatches in flight on stage {stage}", format_si(report.fullest.in_flight), formula))
    planned, often = sending_program(report), sent_times(report)
    if report.sent is not None and planned is not None:
        count = f"; {often} times a step" if often else ""
        formula = f"{explain_step(report.sent.step, planned.sizes, setup.timed_by)}{count}, a part of the bubble"
        lines.append((f"hop of {report.sent.step.tensor.name}", format_seconds(report.sent.seconds), formula))
    if is_short(report):
        timeline = step_timeline(report)
        lines.append(("timeline", format_seconds(timeline.makespan), timeline_text(timeline, TIMELINE_WIDTH)))
    return lines


def _memory_lines(report: TrainReport, units: str) -> list[Line]:
    stage = report.fullest
    memory = stage.memory

    def size(count: float) -> str:
        return format_bytes(count, units)

    def summed(which: str) -> str:
        parts = [
            f"{count} {kind} x {size(sum(held.bytes for held in getattr(report.layer(kind), which)))}"
            for kind, count in stage.layers
            if getattr(report.layer(kind), which)
        ]
        return " + ".join(parts)

    lines = [
        (what, size(getattr(memory, what)), summed(what))
        for what in ("parameters", "gradients", "optimizer")
        if getattr(memory, what)
    ]
    copies: dict[str, int] = {}
    for one in stage.alive:
        if one.what is MemoryPart.SAVED:
            copies[one.kind] = max(copies.get(one.kind, 0), one.copies)
    if memory.saved:
        each = {kind: report.layer(kind).saved_bytes for kind in copies}
        largest = sorted(copies.items(), key=lambda item: -item[1] * each[item[0]])
        parts = [f"{count} {kind} x {size(each[kind])}" for kind, count in largest]
        offload = report.setup.offload.activations
        kept = f"; of that {100 * (1 - offload):g} % on the device" if offload else ""
        formula = f"{' + '.join(parts)}, layers x microbatches in flight{kept}"
        lines.append(("saved", size(memory.saved), formula))
    if memory.gathered:
        lines.append(("gathered", size(memory.gathered), "parameters of one layer fetched ahead, and those kept"))
    if memory.working:
        lines.append(
            ("working", size(memory.working), f"the {moment_words(stage.moment)}: what it reads and makes, not saved")
        )
    together = [
        ("parameters", memory.parameters),
        ("gradients", memory.gradients),
        ("optimizer", memory.optimizer),
        ("saved", memory.saved),
        ("gathered", memory.gathered),
        ("working", memory.working),
        ("runtime", memory.overhead),
    ]
    formula = " + ".join(f"{name} {size(count)}" for name, count in together if count)
    return [*lines, ("together", size(memory.needed), formula)]


def _overlap_lines(report: TrainReport) -> list[Line]:
    lines: list[Line] = []
    for kind, _ in report.busiest.layers:
        for window in report.layer(kind).windows:
            operands = (
                f"{format_seconds(window.moving)} - {EFFICIENCY:g} x min({format_seconds(window.moving)},"
                f" {format_seconds(window.seconds)} of work):"
                f" what is left of moves behind {hider_words(window.behind)}"
            )
            first = f"; the first layer of a pass has {format_seconds(window.first)} more" if window.first else ""
            name = f"{window.kind} exposed, {kind} {window.phase}"
            lines.append((name, format_seconds(window.exposed), operands + first))
    return lines


def _collective_lines(report: TrainReport, units: str) -> list[Line]:
    """One formula for each kind of collective, axes and class: that of the tensor that takes most time."""
    groups: dict[tuple[str, str, str, bool], list[Move]] = {}
    for move in step_moves(report):
        if move.what != STAGES:
            groups.setdefault((move.priced.step.kind, move.axis, move.what, move.phase == UPDATE), []).append(move)
    largest = [max(group, key=lambda move: move.seconds) for group in groups.values()]
    largest.sort(key=lambda move: -sum(one.seconds for one in groups[_key(move)]))
    lines: list[Line] = []
    for move in largest[:FORMULAS]:
        step = move.priced.step
        layer = report.layer(move.layer)
        sizes = (layer.updated if move.phase == UPDATE else layer.planned).sizes
        name = f"{step.kind} {step.tensor.name} over {move.axis}, {move.layer} {move.phase}"
        formula = explain_step(step, sizes, report.setup.timed_by)
        shared = formula.seconds > move.priced.seconds * (1 + 1e-9)
        latency = "; the latency is paid by the first of such moves in the layer" if shared else ""
        received = f"{format_bytes(move.priced.bytes, units)} received"
        lines.append(
            (name, format_seconds(move.priced.seconds), f"{formula}{latency}\n{received}; {cause_words(step.cause)}")
        )
    return lines


def _key(move: Move) -> tuple[str, str, str, bool]:
    return move.priced.step.kind, move.axis, move.what, move.phase == UPDATE
