"""Who holds which part of a tensor: devices of a mesh against the shards of a layout, device by device."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod

from msgspec import Struct

from einscale.errors import MeshError
from einscale.layout import Layout, shards
from einscale.mesh import Mesh, split_name
from einscale.numeric import ceil_div

MOST_LISTED = 65536
"""Most devices that are listed one by one."""


class Slice(Struct, frozen=True):
    """The part of one dim that a device holds.

    Args:
        index: name of the dim.
        shard: number of the part, from 0.
        start: first element; None where the size of the dim is not known.
        stop: the element after the last; None likewise.
        padding: elements stored after the last that belong to nothing.
    """

    index: str
    shard: int
    start: int | None = None
    stop: int | None = None
    padding: int = 0


class Part(Struct, frozen=True):
    """One part of a tensor and who holds it.

    Args:
        slices: of each dim, in the tensor's order.
        copies: who holds it: each copy is the devices whose partial results add up to it, one where no sum is owed.
    """

    slices: tuple[Slice, ...]
    copies: tuple[tuple[int, ...], ...]

    @property
    def devices(self) -> tuple[int, ...]:
        """Every device that holds it, or a partial result of it."""
        return tuple(sorted(device for copy in self.copies for device in copy))


class Placement(Struct, frozen=True):
    """A tensor on a mesh.

    Args:
        indices: names of the dims.
        layout: which mesh axes divide them.
        mesh: the devices, numbered with the last axis fastest.
        sizes: size of each dim, None where it is not known.
        parts: every part, the last dim fastest.
    """

    indices: tuple[str, ...]
    layout: Layout
    mesh: Mesh
    sizes: tuple[int | None, ...]
    parts: tuple[Part, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Parts of each dim."""
        return tuple(int(shards(axes, self.mesh.degrees)) for axes in self.layout.dims)

    @property
    def local_shape(self) -> tuple[int | None, ...]:
        """What one device stores of each dim, padding included."""
        pairs = zip(self.sizes, self.counts, strict=True)
        return tuple(None if size is None else ceil_div(size, count) for size, count in pairs)

    @property
    def replicated(self) -> tuple[str, ...]:
        """Mesh axes, or parts of them, over which every device holds the same."""
        return unused_axes(self.layout, self.mesh)


def place_parts(layout: Layout, indices: tuple[str, ...], sizes: Mapping[str, int], mesh: Mesh) -> Placement:
    """Who holds which part.

    >>> from einscale.layout import make_layout
    >>> from einscale.mesh import parse_mesh
    >>> placed = place_parts(make_layout([("x",), ()]), ("B", "D"), {"B": 3}, parse_mesh("x=2,y=2"))
    >>> [(part.slices[0].start, part.slices[0].stop, part.copies) for part in placed.parts]
    [(0, 2, ((0,), (1,))), (2, 3, ((2,), (3,)))]

    Args:
        layout: one that `check_layout` accepts.
        indices: a name for each dim.
        sizes: index -> size, where it is known.
        mesh: the devices.

    Raises:
        MeshError: so many devices that nobody would read them.
    """
    if mesh.devices > MOST_LISTED:
        raise MeshError(
            f"the mesh {mesh} has {mesh.devices} devices, too many to list one by one",
            expected=f"at most {MOST_LISTED}",
        )
    holders: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    spare = unused_axes(layout, mesh)
    for device, place in enumerate(product(*(range(axis.size) for axis in mesh.axes))):
        at = dict(zip(mesh.names, place, strict=True))
        part = tuple(_number(axes, at, mesh) for axes in layout.dims)
        copy = tuple(_number((axis,), at, mesh) for axis in spare)
        holders.setdefault(part, {}).setdefault(copy, []).append(device)
    known = tuple(sizes.get(index) for index in indices)
    counts = [int(shards(axes, mesh.degrees)) for axes in layout.dims]
    parts = tuple(
        Part(
            tuple(_slice(*dim) for dim in zip(indices, part, counts, known, strict=True)),
            tuple(tuple(devices) for _, devices in sorted(holders[part].items())),
        )
        for part in sorted(holders)
    )
    return Placement(indices, layout, mesh, known, parts)


def unused_axes(layout: Layout, mesh: Mesh) -> tuple[str, ...]:
    """Mesh axes of more than one device, or parts of them, that a layout does not use: it is replicated over them.

    >>> from einscale.layout import make_layout
    >>> from einscale.mesh import parse_mesh
    >>> unused_axes(make_layout([("x:(2)2",)]), parse_mesh("x=8,y=2,z=1"))
    ('x:(1)2', 'x:(4)2', 'y')
    """
    found: list[str] = []
    for axis in mesh.axes:
        used = sorted((before, size) for name, before, size in map(split_name, layout.axes) if name == axis.name)
        if any(size is None for _, size in used):
            continue
        covered = 1
        for before, size in used:
            if before > covered:
                found.append(_named(axis.name, covered, before // covered, axis.size))
            covered = before * (size or 1)
        if axis.size > covered:
            found.append(_named(axis.name, covered, axis.size // covered, axis.size))
    return tuple(found)


def _named(axis: str, before: int, size: int, whole: int) -> str:
    """A mesh axis, or a part of one."""
    return axis if size == whole else f"{axis}:({before}){size}"


def _number(axes: tuple[str, ...], at: Mapping[str, int], mesh: Mesh) -> int:
    """Which of the parts over these axes a device has, counted with the last axis fastest."""
    number = 0
    for name in axes:
        axis, before, size = split_name(name)
        whole = mesh.degrees[axis]
        size = whole if size is None else size
        number = number * size + at[axis] // (whole // (before * size)) % size
    return number


def _slice(index: str, shard: int, count: int, size: int | None) -> Slice:
    """One of `count` parts of a dim: all as large as the first, what is missing at the end is padding."""
    if size is None:
        return Slice(index, shard)
    each = ceil_div(size, count)
    start, stop = min(size, shard * each), min(size, (shard + 1) * each)
    return Slice(index, shard, start, stop, each - (stop - start))


def total(values: tuple[int | None, ...]) -> int | None:
    """Product of sizes, None if one is not known."""
    return None if None in values else prod(value for value in values if value is not None)
