"""`einscale compare` as a user meets it: the tables at several widths, files, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import csv_tables, refused, run_command

GOLDEN = Path(__file__).parent / "golden"
SMALL = ["compare", "gpt2", "megatron", "megatron-sp", "--mesh", "data=2,model=4", "--seq", "256"]
SMALL += ["--batch", "4"]
MESHES = ["compare", "llama3-8b", "megatron-sp@data=4,model=8", "megatron-sp@data=2,model=16"]
MESHES += ["fsdp@data=64", "--seq", "2048"]


READS = {
    "100": (100, []),
    "160": (160, []),
    "pipe": (None, []),
    "80": (80, []),
    "detail-100": (100, ["--detail"]),
    "layer-100": (100, ["--for", "layer"]),
}


@pytest.mark.parametrize(("width", "more"), READS.values(), ids=READS)
def test_the_report_reads_as_it_did(width: int | None, more: list[str], request: pytest.FixtureRequest) -> None:
    outcome = run_command(*SMALL, *more, terminal=width, env={"NO_COLOR": "1"})
    assert outcome.status == 0
    assert outcome.err == ""
    expected = (GOLDEN / f"compare-{request.node.callspec.id}.txt").read_text("utf-8")
    assert [line.rstrip() for line in outcome.out.splitlines()] == expected.splitlines()


CLUSTER = ["compare", "llama3-70b", "fsdp@data=64", "megatron-sp@data=32,model=2", "--batch", "64", "--seq", "4096"]
STAGES = ["compare", "gpt2", "megatron", "megatron-sp", "--mesh", "pipe=2,data=2,model=4", "--batch", "64", "--zero"]
STAGES += ["1"]


@pytest.mark.parametrize("arguments", [SMALL, CLUSTER, STAGES, [*SMALL, "--for", "layer"], MESHES[:4]])
def test_two_strategies_fit_one_screen(arguments: list[str]) -> None:
    lines = run_command(*arguments, terminal=100, env={"NO_COLOR": "1"}).out.splitlines()
    assert len(lines) <= 40
    assert "fastest" in " ".join(lines[1:3])


def test_one_part_is_shown_by_itself() -> None:
    terms = run_command(*SMALL, "--only", "terms").out
    assert "all-gather over model" in terms
    assert "runtime" not in terms
    assert "saved of block: x" in run_command(*SMALL, "--only", "memory").out
    assert "gradients once a step" in run_command(*SMALL, "--only", "time").out
    assert refused(run_command(*SMALL, "--only", "term")) == (
        "the answer has no part `term`\n  did you mean `terms`?\n"
    )
    assert "to choose from" in refused(run_command(*SMALL, "--only", "terms", "--json"))


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("arguments", [SMALL, MESHES, [*MESHES, "--detail"]], ids=["small", "meshes", "detail"])
def test_no_line_is_wider_than_the_terminal(arguments: list[str], width: int) -> None:
    out = run_command(*arguments, terminal=width, env={"NO_COLOR": "1"}).out
    assert max(map(len, out.splitlines())) <= width
    assert "…" not in out


def test_nothing_is_cut_or_coloured_in_a_pipe() -> None:
    out = run_command(*MESHES, "--detail", env={"COLUMNS": "40"}).out
    assert "…" not in out
    assert "\x1b" not in out
    row = next(line for line in out.splitlines() if line.startswith("block forward: activations attn_in "))
    assert "all-gather over model=8 " in row
    assert "all-gather over model=16" in row


def test_json_is_complete_and_alone_on_stdout() -> None:
    outcome = run_command(*MESHES, "--json")
    document = json.loads(outcome.out)
    assert outcome.err == ""
    assert [one["label"] for one in document["strategies"]] == MESHES[2:5]
    assert len(document["differences"]) == 2
    for found in document["differences"]:
        assert sum(term["received_bytes"] for term in found["terms"]) == found["change"]["received_bytes"]
    assert document["notes"][-1].startswith("the meshes are of different size")


def test_csv_sums_as_the_report_says() -> None:
    rows = csv_tables(*SMALL)
    assert set(rows) == {"strategies", "layers", "time", "memory", "differences", "memory_differences"}
    terms = rows["differences"]
    assert {row["table"] for row in terms} == {"difference_megatron-sp"}
    total = next(row for row in terms if row["role"] == "total")
    assert sum(int(row["received_bytes"]) for row in terms if row["role"] != "total") == int(total["received_bytes"])
    held = rows["memory_differences"]
    total = next(row for row in held if row["role"] == "total")
    assert sum(int(row["bytes"]) for row in held if row["role"] != "total") == int(total["bytes"])
    needed = {row["strategy"]: int(row["needed_bytes"]) for row in rows["memory"]}
    assert needed["megatron-sp"] - needed["megatron"] == int(total["bytes"])
    step = {row["strategy"]: float(row["seconds"]) for row in rows["strategies"]}
    for name, seconds in step.items():
        parts = (float(row["seconds"]) for row in rows["time"] if row["strategy"] == name)
        assert sum(parts) == pytest.approx(seconds, rel=1e-9)


def test_si_units_reach_the_sentences() -> None:
    out = run_command(*SMALL, "--units", "si").out
    assert "GiB" not in out
    assert "MB" in out


def test_a_file_is_written_by_its_extension(tmp_path: Path) -> None:
    for name, start in (("r.md", "## gpt2"), ("r.csv", "table,section,role"), ("r.json", "{"), ("r.txt", "gpt2: ")):
        outcome = run_command(*SMALL, "-o", str(tmp_path / name))
        assert outcome.status == 0
        assert outcome.out == ""
        assert (tmp_path / name).read_text("utf-8").startswith(start)


def test_a_file_of_ones_own_is_compared(tmp_path: Path) -> None:
    (tmp_path / "at@home").mkdir()
    own = tmp_path / "at@home" / "own.toml"
    own.write_text('[compute]\nb = "data"\nh = "model"\nf = "model"\n')
    words = ["compare", "gpt2", "megatron", str(own), "--mesh", "data=2,model=4", "--seq", "64"]
    outcome = run_command(*words)
    assert outcome.status == 0
    assert "own against megatron: " in outcome.out
    assert "einsum logits" in run_command(*words, "--detail").out  # the vocabulary is not divided
    beside = run_command(*words[:3], f"{own}@model=8", *words[4:], "--batch", "2")
    assert "own @model=8" in beside.out


REFUSED = {
    "no model": (["compare"], "MODEL"),
    "no strategy": (["compare", "gpt2", "--mesh", "data=2"], "no strategy is given"),
    "one strategy": (["compare", "gpt2", "dp", "--mesh", "data=2"], "`dp` alone has nothing to be compared"),
    "no mesh": (["compare", "gpt2", "dp", "fsdp"], "`dp` has no mesh"),
    "unknown strategy": (["compare", "gpt2", "dp", "fsdb", "--mesh", "data=2"], "did you mean `fsdp`?"),
    "unknown model": (["compare", "gtp2", "dp", "fsdp", "--mesh", "data=2"], "unknown model `gtp2`"),
    "unknown hardware": ([*SMALL, "--hardware", "h10"], "h100"),
    "no such file": (["compare", "gpt2", "dp", "no.toml", "--mesh", "data=2"], "no.toml"),
    "misspelt flag": ([*SMALL, "--detial"], "did you mean `--detail`?"),
    "sequence of words": ([*SMALL, "--seq", "long"], "the sequence is not a number"),
    "dtype of old": ([*SMALL, "--dtype", "bf16"], "`--precision` says it"),
    "unknown purpose": ([*SMALL, "--for", "trian"], "did you mean `train`?"),
    "too many": (["compare", "gpt2", *(f"dp@data={size}" for size in range(1, 18))], "at most 16"),
    "batch": ([*MESHES, "--batch", "6"], "does not divide over the data-parallel replicas of every strategy"),
    "unknown format": ([*SMALL, "--format", "xml"], "unknown format `xml`"),
    "more heads": (
        ["compare", "gpt2", "megatron@model=16", "dp@data=16"],
        "megatron@model=16: heads `h` (12)",
    ),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_message_and_nothing_else(arguments: list[str], words: str) -> None:
    assert words in refused(run_command(*arguments))
