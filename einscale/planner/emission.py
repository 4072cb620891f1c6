"""From a placement in digits back to a plan: named layouts, collectives with causes, the local einsum."""

from __future__ import annotations

from msgspec.structs import replace

from einscale.collectives import FREE, SLICE, Collective
from einscale.digits import Digits
from einscale.layout import Layout, Tensor
from einscale.planner.causes import operand_cause, result_cause
from einscale.planner.pricing import Pricing
from einscale.planner.question import Placement, Question
from einscale.reshard import emit
from einscale.reshard.moves import Dims, State, digits_in
from einscale.steps import LocalEinsum, Plan, Step
from einscale.vocabulary import SUM, Reduction


def named(dims: Dims, owed: int, digits: Digits, reduction: Reduction = SUM) -> Layout:
    """A layout in digits, with the names of axes."""
    owes = tuple(sorted(digits.mesh_names(digits_in(owed))))
    return Layout(tuple(digits.names(dim) for dim in dims), owes, reduction if owes else SUM)


def wanted_layout(question: Question, end: State) -> Layout:
    """The layout the result ends in, in the words of the question where it had some."""
    layout = named(end[0], end[1], question.digits)
    dims = tuple(
        given if given is not None else dim for given, dim in zip(question.wanted.dims, layout.dims, strict=True)
    )
    unreduced = layout.unreduced
    if end[1] == question.owes:
        unreduced = tuple(sorted(question.wanted.unreduced))
    return Layout(dims, unreduced)


class Prepared:
    """An operand as it is given, and what must be done with it on its own first.

    Args:
        given, layout: the operand and its layout.
        steps: moves and local sums, free of choices.
        tensor, after: what is left of it, and the layout that is in.
    """

    __slots__ = ("after", "given", "layout", "steps", "tensor")

    def __init__(self, given: Tensor, layout: Layout, steps: tuple[Step, ...], tensor: Tensor, after: Layout) -> None:
        """Keep the parts."""
        self.given = given
        self.layout = layout
        self.steps = steps
        self.tensor = tensor
        self.after = after


def assemble(question: Question, prepared: tuple[Prepared, ...], placement: Placement, pricing: Pricing) -> Plan:
    """The plan of a placement."""
    digits = question.digits
    steps: list[Step] = []
    layouts = []
    for j, operand in enumerate(question.operands):
        dims = question.operand_dims(operand, placement)
        path = pricing.operand(j, dims)
        target = operand.layout
        if (dims, pricing.kept[j]) != operand.source:
            target = named(dims, pricing.kept[j], digits, operand.layout.reduction)
        merged = FREE if operand.padded else pricing.objective.merged
        moves = emit(operand.tensor, operand.layout, target, path.steps, digits, merged=merged)
        moves = tuple(replace(step, cause=operand_cause(step, question, placement)) for step in moves)
        steps += sliced_first(prepared[j], moves, digits)
        layouts.append(target)
    reduction = next((layout.reduction for layout in layouts if layout.unreduced), SUM)
    made, final, after = result_moves(question, placement, pricing, prepared, reduction)
    tensors = tuple(operand.tensor for operand in question.operands)
    steps.append(LocalEinsum(tensors, tuple(layouts), question.output, made))
    given = tuple(p.given for p in prepared)
    return Plan(given, tuple(p.layout for p in prepared), (*steps, *after), question.output, final)


def result_moves(
    question: Question,
    placement: Placement,
    pricing: Pricing,
    prepared: tuple[Prepared, ...],
    reduction: Reduction,
) -> tuple[Layout, Layout, tuple[Collective, ...]]:
    """The layout the einsum leaves its result in, the layout it ends in, and the moves between."""
    digits = question.digits
    dims, owed = question.output_dims(placement), pricing.owed(placement)
    path, end = pricing.output(dims, owed)
    final = wanted_layout(question, end)
    if final.unreduced:
        final = replace(final, reduction=reduction)
    made = final if (dims, owed) == end else named(dims, owed, digits, reduction)
    merged = FREE if question.out_padded else pricing.objective.merged
    moves = emit(question.output, made, final, path.steps, digits, merged=merged)
    return (
        made,
        final,
        tuple(replace(m, cause=result_cause(m, question, placement, owed, summed_first(prepared))) for m in moves),
    )


def summed_first(prepared: tuple[Prepared, ...]) -> dict[str, tuple[str, ...]]:
    """Indices of one operand alone, which were summed before anything else -> the mesh axes that divided them."""
    return {
        index: dim
        for one in prepared
        for index, dim in zip(one.given.indices, one.layout.dims, strict=True)
        if index not in one.tensor.indices
    }


def sliced_first(prepared: Prepared, moves: tuple[Collective, ...], digits: Digits) -> list[Step]:
    """An operand's own steps, then its moves; but a slice that comes first is made before a local sum, to shrink it."""
    repeated = len(set(prepared.given.indices)) < len(prepared.given.indices)
    if len(prepared.steps) != 1 or repeated or not moves or moves[0].kind != SLICE:
        return [*prepared.steps, *moves]
    first = moves[0]
    added = {}
    for index, before, after in zip(first.tensor.indices, first.before.dims, first.after.dims, strict=True):
        added[index] = digits.expand(after)[len(digits.expand(before)) :]
    dims = tuple(
        digits.names(digits.expand(dim) + added[index]) if added.get(index) else dim
        for index, dim in zip(prepared.given.indices, prepared.layout.dims, strict=True)
    )
    sliced = replace(prepared.layout, dims=dims)
    step = replace(first, tensor=prepared.given, before=prepared.layout, after=sliced)
    local = replace(prepared.steps[0], layouts=(sliced,), output_layout=first.after)
    return [step, local, *moves[1:]]
