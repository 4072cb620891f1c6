"""`einscale train` as a user meets it: the report at several widths, files, exit statuses, bad input.

The expected reports in tests/golden are written anew by running this file with `tests` on PYTHONPATH.
"""

from __future__ import annotations

import inspect
import json
import math
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from command import csv_tables, refused, run_command, steady

import einscale
from einscale.report.training.tables import train_tables
from einscale.request.training import TrainOptions, TrainRequest
from einscale.schedule import bubble_seconds, find_schedule, in_flight, schedule_names
from einscale.units import format_si

GOLDEN = Path(__file__).parent / "golden"
SMALL = shlex.split(
    "train gpt2 --mesh pipe=2,data=2,model=2 --strategy megatron-sp --zero 1 --batch 8 --seq 256 --price-per-hour 2"
    " --tokens 300B"
)
TOO_BIG = shlex.split("train llama3-8b --mesh data=8 --strategy dp --batch 16 --microbatch 2")
GOLDENS: dict[str, tuple[list[str], int | None]] = {
    "train-80.txt": ([*SMALL, "--explain"], 80),
    "train-160.txt": ([*SMALL, "--detail"], 160),
    "train-pipe.txt": (SMALL, None),
    "train-no-80.txt": (TOO_BIG, 80),
    "train.md": ([*SMALL, "--format", "md"], None),
    "train.csv": ([*SMALL, "--format", "csv", "--table", "time"], None),
}


def printed(name: str) -> list[str]:
    """Lines that the command of an expected report prints."""
    arguments, terminal = GOLDENS[name]
    outcome = run_command(*arguments, terminal=terminal, env={"NO_COLOR": "1"})
    assert outcome.status == (1 if arguments is TOO_BIG else 0)
    return [steady(line.rstrip()) for line in outcome.out.splitlines()]


@pytest.mark.parametrize("name", GOLDENS)
def test_reports_read_as_they_did(name: str) -> None:
    assert printed(name) == (GOLDEN / name).read_text("utf-8").splitlines()


def document(*arguments: str) -> Any:
    return json.loads(written(*arguments))


@cache
def written(*arguments: str) -> str:
    """What a command writes as JSON; several tests read the same answer."""
    return run_command(*arguments, "--json").out


PIPELINES = {
    schedule: [
        *shlex.split(f"train gpt2 --mesh pipe=2,data=2 --batch 16 --seq 128 --schedule {schedule} --zero 2"),
        *(["--chunks", "2"] if schedule == "interleaved" else []),
    ]
    for schedule in schedule_names()
}
OTHERS = {
    "one device": ["train", "gpt2"],
    "fsdp": shlex.split("train gpt2 --mesh data=4 --strategy fsdp --batch 16"),
    "megatron": SMALL,
    "too big": TOO_BIG,
    "experts": shlex.split("train mixtral-8x7b --mesh data=8,expert=8 --batch 128 --recompute selective"),
    "offload": shlex.split("train gpt2 --mesh data=4 --offload-optimizer --offload-activations 0.5 --optimizer muon"),
}


@pytest.mark.parametrize("arguments", [*OTHERS.values(), *PIPELINES.values()], ids=[*OTHERS, *PIPELINES])
def test_parts_add_up(arguments: list[str]) -> None:
    found = document(*arguments)
    step = found["step"]
    assert math.isclose(sum(part["seconds"] for part in found["time"]), step["seconds"])
    assert all(part["seconds"] >= 0 and part["hidden_seconds"] >= 0 for part in found["time"])
    for stage in found["stages"]:
        memory = stage["memory"]
        parts = [size for name, size in memory.items() if name not in ("needed_bytes", "host_bytes")]
        assert sum(parts) == memory["needed_bytes"] <= step["needed_bytes"]
    assert found["stages"][found["fullest_stage"]]["memory"]["needed_bytes"] == step["needed_bytes"]
    for one in found["tensors"]:
        assert one["bytes"] * one["copies"] == one["total_bytes"]
        assert one["local_shape"]


@pytest.mark.parametrize("arguments", [*OTHERS.values(), *PIPELINES.values()], ids=[*OTHERS, *PIPELINES])
def test_collectives_explain_the_exposed_and_the_hidden_time_of_every_axis(arguments: list[str]) -> None:
    found = document(*arguments)
    named = ("bubble", "wait", "offload")
    exposed: dict[str, float] = {}
    hidden: dict[str, float] = {}
    for part in found["time"]:
        if part["axis"] and part["part"] not in named:
            exposed[part["axis"]] = exposed.get(part["axis"], 0.0) + part["seconds"]
            hidden[part["axis"]] = hidden.get(part["axis"], 0.0) + part["hidden_seconds"]
    for move in found["collectives"]:
        if move["exposed_seconds"] is not None:
            axis = "/".join(move["axes"])
            exposed[axis] -= move["exposed_seconds"] * move["times"]
            hidden[axis] -= (move["seconds"] - move["exposed_seconds"]) * move["times"]
    assert all(abs(left) < 1e-9 for left in (*exposed.values(), *hidden.values())), (exposed, hidden)


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("more", [[], ["--detail"], ["--explain"]], ids=["plain", "detail", "explain"])
@pytest.mark.parametrize("name", ["megatron", "too big", "experts", "offload"])
def test_no_line_is_wider_than_the_terminal(name: str, more: list[str], width: int) -> None:
    out = run_command(*OTHERS[name], *more, terminal=width, env={"NO_COLOR": "1"}).out
    assert max(map(len, out.splitlines())) <= width
    assert "…" not in out


def test_nothing_is_cut_or_coloured_in_a_pipe() -> None:
    out = run_command(*SMALL, "--detail", "--explain", env={"COLUMNS": "40"}).out
    assert "…" not in out
    assert "\x1b" not in out
    assert any(line.startswith("d_embedding: fp32[v/model d {U:data}]  ") for line in out.splitlines())


def test_the_report_says_what_it_assumes() -> None:
    out = run_command(*SMALL, "--detail").out
    assert "1 FLOP is half a multiply-add (2mnk); 1 GiB = 2^30 bytes" in out
    assert (
        "with the half of attention's square that its mask lets through, over the datasheet's 989 TFLOP/s bf16" in out
    )
    assert "overlap of parameters, gradients: 80 % of what local work beside them has time for is hidden" in out
    assert "runtime: 1.5 GiB assumed on every device beside tensors" in out
    assert "energy: 700 W for each device all the time" in out
    assert "times are modelled, not measured" in run_command(*SMALL).out
    others = shlex.split("--attention full --overlap none --overhead 1GB --units si")
    full = run_command(*SMALL, "--detail", *others).out
    assert "with attention's full square" in full
    assert "nothing overlaps but streamed collectives" in full
    assert "1 GB = 10^9 bytes" in full
    assert "runtime: 1 GB assumed" in full


def test_money_and_days() -> None:
    found = document(*SMALL)
    seconds, run = found["step"]["seconds"], found["run"]
    assert run["steps"] == math.ceil(300 * 10**9 / (8 * 256))
    assert math.isclose(run["days"], run["steps"] * seconds / 86400)
    assert math.isclose(run["step_price"], 2 * 8 * seconds / 3600)
    assert math.isclose(run["price"], run["steps"] * run["step_price"])
    nothing = document("train", "gpt2")["run"]
    assert set(nothing.values()) == {None}
    out = run_command(*SMALL).out
    assert f"a step costs {format_si(run['step_price'])} (2 a device-hour), 300 G tokens: " in out
    assert f"{format_si(run['days'])} days, {format_si(run['price'])} in all" in out
    assert "a step costs" not in run_command("train", "gpt2").out
    assert "tokens: " not in run_command("train", "gpt2", "--price-per-hour", "2").out


def test_json_is_complete_and_alone_on_stdout() -> None:
    outcome = run_command(*SMALL, "--json")
    found = json.loads(outcome.out)
    assert (outcome.status, outcome.err) == (0, "")
    assert found["schema_version"] == 1
    assert found["command"] == "train"
    inputs = found["inputs"]
    assert inputs["mesh"] == "pipe=2,data=2,model=2"
    assert (inputs["stages"], inputs["replicas"], inputs["microbatches"]) == (2, 2, 4)
    assert inputs["precision"]["gradients"] == "fp32"
    assert found["conventions"]["attention"] == "causal"
    assert (
        found["step"]["model_flops"]
        == einscale.train_step(
            "gpt2", mesh="pipe=2,data=2,model=2", strategy="megatron-sp", batch=8, sequence=256
        ).step.model_flops
    )
    assert isinstance(found["step"]["hardware_flops"], int)
    assert found["advice"] == []
    causes = [move["cause"] for move in found["collectives"]]
    assert any("rule compute: h -> model of megatron-sp" in cause for cause in causes)
    assert all(causes)


def test_csv_sums_as_the_report_says() -> None:
    rows = csv_tables(*SMALL)
    assert set(rows) == {"step", "run", "time", "stages", "memory", "tensors", "collectives"}
    total = next(row for row in rows["time"] if row["role"] == "total")
    parts = [float(row["seconds"]) for row in rows["time"] if row["role"] in ("", "collective")]
    assert math.isclose(sum(parts), float(total["seconds"]))
    held = [int(row["bytes"]) for row in rows["memory"] if not row["role"]]
    assert sum(held) == int(next(row for row in rows["memory"] if row["role"] == "total")["bytes"])


def test_what_does_not_fit_is_named_with_what_would() -> None:
    outcome = run_command(*TOO_BIG)
    assert outcome.status == 1
    assert outcome.out.startswith("llama3-8b: ")
    verdict = outcome.err.strip()
    assert f"\n{verdict}\n" in outcome.out, "the screen says the same, and the rest"
    outcome = run_command(*TOO_BIG, "--json")
    assert outcome.status == 1
    lines = outcome.err.splitlines()
    assert lines[0] == verdict
    assert lines[0].startswith("does not fit: a device needs ")
    assert lines[0].endswith(" too much")
    assert lines[1] == "  largest"
    assert lines[2].startswith("    optimizer state of block: ")
    start = lines.index("  it would fit with") + 1
    assert len(lines) > start
    assert all(line.startswith("    --") and " step " in line and "iB" in line for line in lines[start:])


def test_advice_is_true() -> None:
    for one in document(*TOO_BIG)["advice"]:
        found = document(*TOO_BIG, *shlex.split(one["change"]))
        assert found["step"]["fits"], one
        assert found["step"]["seconds"] == pytest.approx(one["step_seconds"])
        assert found["step"]["needed_bytes"] == one["needed_bytes"]


def test_nothing_found_is_said_too() -> None:
    outcome = run_command("train", "llama3.1-405b", "--mesh", "model=8")
    assert outcome.status == 1
    assert "no changes were found with which it fits" in outcome.out
    assert "no changes were found with which it fits" in run_command("train llama3.1-405b --mesh model=8 --json").err


def test_a_file_is_written_whatever_the_answer(tmp_path: Path) -> None:
    for arguments, status in ((SMALL, 0), (TOO_BIG, 1)):
        for name in ("r.md", "r.csv", "r.json", "r.txt"):
            outcome = run_command(*arguments, "-o", str(tmp_path / name))
            assert outcome.status == status
            assert outcome.out == ""
            assert (tmp_path / name).read_text("utf-8")


def test_detail_lists_every_stage_tensor_and_collective() -> None:
    out = run_command(*SMALL, "--detail").out
    assert "memory of every stage" in out
    assert "w_up_first_moment: fp32[d/data f/model]" in out
    assert "adamw runs where its states rest" in out
    assert "more (--detail)" not in out
    assert "more (--detail)" in run_command(*SMALL, "--table", "tensors").out


def test_explain_fills_formulas_in() -> None:
    out = run_command(*SMALL, "--explain").out
    for words in (
        "batch / (replicas x microbatch) = 8 / (2 x 1)",
        "(p-1)(F+B), p 2, m 4",
        "min(m, p-i), p 2, m 4, i ",
        "6 block x ",
        "layers x microbatches in flight",
        "W x 8 devices x",
        "nothing ever failing",
        "/ (8 x 256), rounded up",
        "0-9 forward, a-j backward",
        "a part of the bubble",
    ):
        assert words in out, words
    fsdp = run_command(*OTHERS["fsdp"], "--explain").out
    assert "parameters exposed, block forward" in fsdp
    assert " - 0.8 x " in fsdp
    assert "pipeline" not in fsdp


@pytest.mark.parametrize("name", schedule_names())
def test_formulas_of_schedules_are_those_that_are_computed(name: str) -> None:
    chunks = {"interleaved": 2, "zb-v": 2, "dualpipev": 2}.get(name, 1)
    stages, microbatches, forward, backward, weight = 4, 16, 3.0, 7.5, 3.25
    names = {"p": stages, "m": microbatches, "v": chunks, "F": forward, "B": backward, "W": weight}
    if not name.startswith(("zb", "dual")):
        names["W"] = 0.0
    bubble = bubble_seconds(name, stages, microbatches, chunks, forward, backward, names["W"])
    formula, _, where = find_schedule(name).bubble_text.partition(", a = ")
    if where:
        names["a"] = evaluated(where, names)
    assert math.isclose(evaluated(formula, names), bubble)
    for stage in range(stages):
        held = in_flight(name, stages, microbatches, chunks, stage).until_weight
        assert evaluated(find_schedule(name).in_flight_text, {**names, "i": stage}) == held


def evaluated(formula: str, names: dict[str, float]) -> float:
    """The value of a formula in which factors stand side by side."""
    import re

    written = re.sub(r"(?<=[\w)])\s*(?=\()", "*", formula.replace("max(", "MAX[").replace("min(", "MIN["))
    written = re.sub(r"(?<=[\d)])\s*(?=[A-Za-z(])", "*", written)
    written = re.sub(r"(?<=\b[pmvFBWi])\s+(?=[A-Za-z(])", "*", written)
    written = re.sub(r"\bm v\b", "m*v", written).replace("MAX[", "max(").replace("MIN[", "min(")
    written = re.sub(r"(?<=\))(max|min)", r"*\1", written)
    return float(eval(written, {"max": max, "min": min}, names))


def test_a_bubble_is_explained_by_its_closed_form_and_by_what_differs() -> None:
    report = einscale.train_step("gpt2", mesh="pipe=2,data=2", batch=16, sequence=128)
    tables = {table.name: table for table in train_tables(report, explain=True).tables}
    names = [row.cells[0] for row in tables["explained"].rows]
    assert "bubble, closed form" in names
    assert "bubble, simulated" in names
    simulated = next(row for row in tables["explained"].rows if row.cells[0] == "bubble, simulated")
    assert "the chunks do not all take equally long" in str(simulated.cells[2])


def test_every_argument_of_the_function_is_an_option() -> None:
    from einscale.cli.options import Output
    from einscale.cli.train import train
    from einscale.request.common import SYNONYMS

    given = {"model", *TrainRequest.__struct_fields__}
    assert set(TrainOptions.__annotations__) == {*TrainRequest.__struct_fields__, *SYNONYMS}
    options = set(inspect.signature(train).parameters)
    renamed = {"sizes": "size"}
    assert {renamed.get(name, name) for name in given} <= options
    assert options - {renamed.get(name, name) for name in given} == {
        "context",
        "detail",
        "explain",
        "only",
        *Output.__struct_fields__,
    }


def test_options_reach_the_answer() -> None:
    arguments = shlex.split(
        "train gpt2 --mesh pipe=2,data=2 --strategy dp --batch 16 --seq 128 --microbatch 2 --schedule interleaved"
        " --chunks 2 --first-layers 2 --last-layers 4 --precision fp8,gradients=bf16 --optimizer adam8bit --zero 2"
        " --recompute attention --recompute mlp --overlap gradients,activations --attention full --overhead 2GiB"
    )
    inputs = document(*arguments)["inputs"]
    assert (inputs["batch"], inputs["sequence"], inputs["microbatch"]) == (16, 128, 2)
    assert (inputs["schedule"], inputs["chunks"], inputs["first_layers"], inputs["last_layers"]) == (
        "interleaved",
        2,
        2,
        4,
    )
    assert (inputs["precision"]["compute"], inputs["precision"]["gradients"]) == ("fp8", "bf16")
    assert inputs["recompute"] == ["attention", "mlp"]
    assert inputs["overlap"] == ["gradients", "activations"]
    assert (inputs["strategy"], inputs["optimizer"], inputs["attention"]) == ("dp+zero2", "adam8bit", "full")
    assert inputs["overhead_bytes"] == 2 * 2**30


REFUSED = {
    "no model": ("", "MODEL"),
    "unknown model": ("llama3-70", "unknown model `llama3-70`"),
    "unknown strategy": ("gpt2 --strategy fsdb", "did you mean `fsdp`?"),
    "unknown schedule": ("gpt2 --mesh pipe=2 --schedule interleave", "did you mean `interleaved`?"),
    "unknown precision": ("gpt2 --precision bf17", "bf16"),
    "unknown optimizer": ("gpt2 --optimizer adafacto", "did you mean `adafactor`?"),
    "unknown overlap": ("gpt2 --overlap gradient", "did you mean `gradients`?"),
    "unknown recompute": ("gpt2 --recompute atention", "did you mean `attention`?"),
    "unknown attention": ("gpt2 --attention half", "conventions: causal, full"),
    "none and all": ("gpt2 --recompute none,full", "both `none` and `full`"),
    "zero 4": ("gpt2 --zero 4", "ZeRO has no stage 4"),
    "zero of words": ("gpt2 --zero two", "the ZeRO stage is not a number"),
    "more stages than blocks": ("gpt2 --mesh pipe=13", "at most 12 stages"),
    "schedule without pipeline": ("gpt2 --schedule 1f1b", "a mesh axis for its stages, such as pipe=4"),
    "chunks without pipeline": ("gpt2 --chunks 2", "a mesh axis for its stages, such as pipe=4"),
    "odd dualpipe": ("gpt2 --mesh pipe=3 --schedule dualpipe", "expected 2 or 4"),
    "batch that does not divide": ("gpt2 --mesh data=2 --batch 7", "the nearest that does is 6 or 8"),
    "microbatch that does not divide": ("gpt2 --batch 16 --microbatch 3", "use microbatches of 2 or 4"),
    "experts that do not divide": ("mixtral-8x7b --mesh expert=3", "divide them 2 or 4 ways"),
    "no tokens": ("gpt2 --tokens 0", "the number of tokens must be at least 1"),
    "tokens of words": ("gpt2 --tokens many", "15T, 300B or 2e12"),
    "absurd tokens": ("gpt2 --tokens 1e30", "the number of tokens is absurd"),
    "negative price": ("gpt2 --price-per-hour -1", "the price of an hour cannot be -1"),
    "infinite price": ("gpt2 --price-per-hour inf", "the price of an hour cannot be inf"),
    "negative overhead": ("gpt2 --overhead -1", "the overhead must be at least 0"),
    "share above one": ("gpt2 --offload-activations 2", "must be a share from 0 to 1"),
    "share of nothing": ("gpt2 --offload-activations nan", "must be a share from 0 to 1"),
    "absurd batch": ("gpt2 --batch 1e30", "the batch is absurd"),
    "long sequence": ("gpt2 --seq 5000", "use a sequence of at most 1024"),
    "unknown format": ("gpt2 --format xml", "unknown format `xml`"),
    "misspelt flag": ("gpt2 --schedul 1f1b", "did you mean `--schedule`?"),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_message_and_nothing_else(arguments: str, words: str) -> None:
    assert words in refused(run_command("train", *shlex.split(arguments)))


if __name__ == "__main__":
    for golden in GOLDENS:
        (GOLDEN / golden).write_text("\n".join(printed(golden)) + "\n", encoding="utf-8")
