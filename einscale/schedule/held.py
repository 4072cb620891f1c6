"""What a device keeps between a forward pass and its backward pass; it follows from the order of tasks alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from msgspec import Struct

from einscale.errors import ScheduleError
from einscale.schedule.catalogue import check_schedule
from einscale.schedule.orders import enough_microbatches, order
from einscale.schedule.tasks import Task, split_passes
from einscale.schedule.times import per_chunk, within

if TYPE_CHECKING:
    from collections.abc import Sequence


class Held(Struct, frozen=True):
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
) -> tuple[Held, ...]:
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
            Held(microbatches * kept[stage], ((stage, microbatches, 0),), microbatches - 1) for stage in range(stages)
        )
    few = enough_microbatches(schedule.name, stages, microbatches, 6)
    return tuple(_peak(tasks, kept, for_weight) for tasks in order(schedule.name, stages, few, chunks))


def _peak(tasks: Sequence[Task], kept: Sequence[float], for_weight: Sequence[float]) -> Held:
    split = split_passes(tasks)
    counts = {chunk: [0, 0] for chunk in sorted({task.chunk for task in tasks})}
    amount: float = 0
    peak = Held(-1, (), 0)
    for position, task in enumerate(tasks):
        count = counts[task.chunk]
        if task.kind == "F":
            count[0] += 1
            amount += kept[task.chunk]
        elif task.kind == "B":
            count[0] -= 1
            amount -= kept[task.chunk]
            if (task.microbatch, task.chunk) in split:
                count[1] += 1
                amount += for_weight[task.chunk]
        else:
            count[1] -= 1
            amount -= for_weight[task.chunk]
        if amount > peak.amount:
            peak = Held(amount, tuple((chunk, *pair) for chunk, pair in counts.items()), position)  # type: ignore[misc]
    return peak
