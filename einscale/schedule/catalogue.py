"""The schedules there are, the numbers each of them wants, and which device holds which part of the model.

A schedule is one value, a `Schedule` (see `row.py`): its order of tasks, bubble and activations in flight in closed
form, each with its text, the numbers it refuses, and its names. To add one, write that value beside its like
(`plain.py`, `zero_bubble.py`, `dualpipe.py`) or in a module of its own, whose values are then joined to `SCHEDULES`
below: no other module knows a schedule by its name. The tests that go over `SCHEDULES` then hold its closed forms and
its arrays against the event simulation.
"""

from __future__ import annotations

from functools import cache

from einscale.errors import ScheduleError, did_you_mean, near_miss
from einscale.schedule.dualpipe import DUAL
from einscale.schedule.plain import PLAIN
from einscale.schedule.row import Schedule, counted
from einscale.schedule.zero_bubble import ZERO_BUBBLE

SCHEDULES: tuple[Schedule, ...] = (*PLAIN, *ZERO_BUBBLE, *DUAL)
"""Every schedule, plain ones first."""

MOST = 10**6
"""Largest number of stages, chunks or blocks: beyond it nobody means it."""

MOST_MICROBATCHES = 10**15
"""Largest number of microbatches."""


def schedule_names() -> tuple[str, ...]:
    """Names of all schedules.

    >>> schedule_names()
    ('gpipe', '1f1b', 'interleaved', 'zb-h1', 'zb-h2', 'zb-v', 'dualpipe', 'dualpipev')
    """
    return tuple(schedule.name for schedule in SCHEDULES)


def _folded_name(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


@cache
def _by_name() -> dict[str, Schedule]:
    return {_folded_name(known): schedule for schedule in SCHEDULES for known in (schedule.name, *schedule.aliases)}


def find_schedule(name: str) -> Schedule:
    """The schedule of a name or an alias; case, hyphens and underscores do not matter.

    >>> find_schedule("ZB_H1").name, find_schedule("PipeDream-Flush").name
    ('zb-h1', '1f1b')

    Raises:
        ScheduleError: there is none of that name.
    """
    if not isinstance(name, str):
        raise ScheduleError(f"a schedule is named by text, not by {type(name).__name__}", expected="for example 1f1b")
    found = _by_name().get(_folded_name(name))
    if found is not None:
        return found
    known = [*schedule_names(), *(alias for schedule in SCHEDULES for alias in schedule.aliases)]
    hint = did_you_mean(name, known if near_miss(name, known) is not None else schedule_names(), "known")
    raise ScheduleError(f"unknown pipeline schedule `{name}`", text=name, span=(0, len(name)), hint=hint)


def check_schedule(name: str, stages: int, microbatches: int, chunks: int = 1) -> Schedule:
    """The schedule, if a pipeline of these numbers can follow it.

    Args:
        name: of the schedule.
        stages: devices along the pipeline.
        microbatches: of one step.
        chunks: parts of the model a stage holds, copies not counted.

    >>> print(check_schedule("interleaved", 4, 8, 2).name)
    interleaved
    >>> check_schedule("interleaved", 4, 10, 2)
    Traceback (most recent call last):
        ...
    einscale.errors.ScheduleError: schedule `interleaved` takes microbatches in groups of 4 stages, not 10
      expected 8 or 12 microbatches, or 2 or 5 stages

    Raises:
        ScheduleError: it cannot; the message names the nearest numbers that would do.
    """
    schedule = find_schedule(name)
    check_counts(stages=stages, microbatches=microbatches, chunks=chunks)
    _check_chunks(schedule, chunks)
    schedule.refuse(stages, microbatches)
    return schedule


def check_counts(**counts: int) -> None:
    """Raise unless every number is one that things can be counted with.

    Raises:
        ScheduleError: no whole number, less than 1, or absurd.
    """
    for name, value in counts.items():
        what = "chunks a stage" if name == "chunks" else name
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ScheduleError(f"the number of {what} must be a whole number, at least 1, not {value!r}")
        most = MOST_MICROBATCHES if name == "microbatches" else MOST
        if value > most:
            raise ScheduleError(f"the number of {what} is absurd: {value}", expected=f"at most {most}")


def _check_chunks(schedule: Schedule, chunks: int) -> None:
    fixed = schedule.chunks_fixed
    if fixed is None:
        if chunks == 1:
            message = f"schedule `{schedule.name}` interleaves at least 2 chunks a stage, not 1"
            raise ScheduleError(message, expected="2 chunks a stage, or the schedule `1f1b`")
        return
    if chunks != fixed:
        other = "1f1b" if chunks == 1 else "interleaved"
        message = f"schedule `{schedule.name}` holds {counted(fixed, 'chunk')} of the model a stage, not {chunks}"
        raise ScheduleError(message, expected=f"{counted(fixed, 'chunk')}, or the schedule `{other}`")


def placement(name: str, stages: int, chunks: int = 1) -> tuple[tuple[int, ...], ...]:
    """The chunks of the model that each device holds; chunks are numbered in the order a microbatch passes them.

    dualpipe's device holds stage i and a copy of stage p-1-i, for the microbatches that come from the other end.

    >>> placement("interleaved", 2, 2), placement("zb-v", 2, 2), placement("dualpipe", 4)
    (((0, 2), (1, 3)), ((0, 3), (1, 2)), ((0, 3), (1, 2), (2, 1), (3, 0)))

    Raises:
        ScheduleError: unknown schedule, or numbers that nothing can be counted with.
    """
    schedule = find_schedule(name)
    check_counts(stages=stages, chunks=chunks)
    if schedule.copies == 2:
        return tuple((device, stages - 1 - device) for device in range(stages))
    if schedule.folded:
        return tuple((device, 2 * stages - 1 - device) for device in range(stages))
    return tuple(tuple(range(device, stages * chunks, stages)) for device in range(stages))
