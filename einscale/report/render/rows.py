"""Many answers as rows: what was varied, and the main figures of each, the best first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from einscale.errors import EinscaleError
from einscale.report.table import Cell, CellKind, Column, Report, Row, Table

SHOWN = 20
"""Rows that are shown without `detail`."""

MORE_IS_BETTER = ("per_second", "per_second_per_device", "per_second_per_user", "mfu", "hfu", "exact", "fits")
"""Ends of the keys of figures of which more is better; of all others less is."""

_KINDS: tuple[tuple[str, CellKind], ...] = (
    ("seconds", "seconds"),
    ("seconds_per_token", "seconds"),
    ("bytes", "bytes"),
    ("flops", "flops"),
    ("per_second", "si"),
    ("mfu", "share"),
    ("hfu", "share"),
)
"""How figures are written, by the ends of their keys."""


def more_is_better(key: str) -> bool:
    """Whether more of a figure is better.

    >>> more_is_better("tokens_per_second"), more_is_better("memory_bytes")
    (True, False)
    """
    return key.endswith(MORE_IS_BETTER)


def plain(value: object) -> Cell:
    """A value as a cell: numbers and words as they are, other values by their name or as text.

    >>> plain(("data", "model")), plain({"data": 8}), plain(None), plain(0.5)
    ('data,model', 'data=8', None, 0.5)
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return ",".join(f"{name}={plain(one)}" for name, one in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(str(plain(one)) for one in value)
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return plain(item())
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else str(value)


def answer_rows(
    points: Iterable[Mapping[str, Any]], figures: Iterable[Mapping[str, Any]], errors: Iterable[EinscaleError | None]
) -> list[dict[str, Cell]]:
    """Rows with the same keys: arguments, then figures, then why it was refused; None where a row has none.

    >>> answer_rows([{"a": 1}, {"b": (1, 2)}], [{"seconds": 0.5}, {}], [None, None])[1]
    {'a': None, 'b': '1,2', 'seconds': None, 'error': None}
    """
    asked, found = list(points), list(figures)
    keys = dict.fromkeys([key for point in asked for key in point] + [key for row in found for key in row])
    return [
        {key: plain(point.get(key, row.get(key))) for key in keys} | {"error": None if error is None else error.message}
        for point, row, error in zip(asked, found, errors, strict=True)
    ]


def varied(points: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Argument -> whether it differs between points.

    >>> varied([{"batch": 8, "mesh": "x=2"}, {"batch": 8, "mesh": "x=4"}])
    {'batch': False, 'mesh': True}
    """
    listed = list(points)
    names = dict.fromkeys(name for point in listed for name in point)
    return {name: len({repr(point.get(name)) for point in listed}) > 1 for name in names}


def rows_report(
    heading: str, points: Iterable[Mapping[str, Any]], rows: list[dict[str, Cell]], *, detail: bool = False
) -> Report:
    """Rows as a table, the fastest first; what is the same in all of them is said once.

    Args:
        heading: what was asked.
        points: the arguments of each row.
        rows: of one schema, from `answer_rows`.
        detail: all of them, not the first `SHOWN`.
    """
    given = list(points)
    differs = varied(given)
    same = [f"{name} {plain(given[0][name])}" for name, several in differs.items() if not several]
    order = sorted(range(len(rows)), key=lambda number: _rank(rows[number], number))
    shown = order if detail else order[:SHOWN]
    keys = [
        key for key in (rows[0] if rows else ()) if differs.get(key, True) and any(row[key] is not None for row in rows)
    ]
    columns = (Column("row", "row", "integer"), *(_column(key, [row[key] for row in rows]) for key in keys))
    table = Table("rows", "", columns, tuple(Row((number, *(rows[number][key] for key in keys))) for number in shown))
    left = len(rows) - len(shown)
    common = ("; ".join(same),) if same else ()
    return Report((heading, *common), (table,), (f"and {left} more rows",) if left else ())


def _rank(row: Mapping[str, Cell], number: int) -> tuple[bool, bool, float, int]:
    """Place of a row: what fits first, then what has a time, then by it."""
    seconds = row.get("seconds")
    known = isinstance(seconds, int | float)
    return row.get("fits") is False, not known, float(seconds) if isinstance(seconds, int | float) else 0.0, number


def _column(key: str, values: list[Cell]) -> Column:
    """The column of a key: written as its unit says, or as its values are."""
    kind = next((kind for end, kind in _KINDS if key.endswith(end)), None)
    title = key.replace("_", " ").replace(" per second", "/s").removesuffix(" bytes")
    title = {"seconds": "time"}.get(title, title.removesuffix(" seconds"))
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known):
        return Column(key, title, wrap=True)
    if all(isinstance(value, bool) for value in known):
        return Column(key, title, "flag")
    return Column(key, title, kind or ("integer" if all(isinstance(value, int) for value in known) else "si"))
