"""Blocks of a screen beside bars: paragraphs, numbered items, tables, blocks side by side; and parts of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

from msgspec import Struct

from einscale.errors import UsageError, did_you_mean
from einscale.report.render.text import paragraph, table_lines
from einscale.report.table import Block, Line, Report, Table

WIDE = 140
"""Columns of a terminal from which on two blocks go side by side."""

BETWEEN = 4
"""Columns between them."""


class Words(Struct, frozen=True):
    """Paragraphs under a title.

    Args:
        texts: the paragraphs, each with its style.
        title: heading, "" for none.
        indent: columns that they stand in by.
        hanging: further columns of every line but the first.
    """

    texts: tuple[tuple[str, str], ...]
    title: str = ""
    indent: int = 0
    hanging: int = 2

    def lines(self, width: int | None, units: str) -> list[Line]:
        """As a block of a screen draws itself."""
        found: list[Line] = paragraph(self.title, width, "title")
        for text, style in self.texts:
            found += paragraph(" " * self.indent + text, width, style, self.hanging)
        return found


class Items(Struct, frozen=True):
    """Numbered items, what each is and a sentence about it below.

    Args:
        title: heading.
        items: what, and why.
    """

    title: str
    items: tuple[tuple[str, str], ...]

    def lines(self, width: int | None, units: str) -> list[Line]:
        """As a block of a screen draws itself."""
        found = paragraph(self.title, width, "title")
        for number, (what, why) in enumerate(self.items, 1):
            found += paragraph(f"{number}. {what}", width, "", 3)
            found += paragraph(f"   {why}", width, "detail", 0) if why else []
        return found


class TableBlock(Struct, frozen=True):
    """A table as a block.

    Args:
        table: the table.
    """

    table: Table

    def lines(self, width: int | None, units: str) -> list[Line]:
        """As a block of a screen draws itself."""
        return table_lines(self.table, width=width, units=units)


class Beside(Struct, frozen=True):
    """Blocks two by two, side by side on a wide terminal, else one below the other.

    Args:
        blocks: in order.
    """

    blocks: tuple[Block, ...]

    def lines(self, width: int | None, units: str) -> list[Line]:
        """As a block of a screen draws itself."""
        if width is None or width < WIDE:
            return [line for block in self.blocks for line in block.lines(width, units)]
        half = (width - BETWEEN) // 2
        found: list[Line] = []
        for start in range(0, len(self.blocks), 2):
            columns = [block.lines(half, units) for block in self.blocks[start : start + 2]]
            pairs = zip_longest(*columns, *[()] * (2 - len(columns)), fillvalue=())
            found += [(), *(_joined(left, right, half + BETWEEN) for left, right in pairs)]
        return found[1:]


def _joined(left: Line, right: Line, start: int) -> Line:
    """Two lines in one, the second from a column on."""
    length = sum(len(text) for text, _ in left)
    return (*left, (" " * (start - length), ""), *right) if right else left


def verdict_block(heading: Sequence[str], verdicts: Iterable[tuple[str, str]]) -> Words:
    """A title, the verdict, and what was asked.

    Args:
        heading: title, then how it was asked.
        verdicts: lines of the verdict, each with its style.
    """
    asked = ((text, "note") for text in heading[1:])
    return Words(((heading[0], "title"), *verdicts, *asked))


def full_screen(
    verdict: Block, tables: Iterable[Table], drawn: Sequence[Block], conventions: Iterable[str]
) -> tuple[Block, ...]:
    """The blocks of a report in full: the verdict, every table, what is drawn, and how to read the numbers.

    Args:
        verdict: from `verdict_block`.
        tables: in order.
        drawn: blocks that are no tables.
        conventions: one line each.
    """
    return (verdict, *map(TableBlock, tables), *drawn, Words(tuple((text, "note") for text in conventions)))


def closing(notes: tuple[str, ...], names: Sequence[str]) -> Words:
    """The last lines of a screen: what was decided where nothing was given, how to read it, what else there is.

    Args:
        notes: of the answer.
        names: of parts that one would ask for by themselves.
    """
    read = "times are modelled, not measured; figures are of one device unless they say otherwise"
    more = f"--detail: all tables; --explain: formulas; --only NAME: {', '.join(names)}, ..."
    return Words((("; ".join((*notes, read)), "note"), (more, "note")))


def part(
    report: Report,
    name: str,
    groups: Mapping[str, tuple[Table, ...]] | None = None,
    drawn: Mapping[str, Block] | None = None,
) -> Report:
    """One part of a report by itself, under the first line of its heading.

    Args:
        report: with its tables.
        name: of a table, of a kind of tables, of a group or of a block.
        groups: tables that have a name together.
        drawn: blocks that are no tables, by name.

    Raises:
        UsageError: there is no such part.
    """
    groups, drawn = groups or {}, drawn or {}
    tables = groups.get(name) or tuple(table for table in report.tables if name in (table.name, table.kind))
    if name not in drawn and not tables:
        grouped = {table.name for tables in groups.values() for table in tables}
        names = [table.name for table in report.tables if table.name not in grouped]
        hint = did_you_mean(name, (*names, *groups, *drawn), "its parts are")
        raise UsageError(f"the answer has no part `{name}`", hint=hint)
    blocks = (drawn[name],) if name in drawn else tuple(TableBlock(table) for table in tables)
    return Report(report.heading[:1], tables, screen=(Words(((report.heading[0], "title"),)), *blocks))
