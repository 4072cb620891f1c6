"""The comparison as a document for programs: exact ints, base units, the terms one by one, nothing formatted."""

from __future__ import annotations

from typing import Any

from einscale.comparison import Comparison, Difference, Side
from einscale.price.program import Totals, total
from einscale.report.causes import cause_document, cause_words
from einscale.report.comparison.words import doing_words, holding_words
from einscale.report.document import head, plain
from einscale.report.layer.document import memory_document, totals_document
from einscale.training.values import LayerCost
from einscale.vocabulary import BACKWARD, FORWARD


@plain
def compare_document(comparison: Comparison) -> dict[str, Any]:
    """Everything the comparison knows, per device of the stage that works longest."""
    setup = comparison.sides[0].report.setup
    sides = zip(comparison.sides, comparison.totals, strict=True)
    return {
        **head("compare"),
        "inputs": {
            "model": setup.model.name,
            "hardware": setup.network.system.name,
            "for": comparison.scope.value,
            "batch": setup.batch,
            "sequence": setup.sequence,
            "precision": setup.precision.name,
        },
        "conventions": {
            "flops": "1 FLOP is half a multiply-add (2mnk)",
            "units": {"flops": "FLOP", "bytes": "byte", "seconds": "second"},
            "scope": "per device",
            "terms": "the other strategy less the first; they add up to `change`",
        },
        "notes": list(comparison.notes),
        "strategies": [_side_document(side, totals) for side, totals in sides],
        "differences": [_difference_document(difference) for difference in comparison.differences],
        "best": [
            {
                "measure": best.measure.value,
                "strategies": list(best.labels),
                "value": best.value,
                "next": best.next_label or None,
                "next_value": best.next_value,
            }
            for best in comparison.best
        ],
    }


def _side_document(side: Side, totals: Totals) -> dict[str, Any]:
    report, setup = side.report, side.report.setup
    memory = report.fullest.memory
    return {
        "label": side.label,
        "strategy": setup.strategy.name,
        "mesh": str(setup.mesh),
        "devices": setup.mesh.devices,
        "microbatch": setup.microbatch,
        "microbatches": setup.microbatches,
        "step_seconds": report.step_seconds,
        "tokens_per_second": report.tokens_per_second,
        "mfu": report.mfu,
        "totals": totals_document(totals),
        "kinds": [
            {
                "kind": layer.kind,
                "totals": {phase: totals_document(layer.totals(phase)) for phase in (FORWARD, BACKWARD)},
                "sections": {
                    section: {phase: totals_document(totals) for phase, totals in found.items()}
                    for section, found in _sections(layer).items()
                },
            }
            for layer in report.layers
        ],
        "memory": memory_document(memory),
    }


def _sections(layer: LayerCost) -> dict[str, dict[str, Totals]]:
    """Section of a layer -> pass -> its sums for one microbatch."""
    names = dict.fromkeys(row.planned.statement.section for row in layer.rows if row.planned.statement.section)
    return {
        name: {
            phase: total(
                row for row in layer.rows if (row.planned.statement.section, row.planned.phase) == (name, phase)
            )
            for phase in (FORWARD, BACKWARD)
        }
        for name in names
    }


def _difference_document(difference: Difference) -> dict[str, Any]:
    return {
        "first": difference.first,
        "other": difference.other,
        "change": totals_document(difference.change),
        "terms": [
            {
                "about": term.about.value,
                "layer": term.layer,
                "phase": term.phase,
                "sections": [section for section in term.sections if section],
                "names": list(term.names),
                "what": str(term.what),
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
                "part": term.part.value if term.part else "host",
                "layer": term.layer,
                "names": list(term.names),
                "first": holding_words(term.first) or None,
                "other": holding_words(term.other) or None,
                "bytes": term.bytes,
            }
            for term in difference.memory_terms
        ],
    }
