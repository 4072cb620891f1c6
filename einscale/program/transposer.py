"""What the rules of gradients write with: backward statements, and the contributions to each value's gradient."""

from __future__ import annotations

from collections.abc import Mapping

from einscale.errors import ProgramError
from einscale.program.maps import rule
from einscale.program.routed import infer_chosen, part_chosen
from einscale.program.shapes import is_float
from einscale.program.values import Option, Program, Statement, Value
from einscale.vocabulary import BACKWARD, GRADIENT, RESIDUAL

LOSS_MAPS = ("cross_entropy", "pick")
"""Maps that make a loss: where one makes an output of a program, its gradient starts from one."""


class Transposer:
    """Writes backward statements; collects the contributions to each value's gradient and sums them when complete."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.table = dict(program.table)
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
        gradient = gradient_of(self.fresh(f"d_{name}"), value)
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
                BACKWARD,
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
        value = gradient_of(self.contribution_name(of), target)
        self.write(op, inputs, (value,), options, labels)
        self.contribute(of, value.name, self.statement)

    def step(self, op: str, inputs: tuple[str, ...], like: Value, options: Mapping[str, Option] | None = None) -> str:
        """A backward statement whose result is not yet a contribution: axes and element type of `like`."""
        value = self.part(op, inputs, like, options or {})
        self.write(op, inputs, (value,), options)
        return value.name

    def part(
        self,
        op: str,
        inputs: tuple[str, ...],
        like: Value,
        options: Mapping[str, Option],
        labels: tuple[tuple[str, ...], ...] = (),
    ) -> Value:
        """A part of a gradient, axes and element type those of `like`, and what exists of it."""
        of = like.of or ""
        outputs = [labels[-1] if labels else like.axes]
        inferred = infer_chosen(op, [self.table[name] for name in inputs], labels, options, outputs)[0]
        chosen = part_chosen(inferred, self.table[of].chosen, like.axes)
        return Value(self.fresh(f"d_{of}_part"), like.axes, like.dtype, GRADIENT, of, chosen)

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
        if gone and same_dtype:
            self.emit("sum", (gradient,), of, {"axes": gone})
            return
        if gone:
            gradient = self.step("sum", (gradient,), Value("", kept, source.dtype, GRADIENT, of), {"axes": gone})
        if not same_order and not same_dtype:
            like = Value("", kept, target.dtype, GRADIENT, of)
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
        groups: dict[str, list[tuple[str, Statement | None]]] = {}
        for part, made in received:
            groups.setdefault(made.group if made is not None else "", []).append((part, made))
        name = f"d_{of}" if f"d_{of}" not in self.names else f"d_{of}_sum"
        if len(groups) == 1:
            self.gradient[of] = self.total(of, name, received, next(iter(groups)))
            return
        summed = [
            (self.total(of, f"d_{of}_part", some), some[-1][1]) if len(some) > 1 else some[0]
            for some in groups.values()
        ]
        self.gradient[of] = self.total(of, name, summed)

    def total(self, of: str, name: str, parts: list[tuple[str, Statement | None]], group: str = "") -> str:
        """An `add` of contributions to a gradient.

        Those of one statement group are added first: its work is divided alike, so a sum they owe is reduced once.
        """
        last = next((made for _, made in reversed(parts) if made is not None), self.statement)
        value = gradient_of(self.fresh(name), self.table[of])
        before = self.statement
        self.statement = Statement("add", (), (last.output,), section=last.section, group=group)
        self.write("add", tuple(part for part, _ in parts), (value,))
        self.statement = before
        return value.name


def gradient_of(name: str, of: Value) -> Value:
    """The gradient of a value: its axes and element type, and what exists of it."""
    return Value(name, of.axes, of.dtype, GRADIENT, of.name, of.chosen)


def unit_losses(program: Program) -> set[str]:
    """Outputs that are the loss itself: made by a cross-entropy, used by nothing else; their gradient is one."""
    used = {name for statement in program.statements for name in statement.inputs}
    made = {statement.output for statement in program.statements if statement.op in LOSS_MAPS}
    return {name for name in program.outputs if name in made and name not in used}


def differentiable(statement: Statement, table: Mapping[str, Value]) -> list[int]:
    """Positions of the operands that get a gradient."""
    this = None if statement.op == "einsum" else rule(statement)
    integer = () if this is None else (*this.integer_inputs, *this.constant_inputs)
    return [
        position
        for position, name in enumerate(statement.inputs)
        if position not in integer and is_float(table[name].dtype)
    ]


def _contributions(program: Program) -> dict[str, int]:
    """How many contributions the gradient of each value will have; values without a gradient are left out."""
    table = program.table
    losses = unit_losses(program)
    expected = {name: 1 for name in program.outputs if is_float(table[name].dtype) and name not in losses}
    for statement in reversed(program.statements):
        if statement.output not in expected and statement.output not in losses:
            continue
        for position in differentiable(statement, table):
            name = statement.inputs[position]
            if table[name].kind == RESIDUAL:
                raise ProgramError(f"`{name}` is a residual: no gradient passes through it into `{statement.output}`")
            expected[name] = expected.get(name, 0) + 1
    return expected
