"""Steady state: thousands of microbatches at the price of a few."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec.structs import replace

from einscale.errors import ScheduleError
from einscale.schedule.catalogue import check_schedule
from einscale.schedule.orders import KEPT, enough_microbatches, order, period
from einscale.schedule.tasks import InFlight, Task
from einscale.schedule.timeline import CompiledOrder, Timeline, compile_order, evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence

WARM_UP = 4
"""Microbatches a stage that are simulated first; where they show no steady state, twice as many, and so on."""

LARGEST = 1 << 18
"""Most passes, microbatches times chunks of the model, that are simulated."""

ROUNDING = 1e-11
"""Share of the makespan by which two sums of floats may differ and still be called one."""


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
    behind the same tasks of one period earlier, every further period takes that long too. The simulation is cut there
    and the periods left out are added: what comes out is what the simulation of all microbatches gives. Where stages
    differ by so little that no rhythm shows in the largest simulation, its pace is kept up and `exact` is False.

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
        The timeline; `order`, `starts` and `ends` are empty where microbatches were left out.

    >>> run_schedule("1f1b", 4, 100_000, 1, 1, 2).makespan
    300009

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, or times that cannot be.
    """
    schedule = check_schedule(name, stages, microbatches, chunks)

    def price(count: int) -> tuple[CompiledOrder, Timeline]:
        compile_it = _compile_kept if count * stages * chunks <= KEPT else _compile
        compiled = compile_it(schedule.name, stages, count, chunks)
        return compiled, evaluate(compiled, forward, backward, weight, send=send, blocking=blocking, overlap=overlap)

    if schedule.two_phases and microbatches > WARM_UP:
        # Both phases are flow shops of equal jobs: each device runs at the pace of the slowest before it, from its
        # first job on, so that every time grows by the same amount with every microbatch.
        line = _line(price(2)[1], price(3)[1], 1, microbatches - 3)
        return replace(line, in_flight=(InFlight(microbatches, microbatches),) * stages)
    repeats = period(schedule.name, stages)
    lag = repeats * chunks * (3 if schedule.name.startswith("zb") else 2)
    few, fewer = enough_microbatches(schedule.name, stages, microbatches, WARM_UP), 0
    _check_size(schedule.name, stages, few, chunks)
    while few < microbatches and few * stages * chunks <= LARGEST:
        found = price(few)
        for cycles in range(1, stages + 1):
            rhythm = _rhythm(*found, cycles * lag, cycles * repeats // schedule.copies)
            if rhythm:
                longer = few + (microbatches - few) % (cycles * repeats)
                if longer != few:
                    found = price(longer)
                    rhythm = _rhythm(*found, cycles * lag, cycles * repeats // schedule.copies)
                if rhythm:
                    return _extend(found[1], rhythm, (microbatches - longer) // (cycles * repeats))
        few, fewer = enough_microbatches(schedule.name, stages, microbatches, 2 * -(-few // stages)), few
    if microbatches * stages * chunks <= LARGEST:
        return price(microbatches)[1]
    shorter, longest = price(fewer // 2 // repeats * repeats)[1], price(fewer)[1]
    count = fewer - fewer // 2 // repeats * repeats
    return replace(_line(shorter, longest, count, microbatches - fewer), exact=False)


def _check_size(name: str, stages: int, microbatches: int, chunks: int) -> None:
    if microbatches * stages * chunks > LARGEST:
        numbers = f"{microbatches} microbatches through {stages * chunks} chunks of the model"
        raise ScheduleError(f"schedule `{name}` is too large to simulate: {numbers}", hint="closed forms have no limit")


def _compile(name: str, stages: int, microbatches: int, chunks: int) -> CompiledOrder:
    return compile_order(order(name, stages, microbatches, chunks))


_compile_kept = lru_cache(maxsize=16)(_compile)


def _line(shorter: Timeline, longer: Timeline, between: int, beyond: int) -> Timeline:
    """Every time continued on a line: through two timelines `between` microbatches apart, `beyond` the longer one."""

    def grown(short: float, long: float) -> float:
        return long + (long - short) * beyond / between if between > 1 else long + (long - short) * beyond

    def spans(timeline: Timeline) -> list[float]:
        return [ends[-1] - starts[0] for starts, ends in zip(timeline.starts, timeline.ends, strict=True)]

    return Timeline(
        makespan=grown(shorter.makespan, longer.makespan),
        span=max(map(grown, spans(shorter), spans(longer))),
        busy=tuple(map(grown, shorter.busy, longer.busy)),
        in_flight=longer.in_flight,
        send=longer.send,
        blocking=longer.blocking,
    )


def _extend(timeline: Timeline, rhythm: tuple[float, tuple[float, ...]], times: int) -> Timeline:
    """The timeline with `times` more periods of some seconds, in which each device computes for some."""
    if not times:
        return timeline
    seconds, busy = rhythm
    return Timeline(
        makespan=timeline.makespan + times * seconds,
        span=timeline.span + times * seconds,
        busy=tuple(before + times * more for before, more in zip(timeline.busy, busy, strict=True)),
        in_flight=timeline.in_flight,  # the periods left out hold what the one before them holds
        send=timeline.send,
        blocking=timeline.blocking,
    )


def _rhythm(
    compiled: CompiledOrder, timeline: Timeline, lag: int, shift: int
) -> tuple[float, tuple[float, ...]] | None:
    """Seconds of a period of `lag` tasks a device, and how long each device computes in it; None before it sets in.

    Args:
        compiled: the tasks and what they wait for.
        timeline: when they run.
        lag: tasks of a device in one period.
        shift: microbatches of a chunk in one period.
    """
    cuts, checked = [], []
    gap: float | None = None
    rounding = ROUNDING * timeline.makespan if isinstance(timeline.makespan, float) else 0
    for tasks, ends in zip(compiled.order, timeline.ends, strict=True):
        first, cut = _repeating(tasks, lag, shift)
        if cut - first < lag:
            return None
        if gap is None:
            gap = ends[cut - 1] - ends[cut - 1 - lag]
        position = cut
        while position > first and abs(ends[position - 1] - ends[position - 1 - lag] - gap) <= rounding:
            position -= 1
        if cut - position < lag:
            return None
        cuts.append(cut)
        checked.append(position)
    if gap is None or _looks_back(compiled, [cut - lag for cut in cuts], checked):
        return None
    return gap, tuple(map(_busy, compiled.order, timeline.starts, timeline.ends, [cut - lag for cut in cuts], cuts))


def _busy(tasks: Sequence[Task], starts: Sequence[float], ends: Sequence[float], first: int, last: int) -> float:
    """Seconds a device computes between two positions of its order; a block counts once."""
    return sum(
        ends[position] - starts[position]
        for position in range(first, last)
        if not (position and tasks[position - 1].overlapped)
    )


def _repeating(tasks: Sequence[Task], lag: int, shift: int) -> tuple[int, int]:
    """Where, around the middle, each task is that of `lag` positions earlier with its microbatch moved by `shift`."""

    def repeats(position: int) -> bool:
        if not lag <= position < len(tasks):
            return False
        task, earlier = tasks[position], tasks[position - lag]
        moved = Task(earlier.kind, earlier.microbatch + shift, earlier.chunk, earlier.overlapped)
        return task == moved

    first = last = len(tasks) // 2
    while repeats(last):
        last += 1
    while repeats(first - 1):
        first -= 1
    return first, last


def _looks_back(compiled: CompiledOrder, first: Sequence[int], checked: Sequence[int]) -> bool:
    """Whether a task from `first` on waits for one before `checked`, of which nothing is known."""
    nodes = compiled.first_nodes
    limits: dict[int, int] = {}
    for device, tasks in enumerate(compiled.order):
        for position in range(len(tasks)):
            limits[nodes[device] + position] = checked[device] - position
    return any(
        limits[need] > 0
        for event in compiled.events
        if event.node - nodes[event.device] >= first[event.device]
        for need in event.waits
    )
