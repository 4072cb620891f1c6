"""Requests: prompts read into a cache, tokens generated one after the other, both together, and sweeps of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from einscale.errors import SizeError
from einscale.infer.curve import curve, expanded, summed
from einscale.infer.instance import check_batch, check_positions, default_microbatches
from einscale.infer.memory import largest_batch, serving_memory
from einscale.infer.step import Planner
from einscale.infer.values import (
    DecodeReport,
    Instance,
    PrefillReport,
    RequestReport,
    Spent,
    StepReport,
    SweepRow,
)
from einscale.units import check_size

LONGEST = 10**9
"""Most tokens of a sequence: beyond it nobody means it."""


def check_tokens(tokens: int, what: str, least: int = 0) -> int:
    """A number of tokens, if it is a whole number that somebody may mean.

    Raises:
        SizeError: it is not.
    """
    if least == 0 and tokens == 0 and not isinstance(tokens, bool):
        return 0
    found = check_size(tokens, what)
    if found > LONGEST:
        raise SizeError(f"the {what} is absurd: {found} tokens")
    return found


def microbatches_of(instance: Instance, batch: int, microbatches: int | None) -> int:
    """Parts a batch is divided into, checked.

    Raises:
        SizeError: the batch does not divide.
    """
    if microbatches is None:
        check_batch(instance, batch)
        return default_microbatches(instance, batch)
    parts = check_size(microbatches, "number of microbatches")
    check_batch(instance, batch, parts)
    return parts


def cycle(step: StepReport, microbatches: int, back_seconds: float) -> Spent:
    """Time between two tokens of one sequence, where so many microbatches go around the pipeline.

    A token leaves the last stage, is sent back to the first, and must pass every stage again; a stage must serve every
    microbatch in between. The longer of the two decides.
    """
    if len(step.stages) == 1:
        return step.spent.times(microbatches)
    hops = (len(step.stages) - 1) * step.hop_seconds + back_seconds
    path = step.spent.seconds + hops
    busiest = max(step.stage_seconds) + step.hop_seconds
    return replace(step.spent, hops=hops, waiting=max(0.0, microbatches * busiest - path))


def decode_report(
    instance: Instance,
    *,
    batch: int,
    context: int,
    output: int = 1,
    microbatches: int | None = None,
    planner: Planner | None = None,
) -> DecodeReport:
    """Generate tokens, one of every sequence in each step.

    Args:
        instance: what answers.
        batch: sequences, all data-parallel replicas together.
        context: tokens of each in the cache before the first step.
        output: how many tokens; the cache grows by one in each step, and times are means over the steps.
        microbatches: parts the batch is divided into, so that the stages of a pipeline work at the same time; by
            default as many as there are stages.
        planner: plans of the instance, where it has been asked before.

    >>> from einscale.hardware import load_system
    >>> from einscale.infer.instance import make_instance
    >>> from einscale.mesh import parse_mesh
    >>> from einscale.models import load_model
    >>> instance = make_instance(load_model("llama3-8b"), parse_mesh("model=1"), load_system("h100").ideal())
    >>> report = decode_report(instance, batch=1, context=1024)
    >>> round(report.seconds_per_token * 1e3, 2)  # 15 GB of weights, 0.13 GB of cache at 3.35 TB/s, and activations
    4.52

    Raises:
        SizeError: sizes that cannot be, a batch that does not divide, or more tokens than learned positions.
    """
    plans = planner or Planner(instance)
    held, generated = check_tokens(context, "context"), check_tokens(output, "output", 1)
    check_positions(instance, held + generated)
    parts = microbatches_of(instance, batch, microbatches)
    share = batch // parts
    back = plans.back_seconds()

    def step(cached: int) -> StepReport:
        return plans.step(share, 1, cached)

    last = held + generated - 1
    points = curve(lambda cached: cycle(step(cached), parts, back), held, last)
    middle = plans.all_plans(share, 1, last)
    return DecodeReport(
        instance=instance,
        batch=batch,
        context=held,
        output=generated,
        microbatches=parts,
        step=step((held + last) // 2),
        first_seconds=points[0][1].seconds,
        last_seconds=points[-1][1].seconds,
        spent=summed(points).times(1 / generated),
        memory=serving_memory(plans, middle, batch, held + generated),
    )


def prefill_report(
    instance: Instance,
    *,
    batch: int,
    prompt: int,
    chunk: int | None = None,
    cached: int = 0,
    microbatches: int | None = None,
    planner: Planner | None = None,
) -> PrefillReport:
    """Read prompts into the cache; the last token of each gives its first output token.

    Args:
        instance: what answers.
        batch: sequences, all data-parallel replicas together.
        prompt: tokens of each.
        chunk: tokens of each that are read at a time; each chunk attends to what is cached. By default all at once.
        cached: tokens of each that are in the cache already: a prefix that many requests share.
        microbatches: parts the batch is divided into; they and the chunks follow each other through a pipeline.
        planner: plans of the instance, where it has been asked before.

    Raises:
        SizeError: sizes that cannot be, a batch that does not divide, or more tokens than learned positions.
    """
    plans = planner or Planner(instance)
    tokens, before = check_tokens(prompt, "prompt", 1), check_tokens(cached, "cached prefix")
    size = min(tokens, check_tokens(chunk, "chunk", 1)) if chunk is not None else tokens
    check_positions(instance, before + tokens)
    parts = microbatches_of(instance, batch, microbatches)
    share = batch // parts
    count = -(-tokens // size)

    def read(number: int, *, logits: int = 0) -> StepReport:
        start = number * size
        return plans.step(share, min(size, tokens - start), before + start, logits=logits, absorbed=False)

    last = read(count - 1, logits=1)
    first = last if count == 1 else read(0)
    return PrefillReport(
        instance=instance,
        batch=batch,
        prompt=tokens,
        chunk=size,
        cached=before,
        microbatches=parts,
        first=first,
        last=last,
        spent=_prefill_spent(read, count, parts, last),
        memory=serving_memory(
            plans,
            plans.all_plans(share, size, before + tokens - size, logits=1, absorbed=False),
            batch,
            before + tokens,
        ),
    )


def _prefill_spent(read: Callable[[int], StepReport], count: int, parts: int, last: StepReport) -> Spent:
    """Where the time goes until the last prompt is read, on the path of the pipeline that decides it."""
    stages = len(last.stages)
    if stages == 1:
        chunks = last.spent
        if count > 1:
            chunks = chunks.plus(summed(curve(lambda number: read(number).spent, 0, count - 2)))
        return chunks.times(parts)
    steps = {number: read(number) for number, _ in curve(lambda n: read(n).spent, 0, count - 2)} if count > 1 else {}
    times = _stage_times(steps, count)
    items = [(*chunk,) for chunk in (*times, last.stage_seconds) for _ in range(parts)]
    finished = [0.0] * stages
    for item in items:
        ready = 0.0
        for stage, seconds in enumerate(item):
            finished[stage] = max(finished[stage], ready) + seconds
            ready = finished[stage] + last.hop_seconds
    spent = last.spent
    if count > 1:
        spent = spent.plus(summed(tuple((n, s.spent) for n, s in sorted(steps.items()))))
    spent = spent.times(parts / stages)
    hops = (stages - 1) * last.hop_seconds
    return replace(spent, hops=hops, waiting=max(0.0, finished[-1] - hops - spent.seconds))


def _stage_times(steps: dict[int, StepReport], count: int) -> list[tuple[float, ...]]:
    """Seconds of each stage for every chunk but the last, straight lines between the chunks known."""
    if not steps:
        return []
    rows = [
        expanded(tuple((n, Spent(compute=step.stage_seconds[stage])) for n, step in sorted(steps.items())))
        for stage in range(len(next(iter(steps.values())).stages))
    ]
    return [tuple(row[number].seconds for row in rows) for number in range(count - 1)]


def request_report(
    instance: Instance,
    *,
    batch: int,
    prompt: int,
    output: int,
    chunk: int | None = None,
    microbatches: int | None = None,
) -> RequestReport:
    """A batch of requests from prompt to last token; the prefill makes the first token, decode steps the others.

    Args:
        instance: what answers.
        batch: sequences, all data-parallel replicas together.
        prompt: tokens of each prompt.
        output: tokens generated of each.
        chunk: tokens of each prompt that are read at a time.
        microbatches: parts the batch is divided into.

    Raises:
        SizeError: sizes that cannot be, a batch that does not divide, or more tokens than learned positions.
    """
    planner = Planner(instance)
    generated = check_tokens(output, "output", 1)
    check_positions(instance, check_tokens(prompt, "prompt", 1) + generated - 1)
    prefill = prefill_report(
        instance, batch=batch, prompt=prompt, chunk=chunk, microbatches=microbatches, planner=planner
    )
    if generated == 1:
        return RequestReport(prefill, None)
    decode = decode_report(
        instance, batch=batch, context=prompt, output=generated - 1, microbatches=microbatches, planner=planner
    )
    return RequestReport(prefill, decode)


def sweep(instance: Instance, *, batches: Iterable[int], contexts: Iterable[int]) -> tuple[SweepRow, ...]:
    """One decode step at every batch and context, those marked that no other row beats.

    >>> from einscale.hardware import load_system
    >>> from einscale.infer.instance import make_instance
    >>> from einscale.mesh import parse_mesh
    >>> from einscale.models import load_model
    >>> instance = make_instance(load_model("llama3-8b"), parse_mesh("model=1"), load_system("h100"))
    >>> [(row.batch, row.memory.fits, row.pareto) for row in sweep(instance, batches=(1, 16, 256), contexts=(8192,))]
    [(1, True, True), (16, True, True), (256, False, False)]

    Raises:
        SizeError: sizes that cannot be, a batch that does not divide, or more tokens than learned positions.
    """
    planner = Planner(instance)
    rows = []
    lengths = tuple(contexts)
    for batch in batches:
        for context in lengths:
            report = decode_report(instance, batch=batch, context=context, planner=planner)
            rows.append(
                SweepRow(
                    batch,
                    context,
                    report.seconds_per_token,
                    report.tokens_per_second,
                    report.tokens_per_second_per_device,
                    report.memory,
                )
            )
    return tuple(replace(row, pareto=_unbeaten(row, rows)) for row in rows)


def _unbeaten(row: SweepRow, rows: list[SweepRow]) -> bool:
    """Whether a row fits, and none of its context that fits is as good in both and better in one."""

    def beats(other: SweepRow) -> bool:
        faster = other.seconds_per_token <= row.seconds_per_token
        cheaper = other.tokens_per_second_per_device >= row.tokens_per_second_per_device
        same = (other.seconds_per_token, other.tokens_per_second_per_device) == (
            row.seconds_per_token,
            row.tokens_per_second_per_device,
        )
        return faster and cheaper and not same

    rivals = [other for other in rows if other.context == row.context and other.memory.fits]
    return row.memory.fits and not any(beats(other) for other in rivals)


def most_sequences(instance: Instance, *, prompt: int, output: int, microbatches: int = 1) -> int:
    """The most sequences that fit until their last token, by the memory of decoding; 0 if none does.

    Raises:
        SizeError: sizes that cannot be.
    """
    tokens = check_tokens(prompt, "prompt", 1) + check_tokens(output, "output")
    parts = check_size(microbatches, "number of microbatches")
    return largest_batch(Planner(instance), tokens, microbatches=parts)
