"""Cheapest path between two layouts: A* over layouts in digits, with the placement bound as heuristic."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import pairwise
from math import prod

from einscale.collectives import ALL_GATHER, ALL_REDUCE, FREE, MASK, PERMUTE, REDUCE_SCATTER, SLICE
from einscale.digits import overlap
from einscale.errors import UncountableError
from einscale.reshard.moves import Dims, Goal, Move, State, digits_in, moves, size_of
from einscale.reshard.shape import Shape
from einscale.vocabulary import CollectiveKind

COLLECTIVE = 1 << 12
"""What one more collective counts among paths that move the same bytes; a free move counts 1."""

UNIT = 1 << 24
"""What one unit of bytes counts: more than any number of collectives."""


Looked = tuple[tuple[int, int], ...]


class Path:
    """A path and its cost in the search's own terms.

    Args:
        cost: what it costs; where the search was cut off, something not above what it must cost.
        steps: its moves; none where the search was cut off.
        exact: False where the search tried as many moves as it may and took the best path it knew.
        met: the path moves no more than the placement bound, so no other moves could do better.
        looked: per layout looked at, in order, the least cost thought possible there and the moves tried from it. It
            tells how far a search that was cut off earlier would have gone, so that budgets count the same whether
            answers are remembered or not.
    """

    __slots__ = ("cost", "exact", "looked", "met", "steps")

    def __init__(
        self, cost: int, steps: tuple[Move, ...], *, exact: bool = True, met: bool = False, looked: Looked = ()
    ) -> None:
        """Keep the five."""
        self.cost = cost
        self.steps = steps
        self.exact = exact
        self.met = met
        self.looked = looked

    def until(self, most: int) -> Looked:
        """What a search looks at that gives up where no path below `most` is left."""
        for k, (estimate, _) in enumerate(self.looked):
            if estimate >= most:
                return self.looked[:k]
        return self.looked

    @property
    def work(self) -> int:
        """Moves tried."""
        return sum(tried for _, tried in self.looked)


NOWHERE = Path(0, (), met=True)
"""The path from a layout to itself."""

NEVER = 1 << 300
"""More than any path costs."""


LIMIT_PRICED = 1 << 11
"""Most coordinates that are counted to price a permute; one of more is not taken."""

LIMIT_GUESSED = 1 << 8
"""Most coordinates that a bound counts; beyond, it takes that two blocks share no more than the smaller of them."""


class Problem:
    """One reshard: radices, rooms, source and target in digits; bytes in units of V/P^2 a device.

    With V the tensor's bytes and P the devices, every cost of every move is a whole number of such units, so prices
    are exact ints that know no tensor. Where a tensor's shards are padded, each layout otherwise, the unit is 1/P^2
    byte and the prices are those of the padded shards; the bounds are those of the tensor without padding.

    Args:
        source, target: (dims, owed).
        factors: per digit, the radices of the prime digits it stands for.
        room: per dim, what its shard count must divide.
        devices: all devices of the mesh; digits not among these stay idle.
        shape: of a tensor whose shards are padded; None where every shard is its share.
    """

    most_tried = 3_500
    """Most moves one search tries before it takes the best path known."""

    __slots__ = (
        "_fine",
        "_held",
        "_target",
        "devices",
        "fine_radices",
        "goal",
        "radices",
        "replicas",
        "shape",
        "source",
        "volume",
        "wanted",
    )

    def __init__(
        self,
        source: State,
        target: State,
        factors: tuple[tuple[int, ...], ...],
        room: tuple[int, ...],
        devices: int,
        shape: Shape | None = None,
    ) -> None:
        """Number the prime digits."""
        self.source = source
        self.radices = tuple(prod(primes) for primes in factors)
        self.devices = devices
        self.volume = devices * devices
        self.shape = shape
        self._held: dict[Dims, int] = {}
        self.goal = Goal(target[0], target[1], self.radices, room)
        self.fine_radices = tuple(prime for primes in factors for prime in primes)
        starts = [0]
        for primes in factors:
            starts.append(starts[-1] + len(primes))
        self._fine = tuple(tuple(range(a, b)) for a, b in pairwise(starts))
        self._target = self.fine(target[0])
        self.wanted = shards_of(target[0], self.radices)
        self.replicas = devices // (self.wanted * size_of(digits_in(target[1]), self.radices))

    def fine(self, dims: Dims) -> Dims:
        """Dims in prime digits, which line up wherever they can."""
        fine = self._fine
        if len(fine) == len(self.fine_radices):
            return dims
        return tuple(tuple([prime for digit in dim for prime in fine[digit]]) for dim in dims)

    def bound(self, state: State) -> int:
        """Units that a device must still receive, whatever the moves."""
        parts = size_of(digits_in(state[1] & ~self.goal.owed), self.radices)
        target = (self._target, self.goal.owed)
        units = least_units(self.fine(state[0]), target, parts, self.replicas, self.fine_radices, self.devices)
        return units if self.shape is None else units * self.shape.least

    def held(self, dims: Dims) -> int:
        """Units that a device holds in a layout; bytes of its padded shard where there is a shape."""
        if self.shape is None:
            return self.volume // shards_of(dims, self.radices)
        found = self._held.get(dims)
        if found is None:
            found = self._held[dims] = self.shape.local([size_of(dim, self.radices) for dim in dims])
        return found

    def price(self, move: Move, dims: Dims) -> int:
        """Cost of a move from given dims.

        Raises:
            UncountableError: a permute whose digits line up so badly that its blocks are too many to count.
        """
        kind, digits, (after, _) = move
        if kind in FREE:
            return 1
        local = self.held(dims) if self.shape is None else self.held(dims) * self.volume
        group = size_of(digits, self.radices)
        if kind == ALL_GATHER:
            units = local * (group - 1)
        elif kind == PERMUTE:
            same, of = overlap(self.fine(dims), self.fine(after), self.fine_radices, LIMIT_PRICED)
            units = local - local * shards_of(dims, self.radices) * same // of
        else:
            units = local * (group - 1) // group
            if kind == ALL_REDUCE:
                units *= 2
        return units * UNIT + COLLECTIVE


def least_units(dims: Dims, target: State, parts: int, replicas: int, radices: tuple[int, ...], devices: int) -> int:
    """Placement bound: units of V/P^2 that a device must receive at least, on its way from `dims` to a target.

    Without owed sums: its block of the target less what it holds of it. With `parts` partial sums of every element on
    their way to `replicas` devices: parts - 1 additions and replicas - 1 copies, and one transfer more where no device
    both holds a part and wants the sum.
    """
    square = devices * devices
    try:
        same, of = overlap(dims, target[0], radices, LIMIT_GUESSED)
    except UncountableError:
        same, of = 1, 1
        for one, other in zip(dims, target[0], strict=True):
            of *= max(size_of(one, radices), size_of(other, radices))
    if parts == 1:
        return max(0, square // shards_of(target[0], radices) - square * same // of)
    needed = devices * (parts + replicas - 2)
    if not target[1]:
        needed += max(0, devices - -(-square * same // of))
    return needed


def shards_of(dims: Dims, radices: tuple[int, ...]) -> int:
    """Product of the shard counts of all dims."""
    result = 1
    for dim in dims:
        for digit in dim:
            result *= radices[digit]
    return result


MERGED = (SLICE, MASK, ALL_GATHER, REDUCE_SCATTER)
"""Kinds of which two in a row are one fused move of the same bytes."""


def fused_steps(steps: tuple[Move, ...], merged: tuple[str, ...]) -> tuple[Move, ...]:
    """A path whose neighbours of one of the kinds `merged` are one move."""
    fused: list[Move] = []
    for kind, moved, state in steps:
        if fused and fused[-1][0] == kind and kind in merged:
            fused[-1] = (kind, fused[-1][1] + moved, state)
        else:
            fused.append((kind, moved, state))
    return tuple(fused)


def plain_path(problem: Problem) -> Path:
    """Reduce, gather what is out of place, slice: always possible, never clever."""
    goal = problem.goal
    steps: list[Move] = []
    cost = 0
    state = problem.source

    def take(kind: CollectiveKind, digits: tuple[int, ...], after: State) -> None:
        nonlocal state, cost
        move = (kind, digits, after)
        cost += problem.price(move, state[0])
        steps.append(move)
        state = after

    due = state[1] & ~goal.owed
    if due:
        take(ALL_REDUCE, digits_in(due), (state[0], state[1] & ~due))
    kept = []
    for dim, wanted in zip(state[0], goal.dims, strict=True):
        k = 0
        while k < min(len(dim), len(wanted)) and dim[k] == wanted[k]:
            k += 1
        kept.append(dim[:k])
    gone = tuple(digit for dim, short in zip(state[0], kept, strict=True) for digit in dim[len(short) :])
    if gone:
        take(ALL_GATHER, gone, (tuple(kept), state[1]))
    fresh = tuple(digit for dim, short in zip(goal.dims, state[0], strict=True) for digit in dim[len(short) :])
    if fresh:
        take(SLICE, fresh, (goal.dims, state[1]))
    masked = goal.owed & ~state[1]
    if masked:
        take(MASK, digits_in(masked), (goal.dims, goal.owed))
    return Path(cost, tuple(steps))


def cheapest(problem: Problem, most: int = NEVER) -> Path:
    """Cheapest path from source to target over the moves of `moves`.

    Args:
        problem: what is asked.
        most: a search is cut off where it is clear that no path costs less.
    """
    source, goal = problem.source, problem.goal
    target = (goal.dims, goal.owed)
    if source == target:
        return NOWHERE
    floor = problem.bound(source)
    best = plain_path(problem)
    best.met = best.cost < (floor + 1) * UNIT
    limit = min(most, best.cost)
    reached: dict[State, int] = {source: 0}
    came: dict[State, tuple[State, Move]] = {}
    heap: list[tuple[int, int, int, State]] = [(floor * UNIT, 0, 0, source)]
    bounds: dict[State, int] = {}
    looked: list[tuple[int, int]] = []
    tried = 0
    while heap:
        estimate, negative, _, state = heappop(heap)
        if estimate >= limit:
            break
        if -negative > reached[state]:
            continue
        if state == target:
            met = -negative < (floor + 1) * UNIT
            return Path(-negative, _walk(came, state), met=met, looked=tuple(looked))
        if tried > problem.most_tried:
            return Path(best.cost, best.steps, exact=False, met=best.met, looked=tuple(looked))
        ways = moves(state, goal)
        looked.append((estimate, len(ways)))
        tried += len(ways)
        for move in ways:
            after = move[2]
            try:
                cost = problem.price(move, state[0]) - negative
            except UncountableError:
                continue
            if cost >= reached.get(after, limit):
                continue
            if after not in bounds:
                bounds[after] = problem.bound(after) * UNIT
            if cost + bounds[after] < limit:
                reached[after] = cost
                came[after] = (state, move)
                heappush(heap, (cost + bounds[after], -cost, len(came) + len(heap), after))
    if limit < best.cost:
        return Path(limit, (), looked=tuple(looked))
    best.looked = tuple(looked)
    return best


def _walk(came: dict[State, tuple[State, Move]], state: State) -> tuple[Move, ...]:
    steps = []
    while state in came:
        state, move = came[state]
        steps.append(move)
    return tuple(reversed(steps))
