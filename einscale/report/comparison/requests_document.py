"""Requests under several strategies as a document: exact ints, base units, the terms one by one, nothing formatted."""

from __future__ import annotations

from typing import Any

from einscale.comparison.serving import ServedSide, ServingBest, ServingComparison, ServingDifference
from einscale.report.document import head, plain
from einscale.report.serving.document import serving_memory_document
from einscale.serving.run import InferRun


@plain
def requests_compare_document(comparison: ServingComparison, first: InferRun) -> dict[str, Any]:
    """Everything the comparison knows; memory and terms are of one device, request and rates of all."""
    asked, instance = first.asked, first.instance
    return {
        **head("compare_serving"),
        "inputs": {
            "model": instance.model.name,
            "hardware": instance.system.name,
            "batch": asked.batch,
            "prompt": asked.prompt,
            "output": asked.output,
            "chunk": asked.chunk,
            "precision": str(instance.precision),
            "price_per_hour": asked.price_per_hour,
        },
        "conventions": {
            "units": {"bytes": "byte", "seconds": "second"},
            "queueing": "none: a batch arrives together and is answered together",
            "terms": "the other strategy less the first; those of the prefill add up to `first_token_change_seconds`,"
            " those of decoding to `token_change_seconds`, of memory to `memory_change_bytes`",
        },
        "notes": list(comparison.notes),
        "strategies": [_side(side) for side in comparison.sides],
        "differences": [_difference(one) for one in comparison.differences],
        "best": [_best(one) for one in comparison.best],
    }


def _side(side: ServedSide) -> dict[str, Any]:
    instance = side.instance
    return {
        "label": side.label,
        "strategy": instance.strategy.name,
        "mesh": str(instance.mesh),
        "devices": instance.devices,
        "first_token_seconds": side.first_token_seconds,
        "seconds_per_token": side.seconds_per_token,
        "request_seconds": side.seconds,
        "tokens_per_second": side.report.tokens_per_second,
        "tokens_per_second_per_device": side.tokens_per_second_per_device,
        "million_tokens_price": side.cost_per_million_tokens,
        "memory": serving_memory_document(side.memory),
        "fits": side.fits,
    }


def _difference(one: ServingDifference) -> dict[str, Any]:
    return {
        "first": one.first,
        "other": one.other,
        "first_token_change_seconds": one.first_token_change,
        "token_change_seconds": one.token_change,
        "request_change_seconds": one.seconds_change,
        "terms": [
            {
                "phase": term.phase.value,
                "part": term.what.value,
                "axis": term.axis,
                "first_seconds": term.first,
                "other_seconds": term.other,
                "seconds": term.seconds,
            }
            for term in one.terms
        ],
        "memory_change_bytes": one.memory_change,
        "memory_terms": [
            {"part": term.part.value, "first_bytes": term.first, "other_bytes": term.other, "bytes": term.bytes}
            for term in one.memory_terms
        ],
    }


def _best(best: ServingBest) -> dict[str, Any]:
    return {
        "measure": best.measure.value,
        "strategies": list(best.labels),
        "value": best.value,
        "next": best.next_label or None,
        "next_value": best.next_value,
    }
