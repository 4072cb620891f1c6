"""Closed forms: the bubble and the activations in flight of every schedule, where all chunks take equally long.

Written with p stages, m microbatches, v chunks a stage, and seconds of one chunk: F forward, B the gradients of
inputs, W those of weights, so that a whole backward pass takes B + W. Qi et al. too write B for the gradients of
inputs, DeepSeek-AI for the whole pass. They state their forms for F = B = W; those here are the maxima that hold for
other times too, found from, and tested against, the event simulation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.errors import ScheduleError
from einscale.schedule.catalogue import check_schedule
from einscale.schedule.row import Even
from einscale.schedule.tasks import InFlight
from einscale.schedule.times import check_times, per_chunk

if TYPE_CHECKING:
    from collections.abc import Sequence


def outside_closed_form(
    name: str,
    stages: int,
    microbatches: int,
    chunks: int,
    forward: float | Sequence[float],
    backward: float | Sequence[float],
    weight: float | Sequence[float] = 0,
    *,
    send: float = 0,
    barrier: bool = True,
) -> str | None:
    """Why the closed forms do not hold for these numbers, in words; None if they do.

    Args:
        name: of the schedule.
        stages: p.
        microbatches: m.
        chunks: v.
        forward: seconds of one chunk, F: one number, or one for each chunk of the model.
        backward: of a whole backward pass, B + W.
        weight: of the gradients of weights, W.
        send: seconds of one hop.
        barrier: the devices wait for each other after the step.

    >>> outside_closed_form("zb-h1", 4, 3, 1, 1, 2, 1)
    'zb-h1 has a closed form from 4 microbatches on, one a stage'

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, or times that cannot be.
    """
    schedule = check_schedule(name, stages, microbatches, chunks)
    times = [
        per_chunk(values, stages * chunks, what)
        for values, what in ((forward, "forward"), (backward, "backward"), (weight, "weight"))
    ]
    check_times(times[0], times[1], times[2])
    if any(value != values[0] for values in times for value in values):
        return "the chunks do not all take equally long"
    if send:
        return "hops take time"
    forwards, backwards, weights = (values[0] for values in times)
    return schedule.outside(Even(stages, microbatches, chunks, forwards, backwards - weights, weights, 0, barrier))


def in_closed_form(
    name: str,
    stages: int,
    microbatches: int,
    chunks: int,
    forward: float | Sequence[float],
    backward: float | Sequence[float],
    weight: float | Sequence[float] = 0,
    *,
    send: float = 0,
    barrier: bool = True,
) -> bool:
    """Whether the closed forms hold for these numbers; arguments and errors as of `outside_closed_form`.

    >>> in_closed_form("1f1b", 4, 8, 1, 1, 2), in_closed_form("1f1b", 4, 8, 1, [1, 1, 1, 2], 2)
    (True, False)
    """
    reason = outside_closed_form(
        name, stages, microbatches, chunks, forward, backward, weight, send=send, barrier=barrier
    )
    return reason is None


def bubble_seconds(
    name: str,
    stages: int,
    microbatches: int,
    chunks: int,
    forward: float,
    backward: float,
    weight: float = 0,
    *,
    overlap: float = 0,
    barrier: bool = True,
) -> float:
    """Seconds a device does not compute in one step.

    Every device idles as long; in dualpipe and dualpipev, whose devices run more or fewer blocks, these are the middle
    ones, which idle most.

    With a barrier after the step that is the makespan less the work; without one a device's own first task to its last
    less the work, as Qi et al. count (each device begins the next step when it is through with this one).

    The forms are those of the catalogue: `Schedule.bubble`, as text `Schedule.bubble_text`.

    Args:
        name: of the schedule.
        stages: p.
        microbatches: m.
        chunks: v.
        forward: F, seconds of one chunk.
        backward: B + W, of a whole backward pass.
        weight: W of it; schedules that do not split the backward pass ignore it.
        overlap: share of the shorter pass hidden in a block of dualpipe.
        barrier: the devices wait for each other after the step.

    >>> bubble_seconds("1f1b", 8, 32, 1, 1, 2), bubble_seconds("interleaved", 8, 32, 2, 1, 2)
    (21, 21)
    >>> bubble_seconds("zb-h1", 8, 32, 1, 1, 2, 1), bubble_seconds("zb-h2", 8, 32, 1, 1, 2, 1, barrier=False)
    (7, 0)
    >>> bubble_seconds("dualpipe", 8, 32, 1, 1, 2, 1)
    6

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, or no closed form holds for them.
    """
    reason = outside_closed_form(name, stages, microbatches, chunks, forward, backward, weight, barrier=barrier)
    if reason is not None:
        raise ScheduleError(f"no closed form: {reason}", expected="`run_schedule`, which simulates it")
    schedule = check_schedule(name, stages, microbatches, chunks)
    return schedule.bubble(Even(stages, microbatches, chunks, forward, backward - weight, weight, overlap, barrier))


def makespan_seconds(
    name: str,
    stages: int,
    microbatches: int,
    chunks: int,
    forward: float,
    backward: float,
    weight: float = 0,
    *,
    overlap: float = 0,
    barrier: bool = True,
) -> float:
    """Seconds of one step: the work of a device and its bubble; arguments and errors as of `bubble_seconds`.

    >>> makespan_seconds("1f1b", 8, 32, 1, 1, 2), makespan_seconds("dualpipe", 8, 32, 1, 1, 2, 1, overlap=1)
    (117, 76)
    """
    bubble = bubble_seconds(
        name, stages, microbatches, chunks, forward, backward, weight, overlap=overlap, barrier=barrier
    )
    schedule = check_schedule(name, stages, microbatches, chunks)
    passes = microbatches * chunks
    hidden = schedule.paired(stages, passes) * overlap * min(forward, backward) if schedule.paired else 0
    return bubble + passes * (forward + backward) - hidden


def in_flight(name: str, stages: int, microbatches: int, chunks: int, stage: int) -> InFlight:
    """Most activations a device keeps at a time, counted in chunks: divide by `chunks` for those of a whole stage.

    Until its backward pass is done, and until its W is, where that is a task of its own (stage i = 0..p-1), as the
    catalogue has it: `Schedule.in_flight`.

    Args:
        name: of the schedule.
        stages: p.
        microbatches: m.
        chunks: v.
        stage: i, the device.

    >>> in_flight("1f1b", 4, 8, 1, 0), in_flight("interleaved", 4, 8, 2, 0).until_backward
    (InFlight(until_backward=4, until_weight=4), 11)

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, or has no such stage.
    """
    schedule = check_schedule(name, stages, microbatches, chunks)
    if isinstance(stage, bool) or not isinstance(stage, int) or not 0 <= stage < stages:
        raise ScheduleError(f"there is no stage {stage!r} among {stages}", expected=f"0 to {stages - 1}")
    until_backward, until_weight = schedule.in_flight(stages, microbatches, chunks, stage)
    passes = microbatches * chunks
    return InFlight(min(passes, until_backward), min(passes, until_weight))
