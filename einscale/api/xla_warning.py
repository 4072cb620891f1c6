"""XLA's warnings that it will replicate a tensor, decoded to names, and the moves that would do instead."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm, prod

from msgspec.structs import replace

from einscale.api.notation import in_all, mesh_pairs, read_one, why_not
from einscale.conversion import DecodedWarning, ReshardMove
from einscale.dtypes import dtype, is_dtype
from einscale.errors import NotationError
from einscale.layout import Layout, Tensor, make_layout
from einscale.mesh import Mesh
from einscale.notation.foreign import MeshAxes, Reading
from einscale.notation.layouts import parse_layout
from einscale.notation.syntax import Axis, Group, TensorSpec
from einscale.notation.xla_warning import Rematerialization, element_bits, find_warnings
from einscale.numeric import ceil_div


def decode_warnings(text: str, mesh: Mesh, named: TensorSpec | None = None) -> tuple[DecodedWarning, ...]:
    """The warnings of a log, each kind once; one that cannot be decoded says why, and is an error if there is no other.

    Args:
        text: the log.
        mesh: the devices, numbered in the mesh's order.
        named: the tensor's dims, if the caller names them; sizes are the whole tensor's.

    Raises:
        NotationError: none of them can be decoded.
    """
    decoded = []
    failure = None
    for one in find_warnings(text):
        try:
            decoded.append(_decoded(one, mesh, named))
        except NotationError as error:
            failure = failure or error
            note = f"not decoded: {why_not(error)}"
            decoded.append(
                DecodedWarning(one.operation, one.op_name, one.count, one.element, None, None, None, note=note)
            )
    if failure is not None and all(one.before is None for one in decoded):
        raise failure
    return tuple(decoded)


def _decoded(found: Rematerialization, mesh: Mesh, named: TensorSpec | None) -> DecodedWarning:
    """One warning with names, and with the moves that go from one sharding to the other."""
    pairs = mesh_pairs(mesh)
    rank, note = len(found.shape) if found.shape is not None else None, ""
    tiled = _tiled_rank(found, pairs)
    if tiled is not None and rank not in {None, tiled}:
        note = f"the operation has {rank} dims and its shardings {tiled}: its shape says nothing of the tensor"
        rank = None
    readings = [read_one(text, "hlo", named, pairs, tiled or rank) for text in (found.source, found.target)]
    before, after = readings
    dims = _whole(before.tensor, found.shape if rank is not None else None, mesh)
    if dims is not None:
        before, after = (Reading(_with_sizes(one.tensor, dims), one.lost) for one in readings)
    if is_dtype(found.element):
        element = dtype(found.element)
        before, after = (Reading(replace(one.tensor, dtype=element), one.lost) for one in (before, after))
    sized = [one.tensor for one in (before, after)]
    written = in_all("from", before.tensor, pairs, before.lost), in_all("to", after.tensor, pairs, after.lost)
    answer = DecodedWarning(
        found.operation, found.op_name, found.count, found.element, dims, written[0], written[1], note=note
    )
    bits = element_bits(found.element)
    if dims is None or bits is None or before.lost or after.lost:
        return answer if note else replace(answer, note=_no_moves(dims, bits))
    return _with_moves(answer, sized, dims, bits, mesh)


def _no_moves(dims: tuple[int, ...] | None, bits: int | None) -> str:
    if dims is None:
        return "the tensor's shape is not known, so its moves are not either; give it as `--indices 'i=16 j=16'`"
    return "the element type has no size here" if bits is None else ""


def _tiled_rank(found: Rematerialization, mesh: MeshAxes | None) -> int | None:
    """Dims of the tensor as its shardings say; None if neither says."""
    for text in (found.source, found.target):
        if "devices=" in text or "], [" in text:
            return len(parse_layout(text, "hlo", None, mesh).tensor.dims)
    return None


def _whole(tensor: TensorSpec, local: tuple[int, ...] | None, mesh: Mesh) -> tuple[int, ...] | None:
    """Shape of the whole tensor: as named by the caller, else that of a device times the shards of each dim."""
    if all(axis.size is not None for axis in tensor.axes) and tensor.axes:
        return tuple(axis.size or 1 for axis in tensor.axes)
    if local is None or len(local) != len(tensor.axes):
        return None
    shards = [prod(mesh.size(name) for name in dim) for dim in tensor.layout]
    return tuple(size * count for size, count in zip(local, shards, strict=True))


def _with_sizes(tensor: TensorSpec, sizes: tuple[int, ...]) -> TensorSpec:
    left = iter(sizes)
    dims: list[Axis | Group] = []
    for dim in tensor.dims:
        if isinstance(dim, Group):
            dims.append(replace(dim, axes=tuple(replace(axis, size=next(left)) for axis in dim.axes)))
        else:
            dims.append(replace(dim, size=next(left)))
    return replace(tensor, dims=tuple(dims))


def _with_moves(
    answer: DecodedWarning, tensors: Sequence[TensorSpec], shape: tuple[int, ...], bits: int, mesh: Mesh
) -> DecodedWarning:
    """The warning with what einscale would move, elements counted and then priced by their bits."""
    from einscale.collectives import FREE, received_total
    from einscale.reshard import reshard

    before, after = (make_layout(tensor.layout, tensor.unreduced) for tensor in tensors)
    indices = tensors[0].indices
    sizes = dict(zip(indices, shape, strict=True))
    tensor = Tensor(answer.operation.lstrip("%") or "tensor", indices, "int8")
    moves = []
    total = 0
    for step in reshard(tensor, before, after, sizes, mesh):
        elements = int(received_total(step, sizes, mesh))
        total += elements
        received = 0 if step.kind in FREE else int(ceil_div(elements * bits, 8 * mesh.devices))
        moves.append(ReshardMove(step.kind, step.axes, str(step), received))
    both = zip(before.dims, after.dims, strict=True)
    counts = [lcm(*(prod(mesh.size(name) for name in dim) for dim in pair)) for pair in both]
    whole = prod(-(-size // count) * count for size, count in zip(shape, counts, strict=True))
    return replace(
        answer,
        moves=tuple(moves),
        bytes_received=int(ceil_div(total * bits, 8 * mesh.devices)),
        bytes_replicated=_gathered(before, whole, bits, mesh),
    )


def _gathered(before: Layout, elements: int, bits: int, mesh: Mesh) -> int:
    """Bytes a device receives when the whole tensor is gathered to every device."""
    shards = prod(mesh.size(name) for dim in before.dims for name in dim)
    return int(ceil_div((elements - elements // shards) * bits, 8))
