"""Descriptions that can be read but look wrong: each usual mistake is told, and what is merely unusual is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from einscale.hardware import doubts, list_systems, load_system

BASE = 'base = "h100"\n'


def found(folder: Path, text: str) -> dict[str, str]:
    path = folder / "mine.toml"
    path.write_text(text, "utf-8")
    return {doubt.key: doubt.message for doubt in doubts(load_system(path))}


@pytest.mark.parametrize("name", [name for name, _ in list_systems()])
def test_nothing_is_wrong_with_ours(name: str) -> None:
    assert doubts(load_system(name)) == ()


NVLINK, IB = "levels.nvlink.bandwidth", "levels.ib.bandwidth"
MISTAKES = [
    (f"[{NVLINK}]\nvalue = 900", NVLINK, "900 GB/s one way is 2 times the 450 of h100: both directions added?"),
    (f"[{NVLINK}]\nvalue = 225", NVLINK, "225 GB/s one way is 0.5 times the 450 of h100: halved already?"),
    (f'[{IB}]\nvalue = 400\nunit = "GB/s"', IB, "400 GB/s one way is 8 times the 50 of h100: bits for bytes"),
    (f'[{IB}]\nvalue = 50\nunit = "Gb/s"', IB, "6.25 GB/s one way is 0.125 times the 50 of h100: bytes for bits?"),
    ("[chip.peaks.bf16]\nvalue = 1979", "chip.peaks.bf16", "1979 TFLOP/s dense is 2 times the 989 of h100"),
    ("[chip.peaks.bf16]\nvalue = 494.5", "chip.peaks.bf16", "is 0.5 times the 989 of h100: halved already?"),
    ("[chip.peaks.fp8]\nvalue = 3958", "chip.peaks.fp8", "write sparsity = '2:4'"),
    ('[chip.memory]\nvalue = 80\nunit = "GiB"', "chip.memory", "80 GiB, where h100 states 80 GB: a GiB is 7 % more"),
    ('[chip.memory_bandwidth]\nvalue = 3350\nunit = "GiB/s"', "chip.memory_bandwidth", "GB/s for GiB/s?"),
    ('[chip.memory_bandwidth]\nvalue = 3350\nunit = "Gb/s"', "chip.memory_bandwidth", "0.125 times the 3350 of h100"),
    ('[chip.memory]\nvalue = 80\nunit = "MB"', "chip.memory", "80 MB is unlike any accelerator's"),
    ("[chip.peaks.fp32]\nvalue = 989", "chip.peaks.fp32", "989 TFLOP/s is no less than bf16's 989"),
    ('[chip.peaks.bf16]\nvalue = 989\nunit = "PFLOP/s"', "chip.peaks.bf16", "elsewhere 100 to 2000"),
    (
        f'[{NVLINK}]\nvalue = 450\nattainable = {{ value = 900, source = "us" }}',
        NVLINK,
        "measured 900 is more than the datasheet's 450",
    ),
    (
        f'[{NVLINK}]\nvalue = 450\nattainable = {{ value = 45, source = "us" }}',
        NVLINK,
        "measured 45 is less than a third of the datasheet's 450",
    ),
    (f'[{NVLINK}]\nvalue = 45\nunit = "TB/s"', NVLINK, "is more than its memory has, 3350 GB/s"),
    (f'[{IB}]\nvalue = 500\nunit = "GB/s"', IB, "more than the 450 GB/s of nvlink before it"),
    ("[levels.nvlink.launch]\nvalue = 6.6\nunit = 's'", "levels.nvlink.launch", "6600 ms is long: mind us and ms"),
    ("[levels.nvlink.hop]\nvalue = 6e-4\nunit = 'ns'", "levels.nvlink.hop", "is short: mind ns and us"),
    ("[levels.nvlink]\ndomain = 1", "levels.nvlink.domain", "joins one device"),
    (
        "[chip.host_bandwidth]\nvalue = 4\nunit = 'TB/s'\ndirection = 'one-way'",
        "chip.host_bandwidth",
        "4000 GB/s is no less than the chip's own memory has",
    ),
    (
        "[chip.host_bandwidth]\nvalue = 128",
        "chip.host_bandwidth",
        "128 GB/s one way is 2 times the 63 of h100: both dir",
    ),
    (
        "[chip.host_bandwidth]\nvalue = 504",
        "chip.host_bandwidth",
        "504 GB/s one way is 8 times the 63 of h100: bits for",
    ),
    ("[chip.host_bandwidth]\nvalue = 63\nunit = 'Gb/s'", "chip.host_bandwidth", "0.125 times the 63 of h100"),
    (
        "[chip.host_bandwidth]\nvalue = 63\nunit = 'MB/s'",
        "chip.host_bandwidth",
        "0.063 GB/s is unlike any link to a host",
    ),
    (
        "[chip.host_bandwidth]\nvalue = 63\nattainable = { value = 5, source = 'us' }",
        "chip.host_bandwidth",
        "measured 5 is less than a third of the datasheet's 63",
    ),
    ("[chip.power]\nvalue = 5600", "chip.power", "5600 W is 8 times the 700 of h100: a node of 8 for one device?"),
    ("[chip.power]\nvalue = 1400", "chip.power", "1400 W is 2 times the 700 of h100: two GPUs of a superchip"),
    ("[chip.power]\nvalue = 700\nunit = 'kW'", "chip.power", "700000 W is 1000 times the 700 of h100: W for kW?"),
    ("[chip.power]\nvalue = 10.2\nunit = 'kW'", "chip.power", "10200 W is unlike any accelerator's: one device's"),
    (
        "[chip.power]\nvalue = 30",
        "chip.power",
        "989 TFLOP/s in bf16 at 30 W is 33 TFLOP/s a watt, elsewhere 0.2 to 2.3",
    ),
    (
        "[chip.power]\nvalue = 700\nattainable = { value = 0.7, source = 'us' }",
        "chip.power",
        "measured 0.7 is less than a third of the datasheet's 700",
    ),
]


@pytest.mark.parametrize(("text", "key", "words"), MISTAKES, ids=[words for _, _, words in MISTAKES])
def test_a_mistake_is_told(tmp_path: Path, text: str, key: str, words: str) -> None:
    told = found(tmp_path, BASE + text)
    assert words in told.get(key, ""), told


OWN = """
[chip.peaks.fp16]
value = 100
unit = "TFLOP/s"
sparsity = "{sparsity}"
[chip.peaks.bf16]
value = 50
unit = "TFLOP/s"
sparsity = "dense"
[chip.peaks.fp8]
value = 100
unit = "TFLOP/s"
sparsity = "dense"
[chip.memory]
value = 33
unit = "GB"
[chip.memory_bandwidth]
value = 700
unit = "GB/s"
[levels.mesh]
kind = "torus"
shape = [4, 4]
bandwidth = {{ value = 10, unit = "GB/s", direction = "one-way" }}
launch = {{ value = 1, unit = "us" }}
hop = {{ value = 1, unit = "us" }}
"""


def test_siblings_are_compared_where_no_chip_is_known(tmp_path: Path) -> None:
    told = found(tmp_path, OWN.format(sparsity="dense"))
    assert told["chip.peaks.fp16"].startswith("100 TFLOP/s dense is 2 times bf16's 50 TFLOP/s, twice what is usual")
    assert told["levels.mesh.wrap_multiple"] == "is missing, so that no dim of the torus ever closes a ring"
    assert set(told) == {"chip.peaks.fp16", "levels.mesh.wrap_multiple"}
    assert set(found(tmp_path, OWN.format(sparsity="2:4"))) == {"levels.mesh.wrap_multiple"}


@pytest.mark.parametrize(
    "text",
    [
        f"[{IB}]\nvalue = 200",  # networks between nodes come in every speed
        f"[{NVLINK}]\nvalue = 450\nattainable = {{ value = 340, source = 'us' }}",
        f'[{NVLINK}]\nvalue = 900\ndirection = "two-way"',
        '[chip.peaks.bf16]\nvalue = 1979\nsparsity = "2:4"',
        "[chip.memory]\nvalue = 96",
        "[levels.nvlink]\ndomain = 16",
        "[chip.power]\nvalue = 350",  # a lower limit
        "[chip.host_bandwidth]\nvalue = 31.5",  # an older host
        '[chip.host_bandwidth]\nvalue = 126\ndirection = "two-way"',
    ],
)
def test_what_is_merely_different_is_not(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, BASE + text) == {}
