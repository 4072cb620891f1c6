"""Mesh axes cut into digits, so that a whole axis and its parts are runs of the same array axes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from msgspec import Struct

from einscale.errors import MeshError, PlanError, did_you_mean
from einscale.layout import Layout
from einscale.mesh import Mesh, MeshAxis, split_name, sub_axis
from einscale.numeric import ceil_div
from einscale.vocabulary import SUM, Reduction


class Placed(Struct, frozen=True):
    """A layout in digits: two layouts that put the same data on the same devices are the same value.

    Args:
        dims: per dim the digits that divide it, major to minor.
        unreduced: the digits over which a reduction is owed, ascending.
        reduction: the owed reduction; `sum` where none is owed.
    """

    dims: tuple[tuple[int, ...], ...]
    unreduced: tuple[int, ...] = ()
    reduction: Reduction = SUM


class CutMesh(Struct, frozen=True):
    """Every mesh axis cut at the places where some name of a plan begins or ends.

    Args:
        cuts: per mesh axis, major to minor: its name and how many shards lie above each cut, from 1 to its size.

    >>> digits = cut_mesh(Mesh((MeshAxis("x", 8), MeshAxis("y", 3))), ["x:(2)4", "y"])
    >>> digits.radices, digits.positions("x"), digits.positions("x:(2)4"), digits.positions("y")
    ((2, 4, 3), (0, 1), (1,), (2,))
    """

    cuts: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def radices(self) -> tuple[int, ...]:
        """Size of every digit, major to minor."""
        return tuple(below // above for _, cuts in self.cuts for above, below in pairwise(cuts))

    def positions(self, name: str) -> tuple[int, ...]:
        """CutMesh that an axis or sub-axis stands for, major to minor; none for an axis of one device.

        Raises:
            MeshError: the mesh has no such axis, or it was not cut there.
        """
        axis, before, size = split_name(name)
        first = 0
        for known, cuts in self.cuts:
            if known == axis:
                stop = cuts[-1] if size is None else before * size
                if before not in cuts or stop not in cuts:
                    raise MeshError(f"`{name}` is no part of mesh axis `{axis}` of {cuts[-1]} devices")
                return tuple(range(first + cuts.index(before), first + cuts.index(stop)))
            first += len(cuts) - 1
        names = [known for known, _ in self.cuts]
        raise MeshError(f"the mesh has no axis `{axis}`", hint=did_you_mean(axis, names, "the mesh has"))

    def expand(self, names: Iterable[str]) -> tuple[int, ...]:
        """CutMesh of several names, in order."""
        return tuple(digit for name in names for digit in self.positions(name))

    def place(self, layout: Layout) -> Placed:
        """A layout in digits."""
        owed = tuple(sorted(self.expand(layout.unreduced)))
        return Placed(tuple(self.expand(dim) for dim in layout.dims), owed, layout.reduction if owed else SUM)

    def resized(self, radices: Iterable[int]) -> CutMesh:
        """The same cuts on axes whose digits have other sizes."""
        sizes = iter(radices)
        axes = []
        for name, cuts in self.cuts:
            counts = [1]
            for _ in cuts[1:]:
                counts.append(counts[-1] * next(sizes))
            axes.append((name, tuple(counts)))
        return CutMesh(tuple(axes))

    @property
    def mesh(self) -> Mesh:
        """The mesh whose axes these digits make up."""
        return Mesh(tuple(MeshAxis(name, cuts[-1]) for name, cuts in self.cuts))

    def rename(self, name: str, resized: CutMesh) -> str:
        """What `name` is called after the digits were resized.

        >>> digits = cut_mesh(Mesh((MeshAxis("x", 64),)), ["x:(8)8"])
        >>> digits.rename("x:(8)8", digits.resized((3, 2)))
        'x:(3)2'
        """
        axis, before, size = split_name(name)
        if size is None:
            return name
        old, new = dict(self.cuts)[axis], dict(resized.cuts)[axis]
        above, below = new[old.index(before)], new[old.index(before * size)]
        return sub_axis(axis, above, below // above)


def cut_mesh(mesh: Mesh, names: Iterable[str]) -> CutMesh:
    """Cut the axes of a mesh so that every one of `names` is a run of digits.

    Raises:
        MeshError: a name is no axis, nor part of an axis, of the mesh.
        PlanError: two parts of one axis overlap in a way that no split of the axis explains (6 as 2x3 and as 3x2).
    """
    degrees = mesh.degrees
    cuts: dict[str, set[int]] = {axis: {1, size} for axis, size in degrees.items()}
    for name in names:
        axis, before, size = split_name(name)
        if axis not in cuts:
            raise MeshError(f"the mesh has no axis `{axis}`", hint=did_you_mean(axis, cuts, "the mesh has"))
        if size is not None:
            if degrees[axis] % (before * size):
                raise MeshError(f"`{name}` is no part of mesh axis `{axis}` of {degrees[axis]} devices")
            cuts[axis] |= {before, before * size}
    for axis, places in cuts.items():
        for above, below in pairwise(sorted(places)):
            if below % above:
                raise PlanError(f"mesh axis `{axis}` is split in two ways that do not nest: at {above} and at {below}")
    return CutMesh(tuple((axis, tuple(sorted(places))) for axis, places in cuts.items()))


def count(digits: Iterable[int], radices: tuple[int, ...]) -> int:
    """Shards that some digits make."""
    result = 1
    for digit in digits:
        result *= radices[digit]
    return result


def local_shape(
    placed: Placed, shape: tuple[int, ...], padded: tuple[int, ...], radices: tuple[int, ...]
) -> tuple[int, ...]:
    """Shape of one shard: a dim that nothing divides is whole, the others are parts of the padded size."""
    return tuple(
        local_length(whole, dim, radices) if dim else size
        for size, whole, dim in zip(shape, padded, placed.dims, strict=True)
    )


def local_length(size: int, digits: Iterable[int], radices: tuple[int, ...]) -> int:
    """Length of one shard of a dim: dividing digit by digit and rounding up each time gives ceil(size / shards)."""
    return int(ceil_div(size, count(digits, radices)))
