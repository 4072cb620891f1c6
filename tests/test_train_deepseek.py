"""DeepSeek-V3 in its own layout on 2048 GPUs, against what its authors published.

Facts read: github.com/deepseek-ai/DualPipe, README (bubble, copies of parameters, activations of each schedule); the
model's README on huggingface.co/deepseek-ai/DeepSeek-V3 (671B parameters, 37B active, 14.8T tokens, 2.664M H800 hours
of pre-training). From memory of arXiv 2412.19437, section 3: 16 pipeline stages, 64 ways of experts over 8 nodes,
ZeRO-1, no tensor parallelism, at most 4 nodes for a token, batches of up to 15360 sequences of 4096 tokens; section
3.2.3: norms and the up-projections of latent attention are computed again in the backward pass.
"""

from __future__ import annotations

import pytest

import einscale
from einscale.models import parameter_counts
from einscale.price.hiders import HidingWork
from einscale.schedule import bubble_seconds
from einscale.training import TrainReport

BATCH, SEQUENCE = 15360, 4096
RECOMPUTED = "attn_in,mlp_in,q_latent,kv_latent,q,q_rotated,k,v,hidden,hidden_weighed,shared_hidden"


@pytest.fixture(scope="module")
def step() -> TrainReport:
    return einscale.train_step(
        "deepseek-v3",
        mesh="pipe=16,data=2,expert=64",
        strategy="dp",
        zero=1,
        hardware="h100",  # an H800 computes as much; its NVLink is slower
        batch=BATCH,
        sequence=SEQUENCE,
        schedule="dualpipe",
        precision="fp8-deepseek",
        recompute=RECOMPUTED,
    ).step


def test_the_model_is_the_published_one(step: TrainReport) -> None:
    counts = parameter_counts(step.setup.model)
    assert round(counts.total / 1e9) == 671
    assert round((counts.active - 129280 * 7168) / 1e9) == 37, "the table of tokens is not counted as met"
    assert step.setup.mesh.devices == 2048
    assert step.setup.replicas == 128
    assert step.setup.microbatches == BATCH / 128


def test_experts_and_stages_are_where_the_paper_puts_them(step: TrainReport) -> None:
    block = step.layer("moe_block").planned
    assert block.resting["w_gate"].text(("e", "d", "m")) == "e/expert d m"
    assert 256 / 64 == 4
    assert sum(count for stage in step.stages for kind, count in stage.layers if "block" in kind) == 2 * 61
    assert {kind for kind, _ in step.stages[0].layers} >= {"embedding", "dense_block", "head", "ahead"}
    assert step.stages[0].layers == step.stages[15].layers or set(dict(step.stages[0].layers)) == set(
        dict(step.stages[15].layers)
    ), "both ends hold both directions"


def test_dualpipe_holds_two_copies_and_one_microbatch_more_than_stages(step: TrainReport) -> None:
    middle = step.stages[7]
    assert middle.in_flight * 2 == 16 + 1
    share = dict(middle.layers)["moe_block"]
    block = step.layer("moe_block")
    assert middle.memory.parameters == share * sum(held.bytes for held in block.parameters)
    assert share in (7, 8), "61 blocks on 16 stages, in both directions"


def test_tokens_travel_to_distinct_devices_of_at_most_four_nodes(step: TrainReport) -> None:
    """Bytes by hand: 4096 tokens of 7168 numbers of 8 bits (a scale for 128), to the devices their 8 experts are on."""
    moves = [p for row in step.layer("moe_block").rows for p in row.collectives if p.step.distinct]
    assert [p.step.tensor.name for p in moves] == ["dispatched", "expert_out", "d_expert_out", "d_arranged"]
    out = moves[0]
    row = 7168 + 7168 // 128 * 4
    copies = out.bytes / (SEQUENCE * row)
    assert 7.0 < copies < 8.0, "8 experts, a few on one device, one device in 64 the token's own"
    back = moves[1]
    assert back.step.tensor.dtype == "bf16"
    assert back.bytes / (SEQUENCE * 2 * 7168) == pytest.approx(copies, rel=1e-3)
    assert all(p.hidden_by.work is HidingWork.OTHER_MICROBATCH for p in moves)


def test_gradients_of_experts_are_reduced_over_the_replicas_that_share_them(step: TrainReport) -> None:
    axes = {
        (priced.step.tensor.name, priced.step.axes)
        for row in step.layer("moe_block").update
        for priced in row.collectives
        if priced.bytes > 10**6
    }
    assert ("d_w_gate", ("data",)) in axes
    assert ("d_wo", ("data", "expert")) in axes


def test_the_bubble_is_that_of_the_schedule(step: TrainReport) -> None:
    """(PP/2 - 1)(F&B + B - 3W) for equal stages; here both ends are slower, so it is larger, but a small part."""
    block = step.layer("moe_block")
    times = [4 * one for one in (block.forward_seconds, block.backward_seconds, block.weight_seconds)]
    least = bubble_seconds("dualpipe", 16, 120, 1, *times)
    bubble = sum(part.seconds for part in step.spent if part.what == "bubble")
    assert least * 0.5 < bubble < 0.15 * step.step_seconds
    one_f_one_b = bubble_seconds("1f1b", 16, 120, 1, *times[:2])
    assert least < 0.6 * one_f_one_b


def test_time_and_memory_are_of_the_published_order(step: TrainReport) -> None:
    """2.664 million H800 hours for 14.8 trillion tokens: 19.9 s for a batch of 62.9 million on 2048 GPUs."""
    published = 2.664e6 * 3600 / 14.8e12 * BATCH * SEQUENCE / 2048
    assert published == pytest.approx(19.9, abs=0.1)
    assert 0.6 < step.step_seconds / published < 1.25
    static = step.fullest.memory
    assert static.parameters + static.gradients + static.optimizer < 40e9
    full = einscale.train_step(
        "deepseek-v3",
        mesh="pipe=16,data=2,expert=64",
        strategy="dp",
        zero=1,
        hardware="h100",
        batch=BATCH,
        schedule="dualpipe",
        precision="fp8-deepseek",
        recompute="full",
    )
    assert full.fits
