"""The moves worth trying from a layout towards a target, in digits.

A state is (dims, owed): per dim a tuple of digits, and the set of digits over which a sum is owed, as a bit mask. Every
function yields (kind, digits moved, state after). Only moves that can lie on a cheapest path are made: a digit in its
right place stays there, except in a permute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from math import prod

from einscale.collectives import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, MASK, PERMUTE, REDUCE_SCATTER, SLICE
from einscale.digits import changed
from einscale.vocabulary import CollectiveKind

Dims = tuple[tuple[int, ...], ...]
State = tuple[Dims, int]
Move = tuple[CollectiveKind, tuple[int, ...], State]

FUSED_CHOICES = 24
"""Most choices of what leaves which dim that a fused all-to-all tries."""

FILLS = 6
"""Most ways to fill the places of a permute that the target does not name."""


class Goal:
    """A target layout and what the moves need to know about it.

    Args:
        dims, owed: the target.
        radices: of every digit.
        room: per dim, the number that its shard count has to divide.
        parts: sets of digits, as bit masks, worth all-reducing apart from the others (one per network level).
    """

    __slots__ = ("dims", "every", "owed", "parts", "radices", "room", "wanted")

    def __init__(
        self, dims: Dims, owed: int, radices: tuple[int, ...], room: tuple[int, ...], parts: tuple[int, ...] = ()
    ) -> None:
        """Collect the digits that the target has in a dim."""
        self.dims = dims
        self.owed = owed
        self.radices = radices
        self.room = room
        self.parts = parts
        self.every = (1 << len(radices)) - 1
        self.wanted = mask_of(digit for dim in dims for digit in dim)


def mask_of(digits: Iterable[int]) -> int:
    """A set of digits as a bit mask."""
    result = 0
    for digit in digits:
        result |= 1 << digit
    return result


def digits_in(mask: int) -> tuple[int, ...]:
    """The digits of a bit mask, ascending."""
    result = []
    digit = 0
    while mask:
        if mask & 1:
            result.append(digit)
        mask >>= 1
        digit += 1
    return tuple(result)


def size_of(digits: tuple[int, ...], radices: tuple[int, ...]) -> int:
    """Product of the digits' radices."""
    result = 1
    for digit in digits:
        result *= radices[digit]
    return result


def agreed(dims: Dims, goal: Goal) -> list[int]:
    """Per dim, how many leading digits are the target's."""
    result = []
    for dim, wanted in zip(dims, goal.dims, strict=True):
        k = 0
        for a, b in zip(dim, wanted, strict=False):
            if a != b:
                break
            k += 1
        result.append(k)
    return result


def moves(state: State, goal: Goal) -> list[Move]:
    """Every move worth trying from a state; where a free move is surely right it is the only one."""
    dims, owed = state
    used = mask_of(digit for dim in dims for digit in dim)
    prefix = agreed(dims, goal)
    free = goal.every & ~(used | owed)
    forced = _forced(state, goal, prefix, free)
    if forced is not None:
        return [forced]
    result = list(_gathers(state, prefix))
    result += _exchanges(state, goal, prefix)
    result += _reductions(state, goal, prefix)
    result += _permutes(state, goal, prefix, free)
    result += _helpers(state, goal, free)
    masked = free & goal.owed
    if masked:
        result.append((MASK, digits_in(masked), (dims, owed | masked)))
    return result


def _forced(state: State, goal: Goal, prefix: list[int], free: int) -> Move | None:
    """Slices that put free digits where the target wants them."""
    dims, owed = state
    new = list(dims)
    taken: list[int] = []
    for d, (dim, wanted) in enumerate(zip(dims, goal.dims, strict=True)):
        if prefix[d] < len(dim):
            continue
        stop = len(dim)
        while stop < len(wanted) and free >> wanted[stop] & 1:
            stop += 1
        if stop > len(dim):
            new[d] = wanted[:stop]
            taken += wanted[len(dim) : stop]
    return (SLICE, tuple(taken), (tuple(new), owed)) if taken else None


def _gathers(state: State, prefix: list[int]) -> Iterator[Move]:
    """Gathers of every suffix that is out of place, dim by dim, and of all of them at once."""
    dims, owed = state
    off = [d for d, dim in enumerate(dims) if len(dim) > prefix[d]]
    for d in off:
        dim = dims[d]
        for stop in range(prefix[d], len(dim)):
            yield ALL_GATHER, dim[stop:], ((*dims[:d], dim[:stop], *dims[d + 1 :]), owed)
    if len(off) > 1:
        gone = tuple(digit for d in off for digit in dims[d][prefix[d] :])
        yield ALL_GATHER, gone, (tuple(dim[:k] for dim, k in zip(dims, prefix, strict=True)), owed)


def _exchanges(state: State, goal: Goal, prefix: list[int]) -> Iterator[Move]:
    """Fused all-to-alls: from each losing dim a suffix, each digit to where it is wanted, the rest to one tail."""
    dims, _ = state
    off = [d for d, dim in enumerate(dims) if len(dim) > prefix[d]]
    if not off or len(dims) < 2:
        return
    choices = [[len(dims[d]), *range(prefix[d], len(dims[d]))] for d in off]
    if prod(len(stops) for stops in choices) > FUSED_CHOICES:
        choices = [[len(dims[d]), *_useful_stops(dims[d], prefix[d], goal)] for d in off]
    for made, stops in enumerate(product(*choices)):
        if made > FUSED_CHOICES:
            return
        leaving = {d: dims[d][stop:] for d, stop in zip(off, stops, strict=True) if stop < len(dims[d])}
        if leaving:
            yield from _arrivals(state, goal, prefix, leaving)


def _useful_stops(dim: tuple[int, ...], start: int, goal: Goal) -> list[int]:
    """Where to cut a dim: before everything out of place, or before the first digit that another dim wants."""
    stops = [start]
    for k in range(start, len(dim)):
        if goal.wanted >> dim[k] & 1:
            if k > start:
                stops.append(k)
            break
    return stops


def _arrivals(state: State, goal: Goal, prefix: list[int], leaving: dict[int, tuple[int, ...]]) -> Iterator[Move]:
    """The all-to-alls of given leaving digits."""
    dims, owed = state
    moving = tuple(digit for digits in leaving.values() for digit in digits)
    new = [dim[: len(dim) - len(leaving.get(d, ()))] for d, dim in enumerate(dims)]
    pending = mask_of(moving)
    pending = _settle(new, goal, prefix, pending, leaving)
    if not pending:
        yield ALL_TO_ALL, moving, (tuple(new), owed)
        return
    shaped, left = _shaped(new, goal, pending, leaving)
    if not left:
        yield ALL_TO_ALL, moving, (shaped, owed)
    rest = tuple(d for d in moving if pending >> d & 1)
    rest = tuple(d for d in rest if not goal.wanted >> d & 1) + tuple(d for d in rest if goal.wanted >> d & 1)
    for tail in range(len(dims)):
        if tail not in leaving and goal.room[tail] % size_of(new[tail] + rest, goal.radices) == 0:
            after = list(new)
            after[tail] = after[tail] + rest
            yield ALL_TO_ALL, moving, (tuple(after), owed)


def _settle(
    new: list[tuple[int, ...]], goal: Goal, prefix: list[int], pending: int, leaving: dict[int, tuple[int, ...]]
) -> int:
    """Append pending digits to the dims where the target wants them next; the digits left over."""
    for d, wanted in enumerate(goal.dims):
        if d in leaving or prefix[d] < len(new[d]):
            continue
        stop = len(new[d])
        while stop < len(wanted) and pending >> wanted[stop] & 1:
            pending &= ~(1 << wanted[stop])
            stop += 1
        new[d] = wanted[:stop]
    return pending


def _shaped(
    dims: list[tuple[int, ...]], goal: Goal, pending: int, leaving: dict[int, tuple[int, ...]]
) -> tuple[Dims, int]:
    """Grow dims to the shard counts the target has, with its own digits where they pend and others elsewhere.

    A permute can then finish, and the more places are right already the fewer blocks it moves.
    """
    new = list(dims)
    left = pending
    for d, wanted in enumerate(goal.dims):
        for digit in wanted[len(dims[d]) :] if d not in leaving else ():
            left &= ~(1 << digit)
    spare = list(digits_in(left))
    unused = pending
    for d, wanted in enumerate(goal.dims):
        if d in leaving:
            continue
        for digit in wanted[len(dims[d]) :]:
            taken = digit
            if not unused >> digit & 1:
                fit = [other for other in spare if goal.radices[other] == goal.radices[digit]]
                if not fit:
                    break
                taken = fit[0]
                spare.remove(taken)
            unused &= ~(1 << taken)
            new[d] = (*new[d], taken)
    return tuple(new), unused


def _reductions(state: State, goal: Goal, prefix: list[int]) -> Iterator[Move]:
    """Reduce-scatters to where the owed digits are wanted, or to a tail to be gathered later; all-reduces."""
    dims, owed = state
    due = owed & ~goal.owed
    if not due:
        return
    placed = list(dims)
    rest = _settle(placed, goal, prefix, due, {})
    run = due & ~rest
    if run:
        yield REDUCE_SCATTER, digits_in(run), (tuple(placed), owed & ~run)
    shaped, left = _shaped(list(dims), goal, due, {})
    done = due & ~left
    if done != run:
        yield REDUCE_SCATTER, digits_in(done), (shaped, owed & ~done)
    parts = {rest, rest & goal.wanted, rest & ~goal.wanted, *(rest & part for part in goal.parts)} - {0}
    for part in sorted(parts):
        for tail in range(len(dims)):
            gone = _fitting(placed[tail], part, goal.room[tail], goal.radices)
            for tails in (gone, gone[::-1]) if len(gone) > 1 else (gone,) if gone else ():
                after = list(placed)
                after[tail] = after[tail] + tails
                done = run | mask_of(gone)
                yield REDUCE_SCATTER, digits_in(done), (tuple(after), owed & ~done)
    for part in sorted({due, due & ~goal.wanted, rest, *(due & part for part in goal.parts)} - {0}):
        yield ALL_REDUCE, digits_in(part), (dims, owed & ~part)


def _fitting(dim: tuple[int, ...], part: int, room: int, radices: tuple[int, ...]) -> tuple[int, ...]:
    """As many digits of a set as a dim can take besides its own."""
    count = size_of(dim, radices)
    result = []
    for digit in digits_in(part):
        if room % (count * radices[digit]) == 0:
            count *= radices[digit]
            result.append(digit)
    return tuple(result)


def _helpers(state: State, goal: Goal, free: int) -> Iterator[Move]:
    """Free slices of digits nobody wants here: the replicas share the work of a later move, and gather last."""
    dims, owed = state
    parts = {free & goal.wanted, free}
    if free & (free - 1):
        parts |= {1 << digit for digit in digits_in(free)}
    for part in sorted(parts - {0}):
        for tail in range(len(dims)):
            gone = _fitting(dims[tail], part, goal.room[tail], goal.radices)
            if gone:
                yield SLICE, gone, ((*dims[:tail], dims[tail] + gone, *dims[tail + 1 :]), owed)


def _permutes(state: State, goal: Goal, prefix: list[int], free: int) -> Iterator[Move]:
    """Permutes that put the target's leading digits in place, in all dims or in one."""
    dims, owed = state
    wrong = [d for d, dim in enumerate(dims) if len(dim) > prefix[d] < len(goal.dims[d])]
    seen = {dims}
    if not wrong:
        return
    choices = [tuple(range(len(dims)))]
    if len(wrong) > 1:
        choices += [(d,) for d in wrong]
    for chosen in choices:
        for after in _aligned(state, goal, chosen, free):
            if after not in seen:
                seen.add(after)
                yield PERMUTE, changed(dims, after, goal.radices), (after, owed)


def _aligned(state: State, goal: Goal, chosen: tuple[int, ...], free: int) -> Iterator[Dims]:
    """Layouts with the same shard counts that begin, in the chosen dims, as the target does."""
    dims, owed = state
    radices = goal.radices
    sizes = [size_of(dim, radices) for dim in dims]
    heads: list[tuple[int, ...]] = [()] * len(dims)
    claimed = 0
    for d in chosen:
        left = sizes[d]
        for digit in goal.dims[d]:
            if owed >> digit & 1 or left % radices[digit]:
                break
            left //= radices[digit]
            heads[d] = (*heads[d], digit)
        claimed |= mask_of(heads[d])
    pool = (mask_of(digit for dim in dims for digit in dim) | free) & ~claimed
    yield from _filled(dims, heads, sizes, pool, goal)


def _filled(dims: Dims, heads: list[tuple[int, ...]], sizes: list[int], pool: int, goal: Goal) -> Iterator[Dims]:
    """Fill every dim behind its head up to its size, first choice the digit that is there already; a few ways."""
    made = 0
    stack: list[tuple[int, Dims, int]] = [(0, tuple(heads), pool)]
    radices = goal.radices
    while stack and made < FILLS:
        d, current, left = stack.pop()
        if d == len(dims):
            made += 1
            yield current
            continue
        dim = current[d]
        missing = sizes[d] // size_of(dim, radices)
        if missing == 1:
            stack.append((d + 1, current, left))
            continue
        for digit in reversed(_fillers(dims, d, len(dim), left, missing, goal)):
            stack.append((d, (*current[:d], (*dim, digit), *current[d + 1 :]), left & ~(1 << digit)))


def _fillers(dims: Dims, d: int, place: int, left: int, missing: int, goal: Goal) -> list[int]:
    """Digits that may fill a place, the best first: the one already there, one of this dim, one nobody wants."""
    own = dims[d]
    candidates = [digit for digit in digits_in(left) if missing % goal.radices[digit] == 0]
    here = own[place] if place < len(own) else -1
    if here in candidates and not goal.wanted >> here & 1:
        return [here]
    candidates.sort(key=lambda digit: (digit != here, goal.wanted >> digit & 1, digit not in own, digit))
    return candidates[:3]
