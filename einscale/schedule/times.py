"""Seconds of passes, one number or one for each chunk of the model, and whether they can be."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from einscale.errors import ScheduleError
from einscale.schedule.tasks import B, F

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from einscale.numeric import Number
    from einscale.schedule.compiled import CompiledOrder
    from einscale.schedule.machine import Arithmetic


def within(value: Number, least: float, most: float) -> bool:
    """Whether something is a number, of whatever type, from `least` to `most`; of an array, whether all of it is."""
    try:
        if getattr(value, "ndim", 0):
            return bool(((least <= value) & (value <= most)).all())
        return bool(least <= value <= most)
    except (TypeError, ValueError):
        return False


def per_chunk(values: Number | Sequence[Number], count: int, what: str) -> Sequence[Number]:
    """One value for each chunk.

    Raises:
        ScheduleError: as many values as no pipeline of `count` chunks has.
    """
    if isinstance(values, (int, float)) or not hasattr(values, "__len__"):
        return (values,) * count  # a number, or an array of no dimension
    if len(values) != count:
        raise ScheduleError(f"`{what}` has {len(values)} values for {count} chunks of the model")
    return values


def check_times(
    forwards: Sequence[Number], backwards: Sequence[Number], weights: Sequence[Number], overlap: float = 0
) -> None:
    """Refuse times that cannot be.

    Raises:
        ScheduleError: negative, infinite or no number; more time for the gradients of weights than for all.
    """
    for values, what in ((forwards, "forward"), (backwards, "backward"), (weights, "weight")):
        for chunk, value in enumerate(values):
            if not within(value, 0, sys.float_info.max):
                raise ScheduleError(f"`{what}` of chunk {chunk} cannot take {value} seconds")
    for chunk, (backward, weight) in enumerate(zip(backwards, weights, strict=True)):
        worse = weight > backward
        if getattr(worse, "ndim", 0):
            worse = worse.any()
        if worse:
            message = (
                f"the gradients of weights take {weight} of {backward} seconds of the backward pass of chunk {chunk}"
            )
            raise ScheduleError(message, expected="`backward` to be the whole pass, `weight` a part of it")
    if not within(overlap, 0, 1):
        raise ScheduleError(f"`overlap` is a share of the shorter pass, from 0 to 1, not {overlap}")


def durations(
    compiled: CompiledOrder,
    arithmetic: Arithmetic,
    forward: Number | Sequence[Number],
    backward: Number | Sequence[Number],
    weight: Number | Sequence[Number],
    *,
    send: Number = 0,
    overlap: float = 0,
) -> list[Number]:
    """Seconds of every kind of task of an order; kinds whose seconds are the same values share one.

    Raises:
        ScheduleError: times that cannot be, or not as many as there are chunks.
    """
    chunks = 1 + max((max(key[1], key[2]) for key in compiled.durations), default=0)
    forwards = per_chunk(forward, chunks, "forward")
    backwards = per_chunk(backward, chunks, "backward")
    weights = per_chunk(weight, chunks, "weight")
    check_times(forwards, backwards, weights, overlap)
    if not within(send, 0, sys.float_info.max):
        raise ScheduleError(f"a hop cannot take {send} seconds")
    rests: dict[tuple[int, int], Number] = {}
    pairs: dict[tuple[int, int], Number] = {}

    def inputs_of(chunk: int) -> Number:
        key = (id(backwards[chunk]), id(weights[chunk]))
        if key not in rests:
            rests[key] = backwards[chunk] - weights[chunk]
        return rests[key]

    seconds: list[Number] = []
    for kind, chunk, other, whole in compiled.durations:
        back = other if kind == "FB" else chunk
        inputs = backwards[back] if whole else inputs_of(back)
        if kind == "FB":
            key = (id(forwards[chunk]), id(inputs))
            if key not in pairs:
                hidden = overlap * arithmetic.smaller(forwards[chunk], inputs)
                pairs[key] = forwards[chunk] + inputs - hidden
            seconds.append(pairs[key])
        else:
            seconds.append(forwards[chunk] if kind == F else inputs if kind == B else weights[chunk])
    return seconds


def busy_seconds(runs: Sequence[Mapping[int, Number]], seconds: Sequence[Number]) -> list[Number]:
    """Per device, what its tasks take: how often each kind runs, times its seconds."""
    return [sum(count * seconds[kind] for kind, count in device.items()) for device in runs]
