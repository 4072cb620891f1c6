"""The cheapest path by time: the same search, its moves priced on the links of a network.

Costs are ints of femtoseconds, so that sums and comparisons are exact and every run of the search is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.collectives import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, FREE, PERMUTE, REDUCE_SCATTER
from einscale.digits import Digits
from einscale.reshard.glue import grown, shrink
from einscale.reshard.moves import Dims, Move, State, digits_in, mask_of, size_of
from einscale.reshard.search import COLLECTIVE, UNIT, Path, Problem, cheapest

if TYPE_CHECKING:
    from einscale.topology import Network

FEMTO = 1e15

REMEMBERED = 100_000
"""Answers kept; then all are forgotten."""

_answers: dict[object, Path] = {}


class Links:
    """What moves over sets of digits cost on a network.

    Args:
        digits: of the mesh; `network` is that mesh on its links.
        fast: least seconds per byte received, over any links; `slow`: the same for bytes that cross a slower level.
        crossing: the digits that lie on a slower level, as a bit mask.
        latency: least seconds of any collective.
    """

    __slots__ = ("_known", "crossing", "digits", "fast", "inside", "latency", "network", "slow")

    def __init__(self, digits: Digits, network: Network) -> None:
        """Look at single digits, whole axes and the whole mesh for the cheapest byte."""
        from einscale.topology import level_counts

        self.digits = digits
        self.network = network
        self._known: dict[tuple[str, int], tuple[float, float]] = {}
        every = range(len(digits.radices))
        self.crossing = mask_of(d for d in every if level_counts(digits.names((d,)), network)[0] == 1)
        self.inside = size_of(tuple(d for d in every if not self.crossing >> d & 1), digits.radices)
        groups = {1 << d for d in every} | {mask_of(axis) for axis in digits.whole.values() if axis}
        groups |= {mask_of(tuple(every)), self.crossing, mask_of(tuple(every)) & ~self.crossing}
        groups -= {0}
        self.fast = min((self._rate(mask) for mask in groups), default=0.0)
        self.slow = min((self._rate(mask) for mask in groups if not mask & ~self.crossing), default=0.0)
        kinds = (ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE, ALL_TO_ALL, PERMUTE)
        self.latency = min((self.coefficients(kind, mask)[0] for mask in groups for kind in kinds), default=0.0)

    def coefficients(self, kind: str, mask: int) -> tuple[float, float]:
        """Seconds, and seconds per local byte, of a move over a set of digits."""
        found = self._known.get((kind, mask))
        if found is None:
            from einscale.topology import coefficients

            found = coefficients(kind, self.digits.mesh_names(digits_in(mask)), self.network)
            self._known[kind, mask] = found
        return found

    def _rate(self, mask: int) -> float:
        """Least seconds per byte received of any collective over a set of digits."""
        n = size_of(digits_in(mask), self.digits.radices)
        received = {
            ALL_GATHER: n - 1,
            REDUCE_SCATTER: (n - 1) / n,
            ALL_REDUCE: 2 * (n - 1) / n,
            ALL_TO_ALL: (n - 1) / n,
            PERMUTE: 1,
        }
        return min(self.coefficients(kind, mask)[1] / share for kind, share in received.items())


class TimedProblem(Problem):
    """A reshard priced in femtoseconds; its bounds are those of the bytes, at the rate of the fastest links.

    Args:
        links: what moves cost; `bytes_`: of the whole tensor; `groups`: the mesh's digits behind each of the problem's.
    """

    __slots__ = ("_masks", "_slow", "bytes_", "links")

    def __init__(
        self,
        source: State,
        target: State,
        radices: tuple[int, ...],
        room: tuple[int, ...],
        links: Links,
        bytes_: int,
        groups: tuple[tuple[int, ...], ...],
    ) -> None:
        """Map the problem's digits to sets of the mesh's."""
        super().__init__(source, target, radices, room, links.digits.mesh.devices)
        self.links = links
        self.bytes_ = bytes_
        self._masks = tuple(mask_of(group) for group in groups)
        slow = mask_of(k for k, mask in enumerate(self._masks) if mask & links.crossing)
        self._slow = slow
        if slow and slow != self.goal.every:
            self.goal.parts = (slow, self.goal.every & ~slow)

    def bound(self, state: State) -> int:
        """Least femtoseconds from a state to the target."""
        units = super().bound(state)
        links = self.links
        share = self.bytes_ / self.volume
        seconds = units * share * links.fast
        if self._slow:
            seconds = max(seconds, self._crossing(state) * self.bytes_ * links.slow)
        if units:
            seconds += links.latency
        return int(seconds * FEMTO * (1 - 1e-9))

    def _crossing(self, state: State) -> float:
        """Share of the tensor that a device must receive from beyond its fastest domain, were that one device."""
        dims, owed = state
        goal = self.goal
        due = owed & ~goal.owed
        domains = self.devices // self.links.inside
        needed, joint = _domain_shares(dims, goal.dims, self._slow, self.radices)
        if joint == 0:
            return 0.0
        parts = size_of(digits_in(due & self._slow), self.radices)
        if parts == 1:
            lacking = max(0.0, 1 / needed - 1 / joint)
        elif goal.owed:
            lacking = (parts - 1) / domains
        else:
            lacking = (parts - 1 + max(0.0, domains / needed - 1) + max(0.0, 1 - domains / joint)) / domains
        return lacking / self.links.inside

    def price(self, move: Move, dims: Dims) -> int:
        """Cost of a move from given dims."""
        kind, moved, _ = move
        if kind in FREE:
            return 1
        mask = 0
        for digit in moved:
            mask |= self._masks[digit]
        alpha, beta = self.links.coefficients(kind, mask)
        local = self.bytes_
        shards = 1
        for dim in dims:
            shards *= size_of(dim, self.radices)
        return int((alpha + beta * local / shards) * FEMTO) * UNIT + COLLECTIVE


def _domain_shares(one: Dims, other: Dims, slow: int, radices: tuple[int, ...]) -> tuple[int, int]:
    """(1 in how much a domain wants, 1 in how much it holds and wants), only slow digits told apart.

    A fast digit divides a dim inside a domain, so the domain as a whole has all of it. (0, 0) where radices do not
    line up, so that nothing is known.
    """
    needed = joint = 1
    root: dict[int, int] = {}
    for a_dim, b_dim in zip(one, other, strict=True):
        for place in range(max(len(a_dim), len(b_dim))):
            a = a_dim[place] if place < len(a_dim) else -1
            b = b_dim[place] if place < len(b_dim) else -1
            if a >= 0 and b >= 0 and radices[a] != radices[b]:
                return 0, 0
            a_slow, b_slow = a >= 0 and slow >> a & 1, b >= 0 and slow >> b & 1
            radix = radices[a if a >= 0 else b]
            if b_slow:
                needed *= radix
            if a_slow or b_slow:
                joint *= radix
            if a_slow and b_slow and a != b:
                while a in root:
                    a = root[a]
                while b in root:
                    b = root[b]
                if a != b:
                    root[a] = b
                    joint *= radix
    return needed, joint


def solve_timed(source: State, target: State, room: tuple[int, ...], bytes_: int, links: Links) -> Path:
    """Fastest path in the digits of the mesh, remembered."""
    if source == target:
        return Path(0, (), exact=True, met=True, looked=0)
    radices = links.digits.radices
    best: Path | None = None
    looked = 0
    for idle in (False, True):
        small, groups = shrink(source, target, radices, idle=idle, apart=links.crossing)
        key = (small, groups, room, bytes_, links.network)
        path = _answers.get(key)
        if path is None:
            path = cheapest(TimedProblem(small[0], small[1], small[2], room, links, bytes_, groups))
            if len(_answers) >= REMEMBERED:
                _answers.clear()
            _answers[key] = path
        looked += path.looked
        if best is None or path.cost < best.cost:
            steps = tuple(
                (kind, tuple(old for digit in moved for old in groups[digit]), grown(state, groups))
                for kind, moved, state in path.steps
            )
            best = Path(path.cost, steps, exact=path.exact, met=path.met, looked=looked)
        if path.met or not source[1] & ~target[1]:
            break
    assert best is not None
    best.looked = looked
    return best
