"""How each number of a request came about: formulas with their operands filled in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from einscale.hardware import peak as peak_rate
from einscale.layout import Layout, local_bytes
from einscale.models import LayerKind
from einscale.price.program import PricedCollective
from einscale.price.spent import Spent
from einscale.program.cache import KEYS, SEQUENCE
from einscale.program.shapes import known_sizes
from einscale.report.causes import cause_words
from einscale.report.serving.parts import PIPELINE, WORK
from einscale.report.table import Column, Row, Table
from einscale.serving import (
    DecodeReport,
    DisaggregatedReport,
    Instance,
    KindStep,
    PrefillReport,
    SpeculativeReport,
    StepReport,
    default_bandwidth,
    fed_caches,
    serving_program,
    tokens_kept,
)
from einscale.topology import explain_step
from einscale.units import format_bytes, format_flops, format_seconds, format_si

if TYPE_CHECKING:
    from einscale.serving.run import InferRun

FORMULAS = 8
"""Most formulas of collectives in a phase: of each kind and axes the one that takes most time."""

Line = tuple[str, str, str]
"""What it is, its value, how it came about."""

Section = tuple[str, list[Line]]
"""Lines under a heading."""


def explain_table(sections: Iterable[Section]) -> Table:
    """Every number that is derived, with its formula.

    Args:
        sections: lines under headings.
    """
    columns = (
        Column("number", "number", wrap=True),
        Column("value", "value"),
        Column("formula", "formula", detail=True),
    )
    rows: list[Row] = []
    for title, lines in sections:
        if lines:
            rows.append(Row((title, "", ""), 0, "section"))
            rows += [Row(line, 1) for line in lines]
    return Table("explained", "how each number came about", columns, tuple(rows))


def infer_sections(result: InferRun, units: str) -> list[Section]:
    """Sections on a whole request.

    Args:
        result: what was priced.
        units: `iec` or `si`.
    """
    split = result.disaggregated
    prefill = split.prefill if split else result.request.prefill
    decode = result.request.decode
    return [
        ("a request", _request_lines(result)),
        ("prefill", prefill_lines(prefill, units)),
        ("decode", decode_lines(decode, units, alone=result.speculative is not None) if decode else []),
        ("cache and memory", _memory_lines(result, units)),
        ("speculation", _speculation_lines(result.speculative) if result.speculative else []),
        ("prefill and decode apart", _apart_lines(split, result, units) if split else []),
        ("money", _money_lines(result)),
    ]


def prefill_lines(report: PrefillReport, units: str) -> list[Line]:
    """How the numbers of a prefill came about.

    Args:
        report: the prefill.
        units: `iec` or `si`.
    """
    passes = ""
    if report.chunks > 1:
        passes = (
            f"; {report.chunks} chunks of {report.chunk} tokens, the first {format_seconds(report.first.seconds)}, the"
            f" last {format_seconds(report.last.seconds)}"
        )
    if report.microbatches > 1:
        passes += f"; {report.microbatches} microbatches through {report.instance.stages} stages"
    time = format_seconds(report.seconds)
    lines = [
        ("time", time, _sum_words(report.spent) + passes),
        (
            "prompt tokens/s",
            format_si(report.tokens_per_second),
            f"batch x prompt / time = {report.batch} x {report.prompt} / {time}",
        ),
    ]
    share = report.flops_utilization
    if share is not None:
        lines.append(("of peak FLOP/s", f"{100 * share:.3g} %", _flops_words(report.last, report.seconds, report)))
    return [*lines, *_collective_lines(report.last, report.instance, units)]


def decode_lines(report: DecodeReport, units: str, *, alone: bool = False) -> list[Line]:
    """How the numbers of decoding came about.

    Args:
        report: the decode steps.
        units: `iec` or `si`.
        alone: a draft guesses besides, which these steps are without.
    """
    instance, step = report.instance, format_seconds(report.seconds_per_token)
    bandwidth = instance.system.chip.memory_bandwidth.datasheet
    mean = (
        f"; the mean of {report.output} steps, the first {format_seconds(report.first_seconds)} after {report.context}"
        f" tokens, the last {format_seconds(report.last_seconds)}"
    )
    lines = [
        (
            f"a token{' without the draft' * alone}",
            step,
            _sum_words(report.spent) + (mean if report.output > 1 else ""),
        ),
        (
            "weights read once",
            format_seconds(report.weights_seconds),
            f"{format_bytes(report.memory.parameters, units)} a device holds / {bandwidth / 1e9:g} GB/s by its"
            " datasheet",
        ),
        ("output tokens/s", format_si(report.tokens_per_second), f"batch / a token = {report.batch} / {step}"),
        (
            "of peak FLOP/s",
            f"{100 * report.flops_utilization:.3g} %",
            _flops_words(report.step, report.seconds_per_token, report),
        ),
        (
            "of HBM bandwidth",
            f"{100 * report.bandwidth_utilization:.3g} %",
            f"{format_bytes(report.step.traffic, units)}{_times(report)} / ({step} x {bandwidth / 1e9:g} GB/s)",
        ),
    ]
    return [*lines, *_collective_lines(report.step, instance, units)]


def _sum_words(spent: Spent) -> str:
    """The parts that a time is the sum of."""
    parts = [(name, spent.of(what)) for what, name in (*WORK, *PIPELINE)]
    parts += [(f"collectives over {one.axis}", one.seconds) for one in spent.by_axes]
    return " + ".join(f"{name} {format_seconds(seconds)}" for name, seconds in parts if seconds)


def _times(report: PrefillReport | DecodeReport) -> str:
    """How often a stage of a pipeline runs a step, as a factor."""
    stages = report.instance.stages
    return f" x {report.microbatches} microbatches / {stages} stages" if stages > 1 or report.microbatches > 1 else ""


def _flops_words(step: StepReport, seconds: float, report: PrefillReport | DecodeReport) -> str:
    chip = report.instance.system.chip
    rate = peak_rate(chip, report.instance.precision.compute)
    promised = f"({format_seconds(seconds)} x {rate.datasheet / 1e12:g} TFLOP/s)"
    return f"{format_flops(step.flops)}{_times(report)} / {promised}"


def _request_lines(result: InferRun) -> list[Line]:
    asked = result.asked
    first, token = format_seconds(result.first_token_seconds), format_seconds(result.seconds_per_token)
    formula = f"first token {first}"
    if result.draft_prefill is not None:
        formula += f" + the draft reads the prompts too {format_seconds(result.draft_prefill.seconds)}"
    if result.disaggregated is not None:
        formula += f" + transfer {format_seconds(result.disaggregated.transfer_seconds)}"
    if asked.output > 1:
        formula += f" + {asked.output - 1} x a token {token}"
    time = format_seconds(result.seconds)
    lines = [("request", time, formula)]
    if result.disaggregated is None:
        rate = f"batch x output / request = {asked.batch} x {asked.output} / {time}"
        lines.append(("tokens/s", format_si(result.tokens_per_second), rate))
    if result.tokens_per_second_per_user is not None:
        lines.append(("a user", f"{format_si(result.tokens_per_second_per_user)} tokens/s", f"1 / {token}"))
    return lines


def _memory_lines(result: InferRun, units: str) -> list[Line]:
    instance, asked = result.instance, result.asked
    tokens = asked.prompt + asked.output - 1

    def size(count: float) -> str:
        return format_bytes(count, units)

    lines = [line for layer in instance.model.layers for line in _kept_lines(layer, instance, tokens, units)]
    decode = result.request.decode
    memory = decode.memory if decode else result.request.prefill.memory
    whole = asked.batch * result.kv_bytes_per_sequence
    if memory.cache:
        formula = (
            f"batch {asked.batch} x {size(result.kv_bytes_per_sequence)} = {size(whole)}; a device holds"
            f" 1/{whole / memory.cache:.3g} of it"
        )
        lines.append(("cache on a device", size(memory.cache), formula))
    for one in result.memories:
        parts = [
            f"{name} {size(count)}"
            for name, count in (
                ("weights", one.parameters),
                ("cache", one.cache),
                ("working", one.working),
                ("runtime", one.overhead),
            )
            if count
        ]
        lines.append(("together", size(one.needed), " + ".join(parts)))
    most = result.largest_decode_batch
    if decode is not None and most and memory.cache:
        left = memory.capacity - memory.parameters - memory.overhead
        formula = f"({size(memory.capacity)} - weights - runtime = {size(left)}) / {size(memory.cache / asked.batch)}"
        lines.append(
            ("largest batch, decoding", f"{most:,}", f"{formula} of cache a sequence, less what a step works in")
        )
    return lines


def _kept_lines(layer: LayerKind, instance: Instance, tokens: int, units: str) -> Iterable[Line]:
    """What the layers of a kind keep of a token, or of a sequence whatever its length."""
    program = serving_program(layer, instance.precision, absorbed=True)
    sizes = {**known_sizes(program, defaults={"b": 1, SEQUENCE: 1, KEYS: 1}), KEYS: 1}
    for grows in (True, False):
        caches = [value for value in fed_caches(program) if (KEYS in value.axes) == grows]
        each = [int(local_bytes(value.tensor, Layout(((),) * len(value.axes)), sizes, {})) for value in caches]
        if not caches:
            continue
        parts = [
            f"{value.name} {value.tensor.dtype}[{' '.join(value.axes)}] {format_bytes(size, units)}"
            for value, size in zip(caches, each, strict=True)
        ]
        formula = f"{layer.repeat} layers x ({' + '.join(parts)})"
        kept = tokens_kept(program, tokens, instance.page)
        if grows and kept != tokens:
            formula += f"; of {tokens} tokens {kept} are kept, in pages of {instance.page}"
        name = f"cache a token, {layer.kind}" if grows else f"state of a sequence, {layer.kind}"
        yield name, format_bytes(layer.repeat * sum(each), units), formula


def _speculation_lines(report: SpeculativeReport) -> list[Line]:
    guess, check = format_seconds(report.draft.seconds_per_token), format_seconds(report.verify_seconds)
    whole, token = format_seconds(report.round_seconds), format_seconds(report.seconds_per_token)
    alone = format_seconds(report.target.seconds_per_token)
    return [
        (
            "tokens a round",
            f"{report.tokens_per_round:.3g}",
            f"(1 - a^(g + 1)) / (1 - a), a {report.acceptance:g}, g {report.length} (Leviathan et al. 2023)",
        ),
        ("a round", whole, f"{report.length} x a guess {guess} + the check of {report.length + 1} tokens {check}"),
        ("a token", token, f"{whole} / {report.tokens_per_round:.3g}"),
        ("x faster", f"{report.speedup:.3g}", f"{alone} / {token}"),
    ]


def _apart_lines(report: DisaggregatedReport, result: InferRun, units: str) -> list[Line]:
    one, other = report.prefill.instance, report.decode.instance
    link = result.asked.apart.link if result.asked.apart else None
    rate = default_bandwidth(one, other) if link is None else link
    where = "given" if link is not None else f"the slower network level x {min(one.devices, other.devices)} devices"
    prefill, decode = format_seconds(report.prefill.seconds), format_seconds(report.decode.seconds)
    return [
        (
            "transfer",
            format_seconds(report.transfer_seconds),
            f"{format_bytes(report.transfer_bytes, units)} / {rate / 1e9:g} GB/s ({where})",
        ),
        (
            "requests/s of a prefill instance",
            format_si(report.prefill_rate),
            f"batch {report.prefill.batch} / max({prefill}, {report.prefill.batch} transfers)",
        ),
        (
            "requests/s of a decode instance",
            format_si(report.decode_rate),
            f"batch {report.decode.batch} / {decode}",
        ),
        (
            "tokens/s",
            format_si(report.tokens_per_second),
            f"min({report.prefill_instances} x {format_si(report.prefill_rate)},"
            f" {report.decode_instances} x {format_si(report.decode_rate)}) x {report.output} tokens of output",
        ),
    ]


def _money_lines(result: InferRun) -> list[Line]:
    each = result.price_per_second
    if each is None:
        return []
    cost, rate = result.cost_per_million_tokens, format_si(result.tokens_per_second)
    hour = each * 3600
    return [
        ("all devices, an hour", format_si(hour), _hour_words(result)),
        (
            "a million tokens",
            format_si(cost or 0.0),
            f"{hour:.4g} / 3600 s / {rate} tokens/s x 1e6, prompts read in it",
        ),
    ]


def _hour_words(result: InferRun) -> str:
    """Devices times their price; those that prefill may have another."""
    price, split, apart = result.asked.price_per_hour or 0.0, result.disaggregated, result.asked.apart
    if split is None or apart is None or apart.price_per_hour is None:
        return f"{result.devices} devices x {price:g} for a device-hour"
    reading = split.prefill_instances * split.prefill.instance.devices
    rest = split.decode_instances * split.decode.instance.devices
    return f"{reading} devices that prefill x {apart.price_per_hour:g} + {rest} that decode x {price:g}"


def _collective_lines(step: StepReport, instance: Instance, units: str) -> list[Line]:
    """One formula for each kind of collective and axes: that of the tensor that takes most of the pass."""
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[float, KindStep, PricedCollective]]] = {}
    for kind in step.kinds:
        for row in kind.rows:
            for priced in row.collectives:
                if priced.bytes:
                    key = (priced.step.kind, priced.step.axes)
                    groups.setdefault(key, []).append((priced.exposed_seconds * kind.repeat, kind, priced))
    ordered = sorted(groups.values(), key=lambda group: -sum(one[0] for one in group))
    lines: list[Line] = []
    for group in ordered[:FORMULAS]:
        _, kind, priced = max(group, key=lambda one: one[0])
        move = priced.step
        name = f"{move.kind} {move.tensor.name} over {','.join(move.axes)}, {kind.kind}"
        formula = f"{explain_step(move, kind.planned.sizes, instance.timed_by)}\n"
        formula += f"{format_bytes(priced.bytes, units)} received, x {kind.repeat}; {cause_words(move.cause)}"
        lines.append((name, format_seconds(priced.seconds), formula))
    return lines
