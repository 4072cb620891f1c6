"""What is done to each operand on its own before anything else: diagonals taken, lonely indices summed."""

from __future__ import annotations

from collections.abc import Mapping

from einscale.causes import Cause, CauseRule
from einscale.digits import digits_of
from einscale.einsum import Einsum
from einscale.errors import LayoutError, PlanError, SizeError, did_you_mean
from einscale.layout import Layout, Tensor, check_layout
from einscale.mesh import Mesh
from einscale.plan import LocalEinsum, Step
from einscale.planner.emission import Prepared
from einscale.planner.question import Wanted
from einscale.reshard import reshard


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
    tensor: Tensor, layout: Layout, lonely: tuple[str, ...], sizes: Mapping[str, int], mesh: Mesh, taken: set[str]
) -> Prepared:
    """Take the diagonal of repeated indices (their dims whole) and sum the lonely ones locally.

    A sum over a divided index leaves the operand owing it over that index's axes.
    """
    repeated = {index for index in tensor.indices if tensor.indices.count(index) > 1}
    if not repeated and not lonely:
        return Prepared(tensor, layout, (), tensor, layout)
    steps: list[Step] = []
    here = layout
    if any(dim for index, dim in zip(tensor.indices, layout.dims, strict=True) if index in repeated):
        whole = tuple(() if i in repeated else dim for i, dim in zip(tensor.indices, layout.dims, strict=True))
        here = Layout(whole, layout.unreduced, layout.reduction)
        cause = Cause(CauseRule.DIAGONAL, tensor.name)
        steps += reshard(tensor, layout, here, sizes, mesh, cause=cause)
    if lonely and here.unreduced and here.reduction != "sum":
        settled = here.reduced()
        cause = Cause(CauseRule.SETTLED, tensor.name, here.unreduced, reduction=here.reduction)
        steps += reshard(tensor, here, settled, sizes, mesh, cause=cause)
        here = settled
    kept = tuple(index for index in dict.fromkeys(tensor.indices) if index not in lonely)
    dims = dict(zip(tensor.indices, here.dims, strict=True))
    owed = here.unreduced + tuple(axis for index in lonely for axis in dims[index])
    digits = digits_of(mesh, layout.axes)
    owes = tuple(sorted(digits.mesh_names(digits.expand(owed))))
    left = Tensor(_fresh(f"{tensor.name}_{'sum' if lonely else 'diagonal'}", taken), kept, tensor.dtype)
    after = Layout(tuple(dims[index] for index in kept), owes, here.reduction if owes else "sum")
    steps.append(LocalEinsum((tensor,), (here,), left, after))
    return Prepared(tensor, layout, tuple(steps), left, after)


def _fresh(name: str, taken: set[str]) -> str:
    """`name`, with underscores if it is taken."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def prepared_all(
    tensors: tuple[Tensor, ...], layouts: tuple[Layout, ...], output: Tensor, sizes: Mapping[str, int], mesh: Mesh
) -> tuple[Prepared, ...]:
    """`prepare` for every operand."""
    lonely = Einsum(tuple(tensor.indices for tensor in tensors), output.indices).lonely
    taken = {tensor.name for tensor in tensors} | {output.name}
    return tuple(
        prepare(tensor, layout, alone, sizes, mesh, taken)
        for tensor, layout, alone in zip(tensors, layouts, lonely, strict=True)
    )
