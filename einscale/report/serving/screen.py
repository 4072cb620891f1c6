"""The report on requests on one screen: the verdict, where the time goes, what memory holds, costs, what to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from einscale.changes import Option
from einscale.price.footprint import Memory
from einscale.price.spent import Spent, TimePart
from einscale.report.bars import Bar, Bars, Fill, bar
from einscale.report.screen import Beside, Items, TableBlock, Words, closing, full_screen, part, verdict_block
from einscale.report.serving.costs import largest_costs
from einscale.report.serving.parts import PIPELINE, WORK
from einscale.report.table import Block, Report, Table
from einscale.report.training.costs import cost_items
from einscale.report.training.screen import memory_bars, merged
from einscale.report.words import changes_words
from einscale.serving import DecodeReport, DisaggregatedReport, Instance, PrefillReport, SpeculativeReport
from einscale.units import format_bytes, format_seconds, format_si

if TYPE_CHECKING:
    from einscale.serving.advice import ServingAdvice
    from einscale.serving.run import InferRun

MOST_BARS = 4
"""Rows of bars of one phase at most."""

CHANGES = 2
"""Changes that are named."""

FILLS = {TimePart.LAUNCH: Fill.WAITING, TimePart.HOPS: Fill.EXPOSED, TimePart.BUBBLE: Fill.WAITING}
"""Parts of a pass that are no work -> how they are drawn; collectives are exposed."""


def phase_blocks(
    prefill: PrefillReport | None,
    decode: DecodeReport | None,
    guessed: tuple[SpeculativeReport, PrefillReport | None] | None,
    memory: Bars,
    units: str,
) -> tuple[Block, ...]:
    """Where the time of the phases goes, what memory holds, and the largest costs.

    Args:
        prefill: None to leave it out.
        decode: None to leave it out.
        guessed: decoding with a draft, and the draft's prefill; None where nothing guesses.
        memory: bars of what a device holds.
        units: `iec` or `si`.
    """
    bars: list[Bars] = []
    if prefill is not None:
        bars.append(_spent_bars(prefill.spent, "the prefill"))
    if guessed is not None:
        bars.append(_round_bars(guessed[0]))
    elif decode is not None:
        bars.append(_spent_bars(decode.spent, "a decode step"))
    bars.append(memory)
    costs = largest_costs(prefill, decode, guessed, units)
    whole = _seconds(prefill, decode, guessed)
    items = cost_items(costs, whole)
    return (Beside(tuple(bars)), *((Items("largest costs of a request", items),) if items else ()))


def _seconds(
    prefill: PrefillReport | None,
    decode: DecodeReport | None,
    guessed: tuple[SpeculativeReport, PrefillReport | None] | None,
) -> float:
    """Time of both phases."""
    seconds = prefill.seconds if prefill is not None else 0.0
    if guessed is not None and decode is not None:
        report, reading = guessed
        return seconds + decode.output * report.seconds_per_token + (reading.seconds if reading is not None else 0.0)
    return seconds + (decode.seconds if decode is not None else 0.0)


def _spent_bars(spent: Spent, what: str) -> Bars:
    """Parts of a pass."""
    names = [(part, name) for part, name in (*WORK, *PIPELINE) if spent.of(part)]
    bars = [bar(name, spent.of(part), FILLS.get(part, Fill.WORK)) for part, name in names]
    bars += [
        bar(f"collectives over {one.axis}", one.seconds, Fill.EXPOSED, 0.0, f"latency {format_seconds(one.latency)}")
        for one in spent.by_axes
    ]
    title = f"where the {format_seconds(spent.seconds)} of {what} go"
    return Bars(title, merged(bars, spent.seconds, most=MOST_BARS), spent.seconds)


def _round_bars(report: SpeculativeReport) -> Bars:
    """A round of guesses and the pass that checks them."""
    whole, guesses = report.round_seconds, report.length * report.draft.seconds_per_token
    bars = (
        bar(
            f"{report.length} guess{'es' * (report.length > 1)}",
            guesses,
            Fill.WORK,
            0.0,
            report.draft.instance.model.name,
        ),
        bar("their check", report.verify_seconds, Fill.WORK, 0.0, report.target.instance.model.name),
    )
    title = f"where the {format_seconds(whole)} of a round go, {report.tokens_per_round:.2f} tokens expected"
    return Bars(title, bars, whole)


def memory_bars_of(memory: Memory, where: str, precision: tuple[str, str]) -> Bars:
    """What a device holds at most.

    Args:
        memory: of it.
        where: which device, in words.
        precision: element types of weights and cache.
    """
    parts = (
        ("weights", memory.parameters, precision[0]),
        ("cache", memory.cache, precision[1]),
        ("working", memory.working, "the layer at work"),
        ("runtime", memory.overhead, "assumed"),
    )
    bars = [Bar(name, size, ((Fill.HELD, size),), note) for name, size, note in parts if size]
    return memory_bars(f"what {where} holds at most", bars, memory.needed, memory.capacity)


def request_verdicts(result: InferRun, fits: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The answer in lines, each with its style.

    Args:
        result: what was priced.
        fits: of each instance whether it fits, in words.
    """
    token = f", then {format_seconds(result.seconds_per_token)} a token" if result.seconds_per_token else ""
    first = (
        f"first token after {format_seconds(result.first_token_seconds)}{token}, a request takes"
        f" {format_seconds(result.seconds)}"
    )
    user = result.tokens_per_second_per_user
    rates = (
        f"{format_si(result.tokens_per_second)} tokens/s,"
        f" {format_si(result.tokens_per_second_per_device)} tokens/s a device"
        + (f", {format_si(user)} tokens/s a user" if user else "")
    )
    cost = result.cost_per_million_tokens
    price = f"; {format_si(cost)} a million tokens of output" if cost is not None else ""
    fit = "; ".join((*fits, *_most_words(result))), "good" if result.fits else "bad"
    return ((first, ""), (rates + price, ""), fit, *_ways(result))


def _most_words(result: InferRun) -> tuple[str, ...]:
    """How many requests fit at once, where nothing guesses and nothing is apart."""
    if result.speculative is not None or result.disaggregated is not None:
        return ()
    most = result.largest_batch
    return (f"at most {most:,} requests fit",) if most else ()


def _ways(result: InferRun) -> tuple[tuple[str, str], ...]:
    """What comes of a draft, or of instances apart."""
    if result.speculative is not None:
        report = result.speculative
        alone = format_seconds(report.target.seconds_per_token)
        return ((f"the draft makes a token {report.speedup:.2f} x as fast: {alone} without it", ""),)
    return ((_apart_words(result.disaggregated), ""),) if result.disaggregated is not None else ()


def _apart_words(report: DisaggregatedReport) -> str:
    """How many instances there are of each kind, and what is sent between them."""
    prefill, decode = report.prefill.instance, report.decode.instance
    return (
        f"{report.prefill_instances} x {prefill.devices} {prefill.system.name} prefill,"
        f" {report.decode_instances} x {decode.devices} {decode.system.name} decode:"
        f" {format_si(report.requests_per_second)} requests/s; a cache is sent in"
        f" {format_seconds(report.transfer_seconds)}"
    )


def change_block(result: InferRun, advice: tuple[ServingAdvice, ...], units: str) -> Words:
    """What to change first, priced.

    Args:
        result: what was priced.
        advice: changes with which it would fit; if it fits, those that serve more for each device.
        units: `iec` or `si`.
    """
    items = [_change_words(result, one, units) for one in advice][:CHANGES]
    if not items and result.fits:
        items = ["no nearby change on as many devices was found that serves more tokens/s"]
    elif not items:
        items = ["no change was found with which it fits"]
    return Words(tuple((text, "") for text in items), "what to change first", indent=2, hanging=4)


def _change_words(result: InferRun, one: ServingAdvice, units: str) -> str:
    """A change and what comes of it."""
    found = one.result
    needed = format_bytes(max(memory.needed for memory in found.memories), units)
    devices = f" on {found.devices:,} devices" if found.devices != result.devices else ""
    token = f", a token {format_seconds(found.seconds_per_token)}" if found.seconds_per_token else ""
    rate = f"{format_si(found.tokens_per_second)} tokens/s ({format_si(result.tokens_per_second)} now){devices}"
    first = f"first token {format_seconds(found.first_token_seconds)}"
    return f"{changes_words(one.changes)}: {rate}, {first}{token}, {needed}"


def best_of_each(advice: tuple[ServingAdvice, ...]) -> tuple[ServingAdvice, ...]:
    """The first change of each option."""
    best: dict[Option, ServingAdvice] = {}
    for one in advice:
        best.setdefault(one.changes[0].option, one)
    return tuple(best.values())


class Parts(Struct, frozen=True):
    """What every report on requests has.

    Args:
        heading: title, and how it was asked.
        verdicts: the answer in lines, each with its style.
        tables: all that were asked for.
        conventions: how to read the numbers.
        notes: what was decided where nothing was given.
        instance: what answers.
    """

    heading: tuple[str, ...]
    verdicts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    conventions: tuple[str, ...]
    notes: tuple[str, ...]
    instance: Instance


def assembled(parts: Parts, screen: Callable[[], tuple[Block, ...]], *, detail: bool, only: str | None) -> Report:
    """One screen, all tables, or one part of a report.

    Args:
        parts: of it.
        screen: makes the blocks between the verdict and the last lines.
        detail: all tables are wanted.
        only: the one part that is wanted.
    """
    title, *asked = parts.heading
    heading = (*parts.heading, *parts.notes)
    if only is not None:
        return part(Report(heading, parts.tables), only, _layers(parts.tables))
    if detail:
        shown = full_screen(verdict_block(heading, parts.verdicts), parts.tables, (), parts.conventions)
    else:
        explained = tuple(TableBlock(table) for table in parts.tables if table.name == "explained")
        answer = verdict_block((title, "; ".join(asked)), parts.verdicts)
        shown = (answer, *screen(), *explained, _closing(parts))
    return Report(heading, parts.tables, tuple(text for text, _ in parts.verdicts), parts.conventions, screen=shown)


def _closing(parts: Parts) -> Words:
    """The last lines of a screen."""
    model = parts.instance.model
    kind = max(model.layers, key=lambda layer: layer.repeat).kind
    return closing(tuple(note for note in parts.notes if note not in model.notes), ["time", "memory", "phases", kind])


def _layers(tables: tuple[Table, ...]) -> dict[str, tuple[Table, ...]]:
    """Kind of layer -> the tables of its statements, of prefill and decode."""
    found: dict[str, tuple[Table, ...]] = {}
    for table in tables:
        if table.kind == "statements":
            kind = table.name.partition("_")[2]
            found[kind] = (*found.get(kind, ()), table)
    return found
