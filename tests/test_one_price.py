"""One question, one price: `layer`, `compare` and `train` give the same figures for the same request."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from suited_meshes import MESHES

from einscale.api.compare import CompareResult, compare
from einscale.api.layer import layer
from einscale.api.train import train_step
from einscale.errors import EinscaleError
from einscale.layers import LayerReport
from einscale.strategy import list_strategies
from einscale.training.values import TrainReport

STRATEGIES = tuple(strategy.name for strategy in list_strategies())

MODELS = ("llama3-8b", "mixtral-8x7b")
"""Dense, and with routed experts."""

SETTINGS: dict[str, dict[str, Any]] = {
    "one stage": {},
    "nothing hidden": {"overlap": "none"},
    "everything hidden, recomputed": {"overlap": "parameters,gradients,activations", "recompute": "full"},
    "two at a time": {"microbatch": 2, "optimizer": "muon", "precision": "bf16-pure"},
    "offloaded": {"offload_activations": 0.5, "offload_optimizer": True},
    "1f1b": {"schedule": "1f1b"},
    "interleaved": {"schedule": "interleaved", "chunks": 2, "overlap": "gradients"},
    "zero bubble": {"schedule": "zb-h1", "recompute": "selective"},
    "dual": {"schedule": "dualpipev", "zero": 1},
}
"""What is asked beside a model, a mesh and a strategy."""


def request_of(strategy: str, setting: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `train_step` and of `layer`."""
    mesh = f"pipe=2,{MESHES[strategy]}" if "schedule" in setting else MESHES[strategy]
    return {"mesh": mesh, "strategy": strategy, "sequence": 256, "batch": 64, **setting}


def chosen_settings(strategy: str) -> list[str]:
    """The plain step, and two more settings, so that a few strategies meet each of them."""
    place, names = STRATEGIES.index(strategy), list(SETTINGS)
    return list(dict.fromkeys((names[0], names[1 + place % 4], names[5 + place % 4])))


@cache
def priced(model: str, strategy: str) -> tuple[tuple[TrainReport, LayerReport], ...]:
    asked = [request_of(strategy, SETTINGS[name]) for name in chosen_settings(strategy)]
    return tuple((train_step(model, **each).step, layer(model, **each).layers) for each in asked)


def test_every_setting_is_met_by_several_strategies() -> None:
    for name in SETTINGS:
        assert sum(name in chosen_settings(strategy) for strategy in STRATEGIES) >= 4


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_layers_take_what_the_step_takes(strategy: str, model: str) -> None:
    for step, view in priced(model, strategy):
        assert view.totals.seconds == pytest.approx(sum((*step.chunks.forward, *step.chunks.backward)), rel=1e-12)
        if step.setup.stages == 1:
            passes = step.setup.microbatches * view.totals.seconds
            assert step.passes_seconds == pytest.approx(passes, rel=1e-12)
        assert step.setup.microbatches * view.totals.flops * step.setup.mesh.devices == (
            step.hardware_flops * step.setup.stages
        )
        for kind in view.kinds:
            found = step.layer(kind.kind)
            assert kind.totals("forward").seconds == pytest.approx(found.forward_seconds, rel=1e-12)
            assert kind.totals("backward").seconds == pytest.approx(found.backward_seconds, rel=1e-12)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_layers_hold_what_the_step_holds(strategy: str, model: str) -> None:
    for step, view in priced(model, strategy):
        kinds = {kind.kind: kind for kind in view.kinds}
        full = step.fullest
        assert view.memory == full.memory
        assert view.fits == step.fits
        held = {
            name: sum(getattr(kinds[kind], f"{name}_bytes") * count for kind, count in full.layers)
            for name in ("parameter", "gradient", "optimizer")
        }
        assert (held["parameter"], held["gradient"]) == (full.memory.parameters, full.memory.gradients)
        if step.setup.offload.optimizer:
            assert full.memory.optimizer == 0
            assert held["optimizer"] <= full.memory.host
        else:
            assert held["optimizer"] == full.memory.optimizer
        for kind in view.kinds:  # what the update makes lands where the passes read it
            for value in kind.planned.program.parameters:
                made = f"{value.name}_new"
                if made in kind.cost.updated.resting:
                    assert kind.cost.updated.resting[made] == kind.planned.resting[value.name]
        for kind, cost in ((kind, step.layer(kind.kind)) for kind in view.kinds):
            assert (kind.saved, kind.parameters, kind.peak) == (cost.saved, cost.parameters, cost.peak)
        saved = {(alive.kind, alive.text) for alive in full.alive if alive.what == "saved"}
        assert saved <= {(kind.kind, held.text) for kind in view.kinds for held in kind.saved}


def every_pair(model: str) -> list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]]:
    """Strategies, each with the next; the settings of a pair are alike, for a comparison has one request."""
    names = list(SETTINGS)
    pairs = []
    for place, (first, other) in enumerate(pairwise((*STRATEGIES, STRATEGIES[0]))):
        setting = SETTINGS[names[(place + MODELS.index(model)) % len(names)]]
        pairs.append(((first, setting), (other, setting)))
    return pairs


@pytest.mark.parametrize("model", MODELS)
def test_a_comparison_is_of_the_steps_that_train_prices(model: str) -> None:
    for first, other in every_pair(model):
        (one, setting), (two, _) = first, other
        asked = {key: value for key, value in request_of(one, setting).items() if key not in ("mesh", "strategy")}
        chosen = [(name, request_of(name, setting)["mesh"]) for name in (one, two)]
        answer = compare(model, chosen, **asked)
        for side, total, (name, mesh) in zip(answer.comparison.sides, answer.comparison.totals, chosen, strict=True):
            step = train_step(model, mesh=mesh, strategy=name, **asked).step
            assert side.report.step_seconds == step.step_seconds
            assert total.seconds == pytest.approx(step.step_seconds, rel=1e-9)
            assert side.report.fullest.memory == step.fullest.memory
            assert side.report.fits == step.fits
        check_terms(answer)


def check_terms(answer: CompareResult) -> None:
    """Terms add up to what the steps differ by: exactly for whole numbers, to rounding for seconds."""
    sides = answer.comparison.sides
    for place, found in enumerate(answer.comparison.differences, 1):
        first, other = answer.comparison.totals[0], answer.comparison.totals[place]
        for name in ("flops", "traffic", "received"):
            assert sum(getattr(term.change, name) for term in found.terms) == getattr(other, name) - getattr(
                first, name
            )
        seconds = math.fsum(term.change.seconds for term in found.terms)
        steps = [side.report.step_seconds for side in (sides[0], sides[place])]
        assert abs(seconds - (steps[1] - steps[0])) <= 1e-9 * max(steps)
        needed = [side.report.fullest.memory.needed for side in (sides[0], sides[place])]
        assert sum(term.bytes for term in found.memory_terms) == found.memory_change == needed[1] - needed[0]


def test_terms_add_up_whatever_the_pipeline_and_whatever_rests_on_the_host() -> None:
    """Sides that differ in everything a request can differ in: here the strategies carry it."""
    sides = []
    for strategy in STRATEGIES[:8]:
        for setting in SETTINGS.values():
            try:
                sides.append(train_step("gpt2", **{**request_of(strategy, setting), "sequence": 128}).step)
            except EinscaleError:
                continue
    assert len(sides) > 60
    from einscale.comparison import Side, compare_reports

    for place in range(0, len(sides), 3):
        others = (sides[place], sides[(7 * place + 11) % len(sides)], sides[(5 * place + 3) % len(sides)])
        check_terms(CompareResult(compare_reports([Side(str(at), step) for at, step in enumerate(others)])))


def test_the_strategies_of_a_cluster_rank_alike_by_every_command() -> None:
    """Sixty-four devices for llama3-70b: a comparison of layers once named another winner than two steps."""
    chosen = [("fsdp", "data=64"), ("megatron-sp", "data=32,model=2")]
    asked: dict[str, Any] = {"batch": 64, "sequence": 4096}
    answer = compare("llama3-70b", [f"{name}@{mesh}" for name, mesh in chosen], **asked)
    steps = {name: train_step("llama3-70b", mesh=mesh, strategy=name, **asked).step for name, mesh in chosen}
    views = {name: layer("llama3-70b", mesh=mesh, strategy=name, **asked).layers for name, mesh in chosen}
    taken = [side.report.step_seconds for side in answer.comparison.sides]
    assert taken == [steps[name].step_seconds for name, _ in chosen]
    assert taken[0] < taken[1]
    assert answer.comparison.best[0].labels == ("fsdp@data=64",)
    for name, mesh in chosen:
        step, view = steps[name], views[name]
        once = step.step_seconds - step.passes_seconds
        assert view.totals.seconds * step.setup.microbatches + once == pytest.approx(step.step_seconds, rel=1e-12)
        assert f"{name}@{mesh}" in answer.to_text()
