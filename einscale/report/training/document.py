"""A training step as a document for programs: exact ints, base units, nothing formatted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from einscale.hardware import peak as peak_rate
from einscale.models import parameter_counts
from einscale.precision import FIELDS
from einscale.price.overlap import EFFICIENCY
from einscale.price.spent import SpentPart
from einscale.report.causes import cause_document, cause_words
from einscale.report.document import changes_document, head, plain
from einscale.report.layer.document import totals_document
from einscale.report.training.parts import moment_words, part_name, part_note
from einscale.report.words import changes_words, hider_words, reason_words
from einscale.training import Advice, Alive, LayerCost, StageReport, TrainReport
from einscale.training.moves import Move, step_moves

if TYPE_CHECKING:
    from einscale.training.run import TrainRun


@plain
def train_document(result: TrainRun, advice: tuple[Advice, ...] | None = None) -> dict[str, Any]:
    """Everything the report knows; `collectives[]` is the finest grain of what moves, `tensors[]` of what is held.

    Args:
        result: what was priced.
        advice: changes with which the step would fit, if they are worked out already.
    """
    report = result.step
    found = () if report.fits else (result.advice if advice is None else advice)
    counts = parameter_counts(report.setup.model)
    return {
        **head("train"),
        "inputs": _inputs(result),
        "conventions": _conventions(report),
        "notes": list(report.notes),
        "params": {"total": counts.total, "active": counts.active, "embedding": counts.embedding},
        "step": _step(report),
        "run": _run(result),
        "time": [_spent(part, report) for part in report.spent],
        "stages": [_stage(stage, report) for stage in report.stages],
        "busiest_stage": report.busiest.stage,
        "fullest_stage": report.fullest.stage,
        "reserved_bytes": result.reserved,
        "tensors": [_alive(one) for one in report.fullest.alive],
        "collectives": [_move(move) for move in step_moves(report)],
        "layers": [_layer(layer) for layer in report.layers],
        "advice": [_advice(one) for one in found],
    }


def _inputs(result: TrainRun) -> dict[str, Any]:
    setup = result.step.setup
    policy = setup.strategy.policy
    return {
        "model": setup.model.name,
        "mesh": str(setup.mesh),
        "devices": setup.mesh.devices,
        "strategy": setup.strategy.name,
        "hardware": setup.network.system.name,
        "batch": setup.batch,
        "sequence": setup.sequence,
        "replicas": setup.replicas,
        "microbatch": setup.microbatch,
        "microbatches": setup.microbatches,
        "pipeline_axis": setup.pipe,
        "stages": setup.stages,
        "schedule": setup.schedule if setup.stages > 1 else "",
        "chunks": setup.chunks,
        "first_layers": setup.first,
        "last_layers": setup.last,
        "precision": {"name": str(setup.precision), **{key: getattr(setup.precision, key) for key in FIELDS}},
        "optimizer": setup.optimizer,
        "recompute": list(policy.recompute),
        "fuse": list(policy.fuse),
        "overlap": list(policy.overlap),
        "offload_optimizer": setup.offload.optimizer,
        "offload_activations": setup.offload.activations,
        "attention": setup.attention,
        "overhead_bytes": setup.overhead,
        "loss": setup.loss,
        "expert_capacity": setup.capacity,
        "price_per_hour": result.price_per_hour,
        "tokens": result.training_tokens,
    }


def _conventions(report: TrainReport) -> dict[str, Any]:
    setup = report.setup
    rate = peak_rate(setup.network.system.chip, setup.precision.compute)
    return {
        "flops": "1 FLOP is half a multiply-add (2mnk)",
        "attention": setup.attention,
        "units": {"flops": "FLOP", "bytes": "byte", "seconds": "second", "joules": "joule"},
        "scope": "per device; step, run and advice: all devices together",
        "peak_flops_per_second": rate.datasheet,
        "peak_dtype": rate.dtype,
        "overlap_efficiency": EFFICIENCY,
    }


def _step(report: TrainReport) -> dict[str, Any]:
    memory = report.fullest.memory
    return {
        "seconds": report.step_seconds,
        "passes_seconds": report.passes_seconds,
        "tokens": report.setup.tokens,
        "tokens_per_second": report.tokens_per_second,
        "tokens_per_second_per_device": report.tokens_per_second_per_device,
        "model_flops": report.model_flops,
        "hardware_flops": report.hardware_flops,
        "mfu": report.mfu,
        "hfu": report.hfu,
        "joules": report.joules,
        "needed_bytes": memory.needed,
        "capacity_bytes": report.capacity,
        "fits": report.fits,
    }


def _run(result: TrainRun) -> dict[str, Any]:
    return {
        "step_price": result.step_price,
        "steps": result.training_steps,
        "days": result.training_days,
        "price": result.training_price,
    }


def _spent(part: SpentPart, report: TrainReport) -> dict[str, Any]:
    return {
        "part": part_name(part.what),
        "axis": part.axis,
        "seconds": part.seconds,
        "hidden_seconds": part.hidden,
        "note": part_note(part, report.setup.optimizer),
    }


def _stage(stage: StageReport, report: TrainReport) -> dict[str, Any]:
    memory = stage.memory
    return {
        "stage": stage.stage,
        "layers": dict(stage.layers),
        "in_flight": stage.in_flight,
        "forward_seconds": stage.forward_seconds,
        "backward_seconds": stage.backward_seconds,
        "busy_seconds": stage.busy_seconds,
        "bubble_seconds": report.idle_seconds(stage),
        "memory": {
            "parameters_bytes": memory.parameters,
            "gradients_bytes": memory.gradients,
            "optimizer_bytes": memory.optimizer,
            "saved_activations_bytes": memory.saved,
            "gathered_parameters_bytes": memory.gathered,
            "working_bytes": memory.working,
            "overhead_bytes": memory.overhead,
            "needed_bytes": memory.needed,
            "host_bytes": memory.host,
        },
        "peak": moment_words(stage.moment),
    }


def _alive(one: Alive) -> dict[str, Any]:
    return {
        "tensor": one.text,
        "what": one.what,
        "layer": one.kind,
        "dtype": one.dtype,
        "local_shape": list(one.shape),
        "bytes": one.bytes,
        "copies": one.copies,
        "total_bytes": one.total,
        "reason": reason_words(one.reason),
    }


def _move(move: Move) -> dict[str, Any]:
    step = move.priced.step
    return {
        "kind": step.kind,
        "tensor": step.tensor.name,
        "dtype": step.tensor.dtype,
        "axes": list(step.axes),
        "before": step.before.text(step.tensor.indices),
        "after": step.after.text(step.tensor.indices),
        "layer": move.layer,
        "phase": move.phase,
        "moves": move.what,
        "times": move.times,
        "received_bytes": move.priced.bytes,
        "bound_bytes": move.bound_bytes,
        "seconds": move.priced.seconds,
        "exposed_seconds": move.exposed_seconds,
        "hidden_by": hider_words(move.hidden_by),
        "streamed": step.streamed,
        "cause": cause_words(step.cause),
        "why": cause_document(step.cause),
    }


def _layer(layer: LayerCost) -> dict[str, Any]:
    return {
        "kind": layer.kind,
        "forward": totals_document(layer.totals("forward")),
        "backward": totals_document(layer.totals("backward")),
        "recompute_seconds": layer.recompute_seconds,
        "weight_gradient_seconds": layer.weight_seconds,
        "parameter_bytes": layer.parameter_bytes,
        "saved_bytes": layer.saved_bytes,
        "working_bytes": layer.working_bytes,
        "windows": [
            {
                "phase": window.phase,
                "moves": window.kind,
                "work_seconds": window.seconds,
                "moving_seconds": window.moving,
                "exposed_seconds": window.exposed,
                "first_layer_seconds": window.first,
                "behind": hider_words(window.behind),
            }
            for window in layer.windows
        ],
    }


def _advice(one: Advice) -> dict[str, Any]:
    return {
        "change": changes_words(one.changes),
        "options": changes_document(one.changes),
        "devices": one.report.setup.mesh.devices,
        "step_seconds": one.report.step_seconds,
        "needed_bytes": one.report.fullest.memory.needed,
    }
