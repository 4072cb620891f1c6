"""Times of local operations: tiles, waves, attention, kernels that only move data, and what the host takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from einscale.api.infer import prefill
from einscale.efficiency import (
    CALLS,
    Execution,
    Product,
    attention_block,
    attention_blocks,
    attention_seconds,
    launch_seconds,
    local_product,
    memory_rate,
    moving_seconds,
    product_seconds,
)
from einscale.hardware import Chip, load_chip, load_system, rooflines, sustained
from einscale.layout import Tensor, make_layout
from einscale.mesh import parse_mesh
from einscale.models import load_model
from einscale.planner.planned import PlannedProgram
from einscale.planner.program import plan_program
from einscale.price.program import PricedStatement, price_program
from einscale.program.backward import backward
from einscale.program.shapes import program_sizes
from einscale.roofline import local_seconds, matmul_seconds
from einscale.steps import LocalEinsum, LocalMap
from einscale.strategy import load_strategy
from einscale.topology import Network, bind

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import op_efficiency
import steps_accuracy

H100 = load_chip("h100")
SIZES = st.integers(1, 5000)


def time_of(rows: int, columns: int, depth: int, chip: Chip = H100, batch: int = 1) -> float:
    """Seconds of a bf16 product."""
    shape = Product(batch, rows, columns, depth)
    written = 2 * batch * rows * columns
    traffic = written + 2 * batch * depth * (rows + columns)
    return float(product_seconds(shape, written, traffic, "bf16", chip).seconds)


@given(SIZES, SIZES, SIZES)
def test_no_product_is_faster_than_the_roofline(rows: int, columns: int, depth: int) -> None:
    ideal = load_system("h100").ideal().chip
    assert time_of(rows, columns, depth) > matmul_seconds(rows, depth, columns, "bf16", ideal).seconds


@given(SIZES, SIZES, SIZES)
def test_a_product_and_its_transpose_take_the_same_time(rows: int, columns: int, depth: int) -> None:
    assert time_of(rows, columns, depth) == pytest.approx(time_of(columns, rows, depth))


@given(SIZES, SIZES, SIZES, st.integers(1, 300))
def test_more_rows_or_depth_are_never_faster(rows: int, columns: int, depth: int, more: int) -> None:
    assert time_of(rows + more, columns, depth) >= time_of(rows, columns, depth)


def test_a_tile_beyond_the_last_wave_costs_a_wave() -> None:
    """132 units: 11 x 12 tiles of 128 x 256 fill one wave, one more row of tiles begins another.

    A depth under 512 is not divided.
    """
    full = Product(1, 11 * 128, 12 * 256, 500)
    over = Product(1, 11 * 128 + 1, 12 * 256, 500)
    chip = replace(H100, kernels=replace(H100.kernels, tiles=((128, 256),)))  # type: ignore[arg-type]
    times = [product_seconds(shape, 0, 0, "bf16", chip).compute_seconds for shape in (full, over)]
    assert times[1] == pytest.approx(2 * times[0])


def test_few_tiles_divide_the_depth() -> None:
    """One tile of the result over a long depth keeps eight units busy, not one."""
    undivided = 2 * 64 * 128 * 65536 / (989e12 * 0.71 / 132)
    assert time_of(64, 128, 65536) < undivided / 4


def test_compute_time_by_hand() -> None:
    """4096 x 4096 x 4096 on H100: 512 tiles of 128 x 256 in 4 waves of 132, or the better of the tiles."""
    kernels = H100.kernels
    assert kernels is not None
    tile = replace(kernels, tiles=((128, 256),))
    shape = Product(1, 4096, 4096, 4096)
    flops = 4 * 132 * 2 * 128 * 256 * (4096 + kernels.fill.value)
    written = 2 * 4096 * 4096
    expected = flops / (989e12 * 0.71) + kernels.epilogue.value * written / (3350e9 * 0.81)
    time = product_seconds(shape, written, 3 * written, "bf16", replace(H100, kernels=tile))
    assert time.compute_seconds == pytest.approx(expected)
    assert time.seconds == pytest.approx(expected + 3e-6)
    assert (time.bound, time.provenance) == ("compute", "modelled")


def test_without_figures_of_kernels_the_roofline_is_all() -> None:
    chip = load_chip("tpu-v5e")
    assert chip.kernels is None
    assert time_of(4096, 4096, 4096, chip) == matmul_seconds(4096, 4096, 4096, "bf16", chip).seconds
    assert memory_rate(chip) == chip.memory_bandwidth.used
    assert launch_seconds(10, Execution(), chip) == 0.0


def test_ideal_systems_have_no_kernels() -> None:
    ideal = load_system("h100").ideal()
    assert ideal.chip.kernels is None
    assert all(level.sustained is None for level in ideal.levels)


def test_measured_bandwidth_stands_before_a_share() -> None:
    levels = {level.name: level.bandwidth for level in sustained(load_system("h100")).levels}
    assert levels["nvlink"].used == 370e9
    assert levels["ib"].used == pytest.approx(0.7 * 50e9)
    assert sustained(load_system("tpu-v5e")).levels == load_system("tpu-v5e").levels


def test_attention_is_slower_backward_and_waits_for_its_last_block() -> None:
    forward = attention_seconds(10**12, 0, "bf16", H100)
    behind = attention_seconds(10**12, 0, "bf16", H100, backward=True)
    block = attention_block(Product(32, 4096, 4096, 128))
    waiting = attention_seconds(10**12, 0, "bf16", H100, block=block)
    assert forward.seconds < behind.seconds
    assert waiting.seconds - forward.seconds == pytest.approx(block * 132 / (989e12 * 0.59))
    assert attention_seconds(10**12, 0, "bf16", H100, library="flash2").seconds > forward.seconds


def test_keys_are_divided_where_queries_are_few() -> None:
    """64 blocks of queries on 132 units: keys in two parts keep 128 units busy, so 4 units' work is lost."""
    scores = Product(1, 8192, 98304, 128)
    block, blocks = attention_block(scores), attention_blocks(scores)
    assert blocks == 64
    rate = 989e12 * 0.59
    whole, alone, divided = (
        attention_seconds(64 * block, 0, "bf16", H100, block=size, blocks=count).compute_seconds
        for size, count in ((0, 0), (block, 0), (block, blocks))
    )
    assert alone - whole == pytest.approx(132 * block / rate)
    assert divided - whole == pytest.approx((132 / 2 - 64) * block / rate)
    for count in range(1, 400):  # never worse than one unit alone, never faster than all units busy
        time = attention_seconds(count * block, 0, "bf16", H100, block=block, blocks=count).compute_seconds
        assert count * block / rate <= time <= (count + 132) * block / rate


def test_a_chunk_after_a_long_prefix_keeps_the_units_busy() -> None:
    step = prefill("llama3.1-405b", mesh="model=8", prompt=512, cached=98304, chunk=512).prefill.last
    block = next(kind for kind in step.kinds if kind.kind == "block")
    core = [row for row in block.rows if row.planned.statement.group == "attention"]
    busy = sum(row.flops for row in core) / (989e12 * 0.59)
    assert busy < sum(float(row.local.seconds) for row in core) < 1.1 * busy


@pytest.mark.parametrize("rows", [1, 8, 16, 32])
def test_few_rows_wait_for_narrow_weights(rows: int) -> None:
    """A product of few rows with int4 weights (Marlin, arXiv 2408.11743) takes as long as it takes to read them."""
    weights = 4096 * 14336 // 2
    time = product_seconds(Product(1, rows, 14336, 4096), 2 * rows * 14336, weights, "bf16", H100)
    assert time.bound == "memory"


def test_a_chip_without_a_figure_of_flash2_takes_its_own() -> None:
    chip = load_chip("a100")
    assert attention_seconds(10**12, 0, "bf16", chip, library="flash2") == attention_seconds(10**12, 0, "bf16", chip)


def test_routed_rows_are_a_share() -> None:
    """Eight experts, two of them for each token: an expert's product has a quarter of the tokens."""
    x, y = (Tensor(name, ("e", "b", last), "bf16", (("e", 2),)) for name, last in (("x", "d"), ("y", "m")))
    w = Tensor("w", ("e", "d", "m"))
    whole, sizes = make_layout([(), (), ()]), {"e": 8, "b": 400, "d": 16, "m": 32}
    up = LocalEinsum((x, w), (whole, whole), y, whole)
    assert local_product(up, sizes, {}) == Product(8, 100, 32, 16)
    gradient = LocalEinsum((x, y), (whole, whole), Tensor("d_w", ("e", "d", "m")), whole)
    assert local_product(gradient, sizes, {}) == Product(8, 16, 32, 100)


def planned_block(mesh_text: str = "data=2,model=2", strategy: str = "megatron-sp") -> tuple[PlannedProgram, Network]:
    """A Llama block, both passes."""
    mesh = parse_mesh(mesh_text)
    network = bind(mesh, load_system("h100"))
    program = load_model("llama3-8b").layer("block").program
    both = backward(program, frozenset(), frozenset(("attention",)))
    sizes = program_sizes(both, defaults={"b": 4, "s": 1024, "t": 1024})
    return plan_program(both, load_strategy(strategy), mesh, sizes, network=network), network


def priced(execution: Execution, planned: tuple[PlannedProgram, Network] | None = None) -> list[PricedStatement]:
    """Its priced statements."""
    program, network = planned or planned_block()
    return list(price_program(program, network, "bf16", causal=True, execution=execution))


def test_a_chip_without_kernel_figures_is_priced_by_its_roofline() -> None:
    program, network = planned_block()
    bare = bind(network.mesh, rooflines(network.system))
    assert bare.system.chip.kernels is None
    for row in priced(Execution("compiled", "eager"), (program, bare)):
        if row.planned.statement.group:
            continue
        rate = "bf16" if row.planned.statement.op == "einsum" else "fp32"
        whole = local_seconds(row.flops if rate == "bf16" else 0, row.traffic, rate, bare.system.chip)
        assert row.local.seconds == whole.seconds


def test_executed_work_is_modelled_and_slower() -> None:
    planned = planned_block()
    how = Execution("compiled", "eager")
    bare = bind(planned[1].mesh, rooflines(planned[1].system))
    plain, timed = priced(how, (planned[0], bare)), priced(how, planned)
    assert {row.local.provenance for row in timed} == {"modelled"}
    assert sum(row.local.seconds for row in timed) > 1.2 * sum(row.local.seconds for row in plain)
    assert [row.flops for row in timed] == [row.flops for row in plain]


def test_neighbouring_maps_are_one_kernel() -> None:
    planned = planned_block()
    eager, fused = (priced(Execution("compiled", how), planned) for how in ("eager", "fused"))  # type: ignore[arg-type]
    assert sum(row.local.kernels for row in fused) < sum(row.local.kernels for row in eager)
    assert sum(row.traffic for row in fused) < sum(row.traffic for row in eager)
    for one, other in zip(eager, fused, strict=True):
        assert other.traffic <= one.traffic
        if not isinstance(one.planned.work, LocalMap):
            assert other.local == one.local


def test_a_bias_is_added_by_the_product() -> None:
    program = load_model("gpt2").layer("block").program
    mesh = parse_mesh("data=1")
    network = bind(mesh, load_system("h100"))
    sizes = program_sizes(program, defaults={"b": 4, "s": 1024, "t": 1024})
    planned = plan_program(program, load_strategy("dp"), mesh, sizes, network=network)
    rows = {row.planned.statement.output: row for row in priced(Execution("compiled", "eager"), (planned, network))}
    assert (rows["q"].local.seconds, rows["q"].local.kernels, rows["q"].traffic) == (0.0, 0, 0)
    assert rows["out"].local.seconds > 0


def test_a_pass_is_never_shorter_than_its_launches() -> None:
    planned = planned_block()
    small = replace(planned[0], sizes={**planned[0].sizes, "b": 2, "s": 16, "t": 16})
    compiled, eager = (priced(Execution(how), (small, planned[1])) for how in ("compiled", "eager"))  # type: ignore[arg-type]
    for phase in ("forward", "backward"):
        here = [row for row in eager if row.planned.phase == phase]
        sent = sum(row.local.kernels for row in here) + sum(1 for row in here for p in row.collectives if p.seconds)
        moving = sum(row.communication_seconds for row in here)
        total = sum(row.local.seconds for row in here) + moving
        assert total == pytest.approx(sent * CALLS * 15e-6, rel=0.35)
        assert {row.local.bound for row in here} == {"launch"}
    assert {row.local.bound for row in compiled} <= {"compute", "memory"}


def test_long_kernels_hide_their_launches() -> None:
    program, network = planned_block()
    large = replace(program, sizes={**program.sizes, "b": 64, "s": 4096, "t": 4096})
    assert priced(Execution(), (large, network)) == priced(Execution("compiled"), (large, network))


def test_narrow_products_pay_for_the_conversion() -> None:
    program, network = planned_block()
    wide = price_program(program, network, "bf16", execution=Execution("compiled"))
    narrow = price_program(program, network, steps_accuracy.parse_precision("fp8"), execution=Execution("compiled"))
    rows = {row.planned.statement.output: row for row in narrow}
    before = {row.planned.statement.output: row for row in wide}
    assert rows["gate"].traffic > before["gate"].traffic
    assert rows["up"].traffic == before["up"].traffic  # the same operand, converted already
    assert rows["gate"].local.seconds < before["gate"].local.seconds


def test_kernels_that_move_data() -> None:
    time = moving_seconds(10**9, H100)
    assert time.seconds == pytest.approx(1e9 / (3350e9 * 0.81) + 3e-6)
    assert time.bound == "memory"


@pytest.mark.parametrize(("hardware", "median"), [("A100-PCIe-80GB", 0.03), ("B200-SXM", 0.05)])
def test_measured_products_that_no_constant_was_fitted_on(hardware: str, median: float) -> None:
    chip = op_efficiency.chip_of(hardware)
    rows = [row for row in op_efficiency.measured() if row["hardware"] == hardware and row["op"] == "matmul"]
    _, held = op_efficiency.split(rows)
    assert op_efficiency.median_error([op_efficiency.error(row, chip) for row in held]) < median


@pytest.mark.parametrize("group", ["korthikanti", "megatron_sc21", "simumax_b200"])
def test_measured_steps_are_met_more_closely_than_by_the_roofline(group: str) -> None:
    errors = {True: 0.0, False: 0.0}
    for row in steps_accuracy.rows(group, 2):
        for efficiency in errors:
            seconds = steps_accuracy.predicted(row, efficiency=efficiency).step_seconds
            errors[efficiency] += abs(seconds / row["step_time_s"] - 1)
    assert errors[True] < errors[False]
