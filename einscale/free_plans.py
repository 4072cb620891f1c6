"""Where a free plan would beat a strategy: each einsum statement planned for itself, from where its operands rest.

A statement's own price is not the whole truth: a gather it needs may serve others too. So each candidate is put into
the strategy's `auto` policy, the layer is planned again, and what the layer then saves is the gain.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from einscale.layers import KindReport, LayerReport
from einscale.layout import Layout
from einscale.planner.free import label_sizes, plan_statement_freely
from einscale.planner.structures import on_one_stage
from einscale.price.plan import price_plan
from einscale.price.program import PricedStatement
from einscale.steps import LocalEinsum, Plan
from einscale.topology import Network
from einscale.training.layers import forward_cost, layer_cost
from einscale.training.step import trained_layers
from einscale.vocabulary import Phase

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
    phase: Phase
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
    network = on_one_stage(report.setup.timed_by, report.setup.pipe)
    before = float(kind.totals().seconds)
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
            plan = _faster(kind, row, {**kind.planned.resting, **at_hand}, network)
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
    """Seconds of one layer's passes if its statement for `name` is left to the free planner."""
    setup = report.setup
    policy = replace(setup.strategy.policy, auto=(*setup.strategy.policy.auto, name))
    changed = replace(setup, strategy=replace(setup.strategy, policy=policy))
    layer = next(layer for layer in trained_layers(setup) if layer.kind == kind.kind)
    again = layer_cost(layer, changed) if report.step else forward_cost(layer, changed)
    return float(replace(kind, cost=again).totals().seconds)
