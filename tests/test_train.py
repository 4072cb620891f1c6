"""One optimizer step: parts that add up, memory by hand, schedules, experts, what is refused."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

import einscale
from einscale.errors import ScheduleError, SizeError, StrategyError, UsageError
from einscale.models import load_model, parameter_counts
from einscale.price.hiders import Hider, HidingWork
from einscale.price.spent import TimePart
from einscale.schedule import bubble_seconds, schedule_names
from einscale.training import TrainReport
from einscale.vocabulary import FORWARD

MIXED = 2 + 4 + 12
"""Bytes a parameter: 16-bit weight, fp32 gradient, fp32 master copy and two moments."""


def report(model: str = "llama3-8b", **given: object) -> TrainReport:
    given.setdefault("overhead", 0)
    return einscale.train_step(model, **given).step  # type: ignore[arg-type]


SETUPS = {
    "one device": {"model": "gpt2", "batch": 4, "microbatch": 2, "sequence": 512},
    "dp": {"mesh": "data=8", "strategy": "dp", "batch": 16},
    "fsdp": {"mesh": "data=8", "batch": 32, "microbatch": 2},
    "zero2": {"mesh": "data=8", "strategy": "dp", "zero": 2, "batch": 32},
    "tp": {
        "mesh": "data=2,model=4",
        "strategy": "megatron",
        "zero": 1,
        "batch": 8,
        "overlap": "gradients,parameters,activations",
    },
    "context": {"mesh": "data=2,context=4", "strategy": "ring", "batch": 4, "zero": 1},
    "ulysses": {"mesh": "data=2,context=4", "strategy": "ulysses", "batch": 4, "zero": 1},
    "experts": {
        "model": "mixtral-8x7b",
        "mesh": "data=2,expert=8",
        "zero": 1,
        "strategy": "dp",
        "batch": 32,
        "overlap": "routed",
    },
    "pipeline": {"mesh": "pipe=4,data=2,model=2", "strategy": "megatron-sp", "zero": 1, "batch": 64},
    "interleaved": {
        "mesh": "pipe=4,data=2",
        "strategy": "dp",
        "zero": 1,
        "batch": 16,
        "schedule": "interleaved",
        "chunks": 2,
    },
    "uneven": {"mesh": "pipe=4", "batch": 16, "first_layers": 5, "last_layers": 3},
    "dualpipe": {
        "model": "mixtral-8x7b",
        "mesh": "pipe=4,expert=8",
        "strategy": "dp",
        "batch": 64,
        "schedule": "dualpipe",
    },
    "offload": {"mesh": "data=8", "strategy": "dp", "batch": 16, "offload_optimizer": True, "offload_activations": 0.5},
    "recompute": {"mesh": "data=8", "strategy": "dp", "batch": 16, "recompute": "full"},
    "tied": {"model": "gemma2-9b", "mesh": "pipe=2", "batch": 8},
}


@pytest.mark.parametrize("name", SETUPS)
def test_the_parts_of_a_step_add_up(name: str) -> None:
    given = dict(SETUPS[name])
    step = report(given.pop("model", "llama3-8b"), **given)  # type: ignore[arg-type]
    assert sum(part.seconds for part in step.spent) == pytest.approx(step.step_seconds, rel=1e-9)
    assert all(part.seconds >= -1e-12 and part.hidden >= 0 for part in step.spent)
    assert 0 < step.mfu <= step.hfu * 1.0001 < 1
    for stage in step.stages:
        kinds = {
            "parameters": stage.memory.parameters,
            "gradients": stage.memory.gradients,
            "optimizer": stage.memory.optimizer,
        }
        for what, bytes_ in kinds.items():
            assert sum(one.total for one in stage.alive if one.what == what) == bytes_
    blocks = sum(count for stage in step.stages for kind, count in stage.layers if "block" in kind)
    copies = 2 if name == "dualpipe" else 1
    assert blocks == copies * step.setup.model.config.layers


@pytest.mark.parametrize(
    ("zero", "held"),
    [(0, MIXED), (1, 2 + 4 + 12 / 8), (2, 2 + (4 + 12) / 8), (3, MIXED / 8)],
)
def test_states_of_zero_by_hand(zero: int, held: float) -> None:
    """Rajbhandari et al. 2020, arXiv 1910.02054, figure 1, with fp32 gradients."""
    step = report(mesh="data=8", strategy="dp", zero=zero, batch=16)
    memory = step.fullest.memory
    parameters = parameter_counts(load_model("llama3-8b")).total
    assert memory.parameters + memory.gradients + memory.optimizer == pytest.approx(parameters * held, rel=1e-3)


def test_data_parallel_reduces_gradients_once_a_step_whatever_the_microbatches() -> None:
    def moved(batch: int) -> float:
        step = report(mesh="data=8", strategy="dp", batch=batch, overlap="none")
        return sum(part.seconds for part in step.spent if part.what == "gradients once a step")

    assert moved(8) == pytest.approx(moved(64))
    scattered = report(mesh="data=8", strategy="dp", zero=2, batch=64, overlap="none")
    assert any(part.what == "gradients" and part.axis == "data" for part in scattered.spent), "each microbatch"


def test_microbatches_in_flight_by_schedule() -> None:
    mesh = "pipe=4,data=1"
    saved = {
        name: report(mesh=mesh, batch=16, schedule=name, recompute="full").stages for name in ("1f1b", "gpipe", "zb-h1")
    }
    assert [stage.in_flight for stage in saved["1f1b"]] == [4, 3, 2, 1]
    assert [stage.in_flight for stage in saved["gpipe"]] == [16, 16, 16, 16]
    assert [stage.in_flight for stage in saved["zb-h1"]] == [4, 4, 4, 4]
    block = report(mesh=mesh, batch=16, recompute="full").layer("block")
    assert saved["1f1b"][1].memory.saved == 3 * 8 * block.saved_bytes
    interleaved = report(mesh=mesh, batch=16, schedule="interleaved", chunks=2, recompute="full").stages[0]
    assert interleaved.in_flight == pytest.approx(4 * (1 + 3 / 8)), "Narayanan et al. 2021: 1 + (p - 1)/(p v)"


@pytest.mark.parametrize(
    "name", [name for name in schedule_names() if name not in ("interleaved", "zb-v", "dualpipev")]
)
def test_a_pipeline_of_equal_stages_takes_what_the_closed_form_says(name: str, tmp_path: object) -> None:
    """A program of one's own, blocks alone: every stage is the same, and transfers are the only other time."""
    source = (
        "program block\ninput x: bf16[b s d]\nparam w_in: bf16[d f]\nparam w_out: bf16[f d]\n"
        'h = einsum("b s d, d f -> b s f", x, w_in)\na = gelu(h)\n'
        'y = einsum("b s f, f d -> b s d", a, w_out)\nreturn y\n'
    )
    path = tmp_path / "own.ein"  # type: ignore[operator]
    path.write_text(source)
    layer = load_model(path)
    model = replace(layer, layers=(replace(layer.layers[0], repeat=8),))
    step = einscale.train_step(
        model,
        mesh="pipe=4,data=2",
        strategy="dp",
        batch=32,
        sequence=4096,
        sizes={"d": 4096, "f": 16384},
        schedule=name,
    ).step
    cost = step.layers[0]
    times = [2 * seconds for seconds in (cost.forward_seconds, cost.backward_seconds, cost.weight_seconds)]
    bubble = bubble_seconds(name, 4, 16, 1, *times)
    idle = sum(part.seconds for part in step.spent if part.what == "bubble")
    hops = 40 * step.sent.seconds  # type: ignore[union-attr]
    assert bubble * (1 - 1e-9) <= idle <= bubble + hops


def test_tied_tables_are_held_by_both_ends_and_exchanged() -> None:
    step = report("gemma2-9b", mesh="pipe=2", batch=8)
    first, last = step.stages
    table = 256000 * 3584 * 2
    assert any(one.text.startswith("embedding: ") and one.bytes == table for one in first.alive)
    assert any(one.text.startswith("embedding: ") and one.bytes == table for one in last.alive)
    assert any(part.what is TimePart.SHARED_TABLE for part in step.spent)
    assert not any(part.what is TimePart.SHARED_TABLE for part in report("gemma2-9b", batch=8).spent)


def test_the_update_moves_what_zero_says() -> None:
    """DP: one all-reduce. ZeRO-1: a reduce-scatter of the gradients, an all-gather of the 16-bit parameters."""
    for zero, kinds in ((0, {"all-reduce"}), (1, {"reduce-scatter", "all-gather"}), (3, set[str]())):
        step = report(mesh="data=8", strategy="dp", zero=zero, batch=16)
        block = step.layer("block")
        large = [p for row in block.update for p in row.collectives if p.bytes > 10**6]
        assert {priced.step.kind for priced in large} == kinds
        for priced in large:
            assert priced.step.tensor.dtype == ("bf16" if priced.step.kind == "all-gather" else "fp32")


def test_offloading_frees_memory_and_takes_time() -> None:
    plain = report(mesh="data=8", strategy="dp", batch=16)
    away = report(mesh="data=8", strategy="dp", batch=16, offload_optimizer=True, offload_activations=1.0)
    assert away.fullest.memory.optimizer == 0
    assert 0 < away.fullest.memory.saved < plain.fullest.memory.saved / 8, "the layer at work has its own back"
    moved = plain.fullest.memory.saved - away.fullest.memory.saved
    assert away.fullest.memory.host == plain.fullest.memory.optimizer + moved
    assert away.step_seconds > plain.step_seconds
    assert any(part.rate > 0 for part in away.spent if part.what is TimePart.OFFLOADED_ACTIVATIONS)


def test_overlap_hides_and_says_behind_what() -> None:
    hidden = report(mesh="data=8", batch=32)
    open_ = report(mesh="data=8", batch=32, overlap="none")
    assert open_.step_seconds > hidden.step_seconds
    gathers = [p for row in hidden.layer("block").rows for p in row.collectives if p.step.kind == "all-gather"]
    assert all(p.hidden_by == Hider(HidingWork.LAYER_BEFORE, FORWARD) for p in gathers[:3])
    assert not any(p.hidden_by is not None for row in open_.layer("block").rows for p in row.collectives)


def test_what_does_not_fit_comes_with_changes_that_do() -> None:
    answer = einscale.train_step("llama3-70b", mesh="data=8,model=8", strategy="megatron-sp", batch=64, microbatch=2)
    assert not answer.fits
    assert answer.advice
    assert all(advice.report.fits for advice in answer.advice)
    given = {"mesh": "data=8,model=8", "strategy": "megatron-sp", "batch": 64, "microbatch": 2}
    for advice in answer.advice[:2]:
        again = einscale.train_step("llama3-70b", **{**given, **advice.arguments})  # type: ignore[arg-type]
        assert again.step.step_seconds == advice.report.step_seconds
    steps = [(advice.report.setup.mesh.devices, advice.report.step_seconds) for advice in answer.advice]
    assert steps == sorted(steps)
    assert einscale.train_step("gpt2", batch=2, sequence=512).advice == ()


REFUSED = {
    "stages": ({"model": "gpt2", "mesh": "pp=13", "batch": 128}, ScheduleError, "13 stages want at least 13 blocks"),
    "batch": ({"mesh": "data=8", "batch": 13}, SizeError, "the nearest that does is 8 or 16"),
    "microbatch": ({"mesh": "data=8", "batch": 128, "microbatch": 3}, SizeError, "use microbatches of 2 or 4"),
    "experts": (
        {"model": "mixtral-8x7b", "mesh": "data=8,expert=3", "batch": 120},
        StrategyError,
        "8 experts of mixtral-8x7b do not divide over 3 devices along expert",
    ),
    "groups": (
        {"mesh": "pipe=4", "batch": 10, "schedule": "interleaved", "chunks": 2},
        ScheduleError,
        "expected 8 or 12 microbatches, or 2 or 5 stages",
    ),
    "dualpipe": ({"mesh": "pipe=4", "batch": 6, "schedule": "dualpipe"}, ScheduleError, "8 microbatches"),
    "no pipeline": ({"mesh": "data=4", "batch": 8, "schedule": "gpipe"}, ScheduleError, "has no pipeline"),
    "schedule": ({"mesh": "pipe=4", "batch": 8, "schedule": "1f2b"}, ScheduleError, "did you mean `1f1b`?"),
    "overlap": ({"mesh": "data=4", "batch": 8, "overlap": "gradient"}, UsageError, "did you mean `gradients`?"),
    "recompute": ({"mesh": "data=4", "batch": 8, "recompute": "hiden"}, StrategyError, "did you mean `hidden`?"),
    "both": ({"mesh": "data=4", "batch": 8, "recompute": "none,full"}, UsageError, "both `none` and `full`"),
    "share": ({"mesh": "data=4", "batch": 8, "offload_activations": 2}, UsageError, "a share from 0 to 1, not 2"),
    "zero": ({"mesh": "data=4", "batch": 8, "zero": 4}, StrategyError, "ZeRO has no stage 4"),
    "first": ({"mesh": "pipe=2", "batch": 8, "first_layers": 40}, ScheduleError, "40"),
    "two pipelines": (
        {"mesh": "pipe=2,stage=2", "strategy": "dp", "batch": 8},
        StrategyError,
        "`pipe` plays its role already",
    ),
    "huge batch": ({"batch": 10**16}, SizeError, "the batch is absurd"),
    "divisors of a huge batch": ({"batch": 10**14 + 1, "microbatch": 3}, SizeError, "use microbatches of 1 or 29"),
    "schedule of no name": ({"mesh": "pipe=4", "batch": 8, "schedule": 1}, UsageError, "a schedule is named by text"),
    "attention of no name": ({"batch": 8, "attention": None}, UsageError, "is named by text, not by NoneType"),
    "loss of no name": (
        {"batch": 8, "loss": ["fused"]},
        UsageError,
        "a form of the loss is named by text, not by list",
    ),
    "recompute of no name": (
        {"batch": 8, "recompute": [None]},
        UsageError,
        "recompute is named by text, not by NoneType",
    ),
    "overlap of a number": ({"batch": 8, "overlap": 1}, UsageError, "overlap must be names, not int"),
    "offload of a word": ({"batch": 8, "offload_optimizer": "no"}, UsageError, "True or False, not 'no'"),
    "overhead of a word": ({"batch": 8, "overhead": "2"}, SizeError, "the overhead must be a whole number, not str"),
    "price of a word": ({"batch": 8, "price_per_hour": "2"}, UsageError, "the price of an hour cannot be '2'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_with_the_nearest_that_can(name: str) -> None:
    given, error, words = REFUSED[name]
    with pytest.raises(error) as caught:
        report(**given)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_a_step_of_any_number_of_microbatches_is_answered_and_grows_by_one_rhythm() -> None:
    few, more, huge = (
        report("gpt2", mesh="pipe=2", batch=batch, schedule="gpipe") for batch in (10**6, 2 * 10**6, 10**14)
    )
    each = (more.step_seconds - few.step_seconds) / 10**6
    assert math.isclose(huge.step_seconds, few.step_seconds + each * (10**14 - 10**6), rel_tol=1e-9)
    saved = (more.fullest.memory.saved - few.fullest.memory.saved) // 10**6
    assert huge.fullest.memory.saved == few.fullest.memory.saved + saved * (10**14 - 10**6)  # gpipe keeps them all


@pytest.mark.parametrize("name", [name for name in SETUPS if name != "offload"])
def test_tensors_alive_add_up_to_the_memory_shown(name: str) -> None:
    given = dict(SETUPS[name])
    for stage in report(given.pop("model", "llama3-8b"), **given).stages:  # type: ignore[arg-type]
        assert sum(one.total for one in stage.alive) == stage.memory.tensors


def test_capacity_pads_the_rows_of_experts() -> None:
    """A quarter more rows: a quarter more FLOPs, saved rows of experts, and bytes; each device has one expert here."""

    def moe(capacity: float) -> tuple[int, int, int]:
        given = {"mesh": "data=2,expert=8", "strategy": "dp", "batch": 32, "capacity": capacity}
        layer = report("mixtral-8x7b", **given).layer("moe_block")
        flops = sum(row.flops for row in layer.rows if row.planned.statement.output in ("gate", "up", "expert_out"))
        rows = next(held.bytes for held in layer.saved if held.tensor.name == "arranged")
        moved = sum(p.bytes for row in layer.rows for p in row.collectives if p.step.tensor.name == "dispatched")
        return flops, rows, moved

    even, padded = moe(1.0), moe(1.25)
    assert padded[0] * 4 == even[0] * 5
    assert padded[1] * 4 == even[1] * 5
    assert padded[2] * 4 == even[2] * 5
    with pytest.raises(SizeError, match=r"a capacity of 0\.5"):
        report("mixtral-8x7b", capacity=0.5)
