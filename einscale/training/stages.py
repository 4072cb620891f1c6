"""Which layers each pipeline stage holds, and the transfer between stages."""

from __future__ import annotations

from collections.abc import Sequence

from einscale.causes import Cause, CauseRule
from einscale.collectives import PERMUTE, Collective
from einscale.errors import ScheduleError
from einscale.models import Model, block_order
from einscale.numeric import Number
from einscale.planner.classes import stream_axes
from einscale.planner.planned import PlannedProgram
from einscale.price.program import PricedCollective
from einscale.program.values import Program
from einscale.schedule import layers_per_chunk
from einscale.stages import held_layers
from einscale.topology import AnyNetwork, Network, coefficients

Content = tuple[tuple[str, int], ...]
"""Kinds of layers, of a model chunk or of a device, and how many of each."""


def chunk_layers(
    model: Model, stages: int, chunks: int, first: int | None = None, last: int | None = None
) -> tuple[Content, ...]:
    """Kinds of layers, and how many of each, in every model chunk in the order a microbatch meets them.

    The first chunk holds the embedding, the last the head and what predicts tokens further ahead.

    >>> from einscale.models import load_model
    >>> chunk_layers(load_model("llama3-8b"), 2, 1)
    ((('embedding', 1), ('block', 16)), (('block', 16), ('head', 1)))

    Raises:
        ScheduleError: more stages than layers, or counts that do not add up.
    """
    blocks = len(block_order(model))
    alone = not blocks and stages * chunks == 1 and first is None and last is None  # a head without a body, say
    counts = (0,) if alone else layers_per_chunk(blocks, stages, chunks, first, last)
    return held_layers(model, counts, ahead=True)


def sent_seconds(held: Number, network: AnyNetwork, pipe: str) -> Number:
    """Seconds of a permute along the pipeline of so many bytes on each device."""
    alpha, beta = coefficients(PERMUTE, (pipe,), network)
    return alpha + beta * held


def sent_between(planned: PlannedProgram, network: Network, pipe: str) -> PricedCollective:
    """The residual stream of one microbatch on its way to the next stage, as it rests: a permute along the pipeline.

    Raises:
        ScheduleError: the program reads no activations, so that nothing could be sent.
    """
    name = stream_name(planned.program)
    if not name:
        raise ScheduleError(f"{planned.program.name} reads no activations, so it cannot be a stage of a pipeline")
    tensor, layout = planned.program.table[name].tensor, planned.resting[name]
    held = planned.held(tensor, layout)
    seconds = float(sent_seconds(held, network, pipe))
    step = Collective(PERMUTE, tensor, (pipe,), layout, layout, Cause(CauseRule.STAGES, name, (pipe,)))
    return PricedCollective(step, held, seconds, seconds)


def stream_name(program: Program) -> str:
    """Name of what a layer reads from the one before it; "" for the embedding, which reads tokens."""
    axes = stream_axes(program)
    return next((name for name in program.inputs if program.table[name].axes == axes), "")


def merged(contents: Sequence[Content]) -> Content:
    """Layers of several chunks together.

    >>> merged([(("block", 2),), (("block", 3), ("head", 1))])
    (('block', 5), ('head', 1))
    """
    kinds = dict.fromkeys(kind for content in contents for kind, _ in content)
    return tuple((kind, sum(count for content in contents for k, count in content if k == kind)) for kind in kinds)
