"""The event simulation: when every task begins and ends if the devices keep to their order."""

from __future__ import annotations

import sys
from itertools import accumulate
from typing import TYPE_CHECKING

from msgspec import Struct

from einscale.errors import ScheduleError
from einscale.schedule.tasks import InFlight, Order, Task, in_flight_of
from einscale.schedule.times import check_times, per_chunk, within

if TYPE_CHECKING:
    from collections.abc import Sequence


class Timeline(Struct, frozen=True):
    """One step of a pipeline in time; seconds.

    Args:
        makespan: from the first task of any device to the last: the step, if all devices wait for each other after it.
        span: the longest time from a device's first task to its last: the step, if none waits for another.
        busy: per device, seconds it computes.
        in_flight: per device, the activations it keeps at its peaks.
        send: seconds of one hop from device to device.
        blocking: a device does nothing else while it sends.
        order: the tasks of every device; empty where the times of single tasks are not known.
        starts: per device, when its tasks begin.
        ends: per device, when they end.
        exact: False where the times of many microbatches were estimated from those of fewer.
    """

    makespan: float
    span: float
    busy: tuple[float, ...]
    in_flight: tuple[InFlight, ...]
    send: float = 0
    blocking: bool = False
    order: Order = ()
    starts: tuple[tuple[float, ...], ...] = ()
    ends: tuple[tuple[float, ...], ...] = ()
    exact: bool = True

    @property
    def bubble(self) -> tuple[float, ...]:
        """Seconds each device does not compute, within the makespan."""
        return tuple(self.makespan - busy for busy in self.busy)

    @property
    def bubble_fraction(self) -> tuple[float, ...]:
        """Share of the makespan each device does not compute."""
        return tuple(bubble / self.makespan if self.makespan else 0.0 for bubble in self.bubble)


class CriticalTask(Struct, frozen=True):
    """One task of a critical path: none of them can take longer without making the step longer.

    Args:
        device: that runs it.
        task: what it is.
        start: seconds.
        end: seconds.
        hop: the task waited for one on another device, sent over just before it.
    """

    device: int
    task: Task
    start: float
    end: float
    hop: bool


class Event(Struct, frozen=True, gc=False):
    """A task, or a block of two, in an order in which all it waits for comes earlier.

    Nodes are positions in the orders of all devices, one behind the other.
    """

    device: int
    node: int
    duration: int
    waits: tuple[int, ...]
    block: bool
    sends: bool


class CompiledOrder(Struct, frozen=True):
    """Tasks and what they wait for, free of times, so that one order is priced often.

    Args:
        order: the tasks of every device.
        events: in topological order.
        durations: what kinds of tasks there are: (kind, chunk, chunk of the backward pass in a block, whole), where a
            whole backward pass computes the gradients of weights too.
        first_nodes: per device, the node of its first task.
        in_flight: per device.
    """

    order: Order
    events: tuple[Event, ...]
    durations: tuple[tuple[str, int, int, bool], ...]
    first_nodes: tuple[int, ...]
    in_flight: tuple[InFlight, ...]


def simulate(
    order: Order,
    forward: float | Sequence[float],
    backward: float | Sequence[float],
    weight: float | Sequence[float] = 0,
    *,
    send: float = 0,
    blocking: bool = False,
    overlap: float = 0,
) -> Timeline:
    """The timeline of an order: a task begins when its device is free and what it works on has arrived.

    Ints and fractions stay exact. Times are per chunk of the model: one number for all, or one for each.

    Args:
        order: the tasks of each device; a chunk's output goes to whichever device runs the next.
        forward: seconds of a forward pass.
        backward: seconds of a whole backward pass, the gradients of inputs and of weights.
        weight: of these, the gradients of weights: what a task W takes; what is left is a B that has such a W.
        send: seconds an activation, or its gradient, takes from device to device. The receiver waits for it.
        blocking: the sender waits too; else it computes on.
        overlap: share of the shorter pass that a block of a forward and a backward pass hides: the block takes
            their sum at 0, the longer of the two at 1.

    >>> from einscale.schedule.orders import order
    >>> timeline = simulate(order("1f1b", 4, 8), 1, 2)
    >>> timeline.makespan, timeline.bubble, timeline.starts[3][:4]
    (33, (9, 9, 9, 9), (3, 4, 6, 7))

    Raises:
        ScheduleError: times that cannot be, or an order whose devices wait for each other for ever.
    """
    return evaluate(compile_order(order), forward, backward, weight, send=send, blocking=blocking, overlap=overlap)


def compile_order(order: Order) -> CompiledOrder:
    """Find what every task waits for, and an order in which it comes later than that.

    Raises:
        ScheduleError: no order, or a task comes twice, or waits for something that never happens.
    """
    if not _is_order(order):
        raise ScheduleError(f"{type(order).__name__} is no order of tasks", expected="what `order` returns")
    flat = [task for tasks in order for task in tasks]
    chunks = 1 + max((task.chunk for task in flat), default=0)
    keys = [(task.microbatch * chunks + task.chunk) * 3 + CODES[task.kind] for task in flat]
    nodes = {key: node for node, key in enumerate(keys)}
    if len(nodes) < len(keys):
        twice = next(task for node, task in enumerate(flat) if nodes[keys[node]] != node)
        raise ScheduleError(f"{twice} comes twice")
    first_nodes = tuple(accumulate((len(tasks) for tasks in order[:-1]), initial=0))
    waits, sends = _waits(flat, keys, nodes, [device for device, tasks in enumerate(order) for _ in tasks], chunks)
    durations: dict[tuple[str, int, int, bool], int] = {}
    queues: list[list[Event]] = []
    for device, tasks in enumerate(order):
        queues.append([])
        node = first_nodes[device]
        last = node + len(tasks)
        while node < last:
            task = flat[node]
            if task.overlapped:
                if node + 1 == last or flat[node + 1].kind != "B":
                    raise ScheduleError(f"no backward pass follows {task}, which shares a block with one")
                kind = ("FB", task.chunk, flat[node + 1].chunk, keys[node + 1] + 1 not in nodes)
                needs, sending = waits[node] + waits[node + 1], sends[node] or sends[node + 1]
            else:
                kind = (task.kind, task.chunk, 0, task.kind == "B" and keys[node] + 1 not in nodes)
                needs, sending = waits[node], sends[node]
            index = durations.setdefault(kind, len(durations))
            queues[device].append(Event(device, node, index, needs, task.overlapped, sending))
            node += 2 if task.overlapped else 1
    flights = tuple(in_flight_of(tasks) for tasks in order)
    return CompiledOrder(order, _topological(queues, flat), tuple(durations), first_nodes, flights)


def _is_order(order: object) -> bool:
    """Whether something is a list of tasks for each device."""
    return isinstance(order, tuple | list) and all(
        isinstance(tasks, tuple | list) and all(isinstance(task, Task) for task in tasks) for tasks in order
    )


CODES = {"F": 0, "B": 1, "W": 2}
"""A task's key is three times its pass, of one microbatch through one chunk, and this."""


def _waits(
    flat: Sequence[Task], keys: Sequence[int], nodes: dict[int, int], device_of: Sequence[int], chunks: int
) -> tuple[list[tuple[int, ...]], list[bool]]:
    """Per node: the nodes on other devices it waits for, and whether another device waits for it."""
    waits: list[tuple[int, ...]] = []
    sends = [False] * len(flat)
    for node, key in enumerate(keys):
        code, chunk = key % 3, key // 3 % chunks
        needs: tuple[int, ...] = (key - 1,)  # a backward pass its forward pass, W its backward pass
        if code == 0:
            needs = (key - 3,) if chunk else ()
        elif code == 1 and chunk < chunks - 1:
            needs = (key - 1, key + 3)
        remote: tuple[int, ...] = ()
        for need in needs:
            other = nodes.get(need)
            if other is None:
                raise ScheduleError(f"{flat[node]} waits for {_named(need, chunks)}, which no device runs")
            if device_of[other] != device_of[node]:
                remote += (other,)
                sends[other] = True
            elif other > node:
                raise ScheduleError(f"{flat[node]} comes before {flat[other]} on the same device")
        waits.append(remote)
    return waits, sends


def _named(key: int, chunks: int) -> str:
    return f"{'FBW'[key % 3]} of microbatch {key // 3 // chunks} in chunk {key // 3 % chunks}"


def _topological(queues: Sequence[Sequence[Event]], flat: Sequence[Task]) -> tuple[Event, ...]:
    """The events of all devices, each behind all it waits for."""
    done = [False] * len(flat)
    positions = [0] * len(queues)
    waiting: dict[int, list[int]] = {}
    ready = list(range(len(queues)))
    found: list[Event] = []
    while ready:
        device = ready.pop()
        queue = queues[device]
        position = positions[device]
        while position < len(queue):
            event = queue[position]
            missing = _missing(event.waits, done)
            if missing is not None:
                waiting.setdefault(missing, []).append(device)
                break
            found.append(event)
            for node in (event.node, event.node + 1) if event.block else (event.node,):
                done[node] = True
                if node in waiting:
                    ready += waiting.pop(node)
            position += 1
        positions[device] = position
    for queue, position in zip(queues, positions, strict=True):
        if position < len(queue):
            raise ScheduleError(f"the devices wait for each other: {flat[queue[position].node]} never begins")
    return tuple(found)


def _missing(needs: tuple[int, ...], done: Sequence[bool]) -> int | None:
    for need in needs:
        if not done[need]:
            return need
    return None


def evaluate(
    compiled: CompiledOrder,
    forward: float | Sequence[float],
    backward: float | Sequence[float],
    weight: float | Sequence[float] = 0,
    *,
    send: float = 0,
    blocking: bool = False,
    overlap: float = 0,
) -> Timeline:
    """Price a compiled order; arguments and errors as of `simulate`."""
    seconds = _durations(compiled, forward, backward, weight, overlap)
    if not within(send, 0, sys.float_info.max):
        raise ScheduleError(f"a hop cannot take {send} seconds")
    total = sum(len(tasks) for tasks in compiled.order)
    starts: list[float] = [0] * total
    ends: list[float] = [0] * total
    free: list[float] = [0] * len(compiled.order)
    busy: list[float] = [0] * len(compiled.order)
    held_up: float = send if blocking else 0
    for event in compiled.events:
        device, node = event.device, event.node
        start = free[device]
        for need in event.waits:
            arrival = ends[need] + send
            start = max(start, arrival)
        duration = seconds[event.duration]
        end = start + duration
        starts[node], ends[node] = start, end
        if event.block:
            starts[node + 1], ends[node + 1] = start, end
        busy[device] += duration
        free[device] = end + held_up if held_up and event.sends else end
    bounds = list(zip(compiled.first_nodes, (*compiled.first_nodes[1:], total), strict=True))
    device_ends = tuple(tuple(ends[first:last]) for first, last in bounds)
    device_starts = tuple(tuple(starts[first:last]) for first, last in bounds)
    return Timeline(
        makespan=max((times[-1] for times in device_ends if times), default=0),
        span=max((end[-1] - start[0] for start, end in zip(device_starts, device_ends, strict=True) if end), default=0),
        busy=tuple(busy),
        in_flight=compiled.in_flight,
        send=send,
        blocking=blocking,
        order=compiled.order,
        starts=device_starts,
        ends=device_ends,
    )


def _durations(
    compiled: CompiledOrder,
    forward: float | Sequence[float],
    backward: float | Sequence[float],
    weight: float | Sequence[float],
    overlap: float,
) -> list[float]:
    """Seconds of every kind of task."""
    chunks = 1 + max((max(key[1], key[2]) for key in compiled.durations), default=0)
    forwards = per_chunk(forward, chunks, "forward")
    backwards = per_chunk(backward, chunks, "backward")
    weights = per_chunk(weight, chunks, "weight")
    check_times(forwards, backwards, weights, overlap)
    seconds: list[float] = []
    for kind, chunk, other, whole in compiled.durations:
        back = other if kind == "FB" else chunk
        inputs = backwards[back] if whole else backwards[back] - weights[back]
        if kind == "F":
            seconds.append(forwards[chunk])
        elif kind == "W":
            seconds.append(weights[chunk])
        elif kind == "B":
            seconds.append(inputs)
        else:
            seconds.append(forwards[chunk] + inputs - overlap * min(forwards[chunk], inputs))
    return seconds


def critical_path(timeline: Timeline) -> tuple[CriticalTask, ...]:
    """The chain of tasks, first to last, that the makespan is made of.

    >>> from einscale.schedule.orders import order
    >>> path = critical_path(simulate(order("1f1b", 2, 2), 1, 2))
    >>> " ".join(f"{step.task.kind}{step.task.microbatch}@{step.device}" for step in path)
    'F0@0 F0@1 B0@1 F1@1 B1@1 B1@0'

    Raises:
        ScheduleError: the timeline does not know its tasks.
    """
    if not timeline.order:
        raise ScheduleError("this timeline was extended from fewer microbatches and does not know its tasks")
    compiled = compile_order(timeline.order)
    flat = [(device, position) for device, tasks in enumerate(timeline.order) for position in range(len(tasks))]
    events = {event.node: event for event in compiled.events}
    starts = [time for times in timeline.starts for time in times]
    ends = [time for times in timeline.ends for time in times]
    node = max(range(len(flat)), key=lambda index: ends[index])
    path = []
    while True:
        event = events.get(node) or events[node - 1]  # the second task of a block begins with the first
        device, position = flat[event.node]
        remote = max(event.waits, key=lambda need: ends[need], default=None)
        arrival = ends[remote] + timeline.send if remote is not None else 0
        before = event.node - 1 if position else None
        free: float = 0
        if before is not None:
            sender = events.get(before) or events[before - 1]
            free = ends[before] + (timeline.send if timeline.blocking and sender.sends else 0)
        hop = remote is not None and arrival >= free
        path.append(CriticalTask(device, timeline.order[device][flat[node][1]], starts[node], ends[node], hop))
        following = remote if hop else before
        if following is None:
            return tuple(reversed(path))
        node = following
