"""The examples in docstrings run, whatever else the module's own tests do."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import einscale

MODULES = sorted(
    info.name for info in pkgutil.walk_packages(einscale.__path__, "einscale.") if not info.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = sum(len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert examples > 100
