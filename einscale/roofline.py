"""One local operation on one chip: compute time, memory time, and which of them bounds it."""

from __future__ import annotations

from msgspec import Struct

from einscale.hardware import Chip, flop_rate, peak
from einscale.numeric import Number, is_array, maximum, where


class LocalTime(Struct, frozen=True):
    """Seconds of a local operation, and why.

    Args:
        seconds: the larger of the two below.
        bound: `compute` or `memory`; an array of these words where the operands are arrays.
        compute_seconds: FLOPs over the chip's FLOP/s.
        memory_seconds: HBM bytes over the HBM bandwidth.
        provenance: `bound` where both are datasheet figures, so that no run is faster; `modelled` where a measured
            attainable figure stands in place of one.
    """

    seconds: Number
    bound: Number
    compute_seconds: Number
    memory_seconds: Number
    provenance: str


def local_seconds(flops: Number, hbm_bytes: Number, dtype: str, chip: Chip) -> LocalTime:
    """Roofline time, max(FLOPs / FLOP/s, HBM bytes / bandwidth), assuming that both overlap perfectly.

    Operands may be numpy arrays. An operation without FLOPs needs no rate, so its dtype may be one the chip cannot
    multiply. Source: Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009.

    >>> from einscale.hardware import load_system
    >>> chip = load_system("tpu-v5e").ideal().chip
    >>> time = local_seconds(2 * 4096**3, 3 * 2 * 4096**2, "bf16", chip)
    >>> time.bound, round(time.seconds * 1e6)
    ('compute', 698)

    Raises:
        HardwareError: the chip has no FLOP/s figure for the dtype; the message lists those it has.
    """
    measured = chip.memory_bandwidth.attainable is not None
    compute: Number = 0.0
    if is_array(flops) or flops:
        compute = flops / flop_rate(chip, dtype)
        measured = measured or peak(chip, dtype).attainable is not None
    memory = hbm_bytes / chip.memory_bandwidth.used
    slower = compute >= memory
    arrays = is_array(compute) or is_array(memory)
    bound = where(slower, "compute", "memory") if arrays else "compute" if slower else "memory"
    return LocalTime(maximum(compute, memory), bound, compute, memory, "modelled" if measured else "bound")


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
