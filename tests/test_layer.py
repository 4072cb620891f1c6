"""The layer report: sums against closed forms worked out by hand, what is expected of a strategy, and bad requests."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from einscale.api.layer import LayerResult, layer
from einscale.errors import SizeError, StrategyError, UsageError
from einscale.price.program import PricedCollective, bound_ratio
from einscale.report.words import unexpected_words
from einscale.strategy import parse_strategy
from einscale.vocabulary import BACKWARD, FORWARD

D, N, G, K, F, V, LAYERS = 8192, 8, 8, 128, 28672, 128256, 80
"""llama3-70b."""

BLOCK_WEIGHTS = 2 * D * N * G * K + 2 * D * N * K + 3 * D * F


@pytest.fixture(scope="module")
def megatron() -> LayerResult:
    return layer("llama3-70b", mesh="data=8,model=8", strategy="megatron-sp", hardware="h100", sequence=4096, batch=8)


def block(answer: LayerResult):
    return next(kind for kind in answer.layers.kinds if kind.kind == "block")


def collectives(answer: LayerResult, phase: str) -> Iterator[PricedCollective]:
    for row in block(answer).rows:
        if row.planned.phase == phase:
            yield from row.collectives


PAIRS = 4096 * 4097 // 2
"""Pairs of a query and a key that a causal mask lets through, which a fused kernel works on alone."""


def test_forward_flops_are_two_for_each_weight_and_token_and_for_each_causal_pair(megatron: LayerResult) -> None:
    expected = 2 * BLOCK_WEIGHTS * 4096 + 2 * 2 * N * G * K * PAIRS
    einsums = sum(
        row.flops
        for row in block(megatron).rows
        if row.planned.phase == FORWARD and row.planned.statement.op == "einsum"
    )
    assert einsums == expected // 8


def test_backward_flops_are_twice_the_forward_and_the_scores_again(megatron: LayerResult) -> None:
    rows = [row for row in block(megatron).rows if row.planned.statement.op == "einsum"]
    forward = sum(row.flops for row in rows if row.planned.phase == FORWARD)
    again = sum(row.flops for row in rows if row.planned.statement.phase == "recompute")
    backward = sum(row.flops for row in rows if row.planned.phase == BACKWARD) - again
    scores = 2 * N * G * K * PAIRS // 8
    assert backward == 2 * forward
    assert again == scores


def test_each_collective_of_the_residual_stream_moves_seven_eighths_of_it(megatron: LayerResult) -> None:
    stream = 4096 * D * 2
    moved = [priced.bytes for priced in collectives(megatron, FORWARD)]
    assert moved == [stream * 7 // 8] * 4


def test_gradients_are_all_reduced_once_a_step_over_the_data_axis(megatron: LayerResult) -> None:
    table = block(megatron).planned.program.table
    weights = {value.name: value for value in table.values() if value.kind == "parameter" and len(value.axes) > 1}
    over_data = {
        table[priced.step.tensor.name].of: priced.bytes
        for row in block(megatron).update
        for priced in row.collectives
        if priced.step.axes == ("data",)
    }
    assert set(over_data) == set(weights)
    assert sum(over_data.values()) == 2 * 4 * (BLOCK_WEIGHTS // 8) * 7 // 8  # added up over microbatches in fp32
    assert not [priced for priced in collectives(megatron, BACKWARD) if priced.step.axes == ("data",)]


def test_every_collective_is_as_good_as_its_bound(megatron: LayerResult) -> None:
    for phase in (FORWARD, BACKWARD):
        for priced in collectives(megatron, phase):
            assert bound_ratio(priced, block(megatron).planned) == pytest.approx(1.0, rel=1e-3)


def test_memory_adds_up(megatron: LayerResult) -> None:
    memory = megatron.layers.memory
    parameters = (LAYERS * BLOCK_WEIGHTS + 2 * V * D) // 8 + (2 * LAYERS + 1) * D  # norms are on every device
    assert memory.parameters == 2 * parameters
    assert memory.gradients == 2 * memory.parameters  # fp32
    assert memory.optimizer == 12 * parameters
    assert memory.saved == sum(kind.saved_bytes * kind.repeat for kind in megatron.layers.kinds)
    assert not memory.fits
    assert memory.needed > memory.capacity == 80 * 10**9


def test_sub_totals_add_up_to_the_layer_and_layers_to_the_model(megatron: LayerResult) -> None:
    kind = block(megatron)
    assert kind.sections == ("attention", "mlp")
    for phase in (FORWARD, BACKWARD):
        parts = [kind.totals(phase, section) for section in kind.sections]
        assert sum(part.flops for part in parts) == kind.totals(phase).flops
        assert sum(part.received for part in parts) == kind.totals(phase).received
    model = megatron.layers.totals
    assert model.flops == sum(one.totals().flops * one.repeat for one in megatron.layers.kinds)
    assert model.seconds == pytest.approx(model.compute_seconds + model.communication_seconds)


def test_fewer_devices_along_the_model_axis_move_less_and_hold_more() -> None:
    two = layer("llama3-8b", mesh="model=2", strategy="megatron-sp", sequence=2048, batch=1).layers
    eight = layer("llama3-8b", mesh="model=8", strategy="megatron-sp", sequence=2048, batch=1).layers
    assert two.memory.parameters > eight.memory.parameters
    assert two.totals.received < eight.totals.received


def test_one_device_moves_nothing_and_does_all_the_work() -> None:
    report = layer("llama3-8b", sequence=2048).layers
    assert report.totals.received == 0
    assert report.totals.communication_seconds == 0.0
    assert all(not kind.planned.collectives for kind in report.kinds)


def test_one_phase_alone_is_a_part_of_both() -> None:
    both = layer("llama3-8b", mesh="model=8", sequence=1024, batch=1).layers
    forward = layer("llama3-8b", mesh="model=8", sequence=1024, batch=1, backward=False).layers
    backward = layer("llama3-8b", mesh="model=8", sequence=1024, batch=1, forward=False).layers
    assert forward.totals.flops + backward.totals.flops == both.totals.flops
    assert forward.memory.saved == forward.memory.optimizer == 0


def test_what_was_not_given_is_said() -> None:
    report = layer("gpt3-175b", mesh="dp=2,tp=4").layers
    assert report.notes[:3] == (
        "strategy: fsdp+tp, which suits this mesh (none was given)",
        "sequence: 2048 tokens (none was given)",
        "batch: 2 sequences, one microbatch of 1 for each data-parallel replica (none was given)",
    )


def test_presets_run_only_what_they_expect() -> None:
    for strategy, mesh in (
        ("dp", "data=4"),
        ("fsdp", "data=4"),
        ("megatron", "data=2,model=4"),
        ("megatron-sp", "data=2,model=16"),
        ("fsdp+tp", "data=2,model=4"),
    ):
        for model in ("llama3-8b", "gpt2"):
            if model == "gpt2" and "16" in mesh:
                continue
            assert layer(model, mesh=mesh, strategy=strategy, sequence=512).layers.unexpected == ()


def test_a_collective_that_is_not_expected_is_named() -> None:
    own = parse_strategy('name = "own"\nexpect = ["all-reduce model activations"]\n[compute]\nh = "model"\n')
    report = layer("llama3-8b", mesh="model=32", strategy=own, sequence=512, batch=1).layers
    assert report.unexpected == ()
    none = parse_strategy('name = "none"\nexpect = []\n[compute]\nh = "model"\n')
    report = layer("llama3-8b", mesh="model=32", strategy=none, sequence=512, batch=1).layers
    found = [unexpected_words(one) for one in report.unexpected]
    assert 'block: all-reduce over model of attn_out ("all-reduce model activations")' in found
    assert 'block: all-reduce over model:(8)4 of d_v ("all-reduce model activations")' in found


def test_padding_is_reported_where_a_dim_does_not_divide() -> None:
    report = layer("gpt2", mesh="model=8", strategy="megatron", sequence=512, batch=1).layers
    padded = {name: share for kind in report.kinds for name, share in kind.padding}
    assert padded["embedding: v/model d"] == pytest.approx(1 - 50257 / 50264)
    assert padded["wq: d n/model k"] == pytest.approx(1 - 12 / 16)


def test_the_document_holds_what_the_report_holds(megatron: LayerResult) -> None:
    document = json.loads(json.dumps(megatron.to_dict()))
    assert document["command"] == "layer"
    assert document["schema_version"] == 1
    assert document["inputs"]["mesh"] == "data=8,model=8"
    kinds = {kind["kind"]: kind for kind in document["kinds"]}
    assert kinds["block"]["repeat"] == LAYERS
    assert kinds["block"]["totals"]["forward"]["flops"] == block(megatron).totals(FORWARD).flops
    first = next(statement for statement in kinds["block"]["statements"] if statement["collectives"])
    assert set(first["collectives"][0]) >= {"kind", "tensor", "axes", "received_bytes", "bound_bytes", "cause"}
    assert document["memory"]["needed_bytes"] == megatron.layers.memory.needed


BAD = {
    "batch that does not divide": (
        {"mesh": "data=8", "batch": 12},
        SizeError,
        "a batch of 12 sequences does not divide over 8 data-parallel replicas\n  the nearest that does is 8 or 16",
    ),
    "no batch": ({"batch": 0}, SizeError, "the batch must be at least 1\n  0\n  ^"),
    "absurd batch": (
        {"batch": 10**30},
        SizeError,
        "the batch is absurd: more than 1e+18\n  1" + "0" * 30 + "\n  " + "^" * 31,
    ),
    "too many heads": (
        {"mesh": "model=64", "strategy": "megatron"},
        StrategyError,
        "heads `h` (32) cannot be divided 64 ways over mesh axis model\n"
        "  use at most 32 devices along model, or another rule for `h`",
    ),
    "sequence too short": (
        {"mesh": "model=8", "strategy": "megatron-sp", "sequence": 0},
        SizeError,
        "the sequence must be at least 1\n  0\n  ^",
    ),
    "nothing asked": (
        {"forward": False, "backward": False},
        UsageError,
        "neither the forward nor the backward pass is asked for\n  expected at least one of them",
    ),
    "strategy misspelt": (
        {"strategy": "megatorn"},
        StrategyError,
        "unknown strategy `megatorn`\n  expected a name, or the path of a .toml file\n  did you mean `megatron`?",
    ),
}


@pytest.mark.parametrize(("request_", "kind", "message"), BAD.values(), ids=BAD)
def test_an_impossible_request_gets_one_message(request_: dict, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        layer("llama3-8b", **request_)
    assert str(caught.value) == message


def test_learned_positions_end_somewhere() -> None:
    with pytest.raises(SizeError) as caught:
        layer("gpt2", sequence=2048)
    assert str(caught.value) == (
        "gpt2 has 1024 learned positions, fewer than a sequence of 2048 tokens\n  use a sequence of at most 1024"
    )
