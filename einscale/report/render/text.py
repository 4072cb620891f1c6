"""Reports as lines of text: full width where nothing limits it, wrapped (never cut) where a terminal does."""

from __future__ import annotations

import re

from einscale.report.table import Column, Line, Report, Row, Table, numeric

STYLES = ("", "title", "header", "rule", "collective", "section", "total", "detail", "note", "good", "bad")

_UNIT = (
    r"(?:%|[kMGTPE](?=[ ),.;:]|$)|[KMGTPE]i?B(?:/s)?|[kMGTPE]?B(?:/s)?|[kMGTPE]?FLOP(?:/s)?|[mµn]?s|W|[kMG]?J"
    r"|tokens(?:/s)?|days?|hours?|times)"
)
_WORDS = re.compile(rf"(?:\+ )?[(+~-]*\d[\d.,]*(?: {_UNIT})+[),.;:]*(?= |$)|\S+")
"""What a line is broken between: words, and figures with their units."""

GAP = 2
NARROWEST = 14
LONGEST_RULE = 160


def render_text(report: Report, *, width: int | None = None, units: str = "iec") -> str:
    """The report as plain text, each line ending in a newline.

    Args:
        report: what to print.
        width: columns of the terminal; None never breaks a line.
        units: `iec` or `si`.
    """
    lines = report_lines(report, width=width, units=units)
    return "".join("".join(text for text, _ in line).rstrip() + "\n" for line in lines)


def report_lines(report: Report, *, width: int | None = None, units: str = "iec") -> list[Line]:
    """The lines of a report with their styles; of its screen, where it has one."""
    lines: list[Line] = []
    for block in report.screen:
        lines += [(), *block.lines(width, units)]
    if report.screen:
        return lines[1:]
    for number, text in enumerate(report.heading):
        lines += paragraph(text, width, "title" if number == 0 else "", 2)
    for picture in report.pictures:
        lines += [(), *paragraph(picture.title, width, "title", 2), *picture.lines]
    for table in report.tables:
        lines += [(), *table_lines(table, width=width, units=units)]
    for texts, style in ((report.summary, ""), (report.conventions, "note")):
        if texts:
            lines.append(())
            for text in texts:
                lines += paragraph(text, width, style, 2)
    return lines[1:] if lines and not lines[0] else lines


def table_lines(table: Table, *, width: int | None = None, units: str = "iec") -> list[Line]:
    """The lines of one table: title, header, rule, rows with their details below them."""
    shown = [number for number, column in enumerate(table.columns) if not column.detail]
    spare = [number for number in shown if table.columns[number].spare]
    details = [number for number, column in enumerate(table.columns) if column.detail]
    texts = [[c.text(cell, units) for cell, c in zip(r.cells, table.columns, strict=True)] for r in table.rows]
    widths = _fit(table, texts, shown, width)
    while spare and width is not None and _total(widths) > width:
        shown.remove(spare.pop())
        widths = _fit(table, texts, shown, width)
    total = _total(widths)
    lines: list[Line] = paragraph(table.title, width, "title", 2)
    header = {number: wrap(table.columns[number].title, widths[number]) or [""] for number in shown}
    lines += _columns(table.columns, shown, widths, header, "header")
    rule: Line = (("─" * min(total, width or LONGEST_RULE), "rule"),)
    lines.append(rule)
    for row, text in zip(table.rows, texts, strict=True):
        if row.role == "total":
            lines.append(rule)
        lines += _row_lines(table.columns, shown, widths, row, text)
        indent = " " * (2 * row.level + 4)
        for number in details:
            for sentence in text[number].splitlines():
                lines += [(("".join((indent, part)), "detail"),) for part in wrap(sentence, width, len(indent), 2)]
    return lines


def _total(widths: dict[int, int]) -> int:
    """Columns of a terminal that a table takes."""
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _row_lines(
    columns: tuple[Column, ...], shown: list[int], widths: dict[int, int], row: Row, text: list[str]
) -> list[Line]:
    """The lines of one row; a section heading runs over the whole line."""
    style = {"collective": "collective", "section": "section", "subtotal": "total", "total": "total"}.get(row.role, "")
    indent = " " * (2 * row.level)
    if row.role == "section":
        return [((indent + text[shown[0]], style),)]
    cells = {number: wrap(text[number], widths[number]) or [""] for number in shown}
    first = shown[0]
    cells[first] = [indent + part for part in wrap(text[first], widths[first] - len(indent), 0, 2) or [""]]
    return _columns(columns, shown, widths, cells, style)


def _columns(
    columns: tuple[Column, ...], shown: list[int], widths: dict[int, int], cells: dict[int, list[str]], style: str
) -> list[Line]:
    """Cells side by side, as many lines as the tallest needs."""
    lines: list[Line] = []
    for level in range(max(len(parts) for parts in cells.values())):
        pieces: list[str] = []
        for number in shown:
            part = cells[number][level] if level < len(cells[number]) else ""
            width = widths[number]
            pieces.append(part.rjust(width) if numeric(columns[number]) else part.ljust(width))
        lines.append((((" " * GAP).join(pieces).rstrip(), style),))
    return lines


def _fit(table: Table, texts: list[list[str]], shown: list[int], width: int | None) -> dict[int, int]:
    """Width of each shown column: what its cells need, less where a column may wrap and the terminal is narrow."""
    widths = {number: len(table.columns[number].title) for number in shown}
    for row, text in zip(table.rows, texts, strict=True):
        for number in shown if row.role != "section" else ():
            indent = 2 * row.level if number == shown[0] else 0
            widths[number] = max(widths[number], len(text[number]) + indent)
    if width is None:
        return widths
    excess = sum(widths.values()) + GAP * (len(shown) - 1) - width
    flexible = [number for number in shown if table.columns[number].wrap]
    while excess > 0 and flexible:
        widest = max(flexible, key=lambda number: widths[number])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
        excess -= 1
    return widths


def paragraph(text: str, width: int | None, style: str = "", hanging: int = 2) -> list[Line]:
    """The lines of one paragraph, all of one style; arguments as of `wrap`."""
    return [((part, style),) for part in wrap(text, width, 0, hanging)]


def wrap(text: str, width: int | None, indent: int = 0, hanging: int = 0) -> list[str]:
    """Break a text at spaces so that no line is longer than `width`; a longer word is broken, never cut.

    A figure and its unit are one word.

    Args:
        text: one paragraph; its leading spaces are kept on its first line and continued on the others.
        width: columns; None leaves the text whole.
        indent: columns already taken at the left of every line.
        hanging: further spaces before every line but the first.

    >>> wrap("gather the weights over data", 12, 0, 2)
    ['gather the', '  weights', '  over data']
    >>> wrap("it needs 31.8 GiB of 74.5 GiB", 12)
    ['it needs', '31.8 GiB of', '74.5 GiB']
    """
    if width is None or len(text) + indent <= width:
        return [text] if text else []
    lead = " " * (len(text) - len(text.lstrip()))
    lines: list[str] = []
    line = lead
    started = False
    for word in _WORDS.findall(text):
        rest = word
        if started and len(line) + 1 + len(rest) + indent <= width:
            line += " " + rest
            continue
        if started:
            lines.append(line)
            line = lead + " " * hanging
        room = max(8, width - indent - len(line))
        while len(rest) > room:
            lines.append(line + rest[:room])
            rest, line = rest[room:], lead + " " * hanging
            room = max(8, width - indent - len(line))
        line += rest
        started = True
    return [*lines, line]
