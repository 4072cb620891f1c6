"""Places of a long run at which its cost is worked out, and for how many others each of them stands.

Time is nearly linear in the context. So a short run is worked out where it bends, with straight lines between: a few
prices of one pass each, and no numpy. A long one is worked out on arrays: at every place, or at a few thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from msgspec import Struct

from einscale.numeric import Number, is_array

SHORT = 512
"""Decode steps of a run that is worked out where it bends: usual answers need no numpy, whose import takes longer."""

FEW_CHUNKS = 32
"""The same of chunks of a prompt, each of which is looked at alone more dearly."""

MOST = 2048
"""Places that are worked out at most: a run of so many, or fewer, is exact if it is not short."""

TOLERANCE = 1e-4
"""How far a cost in the middle of a stretch may be off the straight line for the stretch to count as straight."""


class Places(Struct, frozen=True):
    """Whole numbers from a first to a last one, and for how many each of those worked out stands.

    Args:
        at: the places worked out, in order, the first and the last among them.
        weights: how many places each stands for, on straight lines; they add up to all.
    """

    at: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def count(self) -> int:
        """How many places there are, worked out or not."""
        return self.at[-1] - self.at[0] + 1

    def total(self, values: Number) -> Number:
        """Sum over all places of an array of those worked out; a number is the same at all of them."""
        if not is_array(values):
            return values * self.count
        import numpy as np

        found: Number = (values * np.array(self.weights)).sum().item()
        return found

    def expanded(self, values: Sequence[float]) -> list[float]:
        """The value at all places."""
        found: list[float] = []
        for (low, at_low), (high, at_high) in pairwise(zip(self.at, values, strict=True)):
            slope = (at_high - at_low) / (high - low)
            found += [at_low + slope * step for step in range(high - low)]
        return [*found, values[-1]]


def standing(at: Sequence[int]) -> Places:
    """Places with straight lines between.

    >>> standing((1, 2, 3)).weights, standing((1, 4)).weights
    ((1.0, 1.0, 1.0), (2.0, 2.0))
    """
    weights = [0.0] * len(at)
    weights[-1] = 1.0
    for number, (low, high) in enumerate(pairwise(at)):  # from one to before the next
        weights[number] += (high - low + 1) / 2
        weights[number + 1] += (high - low - 1) / 2
    return Places(tuple(at), tuple(weights))


def places(first: int, last: int, most: int = MOST) -> Places:
    """Places from first to last, at most so many of them worked out, evenly spaced.

    >>> places(3, 6).at, places(0, 9, most=4).at
    ((3, 4, 5, 6), (0, 3, 6, 9))
    """
    count = last - first + 1
    if count <= most:
        return standing(range(first, last + 1))
    return standing(tuple(dict.fromkeys(first + (count - 1) * number // (most - 1) for number in range(most))))


def bends(seconds: Callable[[int], float], first: int, last: int) -> Places:
    """Places from first to last between which a cost is a straight line to within `TOLERANCE`.

    >>> bends(lambda n: max(1.0, n / 70), 1, 200).at  # bends at 70
    (1, 25, 50, 56, 62, 65, 68, 69, 70, 71, 73, 75, 87, 100, 150, 200)
    """
    known: dict[int, float] = {}

    def at(place: int) -> float:
        if place not in known:
            known[place] = seconds(place)
        return known[place]

    def refine(low: int, high: int, *, always: bool) -> None:
        middle = (low + high) // 2
        if middle == low:
            return
        straight, exact = at(low) + (at(high) - at(low)) * (middle - low) / (high - low), at(middle)
        if always or abs(straight - exact) > TOLERANCE * exact:
            refine(low, middle, always=False)
            refine(middle, high, always=False)

    at(first)
    at(last)
    refine(first, last, always=True)
    return standing(sorted(known))
