"""One optimizer step on a cluster: stages, schedule, what overlaps, what is left of the time, and what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from einscale.collectives import PERMUTE
from einscale.cost import PricedCollective
from einscale.errors import HardwareError
from einscale.hiders import Hider, HidingWork
from einscale.models import LayerKind, model_flops
from einscale.overlap import ACTIVATIONS, GRADIENTS, PARAMETERS, left_exposed, overlap_kind, what_moves
from einscale.planner.planned import BACKWARD, FORWARD
from einscale.schedule import Task, Timeline, find_schedule, order, placement, run_schedule
from einscale.schedule.orders import enough_microbatches
from einscale.stages import EMBEDDING, HEAD
from einscale.topology import coefficients
from einscale.train.layers import layer_cost
from einscale.train.memory import Content, alive_tensors, stage_memory, stage_peak
from einscale.train.parts import TimePart
from einscale.train.stages import chunk_layers, merged, sent_between
from einscale.train.values import AtWork, LayerCost, StageReport, StepPart, TrainReport, TrainSetup

WARM_UP = 6
"""Microbatches a stage after which no device holds more than it did before."""


class Pipeline(Struct, frozen=True):
    """What is where, and when.

    Args:
        contents: the layers of every chunk.
        held: per device, its chunks.
        timeline: one step in time.
        sent: the transfer between stages, None without a pipeline.
    """

    contents: tuple[Content, ...]
    held: tuple[tuple[int, ...], ...]
    timeline: Timeline
    sent: PricedCollective | None

    def content(self, device: int) -> Content:
        """Layers that a device holds, of all its chunks."""
        return merged([self.contents[chunk] for chunk in self.held[device]])


def train_report(setup: TrainSetup, notes: tuple[str, ...] = ()) -> TrainReport:
    """Plan and price one optimizer step.

    Raises:
        StrategyError: the strategy does not fit the mesh or the model.
        ScheduleError: the schedule does not fit the stages, the layers or the microbatches.
        HardwareError: the chip has no rate for the compute type.
    """
    layers = {layer.kind: layer_cost(layer, setup) for layer in trained_layers(setup)}
    pipeline = _pipeline(setup, layers)
    stages = tuple(_stage(device, pipeline, layers, setup) for device in range(setup.stages))
    tails = [_tail(pipeline.content(device), layers, setup) for device in range(setup.stages)]
    slowest = max(sum(part.seconds for part in tail) for tail in tails)
    step_seconds = pipeline.timeline.makespan + slowest
    busiest = max(range(setup.stages), key=lambda device: stages[device].busy_seconds)
    counted = model_flops(setup.model, setup.sequence, convention=setup.attention)
    return TrainReport(
        setup=setup,
        layers=tuple(layers.values()),
        stages=stages,
        spent=_spent(busiest, pipeline, layers, setup, tails[busiest], slowest),
        step_seconds=step_seconds,
        sent=pipeline.sent,
        model_flops=counted.total * setup.batch,
        hardware_flops=_hardware_flops(pipeline, layers, setup),
        notes=notes,
        passes_seconds=pipeline.timeline.makespan,
    )


def trained_layers(setup: TrainSetup) -> tuple[LayerKind, ...]:
    """Layers of the model and those that only training runs.

    A head on another stage than the embedding has a table of its own, even if the model ties the two.
    """
    layers = (*setup.model.layers, *setup.model.ahead)
    if setup.stages == 1:
        return layers
    return tuple(
        replace(layer, program=replace(layer.program, tied=())) if layer.kind == HEAD else layer for layer in layers
    )


def _pipeline(setup: TrainSetup, layers: Mapping[str, LayerCost]) -> Pipeline:
    """Chunks on devices, and the schedule run with their times."""
    contents = chunk_layers(setup.model, setup.stages, setup.chunks, setup.first, setup.last)
    forward, backward, weight = chunk_seconds(setup, layers)
    if setup.stages == 1:
        makespan = setup.microbatches * (sum(forward) + sum(backward))
        held = (tuple(range(len(contents))),)
        return Pipeline(contents, held, Timeline(makespan, makespan, (makespan,), ()), None)
    planned = next(layer.planned for layer in layers.values() if layer.kind not in (EMBEDDING, HEAD))
    sent = sent_between(planned, setup.timed_by, setup.pipe)
    timeline = run_schedule(
        setup.schedule,
        setup.stages,
        setup.microbatches,
        setup.chunks,
        forward,
        backward,
        weight,
        send=sent.seconds,
    )
    return Pipeline(contents, placement(setup.schedule, setup.stages, setup.chunks), timeline, sent)


def chunk_seconds(setup: TrainSetup, layers: Mapping[str, LayerCost]) -> tuple[list[float], list[float], list[float]]:
    """Seconds of one microbatch in every model chunk: forward, the whole backward pass, the gradients of weights in it.

    The last are 0 where the schedule does not part them from the others.
    """
    contents = chunk_layers(setup.model, setup.stages, setup.chunks, setup.first, setup.last)

    def seconds(what: str) -> list[float]:
        return [sum(getattr(layers[kind], what) * count for kind, count in content) for content in contents]

    forward, backward, weight = (seconds(f"{what}_seconds") for what in ("forward", "backward", "weight"))
    for chunk, content in enumerate(contents):
        forward[chunk] += _written_out(content, layers, setup, FORWARD)
        backward[chunk] += _written_out(content, layers, setup, BACKWARD)
    return forward, backward, weight if find_schedule(setup.schedule).splits_backward else [0.0] * len(contents)


def _written_out(content: Content, layers: Mapping[str, LayerCost], setup: TrainSetup, phase: str) -> float:
    """Seconds one microbatch waits for its activations on their way to the host, or back: what work does not hide."""
    if not setup.offload.activations:
        return 0.0
    away = sum(layers[kind].saved_bytes * count for kind, count in content) * setup.offload.activations
    window = sum(layers[kind].totals(phase).compute_seconds * count for kind, count in content)
    return left_exposed(away / host_rate(setup), window)


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


def stage_tasks(device: int, setup: TrainSetup) -> Sequence[Task]:
    """Tasks of one device, of as many microbatches as show the most it ever holds."""
    if setup.stages == 1:
        return order("1f1b", 1, min(setup.microbatches, 2), 1)[0]
    few = setup.microbatches
    if setup.schedule != "gpipe":
        few = enough_microbatches(setup.schedule, setup.stages, setup.microbatches, WARM_UP)
    return order(setup.schedule, setup.stages, few, setup.chunks)[device]


def _stage(device: int, pipeline: Pipeline, layers: Mapping[str, LayerCost], setup: TrainSetup) -> StageReport:
    """One stage: its times, and its memory at the moment it holds most."""
    content = pipeline.content(device)
    here = {chunk: pipeline.contents[chunk] for chunk in pipeline.held[device]}
    moment = stage_peak(stage_tasks(device, setup), here, layers)
    at_work = layers[moment.kind].peak if moment.kind else None
    return StageReport(
        stage=device,
        layers=content,
        in_flight=moment.chunks / len(here),
        forward_seconds=sum(layers[kind].forward_seconds * count for kind, count in content),
        backward_seconds=sum(layers[kind].backward_seconds * count for kind, count in content),
        busy_seconds=pipeline.timeline.busy[device],
        memory=stage_memory(content, moment, layers, setup),
        moment=AtWork(at_work.phase, at_work.statement, moment.kind) if at_work else None,
        alive=alive_tensors(content, moment, layers, setup),
    )


def _hardware_flops(pipeline: Pipeline, layers: Mapping[str, LayerCost], setup: TrainSetup) -> int:
    """FLOPs that all devices spend in a step, recomputation, padding and repeated work included."""
    one_stage = sum(layers[kind].totals().flops * count for content in pipeline.contents for kind, count in content)
    return one_stage * setup.microbatches * (setup.mesh.devices // setup.stages)


def _tail(content: Content, layers: Mapping[str, LayerCost], setup: TrainSetup) -> list[StepPart]:
    """What a stage does once a step, after its last backward pass: gradients, update, new parameters, first gathers.

    Reductions of gradients hide behind the last microbatch's backward pass but for the last layer's; gathers of updated
    parameters behind the next step's first forward pass but for the first layer's.
    """
    overlap = setup.strategy.policy.overlap
    found: list[StepPart] = []
    count = sum(number for _, number in content)
    for what, part, phase, behind in (
        (GRADIENTS, TimePart.GRADIENTS_ONCE, BACKWARD, HidingWork.LAST_BACKWARD),
        (PARAMETERS, TimePart.PARAMETERS_ONCE, FORWARD, HidingWork.FIRST_FORWARD),
    ):
        window = sum(layers[kind].totals(phase).compute_seconds * n for kind, n in content)
        by_axis = _once_a_step(content, layers, what)
        moving = sum(by_axis.values())
        exposed = moving if what not in overlap else max(moving / count, left_exposed(moving, window))
        for axis, seconds in by_axis.items():
            share = seconds / moving * exposed
            hidden = seconds - share
            found.append(StepPart(part, share, axis, hidden, (Hider(behind, phase),) if hidden else ()))
    first = sum(
        window.first
        for kind, _ in content[:1]
        for window in layers[kind].windows
        if window.kind in (PARAMETERS, GRADIENTS)
    )
    if first:
        found.append(StepPart(TimePart.FIRST_AND_LAST, first))
    local = sum(row.local.seconds * number for kind, number in content for row in layers[kind].update)
    for what in (ACTIVATIONS, ""):
        for axis, seconds in _once_a_step(content, layers, what).items():
            found.append(StepPart(TimePart.OPTIMIZER_ONCE, seconds, axis))
    found.append(StepPart(TimePart.UPDATE, local))
    if setup.offload.optimizer:
        found.append(_host_update(content, layers, setup))
    if EMBEDDING in dict(content) or HEAD in dict(content):
        found += _shared_table(layers, setup)
    return found


def _shared_table(layers: Mapping[str, LayerCost], setup: TrainSetup) -> list[StepPart]:
    """The gradient of a table that the first and the last stage both hold, exchanged between the two once a step."""
    tied = {name for layer in setup.model.layers for name in layer.program.tied}
    held = (
        [one for one in layers[HEAD].gradients if one.tensor.name.removeprefix("d_") in tied] if HEAD in layers else []
    )
    if setup.stages == 1 or not held:
        return []
    alpha, beta = coefficients(PERMUTE, (setup.pipe,), setup.network)
    seconds = float(alpha + beta * sum(one.bytes for one in held))
    names = tuple(one.tensor.name for one in held)
    return [StepPart(TimePart.SHARED_TABLE, seconds, setup.pipe, tensors=names)]


def _once_a_step(content: Content, layers: Mapping[str, LayerCost], what: str) -> dict[str, float]:
    """Mesh axes -> seconds of the update's collectives of one kind."""
    found: dict[str, float] = {}
    for kind, number in content:
        for row in layers[kind].update:
            for priced in row.collectives:
                if overlap_kind(layers[kind].updated, priced) == what and priced.seconds:
                    axis = "/".join(priced.step.axes)
                    found[axis] = found.get(axis, 0.0) + priced.seconds * number
    return found


def _host_update(content: Content, layers: Mapping[str, LayerCost], setup: TrainSetup) -> StepPart:
    """The optimizer on the host: gradients go there, updated parameters come back, over the link to the host."""
    moved = sum(
        one.bytes * number
        for kind, number in content
        for which in ("gradients", "parameters")
        for one in getattr(layers[kind], which)
    )
    seconds = moved / host_rate(setup)
    return StepPart(TimePart.OFFLOADED_OPTIMIZER, seconds, "host")


def _spent(
    device: int,
    pipeline: Pipeline,
    layers: Mapping[str, LayerCost],
    setup: TrainSetup,
    tail: Iterable[StepPart],
    slowest: float,
) -> tuple[StepPart, ...]:
    """Parts of the step's time on one device; they add up to the step."""
    content, m = pipeline.content(device), setup.microbatches
    copies = find_schedule(setup.schedule).copies if setup.stages > 1 else 1
    each = m / copies
    parts = [
        StepPart(TimePart.FORWARD, each * _local(content, layers, "forward")),
        StepPart(TimePart.BACKWARD, each * _local(content, layers, "backward")),
    ]
    adding = each * sum(layers[kind].accumulate_seconds * number for kind, number in content)
    if adding:
        parts.append(StepPart(TimePart.ACCUMULATE, adding))
    away = each * sum(_written_out(content, layers, setup, phase) for phase in (FORWARD, BACKWARD))
    if setup.offload.activations:
        need = _offload_rate(content, layers, setup)
        parts.append(StepPart(TimePart.OFFLOADED_ACTIVATIONS, away, "host", rate=need))
    again = each * _local(content, layers, "recompute")
    if again:
        parts.append(StepPart(TimePart.RECOMPUTE, again))
    exposed: dict[tuple[TimePart, str], list[float]] = {}
    behind: dict[tuple[TimePart, str], dict[Hider, None]] = {}
    for kind, number in content:
        for row in layers[kind].rows:
            for priced in row.collectives:
                if priced.seconds:
                    what = TimePart(what_moves(layers[kind].planned, priced))
                    key = (what, "/".join(priced.step.axes))
                    sums = exposed.setdefault(key, [0.0, 0.0])
                    sums[0] += priced.exposed_seconds * number * each
                    sums[1] += (priced.seconds - priced.exposed_seconds) * number * each
                    if priced.hidden_by is not None:
                        many = what is TimePart.ACTIVATIONS  # each behind an einsum of its own
                        by = Hider(HidingWork.OWN_EINSUM) if many else priced.hidden_by
                        behind.setdefault(key, {})[by] = None
    for key, (open_, hidden) in exposed.items():
        parts.append(StepPart(key[0], open_, key[1], hidden, tuple(behind.get(key, ()))))
    busy = sum(part.seconds for part in parts)
    if setup.stages > 1:
        idle = max(0.0, pipeline.timeline.makespan - busy)
        parts.append(StepPart(TimePart.BUBBLE, idle, setup.pipe))
    own = tuple(tail)
    waited = slowest - sum(part.seconds for part in own)
    if waited > 0:
        parts.append(StepPart(TimePart.WAIT, waited, setup.pipe))
    return (*parts, *own)


def _offload_rate(content: Content, layers: Mapping[str, LayerCost], setup: TrainSetup) -> float:
    """Bytes a second to the host with which the activations travel no longer than the work of the same microbatch."""
    away = sum(layers[kind].saved_bytes * count for kind, count in content) * setup.offload.activations
    rates = []
    for phase in (FORWARD, BACKWARD):
        window = sum(layers[kind].totals(phase).compute_seconds * count for kind, count in content)
        rates.append(away / window if window else 0.0)
    return max(rates)


def _local(content: Content, layers: Mapping[str, LayerCost], phase: str) -> float:
    """Seconds of local work of one microbatch: `forward`, `backward` (recomputation left out) or `recompute`."""
    return sum(
        float(row.local.seconds) * number
        for kind, number in content
        for row in layers[kind].rows
        if row.planned.statement.phase == phase
    )
