"""`einscale.prefill`, `einscale.decode`, `einscale.infer`: a model, a mesh, requests -> what answering them costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec.structs import replace

from einscale.api.infer_result import DecodeResult, InferResult, PrefillResult
from einscale.api.request import check_number, check_price
from einscale.api.serving import (
    Apart,
    Asked,
    chosen_lengths,
    chosen_requests,
    chosen_serving,
    chosen_speculation,
    draft_instance,
    length_notes,
    microbatch_notes,
    read_sweep,
    repeated_cache_notes,
    strategy_note,
)
from einscale.errors import UsageError
from einscale.hardware import System
from einscale.infer import (
    DisaggregatedReport,
    Instance,
    decode_report,
    disaggregated_report,
    prefill_report,
    request_report,
    speculative_report,
)
from einscale.infer import sweep as sweep_rows
from einscale.infer.values import PAGE
from einscale.memory import FRAMEWORK
from einscale.mesh import Mesh
from einscale.models import Model
from einscale.precision import Precision
from einscale.strategy import Strategy
from einscale.units import check_size


def prefill(
    model: str | Model,
    *,
    mesh: Mesh | str | Mapping[str, int] = "data=1",
    strategy: str | Strategy | None = None,
    hardware: str | Path | System | None = None,
    batch: int | None = None,
    prompt: int | None = None,
    chunk: int | None = None,
    cached: int = 0,
    microbatches: int | None = None,
    precision: str | Precision = "bf16",
    page: int = PAGE,
    memory_share: float = 1.0,
    overhead: int = FRAMEWORK,
    execution: str = "compiled",
    price_per_hour: float | None = None,
    sizes: Mapping[str, int] | None = None,
    shard: str | Mapping[str, str | Iterable[str] | None] | None = None,
) -> PrefillResult:
    """Price reading prompts into the cache, which makes the first token of each.

    >>> answer = prefill("llama3-8b", prompt=8192)
    >>> answer.fits, 0.2 < answer.prefill.seconds < 0.5, answer.prefill.memory.cache == 8192 * 131072
    (True, True, True)

    Args:
        model: a preset, the path of a `config.json` or of a program of your own (`.ein`, `.py`), or a `Model`.
        mesh: its axes, major to minor: `"data=2,model=8"`, a mapping of names to sizes, or a `Mesh`.
        strategy: a named strategy, the path of a TOML file, or a `Strategy`; by default one that suits the mesh.
        hardware: name of a system, path of a system's TOML file, or a `System`; the default is `DEFAULT_SYSTEM`.
        batch: prompts, all data-parallel replicas together; by default one for each.
        prompt: tokens of each; 2048 by default.
        chunk: tokens of each that are read at a time; by default all at once.
        cached: tokens of each that are in the cache already: a prefix that many requests share.
        microbatches: parts the batch is divided into; by default as many as there are pipeline stages.
        precision: a preset, `PRESET,KEY=DTYPE,...`, or a `Precision`.
        page: tokens in a page of the cache; 1 for a cache without pages.
        memory_share: share of the chip's memory that may be used.
        overhead: bytes of it that a runtime takes on each device beside tensors.
        execution: `compiled` (captured once, replayed, maps fused), `eager` (kernel by kernel) or `roofline`.
        price_per_hour: of one device.
        sizes: axis -> size, for axes that a program of your own leaves open.
        shard: compute rules of your own, before those of `strategy`.

    Raises:
        EinscaleError: an argument cannot be understood, or a request cannot be met.
    """
    serving = chosen_serving(
        model,
        mesh=mesh,
        strategy=strategy,
        shard=shard,
        sizes=sizes,
        hardware=hardware,
        precision=precision,
        page=page,
        memory_share=memory_share,
        overhead=overhead,
        execution=execution,
    )
    notes = [*strategy_note(serving)]
    instance = serving.instance()
    requests = chosen_requests(instance, batch, notes)
    tokens, _ = chosen_lengths(serving.model, prompt, 1, notes)
    price = check_price(price_per_hour)
    report = prefill_report(
        instance,
        batch=requests,
        prompt=tokens,
        chunk=chunk,
        cached=cached,
        microbatches=microbatches,
    )
    notes += length_notes(serving.model, report.cached + report.prompt)
    notes += [*microbatch_notes(instance, microbatches), *repeated_cache_notes(instance, report.last)]
    return PrefillResult(report, price, (*notes, *serving.model.notes))


def decode(
    model: str | Model,
    *,
    mesh: Mesh | str | Mapping[str, int] = "data=1",
    strategy: str | Strategy | None = None,
    hardware: str | Path | System | None = None,
    batch: int | None = None,
    context: int | None = None,
    output: int = 1,
    microbatches: int | None = None,
    precision: str | Precision = "bf16",
    page: int = PAGE,
    memory_share: float = 1.0,
    overhead: int = FRAMEWORK,
    execution: str = "compiled",
    price_per_hour: float | None = None,
    sizes: Mapping[str, int] | None = None,
    shard: str | Mapping[str, str | Iterable[str] | None] | None = None,
) -> DecodeResult:
    """Price generating tokens one after the other, one of every sequence in each step.

    >>> answer = decode("llama3-70b", mesh="model=8", batch=32, context=2048)
    >>> answer.fits, 0.008 < answer.decode.seconds_per_token < 0.02, answer.decode.spent.by_axes[0].axis
    (True, True, 'model')

    Args:
        model: a preset, the path of a `config.json` or of a program of your own (`.ein`, `.py`), or a `Model`.
        mesh: its axes, major to minor: `"data=2,model=8"`, a mapping of names to sizes, or a `Mesh`.
        strategy: a named strategy, the path of a TOML file, or a `Strategy`; by default one that suits the mesh.
        hardware: name of a system, path of a system's TOML file, or a `System`; the default is `DEFAULT_SYSTEM`.
        batch: sequences, all data-parallel replicas together; by default one for each.
        context: tokens of each in the cache before the first step; 2048 by default.
        output: how many tokens; the cache grows by one in each step, and times are means over the steps.
        microbatches: parts the batch is divided into; by default as many as there are pipeline stages.
        precision: a preset, `PRESET,KEY=DTYPE,...`, or a `Precision`.
        page: tokens in a page of the cache; 1 for a cache without pages.
        memory_share: share of the chip's memory that may be used.
        overhead: bytes of it that a runtime takes on each device beside tensors.
        execution: `compiled` (captured once, replayed, maps fused), `eager` (kernel by kernel) or `roofline`.
        price_per_hour: of one device.
        sizes: axis -> size, for axes that a program of your own leaves open.
        shard: compute rules of your own, before those of `strategy`.

    Raises:
        EinscaleError: an argument cannot be understood, or a request cannot be met.
    """
    serving = chosen_serving(
        model,
        mesh=mesh,
        strategy=strategy,
        shard=shard,
        sizes=sizes,
        hardware=hardware,
        precision=precision,
        page=page,
        memory_share=memory_share,
        overhead=overhead,
        execution=execution,
    )
    notes = [*strategy_note(serving)]
    instance = serving.instance()
    requests = chosen_requests(instance, batch, notes)
    if context is None:
        found: list[str] = []
        context, _ = chosen_lengths(serving.model, None, check_size(output, "output") + 1, found)
        notes.append(f"context: {context} tokens (none were given)")
    price = check_price(price_per_hour)
    report = decode_report(
        instance,
        batch=requests,
        context=context,
        output=output,
        microbatches=microbatches,
    )
    notes += length_notes(serving.model, report.context + report.output)
    notes += [*microbatch_notes(instance, microbatches), *repeated_cache_notes(instance, report.step)]
    return DecodeResult(report, price, (*notes, *serving.model.notes))


def infer(
    model: str | Model,
    *,
    mesh: Mesh | str | Mapping[str, int] = "data=1",
    strategy: str | Strategy | None = None,
    hardware: str | Path | System | None = None,
    batch: int | None = None,
    prompt: int | None = None,
    output: int | None = None,
    chunk: int | None = None,
    microbatches: int | None = None,
    precision: str | Precision = "bf16",
    page: int = PAGE,
    memory_share: float = 1.0,
    overhead: int = FRAMEWORK,
    execution: str = "compiled",
    speculative: str | Model | None = None,
    guesses: int | None = None,
    acceptance: float | None = None,
    disaggregate: Mesh | str | Mapping[str, int] | None = None,
    prefill_strategy: str | Strategy | None = None,
    prefill_hardware: str | Path | System | None = None,
    prefill_batch: int | None = None,
    prefill_instances: int | None = None,
    decode_instances: int | None = None,
    link: float | None = None,
    sweep: str | Mapping[str, Iterable[int]] | None = None,
    price_per_hour: float | None = None,
    prefill_price_per_hour: float | None = None,
    sizes: Mapping[str, int] | None = None,
    shard: str | Mapping[str, str | Iterable[str] | None] | None = None,
) -> InferResult:
    """Price a batch of requests from prompt to last token: times, throughput, memory, money, and what decides them.

    >>> answer = infer("llama3-70b", mesh="model=8", batch=32, prompt=2048, output=256)
    >>> answer.fits, 2 < answer.first_token_seconds < 5, 0.008 < answer.seconds_per_token < 0.02
    (True, True, True)
    >>> answer.kv_bytes_per_token == 80 * 2 * 8 * 128 * 2
    True
    >>> answer.largest_batch < answer.largest_decode_batch
    True
    >>> answer = infer("llama3-70b", mesh="model=8", speculative="llama3-8b", guesses=4, acceptance=0.8)
    >>> answer.speculative.speedup > 1.5
    True
    >>> apart = {"disaggregate": "model=4", "prefill_hardware": "h200"}
    >>> answer = infer("llama3-70b", mesh="model=8", batch=64, **apart)
    >>> answer.disaggregated.transfer_bytes == 2048 * answer.kv_bytes_per_token
    True

    Args:
        model: a preset, the path of a `config.json` or of a program of your own (`.ein`, `.py`), or a `Model`.
        mesh: its axes, major to minor: `"data=2,model=8"`, a mapping of names to sizes, or a `Mesh`.
        strategy: a named strategy, the path of a TOML file, or a `Strategy`; by default one that suits the mesh.
        hardware: name of a system, path of a system's TOML file, or a `System`; the default is `DEFAULT_SYSTEM`.
        batch: requests at the same time, all data-parallel replicas together; by default one for each.
        prompt: tokens of each prompt; 2048 by default.
        output: tokens generated of each, the first by the prefill; 256 by default.
        chunk: tokens of each prompt that are read at a time; by default all at once.
        microbatches: parts the batch is divided into; by default as many as there are pipeline stages.
        precision: a preset, `PRESET,KEY=DTYPE,...`, or a `Precision`; weights, cache and compute each have a type.
        page: tokens in a page of the cache; 1 for a cache without pages.
        memory_share: share of the chip's memory that may be used.
        overhead: bytes of it that a runtime takes on each device beside tensors.
        execution: `compiled` (captured once, replayed, maps fused), `eager` (kernel by kernel) or `roofline`.
        speculative: a smaller model that guesses tokens ahead, or `"ahead"`: the model's own layers for that.
        guesses: tokens it guesses in a row; 4 by default, or as many as the model has layers for.
        acceptance: probability that a guess is accepted; 0.8 by default.
        disaggregate: mesh of an instance that only reads prompts; `mesh` then only decodes.
        prefill_strategy: its strategy, if not one that suits it.
        prefill_hardware: its system, if another one.
        prefill_batch: prompts it reads at a time; by default one for each of its data-parallel replicas.
        prefill_instances: how many there are; without both numbers those that serve most tokens a device.
        decode_instances: how many there are of the others.
        link: bytes/s from one prefill instance to a decode instance; by default what their network gives.
        sweep: decode steps at every batch and context, `"batch=1,8,64 context=1024,8192"` or a mapping.
        price_per_hour: of one device.
        prefill_price_per_hour: of one device that prefills, if another.
        sizes: axis -> size, for axes that a program of your own leaves open.
        shard: compute rules of your own, before those of `strategy`.

    Raises:
        EinscaleError: an argument cannot be understood, or a request cannot be met; the message names the nearest
            values that could.
    """
    serving = chosen_serving(
        model,
        mesh=mesh,
        strategy=strategy,
        shard=shard,
        sizes=sizes,
        hardware=hardware,
        precision=precision,
        page=page,
        memory_share=memory_share,
        overhead=overhead,
        execution=execution,
    )
    notes = [*strategy_note(serving)]
    instance = serving.instance()
    requests = chosen_requests(instance, batch, notes)
    tokens, generated = chosen_lengths(serving.model, prompt, output, notes)
    guessing = chosen_speculation(instance, speculative, guesses, acceptance, notes)
    notes += length_notes(serving.model, tokens + generated)
    if guessing is not None and guessing.draft is not None:
        notes += length_notes(guessing.draft, tokens + generated)
    notes += microbatch_notes(instance, microbatches)
    apart = None
    if disaggregate is not None:
        side = chosen_serving(
            serving.model,
            mesh=disaggregate,
            strategy=prefill_strategy,
            shard=None,
            sizes=None,
            hardware=serving.system if prefill_hardware is None else prefill_hardware,
            precision=serving.precision,
            page=page,
            memory_share=memory_share,
            overhead=overhead,
            execution=execution,
        )
        rate = None if link is None else check_number(link, "link", "bytes/s above 0, as 50e9", above=True)
        other_price = check_price(prefill_price_per_hour)
        apart = Apart(side, prefill_batch, rate, prefill_instances, decode_instances, other_price)
    else:
        _only_apart(
            prefill_strategy=prefill_strategy,
            prefill_hardware=prefill_hardware,
            prefill_batch=prefill_batch,
            prefill_instances=prefill_instances,
            decode_instances=decode_instances,
            link=link,
            prefill_price_per_hour=prefill_price_per_hour,
        )
    asked = Asked(
        serving,
        requests,
        tokens,
        generated,
        chunk=None if chunk is None else check_size(chunk, "chunk"),
        microbatches=None if microbatches is None else check_size(microbatches, "number of microbatches"),
        speculation=guessing,
        apart=apart,
        points=read_sweep(sweep, requests, tokens),
        price_per_hour=check_price(price_per_hour),
        notes=tuple(notes),
    )
    return answer(asked)


def _only_apart(**given: object) -> None:
    """Raise where something is said of prefill instances that nobody asked for."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(
                f"`{name}` is of prefill and decode apart, which is not asked for",
                expected="with `disaggregate` the mesh of a prefill instance, as model=8",
            )


def answer(asked: Asked) -> InferResult:
    """Price a request as it is asked for.

    Args:
        asked: the request, every input resolved.

    Raises:
        EinscaleError: it cannot be met.
    """
    if asked.speculation is not None and asked.apart is not None:
        raise UsageError("speculation and disaggregation are priced one at a time", expected="only one of them")
    for wanted, what in ((asked.speculation, "speculation"), (asked.apart, "prefill and decode apart")):
        if wanted is not None and asked.output == 1:
            raise UsageError(
                f"{what} is about tokens after the first, and only one is wanted", expected="an output of 2 or more"
            )
    instance = asked.serving.instance()
    result = InferResult(
        asked,
        request_report(
            instance,
            batch=asked.batch,
            prompt=asked.prompt,
            output=asked.output,
            chunk=asked.chunk,
            microbatches=asked.microbatches,
        ),
    )
    if asked.speculation is not None:
        result = _with_draft(result, instance)
    if asked.apart is not None:
        result = replace(result, disaggregated=_apart(result, asked.apart))
    if asked.points is not None:
        rows = sweep_rows(instance, batches=asked.points.batches, contexts=asked.points.contexts)
        result = replace(result, sweep=rows)
    return result


def _with_draft(result: InferResult, instance: Instance) -> InferResult:
    """The request with a draft that guesses."""
    asked, speculation = result.asked, result.asked.speculation
    assert speculation is not None
    draft = draft_instance(instance, asked.serving, speculation)
    report = speculative_report(
        instance,
        draft,
        length=speculation.guesses,
        acceptance=speculation.acceptance,
        batch=asked.batch,
        context=asked.prompt,
        output=asked.output - 1,
        shared=speculation.draft is None,
    )
    reading = prefill_report(
        draft, batch=asked.batch, prompt=asked.prompt, chunk=asked.chunk, microbatches=asked.microbatches
    )
    return replace(result, speculative=report, draft_prefill=reading)


def _apart(result: InferResult, apart: Apart) -> DisaggregatedReport:
    """Prefill on instances of their own, decode on those of the request."""
    side = apart.serving.instance()
    prefills = prefill_report(
        side,
        batch=side.ways if apart.batch is None else apart.batch,
        prompt=result.asked.prompt,
        chunk=result.asked.chunk,
    )
    assert result.request.decode is not None
    return disaggregated_report(
        prefills,
        result.request.decode,
        bandwidth=apart.link,
        prefill_instances=apart.prefill_instances,
        decode_instances=apart.decode_instances,
    )
