"""Orders compiled: tasks and what they wait for as small ints, free of times and, past the warm-up, of microbatches.

A device's tasks, one after the other, and channels between devices are all that event times need: a task begins when
its device is free and the values it pops from its channels have arrived; when it ends it pushes its own. A channel is a
queue from one device to another, whose values are wanted in the order in which they are made.

Past its warm-up an order repeats itself, so that one compiled order serves every number of microbatches: `prologue`,
`block` as often as there are periods, `epilogue`.
"""

from __future__ import annotations

from collections import Counter, deque
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from msgspec import Struct

from einscale.errors import ScheduleError
from einscale.schedule.orders import KEPT, enough_microbatches, order
from einscale.schedule.tasks import B, F, InFlight, Order, Task, W, in_flight_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from einscale.numeric import Number

Event = tuple[int, int, tuple[int, ...], tuple[int, ...]]
"""A task, or a block of two: its device, kind of task, channels it pops from, channels it pushes to."""

WARM_UP = 4
"""Microbatches a stage of the order whose middle is looked at for what repeats."""


class CompiledOrder(Struct, frozen=True):
    """Tasks and what they wait for, free of times, so that one order is priced often.

    Args:
        order: the tasks of every device, the block played once.
        durations: what kinds of tasks there are: (kind, chunk, chunk of the backward pass in a block, whole), where a
            whole backward pass computes the gradients of weights too.
        channels: how many queues there are between devices.
        prologue: events before the block, each behind all it waits for; all of them where nothing repeats.
        block: events of one period.
        epilogue: events after the last block.
        work: of prologue, block and epilogue, per device, (kind of task, how often it runs).
        every: microbatches of a block, 0 where there is none.
        fewest: microbatches of `order`.
        in_flight: per device, the activations it keeps at its peaks in `order`.
    """

    order: Order
    durations: tuple[tuple[str, int, int, bool], ...]
    channels: int
    prologue: tuple[Event, ...]
    block: tuple[Event, ...] = ()
    epilogue: tuple[Event, ...] = ()
    work: tuple[tuple[tuple[tuple[int, int], ...], ...], ...] = ()
    every: int = 0
    fewest: int = 0
    in_flight: tuple[InFlight, ...] = ()

    @property
    def events(self) -> tuple[Event, ...]:
        """Every event of `order`, each behind all it waits for."""
        return self.prologue + self.block + self.epilogue

    def runs(self, blocks: Number) -> tuple[dict[int, Number], ...]:
        """Per device, kind of task -> how often it runs where the block is played some times."""
        counts: list[dict[int, Number]] = [{} for _ in self.order]
        for part, times in zip(self.work, (1, blocks, 1), strict=True):
            for found, kinds in zip(counts, part, strict=True):
                for kind, count in kinds:
                    found[kind] = found.get(kind, 0) + count * times
        return tuple(counts)


class CompiledStep(Struct, frozen=True, gc=False):
    """A task, or a block of two, before its channels are known; nodes are numbered device by device, task by task."""

    node: int
    duration: int
    needs: tuple[int, ...]
    block: bool
    microbatches: tuple[int, ...]


class Links(Struct, frozen=True):
    """What the tasks of an order wait for.

    Args:
        flat: the tasks of all devices, one behind the other; a task's place in it is its node.
        devices: the device of each node.
        waits: per node, the nodes on other devices that it waits for.
        whole: per node, whether it is a backward pass that computes the gradients of weights too.
        chunks: of the model.
    """

    flat: list[Task]
    devices: list[int]
    waits: list[tuple[int, ...]]
    whole: list[bool]
    chunks: int


CODES = {F: 0, B: 1, W: 2}
"""A task's key is three times its pass, of one microbatch through one chunk, and this."""


def compile_order(order: Order) -> CompiledOrder:
    """Find what every task waits for, and an order in which it comes later than that; nothing in it is repeated.

    Raises:
        ScheduleError: no order, or a task comes twice, or waits for something that never happens.
    """
    links = link(order)
    durations, queues = _steps(order, links)
    stops = [len(queue) for queue in queues]
    steps = _Arranger(queues, links).until(stops)
    reads, writes, channels = _channels(links)
    events = _events(steps, links.devices, reads, writes)
    flights = tuple(in_flight_of(tasks) for tasks in order)
    return CompiledOrder(
        order, durations, channels, events, work=_work(len(order), (events, (), ())), in_flight=flights
    )


def compile_schedule(
    name: str, stages: int, microbatches: int, chunks: int, *, shared: bool = False
) -> tuple[CompiledOrder, int]:
    """The compiled order of a schedule and how often its block is played; kept for the next who asks.

    Past `WARM_UP` microbatches a stage it is the same compiled order for any number of them.

    Args:
        name: of the schedule.
        stages: devices along the pipeline.
        microbatches: of one step.
        chunks: parts of the model a stage holds, copies not counted.
        shared: take that order for fewer microbatches too, if it has as few: it is larger, but may be there already.

    >>> few, many = compile_schedule("1f1b", 4, 100, 1), compile_schedule("1f1b", 4, 100_000, 1)
    >>> few[0] is many[0], len(few[0].block), few[1], many[1]
    (True, 8, 97, 99997)

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, or its tasks are too many to write down.
    """
    few = enough_microbatches(name, stages, microbatches + (WARM_UP * stages if shared else 0), WARM_UP)
    if few < microbatches or shared:
        compiled = (_repeating_kept if few * stages * chunks <= KEPT else _repeating)(name, stages, few, chunks)
        if compiled.block and compiled.fewest <= microbatches:
            return compiled, 1 + (microbatches - compiled.fewest) // compiled.every
    build = _plain_kept if microbatches * stages * chunks <= KEPT else _plain
    return build(name, stages, microbatches, chunks), 0


def _plain(name: str, stages: int, microbatches: int, chunks: int) -> CompiledOrder:
    return compile_order(order(name, stages, microbatches, chunks))


_plain_kept = lru_cache(maxsize=32)(_plain)


def _repeating(name: str, stages: int, microbatches: int, chunks: int) -> CompiledOrder:
    """The compiled order with its middle marked as what repeats; without a block if there is no such middle."""
    from einscale.schedule.catalogue import find_schedule

    schedule = find_schedule(name)
    devices = order(name, stages, microbatches, chunks)
    links = link(devices)
    durations, queues = _steps(devices, links)
    every = schedule.period(stages)
    ranges = [_repeats(queue, every // schedule.copies) for queue in queues]
    if None in ranges:
        return compile_order(devices)
    cuts = _closed(queues, [max(1, found[0]) for found in ranges if found], links)  # every device begins before it
    ends = [cut + found[1] for cut, found in zip(cuts, ranges, strict=True) if found]
    lasts = [min(found[2], len(queue) - 1) for queue, found in zip(queues, ranges, strict=True) if found]
    if any(end > last for end, last in zip(ends, lasts, strict=True)):  # every device ends after it
        return compile_order(devices)
    lags = [found[1] for found in ranges if found]
    spare = min((last - end) // lag for last, end, lag in zip(lasts, ends, lags, strict=True))
    arranger = _Arranger(queues, links)
    parts = [arranger.until(cuts), arranger.until(ends)]
    arranger.skip([end + spare * lag for end, lag in zip(ends, lags, strict=True)])
    parts.append(arranger.until([len(queue) for queue in queues]))
    reads, writes, channels = _channels(links)
    prologue, block, epilogue = (_events(steps, links.devices, reads, writes) for steps in parts)
    if Counter(one for event in block for one in event[2]) != Counter(one for event in block for one in event[3]):
        return compile_order(devices)
    work = _work(stages, (prologue, block, epilogue))
    fewest = microbatches - spare * every
    shorter = order(name, stages, fewest, chunks)
    flights = tuple(in_flight_of(tasks) for tasks in shorter)
    return CompiledOrder(shorter, durations, channels, prologue, block, epilogue, work, every, fewest, flights)


_repeating_kept = lru_cache(maxsize=128)(_repeating)


def link(order: Order) -> Links:
    """What every task of an order waits for on other devices.

    Raises:
        ScheduleError: no order, or a task comes twice, or waits for what never happens or comes later on its device.
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
    devices = [device for device, tasks in enumerate(order) for _ in tasks]
    waits: list[tuple[int, ...]] = []
    whole = [False] * len(flat)
    for node, (task, key, device) in enumerate(zip(flat, keys, devices, strict=True)):
        needs: tuple[int, ...] = (key - 1,)  # a backward pass its forward pass, W its backward pass
        if task.kind == F:
            needs = (key - 3,) if task.chunk else ()
        elif task.kind == B:
            whole[node] = key + 1 not in nodes
            if task.chunk < chunks - 1:
                needs = (key - 1, key + 3)
        remote: tuple[int, ...] = ()
        for need in needs:
            other = nodes.get(need)
            if other is None:
                raise ScheduleError(f"{task} waits for {_named(need, chunks)}, which no device runs")
            if devices[other] != device:
                remote += (other,)
            elif other > node:
                raise ScheduleError(f"{task} comes before {flat[other]} on the same device")
        waits.append(remote)
    return Links(flat, devices, waits, whole, chunks)


def _is_order(order: object) -> bool:
    """Whether something is a list of tasks for each device."""
    return isinstance(order, tuple | list) and all(
        isinstance(tasks, tuple | list) and all(isinstance(task, Task) for task in tasks) for tasks in order
    )


def _named(key: int, chunks: int) -> str:
    return f"{'FBW'[key % 3]} of microbatch {key // 3 // chunks} in chunk {key // 3 % chunks}"


def first_nodes(order: Order) -> tuple[int, ...]:
    """Per device, the node of its first task."""
    return tuple(accumulate((len(tasks) for tasks in order[:-1]), initial=0))


def _steps(order: Order, links: Links) -> tuple[tuple[tuple[str, int, int, bool], ...], list[list[CompiledStep]]]:
    """The kinds of tasks there are, and the steps of each device."""
    durations: dict[tuple[str, int, int, bool], int] = {}
    queues: list[list[CompiledStep]] = []
    flat, waits, whole = links.flat, links.waits, links.whole
    for first, tasks in zip(first_nodes(order), order, strict=True):
        queue: list[CompiledStep] = []
        node, last = first, first + len(tasks)
        while node < last:
            task, second = flat[node], node + 1
            numbers: tuple[int, ...] = (task.microbatch,)
            if task.overlapped:
                if second == last or flat[second].kind != B:
                    raise ScheduleError(f"no backward pass follows {task}, which shares a block with one")
                kind = ("FB", task.chunk, flat[second].chunk, whole[second])
                needs, numbers = waits[node] + waits[second], (task.microbatch, flat[second].microbatch)
            else:
                kind = (task.kind, task.chunk, 0, whole[node])
                needs = waits[node]
            queue.append(
                CompiledStep(node, durations.setdefault(kind, len(durations)), needs, task.overlapped, numbers)
            )
            node += len(numbers)
        queues.append(queue)
    return tuple(durations), queues


class _Arranger:
    """Puts the steps of all devices behind one another, each behind all it waits for, the devices in turn."""

    def __init__(self, queues: Sequence[Sequence[CompiledStep]], links: Links) -> None:
        self.queues = queues
        self.flat = links.flat
        self.done = bytearray(len(links.flat))
        self.positions = [0] * len(queues)

    def until(self, stops: Sequence[int]) -> list[CompiledStep]:
        """The steps of each device up to a position, those arranged before left out.

        Raises:
            ScheduleError: the devices wait for each other.
        """
        done, positions, queues = self.done, self.positions, self.queues
        waiting: dict[int, list[int]] = {}
        ready = deque(range(len(queues)))
        found: list[CompiledStep] = []
        while ready:
            device = ready.popleft()
            position = positions[device]
            if position == stops[device]:
                continue
            step = queues[device][position]
            missing = _missing(step.needs, done)
            if missing is not None:
                waiting.setdefault(missing, []).append(device)
                continue
            found.append(step)
            for node in (step.node, step.node + 1) if step.block else (step.node,):
                done[node] = True
                if node in waiting:
                    ready += waiting.pop(node)
            positions[device] = position + 1
            ready.append(device)
        for queue, position, stop in zip(queues, positions, stops, strict=True):
            if position < stop:
                raise ScheduleError(f"the devices wait for each other: {self.flat[queue[position].node]} never begins")
        return found

    def skip(self, stops: Sequence[int]) -> None:
        """Leave out the steps of each device up to a position, as if they had been arranged."""
        for device, stop in enumerate(stops):
            for step in self.queues[device][self.positions[device] : stop]:
                self.done[step.node] = self.done[step.node + step.block] = True
            self.positions[device] = stop


def _missing(needs: tuple[int, ...], done: bytearray) -> int | None:
    for need in needs:
        if not done[need]:
            return need
    return None


def _channels(links: Links) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]], int]:
    """Per node the channels it pops from and pushes to, and how many there are.

    All values of one kind that one device makes of a chunk for another share a channel, as long as the other wants
    them in the order they are made; a value wanted out of turn has a channel of its own.
    """
    flat, devices = links.flat, links.devices
    numbers: dict[tuple[int, int, int, str], int] = {}
    latest: list[int] = []
    alone: list[tuple[int, ...]] = []
    reads: list[tuple[int, ...]] = [()] * len(flat)
    writes: list[tuple[int, ...]] = [()] * len(flat)
    for node, needs in enumerate(links.waits):
        for need in needs:
            made = flat[need]
            channel = numbers.setdefault((devices[need], devices[node], made.chunk, made.kind), len(latest))
            if channel < len(latest) and need <= latest[channel]:
                channel = len(latest)
            if channel == len(latest):
                latest.append(need)
                alone.append((channel,))
            latest[channel] = need
            reads[node] = reads[node] + alone[channel] if reads[node] else alone[channel]
            writes[need] = writes[need] + alone[channel] if writes[need] else alone[channel]
    return reads, writes, len(latest)


def _events(
    steps: Sequence[CompiledStep],
    devices: Sequence[int],
    reads: Sequence[tuple[int, ...]],
    writes: Sequence[tuple[int, ...]],
) -> tuple[Event, ...]:
    events: list[Event] = []
    for step in steps:
        node = step.node
        if step.block:
            pops, pushes = reads[node] + reads[node + 1], writes[node] + writes[node + 1]
        else:
            pops, pushes = reads[node], writes[node]
        events.append((devices[node], step.duration, pops, pushes))
    return tuple(events)


def _work(stages: int, parts: tuple[tuple[Event, ...], ...]) -> tuple[tuple[tuple[tuple[int, int], ...], ...], ...]:
    """Per part of an order, per device, (kind of task, how often it runs)."""
    found = []
    for part in parts:
        counts = Counter([event[:2] for event in part])
        per_device: list[list[tuple[int, int]]] = [[] for _ in range(stages)]
        for (device, duration), count in sorted(counts.items()):
            per_device[device].append((duration, count))
        found.append(tuple(map(tuple, per_device)))
    return tuple(found)


def _repeats(queue: Sequence[CompiledStep], shift: int) -> tuple[int, int, int] | None:
    """Where a device's steps repeat themselves, moved by some microbatches: first, length of a period, last.

    None where the step in the middle never comes again.
    """

    def again(position: int, lag: int) -> bool:
        step, later = queue[position], queue[position + lag]
        return step.duration == later.duration and all(
            one + shift == other for one, other in zip(step.microbatches, later.microbatches, strict=True)
        )

    middle = len(queue) // 2
    lag = next((lag for lag in range(1, len(queue) - middle) if again(middle, lag)), None)
    if lag is None:
        return None
    first = last = middle
    while last + lag < len(queue) and again(last, lag):
        last += 1
    while first and again(first - 1, lag):
        first -= 1
    return first, lag, last + lag


def _closed(queues: Sequence[Sequence[CompiledStep]], cuts: list[int], links: Links) -> list[int]:
    """The first positions from these on that leave nothing behind them which a step before them waits for."""
    positions = [0] * len(links.flat)
    for queue in queues:
        for position, step in enumerate(queue):
            positions[step.node] = position
            if step.block:
                positions[step.node + 1] = position
    checked = [0] * len(queues)
    again = True
    while again:
        again = False
        for device, queue in enumerate(queues):
            for step in queue[checked[device] : cuts[device]]:
                for need in step.needs:
                    other = links.devices[need]
                    cuts[other] = max(cuts[other], positions[need] + 1)
            again = again or checked[device] < cuts[device]
            checked[device] = cuts[device]
    return cuts
