"""A layout or an einsum in every notation, and decoded warnings, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.report.table import Column, Report, Row, Table
from einscale.units import format_bytes

if TYPE_CHECKING:
    from einscale.conversion import Converted, ConvertedText, DecodedWarning, Written

TITLES = {
    "slash": "slash notation",
    "numpy": "numpy with rules",
    "book": "scaling book",
    "jax": "JAX PartitionSpec",
    "jax-type": "JAX type",
    "dtensor": "DTensor placements",
    "shardy": "Shardy",
    "hlo": "HloSharding",
}
"""What people call each notation."""

_COLUMNS = (
    Column("notation", "notation"),
    Column("text", "text", wrap=True),
    Column("note", "note", detail=True),
)
_MOVES = (
    Column("move", "einscale's moves", wrap=True),
    Column("received_bytes", "received", "bytes"),
)
NUMBERED = "an HloSharding numbers devices: its names hold if the mesh's devices are in the order of their numbers"


def conversion_report(conversion: ConvertedText) -> Report:
    """The report of a conversion."""
    mesh = (f"mesh {conversion.mesh}",) if conversion.mesh is not None else ()
    numbered = (NUMBERED,) if conversion.syntax in {"hlo", "xla-warning"} else ()
    if conversion.item is not None:
        item = conversion.item
        heading = (f"{item.canonical or 'a scalar'}", f"read as {TITLES[conversion.syntax]}", *mesh)
        lost = tuple(f"lost: {sentence}" for sentence in item.lost)
        return Report(heading, (_written(item, ""),), (*_left_out(item), *lost), numbered)
    warnings = conversion.warnings
    count = sum(one.count for one in warnings)
    heading = (f"{count} warning{'s' if count > 1 else ''} of XLA that a tensor is replicated", *mesh)
    shape = "the shape in a warning is one device's; that of the whole tensor is it times the shards, padding included"
    tables = tuple(table for one in warnings for table in _warning(one, len(warnings) > 1))
    summary = tuple(sentence for one in warnings for sentence in _sentences(one))
    return Report(heading, tables, summary, (*numbered, shape))


def _written(item: Converted, title: str) -> Table:
    rows = tuple(Row((TITLES[one.notation], _text(one), one.note if one.text is None else "")) for one in item.written)
    return Table(item.role, title, _COLUMNS, rows)


def _left_out(item: Converted) -> tuple[str, ...]:
    """What notations that can write it leave out, one sentence for each kind."""
    found: dict[str, list[str]] = {}
    for one in item.written:
        if one.text is not None and one.note:
            found.setdefault(one.note, []).append(TITLES[one.notation])
    return tuple(f"{note}: {', '.join(titles)}" for note, titles in found.items())


def _text(one: Written) -> str:
    """How it is written, with the rules that belong to it."""
    if one.text is None:
        return "—"
    return f"{one.text}  --shard {one.rules}" if one.rules else one.text


def _warning(one: DecodedWarning, several: bool) -> list[Table]:
    """The tables of one warning."""
    if one.before is None or one.after is None:
        return []
    what = f"{one.operation or 'a tensor'}" if several else ""
    columns = (_COLUMNS[0], Column("from", "from", wrap=True), Column("to", "to", wrap=True))
    rows = tuple(
        Row((TITLES[before.notation], _text(before), _text(after)))
        for before, after in zip(one.before.written, one.after.written, strict=True)
        if before.text is not None or after.text is not None
    )
    tables = [Table("warning", what, columns, rows)]
    if one.moves:
        moves = [Row((move.text, move.bytes_received), 0, "collective") for move in one.moves]
        moves.append(Row(("total", one.bytes_received), 0, "total"))
        tables.append(Table("moves", "", _MOVES, tuple(moves)))
    return tables


def _sentences(one: DecodedWarning) -> list[str]:
    """What is to be said about one warning."""
    name = one.operation or "the tensor"
    found = []
    if one.op_name:
        found.append(f"{name} is {one.op_name} in the program")
    if one.shape is not None:
        found.append(f"{name} is {one.element}[{','.join(map(str, one.shape))}] as a whole")
    if one.bytes_replicated is not None and one.bytes_received is not None:
        ratio = f", {one.bytes_replicated / one.bytes_received:.3g} times as much" if one.bytes_received else ""
        found.append(
            f"to replicate it makes a device receive {format_bytes(one.bytes_replicated)}{ratio};"
            f" the moves above {format_bytes(one.bytes_received)}"
        )
    if one.note:
        found.append(f"{name}: {one.note}")
    lost = [sentence for side in (one.before, one.after) if side is not None for sentence in side.lost]
    return found + [f"lost: {sentence}" for sentence in dict.fromkeys(lost)]
