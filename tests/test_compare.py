"""Strategies side by side: the terms add up to the difference, and are what the closed forms say."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import einscale
from einscale.api.compare import CompareResult, compare
from einscale.comparison import Difference, Side, compare_reports, grouped, grouped_memory
from einscale.errors import (
    EinscaleError,
    HardwareError,
    MeshError,
    NotationError,
    ScheduleError,
    SizeError,
    StrategyError,
    UsageError,
)
from einscale.mesh import parse_mesh
from einscale.price.footprint import MemoryPart
from einscale.price.program import NOTHING
from einscale.report.causes import cause_words
from einscale.report.comparison.words import doing_words, holding_words, term_name
from einscale.strategy import load_strategy, parse_strategy

STREAM = 4096 * 8192 * 2
"""Bytes of llama3-70b's residual stream for one sequence of 4096 tokens."""

RECOMPUTING = parse_strategy(
    'name = "again"\n[compute]\nb = "data"\nh = "model"\nf = "model"\nv = "model"\n[policy]\nrecompute = ["full"]\n'
)
UNFUSED = parse_strategy(
    'name = "unfused"\n[compute]\nb = "data"\nh = "model"\nf = "model"\nv = "model"\n[policy]\nfuse = []\n'
)


def between(first: Side, other: Side) -> Difference:
    """The other side against the first."""
    (found,) = compare_reports([first, other]).differences
    return found


@pytest.fixture(scope="module")
def answer() -> CompareResult:
    return compare("llama3-70b", ["megatron", "megatron-sp"], mesh="data=8,model=8", sequence=4096)


def only(answer: CompareResult) -> Difference:
    (found,) = answer.comparison.differences
    return found


def check_sums(found: Difference) -> None:
    """The terms add up to the change, one by one and taken together."""
    for terms in (found.terms, grouped(found.terms)):
        assert sum(term.change.flops for term in terms) == found.change.flops
        assert sum(term.change.traffic for term in terms) == found.change.traffic
        assert sum(term.change.received for term in terms) == found.change.received
        for name in ("compute_seconds", "communication_seconds", "seconds"):
            parts = [getattr(term.change, name) for term in terms]
            scale = max(1.0, sum(map(abs, parts)))
            assert abs(math.fsum(parts) - getattr(found.change, name)) <= 1e-12 * scale
        times = [abs(term.change.seconds) for term in terms]
        assert times == sorted(times, reverse=True)
    for held in (found.memory_terms, grouped_memory(found.memory_terms)):
        assert sum(term.bytes for term in held) == found.memory_change
        assert {term.part for term in held} <= {*MemoryPart, None}


KEEPING = parse_strategy(
    'name = "keeping"\n[compute]\nb = "data"\n[store.parameters]\nd = "data"\n"*" = "data"\n'
    "[policy]\nreshard_after_forward = false\n"
)

CHOICES = (
    ("megatron", "data=2,model=4"),
    ("megatron-sp", "data=4,model=8"),
    ("megatron-sp", "data=2,model=16"),
    ("fsdp", "data=32"),
    ("fsdp", "fsdp=4"),
    ("fsdp+tp", "data=4,model=8"),
    ("dp", "data=8"),
    (RECOMPUTING, "data=2,model=4"),
    (UNFUSED, "dp=2,tp=4"),
    ("dp", "data=1"),
    ("ring", "data=4,context=4"),
    ("ulysses", "context=8"),
    ("megatron-sp+context", "data=2,context=2,model=4"),
    ("hsdp", "pod=2@ib,data=8@nvlink"),
    ("2d", "data=2,x=2,y=4"),
    ("weight-gathered", "data=4,model=4"),
    (KEEPING, "data=8"),
)


@given(st.lists(st.sampled_from(CHOICES), min_size=2, max_size=3, unique_by=lambda one: (str(one[0]), one[1])))
@settings(max_examples=20, deadline=None)
def test_terms_add_up_to_the_difference_whatever_is_compared(chosen: list) -> None:
    result = compare("llama3-8b", chosen, sequence=512, batch=32)
    for found in result.comparison.differences:
        check_sums(found)
    if len(chosen) == 3:  # from the first to the third, straight or by the second
        first, second, third = result.comparison.sides
        hops = [between(first, second), between(second, third)]
        assert sum(hop.change.received for hop in hops) == between(first, third).change.received
        assert sum(hop.memory_change for hop in hops) == between(first, third).memory_change


def test_the_other_way_round_is_the_same_with_the_other_sign(answer: CompareResult) -> None:
    first, other = answer.comparison.sides
    forth, back = between(first, other), between(other, first)
    assert back.change == NOTHING.plus(forth.change.times(-1))
    assert len(back.terms) == len(forth.terms) > 0
    words = {(term.names, term.first, term.other) for term in forth.terms}
    assert {(term.names, term.other, term.first) for term in back.terms} == words


def test_sequence_parallelism_replaces_all_reduces_and_adds_gathers(answer: CompareResult) -> None:
    found = only(answer)
    check_sums(found)
    moved = {
        (term.phase, term.names): (doing_words(term.first), doing_words(term.other), term.change.received)
        for term in found.terms
        if term.about == "collective" and term.layer == "block" and term.what == "activations"
    }
    share = STREAM * 7 // 8 * 80
    for name in ("attn_out", "mlp_out"):
        assert moved["forward", (name,)] == ("all-reduce over model", "reduce-scatter over model", -share)
    for name in ("attn_in", "mlp_in"):
        assert moved["forward", (name,)] == ("", "all-gather over model", share)
        assert moved["backward", (name,)] == ("", "all-gather over model", share)
    for name in ("d_out", "d_mid"):
        assert moved["backward", (name,)] == ("", "all-gather over model", share)
    for name in ("d_attn_in", "d_mlp_in"):
        assert moved["backward", (name,)] == ("all-reduce over model", "reduce-scatter over model", -share)
    assert len(moved) == 10
    gather = next(term for term in found.terms if term.names == ("attn_in",) and term.phase == "forward")
    assert gather.first_cause is None
    assert cause_words(gather.other_cause).endswith("(rule store.residual: s -> model of megatron-sp)")


def test_work_that_is_repeated_says_so(answer: CompareResult) -> None:
    mid = next(term for term in only(answer).terms if term.names == ("mid",))
    assert (mid.about, mid.what, mid.sections) == ("compute", "map", ("attention",))
    assert doing_words(mid.first) == "8 ways (b/data), repeated 8 times"
    assert doing_words(mid.other) == "64 ways (b/data s/model)"
    assert mid.change.flops == 80 * 4096 * 8192 * (1 - 8) // 8


def test_saved_activations_are_named_with_their_layouts(answer: CompareResult) -> None:
    held = {term.names: term for term in only(answer).memory_terms if term.layer == "block" and term.names}
    assert set(held) == {("x",), ("attn_in",), ("mid",), ("mlp_in",)}
    for term in held.values():
        assert (term.part, holding_words(term.first), holding_words(term.other)) == (
            "saved",
            "b/data, 80 times",
            "b/data s/model, 80 times",
        )
        assert term.bytes == -80 * STREAM * 7 // 8


def test_padding_is_a_reason_for_more_work() -> None:
    found = only(compare("gpt2", ["dp@data=8", "megatron@model=8"], sequence=512, batch=8))
    q = next(term for term in found.terms if term.names == ("q",) and term.about == "compute")
    assert doing_words(q.other) == "8 ways (n/model=8), 33 % padding"  # 12 heads as 16
    assert doing_words(q.first) == "8 ways (b/data=8)"
    assert q.change.flops > 0


def test_work_done_by_one_side_only_is_a_term_of_its_own() -> None:
    megatron = load_strategy("megatron")
    found = only(compare("llama3-8b", [megatron, RECOMPUTING], mesh="data=2,model=4", sequence=512))
    check_sums(found)
    again = [term for term in found.terms if term.first is None and term.about == "compute"]
    assert {"hidden_again", "mlp_in_again"} <= {term.names[0] for term in again}
    assert all(term.phase == "backward" for term in again)
    saved = [term for term in found.memory_terms if term.part == "saved" and term.other is None]
    assert ("attn_in",) in {term.names for term in saved}


def test_only_the_kernel_differs_where_attention_is_not_fused() -> None:
    found = only(compare("llama3-8b", ["megatron", UNFUSED], mesh="data=2,model=4", sequence=512))
    check_sums(found)
    assert found.change.received == 0
    assert {term.about for term in found.terms} == {"compute"}
    scores = next(term for term in found.terms if term.names == ("scores",))
    assert doing_words(scores.first) == doing_words(scores.other) == "8 ways (b/data n/model)"
    hidden = 512 * 512 - 512 * 513 // 2  # pairs that the mask hides, which a fused kernel skips
    assert scores.change.flops == 32 * 2 * hidden * 32 * 128 // 4
    assert scores.change.traffic > 0


def test_kv_heads_that_tensor_parallelism_exceeds_are_found_repeated() -> None:
    chosen = ["megatron@data=2,model=8", "megatron@data=1,model=16"]
    found = only(compare("llama3-70b", chosen, sequence=1024, batch=2))
    k = next(term for term in found.terms if term.names == ("k",) and term.about == "compute")
    assert (doing_words(k.first), doing_words(k.other)) == (
        "16 ways (b/data=2 n/model=8)",
        "8 ways (n/model:(1)8), repeated 2 times",
    )
    assert k.change.flops == 80 * 2 * (2 * 1024) * 8192 * (8 * 128) // 16
    summed = next(term for term in found.terms if term.names == ("d_v",) and term.about == "collective")
    assert (doing_words(summed.first), doing_words(summed.other)) == ("", "all-reduce over model:(8)2")


def test_equal_strategies_have_no_terms() -> None:
    megatron = load_strategy("megatron")
    twin = parse_strategy('name = "twin"\n[compute]\nb = "data"\nh = "model"\nf = "model"\nv = "model"\n', "twin.toml")
    result = compare("llama3-8b", [megatron, twin], mesh="data=2,model=4", sequence=512)
    found = only(result)
    assert found.terms == ()
    assert found.memory_terms == ()
    assert found.change == NOTHING
    assert all(best.labels == ("megatron", "twin") for best in result.comparison.best)
    assert "megatron and twin are equally fast" in str(result)
    assert "least time: megatron and twin alike" in result.to_text(detail=True)


def test_roles_match_axes_of_other_names() -> None:
    found = only(compare("llama3-8b", [("megatron", "data=2,model=4"), ("megatron", "dp=2,tp=4")], sequence=512))
    assert found.terms == ()


def test_the_best_by_each_measure(answer: CompareResult) -> None:
    sides = (side.label for side in answer.comparison.sides)
    totals = dict(zip(sides, answer.comparison.totals, strict=True))
    best = {one.measure: one for one in answer.comparison.best}
    assert set(best) == {"time", "FLOPs", "bytes received", "memory"}
    assert best["time"].labels == (min(totals, key=lambda label: totals[label].seconds),)
    assert best["memory"].labels == ("megatron-sp",)
    assert best["bytes received"].next_value == max(one.received for one in totals.values())
    assert answer.comparison.fitting == ()


def test_meshes_of_different_size_are_a_note_and_compare_by_device_time() -> None:
    result = compare("llama3-8b", ["megatron-sp@model=4", "megatron-sp@model=8"], sequence=1024)
    assert result.comparison.notes == (
        "batch: 1 sequence, one microbatch of 1 for each data-parallel replica (none was given)",
        "the meshes are of different size (megatron-sp@model=4 on 4, megatron-sp@model=8 on 8 devices):"
        " every figure is per device, and device time is what compares",
    )
    best = {one.measure: one for one in result.comparison.best}
    spent = {side.label: side.report.step_seconds * side.report.setup.mesh.devices for side in result.comparison.sides}
    assert best["device time"].value == pytest.approx(min(spent.values()), rel=1e-12)


def test_other_numbers_of_microbatches_are_a_note() -> None:
    result = compare("gpt2", ["megatron@data=4,model=2", "megatron@data=2,model=4"], batch=8, sequence=64)
    assert result.comparison.notes[-1] == (
        "microbatches of a step: megatron@data=4,model=2 2, megatron@data=2,model=4 4; what they do as often as that is"
        " part of the terms"
    )
    assert not any("as often" in note for note in compare("gpt2", ["dp", "fsdp"], mesh="data=2").comparison.notes)


def test_the_batch_is_the_fewest_that_suit_every_strategy() -> None:
    result = compare("gpt2", ["dp@data=6", "fsdp@data=4"], sequence=64)
    assert [side.report.setup.batch for side in result.comparison.sides] == [12, 12]


def test_labels_are_what_one_would_type() -> None:
    assert [side.label for side in compare("gpt2", ["dp", "fsdp"], mesh="data=2", sequence=64).comparison.sides] == [
        "dp",
        "fsdp",
    ]
    own = [("dp", parse_mesh("data=2@nvlink")), ("dp", {"data": 4})]
    result = compare("gpt2", own, sequence=64, batch=4)
    labels = [side.label for side in result.comparison.sides]
    assert labels == ["dp@data=2@nvlink", "dp@data=4"]
    again = compare("gpt2", labels, sequence=64, batch=4)
    assert again.comparison == result.comparison
    assert result.side("dp@data=4").setup.mesh == parse_mesh("data=4")


def test_a_program_of_ones_own_is_compared(tmp_path: Path) -> None:
    own = tmp_path / "mlp.ein"
    own.write_text(
        "program mlp\nsize f = 256\ninput x: bf16[b s d]\nparam w_up: bf16[d f]\nparam w_down: bf16[f d]\n"
        'up = einsum("b s d, d f -> b s f", x, w_up)\nout = einsum("b s f, f d -> b s d", up, w_down)\nreturn out\n'
    )
    result = compare(str(own), ["megatron", "megatron-sp"], mesh="model=4", sizes={"d": 64}, sequence=32)
    found = only(result)
    check_sums(found)
    out = next(term for term in found.terms if term.names == ("out",) and term.about == "collective")
    assert (doing_words(out.first), doing_words(out.other)) == ("all-reduce over model", "reduce-scatter over model")
    assert out.change.received == -(32 * 64 * 2) * 3 // 4
    with pytest.raises(SizeError):
        compare(str(own), ["megatron", "megatron-sp"], mesh="model=4", sequence=32)


def test_two_files_of_one_name_are_told_apart() -> None:
    one = parse_strategy('name = "own"\n[compute]\nb = "data"\n')
    other = parse_strategy('name = "own"\n[compute]\nb = "data"\n[store.parameters]\nd = "data"\n')
    result = compare("gpt2", [one, other], mesh="data=2", sequence=64)
    assert [side.label for side in result.comparison.sides] == ["own", "own (2)"]


def test_the_document_holds_every_term(answer: CompareResult) -> None:
    document = json.loads(json.dumps(answer.to_dict()))
    assert (document["command"], document["schema_version"]) == ("compare", 1)
    (found,) = document["differences"]
    for key in ("flops", "hbm_bytes", "received_bytes"):
        assert sum(term[key] for term in found["terms"]) == found["change"][key]
    first, other = document["strategies"]
    assert other["totals"]["flops"] - first["totals"]["flops"] == found["change"]["flops"]
    assert sum(term["bytes"] for term in found["memory_terms"]) == found["memory_change_bytes"]
    assert other["memory"]["needed_bytes"] - first["memory"]["needed_bytes"] == found["memory_change_bytes"]
    block = next(kind for kind in first["kinds"] if kind["kind"] == "block")
    assert set(block["sections"]) == {"attention", "mlp"}
    assert document["inputs"]["batch"] == 8


def test_the_report_lists_the_largest_terms_first_and_their_sum(answer: CompareResult) -> None:
    lines = str(answer).splitlines()
    start = lines.index("what makes megatron-sp differ from megatron")
    rows = [line for line in lines[start:] if line.startswith(("block ", "head ", "embedding "))]
    largest = [term_name(term, detail=False) for term in grouped(only(answer).terms)]
    assert [row.split("  ")[0] for row in rows] == largest[: len(rows)] and len(rows) == 4
    assert any(line.startswith("sum ") for line in lines[start:])
    detailed = answer.to_text(detail=True).splitlines()
    moved = [term for term in only(answer).terms if (term.layer, term.phase) == ("block", "backward")]
    assert sum(line.startswith("block backward: activations") for line in detailed) == sum(
        term.what == "activations" for term in moved
    )
    for earlier, later in pairwise(grouped(only(answer).terms)):
        assert abs(earlier.change.seconds) >= abs(later.change.seconds)


def test_layers_are_compared_for_one_microbatch() -> None:
    asked = {"mesh": "data=2,model=4", "sequence": 512, "batch": 8}
    result = compare("llama3-8b", ["megatron", "megatron-sp"], for_="layer", **asked)
    check_sums(only(result))
    for side, totals in zip(result.comparison.sides, result.comparison.totals, strict=True):
        alone = einscale.layer("llama3-8b", strategy=side.label, **asked)
        assert totals.seconds == pytest.approx(alone.seconds, rel=1e-12)
        assert totals.received == alone.layers.totals.received
        assert totals.flops == alone.layers.totals.flops


BAD = {
    "none": (
        {"strategies": []},
        UsageError,
        "no strategy is given\n  expected two strategies or more, for example megatron and megatron-sp",
    ),
    "one": (
        {"strategies": ["fsdp@data=8"]},
        UsageError,
        "`fsdp@data=8` alone has nothing to be compared with\n"
        "  expected two strategies or more, for example megatron and megatron-sp",
    ),
    "one as text": (
        {"strategies": "fsdp", "mesh": "data=8"},
        UsageError,
        "`fsdp` alone has nothing to be compared with\n"
        "  expected two strategies or more, for example megatron and megatron-sp",
    ),
    "too many": (
        {"strategies": [f"dp@data={size}" for size in range(1, 18)]},
        UsageError,
        "17 strategies are too many to read side by side\n  expected at most 16",
    ),
    "twice": (
        {"strategies": ["fsdp", "FSDP"], "mesh": "data=8"},
        UsageError,
        "`fsdp` on data=8 is given twice\n  expected strategies or meshes that differ",
    ),
    "no mesh": (
        {"strategies": ["fsdp@data=8", "dp"]},
        UsageError,
        "`dp` has no mesh\n  expected --mesh for all of them, or a mesh of its own: dp@data=8,model=8",
    ),
    "no name": (
        {"strategies": ["@data=8", "dp"]},
        UsageError,
        "a strategy is missing before `@`\n  @data=8\n  ^\n  expected NAME@MESH such as fsdp@data=64",
    ),
    "mesh without sizes": (
        {"strategies": ["dp@data", "fsdp@data=8"]},
        UsageError,
        "cannot read the mesh behind `@`\n  dp@data\n     ^^^^\n  expected STRATEGY@NAME=INT,... such as fsdp@data=64",
    ),
    "misspelt": (
        {"strategies": ["megatron", "megatorn-sp"], "mesh": "model=8"},
        StrategyError,
        "unknown strategy `megatorn-sp`\n  expected a name, or the path of a .toml file\n  did you mean `megatron-sp`?",
    ),
    "mesh without a role": (
        {"strategies": ["megatron", "fsdp"], "mesh": "data=4,model=8"},
        StrategyError,
        "mesh axis `model` has no role in strategy `fsdp`: its devices would only repeat work\n"
        "  data=4,model=8\n         ^^^^^\n  expected axes that play data (data, dp, fsdp), expert (expert, ep)\n"
        "  give it a mesh of its own: fsdp@data=32",
    ),
    "too many heads": (
        {"strategies": ["megatron@model=8", "megatron@model=64"]},
        StrategyError,
        "megatron@model=64: heads `h` (32) cannot be divided 64 ways over mesh axis model\n"
        "  use at most 32 devices along model, or another rule for `h`",
    ),
    "batch": (
        {"strategies": ["dp@data=8", "dp@data=12"], "batch": 24 + 8},
        SizeError,
        "a batch of 32 sequences does not divide over the data-parallel replicas of every strategy\n"
        "  the nearest that does is 24 or 48",
    ),
    "no batch": (
        {"strategies": ["dp@data=8", "dp@data=12"], "batch": 0},
        SizeError,
        "the batch must be at least 1\n  0\n  ^",
    ),
    "bad mesh": (
        {"strategies": ["dp@data=8", "dp@data=8,data=2"]},
        MeshError,
        "mesh axis `data` is given twice\n  data=8,data=2\n         ^^^^",
    ),
    "level": (
        {"strategies": ["dp@data=8", "dp@data=8@"]},
        NotationError,
        "a network level is missing after `@`\n  data=8@\n        ^\n"
        "  expected NAME=INT[@LEVEL], for example `data=16,model=8`",
    ),
    "purpose": (
        {"strategies": ["dp", "fsdp"], "mesh": "data=8", "for_": "trian"},
        UsageError,
        "nothing is compared for `trian`\n  did you mean `train`?",
    ),
    "dtype": (
        {"strategies": ["dp", "fsdp"], "mesh": "data=8", "dtype": "bf16"},
        UsageError,
        "a training step has no argument `dtype`\n  precision says it: bf16-pure, fp32, ...",
    ),
    "the same for all": (
        {"strategies": ["dp", "fsdp"], "mesh": "data=8", "hardware": "h10"},
        HardwareError,
        "unknown hardware `h10`\n  h10\n  ^^^\n"
        "  expected the name of a system, or the path of a .toml file that describes one\n  did you mean `h100`?",
    ),
    "a schedule that one has no stages for": (
        {"strategies": ["dp@data=8", "dp@pipe=2,data=4"], "schedule": "gpipe"},
        ScheduleError,
        "dp@data=8: a schedule is given, but the mesh data=8 has no pipeline\n"
        "  expected a mesh axis for its stages, such as pipe=4",
    ),
}


@pytest.mark.parametrize(("request_", "kind", "message"), BAD.values(), ids=BAD)
def test_an_impossible_request_gets_one_message(request_: dict, kind: type[EinscaleError], message: str) -> None:
    with pytest.raises(kind) as caught:
        compare("llama3-8b", **request_)
    assert str(caught.value) == message


def test_an_unknown_label_is_told_the_known_ones(answer: CompareResult) -> None:
    with pytest.raises(UsageError) as caught:
        answer.side("fsdp")
    assert str(caught.value) == "the comparison has no `fsdp`\n  it has: megatron, megatron-sp"


def test_gathered_parameters_that_are_kept_are_a_term_of_the_memory() -> None:
    answer = einscale.compare("gpt2", ["fsdp", KEEPING], mesh="data=8", sequence=128)
    found = answer.to_dict()["differences"][0]
    assert sum(term["bytes"] for term in found["memory_terms"]) == found["memory_change_bytes"]
    gathered = sum(term["bytes"] for term in found["memory_terms"] if term["part"] == "gathered")
    ahead, kept = (one["memory"]["gathered_parameters_bytes"] for one in answer.to_dict()["strategies"])
    assert gathered == kept - ahead > 0
    assert "gathered" in next(line for line in answer.to_text(only="memory").splitlines() if "params" in line)
    assert "gathered of block +" in answer.to_text()
