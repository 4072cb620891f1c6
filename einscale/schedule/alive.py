"""What a device keeps between a forward pass and its backward pass; it follows from the order of tasks alone."""

from __future__ import annotations

import sys
from functools import lru_cache
from operator import ge
from typing import TYPE_CHECKING

from msgspec import Struct

from einscale.errors import ScheduleError
from einscale.numeric import where
from einscale.schedule.catalogue import check_schedule, placement
from einscale.schedule.orders import enough_microbatches, order
from einscale.schedule.tasks import B, F, Task, W, split_passes
from einscale.schedule.times import per_chunk, within

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from einscale.numeric import Number


HELD_AFTER = 6
"""Microbatches a stage after which no device holds more than it did before."""


class HeldAtPeak(Struct, frozen=True):
    """What a device keeps at its peak.

    Args:
        amount: of what was given per chunk, bytes for instance.
        chunks: per chunk of the device (chunk, microbatches that await B, microbatches that await W).
        task: the position in the device's order of the task that runs at the peak.
    """

    amount: float
    chunks: tuple[tuple[int, int, int], ...]
    task: int


def peak_held(
    name: str,
    stages: int,
    microbatches: int,
    chunks: int,
    activations: float | Sequence[float],
    kept_for_weight: float | Sequence[float] | None = None,
) -> tuple[HeldAtPeak, ...]:
    """The peak of what each device keeps for its backward passes, exactly, at the cost of a few microbatches.

    Args:
        name: of the schedule.
        stages: devices along the pipeline.
        microbatches: of one step.
        chunks: parts of the model a stage holds, copies not counted.
        activations: what a forward pass through a chunk leaves until its backward pass is done: one number, or one
            per chunk of the model.
        kept_for_weight: what is still kept after B for a W that is a task of its own; all of it by default.

    >>> [held.amount for held in peak_held("1f1b", 4, 100, 1, [12, 10, 10, 14])]
    [48, 30, 20, 14]
    >>> peak_held("interleaved", 2, 8, 2, 1)[0].chunks
    ((0, 3, 0), (2, 2, 0))

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, there are not as many amounts as chunks, or
            one of them cannot be.
    """
    schedule = check_schedule(name, stages, microbatches, chunks)
    kept = per_chunk(activations, stages * chunks, "activations")
    for_weight = kept if kept_for_weight is None else per_chunk(kept_for_weight, stages * chunks, "kept_for_weight")
    for value in (*kept, *for_weight):
        if not within(value, 0, sys.float_info.max):
            raise ScheduleError(f"a chunk cannot keep {value!r}", expected="a number, at least 0")
    if schedule.two_phases:  # everything is kept at once: no need to count it
        return tuple(
            HeldAtPeak(microbatches * kept[stage], ((stage, microbatches, 0),), microbatches - 1)
            for stage in range(stages)
        )
    few = enough_microbatches(schedule.name, stages, microbatches, HELD_AFTER)
    return tuple(_peak(tasks, kept, for_weight) for tasks in order(schedule.name, stages, few, chunks))


class AliveForm(Struct, frozen=True):
    """What a device may have alive while a backward pass runs: microbatches of each of its chunks.

    Args:
        work: the chunk of the model whose backward pass runs.
        chunks: of the device; one of each content where contents were told.
        counts: for each of these, how many microbatches' activations are alive, that of the pass itself among them.
    """

    work: int
    chunks: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def in_flight(self) -> int:
        """Activations alive, counted in chunks."""
        return sum(self.counts)


def alive_forms(
    name: str, stages: int, microbatches: int, chunks: int = 1, contents: Sequence[Hashable] | None = None
) -> tuple[tuple[AliveForm, ...], ...]:
    """Per device, what it may hold when it holds most: candidates that are free of bytes.

    A forward pass leaves activations, which are alive until its backward pass is done, or its W where that is a task of
    its own. Whatever the bytes of the chunks, the most that is alive while a backward pass runs is the largest of these
    forms (`most_alive`): one for a device of a single chunk, a few for several. What another form has no less of, or
    lies between two others, is left out.

    Args:
        name: of the schedule.
        stages: devices along the pipeline.
        microbatches: of one step.
        chunks: parts of the model a stage holds, copies not counted.
        contents: of each chunk of the model: chunks of equal contents are counted together.

    >>> alive_forms("1f1b", 2, 100)
    ((AliveForm(work=0, chunks=(0,), counts=(2,)),), (AliveForm(work=1, chunks=(1,), counts=(1,)),))
    >>> [(form.work, form.counts) for form in alive_forms("zb-v", 2, 100, 2)[0]]
    [(3, (3, 1)), (0, (4, 0))]
    >>> alive_forms("zb-v", 2, 100, 2, "abba")[0]
    (AliveForm(work=0, chunks=(0,), counts=(4,)),)

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, or as many contents as it has no chunks.
    """
    schedule = check_schedule(name, stages, microbatches, chunks)
    kinds = tuple(contents) if contents is not None else tuple(range(stages * chunks))
    per_chunk(kinds, stages * chunks, "contents")
    few = microbatches
    if not schedule.two_phases:
        few = enough_microbatches(schedule.name, stages, microbatches, HELD_AFTER)
    return _forms(schedule.name, stages, few, chunks, kinds)


@lru_cache(maxsize=256)
def _forms(
    name: str, stages: int, microbatches: int, chunks: int, contents: tuple[Hashable, ...]
) -> tuple[tuple[AliveForm, ...], ...]:
    first = {content: chunk for chunk, content in reversed(list(enumerate(contents)))}
    found = []
    held = placement(name, stages, chunks)
    for here, moments in zip(held, _moments(name, stages, microbatches, chunks), strict=True):
        kept = tuple(dict.fromkeys(first[contents[chunk]] for chunk in here))
        merged: dict[int, dict[tuple[int, ...], None]] = {}
        for work, counts in moments:
            together = dict.fromkeys(kept, 0)
            for chunk, count in zip(here, counts, strict=True):
                together[first[contents[chunk]]] += count
            merged.setdefault(first[contents[work]], {})[tuple(together.values())] = None
        found.append(
            tuple(AliveForm(work, kept, counts) for work, alive in merged.items() for counts in _largest(list(alive)))
        )
    return tuple(found)


@lru_cache(maxsize=64)
def _moments(
    name: str, stages: int, microbatches: int, chunks: int
) -> tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]:
    """Per device, (chunk, what is alive of each of its chunks) when a backward pass of the chunk runs."""
    schedule = check_schedule(name, stages, microbatches, chunks)
    if schedule.chunks_fixed == schedule.copies == 1:  # one chunk a device: the closed form says how many
        counts = [schedule.in_flight(stages, microbatches, chunks, stage)[1] for stage in range(stages)]
        return tuple(((stage, (min(microbatches, count),)),) for stage, count in enumerate(counts))
    devices = order(name, stages, microbatches, chunks)
    return tuple(map(_walked, devices, placement(name, stages, chunks)))


def _walked(tasks: Sequence[Task], held: Sequence[int]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Of one device's backward passes, those that may be the ones at which it holds most."""
    split = split_passes(tasks)
    places = {chunk: place for place, chunk in enumerate(held)}
    counts = [0] * len(held)
    met: dict[int, dict[tuple[int, ...], None]] = {}
    for task in tasks:
        place = places[task.chunk]
        if task.kind == F:
            counts[place] += 1
            continue
        if task.kind == B:
            met.setdefault(task.chunk, {})[tuple(counts)] = None
        if task.kind == W or (task.microbatch, task.chunk) not in split:
            counts[place] -= 1
    return tuple((chunk, alive) for chunk, moments in met.items() for alive in _largest(list(moments)))


def _largest(points: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Those points that may be the largest of a sum with weights of no negative sign, whatever these are.

    A point midway between its neighbours is no larger than one of them.
    """
    corners = [
        point
        for before, point, after in zip((None, *points), points, (*points[1:], None), strict=False)
        if before is None or after is None or any(a + c != 2 * b for a, b, c in zip(before, point, after, strict=True))
    ]
    found: list[tuple[int, ...]] = []
    for point in sorted(corners, key=sum, reverse=True):  # none is exceeded by what has less in all
        if not any(all(map(ge, other, point)) for other in found):
            found.append(point)
    return [point for point in corners if point in found]


def most_alive(forms: Sequence[AliveForm], saved: Sequence[Number], working: Sequence[Number]) -> tuple[Number, Number]:
    """The most a device has alive beside what rests there, and the index of the form it then has; also on arrays.

    Args:
        forms: of the device, as `alive_forms` has them.
        saved: per chunk of the model, what one microbatch leaves for its backward pass.
        working: per chunk of the model, what its backward pass needs besides, at the worst of its layers, less what has
            been freed by then: negative where that is more.

    >>> most_alive(alive_forms("zb-v", 2, 100, 2)[0], [10, 1, 1, 20], [5, 0, 0, 7])
    (57, 0)
    """
    most: Number = None
    index: Number = 0
    for number, form in enumerate(forms):
        amount = working[form.work]
        for chunk, count in zip(form.chunks, form.counts, strict=True):
            amount = amount + count * saved[chunk]
        if most is None:
            most = amount
        else:
            more = amount > most
            most, index = where(more, amount, most), where(more, number, index)
    return most, index


def _peak(tasks: Sequence[Task], kept: Sequence[float], for_weight: Sequence[float]) -> HeldAtPeak:
    split = split_passes(tasks)
    counts = {chunk: [0, 0] for chunk in sorted({task.chunk for task in tasks})}
    amount: float = 0
    peak = HeldAtPeak(-1, (), 0)
    for position, task in enumerate(tasks):
        count = counts[task.chunk]
        if task.kind == F:
            count[0] += 1
            amount += kept[task.chunk]
        elif task.kind == B:
            count[0] -= 1
            amount -= kept[task.chunk]
            if (task.microbatch, task.chunk) in split:
                count[1] += 1
                amount += for_weight[task.chunk]
        else:
            count[1] -= 1
            amount -= for_weight[task.chunk]
        if amount > peak.amount:
            peak = HeldAtPeak(amount, tuple((chunk, *pair) for chunk, pair in counts.items()), position)  # type: ignore[misc]
    return peak
