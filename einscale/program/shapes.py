"""Axes and element types of what a statement makes, the checks of a program, and the sizes of its axes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from einscale.dtypes import BITS
from einscale.errors import ProgramError, SizeError, did_you_mean
from einscale.program.map_rule import MapRule
from einscale.program.map_shapes import Shape, is_float, map_shapes, widest
from einscale.program.maps import find_rule
from einscale.program.options import check_name, check_options, words
from einscale.program.routed import check_route
from einscale.program.values import Option, Program, Statement, Value
from einscale.units import check_size
from einscale.vocabulary import ACTIVATION, CACHE, GRADIENT, INPUT, PARAMETER, RESIDUAL, Phase, ValueKind

__all__ = [
    "CACHING",
    "PHASES",
    "AxisSizes",
    "Shape",
    "axis_names",
    "check_program",
    "check_statement",
    "infer",
    "infer_einsum",
    "infer_map",
    "is_float",
    "known_sizes",
    "made_kind",
    "missing_size",
    "program_sizes",
]

PHASES = tuple(Phase)

CACHING = ("append", "carry")
"""Maps that make, of what is kept for later tokens and of new tokens, what is kept from then on."""


def infer_einsum(labels: tuple[tuple[str, ...], ...], inputs: Sequence[Value]) -> Shape:
    """Axes and element type of an einsum's output; checks its labels against the operands.

    Raises:
        ProgramError: the number of operands or of axes is wrong, or an output label occurs in no operand or twice.
    """
    if len(labels) - 1 != len(inputs):
        raise ProgramError(f"the einsum has {len(labels) - 1} operands in its spec and {len(inputs)} values")
    if not inputs:
        raise ProgramError("an einsum needs an operand")
    for position, (operand, value) in enumerate(zip(labels[:-1], inputs, strict=True), 1):
        if len(operand) != len(value.axes):
            raise ProgramError(
                f"operand {position}, `{value.name}`, has {len(value.axes)} axes {words(value.axes)} but the spec reads"
                f" {len(operand)}: {words(operand)}"
            )
    output = labels[-1]
    known = [label for operand in labels[:-1] for label in operand]
    for label in output:
        if label not in known:
            raise ProgramError(
                f"output index `{label}` occurs in no operand",
                hint=did_you_mean(label, dict.fromkeys(known), "the operands have"),
            )
    if len(set(output)) != len(output):
        raise ProgramError("an index occurs twice in the output")
    return output, widest(inputs)


def _check_operands(rule: MapRule, op: str, inputs: Sequence[Value], options: Mapping[str, Option]) -> None:
    low, high = rule.operands
    if not low <= len(inputs) <= high:
        count = str(low) if low == high else f"{low} to {high}"
        raise ProgramError(f"{op} takes {count} operand{'s' if high > 1 else ''}, not {len(inputs)}")
    for name in rule.needs:
        if name not in options:
            raise ProgramError(f"{op} needs the option `{name}`")
    known = (*rule.needs, *rule.takes)
    for name in options:
        if name not in known:
            raise ProgramError(
                f"{op} has no option `{name}`", hint=did_you_mean(name, known, f"the options of {op} are")
            )
    for position, value in enumerate(inputs):
        if value.kind == CACHE:
            continue
        wants_integer = position in rule.integer_inputs
        if wants_integer != (not is_float(value.dtype)) and (wants_integer or value.dtype != "bool"):
            kind = "integer indices" if position in rule.integer_inputs else "floating-point numbers"
            raise ProgramError(f"{op} takes {kind} as operand {position + 1}, not {value}")


def infer_map(op: str, inputs: Sequence[Value], options: Mapping[str, Option]) -> tuple[Shape, ...]:
    """Axes and element type of each output of a map; checks operands and options against the table.

    >>> infer_map("softmax", [Value("x", ("b", "t"), "bf16")], {"axis": "t"})
    ((('b', 't'), 'bf16'),)

    Raises:
        ProgramError: unknown map, wrong operands, or options that are missing, unknown or of the wrong type.
    """
    rule = find_rule(op, options.get("variant", ""))
    _check_operands(rule, op, inputs, options)
    check_options(op, inputs, options)
    return map_shapes(rule.shape, rule.extra_outputs, op, inputs, options)


def infer(
    op: str, inputs: Sequence[Value], labels: tuple[tuple[str, ...], ...], options: Mapping[str, Option]
) -> tuple[Shape, ...]:
    """Axes and element type of each output of an einsum or map.

    Raises:
        ProgramError: the statement is not well formed.
    """
    return (infer_einsum(labels, inputs),) if op == "einsum" else infer_map(op, inputs, options)


class AxisSizes:
    """Axis names that must have one size, joined as statements relate them, and the sizes known of them."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.parent: dict[str, str] = {}
        self.given = dict(sizes)
        self.size = dict(sizes)

    def root(self, name: str) -> str:
        """The axis that stands for all that have the size of `name`."""
        while name in self.parent:
            name = self.parent[name]
        return name

    def join(self, first: str, second: str) -> None:
        """Give two axes one size.

        Raises:
            ProgramError: both are known and differ.
        """
        one, other = self.root(first), self.root(second)
        if one == other:
            return
        if one in self.size and other in self.size and self.size[one] != self.size[other]:
            raise ProgramError(
                f"index `{first}` reads axis `{second}`, but `{first}` is {self.size[one]} and `{second}` is"
                f" {self.size[other]}"
            )
        self.parent[other] = one
        if other in self.size:
            self.size.setdefault(one, self.size[other])

    def join_einsum(self, labels: Sequence[Sequence[str]], axes: Sequence[Sequence[str]]) -> None:
        """Give each label the size of the axis it reads."""
        for operand, names in zip(labels, axes, strict=True):
            for label, name in zip(operand, names, strict=True):
                self.join(label, name)

    def get(self, name: str) -> int | None:
        """Size of an axis if it is known."""
        return self.size.get(self.root(name))


def axis_names(program: Program) -> tuple[str, ...]:
    """Every axis name and einsum label of a program, each once."""
    names = [axis for value in program.values for axis in value.axes]
    names += [label for statement in program.statements for operand in statement.labels for label in operand]
    return tuple(dict.fromkeys(names))


def program_sizes(
    program: Program, given: Mapping[str, int] | None = None, defaults: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Size of every axis: the program's own, those given by the caller, and what follows from both.

    A key axis `t` that reads the sequence `s` has its size. A name has one size in the whole program.

    Args:
        program: whose axes are asked for.
        given: axis -> size, for axes that the program has.
        defaults: axis -> size, for axes whose size nothing else says; the program need not have them.

    Raises:
        SizeError: a size is missing, contradicts another, names no axis, or is not positive.
    """
    known = known_sizes(program, given, defaults)
    missing = next((name for name in axis_names(program) if name not in known), None)
    if missing is not None:
        raise missing_size(program, missing)
    for statement in program.statements:
        try:
            check_route(statement, known.get(str(statement.option("axis"))))
        except ProgramError as error:
            raise SizeError(f"program `{program.name}`: {error.message}", expected=error.expected) from None
    return known


def missing_size(program: Program, axis: str) -> SizeError:
    """The error for an axis whose size nothing says."""
    return SizeError(
        f"the size of axis `{axis}` of program `{program.name}` is not given",
        expected=f"a line `size {axis} = 64` in the program, or --size {axis}=64",
    )


def known_sizes(
    program: Program, given: Mapping[str, int] | None = None, defaults: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Size of every axis whose size is known; arguments as for `program_sizes`.

    Raises:
        SizeError: a size contradicts another, names no axis, or is not positive.
    """
    table = program.table
    known = dict(program.sizes)
    names = axis_names(program)
    for name, size in (given or {}).items():
        if name not in names:
            raise SizeError(
                f"program `{program.name}` has no axis `{name}`", hint=did_you_mean(name, names, "its axes are")
            )
        if known.get(name, size) != size:
            raise SizeError(f"axis `{name}` is {known[name]} in program `{program.name}`, not {size}")
        known[name] = check_size(size, f"size of axis `{name}`")
    axes = AxisSizes(known)
    try:
        for statement in program.statements:
            if statement.op == "einsum":
                values = (*statement.inputs, *statement.outputs)
                axes.join_einsum(statement.labels, [table[name].axes for name in values])
    except ProgramError as error:
        raise SizeError(f"program `{program.name}`: {error.message}") from None
    for name, size in (defaults or {}).items():
        if name in names and axes.get(name) is None:
            axes.size[axes.root(name)] = check_size(size, f"size of axis `{name}`")
    resolved = {name: axes.get(name) for name in names}
    return {name: size for name, size in resolved.items() if size is not None}


def made_kind(position: int, op: str = "") -> ValueKind:
    """Kind of the value that a statement makes at a position, unless it is a gradient.

    >>> print(made_kind(0), made_kind(1), made_kind(0, "append"))
    activation residual cache
    """
    if op in CACHING:
        return CACHE
    return RESIDUAL if position else ACTIVATION


def _check_values(program: Program) -> None:
    names = [value.name for value in program.values]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise ProgramError(f"two values are called `{twice}`")
    for value in program.values:
        check_name(value.name, "value name")
        for axis in value.axes:
            check_name(axis, "axis name")
        if len(set(value.axes)) != len(value.axes):
            raise ProgramError(f"value `{value.name}` has an axis twice: {words(value.axes)}")
        if value.dtype not in BITS:
            raise ProgramError(f"value `{value.name}` has an unknown dtype `{value.dtype}`")
        if (value.kind == GRADIENT) != (value.of is not None):
            raise ProgramError(f"value `{value.name}`: a gradient, and nothing else, says what it is the gradient of")
        if value.of is not None:
            check_name(value.of, "value name")


def _check_declarations(program: Program) -> set[str]:
    """Names of inputs and parameters, once the declarations are checked."""
    _check_values(program)
    made = [name for statement in program.statements for name in statement.outputs]
    fed = [value for value in program.values if value.name not in set(made)]
    for value in fed:
        if value.kind not in (INPUT, PARAMETER, GRADIENT, CACHE):
            raise ProgramError(f"value `{value.name}` is never made")
    if [value.name for value in (*fed, *program.values[len(fed) :])] != [value.name for value in program.values]:
        raise ProgramError("inputs and parameters must come first among the values")
    if [value.name for value in program.values[len(fed) :]] != made and len(set(made)) == len(made):
        raise ProgramError("the values must be in the order in which the statements make them")
    inputs = tuple(value.name for value in fed if value.kind != PARAMETER)
    if inputs != program.inputs:
        raise ProgramError(
            f"the inputs are said to be {', '.join(program.inputs) or 'none'}, but are {', '.join(inputs) or 'none'}"
        )
    parameters = tuple(value.name for value in fed if value.kind == PARAMETER)
    if program.tied != tuple(name for name in parameters if name in program.tied):
        raise ProgramError("tied parameters must be parameters of the program, in their order")
    return {*inputs, *parameters}


def _check_axes(program: Program) -> None:
    """Sizes and composites speak of axes that occur."""
    names = axis_names(program)
    for what, table in (("size", dict(program.sizes)), ("composite", dict(program.composites))):
        if len(table) != len(program.sizes if what == "size" else program.composites):
            raise ProgramError(f"a {what} is given twice")
    for name, size in program.sizes:
        check_size(size, f"size of axis `{name}`")
        if name not in names:
            raise ProgramError(f"no value has the axis `{name}`", hint=did_you_mean(name, names, "the axes are"))
    for name, parts in program.composites:
        check_name(name, "composite name")
        if not parts or name in names:
            raise ProgramError(f"composite `{name}` must be a new name for one or more axes")
        for part in parts:
            if part not in names:
                raise ProgramError(
                    f"composite `{name}` is made of `{part}`, which no value has",
                    hint=did_you_mean(part, names, "the axes are"),
                )


def check_program(program: Program) -> Program:
    """The program itself, if it is well formed.

    Raises:
        ProgramError: a value that is made twice, never, or read before it is made; operands, labels, options or sizes
            that do not fit.
        SizeError: a size that is no whole number, not positive or absurd.
    """
    table = program.table
    known = _check_declarations(program)
    _check_axes(program)
    sizes = AxisSizes(dict(program.sizes))
    for statement in program.statements:
        check_statement(statement, table, known, sizes)
        known.update(statement.outputs)
    for name in program.outputs:
        if name not in known:
            raise ProgramError(f"output `{name}` is never made", hint=did_you_mean(name, known, "values"))
    if not program.outputs:
        raise ProgramError(f"program `{program.name}` returns nothing")
    check_size(program.repeat, f"repeat of program `{program.name}`")
    return program


def check_statement(statement: Statement, table: Mapping[str, Value], known: Collection[str], sizes: AxisSizes) -> None:
    """Raise unless a statement reads values that exist, makes new ones, and fits its operation.

    Args:
        statement: what is checked.
        table: every value by name.
        known: names of the values that exist before it.
        sizes: sizes known so far; the statement's labels are joined to its axes.

    Raises:
        ProgramError: it does not.
    """
    for name in statement.inputs:
        if name not in known:
            what = "read before it is made" if name in table else "unknown"
            raise ProgramError(f"value `{name}` is {what}", hint=did_you_mean(name, known, "values"))
    if len(set(statement.outputs)) != len(statement.outputs):
        raise ProgramError(f"value `{statement.output}` is made twice")
    for position, name in enumerate(statement.outputs):
        if name in known:
            raise ProgramError(f"value `{name}` is made twice")
        if name not in table:
            raise ProgramError(f"value `{name}` is not declared")
        if table[name].kind not in (GRADIENT, made_kind(position, statement.op)):
            raise ProgramError(f"`{name}` is made by a statement, so it is not of kind `{table[name].kind}`")
    _check_marks(statement, table)
    shapes = infer(statement.op, [table[name] for name in statement.inputs], statement.labels, dict(statement.options))
    check_route(statement, sizes.get(str(statement.option("axis"))))
    if len(shapes) != len(statement.outputs):
        raise ProgramError(f"{statement.op} makes {len(shapes)} values, not {len(statement.outputs)}")
    for (axes, _), name in zip(shapes, statement.outputs, strict=True):
        if len(axes) != len(table[name].axes) or (statement.op != "einsum" and set(axes) != set(table[name].axes)):
            raise ProgramError(f"{statement.op} makes {words(axes)}, but `{name}` has {words(table[name].axes)}")
    if statement.op == "einsum":
        values = (*statement.inputs, *statement.outputs)
        sizes.join_einsum(statement.labels, [table[name].axes for name in values])


def _check_marks(statement: Statement, table: Mapping[str, Value]) -> None:
    """Phase, section, group, source and the order of the options."""
    if statement.phase not in PHASES:
        raise ProgramError(f"unknown phase `{statement.phase}`", hint=did_you_mean(statement.phase, PHASES, "phases"))
    for kind, name in (("section", statement.section), ("group", statement.group)):
        if name:
            check_name(name, f"{kind} name")
    if statement.source and statement.source not in table:
        raise ProgramError(
            f"source `{statement.source}` is unknown", hint=did_you_mean(statement.source, table, "values")
        )
    names = [name for name, _ in statement.options]
    if names != sorted(set(names)):
        raise ProgramError(f"the options of `{statement.output}` are not sorted, or one is given twice")
    if statement.op != "einsum" and statement.labels:
        raise ProgramError(f"{statement.op} has no labels")
    if statement.op == "einsum":
        if names:
            raise ProgramError("an einsum has no options")
        for operand in statement.labels:
            for label in operand:
                check_name(label, "index name")
