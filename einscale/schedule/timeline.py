"""The event simulation: when every task begins and ends if the devices keep to their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from einscale.errors import ScheduleError
from einscale.schedule.compiled import CompiledOrder, compile_order, link
from einscale.schedule.machine import Machine, Scalars
from einscale.schedule.tasks import InFlight, Order, Task
from einscale.schedule.times import busy_seconds, durations

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
    """Price a compiled order, its block played once; arguments and errors as of `simulate`."""
    seconds = durations(compiled, Scalars(), forward, backward, weight, send=send, overlap=overlap)
    events, begun = compiled.events, list[float]()
    machine = Machine(compiled, Scalars(), seconds, send, blocking)
    machine.play(events, begun.append)
    starts: list[list[float]] = [[] for _ in compiled.order]
    ends: list[list[float]] = [[] for _ in compiled.order]
    pairs = [kind == "FB" for kind, *_ in compiled.durations]
    for (device, duration, _, _), start in zip(events, begun, strict=True):
        end = start + seconds[duration]
        starts[device].append(start)
        ends[device].append(end)
        if pairs[duration]:  # a block is two tasks
            starts[device].append(start)
            ends[device].append(end)
    return Timeline(
        makespan=max((times[-1] for times in ends if times), default=0),
        span=max((last[-1] - first[0] for first, last in zip(starts, ends, strict=True) if last), default=0),
        busy=tuple(busy_seconds(compiled.runs(1), seconds)),
        in_flight=compiled.in_flight,
        send=send,
        blocking=blocking,
        order=compiled.order,
        starts=tuple(map(tuple, starts)),
        ends=tuple(map(tuple, ends)),
    )


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
    links = link(timeline.order)
    flat = [(device, position) for device, tasks in enumerate(timeline.order) for position in range(len(tasks))]
    starts = [time for times in timeline.starts for time in times]
    ends = [time for times in timeline.ends for time in times]
    sends = {need for needs in links.waits for need in needs}

    def together(node: int) -> tuple[int, ...]:
        """The tasks of the block that a task is of, or only the task."""
        if links.flat[node].overlapped:
            return (node, node + 1)
        return (node - 1, node) if flat[node][1] and links.flat[node - 1].overlapped else (node,)

    node = max(range(len(flat)), key=lambda index: ends[index])
    path = []
    while True:
        block = together(node)
        remote = max((need for one in block for need in links.waits[one]), key=lambda need: ends[need], default=None)
        arrival = ends[remote] + timeline.send if remote is not None else 0
        before = block[0] - 1 if flat[block[0]][1] else None
        free: float = 0
        if before is not None:
            held_up = timeline.blocking and any(one in sends for one in together(before))
            free = ends[before] + (timeline.send if held_up else 0)
        hop = remote is not None and arrival >= free
        path.append(CriticalTask(flat[node][0], links.flat[node], starts[node], ends[node], hop))
        following = remote if hop else before
        if following is None:
            return tuple(reversed(path))
        node = following
