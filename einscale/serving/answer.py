"""A request as it is asked for -> what it costs, with a draft that guesses, or with prefill on instances of its own."""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from einscale.errors import UsageError
from einscale.serving.asked import Apart, AskedRequests, draft_instance
from einscale.serving.requests import prefill_report, request_report
from einscale.serving.requests import sweep as sweep_rows
from einscale.serving.run import InferRun
from einscale.serving.values import Instance
from einscale.serving.ways import DisaggregatedReport, disaggregated_report, speculative_report

Run = TypeVar("Run", bound=InferRun)


def answer_requests(asked: AskedRequests, kind: type[Run]) -> Run:
    """Price a request as it is asked for.

    Args:
        asked: the request, every input resolved.
        kind: what the answer is: an `InferRun`, or a kind of it that can be shown.

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
    result = kind(
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


def _with_draft(result: Run, instance: Instance) -> Run:
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


def _apart(result: InferRun, apart: Apart) -> DisaggregatedReport:
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
