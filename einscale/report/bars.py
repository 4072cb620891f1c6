"""Bars in plain text: one row a part, its figure, its share of the whole, and a bar of signs.

Every fill is a sign of its own, so that bars can be told apart without colour; `cli.output` spells the signs in ASCII
where a stream has no others.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import accumulate
from math import floor

from msgspec import Struct

from einscale.report.render.text import GAP, paragraph
from einscale.report.table import CellKind, Column, Line, Row, Table, format_cell

WIDEST = 50
"""Columns of a bar at most."""

PIPED = 40
"""Columns of a bar where nothing limits a line, and in Markdown."""

INDENT = 2
"""Columns that rows stand in by, below their title."""

NARROWEST = 6
"""Columns below which there is no room for bars: rows are figures alone."""

_TITLES = {"seconds": "time"}
"""Headings of the figures, where that is not their kind."""

SPECK = "▏"
"""What is not nothing, but less than half a column."""


class Fill(StrEnum):
    """What a piece of a bar stands for: its name in the legend, and its style."""

    WORK = "work"
    EXPOSED = "exposed"
    HIDDEN = "hidden"
    WAITING = "waiting"
    HELD = "held"
    LEFT = "left"
    TOO_MUCH = "too much"

    @property
    def sign(self) -> str:
        """The sign that it is drawn with."""
        return _SIGNS[self]


_SIGNS = {
    Fill.WORK: "█",
    Fill.EXPOSED: "▓",
    Fill.HIDDEN: "░",
    Fill.WAITING: "▒",
    Fill.HELD: "█",
    Fill.LEFT: "·",
    Fill.TOO_MUCH: "▓",
}


class Bar(Struct, frozen=True):
    """One row.

    Args:
        label: what it is.
        value: its figure, in the base unit of the bars.
        pieces: amounts side by side, each with its fill, in the same unit.
        note: said behind the bar.
    """

    label: str
    value: float
    pieces: tuple[tuple[Fill, float], ...]
    note: str = ""

    @property
    def length(self) -> float:
        """All pieces together."""
        return sum(amount for _, amount in self.pieces)


class Bars(Struct, frozen=True):
    """Rows of bars to one scale, under a title; a block of a screen.

    Args:
        title: heading.
        bars: the rows.
        total: what 100 % is.
        kind: how figures are written, as a column's (`seconds`, `bytes`).
        span: what a bar of full width stands for; None for the longest one.
        legend: say what the signs mean.

    >>> step = Bars("where 4 s go", (bar("work", 3.0, Fill.WORK), bar("moves", 1.0, Fill.EXPOSED)), 4.0)
    >>> for line in step.lines(44, "iec"):
    ...     print("".join(text for text, _ in line).rstrip())
    where 4 s go              █ work   ▓ exposed
      work   3 s  75.0 %  ██████████████████████
      moves  1 s  25.0 %  ▓▓▓▓▓▓▓
    """

    title: str
    bars: tuple[Bar, ...]
    total: float
    kind: CellKind = "seconds"
    span: float | None = None
    legend: bool = True

    def lines(self, width: int | None, units: str) -> list[Line]:
        """As a block of a screen draws itself."""
        return bar_lines(self, width, units)

    def table(self) -> Table:
        """The same for formats that have tables: figures in columns of their own, the bar as text."""
        columns = (
            Column("part", "part"),
            Column("value", _TITLES.get(self.kind, self.kind), self.kind),
            Column("share", "share", "share"),
            Column("bar", "bar"),
            Column("note", "note"),
        )
        span = _span(self)
        rows = tuple(
            Row((one.label, one.value, self.share(one), "".join(text for text, _ in drawn(one, span, PIPED)), one.note))
            for one in self.bars
        )
        return Table("", self.title, columns, rows)

    def share(self, one: Bar) -> float:
        """The share of the whole that a row is."""
        return one.value / self.total if self.total else 0.0

    @property
    def fills(self) -> tuple[Fill, ...]:
        """The fills that occur, in the order of `Fill`."""
        used = {fill for one in self.bars for fill, amount in one.pieces if amount}
        return tuple(fill for fill in Fill if fill in used)


def bar(label: str, value: float, fill: Fill, hidden: float = 0.0, note: str = "") -> Bar:
    """A row of one piece, and behind it what is hidden.

    Args:
        label: what it is.
        value: its figure.
        fill: of its piece.
        hidden: another piece, which the figure is without.
        note: said behind the bar.
    """
    return Bar(label, value, ((fill, value), (Fill.HIDDEN, hidden)), note)


def bar_lines(bars: Bars, width: int | None, units: str) -> list[Line]:
    """The lines of bars: a title with the legend, then rows whose bars take what room there is.

    Args:
        bars: to be drawn.
        width: columns; None for bars of `PIPED`.
        units: `iec` or `si`.
    """
    labels = [one.label for one in bars.bars]
    values = [format_cell(one.value, bars.kind, units) for one in bars.bars]
    shares = [format_cell(bars.share(one), "share") for one in bars.bars]
    taken = [max((len(text) for text in texts), default=0) for texts in (labels, values, shares)]
    notes = max((len(one.note) for one in bars.bars), default=0)
    room = PIPED if width is None else width - INDENT - sum(taken) - 3 * GAP - (notes + GAP if notes else 0)
    room = min(room, WIDEST)
    span, gap = _span(bars), " " * GAP
    lines = title_lines(bars.title, bars.fills if bars.legend and room >= NARROWEST else (), width)
    for one, label, value, share in zip(bars.bars, labels, values, shares, strict=True):
        row = [(" " * INDENT + f"{label.ljust(taken[0])}{gap}{value.rjust(taken[1])}{gap}{share.rjust(taken[2])}", "")]
        if room >= NARROWEST:
            pieces = drawn(one, span, room)
            length = sum(len(text) for text, _ in pieces)
            row += [(gap, ""), *pieces]
            row += [(" " * (room - length + GAP) + one.note, "")] if one.note else []
        elif one.note:
            row.append((gap + one.note, ""))
        lines.append(tuple(row))
    return lines


def title_lines(title: str, fills: tuple[Fill, ...], width: int | None) -> list[Line]:
    """A title, and a legend at its right, or below where there is no room."""
    legend: list[tuple[str, str]] = []
    for fill in fills:
        legend += [("   ", "")] if legend else []
        legend += [(fill.sign, fill.value), (f" {fill.value}", "note")]
    length = sum(len(text) for text, _ in legend)
    if not legend:
        return paragraph(title, width, "title")
    if width is None:
        return [((title, "title"), ("   ", ""), *legend)]
    room = width - len(title) - length
    if room >= GAP:
        return [((title, "title"), (" " * room, ""), *legend)]
    return [*paragraph(title, width, "title"), tuple(legend)]


def drawn(one: Bar, span: float, columns: int) -> list[tuple[str, str]]:
    """The pieces of a bar as signs with their styles, ends rounded to whole columns.

    Args:
        one: the row.
        span: what `columns` stand for.
        columns: of a bar of full width.

    >>> drawn(Bar("", 1.0, ((Fill.WORK, 1.0), (Fill.HIDDEN, 2.0))), 4.0, 8)
    [('██', 'work'), ('░░░░', 'hidden')]
    >>> drawn(bar("", 0.01, Fill.WORK), 4.0, 8), drawn(bar("", 0.0, Fill.WORK), 4.0, 8)
    ([('▏', 'work')], [])
    """
    ends = [0, *(_rounded(end / span * columns) if span else 0 for end in accumulate(a for _, a in one.pieces))]
    pieces = [
        (fill.sign * (end - start), fill.value)
        for (fill, _), start, end in zip(one.pieces, ends, ends[1:], strict=False)
        if end > start
    ]
    first = next((fill for fill, amount in one.pieces if amount), None)
    return pieces or ([(SPECK, first.value)] if first is not None else [])


def _span(bars: Bars) -> float:
    """What a bar of full width stands for."""
    return max((one.length for one in bars.bars), default=0.0) if bars.span is None else bars.span


def _rounded(value: float) -> int:
    """The nearest whole number, halves up."""
    return floor(value + 0.5)
