"""Why each collective of a planned einsum runs: which tensor, index, axis and rule."""

from __future__ import annotations

from collections.abc import Mapping

from einscale.causes import CauseRule, EinsumCause
from einscale.collectives import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    MASK,
    PERMUTE,
    REDUCE_SCATTER,
    SLICE,
    Collective,
)
from einscale.planner.question import Placement, Question
from einscale.reshard.moves import digits_in

_OPERAND = {
    SLICE: CauseRule.OPERAND_SLICED,
    MASK: CauseRule.OPERAND_MASKED,
    ALL_GATHER: CauseRule.OPERAND_GATHERED,
    ALL_REDUCE: CauseRule.OPERAND_REDUCED,
    REDUCE_SCATTER: CauseRule.OPERAND_SCATTERED,
    ALL_TO_ALL: CauseRule.OPERAND_DIM,
    PERMUTE: CauseRule.OPERAND_DEVICES,
}

_RESULT = {
    SLICE: CauseRule.RESULT_SLICED,
    MASK: CauseRule.RESULT_MASKED,
    ALL_GATHER: CauseRule.RESULT_GATHERED,
    ALL_REDUCE: CauseRule.RESULT_REDUCED,
    REDUCE_SCATTER: CauseRule.RESULT_SCATTERED,
    ALL_TO_ALL: CauseRule.RESULT_DIM,
    PERMUTE: CauseRule.RESULT_DEVICES,
}


def _changed(step: Collective) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Indices that lose axes in a step, and indices that gain some."""
    lost, gained = [], []
    for index, one, other in zip(step.tensor.indices, step.before.dims, step.after.dims, strict=True):
        if one != other and set(one) - set(other):
            lost.append(index)
        if one != other and set(other) - set(one):
            gained.append(index)
    return tuple(lost), tuple(gained)


def operand_cause(step: Collective, question: Question, placement: Placement) -> EinsumCause:
    """Why an operand moves before the einsum."""
    lost, gained = _changed(step)
    moved = set(question.digits.expand(step.axes))
    divides = tuple(index for index, dim in zip(question.names, placement, strict=True) if moved & set(dim))
    whole = tuple(i for i, dim in zip(step.tensor.indices, step.after.dims, strict=True) if i in lost and not dim)
    return EinsumCause(
        rule=_OPERAND[step.kind],
        tensor=step.tensor.name,
        axes=step.axes,
        indices=lost,
        gained=gained,
        reduction=step.before.reduction if step.before.unreduced else "",
        divides=divides,
        contracted=set(lost) <= {question.names[k] for k in question.contracted},
        whole=whole == lost,
    )


def result_cause(
    step: Collective, question: Question, placement: Placement, owed: int, summed_first: Mapping[str, tuple[str, ...]]
) -> EinsumCause:
    """Why the result moves after the einsum.

    Args:
        step: the move.
        question: what is planned.
        placement: where the einsum runs.
        owed: digits over which the result owes a sum.
        summed_first: index of one operand alone -> the mesh axes that divided it where it was summed.
    """
    lost, gained = _changed(step)
    rule = _RESULT[step.kind]
    if rule not in (CauseRule.RESULT_REDUCED, CauseRule.RESULT_SCATTERED):
        return EinsumCause(rule, step.tensor.name, step.axes, lost, gained)
    moved = set(question.digits.expand(step.axes))
    kept = moved & set(digits_in(owed)) - {digit for dim in placement for digit in dim}
    alone = [i for i, axes in summed_first.items() if kept and moved & set(question.digits.expand(axes))]
    return EinsumCause(
        rule=rule,
        tensor=step.tensor.name,
        axes=step.axes,
        indices=tuple(question.names[k] for k in question.contracted if moved & set(placement[k])),
        gained=gained,
        reduction=step.before.reduction,
        alone=tuple(alone),
        arrives=bool(kept),
    )
