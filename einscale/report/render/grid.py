"""Grids of cells drawn with lines: what is too much for a screen is left out in the middle, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct

Line: TypeAlias = tuple[tuple[str, str], ...]

WIDEST = 78
"""Columns that a grid takes at most, so that 80 are enough for it."""

MOST_ROWS = 16
GAP = "…"


class Cell(Struct, frozen=True):
    """One cell: what stands in it, and its colour: the same number is the same colour, -1 is none."""

    text: str
    color: int = -1


def draw_grid(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]], *, ruled: bool = True
) -> tuple[Line, ...]:
    """A grid with a label before each row and above each column.

    >>> lines = draw_grid(["B 0:2", "B 2:4"], ["F 0:3"], [[Cell("0", 0)], [Cell("1", 1)]])
    >>> for line in lines:
    ...     print("".join(text for text, _ in line))
            F 0:3
          ┌───────┐
    B 0:2 │   0   │
          ├───────┤
    B 2:4 │   1   │
          └───────┘

    Args:
        rows: their labels, "" for none.
        columns: their labels.
        cells: of each row.
        ruled: a line between every two rows.
    """
    down = _kept(len(rows), MOST_ROWS)
    margin = max(map(len, rows), default=0) + (1 if any(rows) else 0)
    width = max((len(text) for text in (*columns, *(cell.text for row in cells for cell in row))), default=1)
    across = _kept(len(columns), max(2, (WIDEST - margin - 1) // (width + 3)))
    blank = " " * margin
    lines: list[Line] = []
    if any(columns):
        heads = "".join(f"  {_label(columns, number):^{width}}" + " " for number in across)
        lines.append((((blank + heads).rstrip(), "header"),))
    lines.append(((blank + _rule("┌┬┐", width, len(across)), "rule"),))
    for place, number in enumerate(down):
        if place and ruled:
            lines.append(((blank + _rule("├┼┤", width, len(across)), "rule"),))
        label = _label(rows, number)
        pieces = [(f"{label:<{margin}}", "header"), ("│", "rule")]
        for column in across:
            cell = Cell(GAP) if number is None or column is None else cells[number][column]
            pieces += [(f" {cell.text:^{width}} ", f"cell{cell.color}" if cell.color >= 0 else ""), ("│", "rule")]
        lines.append(tuple(pieces))
    lines.append(((blank + _rule("└┴┘", width, len(across)), "rule"),))
    left_out = [
        f"{count - len(kept) + 1} of {count} {what}"
        for count, kept, what in ((len(rows), down, "rows"), (len(columns), across, "columns"))
        if None in kept
    ]
    if left_out:
        lines.append(((f"{blank}{GAP}: {' and '.join(left_out)} are not drawn", "note"),))
    return tuple(lines)


def _kept(count: int, most: int) -> list[int | None]:
    """Numbers that are drawn; None stands for those left out before the last."""
    return list(range(count)) if count <= most else [*range(most - 2), None, count - 1]


def _label(labels: Sequence[str], number: int | None) -> str:
    return GAP if number is None else labels[number]


def _rule(corners: str, width: int, cells: int) -> str:
    return corners[0] + corners[1].join("─" * (width + 2) for _ in range(cells)) + corners[2]
