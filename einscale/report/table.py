"""The table model every report is made of: columns that know their unit, rows that know their level and their role.

A cell holds the exact value (an int of bytes, a float of seconds); how it is written is the renderer's business. So the
same rows make the terminal table, the Markdown and the CSV, and none of them can say something else than the others.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias, get_args

from msgspec import Struct

from einscale.units import format_bytes, format_count, format_flops, format_seconds, format_si

Cell: TypeAlias = str | int | float | bool | None
"""A value in base units, text, yes or no, or nothing."""

Line: TypeAlias = tuple[tuple[str, str], ...]
"""Pieces of one line: (text, style), where a style is one of `text.STYLES`, or `cell` and a number."""

CellKind: TypeAlias = Literal[
    "text",
    "integer",
    "count",
    "bytes",
    "flops",
    "si",
    "seconds",
    "ratio",
    "percent",
    "share",
    "flag",
    "mark",
    "+bytes",
    "+si",
    "+seconds",
]
"""How the cells of a column are written; see `Column`."""

KINDS: tuple[CellKind, ...] = get_args(CellKind)

_UNSIGNED: dict[CellKind, CellKind] = {"+bytes": "bytes", "+si": "si", "+seconds": "seconds"}
"""Kinds that are changes -> the kind of what changes."""

_WORDS = {"flag": ("no", "yes"), "mark": ("", "*")}
"""Kinds that are no or yes, and how they are written."""

RowRole: TypeAlias = Literal["", "collective", "section", "subtotal", "total"]
"""What a row is; see `Row`."""

ROLES: tuple[RowRole, ...] = get_args(RowRole)


class Column(Struct, frozen=True):
    """One column.

    Args:
        key: its name in CSV, unit included (`received_bytes`).
        title: its heading for people.
        kind: how cells are written: one of `KINDS`. Every kind but words is aligned to the right; with a `+` it is a
            change, written with its sign and left empty where it is nothing. A `flag` is yes or no, a `mark` a star.
        detail: where a table is drawn its cells go on lines of their own below the row; Markdown and CSV keep a column.
        wrap: a text column that may be broken over lines where the terminal is narrow.
        spare: left out where a terminal is too narrow for all columns; other forms keep it.
        scale: people read cells divided by it, where the title names a unit of its own (TFLOP/s).
    """

    key: str
    title: str
    kind: CellKind = "text"
    detail: bool = False
    wrap: bool = False
    spare: bool = False
    scale: int = 1

    def text(self, value: Cell, units: str = "iec") -> str:
        """A cell of this column as a person reads it.

        >>> Column("flops_per_second", "TFLOP/s", "integer", scale=10**12).text(312 * 10**12)
        '312'
        """
        if self.scale == 1 or value is None or isinstance(value, str):
            return format_cell(value, self.kind, units)
        scaled = float(f"{value / self.scale:.5g}")
        return format_cell(int(scaled) if scaled == int(scaled) else scaled, self.kind, units)


class Row(Struct, frozen=True):
    """One row.

    Args:
        cells: one value per column of the table.
        level: 0, or how deep the row is indented below the one it belongs to.
        role: one of `ROLES`: an ordinary row, a collective, the heading of a section, a sub-total, the total.
    """

    cells: tuple[Cell, ...]
    level: int = 0
    role: RowRole = ""


class Table(Struct, frozen=True):
    """Columns and rows under a title.

    Args:
        name: identifies the table where a report has several.
        title: heading, "" for none.
        columns: at least one; the first is indented by a row's level.
        rows: each with as many cells as there are columns.
        kind: what its rows are, where several tables hold such rows: together they are one CSV table of that name.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    kind: str = ""


class Picture(Struct, frozen=True):
    """Lines drawn with signs, which no renderer wraps.

    Args:
        title: heading, "" for none.
        lines: pieces of each line with their styles, of which `cell0`, `cell1`, ... are colours one after the other.
    """

    title: str
    lines: tuple[tuple[tuple[str, str], ...], ...]


class Block(Protocol):
    """A part of a screen: it draws itself as wide as it is let."""

    def lines(self, width: int | None, units: str) -> list[Line]:
        """Its lines.

        Args:
            width: columns of the terminal; None where nothing limits a line.
            units: `iec` or `si`.
        """


class Report(Struct, frozen=True):
    """Everything one command prints: heading lines, tables, closing notes.

    Args:
        heading: what was asked: one line each.
        tables: in order; the first is the answer's main one, unless `main` names another.
        summary: the answer in lines.
        conventions: how to read the numbers; printed last.
        pictures: drawn before the tables, for people only.
        main: name of the table that CSV prints where none is asked for.
        screen: what people are shown in place of all the others, which files of tables still have.
    """

    heading: tuple[str, ...]
    tables: tuple[Table, ...]
    summary: tuple[str, ...] = ()
    conventions: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    main: str = ""
    screen: tuple[Block, ...] = ()


def format_cell(value: Cell, kind: CellKind, units: str = "iec") -> str:
    """A cell as a person reads it.

    >>> format_cell(3 * 2**20, "bytes"), format_cell(1.5e-3, "seconds"), format_cell(1.0, "ratio")
    ('3 MiB', '1.5 ms', '1.00')
    >>> format_cell(12345678, "integer"), format_cell(0.125, "percent"), format_cell(None, "bytes")
    ('12,345,678', '12.5 %', '')
    >>> format_cell(0.00042, "percent"), format_cell(0.00042, "share")
    ('0.042 %', '0.0 %')
    >>> format_cell(2**20, "+bytes"), format_cell(-1e-3, "+seconds"), format_cell(0, "+si")
    ('+1 MiB', '-1 ms', '')
    >>> format_cell(True, "flag"), format_cell(False, "flag"), format_cell(True, "mark"), format_cell(False, "mark")
    ('yes', 'no', '*', '')
    """
    if value is None or isinstance(value, str):
        return value or ""
    if kind in _WORDS:
        return _WORDS[kind][bool(value)]
    if kind.startswith("+"):
        text = format_cell(value, _UNSIGNED[kind], units) if value else ""
        return f"+{text}" if value > 0 else text
    if kind == "bytes":
        return format_bytes(value, units)
    if kind == "flops":
        return format_flops(value)
    if kind == "seconds":
        return format_seconds(value)
    if kind == "si":
        return format_si(value)
    if kind == "count":
        return format_count(value)
    if kind == "integer":
        return f"{value:,}"
    if kind == "ratio":
        return format_ratio(value)
    if kind == "percent":
        return f"{100 * value:.3g} %"
    if kind == "share":
        return f"{100 * value:.1f} %"
    return str(value)


def format_ratio(value: float) -> str:
    """A ratio for a person: two decimals, three digits where it is large.

    >>> format_ratio(1.0), format_ratio(1.428), format_ratio(123.4), format_ratio(float("inf"))
    ('1.00', '1.43', '123', 'inf')
    """
    return f"{value:.2f}" if value < 100 else f"{value:.3g}"


def numeric(column: Column) -> bool:
    """Whether a column is aligned to the right."""
    return column.kind != "text" and column.kind not in _WORDS
