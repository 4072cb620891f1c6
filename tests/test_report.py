"""The table model and its renderers: same rows, several forms, nothing cut."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einscale.cli.output import Destination, show_report
from einscale.report.render.export import render_csv, render_json, render_markdown
from einscale.report.render.text import render_text, wrap
from einscale.report.table import KINDS, Column, Report, Row, Table, format_cell

COLUMNS = (
    Column("statement", "statement", wrap=True),
    Column("received_bytes", "received", "bytes"),
    Column("seconds", "time", "seconds"),
    Column("cause", "cause", detail=True),
)

REPORT = Report(
    heading=("a plan of two statements", "mesh x=4"),
    tables=(
        Table(
            "block",
            "block",
            COLUMNS,
            (
                Row(("forward", None, None, ""), 0, "section"),
                Row(("q = einsum(x, wq)", None, 1.5e-3, ""), 1),
                Row(
                    ("all-gather wq over x", 3 * 2**20, 2e-5, "because d | of wq is divided over `x`"), 2, "collective"
                ),
                Row(("attention", 3 * 2**20, 1.52e-3, ""), 0, "subtotal"),
                Row(("layer", 3 * 2**20, 1.52e-3, ""), 0, "total"),
            ),
        ),
    ),
    summary=("fits: 3 of 80 GiB",),
    conventions=("1 FLOP is half a multiply-add",),
)

PLAIN = """\
a plan of two statements
mesh x=4

block
statement                 received     time
───────────────────────────────────────────
forward
  q = einsum(x, wq)                  1.5 ms
    all-gather wq over x     3 MiB    20 µs
        because d | of wq is divided over `x`
attention                    3 MiB  1.52 ms
───────────────────────────────────────────
layer                        3 MiB  1.52 ms

fits: 3 of 80 GiB

1 FLOP is half a multiply-add
"""

NARROW = """\
a plan of two statements
mesh x=4

block
statement          received     time
────────────────────────────────────
forward
  q = einsum(x,               1.5 ms
    wq)
    all-gather wq     3 MiB    20 µs
      over x
        because d | of wq is divided
          over `x`
attention             3 MiB  1.52 ms
────────────────────────────────────
layer                 3 MiB  1.52 ms

fits: 3 of 80 GiB

1 FLOP is half a multiply-add
"""


def test_plain_text() -> None:
    assert render_text(REPORT) == PLAIN


def test_narrow_text_wraps_what_may_wrap() -> None:
    assert render_text(REPORT, width=36) == NARROW


def test_si_units() -> None:
    assert "3.15 MB" in render_text(REPORT, units="si")


def test_markdown() -> None:
    text = render_markdown(REPORT)
    assert text.splitlines()[0] == "## a plan of two statements"
    assert "| statement | received | time | cause |" in text
    assert "|---|---:|---:|---|" in text
    assert "| **attention** | **3 MiB** | **1.52 ms** |  |" in text
    assert r"because d \| of wq is divided over `x`" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert text.endswith("- 1 FLOP is half a multiply-add\n")


def test_csv_has_exact_values_and_says_which_rows_are_sums() -> None:
    rows = list(csv.DictReader(io.StringIO(render_csv(REPORT))))
    assert [row["role"] for row in rows] == ["", "collective", "subtotal", "total"]
    assert [row["section"] for row in rows] == ["forward", "forward", "forward", ""]
    collective = rows[1]
    assert collective["table"] == "block"
    assert collective["level"] == "2"
    assert int(collective["received_bytes"]) == 3 * 2**20
    assert float(collective["seconds"]) == 2e-5
    assert collective["cause"] == "because d | of wq is divided over `x`"
    assert rows[0]["received_bytes"] == ""


def test_json_ints_are_exact_and_nan_is_refused() -> None:
    assert str(7**60) in render_json({"flops": 7**60})
    with pytest.raises(ValueError):
        render_json({"seconds": float("nan")})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(monkeypatch: pytest.MonkeyPatch, color: str = "auto", **env: str) -> str:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", "COLUMNS": "100", **env}.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    show_report(Destination(color=color), REPORT)
    return stream.getvalue()


def test_a_terminal_gets_styles_and_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch)
    assert "\x1b[33m" in text
    assert re.sub(r"\x1b\[[\d;]*m", "", text) == PLAIN


def test_the_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[33m" in printed(monkeypatch, "always", NO_COLOR="1")
    assert printed(monkeypatch, "never", FORCE_COLOR="1") == PLAIN
    assert printed(monkeypatch, NO_COLOR="1", FORCE_COLOR="1") == PLAIN


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_escape_codes_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    assert printed(monkeypatch, **env) == PLAIN


def test_a_narrow_terminal_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, NO_COLOR="1", COLUMNS="40").splitlines()
    assert max(map(len, lines)) <= 40


@given(st.text(st.sampled_from("ab cdef"), max_size=200), st.integers(10, 40), st.integers(0, 4))
def test_wrapping_keeps_every_word_and_the_width(text: str, width: int, hanging: int) -> None:
    lines = wrap(text, width, 0, hanging)
    assert "".join("".join(lines).split()) == "".join(text.split())
    if any(len(word) + hanging > width for word in text.split()) or text != text.lstrip():
        return
    assert all(len(line) <= width for line in lines)


@given(st.integers(10, 200))
def test_no_width_loses_a_letter(width: int) -> None:
    letters = sorted("".join(PLAIN.replace("─", "").split()))
    assert sorted("".join(render_text(REPORT, width=width).replace("─", "").split())) == letters


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_writes_zero_and_nothing(kind: str) -> None:
    assert format_cell(None, kind) == ""
    zero = format_cell(0 if kind != "text" else "0", kind)
    if kind == "flag":
        assert zero == "no"
    else:
        assert zero == "" if kind.startswith("+") or kind == "mark" else zero.startswith("0")
