"""One local operation on one chip: compute time, memory time, and which of them bounds it; a system's roofline."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from einscale.dtypes import bytes_of
from einscale.dtypes import dtype as canonical_dtype
from einscale.errors import HardwareError, did_you_mean
from einscale.hardware import Chip, System, flop_rate, peak
from einscale.numeric import Array, Condition, Number, is_array, maximum
from einscale.vocabulary import BOUND, COMPUTE, LAUNCH, MEMORY, MODELLED, LimitedBy, Provenance

Words: TypeAlias = "LimitedBy | Array"
"""A word, or an array of them where there are many points."""


class LocalTime(Struct, frozen=True):
    """Seconds of a local operation, and why; numbers, or arrays of one shape.

    Args:
        seconds: of all of it.
        compute_seconds: FLOPs over the chip's FLOP/s.
        memory_seconds: HBM bytes over the HBM bandwidth.
        provenance: `bound` where both are datasheet figures, so that no run is faster; `modelled` where a measured
            attainable figure stands in place of one.
        kernels: kernels that a framework starts for it; an estimate, where the time is one.
        converted: bytes, in its traffic and `memory_seconds`, of a kernel before it that converts its operands.
        launched: how many times longer it takes because the host sends the kernels of its pass more slowly than they
            run; 1 where they wait for nothing.
    """

    seconds: Number
    compute_seconds: Number
    memory_seconds: Number
    provenance: Provenance
    kernels: int = 1
    converted: Number = 0
    launched: Number = 1.0

    @property
    def bound(self) -> Words:
        """What limits it: `compute`, `memory` or `launch`; an array of these words where the numbers are arrays."""
        compute = (self.compute_seconds >= self.memory_seconds) & (self.compute_seconds > 0)
        words = _either(compute, COMPUTE, MEMORY)
        return _either(self.launched > 1.0, LAUNCH, words)

    def share(self, part: Number, *, first: bool = True) -> LocalTime:
        """A part of it; the first of the statements that share a kernel counts it."""
        return replace(
            self,
            seconds=self.seconds * part,
            compute_seconds=self.compute_seconds * part,
            memory_seconds=self.memory_seconds * part,
            kernels=self.kernels if first else 0,
        )


def _either(condition: Condition, yes: Words, no: Words) -> Words:
    """One of two words, or an array of them."""
    if is_array(condition) and condition.shape:
        import numpy as np

        return np.where(condition, yes, no)
    return yes if condition else no


def local_seconds(flops: Number, hbm_bytes: Number, dtype: str, chip: Chip) -> LocalTime:
    """Roofline time, max(FLOPs / FLOP/s, HBM bytes / bandwidth), assuming that both overlap perfectly.

    Operands may be numpy arrays. An operation without FLOPs needs no rate, so its dtype may be one the chip cannot
    multiply. Source: Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009.

    >>> from einscale.hardware import load_system
    >>> chip = load_system("tpu-v5e").ideal().chip
    >>> time = local_seconds(2 * 4096**3, 3 * 2 * 4096**2, "bf16", chip)
    >>> print(time.bound, round(time.seconds * 1e6))
    compute 698

    Raises:
        HardwareError: the chip has no FLOP/s figure for the dtype; the message lists those it has.
    """
    measured = chip.memory_bandwidth.attainable is not None
    compute: Number = 0.0
    if is_array(flops) or flops:
        compute = flops / flop_rate(chip, dtype)
        measured = measured or peak(chip, dtype).attainable is not None
    memory = hbm_bytes / chip.memory_bandwidth.used
    return LocalTime(maximum(compute, memory), compute, memory, MODELLED if measured else BOUND)


def ridge_intensity(chip: Chip, dtype: str) -> float:
    """FLOPs per HBM byte from which an operation is compute-bound.

    >>> from einscale.hardware import load_system
    >>> round(ridge_intensity(load_system("b200").ideal().chip, "bf16"))
    281

    Raises:
        HardwareError: the chip has no FLOP/s figure for the dtype.
    """
    return flop_rate(chip, dtype) / chip.memory_bandwidth.used


def ridge_points(chip: Chip) -> tuple[tuple[str, float], ...]:
    """(dtype, FLOPs per byte) of every element type the chip multiplies."""
    return tuple((dtype, ridge_intensity(chip, dtype)) for dtype in chip.dtypes)


def matmul_seconds(m: Number, k: Number, n: Number, dtype: str, chip: Chip) -> LocalTime:
    """Roofline time of `m k, k n -> m n` in one dtype: 2mkn FLOPs, each operand read once, the result written once.

    >>> from einscale.hardware import load_system
    >>> time = matmul_seconds(64, 8192, 8192, "bf16", load_system("h100").ideal().chip)
    >>> print(time.bound, round(time.seconds * 1e6, 1))
    memory 40.7

    Raises:
        HardwareError: the chip has no FLOP/s figure for the dtype.
    """
    element = canonical_dtype(dtype)
    moved = bytes_of(m * k, element) + bytes_of(k * n, element) + bytes_of(m * n, element)
    return local_seconds(2 * m * k * n, moved, dtype, chip)


CUBES = (4096, 8192)
"""Square matmuls that a roofline is shown by."""


class RatePoint(Struct, frozen=True):
    """One element type on a roofline.

    Args:
        dtype: the element type.
        flops_per_second: dense FLOP/s that pricing uses.
        datasheet: dense FLOP/s of the datasheet.
        ridge: FLOPs per HBM byte from which an operation is compute-bound, by the figures that pricing uses.
        datasheet_ridge: the same by the datasheet's.
        cubes: size n and time of the matmul of two n x n matrices, for each of `CUBES`.
    """

    dtype: str
    flops_per_second: float
    datasheet: float
    ridge: float
    datasheet_ridge: float
    cubes: tuple[tuple[int, LocalTime], ...]


class Channel(Struct, frozen=True):
    """One way for bytes to reach a chip: its HBM, its host, or a network level.

    Args:
        name: `hbm`, `host`, or the level's name.
        links: links that work at once.
        link_bandwidth: one-way bytes/s of one link.
    """

    name: str
    links: int
    link_bandwidth: float

    @property
    def bandwidth(self) -> float:
        """One-way bytes/s over all links at once."""
        return self.links * self.link_bandwidth

    def seconds(self, moved: Number) -> Number:
        """Seconds to move bytes over all links at once, without latency."""
        return moved / self.bandwidth

    def intensity(self, flops_per_second: float) -> float:
        """FLOPs that a chip of that speed does while one byte arrives: below it, work that needs the byte waits."""
        return flops_per_second / self.bandwidth


class Roofline(Struct, frozen=True):
    """What a system can do at most: rates, and the channels that feed them."""

    system: System
    rates: tuple[RatePoint, ...]
    channels: tuple[Channel, ...]

    @property
    def usual(self) -> RatePoint:
        """The rate most work runs at: bf16 where the chip has it, else its first."""
        return next((rate for rate in self.rates if rate.dtype == "bf16"), self.rates[0])

    def channel(self, name: str) -> Channel:
        """A channel by its name.

        Raises:
            HardwareError: the system has none of that name.
        """
        for channel in self.channels:
            if channel.name == name:
                return channel
        names = [channel.name for channel in self.channels]
        raise HardwareError(
            f"{self.system.name} has no channel `{name}`", hint=did_you_mean(name, names, f"{self.system.name} has")
        )


def roofline(system: System) -> Roofline:
    """The roofline of a system: ridge points of every dtype, times of two square matmuls, and its channels.

    >>> from einscale.hardware import load_system
    >>> line = roofline(load_system("tpu-v5p").ideal())
    >>> line.usual.dtype, round(line.usual.ridge), [channel.name for channel in line.channels]
    ('bf16', 164, ['hbm', 'host', 'ici', 'dcn'])
    >>> round(line.channel("ici").intensity(line.usual.flops_per_second))  # six links of 90 GB/s
    850
    """
    chip = system.chip
    sheet = system.ideal().chip
    rates = tuple(
        RatePoint(
            dtype,
            flop_rate(chip, dtype),
            flop_rate(sheet, dtype),
            ridge_intensity(chip, dtype),
            ridge_intensity(sheet, dtype),
            tuple((n, matmul_seconds(n, n, n, dtype, chip)) for n in CUBES),
        )
        for dtype in chip.dtypes
    )
    channels = [Channel("hbm", 1, chip.memory_bandwidth.used)]
    if chip.host_bandwidth is not None:
        channels.append(Channel("host", 1, chip.host_bandwidth.used))
    channels += [Channel(level.name, level.links, level.bandwidth.used) for level in system.levels]
    return Roofline(system, rates, tuple(channels))
