"""Closed forms of collectives on links: steps and bytes of each algorithm, exact for every group size.

Each function takes a kind of collective and a group size n and returns `(steps, factor)`: the collective takes
`steps` hops of latency and sends `factor * L` bytes over the busiest link or port, L being the bytes one device holds
*before* the move. So time = launch + steps * hop + factor * L / W, with W the one-way bandwidth of that link or port.

n may be an int or a numpy array; n = 1 costs nothing. The formulas in terms of V, the bytes of the whole array the
group works on, are the same: V = nL for an all-gather and an all-to-all, V = L for a reduce-scatter and an all-reduce.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from einscale.collectives import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, PERMUTE, REDUCE_SCATTER
from einscale.errors import HardwareError, UsageError, did_you_mean
from einscale.numeric import Number, log2_ceil, maximum, product

MOVES = (ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE, ALL_TO_ALL, PERMUTE)
"""Collectives that send something."""

Cost = tuple[Number, Number]


class Segment(Struct, frozen=True):
    """The part of one torus dim that a group runs over.

    Args:
        size: members along this dim.
        stride: hops between neighbouring members; the groups in between share the links.
        wraps: 1 if the members close a ring, 0 if they lie on a line.
        dim: which torus dim it is, 0 the most major.
    """

    size: Number
    stride: Number = 1
    wraps: Number = 1
    dim: int = 0


def check_kind(kind: str) -> None:
    """Raise unless `kind` is a collective that sends something.

    Raises:
        UsageError: it is not.
    """
    if kind not in MOVES:
        raise UsageError(f"no time formula for the move `{kind}`", hint=did_you_mean(kind, MOVES, "moves"))


def quarter_square(n: Number) -> Number:
    """floor(n^2 / 4): blocks that cross the middle of n devices when every one sends to every other."""
    return (n * n - n % 2) / 4


def ring(kind: str, n: Number) -> Cost:
    """One-way ring: every device sends to its right neighbour only.

    All-gather and reduce-scatter take n - 1 steps of V/n, an all-reduce twice that (NCCL tests, doc/PERFORMANCE.md);
    an all-to-all stores and forwards, V(n-1)/(2nW) (How To Scale Your Model, sharding, problem 10). A permute is priced
    at the farthest shift, n - 1 hops.

    >>> ring("all-gather", 8), ring("all-to-all", 8)
    ((7, 7), (7, 3.5))
    """
    check_kind(kind)
    share = (n - 1) / n
    if kind == ALL_GATHER:
        return n - 1, n - 1
    if kind == REDUCE_SCATTER:
        return n - 1, share
    if kind == ALL_REDUCE:
        return 2 * (n - 1), 2 * share
    if kind == ALL_TO_ALL:
        return n - 1, (n - 1) / 2
    return n - 1, n - 1


def bidirectional_ring(kind: str, n: Number) -> Cost:
    """Ring whose devices send both ways at once, as a torus axis with wraparound does.

    All-gather and reduce-scatter send V(n-1)/(2nW) over floor(n/2) hops (How To Scale Your Model, sharding). An
    all-to-all sends V/(8W) for even n and V(n^2-1)/(8 n^2 W) for odd n: the blocks that cross one link, counted; the
    book's quarter of an all-gather is the limit. A permute is priced at the farthest shift, half of it sent each way.

    >>> bidirectional_ring("all-gather", 8), bidirectional_ring("all-to-all", 8)
    ((4, 3.5), (4, 1.0))
    """
    return torus(kind, (Segment(n),))


def line(kind: str, n: Number) -> Cost:
    """Devices in a row without wraparound: an end device has one link.

    All-gather and reduce-scatter send V(n-1)/(nW) over n - 1 hops (How To Scale Your Model, sharding, pop quiz 2); an
    all-to-all V floor(n^2/4)/(n^2 W), what crosses the middle link. A permute is priced at the reversal of the row.

    >>> line("all-gather", 4), line("all-to-all", 4)
    ((3, 3.0), (3, 1.0))
    """
    return torus(kind, (Segment(n, 1, 0),))


def switch(kind: str, n: Number, *, tree: bool = False, in_network_reduction: bool = False) -> Cost:
    """Any device to any other through a switch, each at full port bandwidth.

    V(n-1)/(nW) for all-gather and reduce-scatter, twice that for an all-reduce, V(n-1)/(n^2 W) for an all-to-all (How
    To Scale Your Model, GPUs); a switch that reduces in flight (SHARP) makes an all-reduce V/W. NCCL runs its rings for
    n - 1 steps; beyond a node its all-reduce is a tree of 2 log2(n) steps (NCCL, src/graph/tuning.cc): `tree`.

    >>> switch("all-gather", 8), switch("all-reduce", 8), switch("all-to-all", 8)
    ((7, 7), (14, 1.75), (7, 0.875))
    """
    check_kind(kind)
    share = (n - 1) / n
    if kind == ALL_GATHER:
        return n - 1, n - 1
    if kind == ALL_REDUCE:
        steps = 2 * (log2_ceil(n) if tree else n - 1)
        return steps, (n > 1) * 1.0 if in_network_reduction else 2 * share
    if kind == PERMUTE:
        return (n > 1) * 1, (n > 1) * 1
    return n - 1, share


def full(kind: str, n: Number) -> Cost:
    """A direct link between every two devices, each of bandwidth W: every device uses n - 1 links at once.

    Each link carries one block: V/(nW) for all-gather and reduce-scatter, twice that for an all-reduce, V/(n^2 W) for
    an all-to-all; a permute has one link only. Counted from the definition.

    >>> full("all-gather", 8), full("all-reduce", 8)
    ((1, 1), (2, 0.25))
    """
    check_kind(kind)
    some = (n > 1) * 1
    if kind in (ALL_GATHER, PERMUTE):
        return some, some
    if kind == ALL_REDUCE:
        return 2 * some, 2 * some / n
    return some, some / n


def torus(kind: str, segments: Sequence[Segment]) -> Cost:
    """Several torus axes at once, each a bidirectional ring or a line.

    With P devices over k rings, all-gather and reduce-scatter send V(P-1)/(P 2kW) and take the sum of the axes' hops
    (How To Scale Your Model, sharding, `n_axes`); a line adds one link where a ring adds two, for its end device has no
    more. An all-to-all is routed axis by axis, all axes busy at once: the longest one decides, V max(n)/(8PW) on rings.
    A segment of stride s shares its links with s - 1 other groups and hops s links at a time. Two segments in one dim
    count the slower of them for gathers and both for an all-to-all.

    >>> torus("all-gather", (Segment(4, dim=0), Segment(4, dim=1)))
    (4, 3.75)
    """
    check_kind(kind)
    devices = product(segment.size for segment in segments)
    steps: Number = 0
    load: Number = 0
    shift: Number = 0
    rates: dict[int, Number] = {}
    loads: dict[int, Number] = {}
    for segment in segments:
        n, links = segment.size, 1 + segment.wraps
        hops = (n // 2) * segment.wraps + (n - 1) * (1 - segment.wraps)
        steps = steps + hops * segment.stride
        rate = links / segment.stride * (n > 1)
        rates[segment.dim] = _slower(rates[segment.dim], rate) if segment.dim in rates else rate
        crossing = quarter_square(n) / n * segment.stride
        loads[segment.dim] = loads.get(segment.dim, 0) + crossing / links
        farthest = crossing * segment.wraps + (n // 2) * segment.stride * (1 - segment.wraps)
        shift = maximum(shift, farthest)
    for dim_load in loads.values():
        load = maximum(load, dim_load)
    total = maximum(sum(rates.values()), 1e-12)
    gathered = (devices - 1) / total
    if kind == ALL_GATHER:
        return steps, gathered
    if kind == REDUCE_SCATTER:
        return steps, gathered / devices
    if kind == ALL_REDUCE:
        return 2 * steps, 2 * gathered / devices
    return steps, load if kind == ALL_TO_ALL else shift


def _slower(first: Number, second: Number) -> Number:
    """The smaller of two rates, leaving out one that is 0 because its segment has a single device."""
    both = (first > 0) * (second > 0)
    return both * -maximum(-first, -second) + (1 - both) * maximum(first, second)


def entering(kind: str, n: Number, inside: Number, outside: Number) -> Number:
    """Bytes that enter one level of a hierarchical collective, as a multiple of L.

    `inside` is the size of the group within one domain of the next faster level, `n` its size on this level, `outside`
    its size beyond. An all-gather goes slow to fast, so a device holds L * outside when it comes here; a reduction goes
    fast to slow, L / inside; an all-to-all sends each block over the level where source and destination part.
    """
    if kind == ALL_GATHER:
        return outside
    if kind in (REDUCE_SCATTER, ALL_REDUCE):
        return 1 / inside
    if kind == ALL_TO_ALL:
        return 1 / outside
    return 1.0


def hierarchical(
    kind: str, counts: Sequence[Number], bandwidths: Sequence[float], hops: Sequence[float] = ()
) -> tuple[Number, Number]:
    """(alpha seconds, seconds per byte of L) over switches, fast to slow, all levels busy at once.

    Each level moves its share while the others move theirs, so the slowest one decides: V max_i (D_i - 1)/(D_i W_i) of
    How To Scale Your Model, GPUs, with W_i the bandwidth of all a domain's devices together. Latencies add.

    >>> alpha, beta = hierarchical("all-gather", (8, 4), (450e9, 50e9))
    >>> round(beta * 1e9 / 32 * 1e3, 2)  # ms for 1 GB gathered
    1.94
    """
    alpha: Number = 0.0
    beta: Number = 0.0
    for position, (n, bandwidth) in enumerate(zip(counts, bandwidths, strict=True)):
        steps, factor = switch(kind, n, tree=position > 0)
        scale = entering(kind, n, product(counts[:position]), product(counts[position + 1 :]))
        beta = maximum(beta, factor * scale / bandwidth)
        alpha = alpha + steps * (hops[position] if hops else 0.0)
    return alpha, beta


ALGORITHMS = {
    "ring": ring,
    "bidirectional ring": bidirectional_ring,
    "line": line,
    "switch": switch,
    "full": full,
    "torus": torus,
    "hierarchical": hierarchical,
}
"""The formulas by name."""


def collective_seconds(
    algorithm: str,
    kind: str,
    local_bytes: Number,
    n: Number | Sequence[Number],
    bandwidth: float | Sequence[float],
    *,
    hop: float | Sequence[float] = 0.0,
    launch: float = 0.0,
) -> Number:
    """Seconds of one collective by a named algorithm, away from any system.

    Args:
        algorithm: `ring`, `bidirectional ring`, `line`, `switch`, `full`, `torus` or `hierarchical`.
        kind: the collective.
        local_bytes: bytes one device holds before the move.
        n: group size; for a torus the extents of its axes (all with wraparound) or `Segment`s; for `hierarchical` the
            sizes per level, fast to slow.
        bandwidth: one-way bytes/s of a port or link; for `hierarchical` one per level.
        hop: seconds per step; for `hierarchical` one per level.
        launch: seconds per collective.

    >>> collective_seconds("switch", "all-gather", 1e9 / 8, 8, 450e9)
    0.0019444444444444444

    Raises:
        UsageError: no such algorithm or collective.
    """
    if algorithm not in ALGORITHMS:
        raise UsageError(
            f"no collective algorithm is called `{algorithm}`", hint=did_you_mean(algorithm, ALGORITHMS, "algorithms")
        )
    check_kind(kind)
    if algorithm == "hierarchical":
        counts, rates = _sequence(n), _sequence(bandwidth)
        hops = _sequence(hop) if hop else [0.0] * len(counts)
        alpha, beta = hierarchical(kind, counts, rates, hops)
        return (alpha + launch) * (product(counts) > 1) + beta * local_bytes
    if algorithm == "torus":
        parts = [s if isinstance(s, Segment) else Segment(s, dim=dim) for dim, s in enumerate(_sequence(n))]
        steps, factor = torus(kind, parts)
    else:
        steps, factor = ALGORITHMS[algorithm](kind, n)  # type: ignore[operator]
    return steps * hop + launch * (steps > 0) + factor * local_bytes / bandwidth


def _sequence(value: Number) -> list[Number]:
    """A list of per-level or per-axis values; one value stands for a list of one."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, (int, float, Segment)):
        return [value]
    raise HardwareError("sizes, bandwidths and hops of several levels must be a tuple")
