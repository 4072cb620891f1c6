"""`einscale.shard`: one tensor's layout -> who holds which part of it, as a picture and as rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einscale.api.answer import Answer, DeviceMemory, Figure
from einscale.api.notation import mesh_pairs, named_dims, read_one
from einscale.dtypes import dtype as canonical_dtype
from einscale.errors import PlanError, SizeError, UsageError, did_you_mean
from einscale.hardware import System, load_system
from einscale.layout import check_layout, make_layout
from einscale.mesh import Mesh, make_mesh
from einscale.notation import LAYOUTS, parse_tensor
from einscale.notation.detect import detect_layout
from einscale.notation.objects import given
from einscale.notation.syntax import Axis, TensorSpec
from einscale.notation.tokens import check_text
from einscale.placed import PlacedTensor
from einscale.placement import Placement, place_parts
from einscale.topology import bind
from einscale.units import check_size

if TYPE_CHECKING:
    from einscale.report.table import Report


MOST_DRAWN = 2
"""Dims that a picture shows, one down and one across."""


class ShardResult(PlacedTensor, Answer, frozen=True):
    """Who holds which part of a tensor.

    Args:
        spec: the layout in slash notation, sizes filled in.
        name: of the tensor, "" if it has none.
        dtype: its element type.
        placement: every part with its devices.
        drawn: the dims that the picture shows: none, one (across), or two (down, across).
        network: the mesh on the links of a system, if one was given.
    """

    @property
    def seconds(self) -> float:
        """Nothing: a tensor at rest takes no time."""
        return 0.0

    @property
    def memory(self) -> DeviceMemory | None:
        """What one device stores, padding included; None where a size is not known."""
        return None if self.local_bytes is None else DeviceMemory(((self.name or "tensor", self.local_bytes),))

    @property
    def figures(self) -> dict[str, Figure]:
        """Parts, copies and bytes."""
        parts = self.placement.parts
        return {
            "memory_bytes": self.local_bytes,
            "parts": len(parts),
            "copies": len(parts[0].copies),
            "devices": self.mesh.devices,
        }

    def to_report(
        self, *, detail: bool = False, explain: bool = False, advice: bool = True, units: str = "iec"
    ) -> Report:
        """Pictures of the mesh and of the tensor, and its dims; `detail` adds every device with its part."""
        from einscale.report.shard import shard_report

        return shard_report(self, detail=detail, units=units)

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved."""
        from einscale.report.shard import shard_document

        return shard_document(self)

    @property
    def headline(self) -> tuple[str, str]:
        """The layout, and how many parts it has."""
        parts = len(self.placement.parts)
        return f"{self.spec!r} on {self.mesh}", f"{parts} parts on {self.mesh.devices} devices"


def shard(
    layout: object,
    *,
    mesh: Mesh | str | Mapping[str, int] | object | None = None,
    sizes: Mapping[str, int] | None = None,
    dtype: str = "bf16",
    hardware: str | Path | System | None = None,
    dims: str | Iterable[str] | None = None,
    syntax: str | None = None,
    indices: str | Sequence[str] | None = None,
) -> ShardResult:
    """Show who holds which part of a tensor.

    >>> answer = shard("B/x F/y", mesh="x=2,y=2", sizes={"B": 4, "F": 6})
    >>> [(row["device"], row["part"]) for row in answer.table]
    [(0, '0:2, 0:3'), (1, '0:2, 3:6'), (2, '2:4, 0:3'), (3, '2:4, 3:6')]
    >>> answer.local_bytes
    12

    Args:
        layout: text in slash notation (`"B/x F/y"`, `"x: fp8[B=8/x F {U:y}]"`) or another dialect, or an object: a
            `PartitionSpec`, a `NamedSharding`, placements, a `DTensor`, a `jax.Array`.
        mesh: its axes, major to minor: text, a mapping, or a mesh of einscale, JAX or PyTorch. An object may have one.
        sizes: index -> size, beside those the text writes; the picture counts parts where one is missing.
        dtype: element type, if the text names none.
        hardware: name of a system, path of its TOML file, or a `System`: the picture of the mesh names its links then.
        dims: the two dims to draw, `"B,F"`; by default the two that are divided into most parts.
        syntax: the dialect where it cannot be told.
        indices: names of the dims, where the notation has none.

    Raises:
        NotationError, MeshError, LayoutError, SizeError, HardwareError, UsageError: an argument cannot be understood.
        PlanError: a dim is divided over more devices than it has elements.
    """
    if not isinstance(layout, str):
        known = given(layout)
        mesh = known.mesh if mesh is None else mesh
        layout, syntax = known.text, known.notation
    if mesh is None:
        raise UsageError("the mesh is not given", expected="its axes, major to minor, for example `x=2,y=4`")
    devices = make_mesh(mesh)
    text = check_text(layout)
    tensor = _tensor(text, devices, syntax, indices)
    placed = make_layout(tensor.layout, tensor.unreduced, tensor.reduction)
    check_layout(placed, devices, "the tensor")
    resolved = _sizes(tensor, sizes or {})
    _check_parts(text, tensor, resolved, devices)
    system = load_system(hardware) if isinstance(hardware, str | Path) else hardware
    placement = place_parts(placed, tensor.indices, resolved, devices)
    words = [f"{name}={resolved[name]}" if name in resolved else name for name in tensor.indices]
    return ShardResult(
        spec=placed.text(words),
        name=tensor.name or "",
        dtype=canonical_dtype(tensor.dtype or dtype),
        placement=placement,
        drawn=_drawn(placement, dims),
        network=None if system is None else bind(devices, system),
    )


def _tensor(text: str, mesh: Mesh, syntax: str | None, indices: str | Sequence[str] | None) -> TensorSpec:
    """One tensor as written, in any dialect.

    Raises:
        NotationError, UsageError: it cannot be read, is none, or leaves its layout open.
    """
    notation = syntax or detect_layout(text)
    if "->" in text:
        raise UsageError(
            "an einsum has several tensors, and one can be drawn",
            text=text,
            span=(text.index("->"), text.index("->") + 2),
            hint="name one of them, such as 'B/x F/y'; `einscale plan` takes the whole einsum",
        )
    if notation in LAYOUTS:
        tensor = read_one(text, notation, named_dims(indices), mesh_pairs(mesh)).tensor
    else:
        tensor = parse_tensor(text, mesh_axes=mesh.names)
    left_open = tensor.open or any(axis.open for axis in tensor.axes) or (tensor.partial and tensor.partial.open)
    if left_open:
        raise UsageError("the layout is left open", text=text, span=(0, len(text)), expected="mesh axes by their names")
    if len(set(tensor.indices)) != len(tensor.indices):
        raise UsageError("an index occurs twice", text=text, span=(0, len(text)), expected="a name for each dim")
    return tensor


def _sizes(tensor: TensorSpec, sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes that are known, written or given.

    Raises:
        SizeError: one is given for no index of the tensor, or differently from what is written.
    """
    known = {axis.name: axis.size for axis in tensor.axes if axis.size is not None}
    for name, value in sizes.items():
        if name not in tensor.indices:
            raise SizeError(
                f"a size is given for index `{name}`, which the tensor does not have",
                hint=did_you_mean(name, tensor.indices, "it has"),
            )
        size = check_size(value, f"size of `{name}`")
        if known.setdefault(name, size) != size:
            raise SizeError(f"index `{name}` has size {known[name]} in the text and {size} beside it")
    return known


def _check_parts(text: str, tensor: TensorSpec, sizes: Mapping[str, int], mesh: Mesh) -> None:
    """Raise where a dim is divided over more devices than it has elements: some would hold nothing but padding."""
    for axis in tensor.axes:
        count = _parts(axis, mesh)
        if count > sizes.get(axis.name, count):
            over = ", ".join(f"{shard.name}={mesh.size(shard.name)}" for shard in axis.shards)
            raise PlanError(
                f"index `{axis.name}` has {sizes[axis.name]} elements and is divided over {count} devices ({over})",
                text=text,
                span=axis.span,
                expected="at most one device for each element",
            )


def _parts(axis: Axis, mesh: Mesh) -> int:
    """Parts of one axis."""
    count = 1
    for one in axis.shards:
        count *= mesh.size(one.name)
    return count


def _drawn(placement: Placement, dims: str | Iterable[str] | None) -> tuple[str, ...]:
    """The dims to draw: those asked for, else the two with most parts, in the tensor's order.

    Raises:
        UsageError: too many, or none of the tensor's.
    """
    if dims is None:
        order = sorted(range(len(placement.indices)), key=lambda number: (-placement.counts[number], number))
        return tuple(placement.indices[number] for number in sorted(order[:MOST_DRAWN]))
    words = tuple(word.strip() for word in dims.split(",")) if isinstance(dims, str) else tuple(dims)
    for word in words:
        if word not in placement.indices:
            raise UsageError(
                f"the tensor has no dim `{word}`", hint=did_you_mean(word, placement.indices, "its dims are")
            )
    if len(words) > MOST_DRAWN or len(set(words)) != len(words):
        raise UsageError(f"a picture shows two dims, not {', '.join(words)}", expected="one or two different dims")
    return words
