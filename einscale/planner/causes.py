"""Why each collective of a planned einsum runs, in words: which tensor, index, axis and rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from einscale.collectives import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, MASK, REDUCE_SCATTER, SLICE, Collective
from einscale.planner.question import Placement, Question
from einscale.reshard.moves import digits_in


def listed(words: Iterable[str]) -> str:
    """`x`, `y` and `z`."""
    quoted = [f"`{word}`" for word in words]
    return " and ".join((", ".join(quoted[:-1]), quoted[-1])) if len(quoted) > 1 else "".join(quoted)


def _changed(step: Collective) -> tuple[list[str], list[str]]:
    """Indices that lose axes in a step, and indices that gain some."""
    lost, gained = [], []
    for index, one, other in zip(step.tensor.indices, step.before.dims, step.after.dims, strict=True):
        if one != other and set(one) - set(other):
            lost.append(index)
        if one != other and set(other) - set(one):
            gained.append(index)
    return lost, gained


def operand_cause(step: Collective, question: Question, placement: Placement) -> str:
    """Why an operand moves before the einsum."""
    name, over = step.tensor.name, listed(step.axes)
    lost, gained = _changed(step)
    moved = set(question.digits.expand(step.axes))
    used = [index for index, dim in zip(question.names, placement, strict=True) if moved & set(dim)]
    instead = f"the einsum divides {listed(used)} over {over}" if used else f"the einsum does not divide over {over}"
    contracted = {question.names[k] for k in question.contracted}
    if step.kind == SLICE:
        return (
            f"operand {name} is the same on all of {over} and {instead}: each device keeps its part of {listed(gained)}"
        )
    if step.kind == MASK:
        return f"operand {name} is the same on all of {over}: one device keeps it, the others take zeros"
    if step.kind == ALL_GATHER:
        which = listed(lost)
        all_contracted = set(lost) <= contracted
        role = "contracted index" if all_contracted else "index"
        whole = [i for i, dim in zip(step.tensor.indices, step.after.dims, strict=True) if i in lost and not dim]
        runs = f"with {which} whole" if whole == lost else f"without dividing {which} over {over}"
        rule = "FSDP-style gather" if all_contracted and whole == lost else "the operand is gathered"
        return f"operand {name} has {role} {which} divided over {over} but the einsum runs {runs}: {rule}"
    if step.kind in (REDUCE_SCATTER, ALL_REDUCE):
        rest = f", and {instead}" if step.kind == REDUCE_SCATTER else ""
        owed = step.before.reduction
        return f"operand {name} owes a {owed} over {over}, which is settled before the einsum{rest}"
    if step.kind == ALL_TO_ALL:
        return f"operand {name} has {listed(lost)} divided over {over} but {instead}: the same axes change index"
    return f"operand {name} is divided over other axes, or in another order, than the einsum divides over ({over})"


def result_cause(
    step: Collective, question: Question, placement: Placement, owed: int, summed_first: Mapping[str, tuple[str, ...]]
) -> str:
    """Why the result moves after the einsum.

    Args:
        step: the move.
        question: what is planned.
        placement: where the einsum runs.
        owed: digits over which the result owes a sum.
        summed_first: index of one operand alone -> the mesh axes that divided it where it was summed.
    """
    name, over = step.tensor.name, listed(step.axes)
    lost, gained = _changed(step)
    moved = set(question.digits.expand(step.axes))
    if step.kind == SLICE:
        which = listed(gained)
        return f"{name} is the same on all of {over} and wanted with {which} divided over it: each keeps its part"
    if step.kind == MASK:
        return f"{name} may owe a sum over {over}: one device keeps the value, the others take zeros"
    if step.kind in (REDUCE_SCATTER, ALL_REDUCE):
        summed = [question.names[k] for k in question.contracted if moved & set(placement[k])]
        kept = moved & set(digits_in(owed)) - {digit for dim in placement for digit in dim}
        verb = "is" if len(summed) == 1 else "are"
        reason = f"{listed(summed)} {verb} contracted and divided over {over}" if summed else ""
        if kept:
            alone = [i for i, axes in summed_first.items() if moved & set(question.digits.expand(axes))]
            verb = "is" if len(alone) == 1 else "are"
            arrived = f"an operand arrives owing a {step.before.reduction} over {over}, kept through the einsum"
            if alone:
                arrived = f"{listed(alone)} {verb} summed and divided over {over}"
            reason = f"{reason}; {arrived}" if reason else arrived
        ending = (
            "and every device wants the whole"
            if step.kind == ALL_REDUCE
            else f"each device keeps its part of {listed(gained)}"
        )
        partial = "sums must be added" if step.before.reduction == "sum" else "results must be combined"
        return f"{reason}: the partial {partial}, {ending}"
    if step.kind == ALL_GATHER:
        return f"the einsum leaves {name} with {listed(lost)} divided over {over} and it is wanted whole there"
    if step.kind == ALL_TO_ALL:
        left, wanted = listed(lost), listed(gained)
        return f"the einsum leaves {name} with {left} divided over {over}, wanted with {wanted} divided over it"
    return f"the einsum leaves {name} divided over other axes, or in another order, than wanted ({over})"
