"""Reports on a terminal, in colour: the only module that imports rich, loaded only where the output is a terminal."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.text import Text

from einscale.report.table import Report
from einscale.report.text import report_lines

STYLES = {
    "title": "bold",
    "header": "bold",
    "rule": "dim",
    "collective": "yellow",
    "section": "bold cyan",
    "total": "bold",
    "detail": "dim",
    "note": "dim",
}
"""Styles of `text` in the terminal's own colours, so that light and dark themes both stay readable."""


def print_report(report: Report, stream: TextIO, *, units: str = "iec") -> None:
    """Print a report to a terminal at its width; `NO_COLOR`, `COLUMNS` and `TERM=dumb` are respected."""
    console = Console(file=stream, highlight=False, markup=False, emoji=False, legacy_windows=False)
    styles = {} if console.no_color else STYLES
    for line in report_lines(report, width=max(40, console.width), units=units):
        text = Text()
        for piece, style in line:
            text.append(piece, style=styles.get(style, ""))
        console.print(text, soft_wrap=True, no_wrap=True, overflow="ignore", crop=False)
