"""Reports in colour, for terminals: the only module that imports rich, loaded only where colour is wanted."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text

from einscale.report.render.text import report_lines
from einscale.report.table import Report

STYLES = {
    "title": "bold",
    "header": "bold",
    "rule": "dim",
    "collective": "yellow",
    "section": "bold cyan",
    "total": "bold",
    "detail": "dim",
    "note": "dim",
    "good": "bold green",
    "bad": "bold red",
    "work": "green",
    "exposed": "red",
    "hidden": "yellow",
    "waiting": "magenta",
    "held": "blue",
    "left": "dim",
    "too much": "red",
}
"""Styles of `text` in the terminal's own colours, so that light and dark themes both stay readable."""

TASKS = {
    "task-F0": "black on cyan",
    "task-F1": "black on blue",
    "task-B0": "black on green",
    "task-B1": "black on bright_green",
    "task-W0": "black on yellow",
    "task-W1": "black on bright_yellow",
}
"""Styles of a pipeline's tasks: forward, backward, gradients of weights; of even and odd microbatches."""

CELLS = ("blue", "green", "yellow", "magenta", "cyan", "red", "bright_blue", "bright_green")
"""Backgrounds of a picture's cells, one after the other: `cell0`, `cell1`, ..."""


def render_console(report: Report, *, width: int | None = None, units: str = "iec") -> str:
    """A report as text with the terminal's colour codes.

    Args:
        report: what to print.
        width: columns of the terminal; None never breaks a line.
        units: `iec` or `si`.
    """
    stream = io.StringIO()
    console = Console(
        file=stream,
        force_terminal=True,
        no_color=False,
        color_system="standard",
        width=width or 80,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for line in report_lines(report, width=width, units=units):
        text = Text()
        for piece, style in line:
            text.append(piece, style=_style(style))
        console.print(text, soft_wrap=True, no_wrap=True, overflow="ignore", crop=False)
    return stream.getvalue()


def _style(name: str) -> str:
    """Rich's name of a style of ours."""
    if name.startswith("cell"):
        return f"black on {CELLS[int(name.removeprefix('cell')) % len(CELLS)]}"
    return STYLES.get(name) or TASKS.get(name, "")
