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
from einscale.program.regions import group, section
from einscale.program.tracer import ACTIVE, Traced, Tracer, parse_declaration, parse_einsum
from einscale.program.values import Option, Program
from einscale.vocabulary import INPUT, PARAMETER

__all__ = [
    "Traced",
    "Tracer",
    "add",
    "apply",
    "arrange",
    "broadcast",
    "cast",
    "causal_conv",
    "clamp",
    "combine",
    "cross_entropy",
    "delta_rule",
    "dispatch",
    "dropout",
    "einsum",
    "exp",
    "geglu",
    "gelu",
    "group",
    "layer_norm",
    "log_softmax",
    "lookup",
    "mask",
    "mul",
    "parse_declaration",
    "parse_einsum",
    "pick",
    "relu",
    "rms_norm",
    "rope",
    "route",
    "scale",
    "section",
    "sigmoid",
    "silu",
    "softcap",
    "softmax",
    "softplus",
    "sum_over",
    "swiglu",
    "swiglu_clamped",
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
        tensors = {key: tracer.feed(key, text, INPUT) for key, text in inputs.items()}
        tensors |= {key: tracer.feed(key, text, PARAMETER) for key, text in (parameters or {}).items()}
        result = function(**tensors)
        outputs = result if isinstance(result, tuple) else (result,)
        for output in outputs:
            if not isinstance(output, Traced):
                raise ProgramError(f"the function returns {type(output).__name__}, not a traced tensor")
        return tracer.finish(name or function.__name__, outputs, composites or {}, tied, repeat)
    finally:
        ACTIVE.reset(token)


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


def softmax(x: Traced, axis: str, sink: Traced | None = None, *, name: str | None = None) -> Traced:
    """Softmax along one axis; a sink is one more score of each row, whose share goes to nothing."""
    return apply("softmax", x, *(() if sink is None else (sink,)), name=name, axis=axis)[0]


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


def sigmoid(x: Traced, *, name: str | None = None) -> Traced:
    """1 / (1 + exp(-x))."""
    return apply("sigmoid", x, name=name)[0]


def softplus(x: Traced, *, name: str | None = None) -> Traced:
    """log(1 + exp(x))."""
    return apply("softplus", x, name=name)[0]


def exp(x: Traced, *, name: str | None = None) -> Traced:
    """The exponential function."""
    return apply("exp", x, name=name)[0]


def broadcast(x: Traced, axes: str, *, name: str | None = None) -> Traced:
    """Copies along the axes that `x` does not have yet: `broadcast(x, "b s n g k")`."""
    return apply("broadcast", x, name=name, axes=tuple(axes.split()))[0]


def swiglu_clamped(gate: Traced, up: Traced, *, limit: float, alpha: float, name: str | None = None) -> Traced:
    """The experts of gpt-oss: gate sigmoid(alpha gate) (up + 1), with gate at most `limit` and up within it."""
    return apply("swiglu_clamped", gate, up, name=name, limit=limit, alpha=alpha)[0]


def causal_conv(
    x: Traced, weight: Traced, *, width: int, sequence: str = "s", taps: str = "c", name: str | None = None
) -> Traced:
    """Each channel of x convolved along the sequence with taps of its own, its last tap on the token itself.

    Args:
        x: channels for each token.
        weight: of the axes of the channels, and `taps`.
        width: how many taps.
        sequence: axis of positions; it must be whole.
        taps: axis of the taps.
        name: of the result.
    """
    return apply("causal_conv", x, weight, name=name, width=width, sequence=sequence, taps=taps)[0]


def delta_rule(
    queries: Traced,
    keys: Traced,
    values: Traced,
    decay: Traced,
    rate: Traced,
    *,
    sizes: tuple[int, int],
    chunk: int = 64,
    name: str | None = None,
) -> Traced:
    """Gated delta rule (Yang et al. 2024, arXiv 2412.06464): a matrix that forgets, and learns each value at its key.

    With queries q and keys k of length one, the state S of a head is exp(-decay) S + rate k (v - S' k)', S' the state
    after forgetting, and its result S q / sqrt(key size). FLOPs are those of the chunked form (section 3.3 there) with
    chunks of C tokens, triangles counted as squares: for each token and head, 6 k u for the products with the state
    (twice read, once written) and C (6 k + 4 u) inside the chunk (key with key, query with key, and the triangular
    system applied to keys: 2 C k each; applied to values, and attention to them: 2 C u each). Solving the system, about
    C^2 / 3 more, is left out.

    Args:
        queries: b s heads k.
        keys: b s heads k.
        values: b s heads u.
        decay: b s heads.
        rate: b s heads.
        sizes: of a key and of a value.
        chunk: tokens in a chunk.
        name: of the result, b s heads u.
    """
    key, value = sizes
    flops = 6 * key * value + chunk * (6 * key + 4 * value)
    options: dict[str, Option] = {"axis": queries.axes[-1], "value": values.axes[-1], "sequence": "s"}
    options |= {"chunk": chunk, "flops": -(-flops // max(key, value))}
    return queries.tracer.record("delta_rule", (queries, keys, values, decay, rate), (), options, name)[0]


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


def log_softmax(x: Traced, axis: str = "v", *, name: str | None = None) -> Traced:
    """Logarithm of the softmax along `axis`, a tensor of its own: the loss as a framework runs it op by op."""
    return apply("log_softmax", x, name=name, axis=axis)[0]


def pick(x: Traced, targets: Traced, axis: str = "v", *, name: str | None = None) -> Traced:
    """Minus the element of `x` that a target names along `axis`; of log-probabilities, the loss of each token, fp32."""
    return apply("pick", x, targets, name=name, axis=axis)[0]


def route(
    logits: Traced,
    top: int,
    axis: str = "e",
    *,
    scoring: str = "softmax",
    normalise: bool = True,
    factor: float = 1.0,
    groups: int = 1,
    top_groups: int = 0,
    bias: Traced | None = None,
    name: str | None = None,
) -> Traced:
    """The weights of the `top` elements of an axis with the largest scores; the others do not exist.

    Args:
        logits: a router's scores, the axis among their axes.
        top: how many are chosen at each position.
        axis: what is chosen of: experts.
        scoring: `softmax` over all logits (Fedus et al. 2022, arXiv 2101.03961), or `sigmoid` of each.
        normalise: the weights of those chosen sum to one: a softmax over them alone (Jiang et al. 2024, Mixtral, arXiv
            2401.04088).
        factor: what the weights are multiplied with.
        groups: groups the axis is in, contiguous and equal; those chosen lie in the best `top_groups` of them
            (node-limited routing: DeepSeek-V3, arXiv 2412.19437, section 2.1.2). 1 for no limit.
        top_groups: see `groups`; 0 for all.
        bias: added to the scores for the choice only, of the chosen axis; no gradient.
        name: of the result.
    """
    options: dict[str, Option] = {"axis": axis, "scoring": scoring, "top": top}
    options |= {"normalise": 1} if normalise else {}
    options |= {"factor": factor} if factor != 1 else {}
    options |= {"groups": groups, "top_groups": top_groups or groups} if groups != 1 else {}
    operands = (logits,) if bias is None else (logits, bias)
    return logits.tracer.record("route", operands, (), options, name)[0]


def dispatch(x: Traced, gates: Traced, axis: str = "e", *, capacity: float = 1.0, name: str | None = None) -> Traced:
    """Copies of each row of `x`, one for each element of `axis` that its weights choose.

    Args:
        x: rows of tokens.
        gates: the result of `route`.
        axis: what was chosen of; it becomes the first axis of the result.
        capacity: rows kept for each element, as a multiple of the mean; 1 drops and pads nothing.
        name: of the result.
    """
    options: dict[str, Option] = {"axis": axis}
    if capacity != 1:
        options["capacity"] = capacity
    return x.tracer.record("dispatch", (x, gates), (), options, name)[0]


def arrange(x: Traced, *, name: str | None = None) -> Traced:
    """Rows that were dispatched, put next to each other by expert: the same numbers, read and written once."""
    return apply("arrange", x, name=name)[0]


def combine(x: Traced, axis: str = "e", *, name: str | None = None) -> Traced:
    """Sum over the chosen elements of an axis."""
    return apply("combine", x, name=name, axis=axis)[0]
