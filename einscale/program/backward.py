"""The backward pass of a program, derived statement by statement.

An einsum's gradient is one einsum for each operand: the output's gradient with the other operands, to the operand's
labels. Each map has a rule below. Contributions to one value are summed by one `add`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from msgspec import Struct

from einscale.errors import ProgramError
from einscale.program.maps import rule
from einscale.program.recompute import redo
from einscale.program.shapes import check_program, is_float
from einscale.program.values import Option, Program, Statement, Value

WHOLE = "full"
"""Name, in `recompute`, of the whole program taken as one group: full recomputation."""


class Gradients(Struct, frozen=True):
    """A program with its backward pass, and which value holds which gradient.

    Args:
        program: forward, recompute and backward statements.
        gradients: (input or parameter, the value that is its gradient), in the order of the program's outputs. Two may
            share one value: the gradient of a sum is passed on as it is.
    """

    program: Program
    gradients: tuple[tuple[str, str], ...]


class _Transposer:
    """Writes backward statements; collects the contributions to each value's gradient and sums them when complete."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.table = program.table
        self.names = set(self.table)
        self.values: list[Value] = []
        self.fed: list[Value] = []
        self.statements: list[Statement] = []
        self.expected = _contributions(program)
        self.received: dict[str, list[tuple[str, Statement | None]]] = {}
        self.gradient: dict[str, str] = {}
        self.statement = program.statements[0]

    def fresh(self, name: str) -> str:
        """`name`, or with a number behind it if it is taken."""
        number, unique = 2, name
        while unique in self.names:
            unique, number = f"{name}_{number}", number + 1
        self.names.add(unique)
        return unique

    def wants(self, name: str) -> bool:
        """Whether a value has a gradient."""
        return self.expected.get(name, 0) > 0

    def feed(self, name: str) -> None:
        """Take the gradient of an output from outside."""
        value = self.table[name]
        gradient = Value(self.fresh(f"d_{name}"), value.axes, value.dtype, "gradient", name)
        self.fed.append(gradient)
        self.table[gradient.name] = gradient
        self.contribute(name, gradient.name, None)

    def contribution_name(self, of: str) -> str:
        """Name for the next contribution to a gradient that is a value of its own."""
        if self.expected[of] == 1:
            return self.fresh(f"d_{of}")
        return self.fresh(f"d_{of}_{len(self.received.get(of, [])) + 1}")

    def write(
        self,
        op: str,
        inputs: tuple[str, ...],
        outputs: tuple[Value, ...],
        options: Mapping[str, Option] | None = None,
        labels: tuple[tuple[str, ...], ...] = (),
    ) -> None:
        """Add a backward statement of the forward statement at hand."""
        here = self.statement
        self.table |= {value.name: value for value in outputs}
        self.values += outputs
        self.statements.append(
            Statement(
                op,
                inputs,
                tuple(value.name for value in outputs),
                labels,
                tuple(sorted((options or {}).items())),
                here.section,
                here.group,
                "backward",
                here.output,
            )
        )

    def emit(
        self,
        op: str,
        inputs: tuple[str, ...],
        of: str,
        options: Mapping[str, Option] | None = None,
        labels: tuple[tuple[str, ...], ...] = (),
    ) -> None:
        """A backward statement whose result is a contribution to the gradient of `of`."""
        target = self.table[of]
        value = Value(self.contribution_name(of), target.axes, target.dtype, "gradient", of)
        self.write(op, inputs, (value,), options, labels)
        self.contribute(of, value.name, self.statement)

    def step(self, op: str, inputs: tuple[str, ...], like: Value, options: Mapping[str, Option] | None = None) -> str:
        """A backward statement whose result is not yet a contribution: axes and element type of `like`."""
        value = Value(self.fresh(f"d_{like.of}_part"), like.axes, like.dtype, "gradient", like.of)
        self.write(op, inputs, (value,), options)
        return value.name

    def reduce_to(self, gradient: str, of: str) -> None:
        """Contribute a gradient whose axes include those of `of`: summed, transposed or cast where they differ."""
        source, target = self.table[gradient], self.table[of]
        if not self.wants(of):
            return
        if source.axes == target.axes and source.dtype == target.dtype:
            self.contribute(of, gradient, self.statement)
            return
        gone = tuple(axis for axis in source.axes if axis not in target.axes)
        kept = tuple(axis for axis in source.axes if axis in target.axes)
        same_order, same_dtype = kept == target.axes, source.dtype == target.dtype
        if gone and same_order and same_dtype:
            self.emit("sum", (gradient,), of, {"axes": gone})
            return
        if gone:
            gradient = self.step("sum", (gradient,), Value("", kept, source.dtype, "gradient", of), {"axes": gone})
        if not same_order and not same_dtype:
            like = Value("", kept, target.dtype, "gradient", of)
            gradient = self.step("cast", (gradient,), like, {"dtype": target.dtype})
        if not same_order:
            self.emit("einsum", (gradient,), of, labels=(kept, target.axes))
        else:
            self.emit("cast", (gradient,), of, {"dtype": target.dtype})

    def contribute(self, of: str, gradient: str, statement: Statement | None) -> None:
        """Note a contribution; with the last one, the gradient is settled, by an `add` if there are several."""
        received = self.received.setdefault(of, [])
        received.append((gradient, statement))
        if len(received) < self.expected[of]:
            return
        if len(received) == 1:
            self.gradient[of] = gradient
            return
        groups = {made.group if made is not None else "" for _, made in received}
        last = next(made for _, made in reversed(received) if made is not None)
        value = self.table[of]
        name = f"d_{of}" if f"d_{of}" not in self.names else f"d_{of}_sum"
        total = Value(self.fresh(name), value.axes, value.dtype, "gradient", of)
        before = self.statement
        self.statement = Statement(
            "add", (), (last.output,), section=last.section, group=last.group if len(groups) == 1 else ""
        )
        self.write("add", tuple(name for name, _ in received), (total,))
        self.statement = before
        self.gradient[of] = total.name


def _unit_losses(program: Program) -> set[str]:
    """Outputs that are the loss itself: made by a cross-entropy, used by nothing else; their gradient is one."""
    used = {name for statement in program.statements for name in statement.inputs}
    made = {statement.output for statement in program.statements if statement.op == "cross_entropy"}
    return {name for name in program.outputs if name in made and name not in used}


def _differentiable(statement: Statement, table: Mapping[str, Value]) -> list[int]:
    """Positions of the operands that get a gradient."""
    integer = () if statement.op == "einsum" else rule(statement).integer_inputs
    return [
        position
        for position, name in enumerate(statement.inputs)
        if position not in integer and is_float(table[name].dtype)
    ]


def _contributions(program: Program) -> dict[str, int]:
    """How many contributions the gradient of each value will have; values without a gradient are left out."""
    table = program.table
    losses = _unit_losses(program)
    expected = {name: 1 for name in program.outputs if is_float(table[name].dtype) and name not in losses}
    for statement in reversed(program.statements):
        if statement.output not in expected and statement.output not in losses:
            continue
        for position in _differentiable(statement, table):
            name = statement.inputs[position]
            if table[name].kind == "residual":
                raise ProgramError(f"`{name}` is a residual: no gradient passes through it into `{statement.output}`")
            expected[name] = expected.get(name, 0) + 1
    return expected


def _einsum(writer: _Transposer, statement: Statement, gradient: str) -> None:
    """One einsum for each operand; an index that only the operand has is broadcast."""
    *operands, output = statement.labels
    for position in _differentiable(statement, writer.table):
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
        part = Value(writer.fresh(f"d_{name}_part"), axes, value.dtype, "gradient", name)
        writer.write("einsum", inputs, (part,), labels=(*read, kept))
        writer.emit("broadcast", (part.name,), name, {"axes": value.axes})


def _add(writer: _Transposer, statement: Statement, gradient: str) -> None:
    for name in statement.inputs:
        writer.reduce_to(gradient, name)


def _mul(writer: _Transposer, statement: Statement, gradient: str) -> None:
    """Each operand's gradient is the output's times the other operand, summed over the axes it lacks."""
    source = writer.table[gradient]
    for position, name in enumerate(statement.inputs):
        if not writer.wants(name):
            continue
        other, target = statement.inputs[1 - position], writer.table[name]
        if (target.axes, target.dtype) == (source.axes, source.dtype):
            writer.emit("mul", (gradient, other), name)
        else:
            product = Value("", source.axes, source.dtype, "gradient", name)
            writer.reduce_to(writer.step("mul", (gradient, other), product), name)


def _same_options(op: str, *reads: int, output: bool = False) -> Callable[[_Transposer, Statement, str], None]:
    """A rule that hands the gradient, inputs at `reads` or the output, and the options to one backward map."""

    def write(writer: _Transposer, statement: Statement, gradient: str) -> None:
        inputs = (gradient, *(statement.inputs[k] for k in reads), *((statement.output,) if output else ()))
        writer.emit(op, inputs, statement.inputs[0], dict(statement.options))

    return write


def _cast(writer: _Transposer, statement: Statement, gradient: str) -> None:
    name = statement.inputs[0]
    writer.emit("cast", (gradient,), name, {"dtype": writer.table[name].dtype})


def _sum(writer: _Transposer, statement: Statement, gradient: str) -> None:
    name = statement.inputs[0]
    writer.emit("broadcast", (gradient,), name, {"axes": writer.table[name].axes})


def _broadcast(writer: _Transposer, statement: Statement, gradient: str) -> None:
    writer.reduce_to(gradient, statement.inputs[0])


def _mask(writer: _Transposer, statement: Statement, gradient: str) -> None:
    """Where only a softmax reads the mask's result, its gradient is zero at the masked places already."""
    readers = [other.op for other in writer.program.statements if statement.output in other.inputs]
    factor = statement.option("factor", 1.0)
    if statement.output in writer.program.outputs or any(op != "softmax" for op in readers):
        writer.emit("mask_backward", (gradient,), statement.inputs[0], dict(statement.options))
    elif factor == 1:
        writer.contribute(statement.inputs[0], gradient, statement)
    else:
        writer.emit("scale", (gradient,), statement.inputs[0], {"factor": factor})


def _dropout(writer: _Transposer, statement: Statement, gradient: str) -> None:
    writer.emit("dropout_backward", (gradient, statement.outputs[1]), statement.inputs[0], dict(statement.options))


def _norm(writer: _Transposer, statement: Statement, gradient: str) -> None:
    x, *scale_and_bias = statement.inputs
    options = dict(statement.options)
    writer.emit("norm_backward", (gradient, *statement.inputs[:2]), x, options)
    for weight in scale_and_bias[:1]:
        writer.emit("norm_scale_backward", (gradient, x), weight, options)
    for name in scale_and_bias[1:]:
        writer.reduce_to(gradient, name)


def _gated(op: str) -> Callable[[_Transposer, Statement, str], None]:
    """For swiglu and geglu: one statement makes the gradients of gate and up."""

    def write(writer: _Transposer, statement: Statement, gradient: str) -> None:
        values = []
        for name in statement.inputs:
            target = writer.table[name]
            values.append(Value(writer.contribution_name(name), target.axes, target.dtype, "gradient", name))
        writer.write(op, (gradient, *statement.inputs), tuple(values), dict(statement.options))
        for name, value in zip(statement.inputs, values, strict=True):
            writer.contribute(name, value.name, statement)

    return write


def _lookup(writer: _Transposer, statement: Statement, gradient: str) -> None:
    table, indices = statement.inputs
    writer.emit("lookup_backward", (gradient, indices), table, dict(statement.options))


def _cross_entropy(writer: _Transposer, statement: Statement, gradient: str) -> None:
    logits, targets = statement.inputs
    inputs = (logits, targets, statement.outputs[1], *((gradient,) if gradient else ()))
    writer.emit("cross_entropy_backward", inputs, logits, dict(statement.options))


_Rule: TypeAlias = Callable[[_Transposer, Statement, str], None]

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
    "softmax": _same_options("softmax_backward", output=True),
    "dropout": _dropout,
    "norm": _norm,
    "gelu": _same_options("gelu_backward", 0),
    "relu": _same_options("relu_backward", output=True),
    "silu": _same_options("silu_backward", 0),
    "swiglu": _gated("swiglu_backward"),
    "geglu": _gated("geglu_backward"),
    "rope": _same_options("rope_backward"),
    "lookup": _lookup,
    "cross_entropy": _cross_entropy,
}
"""Forward op -> what writes its backward statements."""


def differentiate(
    program: Program, recompute: frozenset[str] = frozenset(), fused: frozenset[str] = frozenset()
) -> Gradients:
    """Forward, recompute and backward statements in one program, and the names of the gradients.

    Args:
        program: a forward program. Its outputs' gradients become inputs `d_OUT`; an output that a cross-entropy makes
            is the loss itself and starts from one.
        recompute: groups that are run again as a whole before the backward pass reads them; `full` is the whole
            program.
        fused: groups whose interior is never written: as much of it as the backward pass reads is redone (flash
            attention redoes the scores and the softmax, not their product with the values).

    Raises:
        ProgramError: the program has a backward pass already, or a statement has no gradient.
    """
    for statement in program.statements:
        if statement.phase != "forward":
            raise ProgramError(
                f"`{statement.output}` belongs to phase {statement.phase}: only a forward program has a gradient"
            )
        if statement.op not in RULES:
            raise ProgramError(f"`{statement.op}` has no gradient")
    writer = _Transposer(program)
    losses = _unit_losses(program)
    for name in dict.fromkeys(program.outputs):
        if name in writer.expected and name not in losses:
            writer.feed(name)
    for statement in reversed(program.statements):
        if statement.output in writer.gradient or statement.output in losses:
            writer.statement = statement
            RULES[statement.op](writer, statement, writer.gradient.get(statement.output, ""))
    sources = [*program.inputs, *(value.name for value in program.parameters)]
    gradients = tuple((name, writer.gradient[name]) for name in sources if name in writer.gradient)
    if not gradients:
        raise ProgramError(
            f"program `{program.name}` has no floating-point input or parameter that its outputs depend on"
        )
    statements = program.statements + tuple(writer.statements)
    values = {value.name: value for value in (*program.values, *writer.fed, *writer.values)}
    if WHOLE in recompute:
        statements = redo(statements, values, None, whole=True)
    for name in _groups(program):
        if name in recompute and name not in fused and WHOLE not in recompute:
            statements = redo(statements, values, name, whole=True)
        if name in fused:
            statements = redo(statements, values, name, whole=False)
    made = {name for statement in statements for name in statement.outputs}
    fed = [value for name, value in values.items() if name not in made]
    in_order = [values[name] for statement in statements for name in statement.outputs]
    result = Program(
        program.name,
        (*fed, *in_order),
        statements,
        (*program.inputs, *(value.name for value in writer.fed)),
        tuple(gradient for _, gradient in gradients),
        program.sizes,
        program.composites,
        program.tied,
        program.repeat,
    )
    return Gradients(check_program(result), gradients)


def backward(program: Program, recompute: frozenset[str] = frozenset(), fused: frozenset[str] = frozenset()) -> Program:
    """The program with its backward pass; its outputs are the gradients of the inputs, then of the parameters.

    >>> from einscale.program.text import parse_program, print_program
    >>> matmul = parse_program('''
    ... program matmul
    ... input x: bf16[b d]
    ... param w: bf16[d f]
    ... y = einsum("b d, d f -> b f", x, w)
    ... return y
    ... ''')
    >>> print("".join(print_program(backward(matmul)).partition("phase")[1:]), end="")
    phase backward:
      d_x of x = einsum("b f, d f -> b d", d_y, w) from y
      d_w of w = einsum("b f, b d -> d f", d_y, x) from y
    return d_x, d_w

    Args:
        program: a forward program.
        recompute: see `differentiate`.
        fused: see `differentiate`.

    Raises:
        ProgramError: the program has a backward pass already, or a statement has no gradient.
    """
    return differentiate(program, recompute, fused).program


def _groups(program: Program) -> tuple[str, ...]:
    return tuple(dict.fromkeys(statement.group for statement in program.statements if statement.group))
