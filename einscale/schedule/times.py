"""Seconds of passes, one number or one for each chunk of the model, and whether they can be."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from einscale.errors import ScheduleError

if TYPE_CHECKING:
    from collections.abc import Sequence


def within(value: float, least: float, most: float) -> bool:
    """Whether something is a number, of whatever type, from `least` to `most`."""
    try:
        return bool(least <= value <= most)
    except (TypeError, ValueError):
        return False


def per_chunk(values: float | Sequence[float], count: int, what: str) -> Sequence[float]:
    """One value for each chunk.

    Raises:
        ScheduleError: as many values as no pipeline of `count` chunks has.
    """
    if isinstance(values, (int, float)) or not hasattr(values, "__len__"):
        return (values,) * count  # type: ignore[return-value]  # a number, or an array of no dimension
    if len(values) != count:
        raise ScheduleError(f"`{what}` has {len(values)} values for {count} chunks of the model")
    return values


def check_times(
    forwards: Sequence[float], backwards: Sequence[float], weights: Sequence[float], overlap: float = 0
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
        if weight > backward:
            message = (
                f"the gradients of weights take {weight} of {backward} seconds of the backward pass of chunk {chunk}"
            )
            raise ScheduleError(message, expected="`backward` to be the whole pass, `weight` a part of it")
    if not within(overlap, 0, 1):
        raise ScheduleError(f"`overlap` is a share of the shorter pass, from 0 to 1, not {overlap}")
