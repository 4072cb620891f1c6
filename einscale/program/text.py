"""Programs as text, and back: `parse_program(print_program(program)) == program`.

    program mlp
    size d = 4096
    input x: bf16[b s d]
    param w_in: bf16[d f]
    section mlp:
      h = einsum("b s d, d f -> b s f", x, w_in)
      out = gelu(h, approximate=tanh)
    return out

`docs/programs.md` describes every line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from einscale.dtypes import dtype as canonical_dtype
from einscale.dtypes import is_dtype
from einscale.einsum import Einsum
from einscale.errors import NotationError, ProgramError, did_you_mean
from einscale.layout import Chosen
from einscale.program.lines import Line, Reader, second_title
from einscale.program.maps import OPS
from einscale.program.routed import infer_chosen, part_chosen
from einscale.program.shapes import (
    PHASES,
    Shape,
    axis_names,
    check_program,
    check_statement,
    infer,
    made_kind,
)
from einscale.program.values import Option, Program, Statement, Value
from einscale.vocabulary import CACHE, FORWARD, GRADIENT, INPUT, PARAMETER, Phase, ValueKind

REGIONS = ("phase", "section", "group")
"""Markers, in the order they are printed in; one holds for the lines indented below it."""


def _option_text(value: Option) -> str:
    return f"({' '.join(value)})" if isinstance(value, tuple) else str(value)


def _output_text(value: Value, inferred: tuple[Shape, Chosen], of: Value | None) -> str:
    expected = ((of.axes, of.dtype), of.chosen) if of is not None else inferred
    text = value.name if ((value.axes, value.dtype), value.chosen) == expected else str(value)
    return text if value.of is None else f"{text} of {value.of}"


def _statement_text(statement: Statement, table: Mapping[str, Value]) -> str:
    inputs = [table[name] for name in statement.inputs]
    shapes = infer(statement.op, inputs, statement.labels, dict(statement.options))
    chosen = infer_chosen(statement.op, inputs, statement.labels, dict(statement.options), [axes for axes, _ in shapes])
    values = [table[name] for name in statement.outputs]
    outputs = [
        _output_text(value, inferred, table.get(value.of or ""))
        for value, inferred in zip(values, zip(shapes, chosen, strict=True), strict=True)
    ]
    arguments = list(statement.inputs)
    if statement.op == "einsum":
        arguments.insert(0, f'"{Einsum(statement.labels[:-1], statement.labels[-1])}"')
    arguments += [f"{name}={_option_text(value)}" for name, value in statement.options]
    source = f" from {statement.source}" if statement.source else ""
    return f"{', '.join(outputs)} = {statement.op}({', '.join(arguments)}){source}"


def _header(program: Program) -> list[str]:
    lines = [f"program {program.name}"]
    lines += [f"repeat {program.repeat}"] if program.repeat > 1 else []
    lines += [f"size {name} = {size}" for name, size in program.sizes]
    lines += [f"composite {name} = ({' '.join(parts)})" for name, parts in program.composites]
    made = {name for statement in program.statements for name in statement.outputs}
    for value in program.values:
        if value.name not in made:
            kind = {PARAMETER: "param", CACHE: "cache"}.get(value.kind, "input")
            of = f" of {value.of}" if value.of else ""
            tied = " tied" if value.name in program.tied else ""
            lines.append(f"{kind} {value}{of}{tied}")
    return lines


def print_program(program: Program) -> str:
    """The program as text; see the module for the form."""
    table = program.table
    lines = _header(program)
    open_regions: list[tuple[str, str]] = []
    for statement in program.statements:
        phase = "" if statement.phase == FORWARD else statement.phase
        wanted = [
            region for region in zip(REGIONS, (phase, statement.section, statement.group), strict=True) if region[1]
        ]
        shared = 0
        while shared < min(len(wanted), len(open_regions)) and wanted[shared] == open_regions[shared]:
            shared += 1
        for depth in range(shared, len(wanted)):
            lines.append("  " * depth + " ".join(wanted[depth]) + ":")
        open_regions = wanted
        lines.append("  " * len(wanted) + _statement_text(statement, table))
    lines.append("return " + ", ".join(program.outputs))
    return "\n".join(lines) + "\n"


LONGEST_NUMBER = 30
"""Characters of the longest number an option may have."""

_Output: TypeAlias = tuple[str, tuple[Shape, Chosen] | None, str | None, tuple[int, int]]
"""Name, written type, what it is the gradient of, and where it stands."""

_PROGRAM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def _read_type(line: Line) -> tuple[Shape, Chosen]:
    """`bf16[b s d]`, or `bf16[e:8 b s d]` where 8 elements of `e` are chosen at each position."""
    name = line.name("a dtype")
    if not is_dtype(name):
        from einscale.dtypes import BITS

        raise line.error(f"unknown dtype `{name}`", line.last(), hint=did_you_mean(name, BITS, "dtypes"))
    line.need("[")
    start = line.last()[0]
    axes: list[str] = []
    chosen: list[tuple[str, int | float]] = []
    while not line.accept("]"):
        axes.append(line.name("an axis name or `]`"))
        if line.accept(":"):
            chosen.append((axes[-1], _read_chosen(line, axes[-1])))
    if len(set(axes)) != len(axes):
        raise line.error("a tensor has an axis twice", (start, line.last()[1]), kind=ProgramError)
    return (tuple(axes), canonical_dtype(name)), tuple(chosen)


def _read_chosen(line: Line, axis: str) -> int | float:
    """The 8 of `e:8`."""
    count = _read_option(line)
    if isinstance(count, (str, tuple)) or count <= 0:
        raise line.error(f"the number of elements chosen of `{axis}` must be larger than 0", line.last(), "as in e:8")
    return count


def _read_declaration(reader: Reader, line: Line) -> None:
    """`input x: bf16[b s d]`, `param w: bf16[d f] tied`, `cache k: bf16[b t n]`, `input d_out: bf16[b s d] of out`."""
    word = line.tokens[0][1]
    kind = PARAMETER if word == "param" else ValueKind(word)
    name = line.name("a value name")
    span = line.last()
    line.need(":")
    (axes, dtype), chosen = _read_type(line)
    of = None
    if kind == INPUT and line.accept("of"):
        of = line.name("a value name")
        kind = GRADIENT
    value = Value(name, axes, dtype, kind, of, chosen)
    reader.declare(line, value, span)
    reader.fed.append(value)
    if kind == PARAMETER and line.accept("tied"):
        reader.tied.append(name)


def _read_size(reader: Reader, line: Line) -> None:
    name = line.name("an axis name")
    if name in reader.sizes:
        raise line.error(f"the size of `{name}` is given twice", line.last())
    reader.places[name] = (line, line.last())
    line.need("=")
    reader.sizes[name] = _read_count(line, f"the size of `{name}`", "4096")


def _read_repeat(reader: Reader, line: Line) -> None:
    """`repeat 80`."""
    if reader.repeat is not None:
        raise line.error("the program says twice how often it is repeated", line.last())
    reader.repeat = _read_count(line, "the number of layers", "80")


def _read_count(line: Line, what: str, example: str) -> int:
    digits = line.peek()
    if not digits.isdigit() or not 0 < int(digits[:20]) <= 10**18:
        raise line.error(f"{what} must be a whole number from 1 to 10^18", expected=f"for example {example}")
    line.place += 1
    return int(digits)


def _read_composite(reader: Reader, line: Line) -> None:
    name = line.name("a composite's name")
    if name in reader.composites:
        raise line.error(f"composite `{name}` is given twice", line.last())
    place = line.last()
    line.need("=")
    line.need("(")
    reader.places[f"({name}"] = (line, place)
    reader.composites[name] = line.names_until(")", "an axis name")


def _read_return(reader: Reader, line: Line) -> None:
    names = [reader.value(line)]
    while line.accept(","):
        names.append(reader.value(line))
    reader.outputs = tuple(names)


_HEADERS = {
    "input": _read_declaration,
    "param": _read_declaration,
    "cache": _read_declaration,
    "size": _read_size,
    "repeat": _read_repeat,
    "composite": _read_composite,
    "return": _read_return,
}


def _read_region(reader: Reader, line: Line, indent: int) -> None:
    """`section attention:`."""
    kind = line.tokens[0][1]
    name = line.name(f"the name of the {kind}")
    if kind == "phase" and name not in PHASES:
        raise line.error(f"unknown phase `{name}`", line.last(), hint=did_you_mean(name, PHASES, "phases"))
    line.need(":")
    reader.regions.append((indent, kind, name))


def _read_option(line: Line) -> Option:
    if line.accept("("):
        return line.names_until(")", "a name")
    if line.place < len(line.tokens) and line.tokens[line.place][0] in ("name", "number"):
        kind, text = line.tokens[line.place][:2]
        line.place += 1
        if kind == "name":
            return text
        if len(text) > LONGEST_NUMBER:
            raise line.error("the number is absurd", line.last(), f"at most {LONGEST_NUMBER} characters")
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    raise line.error("the value of an option is wanted here", expected="a number, a word, or names in brackets")


def _read_labels(line: Line) -> tuple[tuple[str, ...], ...]:
    from einscale.program.trace import parse_einsum

    kind, text, start, stop = (
        line.tokens[line.place] if line.place < len(line.tokens) else ("", "", line.stop, line.stop)
    )
    if kind != "string":
        raise line.error("an einsum starts with its spec", expected='for example "b s d, d f -> b s f"')
    line.place += 1
    try:
        return parse_einsum(text[1:-1])
    except NotationError as error:
        span = error.span or (0, stop - start - 2)
        place = (start + 1 + span[0], start + 1 + span[1])
        raise line.error(error.message, place, error.expected, error.hint) from None


def _read_arguments(reader: Reader, line: Line) -> tuple[list[str], dict[str, Option]]:
    inputs: list[str] = []
    options: dict[str, Option] = {}
    while not line.accept(")"):
        if inputs or options:
            line.need(",")
        following = line.tokens[line.place + 1][1] if line.place + 1 < len(line.tokens) else ""
        if following == "=":
            name = line.name("an option")
            if name in options:
                raise line.error(f"option `{name}` is given twice", line.last())
            line.need("=")
            options[name] = _read_option(line)
        elif options:
            raise line.error("operands come before options")
        else:
            inputs.append(reader.value(line, "an operand"))
    return inputs, options


def _read_outputs(reader: Reader, line: Line) -> list[_Output]:
    outputs: list[_Output] = []
    while not outputs or line.accept(","):
        name = line.name("the name of a value")
        span = line.last()
        shape = _read_type(line) if line.accept(":") else None
        of = reader.value(line, "the value it is the gradient of") if line.accept("of") else None
        outputs.append((name, shape, of, span))
    return outputs


def _read_statement(reader: Reader, line: Line) -> None:
    """`y, y_mask = dropout(h, rate=0.1)`."""
    outputs = _read_outputs(reader, line)
    line.need("=")
    op = line.name("an operation")
    op_span = line.last()
    if op not in OPS:
        raise line.error(f"unknown map `{op}`", op_span, hint=did_you_mean(op, OPS, "the maps are"), kind=ProgramError)
    line.need("(")
    labels: tuple[tuple[str, ...], ...] = ()
    if op == "einsum":
        labels = _read_labels(line)
        if line.peek() != ")":
            line.need(",")
    inputs, options = _read_arguments(reader, line)
    span = (op_span[0], line.last()[1])
    source = reader.value(line, "the source of the statement") if line.accept("from") else ""
    region = {kind: name for _, kind, name in reader.regions}
    statement = Statement(
        op,
        tuple(inputs),
        tuple(name for name, *_ in outputs),
        labels,
        tuple(sorted(options.items())),
        region.get("section", ""),
        region.get("group", ""),
        Phase(region.get("phase", FORWARD)),
        source,
    )
    try:
        shapes = infer(op, [reader.table[name] for name in inputs], labels, options)
        known = set(reader.table)
        routed = infer_chosen(
            op, [reader.table[name] for name in inputs], labels, options, [axes for axes, _ in shapes]
        )
        _declare_outputs(reader, line, op, outputs, tuple(zip(shapes, routed, strict=True)))
        check_statement(statement, reader.table, known, reader.axes)
    except ProgramError as error:
        if error.text is not None:
            raise
        raise line.error(error.message, span, error.expected, error.hint, ProgramError) from None
    reader.statements.append(statement)


def _declare_outputs(
    reader: Reader, line: Line, op: str, outputs: list[_Output], shapes: tuple[tuple[Shape, Chosen], ...]
) -> None:
    """Add what a statement makes; a type that is not written is inferred, and so is what of it is chosen."""
    if len(shapes) != len(outputs):
        message = f"{op} makes {len(shapes)} value{'s' if len(shapes) > 1 else ''}, not {len(outputs)}"
        raise line.error(message, (outputs[0][3][0], outputs[-1][3][1]), kind=ProgramError)
    for position, ((name, written, of, place), inferred) in enumerate(zip(outputs, shapes, strict=True)):
        target = reader.table[of] if of else None
        known = ((target.axes, target.dtype), target.chosen) if target else inferred
        (axes, dtype), chosen = written or known
        if written and not chosen:
            chosen = part_chosen(inferred[1], target.chosen if target else (), axes)
        value = Value(name, axes, dtype, GRADIENT if of else made_kind(position, op), of, chosen)
        reader.declare(line, value, place)
        reader.made.append(value)


def _read_title(reader: Reader, line: Line, body: str) -> None:
    name = body.partition(" ")[2].partition("#")[0].strip()
    if not _PROGRAM_NAME.fullmatch(name):
        raise NotationError(
            f"line {line.number}: `{name}` is not a program's name",
            text=line.text,
            span=(line.start, line.start + len(body)),
            expected="for example: program block",
        )
    if reader.title is not None:
        raise line.error("the program has a name already", (line.start, line.start + len(body)))
    reader.title = name


def _read_line(reader: Reader, line: Line, indent: int) -> None:
    while reader.regions and reader.regions[-1][0] >= indent:
        reader.regions.pop()
    word = line.peek()
    following = line.tokens[1][1] if len(line.tokens) > 1 else ""
    if reader.outputs is not None:
        raise line.error("a line after `return`", (line.tokens[0][2], line.end))
    if following in ("=", ",", ":") or (following == "of" and word not in _HEADERS):
        _read_statement(reader, line)
    elif word in REGIONS:
        line.place = 1
        _read_region(reader, line, indent)
    elif word in _HEADERS:
        line.place = 1
        if reader.statements and word != "return":
            raise line.error("sizes, composites, inputs and parameters come before the first statement")
        _HEADERS[word](reader, line)
    else:
        known = ["program", *_HEADERS, *REGIONS]
        raise line.error(
            f"a line cannot start with `{word}`",
            (line.tokens[0][2], line.tokens[0][3]),
            expected="a statement such as y = gelu(x), or one of " + ", ".join(known),
            hint=did_you_mean(word, known, "lines start with"),
        )
    line.finish()


def parse_program(text: str) -> Program:
    """The program that a text describes.

    >>> program = parse_program('''
    ... program square
    ... input x: fp32[i]
    ... out = mul(x, x)
    ... return out
    ... ''')
    >>> print(print_program(program), end="")
    program square
    input x: fp32[i]
    out = mul(x, x)
    return out

    Raises:
        NotationError: a line that does not follow the grammar; the message says which, and where.
        ProgramError: a line that follows the grammar and means nothing: an unknown value, axes that do not fit.
    """
    programs = parse_programs(text)
    if len(programs) > 1:
        place = second_title(text)
        raise ProgramError(
            f"the text describes {len(programs)} programs: {', '.join(program.name for program in programs)}",
            text=text,
            span=place,
            expected="one program",
        )
    return programs[0]


def parse_programs(text: str) -> tuple[Program, ...]:
    """The programs of a text, one after the other: each but the first begins with its `program NAME`.

    >>> [program.name for program in parse_programs('''
    ... program first
    ... input x: fp32[i]
    ... y = relu(x)
    ... return y
    ... program second
    ... repeat 12
    ... input x: fp32[i]
    ... y = gelu(x)
    ... return y
    ... ''')]
    ['first', 'second']

    Raises:
        NotationError: a line that does not follow the grammar; the message says which, and where.
        ProgramError: a line that follows the grammar and means nothing, or two programs of one name.
    """
    programs: list[Program] = []
    reader = Reader()
    start = 0
    for number, raw in enumerate(text.split("\n"), 1):
        body = raw.partition("#")[0].strip()
        stop = start + len(raw.rstrip())
        if body == "program" or body.startswith("program "):
            place = start + len(raw) - len(raw.lstrip())
            line = Line(text, place, place, number)
            if reader.outputs is not None:
                programs.append(_assemble(reader))
                reader = Reader()
            _read_title(reader, line, body)
            if any(program.name == reader.title for program in programs):
                raise line.error(
                    f"two programs are called `{reader.title}`", (place, place + len(body)), kind=ProgramError
                )
        elif body:
            _read_line(reader, Line(text, start, stop, number), len(raw) - len(raw.lstrip()))
        start += len(raw) + 1
    programs.append(_assemble(reader))
    return tuple(programs)


def _assemble(reader: Reader) -> Program:
    if not reader.statements:
        raise ProgramError("the program has no statement", expected="for example: y = gelu(x)")
    if reader.outputs is None:
        raise ProgramError("the program returns nothing", expected="a last line such as: return y")
    program = Program(
        reader.title or "program",
        tuple(reader.fed + reader.made),
        tuple(reader.statements),
        tuple(value.name for value in reader.fed if value.kind != PARAMETER),
        reader.outputs,
        tuple(reader.sizes.items()),
        tuple(reader.composites.items()),
        tuple(reader.tied),
        reader.repeat or 1,
    )
    _check_header(reader, program)
    return check_program(program)


def _check_header(reader: Reader, program: Program) -> None:
    """Sizes and composites speak of axes that occur; said here because the places of the lines are known here."""
    names = axis_names(program)
    wanted = [(name, name) for name in reader.sizes]
    wanted += [(f"({name}", part) for name, parts in reader.composites.items() for part in parts]
    for key, axis in wanted:
        if axis not in names:
            line, span = reader.places[key]
            hint = did_you_mean(axis, names, "the axes are")
            raise line.error(f"no value has the axis `{axis}`", span, hint=hint, kind=ProgramError)
