"""What `trace` records while a block's function runs: traced tensors, the statements that made them, their names."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from types import FrameType

from einscale.dtypes import dtype as canonical_dtype
from einscale.errors import NotationError, ProgramError
from einscale.layout import Chosen, index_words
from einscale.program.maps import find_rule
from einscale.program.options import NAME, check_name
from einscale.program.routed import infer_chosen
from einscale.program.shapes import AxisSizes, check_program, infer, made_kind
from einscale.program.values import Option, Program, Statement, Value
from einscale.vocabulary import INPUT, PARAMETER, ValueKind

_FOLDER = (lambda: None).__code__.co_filename.removesuffix("tracer.py")
"""Folder of this package as its frames name it: they are passed over in the search for a variable."""


class Traced:
    """A tensor of a program that is being written: axes and element type, no numbers.

    `x + y` is `add(x, y)`, `x * y` is `mul(x, y)` and `x * 0.5` is `scale(x, 0.5)`.
    """

    __slots__ = ("axes", "chosen", "default", "dtype", "kind", "name", "tracer")

    def __init__(
        self,
        tracer: Tracer,
        axes: tuple[str, ...],
        dtype: str,
        kind: ValueKind,
        name: str | None,
        default: str,
        chosen: Chosen = (),
    ):
        self.tracer = tracer
        self.axes = axes
        self.dtype = dtype
        self.kind = kind
        self.name = name
        self.default = default
        self.chosen = chosen

    def __repr__(self) -> str:
        return f"{self.name or self.default}: {self.dtype}[{index_words(self.axes, self.chosen)}]"

    def __add__(self, other: Traced) -> Traced:
        return self.tracer.record("add", (self, other))[0]

    def __mul__(self, other: Traced | float) -> Traced:
        if isinstance(other, Traced):
            return self.tracer.record("mul", (self, other))[0]
        return self.tracer.record("scale", (self,), (), {"factor": other})[0]

    def __bool__(self) -> bool:
        raise ProgramError(f"`{self!r}` has no truth value: a program is traced without numbers")


class Record:
    """A statement whose values may not have their names yet."""

    __slots__ = ("group", "inputs", "labels", "op", "options", "outputs", "section")

    def __init__(
        self,
        op: str,
        inputs: Sequence[Traced],
        outputs: tuple[Traced, ...],
        labels: tuple[tuple[str, ...], ...],
        options: tuple[tuple[str, Option], ...],
    ):
        tracer = inputs[0].tracer
        self.op = op
        self.inputs = tuple(inputs)
        self.outputs = outputs
        self.labels = labels
        self.options = options
        self.section = tracer.section
        self.group = tracer.group


class Tracer:
    """Records the statements of one program while its function runs."""

    def __init__(self, sizes: Mapping[str, int], frame: FrameType | None) -> None:
        self.records: list[Record] = []
        self.fed: list[Traced] = []
        self.names: set[str] = set()
        self.section = ""
        self.group = ""
        self.sizes = AxisSizes(sizes)
        self.frame = frame

    def feed(self, name: str, declaration: str, kind: ValueKind) -> Traced:
        """A value that comes from outside, declared as `bf16[b s d]`."""
        check_name(name, "value name")
        axes, dtype, chosen = parse_declaration(declaration)
        if name in self.names:
            raise ProgramError(f"two values are called `{name}`")
        self.names.add(name)
        value = Traced(self, axes, dtype, kind, name, name, chosen)
        self.fed.append(value)
        return value

    def resolve(self, value: Traced) -> str:
        """Name of a value, fixed at the first call: that of the outermost variable it is bound to in the function."""
        if value.name is None:
            value.name = self.fresh(self._variable(value) or value.default)
        return value.name

    def fresh(self, name: str) -> str:
        """`name`, or with a number behind it if it is taken."""
        number, unique = 2, name
        while unique in self.names:
            unique, number = f"{name}_{number}", number + 1
        self.names.add(unique)
        return unique

    def _variable(self, value: Traced) -> str | None:
        frame: FrameType | None = sys._getframe(1)
        bound = None
        while frame is not None and frame is not self.frame:
            if not frame.f_code.co_filename.startswith(_FOLDER):
                bound = next((name for name, local in frame.f_locals.items() if local is value), bound)
            frame = frame.f_back
        return bound if bound is None or NAME.fullmatch(bound) else None

    def as_value(self, traced: Traced) -> Value:
        """The value with its name settled."""
        return Value(self.resolve(traced), traced.axes, traced.dtype, traced.kind, chosen=traced.chosen)

    def record(
        self,
        op: str,
        inputs: Sequence[Traced],
        labels: tuple[tuple[str, ...], ...] = (),
        options: Mapping[str, Option] | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> tuple[Traced, ...]:
        """Add a statement and return what it makes."""
        for position, traced in enumerate(inputs, 1):
            if not isinstance(traced, Traced):
                raise ProgramError(f"operand {position} of {op} is {type(traced).__name__}, not a traced tensor")
            if traced.tracer is not self:
                raise ProgramError(f"operand {position} of {op}, `{traced!r}`, belongs to another program")
        values = [self.as_value(traced) for traced in inputs]
        shapes = infer(op, values, labels, options or {})
        chosen = infer_chosen(op, values, labels, options or {}, [axes for axes, _ in shapes])
        if labels:
            self.sizes.join_einsum(labels, [*(value.axes for value in values), shapes[0][0]])
        suffixes = ("", *(f"_{suffix}" for suffix in _suffixes(op, options or {})))
        if name is not None:
            check_name(name, "value name")
            if name in self.names:
                raise ProgramError(f"two values are called `{name}`")
            self.names.add(name)
        outputs = tuple(
            Traced(
                self,
                axes,
                canonical_dtype(dtype) if dtype and not position else inferred,
                made_kind(position, op),
                name if not position else None,
                op if not position else suffixes[position],
                chosen[position],
            )
            for position, (axes, inferred) in enumerate(shapes)
        )
        self.records.append(Record(op, inputs, outputs, labels, tuple(sorted((options or {}).items()))))
        return outputs

    def finish(
        self,
        name: str,
        outputs: Sequence[Traced],
        composites: Mapping[str, tuple[str, ...]],
        tied: Sequence[str],
        repeat: int,
    ) -> Program:
        """The program that was traced."""
        last = ["out"] if len(outputs) == 1 else [f"out_{k}" for k in range(1, len(outputs) + 1)]
        for traced, default in zip(outputs, last, strict=True):
            if traced.name is None:
                traced.default = default
        values = [self.as_value(traced) for traced in self.fed]
        statements = []
        for record in self.records:
            first = self.resolve(record.outputs[0])
            for residual in record.outputs[1:]:
                if residual.name is None:
                    residual.name = self.fresh(first + residual.default)
            values += [self.as_value(traced) for traced in record.outputs]
            statements.append(
                Statement(
                    record.op,
                    tuple(self.resolve(traced) for traced in record.inputs),
                    tuple(self.resolve(traced) for traced in record.outputs),
                    record.labels,
                    record.options,
                    record.section,
                    record.group,
                )
            )
        return check_program(
            Program(
                name,
                tuple(values),
                tuple(statements),
                tuple(value.name for value in values if value.kind == INPUT),
                tuple(self.resolve(traced) for traced in outputs),
                tuple(self.sizes.given.items()),
                tuple((key, tuple(parts)) for key, parts in composites.items()),
                tuple(value.name for value in values if value.kind == PARAMETER and value.name in tied),
                repeat,
            )
        )


def _suffixes(op: str, options: Mapping[str, Option]) -> tuple[str, ...]:
    return () if op == "einsum" else find_rule(op, options.get("variant", "")).extra_outputs


ACTIVE: ContextVar[Tracer | None] = ContextVar("active_tracer", default=None)
"""The tracer of the function that is running."""


def parse_declaration(text: str) -> tuple[tuple[str, ...], str, Chosen]:
    """Axes, element type and what is chosen of `dtype[axis axis ...]`.

    >>> parse_declaration("bf16[b s d]"), parse_declaration("bf16[e:8 b d]")
    ((('b', 's', 'd'), 'bf16', ()), (('e', 'b', 'd'), 'bf16', (('e', 8),)))

    Raises:
        NotationError: it does not follow the form.
    """
    head, bracket, rest = text.strip().partition("[")
    if not bracket or not rest.endswith("]"):
        raise NotationError("not a tensor", text=text, span=(0, len(text)), expected="a form such as bf16[b s d]")
    words = [word.partition(":") for word in rest[:-1].split()]
    axes = tuple(word[0] for word in words)
    for axis, colon, count in words:
        if colon and not (count.isdigit() and int(count[:20]) > 0):
            start = text.index(f"{axis}:", text.index("["))
            place = (start, start + len(f"{axis}:{count}"))
            raise NotationError(f"`{count}` is not a number of elements", text=text, span=place, expected="as in e:8")
    for axis in axes:
        if not NAME.fullmatch(axis):
            start = text.index(axis, text.index("["))
            raise NotationError(f"`{axis}` is not an axis name", text=text, span=(start, start + len(axis)))
    if len(set(axes)) != len(axes):
        raise NotationError("a tensor has an axis twice", text=text, span=(text.index("["), len(text)))
    return axes, canonical_dtype(head.strip()), tuple((axis, int(count)) for axis, _, count in words if count)


def parse_einsum(spec: str) -> tuple[tuple[str, ...], ...]:
    """Labels of each operand and last of the output; the arrow may not be left out.

    >>> parse_einsum("b d, d f -> b f")
    (('b', 'd'), ('d', 'f'), ('b', 'f'))

    Raises:
        NotationError: no arrow, more than one, or a label that is not a name.
    """
    if spec.count("->") != 1:
        raise NotationError(
            "an einsum of a program needs one `->`",
            text=spec,
            span=(0, len(spec)),
            expected='a form such as "b s d, d f -> b s f"',
        )
    for word in spec.replace("->", " ").replace(",", " ").split():
        if not NAME.fullmatch(word):
            start = spec.index(word)
            raise NotationError(f"`{word}` is not an axis name", text=spec, span=(start, start + len(word)))
    left, right = spec.split("->")
    if "," in right:
        start = spec.rindex(",")
        raise NotationError("an einsum has one output", text=spec, span=(start, start + 1))
    return (*(tuple(operand.split()) for operand in left.split(",")), tuple(right.split()))
