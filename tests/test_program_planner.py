"""A program under a strategy: the collectives that follow, found by the planner and written down nowhere else."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from einscale.collectives import FREE
from einscale.errors import LayoutError, StrategyError
from einscale.layout import make_layout
from einscale.mesh import parse_mesh
from einscale.models import load_model
from einscale.planner.planned import PlannedProgram
from einscale.planner.program import plan_program
from einscale.program import Program, backward, parse_program
from einscale.report.causes import cause_words
from einscale.strategy import load_strategy, parse_strategy
from einscale.vocabulary import BACKWARD, FORWARD


def block(name: str = "llama3-8b") -> Program:
    return next(layer.program for layer in load_model(name).layers if layer.kind == "block")


def planned(program: Program, strategy: str, mesh: str, batch: int = 8, sequence: int = 128) -> PlannedProgram:
    sizes = {**dict(program.sizes), "b": batch, "s": sequence, "t": sequence}
    chosen = parse_strategy(strategy) if "\n" in strategy else load_strategy(strategy)
    whole = backward(program, fused=frozenset({"attention"}))
    return plan_program(whole, chosen, parse_mesh(mesh), sizes)


def moved(plan: PlannedProgram, phase: str, kind: str = "activation") -> list[tuple[str, tuple[str, ...], str]]:
    """(collective, axes, tensor) of a phase for one kind of value: parameters, their gradients, or the rest."""
    table = plan.program.table
    found = []
    for row in plan.statements:
        for step in row.collectives:
            value = table.get(step.tensor.name)
            root = table.get(value.of, value) if value is not None and value.of else value
            if value is None:
                this = "statistic"
            elif root is not None and root.kind == "parameter":
                this = "parameter" if value is root else "gradient"
            else:
                this = "activation"
            if row.phase == phase and this == kind and step.kind not in FREE:
                found.append((step.kind, step.axes, step.tensor.name))
    return found


def kinds(moves: list[tuple[str, tuple[str, ...], str]]) -> Counter[tuple[str, tuple[str, ...]]]:
    return Counter((kind, axes) for kind, axes, _ in moves)


def parameters(program: Program) -> list[str]:
    return [value.name for value in program.parameters]


@pytest.mark.parametrize("model", ["llama3-8b", "gpt3-175b"])
def test_megatron_needs_two_all_reduces_forward_and_two_backward(model: str) -> None:
    plan = planned(block(model), "megatron", "model=8")
    assert kinds(moved(plan, FORWARD)) == {("all-reduce", ("model",)): 2}
    assert kinds(moved(plan, BACKWARD)) == {("all-reduce", ("model",)): 2}


@pytest.mark.parametrize("model", ["llama3-8b", "gpt3-175b"])
def test_sequence_parallel_turns_each_all_reduce_into_a_pair(model: str) -> None:
    plan = planned(block(model), "megatron-sp", "model=8")
    pairs = {("all-gather", ("model",)): 2, ("reduce-scatter", ("model",)): 2}
    assert kinds(moved(plan, FORWARD)) == pairs
    # Backward has the pairs of the gradients, and gathers the two saved inputs of the column-parallel weights again
    # (Korthikanti et al. 2022, section 4.2.2).
    assert kinds(moved(plan, BACKWARD)) == {("all-gather", ("model",)): 4, ("reduce-scatter", ("model",)): 2}


def test_data_parallel_is_one_all_reduce_a_parameter() -> None:
    program = block()
    plan = planned(program, "dp", "data=8")
    assert moved(plan, FORWARD) == moved(plan, FORWARD, "parameter") == moved(plan, BACKWARD) == []
    assert kinds(moved(plan, BACKWARD, "gradient")) == {("all-reduce", ("data",)): len(parameters(program))}


def test_fsdp_gathers_every_parameter_in_each_phase_and_scatters_every_gradient() -> None:
    program = block()
    plan = planned(program, "fsdp", "data=8")
    for phase in (FORWARD, BACKWARD):
        gathered = [tensor for kind, axes, tensor in moved(plan, phase, "parameter") if kind == "all-gather"]
        assert sorted(gathered) == sorted(parameters(program))
        assert kinds(moved(plan, phase, "parameter")) == {("all-gather", ("data",)): len(parameters(program))}
    assert kinds(moved(plan, BACKWARD, "gradient")) == {("reduce-scatter", ("data",)): len(parameters(program))}
    assert moved(plan, FORWARD) == moved(plan, BACKWARD) == []


def test_fsdp_that_keeps_what_it_gathered_gathers_once() -> None:
    kept = 'name = "kept"\n[compute]\nb = "data"\n[store.parameters]\nd = "data"\n"*" = "data"\n[policy]\n'
    plan = planned(block(), kept + "reshard_after_forward = false\n", "data=8")
    assert moved(plan, BACKWARD, "parameter") == []
    assert len(moved(plan, FORWARD, "parameter")) == len(parameters(block()))


def test_the_input_gradients_of_q_k_and_v_are_added_before_they_are_reduced_once() -> None:
    plan = planned(block(), "megatron", "model=8")
    reduced = [tensor for kind, _, tensor in moved(plan, BACKWARD) if kind == "all-reduce"]
    makers = {row.statement.output: row.statement.op for row in plan.statements}
    assert [makers[name] for name in reduced] == ["add", "add"]


def test_a_value_is_gathered_once_a_phase_for_all_its_readers() -> None:
    plan = planned(block(), "megatron-sp", "model=8")
    for phase in (FORWARD, BACKWARD):
        gathered = [(kind, tensor) for kind, _, tensor in moved(plan, phase)]
        assert len(gathered) == len(set(gathered))


def test_both_together_divide_every_parameter_over_both_axes() -> None:
    plan = planned(block(), "fsdp+tp", "data=4,model=8")
    weights = [value for value in plan.program.parameters if len(value.axes) > 1]
    for value in weights:
        assert set(plan.resting[value.name].axes) == {"data", "model"}
    assert kinds(moved(plan, FORWARD)) == {("all-gather", ("model",)): 2, ("reduce-scatter", ("model",)): 2}


def test_more_devices_than_kv_heads_repeat_keys_and_values_and_pad_nothing() -> None:
    plan = planned(block(), "megatron", "model=32")  # 8 kv heads x 4 query heads each
    assert plan.resting["wk"].axes == ("model:(1)8",)
    assert plan.resting["wq"].axes == ("model:(1)8", "model:(8)4")
    assert kinds(moved(plan, FORWARD)) == {("all-reduce", ("model",)): 2}
    # The gradients of k and v come from all the queries that share them.
    assert kinds(moved(plan, BACKWARD)) == {("all-reduce", ("model",)): 2, ("all-reduce", ("model:(8)4",)): 2}


def test_a_divided_axis_that_a_map_reduces_costs_all_reduces_of_the_statistic() -> None:
    strategy = 'name = "2d"\n[compute]\nd = "x"\nf = "y"\n'
    plan = planned(block(), strategy, "x=2,y=2")
    statistics = moved(plan, FORWARD, "statistic")
    assert kinds(statistics) == {("all-reduce", ("x",)): 2}
    steps = [step for row in plan.statements if row.phase == FORWARD for step in row.statistics]
    assert all(step.tensor.dtype == "fp32" and step.tensor.indices == ("b", "s") for step in steps)
    assert all("needs the sum over `d`, which is divided over x" in cause_words(step.cause) for step in steps)


def test_a_vocabulary_sharded_table_leaves_a_sum_to_reduce() -> None:
    model = load_model("llama3-8b")
    embedding = next(layer.program for layer in model.layers if layer.kind == "embedding")
    megatron = planned(embedding, "megatron", "model=8")
    assert kinds(moved(megatron, FORWARD)) == {("all-reduce", ("model",)): 1}
    scattered = planned(embedding, "megatron-sp", "model=8")
    assert kinds(moved(scattered, FORWARD)) == {("reduce-scatter", ("model",)): 1}


def test_a_vocabulary_parallel_loss_moves_statistics_and_never_logits() -> None:
    model = load_model("llama3-8b")
    head = next(layer.program for layer in model.layers if layer.kind == "head")
    plan = planned(head, "megatron", "model=8")
    assert kinds(moved(plan, FORWARD, "statistic")) == {("all-reduce", ("model",)): 3}
    assert moved(plan, FORWARD) == []


def test_every_collective_says_why_it_runs() -> None:
    plan = planned(block(), "fsdp+tp", "data=4,model=8")
    for step in plan.collectives:
        assert step.cause is not None, step
        words = cause_words(step.cause)
        assert f"`{step.tensor.name}`" in words or "parts over" in words, step


def test_a_degree_larger_than_the_dim_is_refused_with_the_largest_that_works() -> None:
    with pytest.raises(StrategyError) as caught:
        planned(block(), "megatron", "model=64")
    assert str(caught.value) == (
        "heads `h` (32) cannot be divided 64 ways over mesh axis model\n"
        "  use at most 32 devices along model, or another rule for `h`"
    )


def test_values_that_owe_less_are_masked_and_reduced_with_the_others() -> None:
    text = """program pair
size f = 8
size h = 4
input x: bf16[b f]
input y: bf16[b h]
param u: bf16[f d]
param w: bf16[h d]
size d = 16
p = einsum("b f, f d -> b d", x, u)
q = einsum("b h, h d -> b d", y, w)
z = add(p, q)
return z
"""
    strategy = parse_strategy('name = "own"\n[compute]\nf = "x/y"\nh = "x"\n')
    program = parse_program(text)
    plan = plan_program(program, strategy, parse_mesh("x=2,y=2"), {**dict(program.sizes), "b": 4})
    assert [(step.kind, step.axes, step.tensor.name) for step in plan.collectives] == [
        ("mask", ("y",), "q"),
        ("all-reduce", ("x", "y"), "z"),
    ]


def test_labels_of_ones_own_follow_the_rules_of_the_axes_they_read() -> None:
    program = parse_program(
        """program renamed
size d = 16
size f = 32
input x: bf16[b d]
param w: bf16[d f]
y = einsum("i j, j k -> i k", x, w)
return y
"""
    )
    strategy = parse_strategy('name = "own"\n[compute]\nb = "x"\n')
    plan = plan_program(program, strategy, parse_mesh("x=2"), {**dict(program.sizes), "b": 8, "i": 8, "k": 32})
    assert plan.statements[0].work.placement == {"i": ("x",), "j": (), "k": ()}
    # The result's axes are called `i` and `k`, of which no rule speaks: it rests whole.
    assert [(step.kind, step.tensor.name) for step in plan.collectives] == [("all-gather", "y")]


def test_a_pinned_layout_is_one_of_its_value() -> None:
    program = block()
    sizes = {**dict(program.sizes), "b": 8, "s": 16, "t": 16}
    strategy = parse_strategy('name = "own"\n[compute]\nb = "x"\n')
    for pins, words in (
        ({"wqq": make_layout([()])}, "a layout is given for `wqq`, which the program does not have"),
        ({"wq": make_layout([()])}, "`wq` has 4 dims and its layout 1"),
        ({"attn_norm": make_layout([("y",)])}, "uses mesh axis `y`, which the mesh x=2 does not have"),
    ):
        with pytest.raises(LayoutError, match=re.escape(words)):
            plan_program(program, strategy, parse_mesh("x=2"), sizes, pins)
