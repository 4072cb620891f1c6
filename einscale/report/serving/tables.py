"""The report on requests as tables: what a user waits for, where the time goes, what is held, what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.models import parameter_counts
from einscale.price.footprint import Memory
from einscale.report.bars import Bars
from einscale.report.screen import TableBlock
from einscale.report.serving.detail import detail_tables
from einscale.report.serving.parts import (
    cache_words,
    execution_words,
    peak_words,
    time_table,
    weights_words,
)
from einscale.report.serving.screen import (
    Parts,
    assembled,
    best_of_each,
    change_block,
    memory_bars_of,
    phase_blocks,
    request_verdicts,
)
from einscale.report.serving.ways import advice_table, apart_tables, speculation_table, sweep_table
from einscale.report.serving.words import decode_lines, explain_table, infer_sections, prefill_lines
from einscale.report.table import Block, Cell, Column, Report, Row, Table
from einscale.serving import DecodeReport, Instance, PrefillReport
from einscale.units import format_bytes, format_count, format_seconds, format_si

if TYPE_CHECKING:
    from einscale.serving.advice import ServingAdvice
    from einscale.serving.run import DecodeRun, InferRun, PrefillRun


def infer_tables(
    result: InferRun,
    *,
    detail: bool = False,
    explain: bool = False,
    only: str | None = None,
    units: str = "iec",
    advice: tuple[ServingAdvice, ...] | None = None,
    changes: bool = True,
) -> Report:
    """A whole request: one screen, or tables.

    Args:
        result: what was priced.
        detail: all tables: also every kind of layer, every statement of a step and every collective with its cause.
        explain: also how each number came about, its formula with the operands filled in.
        only: name of the one part that is wanted: of a table, or of a kind of layer.
        units: `iec` or `si`, for sentences; cells are written by the renderer.
        advice: changes with which it would fit, or serve more if it fits; None to work them out.
        changes: name such changes.

    Raises:
        UsageError: there is no such part.
    """
    request, every = result.request, only is not None
    tables = [_request_table(result)]
    if not result.sweep or detail or explain or every:
        prefill = result.disaggregated.prefill if result.disaggregated else request.prefill
        alone = result.speculative is not None
        tables += [_phases_table(prefill, request.decode, alone), time_table(prefill, request.decode, alone)]
        tables += _memory_tables(result)
    tables.append(_cache_table(result))
    tables += [_money_table(result)] if result.price_per_second is not None else []
    tables += [speculation_table(result.speculative)] if result.speculative else []
    tables += apart_tables(result.disaggregated) if result.disaggregated else []
    tables += [sweep_table(result)] if result.sweep else []
    tables += detail_tables(request.prefill, request.decode) if detail or every else []
    tables += [explain_table(infer_sections(result, units))] if explain or every else []
    if changes and advice is None and not result.fits:
        advice = result.advice
    if advice and not result.fits:
        tables.append(advice_table(result, advice))
    conventions = (
        *_conventions(result.instance, units),
        "no request waits for another: a batch arrives together and is answered together",
        _rates_words(result),
    )
    verdicts = request_verdicts(result, fit_words(result, units))
    return assembled(
        Parts(_request_heading(result), verdicts, tuple(tables), conventions, result.notes, result.instance),
        lambda: _request_screen(result, advice, changes, units),
        detail=detail,
        only=only,
    )


def _request_heading(result: InferRun) -> tuple[str, ...]:
    """What was asked: the model and its devices, the batch, how prompts are read."""
    asked = result.asked
    sizes = f"batch {asked.batch} x ({asked.prompt} tokens of prompt + {asked.output} of output)"
    return (
        _title(result.instance),
        f"{sizes}; {_types_words(result.instance)}",
        *_chunk_words(asked.chunk, asked.prompt),
    )


def _request_screen(
    result: InferRun, advice: tuple[ServingAdvice, ...] | None, changes: bool, units: str
) -> tuple[Block, ...]:
    """Blocks between the verdict and the last lines."""
    if result.sweep:
        return (TableBlock(sweep_table(result)),)
    split, speculative = result.disaggregated, result.speculative
    guessed = (speculative, result.draft_prefill) if speculative is not None else None
    prefill = split.prefill if split else result.request.prefill
    blocks = phase_blocks(prefill, result.request.decode, guessed, _fullest_bars(result), units)
    if not changes:
        return blocks
    found = best_of_each(result.cheaper) if advice is None else advice
    return (*blocks, change_block(result, found, units))


def _fullest_bars(result: InferRun) -> Bars:
    """What a device holds: of two kinds of instances that which is fuller."""
    split = result.disaggregated
    if split is None:
        return _memory_bars(result.memories[0], result.instance, "a device")
    instances = (split.prefill.instance, split.decode.instance)
    sides = zip(result.memories, instances, ("prefills", "decodes"), strict=True)
    memory, instance, what = max(sides, key=lambda one: one[0].needed / one[0].capacity)
    return _memory_bars(memory, instance, f"a device that {what}")


def prefill_tables(
    result: PrefillRun, *, detail: bool = False, explain: bool = False, only: str | None = None, units: str = "iec"
) -> Report:
    """Prompts read into the cache; arguments as for `infer_tables`."""
    report, every = result.prefill, only is not None
    tables = [_phases_table(report, None), time_table(report, None), _memory_table(report.memory, report.instance, "")]
    tables += _money_tables(
        result.price_per_hour, result.cost_per_million_tokens, "prompt_price", "a million of prompt"
    )
    tables += detail_tables(report, None) if detail or every else []
    tables += [explain_table((("prefill", prefill_lines(report, units)),))] if explain or every else []
    before = f" after {report.cached} in the cache" if report.cached else ""
    heading = (
        _title(report.instance),
        f"batch {report.batch} x {report.prompt} tokens of prompt{before}; {_types_words(report.instance)}",
        *_chunk_words(report.chunk, report.prompt),
    )
    rate = f"{format_si(report.tokens_per_second)} tokens/s of prompt"
    time = f"the prompts take {format_seconds(report.seconds)}: {rate}{_price(result.cost_per_million_tokens)}"
    parts = _phase_parts(report, heading, time, tables, result.notes, units)
    memory = _memory_bars(report.memory, report.instance, "a device")
    return assembled(parts, lambda: phase_blocks(report, None, None, memory, units), detail=detail, only=only)


def decode_tables(
    result: DecodeRun, *, detail: bool = False, explain: bool = False, only: str | None = None, units: str = "iec"
) -> Report:
    """Tokens generated one after the other; arguments as for `infer_tables`."""
    report, every = result.decode, only is not None
    tables = [_phases_table(None, report), time_table(None, report), _memory_table(report.memory, report.instance, "")]
    tables += _money_tables(
        result.price_per_hour, result.cost_per_million_tokens, "output_price", "a million of output"
    )
    tables += detail_tables(None, report) if detail or every else []
    tables += [explain_table((("decode", decode_lines(report, units)),))] if explain or every else []
    steps = f"{report.output} token" + ("s" if report.output > 1 else "")
    heading = (
        _title(report.instance),
        f"batch {report.batch} x {steps} after {report.context} in the cache; {_types_words(report.instance)}",
    )
    rate = f"{format_si(report.tokens_per_second)} tokens/s"
    time = f"a token takes {format_seconds(report.seconds_per_token)}: {rate}{_price(result.cost_per_million_tokens)}"
    parts = _phase_parts(report, heading, time, tables, result.notes, units)
    memory = _memory_bars(report.memory, report.instance, "a device")
    return assembled(parts, lambda: phase_blocks(None, report, None, memory, units), detail=detail, only=only)


def _phase_parts(
    report: PrefillReport | DecodeReport,
    heading: tuple[str, ...],
    time: str,
    tables: list[Table],
    notes: tuple[str, ...],
    units: str,
) -> Parts:
    """What the report of one phase is made of: the verdict is its time, and whether it fits."""
    verdicts = ((time, ""), _fit_line(report.memory, units))
    return Parts(heading, verdicts, tuple(tables), _conventions(report.instance, units), notes, report.instance)


def _price(cost: float | None) -> str:
    return f"; {format_si(cost)} a million tokens" if cost is not None else ""


def _fit_line(memory: Memory, units: str) -> tuple[str, str]:
    """Whether it fits, with the style of the line."""
    return verdict(memory, "a device", units), "good" if memory.fits else "bad"


def _memory_bars(memory: Memory, instance: Instance, where: str) -> Bars:
    """Bars of what a device of an instance holds."""
    return memory_bars_of(memory, where, (instance.precision.weights, instance.precision.kv_cache))


def verdict(memory: Memory, where: str, units: str) -> str:
    """Whether it fits, and by how much not.

    Args:
        memory: bytes on a device.
        where: which device, in words.
        units: `iec` or `si`.
    """
    left = memory.left
    needs = f"{where} needs {format_bytes(memory.needed, units)} of {format_bytes(memory.capacity, units)}"
    word = "fits" if memory.fits else "does not fit"
    return f"{word}: {needs}, {format_bytes(abs(left), units)} {'left' if left >= 0 else 'too much'}"


def fit_words(result: InferRun, units: str) -> tuple[str, ...]:
    """Whether every instance of a request fits, and by how much not."""
    words = [f"a device that {what}" for what in ("prefills", "decodes")] if result.disaggregated else ["a device"]
    return tuple(verdict(memory, where, units) for memory, where in zip(result.memories, words, strict=True))


def blamed(memory: Memory, units: str) -> str:
    """What a device holds, largest first, in words."""
    parts = [
        ("weights", memory.parameters),
        ("keys and values", memory.cache),
        ("working memory", memory.working),
        ("runtime", memory.overhead),
    ]
    shown = sorted((part for part in parts if part[1]), key=lambda part: -part[1])
    return ", ".join(f"{name} {format_bytes(size, units)}" for name, size in shown)


def _title(instance: Instance) -> str:
    counts = parameter_counts(instance.model)
    active = f" ({format_count(counts.active)} active)" if counts.active != counts.total else ""
    return (
        f"{instance.model.name}: {format_count(counts.total)} parameters{active}; {instance.strategy.name} on"
        f" {instance.devices} x {instance.system.name} ({instance.mesh})"
    )


def _types_words(instance: Instance) -> str:
    pages = f" in pages of {instance.page}" if instance.page > 1 else ""
    return f"{instance.precision}, cache {instance.precision.kv_cache}{pages}"


def _chunk_words(chunk: int | None, prompt: int) -> tuple[str, ...]:
    if chunk is None or chunk >= prompt:
        return ()
    return (f"prompts are read in chunks of {chunk} tokens each",)


def _request_table(result: InferRun) -> Table:
    """The answer: what a user waits for, and how much is answered."""
    columns = [
        Column("first_token_seconds", "first token", "seconds"),
        Column("seconds_per_token", "a token", "seconds"),
        Column("request_seconds", "request", "seconds"),
        Column("tokens_per_second", "tokens/s", "si"),
        Column("tokens_per_second_per_device", "a device", "si"),
        Column("tokens_per_second_per_user", "a user", "si"),
    ]
    priced = result.cost_per_million_tokens is not None
    columns += [Column("million_tokens_price", "a million", "si")] if priced else []
    columns.append(Column("fits", "fits", "flag"))
    rows: list[Row] = []
    special = "a draft guesses" if result.speculative else "prefill and decode apart" if result.disaggregated else ""
    empty = ("",) * (len(columns) - 1)
    if special:
        from msgspec.structs import replace

        plain = replace(result, speculative=None, draft_prefill=None, disaggregated=None)
        rows += [Row((special, *empty), 0, "section"), _request_row(result, priced)]
        other = "without a draft" if result.speculative else f"both on {result.instance.devices} devices"
        rows += [Row((other, *empty), 0, "section"), _request_row(plain, priced)]
    else:
        rows.append(_request_row(result, priced))
    return Table("request", "a request; tokens of output a second, of all devices", tuple(columns), tuple(rows))


def _request_row(result: InferRun, priced: bool) -> Row:
    cells: list[Cell] = [
        result.first_token_seconds,
        result.seconds_per_token or None,
        result.seconds,
        result.tokens_per_second,
        result.tokens_per_second_per_device,
        result.tokens_per_second_per_user,
    ]
    cells += [result.cost_per_million_tokens] if priced else []
    return Row((*cells, result.fits))


def _phases_table(prefill: PrefillReport | None, decode: DecodeReport | None, alone: bool = False) -> Table:
    """Prefill and decode: time, rates, how much of the chip they use; `alone` where a draft guesses besides."""
    columns = (
        Column("phase", "phase"),
        Column("tokens", "tokens", "integer"),
        Column("seconds", "time", "seconds"),
        Column("first_seconds", "first", "seconds"),
        Column("last_seconds", "last", "seconds"),
        Column("tokens_per_second", "tokens/s", "si"),
        Column("tokens_per_second_per_device", "a device", "si"),
        Column("flops_utilization", "FLOP/s", "share"),
        Column("bandwidth_utilization", "HBM", "share"),
    )
    rows = []
    if prefill is not None:
        rate = prefill.tokens_per_second
        parts = (prefill.first.seconds, prefill.last.seconds) if prefill.chunks > 1 else (None, None)
        flops, each = prefill.flops_utilization, prefill.tokens_per_second_per_device
        rows.append(Row(("prefill", prefill.prompt, prefill.seconds, *parts, rate, each, flops, None)))
    if decode is not None:
        cells = (
            "decode",
            decode.output,
            decode.seconds,
            decode.first_seconds,
            decode.last_seconds,
            decode.tokens_per_second,
            decode.tokens_per_second_per_device,
            decode.flops_utilization,
            decode.bandwidth_utilization,
        )
        rows.append(Row(cells))
    name = "phases without the draft" if alone else "phases"
    title = f"{name}: tokens of each sequence, rates of all, what of the datasheet's FLOP/s and bandwidth they use"
    return Table("phases", title, columns, tuple(rows))


def _memory_tables(result: InferRun) -> list[Table]:
    """What the devices of every instance hold."""
    if result.disaggregated is not None:
        split = result.disaggregated
        return [
            _memory_table(split.prefill.memory, split.prefill.instance, "prefills"),
            _memory_table(split.decode.memory, split.decode.instance, "decodes"),
        ]
    draft = f" and of {result.speculative.draft.instance.model.name}" if result.speculative else ""
    return [_memory_table(result.memories[0], result.instance, "", draft)]


def _memory_table(memory: Memory, instance: Instance, what: str, draft: str = "") -> Table:
    """What a device holds at most."""
    columns = (
        Column("part", "held"),
        Column("bytes", "bytes", "bytes"),
        Column("share", "of device", "share"),
        Column("what", "what it is", wrap=True),
    )
    parts = (
        ("weights", memory.parameters, f"{weights_words(instance)}{draft}"),
        ("cache", memory.cache, f"{cache_words(instance)}{draft}"),
        ("working", memory.working, "the most that any layer needs while it runs, in either phase"),
        ("runtime", memory.overhead, "context, libraries, communication buffers: assumed (--overhead)"),
    )
    whole = instance.system.chip.memory_bytes
    rows = [Row((name, size, size / whole, words)) for name, size, words in parts if size]
    rows.append(Row(("together", memory.needed, memory.needed / whole, ""), 0, "total"))
    left = memory.left
    rows.append(Row(("device", whole, 1.0, instance.system.chip.name), 0, "subtotal"))
    if memory.capacity < whole:
        kept = whole - memory.capacity
        rows.append(Row(("kept free", kept, kept / whole, f"--memory-share {instance.memory_share:g}"), 0, "subtotal"))
    rows.append(Row(("left" if left >= 0 else "too much", abs(left), abs(left) / whole, ""), 0, "subtotal"))
    stage = " of the fullest pipeline stage" if instance.stages > 1 else ""
    name = "memory" if what != "prefills" else "prefill_memory"
    title = f"memory of a device{stage}" + (f" that {what}" if what else "")
    return Table(name, title, columns, tuple(rows))


def _cache_table(result: InferRun) -> Table:
    """The cache and how many requests fit beside the weights."""
    columns = (
        Column("kv_bytes_per_token", "cache a token", "bytes"),
        Column("kv_bytes_per_sequence", "a request", "bytes"),
        Column("largest_batch", "largest batch", "integer"),
        Column("largest_decode_batch", "decoding alone", "integer"),
    )
    cells = (
        result.kv_bytes_per_token,
        result.kv_bytes_per_sequence,
        result.largest_batch,
        result.largest_decode_batch if result.asked.output > 1 else None,
    )
    on = " that decodes" if result.disaggregated else " without the draft" if result.speculative else ""
    title = f"the cache on all devices, and the most requests that fit at once on one instance{on}"
    return Table("cache", title, columns, (Row(cells),))


def _money_table(result: InferRun) -> Table:
    """Money for devices, requests and tokens."""
    from einscale.serving import cost_per_million_tokens

    asked, split = result.asked, result.disaggregated
    price, each = asked.price_per_hour, result.price_per_second
    assert price is not None and each is not None
    prefill = split.prefill if split else result.request.prefill
    decode = result.request.decode
    reading = price
    if asked.apart is not None and asked.apart.price_per_hour is not None:
        reading = asked.apart.price_per_hour
    two = asked.apart is not None and asked.apart.price_per_hour is not None
    columns = [
        Column("price_per_hour", "a device-hour" if not two else "decoding", "si"),
        *([Column("prefill_price_per_hour", "prefilling", "si")] if two else []),
        Column("hour_price", "all devices, an hour" if not two else "all", "si"),
        Column("request_price", "a request", "si"),
        Column("million_prompt_price", "a million of prompt", "si"),
    ]
    cells: list[Cell] = [
        price,
        *([reading] if two else []),
        each * 3600,
        each * asked.output / result.tokens_per_second,
        cost_per_million_tokens(reading, prefill.instance.devices, prefill.tokens_per_second),
    ]
    if decode is not None:
        speed = result.speculative.tokens_per_second if result.speculative else decode.tokens_per_second
        columns.append(Column("million_output_price", "of output", "si"))
        cells.append(cost_per_million_tokens(price, decode.instance.devices, speed))
    title = "money, prefill and decode by themselves" + ("; an hour of a device, and of all" if two else "")
    return Table("money", title, tuple(columns), (Row(tuple(cells)),))


def _money_tables(price: float | None, cost: float | None, key: str, title: str) -> list[Table]:
    """Money for a million tokens of one phase."""
    if price is None:
        return []
    columns = (Column("price_per_hour", "a device-hour", "si"), Column(key, title, "si"))
    return [Table("money", "money", columns, (Row((price, cost)),))]


def _conventions(instance: Instance, units: str) -> tuple[str, ...]:
    lines = [
        f"1 FLOP is half a multiply-add (2mnk); {'1 GiB = 2^30 bytes' if units == 'iec' else '1 GB = 10^9 bytes'};"
        " attention counts the pairs its mask lets through",
        peak_words(instance),
        execution_words(instance),
    ]
    if instance.overhead:
        lines.append(f"runtime: {format_bytes(instance.overhead, units)} assumed on every device beside tensors")
    return tuple(lines)


def _rates_words(result: InferRun) -> str:
    """What the rates of a request mean."""
    if result.disaggregated is not None:
        return (
            "a token: mean time between two tokens once decoding has begun; tokens/s: of all instances, the slower side"
            " decides; a user: what one request sees"
        )
    expected = ", expected" if result.speculative else ""
    return (
        f"a token: mean time between two tokens after the first{expected}; tokens/s: tokens of output over the time of"
        " the request, one batch after the other; a user: what one request sees"
    )
