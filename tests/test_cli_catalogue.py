"""The commands that list what einscale knows by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import read_csv, refused, run_command

from einscale.cli import COMMANDS
from einscale.program.text import parse_program

COMMAND_LINES = ["hardware", "hardware h100", "strategies", "strategies megatron-sp", "models", "model llama3-8b"]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_tables_are_whole_and_plain(line: str) -> None:
    outcome = run_command(line)
    assert outcome.status == 0
    assert outcome.err == ""
    assert "\x1b" not in outcome.out
    assert "…" not in outcome.out


@pytest.mark.parametrize("line", COMMAND_LINES)
@pytest.mark.parametrize("columns", [80, 100])
def test_terminals_are_not_exceeded(line: str, columns: int) -> None:
    outcome = run_command(line, terminal=columns, env={"NO_COLOR": "1"})
    assert max(map(len, outcome.out.splitlines())) <= columns


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_form(line: str) -> None:
    document = json.loads(run_command(f"{line} --json").out)
    assert document["schema_version"] == 1
    assert run_command(f"{line} --format md").out.count("|") > 10
    rows = read_csv(run_command(f"{line} --format csv").out)
    assert list(rows[0])[:4] == ["table", "section", "role", "level"]


def test_help_lists_every_command_on_whole_lines() -> None:
    out = run_command("--help").out
    for name, (_, summary) in COMMANDS.items():
        assert f"{name} " in out
        assert summary in out
    for name in COMMANDS:
        assert run_command(name, "--help").status == 0


def test_hardware_names_fold_case_and_every_figure_has_a_source() -> None:
    document = json.loads(run_command("hardware H100-80GB --json").out)
    assert document["name"] == "h100"
    assert all(fact["source"] for fact in document["figures"])
    assert "chip.peaks.bf16" in run_command("hardware h100").out


def test_hardware_shows_power_and_host_or_says_that_they_are_not_stated() -> None:
    document = json.loads(run_command("hardware h100 --json").out)
    used = {fact["key"]: (fact["used"], fact["unit"]) for fact in document["figures"]}
    assert used["chip.power"] == (700, "W")
    assert used["chip.host_bandwidth"] == (63, "GB/s")
    assert document["not_stated"] == []
    host = next(channel for channel in document["roofline"]["channels"] if channel["name"] == "host")
    assert host["bytes_per_second"] == 63e9
    shown = run_command("hardware h100").out
    assert "chip.power" in shown
    assert "chip.host_bandwidth" in shown
    assert "not stated" not in shown
    assert json.loads(run_command("hardware tpu-v7x --json").out)["not_stated"] == ["chip.power"]
    assert "not stated: chip.power (no energy is stated)" in run_command("hardware tpu-v7x").out


def test_model_counts() -> None:
    document = json.loads(run_command("model llama3-70b --json").out)
    assert document["params"]["total"] == 70_553_706_496
    assert document["params"]["active"] == document["params"]["total"]
    assert document["params"]["embedding"] == 2 * 128256 * 8192
    assert "70,553,706,496" in run_command("model llama3-70b").out


def test_programs_read_back() -> None:
    text = run_command("program llama3-8b --layer block").out
    assert parse_program(text).name == "block"
    backward = run_command("program llama3-8b --layer block --backward").out
    assert len(backward) > 2 * len(text)
    assert "d_wq" in backward
    assert run_command("program llama3-8b").out.count("program ") >= 3


def test_programs_go_to_files(tmp_path: Path) -> None:
    target = tmp_path / "block.ein"
    assert run_command("program", "gpt2", "--layer", "block", "-o", str(target)).err == f"wrote {target}\n"
    assert parse_program(target.read_text()).name == "block"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hardware h1000", "did you mean `h100`?"),
        ("strategies megatorn", "did you mean `megatron`?"),
        ("model llama3-7b", "did you mean `llama3-70b`?"),
        ("model", "missing argument `MODEL`"),
        ("program gpt2 --layer blok", "gpt2 has no layer `blok`\n  did you mean `block`?"),
        ("models --jsn", "did you mean `--json`?"),
    ],
)
def test_misspelt_names(line: str, message: str) -> None:
    assert message in refused(run_command(line))
