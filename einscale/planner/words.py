"""Why a collective runs, in words: which tensor, index, axis and rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from einscale.layout import Layout
from einscale.mesh import split_name
from einscale.program.values import Statement, Value
from einscale.strategy import Strategy


def _described(statement: Statement) -> str:
    """A statement, named so that a reader finds its row."""
    what = "the einsum" if statement.op == "einsum" else f"`{statement.op}`"
    return f"{what} for `{statement.output}`"


def _differing(labels: Sequence[str], before: Layout, after: Layout) -> tuple[list[str], list[str]]:
    """Dims that the first layout divides further, and dims that the second does."""
    lost: list[str] = []
    won: list[str] = []
    for label, first, second in zip(labels, before.dims, after.dims, strict=True):
        if first != second:
            (lost if len(first) >= len(second) else won).append(
                f"{label}{''.join('/' + a for a in max(first, second, key=len))}"
            )
    return lost, won


def gather_cause(
    statement: Statement, value: Value, resting: Layout, wanted: Layout, labels: Sequence[str], strategy: Strategy
) -> str:
    """Cause of the moves that bring an operand to where it is read."""
    what = {"parameter": "parameter", "gradient": "gradient"}.get(value.kind, "tensor")
    lost, won = _differing(labels, resting, wanted)
    parts = []
    if lost:
        parts.append(f"{what} `{value.name}` rests divided as {', '.join(lost)}")
        parts.append(f"{_described(statement)} reads it as `{wanted.text(labels)}`")
    elif won:
        parts.append(f"{_described(statement)} reads {what} `{value.name}` divided as {', '.join(won)}")
    rules = _rules_of(strategy, value, lost)
    return "; ".join(parts) + (f" (rule {rules} of {strategy.name})" if rules else "")


def _rules_of(strategy: Strategy, value: Value, dims: Sequence[str]) -> str:
    """The store rules that speak of the given dims."""
    kind = "parameters" if value.kind == "parameter" else "residual"
    names = [dim.split("/")[0] for dim in dims]
    found = [
        str(r) for r in strategy.store_rules(kind) if r.index in names or (r.index == "*" and kind == "parameters")
    ]
    return f"store.{kind}: {found[0]}" if found else ""


def result_cause(
    value: Value,
    natural: Layout,
    resting: Layout,
    labels: Sequence[str],
    placement: Mapping[str, tuple[str, ...]],
    strategy: Strategy,
) -> str:
    """Cause of the moves that bring a result to rest.

    Args:
        value: the result.
        natural: the layout the local work leaves it in.
        resting: the layout it rests in.
        labels: names of its dims in the statement.
        placement: index -> mesh axes of the statement's iteration space.
        strategy: for the rule that says where it rests.
    """
    parts = []
    if natural.unreduced:
        summed = [f"`{label}`" for label, axes in placement.items() if axes and label not in labels]
        verb = "is" if len(summed) == 1 else "are"
        axes = "/".join(dict.fromkeys(split_name(axis)[0] for axis in natural.unreduced))
        if summed:
            parts.append(
                f"{' and '.join(summed)} {verb} summed over and divided over {axes}: `{value.name}` is in parts"
            )
        else:
            parts.append(f"the values added up are in parts over {axes}: their sum is reduced once")
    lost, won = _differing(labels, natural, resting)
    if lost or won:
        parts.append(f"it rests as `{resting.text(labels)}`")
    kind = "gradients" if value.kind == "gradient" and "residual" not in dict(strategy.store) else "residual"
    names = [dim.split("/")[0] for dim in won]
    found = [str(r) for r in strategy.store_rules(kind) if r.index in (*names, "*")]
    suffix = f" (rule store.{kind}: {found[0]} of {strategy.name})" if won and found else ""
    return "; ".join(parts) + suffix


def statistic_cause(statement: Statement, axis: str, over: Sequence[str], reduction: str) -> str:
    """Cause of the all-reduce of a map's statistic."""
    return f"{_described(statement)} needs the {reduction} over `{axis}`, which is divided over {'/'.join(over)}"
