"""How the package is built: imports without circles, names that mean one thing, modules and functions one can read."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import einscale

PACKAGE = Path(einscale.__file__).parent
LINES = 500
"""A module has no more."""

STATEMENTS = 60
"""Lines of a function's body, its docstring aside."""

TREES = {path.relative_to(PACKAGE): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def home(path: Path) -> str:
    """The house of a module: the package, or the module, directly under `einscale`."""
    return path.parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Houses that a module imports: everywhere, for type checkers and inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("einscale."))
        elif isinstance(node, ast.ImportFrom) and node.module == "einscale":
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("einscale."):
            yield str(node.module).split(".")[1]


def houses(trees: Mapping[Path, ast.AST]) -> dict[str, set[str]]:
    """House -> the others that it imports; the front door, which hands out names of all, aside."""
    found: dict[str, set[str]] = {}
    for path, tree in trees.items():
        if path.name != "__init__.py" or len(path.parts) > 1:
            found.setdefault(home(path), set()).update(set(imported(tree)) - {home(path)})
    return found


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """A circle of imports, none if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def hidden(tree: ast.Module, modules: Iterable[str]) -> set[str]:
    """Names that a package has from elsewhere than its module of that name, which hides them once it is imported."""
    froms = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = {(alias.asname or alias.name, (node.module or "").split(".")[-1]) for node in froms for alias in node.names}
    return {name for name, module in names if name in modules and name != module}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its first statement after the docstring to its last."""
    body = function.body[1:] if ast.get_docstring(function) is not None and len(function.body) > 1 else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1


def twins(trees: Mapping[Path, ast.AST]) -> dict[str, list[str]]:
    """Class names that several modules have."""
    found: dict[str, list[str]] = {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(str(path))
    return {name: paths for name, paths in found.items() if len(paths) > 1}


def test_houses_import_each_other_in_one_direction() -> None:
    graph = houses(TREES)
    assert {"api", "report", "request", "training"} <= graph.keys() and "report" in graph["api"]
    assert circle(graph) == []


def test_reports_know_nothing_of_answers() -> None:
    assert "api" not in houses(TREES)["report"]


def test_no_class_name_means_two_things() -> None:
    assert twins(TREES) == {}


def test_no_module_hides_a_name_of_its_package() -> None:
    for path, tree in TREES.items():
        if path.name == "__init__.py":
            modules = {one.stem for one in (PACKAGE / path).parent.iterdir()}
            assert not hidden(tree, modules), path
            assert len(path.parts) > 1 or modules.isdisjoint({*einscale.__all__})


@pytest.mark.parametrize("path", TREES, ids=str)
def test_modules_and_functions_are_short(path: Path) -> None:
    text = (PACKAGE / path).read_text("utf-8")
    assert text.count("\n") <= LINES
    functions = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {one.name: body_lines(one) for one in functions if body_lines(one) > STATEMENTS} == {}


def test_these_tests_can_fail() -> None:
    back = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from einscale.api.train import TrainResult\n"
    trees = {**TREES, Path("report/back.py"): ast.parse(back), Path("twin.py"): ast.parse("class TrainResult: ...")}
    assert {"api", "report"} <= set(circle(houses(trees)))
    assert twins(trees) == {"TrainResult": ["api/train.py", "twin.py"]}
    closed = ast.parse("from einscale.schedule.closed import in_flight")
    assert hidden(closed, ["closed", "in_flight"]) == {"in_flight"} and not hidden(closed, ["closed"])
    long = ast.parse("def f():\n    '''Said.'''\n" + "    pass\n" * (STATEMENTS + 1)).body[0]
    assert isinstance(long, ast.FunctionDef) and body_lines(long) == STATEMENTS + 1
