"""Where results go: the format chosen from flags and file name, files written whole or not at all."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, TextIO

from msgspec import Struct

from einscale.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from einscale.report.table import Report

FORMATS = ("auto", "table", "json", "csv", "md")
EXTENSIONS = {".json": "json", ".csv": "csv", ".md": "md", ".markdown": "md", ".txt": "table"}
UNITS = ("iec", "si")
COLORS = ("auto", "always", "never")
NARROWEST = 40
"""Columns that a terminal is taken to have at least."""

ASCII = str.maketrans(
    {
        "─": "-",
        "×": "x",
        "·": "-",
        "…": "...",
        "→": "->",
        "µ": "u",
        "–": "-",
        "²": "^2",
        "α": "alpha",
        "β": "beta",
        "≤": "<=",
        "≥": ">=",
        "√": "sqrt",
        "⌈": "ceil(",
        "⌉": ")",
        "Σ": "sum",
        "—": "-",
        "│": "|",
        "█": "#",
        "▓": "=",
        "▒": "~",
        "░": ":",
        "▏": "|",
        **dict.fromkeys("┌┬┐├┼┤└┴┘", "+"),
    }
)
"""What to write on a stream that has no such letters."""


class Destination(Struct, frozen=True):
    """How a result leaves the program.

    Args:
        format: `table`, `json`, `csv` or `md`.
        path: the file or, for all tables as CSV, the directory to write; None for stdout.
        units: `iec` or `si`, for people; files for programs have base units.
        table: the one table that is wanted; None for the format's own choice.
        folder: `path` is a directory.
        color: `auto`, `always` or `never`.
        quiet: nothing is said on stderr but errors.
        pager: long text on a terminal is paged.
    """

    format: str = "table"
    path: Path | None = None
    units: str = "iec"
    table: str | None = None
    folder: bool = False
    color: str = "auto"
    quiet: bool = False
    pager: bool = True

    @property
    def on_screen(self) -> bool:
        """Whether a person reads the report on stdout."""
        return self.format == "table" and self.path is None


def choose(
    *,
    output_format: str = "auto",
    json: bool = False,
    table: str | None = None,
    out: str | None = None,
    units: str = "iec",
    color: str = "auto",
    quiet: bool = False,
    pager: bool = True,
) -> Destination:
    """The destination the flags ask for, checked before anything is computed.

    Raises:
        UsageError: an unknown format, extension or unit, two different formats, or a file that cannot be written.
    """
    for what, word, known in (("units", units, UNITS), ("format", output_format, FORMATS), ("color", color, COLORS)):
        if word not in known:
            raise UsageError(f"unknown {what} `{word}`", hint=did_you_mean(word, known, f"--{what} takes"))
    if json and output_format not in ("auto", "json"):
        raise UsageError(f"--json and --format {output_format} ask for two formats", expected="one of them")
    chosen = "json" if json else output_format
    path, folder = None, False
    if out is not None:
        path, folder = Path(out), out.endswith(("/", os.sep)) or Path(out).is_dir()
        chosen = _format_of_folder(path, chosen, table) if folder else _format_of_file(path, chosen)
    chosen = "table" if chosen == "auto" else chosen
    if table is not None and chosen == "json":
        raise UsageError("a JSON document has no tables to choose from", expected="--table with csv, md or table")
    return Destination(chosen, path, units, table, folder, color, quiet, pager)


def _format_of_file(path: Path, chosen: str) -> str:
    """The format of a file, checked that it can be written.

    Raises:
        UsageError: it cannot, or its extension names no format.
    """
    if not path.parent.is_dir():
        raise UsageError(
            f"there is no directory `{path.parent}`", expected="a file in a directory that exists after -o"
        )
    if chosen == "auto":
        chosen = EXTENSIONS.get(path.suffix.casefold(), "")
    if not chosen:
        known = ", ".join(EXTENSIONS)
        raise UsageError(f"the extension of `{path}` names no format", expected=f"one of {known}, or --format")
    return chosen


def _format_of_folder(path: Path, chosen: str, table: str | None) -> str:
    """The format of a directory that takes every table, checked that it can be written.

    Raises:
        UsageError: it cannot, or something else than all tables as CSV is wanted.
    """
    if chosen not in ("auto", "csv") or table is not None:
        raise UsageError(
            f"`{path}` is a directory, which takes all tables as csv", expected="the name of a file after -o"
        )
    if not path.is_dir() and (path.exists() or not path.parent.is_dir()):
        raise UsageError(f"cannot make the directory `{path}`", expected="a new one in a directory that exists")
    return "csv"


def emit(destination: Destination, document: Callable[[], Mapping[str, Any]], report: Callable[[], Report]) -> None:
    """Write a result where and how it is wanted.

    Args:
        destination: from `choose`.
        document: makes the JSON document.
        report: makes the report that every other format is made of.
    """
    if destination.folder and destination.path is not None:
        _write_folder(destination.path, report(), quiet=destination.quiet)
    elif destination.path is not None:
        write_file(destination.path, render(destination, document, report), quiet=destination.quiet)
    elif destination.format == "table":
        show_report(destination, _wanted(destination, report()))
    else:
        show(destination, render(destination, document, report))


def render(destination: Destination, document: Callable[[], Mapping[str, Any]], report: Callable[[], Report]) -> str:
    """The text of a result in the format of a destination, at full width."""
    if destination.format == "json":
        from einscale.report.render.export import render_json

        return render_json(document())
    if destination.format == "csv":
        from einscale.report.render.export import render_csv

        return render_csv(report(), destination.table)
    wanted = _wanted(destination, report())
    if destination.format == "md":
        from einscale.report.render.export import render_markdown

        return render_markdown(wanted, units=destination.units)
    from einscale.report.render.text import render_text

    return render_text(wanted, units=destination.units)


def show_report(destination: Destination, report: Report) -> None:
    """A report on stdout: as wide as a terminal, whole in a pipe, in colour where it is wanted."""
    terminal = sys.stdout.isatty()
    width = max(NARROWEST, get_terminal_size().columns) if terminal else None
    if wants_color(sys.stdout, destination.color):
        from einscale.report.render.console import render_console

        text = render_console(report, width=width, units=destination.units)
    else:
        from einscale.report.render.text import render_text

        text = render_text(report, width=width, units=destination.units)
    show(destination, text)


def show(destination: Destination, text: str) -> None:
    """Text on stdout, through a pager where that is a terminal and the text longer than it."""
    from einscale.cli.pager import page

    text = spelt(text, getattr(sys.stdout, "encoding", None) or "utf-8")
    if not (destination.pager and page(text)):
        write(sys.stdout, text)


def wants_color(stream: TextIO, color: str) -> bool:
    """Whether a stream is written in colour.

    Args:
        stream: where it goes.
        color: what the flag says; `auto` heeds `NO_COLOR` and `FORCE_COLOR` (not empty), then asks for a terminal.
    """
    if color != "auto":
        return color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _wanted(destination: Destination, report: Report) -> Report:
    """The report, or only the one of its tables that is wanted."""
    if destination.table is None:
        return report
    from einscale.report.render.export import only

    return only(report, destination.table)


def _write_folder(folder: Path, report: Report, *, quiet: bool) -> None:
    """Every table of a report as a CSV file of its own.

    Raises:
        UsageError: one cannot be written.
    """
    from einscale.report.render.export import csv_tables, render_csv

    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the directory `{folder}`: {error.strerror or error}") from error
    for name in csv_tables(report):
        stem = re.sub(r"[^\w.+@=-]", "_", name)
        write_file(folder / f"{stem}.csv", render_csv(report, name), quiet=quiet)


def write(stream: TextIO, text: str) -> None:
    """Write text to a stream whatever its encoding; signs it has not are spelt in ASCII."""
    stream.write(spelt(text, getattr(stream, "encoding", None) or "utf-8"))
    stream.flush()


def spelt(text: str, encoding: str) -> str:
    """Text in signs that an encoding has."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII).encode(encoding, errors="backslashreplace").decode(encoding)
    return text


def write_file(path: Path, text: str, *, quiet: bool = False) -> None:
    """Write a file whole or not at all: beside it first, then moved over it.

    Raises:
        UsageError: it cannot be written.
    """
    target = path.resolve()
    try:
        if target.exists() and not target.is_file():  # a pipe or a device: nothing to replace
            target.write_text(text, encoding="utf-8")
            return
        beside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            beside.write_text(text, encoding="utf-8")
            if target.exists():
                beside.chmod(target.stat().st_mode)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write `{path}`: {error.strerror or error}") from error
    if not quiet:
        write(sys.stderr, f"wrote {path}\n")
