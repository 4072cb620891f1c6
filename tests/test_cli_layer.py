"""`einscale layer` as a user meets it: the report at several widths, files, exit statuses, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import read_csv, refused, run_command

GOLDEN = Path(__file__).parent / "golden"
SMALL = ["layer", "gpt2", "--mesh", "data=2,model=4", "--strategy", "megatron-sp", "--seq", "256", "--batch", "4"]


@pytest.mark.parametrize("width", [100, 160, None])
def test_the_report_reads_as_it_did(width: int | None) -> None:
    name = f"layer-{width or 'pipe'}.txt"
    outcome = run_command(*SMALL, terminal=width, env={"NO_COLOR": "1"})
    assert outcome.status == 0
    assert outcome.err == ""
    expected = (GOLDEN / name).read_text("utf-8")
    assert [line.rstrip() for line in outcome.out.splitlines()] == expected.splitlines()


def test_no_line_is_wider_than_the_terminal() -> None:
    for width in (100, 160):
        out = run_command(*SMALL, terminal=width, env={"NO_COLOR": "1"}).out
        assert max(map(len, out.splitlines())) <= width


def test_nothing_is_cut_or_coloured_in_a_pipe() -> None:
    out = run_command(*SMALL, env={"COLUMNS": "40"}).out
    assert "…" not in out
    assert "\x1b" not in out
    assert "reduce-scatter model  attn_projected" in out or "reduce-scatter model" in out


def test_json_is_complete_and_alone_on_stdout() -> None:
    outcome = run_command(*SMALL, "--json")
    document = json.loads(outcome.out)
    assert outcome.err == ""
    assert document["inputs"]["strategy"] == "megatron-sp"
    assert document["totals"]["flops"] > 10**10
    assert {kind["kind"] for kind in document["kinds"]} == {"embedding", "block", "head"}


def test_csv_has_one_row_a_statement_and_a_collective() -> None:
    rows = [row for row in read_csv(run_command(*SMALL, "--format", "csv").out) if row["table"] == "block"]
    assert {row["section"] for row in rows} == {"forward", "backward", ""}
    document = json.loads(run_command(*SMALL, "--json").out)
    block = next(kind for kind in document["kinds"] if kind["kind"] == "block")
    moving = [c for s in block["statements"] for c in s["collectives"] if c["kind"] not in ("slice", "mask")]
    assert sum(row["role"] == "collective" for row in rows) == len(moving)
    assert sum(row["role"] == "" for row in rows) == len(block["statements"])
    assert sum(int(row["received_bytes"]) for row in rows if row["role"] == "collective") == sum(
        c["received_bytes"] for c in moving
    )


def test_detail_lists_what_is_held() -> None:
    out = run_command(*SMALL, "--detail").out
    assert "block: held by one layer" in out
    assert "reads attn_in: b/data s d, wq: d n/model k" in out
    assert "parameter" in out


def test_a_file_is_written_by_its_extension(tmp_path: Path) -> None:
    for name, start in (("r.md", "## gpt2"), ("r.csv", "table,section,role"), ("r.json", "{"), ("r.txt", "gpt2: ")):
        outcome = run_command(*SMALL, "-o", str(tmp_path / name))
        assert outcome.status == 0
        assert outcome.out == ""
        assert (tmp_path / name).read_text("utf-8").startswith(start)


def test_forward_alone_has_no_backward_and_no_optimizer() -> None:
    out = run_command(*SMALL, "--forward").out
    assert "backward" not in out
    assert "optimizer" not in out
    assert "fits: " in out


def test_strict_answers_no_where_something_unexpected_runs(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('expect = ["all-reduce data gradients"]\n[compute]\nb = "data"\nh = "model"\n')
    outcome = run_command("layer", "gpt2", "--mesh", "data=2,model=4", "--strategy", str(own), "--strict", "--forward")
    assert outcome.status == 1
    assert outcome.out.startswith("gpt2: ")
    assert outcome.err.startswith("own does not expect:\n  block: all-reduce over model of ")
    assert run_command(*SMALL, "--strict").status == 0


def test_strict_needs_a_strategy_that_says_what_it_expects(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[compute]\nb = "data"\n')
    assert refused(run_command("layer", "gpt2", "--mesh", "data=2", "--strategy", str(own), "--strict")) == (
        "strategy `own` does not say which collectives it expects\n"
        '  expected a list such as `expect = ["all-reduce model activations"]` in its file, or no --strict\n'
    )


REFUSED = {
    "unknown model": (["layer", "llama3-70"], "unknown model `llama3-70`"),
    "unknown strategy": (["layer", "gpt2", "--strategy", "fsdb"], "did you mean `fsdp`?"),
    "unknown hardware": (["layer", "gpt2", "--hardware", "h10"], "h100"),
    "unknown dtype": (["layer", "gpt2", "--dtype", "bf17"], "unknown dtype `bf17`"),
    "dtype the chip lacks": (["layer", "gpt2", "--dtype", "int4"], "in `int4` throughout"),
    "mesh axis without a role": (["layer", "gpt2", "--mesh", "data=2,modle=2", "--strategy", "megatron"], "modle"),
    "mesh twice": (["layer", "gpt2", "--mesh", "data=2,data=2"], "mesh axis `data` is given twice"),
    "absurd mesh": (["layer", "gpt2", "--mesh", "data=1000000000000000000000000000000"], "absurd number of devices"),
    "zero mesh": (["layer", "gpt2", "--mesh", "data=0"], "must have at least 1 device"),
    "negative batch": (["layer", "gpt2", "--batch", "-4"], "the batch must be at least 1"),
    "batch that does not divide": (["layer", "gpt2", "--mesh", "data=8", "--batch", "12"], "the nearest that does is"),
    "absurd sequence": (["layer", "llama3-8b", "--seq", "1e30"], "the sequence is absurd"),
    "sequence of words": (["layer", "gpt2", "--seq", "long"], "the sequence is not a number"),
    "more devices than heads": (["layer", "gpt2", "--mesh", "model=16", "--strategy", "megatron"], "heads `h` (12)"),
    "unknown format": (["layer", "gpt2", "--format", "xml"], "unknown format `xml`"),
    "misspelt flag": (["layer", "gpt2", "--strategie", "dp"], "--strategy"),
    "no model": (["layer"], "MODEL"),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_message_and_nothing_else(arguments: list[str], words: str) -> None:
    message = refused(run_command(*arguments))
    assert words in message
    assert "Traceback" not in message


def test_unusable_config_files_are_told_apart(tmp_path: Path) -> None:
    good = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "vocab_size": 96,
    }
    good |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    cases = {
        "empty.json": (b"", "empty"),
        "truncated.json": (b'{"model_type": "lla', "not JSON"),
        "list.json": (b"[1, 2]", "list"),
        "latin.json": (b'{"model_type": "\xff"}', "UTF-8"),
        "lacks.json": (json.dumps({k: v for k, v in good.items() if k != "hidden_size"}).encode(), "hidden_size"),
        "typed.json": (json.dumps({**good, "hidden_size": "64"}).encode(), "hidden_size"),
        "zero.json": (json.dumps({**good, "num_hidden_layers": 0}).encode(), "num_hidden_layers"),
        "unknown.json": (json.dumps({**good, "model_type": "lama"}).encode(), "llama"),
    }
    for name, (data, words) in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert words in refused(run_command("layer", str(path))), name
    path = tmp_path / "config.json"
    path.write_text(json.dumps(good))
    assert run_command("layer", str(path), "--seq", "64").status == 0
    assert "directory" in refused(run_command("layer", f"{tmp_path}/"))
    assert "none.json" in refused(run_command("layer", str(tmp_path / "none.json")))


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    assert "has 200000000 bytes: too large" in refused(run_command("layer", str(path)))
