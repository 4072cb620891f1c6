"""Systems as reports and documents: the list, every figure of one with its source, its roofline, what looks wrong."""

from __future__ import annotations

from typing import Any

from einscale.hardware import Chip, Doubt, Level, System, describe, list_systems, load_system, not_stated
from einscale.report.document import head
from einscale.report.table import Cell, Column, Report, Row, Table
from einscale.roofline import CUBES, Roofline, roofline
from einscale.units import format_seconds

SYSTEMS = (
    Column("name", "hardware"),
    Column("dtype", "dtype"),
    Column("flops_per_second", "TFLOP/s", "integer", scale=10**12),
    Column("memory_bytes", "mem, GB", "integer", scale=10**9),
    Column("memory_bytes_per_second", "GB/s", "integer", scale=10**9),
    Column("network", "network, GB/s", wrap=True),
)


def systems_report() -> Report:
    """Every system, one line each."""
    rows = tuple(_system_row(load_system(name)) for name, _ in list_systems())
    return Report(
        (),
        (Table("systems", "", SYSTEMS, rows),),
        (
            "`einscale hardware NAME` shows every figure with its source, and a roofline; --hardware also takes a TOML"
            " file of your own, and `einscale hardware --check FILE` reads one critically",
        ),
        ("datasheet figures of one device: dense FLOP/s, bandwidths one way; 8 x 50 is 8 links of 50",),
    )


def _system_row(system: System) -> Row:
    chip = system.chip
    rate = next((peak for peak in chip.peaks if peak.dtype == "bf16"), chip.peaks[0])
    network = ", ".join(f"{level.name} {_links(level)}{_extent(level)}" for level in system.levels)
    return Row(
        (
            system.name,
            rate.dtype,
            rate.datasheet,
            chip.memory_bytes,
            chip.memory_bandwidth.datasheet,
            network,
        )
    )


def _links(level: Level) -> str:
    each = f"{level.bandwidth.datasheet / 1e9:.4g}"
    return each if level.links == 1 else f"{level.links} x {each}"


def _extent(level: Level) -> str:
    if level.shape:
        return f" ({'x'.join(map(str, level.shape))})"
    return f" (of {level.domain})" if level.domain else ""


def systems_document() -> dict[str, Any]:
    """Every system, one line each."""
    return {**head("systems"), "systems": [{"name": name, "facts": facts} for name, facts in list_systems()]}


FACTS = (
    Column("key", "figure", wrap=True),
    Column("value", "value", "text"),
    Column("unit", "unit"),
    Column("qualifier", "as stated"),
    Column("used", "used", "text"),
    Column("date", "date"),
    Column("source", "source"),
    Column("note", "note", detail=True),
)

SOURCES = (Column("number", "source"), Column("text", "what it is", wrap=True))

CONVENTIONS = (
    "used: what pricing takes, in the same unit: dense, one way, and the measured figure where a source has one",
    "ridge: FLOPs per byte of HBM from which an operation is limited by compute, as used and by the datasheet alone",
    "times: the slower of compute and memory, as used; a matmul reads both operands once and writes its result once",
)


def system_report(system: System) -> Report:
    """Every figure of one system, as stated, as pricing uses it, and who says so; its roofline."""
    line = roofline(system)
    figures, sources = _figures(system)
    return Report(_heading(system), (figures, sources, _rates(line), _channels(line)), (), CONVENTIONS)


def _heading(system: System) -> tuple[str, ...]:
    levels = " < ".join(
        f"{level.name} ({level.kind}{f', {level.domain} devices' if level.domain else ''})" for level in system.levels
    )
    aliases = f"also called {', '.join(system.aliases)}" if system.aliases else ""
    lines = (
        f"{system.name}: {system.title}",
        f"network, fast to slow: {levels}",
        aliases,
        _note(system.chip),
        _gaps(system),
        system.path,
    )
    return tuple(filter(None, lines))


def _note(chip: Chip) -> str:
    return f"{chip.name}: {chip.note}" if chip.note else ""


GAPS = {
    "chip.host_bandwidth": "chip.host_bandwidth (nothing is priced that moves to the host)",
    "chip.power": "chip.power (no energy is stated)",
}
"""What follows where a figure of a chip is not stated."""


def _gaps(system: System) -> str:
    """Figures that no source states, and what follows."""
    missing = ", ".join(GAPS[key] for key in not_stated(system))
    return f"not stated: {missing}" if missing else ""


def _figures(system: System) -> tuple[Table, Table]:
    """The tables of figures and of the sources they cite."""
    numbers: dict[str, int] = {}
    rows = []
    for fact in describe(system):
        cited = dict.fromkeys(fact.source.split("; measured: "))
        marks = "".join(f"[{numbers.setdefault(source, len(numbers) + 1)}]" for source in cited)
        qualifier = fact.qualifier.replace("read + write", "r + w")
        cells = (fact.key, f"{fact.value:g}", fact.unit, qualifier, f"{fact.used:g}", fact.date, marks, fact.note)
        rows.append(Row(cells))
    sources = tuple(Row((f"[{number}]", text)) for text, number in numbers.items())
    return Table("figures", "", FACTS, tuple(rows)), Table("sources", "", SOURCES, sources)


def _rates(line: Roofline) -> Table:
    """FLOP/s, ridge points and square matmuls of every dtype."""
    columns = [
        Column("dtype", "dtype"),
        Column("flops_per_second", "FLOP/s", "si"),
        Column("datasheet_flops_per_second", "datasheet", "si"),
        Column("ridge_flops_per_byte", "ridge", "integer"),
        Column("datasheet_ridge_flops_per_byte", "datasheet", "integer"),
    ]
    for n in CUBES:
        columns += [Column(f"matmul_{n}_seconds", f"{n}³", "seconds"), Column(f"matmul_{n}_bound", "limit")]
    rows = []
    for rate in line.rates:
        cells: list[Cell] = [rate.dtype, rate.flops_per_second, rate.datasheet]
        cells += [round(rate.ridge), round(rate.datasheet_ridge)]
        for _, time in rate.cubes:
            cells += [time.seconds, str(time.bound)]
        rows.append(Row(tuple(cells)))
    return Table("roofline", "roofline of one device", tuple(columns), tuple(rows))


GIB = 2**30


def _channels(line: Roofline) -> Table:
    """How long bytes take over each channel, and what compute they must be shared by."""
    usual = line.usual
    columns = (
        Column("channel", "over"),
        Column("links", "links"),
        Column("bytes_per_second", "bytes/s", "si"),
        Column("gib_seconds", "1 GiB", "seconds"),
        Column("memory_seconds", "all of HBM", "seconds"),
        Column("bytes_per_flop", "bytes/FLOP", "text"),
        Column("flops_per_byte", "FLOP/byte", "integer"),
    )
    memory = line.system.chip.memory_bytes
    rows = []
    for channel in line.channels:
        intensity = channel.intensity(usual.flops_per_second)
        each = f"{channel.links} x {channel.link_bandwidth / 1e9:.4g} GB/s" if channel.links > 1 else ""
        times = (channel.seconds(GIB), channel.seconds(memory))
        rows.append(Row((channel.name, each, channel.bandwidth, *times, f"{1 / intensity:.3g}", round(intensity))))
    title = f"moving bytes one way, all links of a device at once; against FLOPs in {usual.dtype}"
    return Table("channels", title, columns, tuple(rows))


def system_document(system: System) -> dict[str, Any]:
    """Every figure of one system, and its roofline."""
    return {
        **head("system"),
        "name": system.name,
        "title": system.title,
        "note": system.chip.note,
        "aliases": list(system.aliases),
        "levels": [
            {"name": level.name, "kind": level.kind, "domain": level.domain, "shape": list(level.shape)}
            for level in system.levels
        ],
        "not_stated": list(not_stated(system)),
        "figures": [{field: getattr(fact, field) for field in fact.__struct_fields__} for fact in describe(system)],
        "roofline": roofline_document(roofline(system)),
    }


def roofline_document(line: Roofline) -> dict[str, Any]:
    """A roofline in base units: FLOP/s, bytes/s, FLOPs per byte, seconds."""
    memory = line.system.chip.memory_bytes
    return {
        "rates": [
            {
                "dtype": rate.dtype,
                "flops_per_second": rate.flops_per_second,
                "datasheet_flops_per_second": rate.datasheet,
                "ridge_flops_per_byte": rate.ridge,
                "datasheet_ridge_flops_per_byte": rate.datasheet_ridge,
                "matmuls": [
                    {
                        "size": n,
                        "seconds": time.seconds,
                        "bound": time.bound,
                        "compute_seconds": time.compute_seconds,
                        "memory_seconds": time.memory_seconds,
                    }
                    for n, time in rate.cubes
                ],
            }
            for rate in line.rates
        ],
        "channels": [
            {
                "name": channel.name,
                "links": channel.links,
                "link_bytes_per_second": channel.link_bandwidth,
                "bytes_per_second": channel.bandwidth,
                "memory_seconds": channel.seconds(memory),
                "flops_per_byte": {rate.dtype: channel.intensity(rate.flops_per_second) for rate in line.rates},
            }
            for channel in line.channels
        ],
    }


def check_report(system: System, found: tuple[Doubt, ...]) -> Report:
    """What was read of a description, and what in it may be a mistake."""
    figures, sources = _figures(system)
    tables = [figures, sources]
    if found:
        columns = (Column("key", "figure", wrap=True), Column("warning", "may be a mistake", wrap=True))
        rows = tuple(Row((doubt.key, doubt.message)) for doubt in found)
        tables.append(Table("warnings", "", columns, rows))
    rate = roofline(system).usual
    summary = (
        _verdict(found),
        f"a device multiplies {rate.dtype} at {rate.flops_per_second / 1e12:g} TFLOP/s and reads all of its memory in"
        f" {format_seconds(system.chip.memory_bytes / system.chip.memory_bandwidth.used)}; `einscale hardware"
        f" {system.path or system.name}` shows its roofline",
    )
    return Report(_heading(system), tuple(tables), summary, CONVENTIONS[:1])


def _verdict(found: tuple[Doubt, ...]) -> str:
    if not found:
        return "read without a fault, and no figure looks wrong"
    one = len(found) == 1
    return (
        f"read without a fault, but {'one figure' if one else f'{len(found)} figures'} may be a mistake; nothing stops"
        f" einscale from using {'it' if one else 'them'}"
    )


def check_document(system: System, found: tuple[Doubt, ...]) -> dict[str, Any]:
    """What was read of a description, and what in it may be a mistake."""
    warnings = [{"key": doubt.key, "message": doubt.message} for doubt in found]
    return {**system_document(system), **head("check"), "path": system.path, "warnings": warnings}
