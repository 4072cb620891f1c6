"""The optimizer's step under a strategy: data parallel, ZeRO, FSDP and hybrids are found, not written down."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routed_programs import moe_block

from einscale.collectives import FREE, Collective, check_move, received
from einscale.errors import LayoutError, StrategyError
from einscale.layout import make_layout, shards
from einscale.mesh import parse_mesh
from einscale.models import load_model
from einscale.planner.classes import moved_class
from einscale.planner.deferral import still_owing
from einscale.planner.planned import PlannedProgram, accumulator_layouts
from einscale.planner.program import plan_program
from einscale.planner.update import plan_update
from einscale.precision import parse_precision
from einscale.price.memory import undivided_states
from einscale.program import Program, backward
from einscale.program.optimizers import OPTIMIZERS
from einscale.program.typed import typed
from einscale.program.update import gradient_names, update_program
from einscale.strategy import (
    Strategy,
    bind_strategy,
    list_strategies,
    load_strategy,
    parse_strategy,
    replicas,
    with_zero,
)
from einscale.vocabulary import BACKWARD

BF16 = parse_precision("bf16")

EXPERTS = """
name = "experts"
[compute]
"experts:e" = "expert"
b = ["data", "expert"]
h = "model"
"""


def block(model: str = "llama3-8b", kind: str = "block") -> Program:
    return load_model(model).layer(kind).program


def both(
    program: Program,
    strategy: Strategy | str,
    mesh: str,
    optimizer: str = "adamw",
    precision: str = "bf16",
    batch: int = 64,
) -> tuple[PlannedProgram, PlannedProgram]:
    """Forward and backward of a microbatch, and the step."""
    chosen = parse_precision(precision)
    whole = typed(backward(program, fused=frozenset({"attention"})), chosen)
    sizes = {**dict(program.sizes), "b": batch, "s": 512, "t": 512}
    strategy = load_strategy(strategy) if isinstance(strategy, str) else strategy
    planned = plan_program(whole, strategy, parse_mesh(mesh), sizes, deferred=True)
    return planned, plan_update(planned, update_program(whole, optimizer, chosen))


def moves(planned: PlannedProgram, what: str) -> list[Collective]:
    """Moves of one class that send something."""
    return [
        step
        for step in planned.collectives
        if step.kind not in FREE and moved_class(planned.program, step.tensor.name) == what
    ]


def kinds(planned: PlannedProgram, what: str) -> Counter[tuple[str, tuple[str, ...], str]]:
    return Counter((step.kind, step.axes, step.tensor.dtype) for step in moves(planned, what))


def sent(planned: PlannedProgram, what: str) -> int:
    return sum(int(received(step, planned.sizes, planned.mesh)) for step in moves(planned, what))


def elements(program: Program) -> int:
    sizes = dict(program.sizes)
    total = 0
    for value in program.parameters:
        count = 1
        for axis in value.axes:
            count *= sizes[axis]
        total += count
    return total


COUNT = len(block().parameters)
SIZE = elements(block())


def test_data_parallel_is_one_all_reduce_a_step() -> None:
    planned, step = both(block(), "dp", "data=8")
    assert moves(planned, "gradients") == []
    assert kinds(step, "gradients") == {("all-reduce", ("data",), "fp32"): COUNT}
    assert moves(step, "parameters") == []
    assert sent(step, "gradients") == 2 * 4 * SIZE * 7 // 8


def test_zero_1_scatters_gradients_and_gathers_parameters_once_a_step() -> None:
    planned, step = both(block(), "zero1", "data=8")
    assert moves(planned, "gradients") == moves(planned, "parameters") == []
    assert kinds(step, "gradients") == {("reduce-scatter", ("data",), "fp32"): COUNT}
    assert kinds(step, "parameters") == {("all-gather", ("data",), "bf16"): COUNT}
    assert sent(step, "gradients") == 4 * SIZE * 7 // 8
    assert sent(step, "parameters") == 2 * SIZE * 7 // 8


def test_zero_2_scatters_each_microbatch_and_gathers_once_a_step() -> None:
    planned, step = both(block(), "zero2", "data=8")
    assert kinds(planned, "gradients") == {("reduce-scatter", ("data",), "fp32"): COUNT}
    assert moves(step, "gradients") == []
    assert kinds(step, "parameters") == {("all-gather", ("data",), "bf16"): COUNT}


@pytest.mark.parametrize("strategy", ["fsdp", "zero3"])
def test_fsdp_gathers_in_both_passes_and_moves_nothing_in_the_step(strategy: str) -> None:
    chosen = with_zero(load_strategy("dp"), 3) if strategy == "zero3" else load_strategy(strategy)
    planned, step = both(block(), chosen, "data=8")
    assert kinds(planned, "parameters") == {("all-gather", ("data",), "bf16"): 2 * COUNT}
    assert kinds(planned, "gradients") == {("reduce-scatter", ("data",), "fp32"): COUNT}
    assert step.collectives == ()


def test_mixed_precision_gathers_bf16_and_scatters_fp32() -> None:
    planned, _ = both(block(), "fsdp", "data=8", precision="mixed")
    assert {step.tensor.dtype for step in moves(planned, "parameters")} == {"bf16"}
    assert {step.tensor.dtype for step in moves(planned, "gradients")} == {"fp32"}
    _, step = both(block(), "zero1", "data=8", precision="mixed")
    assert {step.tensor.dtype for step in moves(step, "parameters")} == {"fp32"}  # they rest in fp32


def test_hybrid_fsdp_crosses_pods_with_reduced_shards_once_a_step() -> None:
    planned, step = both(block(), "hsdp", "pod=2,data=4")
    assert kinds(planned, "gradients") == {("reduce-scatter", ("data",), "fp32"): COUNT}
    assert kinds(step, "gradients") == {("all-reduce", ("pod",), "fp32"): COUNT}
    assert sent(step, "gradients") == 2 * 4 * SIZE // 4 // 2
    _, divided = both(block(), with_zero(load_strategy("hsdp"), 1), "pod=2,data=4")
    assert kinds(divided, "gradients") == {("reduce-scatter", ("pod",), "fp32"): COUNT}
    assert kinds(divided, "parameters") == {("all-gather", ("pod",), "bf16"): COUNT}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_model_axis_never_touches_tensor_parallel_parameters(stage: int) -> None:
    planned, step = both(block(), with_zero(load_strategy("megatron"), stage), "data=4,model=8")
    for plan in (planned, step):
        for what in ("gradients", "parameters"):
            assert not [one for one in moves(plan, what) if "model" in one.axes]


def test_sequence_parallel_norms_are_reduced_over_the_model_axis_too() -> None:
    planned, step = both(block(), "megatron-sp", "data=4,model=8")
    over_model = {one.tensor.name: one for one in moves(step, "gradients") if "model" in one.axes}
    assert set(over_model) == {"d_attn_norm", "d_mlp_norm"}
    assert moves(planned, "gradients") == []
    assert accumulator_layouts(planned)["attn_norm"] == make_layout([()], ["data", "model"])
    assert accumulator_layouts(planned)["wq"].unreduced == ("data",)


def test_key_heads_held_twice_have_one_gradient() -> None:
    planned, step = both(block(), "megatron-sp", "data=2,model=16")
    assert accumulator_layouts(planned)["wk"].text(("d", "n", "k")) == "d n/model:(1)8 k {U:data}"
    assert [one.axes for one in moves(step, "gradients") if one.tensor.name == "d_wk"] == [("data",)]


def test_zero_divides_over_context_as_well() -> None:
    strategy = with_zero(load_strategy("megatron-sp+context"), 1)
    _, step = both(block(), strategy, "data=2,context=2,model=4")
    scattered = [one for one in moves(step, "gradients") if one.kind == "reduce-scatter"]
    assert {one.axes for one in scattered} == {("data", "context")}
    assert len(scattered) == COUNT


def test_a_parameter_too_small_to_be_divided_stays_whole() -> None:
    planned, step = both(block("gpt2"), "zero1", "data=1024", batch=1024)
    whole = {one.tensor.name for one in moves(step, "gradients") if one.kind == "all-reduce"}
    assert whole == {f"d_{name}" for name in undivided_states(planned)} != set()
    for name in whole:
        assert all(step.sizes[axis] < 1024 for axis in step.program.table[name].axes)


def moe(stage: int, mesh: str = "data=2,expert=4") -> tuple[PlannedProgram, PlannedProgram]:
    program = moe_block(sizes={"e": 8, "d": 64, "m": 64})
    return both(program, with_zero(parse_strategy(EXPERTS), stage), mesh)


def test_parameters_of_experts_are_reduced_over_data_alone() -> None:
    planned, step = moe(0)
    over = {one.tensor.name: set(one.axes) for one in moves(step, "gradients")}
    assert {over[name] == {"data"} for name in ("d_w_gate", "d_w_up", "d_w_down")} == {True}
    assert over["d_w_router"] == over["d_norm"] == {"data", "expert"}
    assert not [one for one in moves(planned, "gradients") if one.tensor.name.startswith("d_w_")]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_divides_parameters_of_experts_over_what_is_left(stage: int) -> None:
    planned, step = moe(stage)
    assert planned.optimizer["w_up"].text(("e", "d", "m")) == "e/expert d/data m"
    assert planned.optimizer["w_router"].text(("d", "e")) == "d/data/expert e"
    gathered = moves(planned if stage == 3 else step, "parameters")
    over = {one.tensor.name.removesuffix("_new"): set(one.axes) for one in gathered}
    assert over["w_up"] == {"data"}
    assert over["w_router"] == {"data", "expert"}


def test_a_tied_table_is_reduced_once() -> None:
    model = load_model("gpt2")
    embedding, head = model.layer("embedding").program, model.layer("head").program
    tied = head.tied[0]
    planned, step = both(head, "dp", "data=8")
    assert tied not in accumulator_layouts(planned)
    assert not [one for one in (*moves(planned, "gradients"), *moves(step, "gradients")) if tied in one.tensor.name]
    _, step = both(embedding, "dp", "data=8")
    assert [one.kind for one in moves(step, "gradients") if one.tensor.name == f"d_{tied}"] == ["all-reduce"]


def test_without_deferral_the_backward_pass_settles_its_sums() -> None:
    program = backward(block(), fused=frozenset({"attention"}))
    sizes = {**dict(program.sizes), "b": 8, "s": 128, "t": 128}
    now = plan_program(program, load_strategy("dp"), parse_mesh("data=8"), sizes)
    later = plan_program(program, load_strategy("dp"), parse_mesh("data=8"), sizes, deferred=True)
    assert kinds(now, "gradients") == {("all-reduce", ("data",), "bf16"): COUNT}
    assert moves(later, "gradients") == []
    others = [row.work for row in later.statements if row.statement.phase != BACKWARD]
    assert others == [row.work for row in now.statements if row.statement.phase != BACKWARD]


def test_plan_program_plans_a_step_from_the_layouts_it_is_given() -> None:
    for strategy in ("dp", "zero1", "zero2", "fsdp", "hsdp"):
        mesh = "pod=2,data=4" if strategy == "hsdp" else "data=8"
        planned, step = both(block(), strategy, mesh)
        pinned = {f"d_{name}": layout for name, layout in accumulator_layouts(planned).items()}
        chosen, sizes = load_strategy(strategy), planned.sizes
        again = plan_program(update_program(planned.program, "adamw", BF16), chosen, planned.mesh, sizes, pinned)
        assert again.statements == step.statements
        assert again.resting == step.resting


def test_a_step_of_experts_rests_where_their_scoped_rules_say() -> None:
    planned, step = moe(1)
    pinned = {f"d_{name}": layout for name, layout in accumulator_layouts(planned).items()}
    strategy = with_zero(parse_strategy(EXPERTS), 1)
    update = update_program(planned.program, "adamw", BF16)
    assert plan_program(update, strategy, planned.mesh, planned.sizes, pinned).resting == step.resting


def test_a_layout_for_what_the_step_does_not_have_is_an_error() -> None:
    planned, _ = both(block(), "dp", "data=8")
    update = update_program(planned.program, "adamw", BF16)
    with pytest.raises(LayoutError, match="a layout is given for `d_wx`"):
        plan_program(update, load_strategy("dp"), planned.mesh, planned.sizes, {"d_wx": make_layout([("data",), ()])})


def test_muon_gathers_the_momentum_of_whole_matrices() -> None:
    _, step = both(block(), with_zero(load_strategy("megatron"), 1), "data=4,model=2", "muon")
    gathered = {one.tensor.name: one for one in moves(step, "optimizer")}
    assert set(gathered) == {f"{name}_momentum_ahead" for name in ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")}
    assert {(one.kind, one.tensor.dtype, one.after.axes) for one in gathered.values()} == {("all-gather", "bf16", ())}
    _, alone = both(block(), "dp", "data=8", "muon")
    assert moves(alone, "optimizer") == []


def test_muon_keeps_experts_where_they_are() -> None:
    program = moe_block(sizes={"e": 8, "d": 64, "m": 64})
    _, step = both(program, with_zero(parse_strategy(EXPERTS), 1), "data=2,expert=4", "muon")
    gathered = {one.tensor.name: one.after.text(one.tensor.indices) for one in moves(step, "optimizer")}
    assert gathered["w_up_momentum_ahead"] == "e/expert d m"


def test_adafactor_adds_up_its_factors_where_their_axes_are_divided() -> None:
    _, step = both(block(), with_zero(load_strategy("megatron"), 1), "data=4,model=2", "adafactor")
    row = next(row for row in step.statements if row.statement.output == "w_up_new")
    sums = [(one.tensor.indices, one.axes) for one in row.statistics]
    assert sums == [(("d",), ("model",)), (("f",), ("data",)), ((), ("data", "model"))]
    _, whole = both(block(), "dp", "data=8", "adafactor")
    assert all(row.statistics == () for row in whole.statements)


MESHES = {"pod": 2, "data": 2, "expert": 2, "context": 2, "model": 2, "x": 2, "y": 2}


@settings(max_examples=60, deadline=None)
@given(
    strategy=st.sampled_from([strategy.name for strategy in list_strategies()]),
    stage=st.integers(0, 3),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    precision=st.sampled_from(["bf16", "mixed", "fp8-deepseek"]),
)
def test_every_step_starts_where_backward_ends_and_leaves_parameters_at_rest(
    strategy: str, stage: int, optimizer: str, precision: str
) -> None:
    chosen = with_zero(load_strategy(strategy), stage)
    mesh = ",".join(f"{role}={MESHES[role]}" for role in MESHES if role in chosen.roles)
    planned, step = both(block(), chosen, mesh, optimizer, precision)
    rested = accumulator_layouts(planned)
    for one in step.collectives:
        check_move(one, step.mesh)
    for row in step.statements:
        for move in row.before:
            if move.tensor.name.startswith("d_") and move.before.unreduced:
                assert move.before == rested[move.tensor.name.removeprefix("d_")] or move.kind == "all-reduce"
        of = step.program.table[row.statement.output].of or ""
        if step.program.table[row.statement.output].kind == "updated":
            ends = row.after[-1].after if row.after else row.work.output_layouts[0]  # type: ignore[union-attr]
            assert ends == planned.resting[of]
        assert all(not layout.unreduced for layout in row.work.layouts)
    assert {step.program.table[row.statement.output].of for row in step.statements} == set(rested)


@settings(max_examples=40, deadline=None)
@given(strategy=st.sampled_from([s.name for s in list_strategies() if s.name not in ("2d",)]), stage=st.integers(1, 3))
def test_a_stage_divides_what_its_replicas_repeat(strategy: str, stage: int) -> None:
    chosen = with_zero(load_strategy(strategy), stage)
    mesh = ",".join(f"{role}={MESHES[role]}" for role in MESHES if role in chosen.roles)
    planned, _ = both(block(), chosen, mesh)
    live = [axis for axis in replicas(load_strategy(strategy)) if axis in planned.mesh.degrees]
    wanted = int(shards(live, planned.mesh.degrees))
    for name, layout in planned.optimizer.items():
        ways = shards([axis for axis in layout.axes if axis in live], planned.mesh.degrees)
        assert ways == wanted, name


def test_zero_keeps_what_a_strategy_divides_already() -> None:
    fsdp = load_strategy("fsdp+tp")
    assert with_zero(fsdp, 3).store_rules("optimizer")[:2] == fsdp.store_rules("parameters")
    assert with_zero(fsdp, 0) is fsdp
    own = parse_strategy('[compute]\nb = "data"\n[store.optimizer]\nf = "data"\n')
    assert [str(rule) for rule in with_zero(own, 1).store_rules("optimizer")] == ["f -> data", "d -> data", "* -> data"]


def test_zero_is_bound_and_expected_like_any_strategy() -> None:
    strategy = with_zero(load_strategy("megatron-sp"), 1)
    assert strategy.name == "megatron-sp+zero1"
    assert "reduce-scatter data gradients" in (strategy.expect or ())
    bound = bind_strategy(strategy, parse_mesh("dp=4,tp=2"))
    assert bound.store_rules("optimizer")[0].axes == ("dp",)
    assert with_zero(parse_strategy('[compute]\nb = "data"\n'), 1).expect is None


@pytest.mark.parametrize("stage", [4, -1, True])
def test_zero_has_three_stages(stage: int) -> None:
    with pytest.raises(StrategyError, match="ZeRO has no stage"):
        with_zero(load_strategy("dp"), stage)


def test_zero_needs_something_that_divides_the_batch() -> None:
    with pytest.raises(StrategyError, match="divides neither batch nor sequence"):
        with_zero(parse_strategy('[compute]\nh = "model"\n'), 1)


def test_parts_of_an_axis_are_settled_only_where_they_divide() -> None:
    owing = make_layout([(), ()], ["data", "model:(8)2"])
    assert still_owing(owing, make_layout([("model:(1)8",), ()])).unreduced == ("data", "model:(8)2")
    assert still_owing(owing, make_layout([("model",), ()])).unreduced == ("data",)
    assert still_owing(owing, make_layout([("model:(4)4",), ("data",)])).unreduced == ()


def test_every_parameter_has_one_gradient() -> None:
    for kind in ("embedding", "block", "head"):
        program = backward(block(kind=kind))
        assert set(gradient_names(program)) == {value.name for value in program.parameters}


def test_a_step_of_a_forward_program_has_the_gradients_of_its_precision() -> None:
    table = update_program(block(), "adamw", parse_precision("bf16")).table
    assert table["d_wq"].dtype == "fp32"
    assert table["wq_master"].dtype == "fp32"
    assert table["wq_new"].dtype == "bf16"
    assert "wq_master" not in update_program(block(), "adamw", parse_precision("mixed")).table
