"""Run the command line inside the test process: what it writes, and the status it leaves with."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

from document_schemas import check

from einscale.cli import run


class Outcome(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


class Stream(io.TextIOWrapper):
    """A text stream that may say it is a terminal."""

    def __init__(self, encoding: str, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, newline="\n", write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


@contextmanager
def _environment(terminal: int | None, env: dict[str, str]) -> Iterator[None]:
    """Only the variables given say how output looks; whoever runs the tests sets no defaults."""
    looks = (
        "NO_COLOR",
        "FORCE_COLOR",
        "COLUMNS",
        "TERM",
        "TTY_COMPATIBLE",
        "TTY_INTERACTIVE",
        "COLORTERM",
        "PY_COLORS",
    )
    kept = {name: value for name, value in os.environ.items() if name not in looks and not name.startswith("EINSCALE_")}
    kept["XDG_CONFIG_HOME"] = os.devnull
    fresh = {"COLUMNS": str(terminal), "TERM": "xterm"} if terminal else {}
    with mock.patch.dict(os.environ, {**kept, **fresh, **env}, clear=True):
        yield


def run_command(
    *arguments: str,
    stdin: str | bytes = "",
    terminal: int | None = None,
    encoding: str = "utf-8",
    env: dict[str, str] | None = None,
    checked: bool = True,
) -> Outcome:
    """Run `einscale ARGUMENTS`; one argument is split as a shell would.

    Args:
        arguments: the words after `einscale`.
        stdin: what it reads.
        terminal: columns of the terminal stdout pretends to be; None for a pipe.
        encoding: of stdout and stderr.
        env: further environment variables.
        checked: a JSON document on stdout must be as its published schema says.
    """
    words = shlex.split(arguments[0]) if len(arguments) == 1 else list(arguments)
    out, err = Stream(encoding, terminal is not None), Stream(encoding, False)
    source = io.TextIOWrapper(io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin), encoding="utf-8")
    with _environment(terminal, env or {}), mock.patch.multiple(sys, stdout=out, stderr=err, stdin=source):
        status = run(words)
    outcome = Outcome(status, out.text(), err.text())
    if checked and outcome.out.startswith('{\n  "schema_version"'):
        check(json.loads(outcome.out))
    return outcome


def kept_answers(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the library whose answers are kept, for tests that print one answer in many forms."""
    kept: dict[object, tuple[Any, Any]] = {}

    def call(*args: Any, **named: Any) -> Any:
        key = (tuple(arg if isinstance(arg, str) else id(arg) for arg in args), repr(sorted(named.items())))
        if key not in kept:
            kept[key] = function(*args, **named), args  # what an id stands for must live as long
        return kept[key][0]

    return call


def read_csv(text: str) -> list[dict[str, str]]:
    """A table as a program reads it: a header of different names, and as many cells in every row as it has."""
    header, *rows = csv.reader(io.StringIO(text), strict=True)
    assert len(set(header)) == len(header), header
    assert all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in header), header
    assert all(len(row) == len(header) for row in rows), text
    return [dict(zip(header, row, strict=True)) for row in rows]


def csv_tables(*arguments: str) -> dict[str, list[dict[str, str]]]:
    """Every table of an answer, as `-o DIR/` writes them."""
    with TemporaryDirectory() as folder:
        words = shlex.split(arguments[0]) if len(arguments) == 1 else list(arguments)
        outcome = run_command(*words, "-o", f"{folder}/tables/")
        files = sorted(Path(folder, "tables").iterdir())
        assert outcome.out == ""
        wrote = [line for line in outcome.err.splitlines() if line.startswith("wrote ")]
        assert sorted(wrote) == [f"wrote {file}" for file in files]
        return {file.stem: read_csv(file.read_text("utf-8")) for file in files}


def steady(line: str) -> str:
    """A line of output, floats printed in full rounded to nine digits: Python 3.12 adds floats up more exactly."""
    return re.sub(r"-?\d+\.\d{9,}(e-?\d+)?", lambda found: f"{float(found[0]):.9g}", line)


def refused(outcome: Outcome) -> str:
    """The message of a command refused as it should be: status 2, nothing on stdout, one message, no traceback."""
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("error: ") == 1
    assert "Traceback" not in outcome.err
    return outcome.err.removeprefix("error: ")
