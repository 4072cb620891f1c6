"""Values below, words above: no code under report/ takes a sentence apart, so rewording one cannot change a number.

What may be taken apart is notation: names of mesh axes (`x:(2)4`), of tensors (`d_w`), of operations, of an axis given
as text. Each place is named below with what it reads.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import einscale

PACKAGE = Path(einscale.__file__).parent

ROOMS = (
    "planner",
    "reshard",
    "training",
    "serving",
    "schedule",
    "comparison",
    "price/overlap.py",
    "price/hiders.py",
    "causes.py",
    "changes.py",
    "price/program.py",
    "price/kernels.py",
    "price/memory.py",
    "collectives.py",
    "steps.py",
    "checks.py",
    "free_plans.py",
    "price/alternatives.py",
    "price/plan.py",
    "stages.py",
    "strategy/defaults.py",
    "api/avoid.py",
)
"""Where causes, hiders, parts, advice and notes are made and handed on."""

READERS = {
    "partition",
    "rpartition",
    "split",
    "rsplit",
    "splitlines",
    "startswith",
    "endswith",
    "removeprefix",
    "removesuffix",
    "find",
    "index",
    "count",
    "replace",
}
"""Methods that take a text apart. `index`, `count` and `replace` count where their argument is a text."""

ONLY_OF_TEXT = READERS - {"index", "count", "replace", "find"}

ALLOWED = {
    ("planner/program.py", "split"): "several axes of a map, as its option names them",
    ("planner/strategy_causes.py", "split"): "the same",
    ("strategy/defaults.py", "find"): "where a name stands in what was typed, for the message of an error",
    ("checks.py", "startswith"): "names of gradients, `d_w`",
    ("price/memory.py", "removeprefix"): "the name of a state, `w_master`",
    ("training/cells.py", "removeprefix"): "the name of a gradient, `d_w`",
    ("training/reserved.py", "startswith"): "the name of a chip",
    ("serving/advice.py", "partition"): "the text of a precision, `bf16,kv_cache=fp8`",
    ("serving/advice.py", "split"): "the same",
    ("serving/advice.py", "startswith"): "the same",
}

FIELDS = {"cause", "hidden_by", "behind", "reason", "note", "notes", "words", "moment", "because", "hint", "message"}
"""Attributes that are, or once were, sentences."""


def modules() -> list[Path]:
    found = []
    for room in ROOMS:
        path = PACKAGE / room
        assert path.exists(), room
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


def readings(source: str) -> list[tuple[str, int]]:
    """Calls that take a text apart: (method, line)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READERS):
            continue
        constants = [given.value for given in node.args if isinstance(given, ast.Constant)]
        text = any(isinstance(value, str) for value in constants)
        text = text or any(isinstance(given, ast.JoinedStr) for given in node.args)
        if node.func.attr in ONLY_OF_TEXT or text:
            found.append((node.func.attr, node.lineno))
    return found


def searched(source: str) -> list[int]:
    """Lines where a field that may be a sentence is searched in or compared with a text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            texts = any(isinstance(side, ast.Constant) and isinstance(side.value, str) and side.value for side in sides)
            fields = any(isinstance(side, ast.Attribute) and side.attr in FIELDS for side in sides)
            if texts and fields:
                found.append(node.lineno)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READERS:
            of = node.func.value
            if isinstance(of, ast.Attribute) and of.attr in FIELDS:
                found.append(node.lineno)
    return found


def allowed(path: str, method: str) -> bool:
    return any(method == one and _within(path, place) for place, one in ALLOWED)


def _within(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_below_report_takes_a_sentence_apart(path: Path) -> None:
    source, name = path.read_text(encoding="utf-8"), str(path.relative_to(PACKAGE))
    assert [(method, line) for method, line in readings(source) if not allowed(name, method)] == []
    assert searched(source) == []


def test_every_exception_is_one() -> None:
    found = {
        (str(path.relative_to(PACKAGE)), method)
        for path in modules()
        for method, _ in readings(path.read_text(encoding="utf-8"))
    }
    used = {(place, one) for place, one in ALLOWED if any(one == m and _within(path, place) for path, m in found)}
    assert used == set(ALLOWED)


@pytest.mark.parametrize(
    "line",
    [
        'behind = part.note.partition("hidden behind ")[2]',
        'changes = advice.words.count("--")',
        "option = words.split(maxsplit=1)[0]",
        "fewer = advice.words.startswith(FEWER)",
        'which = cause.replace("rests", "")',
        'at = note.find("behind")',
    ],
)
def test_the_readings_that_were_are_found(line: str) -> None:
    assert readings(line) or searched(line)


def test_comparing_a_sentence_is_found_and_comparing_values_is_not() -> None:
    assert searched('if "rests" in step.cause: pass')
    assert searched('if part.note == "gradients": pass')
    assert not searched("if held.reason.why is Why.STREAMED: pass")
    assert not readings("counts = names.count(name), order.index(axis), replace(step, cause=cause)")


RUNNERS = {
    "bubble_seconds",
    "chunk_seconds",
    "in_flight",
    "order",
    "outside_closed_form",
    "plan_program",
    "price_alone",
    "price_program",
    "price_step",
    "reserved_memory",
    "run_schedule",
    "simulate",
    "train_report",
}
"""What plans, prices or runs: reports read its results."""


@pytest.mark.parametrize("path", sorted((PACKAGE / "report").rglob("*.py")), ids=lambda path: path.name)
def test_reports_plan_price_and_run_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
    called = {
        node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not (imported | called) & RUNNERS
