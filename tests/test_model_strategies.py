"""Every preset under the classic strategies: it runs, and moves only what it must."""

from collections import Counter
from collections.abc import Iterator

import pytest

from einscale.api.layer import LayerResult, layer
from einscale.errors import StrategyError
from einscale.models import list_models
from einscale.report.causes import cause_words
from einscale.vocabulary import BACKWARD, FORWARD

STRATEGIES = ("dp", "fsdp", "megatron", "megatron-sp", "fsdp+tp")


def priced(model: str, strategy: str, mesh: str = "data=2,model=4") -> LayerResult:
    mesh = "data=8" if strategy in ("dp", "fsdp") else mesh
    return layer(model, mesh=mesh, strategy=strategy, sequence=1024, batch=8)


def moves(answer: LayerResult, phase: str, kind: str = "block") -> Iterator[tuple[str, str]]:
    """Kind of collective and class of the axes it runs over, of activations in one kind of block."""
    block = next(one for one in answer.layers.kinds if one.kind == kind)
    table = block.planned.program.table
    for row in block.rows:
        for step in (one.step for one in row.collectives if one.bytes and row.planned.phase == phase):
            value = table.get(step.tensor.name)
            if value is not None and value.kind != "parameter" and value.axes == ("b", "s", "d"):
                yield step.kind, "/".join(step.axes)


@pytest.mark.parametrize("model", list_models())
def test_every_preset_runs_under_every_classic_strategy(model: str) -> None:
    for strategy in STRATEGIES:
        report = priced(model, strategy).layers
        assert report.unexpected == (), strategy
        assert report.totals.flops > 0
        blocks = [kind for kind in report.kinds if kind.kind.endswith("block")]
        assert sum(kind.repeat for kind in blocks) == report.model.config.layers
        padded = max((share for kind in blocks for _, share in kind.padding), default=0.0)
        assert padded <= 3 / 28, strategy  # gpt2-xl: 25 heads on 4 devices


@pytest.mark.parametrize("model", ["falcon-7b", "falcon-180b", "gpt-neox-20b", "pythia-6.9b"])
def test_a_parallel_block_is_reduced_once_in_the_forward_pass(model: str) -> None:
    assert Counter(moves(priced(model, "megatron"), FORWARD)) == {("all-reduce", "model"): 1}
    scattered = Counter(moves(priced(model, "megatron-sp"), FORWARD))
    assert scattered["reduce-scatter", "model"] == 1


@pytest.mark.parametrize("model", ["llama3-8b", "gemma2-9b", "bloom-176b", "mpt-7b", "qwen3-8b"])
def test_a_sequential_block_is_reduced_twice(model: str) -> None:
    kind = "window_block" if model == "gemma2-9b" else "block"
    for phase in (FORWARD, BACKWARD):
        assert Counter(moves(priced(model, "megatron"), phase, kind)) == {("all-reduce", "model"): 2}


def test_a_parallel_block_with_one_norm_is_reduced_once_in_the_backward_pass_too() -> None:
    assert Counter(moves(priced("falcon-7b", "megatron"), BACKWARD)) == {("all-reduce", "model"): 1}


def test_a_norm_of_all_heads_reduces_its_statistic_over_the_devices_that_share_them() -> None:
    answer = priced("olmo3-7b", "megatron")
    block = next(kind for kind in answer.layers.kinds if kind.kind == "block")
    found = [
        (one.step.tensor.name, one.step.kind, one.bytes)
        for row in block.rows
        for one in row.collectives
        if row.planned.phase == FORWARD
        and "normed" in row.planned.statement.output
        and "_in" not in cause_words(one.step.cause)
    ]
    statistics = [entry for entry in found if entry[0].startswith("sum of")]
    tokens = 1024  # one microbatch of one sequence
    assert statistics == [(f"sum of {name}", "all-reduce", 2 * 4 * tokens * 3 // 4) for name in ("q", "k")]


def test_a_norm_of_each_head_needs_no_statistic_of_others() -> None:
    block = next(kind for kind in priced("qwen3-8b", "megatron").layers.kinds if kind.kind == "block")
    names = [one.step.tensor.name for row in block.rows for one in row.collectives]
    assert not [name for name in names if name.startswith("sum of")]


def test_more_devices_than_heads_are_refused() -> None:
    with pytest.raises(StrategyError) as caught:
        layer("gemma-7b", mesh="model=32", strategy="megatron", sequence=512, batch=1)
    assert "heads `h` (16) cannot be divided 32 ways over mesh axis model" in str(caught.value)


def test_the_query_heads_of_one_key_head_are_divided_instead_of_it() -> None:
    answer = priced("falcon-7b", "megatron")
    block = next(kind for kind in answer.layers.kinds if kind.kind == "block")
    resting = block.planned.resting
    assert resting["wq"].text(("d", "n", "g", "k")) == "d n g/model k"
    assert resting["wk"].text(("d", "n", "k")) == "d n k"
