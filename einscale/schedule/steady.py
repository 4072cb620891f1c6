"""Steady state: thousands of microbatches, and thousands of pipelines at once, at the price of a few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from einscale.errors import ScheduleError
from einscale.schedule.catalogue import check_schedule
from einscale.schedule.closed import in_flight
from einscale.schedule.compiled import WARM_UP, CompiledOrder, compile_schedule
from einscale.schedule.machine import Arithmetic, Arrays, Machine, Scalars
from einscale.schedule.orders import enough_microbatches
from einscale.schedule.timeline import Timeline, evaluate
from einscale.schedule.times import busy_seconds, durations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from einscale.numeric import Number

ALL = 64
"""Microbatches that are all simulated; beyond them a rhythm is looked for."""

LARGEST = 1 << 18
"""Most passes, microbatches times chunks of the model, that are simulated."""

AT_ONCE = 2048
"""Problems whose rows are played together: as many as a core's cache holds the rows of."""

ROOM = 1 << 23
"""Most numbers that the states of the last periods may take, in which a rhythm is looked for."""


class PipelineTimes(Struct, frozen=True):
    """One step of a pipeline, or of many at once; seconds, each a number or an array of all of them.

    Args:
        makespan: from the first task of any device to the last.
        starts: per device, when its first task begins.
        ends: per device, when its last task ends.
        busy: per device, how long it computes.
        exact: False where the times of many microbatches were estimated from those of fewer.
    """

    makespan: Number
    starts: tuple[Number, ...]
    ends: tuple[Number, ...]
    busy: tuple[Number, ...]
    exact: bool | Number = True

    @property
    def idle(self) -> tuple[Number, ...]:
        """Per device, seconds of the makespan it does not compute."""
        return tuple(self.makespan - busy for busy in self.busy)


def run_schedule(
    name: str,
    stages: int,
    microbatches: int,
    chunks: int,
    forward: float | Sequence[float],
    backward: float | Sequence[float],
    weight: float | Sequence[float] = 0,
    *,
    send: float = 0,
    blocking: bool = False,
    overlap: float = 0,
) -> Timeline:
    """The timeline of a schedule; with many microbatches only the first few and the last few are simulated.

    A pipeline whose stages wait for each other falls into a rhythm: when all that later tasks look back at lies as far
    behind the same tasks of some periods earlier, every further such stretch takes that long too. The simulation is cut
    there and the periods left out are added: what comes out is what the simulation of all microbatches gives, to 1e-12
    of it. Where stages differ by so little that no rhythm shows in the largest simulation, its pace is kept up and
    `exact` is False.

    With an order that does not depend on times no task can take longer and the step be shorter. That holds of F, B and
    W by themselves: a longer `weight` of the same `backward` leaves less for the gradients of inputs, which others wait
    for, and may well shorten the step.

    Args:
        name: of the schedule.
        stages: devices along the pipeline.
        microbatches: of one step.
        chunks: parts of the model a stage holds, copies not counted.
        forward: seconds of a forward pass, per chunk of the model (one for all, or a sequence).
        backward: seconds of a whole backward pass.
        weight: of these, the gradients of weights.
        send: seconds of one hop.
        blocking: the sender waits for its hop.
        overlap: share of the shorter pass hidden in a block of dualpipe.

    Returns:
        The timeline; `order`, `starts` and `ends` are empty with more than a few microbatches a stage.

    >>> run_schedule("1f1b", 4, 100_000, 1, 1, 2).makespan
    300009

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, or times that cannot be.
    """
    plan = _plan(name, stages, microbatches, chunks)
    if not plan.blocks and plan.shorter is None:
        return evaluate(plan.compiled, forward, backward, weight, send=send, blocking=blocking, overlap=overlap)
    times = pipeline_times(
        name, stages, microbatches, chunks, forward, backward, weight, send=send, blocking=blocking, overlap=overlap
    )
    return Timeline(
        makespan=times.makespan,
        span=max(end - start for start, end in zip(times.starts, times.ends, strict=True)),
        busy=times.busy,
        in_flight=tuple(in_flight(name, stages, microbatches, chunks, stage) for stage in range(stages)),
        send=send,
        blocking=blocking,
        exact=bool(times.exact),
    )


def pipeline_times(
    name: str,
    stages: int,
    microbatches: int,
    chunks: int,
    forward: Number | Sequence[Number],
    backward: Number | Sequence[Number],
    weight: Number | Sequence[Number] = 0,
    *,
    send: Number = 0,
    blocking: bool = False,
    overlap: float = 0,
) -> PipelineTimes:
    """Times of one pipeline as `run_schedule` has them, or of many that follow one schedule, which differ in seconds.

    Each of many gets what it would get alone, bit for bit. Chunks that are given the same array share its rows.

    Args:
        name: of the schedule.
        stages: devices along the pipeline.
        microbatches: of one step.
        chunks: parts of the model a stage holds, copies not counted.
        forward: seconds of a forward pass: a number, or one for each chunk of the model, each a number or an array.
        backward: of a whole backward pass.
        weight: of these, the gradients of weights.
        send: seconds of one hop, a number or an array.
        blocking: the sender waits for its hop.
        overlap: share of the shorter pass hidden in a block of dualpipe.

    >>> pipeline_times("1f1b", 2, 8, 1, [1, 1], [2, 3]).makespan
    35
    >>> import numpy as np
    >>> pipeline_times("1f1b", 2, 8, 1, [1, 1], [2, np.array([2, 3, 9])]).makespan.tolist()
    [27.0, 35.0, 83.0]

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, or times that cannot be.
    """
    plan = _plan(name, stages, microbatches, chunks)
    forward, backward, weight = (_listed(values, stages * chunks) for values in (forward, backward, weight))
    shape = _shape((*forward, *backward, *weight, send))
    if shape is None:
        seconds = durations(plan.compiled, Scalars(), forward, backward, weight, send=send, overlap=overlap)
        starts, ends, exact = _play(plan, Scalars(), seconds, send, blocking)
        return PipelineTimes(max(ends), tuple(starts), tuple(ends), tuple(busy_seconds(plan.runs, seconds)), exact)
    row = _rows(shape)
    forward, backward, weight = (tuple(map(row, values)) for values in (forward, backward, weight))
    seconds = durations(plan.compiled, Arrays(1), forward, backward, weight, send=row(send), overlap=overlap)
    return _in_slices(plan, shape, seconds, row(send), blocking)


class _Plan(Struct, frozen=True):
    """What is played for a schedule and its numbers.

    Args:
        compiled: the order.
        blocks: how often its block is played.
        cycles: most periods in which a rhythm may repeat.
        limit: blocks after which the pace is kept up.
        shorter: the order of one microbatch less, where every time grows by the same amount with each of them.
        beyond: how many microbatches to go on for, then.
    """

    compiled: CompiledOrder
    blocks: int = 0
    cycles: int = 1
    limit: int = 0
    shorter: CompiledOrder | None = None
    beyond: int = 0

    @property
    def runs(self) -> tuple[dict[int, int], ...]:
        """Per device, kind of task -> how often it runs."""
        found = self.compiled.runs(self.blocks)
        if self.shorter is None:
            return found
        fewer = self.shorter.runs(0)
        return tuple(
            {kind: count + (count - before[kind]) * self.beyond for kind, count in device.items()}
            for device, before in zip(found, fewer, strict=True)
        )


def _plan(name: str, stages: int, microbatches: int, chunks: int) -> _Plan:
    """How a schedule is simulated.

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, or it is too large.
    """
    schedule = check_schedule(name, stages, microbatches, chunks)
    parts = stages * chunks
    if schedule.two_phases and (microbatches > ALL or WARM_UP < microbatches > LARGEST // parts):
        # Both phases are flow shops of equal jobs: each device runs at the pace of the slowest before it, from its
        # first job on, so that every time grows by the same amount with every microbatch.
        shorter, longer = (compile_schedule(schedule.name, stages, count, chunks)[0] for count in (2, 3))
        return _Plan(longer, shorter=shorter, beyond=microbatches - 3)
    few = enough_microbatches(schedule.name, stages, microbatches, WARM_UP)
    _check_size(schedule.name, few, parts)
    compiled, blocks = compile_schedule(schedule.name, stages, microbatches, chunks)
    if not blocks:
        _check_size(schedule.name, microbatches, parts)
        return _Plan(compiled)
    limit = max(2, (LARGEST // parts - few) // compiled.every)
    return _Plan(compiled, blocks, stages, limit)


def _check_size(name: str, microbatches: int, parts: int) -> None:
    if microbatches * parts > LARGEST:
        numbers = f"{microbatches} microbatches through {parts} chunks of the model"
        raise ScheduleError(f"schedule `{name}` is too large to simulate: {numbers}", hint="closed forms have no limit")


def _listed(values: Number | Sequence[Number], chunks: int) -> tuple[Number, ...]:
    """Values of each chunk."""
    if hasattr(values, "__len__") and not isinstance(values, str):
        return tuple(values)
    return (values,) * chunks


def _shape(values: Sequence[Number]) -> tuple[int, ...] | None:
    """The shape of the problems; None where there is only one, in plain numbers."""
    shapes = {tuple(value.shape) for value in values if getattr(value, "ndim", 0)}
    if not shapes:
        return None
    import numpy as np

    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ScheduleError(f"times of different shapes: {', '.join(map(str, sorted(shapes)))}") from None


def _rows(shape: tuple[int, ...]) -> Callable[[Number], Number]:
    """A function from an array to its row of all problems: the same row for the same array."""
    import numpy as np

    rows: dict[int, tuple[Number, Number]] = {}

    def row(value: Number) -> Number:
        if not getattr(value, "ndim", 0):
            return value
        if id(value) not in rows:  # which keeps the array, so that no other takes its place in memory
            rows[id(value)] = (value, np.broadcast_to(np.asarray(value, dtype=np.float64), shape).ravel())
        return rows[id(value)][1]

    return row


def _in_slices(
    plan: _Plan, shape: tuple[int, ...], seconds: Sequence[Number], send: Number, blocking: bool
) -> PipelineTimes:
    """Play all problems, a slice of them at a time."""
    import numpy as np

    count = int(np.prod(shape))
    width = max(
        256, min(AT_ONCE, ROOM // (plan.cycles * 4 * len(plan.compiled.order)) if plan.blocks > ALL else AT_ONCE)
    )
    found: list[tuple[list[Number], list[Number], Number]] = []
    for first in range(0, count, width):
        size = min(width, count - first)
        part = _sliced(first, size)
        found.append(_play(plan, Arrays(size), [part(row) for row in seconds], part(send), blocking))
    stages = range(len(plan.compiled.order))
    starts = [np.concatenate([one[0][stage] for one in found]).reshape(shape) for stage in stages]
    ends = [np.concatenate([one[1][stage] for one in found]).reshape(shape) for stage in stages]
    busy = [np.broadcast_to(total, (count,)).reshape(shape) for total in busy_seconds(plan.runs, seconds)]
    exact = np.concatenate([np.broadcast_to(one[2], one[1][0].shape) for one in found]).reshape(shape)
    makespan = ends[0].copy()
    for end in ends:
        np.maximum(makespan, end, out=makespan)
    return PipelineTimes(makespan, tuple(starts), tuple(ends), tuple(busy), exact)


def _sliced(first: int, size: int) -> Callable[[Number], Number]:
    """A function from a row to its part, the same part of the same row."""
    parts: dict[int, Number] = {}

    def part(row: Number) -> Number:
        if not getattr(row, "ndim", 0):
            return row
        return parts.setdefault(id(row), row[first : first + size])

    return part


def _play(
    plan: _Plan, arithmetic: Arithmetic, seconds: Sequence[Number], send: Number, blocking: bool
) -> tuple[list[Number], list[Number], Number]:
    """Per device its first start and its last end, and whether they are exact."""
    machine = Machine(plan.compiled, arithmetic, seconds, send, blocking)
    starts: dict[int, Number] = {}

    devices = iter([event[0] for event in plan.compiled.prologue])

    def began(start: Number) -> None:
        device = next(devices)
        if device not in starts:
            starts[device] = arithmetic.copy(start)

    machine.play(plan.compiled.prologue, began)
    exact: Number = True
    if plan.blocks:
        machine, exact = _play_blocks(machine, plan)
        machine.play(plan.compiled.epilogue)
    ends = machine.finished()
    if plan.shorter is not None:
        _, before, _ = _play(_Plan(plan.shorter), arithmetic, seconds, send, blocking)
        ends = [end + (end - less) * plan.beyond for less, end in zip(before, ends, strict=True)]
    return [starts[device] for device in range(len(ends))], ends, exact


def _play_blocks(machine: Machine, plan: _Plan) -> tuple[Machine, Number]:
    """The machine after all its blocks, those that repeat a rhythm left out; and whether it is exact.

    Now and then the states of the last few periods are compared. If all of the last state lies as much later than some
    periods before, so will every state to come, as often as one likes: the rest of the periods is added at once.
    """
    block = plan.compiled.block
    every = plan.compiled.every
    stops = list(_stops(plan, max(plan.cycles + 1, -(-ALL // every))))
    final = _Final(machine)
    played = 0
    for stop in stops:
        window: list[list[Number]] = []
        for done in range(played + 1, stop + 1):
            machine.play(block)
            if stop < plan.blocks and done >= stop - plan.cycles:
                window.append(machine.snapshot())
        if stop == plan.blocks:
            final.put(True, machine.state())
            break
        found, rows = _rhythm(machine.arithmetic, window, plan.blocks - stop)
        if machine.arithmetic.some(found):
            final.put(found, rows)
        if machine.arithmetic.every(found):
            break
        if machine.arithmetic.some(found):
            machine.narrow(~found)
        if stop == stops[-1]:
            pace = machine.clocks[0] / (stop - played)
            left = plan.blocks - stop
            final.put(True, [row + pace * left for row in machine.state()], exact=False)
            break
        final.rebase()
        played = stop
    return final.machine(), final.exact


def _stops(plan: _Plan, first: int) -> Iterator[int]:
    """Numbers of blocks at which a rhythm is looked for, ever farther apart; the last is where it ends."""
    last = min(plan.blocks, plan.limit)
    if last < plan.blocks:
        first = min(first, last // 2)  # the pace is that of the blocks after the last look
    stop = first
    while stop + first // 2 < last:
        yield stop
        stop *= 2
    yield last


def _rhythm(arithmetic: Arithmetic, window: Sequence[Sequence[Number]], left: int) -> tuple[Any, list[Number]]:
    """Where the last state repeats one before it, and what the state is after the blocks that are left.

    Args:
        arithmetic: of the states.
        window: states after the last blocks, the latest last.
        left: blocks to come.
    """
    found: Any = False
    latest = window[-1]
    rows = list(latest)
    for cycle in range(1, len(window)):
        before = window[-1 - cycle]
        gap = latest[0] - before[0]
        rounding = arithmetic.rounding(gap)
        same: Any = arithmetic.where(found, False, True)
        for now, then in zip(latest, before, strict=True):
            same = same & (abs(now - then - gap) <= rounding)
            if not arithmetic.some(same):
                break
        else:
            periods, rest = divmod(left, cycle)
            lasting = (periods + 1) * gap
            reached = window[len(window) - 1 - cycle + rest]
            rows = [arithmetic.where(same, row + lasting, kept) for row, kept in zip(reached, rows, strict=True)]
            found = arithmetic.where(same, True, found)
            if arithmetic.every(found):
                break
    return found, rows


class _Final:
    """States after all blocks, put together as the problems get there.

    Args:
        machine: before its first block.
    """

    def __init__(self, machine: Machine) -> None:
        self.played = machine
        self.whole = (machine.arithmetic, machine.seconds, machine.send)
        self.exact: Any = True
        self.rows: list[Number] = []
        self._members: Any = None  # which problems are still played; None for all
        self._origin: Number = None  # what was taken off their clocks

    def put(self, found: Any, rows: Sequence[Number], exact: bool = True) -> None:
        """The states of those problems among the ones still played that are found."""
        if self._origin is not None:
            rows = [row + self._origin for row in rows]
        arithmetic, everyone = self.whole[0], self.played.arithmetic.every(found)
        if self._members is None and everyone:
            self.rows, self.exact = list(rows), exact
            return
        if self._members is None:
            import numpy as np

            self._members = np.arange(arithmetic.size)
            self.rows = [arithmetic.blank() for _ in rows]
            self.exact = np.ones(arithmetic.size, dtype=bool)
        chosen = slice(None) if everyone else found
        for whole, row in zip(self.rows, rows, strict=True):
            whole[self._members[chosen]] = row[chosen]
        self.exact[self._members[chosen]] = exact
        if not everyone:
            self._members = self._members[~found]
            if self._origin is not None:
                self._origin = self._origin[~found]

    def rebase(self) -> None:
        """Count from now on from where the first device is: large clocks round what they add."""
        since = self.played.arithmetic.copy(self.played.clocks[0])
        self.played.restore([row - since for row in self.played.state()])
        self._origin = since if self._origin is None else self._origin + since

    def machine(self) -> Machine:
        """The machine with all problems, after all blocks."""
        self.played.arithmetic, self.played.seconds, self.played.send = self.whole
        self.played.restore(self.rows)
        return self.played
