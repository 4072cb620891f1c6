"""A timeline as text: a row a device, a column a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.errors import ScheduleError

if TYPE_CHECKING:
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
    if not timeline.order:
        raise ScheduleError("this timeline was extended from fewer microbatches and does not know its tasks")
    margin = len(str(len(timeline.order) - 1)) + 2
    columns = width - margin
    if columns < 8:
        raise ScheduleError(f"{width} columns are too few for a timeline", expected=f"at least {margin + 8}")
    scale = _scale(timeline, columns)
    length = round(timeline.makespan * scale)
    lines = []
    for device, tasks in enumerate(timeline.order):
        row = ["."] * length
        for position, task in enumerate(tasks):
            start, end = timeline.starts[device][position], timeline.ends[device][position]
            if task.overlapped:
                end = (start + end) / 2
            elif position and tasks[position - 1].overlapped:
                start = (start + end) / 2
            first, last = round(start * scale), round(end * scale)
            row[first:last] = SYMBOLS[task.kind][task.microbatch % 10] * (last - first)
        lines.append(f"{device:>{margin - 2}} |{''.join(row)}")
    return "\n".join([*lines, LEGEND])


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
