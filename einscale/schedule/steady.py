"""Steady state: thousands of microbatches, and thousands of pipelines at once, at the price of a few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from einscale.errors import ScheduleError
from einscale.schedule.catalogue import check_counts, check_schedule
from einscale.schedule.closed import in_flight
from einscale.schedule.compiled import WARM_UP, CompiledOrder, compile_schedule
from einscale.schedule.machine import Arrays, Machine, Scalars, once_each
from einscale.schedule.orders import enough_microbatches
from einscale.schedule.rhythm import Looks, Players, Through, play_blocks
from einscale.schedule.timeline import Timeline, evaluate
from einscale.schedule.times import busy_seconds, durations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from einscale.numeric import Number

ALL = 64
"""Microbatches that are all simulated; beyond them a rhythm is looked for."""

LARGEST = 1 << 18
"""Most passes, microbatches times chunks of the model, that are simulated."""

AT_ONCE = 2048
"""Problems whose rows are played together: as many as a core's cache holds the rows of."""

MANY = 16 * AT_ONCE
"""Problems of which the states are kept at once; the few of them without a rhythm go on together."""

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
    if not plan.repeats and plan.shorter is None:
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
    microbatches: Number,
    chunks: int,
    forward: Number | Sequence[Number],
    backward: Number | Sequence[Number],
    weight: Number | Sequence[Number] = 0,
    *,
    send: Number = 0,
    blocking: bool = False,
    overlap: float = 0,
    by_device: bool = True,
) -> PipelineTimes:
    """Times of one pipeline as `run_schedule` has them, or of many that differ in seconds and microbatches.

    Each of many gets what it would get alone, bit for bit. Chunks that are given the same array share its rows.

    Args:
        name: of the schedule.
        stages: devices along the pipeline.
        microbatches: of one step: a number or an array.
        chunks: parts of the model a stage holds, copies not counted.
        forward: seconds of a forward pass: a number, or one for each chunk of the model, each a number or an array.
        backward: of a whole backward pass.
        weight: of these, the gradients of weights.
        send: seconds of one hop, a number or an array.
        blocking: the sender waits for its hop.
        overlap: share of the shorter pass hidden in a block of dualpipe.
        by_device: whether arrays of the times of each device are wanted, which take room; else they are left empty.

    >>> pipeline_times("1f1b", 2, 8, 1, [1, 1], [2, 3]).makespan
    35
    >>> import numpy as np
    >>> pipeline_times("1f1b", 2, np.array([8, 8, 4000]), 1, [1, 1], [2, np.array([2, 3, 3])]).makespan.tolist()
    [27.0, 35.0, 16003.0]

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, or times that cannot be.
    """
    check_counts(stages=stages, chunks=chunks)
    forward, backward, weight = (_listed(values, stages * chunks) for values in (forward, backward, weight))
    shape = _shape((microbatches, *forward, *backward, *weight, send))
    if shape is None:
        plan = _plan(name, stages, microbatches, chunks)
        seconds = durations(plan.compiled, Scalars(), forward, backward, weight, send=send, overlap=overlap)
        starts, ends, exact = _play(plan, seconds, send, blocking)
        return PipelineTimes(max(ends), tuple(starts), tuple(ends), tuple(busy_seconds(plan.runs, seconds)), exact)
    import numpy as np

    row = once_each(lambda value: np.broadcast_to(np.asarray(value, dtype=np.float64), shape).ravel())
    forward, backward, weight = (tuple(map(row, values)) for values in (forward, backward, weight))
    counts = row(microbatches) if getattr(microbatches, "ndim", 0) else microbatches
    table = np.zeros((2 + 3 * stages * by_device, int(np.prod(shape))))
    for plan, members in _plans(name, stages, counts, chunks):
        part = once_each(lambda values, members=members: values[members])  # type: ignore[misc]
        times = [tuple(map(part, values)) for values in (forward, backward, weight)]
        seconds = durations(plan.compiled, Arrays(1), *times, send=part(row(send)), overlap=overlap)
        _fill(table, members, plan, seconds, part(row(send)), blocking)
    rows = [values.reshape(shape) for values in table]
    first, last, computing = (tuple(rows[2 + kind :: 3]) for kind in range(3))
    return PipelineTimes(rows[0], first, last, computing, rows[1].astype(bool))


class _Plan(Struct, frozen=True):
    """What is played for a schedule and its numbers.

    Args:
        compiled: the order.
        blocks: how often its block is played: a number, or an array with one for each problem.
        looks: when a rhythm is looked for.
        shorter: the order of one microbatch less, where every time grows by the same amount with each of them.
        beyond: how many microbatches to go on for, then.
    """

    compiled: CompiledOrder
    blocks: Number = 0
    looks: Looks = Looks(1, 1, 1, 0)
    shorter: CompiledOrder | None = None
    beyond: int = 0

    @property
    def repeats(self) -> bool:
        """Whether there is a block to play."""
        return bool(self.compiled.block)

    @property
    def runs(self) -> tuple[dict[int, Number], ...]:
        """Per device, kind of task -> how often it runs."""
        found = self.compiled.runs(self.blocks)
        if self.shorter is None:
            return found
        fewer = self.shorter.runs(0)
        return tuple(
            {kind: count + (count - before[kind]) * self.beyond for kind, count in device.items()}
            for device, before in zip(found, fewer, strict=True)
        )


def _plan(name: str, stages: int, microbatches: int, chunks: int, *, shared: bool = False) -> _Plan:
    """How a schedule is simulated; `shared` where others, of other numbers of microbatches, may take the same order.

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
    shared = shared and WARM_UP * stages * parts <= LARGEST
    compiled, blocks = compile_schedule(schedule.name, stages, microbatches, chunks, shared=shared)
    if not blocks:
        _check_size(schedule.name, microbatches, parts)
        return _Plan(compiled)
    limit = max(2, (LARGEST // parts - WARM_UP * stages) // compiled.every)
    all_played = -(-max(ALL, WARM_UP * stages) // compiled.every)
    return _Plan(compiled, blocks, Looks(min(max(stages + 1, all_played), limit // 2), stages, limit, all_played))


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


def _plans(name: str, stages: int, microbatches: Number, chunks: int) -> list[tuple[_Plan, Any]]:
    """What is played, and for which problems: those of one compiled order together, whatever their microbatches."""
    if not getattr(microbatches, "ndim", 0):
        return [(_plan(name, stages, microbatches, chunks, shared=True), slice(None))]
    import numpy as np

    blocks = np.zeros(len(microbatches), dtype=np.int64)
    together: dict[int, tuple[_Plan, list[float]]] = {}
    for count in np.unique(microbatches).tolist():
        whole = (
            int(count) if float(count).is_integer() else count
        )  # what is no number of microbatches is refused in words
        plan = _plan(name, stages, whole, chunks, shared=True)
        blocks[microbatches == count] = plan.blocks
        key = id(plan.compiled) if plan.repeats else -whole
        together.setdefault(key, (plan, []))[1].append(count)
    found = []
    for plan, counts in together.values():
        members = np.flatnonzero(np.isin(microbatches, counts))
        found.append((replace(plan, blocks=blocks[members]) if len(counts) > 1 else plan, members))
    return found


def _fill(table: Any, members: Any, plan: _Plan, seconds: Sequence[Number], send: Number, blocking: bool) -> None:
    """Play some problems and write their makespan, whether it is exact, and the times of each device."""
    import numpy as np

    columns = np.arange(table.shape[1])[members]
    if getattr(plan.blocks, "ndim", 0):  # those that are through at once, and those that go on, each together
        turn = np.argsort(plan.blocks, kind="stable")
        columns, plan = columns[turn], replace(plan, blocks=plan.blocks[turn])
        part = once_each(lambda row: row[turn])
        seconds, send = [part(row) for row in seconds], part(send)
    for first in range(0, len(columns), MANY):
        chosen = slice(first, first + MANY)
        part = once_each(lambda row, chosen=chosen: row[chosen])  # type: ignore[misc]
        rows, some = [part(row) for row in seconds], replace(plan, blocks=part(plan.blocks))
        starts, ends, exact = _play_many(some, len(columns[chosen]), rows, part(send), blocking)
        table[0, columns[chosen]] = np.max(ends, axis=0)
        table[1, columns[chosen]] = exact
        if len(table) > 2:
            by_device = zip(starts, ends, busy_seconds(some.runs, rows), strict=True)
            for place, value in enumerate(value for values in by_device for value in values):
                table[2 + place, columns[chosen]] = value


def _play_many(
    plan: _Plan, count: int, seconds: Sequence[Number], send: Number, blocking: bool
) -> tuple[list[Number], list[Number], Any]:
    """As `_play`, a slice at a time."""
    import numpy as np

    width = AT_ONCE
    if plan.repeats and np.max(plan.blocks) > plan.looks.all:
        states = plan.looks.cycles + 1  # of some values in and on their way to each device
        width = max(256, min(width, ROOM // (states * 4 * len(plan.compiled.order))))
    slices = [slice(first, min(first + width, count)) for first in range(0, count, width)]
    through = Through(count)
    machines, players, starts = [], [], []
    for chosen in slices:
        part = once_each(lambda row, chosen=chosen: row[chosen])  # type: ignore[misc]
        rows, arithmetic = [part(row) for row in seconds], Arrays(chosen.stop - chosen.start)
        machine = Machine(plan.compiled, arithmetic, rows, part(send), blocking)
        starts.append(_begin(machine, plan.compiled))
        machines.append((arithmetic, rows, part(send), machine))
        players.append(Players(machine, part(plan.blocks), np.arange(chosen.start, chosen.stop), through))
    lengths = players[0].machine.lengths()
    ends = []
    if plan.repeats:
        play_blocks(players, plan.compiled.block, plan.looks, width)
    for chosen, (arithmetic, rows, sent, machine) in zip(slices, machines, strict=True):
        last = machine
        if plan.repeats:
            last = Machine(plan.compiled, arithmetic, rows, sent, blocking)
            last.restore([row[chosen] for row in through.rows], lengths)
            last.play(plan.compiled.epilogue)
        ends.append(last.finished())
    joined = [[np.concatenate(values) for values in zip(*found, strict=True)] for found in (starts, ends)]
    if plan.shorter is not None:
        _, fewer, _ = _play_many(_Plan(plan.shorter), count, seconds, send, blocking)
        joined[1] = _extended(plan, fewer, joined[1])
    return joined[0], joined[1], through.exact


def _play(
    plan: _Plan, seconds: Sequence[Number], send: Number, blocking: bool
) -> tuple[list[Number], list[Number], bool]:
    """Per device its first start and its last end, and whether they are exact."""
    machine = Machine(plan.compiled, Scalars(), seconds, send, blocking)
    starts = _begin(machine, plan.compiled)
    through = Through()
    if plan.repeats:
        players = Players(machine, plan.blocks, None, through)
        play_blocks([players], plan.compiled.block, plan.looks, 1)
        machine.restore(through.rows)
        machine.play(plan.compiled.epilogue)
    ends = machine.finished()
    if plan.shorter is not None:
        _, fewer, _ = _play(_Plan(plan.shorter), seconds, send, blocking)
        ends = _extended(plan, fewer, ends)
    return starts, ends, through.exact


def _begin(machine: Machine, compiled: CompiledOrder) -> list[Number]:
    """Play the prologue, in which every device begins: when each does."""
    starts: dict[int, Number] = {}
    devices = iter([event[0] for event in compiled.prologue])

    def began(start: Number) -> None:
        device = next(devices)
        if device not in starts:
            starts[device] = machine.arithmetic.copy(start)

    machine.play(compiled.prologue, began)
    return [starts[device] for device in range(len(compiled.order))]


def _extended(plan: _Plan, fewer: Sequence[Number], ends: Sequence[Number]) -> list[Number]:
    """Ends that grow by the same amount with every microbatch, those beyond added."""
    return [end + (end - less) * plan.beyond for less, end in zip(fewer, ends, strict=True)]
