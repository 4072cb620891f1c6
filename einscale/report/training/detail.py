"""The training report in full: every collective with its cause, the memory of every stage, every layer by itself."""

from __future__ import annotations

from collections.abc import Mapping

from einscale.report.causes import cause_words
from einscale.report.layer.tables import COLUMNS, statement_rows, total_row
from einscale.report.table import Block, Column, Row, Table
from einscale.report.timeline import TimelineBlock
from einscale.report.training.parts import moment_words
from einscale.report.words import hider_words
from einscale.training import LayerCost, TrainReport
from einscale.training.moves import Move
from einscale.training.pipeline import step_timeline
from einscale.units import format_seconds
from einscale.vocabulary import BACKWARD, FORWARD, UPDATE


def detail_tables(report: TrainReport, moves: tuple[Move, ...]) -> list[Table]:
    """Tables that `--detail` adds.

    Args:
        report: the step.
        moves: its collectives.
    """
    several = [_stage_memory_table(report)] if len(report.stages) > 1 else []
    return [*several, _layers_table(report), *([_every_move_table(moves)] if moves else [])]


def statement_tables(report: TrainReport) -> list[Table]:
    """Every statement of one layer of each kind with its collectives, for one microbatch, and its update.

    Args:
        report: the step.
    """
    return [_statements_table(layer, report) for layer in report.layers]


def _statements_table(layer: LayerCost, report: TrainReport) -> Table:
    rows: list[Row] = []
    for phase in (FORWARD, BACKWARD):
        rows.append(Row((phase, *("",) * (len(COLUMNS) - 1)), 0, "section"))
        for priced in layer.rows:
            if priced.planned.phase == phase:
                rows += statement_rows(priced, layer.planned, False)
        rows.append(total_row(f"{layer.kind} {phase}", layer.totals(phase), "subtotal"))
    if layer.update:
        rows.append(Row((f"{UPDATE}, once a step", *("",) * (len(COLUMNS) - 1)), 0, "section"))
        rows += [row for priced in layer.update for row in statement_rows(priced, layer.updated, False)]
    rows.append(total_row(f"{layer.kind}, both passes", layer.totals(), "total"))
    count = sum(number for stage in report.stages for kind, number in stage.layers if kind == layer.kind)
    layers = f" (x {count})" if count > 1 else ""
    size = report.setup.microbatch
    of = f"one microbatch of {size} sequence{'s' if size > 1 else ''}"
    return Table(
        layer.kind, f"{layer.kind}{layers}: {of}, exposed time of collectives", COLUMNS, tuple(rows), "statements"
    )


SHORT_STAGES, SHORT_TASKS = 8, 24
"""Stages, and microbatches times chunks, of the largest pipeline whose timeline is drawn without being asked for."""


def is_short(report: TrainReport) -> bool:
    """Whether a step's timeline is short enough to be drawn among tables."""
    setup = report.setup
    return setup.stages <= SHORT_STAGES and setup.microbatches * setup.chunks <= SHORT_TASKS


def timeline_block(report: TrainReport) -> Mapping[str, Block]:
    """The pipeline's timeline by its name; nothing without a pipeline.

    Args:
        report: the step.
    """
    setup = report.setup
    if setup.stages == 1:
        return {}
    title = (
        f"timeline of {setup.stages} stages and {setup.microbatches} microbatches, {setup.schedule}:"
        f" {format_seconds(report.passes_seconds)} of passes"
    )
    return {"timeline": TimelineBlock(step_timeline(report), title)}


def _stage_memory_table(report: TrainReport) -> Table:
    """Memory of every stage, part by part."""
    columns = (
        Column("stage", "stage", "integer"),
        Column("parameters_bytes", "params", "bytes"),
        Column("gradients_bytes", "grads", "bytes"),
        Column("optimizer_bytes", "optimizer", "bytes"),
        Column("saved_bytes", "saved", "bytes"),
        Column("gathered_bytes", "gathered", "bytes"),
        Column("working_bytes", "working", "bytes"),
        Column("needed_bytes", "needed", "bytes"),
        Column("moment", "at the peak", detail=True),
    )
    rows = []
    for stage in report.stages:
        held = stage.memory
        parts = (held.parameters, held.gradients, held.optimizer, held.saved, held.gathered, held.working)
        rows.append(
            Row((stage.stage, *parts, held.needed, f"peak: {moment_words(stage.moment)}" if stage.moment else ""))
        )
    return Table("stage_memory", "memory of every stage, the runtime in what is needed", columns, tuple(rows))


def _layers_table(report: TrainReport) -> Table:
    """One layer of every kind: times of one microbatch, what it holds."""
    columns = (
        Column("layer", "one layer", wrap=True),
        Column("forward_seconds", "forward", "seconds"),
        Column("backward_seconds", "backward", "seconds"),
        Column("recompute_seconds", "again", "seconds"),
        Column("parameters_bytes", "params", "bytes"),
        Column("saved_bytes", "saved", "bytes"),
        Column("working_bytes", "working", "bytes"),
    )
    rows = tuple(
        Row(
            (
                layer.kind,
                layer.forward_seconds,
                layer.backward_seconds,
                layer.recompute_seconds or None,
                layer.parameter_bytes,
                layer.saved_bytes,
                layer.working_bytes,
            )
        )
        for layer in report.layers
    )
    title = "every kind of layer: passes of one microbatch, bytes of one layer"
    return Table("layers", title, columns, rows)


def _every_move_table(moves: tuple[Move, ...]) -> Table:
    """Every collective, with its cause and how far it is from its bound."""
    columns = (
        Column("collective", "collective", wrap=True),
        Column("axis", "over", wrap=True),
        Column("times", "times", "integer"),
        Column("received_bytes", "each", "bytes"),
        Column("seconds", "network", "seconds"),
        Column("exposed_seconds", "exposed", "seconds"),
        Column("bound_ratio", "x bound", "ratio"),
        Column("cause", "cause", detail=True),
    )
    rows: list[Row] = []
    section = ""
    for move in moves:
        here = f"{move.layer} {move.phase}".strip() or move.what
        if here != section:
            rows.append(Row((here, *("",) * 7), 0, "section"))
            section = here
        priced = move.priced
        cells = (
            f"{priced.step.kind} {priced.step.tensor.name}",
            move.axis,
            move.times,
            priced.bytes,
            priced.seconds,
            move.exposed_seconds,
            move.bound_ratio,
            _cause(move),
        )
        rows.append(Row(cells, 1, "collective"))
    return Table("moves", "every collective of a step: times a step, bytes and seconds of one", columns, tuple(rows))


def _cause(move: Move) -> str:
    """Why a collective is there, from which layout to which it goes, and what hides it."""
    step = move.priced.step
    indices = step.tensor.indices
    layouts = f"{step.before.text(indices) or 'scalar'} -> {step.after.text(indices) or 'scalar'}"
    because = cause_words(step.cause)
    lines = [f"{layouts}: {because}" if step.before != step.after else because]
    if move.hidden_by:
        lines.append(f"{100 * move.hidden_share:.3g} % hidden behind {hider_words(move.hidden_by)}")
    return "\n".join(line for line in lines if line)
