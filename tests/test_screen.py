"""The default report is one screen: how long and wide it is, that its figures are whole, add up and are true."""

from __future__ import annotations

import math
import re
import shlex
from functools import cache
from typing import Any
from unittest import mock

import pytest
from command import Outcome, refused, run_command

import einscale
from einscale.report.bars import Bar, Bars, Fill, bar, drawn
from einscale.report.render.export import render_csv
from einscale.report.render.text import render_text
from einscale.report.screen import Beside, Items, Words
from einscale.report.table import Report
from einscale.report.training.screen import merged

FITS = "train llama3-70b --mesh data=8,model=8 --strategy fsdp+tp --batch 64"
PIPELINE = "train llama3-70b --mesh pipe=4,data=4,model=8 --strategy megatron-sp --zero 1 --batch 128"
EXPERTS = "train deepseek-v3 --mesh pipe=16,data=8,expert=8 --batch 1024 --hardware h200"
TOO_BIG = "train llama3-8b --mesh data=8 --strategy dp --batch 16"
SERVED = "infer llama3-70b --mesh model=8 --batch 32 --price-per-hour 2.5"
APART = "infer llama3-8b --mesh model=2 --batch 64 --disaggregate model=1 --prefill-hardware h200 --prefill-batch 2"
DRAFT = "infer llama3-70b --mesh model=8 --batch 8 --speculative llama3-8b --guesses 5 --acceptance 0.7"
CROWDED = "infer llama3-70b --mesh model=4 --batch 256 --prompt 4096 --output 512"
QUESTIONS = {
    "fits": FITS,
    "pipeline": PIPELINE,
    "experts": EXPERTS,
    "too big": TOO_BIG,
    "served": SERVED,
    "apart": APART,
    "draft": DRAFT,
    "crowded": CROWDED,
    "swept": "infer llama3-8b --mesh model=2 --sweep 'batch=1,16,256 context=1Ki,8Ki'",
    "recompute": "train mixtral-8x7b --mesh data=8,expert=8 --batch 128 --recompute selective",
    "one device": "train gpt2",
    "one token": "infer gpt2 --output 1",
}
MOST_LINES = 40
FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?(?: [kMGT](?=[ ),;]|$))? (?:%|[KMGTP]?i?B\b|[mµn]?s\b|tokens/s)")
"""A figure and its unit."""


@cache
def report_of(question: str) -> Report:
    """The report that a command prints, made once."""
    with mock.patch("einscale.cli.output.emit") as emit:
        run_command(*shlex.split(question))
    report: Report = emit.call_args.args[2]()
    return report


def shown(question: str, *more: str, terminal: int | None = None, **how: Any) -> Outcome:
    return run_command(*shlex.split(question), *more, terminal=terminal, checked=False, **how)


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_a_report_fits_one_screen(question: str) -> None:
    assert len(render_text(report_of(question), width=100).splitlines()) <= MOST_LINES


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_figures_are_whole_and_lines_no_wider_than_the_terminal(question: str, width: int) -> None:
    piped, narrow = render_text(report_of(question)), render_text(report_of(question), width=width)
    assert max(map(len, narrow.splitlines())) <= width
    figures = sorted(FIGURE.findall(piped))
    assert len(figures) > 10
    assert sorted(FIGURE.findall(narrow)) == figures


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("question", [FITS, PIPELINE, SERVED], ids=["fits", "pipeline", "served"])
def test_cells_of_all_tables_are_whole(question: str, width: int) -> None:
    report = report_of(f"{question} --detail")
    text = render_text(report, width=width)
    cells = [
        column.text(cell)
        for table in report.tables
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if column.kind != "text" and not column.detail and cell is not None
    ]
    assert len(cells) > 100
    assert [cell for cell in cells if cell not in text] == []


def test_a_pipe_gets_the_same_report_whole_and_plain() -> None:
    piped = shown(FITS, env={"COLUMNS": "40"}).out
    assert piped == render_text(report_of(FITS))
    assert "\x1b" not in piped
    assert shown(FITS, terminal=100, env={"NO_COLOR": "1"}).out == render_text(report_of(FITS), width=100)
    words = " ".join(render_text(report_of(FITS), width=80).split())
    sentences = [
        line for line in piped.splitlines() if not re.search(f"[{''.join(fill.sign for fill in Fill)}▏]", line)
    ]
    assert len(sentences) > 10
    assert [line for line in sentences if " ".join(line.split()) not in words] == []


def test_the_verdict_comes_first() -> None:
    title, time, fits, *_ = shown(PIPELINE, "--price-per-hour", "2").out.splitlines()
    assert title.startswith("llama3-70b: 70.6B parameters; megatron-sp+zero1 on 128 x h100")
    assert re.fullmatch(r"a step takes \S+ s: \S+ k tokens/s, \S+ tokens/s a device, MFU \S+ %", time)
    assert re.fullmatch(r"fits: stage 0 needs \S+ GiB of 74.5 GiB, \S+ GiB left", fits)
    title, time, rates, fits, *_ = shown(SERVED).out.splitlines()
    assert re.fullmatch(r"first token after \S+ s, then \S+ ms a token, a request takes \S+ s", time)
    assert re.fullmatch(
        r"\S+ k tokens/s, .* tokens/s a device, .* tokens/s a user; \S+ a million tokens of output", rates
    )
    assert re.fullmatch(r"fits: a device needs .* left; at most \d+ requests fit", fits)


def bars_of(report: Report) -> list[Bars]:
    """The bars of a screen."""
    blocks = [one for block in report.screen for one in (block.blocks if isinstance(block, Beside) else (block,))]
    return [block for block in blocks if isinstance(block, Bars)]


def test_bars_add_up_to_the_step_and_to_what_is_held() -> None:
    answer = einscale.train_step("llama3-70b", mesh="pipe=4,data=4,model=8", strategy="megatron-sp", zero=1, batch=64)
    time, memory = bars_of(answer.to_report(advice=False))
    assert math.isclose(sum(one.value for one in time.bars), answer.seconds)
    hidden = sum(amount for one in time.bars for fill, amount in one.pieces if fill is Fill.HIDDEN)
    assert math.isclose(hidden, sum(part.hidden for part in answer.step.spent))
    *held, left = memory.bars
    assert sum(one.value for one in held) == answer.memory.needed
    assert left.value == answer.step.capacity - answer.memory.needed
    assert left.label == "left"


def test_bars_of_requests_add_up() -> None:
    answer = einscale.infer("llama3-70b", mesh="model=8", batch=32)
    prefill, decode, memory = bars_of(answer.to_report(advice=False))
    assert math.isclose(sum(one.value for one in prefill.bars), answer.first_token_seconds)
    assert math.isclose(sum(one.value for one in decode.bars), answer.seconds_per_token)
    assert sum(one.value for one in memory.bars[:-1]) == answer.memories[0].needed


def test_what_is_too_much_has_a_bar_of_its_own() -> None:
    answer = einscale.train_step("llama3-8b", mesh="data=8", strategy="dp", batch=16)
    _, memory = bars_of(answer.to_report(advice=False))
    last = memory.bars[-1]
    assert (last.label, last.value) == ("too much", answer.memory.needed - answer.step.capacity)
    assert memory.span == answer.memory.needed


def test_small_parts_are_one_row_and_nothing_is_lost() -> None:
    bars = [bar(f"part {n}", 2.0**-n, Fill.WORK, 2.0 ** -(n + 1)) for n in range(12)]
    rows = merged(bars, 2.0, most=5)
    assert len(rows) == 5
    assert rows[-1].label == "8 smaller parts"
    assert sum(one.value for one in rows) == sum(one.value for one in bars)
    assert sum(one.length for one in rows) == sum(one.length for one in bars)
    assert merged(bars[:3], 2.0, most=5) == tuple(bars[:3])


@pytest.mark.parametrize("columns", [1, 7, 40])
def test_a_bar_is_as_long_as_its_parts(columns: int) -> None:
    row = Bar("", 1.0, ((Fill.WORK, 0.3), (Fill.EXPOSED, 0.3), (Fill.HIDDEN, 0.4)))
    assert sum(len(text) for text, _ in drawn(row, 1.0, columns)) == columns
    assert sum(len(text) for text, _ in drawn(row, 2.0, columns)) == math.floor(columns / 2 + 0.5)


def costs_of(report: Report, title: str) -> tuple[tuple[str, str], ...]:
    """The items of a screen's costs."""
    return next(block.items for block in report.screen if isinstance(block, Items) and block.title.startswith(title))


def test_costs_are_those_of_the_table_of_collectives() -> None:
    answer = einscale.train_step("llama3-70b", mesh="data=8,model=8", strategy="fsdp+tp", batch=64)
    report = answer.to_report(advice=False)
    collectives = next(table for table in report.tables if table.name == "collectives")
    exposed = {(row.cells[0], row.cells[1]): row.cells[5] for row in collectives.rows if row.role == "collective"}
    items = costs_of(report, "largest costs")
    assert len(items) == 3
    (what, cause), *_ = items
    seconds = exposed["reduce-scatter of gradients", "data"]
    assert seconds == max(exposed.values())
    assert what.startswith(f"{einscale.units.format_seconds(seconds)} ({100 * seconds / answer.seconds:.1f} %): ")
    assert "reduce-scatter of gradients over data, 5,784 times" in what
    assert "rule store.gradients: d -> data of fsdp+tp" in cause


def test_a_bubble_and_the_host_are_costs_too() -> None:
    bubble = costs_of(einscale.train_step("gpt2", mesh="pipe=4", batch=4).to_report(advice=False), "largest")
    found = next((what, why) for what, why in bubble if what.endswith("bubble"))
    assert "1f1b, 4 stages, 4 microbatches" in found[1]
    alone = costs_of(einscale.train_step("gpt2").to_report(advice=False), "largest")
    assert "what kernels wait for the host to start them" in alone[0][0]


def test_what_would_be_faster_is_true() -> None:
    answer = einscale.train_step("llama3-70b", mesh="data=8,model=8", strategy="fsdp+tp", batch=64)
    assert len(answer.faster) > 1
    for one in answer.faster:
        options = {"mesh": "data=8,model=8", "strategy": "fsdp+tp", "batch": 64, **one.arguments}
        changed = einscale.train_step("llama3-70b", **options)
        assert changed.fits
        assert math.isclose(changed.seconds, one.report.step_seconds)
        assert changed.seconds < answer.seconds
        assert changed.memory.needed == one.report.fullest.memory.needed
        assert changed.step.setup.mesh.devices == 64
    assert einscale.train_step("llama3-8b", mesh="data=8", strategy="dp", batch=16).faster == ()


def test_nothing_computed_again_is_a_change_that_can_be_asked_for() -> None:
    options = {"mesh": "data=4", "strategy": "fsdp", "batch": 4, "recompute": "full"}
    answer = einscale.train_step("gpt2", **options)
    kept = next(one for one in answer.faster if "recompute" in one.arguments)
    changed = einscale.train_step("gpt2", **{**options, **kept.arguments})
    assert math.isclose(changed.seconds, kept.report.step_seconds)


def test_what_would_serve_more_is_true() -> None:
    answer = einscale.infer("llama3-8b", mesh="data=2,model=2", batch=4, prompt=512, output=64)
    assert answer.cheaper
    for one in answer.cheaper:
        options = {"mesh": "data=2,model=2", "batch": 4, "prompt": 512, "output": 64, **one.arguments}
        changed = einscale.infer("llama3-8b", **options)
        assert changed.fits
        assert math.isclose(changed.tokens_per_second, one.result.tokens_per_second)
        assert changed.tokens_per_second > answer.tokens_per_second
        assert changed.devices == answer.devices


def test_one_part_is_shown_by_itself() -> None:
    for name, words in (
        ("time", "where the time goes"),
        ("moves", "every collective of a step"),
        ("explained", "how each number came about"),
        ("block", "block (x 80): one microbatch of 1 sequence"),
        ("timeline", "timeline of 4 stages and 32 microbatches, 1f1b"),
    ):
        title, empty, first, *_ = shown(PIPELINE, "--only", name, terminal=100, env={"NO_COLOR": "1"}).out.splitlines()
        assert title.startswith("llama3-70b: ")
        assert empty == ""
        assert words in first
    served = shown(SERVED, "--only", "block").out
    assert "block (x 80) in the prefill" in served
    assert "block (x 80) in a decode step" in served


def test_one_part_in_other_formats() -> None:
    table = shown(PIPELINE, "--only", "moves", "--format", "csv").out
    answer = einscale.train_step("llama3-70b", mesh="pipe=4,data=4,model=8", strategy="megatron-sp", zero=1, batch=128)
    assert table == render_csv(answer.to_report(detail=True), "moves")
    assert shown(PIPELINE, "--only", "memory", "--format", "md").out.count("\n| ") > 5


def test_the_statements_of_a_layer_add_up_to_its_passes() -> None:
    answer = einscale.train_step("llama3-8b", mesh="data=4,model=2", strategy="megatron-sp", batch=4)
    (table,) = answer.to_report(only="block").tables
    total = next(row for row in table.rows if row.role == "total")
    parts = [row.cells[6] for row in table.rows if row.role in ("", "collective")]
    update = [place for place, row in enumerate(table.rows) if row.role == "section"][-1]
    before = [row.cells[6] for row in table.rows[:update] if row.role in ("", "collective")]
    assert len(before) < len(parts)
    assert math.isclose(sum(before), total.cells[6])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mmory", "did you mean `memory`?"),
        ("zzz", "its parts are: step, time, stages"),
        ("timeline", "no part `timeline`"),
    ],
)
def test_an_unknown_part_is_refused(name: str, words: str) -> None:
    assert words in refused(shown(FITS, "--only", name))


def test_a_document_has_no_parts() -> None:
    assert "a JSON document has no parts" in refused(shown(FITS, "--only", "time", "--json"))
    assert "the answer has no part `zz`" in refused(shown(SERVED, "--only", "zz"))


def test_bars_survive_a_stream_without_their_signs() -> None:
    outcome = shown(FITS, terminal=100, encoding="ascii", env={"NO_COLOR": "1"})
    assert "# work   = exposed   : hidden   ~ waiting" in outcome.out
    assert re.search(r"parameters over data +\S+ s +\S+ % +=+:+", outcome.out)
    assert "\\u" not in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 100


def test_a_terminal_gets_colours() -> None:
    out = shown(FITS, terminal=100).out
    assert "\x1b[1;32mfits: " in out
    assert "\x1b[31m▓▓" in out
    assert "\x1b[1;31mdoes not fit: " in shown(TOO_BIG, terminal=100).out
    timeline = shown(PIPELINE, "--only", "timeline", terminal=100).out
    assert "\x1b[30;46m0" in timeline
    assert "\x1b[30;44m1" in timeline


def test_a_timeline_is_cut_to_the_terminal_and_says_so() -> None:
    narrow = shown(PIPELINE, "--only", "timeline", terminal=80, env={"NO_COLOR": "1"}).out.splitlines()
    whole = shown(PIPELINE, "--only", "timeline").out.splitlines()
    rows = [line for line in narrow if re.match(r"\d \|", line)]
    assert len(rows) == 4
    assert {len(row) for row in rows} == {80}
    assert any(line.startswith("drawn: the first ") for line in narrow)
    assert not any(line.startswith("drawn: ") for line in whole)
    assert all(one.startswith(row) for row, one in zip(rows, (line for line in whole if "|" in line), strict=True))
    assert "timeline of" in shown("train gpt2 --mesh pipe=2 --batch 4", "--detail").out
    assert "timeline of" not in shown(PIPELINE, "--detail").out, "it is too long to come unasked"


def test_blocks_go_side_by_side_where_there_is_room() -> None:
    left, right = Words((("left", ""),)), Words((("right", ""), ("below", "")))
    screen = Report((), (), screen=(Beside((left, right)),))
    assert render_text(screen, width=100) == "left\nright\nbelow\n"
    first, second = render_text(screen, width=160).splitlines()
    assert first.index("right") == second.index("below") == 82


@pytest.mark.parametrize(
    "line",
    [
        "layer llama3-8b --mesh data=2,model=4 --detail",
        "layer llama3-8b --mesh data=2,model=4 --only layers",
        "infer llama3-70b --mesh model=8 --detail",
        "train llama3-8b --mesh data=2,model=4 --only block",
        "compare llama3-8b megatron@model=4 dp@data=4 --for serve --detail",
    ],
)
def test_tables_are_not_broken_by_a_narrow_terminal(line: str) -> None:
    """A column that can be spared goes before a figure is broken."""
    narrow = run_command(line, terminal=80, env={"NO_COLOR": "1"}).out.splitlines()
    assert max(map(len, narrow)) <= 80
    wide = run_command(line, terminal=160, env={"NO_COLOR": "1"}).out.splitlines()
    assert len(narrow) >= len(wide)
