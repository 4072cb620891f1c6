"""Mesh axes as digits: every axis written as the prime factors of its size, so that any part of it has a place.

A device's coordinate along an axis of 8 is a number of three binary digits, the first the most significant. A layout
that divides a dim over `x` then lists three digits, one over `x:(1)2` the first of them only, and every question about
layouts (is this a suffix? do these two agree?) is a question about tuples of small ints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise, product
from math import gcd

from msgspec import Struct

from einscale.errors import LayoutError, MeshError, UncountableError, did_you_mean
from einscale.mesh import Mesh, split_name, sub_axis

LARGEST_PRIME = 1 << 20
"""Trial division stops here; what is left counts as one digit, prime or not."""


def prime_factors(number: int) -> tuple[int, ...]:
    """Prime factors, ascending; none for 1.

    >>> prime_factors(24), prime_factors(7), prime_factors(1)
    ((2, 2, 2, 3), (7,), ())
    """
    factors: list[int] = []
    factor = 2
    while factor * factor <= number and factor < LARGEST_PRIME:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    if number > 1:
        factors.append(number)
    return tuple(factors)


class Digits(Struct, frozen=True, eq=False):
    """The digits of a mesh, numbered major to minor over the axes in mesh order.

    Args:
        mesh: the mesh they are of.
        radices: how many values each digit takes.
        axes: the mesh axis each digit is part of.
        before: how many shards of that axis are more major than the digit.
        whole: axis name -> its digits.
    """

    mesh: Mesh
    radices: tuple[int, ...]
    axes: tuple[str, ...]
    before: tuple[int, ...]
    whole: dict[str, tuple[int, ...]]

    def of(self, name: str) -> tuple[int, ...]:
        """The digits of an axis or sub-axis.

        Raises:
            LayoutError: no such axis, or a part that these digits do not cut.
        """
        found = self.whole.get(name)
        if found is not None:
            return found
        axis, before, size = split_name(name)
        if axis not in self.whole or size is None:
            raise LayoutError(
                f"the mesh {self.mesh} has no axis `{axis}`", hint=did_you_mean(axis, self.whole, "the mesh has")
            )
        stop = before * size
        part = tuple(d for d in self.whole[axis] if before <= self.before[d] < stop)
        reached = self.before[part[-1]] * self.radices[part[-1]] if part else before
        if size > 1 and (not part or self.before[part[0]] != before or reached != stop):
            raise LayoutError(f"`{name}` is no part of mesh axis `{axis}` that its other parts in use allow")
        return part

    def expand(self, names: Iterable[str]) -> tuple[int, ...]:
        """The digits of several axes, one after the other."""
        return tuple(digit for name in names for digit in self.of(name))

    def dims(self, dims: Iterable[Iterable[str]]) -> tuple[tuple[int, ...], ...]:
        """The digits of every dim of a layout."""
        return tuple(self.expand(names) for names in dims)

    def size(self, digits: Iterable[int]) -> int:
        """Product of the digits' radices."""
        result = 1
        for digit in digits:
            result *= self.radices[digit]
        return result

    def names(self, digits: Sequence[int]) -> tuple[str, ...]:
        """Axis names of an ordered list of digits: neighbours that belong together are one name again."""
        result: list[str] = []
        start = 0
        for stop in range(1, len(digits) + 1):
            last = digits[stop - 1]
            if stop < len(digits) and digits[stop] == last + 1 and self.axes[digits[stop]] == self.axes[last]:
                continue
            run = digits[start:stop]
            axis = self.axes[run[0]]
            whole = len(run) == len(self.whole[axis])
            result.append(axis if whole else sub_axis(axis, self.before[run[0]], self.size(run)))
            start = stop
        return tuple(result)

    def mesh_names(self, digits: Iterable[int]) -> tuple[str, ...]:
        """Axis names of a set of digits, in mesh order."""
        return self.names(sorted(digits))


def digits_of(mesh: Mesh, names: Iterable[str] = (), *, split: bool = True) -> Digits:
    """The digits of a mesh that cut its axes wherever one of the (sub-)axis names does.

    With `split=False` they cut nowhere else: a digit is then a whole axis, or a part that has a name.

    >>> from einscale.mesh import make_mesh
    >>> digits = digits_of(make_mesh("x=8,y=3"))
    >>> digits.radices, digits.of("x:(2)4"), digits.names((3, 1, 2))
    ((2, 2, 2, 3), (1, 2), ('y', 'x:(2)4'))

    Raises:
        LayoutError: parts of one axis in use cut it at places that have no common refinement.
    """
    return _digits_of(mesh, frozenset(name for name in names if ":" in name), split)


@lru_cache(maxsize=1024)
def _digits_of(mesh: Mesh, parts: frozenset[str], split: bool) -> Digits:
    """Cut each axis at its sub-axes' ends, then into primes."""
    cuts: dict[str, set[int]] = {axis.name: {1, axis.size} for axis in mesh.axes}
    for part in parts:
        axis, before, size = split_name(part)
        if axis in cuts and size is not None:
            cuts[axis] |= {before, before * size}
    radices: list[int] = []
    axes: list[str] = []
    befores: list[int] = []
    whole: dict[str, tuple[int, ...]] = {}
    for mesh_axis in mesh.axes:
        first = len(radices)
        ordered = sorted(cuts[mesh_axis.name])  # one cut only where the axis has a single device: no digit
        for start, stop in pairwise(ordered):
            if start < 1 or stop % start:
                raise LayoutError(f"the parts of mesh axis `{mesh_axis.name}` in use have no common refinement")
            before = start
            for radix in prime_factors(stop // start) if split else (stop // start,):
                radices.append(radix)
                axes.append(mesh_axis.name)
                befores.append(before)
                before *= radix
        whole[mesh_axis.name] = tuple(range(first, len(radices)))
    if len(whole) != len(mesh.axes):
        raise MeshError(f"the mesh {mesh} names an axis twice")
    return Digits(mesh, tuple(radices), tuple(axes), tuple(befores), whole)


def changed(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], radices: Sequence[int]) -> tuple[int, ...]:
    """Digits that count differently in two layouts: in another dim, or for another number of places.

    >>> changed([(0, 1, 2)], [(1, 0, 2)], [2, 2, 4]), changed([(0, 1, 2)], [(2, 1, 0)], [2, 2, 4])
    ((0, 1), (0, 1, 2))
    """
    old, new = _weights(first, radices), _weights(second, radices)
    return tuple(sorted(digit for digit in old.keys() | new.keys() if old.get(digit) != new.get(digit)))


def _weights(dims: Sequence[Sequence[int]], radices: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Digit -> its dim, and how many shards of it are more major."""
    result = {}
    for d, dim in enumerate(dims):
        before = 1
        for digit in dim:
            result[digit] = (d, before)
            before *= radices[digit]
    return result


LIMIT_COUNTED = 1 << 16
"""Most device coordinates that `overlap` enumerates where radices do not line up."""


def overlap(
    first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], radices: Sequence[int], limit: int = LIMIT_COUNTED
) -> tuple[int, int]:
    """Share of a tensor that a device holds under both of two layouts, averaged over devices: (numerator, denominator).

    Where the digits of a dim line up, a device keeps a block only if its digits agree place by place: 1 in q for two
    different digits of radix q, once per independent equation, so a union-find over the equations gives the share.
    Places whose radices differ (2 x 3 against 3 x 2) are counted coordinate by coordinate.

    >>> overlap([(0,), ()], [(), (0,)], [4]), overlap([(0,)], [(1,)], [2, 2]), overlap([(0, 1)], [(0,)], [2, 2])
    ((1, 16), (1, 4), (1, 4))
    >>> overlap([(0, 1)], [(1, 0)], [2, 3])
    (1, 18)

    Raises:
        UncountableError: the radices do not line up over more coordinates than `limit`.
    """
    denominator = 1
    root: dict[int, int] = {}
    segments: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for one, other in zip(first, second, strict=True):
        for position, (a, b) in enumerate(zip(one, other, strict=False)):
            if radices[a] != radices[b]:
                segments += _segments(one[position:], other[position:], radices)
                break
            denominator *= radices[a]
            if a != b:
                denominator *= _unite(root, a, b, radices[a])
        else:
            for digit in one[len(other) :] or other[len(one) :]:
                denominator *= radices[digit]
    if not segments:
        return 1, denominator
    plain: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for one, other in segments:
        if len(one) == len(other) == 1 and radices[one[0]] == radices[other[0]]:
            denominator *= radices[one[0]]
            if one[0] != other[0]:
                denominator *= _unite(root, one[0], other[0], radices[one[0]])
        else:
            plain.append((one, other))
    numerator, counted = _counted([(_roots(root, a), _roots(root, b)) for a, b in plain], radices, limit)
    return numerator, denominator * counted


def _find(root: dict[int, int], digit: int) -> int:
    while digit in root:
        digit = root[digit]
    return digit


def _roots(root: dict[int, int], digits: Iterable[int]) -> tuple[int, ...]:
    return tuple(_find(root, digit) for digit in digits)


def _unite(root: dict[int, int], a: int, b: int, radix: int) -> int:
    """Demand that two digits agree; the factor by which that thins out the devices."""
    a, b = _find(root, a), _find(root, b)
    if a == b:
        return 1
    root[b] = a
    return radix


def _segments(
    one: Sequence[int], other: Sequence[int], radices: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Cut two lists of digits at the places where their cumulative products meet."""
    result = []
    i = j = start_i = start_j = 0
    size_i = size_j = 1
    while i < len(one) or j < len(other):
        if (size_i <= size_j and i < len(one)) or j >= len(other):
            size_i *= radices[one[i]]
            i += 1
        else:
            size_j *= radices[other[j]]
            j += 1
        if size_i == size_j:
            result.append((tuple(one[start_i:i]), tuple(other[start_j:j])))
            start_i, start_j = i, j
            size_i = size_j = 1
    if start_i < i or start_j < j:
        result.append((tuple(one[start_i:i]), tuple(other[start_j:j])))
    return result


def _counted(
    segments: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], radices: Sequence[int], limit: int
) -> tuple[int, int]:
    """Mean over all coordinates of the product of the segments' common lengths, by enumeration."""
    digits = sorted({digit for one, other in segments for digit in (*one, *other)})
    coordinates = 1
    for digit in digits:
        coordinates *= radices[digit]
    if coordinates > limit:
        raise UncountableError(f"{coordinates} coordinates whose radices do not line up are too many to count")
    number = {digit: position for position, digit in enumerate(digits)}
    renamed = tuple(
        (tuple(number[digit] for digit in one), tuple(number[digit] for digit in other)) for one, other in segments
    )
    return _enumerated(renamed, tuple(radices[digit] for digit in digits), coordinates)


@lru_cache(maxsize=65536)
def _enumerated(
    segments: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...], radices: tuple[int, ...], coordinates: int
) -> tuple[int, int]:
    """`_counted` for digits numbered from 0; questions of different meshes share the answers."""
    digits = range(len(radices))
    sizes = [(_size(one, radices), _size(other, radices)) for one, other in segments]
    total = 0
    for values in product(*[range(radices[digit]) for digit in digits]):
        value = dict(zip(digits, values, strict=True))
        common = 1
        for (one, other), (n, m) in zip(segments, sizes, strict=True):
            i, j = _number(one, value, radices), _number(other, value, radices)
            common *= max(0, min((i + 1) * m, (j + 1) * n) - max(i * m, j * n))  # in units of 1/(n m)
        total += common
    denominator = coordinates
    for n, m in sizes:
        denominator *= n * m
    common = gcd(total, denominator)
    return total // common, denominator // common


def _size(digits: Iterable[int], radices: Sequence[int]) -> int:
    result = 1
    for digit in digits:
        result *= radices[digit]
    return result


def _number(digits: Iterable[int], value: dict[int, int], radices: Sequence[int]) -> int:
    result = 0
    for digit in digits:
        result = result * radices[digit] + value[digit]
    return result
