"""The report on requests in full: every kind of layer, every statement, every collective with its cause."""

from __future__ import annotations

from einscale.report.layer.tables import COLUMNS, statement_rows, total_row
from einscale.report.table import Column, Row, Table
from einscale.serving import DecodeReport, KindStep, PrefillReport, StepReport


def detail_tables(prefill: PrefillReport | None, decode: DecodeReport | None) -> list[Table]:
    """Tables that `--detail` adds.

    Args:
        prefill: its last chunk is shown; None to leave it out.
        decode: a step in the middle of the output is shown; None to leave it out.
    """
    phases: list[tuple[str, str, StepReport]] = []
    if prefill is not None:
        chunk = "the prefill" if prefill.chunks == 1 else "the last chunk of the prefill"
        phases.append(("prefill", f"{chunk}{_part(prefill.microbatches)}", prefill.last))
    if decode is not None:
        phases.append(("decode", f"a decode step{_part(decode.microbatches)}", decode.step))
    tables = [_layers_table(phases)]
    for name, words, step in phases:
        tables += [_statements_table(name, words, kind, step) for kind in step.kinds]
    return tables


def _part(microbatches: int) -> str:
    return f" of one of {microbatches} microbatches" if microbatches > 1 else ""


def _layers_table(phases: list[tuple[str, str, StepReport]]) -> Table:
    """One layer of every kind: where its time goes."""
    columns = (
        Column("layer", "one layer", wrap=True),
        Column("repeat", "layers", "integer"),
        Column("seconds", "time", "seconds"),
        Column("weights_seconds", "weights", "seconds"),
        Column("cache_seconds", "cache", "seconds"),
        Column("activations_seconds", "other", "seconds"),
        Column("compute_seconds", "compute", "seconds"),
        Column("launch_seconds", "launch", "seconds"),
        Column("network_seconds", "network", "seconds"),
        Column("kernels", "kernels", "integer", spare=True),
    )
    rows: list[Row] = []
    for _, words, step in phases:
        rows.append(Row((words, *("",) * (len(columns) - 1)), 0, "section"))
        for kind in step.kinds:
            spent = kind.spent
            parts = (spent.weights, spent.cache, spent.traffic, spent.compute, spent.launch, spent.communication)
            shown = (part or None for part in parts)
            rows.append(Row((kind.kind, kind.repeat, spent.seconds, *shown, kind.kernels), 1))
    return Table("layers", "every kind of layer: where the time of one layer goes", columns, tuple(rows))


def _statements_table(name: str, words: str, kind: KindStep, step: StepReport) -> Table:
    """Every statement of one layer with its collectives."""
    rows = [row for priced in kind.rows for row in statement_rows(priced, kind.planned, True)]
    rows.append(total_row(f"{kind.kind}, one layer" if kind.repeat > 1 else kind.kind, kind.totals, "total"))
    tokens = f"{step.new} new token{'s' if step.new > 1 else ''} of {step.batch} after {step.cached} in the cache"
    layers = f" (x {kind.repeat})" if kind.repeat > 1 else ""
    return Table(f"{name}_{kind.kind}", f"{kind.kind}{layers} in {words}: {tokens}", COLUMNS, tuple(rows), "statements")
