"""The cheapest plan by brute force: every placement of prime digits, every chain of moves, at the prices of reports.

It knows nothing of how the planner searches: layouts are named, each move is a `Collective` that `check_move` allows,
and its price is what a report prints for it. Small meshes only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from itertools import combinations, product

from reshard_oracle import splits

from einscale.collectives import FREE, Collective, check_move, received_total
from einscale.digits import Digits, digits_of
from einscale.errors import LayoutError
from einscale.layout import Layout, Tensor
from einscale.mesh import Mesh
from einscale.roofline import local_seconds
from einscale.steps import LocalEinsum, compute_dtype, step_flops, work_traffic
from einscale.topology import Network, step_seconds

Dims = tuple[tuple[int, ...], ...]
State = tuple[Dims, frozenset[int]]


class Oracle:
    """Costs of moves and of local work of one question.

    Args:
        sizes: index -> size.
        mesh: the devices.
        network: links to price time on; None counts bytes received by all devices together.
        owes: mesh axes over which the result is to owe a sum. A value is spread as a sum over no others: to let more
            links add it up is no move that the planner knows.
    """

    def __init__(
        self, sizes: Mapping[str, int], mesh: Mesh, network: Network | None, owes: tuple[str, ...] = ()
    ) -> None:
        """Nothing is priced yet."""
        self.sizes, self.mesh, self.network = sizes, mesh, network
        self.digits: Digits = digits_of(mesh)
        self.owes = frozenset(self.digits.expand(owes))
        self.every = frozenset(range(len(self.digits.radices)))
        self._distances: dict[tuple[Tensor, State], dict[State, float]] = {}

    def state(self, layout: Layout) -> State:
        """A layout in digits."""
        return self.digits.dims(layout.dims), frozenset(self.digits.expand(layout.unreduced))

    def layout(self, state: State) -> Layout:
        """A layout by name."""
        dims, owed = state
        return Layout(tuple(self.digits.names(dim) for dim in dims), tuple(sorted(self.digits.mesh_names(owed))))

    def price(self, move: Collective) -> float:
        """What one move costs."""
        if self.network is None:
            return float(received_total(move, self.sizes, self.mesh))
        return float(step_seconds(move, self.sizes, self.network))

    def distances(self, tensor: Tensor, start: State) -> dict[State, float]:
        """Least cost from one layout of a tensor to every other."""
        found = self._distances.get((tensor, start))
        if found is not None:
            return found
        best: dict[State, float] = {start: 0.0}
        heap: list[tuple[float, int, State]] = [(0.0, 0, start)]
        pushed = 0
        while heap:
            cost, _, here = heappop(heap)
            if cost > best[here]:
                continue
            for kind, moved, after in self._moves(here):
                step = Collective(kind, tensor, self.digits.mesh_names(moved), self.layout(here), self.layout(after))
                try:
                    check_move(step, self.mesh)
                except LayoutError:
                    continue
                total = cost + (0.0 if kind in FREE else self.price(step))
                if total < best.get(after, float("inf")):
                    best[after] = total
                    pushed += 1
                    heappush(heap, (total, pushed, after))
        self._distances[tensor, start] = best
        return best

    def _moves(self, state: State) -> Iterator[tuple[str, tuple[int, ...], State]]:
        """Every move of every kind, over any digits at once; `check_move` has the last word."""
        dims, owed = state
        used = {digit for dim in dims for digit in dim}
        free = tuple(sorted(self.every - used - owed))
        for n in range(1, len(free) + 1):
            for some in combinations(free, n):
                if self.owes >= set(some):
                    yield "mask", some, (dims, owed | set(some))
                for parts in splits(some, len(dims)) if dims else ():
                    grown = tuple(dim + part for dim, part in zip(dims, parts, strict=True))
                    yield "slice", some, (grown, owed)
        for n in range(1, len(owed) + 1):
            for some in combinations(sorted(owed), n):
                yield "all-reduce", some, (dims, owed - set(some))
                for parts in splits(some, len(dims)) if dims else ():
                    grown = tuple(dim + part for dim, part in zip(dims, parts, strict=True))
                    yield "reduce-scatter", some, (grown, owed - set(some))
        for stops in product(*[range(len(dim) + 1) for dim in dims]):
            kept = tuple(dim[:stop] for dim, stop in zip(dims, stops, strict=True))
            moved = tuple(digit for dim, stop in zip(dims, stops, strict=True) for digit in dim[stop:])
            if moved:
                yield "all-gather", moved, (kept, owed)
                for parts in splits(moved, len(dims)):
                    yield "all-to-all", moved, (tuple(a + b for a, b in zip(kept, parts, strict=True)), owed)
        for after in self.layouts(len(dims), self.every - owed):
            changed = {d for one, other in zip(dims, after, strict=True) if one != other for d in (*one, *other)}
            if changed and all(self._size(a) == self._size(b) for a, b in zip(dims, after, strict=True)):
                yield "permute", tuple(sorted(changed)), (after, owed)

    def _size(self, digits: tuple[int, ...]) -> int:
        return self.digits.size(digits)

    def layouts(self, rank: int, digits: frozenset[int]) -> Iterator[Dims]:
        """Every way to divide so many dims over some of the digits."""
        for n in range(len(digits) + 1):
            for some in combinations(sorted(digits), n):
                yield from splits(some, rank) if rank else ((),) if not some else ()

    def work(self, step: LocalEinsum) -> tuple[int, float]:
        """FLOPs of local work, and what it costs."""
        flops = int(step_flops(step, self.sizes, self.mesh.degrees))
        if self.network is None:
            return flops, 0.0
        traffic = int(work_traffic(step, self.sizes, self.mesh.degrees))
        chip = self.network.system.chip
        return flops, float(local_seconds(flops, traffic, compute_dtype(step.inputs), chip).seconds)


def cheapest_plan(
    tensors: tuple[Tensor, ...],
    layouts: tuple[Layout, ...],
    output: Tensor,
    wanted: Layout,
    sizes: Mapping[str, int],
    mesh: Mesh,
    network: Network | None = None,
    max_flops: int | None = None,
) -> float:
    """Least cost over every placement of the work and every choice of owed sums to keep: bytes in all, or seconds.

    No operand may repeat an index, nor owe anything but sums; the output layout is fixed.
    """
    oracle = Oracle(sizes, mesh, network, wanted.unreduced)
    indices = tuple(dict.fromkeys(index for tensor in tensors for index in tensor.indices))
    starts = [oracle.state(layout) for layout in layouts]
    end = oracle.state(wanted)
    best = float("inf")
    choices = [
        [frozenset(some) for n in range(len(owed) + 1) for some in combinations(sorted(owed), n)] for _, owed in starts
    ]
    for kept in product(*choices):
        together = frozenset().union(*kept)
        if len(together) < sum(map(len, kept)):
            continue
        for placement in oracle.layouts(len(indices), oracle.every - together):
            where = dict(zip(indices, placement, strict=True))
            read = [(tuple(where[i] for i in tensor.indices), held) for tensor, held in zip(tensors, kept, strict=True)]
            summed = {digit for index in indices if index not in output.indices for digit in where[index]}
            made = (tuple(where[i] for i in output.indices), together | summed)
            step = LocalEinsum(tensors, tuple(map(oracle.layout, read)), output, oracle.layout(made))
            flops, cost = oracle.work(step)
            if max_flops is not None and flops > max_flops:
                continue
            for tensor, start, state in zip(tensors, starts, read, strict=True):
                if cost < best:
                    cost += oracle.distances(tensor, start).get(state, float("inf"))
            if cost < best:
                best = min(best, cost + oracle.distances(output, made).get(end, float("inf")))
    return best
