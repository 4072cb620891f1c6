"""The training report on one screen: the verdict, where the time goes, what memory holds, costs, what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.changes import Option
from einscale.price.spent import SpentPart, TimeGroup, TimePart
from einscale.report.bars import Bar, Bars, Fill, bar
from einscale.report.screen import Beside, Items, Words, verdict_block
from einscale.report.table import Block
from einscale.report.training.costs import cost_items, largest_costs
from einscale.report.training.parts import WORDS, part_name
from einscale.report.words import changes_words
from einscale.training import Advice, TrainReport
from einscale.training.moves import Move
from einscale.units import format_bytes, format_seconds, format_si

if TYPE_CHECKING:
    from einscale.training.run import TrainRun

MOST_BARS = 6
"""Rows of bars at most; the others are summed up."""

LEAST = 0.01
"""Share of the whole below which a part has no row of its own."""

CHANGES = 3
"""Changes that are named where a step does not fit."""

FILLS = {TimeGroup.WORK: Fill.WORK, TimeGroup.COLLECTIVES: Fill.EXPOSED, TimeGroup.WAITING: Fill.WAITING}


def train_screen(
    result: TrainRun,
    moves: tuple[Move, ...],
    verdicts: tuple[tuple[str, str], ...],
    heading: tuple[str, ...],
    advice: tuple[Advice, ...] | None,
    units: str,
) -> tuple[Block, ...]:
    """Blocks of the default report.

    Args:
        result: what was priced.
        moves: its collectives.
        verdicts: the answer in lines, each with its style.
        heading: what was asked: a title, and lines on how.
        advice: changes with which it would fit; if it fits, those that make it faster; None to name none.
        units: `iec` or `si`.
    """
    report = result.step
    costs = cost_items(largest_costs(report, moves, units), report.step_seconds)
    title = "largest costs beside forward and backward work"
    return (
        verdict_block(heading, verdicts),
        Beside((_time_bars(report), _memory_bars(report))),
        *((Items(title, costs),) if costs else ()),
        *(() if advice is None else (_change_block(report, advice, units),)),
    )


def merged(bars: list[Bar], total: float, *, most: int = MOST_BARS) -> tuple[Bar, ...]:
    """The rows that are worth one, and one for the others together.

    Args:
        bars: of all parts, in order.
        total: what shares are of.
        most: rows at most.
    """
    order = sorted(range(len(bars)), key=lambda number: -bars[number].length)
    large = [number for number in order if bars[number].length >= LEAST * total]
    kept = sorted(large[: most if len(bars) <= most else most - 1])
    if len(bars) - len(kept) <= 1:
        return tuple(bars)
    rest = [one for number, one in enumerate(bars) if number not in kept]
    amounts: dict[Fill, float] = {}
    for fill, amount in (piece for one in rest for piece in one.pieces):
        amounts[fill] = amounts.get(fill, 0.0) + amount
    pieces = tuple((fill, amounts[fill]) for fill in Fill if fill in amounts)
    last = Bar(f"{len(rest)} smaller parts", sum(one.value for one in rest), pieces)
    return (*(bars[number] for number in kept), last)


def _time_bars(report: TrainReport) -> Bars:
    """Parts of the step on the busiest stage."""
    bars: list[Bar] = []
    for group in TimeGroup:
        parts = [part for part in report.spent if part.what.group is group]
        bars += [_time_bar(part) for part in sorted(parts, key=lambda part: -part.seconds)]
    stage = f" on stage {report.busiest.stage}, the busiest" if len(report.stages) > 1 else ""
    title = f"where the {format_seconds(report.step_seconds)} of a step go{stage}"
    return Bars(title, merged(bars, report.step_seconds), report.step_seconds)


def _time_bar(part: SpentPart) -> Bar:
    name = WORDS.get(part.what, part_name(part.what))
    if part.what in (TimePart.OFFLOADED_ACTIVATIONS, TimePart.OFFLOADED_OPTIMIZER):
        name = part.what.value
    label = f"{name} over {part.axis}" if part.what.group is TimeGroup.COLLECTIVES and part.axis else name
    note = f"+ {format_seconds(part.hidden)} hidden" if part.hidden else ""
    return bar(label, part.seconds, FILLS[part.what.group], part.hidden, note)


def _memory_bars(report: TrainReport) -> Bars:
    """What the fullest stage holds at its peak, against what a device has."""
    stage, setup = report.fullest, report.setup
    memory, precision = stage.memory, setup.precision
    parts = (
        ("parameters", memory.parameters, precision.parameters),
        ("gradients", memory.gradients, precision.gradients),
        ("optimizer", memory.optimizer, setup.optimizer),
        ("saved", memory.saved, f"activations, {stage.in_flight:g} in flight"),
        ("gathered", memory.gathered, "parameters"),
        ("working", memory.working, "the layer at work"),
        ("runtime", memory.overhead, "assumed"),
    )
    bars = [Bar(name, size, ((Fill.HELD, size),), note) for name, size, note in parts if size]
    where = f"stage {stage.stage}, the fullest," if len(report.stages) > 1 else "a device"
    return memory_bars(f"what {where} holds at its peak", bars, memory.needed, report.capacity)


def memory_bars(title: str, bars: list[Bar], needed: float, capacity: float) -> Bars:
    """Bars of what a device holds against its capacity, and what is left of it, or missing.

    Args:
        title: heading.
        bars: of what is held.
        needed: all of it.
        capacity: of a device.
    """
    left = capacity - needed
    fill = Fill.LEFT if left >= 0 else Fill.TOO_MUCH
    rows = (*merged(bars, capacity), Bar(fill.value, abs(left), ((fill, abs(left)),)))
    return Bars(title, rows, capacity, "bytes", max(needed, capacity), legend=False)


def _change_block(report: TrainReport, advice: tuple[Advice, ...], units: str) -> Words:
    """What to change first, priced."""
    title = "what to change first"
    now, capacity = report.step_seconds, format_bytes(report.capacity, units)
    items: list[str] = []
    for one in advice if not report.fits else _best(advice):
        step, needed = one.report.step_seconds, format_bytes(one.report.fullest.memory.needed, units)
        devices = one.report.setup.mesh.devices
        more = f" on {devices:,} devices" if devices != report.setup.mesh.devices else ""
        time = f"a step of {format_seconds(step)} instead of {format_seconds(now)}"
        fit = "fits with" if not report.fits else "needs"
        items.append(f"{changes_words(one.changes)}: {time}{more}, {fit} {needed} of {capacity}")
    if not items and report.fits:
        items = ["no nearby change on as many devices was found that makes it faster"]
    elif not items:
        items = ["no changes were found with which it fits: it wants more devices, or another strategy"]
    return Words(tuple((text, "") for text in items[:CHANGES]), title, indent=2, hanging=4)


def _best(advice: tuple[Advice, ...]) -> list[Advice]:
    """The best change of each option."""
    best: dict[Option, Advice] = {}
    for one in advice:
        best.setdefault(one.changes[0].option, one)
    return list(best.values())


def time_verdict(result: TrainRun) -> str:
    """Time, rates and utilisation of a step in a line."""
    report = result.step
    return (
        f"a step takes {format_seconds(report.step_seconds)}: {format_si(report.tokens_per_second)} tokens/s,"
        f" {format_si(report.tokens_per_second_per_device)} tokens/s a device, MFU {100 * report.mfu:.1f} %"
    )


def money_verdicts(result: TrainRun) -> tuple[str, ...]:
    """What it costs and how long the whole run takes, as far as that was asked."""
    parts: list[str] = []
    if result.step_price is not None:
        parts.append(f"a step costs {format_si(result.step_price)} ({result.price_per_hour:g} a device-hour)")
    if result.training_steps is not None and result.training_days is not None:
        run = f"{format_si(result.training_tokens or 0)} tokens: {format_si(result.training_steps)} steps"
        parts.append(f"{run}, {format_si(result.training_days)} days")
    if result.training_price is not None:
        parts.append(f"{format_si(result.training_price)} in all")
    return (", ".join(parts),) if parts else ()
