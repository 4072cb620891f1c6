"""What a request costs: of both phases the parts that take most of its time, each with its cause."""

from __future__ import annotations

from collections.abc import Iterator

from einscale.mesh import split_name
from einscale.price.footprint import Memory
from einscale.price.program import PricedCollective, PricedStatement
from einscale.price.spent import Spent, TimePart
from einscale.report.causes import cause_words
from einscale.report.training.costs import LEAST, NAMED, SHOWN, Cost
from einscale.serving import DecodeReport, PrefillReport, SpeculativeReport, StepReport
from einscale.units import format_bytes, format_seconds
from einscale.vocabulary import COMPUTE, MEMORY

PARTS = {
    TimePart.WEIGHTS: "reading weights",
    TimePart.CACHE: "reading and writing the cache",
    TimePart.TRAFFIC: "other traffic of memory",
    TimePart.COMPUTE: "arithmetic",
    TimePart.LAUNCH: "starts of kernels",
    TimePart.HOPS: "sending to the next stage",
    TimePart.BUBBLE: "stages that have nothing to do",
}
"""Parts of `Spent` as costs."""


def largest_costs(
    prefill: PrefillReport | None,
    decode: DecodeReport | None,
    guessed: tuple[SpeculativeReport, PrefillReport | None] | None,
    units: str,
) -> tuple[Cost, ...]:
    """The parts of a request that take longest, largest first; none that is less than `LEAST` of it.

    Args:
        prefill: None to leave it out.
        decode: every step of the output counts; None to leave it out.
        guessed: decoding with a draft takes the place of these steps; and the draft's own prefill.
        units: `iec` or `si`.
    """
    found: list[Cost] = []
    if prefill is not None:
        found += _parts(prefill.spent, prefill.last, "prefill", 1, prefill.memory, units)
    if guessed is not None and decode is not None:
        found += _guesses(*guessed, decode.output)
    elif decode is not None:
        found += _parts(decode.spent, decode.step, "decode", decode.output, decode.memory, units)
    whole = sum(cost.seconds for cost in found)
    large = [cost for cost in found if cost.seconds > LEAST * whole]
    return tuple(sorted(large, key=lambda cost: -cost.seconds)[:SHOWN])


def _parts(spent: Spent, step: StepReport, phase: str, steps: int, memory: Memory, units: str) -> Iterator[Cost]:
    """The parts of a phase that runs so many steps."""
    each = f", {steps:,} x {{}} a step" if steps > 1 else ""
    for part, words in PARTS.items():
        seconds = spent.of(part)
        what = f"{phase}: {words}{each.format(format_seconds(seconds))}"
        yield Cost(what, seconds * steps, _why(part, step, memory, units))
    for one in spent.by_axes:
        times = f"{one.count:,.0f} collectives over {one.axis}"
        what = f"{phase}: {times}{each.format(format_seconds(one.seconds))}"
        yield Cost(what, one.seconds * steps, _moved(step, one.axis, one.latency / one.seconds))


def _why(part: TimePart, step: StepReport, memory: Memory, units: str) -> str:
    """The cause of a part of a step's time."""
    if part is TimePart.WEIGHTS:
        held = f"a device holds {format_bytes(memory.parameters, units)} of weights"
        return f"{held}; a pass reads those it uses once for all sequences"
    if part is TimePart.CACHE:
        return f"each pass reads the keys and values on a device, {format_bytes(memory.cache, units)} at the end"
    if part is TimePart.LAUNCH:
        return f"{step.kernels:,} kernels are started in a pass"
    if part in (TimePart.TRAFFIC, TimePart.COMPUTE):
        bound = COMPUTE if part is TimePart.COMPUTE else MEMORY
        return f"most of a pass: {_most(step, bound)}"
    return "the residual stream goes from stage to stage" if part is TimePart.HOPS else "a pipeline fills and empties"


def _most(step: StepReport, bound: str) -> str:
    """The statements bound by something that take most of a pass, in words."""
    rows: list[tuple[float, str, PricedStatement]] = [
        (float(row.local.seconds) * kind.repeat, kind.kind, row)
        for kind in step.kinds
        for row in kind.rows
        if str(row.local.bound) == bound
    ]
    largest = sorted(rows, key=lambda one: -one[0])[:NAMED]
    return ", ".join(
        f"{row.planned.statement.output} ({row.planned.statement.op}, {kind}) {format_seconds(seconds)}"
        for seconds, kind, row in largest
    )


def _moved(step: StepReport, axes: str, latency: float) -> str:
    """The collective over some axes that takes most of a pass, and how much of them all is latency."""
    moves: list[tuple[float, PricedCollective]] = [
        (priced.exposed_seconds * kind.repeat, priced)
        for kind in step.kinds
        for row in kind.rows
        for priced in row.collectives
        if priced.bytes and "/".join(dict.fromkeys(split_name(axis)[0] for axis in priced.step.axes)) == axes
    ]
    _, most = max(moves, key=lambda one: one[0])
    late = f"{100 * latency:.0f} % is latency; " if latency >= LEAST else ""
    return f"{late}most by {most.step.kind}: {cause_words(most.step.cause)}"


def _guesses(report: SpeculativeReport, reading: PrefillReport | None, output: int) -> Iterator[Cost]:
    """Rounds of guesses, their checks, and the prompts that the draft reads too."""
    rounds = output / report.tokens_per_round
    draft = report.draft.seconds_per_token
    name = report.draft.instance.model.name
    guesses = f"{report.length} guess{'es' * (report.length > 1)} of {name}"
    what = f"decode: {rounds:,.0f} rounds x {guesses}, {format_seconds(draft)} each"
    yield Cost(what, rounds * report.length * draft, _largest_part(report.draft.spent))
    what = f"decode: {rounds:,.0f} checks of {report.length + 1} tokens, {format_seconds(report.verify_seconds)} each"
    yield Cost(what, rounds * report.verify_seconds, _largest_part(report.verify.spent))
    if reading is not None:
        yield Cost(f"prefill: {name} reads the prompts too", reading.seconds, _largest_part(reading.spent))


def _largest_part(spent: Spent) -> str:
    """What takes most of a pass."""
    parts = [(spent.of(part), words) for part, words in PARTS.items()]
    parts += [(one.seconds, f"collectives over {one.axis}") for one in spent.by_axes]
    seconds, words = max(parts)
    return f"most of a pass is {words}, {100 * seconds / spent.seconds:.0f} %"
