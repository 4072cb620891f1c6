"""`einscale infer` as a user meets it: the report at several widths, files, exit statuses, bad input.

The expected reports in tests/golden are written anew by running this file:
`PYTHONPATH=.:tests python tests/test_cli_infer.py`.
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
from command import csv_tables, kept_answers, refused, run_command, steady
from msgspec.structs import fields

import einscale.api.infer as api_infer
from einscale.serving import advice as serving_advice
from einscale.serving import levers as serving_levers

GOLDEN = Path(__file__).parent / "golden"
SMALL = shlex.split(
    "infer gpt2 --mesh data=2,model=2 --strategy megatron --batch 16 --prompt 512 --output 128 --price-per-hour 2"
)
PIPED = shlex.split("infer llama3-8b --mesh pipe=2,model=2 --batch 8 --prompt 2048 --output 128 --chunk 512")
DRAFT = shlex.split(
    "infer llama3-70b --mesh model=8 --batch 8 --speculative llama3-8b --guesses 5 --acceptance 0.7 --price-per-hour 2"
)
APART = shlex.split(
    "infer llama3-8b --mesh model=2 --batch 64 --disaggregate model=1 --prefill-hardware h200 --prefill-batch 2"
    " --link 25GB/s --price-per-hour 2 --prefill-price-per-hour 3"
)
SWEPT = shlex.split("infer llama3-8b --mesh model=2 --sweep 'batch=1,16,256,1024 context=1Ki,8Ki' --price-per-hour 2")
TOO_BIG = shlex.split("infer llama3-70b --mesh model=4 --batch 256 --prompt 4096 --output 512")
GOLDENS: dict[str, tuple[list[str], int | None]] = {
    "infer-80.txt": ([*SMALL, "--explain"], 80),
    "infer-160.txt": ([*SMALL, "--detail"], 160),
    "infer-pipe.txt": (PIPED, None),
    "infer-draft-80.txt": (DRAFT, 80),
    "infer-apart-80.txt": (APART, 80),
    "infer-sweep-80.txt": (SWEPT, 80),
    "infer-no-80.txt": (TOO_BIG, 80),
    "infer.md": ([*SMALL, "--format", "md"], None),
    "infer.csv": ([*SMALL, "--format", "csv", "--table", "time"], None),
}
CASES = {
    "small": SMALL,
    "pipeline": PIPED,
    "draft": DRAFT,
    "apart": APART,
    "sweep": SWEPT,
    "too big": TOO_BIG,
    "one device": ["infer", "gpt2"],
    "one token": ["infer", "gpt2", "--output", "1"],
    "experts": shlex.split("infer mixtral-8x7b --mesh data=2,expert=4 --batch 64 --precision w8a8-fp8"),
    "latents": shlex.split("infer deepseek-v2-lite --mesh model=2 --batch 4 --precision bf16,kv_cache=fp8"),
    "windows": shlex.split("infer gemma2-9b --mesh model=2 --prompt 8192 --batch 4 --page 1"),
    "states": shlex.split("infer qwen3-next-80b-a3b --mesh model=4 --batch 4 --execution roofline"),
    "ahead": shlex.split("infer deepseek-v3 --mesh model=16 --hardware h200 --precision w8a8-fp8 --speculative ahead"),
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


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_parts_add_up(arguments: list[str]) -> None:
    found = document(*arguments)
    phases = [(found["prefill"], found["prefill"]["seconds"])]
    if found["decode"]:
        phases.append((found["decode"], found["decode"]["seconds_per_token"]))
    for phase, seconds in phases:
        spent = phase["spent"]
        parts = [spent[f"{name}_seconds"] for name in ("weights", "cache", "activations", "compute", "launch")]
        parts += [spent["collectives_seconds"], spent["hops_seconds"], spent["waiting_seconds"]]
        assert min(parts) >= 0
        assert math.isclose(sum(parts), seconds)
        axes = spent["collectives"]
        assert math.isclose(sum(one["seconds"] for one in axes), spent["collectives_seconds"], abs_tol=1e-12)
        assert all(0 < one["latency_seconds"] <= one["seconds"] for one in axes)
    for memory in found["memory"]:
        parts = [memory[f"{name}_bytes"] for name in ("weights", "cache", "working", "overhead")]
        assert sum(parts) == memory["needed_bytes"]
        assert memory["fits"] == (memory["needed_bytes"] <= memory["capacity_bytes"])
    assert found["request"]["fits"] == all(memory["fits"] for memory in found["memory"])


def test_collectives_explain_the_time_of_every_axis() -> None:
    found = document(*SMALL)
    for phase, step in ((found["prefill"], found["prefill"]["last"]), (found["decode"], found["decode"]["step"])):
        axes: dict[str, float] = {}
        for kind in step["kinds"]:
            for statement in kind["statements"]:
                for move in statement["collectives"]:
                    axis = "/".join(move["axes"])
                    axes[axis] = axes.get(axis, 0.0) + move["exposed_seconds"] * kind["repeat"]
                    assert move["cause"]
        assert {axis: pytest.approx(seconds) for axis, seconds in axes.items()} == {
            one["axes"]: one["seconds"] for one in phase["spent"]["collectives"]
        }


KEPT = {
    (api_infer, "infer"): kept_answers(api_infer.infer),
    (serving_advice, "advise"): kept_answers(serving_advice.advise),
    (serving_levers, "levers"): kept_answers(serving_levers.levers),
}


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("more", [[], ["--detail"], ["--explain"]], ids=["plain", "detail", "explain"])
@pytest.mark.parametrize("name", CASES)
def test_no_line_is_wider_than_the_terminal(
    name: str, more: list[str], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for (module, function), kept in KEPT.items():
        monkeypatch.setattr(module, function, kept)
    out = run_command(*CASES[name], *more, terminal=width, env={"NO_COLOR": "1"}).out
    tables = out if more != ["--detail"] or width == 160 else out.partition("every kind of layer")[0]
    assert max(map(len, tables.splitlines())) <= width
    assert "…" not in out


def test_nothing_is_cut_or_coloured_in_a_pipe() -> None:
    out = run_command(*SMALL, "--detail", "--explain", env={"COLUMNS": "40"}).out
    assert "…" not in out
    assert "\x1b" not in out
    assert any(line.startswith("working ") and line.endswith("in either phase") for line in out.splitlines())


def test_the_report_says_what_it_assumes() -> None:
    out = run_command(*SMALL, "--detail").out
    assert "1 FLOP is half a multiply-add (2mnk); 1 GiB = 2^30 bytes" in out
    assert "of the datasheet's 989 TFLOP/s bf16 and 3350 GB/s" in out
    assert "runtime: 1.5 GiB assumed on every device beside tensors" in out
    assert "a step is captured once and replayed" in out
    assert "no request waits for another" in out
    full = run_command(*SMALL, "--detail", *shlex.split("--execution roofline --overhead 0 --units si")).out
    assert "rooflines of h100, no figures of its kernels, attainable rates" in full
    assert "1 GB = 10^9 bytes" in full
    assert "runtime" not in full
    assert "the host starts each kernel" in run_command(*SMALL, "--detail", "--execution", "eager").out
    rooflines = run_command("infer gpt2 --hardware tpu-v5e --detail").out
    assert "rooflines of tpu-v5e, no figures of its kernels" in rooflines
    assert "times are modelled, not measured" in run_command(*SMALL).out


def test_what_was_not_given_is_said() -> None:
    asked = ("infer", "llama3-8b", "--mesh", "data=2,model=2", "--speculative", "llama3.1-8b")
    out, full = run_command(*asked).out, run_command(*asked, "--detail").out
    for words in (
        "strategy: megatron, which suits this mesh (none was given)",
        "batch: 2 sequences, one for each data-parallel device (none was given)",
        "prompt: 2048 tokens (none were given)",
        "output: 256 tokens (none were given)",
        "speculation: 4 guesses in a row (no number was given)",
        "speculation: a guess is accepted with probability 0.8, assumed (none was given)",
    ):
        assert f"{words}; " in out
        assert f"\n{words}\n" in full
    assert "none was given" not in run_command(*SMALL).out


def test_json_is_complete_and_alone_on_stdout() -> None:
    outcome = run_command(*SMALL, "--json")
    found = json.loads(outcome.out)
    assert (outcome.status, outcome.err) == (0, "")
    assert (found["schema_version"], found["command"]) == (1, "infer")
    inputs = found["inputs"]
    assert (inputs["mesh"], inputs["devices"], inputs["replicas"], inputs["page"]) == ("data=2,model=2", 4, 2, 16)
    assert (inputs["batch"], inputs["prompt"], inputs["output"], inputs["chunk"]) == (16, 512, 128, 512)
    assert inputs["precision"]["kv_cache"] == "bf16"
    assert (inputs["launch"], inputs["elementwise"]) == ("compiled", "fused")
    assert found["cache"]["bytes_per_token"] == 12 * 2 * 12 * 64 * 2
    assert found["cache"]["bytes_per_request"] == 640 * found["cache"]["bytes_per_token"]
    assert found["conventions"]["times"] == "kernels"
    assert isinstance(found["decode"]["step"]["flops"], int)
    assert (found["advice"], found["sweep"], found["speculation"], found["disaggregation"]) == ([], [], None, None)


def test_json_of_other_ways_to_serve() -> None:
    draft = document(*DRAFT)["speculation"]
    assert (draft["draft"], draft["guesses"], draft["acceptance"]) == ("llama3-8b", 5, 0.7)
    assert math.isclose(draft["round_seconds"], 5 * draft["draft_seconds"] + draft["verify_seconds"])
    apart = document(*APART)["disaggregation"]
    assert (apart["prefill"]["hardware"], apart["prefill"]["batch"]) == ("h200", 2)
    assert math.isclose(apart["transfer_seconds"], apart["transfer_bytes"] / 25e9)
    swept = document(*SWEPT)["sweep"]
    assert [(row["batch"], row["context"]) for row in swept[:3]] == [(1, 1024), (1, 8192), (16, 1024)]
    assert {row["memory"]["fits"] for row in swept} == {True, False}


def test_csv_sums_as_the_report_says() -> None:
    rows = csv_tables(*SMALL)
    assert set(rows) == {"request", "phases", "time", "memory", "cache", "money"}
    for phase in ("prefill_seconds", "step_seconds"):
        total = next(row for row in rows["time"] if row["role"] == "total")
        parts = [float(row[phase]) for row in rows["time"] if row["role"] in ("", "collective")]
        assert math.isclose(sum(parts), float(total[phase]))
    held = [int(row["bytes"]) for row in rows["memory"] if not row["role"]]
    assert sum(held) == int(next(row for row in rows["memory"] if row["role"] == "total")["bytes"])


def test_a_sweep_is_short_unless_more_is_asked_for() -> None:
    short = csv_tables(*SWEPT)
    assert set(short) == {"request", "cache", "money", "sweep"}
    assert [row["pareto"] for row in short["sweep"]] == ["true"] * 6 + ["false", "false"]
    assert "time" in csv_tables(*SWEPT, "--detail")
    assert len(csv_tables("infer gpt2 --sweep batch=1 --sweep context=256,512")["sweep"]) == 2


def test_apart_shows_both_instances() -> None:
    rows = csv_tables(*APART)
    assert {"prefill_memory", "memory", "apart", "transfer"} <= set(rows)
    assert [row["side"] for row in rows["apart"]] == ["prefill", "decode"]
    out = run_command(*APART).out
    assert "fits: a device that prefills needs" in out
    assert "fits: a device that decodes needs" in out


def test_what_does_not_fit_is_named_with_what_would() -> None:
    outcome = run_command(*TOO_BIG)
    assert outcome.status == 1
    assert outcome.out.startswith("llama3-70b: ")
    verdict = outcome.err.strip()
    assert f"\n{verdict}; at most " in outcome.out, "the screen says the same, and the rest"
    outcome = run_command(*TOO_BIG, "--json")
    assert outcome.status == 1
    lines = outcome.err.splitlines()
    assert lines[0] == verdict
    assert lines[0].startswith("does not fit: a device needs ")
    assert lines[0].endswith(" too much")
    assert lines[1].startswith("  of that: keys and values ")
    assert lines[2] == "  it would fit with"
    assert any(line.startswith("    --batch ") for line in lines[3:])
    assert any("--mesh model=8" in line and " on 8 devices" in line for line in lines[3:])
    assert all("iB" in line and "first token" in line and "a token" in line for line in lines[3:])


@pytest.mark.parametrize(
    "arguments",
    [
        TOO_BIG,
        shlex.split("infer llama3-70b"),
        shlex.split("infer qwen3-8b --batch 256 --prompt 2048 --speculative qwen3-0.6b --guesses 3 --acceptance 0.7"),
        shlex.split("infer llama3-70b --mesh model=2 --batch 64 --disaggregate model=1 --hardware h100"),
        shlex.split("infer gpt3-175b --mesh model=8 --batch 64 --prompt 1024"),
    ],
    ids=["batch", "weights", "draft", "apart", "long"],
)
def test_advice_is_true(arguments: list[str]) -> None:
    found = document(*arguments)
    assert not found["request"]["fits"]
    assert found["advice"]
    for one in found["advice"]:
        changed = document(*_replaced(arguments, shlex.split(one["change"])))
        assert changed["request"]["fits"], one
        assert changed["request"]["seconds_per_token"] == pytest.approx(one["seconds_per_token"])
        assert changed["request"]["devices"] == one["devices"]
        assert max(memory["needed_bytes"] for memory in changed["memory"]) == one["needed_bytes"]


def _replaced(arguments: list[str], change: list[str]) -> list[str]:
    """Arguments with options changed."""
    kept = list(arguments)
    for flag in change[::2]:
        if flag in kept:
            place = kept.index(flag)
            del kept[place : place + 2]
    return [*kept, *change]


def test_nothing_found_is_said_too() -> None:
    asked = shlex.split("infer llama3-70b --mesh data=2 --strategy dp --hardware l4 --precision int4")
    outcome = run_command(*asked)
    assert outcome.status == 1
    assert "\n  no change was found with which it fits\n" in outcome.out
    assert run_command(*asked, "--json").err.endswith("  no change was found with which it fits\n")


def test_a_file_is_written_whatever_the_answer(tmp_path: Path) -> None:
    for arguments, status in ((SMALL, 0), (TOO_BIG, 1)):
        for name in ("r.md", "r.csv", "r.json", "r.txt"):
            outcome = run_command(*arguments, "-o", str(tmp_path / name))
            assert outcome.status == status
            assert outcome.out == ""
            assert (tmp_path / name).read_text("utf-8")


def test_detail_lists_every_statement_and_collective_of_both_phases() -> None:
    out = run_command(*SMALL, "--detail").out
    assert "block (x 12) in the prefill: 512 new tokens of 16 after 0 in the cache" in out
    assert "block (x 12) in a decode step: 1 new token of 16 after 575 in the cache" in out
    assert "`attn_out_linear` is in parts" in out
    assert "block (x 12)" not in run_command(*SMALL).out


def test_explain_fills_formulas_in() -> None:
    out = run_command(*SMALL, "--explain").out
    for words in (
        "batch x prompt / time = 16 x 512 / ",
        " + 127 x a token ",
        "the mean of 127 steps, the first ",
        "12 layers x (k_cache bf16[b t n k] 1.5 KiB + v_cache bf16[b t n k] 1.5 KiB); of 639 tokens 640 are kept",
        "batch 16 x 22.5 MiB = 360 MiB; a device holds 1/4 of it",
        "latency ",
        "/ 3600 s / ",
    ):
        assert words in out, words
    assert "(1 - a^(g + 1)) / (1 - a), a 0.7, g 5" in run_command(*DRAFT, "--explain").out
    assert " / 25 GB/s (given)" in run_command(*APART, "--explain").out
    states = run_command(*CASES["states"], "--explain").out
    assert "state of a sequence, " in states


def test_two_prices_are_two_columns_and_two_terms() -> None:
    found = csv_tables(*APART)["money"][0]
    both = document(*APART)["disaggregation"]
    counts = [both[f"{side}_instances"] * devices for side, devices in (("prefill", 1), ("decode", 2))]
    assert (float(found["price_per_hour"]), float(found["prefill_price_per_hour"])) == (2, 3)
    assert float(found["hour_price"]) == pytest.approx(3 * counts[0] + 2 * counts[1])
    formula = f"{counts[0]} devices that prefill x 3 + {counts[1]} that decode x 2"
    assert formula in run_command(*APART, "--explain").out
    assert " 4 devices x 2 for a device-hour" in run_command(*SMALL, "--explain").out


def test_what_a_draft_does_not_speed_up_says_so() -> None:
    out = run_command(*DRAFT, "--detail", "--explain").out
    assert "\nphases without the draft: " in out
    assert "where the time of the prefill and of a decode step goes without the draft" in out
    explained = out.partition("how each number came about")[2].splitlines()
    names = [line.strip().partition("  ")[0] for line in explained]
    assert names.count("a token") == 1
    assert names.count("a token without the draft") == 1
    assert "without the draft" not in run_command(*SMALL, "--detail", "--explain").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("llama3-70b --mesh model=16 --prompt 9000", "positions: 9256 tokens, and the config of llama3-70b goes up to"),
        (
            "llama3-70b --mesh model=16",
            "cache: each part is on 2 devices, for the mesh has more ways than there are key",
        ),
        ("deepseek-v2-lite --mesh model=4", "cache: each part is on 4 devices, for a latent has no heads to divide"),
        (
            "llama3-8b --batch 8 --microbatches 4",
            "microbatches: 4, one after the other, for the mesh has no axis `pipe`",
        ),
        (
            "llama3.1-8b --prompt 9000 --speculative llama3-8b",
            "positions: 9256 tokens, and the config of llama3-8b goes",
        ),
    ],
    ids=["positions", "heads", "latents", "microbatches", "draft"],
)
def test_what_is_doubtful_is_noted(arguments: str, words: str) -> None:
    assert words in run_command("infer", *shlex.split(arguments)).out
    assert f"\n{words}" in run_command("infer", *shlex.split(arguments), "--detail").out


def test_ordinary_requests_have_no_notes() -> None:
    found = document(
        "infer", *shlex.split("llama3-70b --mesh data=2,model=8 --strategy megatron --batch 2 --prompt 512")
    )
    assert [note.partition(":")[0] for note in found["notes"]] == ["output"]


def test_every_argument_of_the_function_is_an_option_with_its_default() -> None:
    from einscale.cli.infer import infer
    from einscale.cli.options import Output
    from einscale.request.serving import DecodeOptions, PrefillOptions, ServeOptions, ServeRequest

    given = {"model", *ServeOptions.__optional_keys__}
    only = {"context", "cached"}
    assert {*ServeRequest.__struct_fields__} == given - {"model"} | only
    assert {*PrefillOptions.__optional_keys__, *DecodeOptions.__optional_keys__} <= {*ServeRequest.__struct_fields__}
    options = inspect.signature(infer).parameters
    renamed = {"sizes": "size"}
    assert {renamed.get(name, name) for name in given} <= set(options)
    others = {"context", "detail", "explain", "only", *Output.__struct_fields__}
    assert set(options) - {renamed.get(name, name) for name in given} == others
    defaults = {field.name: field.default for field in fields(ServeRequest)}
    for name in given - {"model"}:
        default = options[renamed.get(name, name)].default
        if default is not None:
            assert str(default) == str(defaults[name]), name


def test_options_reach_the_answer() -> None:
    arguments = shlex.split(
        "infer llama3-8b --mesh pipe=2,model=2 --batch 8 --prompt 1Ki --output 16 --chunk 256 --microbatches 4"
        " --precision int8,kv_cache=fp8 --page 1 --memory-share 0.9 --overhead 2GiB --execution eager --hardware a100"
        " --shard h=model"
    )
    found = document(*arguments)
    inputs = found["inputs"]
    assert (inputs["batch"], inputs["prompt"], inputs["output"], inputs["chunk"]) == (8, 1024, 16, 256)
    assert (inputs["stages"], found["prefill"]["microbatches"], found["prefill"]["chunks"]) == (2, 4, 4)
    assert (inputs["precision"]["parameters"], inputs["precision"]["kv_cache"]) == ("int8", "fp8")
    assert (inputs["page"], inputs["memory_share"], inputs["overhead_bytes"]) == (1, 0.9, 2**31)
    assert (inputs["launch"], inputs["hardware"], inputs["strategy"]) == ("eager", "a100-80gb", "shard")
    assert found["memory"][0]["capacity_bytes"] == int(80e9 * 0.9)


REFUSED = {
    "no model": ("", "MODEL"),
    "unknown model": ("llama3-70", "unknown model `llama3-70`"),
    "unknown strategy": ("gpt2 --strategy megatrom", "did you mean `megatron`?"),
    "unknown precision": ("gpt2 --precision int5", "did you mean `int8`?"),
    "unknown execution": ("gpt2 --execution eagre", "did you mean `eager`?"),
    "unknown draft": ("gpt2 --speculative gpt9", "unknown model `gpt9`"),
    "no layers ahead": ("gpt2 --speculative ahead", "has no layers that predict tokens further ahead"),
    "guesses of no draft": (
        "gpt2 --guesses 3",
        "`--guesses` of no draft\n  expected with `--speculative` a draft model",
    ),
    "no probability": ("llama3-8b --speculative gpt2 --acceptance 1.5", "a probability, 0 to 1"),
    "no guesses": ("llama3-8b --speculative gpt2 --guesses 0", "the number of guesses must be at least 1"),
    "both at once": ("llama3-8b --speculative llama3.1-8b --disaggregate model=1", "one at a time"),
    "one token to guess": ("llama3-8b --speculative llama3.1-8b --output 1", "an output of 2 or more"),
    "one token apart": ("llama3-8b --disaggregate model=1 --output 1", "an output of 2 or more"),
    "prefill batch alone": ("gpt2 --prefill-batch 3", "`--prefill-batch` is of prefill and decode apart"),
    "link alone": ("gpt2 --link 5GB/s", "`--link` is of prefill and decode apart"),
    "link of words": ("llama3-8b --disaggregate model=1 --link fast", "the link is not a number"),
    "link without a unit": ("llama3-8b --disaggregate model=1 --link 50", "expected for example 50GB/s"),
    "link without bytes": ("llama3-8b --disaggregate model=1 --link 5e9/s", "the link has no unit"),
    "another vocabulary": (
        "llama3-70b --mesh model=8 --speculative mistral-7b",
        "mistral-7b has a vocabulary of 32000 tokens and llama3-70b one of 128256",
    ),
    "misspelt axis": ("llama3-8b --mesh modle=8", "did you mean `model`?"),
    "more ways than heads": ("llama3-70b --mesh model=128", "heads `h` (64) cannot be divided 128 ways"),
    "link in bits": ("llama3-8b --disaggregate model=1 --link 50Gb/s", "the link is in bits"),
    "bad mesh apart": ("llama3-8b --disaggregate model", "model"),
    "unknown hardware apart": ("llama3-8b --disaggregate model=1 --prefill-hardware h300", "h200"),
    "batch that does not divide": ("gpt2 --mesh data=2 --batch 7", "the nearest that does is 6 or 8"),
    "batch of words": ("gpt2 --batch many", "the batch is not a number"),
    "absurd batch": ("gpt2 --batch 1e17", "the batch is absurd"),
    "no prompt": ("gpt2 --prompt 0", "the prompt must be at least 1"),
    "absurd prompt": ("llama3-8b --prompt 1e12", "the prompt is absurd"),
    "long prompt": ("gpt2 --prompt 1000 --output 100", "prompt and output together may have at most 1024"),
    "a file as output": ("gpt2 --output r.json", "a file is written with `-o FILE`"),
    "no page": ("gpt2 --page 0", "the page must be at least 1"),
    "no memory": ("gpt2 --memory-share 0", "more than 0, at most 1"),
    "more memory than there is": ("gpt2 --memory-share 1.1", "more than 0, at most 1"),
    "negative overhead": ("gpt2 --overhead -1", "the overhead must be at least 0"),
    "negative price": ("gpt2 --price-per-hour -1", "the price of an hour cannot be -1"),
    "infinite price": ("gpt2 --price-per-hour inf", "the price of an hour cannot be inf"),
    "sweep of nothing": ("gpt2 --sweep ''", "the sweep varies nothing"),
    "sweep of something else": ("gpt2 --sweep bach=1,2", "did you mean `batch`?"),
    "sweep twice": ("gpt2 --sweep 'batch=1 batch=2'", "varies `batch` twice"),
    "sweep without numbers": ("gpt2 --sweep batch", "batch=1,8,64"),
    "sweep of words": ("gpt2 --sweep batch=1,two", "the batch is not a number"),
    "sweep too long": ("gpt2 --sweep context=2000", "at most 1024"),
    "more stages than layers": ("gpt2 --mesh pipe=16", "at most 12 devices along pipe"),
    "unknown format": ("gpt2 --format xml", "unknown format `xml`"),
    "misspelt flag": ("gpt2 --pompt 5", "did you mean `--prompt`?"),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_message_and_nothing_else(arguments: str, words: str) -> None:
    assert words in refused(run_command("infer", *shlex.split(arguments)))


if __name__ == "__main__":
    for golden in GOLDENS:
        (GOLDEN / golden).write_text("\n".join(printed(golden)) + "\n", encoding="utf-8")
