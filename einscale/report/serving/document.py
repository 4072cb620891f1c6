"""Requests as a document for programs: exact ints, base units, nothing formatted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from einscale.hardware import peak as peak_rate
from einscale.models import Model, parameter_counts
from einscale.precision import FIELDS, Precision
from einscale.price.footprint import Memory
from einscale.price.spent import Spent
from einscale.report.document import changes_document, head, plain
from einscale.report.layer.document import collective_document, totals_document
from einscale.report.words import changes_words
from einscale.serving import (
    DecodeReport,
    DisaggregatedReport,
    Instance,
    KindStep,
    PrefillReport,
    SpeculativeReport,
    StepReport,
    SweepRow,
)

if TYPE_CHECKING:
    from einscale.serving.advice import ServingAdvice
    from einscale.serving.run import DecodeRun, InferRun, PrefillRun


@plain
def infer_document(result: InferRun, advice: tuple[ServingAdvice, ...] | None = None) -> dict[str, Any]:
    """Everything the report knows; `prefill.last.kinds[].collectives[]` and those of `decode` are the finest grain.

    Args:
        result: what was priced.
        advice: changes with which it would fit, if they are worked out already.
    """
    asked, split = result.asked, result.disaggregated
    found = () if result.fits else (result.advice if advice is None else advice)
    prefill = split.prefill if split else result.request.prefill
    return {
        **head("infer"),
        "inputs": {
            **_instance(result.instance),
            "batch": asked.batch,
            "prompt": asked.prompt,
            "output": asked.output,
            "chunk": prefill.chunk,
            "price_per_hour": asked.price_per_hour,
        },
        "conventions": _conventions(result.instance),
        "notes": list(result.notes),
        "params": _params(result.instance.model),
        "request": {
            "first_token_seconds": result.first_token_seconds,
            "seconds_per_token": result.seconds_per_token,
            "seconds": result.seconds,
            "tokens_per_second": result.tokens_per_second,
            "tokens_per_second_per_device": result.tokens_per_second_per_device,
            "tokens_per_second_per_user": result.tokens_per_second_per_user,
            "devices": result.devices,
            "million_tokens_price": result.cost_per_million_tokens,
            "fits": result.fits,
        },
        "prefill": _prefill(prefill),
        "decode": _decode(result.request.decode) if result.request.decode else None,
        "memory": [serving_memory_document(memory) for memory in result.memories],
        "cache": {
            "bytes_per_token": result.kv_bytes_per_token,
            "bytes_per_request": result.kv_bytes_per_sequence,
            "largest_batch": result.largest_batch,
            "largest_decode_batch": result.largest_decode_batch,
        },
        "speculation": _speculation(result.speculative, result.draft_prefill) if result.speculative else None,
        "disaggregation": _apart(split, result) if split else None,
        "sweep": [_point(row) for row in result.sweep],
        "advice": [_advice(one) for one in found],
    }


@plain
def prefill_document(result: PrefillRun) -> dict[str, Any]:
    """A prefill by itself."""
    report = result.prefill
    return {
        **head("prefill"),
        "inputs": {
            **_instance(report.instance),
            "batch": report.batch,
            "prompt": report.prompt,
            "chunk": report.chunk,
            "cached": report.cached,
            "price_per_hour": result.price_per_hour,
        },
        "conventions": _conventions(report.instance),
        "notes": list(result.notes),
        "params": _params(report.instance.model),
        "prefill": {**_prefill(report), "million_tokens_price": result.cost_per_million_tokens},
    }


@plain
def decode_document(result: DecodeRun) -> dict[str, Any]:
    """Decoding by itself."""
    report = result.decode
    return {
        **head("decode"),
        "inputs": {
            **_instance(report.instance),
            "batch": report.batch,
            "context": report.context,
            "output": report.output,
            "price_per_hour": result.price_per_hour,
        },
        "conventions": _conventions(report.instance),
        "notes": list(result.notes),
        "params": _params(report.instance.model),
        "decode": {**_decode(report), "million_tokens_price": result.cost_per_million_tokens},
        "largest_batch": result.largest_batch,
    }


def _instance(instance: Instance) -> dict[str, Any]:
    execution = instance.execution
    return {
        "model": instance.model.name,
        "mesh": str(instance.mesh),
        "devices": instance.devices,
        "strategy": instance.strategy.name,
        "hardware": instance.system.name,
        "precision": _precision(instance.precision),
        "replicas": instance.ways,
        "pipeline_axis": instance.pipe,
        "stages": instance.stages,
        "page": instance.page,
        "memory_share": instance.memory_share,
        "overhead_bytes": instance.overhead,
        "launch": execution.launch if execution else "",
        "elementwise": execution.elementwise if execution else "",
    }


def _precision(precision: Precision) -> dict[str, str]:
    return {"name": str(precision), **{key: getattr(precision, key) for key in FIELDS}}


def _conventions(instance: Instance) -> dict[str, Any]:
    rate = peak_rate(instance.system.chip, instance.precision.compute)
    return {
        "flops": "1 FLOP is half a multiply-add (2mnk)",
        "attention": "causal",
        "units": {"flops": "FLOP", "bytes": "byte", "seconds": "second"},
        "scope": "per device; request, rates, cache, sweep and advice: all devices together",
        "queueing": "none: a batch arrives together and is answered together",
        "times": "roofline" if instance.system.chip.kernels is None else "kernels",
        "peak_flops_per_second": rate.datasheet,
        "peak_dtype": rate.dtype,
        "memory_bytes_per_second": instance.system.chip.memory_bandwidth.datasheet,
    }


def _params(model: Model) -> dict[str, int]:
    counts = parameter_counts(model)
    return {"total": counts.total, "active": counts.active, "embedding": counts.embedding}


def _spent(spent: Spent) -> dict[str, Any]:
    return {
        "seconds": spent.seconds,
        "weights_seconds": spent.weights,
        "cache_seconds": spent.cache,
        "activations_seconds": spent.traffic,
        "compute_seconds": spent.compute,
        "launch_seconds": spent.launch,
        "collectives": [
            {
                "axes": one.axis,
                "seconds": one.seconds,
                "latency_seconds": one.latency,
                "received_bytes": one.bytes,
                "count": one.count,
            }
            for one in spent.by_axes
        ],
        "collectives_seconds": spent.communication,
        "latency_seconds": spent.latency,
        "hops_seconds": spent.hops,
        "waiting_seconds": spent.waiting,
    }


def serving_memory_document(memory: Memory) -> dict[str, Any]:
    """What a device holds."""
    return {
        "weights_bytes": memory.parameters,
        "cache_bytes": memory.cache,
        "working_bytes": memory.working,
        "overhead_bytes": memory.overhead,
        "needed_bytes": memory.needed,
        "capacity_bytes": memory.capacity,
        "fits": memory.fits,
    }


def _prefill(report: PrefillReport) -> dict[str, Any]:
    return {
        "seconds": report.seconds,
        "tokens_per_second": report.tokens_per_second,
        "chunks": report.chunks,
        "microbatches": report.microbatches,
        "spent": _spent(report.spent),
        "first": _step(report.first),
        "last": _step(report.last),
        "memory": serving_memory_document(report.memory),
    }


def _decode(report: DecodeReport) -> dict[str, Any]:
    return {
        "seconds": report.seconds,
        "seconds_per_token": report.seconds_per_token,
        "first_seconds": report.first_seconds,
        "last_seconds": report.last_seconds,
        "tokens_per_second": report.tokens_per_second,
        "tokens_per_second_per_device": report.tokens_per_second_per_device,
        "flops_utilization": report.flops_utilization,
        "bandwidth_utilization": report.bandwidth_utilization,
        "microbatches": report.microbatches,
        "spent": _spent(report.spent),
        "step": _step(report.step),
        "memory": serving_memory_document(report.memory),
    }


def _step(step: StepReport) -> dict[str, Any]:
    return {
        "batch": step.batch,
        "new_tokens": step.new,
        "cached_tokens": step.cached,
        "seconds": step.seconds,
        "flops": step.flops,
        "hbm_bytes": step.traffic,
        "received_bytes": step.received,
        "kernels": step.kernels,
        "hop_seconds": step.hop_seconds,
        "stages": [dict(stage) for stage in step.stages],
        "stage_seconds": list(step.stage_seconds),
        "kinds": [_kind(kind) for kind in step.kinds],
    }


def _kind(kind: KindStep) -> dict[str, Any]:
    return {
        "kind": kind.kind,
        "repeat": kind.repeat,
        "kernels": kind.kernels,
        "totals": totals_document(kind.totals),
        "spent": _spent(kind.spent),
        "statements": [
            {
                "op": row.planned.statement.op,
                "output": row.planned.statement.output,
                "group": row.planned.statement.group,
                "flops": row.flops,
                "hbm_bytes": row.traffic,
                "seconds": row.local.seconds,
                "bound": row.local.bound,
                "collectives": [collective_document(priced, kind.planned) for priced in row.collectives],
            }
            for row in kind.rows
        ],
    }


def _speculation(report: SpeculativeReport, reading: PrefillReport | None) -> dict[str, Any]:
    return {
        "draft": report.draft.instance.model.name,
        "guesses": report.length,
        "acceptance": report.acceptance,
        "draft_seconds": report.draft.seconds_per_token,
        "draft_prefill_seconds": reading.seconds if reading else 0.0,
        "verify_seconds": report.verify_seconds,
        "round_seconds": report.round_seconds,
        "tokens_per_round": report.tokens_per_round,
        "seconds_per_token": report.seconds_per_token,
        "tokens_per_second": report.tokens_per_second,
        "speedup": report.speedup,
        "memory": serving_memory_document(report.memory),
    }


def _apart(report: DisaggregatedReport, result: InferRun) -> dict[str, Any]:
    apart = result.asked.apart
    return {
        "prefill": {**_instance(report.prefill.instance), "batch": report.prefill.batch},
        "price_per_hour": apart.price_per_hour if apart else None,
        "prefill_instances": report.prefill_instances,
        "decode_instances": report.decode_instances,
        "devices": report.devices,
        "transfer_bytes": report.transfer_bytes,
        "transfer_seconds": report.transfer_seconds,
        "prefill_requests_per_second": report.prefill_rate,
        "decode_requests_per_second": report.decode_rate,
        "requests_per_second": report.requests_per_second,
        "second_token_seconds": report.second_token_seconds,
        "balance": report.balance,
    }


def _point(row: SweepRow) -> dict[str, Any]:
    return {
        "batch": row.batch,
        "context": row.context,
        "seconds_per_token": row.seconds_per_token,
        "tokens_per_second": row.tokens_per_second,
        "tokens_per_second_per_device": row.tokens_per_second_per_device,
        "memory": serving_memory_document(row.memory),
        "pareto": row.pareto,
    }


def _advice(one: ServingAdvice) -> dict[str, Any]:
    result = one.result
    return {
        "change": changes_words(one.changes),
        "options": changes_document(one.changes),
        "devices": result.devices,
        "first_token_seconds": result.first_token_seconds,
        "seconds_per_token": result.seconds_per_token,
        "tokens_per_second": result.tokens_per_second,
        "needed_bytes": max(memory.needed for memory in result.memories),
    }
