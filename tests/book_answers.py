"""What the tests of "How To Scale Your Model" share: its printed answers, its constants, and when ours agree.

The answers of a chapter are in four tables: `ANSWERS` must agree with what the book prints, to its last digit; `LOOSE`
say why the book's digits are not ours, and how far they may be off; `ERRATA` are answers of ours that the book's differ
from for a stated reason; `NOT_COVERED` say why einscale has none.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from einscale.hardware import System, load_system
from einscale.models import LayerKind, Model, load_model
from einscale.price.program import PricedCollective, PricedStatement
from einscale.program import parse_program

DATA = Path(__file__).parent / "data"
ROWS = [json.loads(line) for line in (DATA / "scaling_book_problems.jsonl").read_text("utf-8").splitlines()]
MICRO, MILLI = 1e6, 1e3

Answer = Callable[[], float | str]
Answers = dict[str, Answer]
Loose = dict[str, tuple[Callable[[], float], float, str]]
"""Ours, how far the book's may be off, and why it is."""
Errata = dict[str, tuple[Callable[[], float], float, str]]
"""Ours, its value, and where the book is wrong."""


def asked(*chapters: str) -> dict[str, dict[str, Any]]:
    """`PROBLEM/ANSWER` -> the printed answer, of some chapters; rows of a table are `PROBLEM/COLUMN at BATCH`."""
    found: dict[str, dict[str, Any]] = {}
    for row in ROWS:
        for answer in row["answers"] if row["file"] in chapters else ():
            if "name" in answer:
                found[f"{row['id']}/{answer['name']}"] = {**answer, "inputs": row["inputs"]}
                continue
            batch = answer["batch"]
            for column in ("kv_gb", "total_gb", "step_ms", "tokens_per_s"):
                found[f"{row['id']}/{column} at {batch}"] = {"printed": answer[column], "inputs": row["inputs"]}
    return found


def book(name: str) -> System:
    """A system with the book's constants, or one of ours, at datasheet figures."""
    path = DATA / "book" / f"{name}.toml"
    return load_system(path if path.exists() else name).ideal()


def own_model(text: str) -> Model:
    """A model whose layers all run a program of one's own."""
    program = parse_program(text)
    return Model(program.name, (LayerKind(program.name, program, program.repeat),), "")


@cache
def llama(*, d: int, f: int, v: int, layers: int, heads: int, kv_heads: int, head: int, tied: bool = False) -> Model:
    """A gated Transformer of the given sizes, read from a configuration file."""
    config = {
        "model_type": "llama",
        "hidden_size": d,
        "intermediate_size": f,
        "vocab_size": v,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "tie_word_embeddings": tied,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config), "utf-8")
        return load_model(path)


def at_scale(move: PricedCollective, degrees: Mapping[str, int]) -> float:
    """What a group of many devices has of a move where one of n devices has (n-1)/n: the book leaves that out."""
    n = 1
    for axis in move.step.axes:
        n *= degrees[axis]
    return n / (n - 1)


def moving(rows: tuple[PricedStatement, ...], degrees: Mapping[str, int], phase: str, axes: tuple[str, ...]) -> float:
    """Seconds of the collectives of one pass over some mesh axes, in the book's form for many devices."""
    moves = [p for row in rows if row.planned.phase == phase for p in row.collectives if p.step.axes == axes]
    assert moves
    return sum(p.seconds * at_scale(p, degrees) for p in moves)


def computing(rows: tuple[PricedStatement, ...], phase: str) -> float:
    """Seconds of the arithmetic of one pass."""
    return sum(float(row.local.compute_seconds) for row in rows if row.planned.phase == phase)


def unit(printed: float) -> float:
    """Value of the last digit a number is printed with; zeros at its end are not counted as printed."""
    number = Decimal(repr(printed)).normalize()
    return float(Decimal(1).scaleb(int(number.as_tuple().exponent)))


def agrees(ours: float, printed: float) -> bool:
    """Whether a printed number is ours, rounded at its last digit, or cut there and no more than 5 % off."""
    last, slack = unit(printed), 1e-9 * abs(printed)
    rounded = abs(ours - printed) <= last / 2 + slack
    cut = -slack <= ours - printed < last and ours - printed <= 0.05 * abs(printed)
    return rounded or cut


def check_answer(ours: float | str, row: Mapping[str, Any], formulas: Mapping[str, float | str]) -> None:
    """Assert that an answer is the printed one: a number, a range, a formula at the sizes used, or words."""
    printed = row["printed"]
    if isinstance(printed, list):
        assert not isinstance(ours, str)
        assert printed[0] <= ours <= printed[1]
    elif isinstance(printed, str):
        expected = formulas[printed]
        assert ours == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-9))
    else:
        assert not isinstance(ours, str)
        assert agrees(ours, printed), f"{ours} for {printed}"


def check_loose(entry: tuple[Callable[[], float], float, str], row: Mapping[str, Any]) -> None:
    """Assert that an answer needs its excuse, and is no further off than it says."""
    answer, tolerance, reason = entry
    ours, printed = answer(), row["printed"]
    assert not agrees(ours, printed), "no excuse is needed"
    assert ours == pytest.approx(printed, rel=tolerance), reason


def check_erratum(
    entry: tuple[Callable[[], float], float, str], row: Mapping[str, Any], formulas: Mapping[str, float | str]
) -> None:
    """Assert that an answer is what it should be, and not what the book prints."""
    answer, value, reason = entry
    printed = row["printed"]
    assert answer() == pytest.approx(value, rel=1e-3), reason
    if isinstance(printed, str):
        assert answer() != pytest.approx(formulas[printed], rel=0.01), reason
    else:
        assert not agrees(answer(), printed), reason
