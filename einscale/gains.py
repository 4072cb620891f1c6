"""Where a free plan would beat a strategy: each einsum statement planned for itself, from where its operands rest.

The strategy's price of a statement is its work and the collectives it causes. A gather that an earlier statement of the
phase has made already costs it nothing, and the free plan may use that copy too; so what is found is found beyond what
the strategy shares.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from einscale.cost import PricedStatement
from einscale.layer import KindReport, LayerReport
from einscale.layout import Layout
from einscale.plan import LocalEinsum, Plan
from einscale.planner.free import label_sizes, plan_statement_freely
from einscale.priced import price_plan
from einscale.topology import Network

WORTH = 0.02
"""Share of a statement's time that a free plan must save to be worth a line."""


class Gain(Struct, frozen=True):
    """A statement that the free planner would run otherwise.

    Args:
        kind: kind of layer.
        statement: its result.
        phase: `forward` or `backward`.
        strategy_seconds: its work and collectives under the strategy.
        free_seconds: the same, planned freely.
        plan: the free plan.
    """

    kind: str
    statement: str
    phase: str
    strategy_seconds: float
    free_seconds: float
    plan: Plan

    @property
    def saved_seconds(self) -> float:
        """What the free plan saves."""
        return self.strategy_seconds - self.free_seconds


def free_gains(report: LayerReport) -> tuple[Gain, ...]:
    """Statements that a free plan runs faster than the strategy, most saved first.

    Statements inside a fused group are left out: their interior never reaches memory, which no plan of one einsum
    knows.
    """
    gains = [gain for kind in report.kinds for gain in _kind_gains(kind, report.network)]
    return tuple(sorted(gains, key=lambda gain: -gain.saved_seconds))


def _kind_gains(kind: KindReport, network: Network) -> Iterator[Gain]:
    fuse = kind.planned.strategy.policy.fuse
    gathered: dict[tuple[str, str], Layout] = {}
    for row in kind.rows:
        statement, work = row.planned.statement, row.planned.work
        if isinstance(work, LocalEinsum) and statement.group not in fuse:
            at_hand = {
                name: gathered[name, row.planned.phase]
                for name in statement.inputs
                if (name, row.planned.phase) in gathered and not _moves(row, name)
            }
            yield from _gain(kind, row, {**kind.planned.resting, **at_hand}, network)
        for step in row.planned.before:
            gathered[step.tensor.name, row.planned.phase] = step.after


def _moves(row: PricedStatement, name: str) -> bool:
    return any(step.tensor.name == name for step in row.planned.before)


def _gain(kind: KindReport, row: PricedStatement, resting: dict[str, Layout], network: Network) -> Iterator[Gain]:
    planned, statement = kind.planned, row.planned.statement
    table = planned.program.table
    best = plan_statement_freely(statement, table, resting, planned.sizes, planned.mesh, network)
    sizes = {**planned.sizes, **label_sizes(statement, table, planned.sizes)}
    seconds = price_plan(best.plan, sizes, network).seconds
    if seconds < row.seconds * (1 - WORTH):
        yield Gain(kind.kind, statement.output, row.planned.phase, row.seconds, seconds, best.plan)
