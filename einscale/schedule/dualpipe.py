"""dualpipe and dualpipev: a forward and a backward pass share a block and hide each other's communication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.errors import ScheduleError
from einscale.schedule.row import Even, Schedule, counted
from einscale.schedule.tasks import Lane

if TYPE_CHECKING:
    from einscale.schedule.tasks import Order, Tasks


def _both_ends(stages: int, microbatches: int, chunks: int) -> Order:
    half = microbatches // 2
    devices = []
    for device in range(stages):
        ends = ((device, 0), (stages - 1 - device, half))
        near = ends if device < stages // 2 else ends[::-1]  # lane 0 comes from the nearer end
        devices.append(_device(near, stages // 2, min(device, stages - 1 - device), half))
    return tuple(devices)


def _one_half(stages: int, microbatches: int, chunks: int) -> Order:
    return tuple(
        _device(((device, 0), (2 * stages - 1 - device, 0)), stages, device, microbatches) for device in range(stages)
    )


def _device(lanes: tuple[tuple[int, int], ...], depth: int, rank: int, microbatches: int) -> Tasks:
    """One device, `rank` hops from its end of a pipeline of `depth`; `microbatches` in either lane."""
    lane = Lane(lanes)
    outward = depth - rank - 1  # devices between this one and the middle
    for _ in range(2 * outward):
        lane.forward(0)
    for _ in range(rank + 1):
        lane.forward(0)
        lane.forward(1)
    for _ in range(outward):
        lane.backward(1, split=True)
        lane.weight()
        lane.forward(1)
    for turn in range(microbatches - 2 * depth + rank + 1):
        if turn == 0 and outward == 0:  # the middle devices run these two apart: the one waits for the other's input
            lane.forward(0)
            lane.backward(1)
        else:
            lane.block(0, 1)
        lane.block(1, 0)
    for _ in range(outward):
        lane.backward(1)
        lane.block(1, 0)
    for turn in range(2 * (rank + 1)):  # the second half puts its gradients of weights off
        lane.backward(1 - turn % 2, split=turn > rank)
    for _ in range(outward):
        lane.weight()
        lane.backward(0, split=True)
    for _ in range(rank + 1):
        lane.weight()
    return tuple(lane.tasks)


def _bubble(depth: int, even: Even) -> float:
    """Of the middle devices, which idle most; d devices from either end to the middle: p/2, or all p of one half.

    (d-1)(F&B - B - W + max(F, B) + max(0, B-W)) - min(F, (d-1) max(0, B-F)), F&B the time of a block; for F = B >= W
    that is DeepSeek-AI's (p/2-1)(F&B + (B+W) - 3W), table 2.
    """
    block = even.forward + even.backward - even.overlap * min(even.forward, even.backward)
    hop = block - even.backward + max(even.forward, even.inputs) + max(0, even.inputs - even.weight)
    return (depth - 1) * hop - min(even.forward, (depth - 1) * max(0, even.inputs - even.forward))


def _paired(depth: int, passes: int) -> int:
    """All but 2d+1 of a middle device's m forward and m backward passes run in blocks.

    That is one pair fewer than its neighbours, since in its first block one pass would wait for the other.
    """
    return passes - 2 * depth - 1


def _even_numbers(stages: int, microbatches: int) -> None:
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


def _two_a_stage(stages: int, microbatches: int) -> None:
    if microbatches < 2 * stages:
        message = f"schedule `dualpipev` wants at least two microbatches a stage: {2 * stages}, not {microbatches}"
        fewer = f", or at most {counted(microbatches // 2, 'stage')}" if microbatches > 1 else ""
        raise ScheduleError(message, expected=f"{2 * stages} microbatches{fewer}")


DUALPIPE = Schedule(
    name="dualpipe",
    summary="microbatches enter at both ends; a forward and a backward pass share a block and hide each other's "
    "communication",
    source="DeepSeek-AI 2024, arXiv 2412.19437, section 3.2.1",
    order=_both_ends,
    bubble=lambda even: _bubble(even.stages // 2, even),
    bubble_text="(p/2-1)(F + max(F, B-W) + max(0, B-2W)) - min(F, (p/2-1) max(0, B-W-F))",
    in_flight=lambda p, m, v, i: (p + 1, p + 1),
    in_flight_text="min(m, p+1)",
    refuse=_even_numbers,
    period=lambda p: 2,
    paired=lambda p, passes: _paired(p // 2, passes),
    splits_backward=True,
    copies=2,
)

DUALPIPEV = Schedule(
    name="dualpipev",
    summary="one half of dualpipe, its two chunks a device placed as a V: one copy of the parameters",
    source="Sea AI Lab 2025, DualPipe cut in half; the order of DeepSeek's DualPipeV",
    order=_one_half,
    bubble=lambda even: _bubble(even.stages, even),
    bubble_text="(p-1)(F + max(F, B-W) + max(0, B-2W)) - min(F, (p-1) max(0, B-W-F))",
    in_flight=lambda p, m, v, i: (2 * p + 1, 2 * p + 1),
    in_flight_text="min(2m, 2p+1)",
    refuse=_two_a_stage,
    paired=_paired,
    splits_backward=True,
    chunks_fixed=2,
    folded=True,
    aliases=("cut-in-half",),
)

DUAL = (DUALPIPE, DUALPIPEV)
"""Schedules whose forward and backward passes share blocks."""
