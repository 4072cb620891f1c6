"""What is done to each operand on its own before anything else: diagonals taken, lonely indices summed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

from einscale.causes import Cause, CauseRule
from einscale.digits import digits_of
from einscale.einsum import Einsum
from einscale.errors import LayoutError, PlanError, SizeError, did_you_mean
from einscale.layout import Layout, Tensor, check_layout
from einscale.mesh import Mesh
from einscale.planner.emission import Prepared
from einscale.planner.question import Wanted
from einscale.reshard import reshard
from einscale.steps import LocalEinsum, Step
from einscale.vocabulary import BYTES, SUM, TIME

if TYPE_CHECKING:
    from einscale.topology import Network


def check_question(
    tensors: tuple[Tensor, ...],
    layouts: tuple[Layout, ...],
    output: Tensor,
    wanted: Wanted,
    sizes: Mapping[str, int],
    mesh: Mesh,
) -> None:
    """Raise unless the question is well formed.

    Raises:
        PlanError: no operand, layouts or output dims that do not match, an output index in no operand or twice.
        LayoutError: a layout that the mesh does not allow.
        SizeError: a size is missing or not positive.
    """
    if not tensors:
        raise PlanError("an einsum needs at least one operand")
    if len(tensors) != len(layouts):
        raise PlanError(f"{len(tensors)} operands but {len(layouts)} layouts")
    known = [index for tensor in tensors for index in tensor.indices]
    for index in output.indices:
        if index not in known:
            raise PlanError(
                f"output index `{index}` occurs in no operand",
                hint=did_you_mean(index, dict.fromkeys(known), "indices"),
            )
    if len(set(output.indices)) != len(output.indices):
        raise PlanError(f"an index occurs twice in the output {output}")
    for tensor, layout in zip(tensors, layouts, strict=True):
        check_layout(layout, mesh, f"`{tensor.name}`")
        if len(layout.dims) != len(tensor.indices):
            raise LayoutError(f"a layout of {len(layout.dims)} dims for {tensor}, which has {len(tensor.indices)}")
    if len(wanted.dims) != len(output.indices):
        raise LayoutError(f"a wanted layout of {len(wanted.dims)} dims for {output}, which has {len(output.indices)}")
    fixed = tuple(dim if dim is not None else () for dim in wanted.dims)
    check_layout(Layout(fixed, wanted.unreduced), mesh, f"`{output.name}`")
    for index in dict.fromkeys(known):
        if index not in sizes:
            raise SizeError(f"index `{index}` has no size", hint=did_you_mean(index, sizes, "sizes are given for"))
        if sizes[index] < 1:
            raise SizeError(f"index `{index}` has size {sizes[index]}; it must be at least 1")


def prepare(
    tensor: Tensor,
    layout: Layout,
    lonely: tuple[str, ...],
    sizes: Mapping[str, int],
    mesh: Mesh,
    name: str,
    network: Network | None = None,
) -> Prepared:
    """Take the diagonal of repeated indices (their dims whole) and sum the lonely ones locally.

    A sum over a divided index leaves the operand owing it over that index's axes. What moves does so in the fewest
    bytes, or, on a network, in the least time.
    """
    if not needs_preparing(tensor, lonely):
        return Prepared(tensor, layout, (), tensor, layout)
    repeated = {index for index in tensor.indices if tensor.indices.count(index) > 1}
    steps: list[Step] = []

    def move(before: Layout, after: Layout, cause: Cause) -> Layout:
        objective = BYTES if network is None else TIME
        steps.extend(reshard(tensor, before, after, sizes, mesh, network=network, objective=objective, cause=cause))
        return after

    here = layout
    if any(dim for index, dim in zip(tensor.indices, layout.dims, strict=True) if index in repeated):
        whole = tuple(() if i in repeated else dim for i, dim in zip(tensor.indices, layout.dims, strict=True))
        cause = Cause(CauseRule.DIAGONAL, tensor.name)
        here = move(here, Layout(whole, layout.unreduced, layout.reduction), cause)
    if lonely and here.unreduced and here.reduction != SUM:
        cause = Cause(CauseRule.SETTLED, tensor.name, here.unreduced, reduction=here.reduction)
        here = move(here, here.reduced(), cause)
    kept = tuple(index for index in dict.fromkeys(tensor.indices) if index not in lonely)
    dims = dict(zip(tensor.indices, here.dims, strict=True))
    owed = here.unreduced + tuple(axis for index in lonely for axis in dims[index])
    digits = digits_of(mesh, layout.axes)
    owes = tuple(sorted(digits.mesh_names(digits.expand(owed))))
    left = Tensor(name, kept, tensor.dtype, tuple((i, count) for i, count in tensor.chosen if i in kept))
    after = Layout(tuple(dims[index] for index in kept), owes, here.reduction if owes else SUM)
    steps.append(LocalEinsum((tensor,), (here,), left, after))
    return Prepared(tensor, layout, tuple(steps), left, after)


def needs_preparing(tensor: Tensor, lonely: tuple[str, ...]) -> bool:
    """Whether an operand repeats an index or has one to be summed on its own."""
    return bool(lonely) or len(set(tensor.indices)) < len(tensor.indices)


def _fresh(name: str, taken: set[str]) -> str:
    """`name`, with underscores if it is taken."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def prepared_ways(
    tensors: tuple[Tensor, ...],
    layouts: tuple[Layout, ...],
    output: Tensor,
    sizes: Mapping[str, int],
    mesh: Mesh,
    network: Network | None = None,
) -> list[tuple[Prepared, ...]]:
    """Ways to deal with lonely and repeated indices: of each operand on its own first, or in the einsum itself.

    On its own, a sum makes an operand smaller before it moves. In the einsum itself the index may be divided over any
    axes, and what is summed is read once. One operand leaves the two no different: it is only summed in the einsum.
    """
    given = tuple(Prepared(t, layout, (), t, layout) for t, layout in zip(tensors, layouts, strict=True))
    if len(tensors) == 1:
        return [given]
    lonely = Einsum(tuple(tensor.indices for tensor in tensors), output.indices).lonely
    taken = {tensor.name for tensor in tensors} | {output.name}
    options = []
    for as_given, alone in zip(given, lonely, strict=True):
        tensor = as_given.given
        if not needs_preparing(tensor, alone):
            options.append([as_given])
            continue
        name = _fresh(f"{tensor.name}_{'sum' if alone else 'diagonal'}", taken)
        options.append([prepare(tensor, as_given.layout, alone, sizes, mesh, name, network), as_given])
    return list(product(*options))
