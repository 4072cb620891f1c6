"""The moves between layouts: what each does to a layout, and the exact bytes it makes devices receive."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from einscale.layout import Layout, Tensor, local_bytes, shards
from einscale.mesh import Mesh
from einscale.numeric import Number, ceil_div, divide_exact

SLICE = "slice"
MASK = "mask"
ALL_GATHER = "all-gather"
REDUCE_SCATTER = "reduce-scatter"
ALL_REDUCE = "all-reduce"
ALL_TO_ALL = "all-to-all"
PERMUTE = "permute"

FREE = (SLICE, MASK)
"""Moves that send nothing: taking one's part of a replicated dim; keeping a value on one device, zeros elsewhere."""

KINDS = (SLICE, MASK, ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE, ALL_TO_ALL, PERMUTE)


class Collective(Struct, frozen=True):
    """One move of one tensor from a layout to another, over a set of mesh axes at once.

    Args:
        kind: one of `KINDS`.
        tensor: what moves.
        axes: the mesh axes (or sub-axes) it runs over, in mesh order, major to minor.
        before: layout before the move.
        after: layout after it.
        cause: in words, which index, axis and rule made it necessary.
    """

    kind: str
    tensor: Tensor
    axes: tuple[str, ...]
    before: Layout
    after: Layout
    cause: str = ""

    def __str__(self) -> str:
        indices = self.tensor.indices
        over = ",".join(self.axes)
        return f"{self.kind}({over}) {self.tensor.name}: {self.before.text(indices)} -> {self.after.text(indices)}"


def changed_blocks(step: Collective, mesh: Mesh) -> int:
    """How many devices of the mesh end a permute with another block than they began with."""
    raise NotImplementedError  # replaced by the collectives work package


def received_total(step: Collective, sizes: Mapping[str, Number], mesh: Mesh) -> Number:
    """Bytes received, summed over every device of the mesh: an exact int on ints."""
    raise NotImplementedError  # replaced by the collectives work package


def received(step: Collective, sizes: Mapping[str, Number], mesh: Mesh) -> Number:
    """Bytes received per device: the total over the mesh divided by its devices, rounded up once."""
    return ceil_div(received_total(step, sizes, mesh), mesh.devices)


__all__ = ["divide_exact", "local_bytes", "shards"]
