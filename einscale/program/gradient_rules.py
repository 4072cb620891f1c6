"""One rule for each forward op: the backward statements that make the gradients of its operands.

An einsum's gradient is one einsum for each operand: the output's gradient with the other operands, to the operand's
labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from einscale.errors import ProgramError
from einscale.program.routed import routing_of
from einscale.program.transposer import Transposer, differentiable, gradient_of
from einscale.program.values import Option, Statement, Value
from einscale.vocabulary import GRADIENT


def _einsum(writer: Transposer, statement: Statement, gradient: str) -> None:
    """One einsum for each operand; an index that only the operand has is broadcast."""
    *operands, output = statement.labels
    for position in differentiable(statement, writer.table):
        name, labels = statement.inputs[position], operands[position]
        if len(set(labels)) != len(labels):
            raise ProgramError(
                f"no gradient of `{statement.output}`: the einsum takes a diagonal of `{name}`",
                expected="operands whose indices differ",
            )
        others = [k for k in range(len(operands)) if k != position]
        known = {*output, *(label for k in others for label in operands[k])}
        inputs = (gradient, *(statement.inputs[k] for k in others))
        read = (output, *(operands[k] for k in others))
        kept = tuple(label for label in labels if label in known)
        if kept == labels:
            writer.emit("einsum", inputs, name, labels=(*read, labels))
            continue
        value = writer.table[name]
        axes = tuple(axis for axis, label in zip(value.axes, labels, strict=True) if label in known)
        like = Value("", axes, value.dtype, GRADIENT, name)
        part = writer.part("einsum", inputs, like, {}, (*read, kept))
        writer.write("einsum", inputs, (part,), labels=(*read, kept))
        writer.emit("broadcast", (part.name,), name, {"axes": value.axes})


def _add(writer: Transposer, statement: Statement, gradient: str) -> None:
    for name in statement.inputs:
        writer.reduce_to(gradient, name)


def _mul(writer: Transposer, statement: Statement, gradient: str) -> None:
    """Each operand's gradient is the output's times the other operand, summed over the axes it lacks."""
    source = writer.table[gradient]
    for position, name in enumerate(statement.inputs):
        if not writer.wants(name):
            continue
        other, target = statement.inputs[1 - position], writer.table[name]
        if (target.axes, target.dtype) == (source.axes, source.dtype):
            writer.emit("mul", (gradient, other), name)
        else:
            product = Value("", source.axes, source.dtype, GRADIENT, name)
            writer.reduce_to(writer.step("mul", (gradient, other), product), name)


def _same_options(op: str, *reads: int, output: bool = False) -> Callable[[Transposer, Statement, str], None]:
    """A rule that hands the gradient, inputs at `reads` or the output, and the options to one backward map."""

    def write(writer: Transposer, statement: Statement, gradient: str) -> None:
        inputs = (gradient, *(statement.inputs[k] for k in reads), *((statement.output,) if output else ()))
        writer.emit(op, inputs, statement.inputs[0], dict(statement.options))

    return write


def _cast(writer: Transposer, statement: Statement, gradient: str) -> None:
    name = statement.inputs[0]
    writer.emit("cast", (gradient,), name, {"dtype": writer.table[name].dtype})


def _sum(writer: Transposer, statement: Statement, gradient: str) -> None:
    name = statement.inputs[0]
    writer.emit("broadcast", (gradient,), name, {"axes": writer.table[name].axes})


def _broadcast(writer: Transposer, statement: Statement, gradient: str) -> None:
    writer.reduce_to(gradient, statement.inputs[0])


def _mask(writer: Transposer, statement: Statement, gradient: str) -> None:
    """Where only a softmax reads the mask's result, its gradient is zero at the masked places already."""
    readers = [other.op for other in writer.program.statements if statement.output in other.inputs]
    factor = statement.option("factor", 1.0)
    if statement.output in writer.program.outputs or any(op != "softmax" for op in readers):
        writer.emit("mask_backward", (gradient,), statement.inputs[0], dict(statement.options))
    elif factor == 1:
        writer.contribute(statement.inputs[0], gradient, statement)
    else:
        writer.emit("scale", (gradient,), statement.inputs[0], {"factor": factor})


def _softmax(writer: Transposer, statement: Statement, gradient: str) -> None:
    """A sink is one more score, which attends to nothing: the gradient of the others is the same as without it."""
    x, *sinks = statement.inputs
    options = dict(statement.options)
    writer.emit("softmax_backward", (gradient, statement.output), x, options)
    for sink in sinks:
        axes = writer.table[sink].axes
        writer.emit("sink_backward", (gradient, statement.output), sink, options | {"axes": axes})


def _conv(writer: Transposer, statement: Statement, gradient: str) -> None:
    x, weight = statement.inputs
    options = dict(statement.options)
    writer.emit("causal_conv_backward", (gradient, weight), x, options)
    axes = writer.table[weight].axes
    writer.emit("causal_conv_weight_backward", (gradient, x), weight, options | {"axes": axes})


def _exp(writer: Transposer, statement: Statement, gradient: str) -> None:
    writer.emit("mul", (gradient, statement.output), statement.inputs[0])


def _delta(writer: Transposer, statement: Statement, gradient: str) -> None:
    _several(writer, statement, "delta_rule_backward", (*statement.inputs, gradient))


def _dropout(writer: Transposer, statement: Statement, gradient: str) -> None:
    writer.emit("dropout_backward", (gradient, statement.outputs[1]), statement.inputs[0], dict(statement.options))


def _norm(writer: Transposer, statement: Statement, gradient: str) -> None:
    x, *scale_and_bias = statement.inputs
    options = dict(statement.options)
    writer.emit("norm_backward", (gradient, *statement.inputs[:2]), x, options)
    for weight in scale_and_bias[:1]:
        writer.emit("norm_scale_backward", (gradient, x), weight, options)
    for name in scale_and_bias[1:]:
        writer.reduce_to(gradient, name)


def _gated(op: str) -> Callable[[Transposer, Statement, str], None]:
    """For swiglu and geglu: one statement makes the gradients of gate and up."""

    def write(writer: Transposer, statement: Statement, gradient: str) -> None:
        _several(writer, statement, op, (gradient, *statement.inputs))

    return write


def _several(writer: Transposer, statement: Statement, op: str, inputs: tuple[str, ...]) -> None:
    """One statement that makes the gradients of all operands."""
    values = []
    for name in statement.inputs:
        target = writer.table[name]
        values.append(gradient_of(writer.contribution_name(name), target))
    writer.write(op, inputs, tuple(values), dict(statement.options))
    for name, value in zip(statement.inputs, values, strict=True):
        writer.contribute(name, value.name, statement)


def _lookup(writer: Transposer, statement: Statement, gradient: str) -> None:
    table, indices = statement.inputs
    writer.emit("lookup_backward", (gradient, indices), table, dict(statement.options))


def _cross_entropy(writer: Transposer, statement: Statement, gradient: str) -> None:
    logits, targets = statement.inputs
    inputs = (logits, targets, statement.outputs[1], *((gradient,) if gradient else ()))
    writer.emit("cross_entropy_backward", inputs, logits, dict(statement.options))


def _pick(writer: Transposer, statement: Statement, gradient: str) -> None:
    logits, targets = statement.inputs
    writer.emit("pick_backward", (logits, targets, *((gradient,) if gradient else ())), logits, dict(statement.options))


def _route(writer: Transposer, statement: Statement, gradient: str) -> None:
    logits = statement.inputs[0]
    writer.emit("route_backward", (gradient, logits, statement.output), logits, dict(statement.options))


def _dispatch(writer: Transposer, statement: Statement, gradient: str) -> None:
    """The gradients of the copies of a row are added up."""
    writer.emit("combine", (gradient,), statement.inputs[0], {"axis": statement.option("axis")})


def _arrange(writer: Transposer, statement: Statement, gradient: str) -> None:
    writer.contribute(statement.inputs[0], gradient, statement)


def _combine(writer: Transposer, statement: Statement, gradient: str) -> None:
    """Every element chosen gets a copy of the sum's gradient; which were chosen, the weights say."""
    x, axis = statement.inputs[0], str(statement.option("axis"))
    routing = routing_of(x, axis, writer.program)
    count, top = dict(writer.table[x].chosen)[axis], routing.top if routing else 0
    options: dict[str, Option] = {"axis": axis}
    if top and count != top:
        options["capacity"] = count / top
    writer.emit("dispatch", (gradient, routing.gates if routing else x), x, options)


_Rule: TypeAlias = Callable[[Transposer, Statement, str], None]

RULES: dict[str, _Rule] = {
    "einsum": _einsum,
    "add": _add,
    "mul": _mul,
    "scale": _same_options("scale"),
    "cast": _cast,
    "sum": _sum,
    "broadcast": _broadcast,
    "mask": _mask,
    "softcap": _same_options("softcap_backward", output=True),
    "clamp": _same_options("clamp_backward", output=True),
    "softmax": _softmax,
    "dropout": _dropout,
    "norm": _norm,
    "gelu": _same_options("gelu_backward", 0),
    "relu": _same_options("relu_backward", output=True),
    "silu": _same_options("silu_backward", 0),
    "sigmoid": _same_options("sigmoid_backward", output=True),
    "softplus": _same_options("softplus_backward", 0),
    "exp": _exp,
    "causal_conv": _conv,
    "delta_rule": _delta,
    "swiglu_clamped": _gated("swiglu_clamped_backward"),
    "swiglu": _gated("swiglu_backward"),
    "geglu": _gated("geglu_backward"),
    "rope": _same_options("rope_backward"),
    "lookup": _lookup,
    "cross_entropy": _cross_entropy,
    "log_softmax": _same_options("log_softmax_backward", output=True),
    "pick": _pick,
    "route": _route,
    "dispatch": _dispatch,
    "arrange": _arrange,
    "combine": _combine,
}
"""Forward op -> what writes its backward statements."""
