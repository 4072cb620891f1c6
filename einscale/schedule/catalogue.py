"""The schedules there are, the numbers each of them wants, and which device holds which part of the model."""

from __future__ import annotations

from msgspec import Struct

from einscale.errors import ScheduleError, did_you_mean
from einscale.numeric import nearest_divisors, nearest_multiples


class Schedule(Struct, frozen=True):
    """A pipeline schedule.

    Args:
        name: how it is called.
        summary: one sentence.
        source: where it was described.
        splits_backward: some or all backward passes run as two tasks: gradients of inputs (B), and of weights (W).
        chunks_fixed: chunks of the model a stage must hold, copies not counted; None where any number above 1 will do.
        copies: how often the parameters are held: twice where microbatches travel both ways.
        folded: the chunks go down the devices and back up again (a V), not round and round.
        aliases: what it is called elsewhere.
    """

    name: str
    summary: str
    source: str
    splits_backward: bool = False
    chunks_fixed: int | None = 1
    copies: int = 1
    folded: bool = False
    aliases: tuple[str, ...] = ()


SCHEDULES = (
    Schedule(
        name="gpipe",
        summary="all forward passes, then all backward passes, the last microbatch first",
        source="Huang et al. 2019, arXiv 1811.06965, figure 2c",
        aliases=("f-then-b", "all-forward-all-backward", "afab"),
    ),
    Schedule(
        name="1f1b",
        summary="a short warm-up, then one forward and one backward pass in turn",
        source="Narayanan et al. 2021, arXiv 2104.04473, section 2.2.1 (PipeDream-Flush)",
        aliases=("one-f-one-b", "pipedream-flush", "dapple"),
    ),
    Schedule(
        name="interleaved",
        summary="1f1b over several chunks a stage: the bubble shrinks by their number, hops and activations grow",
        source="Narayanan et al. 2021, arXiv 2104.04473, section 2.2.2; the order of Megatron-Core",
        chunks_fixed=None,
        aliases=("interleaved-1f1b", "virtual-pipeline", "vpp"),
    ),
    Schedule(
        name="zb-h1",
        summary="1f1b whose gradients of weights wait until they fill the bubble; activations as in 1f1b's first stage",
        source="Qi et al. 2024, arXiv 2401.10241, section 2.1",
        splits_backward=True,
        aliases=("zb1p", "zero-bubble", "zero-bubble-h1"),
    ),
    Schedule(
        name="zb-h2",
        summary="zb-h1 with a warm-up twice as long: nearly no bubble for nearly twice the activations",
        source="Qi et al. 2024, arXiv 2401.10241, section 2.2",
        splits_backward=True,
        aliases=("zb2p", "zero-bubble-h2"),
    ),
    Schedule(
        name="zb-v",
        summary="two chunks a device, placed as a V: nearly no bubble for the activations of 1f1b's first stage",
        source="Qi et al. 2024, arXiv 2401.10241, section 6",
        splits_backward=True,
        chunks_fixed=2,
        folded=True,
        aliases=("zbv-zero-bubble", "zero-bubble-v"),
    ),
    Schedule(
        name="dualpipe",
        summary="microbatches enter at both ends; a forward and a backward pass share a block and hide each other's "
        "communication",
        source="DeepSeek-AI 2024, arXiv 2412.19437, section 3.2.1",
        splits_backward=True,
        copies=2,
    ),
    Schedule(
        name="dualpipev",
        summary="one half of dualpipe, its two chunks a device placed as a V: one copy of the parameters",
        source="Sea AI Lab 2025, DualPipe cut in half; the order of DeepSeek's DualPipeV",
        splits_backward=True,
        chunks_fixed=2,
        folded=True,
        aliases=("cut-in-half",),
    ),
)
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


def find_schedule(name: str) -> Schedule:
    """The schedule of a name or an alias; case, hyphens and underscores do not matter.

    >>> find_schedule("ZB_H1").name, find_schedule("PipeDream-Flush").name
    ('zb-h1', '1f1b')

    Raises:
        ScheduleError: there is none of that name.
    """
    if not isinstance(name, str):
        raise ScheduleError(f"a schedule is named by text, not by {type(name).__name__}", expected="for example 1f1b")
    wanted = _folded_name(name)
    for schedule in SCHEDULES:
        if wanted in {_folded_name(known) for known in (schedule.name, *schedule.aliases)}:
            return schedule
    known = [*schedule_names(), *(alias for schedule in SCHEDULES for alias in schedule.aliases)]
    hint = did_you_mean(name, known)
    if not hint.startswith("did"):
        hint = f"known: {', '.join(schedule_names())}"
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
    if schedule.name == "interleaved" and microbatches % stages:
        _refuse_groups(stages, microbatches)
    if schedule.name == "dualpipe":
        _check_dualpipe(stages, microbatches)
    if schedule.name == "dualpipev" and microbatches < 2 * stages:
        message = f"schedule `dualpipev` wants at least two microbatches a stage: {2 * stages}, not {microbatches}"
        fewer = f", or at most {_count(microbatches // 2, 'stage')}" if microbatches > 1 else ""
        raise ScheduleError(message, expected=f"{2 * stages} microbatches{fewer}")
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


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _check_chunks(schedule: Schedule, chunks: int) -> None:
    fixed = schedule.chunks_fixed
    if fixed is None:
        if chunks == 1:
            message = f"schedule `{schedule.name}` interleaves at least 2 chunks a stage, not 1"
            raise ScheduleError(message, expected="2 chunks a stage, or the schedule `1f1b`")
        return
    if chunks != fixed:
        other = "1f1b" if chunks == 1 else "interleaved"
        message = f"schedule `{schedule.name}` holds {_count(fixed, 'chunk')} of the model a stage, not {chunks}"
        raise ScheduleError(message, expected=f"{_count(fixed, 'chunk')}, or the schedule `{other}`")


def _refuse_groups(stages: int, microbatches: int) -> None:
    near = " or ".join(str(count) for count in nearest_multiples(microbatches, stages))
    others = " or ".join(str(divisor) for divisor in nearest_divisors(microbatches, stages) if divisor > 1)
    message = f"schedule `interleaved` takes microbatches in groups of {stages} stages, not {microbatches}"
    raise ScheduleError(message, expected=f"{near} microbatches" + (f", or {others} stages" if others else ""))


def _check_dualpipe(stages: int, microbatches: int) -> None:
    if stages % 2:
        near = " or ".join(str(count) for count in (stages - 1, stages + 1) if count)
        raise ScheduleError(f"schedule `dualpipe` wants an even number of stages, not {stages}", expected=near)
    if microbatches < 2 * stages:
        message = f"schedule `dualpipe` wants at least two microbatches a stage: {2 * stages}, not {microbatches}"
        fewer = f", or at most {microbatches // 4 * 2} stages" if microbatches >= 4 else ""
        raise ScheduleError(message, expected=f"{2 * stages} microbatches{fewer}")
    if microbatches % 2:
        message = f"schedule `dualpipe` wants an even number of microbatches, half from either end, not {microbatches}"
        below = microbatches - 1
        raise ScheduleError(message, expected=f"{below} or {below + 2}" if below >= 2 * stages else f"{below + 2}")


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
