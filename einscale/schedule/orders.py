"""The order of work: the tasks of every device in a pipeline of some numbers."""

from __future__ import annotations

from functools import lru_cache

from einscale.errors import ScheduleError
from einscale.schedule.catalogue import check_schedule, find_schedule
from einscale.schedule.tasks import Order

KEPT = 1 << 14
"""Passes, microbatches times chunks of the model, of the largest order that is kept for the next who asks."""


MOST_PASSES = 10**7
"""Passes of the largest order that is made: some gigabytes of tasks."""


def order(name: str, stages: int, microbatches: int, chunks: int = 1) -> Order:
    """The tasks of each device, in the order it runs them.

    Args:
        name: of the schedule.
        stages: devices along the pipeline.
        microbatches: of one step. dualpipe's first half enters at device 0, its second half at the last device.
        chunks: parts of the model a stage holds, copies not counted.

    >>> for tasks in order("1f1b", 2, 2):
    ...     print(" ".join(f"{task.kind}{task.microbatch}" for task in tasks))
    F0 F1 B0 B1
    F0 B0 F1 B1

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, or its tasks are too many to write down.
    """
    schedule = check_schedule(name, stages, microbatches, chunks)
    if microbatches * stages * chunks > MOST_PASSES:
        raise ScheduleError(
            f"{microbatches} microbatches through {stages} stages of {chunks} chunks are more tasks than can be listed",
            expected=f"at most {MOST_PASSES // (stages * chunks)} microbatches",
        )
    build = _build_kept if microbatches * stages * chunks <= KEPT else _build
    return build(schedule.name, stages, microbatches, chunks)


def _build(name: str, stages: int, microbatches: int, chunks: int) -> Order:
    return find_schedule(name).order(stages, microbatches, chunks)


_build_kept = lru_cache(maxsize=16)(_build)


def period(name: str, stages: int) -> int:
    """Microbatches after which a schedule's steady state repeats itself."""
    return find_schedule(name).period(stages)


def enough_microbatches(name: str, stages: int, microbatches: int, warm_up: int) -> int:
    """As few microbatches as `warm_up` a stage, congruent to `microbatches`; that many if there are not as many.

    >>> enough_microbatches("interleaved", 4, 1000, 6), enough_microbatches("dualpipe", 4, 12, 6)
    (24, 12)
    """
    repeats = period(name, stages)
    least = warm_up * stages
    return min(microbatches, least + (microbatches - least) % repeats)
