from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from einscale.errors import HardwareError
from einscale.hardware import load_chip, load_system
from einscale.roofline import local_seconds, matmul_seconds, ridge_intensity, ridge_points, roofline

V5E = load_system("tpu-v5e").ideal().chip
H100 = load_system("h100").ideal().chip


def test_time_of_a_trillion_flops() -> None:  # How To Scale Your Model, rooflines: 1.01 ms
    assert local_seconds(1e12, 0, "bf16", H100).seconds * 1e3 == pytest.approx(1.01, abs=5e-3)


def test_ridge_points_of_the_book() -> None:  # 486 for int8 on v5e (rooflines, Q1); 281 and 562 for B200 (GPUs, quiz 1)
    b200 = load_system("b200").ideal().chip
    assert ridge_intensity(V5E, "int8") == pytest.approx(486, abs=0.5)
    assert ridge_intensity(V5E, "int8") / 2 == pytest.approx(243, abs=0.5)
    assert ridge_intensity(b200, "bf16") == pytest.approx(281, abs=0.5)
    assert ridge_intensity(b200, "fp8") == pytest.approx(562, abs=0.6)
    assert dict(ridge_points(V5E))["bf16"] == pytest.approx(197 / 0.81)


@pytest.mark.parametrize(("batch", "bound"), [(262, "memory"), (263, "compute")])
def test_critical_batch_of_an_int8_matmul(
    batch: int, bound: str
) -> None:  # TPUs, Q4: int8[16384,4096], 262.7 unrounded
    d, f = 4096, 16384
    time = local_seconds(2 * batch * d * f, d * f + batch * d + batch * f, "int8", V5E)
    assert time.bound == bound
    assert time.seconds == max(time.compute_seconds, time.memory_seconds)


def test_loading_weights() -> None:  # TPUs, Q1: 200B bf16 parameters over 32 TPU v4, about 10 ms
    time = local_seconds(0, 2 * 200e9 / 32, "bf16", load_chip("tpu-v4"))
    assert time.seconds * 1e3 == pytest.approx(10, abs=0.5)
    assert time.bound == "memory"


def test_b200_matmul() -> None:  # GPUs, quiz 1, Q4: 8.6 us memory-bound, 15 us compute-bound
    chip = load_system("b200").ideal().chip
    small = local_seconds(2 * 64 * 4096 * 8192, 2 * (64 * 4096 + 4096 * 8192 + 64 * 8192), "fp16", chip)
    large = local_seconds(2 * 512 * 4096 * 8192, 2 * (512 * 4096 + 4096 * 8192 + 512 * 8192), "fp16", chip)
    assert (small.bound, round(small.seconds * 1e6, 1)) == ("memory", 8.6)
    assert (large.bound, round(large.seconds * 1e6)) == ("compute", 15)


def test_provenance() -> None:
    chip = load_chip("h100")
    assert local_seconds(1, 1, "bf16", chip).provenance == "modelled"
    assert local_seconds(1, 1, "tf32", chip).provenance == "bound"
    assert local_seconds(1, 1, "bf16", H100).provenance == "bound"
    assert local_seconds(1e12, 0, "bf16", chip).seconds > local_seconds(1e12, 0, "bf16", H100).seconds


def test_no_flops_need_no_rate() -> None:
    assert local_seconds(0, 810e9, "int32", V5E).seconds == pytest.approx(1.0)
    with pytest.raises(HardwareError, match="no matrix FLOP/s figure for int32"):
        local_seconds(1, 0, "int32", V5E)


@given(st.lists(st.tuples(st.integers(0, 10**18), st.integers(0, 10**15)), min_size=1, max_size=8))
def test_arrays_equal_scalars(work: list[tuple[int, int]]) -> None:
    flops, moved = (np.array(column, dtype=float) for column in zip(*work, strict=True))
    together = local_seconds(flops, moved, "bf16", H100)
    alone = [local_seconds(f, b, "bf16", H100) for f, b in work]
    assert together.seconds == pytest.approx([time.seconds for time in alone], rel=1e-12)
    assert list(together.bound) == [time.bound for time in alone]


def test_a_matmul_reads_its_operands_once_and_writes_its_result_once() -> None:
    time = matmul_seconds(64, 4096, 8192, "bf16", H100)
    assert time == local_seconds(2 * 64 * 4096 * 8192, 2 * (64 * 4096 + 4096 * 8192 + 64 * 8192), "bf16", H100)
    half = matmul_seconds(64, 4096, 8192, "float8_e4m3fn", H100)
    assert half.memory_seconds == time.memory_seconds / 2
    with pytest.raises(HardwareError, match="no matrix FLOP/s figure for fp8"):
        matmul_seconds(1, 1, 1, "fp8", V5E)


def test_roofline_of_a_system() -> None:
    system = load_system("h100")
    line = roofline(system)
    rate = line.usual
    assert (rate.dtype, rate.flops_per_second, rate.datasheet) == ("bf16", 794.5e12, 989e12)
    assert (rate.ridge, rate.datasheet_ridge) == (ridge_intensity(system.chip, "bf16"), 989e12 / 3350e9)
    assert [n for n, _ in rate.cubes] == [4096, 8192]
    assert rate.cubes[1][1].compute_seconds == pytest.approx(2 * 8192**3 / 794.5e12)
    assert [channel.name for channel in line.channels] == ["hbm", "host", "nvlink", "ib"]
    assert {channel.links for channel in line.channels} == {1}
    assert line.channel("hbm").seconds(80e9) == pytest.approx(80 / 3350)
    with pytest.raises(HardwareError, match="h100 has no channel `nvlnk`\n  did you mean `nvlink`"):
        line.channel("nvlnk")


def test_all_links_of_a_device_work_at_once() -> None:
    line = roofline(load_system("tpu-v5p").ideal())  # How To Scale Your Model, training: 2550 on one axis, 850 on three
    assert line.channel("ici").intensity(line.usual.flops_per_second) == pytest.approx(850)
    assert 3 * line.channel("ici").intensity(line.usual.flops_per_second) == pytest.approx(2550)
    assert roofline(load_system("mi300x")).channel("xgmi").bandwidth == 448e9
    assert roofline(load_system("v100")).usual.dtype == "fp16"
