"""One planning question in digits: what the search for a placement reads, and nothing else.

Indices are numbered 0, 1, ... in order of appearance; a placement is a tuple of digit tuples, one per index. Costs are
exact ints: bytes received by a device in units of 1/P^2, P the devices of the mesh.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd, lcm

from msgspec import Struct

from einscale.digits import Digits
from einscale.layout import Layout, Tensor, local_bytes
from einscale.reshard import to_state
from einscale.reshard.moves import Dims, State, mask_of

Placement = tuple[tuple[int, ...], ...]


class Wanted(Struct, frozen=True):
    """The output layout asked for, parts of which may be open.

    Args:
        dims: per output dim its mesh axes, major to minor, or None where the planner chooses.
        unreduced: axes over which the output is to owe a sum.
        unreduced_open: whether it may owe sums over further axes, as the planner chooses.
    """

    dims: tuple[tuple[str, ...] | None, ...]
    unreduced: tuple[str, ...] = ()
    unreduced_open: bool = False


def union(masks: tuple[int, ...]) -> int:
    """All digits of several sets."""
    result = 0
    for mask in masks:
        result |= mask
    return result


class Operand:
    """An operand in digits.

    Args:
        tensor, layout: as given (after its lonely indices were summed).
        labels: per dim the number of its index.
        source: the layout in digits.
        volume: bytes of the whole tensor.
        owed: digits of the sum it arrives owing that may be kept through the einsum; 0 if they must be settled.
    """

    __slots__ = ("counts", "labels", "layout", "linear", "source", "tensor", "volume")

    def __init__(self, tensor: Tensor, layout: Layout, labels: tuple[int, ...], source: State, volume: int) -> None:
        """Keep the parts."""
        self.tensor = tensor
        self.layout = layout
        self.labels = labels
        self.source = source
        self.volume = volume
        self.linear = layout.reduction == "sum"
        self.counts: tuple[int, ...] = ()


class Question:
    """A planning question; see the module's first lines for its units.

    Args:
        digits: of the mesh.
        operands: tensors with distinct indices.
        output: the result; `out_labels` numbers its indices.
        wanted: the output layout asked for, and the same in digits: `target` per dim (None: open), `owes`, a mask.
        names: the indices; `sizes`, padded to what the given layouts need; `rooms`, what shard counts must divide.
        flops_factor: FLOPs per point of the iteration space.
    """

    __slots__ = (
        "contracted",
        "devices",
        "digits",
        "flops_factor",
        "homes",
        "names",
        "open",
        "operands",
        "out_labels",
        "out_volume",
        "output",
        "owes",
        "radices",
        "rooms",
        "sizes",
        "target",
        "wanted",
    )

    def __init__(
        self,
        tensors: tuple[Tensor, ...],
        layouts: tuple[Layout, ...],
        output: Tensor,
        wanted: Wanted,
        sizes: Mapping[str, int],
        digits: Digits,
    ) -> None:
        """Translate names into numbers."""
        self.digits = digits
        self.radices = digits.radices
        self.devices = digits.mesh.devices
        self.output = output
        self.wanted = wanted
        self.names = tuple(dict.fromkeys(index for tensor in tensors for index in tensor.indices))
        number = {name: k for k, name in enumerate(self.names)}
        self.out_labels = tuple(number[index] for index in output.indices)
        self.target = tuple(None if dim is None else digits.expand(dim) for dim in wanted.dims)
        self.owes = mask_of(digits.expand(wanted.unreduced))
        self.open = wanted.unreduced_open or None in self.target
        self.contracted = tuple(k for k in range(len(self.names)) if k not in self.out_labels)
        states = [to_state(layout, digits) for layout in layouts]
        labels = [tuple(number[index] for index in tensor.indices) for tensor in tensors]
        self._measure(sizes, labels, states)
        degrees: dict[str, int] = {}
        self.operands = tuple(
            Operand(tensor, layout, label, state, self._volume(tensor, degrees))
            for tensor, layout, label, state in zip(tensors, layouts, labels, states, strict=True)
        )
        self.out_volume = self._volume(output, degrees)
        self.flops_factor = 2 * (len(tensors) - 1) if len(tensors) > 1 else int(bool(self.contracted))

    def _measure(self, sizes: Mapping[str, int], labels: list[tuple[int, ...]], states: list[State]) -> None:
        """Padded sizes, rooms, and the lists of digits each index has in some tensor."""
        homes: list[dict[tuple[int, ...], None]] = [{} for _ in self.names]
        for label, (dims, _) in zip(labels, states, strict=True):
            for k, dim in zip(label, dims, strict=True):
                homes[k][dim] = None
        for k, wanted in zip(self.out_labels, self.target, strict=True):
            if wanted is not None:
                homes[k][wanted] = None
        counts = [lcm(*(self.digits.size(dim) for dim in home)) if home else 1 for home in homes]
        self.sizes = tuple(-(-sizes[name] // n) * n for name, n in zip(self.names, counts, strict=True))
        self.rooms = tuple(gcd(size, self.devices) for size in self.sizes)
        self.homes = tuple(tuple(dim for dim in home if dim) for home in homes)

    def _volume(self, tensor: Tensor, degrees: Mapping[str, int]) -> int:
        padded = dict(zip(self.names, self.sizes, strict=True))
        return int(local_bytes(tensor, Layout(((),) * len(tensor.indices)), padded, degrees))

    @property
    def iterations(self) -> int:
        """Points of the whole iteration space."""
        result = 1
        for size in self.sizes:
            result *= size
        return result

    def operand_dims(self, operand: Operand, placement: Placement) -> Dims:
        """How a placement divides an operand."""
        return tuple(placement[k] for k in operand.labels)

    def output_dims(self, placement: Placement) -> Dims:
        """How a placement divides the output."""
        return tuple(placement[k] for k in self.out_labels)

    def operand_room(self, operand: Operand) -> tuple[int, ...]:
        """Per dim of an operand what its shard count must divide."""
        return tuple(self.rooms[k] for k in operand.labels)

    @property
    def output_room(self) -> tuple[int, ...]:
        """Per dim of the output what its shard count must divide."""
        return tuple(self.rooms[k] for k in self.out_labels)
