"""From a checked spec to the question it asks, as plain tuples: no spans, no groups, no dialect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct

from einscale.notation.syntax import ELLIPSIS, Axis, Partial, Spec, TensorSpec, default_name
from einscale.vocabulary import SUM, Reduction

Axes: TypeAlias = tuple[str, ...]
"""Mesh axes (or parts of them, `x:(2)4`) that divide one dim, major to minor."""


class EinsumQuestion(Struct, frozen=True):
    """An einsum, the layouts its operands are in, and the layout its output is wanted in.

    Args:
        inputs: per operand its indices, groups taken apart.
        output: indices of the output.
        names: per operand its name: given, or A, B, C, ...
        output_name: name of the output: given, or `out`.
        dtypes: per operand its canonical dtype, None where none is written.
        output_dtype: likewise for the output.
        input_dims: per operand and index the mesh axes that divide it.
        input_unreduced: per operand the mesh axes over which it owes a reduction, sorted.
        reductions: per operand which reduction that is: `sum` where none is owed.
        output_dims: per output index the mesh axes wanted, or None where the planner chooses. `B/x/?`, at least x,
            is `("x", "?")`.
        output_unreduced: mesh axes over which the output is to owe a reduction, sorted.
        output_unreduced_open: whether the planner chooses them (`{U:?}`); otherwise exactly `output_unreduced`.
        output_reduction: the reduction the output owes.
        sizes: (index, size) for every size the spec writes, sorted.
        has_output: whether the spec says which indices the output has; if not they are implied.
    """

    inputs: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]
    names: tuple[str, ...]
    output_name: str
    dtypes: tuple[str | None, ...]
    output_dtype: str | None
    input_dims: tuple[tuple[Axes, ...], ...]
    input_unreduced: tuple[Axes, ...]
    reductions: tuple[Reduction, ...]
    output_dims: tuple[Axes | None, ...]
    output_unreduced: Axes
    output_unreduced_open: bool
    output_reduction: Reduction
    sizes: tuple[tuple[str, int], ...]
    has_output: bool


def lower(spec: Spec) -> EinsumQuestion:
    """The question that a spec asks.

    >>> from einscale.notation import parse_spec
    >>> question = lower(parse_spec("B/x D, D=8 F -> B/x F/?"))
    >>> question.inputs, question.input_dims, question.output_dims, question.sizes
    ((('B', 'D'), ('D', 'F')), ((('x',), ()), ((), ())), (('x',), None), (('D', 8),))
    """
    operands, output = spec.operands, spec.output
    names = _names([operand.name for operand in operands], output.name if output else None)
    sizes: dict[str, int] = {}
    for tensor in (*operands, *((output,) if output is not None else ())):
        sizes |= tensor.sizes
    wholly_open = output is None or output.open
    partial = output.partial if output is not None else None
    return EinsumQuestion(
        inputs=tuple(operand.indices for operand in operands),
        output=tuple(axis.name for axis in spec.output_axes),
        names=names[:-1],
        output_name=names[-1],
        dtypes=tuple(operand.dtype for operand in operands),
        output_dtype=output.dtype if output is not None else None,
        input_dims=tuple(operand.layout for operand in operands),
        input_unreduced=tuple(operand.unreduced for operand in operands),
        reductions=tuple(operand.reduction for operand in operands),
        output_dims=tuple(_wanted(axis, wholly_open) for axis in spec.output_axes),
        output_unreduced=output.unreduced if output is not None else (),
        output_unreduced_open=partial is not None and partial.open,
        output_reduction=_output_reduction(operands, partial),
        sizes=tuple(sorted(sizes.items())),
        has_output=output is not None,
    )


def _wanted(axis: Axis, wholly_open: bool) -> Axes | None:
    """Mesh axes wanted for an output index; None where the planner chooses."""
    axes = tuple(shard.name for shard in axis.shards)
    if axis.open:
        return (*axes, "?") if axes else None
    return axes if axes or not wholly_open or axis.name == ELLIPSIS else None


def _output_reduction(operands: Sequence[TensorSpec], partial: Partial | None) -> Reduction:
    """What the output may owe: what is written or, for `{U:?}` and a single operand, what that one owes."""
    if partial is not None and partial.open and partial.reduction == SUM and len(operands) == 1:
        return operands[0].reduction
    return partial.reduction if partial is not None else SUM


def _names(given: Sequence[str | None], output: str | None) -> tuple[str, ...]:
    """A name for each operand and, last, for the output; none twice."""
    taken = {name for name in (*given, output) if name is not None}
    names = [_free(default_name(k), taken) if name is None else name for k, name in enumerate(given)]
    return (*names, _free("out", taken) if output is None else output)


def _free(name: str, taken: set[str]) -> str:
    """`name`, or the like of it if it is taken; taken from now on."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name
