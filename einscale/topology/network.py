"""Mesh axes on network levels: which part of a group lies inside which domain, and how it lies on a torus."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TypeAlias

from msgspec import Struct

from einscale.errors import HardwareError, MeshError, did_you_mean
from einscale.hardware import Level, System
from einscale.hardware.load import domain_size
from einscale.mesh import Mesh, split_name
from einscale.numeric import Array, Number, as_int, maximum, product, where
from einscale.topology.formulas import Segment

UNBOUNDED = 2**62
"""Stands for the domain size of a level that joins any number of devices."""


LARGEST_DIVISOR = 1 << 20
"""No torus is longer; larger divisors are not looked for."""


class Place(Struct, frozen=True):
    """Where a mesh axis lies.

    Args:
        size: devices along the axis.
        stride: distance of neighbours in the numbering of the devices: of all devices if the level is chosen by mesh
            order, of that level's alone if it is named.
        level: the level the axis is bound to by name, or None.
    """

    size: int
    stride: int
    level: int | None


class Network(Struct, frozen=True, cache_hash=True):
    """A mesh bound to a system's network levels. Made by `bind`.

    Args:
        mesh: the mesh.
        system: the system.
        places: one per mesh axis, in mesh order.
        domains: devices of the axes without a named level that fit inside one domain of each level, fast to slow.
        unnamed: product of the sizes of those axes.
        shapes: per level the extents of the torus the mesh occupies, major to minor; empty for a switch.
    """

    mesh: Mesh
    system: System
    places: tuple[Place, ...]
    domains: tuple[int, ...]
    unnamed: int
    shapes: tuple[tuple[int, ...], ...]


class Networks(Struct, frozen=True, dict=True, eq=False):
    """Meshes of the same axes bound to one system, and which of them each of many points is on.

    Args:
        members: the networks that differ.
        which: per point the number of its network: an array of ints.
    """

    members: tuple[Network, ...]
    which: Array

    @property
    def system(self) -> System:
        """The system they are all bound to."""
        return self.members[0].system

    @property
    def mesh(self) -> Mesh:
        """A mesh that stands for the names of the axes."""
        return self.members[0].mesh

    @cached_property
    def degrees(self) -> dict[str, Number]:
        """Mesh axis -> devices along it, per point."""
        return {name: self.gather(tuple(one.mesh.size(name) for one in self.members)) for name in self.mesh.names}

    def gather(self, values: Sequence[float]) -> Array:
        """Per point the value of its network, as a float."""
        import numpy as np

        return np.asarray(values, dtype=np.float64)[self.which]

    @cached_property
    def kept(self) -> dict[object, tuple[Number, Number]]:
        """Coefficients that have been gathered, by what was asked."""
        return {}


AnyNetwork: TypeAlias = Network | Networks
"""One mesh on its links, or the meshes of many points."""


@lru_cache(maxsize=1024)
def bind(mesh: Mesh, system: System) -> Network:
    """Lay the axes of a mesh on the network levels of a system.

    Devices are numbered in mesh order, the last axis fastest, and fill the fastest domain first: minor-most axes lie
    inside it, and an axis that spans two levels is split, inner = min(n, domain / product of the more minor axes).
    Where that does not divide, the slower level prices the whole axis. An axis written `name=8@nvlink` lies on that
    level alone and takes that part of its domains; the other axes share what is left.

    >>> from einscale.hardware import load_system
    >>> from einscale.mesh import parse_mesh
    >>> network = bind(parse_mesh("data=16,model=4"), load_system("h100"))
    >>> level_counts(("data",), network), level_counts(("model",), network), level_counts(("data", "model"), network)
    ((2, 8), (4, 1), (8, 8))

    Raises:
        HardwareError: an axis names a level the system lacks, or does not fit into its level.
    """
    named = [1] * len(system.levels)
    unnamed = 1
    places: list[Place] = []
    for axis in reversed(mesh.axes):
        if axis.level is None:
            places.append(Place(axis.size, unnamed, None))
            unnamed *= axis.size
        else:
            level = _level(mesh, axis.name, axis.level, system)
            places.append(Place(axis.size, named[level], level))
            named[level] *= axis.size
    domains = _domains(mesh, system, named)
    if unnamed > domains[-1]:
        slowest = system.levels[-1]
        raise HardwareError(
            f"the mesh {mesh} has {mesh.devices} devices, but one {slowest.name} network of {system.name} joins "
            f"{domain_size(slowest)}",
            hint="use a smaller mesh, or describe a system with a slower level that joins more",
        )
    network = Network(mesh, system, tuple(reversed(places)), domains, unnamed, ((),) * len(system.levels))
    shapes = tuple(_level_shape(network, position, named) for position in range(len(system.levels)))
    return Network(mesh, system, network.places, domains, unnamed, shapes)


def _level(mesh: Mesh, axis: str, name: str, system: System) -> int:
    """Position of the level an axis names."""
    names = [level.name for level in system.levels]
    folded = [level.casefold() for level in names]
    if name.casefold() in folded:
        return folded.index(name.casefold())
    text = str(mesh)
    start = text.index(f"@{name}") + 1
    raise HardwareError(
        f"mesh axis `{axis}` names the network level `{name}`, which {system.name} does not have",
        text=text,
        span=(start, start + len(name)),
        hint=did_you_mean(name, names, f"{system.name} has"),
    )


def _domains(mesh: Mesh, system: System, named: Sequence[int]) -> tuple[int, ...]:
    """Devices of unnamed axes inside one domain of each level, after the axes bound by name have taken their part."""
    domains: list[int] = []
    within, below = 1, 1
    for level, taken in zip(system.levels, named, strict=True):
        size = domain_size(level)
        if size is None:
            domains.append(UNBOUNDED)
            continue
        fits = size // below
        if taken > fits:
            axes = [axis for axis in mesh.axes if axis.level and axis.level.casefold() == level.name.casefold()]
            names = " x ".join(f"{axis.name}={axis.size}" for axis in axes)
            what = "devices" if below == 1 else f"domains of {below} devices"
            raise HardwareError(
                f"{names} does not fit on {level.name}: one {level.name} network of {system.name} joins {fits} {what}",
                text=str(mesh),
                hint="leave out the `@` and the mesh order decides, or use a smaller axis",
            )
        within *= fits // taken
        domains.append(within)
        below = size
    return tuple(domains)


def split_levels(stride: Number, size: Number, devices: Number, domains: Sequence[int]) -> tuple[Number, ...]:
    """Group size on each level, fast to slow, of `size` devices that lie `stride` apart among `devices` in order.

    All arguments but `domains` may be numpy arrays.

    >>> split_levels(4, 16, 64, (8, UNBOUNDED)), split_levels(3, 4, 12, (8, UNBOUNDED))
    ((2, 8), (1, 4))
    """
    counts: list[Number] = []
    for domain in domains:
        if domain >= UNBOUNDED:
            counts.append(size)
            size = size * 0 + 1
            continue
        span = stride * size
        inside = (span <= domain) & ((domain % span == 0) | (devices <= domain))
        part = maximum(domain // stride, 1)
        splits = (stride < domain) & (domain % stride == 0) & (size % part == 0)
        count = where(inside, size, where(splits, part, 1))
        counts.append(count)
        size = size // count
        stride = stride * count
    return tuple(counts)


def _spread(name: str, network: Network) -> tuple[tuple[int, int], ...]:
    """Per level (start, count) of an axis or sub-axis, start being its stride in that level's own numbering."""
    axis, before, size = split_name(name)
    place = network.places[_position(axis, network.mesh)]
    size = place.size if size is None else size
    stride = place.stride * (place.size // (before * size))
    levels = len(network.domains)
    if place.level is not None:
        return tuple((stride, size) if level == place.level else (1, 1) for level in range(levels))
    counts = split_levels(stride, size, network.unnamed, network.domains)
    spread: list[tuple[int, int]] = []
    below = 1
    for level, count in enumerate(counts):
        named = product(p.size for p in network.places if p.level == level)
        start = stride // below if stride >= below else 1
        spread.append((as_int(start * named), as_int(count)))
        stride *= as_int(count)
        below = network.domains[level]
    return tuple(spread)


@lru_cache(maxsize=4096)
def _position(axis: str, mesh: Mesh) -> int:
    names = mesh.names
    if axis not in names:
        raise MeshError(f"the mesh {mesh} has no axis `{axis}`", hint=did_you_mean(axis, names, "the mesh has"))
    return names.index(axis)


@lru_cache(maxsize=65536)
def level_counts(axes: tuple[str, ...], network: Network) -> tuple[int, ...]:
    """Devices of a group over mesh axes (or sub-axes) on each level, fast to slow; their product is the group size.

    Raises:
        MeshError: the mesh has no such axis.
    """
    spreads = [_spread(name, network) for name in axes]
    return tuple(int(product(spread[level][1] for spread in spreads)) for level in range(len(network.domains)))


@lru_cache(maxsize=65536)
def segments(axes: tuple[str, ...], level: int, network: Network) -> tuple[Segment, ...]:
    """The parts of torus dims that a group over mesh axes runs over on one level, neighbouring axes joined.

    >>> from einscale.hardware import load_system
    >>> from einscale.mesh import parse_mesh
    >>> network = bind(parse_mesh("x=8,y=4"), load_system("tpu-v5e"))
    >>> [(part.size, part.wraps) for part in segments(("x", "y"), 0, network)]
    [(8, 0), (4, 0)]
    """
    ranges: list[tuple[int, int]] = []
    for start, count in sorted(_spread(name, network)[level] for name in axes):
        if count == 1:
            continue
        if ranges and ranges[-1][0] * ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] * count)
        else:
            ranges.append((start, count))
    shape, kind = network.shapes[level], network.system.levels[level]
    return tuple(part for start, count in reversed(ranges) for part in cut(start, count, shape, kind))


def cut(start: int, count: int, shape: Sequence[int], level: Level) -> tuple[Segment, ...]:
    """Torus segments, major to minor, of `count` devices `start` apart in the row-major numbering of a torus.

    A range that the extents do not divide is priced as one line.

    >>> from einscale.hardware import load_system
    >>> cut(8, 32, (16, 16), load_system("tpu-v5e").levels[0])  # the other half of a row, and the column
    (Segment(size=16, stride=1, wraps=1, dim=0), Segment(size=2, stride=8, wraps=1, dim=1))
    """
    parts: list[Segment] = []
    low, left = 1, count
    for dim in range(len(shape) - 1, -1, -1):
        high = low * shape[dim]
        first, last = max(start, low), min(start * count, high)
        if first < last:
            if last % first or first % low or high % last:
                return (Segment(count, 1, 0, 0),)
            size = last // first
            parts.append(Segment(size, first // low, int(last == high and wraps(shape[dim], level)), dim))
            left //= size
        low = high
    return tuple(reversed(parts)) if left == 1 and parts else (Segment(count, 1, 0, 0),)


def wraps(extent: Number, level: Level) -> Number:
    """Whether a torus dim of this extent closes a ring."""
    if level.kind == "ring":
        return extent == (level.domain or extent)
    if level.kind == "line" or level.wrap_multiple is None:
        return extent < 0
    return (extent % level.wrap_multiple == 0) & (extent <= max(level.shape))


def _level_shape(network: Network, position: int, named: Sequence[int]) -> tuple[int, ...]:
    """Extents of the torus (ring, line) that the mesh occupies on a level; empty for a switch."""
    level = network.system.levels[position]
    if level.kind in ("switch", "full"):
        return ()
    extents: list[int] = []
    covered = 1
    for start, count in sorted(_spread(axis.name, network)[position] for axis in network.mesh.axes):
        if count == 1:
            continue
        if start % covered:
            return ()
        if start > covered:
            extents.append(start // covered)
        extents.append(count)
        covered = start * count
    if level.kind == "ring" and level.domain and covered < level.domain and level.domain % covered == 0:
        return (level.domain,)
    if level.kind in ("ring", "line"):
        return (covered,)
    return torus_shape(tuple(reversed(extents)), level.shape)


def torus_shape(axes: Sequence[int], pod: Sequence[int]) -> tuple[int, ...]:
    """Extents, major to minor, of the slice of a torus that mesh axes of these sizes occupy.

    Each axis takes a torus dim of its own. Dims left over go to the axes that are longest, which then spread evenly
    over several; with more axes than dims, neighbouring axes with the smallest product share one. Where an extent
    exceeds the pod, the whole mesh is laid row by row over the most even shape instead.

    >>> torus_shape((16, 16), (16, 16)), torus_shape((64,), (16, 20, 28)), torus_shape((64, 4), (16, 16))
    ((16, 16), (4, 4, 4), (16, 16))
    """
    if not axes:
        return ()
    extents = list(axes)
    while len(extents) > len(pod):
        pair = min(range(len(extents) - 1), key=lambda i: extents[i] * extents[i + 1])
        extents[pair : pair + 2] = [extents[pair] * extents[pair + 1]]
    parts: list[tuple[int, ...]] = [(extent,) for extent in extents]
    shape = _shared_out(parts, len(pod) - len(extents))
    if _fits(shape, pod):
        return shape
    even = even_factors(int(product(axes)), len(pod))
    return even if _fits(even, pod) else shape


def _shared_out(parts: list[tuple[int, ...]], spare: int) -> tuple[int, ...]:
    """Give spare torus dims one by one to the axis whose longest extent they shorten."""
    for _ in range(spare):
        longest = max(range(len(parts)), key=lambda i: max(parts[i]))
        factors = even_factors(int(product(parts[longest])), len(parts[longest]) + 1)
        if max(factors) >= max(parts[longest]):
            break
        parts[longest] = factors
    return tuple(extent for part in parts for extent in part)


def _fits(shape: Sequence[int], pod: Sequence[int]) -> bool:
    room = sorted(pod, reverse=True)
    return all(extent <= limit for extent, limit in zip(sorted(shape, reverse=True), room, strict=False))


def even_factors(n: int, parts: int) -> tuple[int, ...]:
    """The number as a product of `parts` factors as even as its divisors allow, large to small.

    >>> even_factors(128, 3), even_factors(7, 2)
    ((8, 4, 4), (7, 1))
    """
    if parts == 1:
        return (n,)
    factor = 1
    while factor**parts < n or n % factor:
        factor = factor + 1 if factor < LARGEST_DIVISOR else n
    return (factor, *even_factors(n // factor, parts - 1))
