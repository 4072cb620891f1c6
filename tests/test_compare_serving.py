"""Requests under several strategies side by side: the figures of `infer`, terms that add up, who is best."""

from __future__ import annotations

import json

import pytest
from command import run_command

import einscale
from einscale.api.compare_serving import CompareServingResult, compare_serving
from einscale.comparison.serving import ServingMeasure, ServingPhase
from einscale.errors import EinscaleError, StrategyError, UsageError

SIDES = ["megatron@model=8", "megatron@data=2,model=4", "megatron@pipe=2,model=4", "split-kv@model=4,context=2"]


@pytest.fixture(scope="module")
def dense() -> CompareServingResult:
    return compare_serving("llama3-70b", SIDES, batch=32, prompt=1024, output=64, price_per_hour=2.0)


@pytest.fixture(scope="module")
def experts() -> CompareServingResult:
    names = ["megatron", "dp-attention"]
    return compare_serving("deepseek-v3", names, mesh="data=4,model=8", hardware="h200", prompt=512, chunk=128)


@pytest.mark.parametrize("which", ["dense", "experts"])
def test_terms_add_up_to_the_differences(which: str, request: pytest.FixtureRequest) -> None:
    result: CompareServingResult = request.getfixturevalue(which)
    first = result.comparison.sides[0]
    assert len(result.comparison.differences) == len(result.comparison.sides) - 1
    for other, change in zip(result.comparison.sides[1:], result.comparison.differences, strict=True):
        assert (change.first, change.other) == (first.label, other.label)
        for phase, whole in (
            (ServingPhase.PREFILL, other.first_token_seconds - first.first_token_seconds),
            (ServingPhase.DECODE, other.seconds_per_token - first.seconds_per_token),
        ):
            terms = change.of(phase)
            base = first.spent(phase).seconds
            assert sum(term.seconds for term in terms) == pytest.approx(whole, abs=1e-10 * base)
            assert (
                whole
                == {
                    ServingPhase.PREFILL: change.first_token_change,
                    ServingPhase.DECODE: change.token_change,
                }[phase]
            )
            sizes = [abs(term.seconds) for term in terms]
            assert sizes == sorted(sizes, reverse=True)
            assert len({(term.what, term.axis) for term in terms}) == len(terms)
        assert sum(term.bytes for term in change.memory_terms) == change.memory_change
        assert change.memory_change == other.memory.needed - first.memory.needed
        assert all(term.bytes for term in change.memory_terms)
        steps = result.answers[0].asked.output - 1
        assert change.seconds_change == pytest.approx(change.first_token_change + steps * change.token_change)


def test_figures_are_those_of_infer(dense: CompareServingResult) -> None:
    for name, side in zip(SIDES, dense.comparison.sides, strict=True):
        strategy, _, mesh = name.partition("@")
        alone = einscale.infer(
            "llama3-70b", strategy=strategy, mesh=mesh, batch=32, prompt=1024, output=64, price_per_hour=2.0
        )
        assert side.label == name
        assert side.first_token_seconds == alone.first_token_seconds
        assert side.seconds_per_token == alone.seconds_per_token
        assert side.tokens_per_second_per_device == alone.tokens_per_second_per_device
        assert side.cost_per_million_tokens == pytest.approx(alone.cost_per_million_tokens)
        assert (side.memory,) == alone.memories
        assert side.fits == alone.fits
        assert dense.side(name).to_dict()["request"] == alone.to_dict()["request"]
    with pytest.raises(UsageError, match="the comparison has no `fsdp`"):
        dense.side("fsdp")


def test_what_a_strategy_does_otherwise_is_a_term(dense: CompareServingResult) -> None:
    replicas, piped, split = dense.comparison.differences
    weights = {term.part.value: term.bytes for term in replicas.memory_terms}
    assert weights["parameters"] > 0  # each replica holds the weights whole
    decode = {(term.what.value, term.axis): term.seconds for term in replicas.of(ServingPhase.DECODE)}
    assert decode["weights", ""] > 0 > decode["activations", "model"]
    waits = {(term.what.value, term.axis): term.seconds for term in piped.terms}
    assert waits["bubble", ""] > 0
    assert waits["hops", ""] > 0
    assert ("statistics", "context") in {(term.what.value, term.axis) for term in split.terms}
    assert split.memory_change == sum(term.bytes for term in split.memory_terms)


def test_the_best_by_every_measure(dense: CompareServingResult) -> None:
    best = {one.measure: one for one in dense.comparison.best}
    assert set(best) == set(ServingMeasure)
    for measure, found in best.items():
        values = {side.label: side.measured(measure) for side in dense.comparison.sides}
        pick = max if measure.more else min
        assert found.value == pick(value for value in values.values() if value is not None)
        assert {values[label] for label in found.labels} == {found.value}
        if found.next_label:
            assert (found.next_value < found.value) == measure.more
    one = compare_serving("gpt2", ["dp@data=1", "megatron@model=2"], output=1)
    assert {found.measure for found in one.comparison.best} == set(ServingMeasure) - {
        ServingMeasure.TOKEN,
        ServingMeasure.COST,
    }
    assert not any(change.of(ServingPhase.DECODE) for change in one.comparison.differences)


def test_only_what_fits_is_recommended() -> None:
    result = compare_serving("llama3-70b", ["dp@data=1", "megatron@model=4"], batch=4, prompt=512, output=8)
    assert result.comparison.fitting == ("megatron@model=4",)
    assert {result.comparison.best_fitting(measure) for measure in ServingMeasure} == {"megatron@model=4", ""}
    assert "only megatron@model=4 fits" in result.to_text()
    none = compare_serving("llama3-70b", ["dp@data=1", "dp@data=2"], prompt=512, output=8)
    assert none.comparison.fitting == ()
    assert "none fits" in none.to_text()
    assert none.comparison.best_fitting(ServingMeasure.RATE) == ""


def test_the_batch_divides_for_every_strategy() -> None:
    result = compare_serving("gpt2", ["dp@data=4", "dp@data=6", "megatron@model=2"], prompt=64, output=4)
    assert {answer.asked.batch for answer in result.answers} == {12}
    assert any(note.startswith("batch: 12 requests") for note in result.comparison.notes)


def test_the_report_and_the_document(dense: CompareServingResult) -> None:
    text = dense.to_text(width=110)
    assert text.startswith("llama3-70b: 70.6B parameters on h100: megatron@model=8 | ")
    assert "against megatron@model=8: first token " in text
    tables = {table.name: table for table in dense.to_report(detail=True).tables}
    assert {"strategies", "memory"} < set(tables)
    for side, change in zip(dense.comparison.sides[1:], dense.comparison.differences, strict=True):
        rows = tables[f"difference_{side.label}"].rows
        whole = [row.cells for row in rows if row.cells[1] == "together"]
        assert [cells[0] for cells in whole] == ["first token", "a token"]
        assert whole[0][4] == pytest.approx(change.first_token_change)
        for name, _, _, total in ((cells[0], *cells[2:]) for cells in whole):
            shown = sum(row.cells[4] for row in rows if row.cells[0] == name and row.cells[1] != "together")
            assert shown == pytest.approx(total, abs=1e-9)
    short = {table.name: table for table in dense.to_report().tables}
    assert sum(len(table.rows) for table in short.values()) <= sum(len(table.rows) for table in tables.values())
    document = json.loads(json.dumps(dense.to_dict()))
    assert [side["label"] for side in document["strategies"]] == SIDES
    for difference in document["differences"]:
        terms = difference["terms"]
        prefill = sum(term["seconds"] for term in terms if term["phase"] == "prefill")
        assert prefill == pytest.approx(difference["first_token_change_seconds"], rel=1e-9)
        assert sum(term["bytes"] for term in difference["memory_terms"]) == difference["memory_change_bytes"]
    assert repr(dense).startswith("<CompareServingResult llama3-70b, 4 strategies")


@pytest.mark.parametrize(
    ("strategies", "options", "error", "words"),
    [
        (["megatron"], {"mesh": "model=2"}, UsageError, "has nothing to be compared with"),
        (["megatron", "megatron"], {"mesh": "model=2"}, UsageError, "given twice"),
        (["megatron", "dp@data=2"], {}, UsageError, "`megatron` has no mesh"),
        (["megatron", "dp@data=2"], {"mesh": "model=2", "promt": 5}, UsageError, "no argument `promt`"),
        (["megatron", "dp@data=2"], {"mesh": "model=2", "strategy": "dp"}, UsageError, "second argument"),
        (["megatron", "dp@data=2"], {"mesh": "model=2", "sweep": "batch=1"}, UsageError, "no argument `sweep`"),
        (["dp@data=2", "megatron@model=64"], {}, StrategyError, "megatron@model=64: heads"),
        (["dp@data=2", "dp@data=3"], {"batch": 8}, EinscaleError, "dp@data=3: "),
    ],
)
def test_what_cannot_be_compared(
    strategies: list[str], options: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as raised:
        compare_serving("gpt2", strategies, **options)  # type: ignore[arg-type]
    assert words in str(raised.value)


def test_unknown_arguments_get_the_near_miss() -> None:
    for verb, name, near in (
        (einscale.infer, "pompt", "prompt"),
        (einscale.prefill, "chunks", "chunk"),
        (einscale.decode, "contxt", "context"),
    ):
        with pytest.raises(UsageError, match=f"`{verb.__name__}` has no argument `{name}`") as raised:
            verb("gpt2", **{name: 1})  # type: ignore[arg-type]
        assert f"did you mean `{near}`?" in str(raised.value)
    with pytest.raises(UsageError, match="`prefill` has no argument `output`"):
        einscale.prefill("gpt2", output=3)  # type: ignore[call-arg]


LINE = "compare gpt2 megatron@model=2 dp@data=2 --for serve"


def test_the_command_line_compares_requests() -> None:
    answer = einscale.compare(
        "gpt2", ["megatron@model=2", "dp@data=2"], for_="serve", batch=4, prompt=64, output=8, chunk=32, page=1
    )
    outcome = run_command(f"{LINE} --batch 4 --prompt 64 --output 8 --chunk 32 --page 1")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == answer.to_text()
    assert len(run_command(LINE, terminal=100).out.splitlines()) <= 40
    given = json.loads(run_command(f"{LINE} --batch 4 --prompt 64 --output 8 --chunk 32 --page 1 --json").out)
    assert given["differences"] == json.loads(json.dumps(answer.to_dict()))["differences"]
    terms = run_command(f"{LINE} --only terms").out
    assert "what makes the difference" in terms
    assert "tokens/s" not in terms


def test_each_purpose_has_its_own_defaults() -> None:
    """Engines capture a step; a training step runs kernel by kernel unless told otherwise."""
    asked = json.loads(run_command(f"{LINE} --batch 4 --json").out)["strategies"][0]
    alone = einscale.infer("gpt2", strategy="megatron", mesh="model=2", batch=4)
    assert asked["first_token_seconds"] == alone.first_token_seconds
    eager = json.loads(run_command(f"{LINE} --batch 4 --execution eager --json").out)["strategies"][0]
    assert eager["first_token_seconds"] > asked["first_token_seconds"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--for serve --seq 128", "`--sequence` is about training"),
        ("--for serve --zero 1", "`--zero` is about training"),
        ("--prompt 128", "`--prompt` is about requests\n  `--for serve` compares them"),
        ("--for layer --page 2", "`--page` is about requests"),
        ("--for srve", "did you mean `serve`?"),
        ("--for serve --output r.json", "a file is written with `-o FILE`"),
        ("--for serve --only trems", "did you mean `terms`?"),
    ],
)
def test_what_the_command_line_refuses(words: str, message: str) -> None:
    outcome = run_command(f"compare gpt2 megatron@model=2 dp@data=2 {words}")
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err
