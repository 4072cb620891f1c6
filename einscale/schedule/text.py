"""A timeline as text: a row a device, a column a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.errors import ScheduleError

if TYPE_CHECKING:
    from einscale.schedule.tasks import Task
    from einscale.schedule.timeline import Timeline

LEGEND = "0-9 forward, a-j backward of microbatch 0-9 (last digit); + gradients of weights; . idle"
"""What the characters of `timeline_text` mean."""

SYMBOLS = {"F": "0123456789", "B": "abcdefghij", "W": "+" * 10}


def timeline_text(timeline: Timeline, width: int = 100) -> str:
    """Rows of at most `width` characters, one a device, and a line that says what they mean.

    The shortest task is a whole number of columns wide if there is room. In a block the forward pass has the first
    half, the backward pass the second.

    >>> from einscale.schedule.orders import order
    >>> from einscale.schedule.timeline import simulate
    >>> print(timeline_text(simulate(order("1f1b", 3, 4), 1, 2), width=24))
    0 |012....aa3bb.cc.dd
    1 |.01..aa2bb3cc.dd..
    2 |..0aa1bb2cc3dd....
    0-9 forward, a-j backward of microbatch 0-9 (last digit); + gradients of weights; . idle

    Raises:
        ScheduleError: the timeline does not know its tasks, or there is no room for it.
    """
    _check_order(timeline)
    margin = len(str(len(timeline.order) - 1)) + 2
    columns = width - margin
    if columns < 8:
        raise ScheduleError(f"{width} columns are too few for a timeline", expected=f"at least {margin + 8}")
    rows = painted(timeline, _scale(timeline, columns))
    lines = [f"{device:>{margin - 2}} |{''.join(map(symbol, row))}" for device, row in enumerate(rows)]
    return "\n".join([*lines, LEGEND])


def painted(timeline: Timeline, scale: float) -> list[list[Task | None]]:
    """For every device the task of each column, None where it is idle.

    Args:
        timeline: that knows its tasks.
        scale: columns a second.

    Raises:
        ScheduleError: the timeline does not know its tasks.
    """
    _check_order(timeline)
    rows: list[list[Task | None]] = []
    for tasks, starts, ends in zip(timeline.order, timeline.starts, timeline.ends, strict=True):
        row: list[Task | None] = [None] * round(timeline.makespan * scale)
        for position, task in enumerate(tasks):
            start, end = starts[position], ends[position]
            if task.overlapped:
                end = (start + end) / 2
            elif position and tasks[position - 1].overlapped:
                start = (start + end) / 2
            first, last = round(start * scale), round(end * scale)
            row[first:last] = [task] * (last - first)
        rows.append(row)
    return rows


def symbol(task: Task | None) -> str:
    """The sign of a task, as `LEGEND` says it."""
    return "." if task is None else SYMBOLS[task.kind][task.microbatch % 10]


def _check_order(timeline: Timeline) -> None:
    if not timeline.order:
        raise ScheduleError("this timeline was extended from fewer microbatches and does not know its tasks")


def _scale(timeline: Timeline, columns: int) -> float:
    """Columns a second: a whole number of columns for the shortest task if there is room."""
    shortest = min(
        (
            (end - start) / (2 if task.overlapped else 1)
            for tasks, starts, ends in zip(timeline.order, timeline.starts, timeline.ends, strict=True)
            for task, start, end in zip(tasks, starts, ends, strict=True)
            if end > start
        ),
        default=0,
    )
    if not shortest:
        return 0
    whole = columns * shortest // timeline.makespan
    return whole / shortest if whole else columns / timeline.makespan
