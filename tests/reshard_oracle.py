"""Every move the collectives allow, and plain Dijkstra over all layouts: slow, simple, and the judge of the search."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import combinations, permutations, product

from einscale.reshard.moves import Dims, State, digits_in, mask_of, size_of
from einscale.reshard.search import COLLECTIVE, UNIT, Problem


def splits(items: tuple[int, ...], bins: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Every way to hand out items, in every order, to ordered bins."""
    for order in permutations(items):
        for cuts in combinations(range(len(items) + bins - 1), bins - 1):
            result, start = [], 0
            for k, cut in enumerate((*cuts, len(items) + bins - 1)):
                stop = cut - k
                result.append(order[start:stop])
                start = stop
            yield tuple(result)


def neighbours(state: State, problem: Problem) -> Iterator[tuple[str, tuple[int, ...], State]]:
    """Every legal move, fused ones where fusing saves bytes."""
    dims, owed = state
    goal = problem.goal
    used = mask_of(d for dim in dims for d in dim)
    free = digits_in(goal.every & ~(used | owed))
    for d, dim in enumerate(dims):
        if dim:
            yield "all-gather", dim[-1:], ((*dims[:d], dim[:-1], *dims[d + 1 :]), owed)
        for digit in free:
            yield "slice", (digit,), ((*dims[:d], (*dim, digit), *dims[d + 1 :]), owed)
        for digit in digits_in(owed):
            after = (*dims[:d], (*dim, digit), *dims[d + 1 :])
            yield "reduce-scatter", (digit,), (after, owed & ~(1 << digit))
    for digit in free:
        if goal.owed >> digit & 1:
            yield "mask", (digit,), (dims, owed | 1 << digit)
    due = digits_in(owed)
    for n in range(1, len(due) + 1):
        for part in combinations(due, n):
            yield "all-reduce", part, (dims, owed & ~mask_of(part))
    for stops in product(*[range(len(dim) + 1) for dim in dims]):
        losing = [d for d, stop in enumerate(stops) if stop < len(dims[d])]
        gaining = [d for d in range(len(dims)) if d not in losing]
        moved = tuple(x for d in losing for x in dims[d][stops[d] :])
        if losing and gaining:
            for parts in splits(moved, len(gaining)):
                new = [dim[:stop] for dim, stop in zip(dims, stops, strict=True)]
                for d, part in zip(gaining, parts, strict=True):
                    new[d] = new[d] + part
                yield "all-to-all", moved, (tuple(new), owed)
    yield from permuted(state, problem)


def permuted(state: State, problem: Problem) -> Iterator[tuple[str, tuple[int, ...], State]]:
    """Every layout of equal shard counts."""
    dims, owed = state
    radices = problem.radices
    pool = digits_in(problem.goal.every & ~owed)
    sizes = [size_of(dim, radices) for dim in dims]

    def fill(d: int, left: tuple[int, ...], done: Dims) -> Iterator[Dims]:
        if d == len(dims):
            yield done
            return
        for n in range(len(left) + 1):
            for chosen in permutations(left, n):
                if size_of(chosen, radices) == sizes[d]:
                    yield from fill(d + 1, tuple(x for x in left if x not in chosen), (*done, chosen))

    for after in fill(0, pool, ()):
        if after != dims:
            yield "permute", (), (after, owed)


def least_cost(problem: Problem) -> int:
    """Cost of the cheapest path over every move, collectives not counted: units of bytes."""
    target = (problem.goal.dims, problem.goal.owed)
    best = {problem.source: 0}
    heap = [(0, problem.source)]
    while heap:
        cost, state = heappop(heap)
        if state == target:
            return cost
        if cost > best[state]:
            continue
        for move in neighbours(state, problem):
            after = move[2]
            if any(room % size_of(dim, problem.radices) for room, dim in zip(problem.goal.room, after[0], strict=True)):
                continue
            price = problem.price(move, state[0])
            units = (price - price % COLLECTIVE) // UNIT
            if cost + units < best.get(after, 1 << 200):
                best[after] = cost + units
                heappush(heap, (cost + units, after))
    raise AssertionError("no path")
