"""Devices and channels at work: one loop that plays events on numbers, or on many problems at once on arrays.

Max-plus: a task's start is the largest of what it waits for, its end is that and its seconds. On arrays every number
is a row of problems, and the same operations in the same order give the same floats.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from einscale.numeric import Number
    from einscale.schedule.compiled import CompiledOrder, Event


ROUNDING = 1e-12
"""Share of a period by which it may differ from the one before it and still be called its repetition.

However often it is then repeated, what comes out is off by no larger a share: what differs by some seconds at the
beginning of a period does so by no more at its end.
"""


class Scalars:
    """Arithmetic of one problem, on Python numbers of any kind."""

    size = 1

    @staticmethod
    def larger(one: Number, other: Number, out: Number) -> Number:
        """The larger of the two; `out` is where arrays put it."""
        return one if one >= other else other

    @staticmethod
    def plus(one: Number, other: Number, out: Number) -> Number:
        """The sum; `out` is where arrays put it."""
        return one + other

    @staticmethod
    def blank() -> Number:
        """A number that nobody has read."""
        return 0

    @staticmethod
    def copy(row: Number) -> Number:
        """A number that is not written over."""
        return row

    smaller: Callable[..., Number] = staticmethod(min)
    every: Callable[[Any], bool] = staticmethod(bool)
    some: Callable[[Any], bool] = staticmethod(bool)

    @staticmethod
    def where(condition: Any, yes: Any, no: Any) -> Any:
        """One or the other."""
        return yes if condition else no

    @staticmethod
    def rounding(seconds: Number) -> Number:
        """By how much two sums may differ and still be called one: floats are rounded, ints and fractions are not."""
        return ROUNDING * seconds if isinstance(seconds, float) else 0

    @staticmethod
    def pick(rows: Sequence[Number], index: int) -> Number:
        """Of several rows the one of an index."""
        return rows[index]


class Arrays:
    """Arithmetic of many problems: rows are numpy arrays, written over where nobody needs them any more."""

    def __init__(self, size: int) -> None:
        import numpy as np

        self.size = size
        self.larger, self.smaller, self.plus, self.where = np.maximum, np.minimum, np.add, np.where
        self.every, self.some = np.all, np.any
        self._stacked, self._places = np.stack, np.arange(size)
        self._zeros = np.zeros

    def blank(self) -> Number:
        """A new row."""
        return self._zeros(self.size)

    @staticmethod
    def copy(row: Number) -> Number:
        """A row that is not written over."""
        return row.copy()

    @staticmethod
    def rounding(seconds: Number) -> Number:
        """By how much two sums may differ and still be called one."""
        return ROUNDING * seconds

    def pick(self, rows: Sequence[Number], index: Any) -> Number:
        """Of several rows the one of an index, or of each problem's index."""
        if isinstance(index, int) or len(rows) == 1:
            return rows[index if isinstance(index, int) else 0]
        return self._stacked(rows)[index, self._places]


Arithmetic = Scalars | Arrays


class Machine:
    """The state of a pipeline between two events: when its devices are free, and what is on its way.

    Args:
        compiled: the order, of which the machine takes the number of devices and channels.
        arithmetic: of numbers or of rows.
        seconds: of each kind of task.
        send: seconds of one hop.
        blocking: the sender waits for its hop.
    """

    def __init__(
        self,
        compiled: CompiledOrder,
        arithmetic: Arithmetic,
        seconds: Sequence[Number],
        send: Number,
        blocking: bool,
    ) -> None:
        self.arithmetic = arithmetic
        self.seconds = list(seconds)
        self.send = send
        self.blocking = blocking
        self.clocks: list[Number] = [arithmetic.blank() for _ in compiled.order]
        self.ends: list[Number] = list(self.clocks)  # while a device sends it has ended its task, but is not free
        self.channels: list[deque[Number]] = [deque() for _ in range(compiled.channels)]
        self.spare: list[Number] = []

    def play(self, events: Iterable[Event], began: Callable[[Number], Any] | None = None) -> None:
        """Run events; `began` is told the start of each."""
        larger, plus, blank, copy = (
            self.arithmetic.larger,
            self.arithmetic.plus,
            self.arithmetic.blank,
            self.arithmetic.copy,
        )
        clocks, channels, seconds, send, spare = self.clocks, self.channels, self.seconds, self.send, self.spare
        for device, duration, pops, pushes in events:
            clock = clocks[device]
            for channel in pops:
                arrival = channels[channel].popleft()
                clock = larger(clock, arrival, out=clock)
                spare.append(arrival)
            if began is not None:
                began(clock)
            clock = plus(clock, seconds[duration], clock)
            for channel in pushes:
                channels[channel].append(plus(clock, send, spare.pop() if spare else blank()))
            if self.blocking:
                self.ends[device] = copy(clock)
                if pushes:
                    clock = plus(clock, send, clock)
            clocks[device] = clock

    def finished(self) -> list[Number]:
        """Per device, the end of its last task."""
        return self.ends if self.blocking else self.clocks

    def state(self) -> list[Number]:
        """When each device is free, and what is on its way: all that later events look back at."""
        return [*self.clocks, *(arrival for channel in self.channels for arrival in channel)]

    def snapshot(self) -> list[Number]:
        """The state, kept from being written over."""
        return [self.arithmetic.copy(row) for row in self.state()]

    def narrow(self, kept: Any) -> None:
        """Go on with some of the problems only."""
        self.restore([row[kept] for row in self.state()])
        part = once_each(lambda row: row[kept])
        self.seconds = [part(row) for row in self.seconds]
        self.send = part(self.send)
        self.arithmetic = Arrays(len(self.clocks[0]))

    def join(self, others: Sequence[Machine]) -> None:
        """Take in the problems of others, which are at the same event of the same order."""
        import numpy as np

        every = [self, *others]
        together: dict[int, Number] = {}

        def joined(rows: Sequence[Number]) -> Number:
            if not getattr(rows[0], "ndim", 0):
                return rows[0]
            if id(rows[0]) not in together:
                together[id(rows[0])] = np.concatenate(rows)
            return together[id(rows[0])]

        self.seconds = [joined(rows) for rows in zip(*(one.seconds for one in every), strict=True)]
        self.send = joined([one.send for one in every])
        self.restore([np.concatenate(rows) for rows in zip(*(one.state() for one in every), strict=True)])
        self.arithmetic = Arrays(len(self.clocks[0]))

    def restore(self, rows: Sequence[Number], lengths: Sequence[int] | None = None) -> None:
        """Take over a state, with so many values on their way in each channel, or with as many as there are now."""
        found = iter(rows)
        self.clocks = [next(found) for _ in self.clocks]
        self.ends = list(self.clocks)
        counts = lengths if lengths is not None else self.lengths()
        self.channels = [deque(next(found) for _ in range(count)) for count in counts]
        self.spare = []

    def lengths(self) -> list[int]:
        """How many values are on their way in each channel."""
        return [len(channel) for channel in self.channels]


def once_each(change: Callable[[Number], Number]) -> Callable[[Number], Number]:
    """A function that changes arrays, each once however often it comes, and leaves numbers as they are."""
    changed: dict[int, tuple[Number, Number]] = {}

    def once(row: Number) -> Number:
        if not getattr(row, "ndim", 0):
            return row
        if id(row) not in changed:  # which keeps the row, so that no other takes its place in memory
            changed[id(row)] = (row, change(row))
        return changed[id(row)][1]

    return once
