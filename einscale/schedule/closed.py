"""Closed forms: the bubble and the activations in flight of every schedule, where all chunks take equally long.

Written with p stages, m microbatches, v chunks a stage, and seconds of one chunk: F forward, B the gradients of
inputs, W those of weights, so that a whole backward pass takes B + W. Qi et al. too write B for the gradients of
inputs, DeepSeek-AI for the whole pass. They state their forms for F = B = W; those here are the maxima that hold for
other times too, found from, and tested against, the event simulation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.errors import ScheduleError
from einscale.schedule.catalogue import Schedule, check_schedule
from einscale.schedule.held import InFlight, per_chunk
from einscale.schedule.timeline import check_times

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
    least = {"zb-h1": stages, "zb-h2": 2 * stages - 1, "zb-v": 2 * stages - 1}.get(schedule.name, 1)
    if microbatches < least:
        count = "one a stage" if least == stages else "two a stage but one"
        return f"{schedule.name} has a closed form from {least} microbatches on, {count}"
    if schedule.name == "zb-v":
        inputs = times[1][0] - times[2][0]
        if times[0][0] > inputs:
            return "zb-v has a closed form where a forward pass takes no longer than the gradients of inputs"
        if not barrier and times[2][0] > inputs:
            return "zb-v has a closed form without barrier where the gradients of weights take no longer than of inputs"
    return None


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

    - gpipe, 1f1b: (p-1)(F+B+W); Huang et al. 2019, section 2.3; Narayanan et al. 2021, section 2.2.1.
    - interleaved, of chunks 1/v as long: (p-1)(F+B+W); Narayanan et al. 2021, section 2.2.2.
    - zb-h1: (p-1) max(F, B, F+B-W); Qi et al. 2024, table 2, give (p-1)(F+B-W).
    - zb-h2: without barrier (p-1) max(0, B-F, F+B-2W), Qi et al. (p-1)(F+B-2W); with one at least (p-1)F, the slant of
      the warm-up.
    - zb-v, F <= B: with a barrier a + (p-2) max(W, a), a = max(B, 2(B-W)); without one and W <= B
      (p-1) max(2(B-W), B-F): none for F = B = W, Qi et al., section 6.
    - dualpipe: (p/2-1)(F&B - B - W + max(F, B) + max(0, B-W)) - min(F, (p/2-1) max(0, B-F)), F&B the time of a block;
      for F = B >= W that is DeepSeek-AI's (p/2-1)(F&B + (B+W) - 3W), table 2. dualpipev: the same with p for p/2.

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
    inputs = backward - weight
    if schedule.name == "zb-h1":
        slant = forward if barrier else 0
        return (stages - 1) * max(slant, inputs, forward + inputs - weight)
    if schedule.name == "zb-h2":
        slant = forward if barrier else 0
        return (stages - 1) * max(slant, inputs - forward, forward + inputs - 2 * weight)
    if schedule.name == "zb-v":
        return _zero_bubble_v(stages, forward, inputs, weight, barrier)
    if schedule.name in ("dualpipe", "dualpipev"):
        depth = stages // schedule.copies
        block = forward + backward - overlap * min(forward, backward)
        hop = block - backward + max(forward, inputs) + max(0, inputs - weight)
        return (depth - 1) * hop - min(forward, (depth - 1) * max(0, inputs - forward))
    return (stages - 1) * (forward + backward)


def _zero_bubble_v(stages: int, forward: float, inputs: float, weight: float, barrier: bool) -> float:
    if not barrier:
        return (stages - 1) * max(2 * (inputs - weight), inputs - forward)
    first = max(inputs, 2 * (inputs - weight))
    return first + (stages - 2) * max(weight, first) if stages > 1 else 0


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

    A middle device of dualpipe runs all but p+1 of its m forward and m backward passes in blocks: one pair fewer than
    its neighbours, since in its first block one pass would wait for the other.

    >>> makespan_seconds("1f1b", 8, 32, 1, 1, 2), makespan_seconds("dualpipe", 8, 32, 1, 1, 2, 1, overlap=1)
    (117, 76)
    """
    bubble = bubble_seconds(
        name, stages, microbatches, chunks, forward, backward, weight, overlap=overlap, barrier=barrier
    )
    schedule = check_schedule(name, stages, microbatches, chunks)
    passes = microbatches * chunks
    return bubble + passes * (forward + backward) - _hidden(schedule, stages, passes, min(forward, backward), overlap)


def _hidden(schedule: Schedule, stages: int, passes: int, shorter: float, overlap: float) -> float:
    """Seconds of a middle device's work that its blocks hide."""
    if schedule.name not in ("dualpipe", "dualpipev"):
        return 0
    return (passes - 2 * stages // schedule.copies - 1) * overlap * shorter


def in_flight(name: str, stages: int, microbatches: int, chunks: int, stage: int) -> InFlight:
    """Most activations a device keeps at a time, counted in chunks: divide by `chunks` for those of a whole stage.

    Until its backward pass is done, and until its W is, where that is a task of its own (stage i = 0..p-1):

    - gpipe: m. 1f1b: min(m, p-i); Narayanan et al. 2021, section 2.2.1.
    - interleaved: min(mv, 2(p-1-i) + (v-1)p + 1); on the first stage p(1 + (p-1)/(pv)) stages' worth, Korthikanti et
      al. 2022, arXiv 2205.05198, section 4.2.3.
    - zb-h1: min(m, p-i) and min(m, p). zb-h2: min(m, 2(p-1-i) + 1) and min(m, 2p-1). Qi et al. 2024, section 2.3.
    - zb-v: min(m + min(m, i+1), 2p). Qi et al. 2024, section 6.
    - dualpipe: p+1; DeepSeek-AI 2024, table 2. dualpipev: 2p+1.

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
    later = stages - 1 - stage
    most = {
        "gpipe": (microbatches, microbatches),
        "1f1b": (later + 1, later + 1),
        "interleaved": (2 * later + (chunks - 1) * stages + 1,) * 2,
        "zb-h1": (later + 1, stages),
        "zb-h2": (2 * later + 1, 2 * stages - 1),
        "zb-v": (min(microbatches + min(microbatches, stage + 1), 2 * stages),) * 2,
        "dualpipe": (stages + 1, stages + 1),
        "dualpipev": (2 * stages + 1, 2 * stages + 1),
    }[schedule.name]
    passes = microbatches * chunks
    return InFlight(min(passes, most[0]), min(passes, most[1]))
