"""Layouts as the tensors of a spec."""

from __future__ import annotations

from collections.abc import Sequence

from einscale.layout import Layout
from einscale.notation.syntax import Axis, Partial, Shard, TensorSpec


def tensor_of(layout: Layout, indices: Sequence[str] = ("i", "j", "k")) -> TensorSpec:
    """A tensor in a layout."""
    dims = tuple(Axis(index, None, tuple(map(Shard, axes))) for index, axes in zip(indices, layout.dims, strict=True))
    owed = Partial(layout.reduction, tuple(map(Shard, layout.unreduced))) if layout.unreduced else None
    return TensorSpec(dims, partial=owed)
