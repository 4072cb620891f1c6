"""The most requests that fit at once, their prompts read in the same pass."""

from __future__ import annotations

from einscale.serving.instance import check_positions
from einscale.serving.memory import most, serving_memory
from einscale.serving.requests import check_tokens, microbatches_of
from einscale.serving.step import Planner
from einscale.serving.values import Instance
from einscale.units import check_size


def most_requests(
    instance: Instance,
    *,
    prompt: int,
    output: int,
    chunk: int | None = None,
    microbatches: int | None = None,
    planner: Planner | None = None,
) -> int:
    """The largest batch whose request fits: every prompt read at the same time, then decoded to the last token.

    Decoding alone leaves room for more (`most_sequences`): reading prompts needs more working memory, less in chunks.

    Args:
        instance: what answers.
        prompt: tokens of each prompt.
        output: tokens generated of each.
        chunk: tokens of each prompt that are read at a time.
        microbatches: parts the batch is divided into; by default as many as there are pipeline stages.
        planner: plans of the instance, where it has been asked before.

    >>> from einscale.hardware import load_system
    >>> from einscale.serving.instance import make_instance
    >>> from einscale.mesh import parse_mesh
    >>> from einscale.models import load_model
    >>> instance = make_instance(load_model("llama3-8b"), parse_mesh("model=1"), load_system("h100"))
    >>> most_requests(instance, prompt=8192, output=1), most_requests(instance, prompt=8192, output=1, chunk=1024)
    (34, 54)

    Raises:
        SizeError: sizes that cannot be, or more tokens than learned positions.
    """
    plans = planner or Planner(instance)
    parts = check_size(microbatches, "number of microbatches") if microbatches is not None else instance.stages

    def needed(batch: int, parts: int) -> int:
        return requests_need(plans, batch=batch, prompt=prompt, output=output, chunk=chunk, microbatches=parts)

    unit, room = instance.ways * parts, instance.capacity
    found = most(lambda units: needed(units * unit, parts), room) * unit
    if not found and microbatches is None and parts > 1:
        return most(lambda units: needed(units * instance.ways, 1), room, parts - 1) * instance.ways
    return found


def requests_fit(
    planner: Planner, *, batch: int, prompt: int, output: int, chunk: int | None, microbatches: int | None
) -> bool:
    """Whether requests fit, both while prompts are read and at the last token; arguments as for `requests_need`.

    Raises:
        SizeError: sizes that cannot be, a batch that does not divide, or more tokens than learned positions.
    """
    needed = requests_need(planner, batch=batch, prompt=prompt, output=output, chunk=chunk, microbatches=microbatches)
    return needed <= planner.instance.capacity


def requests_need(
    planner: Planner, *, batch: int, prompt: int, output: int, chunk: int | None, microbatches: int | None
) -> int:
    """Bytes that requests need on a device, the more of while prompts are read and at the last token; nothing is timed.

    Args:
        planner: plans of the instance.
        batch: sequences.
        prompt: tokens of each prompt.
        output: tokens generated of each.
        chunk: tokens of each prompt that are read at a time; None for all at once.
        microbatches: parts the batch is divided into; None for as many as there are pipeline stages.

    Raises:
        SizeError: sizes that cannot be, a batch that does not divide, or more tokens than learned positions.
    """
    tokens, generated = check_tokens(prompt, "prompt", 1), check_tokens(output, "output", 1)
    size = min(tokens, check_tokens(chunk, "chunk", 1)) if chunk is not None else tokens
    last = tokens + generated - 1
    check_positions(planner.instance, last)
    share = batch // microbatches_of(planner.instance, batch, microbatches)
    reading = planner.all_plans(share, size, tokens - size, logits=1, absorbed=False)
    needed: int = serving_memory(planner, reading, batch, last).needed
    if generated > 1:
        needed = max(needed, serving_memory(planner, planner.all_plans(share, 1, last - 1), batch, last).needed)
    return needed
