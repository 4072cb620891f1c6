"""Plans: the steps every device runs, as frozen values that say nothing about sizes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec import Struct

from einscale.collectives import Collective, received_total
from einscale.dtypes import BITS
from einscale.einsum import Einsum, einsum_flops
from einscale.layout import Chosen, Layout, Tensor, chosen_share, local_bytes, local_elements, local_shape, shards
from einscale.mesh import Mesh
from einscale.numeric import Number, ceil_div, maximum, product, truncate


class LocalEinsum(Struct, frozen=True):
    """An einsum every device runs on its shards.

    Args:
        inputs: the operand tensors; their `indices` are the labels of this einsum.
        layouts: the layout each operand is read in. An index has the same axes wherever it occurs.
        output: the tensor it makes.
        output_layout: its layout: axes on contracted indices, and sums an operand owes, are in `unreduced`.
    """

    inputs: tuple[Tensor, ...]
    layouts: tuple[Layout, ...]
    output: Tensor
    output_layout: Layout

    @property
    def einsum(self) -> Einsum:
        """The einsum without layouts."""
        return Einsum(tuple(tensor.indices for tensor in self.inputs), self.output.indices)

    @property
    def placement(self) -> dict[str, tuple[str, ...]]:
        """Index -> the mesh axes its range is divided over."""
        return {
            index: axes
            for tensor, layout in zip(self.inputs, self.layouts, strict=True)
            for index, axes in zip(tensor.indices, layout.dims, strict=True)
        }

    def __str__(self) -> str:
        operands = ", ".join(
            f"{tensor.name}: {layout.text(tensor.indices)}"
            for tensor, layout in zip(self.inputs, self.layouts, strict=True)
        )
        return f"einsum {operands} -> {self.output.name}: {self.output_layout.text(self.output.indices)}"


class LocalMap(Struct, frozen=True):
    """A map every device runs on its shards: everything in a program that is not an einsum.

    Args:
        op: name of the map.
        inputs: the tensors it reads, and `layouts` how each is divided.
        outputs: the tensors it makes, and `output_layouts` how each is divided.
        flops_per_element: FLOPs an element of the largest tensor it touches.
        counts_first: they count for the elements of the first operand instead.
        reads: which inputs are read in full; a table that is looked up is not.
        rows: how many inputs are tables of which as many elements are read as the result has.
        in_place: the result is the first operand with the second written into it: of both, only the second's elements
            are touched.
    """

    op: str
    inputs: tuple[Tensor, ...]
    layouts: tuple[Layout, ...]
    outputs: tuple[Tensor, ...]
    output_layouts: tuple[Layout, ...]
    flops_per_element: float = 0
    counts_first: bool = False
    reads: tuple[int, ...] = ()
    rows: int = 0
    in_place: bool = False


Step = LocalEinsum | Collective


class Plan(Struct, frozen=True):
    """The steps of one einsum: a tensor is found by (name, layout), so each step names exactly what it reads.

    Args:
        inputs: operands as they are given.
        input_layouts: the layouts they are given in.
        steps: moves and local einsums, in order.
        output: the result.
        output_layout: the layout it ends in.
    """

    inputs: tuple[Tensor, ...]
    input_layouts: tuple[Layout, ...]
    steps: tuple[Step, ...]
    output: Tensor
    output_layout: Layout

    @property
    def collectives(self) -> tuple[Collective, ...]:
        """The moves, free ones included, in order."""
        return tuple(step for step in self.steps if isinstance(step, Collective))


def move_alone(step: Collective) -> Plan:
    """A plan of one move and nothing else."""
    return Plan((step.tensor,), (step.before,), (step,), step.tensor, step.after)


def compute_dtype(tensors: Sequence[Tensor]) -> str:
    """Element type the chip multiplies in: the widest of the operands, to which the others are converted.

    Of types of the same width a float goes before an integer, then the first in the alphabet: whichever operand has it.

    >>> compute_dtype([Tensor("x", ("i",), "bf16"), Tensor("w", ("i",), "int8")])
    'bf16'
    """
    return max((tensor.dtype for tensor in tensors), key=_width)


def _width(dtype: str) -> tuple[int, bool, tuple[int, ...]]:
    return BITS[dtype], "int" not in dtype, tuple(-ord(letter) for letter in dtype)


def step_flops(step: LocalEinsum, sizes: Mapping[str, Number], degrees: Mapping[str, Number]) -> Number:
    """FLOPs one device spends on a local einsum, padding included."""
    placement = step.placement
    iterations = product(ceil_div(sizes[index], shards(axes, degrees)) for index, axes in placement.items())
    iterations = chosen_share(iterations, chosen_indices(step.inputs), sizes)
    einsum = step.einsum
    return einsum_flops(len(einsum.inputs), bool(einsum.contracted), iterations)


def chosen_indices(tensors: Iterable[Tensor]) -> Chosen:
    """Indices of which only some elements exist in one of the tensors, each with the largest count."""
    counts: dict[str, int | float] = {}
    for tensor in tensors:
        for index, count in tensor.chosen:
            counts[index] = max(count, counts.get(index, 0))
    return tuple(counts.items())


def plan_flops(plan: Plan, sizes: Mapping[str, Number], degrees: Mapping[str, Number]) -> Number:
    """FLOPs one device spends on a plan."""
    return sum(step_flops(step, sizes, degrees) for step in plan.steps if isinstance(step, LocalEinsum))


def plan_received(plan: Plan, sizes: Mapping[str, Number], mesh: Mesh) -> Number:
    """Bytes a device receives over a plan: totals over the mesh added exactly, rounded up once."""
    return ceil_div(sum(received_total(step, sizes, mesh) for step in plan.collectives), mesh.devices)


def work_results(work: LocalEinsum | LocalMap) -> tuple[tuple[Tensor, Layout], ...]:
    """What local work makes, each tensor with the layout the work leaves it in."""
    if isinstance(work, LocalEinsum):
        return ((work.output, work.output_layout),)
    return tuple(zip(work.outputs, work.output_layouts, strict=True))


def work_flops(work: LocalEinsum | LocalMap, sizes: Mapping[str, Number], degrees: Mapping[str, Number]) -> Number:
    """FLOPs one device spends on local work, padding included."""
    if isinstance(work, LocalEinsum):
        return step_flops(work, sizes, degrees)
    if work.counts_first:
        first = local_elements(work.layouts[0], work.inputs[0].indices, sizes, degrees, work.inputs[0].chosen)
        return first * work.flops_per_element
    elements: Number = 0
    for tensor, layout in zip(work.inputs + work.outputs, work.layouts + work.output_layouts, strict=True):
        elements = maximum(elements, local_elements(layout, tensor.indices, sizes, degrees, tensor.chosen))
    return elements * work.flops_per_element


def work_reads(work: LocalEinsum | LocalMap) -> tuple[tuple[Tensor, Layout], ...]:
    """What local work reads in full, each tensor with the layout it is read in."""
    operands = tuple(zip(work.inputs, work.layouts, strict=True))
    return operands if isinstance(work, LocalEinsum) else tuple(operands[position] for position in work.reads)


def work_traffic(
    work: LocalEinsum | LocalMap,
    sizes: Mapping[str, Number],
    degrees: Mapping[str, Number],
    resident: Collection[str] = (),
    held: Callable[[Tensor, Layout], Number] | None = None,
) -> Number:
    """Bytes of HBM one device reads and writes for local work: every operand once, every result once.

    Of a table that is looked up, as many elements are read as the result has; of weights of experts, those that any of
    the device's tokens chose (`untouched`).

    Args:
        work: the local work.
        sizes: index -> size.
        degrees: mesh axis -> devices.
        resident: names of tensors that are on chip already and need not be read or written.
        held: bytes one device holds of a tensor in a layout, where they are known already.
    """
    made = work_results(work)
    if isinstance(work, LocalMap) and work.in_place:
        written = Tensor(work.inputs[1].name, work.inputs[1].indices, work.outputs[0].dtype)
        made = ((written, work.layouts[1]),)
    rows = 0 if isinstance(work, LocalEinsum) else work.rows
    touched = (*dict.fromkeys(work_reads(work)), *made, *made[:1] * rows)
    size = held or (lambda tensor, layout: local_bytes(tensor, layout, sizes, degrees))
    return sum(
        size(tensor, layout) - untouched(work, tensor, layout, sizes, degrees)
        for tensor, layout in touched
        if tensor.name not in resident
    )


def untouched(
    work: LocalEinsum | LocalMap,
    tensor: Tensor,
    layout: Layout,
    sizes: Mapping[str, Number],
    degrees: Mapping[str, Number],
) -> Number:
    """Bytes of an operand that local work does not read, for no token chose them: expected, rounded down.

    An expert that each of n tokens takes with probability k / E is taken by none with probability (1 - k/E)^n. That
    matters for decoding, where a device has few tokens.

    >>> from einscale.layout import make_layout
    >>> rows, made = (Tensor(name, ("e", "b", d), "bf16", (("e", 2),)) for name, d in (("x", "d"), ("y", "m")))
    >>> weights, sizes = Tensor("w", ("e", "d", "m")), {"e": 8, "b": 2, "d": 16, "m": 4}
    >>> work = LocalEinsum((rows, weights), (make_layout([(), (), ()]),) * 2, made, make_layout([(), (), ()]))
    >>> untouched(work, weights, work.layouts[1], sizes, {})  # (1 - 2/8)^2 of 1024 bytes
    576
    """
    if not isinstance(work, LocalEinsum) or tensor.chosen or tensor not in work.inputs:
        return 0
    result: Number = 0
    for index, count in chosen_indices(work.inputs):
        if index not in tensor.indices:
            continue
        routed = next(
            (other, placed)
            for other, placed in zip(work.inputs, work.layouts, strict=True)
            if index in dict(other.chosen)
        )
        shape = local_shape(routed[1], routed[0].indices, sizes, degrees)
        tokens = product(
            size for name, size in zip(routed[0].indices, shape, strict=True) if name not in tensor.indices
        )
        missed = maximum(1 - count / sizes[index], 0.0) ** tokens
        held = local_bytes(tensor, layout, sizes, degrees)
        result = truncate(held * missed)
    return result
