"""What holds of every answer of the einsum planner: by brute force, against its alternatives, and in other words."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planner_oracle import cheapest_plan
from random_questions import Asking, random_question, relatives

import einscale
from einscale.errors import HardwareError
from einscale.layout import Layout

SEEDS = st.integers(0, 2**32)
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TOLERANCE = 1e-9
"""Relative difference of times that is rounding."""


def ask(asking: Asking, objective: str) -> einscale.PlanResult | None:
    """The answer; None where the chip does not multiply the operands' type."""
    try:
        return einscale.plan(
            asking.spec, mesh=asking.mesh, sizes=asking.sizes, objective=objective, hardware=asking.chip
        )
    except HardwareError:
        return None


def cost(priced: object, objective: str) -> float:
    """What a plan costs by an objective."""
    return float(priced.seconds if objective == "time" else priced.bytes_received)  # type: ignore[attr-defined]


def brute_force(result: einscale.PlanResult, objective: str) -> float:
    """Least cost of any plan that spends no more FLOPs than an answer by bytes; of any at all by time."""
    asked = result.asked
    by_time = objective == "time"
    found = cheapest_plan(
        asked.tensors,
        asked.layouts,
        asked.output,
        Layout(result.plan.output_layout.dims, result.plan.output_layout.unreduced),
        asked.sizes,
        asked.mesh,
        result.priced.network if by_time else None,
        None if by_time else result.flops,
    )
    return found if by_time else found / asked.mesh.devices


def plain(asking: Asking) -> bool:
    """Whether no operand repeats an index."""
    texts = [text.partition("[")[2].rstrip("]").partition("{")[0].split() for text in asking.operands]
    return all(len({word[0] for word in words}) == len(words) for words in texts)


@pytest.mark.parametrize("objective", ["time", "bytes"])
@settings(SLOW, max_examples=60)
@given(SEEDS)
def test_no_plan_at_all_is_cheaper_than_an_exact_answer(objective: str, seed: int) -> None:
    asking = random_question(random.Random(seed), most_devices=6, most_axes=2, most_indices=3)
    result = ask(asking, objective) if plain(asking) else None
    if result is None:
        return
    least = brute_force(result, objective)
    if result.exact:
        assert cost(result, objective) <= -(-least // 1) if objective == "bytes" else least * (1 + TOLERANCE)


@pytest.mark.parametrize("objective", ["time", "bytes"])
@settings(SLOW, max_examples=60)
@given(SEEDS)
def test_no_alternative_is_cheaper_and_no_bound_above(objective: str, seed: int) -> None:
    asking = random_question(random.Random(seed), most_devices=24)
    result = ask(asking, objective)
    if result is None:
        return
    result.verify()
    for bound in result.lower_bound.all:
        assert bound.bytes <= result.bytes_received
    mine = cost(result, objective) * (1 - TOLERANCE)
    for alternative in result.alternatives:
        assert (
            cost(alternative.priced, objective) >= mine
            or not result.exact
            or (objective == "bytes" and alternative.priced.flops > result.flops)
        )


@pytest.mark.parametrize("objective", ["time", "bytes"])
@settings(SLOW, max_examples=40)
@given(SEEDS)
def test_other_words_get_the_same_answer(objective: str, seed: int) -> None:
    rng = random.Random(seed)
    asking = random_question(rng, most_devices=24)
    result = ask(asking, objective)
    if result is None:
        return
    for relative in relatives(rng, asking).values():
        again = ask(relative, objective)
        assert again is not None
        assert cost(again, objective) == pytest.approx(cost(result, objective), rel=TOLERANCE)
