"""`einscale.prefill`, `decode` and `infer`: answers follow from what was asked, money and advice too."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import einscale
from einscale.api.train import train_step
from einscale.dtypes import bits_of
from einscale.efficiency import EXECUTIONS
from einscale.errors import EinscaleError, SizeError, StrategyError, UsageError
from einscale.precision import PRESETS, parse_precision
from einscale.program.text import print_program
from einscale.report.words import changes_words
from einscale.request.serving import read_sweep
from einscale.serving import requests_fit
from einscale.serving.advice import narrower
from einscale.serving.asked import Points
from einscale.serving.step import Planner


def test_a_request_is_its_prefill_and_its_steps() -> None:
    answer = einscale.infer("gpt2", batch=4, prompt=512, output=65)
    prefill = einscale.prefill("gpt2", batch=4, prompt=512)
    decode = einscale.decode("gpt2", batch=4, context=512, output=64)
    assert answer.first_token_seconds == prefill.prefill.seconds
    assert answer.seconds_per_token == decode.decode.seconds_per_token
    assert math.isclose(answer.seconds, prefill.prefill.seconds + 64 * decode.decode.seconds_per_token)
    assert math.isclose(answer.tokens_per_second, 4 * 65 / answer.seconds)
    assert answer.tokens_per_second_per_user == 1 / decode.decode.seconds_per_token
    assert answer.request.memory.cache == decode.decode.memory.cache
    assert answer.fits and prefill.fits and decode.fits


def test_one_token_needs_no_decoding() -> None:
    answer = einscale.infer("gpt2", prompt=1024, output=1)
    assert answer.request.decode is None
    assert answer.seconds == answer.first_token_seconds
    assert (answer.seconds_per_token, answer.tokens_per_second_per_user) == (0.0, None)
    assert "\ndecode " not in answer.to_text()
    assert answer.to_dict()["decode"] is None


def test_defaults_stay_within_learned_positions() -> None:
    asked = einscale.infer("gpt2").asked
    assert (asked.prompt, asked.output) == (1025 - 256, 256)
    asked = einscale.infer("gpt2", prompt=1000).asked
    assert (asked.prompt, asked.output) == (1000, 25)
    asked = einscale.infer("gpt2", output=1000).asked
    assert (asked.prompt, asked.output) == (25, 1000)
    assert einscale.prefill("gpt2").prefill.prompt == 1024
    assert einscale.decode("gpt2").decode.context == 1023
    assert einscale.decode("llama3-8b").decode.context == 2048


def test_the_default_batch_is_one_for_each_replica() -> None:
    answer = einscale.infer("gpt2", mesh="data=4,model=2", strategy="megatron")
    assert answer.asked.batch == 4
    assert any(note.startswith("batch: 4 sequences") for note in answer.notes)


def test_money_is_time_of_all_devices() -> None:
    answer = einscale.infer("llama3-8b", mesh="model=4", batch=8, output=101, price_per_hour=3.0)
    assert answer.price_per_second == 4 * 3.0 / 3600
    assert answer.cost_per_million_tokens == pytest.approx(4 * 3.0 / 3600 * answer.seconds / (8 * 101) * 1e6)
    prefill = einscale.prefill("llama3-8b", mesh="model=4", batch=8, price_per_hour=3.0)
    assert prefill.cost_per_million_tokens == pytest.approx(4 * 3.0 / 3600 * prefill.prefill.seconds / (8 * 2048) * 1e6)
    decode = einscale.decode("llama3-8b", mesh="model=4", batch=8, price_per_hour=3.0)
    assert decode.cost_per_million_tokens == pytest.approx(4 * 3.0 / 3600 * decode.decode.seconds_per_token / 8 * 1e6)
    for one in (prefill, decode, answer):
        assert f"{one.cost_per_million_tokens:.3g} a million tokens" in one.to_text()
    for one in (einscale.prefill("gpt2"), einscale.decode("gpt2"), einscale.infer("gpt2")):
        assert one.cost_per_million_tokens is None
        assert "a million tokens" not in one.to_text()


def test_the_cache_of_a_request_is_counted_by_hand() -> None:
    answer = einscale.infer("llama2-13b", mesh="model=2", batch=2, prompt=1000, output=25, page=16)
    assert answer.kv_bytes_per_token == 40 * 2 * 40 * 128 * 2
    assert answer.kv_bytes_per_sequence == 1024 * answer.kv_bytes_per_token
    assert answer.request.memory.cache == 2 * 1024 * answer.kv_bytes_per_token // 2
    quantised = einscale.infer("llama2-13b", mesh="model=2", precision="bf16,kv_cache=int8")
    assert quantised.kv_bytes_per_token * 2 == answer.kv_bytes_per_token


@pytest.mark.parametrize(
    "options",
    [
        {"model": "llama3-8b", "mesh": "model=1"},
        {"model": "llama3-8b", "mesh": "model=1", "chunk": 256},
        {"model": "llama3-8b", "mesh": "data=2,model=2", "memory_share": 0.5},
        {"model": "llama3-70b", "mesh": "pipe=4,model=2"},
        {"model": "gemma2-9b", "mesh": "model=2", "output": 1},
    ],
    ids=str,
)
def test_the_largest_batch_fits_and_one_more_does_not(options: dict[str, Any]) -> None:
    most = einscale.infer(**options).largest_batch
    answer = einscale.infer(**options, batch=most)
    assert answer.fits
    instance = answer.instance
    unit = instance.ways * instance.stages
    assert not einscale.infer(**options, batch=most + unit).fits
    assert answer.largest_decode_batch >= most


def test_nothing_fits_beside_weights_that_do_not() -> None:
    answer = einscale.infer("llama3-70b")
    assert (answer.largest_batch, answer.largest_decode_batch, answer.fits) == (0, 0, False)
    assert einscale.decode("llama3-70b").largest_batch == 0


@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 600),
    prompt=st.integers(1, 4096),
    output=st.integers(1, 64),
    chunk=st.none() | st.integers(1, 4096),
)
def test_whether_it_fits_is_known_without_pricing(batch: int, prompt: int, output: int, chunk: int | None) -> None:
    answer = einscale.infer("llama3-8b", batch=batch, prompt=prompt, output=output, chunk=chunk)
    planner = Planner(answer.instance)
    known = requests_fit(planner, batch=batch, prompt=prompt, output=output, chunk=chunk, microbatches=None)
    assert known == answer.fits


def test_overhead_and_share_leave_less_room() -> None:
    free = einscale.infer("llama3-8b", overhead=0)
    assert free.request.memory.overhead == 0
    assert free.request.memory.capacity == 80 * 10**9
    less = einscale.infer("llama3-8b", overhead=10**9, memory_share=0.5)
    assert less.request.memory.needed == free.request.memory.needed + 10**9
    assert less.request.memory.capacity == 40 * 10**9
    assert less.largest_batch < free.largest_batch


def test_no_execution_is_faster_than_the_roofline() -> None:
    times = {
        how: einscale.decode("llama3-8b", batch=4, execution=how).decode.seconds_per_token
        for how in ("roofline", "compiled", "eager")
    }
    assert times["roofline"] < times["compiled"] < times["eager"]


def test_a_draft_is_worth_its_guesses() -> None:
    answer = einscale.infer("llama3-70b", mesh="model=8", batch=4, speculative="llama3-8b", guesses=3, acceptance=1.0)
    report = answer.speculative
    assert report is not None and answer.draft_prefill is not None
    assert report.tokens_per_round == 4
    assert answer.seconds_per_token == pytest.approx((3 * report.draft.seconds_per_token + report.verify_seconds) / 4)
    reading = answer.request.prefill.seconds + answer.draft_prefill.seconds
    assert answer.seconds == pytest.approx(reading + 255 * answer.seconds_per_token)
    assert answer.first_token_seconds == answer.request.first_token_seconds
    alone, draft = einscale.infer("llama3-70b", mesh="model=8", batch=4), einscale.decode("llama3-8b", mesh="model=8")
    assert answer.memories[0].parameters == alone.request.memory.parameters + draft.decode.memory.parameters
    assert answer.memories[0].overhead == alone.request.memory.overhead
    never = einscale.infer("llama3-70b", mesh="model=8", speculative="llama3-8b", guesses=3, acceptance=0.0)
    assert never.speculative is not None and never.speculative.speedup < 1


def test_layers_ahead_guess_as_often_as_there_are() -> None:
    answer = einscale.infer("deepseek-v3", mesh="model=16", hardware="h200", precision="w8a8-fp8", speculative="ahead")
    assert answer.speculative is not None
    assert answer.speculative.length == 1
    assert "speculation: 1 guess in a row (no number was given)" in answer.notes


def test_prefill_and_decode_apart() -> None:
    answer = einscale.infer(
        "llama3-8b",
        mesh="model=2",
        batch=32,
        output=101,
        disaggregate="data=2",
        prefill_hardware="h200",
        prefill_instances=3,
        decode_instances=2,
        link=1e10,
        price_per_hour=2.0,
        prefill_price_per_hour=5.0,
    )
    split = answer.disaggregated
    assert split is not None
    assert split.prefill.batch == 2
    assert split.prefill.instance.system.name == "h200"
    assert (split.prefill_instances, split.decode_instances, answer.devices) == (3, 2, 10)
    assert split.transfer_seconds == split.transfer_bytes / 1e10
    assert answer.price_per_second == pytest.approx((3 * 2 * 5.0 + 2 * 2 * 2.0) / 3600)
    rate = min(3 * split.prefill_rate, 2 * split.decode_rate)
    assert answer.tokens_per_second == pytest.approx(rate * 101)
    assert answer.seconds == pytest.approx(
        split.prefill.seconds + split.transfer_seconds + 100 * answer.seconds_per_token
    )
    assert answer.memories == (split.prefill.memory, split.decode.memory)
    same = einscale.infer("llama3-8b", mesh="model=2", disaggregate="model=2", price_per_hour=2.0)
    assert same.price_per_second == pytest.approx(same.devices * 2.0 / 3600)


def test_a_sweep_is_what_decoding_says_at_every_point() -> None:
    text = einscale.infer("llama3-8b", sweep="batch=1,64 context=1Ki,4096")
    mapping = einscale.infer("llama3-8b", sweep={"batch": [1, 64], "context": (1024, 4096)})
    assert text.sweep == mapping.sweep
    assert len(text.sweep) == 4
    for row in text.sweep:
        report = einscale.decode("llama3-8b", batch=row.batch, context=row.context).decode
        assert row.seconds_per_token == report.seconds_per_token
        assert row.memory == report.memory


def test_a_sweep_varies_what_it_is_told() -> None:
    assert read_sweep(None, 1, 2) is None
    assert read_sweep({"batch": 4}, 1, 100) == Points((4,), (100,))  # type: ignore[dict-item]
    assert read_sweep("context=5,5,6", 3, 100) == Points((3,), (5, 6))
    assert len(einscale.infer("gpt2", prompt=100, sweep="batch=1,2").sweep) == 2


def test_advice_keeps_the_devices_then_changes_one_thing_before_two() -> None:
    answer = einscale.infer("llama3-70b", mesh="model=4", batch=256, prompt=4096)
    changes = [(one.result.devices, len(one.changes)) for one in answer.advice]
    assert changes == sorted(changes)
    assert {devices for devices, _ in changes} >= {4, 8}
    assert all(one.result.fits for one in answer.advice)
    assert einscale.infer("gpt2").advice == ()


def test_narrower_types_in_chunks_are_tried_before_more_devices() -> None:
    answer = einscale.infer("llama3.1-405b", mesh="model=8", batch=4, prompt=100000)
    words = {changes_words(one.changes): one.result.devices for one in answer.advice}
    assert words["--precision w8a8-fp8 --chunk 8192"] == 8
    assert words["--mesh model=128"] == 128
    assert list(words.values()) == sorted(words.values())


def test_advice_and_cheaper_ways_are_answers_that_can_be_shown() -> None:
    tight = einscale.infer("llama3-8b", batch=512, output=2)
    roomy = einscale.infer("llama3-8b", mesh="model=2", batch=4, output=2)
    assert not tight.fits and roomy.fits
    for change in (*tight.advice, *roomy.cheaper):
        assert isinstance(change.result, einscale.InferResult)
        assert change.result.fits and change.result.headline[0] in repr(change.result)
    assert tight.advice and roomy.cheaper


def test_more_devices_may_take_more_requests_or_another_axis() -> None:
    answer = einscale.infer("deepseek-v3", mesh="expert=8", batch=8)
    words = [changes_words(one.changes) for one in answer.advice]
    assert "--mesh model=32" in words
    assert any(one.startswith("--mesh expert=") and " --batch " in one for one in words)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: einscale.infer("gpt2"),
        lambda: einscale.prefill("gpt2"),
        lambda: einscale.decode("gpt2"),
        lambda: einscale.layer("gpt2"),
        lambda: train_step("gpt2", batch=1),
    ],
    ids=["infer", "prefill", "decode", "layer", "train"],
)
def test_results_are_one_line(answer: Callable[[], Any]) -> None:
    result = answer()
    line = repr(result)
    assert line.replace("(", " ").lstrip("<").startswith(f"{type(result).__name__} gpt2, data=1 on h100, ")
    assert len(line) <= 120 and "\n" not in line


def test_collectives_and_links_run_at_the_bandwidth_they_sustain() -> None:
    """InfiniBand of h100 sustains 0.7 of 50 GB/s; the roofline takes the datasheet's."""
    options: dict[str, Any] = {"mesh": "model=2,data=8", "batch": 8, "output": 2, "disaggregate": "model=16"}
    known, ideal = (einscale.infer("llama3-70b", **options, execution=how) for how in ("compiled", "roofline"))
    assert known.disaggregated is not None and ideal.disaggregated is not None
    assert ideal.disaggregated.transfer_seconds == pytest.approx(0.7 * known.disaggregated.transfer_seconds)
    slow, fast = (one.request.prefill.spent.by_axes[0] for one in (known, ideal))
    assert slow.bytes == fast.bytes
    assert fast.seconds - fast.latency == pytest.approx(0.7 * (slow.seconds - slow.latency))
    pipes = [einscale.decode("llama3-70b", mesh="pipe=2,model=8", execution=how).decode for how in EXECUTIONS]
    hops = {how: report.step.hop_seconds for how, report in zip(EXECUTIONS, pipes, strict=True)}
    assert hops["compiled"] == hops["eager"] > hops["roofline"]


def test_converting_operands_is_work_on_activations() -> None:
    report = einscale.prefill("llama3-8b", prompt=4096, precision="w8a8-fp8").prefill
    plain = einscale.prefill("llama3-8b", prompt=4096).prefill
    assert report.spent.launch < 3e-6 * report.last.kernels * 1.01
    assert report.last.kernels > plain.last.kernels
    assert report.spent.traffic > 1.1 * plain.spent.traffic
    assert report.spent.weights < plain.spent.weights * 1.01


def test_a_draft_may_be_padded_otherwise() -> None:
    target, draft = einscale.load_model("qwen3-8b"), einscale.load_model("qwen3-0.6b")
    assert target.config is not None and draft.config is not None
    padded = replace(draft, config=replace(draft.config, vocab=draft.config.vocab + 128), notes=("something odd",))
    answer = einscale.infer(target, speculative=padded)
    assert "speculation: vocabularies of 151936 and 152064 tokens are taken as one, padded differently" in answer.notes
    assert "qwen3-0.6b: something odd" in answer.notes


@pytest.mark.parametrize("name", PRESETS)
def test_narrower_types_are_narrower(name: str) -> None:
    def bits(dtype: str) -> float:
        return bits_of(4096, dtype)

    now = PRESETS[name]
    for one in (one for group in narrower(now) for one in group):
        assert bits(one.weights) <= bits(now.weights)
        assert bits(one.kv_cache) <= bits(now.kv_cache)
        assert (one.weights, one.kv_cache) != (now.weights, now.kv_cache)
        assert parse_precision(str(one)) == one


def test_narrower_types_keep_what_was_asked_for() -> None:
    words = [str(one) for group in narrower(parse_precision("int8,kv_cache=fp16")) for one in group]
    assert words == ["int8,kv_cache=fp8", "int4", "int4,kv_cache=fp8"]
    assert narrower(parse_precision("int4,kv_cache=fp8")) == ()


def test_results_print_themselves() -> None:
    for one in (einscale.prefill("gpt2"), einscale.decode("gpt2"), einscale.infer("gpt2")):
        assert f"{one}\n" == one.to_text() == one.report()
        assert one.to_text(explain=True) != one.to_text(detail=True) != str(one)
        assert one.to_dict()["schema_version"] == 1
        assert "GB" in one.to_text(units="si")


def test_chunks_and_a_shared_prefix_are_shown() -> None:
    answer = einscale.prefill("llama3-8b", prompt=4096, chunk=1024, cached=512)
    text = answer.to_text(explain=True)
    assert "prompts are read in chunks of 1024 tokens each" in text
    assert "4096 tokens of prompt after 512 in the cache" in text
    assert "4 chunks of 1024 tokens, the first " in text
    assert answer.to_dict()["prefill"]["chunks"] == 4


def test_a_program_of_ones_own_is_served(tmp_path: Path) -> None:
    path = tmp_path / "block.ein"
    path.write_text(print_program(einscale.load_model("gpt2").layer("block").program), "utf-8")
    answer = einscale.infer(str(path), prompt=128, output=8)
    assert answer.kv_bytes_per_token == 12 * 2 * 12 * 64 * 2
    assert answer.seconds_per_token > 0


REFUSED: dict[str, tuple[dict[str, Any], type[EinscaleError], str]] = {
    "price of words": ({"price_per_hour": "two"}, UsageError, "the price of an hour cannot be 'two'"),
    "price of nothing": ({"price_per_hour": math.nan}, UsageError, "the price of an hour cannot be nan"),
    "yes for a price": ({"price_per_hour": True}, UsageError, "the price of an hour cannot be True"),
    "share of words": ({"memory_share": "all"}, UsageError, "the share of the memory cannot be 'all'"),
    "batch of halves": ({"batch": 1.5}, SizeError, "the batch must be a whole number"),
    "batch of words": ({"batch": "two"}, SizeError, "must be a whole number, not str"),
    "no output": ({"output": 0}, SizeError, "the output must be at least 1"),
    "no chunk": ({"chunk": 0}, SizeError, "the chunk must be at least 1"),
    "negative overhead": ({"overhead": -1}, SizeError, "the overhead must be at least 1"),
    "no link": ({"disaggregate": "model=1", "link": 0}, UsageError, "the link cannot be 0"),
    "no prefill batch": ({"disaggregate": "model=1", "prefill_batch": 0}, SizeError, "the batch must be at least 1"),
    "no instances": ({"disaggregate": "model=1", "prefill_instances": 0}, SizeError, "prefill instances must be"),
    "acceptance of words": ({"speculative": "gpt2", "acceptance": "often"}, UsageError, "cannot be 'often'"),
    "acceptance alone": ({"acceptance": 0.5}, UsageError, "`acceptance` of no draft"),
    "sweep of a list": ({"sweep": [1, 2]}, UsageError, "a sweep is text or a mapping, not list"),
    "sweep of no values": ({"sweep": {"batch": []}}, UsageError, "no value for `batch`"),
    "sweep of many": ({"sweep": {"context": range(1, 2000)}}, UsageError, "the sweep has 1999 points"),
    "sweep of zero": ({"sweep": {"batch": [0]}}, SizeError, "the batch must be at least 1"),
    "sweep of the prompt": ({"sweep": {"prompt": [5]}}, UsageError, "it varies"),
    "no strategy suits": ({"mesh": "x=2"}, StrategyError, "none suits the mesh axes x"),
    "no strategy suits apart": ({"disaggregate": "x=2"}, StrategyError, "none suits the mesh axes x"),
}


@pytest.mark.parametrize(("options", "kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(options: dict[str, Any], kind: type[EinscaleError], words: str) -> None:
    with pytest.raises(kind) as caught:
        einscale.infer("llama3-8b", **options)
    assert words in str(caught.value)


def test_few_tokens_wait_for_weights_and_not_for_the_arithmetic() -> None:
    report = einscale.decode(
        "deepseek-v3", mesh="data=8,model=4", strategy="dp-attention", precision="w8a8-fp8", batch=256, context=4096
    ).decode
    # neither experts that no token takes nor one unit alone with a block of queries
    assert report.spent.compute < 0.1 * report.spent.weights
