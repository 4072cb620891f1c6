"""What is kept and what is made again, by name of a mode; and what a step holds besides: messages, copies, the root."""

from __future__ import annotations

import json

import pytest
from interpreter import check_gradients

import einscale
from einscale.checks import recomputed_here
from einscale.errors import StrategyError
from einscale.mesh import parse_mesh
from einscale.models import read_config
from einscale.models.layers import block_program, head_program
from einscale.planner.planned import PlannedProgram
from einscale.planner.program import plan_program
from einscale.price.memory import saved_activations, spans
from einscale.program import WHOLE, Program, backward
from einscale.program.backward import differentiate
from einscale.program.recompute import ALTERNATE, ALTERNATE_EAGER, kept_anyway
from einscale.strategy import Policy, load_strategy, parse_strategy

TINY = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 12,
    "vocab_size": 16,
}
B, S = 2, 4


def tiny_block() -> Program:
    return block_program(read_config(TINY, "test")[0])


def planned(block: Program, mode: str) -> PlannedProgram:
    text = f'name = "own"\n[compute]\nb = "data"\n[policy]\nrecompute = {json.dumps([mode])}\n'
    sizes = {**dict(block.sizes), "b": B, "s": S, "t": S}
    whole = backward(block, frozenset({mode}), frozenset({"attention"}))
    return plan_program(whole, parse_strategy(text), parse_mesh("data=1"), sizes)


def saved(mode: str) -> dict[str, int]:
    return {held.tensor.name: held.bytes for held in saved_activations(planned(tiny_block(), mode))}


def test_alternate_keeps_every_second_product_attention_and_the_input() -> None:
    """Of wq wk wv wo w1 w3 w2, those of wq, wv and w1; that of w2 is read by nothing in the backward pass."""
    stream = 2 * B * S * 8
    expected = {"x": stream, "q": stream, "v": stream // 2, "attended": stream, "gate": 2 * B * S * 12}
    assert saved(ALTERNATE) == {**expected, "probs_lse": 4 * B * S * 4}


def test_run_op_by_op_it_also_keeps_what_nothing_reads() -> None:
    more = saved(ALTERNATE_EAGER)
    down = next(iter(set(more) - set(saved(ALTERNATE))))
    assert more.pop(down) == 2 * B * S * 8
    assert more == saved(ALTERNATE)
    assert down in kept_anyway(tiny_block(), [ALTERNATE_EAGER])


@pytest.mark.parametrize("mode", [ALTERNATE, ALTERNATE_EAGER])
def test_gradients_do_not_change(mode: str) -> None:
    block = tiny_block()
    gradients = differentiate(block, frozenset({mode}), frozenset({"attention"}))
    assert len(check_gradients(block, gradients, {"b": 1, "s": 3, "t": 3}, directions=1)[0]) == 10


def test_three_of_seven_products_are_made_again() -> None:
    again = [row.statement for row in planned(tiny_block(), ALTERNATE).statements if row.statement.phase == "recompute"]
    products = [one for one in again if one.op == "einsum" and not one.group]
    assert len(products) == 3


def test_an_embedding_and_a_head_are_not_checkpointed() -> None:
    config = read_config(TINY, "test")[0]
    head = head_program(config)
    assert kept_anyway(head, [ALTERNATE_EAGER]) == frozenset()
    assert backward(head, frozenset({ALTERNATE})) == backward(head)
    full = parse_strategy('name = "own"\n[compute]\nb = "data"\n[policy]\nrecompute = ["full"]\n')
    assert recomputed_here(full, head).policy.recompute == ()
    assert recomputed_here(full, block_program(config)).policy.recompute == (WHOLE,)


def test_full_recompute_makes_no_logits_twice() -> None:
    report = einscale.train_step("llama3-8b", mesh="data=8", strategy="fsdp", recompute="full", overhead=0).step
    assert report.layer("head").recompute_seconds == 0
    assert report.layer("block").recompute_seconds > 0


def test_modes_lie_between_none_and_full() -> None:
    def held(recompute: str) -> int:
        answer = einscale.train_step("llama3-8b", mesh="data=8", strategy="fsdp", recompute=recompute, overhead=0)
        return answer.step.fullest.memory.saved

    assert held("full") < held(ALTERNATE) < held(ALTERNATE_EAGER) < held("none")


def test_a_mode_that_does_not_exist_is_refused() -> None:
    with pytest.raises(StrategyError, match="alternat"):
        einscale.train_step("llama3-8b", mesh="data=8", strategy="fsdp", recompute="alternat")


def test_gradients_of_a_layer_wait_for_the_last_before_they_are_reduced() -> None:
    report = einscale.train_step("llama3-8b", mesh="data=8", strategy="fsdp", precision="mixed", overhead=0).step
    block = report.layer("block")
    last = len(block.planned.statements) - 1
    waiting = [
        span.held.bytes
        for span in spans(block.planned, accumulates=True)
        if span.held.tensor.name.startswith("d_w") and span.last == last
    ]
    assert sum(waiting) == 4 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)


def test_the_root_of_fsdp_stays_gathered() -> None:
    report = einscale.train_step("llama3-8b", mesh="data=8", strategy="fsdp", overhead=0).step
    for kind in ("embedding", "head"):
        matrix = max(report.layer(kind).gathered, key=lambda held: held.bytes)
        assert matrix.bytes == 2 * 128256 * 4096
    assert not report.layer("block").gathered
    gathers = [row for row in report.layer("head").rows if row.planned.phase == "backward"]
    assert not [step for row in gathers for step in row.planned.before if step.tensor.name == "lm_head"]


@pytest.mark.parametrize(("microbatch", "overlap", "copies"), [(1, None, 0), (4, None, 2), (4, "activations", 0)])
def test_gathers_along_an_inner_dim_are_put_in_order(microbatch: int, overlap: str | None, copies: int) -> None:
    """Batch before sequence: with one sequence, or in a collective matmul, the blocks are where they belong."""
    assert load_strategy("fsdp+tp").policy.ordered
    assert not Policy().ordered
    report = einscale.train_step(
        "llama3-8b", mesh="data=2,model=4", strategy="fsdp+tp", microbatch=microbatch, overlap=overlap, overhead=0
    ).step
    block = report.layer("block").planned
    forward = sum(row.phase == "forward" for row in block.statements)
    name = "attn_in"
    at = next(k for k, row in enumerate(block.statements) if any(step.tensor.name == name for step in row.before))
    assert at < forward
    whole = 2 * microbatch * report.setup.sequence * 4096
    held = [
        s.held.bytes
        for s in spans(block, overlap=report.setup.strategy.policy.overlap)
        if s.held.tensor.name == name and s.first <= at <= s.last
    ]
    assert held.count(whole) == max(1, copies)
