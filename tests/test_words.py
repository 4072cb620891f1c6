"""Values in words: every value of a vocabulary has a sentence, and no two say the same."""

from __future__ import annotations

import pytest

from einscale.changes import Change, Option
from einscale.mesh import parse_mesh
from einscale.precision import parse_precision
from einscale.price.hiders import Hider, HidingWork
from einscale.price.memory import HoldReason, Why
from einscale.price.spent import SpentPart, TimeGroup, TimePart
from einscale.report.training.parts import moment_words, part_name, part_note
from einscale.report.words import changes_words, hider_words, hiders_words, reason_words
from einscale.training.values import AtWork

HIDERS = {
    Hider(HidingWork.LAYER_BEFORE, "forward"): "the forward work of the layer before it",
    Hider(HidingWork.LAYER_AFTER, "backward"): "the backward work of the layer after it",
    Hider(HidingWork.OTHER_MICROBATCH, "forward"): "the forward work of another microbatch",
    Hider(HidingWork.OWN_EINSUM, "forward", "q"): "q, block by block",
    Hider(HidingWork.OWN_EINSUM): "the einsum that reads or makes them, block by block",
    Hider(HidingWork.RING_BLOCK): "the attention of the block at hand",
    Hider(HidingWork.LAST_BACKWARD, "backward"): "the backward pass of the last microbatch",
    Hider(HidingWork.FIRST_FORWARD, "forward"): "the forward pass of the first microbatch",
}

REASONS = {
    HoldReason(Why.AT_REST): "",
    HoldReason(Why.PASS, phase="forward"): "forward",
    HoldReason(Why.PARAMETER): "parameter",
    HoldReason(Why.GRADIENT): "gradient",
    HoldReason(Why.STATE, "wq", "master"): "master of wq",
    HoldReason(Why.GATHERED): "gathered",
    HoldReason(Why.LAYER_INPUT): "input of the layer",
    HoldReason(Why.READ_BACK, "q", "einsum"): "einsum for q",
    HoldReason(Why.FUSED_READ_BACK, "p", "softmax"): "fused softmax for p",
    HoldReason(Why.KEPT_ANYWAY): "kept though the backward pass does not read it",
    HoldReason(Why.BETWEEN_KERNELS): "between its kernels",
    HoldReason(Why.PUT_IN_ORDER, phase="backward"): "put in order in the backward pass",
    HoldReason(Why.MADE): "made",
    HoldReason(Why.STREAMED): "streamed: two blocks",
}

NOTES = {
    TimePart.FORWARD: "",
    TimePart.BACKWARD: "",
    TimePart.ACCUMULATE: "gradients of earlier microbatches read back",
    TimePart.RECOMPUTE: "forward work done again in the backward pass",
    TimePart.OFFLOADED_ACTIVATIONS: "activations to the host and back; the work has time for 2.5 GB/s",
    TimePart.PARAMETERS: "hidden behind q, block by block",
    TimePart.GRADIENTS: "hidden behind q, block by block",
    TimePart.ACTIVATIONS: "hidden behind q, block by block",
    TimePart.ROUTED: "hidden behind q, block by block",
    TimePart.STATISTICS: "hidden behind q, block by block",
    TimePart.STREAMED: "hidden behind q, block by block",
    TimePart.WEIGHTS: "kernels that wait for memory, for the weights they read",
    TimePart.CACHE: "the same, for keys, values and states",
    TimePart.TRAFFIC: "the same, for everything else",
    TimePart.COMPUTE: "kernels that wait for the arithmetic",
    TimePart.LAUNCH: "starts of kernels, and waiting for the host",
    TimePart.HOPS: "the residual stream to the next pipeline stage",
    TimePart.BUBBLE: "waiting for other stages and for transfers between them",
    TimePart.WAIT: "for the update of a slower stage",
    TimePart.GRADIENTS_ONCE: "gradients, once a step; hidden behind q, block by block",
    TimePart.PARAMETERS_ONCE: "parameters, once a step; hidden behind q, block by block",
    TimePart.FIRST_AND_LAST: "nothing runs yet, or any more, to hide their moves",
    TimePart.OPTIMIZER_ONCE: "what muon wants whole, or sums",
    TimePart.SHARED_TABLE: "d_table, d_other: the first and the last stage share the table",
    TimePart.UPDATE: "muon: gradients, weights and states through HBM",
    TimePart.OFFLOADED_OPTIMIZER: "gradients to the host and parameters back",
}


def test_every_hider_in_words() -> None:
    assert {hider.work for hider in HIDERS} == set(HidingWork)
    assert {hider: hider_words(hider) for hider in HIDERS} == HIDERS
    assert hider_words(None) == ""
    both = (Hider(HidingWork.RING_BLOCK), Hider(HidingWork.OWN_EINSUM, "forward", "q"))
    assert hiders_words(both) == "the attention of the block at hand and q, block by block"


def test_every_reason_in_words() -> None:
    assert {reason.why for reason in REASONS} == set(Why)
    assert {reason: reason_words(reason) for reason in REASONS} == REASONS


@pytest.mark.parametrize("what", TimePart)
def test_every_part_of_a_step_in_words(what: TimePart) -> None:
    hidden = NOTES[what].endswith("block by block")
    by = (Hider(HidingWork.OWN_EINSUM, "forward", "q"),) if hidden else ()
    part = SpentPart(what, 1.0, hidden_by=by, tensors=("d_table", "d_other"), rate=2.5e9)
    assert part_note(part, "muon") == NOTES[what]
    assert part_name(what)


def test_parts_by_group() -> None:
    groups = {group: {part for part in TimePart if part.group is group} for group in TimeGroup}
    assert groups[TimeGroup.WAITING] == {TimePart.BUBBLE, TimePart.WAIT, TimePart.FIRST_AND_LAST}
    assert TimePart.OFFLOADED_OPTIMIZER in groups[TimeGroup.WORK]
    assert TimePart.SHARED_TABLE in groups[TimeGroup.COLLECTIVES]


def test_the_moment_of_the_peak_in_words() -> None:
    assert moment_words(AtWork("backward", "d_q", "block")) == "backward of d_q in block"
    assert moment_words(None) == ""


CHANGES = {
    Change(Option.BATCH, 8): "--batch 8",
    Change(Option.CHUNK, 512): "--chunk 512",
    Change(Option.DISAGGREGATE, parse_mesh("model=2")): "--disaggregate model=2",
    Change(Option.MESH, parse_mesh("data=2,model=4")): "--mesh data=2,model=4",
    Change(Option.MICROBATCH, 1): "--microbatch 1",
    Change(Option.OFFLOAD_OPTIMIZER, True): "--offload-optimizer",
    Change(Option.PRECISION, parse_precision("int8,kv_cache=fp8")): "--precision int8,kv_cache=fp8",
    Change(Option.PREFILL_BATCH, 4): "--prefill-batch 4",
    Change(Option.RECOMPUTE, "full"): "--recompute full",
    Change(Option.SCHEDULE, "1f1b"): "--schedule 1f1b",
    Change(Option.ZERO, 1): "--zero 1",
}


def test_every_change_as_one_would_ask_for_it() -> None:
    assert {change.option for change in CHANGES} == set(Option)
    assert {change: changes_words([change]) for change in CHANGES} == CHANGES
    assert changes_words((Change(Option.ZERO, 1), Change(Option.BATCH, 8))) == "--zero 1 --batch 8"
