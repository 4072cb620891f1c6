"""What is saved for the backward pass and the most that is held: derived by generic rules, compared with the papers."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einscale.mesh import parse_mesh
from einscale.models import load_model, read_config
from einscale.models.layers import block_program
from einscale.planner.planned import PlannedProgram
from einscale.planner.program import plan_program
from einscale.price.memory import (
    gradient_bytes,
    optimizer_bytes,
    parameters_held,
    peak,
    saved_activations,
)
from einscale.program import WHOLE, Program, backward
from einscale.strategy import parse_strategy

FORMS = json.loads((Path(__file__).parent / "data" / "activation_formulas.json").read_text())["per_layer"]
"""Korthikanti et al. 2022, arXiv 2205.05198, equations 1 to 6 and table 2: bytes saved by one layer."""

MEGATRON = '[compute]\nb = "data"\nh = "model"\nf = "model"\n'
SEQUENCE = '[store.residual]\ns = "model"\n'

STRATEGIES = {
    "no parallelism": (MEGATRON, ""),
    "tensor parallel": (MEGATRON, ""),
    "tensor+sequence parallel": (MEGATRON + SEQUENCE, ""),
    "tensor + selective recompute": (MEGATRON, "attention"),
    "tensor+sequence+selective": (MEGATRON + SEQUENCE, "attention"),
    "full recompute": (MEGATRON, WHOLE),
}


def gpt_block(hidden: int, heads: int) -> Program:
    config = {"model_type": "gpt2", "vocab_size": 128, "n_positions": 4096, "n_layer": 1, "n_head": heads}
    return block_program(read_config({**config, "n_embd": hidden}, "test")[0])


def plan(program: Program, strategy: str, recompute: str, t: int, b: int, s: int) -> PlannedProgram:
    again = f'recompute = ["{recompute}"]\n' if recompute else ""
    chosen = parse_strategy(f'name = "own"\n{strategy}[policy]\nfuse = []\n{again}')
    groups = frozenset({recompute} if recompute else ())
    sizes = {**dict(program.sizes), "b": b, "s": s, "t": s}
    return plan_program(backward(program, groups), chosen, parse_mesh(f"model={t}"), sizes)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=12, deadline=None)
@given(
    s=st.sampled_from([64, 256, 2048]),
    b=st.integers(1, 5),
    head_dim=st.sampled_from([16, 64, 128]),
    heads=st.sampled_from([8, 16, 64]),
    t=st.sampled_from([1, 2, 8]),
)
def test_a_gpt_layer_saves_what_korthikanti_says(form: str, s: int, b: int, head_dim: int, heads: int, t: int) -> None:
    t = 1 if form == "no parallelism" else t
    h = head_dim * heads
    strategy, recompute = STRATEGIES[form]
    planned = plan(gpt_block(h, heads), strategy, recompute, t, b, s)
    saved = sum(held.bytes for held in saved_activations(planned))
    names = {name: Fraction(value) for name, value in {"s": s, "b": b, "h": h, "a": heads, "t": t}.items()}
    assert saved == eval(FORMS[form], {"__builtins__": {}}, names)


def test_the_three_parts_of_the_layer_are_the_published_ones() -> None:
    s, b, h, a = 256, 2, 512, 8
    program = gpt_block(h, a)
    held = saved_activations(plan(program, MEGATRON, "", 1, b, s))
    section = {name: statement.section for statement in program.statements for name in statement.outputs}
    norms = {statement.inputs[0] for statement in program.statements if statement.op == "norm"}
    parts = {"attention": 0, "mlp": 0, "norms": 0}
    for one in held:
        # The MLP's first norm reads what attention made: it is counted with the norms, as the paper does.
        part = "norms" if one.tensor.name in norms else section[one.tensor.name]
        parts[part] += one.bytes
    assert parts == {"attention": 11 * s * b * h + 5 * a * s * s * b, "mlp": 19 * s * b * h, "norms": 4 * s * b * h}


def test_flash_attention_saves_its_ends_and_a_log_sum_exp() -> None:
    block = load_model("llama3-8b").layer("block").program
    sizes = {**dict(block.sizes), "b": 2, "s": 512, "t": 512}
    strategy = parse_strategy('name = "own"\n[compute]\nh = "model"\n')
    planned = plan_program(backward(block, fused=frozenset({"attention"})), strategy, parse_mesh("model=4"), sizes)
    held = {one.tensor.name: one for one in saved_activations(planned)}
    assert {"q_rotated", "k_rotated", "v", "attended", "probs_lse"} <= set(held)
    assert not {"scores", "masked", "probs"} & set(held)
    heads = 32 // 4
    assert held["probs_lse"].bytes == 4 * 2 * heads * 512
    assert held["probs_lse"].tensor.dtype == "fp32"


def test_a_tensor_that_two_statements_save_counts_once() -> None:
    block = load_model("llama3-8b").layer("block").program
    sizes = {**dict(block.sizes), "b": 1, "s": 128, "t": 128}
    strategy = parse_strategy('name = "own"\n[compute]\nb = "data"\n')
    names = [one.tensor.name for one in saved_activations(plan_program(block, strategy, parse_mesh("data=1"), sizes))]
    assert names.count("attn_in") == 1
    assert len(names) == len(set(names))


def test_what_is_gathered_is_saved_as_it_rested() -> None:
    block = load_model("llama3-8b").layer("block").program
    sizes = {**dict(block.sizes), "b": 1, "s": 1024, "t": 1024}
    strategy = parse_strategy(f'name = "own"\n{MEGATRON}{SEQUENCE}')
    planned = plan_program(backward(block), strategy, parse_mesh("model=8"), sizes)
    held = {one.tensor.name: one for one in saved_activations(planned)}
    assert held["attn_in"].layout.text(("b", "s", "d")) == "b s/model d"
    assert held["attn_in"].bytes == 1024 // 8 * 4096 * 2


def test_parameters_gradients_and_optimizer_state_are_divided_alike() -> None:
    block = load_model("llama3-8b").layer("block").program
    sizes = {**dict(block.sizes), "b": 8, "s": 128, "t": 128}
    fsdp = parse_strategy('name = "own"\n[compute]\nb = "data"\n[store.parameters]\nd = "data"\n"*" = "data"\n')
    planned = plan_program(backward(block), fsdp, parse_mesh("data=8"), sizes)
    parameters = sum(held.bytes for held in parameters_held(planned))
    whole = 2 * sum(_elements(value.axes, sizes) for value in block.parameters)
    assert parameters == whole // 8
    assert gradient_bytes(planned) == parameters
    assert optimizer_bytes(planned) == 6 * parameters


def _elements(axes: tuple[str, ...], sizes: dict[str, int]) -> int:
    count = 1
    for axis in axes:
        count *= sizes[axis]
    return count


def test_the_peak_names_the_statement_and_what_is_alive() -> None:
    block = load_model("llama3-8b").layer("block").program
    sizes = {**dict(block.sizes), "b": 1, "s": 1024, "t": 1024}
    strategy = parse_strategy('name = "own"\n[compute]\nb = "data"\n[policy]\nfuse = []\n')
    forward = plan_program(block, strategy, parse_mesh("data=1"), sizes)
    most = peak(forward)
    assert most.statement in {"masked", "probs"}  # two score tensors of heads x s x t side by side
    assert most.bytes == sum(held.bytes for held in most.alive)
    assert most.alive[0].bytes == 32 * 1024 * 1024 * 2
    fused = plan_program(block, parse_strategy('[compute]\nb = "data"\n'), parse_mesh("data=1"), sizes)
    assert peak(fused).bytes < most.bytes
    assert "probs" not in {held.tensor.name for held in peak(fused).alive}


def test_gathered_parameters_count_while_they_are_needed() -> None:
    block = load_model("llama3-8b").layer("block").program
    sizes = {**dict(block.sizes), "b": 8, "s": 16, "t": 16}
    fsdp = parse_strategy('name = "own"\n[compute]\nb = "data"\n[store.parameters]\nd = "data"\n')
    planned = plan_program(block, fsdp, parse_mesh("data=8"), sizes)
    whole = [held for held in peak(planned).alive if held.tensor.name.startswith("w") and not held.layout.axes]
    assert whole
    assert max(held.bytes for held in whole) == 4096 * 14336 * 2
    # Gathered again in the backward pass and not held in between: the peak of both is below all weights gathered.
    both = peak(plan_program(backward(block, fused=frozenset({"attention"})), fsdp, parse_mesh("data=8"), sizes))
    every = sum(2 * _elements(value.axes, sizes) for value in block.parameters)
    alive = sum(held.bytes for held in both.alive if held.tensor.name.startswith("w") and not held.layout.axes)
    assert alive < every
