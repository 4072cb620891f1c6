"""A plan at the smallest sizes that keep its meaning: indices first, then mesh axes where the mesh is large."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from itertools import product as cartesian

from msgspec import Struct
from msgspec.structs import replace

from einscale.collectives import PERMUTE, Collective
from einscale.emulate.cuts import CutMesh, count, cut_mesh, local_length
from einscale.errors import PlanError
from einscale.layout import Layout, Tensor
from einscale.mesh import Mesh
from einscale.steps import LocalEinsum, Plan

BYTES_LIMIT = 256 * 2**20
"""Emulation never holds more than this."""

WORK_LIMIT = 5 * 10**8
"""Multiply-adds, over all devices, that are worth emulating."""

SMALL_DEVICES = 64
SMALL_BYTES = 32 * 2**20
SMALL_WORK = 2 * 10**7
"""A plan within these three is emulated on its own mesh, a larger one on a smaller mesh if there is one."""

MAX_DEGREE = 8
"""Degrees a large digit may be replaced by: 2 to this."""


class Small(Struct, frozen=True):
    """A question small enough to run.

    Args:
        digits: the mesh, cut into digits.
        sizes: index -> size.
        padded: index -> the size its dims are divided as. Where every number of shards that occurs rounds the size up
            to the same whole, that whole: all shards are then equal blocks of it. Elsewhere the size itself.
        original: the same cuts on the mesh that was asked about.
        whole: indices that are taken padded, see `shrink`.
    """

    digits: CutMesh
    sizes: dict[str, int]
    padded: dict[str, int]
    original: CutMesh
    whole: tuple[str, ...] = ()

    @property
    def same_mesh(self) -> bool:
        """Whether the mesh is the one that was asked about."""
        return self.digits == self.original

    def layout(self, layout: Layout) -> Layout:
        """The layout, sub-axes renamed after the sizes they have now."""
        if self.same_mesh:
            return layout
        dims = tuple(tuple(self.name(axis) for axis in dim) for dim in layout.dims)
        return Layout(dims, tuple(sorted(self.name(axis) for axis in layout.unreduced)), layout.reduction)

    def name(self, axis: str) -> str:
        """The axis, a sub-axis renamed after the sizes it has now."""
        return self.original.rename(axis, self.digits)

    def step(self, step: Collective) -> Collective:
        """The move on the small mesh."""
        axes = tuple(self.name(axis) for axis in step.axes)
        return replace(step, axes=axes, before=self.layout(step.before), after=self.layout(step.after))


def placements(plan: Plan) -> Iterator[tuple[Tensor, Layout]]:
    """Every tensor of a plan with every layout it has in it."""
    yield from zip(plan.inputs, plan.input_layouts, strict=True)
    for step in plan.steps:
        if isinstance(step, LocalEinsum):
            yield from zip(step.inputs, step.layouts, strict=True)
            yield step.output, step.output_layout
        else:
            yield step.tensor, step.before
            yield step.tensor, step.after
    yield plan.output, plan.output_layout


def shrink(plan: Plan, sizes: Mapping[str, int], mesh: Mesh) -> Small:
    """The plan's question at the smallest sizes that keep its meaning.

    Every index keeps which numbers of shards divide it evenly and which exceed it. The mesh stays as it is where that
    is small enough to run; otherwise each digit gets a degree from 2 up, such that equal digits stay equal, larger ones
    are no smaller, different ones stay different if possible, every permute keeps its equal numbers of shards, and the
    indices keep their divisibilities. Axes that no step touches shrink to one device.

    An index that is uneven, and of which a permute exchanges blocks, must be stored padded to a multiple of all its
    numbers of shards, or those blocks would not line up: such an index is taken padded, so it is even here.

    Raises:
        PlanError: a size is missing, or nothing small enough keeps the plan's meaning.
    """
    pairs = list(dict.fromkeys(placements(plan)))
    names = {axis for _, layout in pairs for axis in layout.axes}
    names |= {axis for step in plan.collectives for axis in step.axes}
    digits = cut_mesh(mesh, sorted(names))
    divided = _divided(pairs, digits)
    for index in divided:
        if index not in sizes:
            raise PlanError(f"the size of index `{index}` is missing")
    radices = digits.radices
    sizes, whole = _exchanged(plan, divided, sizes, digits)
    own = _small_sizes(divided, sizes, radices, radices)
    fallback: Small | None = None
    if own is not None and mesh.devices <= 16 * SMALL_DEVICES:
        cells, work = _cost(plan, pairs, digits, own, radices)
        if cells <= SMALL_BYTES and work <= SMALL_WORK and mesh.devices <= SMALL_DEVICES:
            return Small(digits, own, _padded(divided, own, radices), digits, whole)
        if cells <= BYTES_LIMIT and work <= WORK_LIMIT:
            fallback = Small(digits, own, _padded(divided, own, radices), digits, whole)
    for other in _smaller_radices(plan, digits):
        small = _small_sizes(divided, sizes, radices, other)
        if small is not None:
            cells, work = _cost(plan, pairs, digits, small, other)
            if cells <= BYTES_LIMIT and work <= WORK_LIMIT:
                return Small(digits.resized(other), small, _padded(divided, small, other), digits, whole)
    if fallback is None:
        raise PlanError(
            f"the plan is too large to emulate: no smaller mesh than {mesh} keeps its divisibilities within 256 MB",
            hint="verify the same question on a mesh with fewer or smaller axes",
        )
    return fallback


def _divided(pairs: list[tuple[Tensor, Layout]], digits: CutMesh) -> dict[str, set[tuple[int, ...]]]:
    """For each index, every list of digits that divides it somewhere in the plan."""
    divided: dict[str, set[tuple[int, ...]]] = {}
    for tensor, layout in pairs:
        for index, dim in zip(tensor.indices, layout.dims, strict=True):
            divided.setdefault(index, set()).add(digits.expand(dim))
    return divided


def _exchanged(
    plan: Plan, divided: Mapping[str, set[tuple[int, ...]]], sizes: Mapping[str, int], digits: CutMesh
) -> tuple[Mapping[str, int], tuple[str, ...]]:
    """Sizes with those indices padded of which permutes exchange blocks that would not line up; and which they are."""
    padded = dict(sizes)
    for step in plan.collectives:
        if step.kind == PERMUTE:
            for index, old, new in zip(step.tensor.indices, step.before.dims, step.after.dims, strict=True):
                counts = [count(run, digits.radices) for run in divided[index]]
                wholes = {round_up(sizes[index], shards) for shards in counts if shards > 1}
                if len(wholes) > 1 and digits.expand(old) != digits.expand(new):
                    padded[index] = round_up(sizes[index], math.lcm(*counts))
    return padded, tuple(index for index in divided if padded[index] != sizes[index])


def _padded(
    divided: Mapping[str, set[tuple[int, ...]]], sizes: Mapping[str, int], radices: tuple[int, ...]
) -> dict[str, int]:
    """For each index the size it is divided as, see `Small.padded`."""
    padded = {}
    for index, runs in divided.items():
        size = sizes[index]
        wholes = {round_up(size, count(run, radices)) for run in runs if run}
        padded[index] = wholes.pop() if len(wholes) == 1 else size
    return padded


def round_up(size: int, shards: int) -> int:
    """What a size is padded to by a number of shards.

    >>> round_up(10, 4), round_up(8, 4)
    (12, 8)
    """
    return -(-size // shards) * shards


def _small_sizes(
    divided: Mapping[str, set[tuple[int, ...]]],
    sizes: Mapping[str, int],
    radices: tuple[int, ...],
    other: tuple[int, ...],
) -> dict[str, int] | None:
    """The smallest size of each index under other digit sizes; None if some index has none."""
    small = {}
    for index, runs in divided.items():
        # Parts of a run count too: a move may take them one at a time.
        parts = {run[:stop] for run in runs for stop in range(1, len(run) + 1)}
        counts = frozenset((count(run, radices), count(run, other)) for run in parts)
        size = smallest_size(sizes[index], counts)
        if size is None:
            return None
        small[index] = size
    return small


def smallest_size(size: int, counts: frozenset[tuple[int, int]]) -> int | None:
    """The smallest size that is to the new counts what `size` is to the old ones: a multiple, or not; smaller, or not.

    Counts that pad the size to the same whole still do. An index that has two values keeps two, so that a mistake in it
    shows.

    Args:
        size: the size asked about.
        counts: pairs (number of shards, number of shards on the small mesh).

    >>> smallest_size(4096, frozenset({(8, 2), (64, 6)})), smallest_size(10, frozenset({(4, 4), (2, 2)}))
    (6, 6)
    >>> smallest_size(7, frozenset({(16, 16)})), smallest_size(6, frozenset({(4, 2), (2, 2)})) is None
    (2, True)
    """
    alike: dict[int, list[int]] = {}
    for old, new in counts:
        alike.setdefault(round_up(size, old), []).append(new)
    even = [new for old, new in counts if size % old == 0]
    uneven = [(size < old, new) for old, new in counts if size % old]
    step = math.lcm(*even)
    least = 1 if size == 1 else 2
    at_least = max([least, *(new + 1 for below, new in uneven if not below)])
    candidate = step * -(-at_least // step)
    # Divisibility repeats with the least common multiple of all counts, so one round decides.
    stop = candidate + math.lcm(step, *(new for _, new in uneven))
    while candidate <= stop:
        if all(candidate % new and (candidate < new) == below for below, new in uneven) and all(
            len({round_up(candidate, new) for new in same}) == 1 for same in alike.values()
        ):
            return candidate
        candidate += step
    return None


def _cost(
    plan: Plan,
    pairs: list[tuple[Tensor, Layout]],
    digits: CutMesh,
    sizes: Mapping[str, int],
    radices: tuple[int, ...],
) -> tuple[int, int]:
    """Bytes that emulation holds at most, and multiply-adds it does, both over all devices."""
    devices = count(range(len(radices)), radices)
    cells = []
    for tensor, layout in pairs:
        lengths = (
            local_length(sizes[index], digits.expand(dim), radices)
            for index, dim in zip(tensor.indices, layout.dims, strict=True)
        )
        cells.append(devices * math.prod(lengths))
    work = 0
    for step in plan.steps:
        if isinstance(step, LocalEinsum):
            lengths = (local_length(sizes[index], digits.expand(dim), radices) for index, dim in step.placement.items())
            work += devices * math.prod(lengths)
    largest = max(cells)
    return 8 * (sum(cells) + 4 * largest), work + math.prod(sizes.values())


def _smaller_radices(plan: Plan, digits: CutMesh) -> Iterator[tuple[int, ...]]:
    """Other sizes for the digits: first those that keep different digits different, fewest devices first."""
    radices = digits.radices
    used = {digit for _, layout in placements(plan) for dim in layout.dims for digit in digits.expand(dim)}
    used |= {digit for _, layout in placements(plan) for digit in digits.expand(layout.unreduced)}
    distinct = sorted({radices[digit] for digit in used})
    equal = _equal_counts(plan, digits)
    span = MAX_DEGREE if len(distinct) <= 4 else 4 if len(distinct) <= 6 else 2
    choices = [sorted({*range(2, min(radix, span) + 1), radix}) for radix in distinct]
    options = []
    for chosen in cartesian(*choices):
        if any(low > high for low, high in pairwise(chosen)):
            continue
        smaller = dict(zip(distinct, chosen, strict=True))
        other = tuple(smaller[radix] if digit in used else 1 for digit, radix in enumerate(radices))
        if all(count(old, other) == count(new, other) for old, new in equal):
            options.append((len(set(chosen)) < len(chosen), math.prod(other), other))
    yield from (other for _, _, other in sorted(options))


def _equal_counts(plan: Plan, digits: CutMesh) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Pairs of runs of digits that permutes need to make equal numbers of shards."""
    equal = set()
    for step in plan.collectives:
        if step.kind == PERMUTE:
            before, after = digits.place(step.before), digits.place(step.after)
            equal |= set(zip(before.dims, after.dims, strict=True))
            equal.add((before.unreduced, after.unreduced))
    return {(old, new) for old, new in equal if old != new}
