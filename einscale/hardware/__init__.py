"""Chips, network levels and systems: TOML files with value, unit, source and date of every figure, and their loader."""

from einscale.hardware.load import DEFAULT_SYSTEM, list_systems, load_chip, load_system
from einscale.hardware.plausible import Doubt, doubts
from einscale.hardware.values import (
    Bandwidth,
    Capacity,
    Chip,
    Count,
    Fact,
    Latency,
    Level,
    MemoryBandwidth,
    Rate,
    Source,
    System,
    cores,
    describe,
    flop_rate,
    hosts,
    ideal,
    peak,
)

__all__ = [
    "DEFAULT_SYSTEM",
    "Bandwidth",
    "Capacity",
    "Chip",
    "Count",
    "Doubt",
    "Fact",
    "Latency",
    "Level",
    "MemoryBandwidth",
    "Rate",
    "Source",
    "System",
    "cores",
    "describe",
    "doubts",
    "flop_rate",
    "hosts",
    "ideal",
    "list_systems",
    "load_chip",
    "load_system",
    "peak",
]
