"""Problems of "How To Scale Your Model", applied-training.md: LLaMA-3 70B on a pod of TPU v5p."""

from __future__ import annotations

from functools import cache

import pytest
from book_answers import Answers, Errata, Loose, asked, book, check_answer, check_erratum, check_loose
from test_scaling_book_training import best_ways, hides, least_tokens_a_chip, least_tokens_mixed, run_seconds

import einscale
from einscale.models import load_model, model_flops, parameter_counts, program_parameters

ASKED = asked("applied-training.md")
MODEL = "llama3-70b"
POD = "x=20,y=28,z=16"
CHIPS = einscale.make_mesh(POD).devices
HIDDEN = 28672
TOKENS = 15e12
YEAR = 365.25 * 86400


def block_parameters(section: str) -> int:
    """Elements of all blocks' matrices of one section."""
    layer = load_model(MODEL).layer("block")
    elements = program_parameters(layer.program)
    read = {n for s in layer.program.statements if s.section == section and s.op == "einsum" for n in s.inputs}
    return sum(elements[name] for name in elements if name in read) * layer.repeat


def token_flops() -> float:
    """FLOPs of one token's products with weights, forward and backward."""
    flops = model_flops(load_model(MODEL), 4096)
    return flops.projections / flops.sequence


ALL_BUT_FOUR = ("attention", "attn_in", "k", "v", "k_rotated", "q_rotated", "mlp_in", "hidden", "gate", "up")
"""Everything that is made again where four tensors as wide as the model are kept of a layer."""


@cache
def step() -> einscale.TrainResult:
    """A step of 4e6 tokens, on a chip that nobody builds."""
    return einscale.train_step(
        MODEL,
        strategy="dp",
        hardware=book("tpu-v5p"),
        batch=1000,
        microbatch=1000,
        sequence=4000,
        precision="bf16,master=none",
        recompute=ALL_BUT_FOUR,
    )


def parameter_bytes() -> int:
    return step().step.fullest.memory.parameters


def optimizer_bytes() -> int:
    return step().step.fullest.memory.optimizer


def checkpoint_bytes() -> int:
    """Bytes of activations that all blocks keep, four as wide as the model a layer."""
    layer = step().step.layer("block")
    assert {held.tensor.name for held in layer.saved} == {"x", "q", "attended", "mid"}
    assert len({held.bytes for held in layer.saved}) == 1
    return layer.saved_bytes * load_model(MODEL).layer("block").repeat


def all_bytes() -> int:
    """Parameters, the optimizer's state and checkpoints; the book counts no gradients."""
    return parameter_bytes() + optimizer_bytes() + checkpoint_bytes()


def verdict() -> str:
    """What bounds pure FSDP at the tokens each chip has."""
    return "compute bound" if hides(4 * 1024 * 1024 // CHIPS * CHIPS, POD) else "communication bound"


ANSWERS: Answers = {
    "at-params/ffw": lambda: block_parameters("mlp"),
    "at-params/vocab": lambda: parameter_counts(load_model(MODEL)).embedding,
    "at-params/attn": lambda: block_parameters("attention"),
    "at-flops/per_token": token_flops,
    "at-flops/total": lambda: token_flops() * TOKENS,
    "at-44d/seconds": lambda: run_seconds(MODEL, TOKENS, CHIPS, 0.4),
    "at-44d/days": lambda: run_seconds(MODEL, TOKENS, CHIPS, 0.4) / 86400,
    "at-mem/params_gb": lambda: parameter_bytes() / 1e9,
    "at-mem/optimizer_gb": lambda: optimizer_bytes() / 1e9,
    "at-mem/checkpoints_tb_4x": lambda: checkpoint_bytes() / 1e12,
    "at-mem/total_tb": lambda: all_bytes() / 1e12,
    "at-mem/min_chips": lambda: all_bytes() / book("tpu-v5p").chip.memory_bytes,
    "at-mem/per_chip_gb": lambda: all_bytes() / CHIPS / 1e9,
    "at-fsdp/per_chip_tokens": lambda: 4 * 1024 * 1024 // CHIPS,
    "at-fsdp/needed": lambda: least_tokens_a_chip(POD),
    "at-fsdp/verdict": verdict,
    "at-mixed/X_opt": lambda: best_ways(POD, 4_190_000, HIDDEN),
}

FORMULAS: dict[str, float | str] = {"communication bound": "communication bound"}

LOOSE: Loose = {
    "at-params/total": (
        lambda: parameter_counts(load_model(MODEL)).total,
        0.003,
        "the book adds parts that it has cut to a digit: 56.3, 2.1 and 12 for 56.37, 2.10 and 12.08",
    ),
    "at-flops/years_one_chip": (
        lambda: run_seconds(MODEL, TOKENS, 1, 1.0) / YEAR,
        0.01,
        "the book counts 70e9 parameters; 69.5e9 take part in products, and a lookup multiplies nothing",
    ),
}
ERRATA: Errata = {
    "at-mixed/bound_printed": (
        lambda: least_tokens_mixed(POD, 4_190_000, HIDDEN),
        2550**2 / (2 * HIDDEN),
        "2 x 2550^2 / F was derived with moves one after the other; training.md as corrected has 2550^2 / 2F",
    ),
}
NOT_COVERED: dict[str, str] = {}


def test_every_printed_answer_has_its_place() -> None:
    assert sorted(ASKED) == sorted(key for table in (ANSWERS, LOOSE, ERRATA, NOT_COVERED) for key in table)


@pytest.mark.parametrize("key", ANSWERS)
def test_answer(key: str) -> None:
    check_answer(ANSWERS[key](), ASKED[key], FORMULAS)


@pytest.mark.parametrize("key", LOOSE)
def test_answer_that_the_book_rounds_on_the_way(key: str) -> None:
    check_loose(LOOSE[key], ASKED[key])


@pytest.mark.parametrize("key", ERRATA)
def test_answer_that_the_book_has_wrong(key: str) -> None:
    check_erratum(ERRATA[key], ASKED[key], FORMULAS)


def test_three_checkpoints_a_layer_are_what_the_book_says_and_not_what_it_counts() -> None:
    """The text has `* 3 * 80` and 20.9 TB, which are four; three are the 15.8 TB of an earlier edition."""
    assert checkpoint_bytes() * 3 / 4 / 1e12 == pytest.approx(15.7, abs=0.1)
