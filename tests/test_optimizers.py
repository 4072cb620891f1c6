"""Optimizers: what each keeps, what its step costs, and the bytes a parameter that follow."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einscale.dtypes import bytes_of
from einscale.errors import ProgramError
from einscale.hardware import load_system
from einscale.mesh import parse_mesh
from einscale.models import load_model
from einscale.planner.planned import PlannedProgram
from einscale.planner.program import plan_program
from einscale.planner.update import plan_update
from einscale.precision import parse_precision
from einscale.price.memory import gathered_copies, gradients_held, optimizer_bytes, optimizer_held, parameters_held
from einscale.price.program import price_program
from einscale.program import Program, backward
from einscale.program.optimizers import (
    FLOPS,
    ITERATIONS,
    OPTIMIZERS,
    Matrix,
    find_optimizer,
    matrix_of,
    optimizer_states,
    orthogonal_flops,
)
from einscale.program.typed import typed
from einscale.program.update import update_program
from einscale.steps import work_flops, work_traffic
from einscale.strategy import load_strategy, with_zero
from einscale.topology import bind

D, F = 4096, 14336
"""Hidden and MLP sizes of llama3-8b."""


def block(kind: str = "block") -> Program:
    return load_model("llama3-8b").layer(kind).program


@cache
def planned(precision: str = "bf16", stage: int = 0, mesh: str = "data=8", strategy: str = "dp") -> PlannedProgram:
    program = typed(backward(block(), fused=frozenset({"attention"})), parse_precision(precision))
    sizes = {**dict(program.sizes), "b": 64, "s": 64, "t": 64}
    chosen = with_zero(load_strategy(strategy), stage)
    return plan_program(program, chosen, parse_mesh(mesh), sizes, deferred=True)


def stepped(optimizer: str, precision: str = "bf16", stage: int = 0, **where: str) -> PlannedProgram:
    plan = planned(precision, stage, **where)
    return plan_update(plan, update_program(plan.program, optimizer, parse_precision(precision)))


def elements() -> int:
    sizes = dict(block().sizes)
    total = 0
    for value in block().parameters:
        count = 1
        for axis in value.axes:
            count *= sizes[axis]
        total += count
    return total


def a_parameter(plan: PlannedProgram, precision: str, optimizer: str = "adamw") -> float:
    chosen = parse_precision(precision)
    held = (*parameters_held(plan, chosen), *gradients_held(plan), *optimizer_held(plan, optimizer, chosen))
    return sum(one.bytes for one in held) / elements()


@pytest.mark.parametrize(
    ("precision", "published"),
    [("bf16", 18), ("fp16", 16), ("mixed", 16), ("fp32", 16), ("bf16-pure", 8), ("fp8-deepseek", 13)],
)
def test_bytes_a_parameter_without_division(precision: str, published: float) -> None:
    # fp8-deepseek: 1 + 4 + 2 * 2 + 4, plus one scale for 128 elements and norms in bf16.
    assert a_parameter(planned(precision), precision) == pytest.approx(published, rel=0.004)


@pytest.mark.parametrize("ways", [2, 8, 64])
def test_bytes_a_parameter_of_each_zero_stage(ways: int) -> None:
    mesh = f"data={ways}"
    assert a_parameter(planned("bf16", 1, mesh), "bf16") == 6 + 12 / ways  # Megatron Core, distributed optimizer
    assert a_parameter(planned("bf16", 2, mesh), "bf16") == 2 + 16 / ways
    assert a_parameter(planned("bf16", 3, mesh), "bf16") == 18 / ways
    assert a_parameter(planned("fp16", 1, mesh), "fp16") == 4 + 12 / ways  # ZeRO, arXiv 1910.02054, figure 1
    assert a_parameter(planned("fp16", 2, mesh), "fp16") == 2 + 14 / ways
    assert a_parameter(planned("fp32", 1, mesh), "fp32") == 8 + 8 / ways


def test_tensor_parallel_divides_everything_but_the_norms() -> None:
    plan = planned("bf16", 1, "data=4,model=8", "megatron-sp")
    norms = 2 * D
    held = a_parameter(plan, "bf16") * elements()
    assert held == (6 + 12 / 4) * ((elements() - norms) / 8 + norms)


EXTRA = {
    "adamw": 8,
    "adam": 8,
    "adam8bit": 2 * (1 + 4 / 256),
    "sgd": 0,
    "sgd-momentum": 4,
    "lion": 4,
}
"""Bytes of states an element, fp32 moments."""


@pytest.mark.parametrize("name", EXTRA)
def test_states_an_element(name: str) -> None:
    held = optimizer_held(planned("fp32"), name, parse_precision("fp32"))
    assert sum(one.bytes for one in held) == elements() * EXTRA[name]


def test_adafactor_keeps_rows_and_columns() -> None:
    held = {one.tensor.name: one for one in optimizer_held(planned("fp32"), "adafactor", parse_precision("fp32"))}
    assert held["w_up_row_factor"].bytes == 4 * D
    assert held["w_up_column_factor"].bytes == 4 * F
    assert held["w_down_row_factor"].bytes == 4 * F
    assert held["attn_norm_second_moment"].bytes == 4 * D
    assert sum(one.bytes for one in held.values()) < 0.01 * elements()


def test_muon_keeps_one_momentum_for_matrices_and_adamw_for_the_rest() -> None:
    states = dict(optimizer_states(block(), "muon", parse_precision("fp32")))
    assert [state.name for state in states["wq"]] == ["wq_momentum"]
    assert [state.name for state in states["mlp_norm"]] == ["mlp_norm_first_moment", "mlp_norm_second_moment"]
    for kind in ("embedding", "head"):
        for states_of_one in dict(optimizer_states(block(kind), "muon", parse_precision("fp32"))).values():
            assert len(states_of_one) == 2


def test_matrices_are_seen_as_their_product_uses_them() -> None:
    assert matrix_of(block(), "wo") == Matrix((), ("n", "g", "k"), ("d",))
    assert matrix_of(block(), "attn_norm") is None
    embedding = block("embedding")
    assert matrix_of(embedding, embedding.parameters[0].name) == Matrix((), ("v",), ("d",))
    assert matrix_of(block("head"), "nothing") is None


def test_the_default_is_adamw_with_a_master_copy() -> None:
    assert optimizer_bytes(planned()) == 12 * elements()
    assert optimizer_bytes(planned("fp32")) == 8 * elements()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_says_how_it_is_counted_and_where_it_comes_from(name: str) -> None:
    optimizer = find_optimizer(name.upper())
    assert optimizer.source
    for step in (optimizer.step, optimizer.matrices):
        assert step is None or (step.why and step.flops_per_element > 0)


def test_unknown_optimizers_have_a_near_miss() -> None:
    with pytest.raises(ProgramError, match="no optimizer is called `adamv`") as caught:
        find_optimizer("adamv")
    assert "did you mean `adam" in str(caught.value)
    with pytest.raises(ProgramError, match="named by text, not by int"):
        find_optimizer(8)  # type: ignore[arg-type]


@given(rows=st.integers(1, 64), columns=st.integers(1, 64))
def test_newton_schulz_counts_its_three_products(rows: int, columns: int) -> None:
    m, n = min(rows, columns), max(rows, columns)
    gram, squared, applied = 2 * m * n * m, 2 * m * m * m, 2 * m * m * n
    assert orthogonal_flops(rows, columns) == ITERATIONS * (gram + squared + applied)


def flops(plan: PlannedProgram) -> dict[str, float]:
    return {row.statement.output: work_flops(row.work, plan.sizes, plan.mesh.degrees) for row in plan.statements}


def test_a_step_costs_flops_for_each_element() -> None:
    assert flops(stepped("adamw"))["w_up_new"] == 15 * D * F
    assert flops(stepped("adamw", stage=1))["w_up_new"] == 15 * D * F // 8
    assert flops(stepped("sgd"))["w_up_new"] == 2 * D * F
    assert set(FLOPS) >= {row.statement.op for row in stepped("lion").statements}


def test_every_device_makes_the_whole_matrix_orthogonal() -> None:
    work = flops(stepped("muon", stage=1, mesh="data=4,model=2", strategy="megatron"))
    assert work["w_up_orthogonal"] == orthogonal_flops(D, F)
    assert work["w_up_momentum_ahead"] == 4 * D * F // 8


def test_a_step_reads_and_writes_each_tensor_once() -> None:
    plan = stepped("adamw")
    row = next(row for row in plan.statements if row.statement.output == "w_up_new")
    # Reads gradient, master copy and moments; writes the parameter, the master copy and the moments.
    assert work_traffic(row.work, plan.sizes, plan.mesh.degrees) == (4 * 4 + 2 + 3 * 4) * D * F
    plan = stepped("adam8bit")
    row = next(row for row in plan.statements if row.statement.output == "w_up_new")
    moments = 4 * bytes_of(D * F, "dynamic8")
    assert work_traffic(row.work, plan.sizes, plan.mesh.degrees) == (4 + 4 + 2 + 4) * D * F + moments


def test_an_update_is_bound_by_memory_and_newton_schulz_by_compute() -> None:
    plan = stepped("muon")
    network = bind(plan.mesh, load_system("h100").ideal())
    rows = {row.planned.statement.output: row for row in price_program(plan, network, parse_precision("bf16"))}
    assert rows["w_up_orthogonal"].local.bound == "compute"
    chip = network.system.chip
    assert rows["w_up_orthogonal"].local.seconds == pytest.approx(orthogonal_flops(D, F) / chip.peaks[0].used)
    assert rows["attn_norm_new"].local.bound == "memory"
    assert all(row.planned.phase == "update" for row in rows.values())


@settings(max_examples=20, deadline=None)
@given(
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    precision=st.sampled_from(["bf16", "mixed", "fp8-deepseek"]),
    stage=st.integers(0, 3),
)
def test_what_is_held_is_what_the_step_reads(optimizer: str, precision: str, stage: int) -> None:
    plan = stepped(optimizer, precision, stage)
    fed = {value.name for value in plan.program.values if value.kind == "state" and value.name in plan.program.inputs}
    held = {
        one.tensor.name: one for one in optimizer_held(planned(precision, stage), optimizer, parse_precision(precision))
    }
    assert set(held) == fed
    assert all(held[name].layout == plan.resting[name] for name in fed)
    assert all(held[name].tensor == plan.program.table[name].tensor for name in fed)


def test_what_is_gathered_at_once_is_every_parameter_of_the_layer() -> None:
    assert sum(one.bytes for one in gathered_copies(planned(stage=3))) == 2 * elements()
    assert sum(one.bytes for one in gathered_copies(planned(stage=2))) == 0
