"""What starting up imports, proven in a new process: the heavy libraries only where they are used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

QUERY = ["plan", "B/x D, D/x F -> B/x F", "--mesh", "x=4", "--size", "B=64,D=128,F=256"]
INFER = ["infer", "gpt2", "--mesh", "model=2"]
TRAIN = ["train", "gpt2", "--mesh", "pipe=2,data=2", "--json"]
HEAVY = {"numpy", "opt_einsum", "scipy"}

PROBE = """
import json, sys
{before}
from einscale.cli import run
status = run({arguments!r})
sys.stdout.flush()
print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""


def imported(arguments: list[str], before: str = "") -> set[str]:
    """Top-level packages and einscale's modules that a command has imported when it is done."""
    code = PROBE.format(arguments=arguments, before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, modules = json.loads(done.stderr.splitlines()[-1])
    assert status == 0, done.stderr
    return {name if name.startswith("einscale") else name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["plan", "--help"], [*QUERY, "--json"], TRAIN, [*INFER, "--json"]],
)
def test_help_and_json_import_nothing_heavy(arguments: list[str]) -> None:
    assert not imported(arguments) & {*HEAVY, "rich"}


@pytest.mark.parametrize(
    "arguments", [QUERY, [*QUERY, "--format", "csv"], ["hardware"], ["strategies"], ["models"], INFER]
)
def test_tables_in_a_pipe_import_nothing_heavy(arguments: list[str]) -> None:
    assert not imported(arguments) & {*HEAVY, "rich"}


@pytest.mark.parametrize(
    "line", ["einscale layer gpt", "einscale train gpt2 --precision m", "einscale plan x --hardware h", "einscale la"]
)
def test_completion_imports_nothing_heavy(line: str) -> None:
    words = line.split(" ")
    variables = {"_EINSCALE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    found = imported([], before=f"import os; os.environ.update({variables!r})")
    assert not found & {*HEAVY, "rich"}
    assert not {name for name in found if name.startswith(("einscale.models", "einscale.api", "einscale.program"))}


def test_the_check_can_fail() -> None:
    assert {"numpy", "rich"} <= imported(["--version"], before="import numpy, rich.console")


def test_verification_needs_numpy_and_the_check_sees_it() -> None:
    assert "numpy" in imported([*QUERY, "--json", "--verify"])


def test_a_json_query_loads_neither_models_nor_programs() -> None:
    modules = imported([*QUERY, "--json"])
    assert "einscale.planner.einsum" in modules
    assert not {name for name in modules if name.startswith(("einscale.models", "einscale.program", "einscale.layer"))}


def test_version_does_not_load_typer() -> None:
    assert "typer" not in imported(["--version"])


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, einscale; print(sorted(name for name in sys.modules if 'einscale' in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['einscale', 'einscale.version']"
