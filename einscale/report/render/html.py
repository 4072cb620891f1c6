"""Reports for notebooks: one piece of HTML with the verdict, bars and the main table.

It stands alone (no script, no file, no style sheet), has no colours of its own for text and ground, so that light and
dark themes both stay readable, and escapes everything that it was given.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from msgspec import Struct

from einscale.report.render.export import csv_tables
from einscale.report.table import Cell, Column, Picture, Report, Row, Table, numeric

MOST_ROWS = 40
"""Rows of the main table that are shown."""

MOST_BARS = 12
"""Bars of one group, the largest; the others are one bar."""

HUES = (210, 30, 140, 280, 0, 180, 60, 320)
"""Colours of a picture's cells, one after the other."""

RULE = "1px solid rgba(128,128,128,.35)"


class HtmlBar(Struct, frozen=True):
    """One bar.

    Args:
        label: what it is.
        amount: as a person reads it.
        share: of the whole, from 0; bars that are longer than the whole are cut at it.
    """

    label: str
    amount: str
    share: float


def render_html(report: Report, verdict: str, bars: Iterable[str] = (), *, units: str = "iec") -> str:
    """A report as HTML.

    Args:
        report: what was answered.
        verdict: the answer in few words.
        bars: names, or kinds, of the tables that are drawn as bars.
        units: `iec` or `si`.
    """
    blocks = [_line(report.heading[0], "font-weight:bold")] if report.heading else []
    blocks += [_line(text, "opacity:.75") for text in report.heading[1:]]
    blocks.append(_line(verdict, "font-size:115%;font-weight:bold;margin:.4em 0"))
    blocks += [_line(text, "") for text in report.summary]
    blocks += [_picture(picture) for picture in report.pictures]
    names = tuple(bars)
    for table in report.tables:
        if table.name in names or table.kind in names:
            blocks += [_bars(title, group) for title, group in table_bars(table, units)]
    main = next(iter(csv_tables(report).values()), ())
    blocks += [_table(table, units) for table in main]
    return f'<div style="font-family:system-ui,sans-serif;line-height:1.4">{"".join(blocks)}</div>'


def table_bars(table: Table, units: str = "iec") -> list[tuple[str, list[HtmlBar]]]:
    """The rows of a table as bars: a group for each of its columns of shares, or one of its time as a share of it all.

    Sums are no bars. The amount beside a share is the column before it.
    """
    rows = [row for row in table.rows if row.role in ("", "collective")]
    shares = [number for number, column in enumerate(table.columns) if column.kind == "share"]
    if not shares:
        times = [number for number, column in enumerate(table.columns) if column.kind == "seconds"]
        return [(table.title, _of_whole(table, rows, times[0], units))] if times else []
    groups = []
    for number in shares:
        amount = number - 1
        found = [
            HtmlBar(
                _label(table, row), table.columns[amount].text(row.cells[amount], units), _number(row.cells[number])
            )
            for row in rows
            if row.cells[number]
        ]
        title = f"{table.title}: {table.columns[amount].title}" if len(shares) > 1 else table.title
        groups.append((title, _largest(found)))
    return groups


def _of_whole(table: Table, rows: list[Row], number: int, units: str) -> list[HtmlBar]:
    """Bars of amounts: of their sum where the table adds them up, of the largest where it does not."""
    amounts = [_number(row.cells[number]) for row in rows]
    summed = any(row.role == "total" for row in table.rows)
    whole = (sum(amounts) if summed else max(amounts, default=0.0)) or 1.0
    column = table.columns[number]
    bars = [
        HtmlBar(_label(table, row), column.text(row.cells[number], units), amount / whole)
        for row, amount in zip(rows, amounts, strict=True)
    ]
    return bars if len(bars) <= MOST_BARS else _largest(bars)


def _largest(bars: list[HtmlBar]) -> list[HtmlBar]:
    """Bars from the largest on, the small ones together."""
    bars = sorted(bars, key=lambda bar: -bar.share)
    rest = bars[MOST_BARS:]
    if not rest:
        return bars
    return [*bars[:MOST_BARS], HtmlBar(f"{len(rest)} others", "", sum(bar.share for bar in rest))]


def _label(table: Table, row: Row) -> str:
    """The first cell of a row, and the mesh axis beside it, if there is one."""
    texts = [
        str(cell)
        for cell, column in zip(row.cells[:2], table.columns[:2], strict=False)
        if cell and not numeric(column)
    ]
    return ", ".join(texts)


def _number(cell: Cell) -> float:
    return float(cell) if isinstance(cell, int | float) else 0.0


def _line(text: str, style: str) -> str:
    return f'<div style="{style}">{escape(text)}</div>'


def _bars(title: str, bars: list[HtmlBar]) -> str:
    """One group of bars."""
    if not bars:
        return ""
    rows = "".join(
        f'<tr><td style="padding:0 .8em 0 0;border:0;text-align:left">{escape(bar.label)}</td>'
        f'<td style="width:16em;border:0;padding:0"><div style="width:{100 * min(1.0, max(0.0, bar.share)):.1f}%;'
        'height:.8em;background:rgba(70,130,200,.75)"></div></td>'
        f'<td style="padding:0 0 0 .8em;border:0;text-align:right">{escape(bar.amount)}</td>'
        f'<td style="padding:0 0 0 .8em;border:0;text-align:right;opacity:.75">{100 * bar.share:.1f} %</td></tr>'
        for bar in bars
    )
    return f'{_line(title, "margin:.6em 0 .1em;opacity:.75")}<table style="border-collapse:collapse">{rows}</table>'


def _picture(picture: Picture) -> str:
    """A picture as preformatted text, its cells in colour."""
    lines = ("".join(_piece(text, style) for text, style in line) for line in picture.lines)
    title = _line(picture.title, "margin:.6em 0 .1em;opacity:.75") if picture.title else ""
    return f'{title}<pre style="line-height:1.2;background:none;color:inherit">{chr(10).join(lines)}</pre>'


def _piece(text: str, style: str) -> str:
    if not style.startswith("cell"):
        return escape(text)
    hue = HUES[int(style.removeprefix("cell")) % len(HUES)]
    return f'<span style="background:hsla({hue},60%,55%,.45)">{escape(text)}</span>'


def _table(table: Table, units: str) -> str:
    """The main table, its details as columns left out."""
    shown = [number for number, column in enumerate(table.columns) if not column.detail]
    columns = [table.columns[number] for number in shown]
    head = "".join(_cell("th", column.title, column, f"border-bottom:{RULE};") for column in columns)
    rows = "".join(_row(row, shown, columns, units) for row in table.rows[:MOST_ROWS])
    rest = len(table.rows) - MOST_ROWS
    more = _line(f"and {rest} more rows", "opacity:.75") if rest > 0 else ""
    title = _line(table.title, "margin:.6em 0 .1em;opacity:.75") if table.title else ""
    return f'{title}<table style="border-collapse:collapse"><tr>{head}</tr>{rows}</table>{more}'


def _row(row: Row, shown: list[int], columns: list[Column], units: str) -> str:
    style = "font-weight:bold;" if row.role in ("section", "subtotal", "total") else ""
    style += f"border-top:{RULE};" if row.role == "total" else ""
    cells = []
    for place, (number, column) in enumerate(zip(shown, columns, strict=True)):
        indent = f"padding-left:{0.4 + 1.2 * row.level:.1f}em;" if place == 0 and row.level else ""
        cells.append(_cell("td", column.text(row.cells[number], units), column, style + indent))
    return f"<tr>{''.join(cells)}</tr>"


def _cell(tag: str, text: str, column: Column, style: str) -> str:
    side = "right" if numeric(column) else "left"
    return f'<{tag} style="text-align:{side};padding:.1em .4em;{style}">{escape(text)}</{tag}>'
