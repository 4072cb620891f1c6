"""One planning question in digits: what the search for a placement reads, and nothing else.

Indices are numbered 0, 1, ... in order of appearance; a placement is a tuple of digit tuples, one per index. Costs are
exact ints: bytes received by a device in units of 1/P^2, P the devices of the mesh.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd, lcm, prod

from msgspec import Struct

from einscale.digits import Digits
from einscale.layout import Layout, Tensor
from einscale.reshard import to_state
from einscale.reshard.moves import Dims, State, mask_of
from einscale.reshard.shape import Shape, shape_of
from einscale.vocabulary import SUM

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
        shape: its dims; `padded` says whether some layout pads its shards.
        volume: bytes of the whole tensor, no more than the shards of any layout take together.
        linear: whether a sum it arrives owing may be kept through the einsum.
    """

    __slots__ = ("labels", "layout", "linear", "padded", "shape", "source", "tensor", "volume")

    def __init__(
        self, tensor: Tensor, layout: Layout, labels: tuple[int, ...], source: State, measured: Measured, linear: bool
    ) -> None:
        """Keep the parts."""
        self.tensor = tensor
        self.layout = layout
        self.labels = labels
        self.source = source
        self.shape, self.padded, self.volume = measured
        self.linear = linear


Measured = tuple[Shape, bool, int]
"""(shape, whether some layout pads its shards, bytes of the whole tensor)."""


class Question:
    """A planning question; see the module's first lines for its units.

    Args:
        digits: of the mesh.
        operands: tensors, their indices numbered.
        output: the result; `out_labels` numbers its indices.
        wanted: the output layout asked for, and the same in digits: `target` per dim (None: open), `owes`, a mask.
        names: the indices; `sizes` of them; `rooms`, numbers that any shard count worth a thought divides; `limits`,
            those that the counts of the einsum itself divide: 1 where an operand repeats an index. `even`: sizes padded
            to what the given layouts need, and what shard counts must divide to pad them no further.
        flops_factor: FLOPs per point of the iteration space.
    """

    __slots__ = (
        "contracted",
        "devices",
        "digits",
        "even",
        "flops_factor",
        "homes",
        "limits",
        "names",
        "open",
        "operands",
        "out_labels",
        "out_padded",
        "out_shape",
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
        alone = len(tensors) == 1 and not self.contracted
        self.operands = tuple(
            Operand(tensor, layout, label, state, self._measured(tensor, label, sizes), _linear(layout, alone))
            for tensor, layout, label, state in zip(tensors, layouts, labels, states, strict=True)
        )
        self.out_shape, self.out_padded, self.out_volume = self._measured(output, self.out_labels, sizes)
        self.flops_factor = 2 * (len(tensors) - 1) if len(tensors) > 1 else int(bool(self.contracted))

    def _measure(self, sizes: Mapping[str, int], labels: list[tuple[int, ...]], states: list[State]) -> None:
        """Sizes, rooms, and the lists of digits each index has in some tensor."""
        homes: list[dict[tuple[int, ...], None]] = [{} for _ in self.names]
        for label, (dims, _) in zip(labels, states, strict=True):
            for k, dim in zip(label, dims, strict=True):
                homes[k][dim] = None
        for k, wanted in zip(self.out_labels, self.target, strict=True):
            if wanted is not None:
                homes[k][wanted] = None
        counts = tuple(lcm(*(self.digits.size(dim) for dim in home)) if home else 1 for home in homes)
        self.sizes = tuple(sizes[name] for name in self.names)
        self.rooms = tuple(lcm(_room(n, self.radices), given) for n, given in zip(self.sizes, counts, strict=True))
        repeated = {k for label in labels for k in label if label.count(k) > 1}
        self.limits = tuple(1 if k in repeated else room for k, room in enumerate(self.rooms))
        padded = tuple(-(-size // given) * given for size, given in zip(self.sizes, counts, strict=True))
        self.even = (padded, tuple(gcd(size, limit) for size, limit in zip(padded, self.limits, strict=True)))
        self.homes = tuple(tuple(dim for dim in home if dim) for home in homes)

    def _measured(self, tensor: Tensor, labels: tuple[int, ...], sizes: Mapping[str, int]) -> Measured:
        shape = shape_of(tensor, sizes)
        if shape.divides([self.rooms[k] for k in labels], self.devices):
            return shape, False, shape.local((1,) * len(labels))
        return shape, True, shape.least

    @property
    def iterations(self) -> int:
        """Points of the whole iteration space."""
        return prod(self.sizes)

    def points(self, counts: tuple[int, ...]) -> int:
        """Points of one device's part of the iteration space under given numbers of shards, padding included."""
        result = 1
        for size, count in zip(self.sizes, counts, strict=True):
            result *= -(-size // count)
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


def _linear(layout: Layout, alone: bool) -> bool:
    """Whether what an operand owes may stay owed: a sum, and anything where nothing is computed."""
    return alone or layout.reduction == SUM


def _room(size: int, radices: tuple[int, ...]) -> int:
    """A number that every shard count worth a thought divides: of each prime the first power not below the size."""
    result = 1
    for prime in dict.fromkeys(radices):
        power, count = 1, radices.count(prime)
        while power < size and count:
            power *= prime
            count -= 1
        result *= power
    return result
