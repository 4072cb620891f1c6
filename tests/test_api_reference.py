"""The page of functions and classes is what their docstrings say, and they say it of every argument."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import einscale

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_api", DOCS / "generate_api.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(generator: ModuleType) -> str:
    return str(generator.reference())


def test_it_is_up_to_date(page: str) -> None:
    assert (DOCS / "api_reference.md").read_text("utf-8") == page, "run docs/generate_api.py"


def test_every_public_name_is_there_once(page: str) -> None:
    named = re.findall(r"^### (\w+)$|^\| `(\w+Error)` \| `", page, re.MULTILINE)
    names = [one or other for one, other in named]
    assert sorted(names) == sorted(set(einscale.__all__) - {"__version__"})


def test_every_argument_is_documented(generator: ModuleType) -> None:
    missing = []
    for name in einscale.__all__:
        value = getattr(einscale, name)
        if not callable(value) or inspect.isclass(value):
            continue
        given = generator._parts(value)[1].get("Args", "")
        known = {one.strip() for key, _ in generator._entries(given) for one in key.split(",")} if given else set()
        missing += [f"{name}({one})" for one in inspect.signature(value).parameters if one not in known]
        missing += [f"{name}: {one} is no argument" for one in known - set(inspect.signature(value).parameters)]
    assert missing == []


def test_every_field_of_a_value_is_documented(generator: ModuleType) -> None:
    for name in einscale.__all__:
        value = getattr(einscale, name)
        fields = getattr(value, "__struct_fields__", ())
        if fields and inspect.isclass(value):
            given = [key for key, _ in generator._entries(generator._parts(value)[1]["Args"])]
            assert [one.strip() for key in given for one in key.split(",")] == list(fields), name


def test_tables_are_whole(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) > 200
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} <= {3, 4}


def test_sections_are_read_as_they_are_written(generator: ModuleType) -> None:
    def asked(one: int, *, other: str = "x" * 70, **rest: str) -> None:
        """Say what is asked.

        More of it.

        >>> 1 + 1
        2

        Args:
            one: a number,
                not large.
            other, rest: words | signs.

        Raises:
            ValueError: it is wrong.
        """

    blocks = generator._function("asked", asked)
    assert blocks[1] == (
        f"```text\nasked(\n    one: int,\n    *,\n    other: str = '{'x' * 70}',\n    **rest: str,\n) -> None\n```\n"
    )
    assert blocks[2:] == [
        "Say what is asked.\n\nMore of it.\n",
        "```pycon\n>>> 1 + 1\n2\n```\n",
        "| argument | |\n|---|---|\n| `one` | a number, not large. |\n| `other`, `rest` | words \\| signs. |\n",
        "| raises | |\n|---|---|\n| `ValueError` | it is wrong. |\n",
    ]
