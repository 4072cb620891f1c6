"""Meshes near another one: what may be tried where a request does not fit, or where it could be faster."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from einscale.mesh import Mesh
from einscale.strategy import ROLES

PIPE = ROLES["pipe"]


def nearby_meshes(mesh: Mesh) -> Iterator[Mesh]:
    """Meshes with twice the ways along one axis: on as many devices, taken from another axis, or on twice as many.

    >>> from einscale.mesh import parse_mesh
    >>> [str(one) for one in nearby_meshes(parse_mesh("data=2,model=4"))]
    ['data=4,model=2', 'data=4,model=4', 'data=1,model=8', 'data=2,model=8']
    """
    live = [axis.name for axis in mesh.axes if axis.size > 1]
    for name in live:
        for other in live:
            if other != name and mesh.size(other) % 2 == 0 and not (other in PIPE and mesh.size(other) == 2):
                yield _scaled(_scaled(mesh, name, 2, 1), other, 1, 2)
        yield _scaled(mesh, name, 2, 1)


def same_devices(mesh: Mesh) -> tuple[Mesh, ...]:
    """Meshes with twice the ways along one axis and half as many along another."""
    return tuple(other for other in nearby_meshes(mesh) if other.devices == mesh.devices)


def _scaled(mesh: Mesh, name: str, times: int, over: int) -> Mesh:
    axes = (replace(axis, size=axis.size * times // over) if axis.name == name else axis for axis in mesh.axes)
    return Mesh(tuple(axes))
