"""The contract of answers: what every one of them has, is, prints, and how it compares."""

from __future__ import annotations

import html.parser
import json
from collections.abc import Callable
from typing import Any

import pytest

import einscale
from einscale.api.answer import LONGEST, Answer, Shown, one_line
from einscale.report.render.export import csv_tables, render_csv
from einscale.report.render.html import render_html, table_bars
from einscale.report.table import Column, Picture, Report, Row, Table

SIZES = {"B": 64, "D": 128, "F": 256}

ASKED: dict[str, Callable[[], Any]] = {
    "plan": lambda: einscale.plan("B/x D, D/x F -> B/x F", mesh="x=4", sizes=SIZES),
    "collective": lambda: einscale.collective("all-reduce", "1GiB", mesh="data=8,model=8", axes="model"),
    "train": lambda: einscale.train_step("gpt2", mesh="pipe=2,data=2", batch=16, price_per_hour=2.0),
    "refused": lambda: einscale.train_step("llama3-70b", mesh="data=2", strategy="fsdp", batch=2),
    "layer": lambda: einscale.layer("gpt2", mesh="data=2,model=2", strategy="megatron-sp", sequence=256),
    "compare": lambda: einscale.compare("gpt2", ["dp", "fsdp"], mesh="data=2", sequence=256),
    "prefill": lambda: einscale.prefill("gpt2", mesh="model=2", prompt=256),
    "decode": lambda: einscale.decode("gpt2", mesh="model=2", context=256, output=4),
    "infer": lambda: einscale.infer("gpt2", mesh="model=2", prompt=256, output=16),
    "shard": lambda: einscale.shard("B/x F/y", mesh="x=2,y=2", sizes={"B": 5, "F": 6}),
}
OTHER: dict[str, Callable[[], Any]] = {
    "plan": lambda: einscale.plan("B/x D, D/x F -> B/x F", mesh="x=4", sizes=SIZES | {"B": 128}),
    "train": lambda: einscale.train_step("gpt2", mesh="pipe=2,data=2", batch=32, price_per_hour=2.0),
    "layer": lambda: einscale.layer("gpt2", mesh="data=2,model=2", strategy="megatron", sequence=256),
    "compare": lambda: einscale.compare("gpt2", ["fsdp", "dp"], mesh="data=2", sequence=256),
    "infer": lambda: einscale.infer("gpt2", mesh="model=2", prompt=256, output=17),
    "shard": lambda: einscale.shard("B/x F/y", mesh="x=2,y=2", sizes={"B": 5, "F": 8}),
}


@pytest.fixture(scope="module", params=ASKED)
def asked(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, ASKED[request.param]()


def plain(value: object) -> bool:
    """Whether a value is one of those that data frames take, and exactly of that type."""
    return value is None or type(value) in (str, int, float, bool)


def test_every_answer_has_the_same_names(asked: tuple[str, Any]) -> None:
    _, answer = asked
    assert isinstance(answer, Answer)
    assert isinstance(answer.seconds, float) and answer.seconds >= 0
    assert answer.memory is not None and type(answer.memory.needed) is int and answer.memory.needed > 0
    assert answer.report() == answer.to_text() == f"{answer}\n"
    assert answer.report(units="si", width=80, detail=True) == answer.to_text(units="si", width=80, detail=True)
    assert json.loads(json.dumps(answer.to_dict(), allow_nan=False))["schema_version"] == 1
    assert not hasattr(answer, "__dict__")


@pytest.mark.parametrize("name", ["train", "prefill", "decode", "infer"])
def test_one_part_of_an_answer_is_a_report_too(name: str) -> None:
    answer = ASKED[name]()
    assert answer.report(only="memory") == answer.to_text(only="memory") != answer.report()
    with pytest.raises(einscale.UsageError, match="no"):
        answer.report(only="nothing of the kind")


def test_figures_are_one_flat_row(asked: tuple[str, Any]) -> None:
    name, answer = asked
    assert all(plain(value) for value in answer.figures.values())
    assert answer.figures.get("seconds", 0.0) == answer.seconds
    assert answer.figures["memory_bytes"] == answer.memory.needed
    assert answer.figures.get("fits") == (name != "refused" if hasattr(answer, "fits") else None)


def test_tables_are_flat_rows_of_one_schema_and_those_of_csv(asked: tuple[str, Any]) -> None:
    _, answer = asked
    report = answer.to_report(detail=True)
    assert list(answer.tables) == list(csv_tables(report))
    assert answer.table == next(iter(answer.tables.values()))
    for name, rows in answer.tables.items():
        assert rows and len({tuple(row) for row in rows}) == 1
        assert all(plain(value) for row in rows for value in row.values()), name
        header = render_csv(report, name).splitlines()[0]
        assert header == ",".join(rows[0])
        assert header == header.lower()


def test_whether_it_fits_is_a_truth_value() -> None:
    step = ASKED["refused"]()
    assert step.table[0]["fits"] is False and ASKED["infer"]().table[0]["fits"] is True
    assert render_csv(step.to_report()).splitlines()[1].endswith(",false")
    main = next(iter(csv_tables(step.to_report()).values()))[0]
    column = next(column for column in main.columns if column.key == "fits")
    assert (column.text(False), column.text(True), column.text(None)) == ("no", "yes", "")


def test_rows_do_not_wait_for_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(report: object) -> None:
        raise AssertionError("advice was worked out")

    step = ASKED["refused"]()
    monkeypatch.setattr("einscale.training.run.advise", never)
    assert step.table and "does not fit" in step._repr_html_()
    with pytest.raises(AssertionError, match="advice"):
        step.report()


def test_one_line_says_what_was_asked_and_what_the_answer_is(asked: tuple[str, Any]) -> None:
    _, answer = asked
    line = repr(answer)
    assert line.startswith(f"<{type(answer).__name__} ") and line.endswith(">")
    assert "\n" not in line and len(line) <= LONGEST
    assert answer.headline[1] in line


def test_a_long_question_is_cut_before_the_answer() -> None:
    spec = ", ".join(f"operand_{letter}: bf16[{letter}/x]" for letter in "abcdefg")
    answer = einscale.plan(f"{spec} -> a/x", mesh="x=2", sizes=dict.fromkeys("abcdefg", 4))
    assert len(repr(answer)) == LONGEST and repr(answer).endswith(f"…: {answer.headline[1]}>")
    assert one_line("Name", "a\nb", "c") == "<Name a b: c>"
    assert len(one_line("Name", "a", "c" * 500)) == LONGEST


def test_answers_to_the_same_question_are_equal_and_hash_alike(asked: tuple[str, Any]) -> None:
    name, answer = asked
    again = ASKED[name]()
    assert answer == again and hash(answer) == hash(again)
    assert {answer: 1}[again] == 1
    if name in OTHER:
        assert answer != OTHER[name]()
        assert len({answer, again, OTHER[name]()}) == 2


class Tags(html.parser.HTMLParser):
    """Tags that are open, all that were, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_notebooks_show_a_verdict_bars_and_the_main_table(asked: tuple[str, Any]) -> None:
    name, answer = asked
    tags = Tags(answer._repr_html_())
    assert tags.open == []
    assert {tag for tag, _ in tags.seen} <= {"div", "table", "tr", "td", "th", "pre", "span"}
    assert all(set(attributes) == {"style"} for tag, attributes in tags.seen if tag not in ("tr", "td", "th"))
    styles = " ".join(attributes.get("style") or "" for _, attributes in tags.seen)
    assert "url" not in styles and "color:#" not in styles
    assert answer.headline[1] in tags.text
    assert ("width:100.0%" in styles or "height:.8em" in styles) == (name != "shard")
    main = next(iter(csv_tables(answer.to_report(detail=True)).values()))[0]
    assert all(column.title in tags.text for column in main.columns if not column.detail)


def test_bars_add_up_to_the_whole() -> None:
    step = ASKED["train"]()
    tables = {table.name: table for table in step.to_report(detail=True).tables}
    ((_, time),) = table_bars(tables["time"])
    assert sum(bar.share for bar in time) == pytest.approx(1)
    ((_, held),) = table_bars(tables["memory"])
    needed = step.memory.needed / step.figures["capacity_bytes"]
    assert sum(bar.share for bar in held) == pytest.approx(needed)
    plan = {table.name: table for table in ASKED["plan"]().to_report(detail=True).tables}
    assert [sum(bar.share for _, group in table_bars(plan[name]) for bar in group) for name in plan] == pytest.approx(
        [1, 1]
    )
    both = table_bars(next(t for t in ASKED["infer"]().to_report().tables if t.name == "time"))
    assert [sum(bar.share for bar in group) for _, group in both] == pytest.approx([1, 1])


def test_many_bars_are_few_and_nothing_is_lost() -> None:
    rows = tuple(Row((f"part {number}", float(number), number / 210)) for number in range(21))
    columns = (Column("part", "part"), Column("seconds", "time", "seconds"), Column("share", "share", "share"))
    ((title, bars),) = table_bars(Table("time", "where", columns, rows))
    assert title == "where" and bars[-1].label == "8 others" and bars[0].label == "part 20"
    assert sum(bar.share for bar in bars) == pytest.approx(1)


def test_everything_is_escaped() -> None:
    evil = "<script>&\"'"
    columns = (Column(evil, evil), Column("seconds", evil, "seconds"))
    table = Table("time", evil, columns, (Row((evil, 1.0)), Row((evil, 2.0), 0, "total")))
    picture = Picture(evil, (((evil, "cell3"), (evil, "")),))
    text = render_html(Report((evil, evil), (table,), (evil,), (), (picture,)), evil, ("time",))
    tags = Tags(text)
    assert "<script" not in text and tags.open == []
    assert tags.text.count("<script>&\"'") == 14


def test_long_tables_say_how_many_rows_are_left() -> None:
    table = Table("rows", "", (Column("row", "row", "integer"),), tuple(Row((number,)) for number in range(50)))
    assert "and 10 more rows" in render_html(Report((), (table,)), "fine")


def test_what_an_answer_must_define() -> None:
    class Nothing(Answer, frozen=True):
        pass

    for ask in (lambda one: one.to_report(), lambda one: one.to_dict(), lambda one: one.headline):
        with pytest.raises(NotImplementedError):
            ask(Nothing())
    for name in ("seconds", "memory", "figures"):
        with pytest.raises(NotImplementedError):
            getattr(Nothing(), name)
    results = [getattr(einscale, name) for name in dir(einscale) if name.endswith("Result")]
    shown = [one for one in (*results, einscale.PriceColumns, einscale.Conversion) if issubclass(one, Shown)]
    assert len(shown) >= 9
    for one in shown:
        names = ("to_report", "to_dict", "headline")
        names += ("figures", "seconds", "memory") if issubclass(one, Answer) else ()
        own = [vars(base) for base in one.__mro__ if base.__name__ not in {"Shown", "Answer", "Parted"}]
        assert all(any(name in defined for defined in own) for name in names), one
        assert not {"report", "to_text", "__str__", "__repr__", "_repr_html_", "tables"} & set(vars(one)), one


def test_what_the_text_of_a_shard_and_of_a_layout_says() -> None:
    unknown = einscale.shard("B/x F/y", mesh="x=2,y=2")
    assert unknown.memory is None and hash(unknown) == hash(einscale.shard("B/x F/y", mesh="x=2,y=2"))
    assert ASKED["shard"]().memory.parts == (("tensor", 3 * 3 * 2),)
    found = einscale.convert("P('x', None)", mesh="x=2")
    assert repr(found) == "<Conversion \"P('x', None)\": i/x j, read as jax>"
    assert found.report() == f"{found}\n" and Tags(found._repr_html_()).open == []


def test_memory_of_a_collective_is_what_a_plan_of_it_holds() -> None:
    plan = einscale.plan("T: a/x -> a", mesh="x=4", sizes={"a": 1024}, dtype="bf16")
    alone = einscale.collective("all-gather", 2048, mesh="x=4")
    assert plan.memory.operands + plan.memory.result == alone.memory.needed == 2048 + 512


def test_a_proof_says_at_which_sizes_and_for_which() -> None:
    asked = einscale.plan("B/x D, D/x F -> B/x F", mesh="x=4", sizes={"B": 1000, "D": 4096, "F": 64}, verify=True)
    assert asked.proof is not None and asked.proof.shrunk
    assert dict(asked.proof.asked) == {"B": 1000, "D": 4096, "F": 64} and asked.proof.asked_mesh == asked.mesh
    assert all(size < dict(asked.proof.asked)[index] for index, size in asked.proof.sizes)
    ran = " ".join(f"{index}={size}" for index, size in asked.proof.sizes)
    assert f"at {ran}, which divide as B=1000 D=4096 F=64 do: " in asked.report()
    document = asked.to_dict()["verification"]
    assert document["sizes"] == dict(asked.proof.sizes) and document["shrunk"] is True
    small = einscale.plan("B/x D -> B D", mesh="x=2", sizes={"B": 2, "D": 2}, verify=True).proof
    assert small is not None and small.sizes == small.asked and not small.shrunk
    assert "which divide as" not in str(small) and "at B=2 D=2: " in str(small)
    large = einscale.plan("B/x D -> B D", mesh="x=512", sizes={"B": 1024, "D": 2}, verify=True).proof
    assert large is not None and large.mesh != large.asked_mesh
    assert "which divide as mesh x=512, " in str(large)
    assert einscale.plan("B/x D -> B D", mesh="x=2", sizes={"B": 2, "D": 2}).proof is None


def test_pandas_reads_the_rows(asked: tuple[str, Any]) -> None:
    pandas = pytest.importorskip("pandas")
    for name, rows in asked[1].tables.items():
        frame = pandas.DataFrame(rows)
        assert list(frame.columns) == list(rows[0]) and len(frame) == len(rows), name
