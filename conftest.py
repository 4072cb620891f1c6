"""The code blocks of README and docs are tests: Python blocks run, and so do `einscale` commands in shell blocks.

- A `python` block runs; all blocks of one page share their names. `>>>` lines are checked as doctests.
- In a `sh` block every line that begins with `einscale ` runs and must exit with 0, or with N after `# exit status N`.
- In a `console` block a line `$ einscale ...` runs in a colourless terminal of 100 columns and must print the lines
  below it; a line `...` stands for any lines. stderr is shown after stdout. `$ echo $?` and a number give the exit
  status, else it is 0.
- A block after the comment `<!-- file: NAME -->` is written to that file first, where the page's commands can read it.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests on a desk; CI runs them all, and so does whoever asks for a mark."""
    if os.environ.get("CI") or config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow and len(items) > len(slow):
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):  # the same examples on every run: what a random one finds is for a person to mend
    settings.load_profile("ci")

WIDTH = 100


def run_in(example: Example, line: str, terminal: int | None = None) -> Any:
    """Run one command line in the page's own directory."""
    import contextlib

    from command import run_command

    with contextlib.chdir(example.namespace["directory"]):
        return run_command(line.removeprefix("einscale "), terminal=terminal, env={"NO_COLOR": "1"})


def logical_lines(text: str) -> list[str]:
    """Lines, those that end in a backslash joined with the next."""
    return re.sub(r"\\\n\s*", "", text).splitlines()


def evaluate_sh(example: Example) -> None:
    """Run the `einscale` lines of a shell block."""
    for line in logical_lines(example.parsed):
        command, _, comment = line.partition("  # ")
        if command.startswith("einscale "):
            found = re.search(r"exit status (\d)", comment)
            outcome = run_in(example, command.split(" > ")[0].split(" | ")[0])
            assert outcome.status == (int(found[1]) if found else 0), f"{line}\n{outcome.err}"


def evaluate_console(example: Example) -> None:
    """Run the commands of a console block and compare what they print with what the page shows."""
    blocks = re.split(r"^\$ ", "\n".join(logical_lines(example.parsed)), flags=re.MULTILINE)[1:]
    outcome = None
    checked = True
    for block in blocks:
        command, _, shown = block.partition("\n")
        if command.strip() == "echo $?":
            assert outcome is not None and outcome.status == int(shown), f"exit status {outcome}, shown {shown}"
            checked = True
            continue
        assert checked, f"exit status {outcome.status}: {outcome.err}"
        if not command.startswith("einscale "):
            continue
        outcome = run_in(example, command, WIDTH)
        checked = outcome.status == 0
        assert matches(shown, outcome.out + outcome.err), f"$ {command}\nprints\n{outcome.out}{outcome.err}"
    assert checked, f"exit status {outcome.status}: {outcome.err}"


def matches(shown: str, printed: str) -> bool:
    r"""Whether a printed text is the shown one, where a line `...` stands for any lines.

    >>> matches("a\n...\nd", "a\nb\nc\nd\n"), matches("a", "b")
    (True, False)
    """
    pattern = "\n".join(
        "(?:.*\n)*?.*" if line.strip() == "..." else re.escape(line.rstrip()) for line in shown.strip().split("\n")
    )
    text = "\n".join(line.rstrip() for line in printed.strip().split("\n"))
    return not shown.strip() or re.fullmatch(pattern, text) is not None


def parse_files(document: Document) -> Iterator[Region]:
    """Blocks that are files."""
    for found in re.finditer(r"<!-- file: (\S+) -->\n+```.*\n((?:.*\n)*?)```", document.text):
        yield Region(found.start(), found.start() + 4, found.groups(), write_file)


def write_file(example: Example) -> None:
    """Write the file of a block."""
    name, text = example.parsed
    (Path(example.namespace["directory"]) / name).write_text(textwrap.dedent(text), encoding="utf-8")


def setup(namespace: dict[str, Any]) -> None:
    """A directory for each page."""
    namespace["temporary"] = TemporaryDirectory()
    namespace["directory"] = namespace["temporary"].name


def teardown(namespace: dict[str, Any]) -> None:
    """Remove it."""
    namespace["temporary"].cleanup()


pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(),
        CodeBlockParser("sh", evaluate_sh),
        CodeBlockParser("console", evaluate_console),
        parse_files,
    ],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    setup=setup,
    teardown=teardown,
).pytest()
