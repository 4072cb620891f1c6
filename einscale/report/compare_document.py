"""The comparison as a document for programs: exact ints, base units, the terms one by one, nothing formatted."""

from __future__ import annotations

from typing import Any

from einscale.compare import Comparison, Difference, Side
from einscale.report.causes import cause_document, cause_words
from einscale.report.compare_words import doing_words, holding_words
from einscale.report.document import head
from einscale.report.layer_document import memory_document, totals_document
from einscale.report.words import unexpected_words


def compare_document(comparison: Comparison) -> dict[str, Any]:
    """Everything the comparison knows, per device; terms count every layer."""
    report = comparison.sides[0].report
    return {
        **head("compare"),
        "inputs": {
            "model": report.model.name,
            "hardware": report.network.system.name,
            "batch": report.batch,
            "sequence": report.sequence,
            "dtype": report.dtype,
            "phases": list(report.phases),
        },
        "conventions": {
            "flops": "1 FLOP is half a multiply-add (2mnk)",
            "attention": "full",
            "units": {"flops": "FLOP", "bytes": "byte", "seconds": "second"},
            "scope": "per device",
            "terms": "the other strategy less the first, every layer counted; they add up to `change`",
        },
        "notes": list(comparison.notes),
        "strategies": [_side_document(side) for side in comparison.sides],
        "differences": [_difference_document(difference) for difference in comparison.differences],
        "best": [
            {
                "measure": best.measure,
                "unit": best.unit,
                "strategies": list(best.labels),
                "value": best.value,
                "next": best.next_label or None,
                "next_value": best.next_value,
            }
            for best in comparison.best
        ],
    }


def _side_document(side: Side) -> dict[str, Any]:
    report, memory = side.report, side.report.memory
    return {
        "label": side.label,
        "strategy": report.strategy.name,
        "mesh": str(report.mesh),
        "devices": report.mesh.devices,
        "kinds": [
            {
                "kind": kind.kind,
                "repeat": kind.repeat,
                "totals": {phase: totals_document(kind.totals(phase)) for phase in report.phases},
                "sections": {
                    section: {phase: totals_document(kind.totals(phase, section)) for phase in report.phases}
                    for section in kind.sections
                    if section
                },
                "parameter_bytes": kind.parameter_bytes,
                "gradient_bytes": kind.gradient_bytes,
                "optimizer_bytes": kind.optimizer_bytes,
                "saved_bytes": kind.saved_bytes,
                "peak_bytes": kind.peak.bytes,
            }
            for kind in report.kinds
        ],
        "totals": totals_document(report.totals),
        "memory": memory_document(memory),
        "unexpected": [unexpected_words(one) for one in report.unexpected],
    }


def _difference_document(difference: Difference) -> dict[str, Any]:
    return {
        "first": difference.first,
        "other": difference.other,
        "change": totals_document(difference.change),
        "terms": [
            {
                "about": term.about,
                "layer": term.layer,
                "phase": term.phase,
                "sections": [section for section in term.sections if section],
                "names": list(term.names),
                "what": term.what,
                "first": doing_words(term.first) or None,
                "other": doing_words(term.other) or None,
                "first_cause": cause_words(term.first_cause) or None,
                "other_cause": cause_words(term.other_cause) or None,
                "first_why": cause_document(term.first_cause),
                "other_why": cause_document(term.other_cause),
                **totals_document(term.change),
            }
            for term in difference.terms
        ],
        "memory_change_bytes": difference.memory_change,
        "memory_terms": [
            {
                "part": term.part,
                "layer": term.layer,
                "names": list(term.names),
                "first": holding_words(term.first) or None,
                "other": holding_words(term.other) or None,
                "bytes": term.bytes,
            }
            for term in difference.memory_terms
        ],
    }
