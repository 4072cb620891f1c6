"""The timeline of a pipeline in plain text: a row a stage, a column a moment, cut where a terminal ends."""

from __future__ import annotations

from itertools import groupby

from msgspec import Struct

from einscale.report.render.text import paragraph
from einscale.report.table import Line
from einscale.schedule import LEGEND, Timeline, painted, symbol
from einscale.schedule.tasks import F, Task
from einscale.units import format_seconds

LONGEST = 10_000
"""Columns of a row at most, where nothing limits a line."""

ENOUGH = 160
"""Columns that a row is stretched to at most, where nothing limits a line."""


class TimelineBlock(Struct, frozen=True):
    """A timeline; a block of a screen.

    A column is a whole part of the shortest forward pass. Where a terminal has no room for all of it, its beginning is
    drawn, and what is left out is said.

    Args:
        timeline: that knows its tasks.
        title: heading.
    """

    timeline: Timeline
    title: str

    def lines(self, width: int | None, units: str) -> list[Line]:
        """As a block of a screen draws itself."""
        timeline = self.timeline
        margin = len(str(len(timeline.order) - 1)) + 2
        room = (LONGEST if width is None else max(width, margin + 8)) - margin
        scale = _columns_a_second(timeline, min(room, ENOUGH))
        rows = painted(timeline, scale)
        whole = max(map(len, rows), default=0)
        found = paragraph(self.title, width, "title")
        for device, row in enumerate(rows):
            found.append(((f"{device:>{margin - 2}} |", "note"), *_pieces(row[:room])))
        found += paragraph(LEGEND, width, "note")
        found += paragraph(f"a column is {format_seconds(1 / scale)}", width, "note") if scale else []
        return [*found, *paragraph(_left_out(timeline, scale, room), width, "note")] if whole > room else found


def _pieces(row: list[Task | None]) -> list[tuple[str, str]]:
    """Runs of columns of one style."""
    return [("".join(map(symbol, tasks)), style) for style, tasks in groupby(row, _style)]


def _style(task: Task | None) -> str:
    return "note" if task is None else f"task-{task.kind}{task.microbatch % 2}"


def _columns_a_second(timeline: Timeline, wanted: int) -> float:
    """As many whole columns for the shortest forward pass as let the timeline have those wanted, one at least."""
    forward = [
        (end - start) / (2 if task.overlapped else 1)
        for tasks, starts, ends in zip(timeline.order, timeline.starts, timeline.ends, strict=True)
        for task, start, end in zip(tasks, starts, ends, strict=True)
        if task.kind == F and end > start
    ]
    if not forward or not timeline.makespan:
        return 0.0
    shortest = min(forward)
    return max(1, int(wanted * shortest // timeline.makespan)) / shortest


def _left_out(timeline: Timeline, scale: float, room: int) -> str:
    """What there was no room for."""
    end = room / scale
    later = {
        task.microbatch
        for tasks, starts in zip(timeline.order, timeline.starts, strict=True)
        for task, start in zip(tasks, starts, strict=True)
        if start >= end
    }
    of = len({task.microbatch for tasks in timeline.order for task in tasks})
    drawn = f"drawn: the first {format_seconds(end)} of {format_seconds(timeline.makespan)}"
    return f"{drawn}; left out are tasks of {len(later)} of {of} microbatches, a wider terminal or a file shows them"
