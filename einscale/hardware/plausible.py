"""What looks wrong in a description that can be read: figures off by a factor that mistakes of units explain."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from einscale.hardware.load import domain_size, list_systems, load_system
from einscale.hardware.values import Chip, Level, Rate, System

CLOSE = 0.03
"""Two statements of one figure differ by no more: datasheets round."""

FEWEST_DEVICES, MOST_RIDGE, LEAST_RIDGE = 2, 5000, 5
LEAST_POWER, MOST_POWER = 10, 5000
LEAST_EFFICIENCY, MOST_EFFICIENCY = 0.05e12, 20e12
"""Watts of one accelerator; bf16 FLOPs a joule, 0.23e12 to 2.25e12 for the chips einscale knows."""


class Doubt(Struct, frozen=True):
    """A figure that may be a mistake: the key in the file, and what is odd about it in one sentence."""

    key: str
    message: str


def doubts(system: System) -> tuple[Doubt, ...]:
    """Figures of a system that look like a mistake, one doubt each; none stops einscale from using the system.

    Figures are compared with each other (an fp8 peak four times bf16's is a sparse one), with the systems einscale
    knows that have the same chip (twice their link counts both directions), and with what any machine has.

    >>> from einscale.hardware import load_system
    >>> doubts(load_system("h100"))
    ()
    """
    alike = tuple(other for other in _known() if _same_chip(system.chip, other.chip))
    found: dict[str, Doubt] = {}
    for doubt in _against(system, alike):
        found.setdefault(doubt.key, doubt)
    for check in (_peaks, _memory, _host_and_power, _measured, _levels, _scales):
        for doubt in check(system):
            found.setdefault(doubt.key, doubt)
    return tuple(found.values())


def _known() -> tuple[System, ...]:
    return tuple(load_system(name) for name, _ in list_systems())


def _near(first: float, second: float) -> bool:
    return abs(first - second) <= CLOSE * max(abs(first), abs(second))


def _same_chip(one: Chip, other: Chip) -> bool:
    """Whether two chips are most likely the same: one name, or the same memory, or a peak in common."""
    memory = _near(one.memory.value, other.memory.value)
    memory = memory and _near(one.memory_bandwidth.datasheet, other.memory_bandwidth.datasheet)
    rates = {rate.dtype: rate.datasheet for rate in other.peaks if rate.dtype != "fp32"}
    return (
        one.name.casefold() == other.name.casefold()
        or memory
        or any(_near(rate.datasheet, rates.get(rate.dtype, 0)) for rate in one.peaks)
    )


SPARSE = "if the datasheet counts 2:4 sparsity, write sparsity = '2:4'"
RATIOS = {
    ("fp16", "bf16"): 1,
    ("tf32", "bf16"): 0.5,
    ("fp8", "bf16"): 2,
    ("mxfp8", "fp8"): 1,
    ("fp6", "fp8"): 1,
    ("int8", "bf16"): 2,
    ("fp4", "fp8"): 2,
    ("nvfp4", "fp4"): 1,
    ("mxfp4", "fp4"): 1,
}
"""Dense FLOP/s of one element type over another's, on the chips that tell them apart."""


def _peaks(system: System) -> Iterator[Doubt]:
    """Peaks that are twice what their siblings say, and fp32 as fast as bf16."""
    rates = {rate.dtype: rate for rate in system.chip.peaks}
    rates.setdefault("bf16", rates.get("fp16", system.chip.peaks[0]))
    for (one, other), ratio in RATIOS.items():
        if one in rates and other in rates and rates[one] is not rates[other]:
            yield from _twice(rates[one], rates[other], ratio)
    true, usual = rates.get("fp32"), rates["bf16"]
    if true is not None and true is not usual and true.datasheet >= usual.datasheet:
        yield Doubt(
            "chip.peaks.fp32",
            f"{_tflops(true)} is no less than {usual.dtype}'s {_tflops(usual)}: fp32 means true fp32 products, tf32 is "
            "a dtype of its own",
        )


def _twice(rate: Rate, sibling: Rate, ratio: float) -> Iterator[Doubt]:
    """A peak that is twice, or half, of what it should be against another of the chip."""
    found = rate.datasheet / sibling.datasheet / ratio
    if _near(found, 2):
        high, low = rate, sibling
    elif _near(found, 0.5) and ratio == 1:
        high, low = sibling, rate
    else:
        return
    yield Doubt(
        f"chip.peaks.{high.dtype}",
        f"{_tflops(high)} dense is {high.datasheet / low.datasheet:.3g} times {low.dtype}'s {_tflops(low)}, twice what "
        f"is usual: {SPARSE}",
    )


def _tflops(rate: Rate) -> str:
    return f"{rate.datasheet / 1e12:g} TFLOP/s"


def _memory(system: System) -> Iterator[Doubt]:
    """A memory of a size or speed that no accelerator has."""
    chip = system.chip
    if not 4e9 <= chip.memory_bytes <= 2e12:
        yield Doubt(
            "chip.memory", f"{chip.memory.value:g} {chip.memory.unit} is unlike any accelerator's: mind MB, GB and TB"
        )
    rate = chip.memory_bandwidth.datasheet
    seconds = chip.memory_bytes / rate
    if not 4e-3 <= seconds <= 2:
        yield Doubt(
            "chip.memory_bandwidth",
            f"reading all of the memory once takes {seconds:.3g} s at {rate / 1e9:g} GB/s, elsewhere 0.02 to 0.1 s: "
            "mind bits and bytes",
        )
    usual = max(chip.peaks, key=lambda peak: peak.datasheet)
    ridge = usual.datasheet / rate
    if not LEAST_RIDGE <= ridge <= MOST_RIDGE:
        yield Doubt(
            f"chip.peaks.{usual.dtype}",
            f"{_tflops(usual)} against {rate / 1e9:g} GB/s is {ridge:.3g} FLOPs a byte, elsewhere 100 to 2000: "
            "mind GFLOP/s, TFLOP/s and PFLOP/s",
        )


def _host_and_power(system: System) -> Iterator[Doubt]:
    """A link to the host as fast as the memory or as slow as a disk; a power that no accelerator draws."""
    chip = system.chip
    host, power = chip.host_bandwidth, chip.power
    if host is not None:
        shown = f"{host.datasheet / 1e9:g} GB/s"
        if host.datasheet >= chip.memory_bandwidth.datasheet:
            yield Doubt("chip.host_bandwidth", f"{shown} is no less than the chip's own memory has")
        elif host.datasheet < 1e9:
            yield Doubt("chip.host_bandwidth", f"{shown} is unlike any link to a host: mind bits, bytes, M and G")
    if power is None:
        return
    shown = f"{power.datasheet:g} W"
    usual = next((peak for peak in chip.peaks if peak.dtype in ("bf16", "fp16")), chip.peaks[0])
    efficiency = usual.datasheet / power.datasheet
    if not LEAST_POWER <= power.datasheet <= MOST_POWER:
        yield Doubt(
            "chip.power", f"{shown} is unlike any accelerator's: one device's, not a node's or a rack's; mind W and kW"
        )
    elif not LEAST_EFFICIENCY <= efficiency <= MOST_EFFICIENCY:
        yield Doubt(
            "chip.power",
            f"{_tflops(usual)} in {usual.dtype} at {shown} is {efficiency / 1e12:.3g} TFLOP/s a watt, elsewhere 0.2 to"
            " 2.3: one device's power, not a node's, beside one device's FLOP/s",
        )


def _measured(system: System) -> Iterator[Doubt]:
    """Measured figures above the datasheet's, or far below."""
    chip = system.chip
    figures = [(f"chip.peaks.{rate.dtype}", rate.value, rate.attainable) for rate in chip.peaks]
    figures.append(("chip.memory_bandwidth", chip.memory_bandwidth.value, chip.memory_bandwidth.attainable))
    for key in ("host_bandwidth", "power"):
        figure = getattr(chip, key)
        if figure is not None:
            figures.append((f"chip.{key}", figure.value, figure.attainable))
    figures += [
        (f"levels.{one.name}.bandwidth", one.bandwidth.value, one.bandwidth.attainable) for one in system.levels
    ]
    for key, value, attainable in figures:
        if attainable is None:
            continue
        if attainable.value > value:
            yield Doubt(key, f"measured {attainable.value:g} is more than the datasheet's {value:g}: the same unit?")
        elif attainable.value < 0.3 * value:
            yield Doubt(key, f"measured {attainable.value:g} is less than a third of the datasheet's {value:g}")


def _levels(system: System) -> Iterator[Doubt]:
    """Levels that do not grow slower, outrun the memory, join nobody or never close a ring."""
    memory = system.chip.memory_bandwidth.datasheet
    before: Level | None = None
    for level in system.levels:
        key, rate = f"levels.{level.name}", level.bandwidth.datasheet * level.links
        shown = f"{rate / 1e9:g} GB/s for a device"
        if rate > memory:
            yield Doubt(f"{key}.bandwidth", f"{shown} is more than its memory has, {memory / 1e9:g} GB/s")
        if before is not None and rate > before.bandwidth.datasheet * before.links:
            yield Doubt(
                f"{key}.bandwidth",
                f"{shown} is more than the {before.bandwidth.datasheet * before.links / 1e9:g} GB/s of {before.name} "
                "before it: levels stand fast to slow, and a figure is per device (a switch) or per link, not per node",
            )
        size = domain_size(level)
        if size is not None and size < FEWEST_DEVICES:
            yield Doubt(f"{key}.domain", "joins one device: leave the level out")
        if level.kind == "torus" and level.wrap_multiple is None:
            yield Doubt(f"{key}.wrap_multiple", "is missing, so that no dim of the torus ever closes a ring")
        before = level


def _scales(system: System) -> Iterator[Doubt]:
    """Bandwidths and latencies that no network has."""
    for level in system.levels:
        rate = level.bandwidth.datasheet
        if not 1e8 <= rate <= 1e13:
            yield Doubt(
                f"levels.{level.name}.bandwidth", f"{rate / 1e9:g} GB/s is unlike any link: mind bits, bytes, M and G"
            )
        for name, latency in (("launch", level.launch), ("hop", level.hop)):
            if latency.used > 1e-3:
                yield Doubt(f"levels.{level.name}.{name}", f"{latency.used * 1e3:g} ms is long: mind us and ms")
            elif 0 < latency.used < 1e-9:
                yield Doubt(f"levels.{level.name}.{name}", f"{latency.used * 1e9:g} ns is short: mind ns and us")


BITS_OR_NODE = "bits for bytes, or a node of 8 for one device?"
FACTORS: dict[float, str] = {
    2: "both directions added? then write direction = 'two-way'",
    0.5: "halved already? then it is one-way",
    8: BITS_OR_NODE,
    0.125: "bytes for bits?",
    16: f"both directions added, and {BITS_OR_NODE}",
}
"""What a link that is so many times another's most likely is."""

TWO_DEVICES = "two GPUs of a superchip or of a card for one device?"
POWER_FACTORS: dict[float, str] = {2: TWO_DEVICES, 8: "a node of 8 for one device?", 1000: "W for kW?"}
"""What a power that is so many times another's most likely is; half is a lower limit, which is no mistake."""


def _against(system: System, alike: tuple[System, ...]) -> Iterator[Doubt]:
    """Figures that differ from those of known systems with the same chip by a factor that a mistake explains."""
    chip = system.chip
    for rate in chip.peaks:
        others = [(other, peak.datasheet) for other in alike for peak in other.chip.peaks if peak.dtype == rate.dtype]
        near = _odd(rate.datasheet, others, (2, 0.5))
        if near is not None:
            name, value, factor = near
            reason = SPARSE if factor > 1 else "halved already? then it is dense"
            yield Doubt(
                f"chip.peaks.{rate.dtype}",
                f"{_tflops(rate)} dense is {factor:g} times the {value / 1e12:g} of {name}: {reason}",
            )
    yield from _bytes_against(chip, alike)
    yield from _host_and_power_against(chip, alike)
    for level in system.levels:
        others = [
            (other, one.bandwidth.datasheet)
            for other in alike
            for one in other.levels
            if one.name.casefold() == level.name.casefold()
        ]
        # networks between nodes come in every speed: a slower one than usual is no mistake
        factors = tuple(factor for factor in FACTORS if factor != 0.5 or level.domain is not None)
        near = _odd(level.bandwidth.datasheet, others, factors)
        if near is not None:
            name, value, factor = near
            yield Doubt(
                f"levels.{level.name}.bandwidth",
                f"{level.bandwidth.datasheet / 1e9:g} GB/s one way is {factor:g} times the {value / 1e9:g} of {name}: "
                f"{FACTORS[factor]}",
            )


def _bytes_against(chip: Chip, alike: tuple[System, ...]) -> Iterator[Doubt]:
    """A memory whose number is a known one, in the other kind of unit."""
    memory = chip.memory
    units = {other.chip.memory.unit: other.name for other in alike if other.chip.memory.value == memory.value}
    if memory.unit not in units:
        for unit, name in units.items():
            if {unit, memory.unit} == {"GB", "GiB"}:
                message = f"{memory.value:g} {memory.unit}, where {name} states {memory.value:g} {unit}"
                yield Doubt("chip.memory", f"{message}: a GiB is 7 % more than a GB")
    rates = [(other, other.chip.memory_bandwidth.datasheet) for other in alike]
    near = _odd(chip.memory_bandwidth.datasheet, rates, (8, 0.125, 2**30 / 1e9))
    if near is not None:
        name, value, factor = near
        reason = "GB/s for GiB/s?" if factor < 2 and factor > 1 else "bits for bytes?"
        rate = chip.memory_bandwidth.datasheet / 1e9
        yield Doubt(
            "chip.memory_bandwidth", f"{rate:g} GB/s is {factor:.3g} times the {value / 1e9:g} of {name}: {reason}"
        )


def _host_and_power_against(chip: Chip, alike: tuple[System, ...]) -> Iterator[Doubt]:
    """A link to the host that counts both directions, or is in bits; the power of more than one device."""
    for key, unit, scale, factors in (
        ("host_bandwidth", "GB/s one way", 1e9, {factor: FACTORS[factor] for factor in (2, 8, 0.125)}),
        ("power", "W", 1, POWER_FACTORS),
    ):
        figure = getattr(chip, key)
        if figure is None:
            continue
        known = [(other, getattr(other.chip, key)) for other in alike]
        others = [(other, one.datasheet) for other, one in known if one is not None]
        # a data sheet's 128 GB/s of PCIe is 2.03 times the 63 that are left after its encoding
        near = _odd(figure.datasheet, others, tuple(factors), CLOSE)
        if near is not None:
            name, value, factor = near
            yield Doubt(
                f"chip.{key}",
                f"{figure.datasheet / scale:g} {unit} is {factor:g} times the {value / scale:g} of {name}: "
                f"{factors[factor]}",
            )


def _odd(
    value: float, others: list[tuple[System, float]], factors: tuple[float, ...], slack: float = 0.01
) -> tuple[str, float, float] | None:
    """(system, its figure, factor) if a value agrees with no other, but is one of the factors of one."""
    if any(_near(value, other) for _, other in others):
        return None
    for factor in factors:
        for system, other in others:
            if abs(value / other - factor) <= slack * factor:
                return system.name, other, factor
    return None
