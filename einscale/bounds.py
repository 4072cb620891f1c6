"""Lower bounds on the bytes a device receives: for a plan's own placement, and for any division of an einsum at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache

from msgspec import Struct

from einscale.collectives import Collective
from einscale.digits import digits_of, overlap
from einscale.dtypes import bits_of
from einscale.einsum import Einsum
from einscale.errors import PlanError, UncountableError
from einscale.layout import Layout, Tensor, chosen_share, local_bytes, shards
from einscale.mesh import Mesh
from einscale.numeric import ceil_div, product
from einscale.steps import Plan, plan_received

Share = tuple[int, int]
"""An exact fraction: numerator, denominator."""


class BoundName(StrEnum):
    """What a lower bound takes as given."""

    PLACEMENT = "placement"
    LAYOUT_FREE = "layout-free"


class LowerBound(Struct, frozen=True):
    """A lower bound beside a plan.

    Args:
        name: where the tensors are and where the plan computes (`PLACEMENT`), or that each device does an equal share.
        bytes: bytes a device must receive, averaged over the devices, rounded up.
        ratio: what the plan receives over that; 1.0 where neither moves anything.
    """

    name: BoundName
    bytes: int
    ratio: float


ROUNDING = 1e-12
"""Relative slack given to what is found in floating point, so that rounding never lifts a bound above the truth.

It is taken off what a device touches, before what it owns: the difference of the two may be far smaller than either.
"""


def lower_bounds(plan: Plan, sizes: Mapping[str, int], mesh: Mesh) -> tuple[LowerBound, ...]:
    """Both bounds of a plan, the stronger first; the layout-free one only where it says more than zero."""
    received = int(plan_received(plan, sizes, mesh))
    placement = placement_bound(plan, sizes, mesh)
    bounds = [LowerBound(BoundName.PLACEMENT, placement, _ratio(received, placement))]
    free = math.ceil(plan_layout_free_bound(plan, sizes, mesh))
    if free:
        bounds.append(LowerBound(BoundName.LAYOUT_FREE, free, _ratio(received, free)))
    return tuple(sorted(bounds, key=lambda bound: -bound.bytes))


def _ratio(received: int, bound: int) -> float:
    return received / bound if bound else (math.inf if received else 1.0)


def placement_bound(plan: Plan, sizes: Mapping[str, int], mesh: Mesh) -> int:
    """Bytes a device must receive, given what it owns and what the plan's local einsums need where they run.

    For every operand of a local einsum, and for the output: the block the device needs, less what it holds of it where
    the tensor came from; a sum over u devices that r devices want costs u - 1 + r - 1 messages an element at least.
    Averaged over the devices of the mesh, exactly, rounded up once: the same measure as `bytes_received`. Padding is
    not counted, so an uneven plan may stay above it.

    >>> from einscale.layout import make_layout
    >>> from einscale.mesh import make_mesh
    >>> tensor, start, end = Tensor("x", ("a",)), make_layout([("x",)]), make_layout([()])
    >>> gather = Collective("all-gather", tensor, ("x",), start, end)
    >>> placement_bound(Plan((tensor,), (start,), (gather,), tensor, end), {"a": 64}, make_mesh("x=4"))
    96
    """
    wanted: dict[tuple[str, Layout], dict[Layout, Tensor]] = {}
    origins: dict[tuple[str, Layout], Layout] = {
        (tensor.name, layout): layout for tensor, layout in zip(plan.inputs, plan.input_layouts, strict=True)
    }

    def want(tensor: Tensor, layout: Layout) -> None:
        origin = origins.get((tensor.name, layout), layout)
        wanted.setdefault((tensor.name, origin), {})[layout] = tensor

    for step in plan.steps:
        if isinstance(step, Collective):
            origin = origins.get((step.tensor.name, step.before), step.before)
            origins.setdefault((step.tensor.name, step.after), origin)
            continue
        for tensor, layout in zip(step.inputs, step.layouts, strict=True):
            want(tensor, layout)
        origins[step.output.name, step.output_layout] = step.output_layout
    want(plan.output, plan.output_layout)
    total: Share = (0, 1)
    for (_, origin), layouts in wanted.items():
        shares = [transition_bytes(tensor, origin, layout, sizes, mesh) for layout, tensor in layouts.items()]
        total = _add(total, max(shares, key=lambda share: share[0] / share[1]))
    return int(ceil_div(total[0], total[1] * mesh.devices))


def transition_bytes(tensor: Tensor, before: Layout, after: Layout, sizes: Mapping[str, int], mesh: Mesh) -> Share:
    """Bytes that all devices together must receive to take a tensor from one layout to another, as an exact fraction.

    >>> from einscale.layout import make_layout
    >>> from einscale.mesh import make_mesh
    >>> owed, whole = make_layout([()], ["x"]), make_layout([()])
    >>> transition_bytes(Tensor("y", ("a",), "fp32"), owed, whole, {"a": 8}, make_mesh("x=4"))  # 2 * 3 * 32
    (192, 1)
    """
    numerator, denominator = _share(before, after, mesh)
    bits = bits_of(
        int(chosen_share(product(sizes[index] for index in tensor.indices), tensor.chosen, sizes)), tensor.dtype
    )
    return _reduced(bits * numerator, 8 * denominator)


@lru_cache(maxsize=16384)
def _share(before: Layout, after: Layout, mesh: Mesh) -> Share:
    """The same as a multiple of the tensor's bytes."""
    digits = digits_of(mesh, before.axes + after.axes)
    own, need = digits.dims(before.dims), digits.dims(after.dims)
    owed, owes = set(digits.expand(before.unreduced)), set(digits.expand(after.unreduced))
    needs = (mesh.devices, product(digits.size(dim) for dim in need))
    try:
        same, of = overlap(own, need, digits.radices)
    except UncountableError:  # too uneven to count: no two blocks share more than the smaller of them
        same, of = 1, product(max(digits.size(a), digits.size(b)) for a, b in zip(own, need, strict=True))
    held: Share = (same * mesh.devices, of)
    keepers = digits.size(owes)
    if owed - owes:
        return _reducing(needs, held, digits.size(owed), digits.size(owed & owes), keepers)
    if owes & {digit for dim in own for digit in dim}:
        return _positive(_subtract((needs[0], needs[1] * keepers), held))
    missing = _positive(_subtract(needs, held))
    return _reduced(missing[0], missing[1] * keepers)


def _reducing(needs: Share, held: Share, parts: int, kept: int, keepers: int) -> Share:
    """Messages per element to add `parts` parts, of which groups of `keepers` devices may keep `kept` apart.

    Before any group is complete, each part that it lacks has left its holders once; every other group that wants the
    sum receives at least once after that. Where no device that wants an element holds a part of it, the first complete
    one has received every part.
    """
    groups = _reduced(needs[0], needs[1] * keepers)
    messages = _add(groups, (parts - kept - 1, 1))
    if keepers == 1:
        messages = _add(messages, _positive(_subtract((1, 1), held)))
    return messages


def _reduced(numerator: int, denominator: int) -> Share:
    common = math.gcd(numerator, denominator)
    return numerator // common, denominator // common


def _add(first: Share, second: Share) -> Share:
    return _reduced(first[0] * second[1] + second[0] * first[1], first[1] * second[1])


def _subtract(first: Share, second: Share) -> Share:
    return _reduced(first[0] * second[1] - second[0] * first[1], first[1] * second[1])


def _positive(share: Share) -> Share:
    return share if share[0] > 0 else (0, 1)


def plan_layout_free_bound(plan: Plan, sizes: Mapping[str, int], mesh: Mesh) -> float:
    """Bytes a device must receive for this einsum, whatever the layout of its work, given what it owns at the start.

    Owned are the operands' local bytes, and of the result one copy divided evenly (or the sum it still owes).
    """
    einsum = Einsum(tuple(tensor.indices for tensor in plan.inputs), plan.output.indices)
    degrees = mesh.degrees
    owned = sum(
        local_bytes(tensor, layout, sizes, degrees)
        for tensor, layout in zip(plan.inputs, plan.input_layouts, strict=True)
    )
    result = bits_of(_elements(plan.output.indices, sizes), plan.output.dtype) / 8
    owned += result * shards(plan.output_layout.unreduced, degrees) / mesh.devices
    dtypes = [tensor.dtype for tensor in plan.inputs] + [plan.output.dtype]
    return layout_free_bound(einsum, sizes, dtypes, mesh.devices, owned)


def layout_free_bound(
    einsum: Einsum,
    sizes: Mapping[str, int],
    dtypes: Sequence[str],
    devices: int,
    owned: float | None = None,
) -> float:
    """Bytes a device must receive or send to do its share of an einsum, however operands and work are divided.

    A device that does F/P of the F multiplications touches x_j elements of each array with x_A x_B x_C >= (F/P)^2
    (Loomis and Whitney) and at least a P-th of each array; the least total, less what it owns, must be communicated: Al
    Daas, Ballard, Grigori, Kumar, Rouse, 2022, arXiv 2205.13407, theorem 3, here with bytes as weights and with batch
    indices, which only make the constraint easier to meet. It assumes that every device does an equal share.

    Args:
        einsum: one or two operands. One operand has no multiplications to bound, and for three or more a contraction
            order avoids most of the iteration space, so no such bound holds: both give 0.
        sizes: index -> size.
        dtypes: element type of each operand, then of the result.
        devices: P.
        owned: bytes a device owns at the start and end; by default an equal share of everything.

    >>> matmul = Einsum((("m", "k"), ("k", "n")), ("m", "n"))
    >>> round(layout_free_bound(matmul, {"m": 4096, "k": 4096, "n": 4096}, ["bf16"] * 3, 64))
    4718592

    Raises:
        PlanError: not one dtype for each operand and the result.
    """
    if len(dtypes) != len(einsum.inputs) + 1:
        raise PlanError("layout_free_bound needs one dtype for each operand and one for the result")
    if len(einsum.inputs) != 2:
        return 0.0
    lonely = {index for operand in einsum.lonely for index in operand}
    arrays = [tuple(i for i in dict.fromkeys(a) if i not in lonely) for a in (*einsum.inputs, einsum.output)]
    volumes = [_elements(array, sizes) for array in arrays]
    weights = [bits_of(4096, dtype) / 8 / 4096 for dtype in dtypes]
    work = _elements([index for index in einsum.indices if index not in lonely], sizes) / devices
    least = [volume / devices * weight for volume, weight in zip(volumes, weights, strict=True)]
    most = [volume * weight for volume, weight in zip(volumes, weights, strict=True)]
    bound = [position for position in range(3) if position != _whole_array(arrays)]
    power = 2 if len(bound) == 3 else 1
    target = work**power * math.prod(weights[position] for position in bound)
    touched = _least_sum([least[j] for j in bound], [most[j] for j in bound], target)
    touched += sum(least[j] for j in range(3) if j not in bound)
    return max(0.0, touched * (1 - ROUNDING) - (sum(least) if owned is None else owned))


def _whole_array(arrays: Sequence[tuple[str, ...]]) -> int | None:
    """The array that has every index, if one has: then the other two span the work, x_i x_j >= F/P."""
    every = {index for array in arrays for index in array}
    return next((position for position, array in enumerate(arrays) if set(array) == every), None)


def _elements(indices: Sequence[str], sizes: Mapping[str, int]) -> int:
    return int(product(sizes[index] for index in dict.fromkeys(indices)))


def _least_sum(least: Sequence[float], most: Sequence[float], target: float) -> float:
    """Least sum of y_j with least_j <= y_j <= most_j and a product of at least `target`.

    By the conditions of Karush, Kuhn and Tucker y_j = clip(t, least_j, most_j) for one t, found by bisection on log t.
    """

    def values(level: float) -> list[float]:
        return [min(max(math.exp(level), low), high) for low, high in zip(least, most, strict=True)]

    wanted = math.log(target)
    if sum(map(math.log, least)) >= wanted - ROUNDING:
        return sum(least)
    low, high = math.log(min(least)), math.log(max(most))
    for _ in range(200):
        middle = (low + high) / 2
        if sum(map(math.log, values(middle))) < wanted:
            low = middle
        else:
            high = middle
    return sum(values(high))


def matmul_accesses(m: float, n: float, k: float, devices: int) -> float:
    """Elements of the three matrices of an m x k by k x n product that one of P devices touches at least.

    The three cases of Al Daas et al. 2022, arXiv 2205.13407, with m >= n >= k after sorting: the work divided along
    one, two or three dims.

    >>> round(matmul_accesses(4096, 4096, 4096, 64) / 2**20, 9)  # 3 faces of a cube of 1024
    3.0
    """
    large, middle, small = sorted((m, n, k), reverse=True)
    if devices <= large / middle:
        return (large * middle + large * small) / devices + middle * small
    if devices <= large * middle / small**2:
        return 2 * math.sqrt(large * middle * small**2 / devices) + large * middle / devices
    return float(3 * (large * middle * small / devices) ** (2 / 3))


__all__ = [
    "LowerBound",
    "layout_free_bound",
    "lower_bounds",
    "matmul_accesses",
    "placement_bound",
    "plan_layout_free_bound",
    "transition_bytes",
]
