"""What a step costs beside its forward and backward work: collectives it waits for, bubbles, work done again."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from einscale.price.program import PricedStatement
from einscale.price.spent import TimeGroup, TimePart
from einscale.report.causes import cause_words
from einscale.report.training.parts import moved_words, part_name, part_words
from einscale.schedule import find_schedule
from einscale.training import TrainReport
from einscale.training.moves import Move
from einscale.training.pipeline import pipeline_figures
from einscale.units import format_bytes, format_seconds
from einscale.vocabulary import COMPUTE, RECOMPUTE, UPDATE, LimitedBy

SHOWN = 3
"""Costs that are named."""

LEAST = 0.005
"""Share of the step below which a cost is not worth a line."""

NAMED = 2
"""Statements that are named."""


_SLOW = {
    LimitedBy.MEMORY: "kernels that wait for memory, not arithmetic",
    LimitedBy.LAUNCH: "what kernels wait for the host to start them",
}
"""What bounds local work, in words."""


class Cost(Struct, frozen=True):
    """One cost.

    Args:
        what: it is.
        seconds: of the step.
        cause: why.
    """

    what: str
    seconds: float
    cause: str


def largest_costs(report: TrainReport, moves: tuple[Move, ...], units: str) -> tuple[Cost, ...]:
    """The largest costs beside forward and backward work, largest first; none that is less than `LEAST` of the step.

    Args:
        report: the step.
        moves: its collectives.
        units: `iec` or `si`.
    """
    found = [*_collectives(moves, units), *_others(report), *_slow_kernels(report)]
    large = [cost for cost in found if cost.seconds > LEAST * report.step_seconds]
    return tuple(sorted(large, key=lambda cost: -cost.seconds)[:SHOWN])


def cost_items(costs: tuple[Cost, ...], whole: float) -> tuple[tuple[str, str], ...]:
    """Costs as items of a screen: what and how much, and why.

    Args:
        costs: largest first.
        whole: what shares are of.
    """
    return tuple(
        (f"{format_seconds(cost.seconds)} ({100 * cost.seconds / whole:.1f} %): {cost.what}", cost.cause)
        for cost in costs
    )


def _collectives(moves: tuple[Move, ...], units: str) -> Iterator[Cost]:
    """Collectives of one kind, over the same axes, that move the same: what the step waits for of them."""
    groups: dict[tuple[str, str, bool], list[Move]] = {}
    for move in moves:
        if move.exposed_seconds is not None:
            groups.setdefault((moved_words(move), move.axis, move.phase == UPDATE), []).append(move)
    for (words, axis, _), group in groups.items():
        exposed, hidden = sum(move.exposed for move in group), sum(move.hidden for move in group)
        times, received = sum(move.times for move in group), sum(move.bytes for move in group)
        most = max(group, key=lambda move: move.exposed)
        behind = f", + {format_seconds(hidden)} hidden" if hidden > LEAST * exposed else ""
        often = f"{times:,} at the end" if most.phase == UPDATE else f"{times:,} times"
        what = f"{words} over {axis}, {often}, {format_bytes(received, units)}{behind}"
        yield Cost(what, exposed, cause_words(most.priced.step.cause))


def _others(report: TrainReport) -> Iterator[Cost]:
    """Waiting, work done again, and work that comes once a step."""
    for part in report.spent:
        if part.what is TimePart.BUBBLE:
            yield Cost("bubble", part.seconds, _bubble_words(report))
        elif part.what is TimePart.RECOMPUTE:
            yield Cost("recompute", part.seconds, _recompute_words(report))
        elif part.what.group is not TimeGroup.COLLECTIVES and part.what not in (TimePart.FORWARD, TimePart.BACKWARD):
            yield Cost(part_name(part.what), part.seconds, part_words(part, report.setup.optimizer))


def _bubble_words(report: TrainReport) -> str:
    """Why stages wait, by the closed form where it holds."""
    setup, figures = report.setup, pipeline_figures(report)
    operands = f"{setup.stages} stages, {setup.microbatches} microbatches"
    times = f"F {format_seconds(figures.forward)}, B {format_seconds(figures.backward)}"
    work = [stage.busy_seconds for stage in report.stages]
    uneven = f"; stages work {format_seconds(min(work))} to {format_seconds(max(work))}"
    formula = f": {find_schedule(setup.schedule).bubble_text}" if figures.closed_bubble is not None else ""
    return f"stage {report.busiest.stage} waits for the others: {setup.schedule}, {operands}{formula}, {times}{uneven}"


def _recompute_words(report: TrainReport) -> str:
    """What is computed again, and the statements that take most of it."""
    rows = [one for one in _stage_rows(report) if one[2].planned.statement.phase == RECOMPUTE]
    return f"the backward pass runs forward statements again, most of it {_most(rows)}"


def _slow_kernels(report: TrainReport) -> Iterator[Cost]:
    """Forward and backward work that arithmetic does not bound."""
    groups: dict[LimitedBy, list[tuple[str, float, PricedStatement]]] = {}
    for one in _stage_rows(report):
        row = one[2]
        bound = LimitedBy(str(row.local.bound))
        if row.planned.statement.phase != RECOMPUTE and bound != COMPUTE:
            kind, seconds, _ = one
            lost = seconds * (1 - 1 / float(row.local.launched)) if bound is LimitedBy.LAUNCH else seconds
            groups.setdefault(bound, []).append((kind, lost, row))
    for bound, rows in groups.items():
        seconds = sum(seconds for _, seconds, _ in rows)
        yield Cost(
            _SLOW.get(bound, f"kernels bound by {bound}"),
            seconds,
            f"part of forward and backward, most of it {_most(rows)}",
        )


def _stage_rows(report: TrainReport) -> Iterator[tuple[str, float, PricedStatement]]:
    """Kind, seconds in a step, statement: of the passes of the busiest stage."""
    for kind, count in report.busiest.layers:
        for row in report.layer(kind).rows:
            yield kind, float(row.local.seconds) * count * report.setup.each, row


def _most(rows: list[tuple[str, float, PricedStatement]]) -> str:
    """The statements that take most, in words."""
    largest = sorted(rows, key=lambda one: -one[1])[:NAMED]
    return ", ".join(
        f"{row.planned.statement.output} ({row.planned.statement.op}, {kind}) {format_seconds(seconds)}"
        for kind, seconds, row in largest
        if seconds
    )
