"""Sweeps: every point of a grid asked, refused ones kept as rows, figures those of the full answers."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import einscale
from einscale.errors import EinscaleError, SizeError, UsageError
from einscale.report.render.rows import more_is_better, plain
from einscale.strategy import load_strategy

GRID: dict[str, Any] = {
    "model": "gpt2",
    "mesh": ["data=4", "data=2,model=2", "data=7"],
    "seq": (256, 512),
    "batch": 16,
    "strategy": "fsdp+tp",
}


@pytest.fixture(scope="module")
def steps() -> einscale.SweepResult:
    return einscale.sweep(einscale.train_step, GRID)


def test_the_last_name_varies_fastest(steps: einscale.SweepResult) -> None:
    found = [(point["mesh"], point["sequence"]) for point in steps.points]
    assert found == [(mesh, length) for mesh in GRID["mesh"] for length in (256, 512)]
    assert len(steps) == 6 and all(point["batch"] == 16 for point in steps.points)


def test_rows_are_of_one_schema_and_refused_ones_say_why(steps: einscale.SweepResult) -> None:
    assert {tuple(row) for row in steps.table} == {
        ("model", "mesh", "sequence", "batch", "strategy", "seconds", "memory_bytes", "capacity_bytes", "devices",
         "tokens_per_second", "mfu", "fits", "error")
    }  # fmt: skip
    refused = [row for row in steps.table if row["error"] is not None]
    assert [row["mesh"] for row in refused] == ["data=7", "data=7"]
    assert all(row["seconds"] is None and "does not divide" in str(row["error"]) for row in refused)
    good = [row for row in steps.table if row["error"] is None]
    kinds = {key: {type(row[key]) for row in good} for key in good[0]}
    assert kinds["seconds"] == {float} and kinds["memory_bytes"] == {int} and kinds["fits"] == {bool}


def test_figures_are_those_of_the_answers(steps: einscale.SweepResult) -> None:
    for number, (answer, figures) in enumerate(zip(steps.answers, steps.figures, strict=True)):
        if answer is None:
            assert steps.errors[number] is not None and figures == {}
            continue
        assert answer.figures == pytest.approx(dict(figures), rel=1e-12)
        assert answer.figures["memory_bytes"] == figures["memory_bytes"]
        assert answer == einscale.train_step(**steps.points[number])


def test_training_steps_are_priced_together_and_answered_when_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(*given: Any, **options: Any) -> Any:
        asked.append(options["mesh"])
        return whole(*given, **options)

    whole = einscale.train_step
    found = einscale.sweep(einscale.train_step, GRID | {"mesh": ["data=4"]})
    monkeypatch.setattr("einscale.training.step.train_report", lambda *_: pytest.fail("a report was made"))
    again = einscale.sweep(einscale.train_step, GRID | {"mesh": ["data=4"]})
    assert again.table == found.table
    lazy = einscale.SweepResult(counted, again.points, again.found, again.figures, again.errors)
    assert asked == [] and lazy.found == (None, None)
    monkeypatch.undo()
    assert lazy[0].seconds == found[0].seconds and asked == ["data=4"]


def test_the_best_fits_and_is_best_by_the_figure(steps: einscale.SweepResult) -> None:
    rows = [row for row in steps.table if row["fits"]]
    assert steps.best().seconds == pytest.approx(min(float(str(row["seconds"])) for row in rows), rel=1e-12)
    assert steps.best("mfu").step.mfu == pytest.approx(max(float(str(row["mfu"])) for row in rows), rel=1e-12)
    assert steps.best("memory_bytes").memory.needed == min(int(str(row["memory_bytes"])) for row in rows)
    ranked = steps.ranked("tokens_per_second")
    rates = [steps.figures[number]["tokens_per_second"] for number in ranked]
    assert len(ranked) == 4 and rates == sorted(rates, reverse=True)
    with pytest.raises(UsageError, match="did you mean `seconds`"):
        steps.best("second")
    large = einscale.sweep(einscale.train_step, {"model": "llama3-70b", "mesh": ["data=2"], "batch": 2})
    assert large.table[0]["fits"] is False and large.ranked() == []
    with pytest.raises(UsageError, match="none of the answers fits"):
        large.best()


def test_a_refused_point_raises_what_it_was_refused_with(steps: einscale.SweepResult) -> None:
    with pytest.raises(EinscaleError, match="does not divide"):
        steps[4]
    with pytest.raises(IndexError):
        steps[6]
    assert steps[-6] == steps[0]


def test_any_question_may_be_asked() -> None:
    moved = einscale.sweep(einscale.collective, {"kind": ["all-gather", "all-reduce"], "mesh": {"x": 8}, "size": 2**20})
    assert [answer.kind for answer in moved.answers] == ["all-gather", "all-reduce"]
    assert moved.table[0]["mesh"] == "x=8" and moved.best().kind == "all-gather"
    plans = einscale.sweep(
        einscale.plan,
        [{"spec": "B/x D, D F -> B/x F", "mesh": "x=4", "sizes": {"B": size, "D": 8, "F": 8}} for size in (2, 4, 8)],
    )
    assert isinstance(plans.errors[0], EinscaleError) and plans.figures[1]["received_bytes"] == 0
    assert plans.table[2]["sizes"] == "B=8,D=8,F=8"
    served = einscale.sweep(einscale.infer, {"model": "gpt2", "batch": range(1, 3), "prompt": 128, "output": 8})
    assert [row["batch"] for row in served.table] == [1, 2]
    assert served.best("tokens_per_second").asked.batch == 2


def test_values_and_models_may_be_objects() -> None:
    strategies = [load_strategy("dp"), load_strategy("fsdp")]
    model = einscale.load_model("gpt2")
    points = [
        {"model": one, "mesh": "data=2", "batch": 4, "strategy": two} for one in ("gpt2", model) for two in strategies
    ]
    found = einscale.sweep(einscale.train_step, points)
    assert [row["strategy"] for row in found.table] == ["dp", "fsdp"] * 2
    assert found.table[0]["seconds"] == found.table[2]["seconds"] != found.table[1]["seconds"]


def test_points_of_several_models_keep_their_order() -> None:
    grid = {"model": ["gpt2", "no-such-model"], "batch": [4, 8], "seq": 128}
    found = einscale.sweep(einscale.train_step, grid)
    assert [row["error"] is None for row in found.table] == [True, True, False, False]
    assert "no-such-model" in str(found.table[2]["error"])


def test_sizes_of_a_program_of_ones_own_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "own.ein"
    text = 'input x: bf16[b s d]\nparam w: bf16[d d2]\ny = einsum("b s d, d d2 -> b s d2", x, w)\nreturn y\n'
    file.write_text(text, encoding="utf-8")
    sizes = [{"d": 64, "d2": width} for width in (64, 128)]
    grid = {"model": str(file), "mesh": "data=2", "batch": 4, "seq": 32, "shard": "b=data", "sizes": sizes}
    found = einscale.sweep(einscale.train_step, grid)
    assert found.errors == (None, None)
    assert found.figures[0]["memory_bytes"] < found.figures[1]["memory_bytes"]  # type: ignore[operator]
    assert [answer.memory.needed for answer in found.answers] == [row["memory_bytes"] for row in found.table]


@pytest.mark.parametrize(
    ("fn", "grid", "message"),
    [
        (einscale.train_step, {"model": "gpt2", "batsh": 4}, "did you mean `batch`"),
        (einscale.collective, {"kind": "all-reduce", "mesh": "x=2", "seq": 4}, "`collective` has no argument `seq`"),
        (einscale.train_step, {"model": "gpt2", "seq": 4, "sequence": 8}, "`sequence` is given twice"),
        (einscale.train_step, {}, "the grid has no points"),
        (einscale.train_step, [], "the grid has no points"),
        (einscale.train_step, {"model": []}, "`model` has no values"),
        (einscale.train_step, "model=gpt2", "a grid cannot be str"),
        (einscale.train_step, ["gpt2"], "a point of a grid cannot be str"),
    ],
)
def test_what_is_refused_at_once(fn: Callable[..., Any], grid: Any, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        einscale.sweep(fn, grid)
    assert message in str(raised.value)


def test_faults_of_the_function_are_not_rows() -> None:
    def broken(batch: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        einscale.sweep(broken, {"batch": [1]})


def test_any_function_that_answers_will_do() -> None:
    def asked(**given: Any) -> Any:
        if given["size"] > 4:
            raise SizeError("too large")
        return einscale.collective("all-gather", given["size"], mesh="x=2")

    found = einscale.sweep(asked, {"size": [2, 4, 8]})
    assert [error is None for error in found.errors] == [True, True, False]
    partial = einscale.sweep(functools.partial(einscale.collective, "all-gather", mesh="x=2"), {"size": [2, 4]})
    assert partial.figures[:2] == found.figures[:2]
    assert repr(partial) == "<SweepResult partial over size: 2 points>"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_on_stderr_of_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"kind": "all-gather", "mesh": "x=2", "size": [2, 4, 8]}
    shown = []
    for stream, progress in ((io.StringIO(), True), (Terminal(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        einscale.sweep(einscale.collective, grid, progress=progress)
        shown.append(stream.getvalue())
    assert shown[:2] == ["", ""]
    assert "sweep" in shown[2] and "100%" in shown[2]


def test_text_and_notebook(steps: einscale.SweepResult) -> None:
    assert repr(steps) == "<SweepResult train_step over mesh, sequence: 6 points, 4 fit, 2 refused>"
    lines = str(steps).splitlines()
    assert lines[:2] == [repr(steps)[13:-1], "model gpt2; batch 16; strategy fsdp+tp"]
    times = [row["seconds"] for row in steps.table]
    first = lines[5].split()
    assert first[0] == str(min(range(4), key=lambda number: float(str(times[number]))))
    assert steps.report() == f"{steps}\n" and "<table" in steps._repr_html_()
    assert steps.to_dict()["rows"] == steps.table and steps.to_dict()["function"] == "train_step"
    many = einscale.sweep(einscale.collective, {"kind": "all-gather", "mesh": "x=2", "size": range(2, 60, 2)})
    assert str(many).endswith("and 9 more rows") and "more rows" not in many.report(detail=True)


def test_prices_of_many_print_as_a_sweep_does() -> None:
    prices = einscale.price_many("gpt2", ["dp", "fsdp", {"strategy": "dp", "zero": 7}], mesh="data=4", batch=8)
    assert repr(prices) == "<PriceColumns gpt2: 3 strategies, 2 fit>"
    text = prices.report()
    assert text.startswith("gpt2: 3 strategies, 2 fit\nmesh data=4; batch 8\n")
    rows = prices.to_dict()["rows"]
    assert [row["strategy"] for row in rows] == ["dp", "fsdp", "dp"]
    assert rows[2]["seconds"] is None and rows[2]["error"]
    assert list(prices.seconds[:2]) == [row["seconds"] for row in rows[:2]]
    assert prices.memory[0] == rows[0]["memory_bytes"]


def test_cells_are_plain() -> None:
    import numpy as np

    assert plain(np.float64(0.5)) == 0.5 and type(plain(np.int64(3))) is int
    assert plain(load_strategy("fsdp")) == "fsdp" and plain(einscale.make_mesh("x=2")) == "x=2"
    assert more_is_better("mfu") and not more_is_better("seconds_per_token")
    swept = einscale.sweep(einscale.collective, {"kind": "all-gather", "mesh": "x=2", "size": np.array([2, 4])})
    assert [row["size"] for row in swept.table] == [2, 4]


def test_names_are_alike_for_every_question_about_a_step() -> None:
    for fn in (einscale.layer, einscale.train_step):
        (found,) = einscale.sweep(fn, {"model": "gpt2", "mesh": "data=2", "seq": 128, "batch": 2}).points
        assert found["sequence"] == 128 and "seq" not in found
    with pytest.raises(UsageError, match="`layer` has no argument `forwards`"):
        einscale.sweep(einscale.layer, {"model": "gpt2", "forwards": True})
    with pytest.raises(UsageError, match="did you mean `prompt`"):
        einscale.sweep(einscale.infer, {"model": "gpt2", "promt": 16})
    assert einscale.train_step("gpt2", seq=128) == einscale.train_step("gpt2", sequence=128)
    with pytest.raises(UsageError, match="`seq` and `sequence` are the same argument"):
        einscale.train_step("gpt2", seq=128, sequence=128)
