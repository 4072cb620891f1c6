"""The loss as software stacks run it: one function in three forms, and what each holds."""

from __future__ import annotations

import numpy as np
import pytest
from interpreter import check_gradients, random_arrays, run

import einscale
from einscale.errors import ProgramError, UsageError
from einscale.mesh import parse_mesh
from einscale.models import load_model
from einscale.planner.planned import PlannedProgram
from einscale.planner.program import plan_program
from einscale.price.memory import HoldReason, peak, saved_activations, spans
from einscale.program import Program, backward, parse_program, print_program
from einscale.program.backward import differentiate
from einscale.program.loss import LOSSES, find_loss, with_loss
from einscale.strategy import parse_strategy

HEAD = parse_program(
    """
program head
input x: bf16[b s d]
input targets: int64[b s]
param lm_head: bf16[v d]
logits = einsum("b s d, v d -> b s v", x, lm_head)
logits_fp32 = cast(logits, dtype=fp32)
loss, loss_lse = cross_entropy(logits_fp32, targets, axis=v)
return loss
"""
)
SIZES = {"b": 2, "s": 3, "d": 4, "v": 8}
B, S, D, V = SIZES.values()
LOGITS = B * S * V
"""Logits of one microbatch."""


def planned(form: str, tensor: int = 1) -> PlannedProgram:
    strategy = parse_strategy('name = "own"\n[compute]\nv = "model"\nb = "data"\n')
    return plan_program(backward(with_loss(HEAD, form)), strategy, parse_mesh(f"model={tensor}"), SIZES)


@pytest.mark.parametrize("form", LOSSES)
def test_gradients_are_those_of_the_loss(form: str) -> None:
    forward = with_loss(HEAD, form)
    assert check_gradients(forward, differentiate(forward), SIZES)[0] == ["x", "lm_head"]


@pytest.mark.parametrize("form", LOSSES)
def test_every_form_is_the_same_function(form: str) -> None:
    arrays, sizes = random_arrays(HEAD, SIZES)
    reference, other = (run(backward(program), arrays, sizes) for program in (HEAD, with_loss(HEAD, form)))
    for name in ("loss", "d_x", "d_lm_head"):
        assert np.allclose(reference[name], other[name])


def test_a_loss_that_is_read_on_takes_its_gradient_from_outside() -> None:
    text = print_program(HEAD).replace("return loss", "mean = scale(loss, factor=0.25)\nreturn mean")
    forward = with_loss(parse_program(text), "eager")
    assert "pick_backward" in print_program(backward(forward))
    assert check_gradients(forward, differentiate(forward), SIZES)[0] == ["x", "lm_head"]


def test_forms_print_and_parse() -> None:
    for form in LOSSES:
        program = backward(with_loss(HEAD, form))
        assert parse_program(print_program(program)) == program


def test_the_fused_form_is_the_program_itself() -> None:
    assert with_loss(HEAD) is HEAD
    block = load_model("llama3-8b").layer("block").program
    assert with_loss(block, "eager") is block


def test_a_cast_that_something_else_reads_stays() -> None:
    text = print_program(HEAD).replace("return loss", "return loss, logits_fp32")
    program = with_loss(parse_program(text), "compiled")
    assert [statement.op for statement in program.statements] == ["einsum", "cast", "cross_entropy"]


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        find_loss("eagre")
    assert "no form of the loss is called `eagre`" in caught.value.message
    assert "did you mean `eager`" in str(caught.value)
    with pytest.raises(UsageError, match="no form of the loss"):
        einscale.train_step("gpt2", sequence=128, loss="none")


def test_pick_wants_indices() -> None:
    text = print_program(with_loss(HEAD, "eager")).replace("int64[b s]", "bf16[b s]")
    with pytest.raises(ProgramError, match="pick takes integer indices as operand 2"):
        parse_program(text)


def saved(form: str) -> dict[str, int]:
    return {held.tensor.name: held.bytes for held in saved_activations(planned(form))}


def test_what_each_form_saves() -> None:
    ends = {"x": 2 * B * S * D, "targets": 8 * B * S}
    assert saved("fused") == {**ends, "logits_fp32": 4 * LOGITS, "loss_lse": 4 * B * S}
    assert saved("compiled") == {**ends, "logits": 2 * LOGITS, "loss_lse": 4 * B * S}
    assert saved("eager") == {**ends, "loss_log_softmax": 4 * LOGITS}


def alive(form: str, statement: str, tensor: int = 1) -> dict[tuple[str, HoldReason], int]:
    """Bytes of what has the vocabulary's axis and is held while a statement runs."""
    plan = planned(form, tensor)
    outputs = [row.statement.output for row in plan.statements]
    moment = outputs.index(statement)
    held = [span.held for span in spans(plan) if span.first <= moment <= span.last]
    return {(one.tensor.name, one.reason): one.bytes for one in held if {"b", "v"} <= set(one.tensor.indices)}


def test_the_eager_form_holds_three_fp32_tensors_in_its_backward_pass() -> None:
    assert sum(alive("eager", "d_logits_fp32").values()) == 3 * 4 * LOGITS
    assert sum(alive("eager", "loss_log_softmax").values()) == 2 * 4 * LOGITS
    assert sum(alive("fused", "d_logits_fp32").values()) == 2 * 4 * LOGITS
    assert sum(alive("compiled", "d_logits").values()) == 2 * 2 * LOGITS


@pytest.mark.parametrize("statement", ["loss_log_softmax", "d_logits_fp32"])
def test_a_statistic_over_a_divided_axis_costs_the_eager_form_one_more_copy(statement: str) -> None:
    whole = alive("eager", statement)
    divided = alive("eager", statement, tensor=4)
    assert sum(divided.values()) == (sum(whole.values()) + 4 * LOGITS) // 4


def test_only_the_eager_form_works_kernel_by_kernel() -> None:
    for form in ("fused", "compiled"):
        assert 4 * peak(planned(form, tensor=4)).bytes <= peak(planned(form)).bytes + 3 * (2 * D + 16) * B * S * 4


def needs(form: str) -> int:
    answer = einscale.train_step("llama3-8b", mesh="data=8", strategy="fsdp", sequence=8192, loss=form, overhead=0)
    assert answer.step.setup.loss == form
    return answer.step.fullest.memory.needed


def test_a_step_needs_least_memory_with_a_compiled_loss() -> None:
    logits = 8192 * 128256
    compiled, fused, eager = (needs(form) for form in ("compiled", "fused", "eager"))
    assert compiled < fused < eager
    # Three fp32 tensors, the log-softmax, its gradient and the logits', instead of the logits and their gradient.
    assert eager - fused == pytest.approx(4 * logits, rel=1e-3)


def with_vocabulary(program: Program) -> list[str]:
    return [value.name for value in program.values if "v" in value.axes and value.kind != "parameter"]


def test_no_wide_logits_are_left_in_the_compiled_form() -> None:
    assert with_vocabulary(backward(with_loss(HEAD, "compiled"))) == ["logits", "d_logits", "d_lm_head"]
