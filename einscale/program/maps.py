"""The table of maps: what each operation that is not an einsum costs, needs whole, reduces, passes on and saves.

FLOPs are counted as one for each addition, multiplication, division, comparison, square root and transcendental, in the
usual way of writing the operation; they are small beside the einsums, and a map is almost always bound by memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from einscale.errors import ProgramError, did_you_mean
from einscale.numeric import Number, maximum, minimum
from einscale.program.values import Option, Statement, Value


class MapRule(Struct, frozen=True):
    """What the planner, the memory and the cost model know about one map.

    Args:
        name: the op, and for a norm its variant (`norm.rms`).
        flops_per_element: FLOPs for each element of what `counted_on` says.
        why: how the FLOPs were counted, one sentence.
        operands: fewest and most inputs.
        shape: how the outputs' axes follow from the inputs (see `shapes`).
        extra_outputs: suffixes of the outputs after the first; those of forward maps are residuals.
        needs: options that must be given.
        takes: options that may be given.
        linear: passes an owed sum through: of all operands for `add`, else of the first with the others held fixed.
        statistic: reductions over the axes named by option `axis` (one, or several in brackets: a norm over all heads),
            needed where one of them is sharded. Each has the first input's axes without those and is fp32.
        whole: options whose axes must not be sharded.
        saves_inputs: positions of the inputs that the backward pass reads.
        saves_outputs: positions of the outputs that the backward pass reads.
        integer_inputs: positions of inputs that are indices: no gradient.
        counted_on: `largest` (input or output) or `first` (input).
        row_inputs: inputs of which only as many elements as the output has are read: the rows of a table.
        fused_residual: statistic that a fused group keeps for the backward pass instead of the output: `lse`.
    """

    name: str
    flops_per_element: int
    why: str
    operands: tuple[int, int] = (1, 1)
    shape: str = "elementwise"
    extra_outputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    linear: bool = False
    statistic: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    saves_inputs: tuple[int, ...] = ()
    saves_outputs: tuple[int, ...] = ()
    integer_inputs: tuple[int, ...] = ()
    counted_on: str = "largest"
    row_inputs: tuple[int, ...] = ()
    fused_residual: str = ""

    def saved(self, statement: Statement) -> tuple[str, ...]:
        """Names among the statement's inputs and outputs that its backward pass reads, each once.

        >>> statement = Statement("dropout", ("x",), ("y", "y_mask"), options=(("rate", 0.1),))
        >>> MAPS["dropout"].saved(statement)
        ('y_mask',)
        """
        inputs = [statement.inputs[i] for i in self.saves_inputs if i < len(statement.inputs)]
        outputs = [statement.outputs[i] for i in self.saves_outputs if i < len(statement.outputs)]
        return tuple(dict.fromkeys(inputs + outputs))


MANY = 64
"""Most operands of an n-ary map."""

_NORM = ("axis", "variant")
_ROPE = ("axis", "sequence")
_ROPE_MAY = ("rotary", "theta")
_MASK = ("alibi", "causal", "factor", "heads", "key", "query", "window")

_FORWARD = (
    MapRule("add", 1, "one addition for each further operand, most have two", (2, MANY), linear=True),
    MapRule("mul", 1, "one multiplication", (2, 2), saves_inputs=(0, 1)),
    MapRule("scale", 1, "one multiplication", needs=("factor",), linear=True),
    MapRule("cast", 0, "a change of format, no arithmetic", shape="cast", needs=("dtype",), linear=True),
    MapRule("sum", 1, "one addition for each element summed", shape="sum", needs=("axes",), linear=True),
    MapRule("broadcast", 0, "copies", shape="broadcast", needs=("axes",), linear=True),
    MapRule("mask", 2, "one multiplication by the factor, one selection", takes=_MASK),
    MapRule(
        "softcap",
        3,
        "cap tanh(c x): two multiplications and a tanh",
        needs=("cap",),
        takes=("factor",),
        saves_outputs=(0,),
    ),
    MapRule("clamp", 2, "two comparisons", needs=("limit",), saves_outputs=(0,)),
    MapRule(
        "softmax",
        5,
        "maximum, subtraction, exponential, sum, division",
        needs=("axis",),
        statistic=("max", "sum"),
        saves_outputs=(0,),
        fused_residual="lse",
    ),
    MapRule(
        "dropout",
        3,
        "one random comparison, one multiplication by the mask, one by 1/(1-rate)",
        extra_outputs=("mask",),
        needs=("rate",),
        saves_outputs=(1,),
    ),
    MapRule(
        "norm.rms",
        4,
        "square, sum, times the reciprocal root, times the scale",
        (1, 2),
        "first",
        needs=_NORM,
        takes=("eps",),
        statistic=("sum",),
        saves_inputs=(0, 1),
    ),
    MapRule(
        "norm.layer",
        7,
        "sum, subtraction of the mean, square, sum, times the reciprocal root, times the scale, plus the bias",
        (1, 3),
        "first",
        needs=_NORM,
        takes=("eps",),
        statistic=("sum", "sum"),
        saves_inputs=(0, 1),
    ),
    MapRule(
        "gelu",
        9,
        "tanh form x(1+tanh(c(x+ax^3)))/2: 5 multiplications, 2 additions, tanh, half",
        takes=("approximate",),
        saves_inputs=(0,),
    ),
    MapRule("relu", 1, "one comparison", saves_outputs=(0,)),
    MapRule("silu", 4, "x/(1+exp(-x)): negation, exponential, addition, division", saves_inputs=(0,)),
    MapRule("swiglu", 5, "silu (4) times the up projection", (2, 2), saves_inputs=(0, 1)),
    MapRule("geglu", 10, "gelu (9) times the up projection", (2, 2), takes=("approximate",), saves_inputs=(0, 1)),
    MapRule(
        "rope",
        3,
        "x cos + rotated x sin: two multiplications and an addition",
        needs=_ROPE,
        takes=_ROPE_MAY,
        linear=True,
        whole=("axis",),
    ),
    MapRule(
        "lookup",
        0,
        "copies rows of a table",
        (2, 2),
        "lookup",
        needs=("axis",),
        saves_inputs=(1,),
        integer_inputs=(1,),
        row_inputs=(0,),
    ),
    MapRule(
        "cross_entropy",
        4,
        "maximum, subtraction, exponential, sum for each logit",
        (2, 2),
        "reduce",
        ("lse",),
        needs=("axis",),
        statistic=("max", "sum", "sum"),
        saves_inputs=(0, 1),
        saves_outputs=(1,),
        integer_inputs=(1,),
    ),
)

_BACKWARD = (
    MapRule("mask_backward", 2, "one multiplication by the factor, one selection", takes=_MASK),
    MapRule(
        "softcap_backward",
        5,
        "y over cap, its square, one minus it, times g, times the factor",
        (2, 2),
        needs=("cap",),
        takes=("factor",),
    ),
    MapRule("clamp_backward", 2, "one comparison of the magnitude, one selection", (2, 2), needs=("limit",)),
    MapRule(
        "softmax_backward",
        4,
        "y(g - sum(g y)): multiplication, sum, subtraction, multiplication",
        (2, 2),
        needs=("axis",),
        statistic=("sum",),
    ),
    MapRule(
        "dropout_backward",
        2,
        "one multiplication by the mask, one by 1/(1-rate)",
        (2, 2),
        "first",
        needs=("rate",),
        linear=True,
    ),
    MapRule(
        "norm_backward.rms",
        9,
        "the root of x again (2), g times scale, times x, sum, then r g - x c: 4",
        (2, 3),
        "first",
        needs=_NORM,
        takes=("eps",),
        statistic=("sum", "sum"),
    ),
    MapRule(
        "norm_backward.layer",
        14,
        "mean and root of x again (4), normalised x (2), g times scale, its sum, times x and sum (3), the result (4)",
        (2, 3),
        "first",
        needs=_NORM,
        takes=("eps",),
        statistic=("sum", "sum", "sum", "sum"),
    ),
    MapRule(
        "norm_scale_backward.rms",
        5,
        "the root of x again (2), normalised x, times g, sum",
        (2, 2),
        "axis",
        needs=_NORM,
        takes=("eps",),
        statistic=("sum",),
    ),
    MapRule(
        "norm_scale_backward.layer",
        8,
        "mean and root of x again (4), normalised x (2), times g, sum",
        (2, 2),
        "axis",
        needs=_NORM,
        takes=("eps",),
        statistic=("sum", "sum"),
    ),
    MapRule(
        "gelu_backward", 15, "the tanh again (6), its derivative (7), times g, add", (2, 2), takes=("approximate",)
    ),
    MapRule("relu_backward", 1, "one selection", (2, 2)),
    MapRule("silu_backward", 7, "the sigmoid again (3), s(1+x(1-s)) (3), times g", (2, 2)),
    MapRule("swiglu_backward", 10, "silu_backward (7) times up, and g times silu (2)", (3, 3), "operands", ("up",)),
    MapRule(
        "geglu_backward",
        18,
        "gelu_backward (15) times up, and g times gelu (2)",
        (3, 3),
        "operands",
        ("up",),
        takes=("approximate",),
    ),
    MapRule(
        "rope_backward",
        3,
        "the rotation back: two multiplications and an addition",
        needs=_ROPE,
        takes=_ROPE_MAY,
        linear=True,
        whole=("axis",),
    ),
    MapRule(
        "lookup_backward",
        1,
        "each row of the gradient is added to a row of the table's gradient",
        (2, 2),
        "table",
        needs=("axis",),
        linear=True,
        integer_inputs=(1,),
        counted_on="first",
    ),
    MapRule(
        "cross_entropy_backward",
        4,
        "exp(logit - lse) minus one at the target, times the loss's gradient",
        (3, 4),
        "first",
        needs=("axis",),
        integer_inputs=(1,),
    ),
)

MAPS: dict[str, MapRule] = {rule.name: rule for rule in (*_FORWARD, *_BACKWARD)}
"""Op, or op and variant, to what is known about it."""

OPS: tuple[str, ...] = tuple(dict.fromkeys(["einsum", *(name.partition(".")[0] for name in MAPS)]))
"""Every op that a statement may have."""

VARIANTS: dict[str, tuple[str, ...]] = {
    op: tuple(name.partition(".")[2] for name in MAPS if name.partition(".")[0] == op and "." in name) for op in OPS
}
"""Op -> the variants it comes in; none for most."""


def find_rule(op: str, variant: object = "") -> MapRule:
    """The rule of a map.

    >>> find_rule("norm", "rms").flops_per_element
    4

    Raises:
        ProgramError: no such map, or no such variant of it.
    """
    found = MAPS.get(op) or MAPS.get(f"{op}.{variant}")
    if found is not None:
        return found
    if VARIANTS.get(op):
        raise ProgramError(
            f"{op} has no variant `{variant}`" if variant else f"{op} needs the option `variant`",
            expected="one of " + ", ".join(VARIANTS[op]),
        )
    raise ProgramError(f"unknown map `{op}`", hint=did_you_mean(op, OPS, "the maps are"))


def rule(statement: Statement) -> MapRule:
    """The rule of a map statement.

    Raises:
        ProgramError: no such map.
    """
    return MAPS.get(statement.op) or find_rule(statement.op, statement.option("variant"))


def statistics(statement: Statement) -> tuple[str, ...]:
    """Reductions over option `axis` that a statement needs where an axis it names is sharded; none for an einsum.

    >>> statistics(Statement("softmax", ("x",), ("y",), options=(("axis", "t"),)))
    ('max', 'sum')
    """
    return () if statement.op == "einsum" else rule(statement).statistic


def option_axes(option: Option) -> tuple[str, ...]:
    """Axes that an option names: one word, or several in brackets.

    >>> option_axes("k"), option_axes(("n", "k")), option_axes("")
    (('k',), ('n', 'k'), ())
    """
    return option if isinstance(option, tuple) else (str(option),) if option else ()


def reduced_axes(statement: Statement) -> tuple[str, ...]:
    """Axes that a statement's statistics reduce; none if it has no statistic.

    >>> reduced_axes(Statement("softmax", ("x",), ("y",), options=(("axis", "t"),)))
    ('t',)
    """
    return option_axes(statement.option("axis")) if statistics(statement) else ()


def statistic_axes(statement: Statement, table: Mapping[str, Value]) -> tuple[str, ...]:
    """Axes of one statistic: those of the first input that are not normalised over."""
    gone = option_axes(statement.option("axis"))
    return tuple(name for name in table[statement.inputs[0]].axes if name not in gone)


def whole_axes(statement: Statement) -> tuple[str, ...]:
    """Axes that must not be sharded while the statement runs.

    >>> whole_axes(Statement("rope", ("q",), ("r",), options=(("axis", "k"), ("sequence", "s"))))
    ('k',)
    """
    names = () if statement.op == "einsum" else rule(statement).whole
    return tuple(str(statement.option(name)) for name in names)


def saved(statement: Statement) -> tuple[str, ...]:
    """Names that the backward pass of a statement reads: of an einsum its operands, if it has more than one.

    Parameters are among them; they are kept anyway and count nowhere as activations.

    >>> saved(Statement("einsum", ("x", "w"), ("y",), labels=(("b", "d"), ("d", "f"), ("b", "f"))))
    ('x', 'w')
    """
    if statement.op == "einsum":
        return tuple(dict.fromkeys(statement.inputs)) if len(statement.inputs) > 1 else ()
    return rule(statement).saved(statement)


def summed_axes(statement: Statement, table: Mapping[str, Value]) -> tuple[str, ...]:
    """Axes of a map's inputs that none of its outputs has and that no statistic reduces: their sum is owed.

    The bias gradient sums over batch and sequence, a lookup over the vocabulary.

    >>> table = {"g": Value("g", ("b", "s", "d"), "bf16"), "d_bias": Value("d_bias", ("d",), "bf16")}
    >>> summed_axes(Statement("sum", ("g",), ("d_bias",), options=(("axes", ("b", "s")),)), table)
    ('b', 's')
    """
    made = {axis for name in statement.outputs for axis in table[name].axes}
    made.update(reduced_axes(statement))
    read = dict.fromkeys(axis for name in statement.inputs for axis in table[name].axes)
    return tuple(axis for axis in read if axis not in made)


def fused_residuals(statement: Statement, table: Mapping[str, Value]) -> tuple[Value, ...]:
    """What a fused group keeps of a statement so that the interior can be redone: a softmax's log-sum-exp, in fp32.

    Flash attention keeps 4 bytes for each query and head (Dao et al. 2022, arXiv 2205.14135).
    """
    if statement.op == "einsum" or not rule(statement).fused_residual:
        return ()
    name = f"{statement.output}_{rule(statement).fused_residual}"
    return (Value(name, statistic_axes(statement, table), "fp32", "residual"),)


def attended_pairs(statement: Statement, queries: Number, keys: Number) -> Number:
    """How many (query, key) pairs a mask lets through, exactly; the queries are the last ones of the keys.

    >>> causal = Statement("mask", ("x",), ("y",), options=(("causal", 1),))
    >>> windowed = Statement("mask", ("x",), ("y",), options=(("causal", 1), ("window", 2)))
    >>> attended_pairs(causal, 4, 4), attended_pairs(windowed, 4, 4), attended_pairs(causal, 1, 4)
    (10, 7, 4)
    """
    if statement.op not in ("mask", "mask_backward") or not statement.option("causal", 0):
        return queries * keys
    window: Number = statement.option("window", 0) or keys
    before = keys - queries
    growing = minimum(maximum(window - before, 0), queries)
    return growing * before + growing * (growing + 1) // 2 + (queries - growing) * minimum(window, keys)
