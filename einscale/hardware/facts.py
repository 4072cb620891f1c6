"""Every figure of a system as a list, with what pricing takes of it and who says so; and what nobody says."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from einscale.hardware.values import (
    Bandwidth,
    Capacity,
    Count,
    Kernels,
    Latency,
    MemoryBandwidth,
    Power,
    Rate,
    Share,
    System,
)


class Fact(Struct, frozen=True):
    """One figure of a system, ready to be shown: where it stands in the file, what it is, and who says so."""

    key: str
    value: float
    unit: str
    qualifier: str
    used: float
    measured: float | None
    source: str
    date: str
    note: str


Figure: TypeAlias = Rate | Bandwidth | MemoryBandwidth | Capacity | Latency | Power | Count | Share


def not_stated(system: System) -> tuple[str, ...]:
    """Figures of a chip that some answers need and no source states for this one.

    >>> from einscale.hardware import load_system
    >>> not_stated(load_system("tpu-v5p")), not_stated(load_system("h100"))
    (('chip.power',), ())
    """
    return tuple(f"chip.{key}" for key in ("host_bandwidth", "power") if getattr(system.chip, key) is None)


def describe(system: System) -> tuple[Fact, ...]:
    """Every figure of a system with its source, in the order of its file.

    `value` is in `unit` as written; `used` is what pricing takes, in the same unit (dense, one-way); `measured` is the
    attainable figure, if there is one.

    >>> from einscale.hardware import load_system
    >>> fact = describe(load_system("h100"))[0]
    >>> fact.key, fact.value, fact.unit, fact.qualifier
    ('chip.peaks.bf16', 989.0, 'TFLOP/s', 'dense')
    """
    chip = system.chip
    figures: list[tuple[str, Figure, str]] = [(f"chip.peaks.{rate.dtype}", rate, rate.sparsity) for rate in chip.peaks]
    figures.append(("chip.memory", chip.memory, ""))
    figures.append(("chip.memory_bandwidth", chip.memory_bandwidth, "read + write"))
    if chip.host_bandwidth is not None:
        figures.append(("chip.host_bandwidth", chip.host_bandwidth, chip.host_bandwidth.direction))
    if chip.power is not None:
        figures.append(("chip.power", chip.power, ""))
    counts = (("chip.cores", chip.cores), ("chip.host_chips", chip.host_chips))
    figures += [(key, count, "") for key, count in counts if count is not None]
    if chip.kernels is not None:
        kernels = [(key, getattr(chip.kernels, key)) for key in Kernels.__struct_fields__ if key != "tiles"]
        figures += [(f"chip.kernels.{key}", figure, "") for key, figure in kernels if figure is not None]
    for level in system.levels:
        figures.append((f"levels.{level.name}.bandwidth", level.bandwidth, level.bandwidth.direction))
        figures.append((f"levels.{level.name}.launch", level.launch, ""))
        figures.append((f"levels.{level.name}.hop", level.hop, ""))
        if level.sustained is not None:
            figures.append((f"levels.{level.name}.sustained", level.sustained, ""))
    titles = {
        source.key: f"{source.title}, {source.where}" if source.where else source.title for source in system.sources
    }
    return tuple(_fact(key, figure, qualifier, titles) for key, figure, qualifier in figures)


def _fact(
    key: str,
    figure: Figure,
    qualifier: str,
    titles: dict[str, str],
) -> Fact:
    """One figure with its sources spelled out."""
    source, note = titles.get(figure.source, figure.source), figure.note
    measured, used = None, figure.value
    if not isinstance(figure, Capacity | Count | Share):
        attainable = figure.attainable
        halved = qualifier in ("2:4", "two-way")
        if attainable is not None:
            measured, used = attainable.value, attainable.value
            source = f"{source}; measured: {titles.get(attainable.source, attainable.source)}"
            note = "; ".join(part for part in (note, attainable.note) if part)
        used = used / 2 if halved else used
    return Fact(key, figure.value, figure.unit, qualifier, used, measured, source, figure.date, note)
