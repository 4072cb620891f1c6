"""The plan as a document for programs: exact ints, base units, nothing formatted."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from einscale.collectives import Collective
from einscale.price.plan import PricedPlan, PricedStep
from einscale.report.causes import cause_document, cause_words
from einscale.report.document import head, plain
from einscale.steps import LocalEinsum

if TYPE_CHECKING:
    from einscale.bounds import LowerBound
    from einscale.emulate import Verification
    from einscale.price.alternatives import Alternative, Avoidance
    from einscale.report.einsum.tables import PlanView


@plain
def plan_document(priced: PricedPlan, view: PlanView) -> dict[str, Any]:
    """Everything a plan report knows, per device."""
    plan, mesh, memory = priced.plan, priced.mesh, priced.memory
    return {
        **head("plan"),
        "inputs": {
            "spec": view.spec,
            "mesh": [{"name": axis.name, "size": axis.size, "level": axis.level} for axis in mesh.axes],
            "devices": mesh.devices,
            "sizes": dict(priced.sizes),
            "dtypes": {tensor.name: tensor.dtype for tensor in (*plan.inputs, plan.output)},
            "hardware": priced.network.system.name,
            "objective": view.objective,
            "max_flops": view.max_flops,
        },
        "conventions": {
            "flops": "1 FLOP is half a multiply-add (2mnk)",
            "units": {"flops": "FLOP", "bytes": "byte", "seconds": "second"},
            "scope": "per device, padding included",
            "overlap": "none",
            "times": "modelled",
        },
        "flops": priced.flops,
        "bytes_received": priced.bytes_received,
        "memory_bytes": memory.peak,
        "seconds": priced.seconds,
        "compute_seconds": priced.compute_seconds,
        "network_seconds": priced.network_seconds,
        "memory": {
            "peak_bytes": memory.peak,
            "step": memory.step,
            "operands_bytes": memory.operands,
            "result_bytes": memory.result,
            "temporaries_bytes": memory.temporaries,
        },
        "lower_bound": {
            "placement": _bound(view.bounds.placement),
            "layout_free": _bound(view.bounds.layout_free),
        },
        "redundancy": priced.redundancy,
        "padding": [
            {"index": p.index, "axes": list(p.axes), "size": p.size, "stored": p.stored, "waste": p.waste}
            for p in priced.padding
        ],
        "exact": view.exact,
        "notes": list(view.notes),
        "steps": [_step(number, step) for number, step in enumerate(priced.steps, 1)],
    }


def _bound(bound: LowerBound | None) -> dict[str, Any] | None:
    """A bound; its ratio is null where nothing need move and yet something does."""
    if bound is None:
        return None
    return {"bytes": bound.bytes, "ratio": bound.ratio if isfinite(bound.ratio) else None}


def _step(number: int, step: PricedStep) -> dict[str, Any]:
    work = step.step
    common = {"step": number, "flops": step.flops, "seconds": step.seconds, "limited_by": step.bound}
    if isinstance(work, Collective):
        indices = work.tensor.indices
        return {
            **common,
            "kind": work.kind,
            "tensor": work.tensor.name,
            "dtype": work.tensor.dtype,
            "axes": list(work.axes),
            "before": work.before.text(indices),
            "after": work.after.text(indices),
            "bytes_received": step.received,
            "bytes_received_total": step.received_total,
            "bound_bytes": step.bound_bytes,
            "cause": cause_words(work.cause),
            "why": cause_document(work.cause),
        }
    return {**common, "kind": "einsum", **_work(work), "hbm_bytes": step.traffic, "bytes_received": 0}


def _work(work: LocalEinsum) -> dict[str, Any]:
    return {
        "einsum": str(work.einsum),
        "inputs": [
            {"tensor": tensor.name, "layout": layout.text(tensor.indices)}
            for tensor, layout in zip(work.inputs, work.layouts, strict=True)
        ],
        "output": {"tensor": work.output.name, "layout": work.output_layout.text(work.output.indices)},
    }


def explanation(
    priced: PricedPlan, alternatives: Sequence[Alternative], avoidances: Sequence[Avoidance]
) -> dict[str, Any]:
    """The reasons: formulas in words for each step, how to avoid what moves, other ways to divide the work."""
    from einscale.report.einsum.steps import explain_plan

    words = explain_plan(priced)
    return {
        "formulas": [
            {"step": number, "amount": word.amount, "time": word.time} for number, word in enumerate(words, 1)
        ],
        "avoid": [
            {"tensor": other.tensor, "change": other.change, "spec": other.spec, **_price(other.priced)}
            for other in avoidances
        ],
        "alternatives": [
            {
                "placement": {index: list(axes) for index, axes in other.placement},
                **_price(other.priced),
                "steps": [str(step) for step in other.priced.plan.steps],
            }
            for other in alternatives
        ],
    }


def _price(priced: PricedPlan) -> dict[str, Any]:
    return {
        "flops": priced.flops,
        "bytes_received": priced.bytes_received,
        "memory_bytes": priced.memory.peak,
        "seconds": priced.seconds,
    }


def verification(proof: Verification) -> dict[str, Any]:
    """What a verification ran and counted."""
    return {
        "verification": {
            "mesh": str(proof.mesh),
            "devices": proof.devices,
            "sizes": dict(proof.sizes),
            "padded": list(proof.padded),
            "shrunk": proof.shrunk,
            "elements": proof.elements,
            "bytes_received": list(proof.bytes_received),
            "seed": proof.seed,
        }
    }
