"""A tensor placed on a mesh, as a value: its layout, its type, who holds which part of it."""

from __future__ import annotations

from msgspec import Struct

from einscale.dtypes import bytes_of
from einscale.mesh import Mesh
from einscale.placement import Placement, total
from einscale.topology import Network


class PlacedTensor(Struct, frozen=True):
    """Who holds which part of a tensor.

    Args:
        spec: the layout in slash notation, sizes filled in.
        name: of the tensor, "" if it has none.
        dtype: its element type.
        placement: every part with its devices.
        drawn: the dims that the picture shows: none, one (across), or two (down, across).
        network: the mesh on the links of a system, if one was given.
    """

    spec: str
    name: str
    dtype: str
    placement: Placement
    drawn: tuple[str, ...]
    network: Network | None = None

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        return self.placement.mesh

    @property
    def local_bytes(self) -> int | None:
        """Bytes that one device stores, padding included; None where a size is not known."""
        elements = total(self.placement.local_shape)
        return None if elements is None else int(bytes_of(elements, self.dtype))
