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

from einscale.dtypes import dtype as canonical_dtype
from einscale.errors import ProgramError
from einscale.program.options import check_name
from einscale.program.tracer import ACTIVE, Traced, Tracer, parse_declaration, parse_einsum
from einscale.program.values import Option, Program

__all__ = [
    "Traced",
    "Tracer",
    "add",
    "apply",
    "cast",
    "clamp",
    "cross_entropy",
    "dropout",
    "einsum",
    "geglu",
    "gelu",
    "group",
    "layer_norm",
    "lookup",
    "mask",
    "mul",
    "parse_declaration",
    "parse_einsum",
    "relu",
    "rms_norm",
    "rope",
    "scale",
    "section",
    "silu",
    "softcap",
    "softmax",
    "sum_over",
    "swiglu",
    "trace",
]


def trace(
    function: Callable[..., Traced | tuple[Traced, ...]],
    inputs: Mapping[str, str],
    parameters: Mapping[str, str] | None = None,
    *,
    name: str = "",
    sizes: Mapping[str, int] | None = None,
    composites: Mapping[str, tuple[str, ...]] | None = None,
    tied: Sequence[str] = (),
    repeat: int = 1,
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
        repeat: how many layers of the model run it.

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
    token = ACTIVE.set(tracer)
    try:
        tensors = {key: tracer.feed(key, text, "input") for key, text in inputs.items()}
        tensors |= {key: tracer.feed(key, text, "parameter") for key, text in (parameters or {}).items()}
        result = function(**tensors)
        outputs = result if isinstance(result, tuple) else (result,)
        for output in outputs:
            if not isinstance(output, Traced):
                raise ProgramError(f"the function returns {type(output).__name__}, not a traced tensor")
        return tracer.finish(name or function.__name__, outputs, composites or {}, tied, repeat)
    finally:
        ACTIVE.reset(token)


class _Region:
    """`with section(...)` and `with group(...)`: marks the statements written inside."""

    def __init__(self, kind: str, name: str) -> None:
        check_name(name, f"{kind} name")
        self.kind = kind
        self.name = name
        self.before = ""

    def __enter__(self) -> None:
        tracer = ACTIVE.get()
        if tracer is None:
            raise ProgramError(f"{self.kind}(`{self.name}`) outside of trace()")
        self.before = getattr(tracer, self.kind)
        setattr(tracer, self.kind, self.name)

    def __exit__(self, *_: object) -> None:
        tracer = ACTIVE.get()
        if tracer is not None:
            setattr(tracer, self.kind, self.before)


def section(name: str) -> _Region:
    """Context (`with`) in which the statements written belong to the sub-total `name`."""
    return _Region("section", name)


def group(name: str) -> _Region:
    """Context (`with`) in which the statements written are fused where the strategy says so."""
    return _Region("group", name)


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
    alibi: float = 0.0,
    heads: str = "n",
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
        alibi: adds a bias to each score, the distance of its key times a slope that falls from head to head as
            2^(-alibi (head + 1) / heads), usually with alibi = 8 (Press et al. 2021, arXiv 2108.12409); 0 for none.
        heads: axes of the query heads, major to minor, that the slopes belong to.
        name: of the result.
    """
    options: dict[str, Option] = {"query": query, "key": key, "factor": factor}
    options |= {"causal": 1} if causal else {}
    options |= {"window": window} if window else {}
    options |= {"alibi": alibi, "heads": tuple(heads.split())} if alibi else {}
    return x.tracer.record("mask", (x,), (), options, name)[0]


def softcap(x: Traced, cap: float, *, factor: float = 1.0, name: str | None = None) -> Traced:
    """Keep numbers within (-cap, cap): cap tanh(factor x / cap) (Gemma Team 2024, arXiv 2408.00118)."""
    return apply("softcap", x, name=name, cap=cap, factor=factor)[0]


def clamp(x: Traced, limit: float, *, name: str | None = None) -> Traced:
    """Numbers beyond -limit and limit replaced by these; x itself, without a statement, where limit is 0."""
    return apply("clamp", x, name=name, limit=limit)[0] if limit else x


def softmax(x: Traced, axis: str, *, name: str | None = None) -> Traced:
    """Softmax along one axis."""
    return apply("softmax", x, name=name, axis=axis)[0]


def dropout(x: Traced, rate: float, *, name: str | None = None) -> Traced:
    """Random zeros at a rate, the rest scaled up; x itself, without a statement, at rate 0. Keeps a 1-byte mask."""
    return apply("dropout", x, name=name, rate=rate)[0] if rate else x


def rms_norm(
    x: Traced, weight: Traced | None = None, *, axis: str = "d", eps: float = 1e-6, name: str | None = None
) -> Traced:
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467).

    Args:
        x: what is normalised.
        weight: scale, of the axes normalised over.
        axis: one axis, or several parted by spaces: `n g k` for all heads together.
        eps: added under the root.
        name: of the result.
    """
    return _norm("rms", (x, weight), axis, eps, name)


def layer_norm(
    x: Traced,
    weight: Traced | None = None,
    bias: Traced | None = None,
    *,
    axis: str = "d",
    eps: float = 1e-5,
    name: str | None = None,
) -> Traced:
    """Layer norm along one axis, or several as for `rms_norm` (Ba et al. 2016, arXiv 1607.06450)."""
    if weight is None and bias is not None:
        raise ProgramError("a layer norm with a bias needs a scale")
    return _norm("layer", (x, weight, bias), axis, eps, name)


def _norm(variant: str, operands: tuple[Traced | None, ...], axis: str, eps: float, name: str | None) -> Traced:
    axes = tuple(axis.split())
    given = [operand for operand in operands if operand is not None]
    return apply("norm", *given, name=name, variant=variant, axis=axes if len(axes) > 1 else axis, eps=eps)[0]


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


def rope(
    x: Traced,
    axis: str = "k",
    sequence: str = "s",
    *,
    theta: float = 10000.0,
    rotary: int = 0,
    name: str | None = None,
) -> Traced:
    """Rotary embedding of the head axis by the position along `sequence` (Su et al. 2021, arXiv 2104.09864).

    Args:
        x: queries or keys.
        axis: the head axis.
        sequence: the axis of positions.
        theta: base of the angles.
        rotary: how many elements of `axis`, from the first, are turned (partial rotary embedding); 0 for all.
        name: of the result.
    """
    options: dict[str, Option] = {"axis": axis, "sequence": sequence, "theta": theta}
    options |= {"rotary": rotary} if rotary else {}
    return x.tracer.record("rope", (x,), (), options, name)[0]


def lookup(table: Traced, indices: Traced, axis: str, *, name: str | None = None) -> Traced:
    """Rows of a table: the element of `axis` that each index names."""
    return apply("lookup", table, indices, name=name, axis=axis)[0]


def cross_entropy(logits: Traced, targets: Traced, axis: str = "v", *, name: str | None = None) -> Traced:
    """Loss of each token, in fp32: log-sum-exp of its logits less the target's logit. Keeps the log-sum-exp."""
    return apply("cross_entropy", logits, targets, name=name, axis=axis)[0]
