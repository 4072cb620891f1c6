"""How a software stack runs the loss: in one kernel on fp32 logits, compiled on 16-bit ones, or op by op."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec.structs import replace

from einscale.errors import UsageError, did_you_mean
from einscale.program.shapes import check_program
from einscale.program.values import Program, Statement, Value


class LossForm(StrEnum):
    """How the loss is run; `LOSSES` says what each writes."""

    FUSED = "fused"
    COMPILED = "compiled"
    EAGER = "eager"


FUSED = LossForm.FUSED
COMPILED = LossForm.COMPILED
EAGER = LossForm.EAGER

LOSSES: Mapping[LossForm, str] = {
    FUSED: "fp32 logits are written; one kernel makes the loss of them, and one their gradient (Megatron's fused"
    " cross-entropy)",
    COMPILED: "16-bit logits are read as they are and fp32 ones never written; kept are they and one number a token"
    " (torch.compile of the loss)",
    EAGER: "fp32 logits are written, their log-softmax is another tensor and is kept; its gradient is a tensor, too"
    " (PyTorch's cross_entropy(logits.float()))",
}
"""Forms of the loss, and what each writes."""


def find_loss(name: str) -> LossForm:
    """The name of a form of the loss, if it is one.

    >>> print(find_loss("eager"))
    eager

    Raises:
        UsageError: it is none.
    """
    if name not in LOSSES:
        raise UsageError(f"no form of the loss is called `{name}`", hint=did_you_mean(name, LOSSES, "the forms are"))
    return LossForm(name)


def with_loss(program: Program, form: str = FUSED) -> Program:
    """A forward program with its cross-entropies as a software stack runs them.

    `compiled` drops the cast to fp32 that only the cross-entropy reads; `eager` writes a log-softmax and picks the
    targets' elements of it.

    >>> from einscale.models import load_model
    >>> head = load_model("llama3-8b").layer("head").program
    >>> for form in LOSSES:
    ...     print(form, *(s.op for s in with_loss(head, form).statements[2:]))
    fused cast cross_entropy
    compiled cross_entropy
    eager cast log_softmax pick

    Args:
        program: without a backward pass.
        form: `fused`, `compiled` or `eager`.

    Raises:
        UsageError: no such form.
    """
    losses = [statement for statement in program.statements if statement.op == "cross_entropy"]
    if find_loss(form) == FUSED or not losses:
        return program
    statements, values = list(program.statements), list(program.values)
    for loss in losses:
        (_compile if form == COMPILED else _unfuse)(program, loss, statements, values)
    made = {value.name: value for value in values}
    order = [name for statement in statements for name in statement.outputs]
    fed = [value for value in values if value.name not in set(order)]
    return check_program(replace(program, values=(*fed, *(made[n] for n in order)), statements=tuple(statements)))


def _compile(program: Program, loss: Statement, statements: list[Statement], values: list[Value]) -> None:
    """Read the logits as they were before the cast, if nothing else reads what it makes."""
    wide = loss.inputs[0]
    cast = next((s for s in statements if s.op == "cast" and wide in s.outputs), None)
    read = sum(wide in statement.inputs for statement in statements) + (wide in program.outputs)
    if cast is None or read > 1:
        return
    statements[statements.index(loss)] = replace(loss, inputs=(cast.inputs[0], *loss.inputs[1:]))
    statements.remove(cast)
    values[:] = [value for value in values if value.name != wide]


def _unfuse(program: Program, loss: Statement, statements: list[Statement], values: list[Value]) -> None:
    """A log-softmax, and the targets' elements of it, in the place of a cross-entropy."""
    logits = program.table[loss.inputs[0]]
    taken, name, number = {value.name for value in values}, f"{loss.output}_log_softmax", 2
    while name in taken:
        name, number = f"{loss.output}_log_softmax_{number}", number + 1
    options = (("axis", loss.option("axis")),)
    place = statements.index(loss)
    statements[place : place + 1] = [
        replace(loss, op="log_softmax", inputs=loss.inputs[:1], outputs=(name,), options=options),
        replace(loss, op="pick", inputs=(name, *loss.inputs[1:]), outputs=loss.outputs[:1], options=options),
    ]
    values[:] = [value for value in values if value.name not in loss.outputs[1:]]
    values.append(replace(logits, name=name, kind="activation"))
