"""Why a collective runs, in words: which tensor, index, axis and rule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from einscale.layout import Layout
from einscale.mesh import split_name
from einscale.program.values import Statement, Value
from einscale.strategy import LARGEST, Strategy

Composites = Mapping[str, tuple[str, ...]]


def _described(statement: Statement) -> str:
    """A statement, named so that a reader finds its row."""
    what = "the einsum" if statement.op == "einsum" else f"`{statement.op}`"
    return f"{what} for `{statement.output}`"


def _differing(labels: Sequence[str], before: Layout, after: Layout) -> tuple[dict[str, str], dict[str, str]]:
    """Dims that the first layout divides further, and dims that the second does, as `label/axis`."""
    lost: dict[str, str] = {}
    won: dict[str, str] = {}
    for label, first, second in zip(labels, before.dims, after.dims, strict=True):
        if first != second:
            longer = first if len(first) >= len(second) else second
            (lost if longer is first else won)[label] = "/".join((label, *longer))
    return lost, won


def _rule(
    strategy: Strategy, kind: str, indices: Iterable[str], composites: Composites, scopes: Collection[str]
) -> str:
    """The rule that divides one of the given indices: of the class's store table, else of the compute table."""
    names = set(indices)
    for table, rules in ((f"store.{kind}", strategy.store_rules(kind)), ("compute", strategy.compute)):
        for rule in rules:
            if rule.scope and rule.scope not in scopes:
                continue
            if names & {rule.index, *composites.get(rule.index, ())} or (rule.index == LARGEST and names):
                return f" (rule {table}: {rule} of {strategy.name})"
    return ""


def gather_cause(
    statement: Statement,
    value: Value,
    kind: str,
    layouts: tuple[Layout, Layout],
    labels: Sequence[str],
    strategy: Strategy,
    composites: Composites,
    scopes: Collection[str] = (),
) -> str:
    """Cause of the moves that bring an operand to where it is read.

    Args:
        statement: what reads it.
        value: the operand.
        kind: its class in the store tables.
        layouts: the one it is at hand in, and the one it is read in.
        labels: names of its dims in the statement.
        strategy: for the rule that divides it.
        composites: name -> the indices it is made of.
        scopes: groups and sections of the statements whose rules may be named.
    """
    resting, wanted = layouts
    what = {"parameter": "parameter", "gradient": "gradient"}.get(value.kind, "tensor")
    lost, won = _differing(labels, resting, wanted)
    axes = [axis for axis, dim in zip(value.axes, labels, strict=True) if dim in (lost or won)]
    words = _rule(strategy, kind, axes, composites, scopes)
    if lost:
        where = ", ".join(lost.values())
        reads = f"{_described(statement)} reads it as `{wanted.text(labels)}`"
        return f"{what} `{value.name}` rests divided as {where}; {reads}{words}"
    if won:
        return f"{_described(statement)} reads {what} `{value.name}` divided as {', '.join(won.values())}{words}"
    return ""


def result_cause(
    value: Value,
    kind: str,
    layouts: tuple[Layout, Layout],
    labels: Sequence[str],
    placement: Mapping[str, tuple[str, ...]],
    strategy: Strategy,
    composites: Composites,
    scopes: Collection[str] = (),
) -> str:
    """Cause of the moves that bring a result to rest.

    Args:
        value: the result.
        kind: its class in the store tables.
        layouts: the one the local work leaves it in, and the one it rests in.
        labels: names of its dims in the statement.
        placement: index -> mesh axes of the statement's iteration space.
        strategy: for the rules that divide what is summed, and say where the result rests.
        composites: name -> the indices it is made of.
        scopes: groups and sections of the statements whose rules may be named.
    """
    natural, resting = layouts
    parts = []
    if natural.unreduced:
        summed = [label for label, axes in placement.items() if axes and label not in labels]
        axes = "/".join(dict.fromkeys(split_name(axis)[0] for axis in natural.unreduced))
        if summed:
            verb = "is" if len(summed) == 1 else "are"
            names = " and ".join(f"`{label}`" for label in summed)
            words = _rule(strategy, "", summed, composites, scopes)
            parts.append(f"{names} {verb} summed over and divided over {axes}{words}: `{value.name}` is in parts")
        else:
            parts.append(f"the values added up are in parts over {axes}: their sum is reduced once")
    lost, won = _differing(labels, natural, resting)
    if lost or won:
        words = _rule(strategy, kind, won or lost, composites, scopes)
        parts.append(f"`{value.name}` rests as `{resting.text(labels)}`{words}")
    return "; ".join(parts)


def statistic_cause(
    statement: Statement,
    axis: str,
    over: Sequence[str],
    reduction: str,
    strategy: Strategy,
    composites: Composites,
    scopes: Collection[str] = (),
) -> str:
    """Cause of the all-reduce of a map's statistic."""
    words = _rule(strategy, "residual", axis.split(), composites, scopes)
    return f"{_described(statement)} needs the {reduction} over `{axis}`, which is divided over {'/'.join(over)}{words}"
