"""gpipe, 1f1b and interleaved: schedules that run a backward pass as one task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.errors import ScheduleError
from einscale.numeric import nearest_divisors, nearest_multiples
from einscale.schedule.row import Even, Schedule
from einscale.schedule.tasks import B, F, Task, alternating, passes

if TYPE_CHECKING:
    from einscale.schedule.tasks import Order


def _gpipe(stages: int, microbatches: int, chunks: int) -> Order:
    return tuple(
        (*passes(F, stage, microbatches), *reversed(passes(B, stage, microbatches))) for stage in range(stages)
    )


def _one_f_one_b(stages: int, microbatches: int, chunks: int) -> Order:
    return tuple(
        alternating(passes(F, stage, microbatches), passes(B, stage, microbatches), stages - 1 - stage)
        for stage in range(stages)
    )


def _interleaved(stages: int, microbatches: int, chunks: int) -> Order:
    # groups of as many microbatches as stages pass one chunk after the other; backward passes take the last chunk first
    rounds = [
        (microbatch, turn)
        for group in range(0, microbatches, stages)
        for turn in range(chunks)
        for microbatch in range(group, group + stages)
    ]
    return tuple(
        alternating(
            [Task(F, microbatch, turn * stages + stage) for microbatch, turn in rounds],
            [Task(B, microbatch, (chunks - 1 - turn) * stages + stage) for microbatch, turn in rounds],
            2 * (stages - 1 - stage) + (chunks - 1) * stages,
        )
        for stage in range(stages)
    )


def _whole_groups(stages: int, microbatches: int) -> None:
    if microbatches % stages == 0:
        return
    near = " or ".join(str(count) for count in nearest_multiples(microbatches, stages))
    others = " or ".join(str(divisor) for divisor in nearest_divisors(microbatches, stages) if divisor > 1)
    message = f"schedule `interleaved` takes microbatches in groups of {stages} stages, not {microbatches}"
    raise ScheduleError(message, expected=f"{near} microbatches" + (f", or {others} stages" if others else ""))


def _ramps(even: Even) -> float:
    """(p-1)(F+B+W): a device idles while the first pass comes down the pipeline and while the last goes back up.

    Huang et al. 2019, section 2.3; Narayanan et al. 2021, section 2.2.1; interleaved, of chunks 1/v as long, 2.2.2.
    """
    return (even.stages - 1) * (even.forward + even.backward)


def _groups_in_flight(stages: int, microbatches: int, chunks: int, stage: int) -> tuple[int, int]:
    """On the first stage p(1 + (p-1)/(pv)) stages' worth: Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.3."""
    return (2 * (stages - 1 - stage) + (chunks - 1) * stages + 1,) * 2


GPIPE = Schedule(
    name="gpipe",
    summary="all forward passes, then all backward passes, the last microbatch first",
    source="Huang et al. 2019, arXiv 1811.06965, figure 2c",
    order=_gpipe,
    bubble=_ramps,
    bubble_text="(p-1)(F+B)",
    in_flight=lambda p, m, v, i: (m, m),
    in_flight_text="m",
    two_phases=True,
    aliases=("f-then-b", "all-forward-all-backward", "afab"),
)

ONE_F_ONE_B = Schedule(
    name="1f1b",
    summary="a short warm-up, then one forward and one backward pass in turn",
    source="Narayanan et al. 2021, arXiv 2104.04473, section 2.2.1 (PipeDream-Flush)",
    order=_one_f_one_b,
    bubble=_ramps,
    bubble_text="(p-1)(F+B)",
    in_flight=lambda p, m, v, i: (p - i, p - i),
    in_flight_text="min(m, p-i)",
    aliases=("one-f-one-b", "pipedream-flush", "dapple"),
)

INTERLEAVED = Schedule(
    name="interleaved",
    summary="1f1b over several chunks a stage: the bubble shrinks by their number, hops and activations grow",
    source="Narayanan et al. 2021, arXiv 2104.04473, section 2.2.2; the order of Megatron-Core",
    order=_interleaved,
    bubble=_ramps,
    bubble_text="(p-1)(F+B)",
    in_flight=_groups_in_flight,
    in_flight_text="min(m v, 2(p-1-i) + (v-1)p + 1)",
    refuse=_whole_groups,
    period=lambda p: p,
    chunks_fixed=None,
    aliases=("interleaved-1f1b", "virtual-pipeline", "vpp"),
)

PLAIN = (GPIPE, ONE_F_ONE_B, INTERLEAVED)
"""Schedules that run a backward pass as one task."""
