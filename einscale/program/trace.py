"""Writing a program as a plain Python function over traced tensors, so that it reads like the paper's equations.

    def mlp(x, w_gate, w_up, w_down):
        gate = einsum("b s d, d f -> b s f", x, w_gate)
        up = einsum("b s d, d f -> b s f", x, w_up)
        return einsum("b s f, f d -> b s d", swiglu(gate, up), w_down, name="out")

A value takes the explicit `name=`, or the name of the variable it is bound to when it is first used, or else that of
its operation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import FrameType

from einscale.dtypes import dtype as canonical_dtype
from einscale.errors import NotationError, ProgramError
from einscale.program.maps import find_rule
from einscale.program.shapes import NAME, AxisSizes, check_name, check_program, infer, made_kind
from einscale.program.values import Option, Program, Statement, Value

_HERE = (lambda: None).__code__.co_filename
"""File of this module as its frames name it: they are passed over in the search for a variable."""


class Traced:
    """A tensor of a program that is being written: axes and element type, no numbers.

    `x + y` is `add(x, y)`, `x * y` is `mul(x, y)` and `x * 0.5` is `scale(x, 0.5)`.
    """

    __slots__ = ("axes", "default", "dtype", "kind", "name", "tracer")

    def __init__(self, tracer: Tracer, axes: tuple[str, ...], dtype: str, kind: str, name: str | None, default: str):
        self.tracer = tracer
        self.axes = axes
        self.dtype = dtype
        self.kind = kind
        self.name = name
        self.default = default

    def __repr__(self) -> str:
        return f"{self.name or self.default}: {self.dtype}[{' '.join(self.axes)}]"

    def __add__(self, other: Traced) -> Traced:
        return add(self, other)

    def __mul__(self, other: Traced | float) -> Traced:
        return mul(self, other) if isinstance(other, Traced) else scale(self, other)

    def __bool__(self) -> bool:
        raise ProgramError(f"`{self!r}` has no truth value: a program is traced without numbers")


class _Record:
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
        self.records: list[_Record] = []
        self.fed: list[Traced] = []
        self.names: set[str] = set()
        self.section = ""
        self.group = ""
        self.sizes = AxisSizes(sizes)
        self.frame = frame

    def feed(self, name: str, declaration: str, kind: str) -> Traced:
        """A value that comes from outside, declared as `bf16[b s d]`."""
        check_name(name, "value name")
        axes, dtype = parse_declaration(declaration)
        if name in self.names:
            raise ProgramError(f"two values are called `{name}`")
        self.names.add(name)
        value = Traced(self, axes, dtype, kind, name, name)
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
            if frame.f_code.co_filename != _HERE:
                bound = next((name for name, local in frame.f_locals.items() if local is value), bound)
            frame = frame.f_back
        return bound if bound is None or NAME.fullmatch(bound) else None

    def as_value(self, traced: Traced) -> Value:
        """The value with its name settled."""
        return Value(self.resolve(traced), traced.axes, traced.dtype, traced.kind)

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
                made_kind(position),
                name if not position else None,
                op if not position else suffixes[position],
            )
            for position, (axes, inferred) in enumerate(shapes)
        )
        self.records.append(_Record(op, inputs, outputs, labels, tuple(sorted((options or {}).items()))))
        return outputs

    def finish(
        self, name: str, outputs: Sequence[Traced], composites: Mapping[str, tuple[str, ...]], tied: Sequence[str]
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
                tuple(value.name for value in values if value.kind == "input"),
                tuple(self.resolve(traced) for traced in outputs),
                tuple(self.sizes.given.items()),
                tuple((key, tuple(parts)) for key, parts in composites.items()),
                tuple(value.name for value in values if value.kind == "parameter" and value.name in tied),
            )
        )


def _suffixes(op: str, options: Mapping[str, Option]) -> tuple[str, ...]:
    return () if op == "einsum" else find_rule(op, options.get("variant", "")).extra_outputs


_ACTIVE: ContextVar[Tracer | None] = ContextVar("active_tracer", default=None)


def trace(
    function: Callable[..., Traced | tuple[Traced, ...]],
    inputs: Mapping[str, str],
    parameters: Mapping[str, str] | None = None,
    *,
    name: str = "",
    sizes: Mapping[str, int] | None = None,
    composites: Mapping[str, tuple[str, ...]] | None = None,
    tied: Sequence[str] = (),
) -> Program:
    """Run a function on traced tensors and return the program it wrote.

    Args:
        function: takes the inputs and parameters by name, returns the output or a tuple of them.
        inputs: name -> declaration such as `bf16[b s d]`.
        parameters: name -> declaration.
        name: of the program; the function's name if empty.
        sizes: axis -> size, for the axes that the program fixes.
        composites: name -> axes it is made of, major to minor.
        tied: parameters that live in another program of the model.

    >>> def mlp(x, w_in, w_out):
    ...     hidden = gelu(einsum("b s d, d f -> b s f", x, w_in))
    ...     return einsum("b s f, f d -> b s d", hidden, w_out)
    >>> program = trace(mlp, {"x": "bf16[b s d]"}, {"w_in": "bf16[d f]", "w_out": "bf16[f d]"})
    >>> [statement.output for statement in program.statements]
    ['einsum', 'hidden', 'out']

    Raises:
        ProgramError: the function writes a program that is not well formed.
        NotationError: a declaration that does not follow the grammar.
    """
    tracer = Tracer(sizes or {}, sys._getframe(0))
    token = _ACTIVE.set(tracer)
    try:
        tensors = {key: tracer.feed(key, text, "input") for key, text in inputs.items()}
        tensors |= {key: tracer.feed(key, text, "parameter") for key, text in (parameters or {}).items()}
        result = function(**tensors)
        outputs = result if isinstance(result, tuple) else (result,)
        for output in outputs:
            if not isinstance(output, Traced):
                raise ProgramError(f"the function returns {type(output).__name__}, not a traced tensor")
        return tracer.finish(name or function.__name__, outputs, composites or {}, tied)
    finally:
        _ACTIVE.reset(token)


class _Region:
    """`with section(...)` and `with group(...)`: marks the statements written inside."""

    def __init__(self, kind: str, name: str) -> None:
        check_name(name, f"{kind} name")
        self.kind = kind
        self.name = name
        self.before = ""

    def __enter__(self) -> None:
        tracer = _ACTIVE.get()
        if tracer is None:
            raise ProgramError(f"{self.kind}(`{self.name}`) outside of trace()")
        self.before = getattr(tracer, self.kind)
        setattr(tracer, self.kind, self.name)

    def __exit__(self, *_: object) -> None:
        tracer = _ACTIVE.get()
        if tracer is not None:
            setattr(tracer, self.kind, self.before)


def section(name: str) -> _Region:
    """Context (`with`) in which the statements written belong to the sub-total `name`."""
    return _Region("section", name)


def group(name: str) -> _Region:
    """Context (`with`) in which the statements written are fused where the strategy says so."""
    return _Region("group", name)


def parse_declaration(text: str) -> tuple[tuple[str, ...], str]:
    """Axes and element type of `dtype[axis axis ...]`.

    >>> parse_declaration("bf16[b s d]")
    (('b', 's', 'd'), 'bf16')

    Raises:
        NotationError: it does not follow the form.
    """
    head, bracket, rest = text.strip().partition("[")
    if not bracket or not rest.endswith("]"):
        raise NotationError("not a tensor", text=text, span=(0, len(text)), expected="a form such as bf16[b s d]")
    axes = tuple(rest[:-1].split())
    for axis in axes:
        if not NAME.fullmatch(axis):
            start = text.index(axis, text.index("["))
            raise NotationError(f"`{axis}` is not an axis name", text=text, span=(start, start + len(axis)))
    if len(set(axes)) != len(axes):
        raise NotationError("a tensor has an axis twice", text=text, span=(text.index("["), len(text)))
    return axes, canonical_dtype(head.strip())


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


def apply(
    op: str, *inputs: Traced, name: str | None = None, dtype: str | None = None, **options: Option
) -> tuple[Traced, ...]:
    """Write a map of the table by its name; returns the result and its residuals.

    Raises:
        ProgramError: operands or options do not fit the map.
    """
    if not inputs:
        raise ProgramError(f"{op} needs an operand")
    if not isinstance(inputs[0], Traced):
        raise ProgramError(f"operand 1 of {op} is {type(inputs[0]).__name__}, not a traced tensor")
    return inputs[0].tracer.record(op, inputs, (), options, name, dtype)


def einsum(spec: str, *operands: Traced, name: str | None = None, dtype: str | None = None) -> Traced:
    """Write an einsum, such as `einsum("b s d, d f -> b s f", x, w)`.

    Labels go by position: a value with axes `b s k` may be read as `b t k`. The output's axes are its labels, its
    element type the widest of the operands' unless `dtype` says otherwise.

    Raises:
        ProgramError: the labels do not fit the operands, or an axis would have two sizes.
        NotationError: the spec does not follow the grammar.
    """
    labels = parse_einsum(spec)
    if not operands or not isinstance(operands[0], Traced):
        raise ProgramError("einsum needs traced tensors after its spec", text=spec)
    try:
        return operands[0].tracer.record("einsum", operands, labels, None, name, dtype)[0]
    except ProgramError as error:
        if error.text is None:
            raise ProgramError(error.message, text=spec, expected=error.expected, hint=error.hint) from None
        raise


def add(*operands: Traced, name: str | None = None) -> Traced:
    """Sum of tensors, axes matched by name: `add(x, bias)` broadcasts the bias."""
    return apply("add", *operands, name=name)[0]


def mul(x: Traced, y: Traced, *, name: str | None = None) -> Traced:
    """Elementwise product, axes matched by name."""
    return apply("mul", x, y, name=name)[0]


def scale(x: Traced, factor: float, *, name: str | None = None) -> Traced:
    """Product with a number."""
    return apply("scale", x, name=name, factor=factor)[0]


def cast(x: Traced, dtype: str, *, name: str | None = None) -> Traced:
    """The same numbers in another element type."""
    return x.tracer.record("cast", (x,), (), {"dtype": canonical_dtype(dtype)}, name)[0]


def sum_over(x: Traced, axes: str, *, name: str | None = None) -> Traced:
    """Sum over the named axes: `sum_over(x, "b s")`."""
    return apply("sum", x, name=name, axes=tuple(axes.split()))[0]


def mask(
    x: Traced,
    *,
    query: str,
    key: str,
    causal: bool = True,
    window: int = 0,
    factor: float = 1.0,
    name: str | None = None,
) -> Traced:
    """Attention scores times `factor`, those that a query may not see set to minus infinity.

    Args:
        x: scores with a query and a key axis.
        query: its query axis.
        key: its key axis.
        causal: a query sees its own key and those before.
        window: a query sees so many keys at most (sliding window attention); 0 for all.
        factor: usually one over the root of the head size.
        name: of the result.
    """
    options: dict[str, Option] = {"query": query, "key": key, "factor": factor}
    options |= {"causal": 1} if causal else {}
    options |= {"window": window} if window else {}
    return x.tracer.record("mask", (x,), (), options, name)[0]


def softmax(x: Traced, axis: str, *, name: str | None = None) -> Traced:
    """Softmax along one axis."""
    return apply("softmax", x, name=name, axis=axis)[0]


def dropout(x: Traced, rate: float, *, name: str | None = None) -> Traced:
    """Random zeros at a rate, the rest scaled up; x itself, without a statement, at rate 0. Keeps a 1-byte mask."""
    return apply("dropout", x, name=name, rate=rate)[0] if rate else x


def rms_norm(x: Traced, weight: Traced, *, axis: str = "d", eps: float = 1e-6, name: str | None = None) -> Traced:
    """Root-mean-square norm along one axis (Zhang and Sennrich 2019, arXiv 1910.07467)."""
    return apply("norm", x, weight, name=name, variant="rms", axis=axis, eps=eps)[0]


def layer_norm(
    x: Traced,
    weight: Traced,
    bias: Traced | None = None,
    *,
    axis: str = "d",
    eps: float = 1e-5,
    name: str | None = None,
) -> Traced:
    """Layer norm along one axis (Ba et al. 2016, arXiv 1607.06450)."""
    operands = (x, weight) if bias is None else (x, weight, bias)
    return apply("norm", *operands, name=name, variant="layer", axis=axis, eps=eps)[0]


def gelu(x: Traced, *, approximate: str = "tanh", name: str | None = None) -> Traced:
    """Gaussian error linear unit, in its tanh form or (`approximate="none"`) with erf."""
    return apply("gelu", x, name=name, approximate=approximate)[0]


def relu(x: Traced, *, name: str | None = None) -> Traced:
    """The larger of x and 0."""
    return apply("relu", x, name=name)[0]


def silu(x: Traced, *, name: str | None = None) -> Traced:
    """Product of x and its sigmoid."""
    return apply("silu", x, name=name)[0]


def swiglu(gate: Traced, up: Traced, *, name: str | None = None) -> Traced:
    """silu(gate) times up (Shazeer 2020, arXiv 2002.05202)."""
    return apply("swiglu", gate, up, name=name)[0]


def geglu(gate: Traced, up: Traced, *, approximate: str = "tanh", name: str | None = None) -> Traced:
    """gelu(gate) times up (Shazeer 2020, arXiv 2002.05202)."""
    return apply("geglu", gate, up, name=name, approximate=approximate)[0]


def rope(x: Traced, axis: str = "k", sequence: str = "s", *, theta: float = 10000.0, name: str | None = None) -> Traced:
    """Rotary embedding of the head axis by the position along `sequence` (Su et al. 2021, arXiv 2104.09864)."""
    return apply("rope", x, name=name, axis=axis, sequence=sequence, theta=theta)[0]


def lookup(table: Traced, indices: Traced, axis: str, *, name: str | None = None) -> Traced:
    """Rows of a table: the element of `axis` that each index names."""
    return apply("lookup", table, indices, name=name, axis=axis)[0]


def cross_entropy(logits: Traced, targets: Traced, axis: str = "v", *, name: str | None = None) -> Traced:
    """Loss of each token, in fp32: log-sum-exp of its logits less the target's logit. Keeps the log-sum-exp."""
    return apply("cross_entropy", logits, targets, name=name, axis=axis)[0]
