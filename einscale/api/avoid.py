"""How to avoid what moves: for each tensor that moves, the question changed so that it need not, and its answer."""

from __future__ import annotations

from msgspec.structs import replace

from einscale.api.plan import PlanResult, answer
from einscale.collectives import FREE, Collective
from einscale.errors import PlanError
from einscale.layout import Layout, Tensor
from einscale.notation import Spec, TensorSpec
from einscale.price.alternatives import Avoidance
from einscale.request.einsum import AskedEinsum
from einscale.steps import LocalEinsum


def avoidances(result: PlanResult) -> tuple[Avoidance, ...]:
    """For each tensor that moves one change: an operand given as the work reads it, a result left as it is made."""
    moved = dict.fromkeys(
        step.tensor.name for step in result.plan.steps if isinstance(step, Collective) and step.kind not in FREE
    )
    changes = [_operand_change(result, name) for name in moved]
    changes += [_result_change(result)] if result.plan.output.name in moved else []
    return tuple(change for change in changes if change is not None)


def _answered(result: PlanResult, changed: AskedEinsum) -> PlanResult | None:
    """The answer to a changed question; None where it has none, such as a dim divided further than it is long."""
    try:
        return answer(changed, result.priced.network, result.objective, result.max_flops)
    except PlanError:
        return None


def _operand_change(result: PlanResult, name: str) -> Avoidance | None:
    """The question with one operand laid out as the work reads it."""
    names = [tensor.name for tensor in result.plan.inputs]
    if name not in names:
        return None
    position = names.index(name)
    read = _last_layout(result, result.plan.inputs[position])
    spec = result.asked.spec
    operands = tuple(
        _with_layout(operand, read) if number == position else operand for number, operand in enumerate(spec.operands)
    )
    layouts = tuple(read if number == position else layout for number, layout in enumerate(result.asked.layouts))
    changed = replace(result.asked, spec=replace(spec, operands=operands), layouts=layouts)
    other = _answered(result, changed)
    if other is None:
        return None
    tensor = result.plan.inputs[position]
    text = read.text(tensor.indices) or "a scalar"
    return Avoidance(name, f"give {name} as `{text}`", other.spec, other.priced)


def _last_layout(result: PlanResult, tensor: Tensor) -> Layout:
    """The layout in which an operand is at last read."""
    layout = result.plan.input_layouts[result.plan.inputs.index(tensor)]
    for step in result.plan.steps:
        if isinstance(step, Collective) and step.tensor == tensor and step.before == layout:
            layout = step.after
    return layout


def _result_change(result: PlanResult) -> Avoidance | None:
    """The question with the result wanted as the work makes it, its sums left owed."""
    plan = result.plan
    makers = [step for step in plan.steps if isinstance(step, LocalEinsum) and step.output == plan.output]
    if not makers:
        return None
    made = makers[-1].output_layout
    question = replace(
        result.asked.question, output_dims=made.dims, output_unreduced=made.unreduced, output_unreduced_open=False
    )
    spec = result.asked.spec.with_output(made.dims, made.unreduced, made.reduction)
    changed = replace(result.asked, spec=spec, question=question)
    other = _answered(result, changed)
    if other is None:
        return None
    text = made.text(plan.output.indices) or "a scalar"
    return Avoidance(plan.output.name, f"want {plan.output.name} as `{text}`", other.spec, other.priced)


def _with_layout(operand: TensorSpec, layout: Layout) -> TensorSpec:
    """An operand as written, laid out otherwise."""
    spec = Spec((operand,), operand).with_output(layout.dims, layout.unreduced, layout.reduction)
    return spec.output or operand
