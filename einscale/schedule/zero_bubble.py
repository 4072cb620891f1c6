"""zb-h1, zb-h2 and zb-v: the gradients of weights are tasks of their own, put off until a device would idle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.schedule.row import Even, Schedule
from einscale.schedule.tasks import B, F, Lane, W, alternating, passes

if TYPE_CHECKING:
    from einscale.schedule.tasks import Order, Tasks


def _delayed(stages: int, microbatches: int, factor: int) -> Order:
    # a stage i hops from the first delays its W by as many passes as its warm-up is shorter than the first's: every
    # stage keeps the same number of microbatches, and the tail has W left to fill it
    return tuple(
        alternating(
            passes(F, stage, microbatches),
            passes(B, stage, microbatches),
            factor * (stages - 1 - stage),
            factor * stage,
        )
        for stage in range(stages)
    )


def _h1(stages: int, microbatches: int, chunks: int) -> Order:
    return _delayed(stages, microbatches, 1)


def _h2(stages: int, microbatches: int, chunks: int) -> Order:
    return _delayed(stages, microbatches, 2)


def _v(stages: int, microbatches: int, chunks: int) -> Order:
    return tuple(_v_device(stages, microbatches, device) for device in range(stages))


def _v_device(stages: int, microbatches: int, device: int) -> Tasks:
    lane = Lane(((device, 0), (2 * stages - 1 - device, 0)))
    count = max(2 * stages - 1, microbatches)  # written for a full pipeline; microbatches that are not there drop out

    def backward(chunk: int) -> None:
        lane.run(B, chunk)
        lane.run(W, chunk)

    for _ in range(2 * (stages - device) - 1):
        lane.forward(0)
    for _ in range(device):
        lane.forward(1)
        lane.forward(0)
    for _ in range(stages - device):
        lane.forward(1)
        backward(1)
    started, turned = 2 * stages - 1 - device, stages
    while turned < started or started < count:
        if started < count:
            lane.forward(0)
            started += 1
        backward(0)
        lane.forward(1)
        turned += 1
        backward(1)
    for _ in range(device):
        lane.run(B, 0)
        lane.run(B, 1)
    for _ in range(stages - device):
        lane.run(B, 0)
        lane.run(W, 0)
    for chunk in (1, 0):
        for _ in range(device):
            lane.run(W, chunk)
    return tuple(task for task in lane.tasks if task.microbatch < microbatches)


def _h1_bubble(even: Even) -> float:
    """(p-1) max(F, B, F+B-W); Qi et al. 2024, table 2, give (p-1)(F+B-W)."""
    slant = even.forward if even.barrier else 0
    return (even.stages - 1) * max(slant, even.inputs, even.forward + even.inputs - even.weight)


def _h2_bubble(even: Even) -> float:
    """(p-1) max(0, B-F, F+B-2W), Qi et al. (p-1)(F+B-2W); with a barrier at least the warm-up's slant, (p-1)F."""
    slant = even.forward if even.barrier else 0
    return (even.stages - 1) * max(slant, even.inputs - even.forward, even.forward + even.inputs - 2 * even.weight)


def _v_bubble(even: Even) -> float:
    """With a barrier a + (p-2) max(W, a), a = max(B, 2(B-W)); without one (p-1) max(2(B-W), B-F).

    Without a barrier none is left for F = B = W: Qi et al., section 6.
    """
    if not even.barrier:
        return (even.stages - 1) * max(2 * (even.inputs - even.weight), even.inputs - even.forward)
    first = max(even.inputs, 2 * (even.inputs - even.weight))
    return first + (even.stages - 2) * max(even.weight, first) if even.stages > 1 else 0


def _h1_outside(even: Even) -> str | None:
    if even.microbatches < even.stages:
        return f"zb-h1 has a closed form from {even.stages} microbatches on, one a stage"
    return None


def _twice(name: str, even: Even) -> str | None:
    least = 2 * even.stages - 1
    if even.microbatches < least:
        return f"{name} has a closed form from {least} microbatches on, two a stage but one"
    return None


def _h2_outside(even: Even) -> str | None:
    return _twice("zb-h2", even)


def _v_outside(even: Even) -> str | None:
    few = _twice("zb-v", even)
    if few is not None:
        return few
    if even.forward > even.inputs:
        return "zb-v has a closed form where a forward pass takes no longer than the gradients of inputs"
    if not even.barrier and even.weight > even.inputs:
        return "zb-v has a closed form without barrier where the gradients of weights take no longer than of inputs"
    return None


ZB_H1 = Schedule(
    name="zb-h1",
    summary="1f1b whose gradients of weights wait until they fill the bubble; activations as in 1f1b's first stage",
    source="Qi et al. 2024, arXiv 2401.10241, section 2.1; memory in section 2.3",
    order=_h1,
    bubble=_h1_bubble,
    bubble_text="(p-1) max(F, B-W, F+B-2W)",
    in_flight=lambda p, m, v, i: (p - i, p),
    in_flight_text="min(m, p)",
    outside=_h1_outside,
    splits_backward=True,
    aliases=("zb1p", "zero-bubble", "zero-bubble-h1"),
)

ZB_H2 = Schedule(
    name="zb-h2",
    summary="zb-h1 with a warm-up twice as long: nearly no bubble for nearly twice the activations",
    source="Qi et al. 2024, arXiv 2401.10241, section 2.2; memory in section 2.3",
    order=_h2,
    bubble=_h2_bubble,
    bubble_text="(p-1) max(F, B-W-F, F+B-3W)",
    in_flight=lambda p, m, v, i: (2 * (p - 1 - i) + 1, 2 * p - 1),
    in_flight_text="min(m, 2p-1)",
    outside=_h2_outside,
    splits_backward=True,
    aliases=("zb2p", "zero-bubble-h2"),
)

ZB_V = Schedule(
    name="zb-v",
    summary="two chunks a device, placed as a V: nearly no bubble for the activations of 1f1b's first stage",
    source="Qi et al. 2024, arXiv 2401.10241, section 6",
    order=_v,
    bubble=_v_bubble,
    bubble_text="a + (p-2) max(W, a), a = max(B-W, 2(B-2W))",
    in_flight=lambda p, m, v, i: (min(m + min(m, i + 1), 2 * p),) * 2,
    in_flight_text="min(2m, m + min(m, i+1), 2p)",
    outside=_v_outside,
    splits_backward=True,
    chunks_fixed=2,
    folded=True,
    aliases=("zbv-zero-bubble", "zero-bubble-v"),
)

ZERO_BUBBLE = (ZB_H1, ZB_H2, ZB_V)
"""Schedules that put gradients of weights off until a device would idle."""
