"""Requests: prompts read into a cache, tokens generated one after the other, both together, and sweeps of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from einscale.errors import SizeError
from einscale.numeric import Number, largest, maximum, one_of, scattered
from einscale.price.footprint import Memory
from einscale.price.spent import Spent, SpentPart, TimePart, at_places, weighted
from einscale.serving.instance import check_batch, check_positions, default_microbatches
from einscale.serving.memory import largest_batch, serving_memory
from einscale.serving.places import FEW_CHUNKS, SHORT, bends, places
from einscale.serving.step import Planner, column
from einscale.serving.values import DecodeReport, Instance, PrefillReport, RequestReport, StepReport, SweepRow
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


def cycle(step: StepReport, microbatches: Number, back_seconds: float) -> Spent:
    """Time between two tokens of one sequence, where so many microbatches go around the pipeline.

    A token leaves the last stage, is sent back to the first, and must pass every stage again; a stage must serve every
    microbatch in between. The longer of the two decides.
    """
    if len(step.stages) == 1:
        return step.spent.times(microbatches)
    hops = (len(step.stages) - 1) * step.hop_seconds + back_seconds
    path = step.spent.seconds + hops
    busiest = largest(step.stage_seconds) + step.hop_seconds
    return through_stages(step.spent, hops, maximum(0.0, microbatches * busiest - path))


def through_stages(spent: Spent, hops: Number, waiting: Number) -> Spent:
    """An account with transfers between pipeline stages, and with what these wait."""
    return spent.plus(Spent((SpentPart(TimePart.HOPS, hops), SpentPart(TimePart.BUBBLE, waiting))))


class _Steps(Struct, frozen=True):
    """Decode steps one after the other.

    Args:
        spent: where the time of all of them goes.
        first: seconds of the first.
        last: seconds of the last.
    """

    spent: Spent
    first: float
    last: float


def _steps(planner: Planner, share: int, first: int, last: int, parts: int) -> _Steps:
    """Decode steps, the cache growing by one in each.

    Args:
        planner: of the instance.
        share: sequences of a microbatch.
        first: tokens of each in the cache before the first step.
        last: the same before the last one.
        parts: microbatches.
    """
    back = planner.back_seconds()

    def one(cached: int) -> Spent:
        return cycle(planner.step(share, 1, cached), parts, back)

    if last - first < SHORT or planner.freely:
        run = bends(lambda cached: one(cached).seconds, first, last)
        accounts = [one(cached) for cached in run.at]
        return _Steps(weighted(accounts, run.weights), accounts[0].seconds, accounts[-1].seconds)
    run = places(first, last)
    priced = planner.passes([share] * len(run.at), 1, run.at)
    where = [here for here, _ in priced]
    column = at_places([cycle(step, parts, back) for _, step in priced], where, len(run.at))
    seconds = column.seconds
    return _Steps(column.mapped(run.total), one_of(seconds, 0), one_of(seconds, -1))


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
    >>> from einscale.serving.instance import make_instance
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
    last = held + generated - 1
    steps = _steps(plans, share, held, last, parts)
    return DecodeReport(
        instance=instance,
        batch=batch,
        context=held,
        output=generated,
        microbatches=parts,
        step=plans.step(share, 1, (held + last) // 2),
        first_seconds=steps.first,
        last_seconds=steps.last,
        spent=steps.spent.times(1 / generated),
        memory=serving_memory(plans, plans.all_plans(share, 1, last), batch, held + generated),
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

    start = (count - 1) * size
    last = plans.step(share, tokens - start, before + start, logits=1, absorbed=False)
    first = last if count == 1 else plans.step(share, size, before, logits=0, absorbed=False)
    return PrefillReport(
        instance=instance,
        batch=batch,
        prompt=tokens,
        chunk=size,
        cached=before,
        microbatches=parts,
        first=first,
        last=last,
        spent=_prefill_spent(_chunks(plans, share, size, before, count - 1), parts, last),
        memory=serving_memory(
            plans,
            plans.all_plans(share, size, before + tokens - size, logits=1, absorbed=False),
            batch,
            before + tokens,
        ),
    )


class _Chunks(Struct, frozen=True):
    """Every chunk of a prompt but the last.

    Args:
        spent: where the time of all of them goes.
        stage_seconds: of each, the seconds of every pipeline stage.
    """

    spent: Spent
    stage_seconds: tuple[tuple[float, ...], ...]


def _chunks(planner: Planner, share: int, size: int, before: int, count: int) -> _Chunks:
    """Chunks of one microbatch that are followed by another, priced together.

    Args:
        planner: of the instance.
        share: sequences of a microbatch.
        size: tokens of a chunk.
        before: tokens that are in the cache before the first.
        count: how many there are.
    """
    if not count:
        return _Chunks(Spent(), ())

    def one(number: int) -> StepReport:
        return planner.step(share, size, before + number * size, logits=0, absorbed=False)

    stages = range(planner.instance.stages if planner.instance.stages > 1 else 0)
    if count <= FEW_CHUNKS or planner.freely:
        run = bends(lambda number: one(number).spent.seconds, 0, count - 1)
        steps = [one(number) for number in run.at]
        spent = weighted([step.spent for step in steps], run.weights)
        columns = [[step.stage_seconds[stage] for step in steps] for stage in stages]
    else:
        run = places(0, count - 1)
        cached = [before + number * size for number in run.at]
        priced = planner.passes([share] * len(cached), size, cached, logits=0, absorbed=False)
        where, steps = [here for here, _ in priced], [step for _, step in priced]
        spent = at_places([step.spent for step in steps], where, len(cached)).mapped(run.total)
        columns = [
            scattered([step.stage_seconds[stage] for step in steps], where, len(cached)).tolist() for stage in stages
        ]
    return _Chunks(spent, tuple(zip(*(run.expanded(column) for column in columns), strict=True)))


def _prefill_spent(chunks: _Chunks, parts: int, last: StepReport) -> Spent:
    """Where the time goes until the last prompt is read, on the path of the pipeline that decides it."""
    stages = len(last.stages)
    spent = last.spent.plus(chunks.spent)
    if stages == 1:
        return spent.times(parts)
    finished = [0.0] * stages
    for chunk in (*chunks.stage_seconds, last.stage_seconds):
        for _ in range(parts):
            ready = 0.0
            for stage, seconds in enumerate(chunk):
                finished[stage] = max(finished[stage], ready) + seconds
                ready = finished[stage] + last.hop_seconds
    spent = spent.times(parts / stages)
    hops = (stages - 1) * last.hop_seconds
    return through_stages(spent, hops, max(0.0, finished[-1] - hops - spent.seconds))


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
    >>> from einscale.serving.instance import make_instance
    >>> from einscale.mesh import parse_mesh
    >>> from einscale.models import load_model
    >>> instance = make_instance(load_model("llama3-8b"), parse_mesh("model=1"), load_system("h100"))
    >>> [(row.batch, row.memory.fits, row.pareto) for row in sweep(instance, batches=(1, 16, 256), contexts=(8192,))]
    [(1, True, True), (16, True, True), (256, False, False)]

    Raises:
        SizeError: sizes that cannot be, a batch that does not divide, or more tokens than learned positions.
    """
    planner = Planner(instance)
    lengths = tuple(contexts)
    points = [(check_batch(instance, batch), check_tokens(one, "context")) for batch in batches for one in lengths]
    for _, context in points:
        check_positions(instance, context + 1)
    if not points:
        return ()
    parts = [default_microbatches(instance, batch) for batch, _ in points]
    shares = [batch // count for (batch, _), count in zip(points, parts, strict=True)]
    cached = [context for _, context in points]
    seconds, memory = _swept(planner, shares, cached, parts)
    rows = [
        SweepRow(batch, context, token, batch / token, batch / token / instance.devices, held)
        for (batch, context), token, held in zip(points, seconds, memory, strict=True)
    ]
    best = _unbeaten(rows)
    return tuple(replace(row, pareto=number in best) for number, row in enumerate(rows))


def _swept(
    planner: Planner, shares: Sequence[int], cached: Sequence[int], parts: Sequence[int]
) -> tuple[list[float], list[Memory]]:
    """Seconds of a decode step and bytes on a device, at every point of a sweep."""
    seconds, memory = [0.0] * len(shares), [Memory()] * len(shares)
    back = planner.back_seconds()
    for here, step in planner.passes(shares, 1, cached):
        count = column([parts[number] for number in here])
        taken = cycle(step, count, back).seconds
        held = serving_memory(planner, step.plans, step.batch * count, step.cached + 1)
        for place, number in enumerate(here):
            seconds[number] = one_of(taken, place)
            memory[number] = held.at(place)
    return seconds, memory


def _unbeaten(rows: Sequence[SweepRow]) -> set[int]:
    """Numbers of rows that fit, and that none of their context that fits beats: as good in both and better in one."""
    found: set[int] = set()
    by_context: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        if row.memory.fits:
            by_context.setdefault(row.context, []).append(number)
    for numbers in by_context.values():
        quality = {one: (rows[one].seconds_per_token, -rows[one].tokens_per_second_per_device) for one in numbers}
        best = math.inf
        for value in sorted(set(quality.values())):  # fastest first, and of those the one of most tokens
            if value[1] < best:
                best = value[1]
                found.update(number for number in numbers if quality[number] == value)
    return found


def most_sequences(instance: Instance, *, prompt: int, output: int, microbatches: int = 1) -> int:
    """The most sequences that fit until their last token, by the memory of decoding; 0 if none does.

    Raises:
        SizeError: sizes that cannot be.
    """
    tokens = check_tokens(prompt, "prompt", 1) + check_tokens(output, "output")
    parts = check_size(microbatches, "number of microbatches")
    return largest_batch(Planner(instance), tokens, microbatches=parts)
