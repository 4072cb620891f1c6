"""Routed tensors and mixtures of experts: what exists of a value, its numbers, its prices and its moves."""

from __future__ import annotations

import json
import re
from collections import Counter
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import check_gradients, random_arrays, run
from routed_programs import moe_block
from test_program_soundness import check_statement

import einscale
from einscale.collectives import ALL_TO_ALL, FREE, Collective, received, received_by_degrees
from einscale.einsum import einsum_flops
from einscale.errors import NotationError, ProgramError
from einscale.expert_spread import expected_blocks
from einscale.hardware import load_system
from einscale.layout import Tensor, local_bytes, local_elements, make_layout
from einscale.mesh import parse_mesh
from einscale.models import load_model
from einscale.planner.planned import PlannedProgram
from einscale.planner.program import plan_program
from einscale.price.memory import peak, saved_activations
from einscale.price.program import bound_bytes, bound_ratio, price_collectives
from einscale.program import Program, backward, differentiate, parse_program, print_program, program_sizes
from einscale.program.routed import routing_of
from einscale.program.trace import arrange, combine, dispatch, einsum, mul, route, trace
from einscale.report.causes import cause_words
from einscale.steps import LocalEinsum, LocalMap, step_flops, untouched, work_flops, work_traffic
from einscale.strategy import default_strategy, load_strategy, parse_strategy
from einscale.topology import bind, explain_step, level_counts, step_seconds
from einscale.vocabulary import FORWARD

BLOCKS = {
    "softmax over the chosen": {},
    "softmax over all": {"normalise": False},
    "sigmoid": {"scoring": "sigmoid", "factor": 2.5},
    "sigmoid that is not normalised": {"scoring": "sigmoid", "normalise": False, "top": 1},
    "node-limited": {"groups": 4, "top_groups": 2, "top": 3},
    "biases": {"bias": True},
    "weights before the second product": {"weigh_first": True},
    "shared expert": {"shared": True},
    "capacity": {"capacity": 1.5},
    "choice by a bias": {"choice": True, "top": 3},
}


# Numbers


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    program = moe_block(**BLOCKS[name], dtype="fp32")
    gradients = differentiate(program)
    checked, _ = check_gradients(program, gradients, {"b": 2, "s": 3}, directions=1)
    assert set(checked) == {"x", *(value.name for value in program.parameters)}


@pytest.mark.parametrize("name", ["softmax over the chosen", "biases", "node-limited"])
def test_recomputing_the_experts_changes_no_gradient(name: str) -> None:
    plain = differentiate(moe_block(**BLOCKS[name]))
    again = differentiate(moe_block(**BLOCKS[name]), frozenset({"experts", "routing"}))
    arrays, sizes = random_arrays(plain.program, {"b": 2, "s": 3})
    first, second = run(plain.program, arrays, sizes), run(again.program, arrays, sizes)
    for (_, one), (_, other) in zip(plain.gradients, again.gradients, strict=True):
        assert (first[one] == second[other]).all()


def test_the_block_computes_what_a_loop_over_the_experts_of_each_token_does() -> None:
    program = moe_block(top=3, bias=True)
    arrays, sizes = random_arrays(program, {"b": 2, "s": 4})
    values = run(program, arrays, sizes)
    result = arrays["x"].copy()
    for b, s in np.ndindex(2, 4):
        h = values["h"][b, s]
        logits = h @ arrays["w_router"]
        best = np.argsort(-logits)[:3]
        weights = np.exp(logits[best]) / np.exp(logits[best]).sum()
        for expert, weight in zip(best, weights, strict=True):
            gate = h @ arrays["w_gate"][expert] + arrays["gate_bias"][expert]
            up = h @ arrays["w_up"][expert]
            made = (gate / (1 + np.exp(-gate)) * up) @ arrays["w_down"][expert] + arrays["down_bias"][expert]
            result[b, s] += weight * made
    np.testing.assert_allclose(values["out"], result, rtol=1e-12, atol=1e-12)


# What exists


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_prints_and_parses_back(name: str) -> None:
    program = moe_block(**BLOCKS[name])
    for one in (program, backward(program), backward(program, frozenset({"experts"}))):
        assert parse_program(print_program(one)) == one


def test_what_is_chosen_follows_from_the_statements() -> None:
    table = backward(moe_block(top=3, bias=True)).table
    routed = {name for name, value in table.items() if value.chosen}
    assert {value.chosen for value in table.values()} == {(), (("e", 3),)}
    experts = {"sent", "rows", "gate", "up", "hidden", "made", "biased", "weighed"}
    assert experts | {"gates"} <= routed
    assert {f"d_{name}" for name in experts - {"sent", "made", "gate"}} <= routed  # an addition passes these on
    dense = {"logits", "d_logits", "routed", "d_w_gate", "d_w_down", "d_gate_bias", "d_down_bias", "w_gate", "h"}
    assert not dense & routed


def test_a_capacity_pads_rows_and_gradients_alike() -> None:
    table = backward(moe_block(top=2, capacity=1.25)).table
    assert table["gates"].chosen == (("e", 2),)
    assert table["sent"].chosen == table["weighed"].chosen == table["d_weighed"].chosen == (("e", 2.5),)
    assert moe_block(top=4, capacity=1.25).table["sent"].chosen == (("e", 5),)


def test_a_declaration_may_say_what_is_chosen() -> None:
    program = trace(
        lambda x, w: einsum("e b d, e d m -> e b m", x, w, name="y"),
        {"x": "bf16[e:2 b d]"},
        {"w": "bf16[e d m]"},
        name="one",
    )
    assert program.table["y"].chosen == (("e", 2),)
    assert "input x: bf16[e:2 b d]" in print_program(program)
    assert parse_program(print_program(program)) == program
    assert str(program.table["y"]) == "y: bf16[e:2 b m]"


def test_a_written_type_keeps_what_is_chosen() -> None:
    text = (
        'input x: bf16[e:2 b d]\nparam w: bf16[e d m]\ny: fp32[e b m] = einsum("e b d, e d m -> e b m", x, w)\nreturn y'
    )
    assert parse_program(text).table["y"].chosen == (("e", 2),)


ROUTED = "input x: bf16[b d]\ninput z: bf16[b e]\n"
FAULTS = [
    ("g = route(z, axis=e, top=2, scoring=tanh)", "route has no scoring `tanh`"),
    ("g = route(z, axis=f, top=2, scoring=softmax)", "route works along axis `f`, which `z` [b e] has not"),
    ("g = route(z, axis=e, top=0, scoring=softmax)", "option `top` of route must be a whole number from 1, not 0"),
    ("g = route(z, axis=e, top=1.5, scoring=softmax)", "option `top` of route must be a whole number from 1, not 1.5"),
    ("g = route(z, axis=e, top=two, scoring=softmax)", "option `top` of route must be a number, not two"),
    ("g = route(z, axis=e, top=9, scoring=softmax)", "route takes the top 9 of `e`, which has 8"),
    ("g = route(z, axis=e, top=2, scoring=softmax, groups=3, top_groups=2)", "`e` of 8 is not divided into 3 groups"),
    (
        "g = route(z, axis=e, top=5, scoring=softmax, groups=4, top_groups=2)",
        "route takes the top 5 of `e`, but 2 of 4 groups have 4",
    ),
    (
        "g = route(z, axis=e, top=2, scoring=softmax, groups=2, top_groups=4)",
        "route takes experts from 4 of 2 groups",
    ),
    ("g = route(z, x, axis=e, top=2, scoring=softmax)", "route along [e] takes a bias of these axes, not x: bf16[b d]"),
    ("g = dispatch(x, z, axis=e)", "dispatch along `e`, of which `z` chooses nothing"),
    ("g = dispatch(z, z, axis=e)", "dispatch along `e`, which `z` [b e] has already"),
    ("g = combine(z, axis=e)", "combine sums what is chosen of `e`, but `z` has all of it"),
    ("g: bf16[b e:x] = add(z, z)", "the number of elements chosen of `e` must be larger than 0"),
]


@pytest.mark.parametrize(("line", "words"), FAULTS)
def test_faults_are_said_in_words(line: str, words: str) -> None:
    with pytest.raises((ProgramError, NotationError)) as caught:
        parse_program(f"size e = 8\n{ROUTED}{line}\nreturn g")
    assert words in str(caught.value)
    assert "line 4" in str(caught.value)


def test_faults_of_dispatch_name_the_operand() -> None:
    header = "size e = 8\ninput x: bf16[d]\ninput z: bf16[b e]\ng = route(z, axis=e, top=2, scoring=softmax)\n"
    with pytest.raises(ProgramError, match=re.escape("dispatch works along axis `b`, which `x` [d] has not")):
        parse_program(header + "y = dispatch(x, g, axis=e)\nreturn y")
    fine = header.replace("x: bf16[d]", "x: bf16[b d]")
    with pytest.raises(ProgramError, match=re.escape("option `capacity` of dispatch must be at least 1, not 0.5")):
        parse_program(fine + "y = dispatch(x, g, axis=e, capacity=0.5)\nreturn y")
    with pytest.raises(NotationError, match="`x` is not a number of elements"):
        trace(lambda x: mul(x, x), {"x": "bf16[e:x b]"})


def test_the_choice_is_found_through_what_was_made_of_it() -> None:
    program = backward(moe_block(groups=4, top_groups=2, top=3, capacity=2))
    for name in ("weighed", "d_made", "d_rows"):
        routing = routing_of(name, "e", program)
        assert routing is not None
        assert (routing.gates, routing.top, routing.groups, routing.top_groups) == ("gates", 3, 4, 2)
    assert routing_of("sent", "e", program).padded  # type: ignore[union-attr]
    assert not routing_of("gates", "e", program).padded  # type: ignore[union-attr]
    assert routing_of("x", "e", program) is None


# Elements, FLOPs, traffic


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 2, 3, 8]),
    st.sampled_from([1, 2, 4]),
    st.data(),
)
def test_a_device_holds_its_even_share_of_what_is_chosen(
    e: int, b: int, ways: int, more: int, data: st.DataObject
) -> None:
    top = data.draw(st.integers(1, e))
    tensor, layout = Tensor("x", ("e", "b"), "bf16", (("e", top),)), make_layout([("x",), ("y",)])
    sizes, degrees = {"e": e, "b": b}, {"x": ways, "y": more}
    local = -(-e // ways) * -(-b // more)
    exact = -(-local * top // e)
    assert local_elements(layout, tensor.indices, sizes, degrees, tensor.chosen) == exact
    assert local_bytes(tensor, layout, sizes, degrees) == 2 * exact
    arrays = {name: np.array([float(size)]) for name, size in degrees.items()}
    assert local_bytes(tensor, layout, sizes, arrays)[0] == 2 * exact


EP = 'name = "ep"\n[compute]\n"experts:e" = "expert"\nb = ["data", "expert"]\n'
WHOLE = 'name = "whole"\n[compute]\ne = "model"\nb = "data"\n'
GATHERED = 'name = "gathered"\n[compute]\n"routing:e" = "expert"\n"experts:e" = "expert"\nb = ["data", "expert"]\n'
BIG = {"e": 64, "d": 256, "m": 128}


def planned(strategy: str, mesh: str, program: Program | None = None, b: int = 64, s: int = 32) -> PlannedProgram:
    whole = backward(program or moe_block(top=8, sizes=BIG))
    chosen = parse_strategy(strategy) if "\n" in strategy else load_strategy(strategy)
    return plan_program(whole, chosen, parse_mesh(mesh), program_sizes(whole, {"b": b, "s": s}))


def moved(plan: PlannedProgram, phase: str = "") -> list[tuple[str, tuple[str, ...], str]]:
    """(collective, axes, tensor) of every move that sends something."""
    return [
        (step.kind, step.axes, step.tensor.name)
        for row in plan.statements
        if not phase or row.phase == phase
        for step in row.collectives
        if step.kind not in FREE
    ]


def work_of(plan: PlannedProgram, name: str) -> LocalEinsum | LocalMap:
    return next(row.work for row in plan.statements if row.statement.output == name)


MESHES = {
    "ep": (EP, "data=2,expert=8"),
    "megatron-sp": ("megatron-sp", "data=2,expert=4,model=4"),
    "megatron-sp+etp": ("megatron-sp+etp", "data=2,expert=4,model=4"),
    "fsdp": ("fsdp", "data=4,expert=8"),
    "gathered": (GATHERED, "data=2,expert=4"),
    "whole": (WHOLE, "data=2,model=8"),
}


@pytest.mark.parametrize("name", MESHES)
def test_experts_spend_six_flops_for_each_active_weight_and_token(name: str) -> None:
    plan = planned(*MESHES[name])
    tokens, weights = 64 * 32, 3 * BIG["d"] * BIG["m"]
    flops = sum(
        int(work_flops(row.work, plan.sizes, plan.mesh.degrees))
        for row in plan.statements
        if isinstance(row.work, LocalEinsum) and row.statement.group == "experts"
    )
    assert flops * plan.mesh.devices == 6 * tokens * 8 * weights


def test_a_weight_gradient_spends_the_flops_of_the_chosen_rows_and_is_dense() -> None:
    plan = planned(EP, "data=2,expert=8")
    work = work_of(plan, "d_w_gate")
    assert isinstance(work, LocalEinsum)
    assert not work.output.chosen
    # Of 64 experts, 8 to a device; the tokens of a data-parallel half, each counted for 8 of 64 experts.
    assert step_flops(work, plan.sizes, plan.mesh.degrees) == 2 * 8 * (32 * 32) * 256 * 128 * 8 // 64


def test_flops_of_arrays_are_those_of_scalars() -> None:
    plan = planned(EP, "data=2,expert=8")
    network = {"data": np.array([2.0, 4.0]), "expert": np.array([8.0, 4.0])}
    for row in plan.statements:
        for k in range(2):
            degrees = {name: int(size[k]) for name, size in network.items()}
            scalar = work_flops(row.work, plan.sizes, degrees), work_traffic(row.work, plan.sizes, degrees)
            arrays = work_flops(row.work, plan.sizes, network), work_traffic(row.work, plan.sizes, network)
            for one, many in zip(scalar, arrays, strict=True):
                value = np.broadcast_to(many, 2)[k]
                assert value == pytest.approx(one, rel=1e-9, abs=1)


def test_a_few_tokens_read_the_weights_of_the_experts_they_chose() -> None:
    plan = planned(EP, "expert=8", b=8, s=1)
    work = work_of(plan, "gate")
    weights = next(tensor for tensor in work.inputs if tensor.name == "w_gate")
    layout = work.layouts[work.inputs.index(weights)]
    held = 8 * 256 * 128 * 2
    missed = int(held * (1 - 8 / 64) ** 8)
    assert untouched(work, weights, layout, plan.sizes, plan.mesh.degrees) == missed
    rows, made = 8 * 256 * 2, 8 * 128 * 2  # 8 tokens x 8 of 64 experts, an eighth of them here
    assert work_traffic(work, plan.sizes, plan.mesh.degrees) == rows + made + held - missed
    many = planned(EP, "expert=8", b=64, s=512)
    assert untouched(work_of(many, "gate"), weights, layout, many.sizes, many.mesh.degrees) == 0


def test_a_dense_einsum_reads_all_it_is_given() -> None:
    plan = planned(EP, "data=2,expert=8")
    work = work_of(plan, "logits")
    assert all(
        untouched(work, *pair, plan.sizes, plan.mesh.degrees) == 0
        for pair in zip(work.inputs, work.layouts, strict=True)
    )


# Moves


def test_expert_parallel_sends_rows_to_their_experts_and_back() -> None:
    plan = planned(EP, "data=2,expert=8")
    a2a = (ALL_TO_ALL, ("expert",))
    assert moved(plan, FORWARD) == [(*a2a, "sent"), (*a2a, "gates"), (*a2a, "weighed")]
    dispatched, arranged = plan.resting["sent"], plan.resting["rows"]
    assert dispatched.text(("e", "b", "s", "d")) == "e b/data/expert s d"
    assert arranged.text(("e", "b", "s", "d")) == "e/expert b/data s d"
    backward_moves = moved(plan, "backward")
    sent = [name for kind, _, name in backward_moves if kind == ALL_TO_ALL]
    assert sent == ["d_weighed", "gates", "d_gates", "d_rows"]


def test_gradients_of_experts_are_reduced_over_data_alone_and_others_over_both() -> None:
    plan = planned(EP, "data=2,expert=8")
    reduced = {name: axes for kind, axes, name in moved(plan) if kind == "all-reduce"}
    assert reduced == {
        **{f"d_w_{name}": ("data",) for name in ("gate", "up", "down")},
        "d_w_router": ("data", "expert"),
        "d_norm": ("data", "expert"),
    }
    assert plan.resting["w_gate"].text(("e", "d", "m")) == "e/expert d m"


def test_fsdp_divides_experts_over_data_and_the_rest_over_both() -> None:
    plan = planned("fsdp", "data=4,expert=8")
    assert plan.resting["w_gate"].text(("e", "d", "m")) == "e/expert d/data m"
    assert plan.resting["w_router"].text(("d", "e")) == "d/data/expert e"
    scattered = {name: axes for kind, axes, name in moved(plan) if kind == "reduce-scatter"}
    assert scattered["d_w_gate"] == ("data",)
    assert scattered["d_w_router"] == ("data", "expert")
    gathered = Counter(name for kind, _, name in moved(plan) if kind == "all-gather" and name.startswith("w_"))
    # The gradients of the router's weights and of gate and up read no weights but their own operands.
    assert gathered == {"w_router": 2, "w_gate": 2, "w_up": 2, "w_down": 2}


def test_tokens_that_every_device_has_are_sliced_and_their_results_reduced() -> None:
    plan = planned(WHOLE, "model=8")
    forward = [str(step) for row in plan.statements if row.phase == FORWARD for step in row.collectives]
    assert forward == [
        "all-gather(model) logits: b s e/model -> b s e",
        "slice(model) gates: b s e -> b s e/model",
        "all-reduce(model) routed: b s d {U:model} -> b s d",
    ]
    # The gradients of the router and of the experts with respect to the tokens are added before one reduction.
    assert [name for kind, _, name in moved(plan, "backward") if kind == "all-reduce"] == ["d_h"]


def test_gathered_tokens_need_a_gather_before_and_a_scatter_after() -> None:
    plan = planned(GATHERED, "data=2,expert=4")
    assert ("all-gather", ("expert",), "h") in moved(plan, FORWARD)
    assert ("reduce-scatter", ("expert",), "routed") in moved(plan, FORWARD)
    assert not [step for step in plan.collectives if step.kind == ALL_TO_ALL]


def test_sequence_parallel_ranks_dispatch_their_own_tokens() -> None:
    plan = planned("megatron-sp", "data=2,expert=4,model=4")
    axes = ("e", "b", "s", "d")
    assert plan.resting["sent"].text(axes) == "e b/data/expert s/model d"
    assert plan.resting["rows"].text(axes) == "e/expert/model b/data s d"
    both = (ALL_TO_ALL, ("expert", "model"))
    assert moved(plan, FORWARD) == [(*both, "sent"), (*both, "gates"), (*both, "weighed")]
    reduced = {name: axes for kind, axes, name in moved(plan) if kind == "all-reduce"}
    assert reduced["d_w_up"] == ("data",)


def test_expert_tensor_parallel_gathers_rows_and_scatters_results() -> None:
    plan = planned("megatron-sp+etp", "data=2,expert=4,model=4")
    forward = [str(step) for row in plan.statements if row.phase == FORWARD for step in row.collectives]
    assert forward == [
        "all-to-all(expert) sent: e b/data/expert s/model d -> e/expert b/data s/model d",
        "all-gather(model) rows: e/expert b/data s/model d -> e/expert b/data s d",
        "reduce-scatter(model) made: e/expert b/data s d {U:model} -> e/expert b/data s/model d",
        "all-to-all(expert) gates: b/data/expert s/model e -> b/data s/model e/expert",
        "all-to-all(expert) weighed: e/expert b/data s/model d -> e b/data/expert s/model d",
    ]
    assert plan.resting["w_down"].text(("e", "m", "d")) == "e/expert m/model d"


def test_results_owe_their_sum_until_one_row_of_a_token_is_left() -> None:
    program = moe_block(top=8, sizes=BIG)
    sizes = program_sizes(program, {"b": 64, "s": 32})
    plan = plan_program(program, load_strategy("megatron"), parse_mesh("model=8"), sizes)
    assert [str(step) for step in plan.collectives] == ["all-reduce(model) routed: b s d {U:model} -> b s d"]
    # Where the backward pass reads the results they are reduced before they are weighed: 8 rows of each token.
    assert ("all-reduce", ("model",), "made") in moved(planned("megatron", "model=8"), FORWARD)
    # Weighed before the second product, they are not read again.
    first = planned("megatron", "model=8", moe_block(top=8, sizes=BIG, weigh_first=True))
    assert moved(first, FORWARD) == [("all-reduce", ("model",), "routed")]


def test_a_shared_expert_and_the_router_are_divided_as_ever() -> None:
    plan = planned("megatron-sp", "data=2,expert=4,model=4", moe_block(top=8, sizes=BIG, shared=True))
    assert plan.resting["s_gate"].text(("d", "f")) == "d f/model"
    assert plan.resting["w_router"].text(("d", "e")) == "d e"
    assert ("all-gather", ("model",), "h") in moved(plan, FORWARD)


def test_gradients_of_router_experts_and_shared_expert_are_reduced_together_where_they_can_be() -> None:
    program = moe_block(top=8, sizes=BIG, shared=True, weigh_first=True)
    together = moved(planned("megatron", "expert=4,model=4", program), "backward")
    assert [name for kind, axes, name in together if kind == "all-reduce" and axes == ("model",)] == ["d_gates", "d_h"]
    # Under sequence parallel the routed ones are divided along the sequence already: those of the shared expert alone.
    apart = moved(planned("megatron-sp", "expert=4,model=4", program), "backward")
    scattered = [name for kind, axes, name in apart if kind == "reduce-scatter"]
    assert len(scattered) == 1
    assert scattered[0].startswith("d_h_part")


@pytest.mark.parametrize(
    ("strategy", "mesh"),
    [
        ("dp", "data=2,expert=4"),
        ("zero1", "data=2,expert=4"),
        ("zero2", "data=2,expert=4"),
        ("fsdp", "data=2,expert=4"),
        ("hsdp", "pod=2,data=2,expert=4"),
        ("megatron", "data=2,expert=4,model=4"),
        ("megatron-sp", "data=2,expert=4,model=4"),
        ("megatron-sp+etp", "data=2,expert=4,model=4"),
        ("fsdp+tp", "data=2,expert=4,model=4"),
        ("2d", "data=2,expert=4,x=2,y=4"),
        ("weight-gathered", "data=2,expert=4,model=4"),
        ("context", "data=2,expert=4,context=4"),
        ("ring", "data=2,expert=4,context=4"),
        ("ulysses", "data=2,expert=4,context=4"),
        ("megatron-sp+context", "data=2,expert=4,context=2,model=4"),
    ],
)
@pytest.mark.parametrize(
    "name", ["softmax over the chosen", "biases", "shared expert", "weights before the second product"]
)
def test_every_preset_plans_experts_soundly(strategy: str, mesh: str, name: str) -> None:
    options = {"top": 4, **BLOCKS[name], "sizes": BIG}
    plan = planned(strategy, mesh, moe_block(**options), b=64, s=16)
    check_sound(plan)
    assert {"expert"} <= set(plan.resting["rows"].dims[0]), "experts are divided"


def check_sound(plan: PlannedProgram) -> None:
    at_hand: dict = {}
    for row in plan.statements:
        check_statement(plan, row, at_hand)
    for name in plan.program.outputs:
        assert not plan.resting[name].unreduced


@st.composite
def strategies(draw: st.DrawFn) -> str:
    """Compute rules for experts, tokens and widths over four axes, in any order."""
    axes = st.lists(st.sampled_from(["w", "x", "y", "z"]), min_size=1, max_size=3, unique=True)
    keys = ["experts:e", "routing:e", "e", "b", "s", "routing:s", "experts:m", "d", "experts:d"]
    rules = draw(st.lists(st.sampled_from(keys), min_size=4, max_size=7, unique=True))
    lines = [f'"{key}" = [{", ".join(repr(axis) for axis in draw(axes))}]' for key in rules]
    lines.append('c = ["w", "x", "y", "z"]')  # every axis has a role
    stores = {"residual": "s", "routed": "s", "parameters": "d"}
    for table in draw(st.lists(st.sampled_from(sorted(stores)), unique=True)):
        lines += [f"[store.{table}]", f"{stores[table]} = {draw(axes)!r}".replace("'", '"')]
    return 'name = "drawn"\n[compute]\n' + "\n".join(lines).replace("'", '"') + "\n"


@settings(max_examples=60, deadline=None)
@given(strategies(), st.sampled_from(sorted(BLOCKS)), st.sampled_from(["w=2,x=2,y=2,z=2", "w=1,x=2,y=4,z=1"]))
def test_any_rules_plan_soundly_and_lose_no_work(strategy: str, name: str, mesh: str) -> None:
    program = moe_block(**BLOCKS[name], sizes={"e": 16, "d": 32, "m": 16})
    plan = planned(strategy, mesh, program, b=16, s=16)
    check_sound(plan)
    check_sound(plan_program(program, parse_strategy(strategy), plan.mesh, program_sizes(program, {"b": 16, "s": 16})))
    devices = plan.mesh.devices
    for row in plan.statements:
        if isinstance(row.work, LocalEinsum):
            alone = LocalEinsum(
                row.work.inputs,
                tuple(make_layout([()] * len(tensor.indices)) for tensor in row.work.inputs),
                row.work.output,
                make_layout([()] * len(row.work.output.indices)),
            )
            whole = step_flops(alone, plan.sizes, {})
            assert step_flops(row.work, plan.sizes, plan.mesh.degrees) * devices >= whole
    for step in plan.collectives:
        if step.distinct:
            naive = Collective(step.kind, step.tensor, step.axes, step.before, step.after)
            assert received(step, plan.sizes, plan.mesh) <= received(naive, plan.sizes, plan.mesh)


# Bytes and times of the moves


@pytest.mark.parametrize("ways", [2, 4, 8, 16])
@pytest.mark.parametrize("top", [1, 2, 8])
def test_an_all_to_all_moves_a_row_for_each_device_that_has_an_expert_of_the_token(ways: int, top: int) -> None:
    plan = planned(EP, f"expert={ways}", moe_block(top=top, sizes=BIG))
    rows, tokens = 256 * 2, 64 * 32 // ways
    met = ways * (1 - comb(64 - 64 // ways, top) / comb(64, top))
    for step in plan.collectives:
        if step.kind != ALL_TO_ALL:
            continue
        copies = top * tokens
        if "gates" in step.tensor.name:
            assert received(step, plan.sizes, plan.mesh) == copies * 2 * (ways - 1) // ways
        else:
            expected = tokens * rows * met * (ways - 1) / ways
            assert received(step, plan.sizes, plan.mesh) == pytest.approx(expected, rel=1e-9, abs=1)
    kept = planned(EP + "[policy]\ndeduplicate = false\n", f"expert={ways}", moe_block(top=top, sizes=BIG))
    sent = next(step for step in kept.collectives if step.tensor.name == "sent")
    assert received(sent, kept.sizes, kept.mesh) == top * tokens * rows * (ways - 1) // ways


def test_padded_rows_all_move() -> None:
    plan = planned(EP, "expert=8", moe_block(top=2, sizes=BIG, capacity=1.5))
    sent = next(step for step in plan.collectives if step.tensor.name == "sent")
    assert sent.distinct == 0
    assert received(sent, plan.sizes, plan.mesh) == 3 * (64 * 32 // 8) * 256 * 2 * 7 // 8


def test_experts_divided_over_other_axes_too_count_for_the_blocks() -> None:
    # Devices of `model` have the experts of one half each; a row goes to the devices of `expert` in that half.
    rules = 'name = "half"\n[compute]\n"routing:e" = "model"\n"experts:e" = ["model", "expert"]\nb = "expert"\n'
    plan = planned(rules, "expert=4,model=2")
    sent = next(step for step in plan.collectives if step.tensor.name == "sent")
    assert str(sent) == "all-to-all(expert) sent: e/model b/expert s d -> e/model/expert b s d"
    tokens, row = 64 * 32 // 4, 256 * 2
    met = 4 * (1 - comb(64 - 8, 8) / comb(64, 8))
    assert received(sent, plan.sizes, plan.mesh) == pytest.approx(tokens * row * met * 3 / 4, abs=1)


def test_bytes_of_arrays_are_those_of_scalars() -> None:
    plan = planned(EP, "data=2,expert=8")
    network = {"data": np.array([2.0, 4.0]), "expert": np.array([8.0, 4.0])}
    for step in plan.collectives:
        many = received_by_degrees(step, plan.sizes, network)
        for k in range(2):
            degrees = {name: int(size[k]) for name, size in network.items()}
            assert many[k] == pytest.approx(received_by_degrees(step, plan.sizes, degrees), rel=1e-9, abs=1)


def test_a_row_crosses_to_a_node_once_and_is_passed_on_inside() -> None:
    system = load_system("h100").ideal()
    program = moe_block(top=8, sizes={"e": 256, "d": 7168, "m": 2048})
    plan = planned("dp", "expert=64", program, b=64, s=512)
    network = bind(plan.mesh, system)
    assert level_counts(("expert",), network) == (8, 8)
    sent = next(step for step in plan.collectives if step.tensor.name == "sent")
    rows = 512 * 7168 * 2
    nodes, devices = expected_blocks(256, 8, 8), expected_blocks(256, 64, 8)
    fast, slow = (level.bandwidth.used for level in system.levels)
    seconds = max(float(nodes) * 7 / 8 * rows / slow, float(devices) * 7 / 8 * rows / fast)
    formula = explain_step(sent, plan.sizes, network)
    assert formula.seconds - formula.latency_seconds == pytest.approx(seconds, rel=1e-9)
    assert step_seconds(sent, plan.sizes, network) == pytest.approx(formula.seconds, rel=1e-12)
    assert formula.slowest is not None
    assert formula.slowest.level == "ib"
    assert f"{float(nodes) / 8:.3g} sent once" in str(formula)


def test_node_limited_routing_crosses_to_fewer_nodes() -> None:
    sizes = {"e": 256, "d": 7168, "m": 2048}
    times = []
    for limit in ({}, {"groups": 8, "top_groups": 4}):
        plan = planned("dp", "expert=64", moe_block(top=8, sizes=sizes, scoring="sigmoid", **limit), b=64, s=512)
        network = bind(plan.mesh, load_system("h100").ideal())
        sent = next(step for step in plan.collectives if step.tensor.name == "sent")
        formula = explain_step(sent, plan.sizes, network)
        times.append(formula.seconds - formula.latency_seconds)
    assert times[1] / times[0] == pytest.approx(float(expected_blocks(256, 8, 8, 8, 4) / expected_blocks(256, 8, 8)))


def test_a_level_inside_a_node_alone_prices_by_the_bytes_received() -> None:
    plan = planned(EP, "expert=8")
    system = load_system("h100").ideal()
    network = bind(plan.mesh, system)
    for priced in price_collectives(plan.collectives, plan, network):
        assert bound_ratio(priced, plan) >= 1 or priced.bytes == 0
        if priced.step.distinct:
            waited = explain_step(priced.step, plan.sizes, network).latency_seconds
            sent = priced.bytes / system.levels[0].bandwidth.used
            assert priced.seconds - waited == pytest.approx(sent, rel=1e-5)
            assert priced.bytes == bound_bytes(priced, plan)
            assert priced.step.cause is not None
            assert priced.step.cause.copies == priced.step.distinct
            assert "is sent one row" in cause_words(priced.step.cause)


# Memory


def test_saved_activations_are_those_of_the_chosen_rows() -> None:
    plan = planned(EP, "data=2,expert=8")
    tokens, top, d, m, e = 64 * 32 // 16, 8, 256, 128, 64
    held = {one.tensor.name: one.bytes for one in saved_activations(plan)}
    row = 2 * tokens * top
    assert held == {
        "x": 2 * tokens * d,
        "h": 2 * tokens * d,
        "logits": 2 * tokens * e,
        "gates": row,
        **dict.fromkeys(("rows", "made"), row * d),
        **dict.fromkeys(("gate", "up", "hidden"), row * m),
    }


def test_a_held_tensor_says_what_of_it_exists() -> None:
    plan = planned(EP, "data=2,expert=8")
    held = {one.tensor.name: one.text for one in saved_activations(plan)}
    assert held["rows"] == "rows: bf16[e:8/expert b/data s d]"
    assert held["h"] == "h: bf16[b/data/expert s d]"


def test_the_peak_counts_rows_where_they_are_and_where_they_go() -> None:
    plan = planned(EP, "data=2,expert=8")
    found = peak(plan)
    whole = 64 * 32 // 16 * 8 * 256 * 2
    rows = [one for one in found.alive if one.tensor.chosen and one.tensor.indices[-1] == "d"]
    assert rows
    assert all(one.bytes == whole for one in rows)


def test_a_dense_block_on_an_expert_axis_is_data_parallel() -> None:
    program = backward(load_model("llama3-8b").layer("block").program, fused=frozenset({"attention"}))
    sizes = program_sizes(program, {"b": 16, "s": 64})
    for strategy in ("dp", "fsdp", "zero2"):
        totals = []
        for mesh in ("data=8", "expert=8", "data=2,expert=4"):
            plan = plan_program(program, load_strategy(strategy), parse_mesh(mesh), sizes)
            work = sum(work_flops(row.work, sizes, plan.mesh.degrees) for row in plan.statements)
            totals.append((work, sum(received(step, sizes, plan.mesh) for step in plan.collectives)))
        assert totals[0] == totals[1] == totals[2]


def test_the_chosen_rows_of_an_einsum_are_counted_once() -> None:
    rows = Tensor("x", ("e", "b", "d"), "bf16", (("e", 2),))
    grads = Tensor("g", ("e", "b", "m"), "bf16", (("e", 2),))
    whole = make_layout([(), (), ()])
    work = LocalEinsum((rows, grads), (whole, whole), Tensor("w", ("e", "d", "m")), whole)
    sizes = {"e": 8, "b": 10, "d": 3, "m": 5}
    assert step_flops(work, sizes, {}) == einsum_flops(2, True, 2 * 10 * 3 * 5)


def test_rows_may_be_arranged_and_combined_without_weights() -> None:
    program = trace(
        lambda x, z: combine(arrange(dispatch(x, route(z, 2)))), {"x": "fp32[b d]", "z": "fp32[b e]"}, sizes={"e": 6}
    )
    gradients = differentiate(program)
    check_gradients(program, gradients, {"b": 3, "d": 4})
    arrays, sizes = random_arrays(gradients.program, {"b": 3, "d": 4})
    values = run(gradients.program, arrays, sizes)
    np.testing.assert_allclose(values["out"], 2 * arrays["x"])


def test_a_mesh_with_experts_has_the_default_of_the_one_without() -> None:
    names = {"expert=8": "fsdp", "data=2,ep=4": "fsdp", "ep=4,tp=2": "fsdp+tp", "pod=2,expert=4": "hsdp"}
    assert {mesh: default_strategy(parse_mesh(mesh)) for mesh in names} == names


def test_ones_own_experts_are_reported_with_what_exists_of_them(tmp_path: Path) -> None:
    path = tmp_path / "experts.ein"
    path.write_text(print_program(moe_block(top=8, sizes=BIG, shared=True)), encoding="utf-8")
    answer = einscale.layer(path, mesh="data=2,expert=4,model=4", strategy="megatron-sp+etp", batch=64, sequence=32)
    assert answer.layers.unexpected == ()
    text = json.dumps(answer.to_dict())
    assert '"rows"' in text
    assert "e:8/expert b/data s/model d" in text
    sent = [step for step in collectives(json.loads(text)) if step["tensor"] == "sent"]
    assert [(step["kind"], step["distinct"]) for step in sent] == [("all-to-all", 8)]


def collectives(document: object) -> list[dict]:
    """Every table of a document that describes a move."""
    if isinstance(document, list):
        return [found for one in document for found in collectives(one)]
    if not isinstance(document, dict):
        return []
    inside = [found for one in document.values() for found in collectives(one)]
    return [document, *inside] if "received_bytes" in document and "kind" in document else inside


def test_a_strategy_may_speak_of_experts_whatever_the_model(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(EP, encoding="utf-8")
    assert einscale.layer("llama3-8b", mesh="data=2,expert=4", strategy=path).layers.unexpected == ()
