"""Layouts: which mesh axes divide each dim of a tensor, and which sums it still owes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from einscale.dtypes import bytes_of
from einscale.errors import LayoutError, did_you_mean
from einscale.mesh import Mesh, degree, split_name
from einscale.numeric import Number, ceil_div, product
from einscale.vocabulary import SUM, Reduction

Chosen: TypeAlias = tuple[tuple[str, int | float], ...]
"""(index, count): of that index only so many elements exist at every position of the others, spread evenly.

The count of a tensor that is padded to a capacity may be a fraction, and more than there are elements.
"""


class Tensor(Struct, frozen=True):
    """A logical tensor: its name, one index per dim, its element type, and what of it exists.

    Sizes are not part of it: they are looked up by index name when a plan is priced.

    >>> print(Tensor("x", ("e", "b", "d"), "bf16", (("e", 8),)))  # each row b for 8 of the e
    x: bf16[e:8 b d]
    """

    name: str
    indices: tuple[str, ...]
    dtype: str = "bf16"
    chosen: Chosen = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{index_words(self.indices, self.chosen)}]"


def index_words(indices: Sequence[str], chosen: Chosen = ()) -> str:
    """Indices as a declaration names them.

    >>> index_words(("e", "b", "d"), (("e", 8),))
    'e:8 b d'
    """
    counts = dict(chosen)
    return " ".join(f"{index}:{counts[index]:g}" if index in counts else index for index in indices)


def chosen_share(elements: Number, chosen: Chosen, sizes: Mapping[str, Number]) -> Number:
    """What exists of so many elements, rounded up.

    >>> chosen_share(1000, (("e", 8),), {"e": 256})
    32
    """
    for index, count in chosen:
        if isinstance(count, int):
            elements = ceil_div(elements * count, sizes[index])
        else:
            numerator, denominator = count.as_integer_ratio()
            elements = ceil_div(elements * numerator, sizes[index] * denominator)
    return elements


class Layout(Struct, frozen=True):
    """For each dim the mesh axes that divide it, major to minor, and the axes over which a sum is still owed.

    Args:
        dims: per dim an ordered tuple of mesh-axis (or sub-axis, `x:(2)4`) names; `()` is replicated.
        unreduced: sorted names of mesh axes over which the tensor is a sum of per-device parts.
        reduction: the owed reduction: `sum`, `max` or `min`.

    >>> layout = make_layout([("data",), (), ("model",)])
    >>> layout.text(("B", "S", "F"))
    'B/data S F/model'
    """

    dims: tuple[tuple[str, ...], ...]
    unreduced: tuple[str, ...] = ()
    reduction: Reduction = SUM

    @property
    def axes(self) -> tuple[str, ...]:
        """Every mesh axis the layout uses, in dims first, then unreduced."""
        return tuple(axis for dim in self.dims for axis in dim) + self.unreduced

    def text(self, indices: Sequence[str], chosen: Chosen = ()) -> str:
        """The layout in slash notation, dims named by `indices`; `chosen` adds what exists of an index, as in `e:8`."""
        named = index_words(indices, chosen).split()
        words = ["/".join((index, *axes)) for index, axes in zip(named, self.dims, strict=True)]
        if self.unreduced:
            owed = "U" if self.reduction == SUM else f"U({self.reduction})"
            words.append(f"{{{owed}:{','.join(self.unreduced)}}}")
        return " ".join(words)

    def reduced(self) -> Layout:
        """The same layout, owing nothing."""
        return Layout(self.dims) if self.unreduced else self


def make_layout(dims: Iterable[Iterable[str]], unreduced: Iterable[str] = (), reduction: Reduction = SUM) -> Layout:
    """A layout from any iterables, `unreduced` sorted."""
    return Layout(tuple(tuple(dim) for dim in dims), tuple(sorted(unreduced)), reduction)


def replicated(rank: int) -> Layout:
    """The layout that divides nothing."""
    return Layout(((),) * rank)


def check_layout(layout: Layout, mesh: Mesh, what: str = "the tensor") -> None:
    """Raise unless every axis exists in the mesh and none is used twice.

    Raises:
        LayoutError: an axis is unknown, or used twice (whole or in overlapping parts).
    """
    ranges: list[tuple[str, int, int, str]] = []
    degrees = mesh.degrees
    for name in layout.axes:
        axis, before, size = split_name(name)
        if axis not in degrees:
            raise LayoutError(
                f"{what} uses mesh axis `{axis}`, which the mesh {mesh} does not have",
                hint=did_you_mean(axis, degrees, "the mesh has"),
            )
        stop = before * (degrees[axis] if size is None else size)
        if degrees[axis] % stop:
            raise LayoutError(f"`{name}` is no part of mesh axis `{axis}` of {degrees[axis]} devices")
        for other, other_before, other_stop, other_name in ranges:
            if other == axis and (name == other_name or (before < other_stop and other_before < stop)):
                raise LayoutError(f"{what} uses mesh axis `{axis}` twice", hint="one mesh axis at most once per tensor")
        ranges.append((axis, before, stop, name))


def shards(axes: Iterable[str], degrees: Mapping[str, Number]) -> Number:
    """Product of the sizes of the given mesh axes."""
    result: Number = 1
    for axis in axes:
        result = result * (degrees[axis] if axis in degrees else degree(axis, degrees))
    return result


def local_shape(
    layout: Layout, indices: Sequence[str], sizes: Mapping[str, Number], degrees: Mapping[str, Number]
) -> tuple[Number, ...]:
    """Shape of one device's shard: every dim ceil(size / shards), so an uneven dim is padded.

    >>> local_shape(make_layout([("x",), ()]), ("B", "D"), {"B": 10, "D": 3}, {"x": 4})
    (3, 3)
    """
    return tuple(ceil_div(sizes[i], shards(axes, degrees)) for i, axes in zip(indices, layout.dims, strict=True))


def local_elements(
    layout: Layout,
    indices: Sequence[str],
    sizes: Mapping[str, Number],
    degrees: Mapping[str, Number],
    chosen: Chosen = (),
) -> Number:
    """Elements one device holds, padding included; of an index of which only some are chosen, the even share of these.

    >>> local_elements(make_layout([("x",), ()]), ("e", "b"), {"e": 64, "b": 10}, {"x": 4}, (("e", 6),))
    15
    """
    return chosen_share(product(local_shape(layout, indices, sizes, degrees)), chosen, sizes)


def local_bytes(tensor: Tensor, layout: Layout, sizes: Mapping[str, Number], degrees: Mapping[str, Number]) -> Number:
    """Bytes one device holds of a tensor, padding included."""
    return bytes_of(local_elements(layout, tensor.indices, sizes, degrees, tensor.chosen), tensor.dtype)


def padding_fraction(
    layout: Layout, indices: Sequence[str], sizes: Mapping[str, Number], degrees: Mapping[str, Number]
) -> float:
    """Share of the stored elements that is padding, 0.0 where every dim divides.

    >>> padding_fraction(make_layout([("x",)]), ("B",), {"B": 10}, {"x": 4})
    0.16666666666666663
    """
    stored = product(ceil_div(sizes[i], n) * n for i, n in _counts(layout, indices, degrees))
    return float(1.0 - product(sizes[i] for i in indices) / stored)


def _counts(layout: Layout, indices: Sequence[str], degrees: Mapping[str, Number]) -> list[tuple[str, Number]]:
    return [(index, shards(axes, degrees)) for index, axes in zip(indices, layout.dims, strict=True)]
