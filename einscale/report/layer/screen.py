"""The layer report on one screen: the verdict, a row for each kind of layer, the largest collectives, notes."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from einscale.collectives import FREE
from einscale.layers import KindReport, LayerReport
from einscale.price.overlap import what_moves
from einscale.price.program import NOTHING, PricedCollective, Totals
from einscale.report.causes import cause_words
from einscale.report.screen import Items, TableBlock, Words, verdict_block
from einscale.report.table import Block, Column, Row, RowRole, Table
from einscale.report.training.parts import WORDS, part_name
from einscale.report.words import unexpected_words
from einscale.training.price import UPDATE_PARTS
from einscale.units import format_bytes, format_seconds
from einscale.vocabulary import BACKWARD, FORWARD

TOLD = ("seconds", "parameters_bytes")
"""Columns that the screen has no room for; `--only layers` has it."""

SHOWN = 3
"""Collectives that are named."""

LEAST = 0.001
"""Share of a microbatch's time below which collectives are not named."""

WORST = 4
"""Padded tensors, and collectives that are not expected, that are named."""


def layer_screen(
    report: LayerReport, heading: tuple[str, ...], verdicts: tuple[tuple[str, str], ...], units: str
) -> tuple[Block, ...]:
    """Blocks of the default report.

    Args:
        report: what was priced.
        heading: what was asked: a title, and lines on how.
        verdicts: the answer in lines, each with its style.
        units: `iec` or `si`.
    """
    moved = tuple(_largest(report, units))
    once = once_words(report)
    return (
        verdict_block(heading, verdicts),
        TableBlock(_narrow(layers_table(report))),
        *((Items("largest collectives of one microbatch, all layers", moved),) if moved else ()),
        *((Words(((once, ""),)),) if once else ()),
        _closing(report),
    )


def layers_table(report: LayerReport) -> Table:
    """One row for each kind of layer: what one of them takes and holds; then what all of them do."""
    forward, backward = (phase in report.phases for phase in (FORWARD, BACKWARD))
    trains = report.step is not None
    columns = (
        Column("layer", "one layer"),
        Column("count", "layers", "integer"),
        Column("seconds", "in all", "seconds", spare=True),
        *((Column("forward_seconds", "forward", "seconds"),) if forward else ()),
        *((Column("backward_seconds", "backward", "seconds"),) if backward else ()),
        Column("compute_seconds", "local", "seconds"),
        Column("communication_seconds", "exposed", "seconds"),
        Column("received_bytes", "received", "bytes"),
        Column("parameters_bytes", "params", "bytes", spare=True),
        *((Column("saved_bytes", "saved", "bytes"),) if trains else ()),
    )

    def row(name: str, count: int, times: dict[str, Totals], params: int, saved: int, role: RowRole = "") -> Row:
        phases = [times[phase].seconds for phase in (FORWARD, BACKWARD) if phase in report.phases]
        both = times[""]
        cells = (both.compute_seconds, both.communication_seconds, both.received, params)
        every = both.seconds if role else both.seconds * count
        return Row((name, count, every, *phases, *cells, *((saved,) if trains else ())), role=role)

    rows: list[Row] = []
    sums = dict.fromkeys(("", FORWARD, BACKWARD), NOTHING)
    for kind in report.kinds:
        times = {phase: kind.totals(phase) for phase in sums}
        rows.append(row(kind.kind, kind.repeat, times, kind.parameter_bytes, kind.saved_bytes))
        sums = {phase: found.plus(times[phase].times(kind.repeat)) for phase, found in sums.items()}
    params = sum(kind.parameter_bytes * kind.repeat for kind in report.kinds)
    saved = sum(kind.saved_bytes * kind.repeat for kind in report.kinds)
    rows.append(row("all layers", sum(kind.repeat for kind in report.kinds), sums, params, saved, "total"))
    return Table("layers", "one microbatch through each kind of layer", columns, tuple(rows))


def _narrow(table: Table) -> Table:
    """The table as the screen has room for it: what is held besides, and the update, are told elsewhere."""
    kept = [at for at, column in enumerate(table.columns) if column.key not in TOLD]
    rows = tuple(replace(row, cells=tuple(row.cells[at] for at in kept)) for row in table.rows)
    return replace(table, columns=tuple(table.columns[at] for at in kept), rows=rows)


def _largest(report: LayerReport, units: str) -> Iterator[tuple[str, str]]:
    """The collectives that a microbatch waits for longest: what they are, and why the longest of them runs."""
    groups: dict[tuple[str, str, str], list[tuple[KindReport, PricedCollective]]] = {}
    for kind in report.kinds:
        for row in kind.rows:
            for priced in row.collectives:
                if priced.step.kind not in FREE and priced.bytes:
                    key = what_moves(kind.planned, priced), priced.step.kind, "/".join(priced.step.axes)
                    groups.setdefault(key, []).append((kind, priced))

    def exposed(group: list[tuple[KindReport, PricedCollective]]) -> tuple[float, float]:
        return (
            float(sum(priced.exposed_seconds * kind.repeat for kind, priced in group)),
            float(sum(priced.seconds * kind.repeat for kind, priced in group)),
        )

    least = LEAST * float(report.totals.seconds)
    for (what, called, axis), group in sorted(groups.items(), key=lambda item: exposed(item[1]), reverse=True)[:SHOWN]:
        left, whole = exposed(group)
        if whole < least:
            continue
        times = sum(kind.repeat for kind, _ in group)
        received = sum(priced.bytes * kind.repeat for kind, priced in group)
        hidden = f", + {format_seconds(whole - left)} hidden" if whole - left > whole / 1000 else ""
        often = f"{times:,} times" if times > 1 else "once"
        words = f"{called} of {WORDS.get(what, what)} over {axis}, {often}, {format_bytes(received, units)}{hidden}"
        _, most = max(group, key=lambda entry: (entry[1].exposed_seconds * entry[0].repeat, entry[1].bytes))
        yield f"{format_seconds(left)}: {words}", f"{most.step.tensor.name}: {cause_words(most.step.cause)}"


def once_words(report: LayerReport) -> str:
    """What a step does beside its microbatches, in words; "" where there is no step."""
    if report.step is None:
        return ""
    parts = [part for part in report.step.spent if part.what in UPDATE_PARTS and part.seconds]
    told = [
        part_name(part.what).removesuffix(" once a step")
        + (f" over {part.axis}" if part.axis else "")
        + f" {format_seconds(part.seconds)}"
        + (f" (+ {format_seconds(part.hidden)} hidden)" if part.hidden else "")
        for part in sorted(parts, key=lambda part: -part.seconds)
    ]
    return f"once a step: {', '.join(told)}" if told else ""


def padding_words(report: LayerReport) -> tuple[str, ...]:
    """Which tensors are padded most, in a line; none where none is."""
    shares = sorted(((share, kind.kind, name) for kind in report.kinds for name, share in kind.padding), reverse=True)
    worst = ", ".join(f"{100 * share:.2g} % of {kind} {name}" for share, kind, name in shares[:WORST])
    more = f", and {len(shares) - WORST} more" if len(shares) > WORST else ""
    return (f"padding: {worst}{more}",) if shares else ()


def _closing(report: LayerReport) -> Words:
    """The last lines: what was decided, what is padded or not expected, how to read it, what else there is."""
    notes = [note for note in report.notes if note not in report.model.notes]
    notes += padding_words(report)
    unexpected = [f"not expected by {report.strategy.name}: {unexpected_words(one)}" for one in report.unexpected]
    if len(unexpected) > WORST:
        unexpected[WORST - 1 :] = [f"and {len(unexpected) - WORST + 1} more that are not expected"]
    read = "times are those of `einscale train`, modelled, not measured; figures are of one device"
    largest = max(report.kinds, key=lambda kind: kind.repeat).kind
    more = f"--detail: every statement; --only NAME: {', '.join(dict.fromkeys((largest, 'head', 'layers')))}, ..."
    if largest == "head" or "head" not in {kind.kind for kind in report.kinds}:
        more = f"--detail: every statement; --only NAME: {largest}, layers, ..."
    told = (*((text, "") for text in unexpected), ("; ".join((*notes, read)), "note"), (more, "note"))
    return Words(told)
