"""Chips, network levels and systems: TOML files with value, unit, source and date of every figure, and their loader."""

from einscale.hardware.load import DEFAULT_SYSTEM, list_systems, load_chip, load_system
from einscale.hardware.plausible import Doubt, doubts
from einscale.hardware.values import (
    Bandwidth,
    Capacity,
    Chip,
    Fact,
    Latency,
    Level,
    MemoryBandwidth,
    Rate,
    Source,
    System,
    describe,
    flop_rate,
    ideal,
    peak,
)

__all__ = [
    "DEFAULT_SYSTEM",
    "Bandwidth",
    "Capacity",
    "Chip",
    "Doubt",
    "Fact",
    "Latency",
    "Level",
    "MemoryBandwidth",
    "Rate",
    "Source",
    "System",
    "describe",
    "doubts",
    "flop_rate",
    "ideal",
    "list_systems",
    "load_chip",
    "load_system",
    "peak",
]
