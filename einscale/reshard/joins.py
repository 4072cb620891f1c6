"""Make a reshard small and nameless: digits that always move together become one, then all are renumbered.

Two questions that differ only in the names of axes get the same key, so one search answers both.
"""

from __future__ import annotations

from einscale.reshard.moves import Dims, State, digits_in, mask_of

FEW = 4
"""With no more digits than this nothing is glued: the search is small and stays exact."""

Places = dict[int, tuple[int, int]]


Small = tuple[State, State, tuple[tuple[int, ...], ...]]
"""(source, target, per digit the radices of the digits it stands for), in new digits."""


def shrink(
    source: State, target: State, radices: tuple[int, ...], *, idle: bool, apart: int = 0
) -> tuple[Small, tuple[tuple[int, ...], ...]]:
    """The question in new digits, and for each new digit the old ones it stands for, major to minor.

    Idle digits, in neither layout, are kept if asked for: the replicas they make can share the work of a move. Digits
    in the set `apart` are not glued to others.
    """
    named = mask_of(d for dims in (source[0], target[0]) for dim in dims for d in dim) | source[1] | target[1]
    relevant = digits_in((1 << len(radices)) - 1 if idle else named)
    runs = _runs(source, target, radices, relevant, apart) if len(relevant) > FEW else [(d,) for d in relevant]
    head = {run[0]: run for run in runs}
    order = dict.fromkeys(
        digit
        for digits in (*source[0], digits_in(source[1]), *target[0], digits_in(target[1]), relevant)
        for digit in digits
        if digit in head
    )
    new = {old: k for k, old in enumerate(order)}
    groups = tuple(head[old] for old in order)
    factors = tuple(tuple(radices[digit] for digit in run) for run in groups)
    return (_renumbered(source, new), _renumbered(target, new), factors), groups


def _renumbered(state: State, new: dict[int, int]) -> State:
    dims = tuple(tuple(new[d] for d in dim if d in new) for dim in state[0])
    return dims, mask_of(new[d] for d in digits_in(state[1]) if d in new)


def grown(state: State, groups: tuple[tuple[int, ...], ...]) -> State:
    """A state in new digits, written in the old ones again."""
    dims, owed = state
    return (
        tuple(tuple(old for digit in dim for old in groups[digit]) for dim in dims),
        mask_of(old for digit in digits_in(owed) for old in groups[digit]),
    )


def _runs(
    source: State, target: State, radices: tuple[int, ...], relevant: tuple[int, ...], apart: int
) -> list[tuple[int, ...]]:
    """Cut the digits into runs that neither layout, nor the lining up of the two, separates."""
    places = [_places(source[0]), _places(target[0])]
    follower: dict[int, int] = {}
    for digit in relevant:
        following = _next(digit, (source, target), places, relevant)
        if following is not None and (apart >> digit & 1) == (apart >> following & 1):
            follower[digit] = following
    _align(follower, source[0], target[0], radices)
    followed = set(follower.values())
    runs = []
    for digit in relevant:
        if digit not in followed:
            run = [digit]
            while run[-1] in follower:
                run.append(follower[run[-1]])
            runs.append(tuple(run))
    return runs


def _places(dims: Dims) -> Places:
    return {digit: (d, k) for d, dim in enumerate(dims) for k, digit in enumerate(dim)}


def _next(digit: int, states: tuple[State, State], places: list[Places], relevant: tuple[int, ...]) -> int | None:
    """The digit that comes right after this one wherever this one is, if there is one."""
    found: int | None = None
    for (dims, _), place in zip(states, places, strict=True):
        if digit in place:
            d, k = place[digit]
            if k + 1 == len(dims[d]):
                return None
            if found is not None and found != dims[d][k + 1]:
                return None
            found = dims[d][k + 1]
    if found is None:
        found = digit + 1 if digit + 1 in relevant else None
        if found is None or any(found in place for place in places):
            return None
    for (_, owed), place in zip(states, places, strict=True):
        if (owed >> digit & 1) != (owed >> found & 1) or (digit in place) != (found in place):
            return None
    return found


def _align(follower: dict[int, int], one: Dims, other: Dims, radices: tuple[int, ...]) -> None:
    """Unglue where the other layout has a boundary at the same cumulative size inside the same dim."""
    changed = True
    while changed:
        changed = False
        for first, second in ((one, other), (other, one)):
            for dim, opposite in zip(first, second, strict=True):
                if dim == opposite:
                    continue
                cuts = _cuts(opposite, follower, radices)
                size = 1
                for digit in dim:
                    size *= radices[digit]
                    if digit in follower and size in cuts:
                        del follower[digit]
                        changed = True


def _cuts(dim: tuple[int, ...], follower: dict[int, int], radices: tuple[int, ...]) -> set[int]:
    cuts = set()
    size = 1
    for digit in dim:
        size *= radices[digit]
        if digit not in follower:
            cuts.add(size)
    return cuts
