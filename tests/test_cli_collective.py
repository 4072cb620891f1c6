"""`einscale collective`, and what `einscale hardware` says beyond a list: rooflines, and files read critically."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import read_csv, refused, run_command

LINE = "collective all-reduce --bytes 1GiB --axes model --mesh data=8,model=8 --hardware h100"
LINES = [
    LINE,
    "collective all-gather --mesh x=4,y=4 --hardware tpu-v5e",
    "collective all-gather --mesh data=8,model=8",
    "collective all-to-all -b 1 --mesh x=512,y=16 --hardware tpu-v5p",
    "collective permute --mesh x=8 --hardware mi300x",
    "collective all-reduce --mesh x=1",
]
HARDWARE = ["hardware", "hardware l4", "hardware tpu-v7x", "hardware --check mi250x"]


@pytest.mark.parametrize("line", [*LINES, *HARDWARE])
@pytest.mark.parametrize("columns", [80, 160])
def test_terminals_are_not_exceeded(line: str, columns: int) -> None:
    outcome = run_command(line, terminal=columns, env={"NO_COLOR": "1"})
    assert (outcome.status, outcome.err) == (0, "")
    assert max(map(len, outcome.out.splitlines())) <= columns
    assert "…" not in outcome.out


@pytest.mark.parametrize("line", [*LINES, *HARDWARE])
def test_every_form(line: str, tmp_path: Path) -> None:
    document = json.loads(run_command(f"{line} --json").out)
    assert document["schema_version"] == 1
    piped = run_command(line).out
    assert "\x1b" not in piped
    assert run_command(f"{line} --format md").out.startswith(("## ", "| "))
    target = tmp_path / "answer.csv"
    assert run_command(f"{line} -o {target}").err == f"wrote {target}\n"
    text = target.read_text("utf-8")
    assert not text or read_csv(text)
    assert text.startswith("table,section,role,level," if text else "")


def test_the_list_has_one_line_for_each_system() -> None:
    lines = run_command("hardware", terminal=80, env={"NO_COLOR": "1"}).out.splitlines()
    assert " ".join(lines[2].split()) == "a100-40gb bf16 312 40 1,555 nvlink 300 (of 8), ib 25"
    table = lines[2 : lines.index("")]
    assert len(table) == len(json.loads(run_command("hardware --json").out)["systems"])


def test_the_numbers_of_a_collective() -> None:
    document = json.loads(run_command(LINE + " --json").out)
    assert document["inputs"]["whole_bytes"] == 2**30
    assert (document["devices"], document["groups"]) == (8, 8)
    assert document["received_bytes"] == 2 * 2**30 * 7 // 8
    expected = 6.6e-6 + 14 * 0.6e-6 + 2 * 2**30 * 7 / 8 / 370e9
    assert document["seconds"] == pytest.approx(expected)
    assert document["latency_share"] == pytest.approx(15e-6 / expected)
    assert document["even_bytes"] == pytest.approx(15e-6 * 370e9 / 1.75)
    assert [size["whole_bytes"] for size in document["sizes"]] == [2**power for power in range(10, 35, 2)]
    assert document["sizes"][10]["seconds"] == document["seconds"]
    fastest = document["sizes"][0]
    assert (fastest["fastest"], fastest["fastest_seconds"] < fastest["seconds"]) == ("switch one-shot", True)


def test_the_formula_has_its_operands_filled_in() -> None:
    out = run_command(LINE).out
    assert "2V(n-1)/(n W) = 2 × 1 GiB × 7/8 / 370 GB/s = 5.08 ms; latency 14 × 600 ns + 6.6 µs = 15 µs" in out
    assert "a device holds V = 1 GiB, a sum of its own, before and 1 GiB after, and receives 1.75 GiB" in out
    assert "8 groups at once, each of 8 on nvlink (switch)" in out
    assert "bandwidth-bound from V = 3.02 MiB on" in out
    assert "V = 1.07 GB" in run_command(LINE + " --units si").out


def test_rows_over_sizes_agree_with_themselves() -> None:
    rows = read_csv(run_command(LINE + " --format csv --table sizes").out)
    assert [int(row["whole_bytes"]) for row in rows][:2] == [1024, 4096]
    for row in rows:
        seconds = float(row["seconds"])
        assert float(row["received_bytes_per_second"]) == pytest.approx(int(row["received_bytes"]) / seconds)
        assert float(row["fastest_seconds"]) <= seconds


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("collective all-reduec --mesh x=4", "no collective is called `all-reduec`\n  did you mean `all-reduce`?"),
        ("collective --mesh x=4", "missing argument `KIND`"),
        ("collective all-reduce", "`einscale collective` needs a mesh"),
        ("collective all-reduce --mesh x=4 --bytes 0", "the number of bytes must be at least 1"),
        ("collective all-reduce --mesh x=4 --bytes 1e30", "the number of bytes is absurd"),
        ("collective all-reduce --mesh x=4 --bytes many", "the number of bytes is not a number"),
        ("collective all-reduce --mesh data=4 --axes dat", "did you mean `data`?"),
        ("collective all-reduce --mesh x=4 --hardware h1000", "did you mean `h100`?"),
        ("collective all-reduce --mesh x=4 --byte 3", "did you mean `--bytes`?"),
        ("hardware --check", "--check needs something to check"),
        ("hardware --check nowhere.toml", "nowhere.toml does not exist"),
    ],
)
def test_what_cannot_be_understood(line: str, message: str) -> None:
    assert message in refused(run_command(line))


def test_hardware_shows_a_roofline() -> None:
    document = json.loads(run_command("hardware h100 --json").out)
    rates = {rate["dtype"]: rate for rate in document["roofline"]["rates"]}
    assert rates["bf16"]["datasheet_ridge_flops_per_byte"] == pytest.approx(989 / 3.35)
    assert [(cube["size"], cube["bound"]) for cube in rates["bf16"]["matmuls"]] == [
        (4096, "compute"),
        (8192, "compute"),
    ]
    channels = {channel["name"]: channel for channel in document["roofline"]["channels"]}
    assert channels["hbm"]["memory_seconds"] == pytest.approx(80 / 3350)
    assert channels["ib"]["flops_per_byte"]["bf16"] == pytest.approx(794.5e12 / 50e9)
    out = run_command("hardware h100").out
    assert "roofline of one device" in out
    assert "[1]" in out


def test_a_file_read_critically(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('base = "h100"\n[levels.nvlink.bandwidth]\nvalue = 900\n', "utf-8")
    outcome = run_command("hardware", "--check", str(mine))
    assert outcome.status == 0
    assert "both directions added? then write direction = 'two-way'" in outcome.out
    assert "read without a fault, but one figure may be a mistake" in outcome.out
    assert "levels.nvlink.bandwidth  900" in outcome.out
    document = json.loads(run_command("hardware", str(mine), "--check", "--json").out)
    assert [warning["key"] for warning in document["warnings"]] == ["levels.nvlink.bandwidth"]
    mine.write_text('base = "h100"\n[levels.nvlink.bandwidth]\nvalue = 900\ndirection = "two-way"\n', "utf-8")
    assert "no figure looks wrong" in run_command("hardware", "--check", str(mine)).out
    mine.write_text('base = "h100"\n[levels.nvlnk]\n', "utf-8")
    assert "mine.toml: `levels.nvlnk.kind` is missing" in refused(run_command("hardware", "--check", str(mine)))
