"""Every named strategy: what the planner makes of its tables, against the literature's forms."""

from __future__ import annotations

from collections import Counter

import pytest
from suited_meshes import MESHES

from einscale.api.layer import layer
from einscale.errors import StrategyError
from einscale.layers import KindReport, LayerReport
from einscale.price.memory import Why
from einscale.report.render.text import render_text
from einscale.strategy import list_strategies, load_strategy, parse_strategy
from einscale.vocabulary import BACKWARD, FORWARD, UPDATE

D, N, G, K, F = 4096, 8, 4, 128, 14336
"""llama3-8b."""


def block(report: LayerReport) -> KindReport:
    return next(kind for kind in report.kinds if kind.kind == "block")


def priced(strategy, mesh: str, sequence: int = 1024, microbatch: int = 1, **options) -> LayerReport:
    """Of the same element type throughout, so that gradients are as wide as weights."""
    return layer(
        "llama3-8b",
        mesh=mesh,
        strategy=strategy,
        sequence=sequence,
        microbatch=microbatch,
        precision="bf16-pure",
        **options,
    ).layers


def moves(report: LayerReport, phase: str) -> Counter[tuple[str, tuple[str, ...], str]]:
    return Counter(
        (c.step.kind, c.step.axes, c.step.tensor.name)
        for row in (*block(report).rows, *block(report).update)
        if row.planned.phase == phase
        for c in row.collectives
        if c.bytes
    )


def received(report: LayerReport, phase: str, *names: str) -> int:
    return sum(
        c.bytes
        for row in block(report).rows
        if row.planned.phase == phase
        for c in row.collectives
        if c.step.tensor.name in names
    )


@pytest.mark.parametrize("strategy", [strategy.name for strategy in list_strategies()])
@pytest.mark.parametrize("model", ["llama3-8b", "gpt3-175b"])
def test_every_strategy_prices_every_layer_with_what_it_expects(strategy: str, model: str) -> None:
    report = layer(model, mesh=MESHES[strategy], strategy=strategy, sequence=512, batch=16).layers
    assert report.unexpected == ()
    flops = layer(model, sequence=512, batch=16).layers.totals.flops
    assert report.totals.flops >= flops / 8  # no work is lost


def test_hybrid_fsdp_crosses_pods_with_reduced_shards_alone() -> None:
    report = priced("hsdp", "pod=2,data=4")
    assert all("pod" not in axes for _, axes, _ in moves(report, FORWARD))
    assert all("pod" not in axes for _, axes, _ in moves(report, BACKWARD))
    across = {name: kind for kind, axes, name in moves(report, UPDATE) if axes == ("pod",)}  # once a step
    assert set(across.values()) == {"all-reduce"}
    weight = D * F * 2 // 4  # the shard that is left after the reduce-scatter inside the pod
    rows = (*block(report).rows, *block(report).update)
    steps = [c for row in rows for c in row.collectives if c.step.tensor.name == "d_w_up"]
    assert [(c.step.kind, c.bytes) for c in steps] == [("reduce-scatter", weight * 3), ("all-reduce", weight)]


def test_two_dimensional_weight_stationary_moves_activations_and_never_weights() -> None:
    report = priced("2d", "x=2,y=4")
    table = block(report).planned.program.table
    for phase in (FORWARD, BACKWARD):
        assert not [name for _, _, name in moves(report, phase) if name in table and table[name].kind == "parameter"]
    assert {axes for _, axes, name in moves(report, FORWARD) if name in {"gate", "up", "q"}} == {("x",)}
    assert {axes for _, axes, name in moves(report, FORWARD) if name in {"attn_in", "attn_out", "mlp_in"}} == {("y",)}


def test_context_parallel_gathers_keys_and_values_alone() -> None:
    report = priced("context", "context=8", microbatch=8)
    assert moves(report, FORWARD) == Counter(
        {("all-gather", ("context",), "k_rotated"): 1, ("all-gather", ("context",), "v"): 1}
    )
    # (n - 1)/n of all keys and values: sequence x kv heads x head dim, twice.
    assert received(report, FORWARD, "k_rotated", "v") == 2 * 8 * 1024 * N * K * 2 * 7 // 8


def test_a_ring_moves_what_the_gather_does_hides_it_behind_attention_and_holds_two_blocks() -> None:
    gather, ring = (priced(name, "context=8", sequence=65536) for name in ("context", "ring"))
    assert moves(ring, FORWARD) == moves(gather, FORWARD)
    assert block(ring).totals(FORWARD).received == block(gather).totals(FORWARD).received
    assert block(ring).totals(FORWARD).communication_seconds == 0.0
    assert block(gather).totals(FORWARD).communication_seconds > 0.0
    keys = {held.bytes for held in block(ring).peak.alive if held.reason.why is Why.STREAMED}
    whole = 65536 * N * K * 2
    assert keys <= {whole * 2 // 8}


def test_a_ring_too_fast_for_its_network_shows_what_it_waits_for() -> None:
    ring = priced("ring", "context=8", sequence=1024)
    streamed = [c for row in block(ring).rows for c in row.collectives if c.step.streamed]
    assert streamed
    assert all(0.0 < c.exposed_seconds < c.seconds for c in streamed)


def test_ulysses_is_four_all_to_alls_around_attention() -> None:
    report = priced("ulysses", "context=8", microbatch=8)
    assert moves(report, FORWARD) == Counter(
        {("all-to-all", ("context",), name): 1 for name in ("q_rotated", "k_rotated", "v", "attended")}
    )
    local = 8 * 1024 * K * 2 // 8  # one head of one device's part of the sequence, over the batch
    assert received(report, FORWARD, "q_rotated", "attended") == 2 * local * N * G * 7 // 8
    assert received(report, FORWARD, "k_rotated", "v") == 2 * local * N * 7 // 8


def test_sequence_parallel_inside_context_parallel_is_both() -> None:
    report = priced("megatron-sp+context", "context=2,model=4")
    over_model = Counter(kind for kind, axes, _ in moves(report, FORWARD).elements() if axes == ("model",))
    over_context = Counter(kind for kind, axes, _ in moves(report, FORWARD).elements() if axes == ("context",))
    assert over_model == {"all-gather": 2, "reduce-scatter": 2}
    assert over_context == {"all-gather": 2}
    assert block(report).planned.resting["x"].text(("b", "s", "d")) == "b s/context/model d"


def test_a_statement_left_to_the_free_planner_is_placed_by_its_price() -> None:
    text = "".join(f'{index} = "model"\n' for index in ("h", "f", "v"))
    tables = f'name = "own"\n[compute]\nb = "data"\n{text}[store.residual]\ns = "model"\n'
    pinned = priced(parse_strategy(tables), "data=2,model=4")
    free = priced(parse_strategy(tables + '[policy]\nauto = ["k"]\n'), "data=2,model=4")
    by_name = {row.planned.statement.output: row for row in block(free).rows}
    before = {row.planned.statement.output: row for row in block(pinned).rows}
    assert by_name["q"] == before["q"] or by_name["q"].planned.work == before["q"].planned.work
    assert by_name["k"].planned.work.output == before["k"].planned.work.output
    assert block(free).planned.resting["k"] == block(pinned).planned.resting["k"]


def test_gains_are_real_and_sorted() -> None:
    answer = layer("llama3-70b", mesh="data=8,model=8", strategy="megatron-sp", sequence=4096, batch=8)
    gains = answer.gains
    assert gains
    assert [gain.saved_seconds for gain in gains] == sorted((gain.saved_seconds for gain in gains), reverse=True)
    assert all(gain.free_seconds < gain.strategy_seconds for gain in gains)
    assert "where a free plan would beat the strategy" in render_text(answer.to_report(free=True))
    assert len(answer.to_dict(free=True)["free"]) == len(gains)


def test_one_device_has_nothing_to_gain() -> None:
    answer = layer("llama3-8b", sequence=512)
    assert answer.gains == ()
    assert "free plans: no statement is better left" in render_text(answer.to_report(free=True))


def test_heads_that_do_not_divide_are_refused_by_name() -> None:
    with pytest.raises(StrategyError, match="cannot be divided 64 ways over mesh axis context"):
        priced("ulysses", "context=64")


def test_policies_are_part_of_the_file() -> None:
    assert load_strategy("ring").policy.stream == ("attention",)
    assert load_strategy("context").policy.stream == ()


NAMES = {
    'heads = "model"': "the axis `heads`, which no layer of llama3-8b has",
    '"atention:h" = "model"': "the group or section `atention`, which no layer of llama3-8b has\n"
    "  did you mean `attention`?",
    'h = "model"\n[policy]\nfuse = ["atention"]': "the group `atention`, which no layer of llama3-8b has\n"
    "  did you mean `attention`?",
    'h = "model"\n[policy]\nrecompute = ["mpl"]': "the group, section or result `mpl`, which no layer of llama3-8b has",
    'h = "model"\n[policy]\nauto = ["qq"]': "the group, section or result `qq`, which no layer of llama3-8b has",
}


@pytest.mark.parametrize(("rule", "message"), NAMES.items(), ids=NAMES)
def test_a_rule_that_would_match_nothing_is_refused(rule: str, message: str) -> None:
    with pytest.raises(StrategyError) as caught:
        priced(parse_strategy(f'name = "own"\n[compute]\n{rule}\n'), "model=2")
    assert str(caught.value).startswith(f"strategy `own` speaks of {message}")


def test_the_first_rule_for_an_index_counts_alone() -> None:
    own = parse_strategy('name = "own"\n[compute]\nn = "x"\nh = "y"\nf = "x/y"\nv = "x/y"\n')
    resting = block(priced(own, "x=8,y=4")).planned.resting
    assert resting["wq"].text(("d", "n", "g", "k")) == "d n/x g/y k"
    assert resting["wk"].text(("d", "n", "k")) == "d n/x k"


def test_one_mesh_axis_by_two_names_divides_once() -> None:
    own = parse_strategy('name = "own"\n[compute]\nb = "data/dp"\n')
    assert block(priced(own, "dp=2")).planned.resting["x"].dims[0] == ("dp",)


def test_an_optimizer_table_of_its_own_is_zero_1() -> None:
    tables = '[compute]\nb = "data"\n[store.optimizer]\nd = "data"\n"*" = "data"\n'
    report = priced(parse_strategy(f'name = "zero1"\n{tables}'), "data=8")
    parameters = report.memory.parameters
    assert report.memory.optimizer == 4 * parameters // 2 // 8  # two moments in bf16
    assert report.memory.gradients == parameters


def test_keeping_what_was_gathered_holds_the_whole_model() -> None:
    tables = (
        '[compute]\nb = "data"\n[store.parameters]\nd = "data"\n"*" = "data"\n[policy]\nreshard_after_forward = {}\n'
    )
    kept, dropped = (
        priced(parse_strategy('name = "own"\n' + tables.format(word)), "data=8", overlap="none").memory
        for word in ("false", "true")
    )
    ends = 2 * 128256 * D * 2 + D * 2  # what belongs to no block stays from the forward pass to the backward
    assert dropped.gathered == ends
    assert kept.gathered == 8 * kept.parameters
    assert kept.needed - dropped.needed == kept.gathered - ends


def test_a_tied_table_is_reduced_once_a_step() -> None:
    report = layer("gpt2", mesh="data=4", strategy="dp", sequence=256, precision="bf16-pure").layers
    table = [
        c.bytes
        for kind in report.kinds
        for row in (*kind.rows, *kind.update)
        for c in row.collectives
        if c.step.tensor.name == "d_embedding"
    ]
    assert table == [2 * 50257 * 768 * 2 * 3 // 4]


def test_a_fused_kernel_reads_each_operand_once() -> None:
    report = layer("llama3-8b", sequence=4096, batch=1).layers
    rows = [row for row in block(report).rows if row.planned.statement.group == "attention"]
    q = o = 4096 * N * G * K * 2
    kv = 4096 * N * K * 2
    lse = 4 * 4096 * N * G
    forward = sum(row.traffic for row in rows if row.planned.phase == FORWARD)
    backward = sum(row.traffic for row in rows if row.planned.phase == BACKWARD)
    assert forward == q + 2 * kv + o + lse
    assert backward == (q + 2 * kv + o + lse) + (q + 2 * kv)  # q, k, v, d_o and the log-sum-exp in; d_q, d_k, d_v out
