"""The page of commands and options is what the commands are; pages do not clip."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from einscale.cli import COMMANDS

DOCS = Path(__file__).parents[1] / "docs"
WIDEST = 100


def generated() -> str:
    spec = importlib.util.spec_from_file_location("generate_cli", DOCS / "generate_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.reference()
    assert isinstance(text, str)
    return text


def test_the_reference_is_up_to_date() -> None:
    text = generated()
    assert (DOCS / "cli_reference.md").read_text("utf-8") == text, "run docs/generate_cli.py"
    for name in COMMANDS:
        assert f"\n## {name}\n" in text
    assert "| `--hardware` | `NAME\\|FILE` | `EINSCALE_HARDWARE` |" in text


def test_tables_of_the_reference_are_whole() -> None:
    rows = [line for line in generated().splitlines() if line.startswith("|")]
    assert len(rows) > 100
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
GIVEN = re.compile(r"W1122 |[\[(]'")
"""Lines that are as they are: a log of XLA's, the value that Python shows for an expression."""


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_code_is_not_clipped(page: Path) -> None:
    blocks = re.findall(r"^```.*?^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    long = [line for block in blocks for line in block.splitlines() if len(line) > WIDEST and not GIVEN.match(line)]
    assert not long


def test_the_front_page_says_how_to_install() -> None:
    assert "pip install" in (DOCS / "index.md").read_text("utf-8")


def test_every_page_is_in_the_navigation() -> None:
    named = re.findall(r": (\S+\.md)$", (DOCS / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in DOCS.glob("*.md"))
