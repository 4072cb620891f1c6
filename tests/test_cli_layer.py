"""`einscale layer` as a user meets it: the report at several widths, files, exit statuses, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import read_csv, refused, run_command

GOLDEN = Path(__file__).parent / "golden"
SMALL = ["layer", "gpt2", "--mesh", "data=2,model=4", "--strategy", "megatron-sp", "--seq", "256", "--batch", "4"]


READS = {
    "100": (100, []),
    "160": (160, []),
    "pipe": (None, []),
    "80": (80, []),
    "detail-100": (100, ["--detail"]),
    "block-100": (100, ["--only", "block"]),
}


@pytest.mark.parametrize(("width", "more"), READS.values(), ids=READS)
def test_the_report_reads_as_it_did(width: int | None, more: list[str], request: pytest.FixtureRequest) -> None:
    name = f"layer-{request.node.callspec.id}.txt"
    outcome = run_command(*SMALL, *more, terminal=width, env={"NO_COLOR": "1"})
    assert outcome.status == 0
    assert outcome.err == ""
    expected = (GOLDEN / name).read_text("utf-8")
    assert [line.rstrip() for line in outcome.out.splitlines()] == expected.splitlines()


def test_no_line_is_wider_than_the_terminal() -> None:
    for width in (80, 100, 160):
        tables = ([], ["--detail"], ["--only", "block"], ["--only", "layers"]) if width > 80 else ([],)
        for more in (*tables, ["--forward"], ["--free"]):
            out = run_command(*SMALL, *more, terminal=width, env={"NO_COLOR": "1"}).out
            assert max(map(len, out.splitlines())) <= width


@pytest.mark.parametrize(
    "question",
    [
        SMALL[1:],
        "llama3-70b --mesh data=8,model=8 --strategy megatron-sp",
        "deepseek-v3 --mesh pipe=4,data=8,expert=8 --strategy fsdp",
        "mixtral-8x7b --mesh data=4,model=2,expert=2 --strategy fsdp+tp --recompute full --offload-activations 0.5",
        "gpt2 --mesh data=2,model=8 --strategy megatron --forward",
    ],
)
def test_the_answer_fits_one_screen(question: str | list[str]) -> None:
    words = question.split() if isinstance(question, str) else question
    lines = run_command("layer", *words, terminal=100, env={"NO_COLOR": "1"}).out.splitlines()
    assert len(lines) <= 40
    assert "a microbatch takes " in lines[1]
    assert any(line.startswith(("fits: ", "does not fit: ")) for line in lines[:5])


def test_one_kind_of_layer_is_shown_by_itself() -> None:
    out = run_command(*SMALL, "--only", "block").out
    assert "scores  einsum (fused)" in out
    assert "logits" not in out
    assert "wq: bf16[d n/model k]" in run_command(*SMALL, "--only", "block_held").out
    message = refused(run_command(*SMALL, "--only", "blok"))
    assert message == "the answer has no part `blok`\n  did you mean `block`?\n"
    assert "its parts are: layers, embedding, block, head, " in refused(run_command(*SMALL, "--only", "xyz"))


def test_nothing_is_cut_or_coloured_in_a_pipe() -> None:
    out = run_command(*SMALL, "--detail", env={"COLUMNS": "40"}).out
    assert "…" not in out
    assert "\x1b" not in out
    assert "reduce-scatter model  attn_out_linear" in out


def test_json_is_complete_and_alone_on_stdout() -> None:
    outcome = run_command(*SMALL, "--json")
    document = json.loads(outcome.out)
    assert outcome.err == ""
    assert document["inputs"]["strategy"] == "megatron-sp"
    assert document["totals"]["flops"] > 10**10
    assert {kind["kind"] for kind in document["kinds"]} == {"embedding", "block", "head"}


def test_csv_has_one_row_a_statement_and_a_collective() -> None:
    rows = [row for row in read_csv(run_command(*SMALL, "--format", "csv").out) if row["table"] == "block"]
    assert {row["section"] for row in rows} == {"forward", "backward", "update, once a step", ""}
    document = json.loads(run_command(*SMALL, "--json").out)
    block = next(kind for kind in document["kinds"] if kind["kind"] == "block")
    moving = [c for s in block["statements"] for c in s["collectives"] if c["kind"] not in ("slice", "mask")]
    assert sum(row["role"] == "collective" for row in rows) == len(moving)
    own = [row for row in rows if row["role"] == "" and row["statement"] != "gradients added up"]
    assert len(own) == len(block["statements"])
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
    "dtype of old": (["layer", "gpt2", "--dtype", "bf16"], "`--precision` says it: bf16, fp8, fp32"),
    "unknown precision": (["layer", "gpt2", "--precision", "bf17"], "did you mean `bf16`?"),
    "schedule without stages": (["layer", "gpt2", "--schedule", "1f1b"], "a schedule is given, but the mesh"),
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
