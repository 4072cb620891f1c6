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


def test_functions_are_functions_whatever_was_imported() -> None:
    """No module of the package is called like one of its functions, for importing it would hide the function."""
    modules = [f"einscale.{path.stem}" for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()]
    assert {f"einscale.{name}" for name in VERBS}.isdisjoint(modules)
    imports = "import pkgutil, importlib, einscale\n"
    imports += "for one in pkgutil.iter_modules(einscale.__path__):\n"
    imports += "    one.name == '__main__' or importlib.import_module('einscale.' + one.name)\n"
    assert run(f"{imports}print(all(callable(getattr(einscale, name)) for name in {VERBS!r}))") == "True"
