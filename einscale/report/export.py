"""Reports for files: Markdown and CSV from the same rows, and JSON of a result's own document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einscale.report.table import Cell, Report, Row, Table, format_cell, numeric


def render_markdown(report: Report, *, units: str = "iec") -> str:
    """The report as Markdown: pipe tables, details as columns, the conventions as a list."""
    blocks: list[str] = []
    if report.heading:
        blocks.append(
            "\n".join((f"## {_escape(report.heading[0])}", "", *map(_paragraph, report.heading[1:]))).rstrip()
        )
    blocks += [_markdown_table(table, units) for table in report.tables]
    if report.summary:
        blocks.append("\n".join(map(_paragraph, report.summary)).rstrip())
    if report.conventions:
        blocks.append("\n".join(f"- {_escape(text.strip())}" for text in report.conventions))
    return "\n\n".join(blocks) + "\n"


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
    cells = [
        _escape(format_cell(cell, column.kind, units)) for cell, column in zip(row.cells, table.columns, strict=True)
    ]
    if row.role in ("section", "subtotal", "total"):
        cells = [f"**{cell}**" if cell else "" for cell in cells]
    if row.level:
        cells[0] = "&nbsp;" * (4 * row.level) + cells[0]
    return cells


def render_csv(report: Report) -> str:
    """The report's tables as CSV: exact values in base units, a header row each, tables parted by an empty line.

    The leading columns say where a row stands: `table`, `role` (empty for an ordinary row) and `level`; filter on
    `role` to leave sub-totals out.
    """
    import csv
    import io

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for number, table in enumerate(report.tables):
        if number:
            stream.write("\n")
        writer.writerow(["table", "role", "level", *(column.key for column in table.columns)])
        for row in table.rows:
            writer.writerow([table.name, row.role, row.level, *map(_csv_cell, row.cells)])
    return stream.getvalue()


def _csv_cell(value: Cell) -> str:
    if value is None:
        return ""
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
