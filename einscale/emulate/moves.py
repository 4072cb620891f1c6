"""What each move does to the shards of every device at once, and the elements that devices receive by it.

The shards of a tensor are one array: an axis per digit of the mesh, then the local dims. An uneven dim is divided
digit by digit, each time rounding up, so every move at the minor end of a dim stays within its group of devices; where
all shard counts of a plan pad a dim to one whole (`Small.padded`), its shards are equal blocks of that, which a permute
needs too. What lies past the end of a dim is filled with the reduction's identity.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

from einscale.collectives import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, MASK, PERMUTE, REDUCE_SCATTER, SLICE
from einscale.emulate.cuts import Placed, count, local_length

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

IDENTITY = {"sum": 0.0, "max": -math.inf, "min": math.inf}
"""What a reduction starts from, and what padding holds."""


def common_prefix(before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """How many leading digits two lists share."""
    shared = 0
    while shared < min(len(before), len(after)) and before[shared] == after[shared]:
        shared += 1
    return shared


def lost_and_gained(before: Placed, after: Placed) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Per dim, the digits that leave its minor end and those that join it."""
    shared = [common_prefix(old, new) for old, new in zip(before.dims, after.dims, strict=True)]
    lost = [old[keep:] for old, keep in zip(before.dims, shared, strict=True)]
    gained = [new[keep:] for new, keep in zip(after.dims, shared, strict=True)]
    return lost, gained


def misfit(kind: str, axes: frozenset[int], before: Placed, after: Placed, radices: tuple[int, ...]) -> str | None:
    """Why a move of this kind over these digits cannot lead from one layout to the other; None if it can."""
    if len(before.dims) != len(after.dims):
        return "the two layouts differ in rank"
    lost_dims, gained_dims = lost_and_gained(before, after)
    lost = frozenset(digit for dim in lost_dims for digit in dim)
    gained = frozenset(digit for dim in gained_dims for digit in dim)
    paid, owed = frozenset(before.unreduced) - set(after.unreduced), frozenset(after.unreduced) - set(before.unreduced)
    nothing: frozenset[int] = frozenset()
    pattern: dict[str, tuple[frozenset[int], ...]] = {
        SLICE: (nothing, axes, nothing, nothing),
        MASK: (nothing, nothing, nothing, axes),
        ALL_GATHER: (axes, nothing, nothing, nothing),
        REDUCE_SCATTER: (nothing, axes, axes, nothing),
        ALL_REDUCE: (nothing, nothing, axes, nothing),
        ALL_TO_ALL: (axes, axes, nothing, nothing),
    }
    if before.unreduced and after.unreduced and before.reduction != after.reduction:
        return f"the layouts owe different reductions, {before.reduction} and {after.reduction}"
    if kind == PERMUTE:
        counts = [(count(old, radices), count(new, radices)) for old, new in zip(before.dims, after.dims, strict=True)]
        counts.append((count(before.unreduced, radices), count(after.unreduced, radices)))
        if any(old != new for old, new in counts):
            return "a permute keeps the number of shards of every dim"
        return None
    if kind not in pattern:
        return f"there is no move called `{kind}`"
    if (lost, gained, paid, owed) != pattern[kind]:
        return f"the layouts do not differ by a {kind} over these axes at the minor end of dims"
    if any(out and into for out, into in zip(lost_dims, gained_dims, strict=True)):
        return "a dim both loses and gains axes in one move"
    return None


def move(
    kind: str,
    axes: frozenset[int],
    shards: Array,
    before: Placed,
    after: Placed,
    shape: tuple[int, ...],
    padded: tuple[int, ...],
    radices: tuple[int, ...],
) -> tuple[Array, int]:
    """Run one move.

    Args:
        kind: one of `collectives.KINDS`; `misfit` has nothing against it.
        axes: the digits it runs over.
        shards: one array axis per digit, then the local dims.
        before: layout of `shards`.
        after: layout wanted.
        shape: global shape.
        padded: global shape as it is divided.
        radices: size of every digit.

    Returns:
        The shards afterwards, and the elements received, added up over all devices.

    Raises:
        ValueError: a permute needs a block that no device of its group has.
    """
    if kind == PERMUTE:
        return _permute(axes, shards, before, after, radices)
    received = 0
    group = count(axes, radices)
    devices = count(range(len(radices)), radices)
    if kind == MASK:
        return _mask(shards, axes, after.reduction, radices), 0
    if kind in (ALL_REDUCE, REDUCE_SCATTER):
        # On a ring each element of a device's buffer makes group - 1 hops within its group while it is summed, and as
        # many again if everybody is to have the sum. No order needs fewer, as every part must reach the total.
        elements = int(math.prod(shards.shape[len(radices) :]))
        hops = (group - 1) * (2 if kind == ALL_REDUCE else 1)
        received += elements * hops * (devices // group)
        shards = _reduce(shards, axes, before.reduction)
    result, arrived = _relayout(shards, before, after, shape, padded, radices)
    if before.reduction != after.reduction:
        result = _finite(result)
    return result, received + (arrived if kind in (ALL_GATHER, ALL_TO_ALL) else 0)


def _reduce(shards: Array, axes: frozenset[int], reduction: str) -> Array:
    """Every device of a group gets the reduction of the group's parts."""
    import numpy as np

    operation = {"sum": np.add, "max": np.maximum, "min": np.minimum}[reduction]
    reduced = operation.reduce(shards, axis=tuple(sorted(axes)), keepdims=True)
    return np.broadcast_to(reduced, shards.shape)


def _finite(shards: Array) -> Array:
    """Padding of a maximum or minimum that is no longer owed becomes zero, as everywhere else."""
    import numpy as np

    return np.where(np.isinf(shards), 0.0, shards)


def _mask(shards: Array, axes: frozenset[int], reduction: str, radices: tuple[int, ...]) -> Array:
    """The first device of every group keeps its value, the others hold the identity."""
    import numpy as np

    masked = np.full(shards.shape, IDENTITY[reduction])
    first = tuple(0 if digit in axes else slice(None) for digit in range(len(radices)))
    masked[first] = shards[first]
    return masked


def _relayout(
    shards: Array,
    before: Placed,
    after: Placed,
    shape: tuple[int, ...],
    padded: tuple[int, ...],
    radices: tuple[int, ...],
) -> tuple[Array, int]:
    """Gather what leaves the dims, slice what joins them; count elements that come from another device.

    The same movement is run on an array that holds each element's device, so the count is of what moved.
    """
    import numpy as np

    digits, rank = len(radices), len(before.dims)
    device = np.arange(count(range(digits), radices)).reshape(radices + (1,) * rank)
    lost, gained = lost_and_gained(before, after)
    fill = IDENTITY[before.reduction]
    lengths = tuple(local_length(size, dim, radices) for size, dim in zip(padded, before.dims, strict=True))
    moved = _unfolded(shards, lost, gained, lengths, radices, fill)
    owner = _unfolded(np.broadcast_to(device, shards.shape), lost, gained, lengths, radices, -1)
    here = device.reshape(radices + (1,) * (owner.ndim - digits))
    received = int(np.count_nonzero((owner != here) & (owner >= 0)))
    return _folded(moved, before, lost, shape, padded, radices), received


def _unfolded(
    shards: Array,
    lost: list[tuple[int, ...]],
    gained: list[tuple[int, ...]],
    lengths: tuple[int, ...],
    radices: tuple[int, ...],
    fill: float,
) -> Array:
    """The shards with a local axis for each digit that was gathered, major first, before the dim it belongs to."""
    import numpy as np

    axis = len(radices)
    for gathered in lost:
        for digit in gathered:
            shards = np.swapaxes(np.expand_dims(shards, axis), digit, axis)
            axis += 1
        axis += 1
    axis = len(radices)
    for gathered, joined, length in zip(lost, gained, lengths, strict=True):
        axis += len(gathered)
        if joined:
            shards = _extended(shards, axis, length, fill)
        for digit in joined:
            shards = _own_part(shards, digit, axis, radices[digit], fill)
        axis += 1
    return np.broadcast_to(shards, radices + shards.shape[len(radices) :])


def _own_part(shards: Array, digit: int, axis: int, radix: int, fill: float) -> Array:
    """Cut a local axis into `radix` parts, the last ones padded; along the digit, each device keeps its own."""
    import numpy as np

    # An axis that was gathered before has length 1 here: everybody holds the same, so spread it out again.
    spread = (*shards.shape[:digit], radix, *shards.shape[digit + 1 :])
    shards = np.broadcast_to(shards, spread)
    length = -(-shards.shape[axis] // radix)
    shards = _extended(shards, axis, length * radix, fill)
    parts = shards.reshape((*shards.shape[:axis], radix, length, *shards.shape[axis + 1 :]))
    return np.moveaxis(np.diagonal(parts, axis1=digit, axis2=axis), -1, digit)


def _extended(shards: Array, axis: int, length: int, fill: float) -> Array:
    """Padding at the end of a local axis, up to `length`."""
    import numpy as np

    missing = length - shards.shape[axis]
    if not missing:
        return shards
    padding = np.full((*shards.shape[:axis], missing, *shards.shape[axis + 1 :]), fill, dtype=shards.dtype)
    return np.concatenate([shards, padding], axis=axis)


def _folded(
    shards: Array,
    before: Placed,
    lost: list[tuple[int, ...]],
    shape: tuple[int, ...],
    padded: tuple[int, ...],
    radices: tuple[int, ...],
) -> Array:
    """Merge the local axes of gathered digits into their dims, dropping the padding between them."""
    axis = len(radices)
    for dim, gathered, size, whole in zip(before.dims, lost, shape, padded, strict=True):
        for position in range(len(dim) - 1, len(dim) - len(gathered) - 1, -1):
            minor = axis + position - (len(dim) - len(gathered))
            merged = shards.shape[minor] * shards.shape[minor + 1]
            shards = shards.reshape((*shards.shape[:minor], merged, *shards.shape[minor + 2 :]))
            wanted = local_length(whole, dim[:position], radices) if position else size
            shards = shards[(slice(None),) * minor + (slice(0, wanted),)]
        axis += 1
    return shards


def _permute(
    axes: frozenset[int], shards: Array, before: Placed, after: Placed, radices: tuple[int, ...]
) -> tuple[Array, int]:
    """Each device takes over the block it needs from a device that differs from it along `axes` only."""
    import numpy as np

    digits = len(radices)
    devices = count(range(digits), radices)
    coordinates = np.indices(radices).reshape(digits, devices)
    outside = block_ids([tuple(digit for digit in range(digits) if digit not in axes)], coordinates, radices)
    held = np.stack([*block_ids([*before.dims, before.unreduced], coordinates, radices), *outside], axis=1).tolist()
    needed = np.stack([*block_ids([*after.dims, after.unreduced], coordinates, radices), *outside], axis=1).tolist()
    holder: dict[tuple[int, ...], int] = {}
    for device, block in enumerate(held):
        holder.setdefault(tuple(block), device)
    source = []
    for device, block in enumerate(needed):
        if tuple(block) not in holder:
            raise ValueError("no device of the group holds the block that device needs")
        source.append(device if held[device] == block else holder[tuple(block)])
    flat = shards.reshape((devices, *shards.shape[digits:]))
    moved = sum(1 for device, origin in enumerate(source) if device != origin)
    received = moved * int(math.prod(shards.shape[digits:]))
    return flat[np.array(source)].reshape(shards.shape), received


def block_ids(dims: list[tuple[int, ...]], coordinates: Array, radices: tuple[int, ...]) -> list[Array]:
    """For each list of digits, the number that every device's coordinates along them spell."""
    import numpy as np

    ids = []
    for dim in dims:
        number = np.zeros(coordinates.shape[1:], dtype=np.int64)
        for digit in dim:
            number = number * radices[digit] + coordinates[digit]
        ids.append(number)
    return ids
