"""The cheapest path by time: the same search, its moves priced on the links of a network.

Costs are ints of femtoseconds, so that sums and comparisons are exact and every run of the search is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.collectives import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, FREE, PERMUTE, REDUCE_SCATTER
from einscale.digits import Digits
from einscale.reshard.answers import answered, solve
from einscale.reshard.joins import Small
from einscale.reshard.moves import Dims, Move, State, digits_in, mask_of, size_of
from einscale.reshard.search import (
    COLLECTIVE,
    MERGED,
    NEVER,
    NOWHERE,
    UNIT,
    Path,
    Problem,
    fused_steps,
    least_units,
    shards_of,
)
from einscale.reshard.shape import Shape
from einscale.vocabulary import CollectiveKind

if TYPE_CHECKING:
    from einscale.topology import Network

FEMTO = 1e15


class DigitLinks:
    """What moves over sets of digits cost on a network.

    Args:
        digits: of the mesh; `network` is that mesh on its links.
        fast: least seconds per byte received, over any links; `slow`: the same for bytes that cross a slower level.
        crossing: the digits that lie on a slower level, as a bit mask.
        latency: least seconds of any collective.
    """

    __slots__ = ("_known", "crossing", "devices", "digits", "fast", "inside", "latency", "network", "slow")

    def __init__(self, digits: Digits, network: Network) -> None:
        """Look at single digits, whole axes and the whole mesh for the cheapest byte."""
        from einscale.topology import level_counts

        self.digits = digits
        self.network = network
        self.devices = digits.mesh.devices
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

    def coefficients(self, kind: CollectiveKind, mask: int) -> tuple[float, float]:
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

    def least(self, units: int, across: float, volume: int) -> int:
        """Least femtoseconds to receive so many units of V/P^2, and a share of V from beyond the fastest domain."""
        seconds = volume * max(units / self.devices**2 * self.fast, across * self.slow)
        return int((seconds + (self.latency if units else 0.0)) * FEMTO * (1 - 1e-9))


class TimedProblem(Problem):
    """A reshard priced in femtoseconds; its bounds are those of the bytes, at the rate of the fastest links.

    Args:
        links: what moves cost; `bytes_`: of the whole tensor; `groups`: the mesh's digits behind each of the problem's.
    """

    most_tried = 600
    """Fewer than by bytes: bounds are weaker, so that searches rarely end early."""

    __slots__ = ("_masks", "_slow", "_slow_fine", "bytes_", "links")

    def __init__(
        self,
        source: State,
        target: State,
        factors: tuple[tuple[int, ...], ...],
        room: tuple[int, ...],
        links: DigitLinks,
        bytes_: int,
        groups: tuple[tuple[int, ...], ...],
        shape: Shape | None = None,
    ) -> None:
        """Map the problem's digits to sets of the mesh's."""
        super().__init__(source, target, factors, room, links.digits.mesh.devices, shape)
        self.links = links
        self.bytes_ = bytes_
        self._masks = tuple(mask_of(group) for group in groups)
        slow = mask_of(k for k, mask in enumerate(self._masks) if mask & links.crossing)
        self._slow = slow
        self._slow_fine = mask_of(prime for k in digits_in(slow) for prime in self._fine[k])
        if slow and slow != self.goal.every:
            self.goal.parts = (slow, self.goal.every & ~slow)

    def bound(self, state: State) -> int:
        """Least femtoseconds from a state to the target."""
        dims, owed = state
        due = owed & ~self.goal.owed
        parts = size_of(digits_in(due), self.radices)
        target = (self._target, self.goal.owed)
        fine = self.fine(dims)
        units = least_units(fine, target, parts, self.replicas, self.fine_radices, self.devices)
        across = 0.0
        if self._slow:
            crossing = size_of(digits_in(due & self._slow), self.radices)
            across = least_crossing(fine, target, crossing, self._slow_fine, self.fine_radices, self.links)
        return self.links.least(units, across, self.bytes_)

    def price(self, move: Move, dims: Dims) -> int:
        """Cost of a move from given dims."""
        kind, moved, _ = move
        if kind in FREE:
            return 1
        mask = 0
        for digit in moved:
            mask |= self._masks[digit]
        alpha, beta = self.links.coefficients(kind, mask)
        local = self.bytes_ / shards_of(dims, self.radices) if self.shape is None else self.held(dims)
        return int((alpha + beta * local) * FEMTO) * UNIT + COLLECTIVE


def least_crossing(
    dims: Dims, target: State, parts: int, slow: int, radices: tuple[int, ...], links: DigitLinks
) -> float:
    """Share of a tensor that a device must receive from beyond its fastest domain, whose devices share the work.

    The placement bound once more, with a domain as one device. `parts` counts the partial sums in different domains.
    """
    domains = links.devices // links.inside
    needed, joint = _domain_shares(dims, target[0], slow, radices)
    if joint == 0:
        return 0.0
    if parts == 1:
        lacking = max(0.0, 1 / needed - 1 / joint)
    elif target[1]:
        lacking = (parts - 1) / domains
    else:
        lacking = (parts - 1 + max(0.0, domains / needed - 1) + max(0.0, 1 - domains / joint)) / domains
    return lacking / links.inside


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


def solve_timed(
    source: State,
    target: State,
    room: tuple[int, ...],
    bytes_: int,
    links: DigitLinks,
    most: int = NEVER,
    *,
    idle: bool = True,
    shape: Shape | None = None,
) -> Path:
    """Fastest path in the digits of the mesh, remembered; see `cheapest` for `most`, `solve` for `shape`.

    `bytes_` are those of the whole tensor, without padding where there is a shape.
    """
    if source == target:
        return NOWHERE

    def problem(small: Small, groups: tuple[tuple[int, ...], ...]) -> Problem:
        return TimedProblem(small[0], small[1], small[2], room, links, bytes_, groups, shape)

    every = (1 << len(links.digits.radices)) - 1
    terms = (room, bytes_, links.network, shape)
    path = answered(source, target, links.digits.radices, most, terms, problem, links.crossing or every, idle=idle)
    if path.exact:
        return path
    lean = solve(source, target, links.digits.radices, room, links.devices, idle=idle, shape=shape)
    steps = fused_steps(lean.steps, MERGED)
    cost = _cost_of(steps, source, bytes_, links, shape)
    looked = path.looked + lean.looked
    if cost < path.cost:
        return Path(cost, steps, exact=False, looked=looked)
    return Path(path.cost, path.steps, exact=False, met=path.met, looked=looked)


def _cost_of(steps: tuple[Move, ...], source: State, bytes_: int, links: DigitLinks, shape: Shape | None) -> int:
    """What given moves cost by time."""
    total = 0
    dims = source[0]
    radices = links.digits.radices
    for kind, moved, (after, _) in steps:
        if kind in FREE:
            total += 1
        else:
            alpha, beta = links.coefficients(kind, mask_of(moved))
            local = bytes_ / shards_of(dims, radices)
            if shape is not None:
                local = shape.local([size_of(dim, radices) for dim in dims])
            total += int((alpha + beta * local) * FEMTO) * UNIT + COLLECTIVE
        dims = after
    return total
