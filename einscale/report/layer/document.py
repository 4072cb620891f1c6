"""The layer report as a document for programs: exact ints, base units, nothing formatted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from einscale.layout import local_shape
from einscale.models import parameter_counts
from einscale.planner.planned import PlannedProgram
from einscale.price.footprint import Memory
from einscale.price.memory import Held
from einscale.price.program import PricedCollective, PricedStatement, Totals, bound_bytes
from einscale.report.causes import cause_document, cause_words
from einscale.report.document import head, plain
from einscale.report.words import hider_words, reason_words, unexpected_words
from einscale.steps import work_results
from einscale.vocabulary import UPDATE, Phase

if TYPE_CHECKING:
    from einscale.free_plans import Gain
    from einscale.layers import KindReport, LayerReport


@plain
def layer_document(report: LayerReport, gains: tuple[Gain, ...] | None = None) -> dict[str, Any]:
    """Everything the report knows, per device; `kinds[].statements[].collectives[]` is the finest grain."""
    free = {} if gains is None else {"free": [_gain(gain) for gain in gains]}
    counts = parameter_counts(report.model)
    system = report.network.system
    return {
        **head("layer"),
        "inputs": {
            "model": report.model.name,
            "mesh": str(report.mesh),
            "strategy": report.strategy.name,
            "hardware": system.name,
            "batch": report.setup.batch,
            "microbatch": report.setup.microbatch,
            "microbatches": report.setup.microbatches,
            "sequence": report.sequence,
            "precision": report.setup.precision.name,
            "phases": list(report.phases),
        },
        "conventions": {
            "flops": "1 FLOP is half a multiply-add (2mnk)",
            "attention": "pairs that the mask lets through",
            "units": {"flops": "FLOP", "bytes": "byte", "seconds": "second"},
            "overlap": list(report.strategy.policy.overlap),
            "scope": "per device, one microbatch",
        },
        "notes": list(report.notes),
        "params": {"total": counts.total, "active": counts.active, "embedding": counts.embedding},
        "kinds": [_kind(kind, report.phases) for kind in report.kinds],
        "totals": totals_document(report.totals),
        "step_seconds": None if report.step is None else report.step.step_seconds,
        "memory": memory_document(report.memory),
        "unexpected": [unexpected_words(one) for one in report.unexpected],
        **free,
    }


def _gain(gain: Gain) -> dict[str, Any]:
    return {
        "kind": gain.kind,
        "statement": gain.statement,
        "phase": gain.phase,
        "strategy_seconds": gain.strategy_seconds,
        "free_seconds": gain.free_seconds,
        "steps": [str(step) for step in gain.plan.steps],
    }


def _kind(kind: KindReport, phases: tuple[Phase, ...]) -> dict[str, Any]:
    return {
        "kind": kind.kind,
        "repeat": kind.repeat,
        "statements": [
            *(_statement(row, kind.planned) for row in kind.rows),
            *(_statement(row, kind.cost.updated) for row in kind.update),
        ],
        "totals": {
            phase: totals_document(kind.totals(phase)) for phase in (*phases, *([UPDATE] if kind.update else []))
        },
        "sections": {
            section: {phase: totals_document(kind.totals(phase, section)) for phase in phases}
            for section in kind.sections
            if section
        },
        "parameters": [_held(held) for held in kind.parameters],
        "parameter_bytes": kind.parameter_bytes,
        "saved": [_held(held) for held in kind.saved],
        "saved_bytes": kind.saved_bytes,
        "peak": {
            "bytes": kind.peak.bytes,
            "statement": kind.peak.statement,
            "phase": kind.peak.phase,
            "alive": [_held(held) for held in kind.peak.alive],
        },
        "padding": [{"tensor": name, "fraction": share} for name, share in kind.padding],
    }


def memory_document(memory: Memory) -> dict[str, Any]:
    """Bytes on one device of the fullest stage, and whether they fit."""
    return {
        "parameters_bytes": memory.parameters,
        "gradients_bytes": memory.gradients,
        "optimizer_bytes": memory.optimizer,
        "saved_activations_bytes": memory.saved,
        "gathered_parameters_bytes": memory.gathered,
        "working_bytes": memory.working,
        "overhead_bytes": memory.overhead,
        "host_bytes": memory.host,
        "needed_bytes": memory.needed,
        "capacity_bytes": memory.capacity,
        "fits": memory.fits,
    }


def totals_document(totals: Totals) -> dict[str, Any]:
    """Sums over statements, per device."""
    return {
        "flops": totals.flops,
        "hbm_bytes": totals.traffic,
        "received_bytes": totals.received,
        "compute_seconds": totals.compute_seconds,
        "communication_seconds": totals.communication_seconds,
        "waiting_seconds": totals.waiting_seconds,
        "seconds": totals.seconds,
    }


def _statement(row: PricedStatement, planned: PlannedProgram) -> dict[str, Any]:
    statement, work = row.planned.statement, row.planned.work
    result, layout = work_results(work)[0]
    return {
        "op": statement.op,
        "output": statement.output,
        "inputs": [
            {"tensor": tensor.name, "layout": read.text(tensor.indices)}
            for tensor, read in zip(work.inputs, work.layouts, strict=True)
        ],
        "layout": layout.text(result.indices),
        "local_shape": list(local_shape(layout, result.indices, planned.sizes, planned.degrees)),
        "phase": statement.phase,
        "section": statement.section,
        "group": statement.group,
        "flops": row.flops,
        "hbm_bytes": row.traffic,
        "seconds": row.local.seconds,
        "bound": row.local.bound,
        "collectives": [collective_document(priced, planned) for priced in row.collectives],
    }


@plain
def collective_document(priced: PricedCollective, planned: PlannedProgram) -> dict[str, Any]:
    """One collective of a statement."""
    step = priced.step
    return {
        "kind": step.kind,
        "tensor": step.tensor.name,
        "dtype": step.tensor.dtype,
        "axes": list(step.axes),
        "before": step.before.text(step.tensor.indices),
        "after": step.after.text(step.tensor.indices),
        "received_bytes": priced.bytes,
        "bound_bytes": bound_bytes(priced, planned),
        "seconds": priced.seconds,
        "exposed_seconds": priced.exposed_seconds,
        "hidden_by": hider_words(priced.hidden_by) or None,
        "streamed": step.streamed,
        "distinct": step.distinct,
        "cause": cause_words(step.cause),
        "why": cause_document(step.cause),
    }


def _held(held: Held) -> dict[str, Any]:
    return {
        "tensor": held.tensor.name,
        "dtype": held.tensor.dtype,
        "layout": held.layout.text(held.tensor.indices, held.tensor.chosen),
        "bytes": held.bytes,
        "reason": reason_words(held.reason),
    }
