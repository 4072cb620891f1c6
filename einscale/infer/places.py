"""Places of a long run at which its cost is worked out: all of them, or evenly spaced ones with straight lines between.

Time is nearly linear in the context, so that a few thousand places say it of millions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from einscale.numeric import Number, is_array

MOST = 2048
"""Places that are worked out: a run of so many, or fewer, is exact."""


class Places(Struct, frozen=True):
    """Whole numbers from a first to a last one, and for how many each of those worked out stands.

    Args:
        at: the places worked out, in order, the first and the last among them.
        weights: how many places each stands for; they add up to all.
    """

    at: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def count(self) -> int:
        """How many places there are, worked out or not."""
        return self.at[-1] - self.at[0] + 1

    @property
    def exact(self) -> bool:
        """Whether all are worked out."""
        return len(self.at) == self.count

    def total(self, values: Number) -> Number:
        """Sum over all places of a value that is given at those worked out; a number is the same at all of them."""
        if not is_array(values):
            return values * self.count
        return (values.sum() if self.exact else (values * _column(self.weights)).sum()).item()

    def expanded(self, values: Sequence[float]) -> Sequence[float]:
        """The value at all places."""
        if self.exact:
            return values
        import numpy as np

        every: Sequence[float] = np.interp(range(self.at[0], self.at[-1] + 1), self.at, values).tolist()
        return every


def places(first: int, last: int, most: int = MOST) -> Places:
    """Places from first to last, at most so many of them worked out.

    >>> places(3, 6), places(0, 9, most=4).at, round(places(0, 9, most=4).total(places(0, 9, most=4).at[0] * 0 + 2), 9)
    (Places(at=(3, 4, 5, 6), weights=(1.0, 1.0, 1.0, 1.0)), (0, 3, 6, 9), 20)
    """
    count = last - first + 1
    if count <= most:
        return Places(tuple(range(first, last + 1)), (1.0,) * count)
    at = tuple(dict.fromkeys(first + (count - 1) * number // (most - 1) for number in range(most)))
    weights = [0.0] * len(at)
    weights[-1] = 1.0
    for number, (low, high) in enumerate(pairwise(at)):  # the straight line from one to before the next
        weights[number] += (high - low + 1) / 2
        weights[number + 1] += (high - low - 1) / 2
    return Places(at, tuple(weights))


def _column(values: Sequence[float]) -> Number:
    import numpy as np

    return np.array(values)
