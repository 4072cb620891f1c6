"""`import einscale`: its public names, and nothing else, whatever was imported before."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import einscale

PACKAGE = Path(einscale.__file__).parent


def run(code: str) -> str:
    """What a new process prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_dir_is_the_public_names() -> None:
    assert dir(einscale) == sorted(einscale.__all__)
    assert not any(name.startswith("_") for name in dir(einscale) if name != "__version__")
    code = "import einscale, einscale.api.train, einscale.training; print(dir(einscale) == sorted(einscale.__all__))"
    assert run(code) == "True"


def test_every_public_name_is_found_documented_and_no_module() -> None:
    for name in einscale.__all__:
        value = getattr(einscale, name)
        assert not isinstance(value, ModuleType), name
        assert name == "__version__" or (inspect.getdoc(value) or "").strip(), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        einscale.nothing  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: (node.module, alias.name) for node in imports for alias in node.names}
    assert {*seen, "__version__"} == set(einscale.__all__)
    for name, (module, imported) in seen.items():
        assert imported == name and f"einscale.{einscale._HOME[name]}" == module


VERBS = [name for name in einscale.__all__ if inspect.isfunction(getattr(einscale, name))]


@pytest.mark.parametrize("before", [True, False], ids=["module first", "function first"])
def test_functions_are_functions_whatever_was_imported(before: bool) -> None:
    modules = [f"einscale.{name}" for name in VERBS if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()]
    imports = "; ".join(f"import {name}" for name in ("einscale.api.plan", *modules))
    use = "found = [getattr(einscale, name) for name in names]"
    steps = [imports, use] if before else [use, imports, use]
    code = f"import einscale\nnames = {VERBS!r}\n" + "\n".join(steps) + "\nprint(all(map(callable, found)))"
    assert run(code) == "True"
