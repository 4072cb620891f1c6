"""`einscale plan` and `einscale explain` as a user meets them: what is printed, where, in which form."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import refused, run_command

SPEC = "B/x D, D/x F -> B/x F"
GATHER = ["plan", SPEC, "--mesh", "x=4", "--size", "B=4096,D=1024,F=1024"]
REDUCE = ["B/d S F/t, F/t D -> B/d S D", "--mesh", "d=4,t=8", "-s", "B=64,S=4096", "-s", "D=8192,F=28672"]

GOLDEN = Path(__file__).parent / "golden"
MEGATRON = ["B/data S F/model, F/model D -> B/data S D", "--mesh", "data=2,model=3", "-s", "B=5,S=4096,F=12288,D=4096"]
GOLDENS: dict[str, tuple[list[str], int | None]] = {
    "plan-80.txt": (["plan", *MEGATRON, "--objective", "bytes"], 80),
    "explain-100.txt": (["explain", *MEGATRON, "--objective", "bytes"], 100),
    "explain-pipe.txt": (["explain", *MEGATRON, "--objective", "bytes"], None),
    "plan.md": (["plan", *MEGATRON, "--objective", "bytes", "--format", "md"], None),
    "plan.csv": (["plan", *MEGATRON, "--objective", "bytes", "--format", "csv"], None),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_reports_read_as_they_did(name: str) -> None:
    arguments, terminal = GOLDENS[name]
    outcome = run_command(*arguments, terminal=terminal, env={"NO_COLOR": "1"})
    assert outcome.status == 0
    assert outcome.err == ""
    assert [line.rstrip() for line in outcome.out.splitlines()] == (GOLDEN / name).read_text("utf-8").splitlines()


def test_the_answer_is_on_stdout_and_nothing_on_stderr() -> None:
    outcome = run_command(*GATHER)
    assert outcome.status == 0
    assert outcome.err == ""
    assert outcome.out.startswith(SPEC + "\n")
    for words in ("mesh x=4, 4 devices of h100", "all-gather rhs over x", "D/x F -> D F", "because ", "per device"):
        assert words in outcome.out
    for words in ("lower bounds: placement", "time ", "memory ", "1 FLOP = half a multiply-add (2mnk)", "GiB"):
        assert words in outcome.out


def test_every_collective_has_its_facts() -> None:
    line = next(line for line in run_command("explain", *REDUCE).out.splitlines() if line.startswith("1. "))
    assert " over t" in line
    assert re.search(r"[\d.]+ MiB +[\d.]+ [µm]s ", line)
    assert "1.00" in line
    assert "nvlink" in line


def test_explain_says_why_how_much_what_else_and_how_to_avoid_it() -> None:
    out = run_command("explain", *REDUCE).out
    for words in (
        "because ",
        "bytes: ",
        "time: ",
        "FLOPs: 2 x ",
        "how to avoid what moves",
        "other ways to divide the work",
    ):
        assert words in out
    assert "want out as" in out
    assert " bytes received, with n = " in out


def test_nothing_is_cut_or_coloured_in_a_pipe() -> None:
    for arguments in (GATHER, ["explain", *REDUCE]):
        out = run_command(*arguments, env={"COLUMNS": "40"}).out
        assert "…" not in out
        assert "\x1b" not in out
        assert max(map(len, out.splitlines())) > 100


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_a_terminal_is_filled_and_not_exceeded(columns: int) -> None:
    outcome = run_command("explain", *REDUCE, terminal=columns, env={"NO_COLOR": "1"})
    assert outcome.status == 0
    assert max(map(len, outcome.out.splitlines())) <= max(columns, 78)
    piped = run_command("explain", *REDUCE).out
    assert sorted("".join(outcome.out.split()).replace("─", "")) == sorted("".join(piped.split()).replace("─", ""))


def test_colour_is_for_terminals_that_want_it() -> None:
    assert "\x1b[" in run_command(*GATHER, terminal=100).out
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in run_command(*GATHER, terminal=100, env=env).out
    assert "\x1b" not in run_command(*GATHER, env={"PY_COLORS": "1", "FORCE_COLOR": ""}).out


def test_json_has_exact_ints_and_resolved_inputs() -> None:
    outcome = run_command(*GATHER, "--json")
    document = json.loads(outcome.out)
    assert outcome.err == ""
    assert document["schema_version"] == 1
    assert document["command"] == "plan"
    assert document["inputs"]["spec"] == SPEC
    assert document["inputs"]["mesh"] == [{"name": "x", "size": 4, "level": None}]
    assert document["inputs"]["sizes"] == {"B": 4096, "D": 1024, "F": 1024}
    assert document["inputs"]["hardware"] == "h100"
    assert document["bytes_received"] == 3 * 256 * 1024 * 2
    assert document["flops"] == 2 * 1024 * 1024 * 1024
    assert document["conventions"]["units"] == {"flops": "FLOP", "bytes": "byte", "seconds": "second"}
    (step, _) = document["steps"]
    assert step["kind"] == "all-gather"
    assert step["axes"] == ["x"]
    assert step["bytes_received_total"] == 4 * document["bytes_received"]
    assert step["cause"]
    assert document["lower_bound"]["placement"] == {"bytes": document["bytes_received"], "ratio": 1.0}
    assert document["seconds"] == pytest.approx(sum(step["seconds"] for step in document["steps"]))


def test_json_of_explain_has_formulas_alternatives_and_what_to_change() -> None:
    document = json.loads(run_command("explain", *REDUCE, "--json").out)
    assert len(document["formulas"]) == len(document["steps"])
    assert document["alternatives"][0]["steps"]
    assert {change["tensor"] for change in document["avoid"]} >= {"out"}


def test_json_is_the_same_with_the_flag_and_the_format() -> None:
    assert run_command(*GATHER, "--json").out == run_command(*GATHER, "--format", "json").out


def test_huge_counts_stay_exact() -> None:
    sizes = "B=1000000007,D=1000000009,F=1000000021"
    document = json.loads(run_command("plan", "B D, D F -> B F", "--mesh", "x=1", "-s", sizes, "--json").out)
    assert document["flops"] == 2 * 1000000007 * 1000000009 * 1000000021


def test_csv_and_markdown_come_from_the_same_rows() -> None:
    rows = list(csv.DictReader(io.StringIO(run_command(*GATHER, "--format", "csv").out)))
    assert [row["step"] for row in rows] == ["1. all-gather rhs over x", "2. einsum lhs, rhs -> out", "per device"]
    assert int(rows[0]["received_bytes"]) == 3 * 256 * 1024 * 2
    assert int(rows[2]["flops"]) == 2 * 1024**3
    assert rows[2]["role"] == "total"
    markdown = run_command(*GATHER, "--format", "md").out
    assert "| 1. all-gather rhs over x |  | 1.5 MiB |" in markdown


def test_units() -> None:
    assert "1.57 MB" in run_command(*GATHER, "--units", "si").out
    assert "1 GB = 10^9 bytes" in run_command(*GATHER, "--units", "si").out


@pytest.mark.parametrize(("name", "start"), [("a.json", "{\n"), ("a.csv", "table,"), ("a.md", "## "), ("a.txt", "B/x")])
def test_a_file_is_written_in_the_form_its_name_says(tmp_path: Path, name: str, start: str) -> None:
    target = tmp_path / name
    outcome = run_command(*GATHER, "-o", str(target))
    assert outcome.status == 0
    assert outcome.out == ""
    assert outcome.err == f"wrote {target}\n"
    assert target.read_text().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_is_not_touched_by_a_request_that_fails(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("before")
    refused(run_command("plan", SPEC, "--mesh", "x=4", "-o", str(target)))
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_format_wins_over_the_extension(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    run_command(*GATHER, "--json", "-o", str(target))
    assert json.loads(target.read_text())["command"] == "plan"


def test_the_spec_may_come_from_stdin_or_a_file(tmp_path: Path) -> None:
    expected = run_command(*GATHER).out
    file = tmp_path / "spec.txt"
    file.write_text(SPEC + "\n")
    rest = GATHER[2:]
    assert run_command("plan", "-", *rest, stdin=SPEC + "\n").out == expected
    assert run_command("plan", f"@{file}", *rest).out == expected


def test_verify_says_what_was_run() -> None:
    outcome = run_command(*GATHER, "--verify")
    assert "verified on 4 emulated devices (x=4)" in outcome.out
    document = json.loads(run_command(*GATHER, "--verify", "--json").out)
    assert document["verification"]["mesh"] == "x=4"


def test_sizes_in_the_spec_need_not_be_repeated() -> None:
    written = run_command("plan", "B=4096/x D=1024, D/x F=1024 -> B/x F", "--mesh", "x=4", "--json")
    beside = run_command(*GATHER, "--json")
    assert json.loads(written.out)["bytes_received"] == json.loads(beside.out)["bytes_received"]


def test_other_notations_are_echoed_in_ours() -> None:
    numpy = run_command("plan", "bd,df->bf", "--shard", "b=x,f=y", "--mesh", "x=2,y=2", "-s", "b=4,d=4,f=4")
    assert numpy.out.startswith("b/x d, d f/y -> b/x f/y\n")
    book = run_command("plan", "A[I_X, J] * B[J, K] -> C[I_X, K]", "--mesh", "X=2", "-s", "I=4,J=4,K=4")
    assert book.out.startswith("A: I/X J, B: J K -> C: I/X K\n")


def test_open_outputs_are_filled_in() -> None:
    for output in ("", " -> B F ?", " -> B/x/? F/?"):
        out = run_command("plan", f"B/x D, D F/y{output}", "--mesh", "x=2,y=2", "-s", "B=64,D=64,F=64").out
        assert out.startswith("B/x D, D F/y -> B/x F/y\n"), output


def test_uneven_shards_are_said_to_be_padded() -> None:
    arguments = ["plan", "B/x D, D F -> B/x F", "--mesh", "x=4", "-s", "B=10,D=8,F=8"]
    assert "padding: B=10 over x is stored as 12 (17 % padding)" in run_command(*arguments).out
    document = json.loads(run_command(*arguments, "--json").out)
    assert document["padding"] == [
        {"index": "B", "axes": ["x"], "size": 10, "stored": 12, "waste": pytest.approx(1 / 6)}
    ]


def test_repeated_work_is_said_to_be_repeated() -> None:
    out = run_command("plan", "B D, D F -> B F", "--mesh", "x=4", "-s", "B=8,D=8,F=8").out
    assert "redundant work: together the devices spend 4 times the FLOPs of doing it once" in out


def test_an_ascii_stream_gets_ascii() -> None:
    outcome = run_command(*GATHER, encoding="ascii")
    assert outcome.status == 0
    assert " us" in outcome.out
    assert "\\" not in outcome.out


COMMAND = [sys.executable, "-m", "einscale"]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, *GATHER], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_full_disk_is_one_message() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, *GATHER], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: cannot read or write: No space left on device\n"


def test_python_dash_m_and_the_version() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    from einscale import __version__

    assert done.stdout == f"einscale {__version__}\n"
