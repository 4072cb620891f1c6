"""A cost at every length of the context, from its values at a few: time is nearly linear in the context."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from einscale.infer.values import Spent

TOLERANCE = 1e-4
"""How far a cost in the middle of a stretch may be off the straight line for the stretch to count as straight."""


def curve(cost: Callable[[int], Spent], first: int, last: int) -> tuple[tuple[int, Spent], ...]:
    """Places from first to last, and costs there, between which the cost is a straight line to within `TOLERANCE`.

    >>> [place for place, _ in curve(lambda n: Spent(compute=max(1.0, n / 70)), 1, 200)]  # bends at 70
    [1, 25, 50, 56, 62, 65, 68, 69, 70, 71, 73, 75, 87, 100, 150, 200]
    """
    known: dict[int, Spent] = {}

    def at(place: int) -> Spent:
        if place not in known:
            known[place] = cost(place)
        return known[place]

    def refine(low: int, high: int, *, always: bool) -> None:
        middle = (low + high) // 2
        if middle == low:
            return
        straight, exact = between(low, at(low), high, at(high), middle).seconds, at(middle).seconds
        if always or abs(straight - exact) > TOLERANCE * exact:
            refine(low, middle, always=False)
            refine(middle, high, always=False)

    at(first)
    at(last)
    refine(first, last, always=True)
    return tuple(sorted(known.items()))


def between(low: int, at_low: Spent, high: int, at_high: Spent, place: int) -> Spent:
    """The straight line between two places, at a third."""
    share = (place - low) / (high - low)
    return at_low.times(1 - share).plus(at_high.times(share))


def summed(points: tuple[tuple[int, Spent], ...]) -> Spent:
    """Sum over every whole place, of the straight lines between the places known.

    >>> summed(((1, Spent(compute=1.0)), (4, Spent(compute=4.0)))).seconds
    10.0
    """
    result = points[-1][1]
    for (low, at_low), (high, at_high) in pairwise(points):
        count = high - low
        result = result.plus(at_low.times((count + 1) / 2)).plus(at_high.times((count - 1) / 2))
    return result


def expanded(points: tuple[tuple[int, Spent], ...]) -> tuple[Spent, ...]:
    """The cost at every whole place."""
    result = []
    for (low, at_low), (high, at_high) in pairwise(points):
        result += [between(low, at_low, high, at_high, place) for place in range(low, high)]
    return (*result, points[-1][1])
