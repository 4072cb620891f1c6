"""What every answer can do: be read, printed, taken as rows or as a document, shown in a notebook, compared, hashed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from einscale.report.table import Cell, Report

Figure: TypeAlias = str | int | float | bool | None
"""A number in base units, or a word."""

LONGEST = 120
"""Characters of the line that stands for an answer."""


class NeedsMemory(Protocol):
    """What a device holds at most: a value of its own for every kind of answer, with its parts by name."""

    @property
    def needed(self) -> int:
        """Bytes of all parts."""


class DeviceMemory(Struct, frozen=True):
    """What a device holds at most, where that is a plain sum.

    >>> DeviceMemory((("before", 4), ("after", 8))).needed
    12

    Args:
        parts: name and bytes of each.
    """

    parts: tuple[tuple[str, int], ...]

    @property
    def needed(self) -> int:
        """Bytes of all parts."""
        return sum(size for _, size in self.parts)


class Shown(Struct, frozen=True):
    """Abstract: what can be printed, written as a document, and shown in a notebook.

    A class that inherits defines `to_report`, `to_dict` and `headline`; everything else follows from them.
    """

    BARS: ClassVar[tuple[str, ...]] = ()
    """Names, or kinds, of the tables that a notebook shows as bars: where time goes, what memory holds."""

    def to_report(
        self, *, detail: bool = False, explain: bool = False, advice: bool = True, units: str = "iec"
    ) -> Report:
        """The answer as tables, pictures and lines, which `einscale.report` renders.

        Args:
            detail: also what the short report leaves out.
            explain: also how each number came about, its formula with the operands filled in.
            advice: also what would fit, where this does not; it is worked out first.
            units: `iec` or `si`, for sentences; cells are written by the renderer.
        """
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved."""
        raise NotImplementedError

    @property
    def headline(self) -> tuple[str, str]:
        """What was asked, and the answer, each in few words."""
        raise NotImplementedError

    def report(
        self, *, detail: bool = False, explain: bool = False, width: int | None = None, units: str = "iec"
    ) -> str:
        """The answer as text: the same as `to_text`.

        Args:
            detail: also what the short report leaves out.
            explain: also how each number came about, its formula with the operands filled in.
            width: columns to wrap at; None does not wrap.
            units: `iec` or `si`.
        """
        return self.to_text(detail=detail, explain=explain, width=width, units=units)

    def to_text(
        self, *, detail: bool = False, explain: bool = False, width: int | None = None, units: str = "iec"
    ) -> str:
        """The answer as text, as the command line prints it.

        Args:
            detail: also what the short report leaves out.
            explain: also how each number came about, its formula with the operands filled in.
            width: columns to wrap at; None does not wrap.
            units: `iec` or `si`.
        """
        from einscale.report.render.text import render_text

        return render_text(self.to_report(detail=detail, explain=explain, units=units), width=width, units=units)

    def __str__(self) -> str:
        return self.to_text().rstrip("\n")

    def __repr__(self) -> str:
        return one_line(type(self).__name__, *self.headline)

    def _repr_html_(self) -> str:
        from einscale.report.render.html import render_html

        return render_html(self.to_report(detail=True, advice=False), self.headline[1], self.BARS)


class Answer(Shown, frozen=True):
    """Abstract: the answer to one question.

    A class that inherits defines, beside what `Shown` wants, `seconds`, `memory` and `figures`. The value that was
    priced is an attribute named for what it is, and never `report`, which is the text: `step` of a training step,
    `prefill`, `decode`, `request` of requests, `layers`, `comparison`, `priced` of a plan, `alone` of a collective,
    `placement` of a tensor.

    Two answers to the same question are equal and hash alike, so that they can be keys and members of sets.
    """

    @property
    def seconds(self) -> float:
        """Modelled time of what was asked."""
        raise NotImplementedError

    @property
    def memory(self) -> NeedsMemory | None:
        """What a device holds at most: `memory.needed` bytes; None where a size is not known."""
        raise NotImplementedError

    @property
    def figures(self) -> dict[str, Figure]:
        """The main figures as one flat row, units in its keys: what a sweep shows of each answer."""
        raise NotImplementedError

    @property
    def table(self) -> list[dict[str, Cell]]:
        """The rows of the main table as flat dicts, for pandas or polars: exact values in base units, as in CSV.

        `table`, `section`, `role` and `level` say where a row stands; `role` is "" for all but sums and collectives.
        """
        from einscale.report.render.export import table_rows

        return table_rows(self.to_report(detail=True, advice=False))

    @property
    def tables(self) -> dict[str, list[dict[str, Cell]]]:
        """The rows of every table, by the names that CSV has for them; what would fit, if this does not, among them."""
        from einscale.report.render.export import csv_tables, table_rows

        report = self.to_report(detail=True)
        return {name: table_rows(report, name) for name in csv_tables(report)}

    def __hash__(self) -> int:
        needed = None if self.memory is None else self.memory.needed
        return hash((type(self), self.headline, self.seconds, needed))


class Parted(Answer, frozen=True):
    """Abstract: an answer that is shown on one screen, and whose parts can be shown by themselves."""

    def to_report(
        self,
        *,
        detail: bool = False,
        explain: bool = False,
        advice: bool = True,
        units: str = "iec",
        only: str | None = None,
    ) -> Report:
        """The answer on one screen, or in all its tables, or one part of it; other arguments as for `Shown.to_report`.

        Args:
            detail: all tables.
            explain: also how each number came about, its formula with the operands filled in.
            advice: also what to change, priced; it is worked out first.
            units: `iec` or `si`, for sentences; cells are written by the renderer.
            only: name of the one part that is wanted: of a table, or of a kind of layer.

        Raises:
            UsageError: the answer has no such part.
        """
        raise NotImplementedError

    def to_text(
        self,
        *,
        detail: bool = False,
        explain: bool = False,
        width: int | None = None,
        units: str = "iec",
        only: str | None = None,
    ) -> str:
        """The answer as text, as the command line prints it; arguments as for `to_report`, and `width` to wrap at."""
        from einscale.report.render.text import render_text

        report = self.to_report(detail=detail, explain=explain, units=units, only=only)
        return render_text(report, width=width, units=units)

    def report(
        self,
        *,
        detail: bool = False,
        explain: bool = False,
        width: int | None = None,
        units: str = "iec",
        only: str | None = None,
    ) -> str:
        """The answer as text: the same as `to_text`."""
        return self.to_text(detail=detail, explain=explain, width=width, units=units, only=only)


def one_line(name: str, subject: str, figures: str) -> str:
    """An answer on one line of `LONGEST` characters at most; the question is cut before the answer.

    >>> one_line("PlanResult", "'B/x D -> B D'", "1 µs")
    "<PlanResult 'B/x D -> B D': 1 µs>"
    >>> line = one_line("PlanResult", "a" * 200, "1 µs")
    >>> len(line), line[-10:]
    (120, 'aa…: 1 µs>')
    """
    subject, figures = " ".join(subject.split()), " ".join(figures.split())
    room = LONGEST - len(f"<{name} : {figures}>")
    if len(subject) > room:
        subject = f"{subject[: max(0, room - 1)]}…"
    line = f"<{name} {subject}: {figures}>"
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 2]}…>"
