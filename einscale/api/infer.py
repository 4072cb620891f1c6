"""`einscale.prefill`, `einscale.decode`, `einscale.infer`: a model, a mesh, requests -> what answering them costs."""

from __future__ import annotations

from typing import Unpack

from msgspec.structs import replace

from einscale.api.infer_result import DecodeResult, InferResult, PrefillResult
from einscale.api.request import check_price
from einscale.api.serve_request import DecodeOptions, PrefillOptions, ServeOptions, ServeRequest, serve_request
from einscale.api.serving import (
    Apart,
    Asked,
    chosen_apart,
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
from einscale.models import Model
from einscale.serving import (
    DisaggregatedReport,
    Instance,
    decode_report,
    disaggregated_report,
    prefill_report,
    request_report,
    speculative_report,
)
from einscale.serving import sweep as sweep_rows
from einscale.units import check_size


def prefill(model: str | Model, **options: Unpack[PrefillOptions]) -> PrefillResult:
    """Price reading prompts into the cache, which makes the first token of each.

    >>> answer = prefill("llama3-8b", prompt=8192)
    >>> answer.fits, 0.2 < answer.prefill.seconds < 0.5, answer.prefill.memory.cache == 8192 * 131072
    (True, True, True)

    Args:
        model: a preset, the path of a `config.json` or of a program of your own (`.ein`, `.py`), or a `Model`.
        options: as `ServeRequest` documents them: `mesh`, `strategy`, `hardware`, `batch`, `prompt`, `cached`, ...

    Raises:
        EinscaleError: an argument cannot be understood, or a request cannot be met.
    """
    asked = serve_request(options, "prefill", PrefillOptions.__optional_keys__)
    serving = chosen_serving(model, asked)
    notes = [*strategy_note(serving)]
    instance = serving.instance()
    requests = chosen_requests(instance, asked.batch, notes)
    tokens, _ = chosen_lengths(serving.model, asked.prompt, 1, notes)
    price = check_price(asked.price_per_hour)
    report = prefill_report(
        instance,
        batch=requests,
        prompt=tokens,
        chunk=asked.chunk,
        cached=asked.cached,
        microbatches=asked.microbatches,
    )
    notes += length_notes(serving.model, report.cached + report.prompt)
    notes += [*microbatch_notes(instance, asked.microbatches), *repeated_cache_notes(instance, report.last)]
    return PrefillResult(report, price, (*notes, *serving.model.notes))


def decode(model: str | Model, **options: Unpack[DecodeOptions]) -> DecodeResult:
    """Price generating tokens one after the other, one of every sequence in each step.

    >>> answer = decode("llama3-70b", mesh="model=8", batch=32, context=2048)
    >>> answer.fits, 0.008 < answer.decode.seconds_per_token < 0.02, answer.decode.spent.by_axes[0].axis
    (True, True, 'model')

    Args:
        model: a preset, the path of a `config.json` or of a program of your own (`.ein`, `.py`), or a `Model`.
        options: as `ServeRequest` documents them: `mesh`, `strategy`, `hardware`, `batch`, `context`, `output`, ...

    Raises:
        EinscaleError: an argument cannot be understood, or a request cannot be met.
    """
    asked = serve_request(options, "decode", DecodeOptions.__optional_keys__)
    serving = chosen_serving(model, asked)
    notes = [*strategy_note(serving)]
    instance = serving.instance()
    requests = chosen_requests(instance, asked.batch, notes)
    output, context = 1 if asked.output is None else asked.output, asked.context
    if context is None:
        found: list[str] = []
        context, _ = chosen_lengths(serving.model, None, check_size(output, "output") + 1, found)
        notes.append(f"context: {context} tokens (none were given)")
    price = check_price(asked.price_per_hour)
    report = decode_report(instance, batch=requests, context=context, output=output, microbatches=asked.microbatches)
    notes += length_notes(serving.model, report.context + report.output)
    notes += [*microbatch_notes(instance, asked.microbatches), *repeated_cache_notes(instance, report.step)]
    return DecodeResult(report, price, (*notes, *serving.model.notes))


def infer(model: str | Model, **options: Unpack[ServeOptions]) -> InferResult:
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
        options: as `ServeRequest` documents them: `mesh`, `strategy`, `hardware`, `batch`, `prompt`, `output`, ...

    Raises:
        EinscaleError: an argument cannot be understood, or a request cannot be met; the message names the nearest
            values that could.
    """
    return answer(asked_requests(model, serve_request(options, "infer", ServeOptions.__optional_keys__)))


def asked_requests(model: str | Model, asked: ServeRequest) -> Asked:
    """A request from prompt to last token, everything resolved and what was decided noted.

    Raises:
        EinscaleError: an argument cannot be understood.
    """
    serving = chosen_serving(model, asked)
    notes = [*strategy_note(serving)]
    instance = serving.instance()
    requests = chosen_requests(instance, asked.batch, notes)
    tokens, generated = chosen_lengths(serving.model, asked.prompt, asked.output, notes)
    guessing = chosen_speculation(instance, asked, notes)
    notes += length_notes(serving.model, tokens + generated)
    if guessing is not None and guessing.draft is not None:
        notes += length_notes(guessing.draft, tokens + generated)
    notes += microbatch_notes(instance, asked.microbatches)
    parts = asked.microbatches
    return Asked(
        serving,
        requests,
        tokens,
        generated,
        apart=chosen_apart(serving, asked),
        chunk=None if asked.chunk is None else check_size(asked.chunk, "chunk"),
        microbatches=None if parts is None else check_size(parts, "number of microbatches"),
        speculation=guessing,
        points=read_sweep(asked.sweep, requests, tokens),
        price_per_hour=check_price(asked.price_per_hour),
        notes=tuple(notes),
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
