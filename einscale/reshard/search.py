"""Cheapest path between two layouts: A* over layouts in digits, with the placement bound as heuristic."""

from __future__ import annotations

from heapq import heappop, heappush

from einscale.collectives import ALL_GATHER, ALL_REDUCE, FREE, MASK, PERMUTE, SLICE
from einscale.digits import overlap
from einscale.reshard.moves import Dims, Goal, Move, State, digits_in, moves, size_of

COLLECTIVE = 1 << 12
"""What one more collective counts among paths that move the same bytes; a free move counts 1."""

UNIT = 1 << 24
"""What one unit of bytes counts: more than any number of collectives."""

EXPANSIONS = 400
"""Most layouts one search looks at before it takes the best path known."""


class Path:
    """A path and its cost in the search's own terms.

    `exact` is False where the search hit its bound; `met` is True where the path moves no more than the placement
    bound, so that no other moves could do better. `looked` counts the layouts looked at: the work that a budget
    counts, the same whether the answer was remembered or not.
    """

    __slots__ = ("cost", "exact", "looked", "met", "steps")

    def __init__(self, cost: int, steps: tuple[Move, ...], *, exact: bool, met: bool, looked: int) -> None:
        """Keep the five."""
        self.cost = cost
        self.steps = steps
        self.exact = exact
        self.met = met
        self.looked = looked


class Problem:
    """One reshard: radices, rooms, source and target in digits; bytes in units of V/P^2 a device.

    With V the tensor's bytes and P the devices, every cost of every move is a whole number of such units, so prices
    are exact ints that know no tensor.
    """

    __slots__ = ("devices", "goal", "radices", "replicas", "source", "volume")

    def __init__(
        self, source: State, target: State, radices: tuple[int, ...], room: tuple[int, ...], devices: int
    ) -> None:
        """`devices` counts all devices of the mesh; digits not in `radices` stay idle."""
        self.source = source
        self.radices = radices
        self.devices = devices
        self.volume = devices * devices
        self.goal = Goal(target[0], target[1], radices, room)
        shards = 1
        for dim in target[0]:
            shards *= size_of(dim, radices)
        self.replicas = devices // (shards * size_of(digits_in(target[1]), radices))

    def bound(self, state: State) -> int:
        """Units that a device must still receive, whatever the moves.

        Without owed sums: its block of the target less what it holds of it. With u partial sums of every element on
        their way to r replicas: u - 1 additions and r - 1 copies, and one more transfer where no device is both.
        """
        dims, owed = state
        goal = self.goal
        due = owed & ~goal.owed
        try:
            same, of = overlap(dims, goal.dims, self.radices)
        except ArithmeticError:
            same, of = 1, _largest(dims, goal.dims, self.radices)
        if not due:
            shards = 1
            for dim in goal.dims:
                shards *= size_of(dim, self.radices)
            return max(0, self.volume // shards - self.volume * same // of)
        parts = size_of(digits_in(due), self.radices)
        both = self.devices * same / of
        needed = (parts - 1) + (self.replicas - 1) + max(0.0, 1.0 - both) * (goal.owed == 0)
        return int(self.volume / self.devices * needed * (1 - 1e-12))

    def price(self, move: Move, dims: Dims) -> int:
        """Cost of a move from given dims."""
        kind, digits, (after, _) = move
        if kind in FREE:
            return 1
        local = self.volume
        for dim in dims:
            local //= size_of(dim, self.radices)
        group = size_of(digits, self.radices)
        if kind == ALL_GATHER:
            units = local * (group - 1)
        elif kind == PERMUTE:
            same, of = overlap(dims, after, self.radices)
            units = local - local * (self.volume // local) * same // of
        else:
            units = local * (group - 1) // group
            if kind == ALL_REDUCE:
                units *= 2
        return units * UNIT + COLLECTIVE


def _largest(one: Dims, other: Dims, radices: tuple[int, ...]) -> int:
    result = 1
    for a, b in zip(one, other, strict=True):
        result *= max(size_of(a, radices), size_of(b, radices))
    return result


def plain_path(problem: Problem) -> Path:
    """Reduce, gather what is out of place, slice: always possible, never clever."""
    goal = problem.goal
    steps: list[Move] = []
    cost = 0
    state = problem.source

    def take(kind: str, digits: tuple[int, ...], after: State) -> None:
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
    return Path(cost, tuple(steps), exact=True, met=False, looked=0)


def cheapest(problem: Problem, expansions: int = EXPANSIONS) -> Path:
    """Cheapest path from source to target over the moves of `moves`, or the plain one if none is cheaper."""
    source, target = problem.source, (problem.goal.dims, problem.goal.owed)
    if source == target:
        return Path(0, (), exact=True, met=True, looked=0)
    best = plain_path(problem)
    floor = (problem.bound(source) + 1) * UNIT
    best.met = best.cost < floor
    reached: dict[State, int] = {source: 0}
    came: dict[State, tuple[State, Move]] = {}
    bounds: dict[State, int] = {}
    heap: list[tuple[int, int, int, State]] = [(problem.bound(source) * UNIT, 0, 0, source)]
    pushed = looked = 0
    while heap:
        estimate, negative, _, state = heappop(heap)
        if estimate >= best.cost:
            break
        if -negative > reached[state]:
            continue
        if state == target:
            return Path(-negative, _walk(came, state), exact=True, met=-negative < floor, looked=looked)
        looked += 1
        if looked > expansions:
            return Path(best.cost, best.steps, exact=False, met=best.met, looked=looked)
        for move in moves(state, problem.goal):
            after = move[2]
            try:
                cost = problem.price(move, state[0]) - negative
            except ArithmeticError:
                continue
            if cost >= reached.get(after, best.cost):
                continue
            if after not in bounds:
                bounds[after] = problem.bound(after) * UNIT
            estimate = cost + bounds[after]
            if estimate < best.cost:
                reached[after] = cost
                came[after] = (state, move)
                pushed += 1
                heappush(heap, (estimate, -cost, pushed, after))
    best.looked = looked
    return best


def _walk(came: dict[State, tuple[State, Move]], state: State) -> tuple[Move, ...]:
    steps = []
    while state in came:
        state, move = came[state]
        steps.append(move)
    return tuple(reversed(steps))
