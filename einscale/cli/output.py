"""Where results go: the format chosen from flags and file name, files written whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from msgspec import Struct

from einscale.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from einscale.report.table import Report

FORMATS = ("auto", "table", "json", "csv", "md")
EXTENSIONS = {".json": "json", ".csv": "csv", ".md": "md", ".markdown": "md", ".txt": "table"}
UNITS = ("iec", "si")

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
    }
)
"""What to write on a stream that has no such letters."""


class Destination(Struct, frozen=True):
    """How a result leaves the program.

    Args:
        format: `table`, `json`, `csv` or `md`.
        path: the file to write, or None for stdout.
        units: `iec` or `si`, for people; files for programs have base units.
    """

    format: str
    path: Path | None
    units: str


def choose(*, output_format: str, json: bool, output: str | None, units: str) -> Destination:
    """The destination the flags ask for, checked before anything is computed.

    Raises:
        UsageError: an unknown format, extension or unit, two different formats, or a file that cannot be written.
    """
    if units not in UNITS:
        raise UsageError(f"unknown units `{units}`", hint=did_you_mean(units, UNITS, "--units takes"))
    if output_format not in FORMATS:
        raise UsageError(
            f"unknown format `{output_format}`", hint=did_you_mean(output_format, FORMATS, "--format takes")
        )
    if json and output_format not in ("auto", "json"):
        raise UsageError(f"--json and --format {output_format} ask for two formats", expected="one of them")
    chosen = "json" if json else output_format
    if output is None:
        return Destination("table" if chosen == "auto" else chosen, None, units)
    path = Path(output)
    if path.is_dir():
        raise UsageError(f"`{output}` is a directory", expected="the name of a file after -o")
    if not path.parent.is_dir():
        raise UsageError(
            f"there is no directory `{path.parent}`", expected="a file in a directory that exists after -o"
        )
    if chosen == "auto":
        chosen = EXTENSIONS.get(path.suffix.casefold(), "")
    if not chosen:
        known = ", ".join(EXTENSIONS)
        raise UsageError(f"the extension of `{output}` names no format", expected=f"one of {known}, or --format")
    return Destination(chosen, path, units)


def emit(destination: Destination, document: Callable[[], Mapping[str, Any]], report: Callable[[], Report]) -> None:
    """Write a result where and how it is wanted.

    Args:
        destination: from `choose`.
        document: makes the JSON document.
        report: makes the report that every other format is made of.
    """
    if destination.path is None and destination.format == "table" and sys.stdout.isatty():
        from einscale.report.console import print_report

        print_report(report(), sys.stdout, units=destination.units)
        return
    text = render(destination, document, report)
    if destination.path is None:
        write(sys.stdout, text)
    else:
        write_file(destination.path, text)


def render(destination: Destination, document: Callable[[], Mapping[str, Any]], report: Callable[[], Report]) -> str:
    """The text of a result in the format of a destination, at full width."""
    if destination.format == "json":
        from einscale.report.export import render_json

        return render_json(document())
    if destination.format == "csv":
        from einscale.report.export import render_csv

        return render_csv(report())
    if destination.format == "md":
        from einscale.report.export import render_markdown

        return render_markdown(report(), units=destination.units)
    from einscale.report.text import render_text

    return render_text(report(), units=destination.units)


def write(stream: TextIO, text: str) -> None:
    """Write text to a stream whatever its encoding; signs it has not are spelt in ASCII."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(ASCII).encode(encoding, errors="backslashreplace").decode(encoding)
    stream.write(text)
    stream.flush()


def write_file(path: Path, text: str) -> None:
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
    write(sys.stderr, f"wrote {path}\n")
