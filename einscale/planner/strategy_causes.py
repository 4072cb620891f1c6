"""Why a collective of a program under a strategy runs: which tensor, index, axis, and row of the strategy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from einscale.causes import CauseRule, ProgramCause, TableRow
from einscale.layout import Layout
from einscale.mesh import split_name
from einscale.program.values import Statement, Value
from einscale.strategy import LARGEST, Strategy
from einscale.vocabulary import Reduction, TensorClass

Composites = Mapping[str, tuple[str, ...]]

Divided = tuple[tuple[str, tuple[str, ...]], ...]


def _differing(labels: Sequence[str], before: Layout, after: Layout) -> tuple[Divided, Divided]:
    """Dims that the first layout divides further, and dims that the second does, with their mesh axes."""
    lost: list[tuple[str, tuple[str, ...]]] = []
    won: list[tuple[str, tuple[str, ...]]] = []
    for label, first, second in zip(labels, before.dims, after.dims, strict=True):
        if first != second:
            longer = first if len(first) >= len(second) else second
            (lost if longer is first else won).append((label, longer))
    return tuple(lost), tuple(won)


def _row(
    strategy: Strategy,
    kind: TensorClass | None,
    indices: Iterable[str],
    composites: Composites,
    scopes: Collection[str],
) -> TableRow | None:
    """The row that divides one of the given indices: of the class's store table, else of the compute table."""
    names = set(indices)
    stored = strategy.store_rules(kind) if kind else ()
    for table, rules in ((f"store.{kind}", stored), ("compute", strategy.compute)):
        for rule in rules:
            if rule.scope and rule.scope not in scopes:
                continue
            if names & {rule.index, *composites.get(rule.index, ())} or (rule.index == LARGEST and names):
                return TableRow(table, str(rule), strategy.name)
    return None


def gather_cause(
    statement: Statement,
    value: Value,
    kind: TensorClass | None,
    layouts: tuple[Layout, Layout],
    labels: Sequence[str],
    strategy: Strategy,
    composites: Composites,
    scopes: Collection[str] = (),
) -> ProgramCause | None:
    """Cause of the moves that bring an operand to where it is read; None where the two layouts divide alike.

    Args:
        statement: what reads it.
        value: the operand.
        kind: its class in the store tables, None for none.
        layouts: the one it is at hand in, and the one it is read in.
        labels: names of its dims in the statement.
        strategy: for the row that divides it.
        composites: name -> the indices it is made of.
        scopes: groups and sections of the statements whose rows may be named.
    """
    lost, won = _differing(labels, *layouts)
    if not lost and not won:
        return None
    dims = dict(lost or won)
    axes = [axis for axis, dim in zip(value.axes, labels, strict=True) if dim in dims]
    return ProgramCause(
        rule=CauseRule.READ_WHOLER if lost else CauseRule.READ_DIVIDED,
        tensor=value.name,
        kind=value.kind,
        op=statement.op,
        output=statement.output,
        divided=lost or won,
        layout=layouts[1],
        labels=tuple(labels),
        row=_row(strategy, kind, axes, composites, scopes),
    )


def result_cause(
    value: Value,
    kind: TensorClass | None,
    layouts: tuple[Layout, Layout],
    labels: Sequence[str],
    placement: Mapping[str, tuple[str, ...]],
    strategy: Strategy,
    composites: Composites,
    scopes: Collection[str] = (),
) -> ProgramCause:
    """Cause of the moves that bring a result to rest.

    Args:
        value: the result.
        kind: its class in the store tables, None for none.
        layouts: the one the local work leaves it in, and the one it rests in.
        labels: names of its dims in the statement.
        placement: index -> mesh axes of the statement's iteration space.
        strategy: for the rows that divide what is summed, and say where the result rests.
        composites: name -> the indices it is made of.
        scopes: groups and sections of the statements whose rows may be named.
    """
    natural, resting = layouts
    lost, won = _differing(labels, natural, resting)
    divided = won or lost
    summed = tuple(label for label, axes in placement.items() if axes and label not in labels)
    owes = CauseRule.SUMMED if summed else CauseRule.ADDED
    by_sum = bool(natural.unreduced and summed)
    return ProgramCause(
        rule=owes if natural.unreduced else CauseRule.RESTS,
        tensor=value.name,
        axes=tuple(dict.fromkeys(split_name(axis)[0] for axis in natural.unreduced)),
        indices=summed if by_sum else (),
        kind=value.kind,
        divided=divided,
        layout=resting if divided else None,
        labels=tuple(labels),
        row=_row(strategy, kind, dict(divided), composites, scopes) if divided else None,
        summed_by=_row(strategy, None, summed, composites, scopes) if by_sum else None,
    )


def statistic_cause(
    statement: Statement,
    axis: str,
    over: Sequence[str],
    reduction: Reduction,
    strategy: Strategy,
    composites: Composites,
    scopes: Collection[str] = (),
) -> ProgramCause:
    """Cause of the all-reduce of a map's statistic over an axis, or over several."""
    indices = tuple(axis.split())
    return ProgramCause(
        rule=CauseRule.STATISTIC,
        tensor=statement.inputs[0],
        axes=tuple(over),
        indices=indices,
        reduction=reduction,
        op=statement.op,
        output=statement.output,
        row=_row(strategy, TensorClass.RESIDUAL, indices, composites, scopes),
    )
