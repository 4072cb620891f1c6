"""The code blocks of the docs are tests only if a wrong block fails: here are wrong ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest


def load_conftest() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_runner", Path(__file__).parents[1] / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUNNER = load_conftest()
PLAN = "einscale plan 'B/x D, D F -> B/x F' --mesh x=2"


def example(text: str, folder: Path) -> SimpleNamespace:
    return SimpleNamespace(parsed=text, namespace={"directory": str(folder)})


def test_a_command_that_does_what_the_page_says(tmp_path: Path) -> None:
    RUNNER.evaluate_sh(example(f"{PLAN} -s B=8,D=8,F=8\n{PLAN}  # exit status 2\npip install nothing\n", tmp_path))
    RUNNER.evaluate_console(
        example(f"$ {PLAN}\nerror: the sizes of `B`, `D`, `F` are missing\n...\n$ echo $?\n2\n", tmp_path)
    )
    RUNNER.evaluate_console(
        example(f"$ {PLAN} \\\n    -s B=8,D=8,F=8\n...\nmesh x=2, 2 devices of h100; least time\n...\n", tmp_path)
    )


@pytest.mark.parametrize("text", [f"{PLAN}\n", f"{PLAN} -s B=8,D=8,F=8  # exit status 2\n", "einscale pln\n"])
def test_a_wrong_shell_block_fails(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        RUNNER.evaluate_sh(example(text, tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        f"$ {PLAN}\nerror: the sizes of `B`, `D`, `F` are missing\n...\n",
        f"$ {PLAN}\nerror: something else\n...\n$ echo $?\n2\n",
        f"$ {PLAN} -s B=8,D=8,F=8\nmesh x=4\n",
        f"$ {PLAN}\n...\n$ echo $?\n1\n",
    ],
)
def test_a_wrong_console_block_fails(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        RUNNER.evaluate_console(example(text, tmp_path))


def test_ellipses_match_any_lines_and_nothing_else() -> None:
    assert RUNNER.matches("a\n...\nd", "a\nb\nc\nd\n")
    assert RUNNER.matches("a\n...", "a\nb")
    assert not RUNNER.matches("a\n...\nd", "a\nb\nc\n")
    assert not RUNNER.matches("a", "a\nb")
