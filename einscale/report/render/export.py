"""Reports for files: Markdown and CSV from the same rows, and JSON of a result's own document."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from einscale.errors import UsageError, did_you_mean
from einscale.report.bars import Bars
from einscale.report.screen import Beside, Items, TableBlock, Words
from einscale.report.table import Block, Cell, Picture, Report, Row, Table, numeric


def render_markdown(report: Report, *, units: str = "iec") -> str:
    """The report as Markdown: pipe tables, details as columns, the conventions as a list; or its screen."""
    if report.screen:
        return "\n\n".join(_markdown_block(block, units) for block in report.screen) + "\n"
    blocks: list[str] = []
    if report.heading:
        blocks.append(
            "\n".join((f"## {_escape(report.heading[0])}", "", *map(_paragraph, report.heading[1:]))).rstrip()
        )
    blocks += [_markdown_picture(picture) for picture in report.pictures]
    blocks += [_markdown_table(table, units) for table in report.tables]
    if report.summary:
        blocks.append("\n".join(map(_paragraph, report.summary)).rstrip())
    if report.conventions:
        blocks.append("\n".join(f"- {_escape(text.strip())}" for text in report.conventions))
    return "\n\n".join(blocks) + "\n"


def _markdown_block(block: Block, units: str) -> str:
    """A block of a screen: words as paragraphs, bars and tables as tables, what is drawn as preformatted text."""
    if isinstance(block, Beside):
        return "\n\n".join(_markdown_block(one, units) for one in block.blocks)
    if isinstance(block, Words):
        title = [f"### {_escape(block.title)}", ""] if block.title else []
        texts = [f"## {_escape(text)}\n" if style == "title" else _paragraph(text) for text, style in block.texts]
        return "\n".join((*title, *texts)).rstrip()
    if isinstance(block, Items):
        items = (f"{number}. {_escape(what)}  \n   {_escape(why)}" for number, (what, why) in enumerate(block.items, 1))
        return "\n".join((f"### {_escape(block.title)}", "", *items))
    if isinstance(block, Bars):
        return _markdown_table(block.table(), units)
    if isinstance(block, TableBlock):
        return _markdown_table(block.table, units)
    lines = ["".join(piece for piece, _ in line).rstrip() for line in block.lines(None, units)]
    return "\n".join(("```text", *lines, "```"))


def _markdown_picture(picture: Picture) -> str:
    """A picture as a block of preformatted text."""
    lines = ["".join(piece for piece, _ in line).rstrip() for line in picture.lines]
    title = [f"### {_escape(picture.title)}", ""] if picture.title else []
    return "\n".join((*title, "```text", *lines, "```"))


def _paragraph(text: str) -> str:
    """One line that Markdown keeps as a line."""
    return f"{_escape(text.strip())}  "


def _escape(text: str) -> str:
    """Text that Markdown shows as it is written, inside and outside tables."""
    for sign in "\\|*<":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", "<br>")


def _markdown_table(table: Table, units: str) -> str:
    lines = [f"### {_escape(table.title)}", ""] if table.title else []
    lines.append("| " + " | ".join(_escape(column.title) for column in table.columns) + " |")
    lines.append("|" + "|".join("---:" if numeric(column) else "---" for column in table.columns) + "|")
    lines += ["| " + " | ".join(_markdown_cells(table, row, units)) + " |" for row in table.rows]
    return "\n".join(lines)


def _markdown_cells(table: Table, row: Row, units: str) -> list[str]:
    cells = [_escape(column.text(cell, units)) for cell, column in zip(row.cells, table.columns, strict=True)]
    if row.role in ("section", "subtotal", "total"):
        cells = [f"**{cell}**" if cell else "" for cell in cells]
    if row.level:
        cells[0] = "&nbsp;" * (4 * row.level) + cells[0]
    return cells


def csv_tables(report: Report) -> dict[str, tuple[Table, ...]]:
    """Name -> the tables that are one table of CSV: those of one kind, with the same columns; the main one first."""
    found: dict[str, list[Table]] = {}
    for table in report.tables:
        name = table.kind or table.name
        if name in found and _keys(found[name][0]) != _keys(table):
            name = table.name
        found.setdefault(name, []).append(table)
    names = sorted(found, key=lambda name: name != report.main)
    return {name: tuple(found[name]) for name in names}


def only(report: Report, name: str) -> Report:
    """The report with one of its tables, by its name or by its kind.

    Raises:
        UsageError: it has none of that name.
    """
    tables = csv_tables(report).get(name) or tuple(table for table in report.tables if table.name == name)
    if not tables:
        raise _no_table(report, name)
    return Report((), tables, (), report.conventions)


def table_rows(report: Report, name: str | None = None) -> list[dict[str, Cell]]:
    """The rows of one table as flat dicts of one schema, ready for a data frame: values exact and in base units.

    `table`, `section`, `role` and `level` say where a row stands: in which table of its kind, below which heading, as
    an ordinary row (""), a collective, a sub-total or the total, and how deep. Keep `role == ""` to leave sums out.

    Args:
        report: what was answered.
        name: of the table; without it, the report's main one.

    Raises:
        UsageError: the report has no such table, or none at all.
    """
    tables = csv_tables(report)
    if name is not None and name not in tables:
        raise _no_table(report, name)
    chosen = tables[name] if name is not None else next(iter(tables.values()), ())
    return [row for table in chosen for row in _flat_rows(table)]


def _flat_rows(table: Table) -> list[dict[str, Cell]]:
    """The rows of a table; headings become a column of the rows below them."""
    sections: dict[int, Cell] = {}
    rows: list[dict[str, Cell]] = []
    for row in table.rows:
        if row.role == "section":
            sections = {level: text for level, text in sections.items() if level < row.level} | {
                row.level: row.cells[0]
            }
            continue
        section = "" if row.role == "total" else " / ".join(str(text) for text in sections.values())
        place: dict[str, Cell] = {"table": table.name, "section": section, "role": row.role, "level": row.level}
        cells = (cell.value if isinstance(cell, Enum) else cell for cell in row.cells)
        rows.append({**place, **dict(zip(_keys(table), cells, strict=True))})
    return rows


def _keys(table: Table) -> tuple[str, ...]:
    return tuple(column.key for column in table.columns)


def _no_table(report: Report, name: str) -> UsageError:
    known = csv_tables(report)
    return UsageError(f"the answer has no table `{name}`", hint=did_you_mean(name, known, "its tables are"))


PLACE = ("table", "section", "role", "level")
"""Columns before a table's own."""


def render_csv(report: Report, name: str | None = None) -> str:
    """One table of a report as CSV: a header row, then exact values in base units.

    Args:
        report: what was answered.
        name: of the table; without it, the report's main one.

    Raises:
        UsageError: the report has no such table.
    """
    import csv
    import io

    tables = csv_tables(report)
    if name is not None and name not in tables:
        raise _no_table(report, name)
    chosen = tables[name] if name is not None else next(iter(tables.values()), ())
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if chosen:
        writer.writerow([*PLACE, *_keys(chosen[0])])
    writer.writerows([_csv_cell(cell) for cell in row.values()] for table in chosen for row in _flat_rows(table))
    return stream.getvalue()


def _csv_cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def render_json(document: Mapping[str, Any]) -> str:
    """A result's document as JSON; ints are exact, whatever their size.

    >>> print(render_json({"flops": 10**30}), end="")
    {
      "flops": 1000000000000000000000000000000
    }
    """
    import json

    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
