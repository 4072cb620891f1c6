from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from einscale.errors import HardwareError
from einscale.hardware import (
    RUNS_AS,
    System,
    describe,
    energy,
    flop_rate,
    ideal,
    list_systems,
    load_chip,
    load_system,
    not_stated,
    peak,
)
from einscale.hardware.load import LARGEST_FILE, SYSTEMS

NAMES = [name for name, _ in list_systems()]
FULL = (SYSTEMS / "h100.toml").read_text("utf-8")
MINE = """
[chip]
name = "Abacus"
[chip.peaks.bfloat16]
value = 4
unit = "PFLOP/s"
sparsity = "2:4"
[chip.memory]
value = 2
unit = "GiB"
[chip.memory_bandwidth]
value = 1
unit = "TB/s"
[levels.wire]
kind = "ring"
domain = 4
bandwidth = { value = 100, unit = "Gb/s", direction = "two-way", source = "a label on the box" }
launch = { value = 0, unit = "us" }
hop = { value = 500, unit = "ns" }
"""


def written(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def fault(path: Path | str) -> str:
    with pytest.raises(HardwareError) as caught:
        load_system(path)
    return str(caught.value)


def test_required_systems_are_there() -> None:
    wanted = {
        "h100",
        "a100-80gb",
        "a100-40gb",
        "h200",
        "b200",
        "b300",
        "gb200-nvl72",
        "gb300-nvl72",
        "mi250x",
        "mi300x",
        "l4",
        "a10g",
        "tpu-v3",
        "tpu-v4",
        "tpu-v5e",
        "tpu-v5p",
        "tpu-v6e",
        "tpu-v7x",
    }
    assert wanted <= set(NAMES)


CHIPS = tomllib.loads((Path(__file__).parent / "data" / "chips.toml").read_text("utf-8"))
MEASURED_ON = {
    "a100-80gb": "a100-80gb",
    "b200": "b200",
    "gb200-nvl72": "gb200-nvl72",
    "gb300-nvl72": "gb300-nvl72",
    "h100-80gb": "h100",
    "h100-96gb-500w": "h100-96gb-500w",
    "h200": "h200",
    "tpu-v4": "tpu-v4",
    "tpu-v5e": "tpu-v5e",
}
"""Names of the hardware that published training steps were measured on, and our systems."""

OTHERWISE = {
    (
        "TPU-v3",
        "bf16",
    ): "123 by Google's page, four matrix units of 128x128 at 940 MHz; the collection has the 140 of a book",
    ("TPU-v5p", "memory_bandwidth"): "2800 by the book that the other figures are from; Google has printed 2765",
    ("A10G", "link"): "PCIe 4.0 x16 is 31.5 GB/s after its encoding, 32 before",
    ("L4", "link"): "PCIe 4.0 x16 is 31.5 GB/s after its encoding; the collection has 31",
    ("L4", "fp8"): "485 sparse of the data sheet, halved; the collection has 242",
    ("L4", "int8"): "485 sparse of the data sheet, halved; the collection has 242",
    ("B300-SXM", "int8"): "Blackwell Ultra gave int8 up: 0.15 POPS; the collection has the B200's",
}
"""Figures that are not those of the collected ones, and why."""


@pytest.mark.parametrize("name", CHIPS)
def test_collected_figures_are_ours(name: str) -> None:
    chip, system = CHIPS[name], load_system(name).ideal()
    links = chip.get("ici") or chip.get("scaleup") or {}
    per_link = "per_link_oneway_gbps" if "ici" in chip else "total_oneway_gbps"
    collected = {key: value for key, value in chip["tflops"].items() if isinstance(value, (int, float))}
    collected["fp32"] = collected.pop("fp32_vector", None)
    ours: dict[str, float] = {rate.dtype: rate.datasheet / 1e12 for rate in system.chip.peaks}
    collected |= {"memory": chip["hbm_gb"], "memory_bandwidth": chip["hbm_gbps"], "link": links.get(per_link)}
    level = system.levels[0]
    ours["memory"], ours["memory_bandwidth"] = system.chip.memory.value, system.chip.memory_bandwidth.used / 1e9
    ours["link"] = level.bandwidth.used / 1e9 * (1 if "ici" in chip else level.links)
    checked = 0
    for key, value in collected.items():
        if value is not None and not isinstance(value, str):
            differs = ours[key] != pytest.approx(value)
            assert differs == ((name, key) in OTHERWISE), f"{key}: {ours[key]:g} for {value:g}"
            checked += 1
    assert checked >= 2
    if "torus_dims" in links:
        assert len(level.shape) == links["torus_dims"]
    if "pod" in links:
        assert list(level.shape) == links["pod"]
    if links.get("domain", 1) > 1:
        assert level.domain == links["domain"]


@pytest.mark.parametrize(("name", "system"), MEASURED_ON.items())
def test_hardware_of_measured_steps_resolves(name: str, system: str) -> None:
    assert load_system(name).name == system


def test_names_may_be_spelt_as_their_makers_do() -> None:
    assert load_system("TPU-v7x (Ironwood)").name == load_system("tpu v7x").name == "tpu-v7x"
    assert load_system("A100-SXM-80GB").name == load_system("a100_sxm4_80gb").name == "a100-80gb"


def test_links_of_a_device() -> None:
    links = {name: [level.links for level in load_system(name).levels] for name in ("h100", "mi300x", "tpu-v5p")}
    assert links == {"h100": [1, 1], "mi300x": [7, 1], "tpu-v5p": [6, 1]}


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_source_and_a_date(name: str) -> None:
    system = load_system(name)
    keys = {source.key for source in system.sources}
    for fact in describe(system):
        assert fact.date in ("2026-11-22", "2026-11-23"), fact
        assert "," in fact.source, f"{fact.key}: the source must be spelled out, not {fact.source}"
    for level in system.levels:
        assert {level.bandwidth.source, level.launch.source, level.hop.source} <= keys
    assert {rate.source for rate in system.chip.peaks} <= keys
    for figure in (system.chip.host_bandwidth, system.chip.power):
        cited = (figure, figure.attainable) if figure is not None else ()
        assert {one.source for one in cited if one is not None} <= keys


@pytest.mark.parametrize("name", NAMES)
def test_names_and_aliases_in_any_case(name: str) -> None:
    system = load_system(name)
    assert system.name == name
    assert load_system(name.upper()) == system
    for alias in system.aliases:
        assert load_system(alias) == system
    assert load_system(f" {name.replace('-', '_')} ") == system


def test_no_alias_stands_for_two_systems() -> None:
    aliases = [alias for name in NAMES for alias in (name, *load_system(name).aliases)]
    assert len(aliases) == len(set(aliases))


@pytest.mark.parametrize(
    ("name", "dtype", "tflops", "gigabytes", "memory", "links"),
    [
        ("h100", "bf16", 989, 80, 3350, (450, 50)),
        ("a100-80gb", "bf16", 312, 80, 2000, (300, 25)),
        ("a100-40gb", "tf32", 156, 40, 1555, (300, 25)),
        ("h200", "fp8", 1979, 141, 4800, (450, 50)),
        ("b200", "fp4", 9000, 180, 8000, (900, 50)),
        ("gb200-nvl72", "bf16", 2500, 186, 8000, (900, 50)),
        ("tpu-v4", "bf16", 275, 32, 1200, (45, 6.25)),
        ("tpu-v5e", "int8", 394, 16, 810, (45, 3.125)),
        ("tpu-v5p", "bf16", 459, 96, 2800, (90, 6.25)),
        ("tpu-v6e", "bf16", 918, 32, 1600, (90, 12.5)),
    ],
)
def test_datasheet_figures(
    name: str, dtype: str, tflops: float, gigabytes: int, memory: float, links: tuple[float, ...]
) -> None:
    system = load_system(name).ideal()
    assert flop_rate(system.chip, dtype) == pytest.approx(tflops * 1e12)
    assert system.chip.memory_bytes == gigabytes * 10**9
    assert system.chip.memory_bandwidth.used == pytest.approx(memory * 1e9)
    assert [level.bandwidth.used / 1e9 for level in system.levels] == pytest.approx(links)


def test_pricing_uses_measured_figures_and_ideal_the_datasheet() -> None:
    system = load_system("h100")
    assert flop_rate(system.chip, "bf16") == 794.5e12
    assert system.levels[0].bandwidth.used == 370e9
    assert flop_rate(system.ideal().chip, "bf16") == 989e12
    assert system.ideal().levels[0].bandwidth.used == 450e9
    assert ideal(system.ideal()) == system.ideal() != system
    fact = next(fact for fact in describe(system) if fact.key == "levels.nvlink.bandwidth")
    assert (fact.value, fact.measured, fact.used, fact.qualifier) == (450, 370, 370, "one-way")
    assert "measured: How To Scale Your Model" in fact.source


def test_fp32_is_true_fp32() -> None:
    assert flop_rate(load_chip("h100"), "float32") == 67e12
    assert flop_rate(load_chip("tpu-v5e"), "fp32") == pytest.approx(197e12 / 6, rel=1e-3)


BLACKWELL = ("b200", "b300", "gb200-nvl72", "gb300-nvl72")


@pytest.mark.parametrize("name", BLACKWELL)
def test_blackwell_states_block_scaled_formats_at_the_rate_of_their_elements(name: str) -> None:
    chip = load_chip(name)
    assert flop_rate(chip, "mxfp8") == flop_rate(chip, "fp8")
    sheet = load_system(name).ideal().chip
    assert flop_rate(sheet, "fp6") == flop_rate(sheet, "fp8") == 2 * flop_rate(sheet, "bf16")
    for dtype in ("mxfp8", "fp6", "nvfp4", "mxfp4"):
        assert peak(chip, dtype).dtype == dtype


def test_a_format_of_its_own_comes_before_what_it_runs_as() -> None:
    assert flop_rate(load_chip("b300"), "nvfp4") == 15000e12
    assert flop_rate(load_chip("b300"), "mxfp4") == flop_rate(load_chip("b300"), "fp4") == 12600e12


def test_tiles_of_fp8_run_on_any_fp8_tensor_cores(tmp_path: Path) -> None:
    for name in ("h100", "b200", "mi300x", "l4", "tpu-v7x"):
        assert peak(load_chip(name), "fp8b") == peak(load_chip(name), "fp8")
    assert not set(RUNS_AS) & set(RUNS_AS.values()), "a format runs as another in one step"
    mine = load_chip(written(tmp_path, MINE.replace("bfloat16", "fp4")))
    assert peak(mine, "nvfp4").dtype == peak(mine, "mxfp4").dtype == "fp4"


@pytest.mark.parametrize(
    ("name", "dtype", "words"),
    [
        ("tpu-v5e", "f8e4m3fn", "TPU-v5e has no matrix FLOP/s figure for fp8\n  it has: bf16, int8, fp32"),
        ("tpu-v5e", "fp8b", "TPU-v5e has no matrix FLOP/s figure for fp8b\n  it has: bf16, int8, fp32"),
        ("h100", "mxfp8", "for mxfp8\n  it has: bf16, fp16, tf32, fp32, fp8, int8; fp8b runs as fp8"),
        ("h200", "nvfp4", "for nvfp4\n  it has: bf16, fp16, tf32, fp32, fp8, int8; fp8b runs as fp8"),
        ("mi300x", "mxfp8", "for mxfp8\n  it has: bf16, fp16, tf32, fp32, fp8, int8; fp8b runs as fp8"),
        ("mi250x", "fp8", "for fp8\n  it has: bf16, fp16, fp32, int8"),
        ("tpu-v7x", "mxfp8", "for mxfp8\n  it has: bf16, fp8, fp32; fp8b runs as fp8"),
    ],
)
def test_a_dtype_the_chip_lacks_lists_those_it_has(name: str, dtype: str, words: str) -> None:
    with pytest.raises(HardwareError) as caught:
        flop_rate(load_chip(name), dtype)
    assert str(caught.value).endswith(words)


WITHOUT_POWER = {"tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu-v7x"}
"""Google states none of these."""


@pytest.mark.parametrize("name", NAMES)
def test_every_system_states_its_host_and_all_but_late_tpus_their_power(name: str) -> None:
    system = load_system(name)
    assert system.chip.host_bandwidth is not None
    assert not_stated(system) == (("chip.power",) if name in WITHOUT_POWER else ())
    assert (energy(system, 1, 1.0) is None) == (name in WITHOUT_POWER)


@pytest.mark.parametrize(
    ("name", "watts", "host"),
    [
        ("v100", 300, 15.75),
        ("a100", 400, 31.5),
        ("h100", 700, 63),
        ("h200", 700, 63),
        ("b200", 1000, 63),
        ("gb200", 1200, 225),
        ("gb300", 1400, 225),
        ("mi300x", 750, 63),
        ("l4", 72, 31.5),
        ("tpu-v4", 192, 16),
    ],
)
def test_power_and_host_of_the_datasheet(name: str, watts: float, host: float) -> None:
    chip = load_system(name).ideal().chip
    assert chip.power is not None
    assert chip.host_bandwidth is not None
    assert chip.power.used == watts
    assert chip.host_bandwidth.used == pytest.approx(host * 1e9)


def test_energy_takes_the_measured_power() -> None:
    system = load_system("tpu-v4")
    assert energy(system, 4096, 3600) == 170 * 4096 * 3600
    assert energy(system.ideal(), 4096, 3600) == 192 * 4096 * 3600


def test_power_of_ones_own(tmp_path: Path) -> None:
    text = 'base = "tpu-v5p"\n[chip.power]\nvalue = 0.35\nunit = "kW"\n'
    mine = load_system(written(tmp_path, text))
    assert not_stated(mine) == ()
    assert energy(mine, 2, 10) == pytest.approx(7000)
    fact = next(fact for fact in describe(mine) if fact.key == "chip.power")
    assert (fact.value, fact.unit, fact.used, fact.source) == (0.35, "kW", 0.35, "mine.toml")


def test_systems_are_values() -> None:
    assert hash(load_system("h100")) == hash(load_system("H100-80GB"))
    with pytest.raises(AttributeError):
        load_system("h100").name = "h101"  # type: ignore[misc]


def test_one_line_of_facts() -> None:
    lines = dict(list_systems())
    assert lines["h100"] == "bf16 989 TFLOP/s, 80 GB at 3350 GB/s, nvlink 450 GB/s (8 devices), ib 50 GB/s"


def test_a_full_description(tmp_path: Path) -> None:
    system = load_system(written(tmp_path, MINE))
    assert isinstance(system, System)
    assert system.name == "mine"
    assert flop_rate(system.chip, "bf16") == 2e15
    assert system.chip.memory_bytes == 2 * 2**30
    assert system.levels[0].bandwidth.used == pytest.approx(100e9 / 8 / 2)
    assert system.levels[0].hop.used == pytest.approx(0.5e-6)
    facts = {fact.key: fact for fact in describe(system)}
    assert facts["chip.memory"].source == "mine.toml"
    assert facts["levels.wire.bandwidth"].source == "a label on the box"
    assert facts["levels.wire.bandwidth"].used == 50
    assert load_system(str(tmp_path / "mine.toml")) == system


def test_overrides_of_a_base(tmp_path: Path) -> None:
    text = """
    base = "H100-80GB"
    [chip.memory]
    value = 96
    [chip.peaks.bf16]
    value = 1000
    [levels.ib.bandwidth]
    value = 25
    unit = "GB/s"
    [levels.nvlink]
    domain = 4
    in_network_reduction = true
    """
    mine, base = load_system(written(tmp_path, text)), load_system("h100")
    assert mine.chip.memory_bytes == 96 * 10**9
    assert flop_rate(mine.chip, "bf16") == 1000e12  # the base's measured figure belonged to the base's value
    assert flop_rate(mine.chip, "fp8") == flop_rate(base.chip, "fp8")
    assert mine.levels[1].bandwidth.used == 25e9
    assert mine.levels[0].domain == 4
    assert mine.levels[0].in_network_reduction
    assert mine.levels[0].bandwidth == base.levels[0].bandwidth
    sources = {fact.key: fact.source for fact in describe(mine)}
    assert sources["chip.memory"] == "mine.toml"
    assert sources["chip.memory_bandwidth"].startswith("Stas Bekman")
    assert mine.title == "mine.toml, changed from h100"


def test_a_new_level_is_the_slowest(tmp_path: Path) -> None:
    text = """
    base = "h100"
    [levels.ib]
    domain = 256
    [levels.wan]
    kind = "switch"
    bandwidth = { value = 1, unit = "GB/s", direction = "one-way" }
    launch = { value = 0, unit = "us" }
    hop = { value = 1, unit = "ms" }
    """
    system = load_system(written(tmp_path, text))
    assert [level.name for level in system.levels] == ["nvlink", "ib", "wan"]


NEW_LEVEL = """
base = "h100"
[levels."nv link"]
kind = "switch"
bandwidth = { value = 1, unit = "GB/s", direction = "one-way" }
launch = { value = 1, unit = "us" }
hop = { value = 1, unit = "us" }
"""

MALFORMED = [
    (FULL.replace("value = 989", 'value = "989"'), ["`chip.peaks.bf16.value` is text", "expected a number"]),
    (FULL.replace("value = 80", "value = true"), ["`chip.memory.value` is true or false", "expected a number"]),
    (FULL.replace('unit = "GB"\n', ""), ["`chip.memory.unit` is missing", "expected one of B, MB, GB"]),
    (
        FULL.replace('direction = "one-way"\n', "", 1),
        ["`chip.host_bandwidth.direction` is missing", "expected one of one-way, two-way"],
    ),
    (FULL.replace("[chip.memory]", "[chip.memroy]"), ["`chip.memroy` is not a key", "did you mean `memory`?"]),
    (FULL.replace("domain = 8", "domian = 8"), ["`levels.nvlink.domian` is not a key", "did you mean `domain`?"]),
    ('bass = "h100"\n', ["`bass` is not a key", "did you mean `base`?"]),
    (FULL.replace('unit = "W"', 'unit = "Watt"'), ["`chip.power.unit` is `Watt`", "expected one of W, kW"]),
    (FULL.replace("value = 700", "value = 0"), ["`chip.power.value` is out of range", "a positive number"]),
    (FULL.replace("[chip.power]", "[chip.powr]"), ["`chip.powr` is not a key", "did you mean `power`?"]),
    ('base = "tpu-v5p"\n[chip]\npower = 350\n', ["`chip.power` is a whole number", "expected a table"]),
    (FULL.replace('"GB/s"', '"GBps"'), ["`chip.memory_bandwidth.unit` is `GBps`", "did you mean `GB/s`?"]),
    (FULL.replace('kind = "switch"', 'kind = "swich"'), ["`levels.nvlink.kind` is `swich`", "did you mean `switch`?"]),
    (FULL.replace('"dense"', '"sparse"'), ["`chip.peaks.bf16.sparsity` is `sparse`", "expected one of dense, 2:4"]),
    (FULL.replace("= 450", "= -450"), ["`levels.nvlink.bandwidth.value` is out of range", "a positive number"]),
    (FULL.replace("= 450", "= 0"), ["`levels.nvlink.bandwidth.value` is out of range", "a positive number"]),
    (FULL.replace("= 450", "= inf"), ["`levels.nvlink.bandwidth.value` is out of range", "a number < 1e+30"]),
    (FULL.replace("= 450", "= nan"), ["`levels.nvlink.bandwidth.value` is out of range"]),
    (FULL.replace("= 450", "= 1" + "0" * 400), ["`levels.nvlink.bandwidth.value`", "expected a smaller number"]),
    (FULL.replace("= 450", "= 1" + "0" * 5000), ["is not TOML"]),
    (FULL.replace("value = 0.6", "value = -0.6"), ["`levels.nvlink.hop.value`", "expected a number >= 0.0"]),
    (FULL.replace("domain = 8", "domain = 8.5"), ["`levels.nvlink.domain` is a number", "expected a whole number"]),
    (FULL.replace("domain = 8", "domain = 0"), ["`levels.nvlink.domain` is out of range", "a whole number >= 1"]),
    (FULL.replace("domain = 8", "domain = 1" + "0" * 30), ["`levels.nvlink.domain` is out of range"]),
    (FULL.replace("{ value = 370,", "{ valeu = 370,"), ["`levels.nvlink.bandwidth.attainable.valeu`", "`value`?"]),
    (FULL.replace("{ value = 370,", "{ value = 0,"), ["`levels.nvlink.bandwidth.attainable.value`", "positive"]),
    ("name = \n", ["is not TOML: line 1: invalid value", "  name = \n         ^"]),
    ('[chip\nname = "x"', ["is not TOML: line 1: expected ']'", "  [chip\n"]),
    ('name = "a"\nname = "b"\n', ["is not TOML: line 2: cannot overwrite a value"]),
    ("a = " + "[" * 3000, ["is not TOML: nested too deeply"]),
    ("  \n", ["is empty", '`base = "h100"`']),
    (FULL.split("[levels.nvlink]")[0], ["`levels` is missing or empty", "[levels.NAME]"]),
    ('title = "x"\n', ["`chip` is missing", "expected a table [chip]"]),
    (FULL.split("[chip]")[0] + 'chip = "H100"\n', ["is not a key"]),
    ('chip = "H100"\n', ["`chip` is text", "expected a table"]),
    ("[chip]\npeaks = [1]\n", ["`chip.peaks` must be a table"]),
    ('base = "h100"\nlevels = 3\n', ["`levels` must be a table"]),
    ('base = "h100"\n[levels]\nnvlink = 3\n', ["`levels.nvlink` must be a table"]),
    ("[[levels]]\nname = 'x'\n", ["`levels` must be a table"]),
    ('base = "h1000"\n', ["unknown hardware `h1000`", "did you mean `h100`?"]),
    ("base = 5\n", ["`base` must be the name of a system"]),
    ('base = "h100"\n[chip.peaks.bf61]\nvalue = 3\n', ["`chip.peaks.bf61` is not an element type", "`bf16`?"]),
    ('base = "h100"\n[chip]\nmemory = 96\n', ["`chip.memory` is a whole number", "expected a table"]),
    ('base = "h100"\n[levels.nvlink]\nkind = "torus"\n', ["`levels.nvlink.shape` is missing: a torus needs one"]),
    ('base = "h100"\n[levels.nvlink]\nshape = [2, 4]\n', ["`levels.nvlink.shape` is for a torus"]),
    ('base = "tpu-v5e"\n[levels.ici]\ndomain = 8\n', ["`levels.ici.domain` is 8, but the shape holds 256"]),
    ('base = "h100"\n[levels.ib]\ndomain = 12\n', ["`levels.ib.domain` is 12", "levels stand fast to slow"]),
    ('base = "h100"\n[levels.nvlink]\nname = "x"\n', ["`levels.nvlink.name` is given twice"]),
    (NEW_LEVEL, ["`levels.nv link` has a name no mesh can write"]),
    (FULL.replace("aliases = [", "aliases = [3, "), ["`aliases[0]` is a whole number", "expected text"]),
    (FULL.replace("[sources.nccl]\ntitle", "[sources.nccl]\ntitel"), ["`sources.nccl.titel`", "did you mean `title`?"]),
]


@pytest.mark.parametrize(("text", "words"), MALFORMED, ids=[words[0] for _, words in MALFORMED])
def test_malformed_files(tmp_path: Path, text: str, words: list[str]) -> None:
    message = fault(written(tmp_path, text))
    for word in words:
        assert word in message
    assert "$" not in message, "msgspec's own path must not show"


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"name = '\xff\xfe'")
    assert "is not UTF-8 text (byte 8)" in fault(path)


def test_a_huge_file_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.toml"
    with path.open("wb") as file:
        file.truncate(200 * 2**20)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    assert (
        f"is too large for a description of a machine: 209,715,200 bytes\n  expected at most {LARGEST_FILE:,}"
        in fault(path)
    )


def test_what_is_no_file(tmp_path: Path) -> None:
    assert fault(tmp_path).splitlines()[0].endswith("is a directory")
    assert "does not exist" in fault(tmp_path / "none.toml")
    assert "does not exist" in fault("h100.toml")
    assert "embedded null" in fault("a/\0b.toml")
    assert "is not a regular file" in fault("/dev/null")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("h1000", "did you mean `h100`?"),
        ("tpu-v5", "did you mean `tpu-v5"),
        ("a100-90gb", "did you mean `a100-80gb`?"),
        ("rtx4090", "systems: a100-40gb, a100-80gb, a10g"),
        ("", "systems: a100-40gb"),
        ("x" * 100_000, "systems: a100-40gb"),
    ],
)
def test_unknown_names(name: str, hint: str) -> None:
    message = fault(name)
    assert message.startswith("unknown hardware `")
    assert hint in message
    assert len(message) < 700
