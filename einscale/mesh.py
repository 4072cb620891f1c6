"""A device mesh: ordered named axes, major to minor, and the parts an axis may be split into."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache

from msgspec import Struct

from einscale.errors import MeshError, NotationError, did_you_mean
from einscale.numeric import Number, product
from einscale.units import LONGEST_NUMBER

MOST_DEVICES = 10**9
"""Most devices a mesh may have: far beyond any that was built."""

SUB_AXIS = re.compile(r"([A-Za-z_]\w*):\((\d+)\)(\d+)\Z")


class MeshAxis(Struct, frozen=True):
    """One axis: its name, how many devices lie along it, and the network level it is bound to, if one is named."""

    name: str
    size: int
    level: str | None = None

    def __str__(self) -> str:
        return f"{self.name}={self.size}" + (f"@{self.level}" if self.level else "")


class Mesh(Struct, frozen=True, dict=True):
    """Devices arranged along named axes; the last axis varies fastest, so its devices are nearest neighbours.

    >>> mesh = parse_mesh("data=16@ib, model=8@nvlink")
    >>> mesh.devices, mesh.size("model"), str(mesh)
    (128, 8, 'data=16@ib,model=8@nvlink')

    Args:
        axes: major to minor.
    """

    axes: tuple[MeshAxis, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Axis names, major to minor."""
        return tuple(axis.name for axis in self.axes)

    @cached_property
    def degrees(self) -> dict[str, int]:
        """Axis name -> number of devices along it."""
        return {axis.name: axis.size for axis in self.axes}

    @property
    def devices(self) -> int:
        """Number of devices."""
        return int(product(axis.size for axis in self.axes))

    def size(self, name: str) -> int:
        """Devices along an axis or sub-axis.

        Raises:
            MeshError: the mesh has no such axis.
        """
        for axis in self.axes:
            if axis.name == name:
                return axis.size
        return int(degree(name, self.degrees))

    def __str__(self) -> str:
        return ",".join(str(axis) for axis in self.axes)


def sub_axis(name: str, before: int, size: int) -> str:
    """Name of the part of an axis that has `size` shards, after `before` more major ones (Shardy's `x:(before)size`).

    >>> sub_axis("x", 2, 4)
    'x:(2)4'
    """
    return f"{name}:({before}){size}"


@lru_cache(maxsize=65536)
def split_name(name: str) -> tuple[str, int, int | None]:
    """(axis, shards before, size) of a name; size is None where the whole axis is meant.

    >>> split_name("x:(2)4"), split_name("x")
    (('x', 2, 4), ('x', 1, None))
    """
    found = SUB_AXIS.match(name)
    return (found[1], int(found[2]), int(found[3])) if found else (name, 1, None)


def part_order(name: str) -> tuple[str, int]:
    """Sort key that puts the parts of an axis from major to minor."""
    axis, before, _ = split_name(name)
    return axis, before


def without_covered(names: Iterable[str], degrees: Mapping[str, int]) -> tuple[str, ...]:
    """The names, without the parts of axes that lie within another of them.

    >>> without_covered(["model", "model:(1)8", "data"], {"model": 16, "data": 2})
    ('model', 'data')
    """
    spans = {}
    for name in names:
        axis, before, size = split_name(name)
        spans[name] = (axis, before, degrees[axis] if size is None else before * size)
    return tuple(
        name
        for name, (axis, start, stop) in spans.items()
        if not any(
            other != name and axis == a and first <= start and stop <= last for other, (a, first, last) in spans.items()
        )
    )


def join_parts(names: Iterable[str], degrees: Mapping[str, int]) -> tuple[str, ...]:
    """Mesh axes and parts of axes, where parts that follow on each other are written as one.

    >>> join_parts(["model:(1)8", "model:(8)2", "data"], {"model": 16, "data": 2})
    ('model', 'data')
    """
    joined: list[str] = []
    for name in names:
        axis, before, size = split_name(name)
        last = split_name(joined[-1]) if joined else ("", 1, None)
        if size is not None and last[2] is not None and axis == last[0] and last[1] * last[2] == before:
            joined.pop()
            before, size = last[1], last[2] * size
        whole = size is None or (before == 1 and size == degrees[axis])
        joined.append(axis if whole or size is None else sub_axis(axis, before, size))
    return tuple(joined)


def degree(name: str, degrees: Mapping[str, Number]) -> Number:
    """Devices along an axis or sub-axis, looked up in `degrees` (ints or arrays).

    Raises:
        MeshError: `degrees` has no such axis.
    """
    axis, _, size = split_name(name)
    if size is not None:
        return size
    if axis not in degrees:
        raise MeshError(f"the mesh has no axis `{axis}`", hint=did_you_mean(axis, degrees, "the mesh has"))
    return degrees[axis]


def make_mesh(mesh: Mesh | str | Mapping[str, int] | object) -> Mesh:
    """A mesh from its text, from a mapping of axis names to sizes (major first), or as it is.

    A mesh of JAX (`Mesh`, `AbstractMesh`) or of PyTorch (`DeviceMesh`), or anything that looks like one, is read too:
    neither library is imported.

    >>> str(make_mesh({"x": 2, "y": 4}))
    'x=2,y=4'

    Args:
        mesh: its axes, major to minor: `"x=2,y=4"`, a mapping of names to sizes, or a mesh.

    Raises:
        MeshError, NotationError: the mesh is malformed.
    """
    if isinstance(mesh, Mesh):
        return mesh
    if isinstance(mesh, str):
        return parse_mesh(mesh)
    if not isinstance(mesh, Mapping):
        mesh = _named_sizes(mesh)
    for name, size in mesh.items():
        if not isinstance(size, int) or isinstance(size, bool):
            raise MeshError(f"mesh axis `{name}` needs a whole number of devices, not {size!r}")
    return parse_mesh(",".join(f"{name}={size}" for name, size in mesh.items()))


def _named_sizes(mesh: object) -> dict[str, int]:
    """Axis name -> size of a mesh of another library: `axis_names` is JAX's word, `mesh_dim_names` PyTorch's."""
    names = getattr(mesh, "axis_names", None) or getattr(mesh, "mesh_dim_names", None)
    shape = getattr(mesh, "axis_sizes", None) or getattr(mesh, "shape", None)
    if names is None or not isinstance(shape, Iterable):
        raise MeshError(
            f"`{type(mesh).__name__}` is no mesh with names",
            expected="text such as `data=8,model=8`, a mapping, or a mesh of JAX or PyTorch whose dims have names",
        )
    sizes = shape.values() if isinstance(shape, Mapping) else shape
    pairs = [(str(name), int(size)) for name, size in zip(names, sizes, strict=False)]
    if len(dict(pairs)) != len(tuple(names)):
        raise MeshError(f"`{type(mesh).__name__}` has not a size for each of its names")
    return dict(pairs)


def parse_mesh(text: str) -> Mesh:
    """Read `data=16@ib,model=8@nvlink`; the order is major to minor.

    Raises:
        NotationError: the text does not follow `NAME=INT[@LEVEL],...`.
        MeshError: an axis is named twice, has no device or absurdly many.
    """
    axes: list[MeshAxis] = []
    position = 0
    for part in text.split(","):
        start = position + len(part) - len(part.lstrip())
        stop = max(start + 1, position + len(part.rstrip()))
        axes.append(_parse_axis(text, part.strip(), start, stop, axes))
        position += len(part) + 1
    mesh = Mesh(tuple(axes))
    if mesh.devices > MOST_DEVICES:
        raise MeshError("the mesh has an absurd number of devices", text=text, span=(0, len(text)))
    return mesh


def _parse_axis(text: str, part: str, start: int, stop: int, before: list[MeshAxis]) -> MeshAxis:
    """One `NAME=INT[@LEVEL]`, its span in `text` given for messages."""
    expected = "NAME=INT[@LEVEL], for example `data=16,model=8`"
    if not part:
        raise NotationError("an axis is missing in the mesh", text=text, span=(start, stop), expected=expected)
    found = re.fullmatch(r"([A-Za-z]\w*)\s*=\s*([^@\s]*)\s*(?:@\s*([A-Za-z]\w*)?)?", part, re.ASCII)
    if found is None:
        raise NotationError(f"cannot read the mesh axis `{part}`", text=text, span=(start, stop), expected=expected)
    name, digits, level = found[1], found[2], found[3]
    span = (start + found.start(2), start + max(found.end(2), found.start(2) + 1))
    if not re.fullmatch(r"[+-]?\d+", digits):
        message = f"the size of mesh axis `{name}` is not a whole number"
        raise NotationError(message, text=text, span=span, expected=expected)
    if "@" in part and level is None:
        at = start + part.index("@")
        raise NotationError("a network level is missing after `@`", text=text, span=(at, at + 1), expected=expected)
    if any(axis.name == name for axis in before):
        raise MeshError(f"mesh axis `{name}` is given twice", text=text, span=(start, start + len(name)))
    if len(digits) > LONGEST_NUMBER:
        raise MeshError(f"mesh axis `{name}` has an absurd number of devices", text=text, span=span)
    size = int(digits)
    if size < 1:
        raise MeshError(f"mesh axis `{name}` must have at least 1 device", text=text, span=span)
    if size > MOST_DEVICES:
        raise MeshError(f"mesh axis `{name}` has an absurd number of devices", text=text, span=span)
    return MeshAxis(name, size, level)
