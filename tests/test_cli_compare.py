"""`einscale compare` as a user meets it: the tables at several widths, files, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import csv_tables, refused, run_command

GOLDEN = Path(__file__).parent / "golden"
SMALL = ["compare", "gpt2", "megatron", "megatron-sp", "--mesh", "data=2,model=4", "--seq", "256"]
SMALL += ["--batch", "4", "--forward"]
MESHES = ["compare", "llama3-8b", "megatron-sp@data=4,model=8", "megatron-sp@data=2,model=16"]
MESHES += ["fsdp@data=64", "--seq", "2048"]


@pytest.mark.parametrize("width", [100, 160, None])
def test_the_report_reads_as_it_did(width: int | None) -> None:
    outcome = run_command(*SMALL, terminal=width, env={"NO_COLOR": "1"})
    assert outcome.status == 0
    assert outcome.err == ""
    expected = (GOLDEN / f"compare-{width or 'pipe'}.txt").read_text("utf-8")
    assert [line.rstrip() for line in outcome.out.splitlines()] == expected.splitlines()


@pytest.mark.parametrize("width", [100, 160])
@pytest.mark.parametrize("arguments", [SMALL, MESHES, [*MESHES, "--detail"]], ids=["small", "meshes", "detail"])
def test_no_line_is_wider_than_the_terminal(arguments: list[str], width: int) -> None:
    out = run_command(*arguments, terminal=width, env={"NO_COLOR": "1"}).out
    assert max(map(len, out.splitlines())) <= width
    assert "…" not in out


def test_nothing_is_cut_or_coloured_in_a_pipe() -> None:
    out = run_command(*MESHES, env={"COLUMNS": "40"}).out
    assert "…" not in out
    assert "\x1b" not in out
    row = next(line for line in out.splitlines() if line.startswith("block forward: activations attn_in, mlp_in"))
    assert "all-gather over model=8" in row
    assert "all-gather over model=16" in row
    assert "one layer           megatron-sp @data=2,model=16" in out


def test_json_is_complete_and_alone_on_stdout() -> None:
    outcome = run_command(*MESHES, "--json")
    document = json.loads(outcome.out)
    assert outcome.err == ""
    assert [one["label"] for one in document["strategies"]] == MESHES[2:5]
    assert len(document["differences"]) == 2
    for found in document["differences"]:
        assert sum(term["received_bytes"] for term in found["terms"]) == found["change"]["received_bytes"]
    assert document["notes"][1].startswith("the meshes are of different size")


def test_csv_sums_as_the_report_says() -> None:
    rows = csv_tables(*SMALL)
    assert list(rows) == ["differences", "memory", "parts"]
    terms = rows["differences"]
    assert {row["table"] for row in terms} == {"difference_megatron-sp"}
    assert {row["table"] for row in rows["parts"]} == {"embedding", "block", "head", "model"}
    total = next(row for row in terms if row["role"] == "total")
    assert sum(int(row["received_bytes"]) for row in terms if row["role"] != "total") == int(total["received_bytes"])
    model = {row["strategy"]: row for row in rows["parts"] if row["table"] == "model"}
    assert int(model["megatron-sp"]["flops"]) - int(model["megatron"]["flops"]) == int(total["flops"])


def test_forward_alone_trains_nothing() -> None:
    out = run_command(*SMALL).out
    assert "backward" not in out
    assert "saved activations" not in out


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
    assert "head forward: einsum logits" in outcome.out  # the vocabulary is not divided
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
    "unknown format": ([*SMALL, "--format", "xml"], "unknown format `xml`"),
    "more heads": (
        ["compare", "gpt2", "megatron@model=16", "dp@data=16"],
        "megatron@model=16: heads `h` (12)",
    ),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_message_and_nothing_else(arguments: list[str], words: str) -> None:
    assert words in refused(run_command(*arguments))
