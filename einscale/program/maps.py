"""What each operation that is not an einsum costs, needs whole, reduces, passes on and saves: the table looked up."""

from __future__ import annotations

from collections.abc import Mapping

from einscale.errors import ProgramError, did_you_mean
from einscale.numeric import Number, maximum, minimum
from einscale.program.map_backward import BACKWARD_MAPS
from einscale.program.map_forward import FORWARD_MAPS
from einscale.program.map_rule import MapRule
from einscale.program.values import Option, Statement, Value
from einscale.vocabulary import RESIDUAL, Reduction

MAPS: dict[str, MapRule] = {rule.name: rule for rule in (*FORWARD_MAPS, *BACKWARD_MAPS)}
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


def flops_per_element(statement: Statement) -> float:
    """FLOPs of a map for each element of what its rule counts on.

    >>> conv = Statement("causal_conv", ("x", "w"), ("y",), options=(("sequence", "s"), ("taps", "c"), ("width", 4)))
    >>> flops_per_element(conv)
    8
    """
    flops: float = rule(statement).flops_per_element
    for name in rule(statement).times:
        number = statement.option(name, 1)
        flops *= number if isinstance(number, (int, float)) else 1
    return flops


def statistics(statement: Statement) -> tuple[Reduction, ...]:
    """Reductions over option `axis` that a statement needs where an axis it names is sharded; none for an einsum.

    >>> print(*statistics(Statement("softmax", ("x",), ("y",), options=(("axis", "t"),))))
    max sum
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
    return (Value(name, statistic_axes(statement, table), "fp32", RESIDUAL),)


def attended_pairs(statement: Statement, queries: Number, keys: Number) -> Number:
    """How many (query, key) pairs a mask lets through, exactly; the queries are the last ones of the keys.

    >>> causal = Statement("mask", ("x",), ("y",), options=(("causal", 1),))
    >>> windowed = Statement("mask", ("x",), ("y",), options=(("causal", 1), ("window", 2)))
    >>> attended_pairs(causal, 4, 4), attended_pairs(windowed, 4, 4), attended_pairs(causal, 1, 4)
    (10, 7, 4)
    """
    if statement.op not in ("mask", "mask_backward") or not statement.option("causal", 0):
        return queries * keys
    limit = statement.option("window", 0)
    window = limit if isinstance(limit, int) and limit else keys
    before = keys - queries
    growing = minimum(maximum(window - before, 0), queries)
    return growing * before + growing * (growing + 1) // 2 + (queries - growing) * minimum(window, keys)
