"""The price of a step from layer cells: makespan, what is done once a step, memory; for one strategy or for many.

Everything here is arithmetic on numbers that may be arrays: `train_report` prices one row, `price_many` thousands that
share a schedule and a division into stages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct

from einscale.errors import HardwareError
from einscale.numeric import Condition, Number, largest, maximum, never, ratio, where
from einscale.price.footprint import Memory
from einscale.price.hiders import Hider, HidingWork
from einscale.price.overlap import ACTIVATIONS, GRADIENTS, PARAMETERS, left_exposed
from einscale.price.spent import SpentPart, TimePart
from einscale.schedule import find_schedule, pipeline_times, placement
from einscale.stages import EMBEDDING, HEAD
from einscale.topology import AnyNetwork
from einscale.training.cells import LayerCell
from einscale.training.memory import Moment, stage_memory, stage_moments
from einscale.training.stages import Content, chunk_layers, merged, sent_seconds
from einscale.training.values import ChunkSeconds, TrainSetup, accumulating
from einscale.vocabulary import BACKWARD, FORWARD

Cells = Mapping[str, LayerCell]
"""Kind of layer -> its numbers."""


UPDATE_PARTS = (
    TimePart.GRADIENTS_ONCE,
    TimePart.PARAMETERS_ONCE,
    TimePart.FIRST_AND_LAST,
    TimePart.OPTIMIZER_ONCE,
    TimePart.UPDATE,
    TimePart.OFFLOADED_OPTIMIZER,
    TimePart.SHARED_TABLE,
)
"""What `stage_tail` is made of: parts of a step that come once, whatever the microbatches."""


class StagePrice(Struct, frozen=True):
    """One pipeline stage, or the same of many strategies.

    Args:
        content: the layers it holds.
        forward: seconds of one microbatch's forward pass through all its chunks.
        backward: seconds of the backward pass.
        busy: seconds of the step that it computes.
        tail: what it does once a step, after its last backward pass.
        moments: when it may hold most.
        moment: number of the one at which it does.
        memory: bytes it holds then.
    """

    content: Content
    forward: Number
    backward: Number
    busy: Number
    tail: tuple[SpentPart, ...]
    moments: tuple[Moment, ...]
    moment: Number
    memory: Memory

    @property
    def tail_seconds(self) -> Number:
        """Seconds of what is done once a step."""
        return sum(part.seconds for part in self.tail)


class StepPrice(Struct, frozen=True):
    """One optimizer step, or the same of many strategies.

    Args:
        chunks: seconds of one microbatch in every model chunk.
        send: seconds of the residual stream on its way to the next stage.
        makespan: from the first forward task of any stage to the last backward task of any.
        stages: one for each pipeline stage.
        flops: of one microbatch on one device of every stage.
    """

    chunks: ChunkSeconds
    send: Number
    makespan: Number
    stages: tuple[StagePrice, ...]
    flops: Number

    @property
    def tail_seconds(self) -> Number:
        """Seconds of the slowest stage's update and what belongs to it."""
        return largest(stage.tail_seconds for stage in self.stages)

    @property
    def seconds(self) -> Number:
        """Of the step."""
        return self.makespan + self.tail_seconds

    @property
    def needed(self) -> Number:
        """Bytes of memory that the fullest stage needs."""
        return largest(stage.memory.needed for stage in self.stages)

    @property
    def host(self) -> Number:
        """Bytes that the stage which needs most of its host's memory keeps there."""
        return largest(stage.memory.host for stage in self.stages)


Hides = Mapping[str, Condition]
"""What the update moves -> whether the strategy hides it behind the passes beside it."""


def hides_of(overlap: Collection[str]) -> Hides:
    """What a strategy that hides these kinds of collectives hides of what is done once a step."""
    return {what: what in overlap for what in (GRADIENTS, PARAMETERS)}


def price_step(setup: TrainSetup, cells: Cells, network: AnyNetwork, hides: Hides) -> StepPrice:
    """Price a step from the numbers of its layers.

    Args:
        setup: the request; of many strategies one that stands for all, `microbatches` and what follows from it an array
            where there is no pipeline.
        cells: numbers by kind of layer.
        network: the mesh, pipeline included, at the bandwidth that collectives reach; or the meshes of many strategies.
        hides: what of the update is hidden, a bool or an array of them.

    Raises:
        ScheduleError: the schedule does not fit the stages, the layers or the microbatches.
        HardwareError: something is offloaded, and the bandwidth to the host is not known.
    """
    stages, chunks = setup.stages, setup.chunks
    contents = chunk_layers(setup.model, stages, chunks, setup.first, setup.last)
    times = chunk_seconds(setup, cells)
    send: Number = 0.0
    if stages == 1:
        held: tuple[tuple[int, ...], ...] = (tuple(range(len(contents))),)
        makespan = setup.microbatches * (sum(times.forward) + sum(times.backward))
        busy: tuple[Number, ...] = (makespan,)
    else:
        held = placement(setup.schedule, stages, chunks)
        stream = largest(cell.stream for kind, cell in cells.items() if kind not in (EMBEDDING, HEAD))
        send = sent_seconds(stream, network, setup.pipe)
        played = pipeline_times(
            setup.schedule, stages, setup.microbatches, chunks, times.forward, times.backward, times.weight, send=send
        )
        makespan, busy = played.makespan, played.busy
    pieces = _Pieces(setup, cells, network, hides)
    priced = []
    for device in range(stages):
        holds = tuple((chunk, contents[chunk]) for chunk in held[device])
        content = merged([one for _, one in holds])
        few = setup.microbatches if stages > 1 else 1
        moments = stage_moments(setup.schedule, stages, chunks, few, device, holds)
        memory, moment = pieces.memory(content, moments)
        priced.append(
            StagePrice(
                content=content,
                forward=sum(cells[kind].forward * count for kind, count in content),
                backward=sum(_backward(cells[kind], setup) * count for kind, count in content),
                busy=busy[device],
                tail=pieces.tail(content),
                moments=moments,
                moment=moment,
                memory=memory,
            )
        )
    flops = sum(cells[kind].flops * count for content in contents for kind, count in content)
    return StepPrice(times, send, makespan, tuple(priced), flops)


class _Pieces:
    """Tails and memory of stages; what several stages have alike is worked out once."""

    def __init__(self, setup: TrainSetup, cells: Cells, network: AnyNetwork, hides: Hides) -> None:
        self.setup, self.cells, self.network, self.hides = setup, cells, network, hides
        self.tails: dict[Content, tuple[SpentPart, ...]] = {}
        self.memories: dict[tuple[Content, tuple[Moment, ...]], tuple[Memory, Number]] = {}

    def tail(self, content: Content) -> tuple[SpentPart, ...]:
        if content not in self.tails:
            self.tails[content] = tuple(stage_tail(content, self.cells, self.setup, self.network, self.hides))
        return self.tails[content]

    def memory(self, content: Content, moments: tuple[Moment, ...]) -> tuple[Memory, Number]:
        key = content, moments
        if key not in self.memories:
            self.memories[key] = stage_memory(content, moments, self.cells, self.setup)
        return self.memories[key]


def accumulate_seconds(cell: LayerCell, setup: TrainSetup) -> Number:
    """Seconds a microbatch, on average, to read back the gradients its own are added to; the first finds none."""
    return accumulating(cell.gradients, setup.microbatches, setup.network.system.chip)


def _backward(cell: LayerCell, setup: TrainSetup) -> Number:
    """Seconds of a backward pass, gradients added up."""
    return cell.backward + accumulate_seconds(cell, setup)


def chunk_seconds(setup: TrainSetup, cells: Cells) -> ChunkSeconds:
    """Seconds of one microbatch in every model chunk."""
    contents = chunk_layers(setup.model, setup.stages, setup.chunks, setup.first, setup.last)
    forward, backward, weight = [], [], []
    splits = find_schedule(setup.schedule).splits_backward
    for content in contents:
        ahead = sum(cells[kind].forward * count for kind, count in content)
        adding = {kind: accumulate_seconds(cells[kind], setup) for kind, _ in content}
        back = sum(
            ((cells[kind].apart if splits else cells[kind].backward) + adding[kind]) * count for kind, count in content
        )
        late = sum((cells[kind].weight + adding[kind]) * count for kind, count in content)
        forward.append(ahead + written_out(content, cells, setup, FORWARD))
        backward.append(back + written_out(content, cells, setup, BACKWARD))
        weight.append(late if splits else 0.0)
    return ChunkSeconds(tuple(forward), tuple(backward), tuple(weight))


def written_out(content: Content, cells: Cells, setup: TrainSetup, phase: str) -> Number:
    """Seconds one microbatch waits for its activations on their way to the host, or back: what work does not hide."""
    if not setup.offload.activations:
        return 0.0
    away = sum(cells[kind].saved * count for kind, count in content) * setup.offload.activations
    window = sum(cells[kind].work(phase) * count for kind, count in content)
    return left_exposed(away / host_rate(setup), window)


def offload_rate(content: Content, cells: Cells, setup: TrainSetup) -> Number:
    """Bytes a second to the host with which the activations travel no longer than the work of the same microbatch."""
    away = sum(cells[kind].saved * count for kind, count in content) * setup.offload.activations
    windows = (sum(cells[kind].work(phase) * count for kind, count in content) for phase in (FORWARD, BACKWARD))
    return largest(ratio(away, window, 0.0) for window in windows)


def host_rate(setup: TrainSetup) -> float:
    """Bytes a second over a device's link to its host.

    Raises:
        HardwareError: the system does not state it.
    """
    link = setup.network.system.chip.host_bandwidth
    if link is None:
        raise HardwareError(
            f"{setup.network.system.name} does not state the bandwidth to the host, so nothing is offloaded"
        )
    return link.used


def stage_tail(content: Content, cells: Cells, setup: TrainSetup, network: AnyNetwork, hides: Hides) -> list[SpentPart]:
    """What a stage does once a step, after its last backward pass: gradients, update, new parameters, first gathers.

    Reductions of gradients hide behind the last microbatch's backward pass but for the last layer's; gathers of updated
    parameters behind the next step's first forward pass but for the first layer's.
    """
    found: list[SpentPart] = []
    for what, part, phase, behind in (
        (GRADIENTS, TimePart.GRADIENTS_ONCE, BACKWARD, HidingWork.LAST_BACKWARD),
        (PARAMETERS, TimePart.PARAMETERS_ONCE, FORWARD, HidingWork.FIRST_FORWARD),
    ):
        by_axis = _once_a_step(content, cells, what)
        moving = sum(by_axis.values())
        window = sum(cells[kind].work(phase) * count for kind, count in content)
        one_layer = moving / sum(count for _, count in content)
        exposed = where(hides[what], maximum(one_layer, left_exposed(moving, window)), moving)
        for axis, seconds in by_axis.items():
            share = ratio(seconds, moving, 0.0) * exposed
            hidden = seconds - share
            found.append(SpentPart(part, share, axis, hidden, () if never(hidden != 0) else (Hider(behind, phase),)))
    first = sum(cells[kind].first for kind, _ in content[:1])
    if not never(first > 0):
        found.append(SpentPart(TimePart.FIRST_AND_LAST, first))
    for other in (ACTIVATIONS, ""):
        for axis, seconds in _once_a_step(content, cells, other).items():
            found.append(SpentPart(TimePart.OPTIMIZER_ONCE, seconds, axis))
    found.append(SpentPart(TimePart.UPDATE, sum(cells[kind].update * count for kind, count in content)))
    if setup.offload.optimizer:
        found.append(_host_update(content, cells, setup))
    return found + _shared_table(content, cells, setup, network)


def _once_a_step(content: Content, cells: Cells, what: str) -> dict[str, Number]:
    """Mesh axes -> seconds of the update's collectives of one kind."""
    found: dict[str, Number] = {}
    for kind, count in content:
        for axis, seconds in cells[kind].moving(what).items():
            found[axis] = found.get(axis, 0.0) + seconds * count
    return {axis: seconds for axis, seconds in found.items() if not never(seconds > 0)}


def _host_update(content: Content, cells: Cells, setup: TrainSetup) -> SpentPart:
    """The optimizer on the host: gradients go there, updated parameters come back, over the link to the host."""
    moved = sum((cells[kind].gradients + cells[kind].parameters) * count for kind, count in content)
    return SpentPart(TimePart.OFFLOADED_OPTIMIZER, moved / host_rate(setup), "host")


def _shared_table(content: Content, cells: Cells, setup: TrainSetup, network: AnyNetwork) -> list[SpentPart]:
    """The gradient of a table that the first and the last stage both hold, exchanged between the two once a step."""
    shared = shared_tables(setup)
    if setup.stages == 1 or not shared or not {EMBEDDING, HEAD} & set(dict(content)):
        return []
    seconds = sent_seconds(cells[HEAD].tied, network, setup.pipe)
    return [SpentPart(TimePart.SHARED_TABLE, seconds, setup.pipe, tensors=tuple(f"d_{name}" for name in shared))]


def shared_tables(setup: TrainSetup) -> tuple[str, ...]:
    """Names of parameters that the head has from another layer of the model: tied tables."""
    return tuple(
        dict.fromkeys(name for layer in setup.model.layers if layer.kind == HEAD for name in layer.program.tied)
    )
