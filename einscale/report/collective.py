"""One collective on its own as a report and a document: algorithms side by side, and its time over sizes."""

from __future__ import annotations

from typing import Any

from einscale.report.document import head, plain
from einscale.report.table import Column, Report, Row, Table
from einscale.topology.collective import SHARDED, Alone, over_sizes
from einscale.units import format_bytes, format_seconds

ALGORITHMS = (
    Column("algorithm", "algorithm", wrap=True),
    Column("priced", "", "mark"),
    Column("seconds", "time", "seconds"),
    Column("latency_seconds", "latency", "seconds"),
    Column("latency_share", "share", "percent"),
    Column("even_bytes", "bandwidth-bound from", "bytes"),
    Column("formula", "formula", detail=True),
)

SWEEP = (
    Column("whole_bytes", "V", "bytes"),
    Column("received_bytes", "received", "bytes"),
    Column("seconds", "time", "seconds"),
    Column("latency_share", "latency", "percent"),
    Column("whole_bytes_per_second", "V/s", "si"),
    Column("received_bytes_per_second", "bus/s", "si"),
    Column("fastest", "fastest", wrap=True),
    Column("fastest_seconds", "its time", "seconds"),
)

CONVENTIONS = (
    "V: bytes of the whole array of one group: gathered, or owed before it is reduced; L: what a device holds before"
    " the move; n: devices of the group; m: devices of faster levels; W: one-way bandwidth of a port or link; k: links"
    " at work",
    "*: what plans are priced with; bandwidth-bound from: the V at which latency is half of the time",
    "bus/s: bytes a device receives in a second, which nccl-tests call bus bandwidth",
    "times are modelled, not measured: attainable rates where a source has them, otherwise datasheet",
)


def collective_report(alone: Alone, units: str = "iec") -> Report:
    """Times by algorithm, the size at which bytes outweigh latency, and a table over sizes."""
    tables: tuple[Table, ...] = ()
    if alone.algorithms:
        tables = (_algorithms(alone), _sweep(alone))
    return Report(_heading(alone, units), tables, _summary(alone, units), CONVENTIONS)


def _heading(alone: Alone, units: str) -> tuple[str, ...]:
    mesh, system = alone.network.mesh, alone.network.system
    at_once = f"{alone.groups} groups at once, each of" if alone.groups > 1 else "one group of"
    levels = ", ".join(f"{term.level} ({term.pattern})" for term in alone.formula.terms)
    before = f"V/{alone.devices} = " if alone.kind in SHARDED else "V = "
    own = "" if alone.kind in SHARDED else ", a sum of its own,"
    return (
        f"{alone.kind} of V = {format_bytes(alone.whole, units)} over {', '.join(alone.axes)}",
        f"mesh {mesh}, {mesh.devices} devices of {system.name}; {at_once} {alone.devices}"
        + (f" on {levels}" if levels else ""),
        f"a device holds {before}{format_bytes(alone.held, units)}{own} before and"
        f" {format_bytes(alone.after, units)} after, and receives {format_bytes(alone.received, units)}",
    )


def _summary(alone: Alone, units: str) -> tuple[str, ...]:
    priced, fastest = alone.priced, alone.fastest
    if priced is None or fastest is None:
        return ("a group of one device: nothing moves",)
    even = format_bytes(alone.even_bytes(priced), units)
    lines = [
        f"{format_seconds(priced.seconds)} by {priced.name}, {100 * priced.latency_share:.3g} % of it latency;"
        + (f" bandwidth-bound from V = {even} on" if priced.alpha else " no latency: bandwidth-bound at any V")
    ]
    if fastest.seconds < 0.99 * priced.seconds:
        lines.append(f"the fastest here is {fastest.name}: {format_seconds(fastest.seconds)}")
    return tuple(lines)


def _algorithms(alone: Alone) -> Table:
    rows = tuple(
        Row(
            (
                way.name,
                way.priced,
                way.seconds,
                way.alpha,
                way.latency_share,
                round(alone.even_bytes(way)),
                way.formula,
            ),
            role="collective" if way.priced else "",
        )
        for way in alone.algorithms
    )
    return Table("algorithms", "", ALGORITHMS, rows)


def _sweep(alone: Alone) -> Table:
    rows = []
    for row in over_sizes(alone):
        priced = row.algorithms[0]
        fastest = row.fastest or priced
        rates = (row.whole_bytes_per_second, row.received_bytes_per_second)
        cells = (row.whole, row.received, priced.seconds, priced.latency_share, *rates, fastest.name, fastest.seconds)
        rows.append(Row(cells))
    return Table("sizes", "over sizes", SWEEP, tuple(rows))


@plain
def collective_document(alone: Alone) -> dict[str, Any]:
    """One collective as plain values: bytes exact, seconds, bytes per second."""
    mesh, system = alone.network.mesh, alone.network.system
    priced = alone.priced
    return {
        **head("collective"),
        "inputs": {
            "kind": alone.kind,
            "whole_bytes": alone.whole,
            "axes": list(alone.axes),
            "mesh": {axis.name: axis.size for axis in mesh.axes},
            "mesh_text": str(mesh),
            "hardware": system.name,
        },
        "conventions": {
            "whole_bytes": "bytes of the whole array of one group: gathered, or owed before it is reduced",
            "even_bytes": "whole bytes at which latency is half of the time: larger arrays are bandwidth-bound",
            "received_bytes": "per device, rounded up",
            "provenance": alone.formula.provenance,
        },
        "devices": alone.devices,
        "groups": alone.groups,
        "held_bytes": alone.held,
        "after_bytes": alone.after,
        "received_bytes": alone.received,
        "seconds": alone.seconds,
        "latency_seconds": priced.alpha if priced else 0.0,
        "latency_share": priced.latency_share if priced else 0.0,
        "even_bytes": alone.even_bytes(priced) if priced else 0.0,
        "formula": str(alone.formula),
        "terms": [
            {"level": term.level, "pattern": term.pattern, "filled": term.filled, "seconds": term.seconds}
            for term in alone.formula.terms
        ],
        "algorithms": [
            {
                "name": way.name,
                "priced": way.priced,
                "seconds": way.seconds,
                "latency_seconds": way.alpha,
                "latency_share": way.latency_share,
                "even_bytes": alone.even_bytes(way),
                "formula": way.formula,
            }
            for way in alone.algorithms
        ],
        "sizes": [_size(row) for row in over_sizes(alone)],
    }


def _size(row: Alone) -> dict[str, Any]:
    """One line of the table over sizes."""
    fastest = row.fastest
    return {
        "whole_bytes": row.whole,
        "received_bytes": row.received,
        "seconds": row.seconds,
        "latency_share": row.priced.latency_share if row.priced else 0.0,
        "fastest": fastest.name if fastest else None,
        "fastest_seconds": fastest.seconds if fastest else 0.0,
    }
