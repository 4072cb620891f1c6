"""What holds of every answer of the einsum planner: by brute force, against its alternatives, and in other words."""

from __future__ import annotations

import math
import random
from itertools import permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planner_oracle import cheapest_plan
from random_questions import Asking, random_question, relatives

import einscale
from einscale.errors import HardwareError
from einscale.layout import Layout
from einscale.planner.einsum import forget
from einscale.reshard import answers

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
    if result.exact and math.isfinite(least):  # an index of one operand may be summed first, in fewer FLOPs than any
        assert cost(result, objective) <= (math.ceil(least) if objective == "bytes" else least * (1 + TOLERANCE))


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


@pytest.mark.parametrize(
    ("spec", "mesh", "sizes", "options", "most"),
    [
        # FLOPs alone would divide c over y: the memory traffic of the local product is what takes long
        ("a/x b, b c -> a c", "x=2,y=8", {"a": 64, "b": 16384, "c": 4096}, {"hardware": "a100"}, 24.5e-6),
        # one operand: the sum is divided over the idle axis y, and what is small is gathered
        ("a b c/x -> b/x c", "x=8,y=8", {"a": 16384, "b": 8192, "c": 16384}, {"hardware": "tpu-v5p"}, 25e-3),
        # a few bytes are gathered sooner than they are reduced
        ("c/x -> ", "x=4", {"c": 8}, {"hardware": "h100"}, 8.5e-6),
        ("f b c/y, c/x f", "x=2,y=2", {"b": 30, "c": 512, "f": 1000}, {"hardware": "h100"}, 18.7e-6),
        # 12 does not divide 128: padded shards move fewer bytes than 4 shards that need no padding
        ("T0: fp8[a], a {U:x}", "x=12", {"a": 128}, {"hardware": "tpu-v5p", "objective": "bytes"}, 239),
    ],
)
def test_what_is_printed_is_made_least(
    spec: str, mesh: str, sizes: dict[str, int], options: dict[str, str], most: float
) -> None:
    result = einscale.plan(spec, mesh=mesh, sizes=sizes, **options)
    mine = cost(result, result.objective)
    assert mine <= most
    for alternative in result.alternatives:
        assert cost(alternative.priced, result.objective) >= mine or alternative.priced.flops > result.flops


@pytest.mark.parametrize(
    ("operands", "output", "mesh", "sizes"),
    [
        (("fp32[c d]", "a d"), "a c ?", {"x": 4}, {"a": 8, "c": 16, "d": 12}),
        (
            ("T0: int4[d e {U:y}]", "T1: d a e c", "fp32[c/x b b]"),
            "",
            {"x": 2, "y": 3},
            {"a": 5, "b": 6, "c": 8, "d": 4, "e": 7},
        ),
        (("T0: int8[a/x]", "T1: fp8[b]"), "a/x b", {"x": 2}, {"a": 4, "b": 8}),
    ],
)
def test_operands_in_any_order_cost_the_same(
    operands: tuple[str, ...], output: str, mesh: dict[str, int], sizes: dict[str, int]
) -> None:
    found = set()
    for order in permutations(operands):
        for objective in ("bytes", "time"):
            result = einscale.plan(
                f"{', '.join(order)} -> {output}", mesh=mesh, sizes=sizes, objective=objective, hardware="h100"
            )
            found.add((objective, result.bytes_received, round(result.seconds * 1e15)))
    assert len(found) == 2


def test_a_plan_of_several_operands_stops_at_a_counted_amount_of_work() -> None:
    spec = "T0: bf16[b/x d a], T1: d/y c a {U:z}, T2: fp32[{U:x}], T3: b/z c -> a/z d c"
    asked = {"mesh": {"x": 6, "y": 4, "z": 4}, "sizes": {"a": 32, "b": 96, "c": 8, "d": 24}, "hardware": "h100"}
    first = einscale.plan(spec, **asked)  # type: ignore[arg-type]
    assert not first.exact
    assert first.note.endswith("the search stopped at its bound on work")
    forget()
    answers.forget()
    assert einscale.plan(spec, **asked).steps == first.steps  # type: ignore[arg-type]
