"""Which layers each pipeline stage holds, and the transfer between stages."""

from __future__ import annotations

from collections.abc import Sequence

from einscale.causes import Cause, CauseRule
from einscale.collectives import PERMUTE, Collective
from einscale.cost import PricedCollective
from einscale.errors import ScheduleError
from einscale.layout import Tensor, local_bytes
from einscale.models import Model, block_order
from einscale.planner.classes import stream_axes
from einscale.planner.planned import PlannedProgram
from einscale.schedule import layers_per_chunk
from einscale.stages import held_layers
from einscale.topology import Network, coefficients


def chunk_layers(
    model: Model, stages: int, chunks: int, first: int | None = None, last: int | None = None
) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Kinds of layers, and how many of each, in every model chunk in the order a microbatch meets them.

    The first chunk holds the embedding, the last the head and what predicts tokens further ahead.

    >>> from einscale.models import load_model
    >>> chunk_layers(load_model("llama3-8b"), 2, 1)
    ((('embedding', 1), ('block', 16)), (('block', 16), ('head', 1)))

    Raises:
        ScheduleError: more stages than layers, or counts that do not add up.
    """
    counts = layers_per_chunk(len(block_order(model)), stages, chunks, first, last)
    return held_layers(model, counts, ahead=True)


def sent_between(planned: PlannedProgram, network: Network, pipe: str) -> PricedCollective:
    """The residual stream of one microbatch on its way to the next stage, as it rests: a permute along the pipeline.

    Raises:
        ScheduleError: the program reads no activations, so that nothing could be sent.
    """
    program = planned.program
    axes = stream_axes(program)
    stream = next((name for name in program.inputs if program.table[name].axes == axes), None)
    if stream is None:
        raise ScheduleError(f"{program.name} reads no activations, so it cannot be a stage of a pipeline")
    value, layout = program.table[stream], planned.resting[stream]
    tensor = Tensor(stream, value.axes, value.dtype)
    held = int(local_bytes(tensor, layout, planned.sizes, network.mesh.degrees))
    alpha, beta = coefficients(PERMUTE, (pipe,), network)
    seconds = float(alpha + beta * held)
    cause = Cause(CauseRule.STAGES, stream, (pipe,))
    step = Collective(PERMUTE, tensor, (pipe,), layout, layout, cause)
    return PricedCollective(step, held, seconds, seconds)


def merged(contents: Sequence[tuple[tuple[str, int], ...]]) -> tuple[tuple[str, int], ...]:
    """Layers of several chunks together.

    >>> merged([(("block", 2),), (("block", 3), ("head", 1))])
    (('block', 5), ('head', 1))
    """
    kinds = dict.fromkeys(kind for content in contents for kind, _ in content)
    return tuple((kind, sum(count for content in contents for k, count in content if k == kind)) for kind in kinds)
