"""`einscale.prefill`, `einscale.decode`, `einscale.infer`: a model, a mesh, requests -> what answering them costs."""

from __future__ import annotations

from typing import Unpack

from einscale.api.infer_result import DecodeResult, InferResult, PrefillResult
from einscale.models import Model
from einscale.request.common import check_price
from einscale.request.serving import (
    DecodeOptions,
    PrefillOptions,
    ServeOptions,
    ServeRequest,
    asked_requests,
    chosen_lengths,
    chosen_requests,
    chosen_serving,
    length_notes,
    microbatch_notes,
    serve_request,
    strategy_note,
)
from einscale.serving import decode_report, prefill_report
from einscale.serving.answer import answer_requests
from einscale.serving.run import repeated_cache_notes
from einscale.units import check_size

__all__ = ["DecodeResult", "InferResult", "PrefillResult", "ServeRequest", "decode", "infer", "prefill"]


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
    return answer_requests(
        asked_requests(model, serve_request(options, "infer", ServeOptions.__optional_keys__)), InferResult
    )
