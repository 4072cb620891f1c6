"""Pricing is arithmetic on numbers that may be arrays: no call that takes one number only, but those told here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import einscale

HOME = Path(einscale.__file__).parent
MODULES = (
    "price/program.py",
    "efficiency.py",
    "price/footprint.py",
    "serving/account.py",
    "serving/memory.py",
    "serving/step.py",
    "serving/structure.py",
    "price/kernels.py",
    "price/memory.py",
    "price/overlap.py",
    "price/spent.py",
    "training/cells.py",
    "training/layers.py",
    "training/memory.py",
    "training/price.py",
)
SCALAR = {"int", "float", "max", "min", "round", "sorted", "abs", "divmod"}
"""Calls that take one number, or that compare numbers; `numeric` has the ones for arrays."""

ALLOWED = {
    ("efficiency.py", "_ways", "min"): "of the tiles of a chip, which no strategy changes",
    ("efficiency.py", "_ways", "max"): "the same",
    ("efficiency.py", "attention_seconds", "int"): "units of a chip",
    ("efficiency.py", "_waiting.waves", "int"): "@tabulated: sees one number at a time",
    ("efficiency.py", "_waiting", "min"): "the same",
    ("serving/memory.py", "largest_batch.needed", "max"): "a search, batch by batch",
    ("serving/memory.py", "most", "max"): "the same",
    ("serving/memory.py", "most", "min"): "the same",
    ("serving/step.py", "Planner._sorted", "sorted"): "numbers of passes",
    ("serving/structure.py", "serving_strategy", "int"): "degrees of one mesh, which many passes share",
    ("price/memory.py", "saved_activations", "sorted"): "names, not numbers",
    ("price/memory.py", "peak", "sorted"): "of one point, after arrays are answered",
    ("training/memory.py", "stage_tasks", "min"): "a schedule written out for one request",
    ("training/memory.py", "alive_tensors", "max"): "of the request that is reported",
    ("training/memory.py", "alive_tensors", "sorted"): "the same",
    ("training/memory.py", "_alive", "int"): "the same",
}
"""(module, function, call) -> why it may."""


def calls(source: str) -> Iterator[tuple[str, str]]:
    """(function it is in, name) of every call of those names, also where they are handed on as functions."""

    def walk(node: ast.AST, inside: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.FunctionDef | ast.ClassDef)
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load) and child.id in SCALAR:
                yield ".".join(inside), child.id
            yield from walk(child, (*inside, child.name) if named else inside)  # type: ignore[attr-defined]

    for statement in strip_annotations(ast.parse(source)).body:
        yield from walk(ast.Module([statement], []), ())


def strip_annotations(tree: ast.Module) -> ast.Module:
    """The code without annotations, which are allowed to name `int` and `float`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return tree


@pytest.mark.parametrize("module", MODULES)
def test_pricing_calls_nothing_that_takes_one_number_only(module: str) -> None:
    found = {(module, function, name) for function, name in calls((HOME / module).read_text("utf-8"))}
    assert sorted(found - set(ALLOWED)) == []


def test_every_exception_is_still_one() -> None:
    found = {(module, *call) for module in MODULES for call in calls((HOME / module).read_text("utf-8"))}
    assert sorted(set(ALLOWED) - found) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def price(n):\n    return max(n, 1)", [("price", "max")]),
        ("class Cell:\n    def work(self) -> int:\n        return int(self.n)", [("Cell.work", "int")]),
        ("def price(rows):\n    return sum(map(float, rows))", [("price", "float")]),
        ("least = lambda rows: min(rows)", [("", "min")]),
        ("def price(n: int) -> float:\n    most: int = maximum(n, 1)\n    return most", []),
    ],
)
def test_the_check_sees_what_it_is_for(source: str, found: list[tuple[str, str]]) -> None:
    assert list(calls(source)) == found
