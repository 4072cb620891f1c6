"""Where a free plan would beat a strategy: each einsum statement planned for itself, from where its operands rest.

A statement's own price is not the whole truth: a gather it needs may serve others too. So each candidate is put into
the strategy's `auto` policy, the layer is planned again, and what the layer then saves is the gain.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from einscale.cost import PricedStatement, price_program, total
from einscale.layer import KindReport, LayerReport
from einscale.layout import Layout
from einscale.plan import LocalEinsum, Plan
from einscale.planner.free import label_sizes, plan_statement_freely
from einscale.planner.program import plan_program
from einscale.priced import price_plan
from einscale.topology import Network

WORTH = 0.02
"""Share of a statement's time that a free plan must save by itself to be tried."""


class Gain(Struct, frozen=True):
    """A statement that the free planner would run otherwise.

    Args:
        kind: kind of layer.
        statement: its result.
        phase: `forward` or `backward`.
        strategy_seconds: one layer, both phases, under the strategy.
        free_seconds: the same with this statement left to the free planner.
        plan: the free plan of the statement.
    """

    kind: str
    statement: str
    phase: str
    strategy_seconds: float
    free_seconds: float
    plan: Plan

    @property
    def saved_seconds(self) -> float:
        """What the free plan saves in one layer."""
        return self.strategy_seconds - self.free_seconds


def free_gains(report: LayerReport) -> tuple[Gain, ...]:
    """Statements that a strategy does better to leave to the free planner, most saved first.

    Statements inside a fused group are left out: their interior never reaches memory, which no plan of one einsum
    knows.
    """
    gains = [gain for kind in report.kinds for gain in _kind_gains(kind, report)]
    return tuple(sorted(gains, key=lambda gain: -gain.saved_seconds))


def _kind_gains(kind: KindReport, report: LayerReport) -> Iterator[Gain]:
    fuse = kind.planned.strategy.policy.fuse
    before = total(kind.rows).seconds
    gathered: dict[tuple[str, str], Layout] = {}
    for row in kind.rows:
        statement, work, phase = row.planned.statement, row.planned.work, row.planned.phase
        if isinstance(work, LocalEinsum) and statement.group not in fuse:
            moved = {step.tensor.name for step in row.planned.before}
            at_hand = {
                name: gathered[name, phase]
                for name in statement.inputs
                if (name, phase) in gathered and name not in moved
            }
            plan = _faster(kind, row, {**kind.planned.resting, **at_hand}, report.network)
            after = _replanned(kind, statement.output, report) if plan is not None else before
            if plan is not None and after < before:
                yield Gain(kind.kind, statement.output, phase, before, after, plan)
        for step in row.planned.before:
            gathered[step.tensor.name, phase] = step.after


def _faster(kind: KindReport, row: PricedStatement, resting: dict[str, Layout], network: Network) -> Plan | None:
    """The free plan of a statement if it is faster by itself."""
    planned, statement = kind.planned, row.planned.statement
    table = planned.program.table
    best = plan_statement_freely(statement, table, resting, planned.sizes, planned.mesh, network)
    sizes = {**planned.sizes, **label_sizes(statement, table, planned.sizes)}
    seconds = price_plan(best.plan, sizes, network).seconds
    return best.plan if seconds < row.seconds * (1 - WORTH) else None


def _replanned(kind: KindReport, name: str, report: LayerReport) -> float:
    """Seconds of one layer whose statement for `name` is left to the free planner."""
    planned = kind.planned
    policy = replace(planned.strategy.policy, auto=(*planned.strategy.policy.auto, name))
    strategy = replace(planned.strategy, policy=policy)
    again = plan_program(planned.program, strategy, planned.mesh, planned.sizes, network=report.network)
    rows = price_program(again, report.network, report.dtype)
    return total(row for row in rows if row.planned.phase in report.phases).seconds
