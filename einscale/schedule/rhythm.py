"""The rhythm of a pipeline: once it repeats itself, the periods to come are added, not played.

A pipeline's state is when its devices are free and what is on its way. If all of it lies as much later than some
periods before, so will every state to come, as often as one likes. Problems fall into their rhythms sooner or later:
each is looked at when it would be alone, and leaves the others when it is through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from einscale.numeric import Number
    from einscale.schedule.compiled import Event
    from einscale.schedule.machine import Arithmetic, Machine


class Looks(Struct, frozen=True):
    """When a rhythm is looked for.

    Args:
        first: blocks played before the first look; every other look is after twice as many as the one before it.
        cycles: most blocks that a rhythm may take.
        limit: blocks after which the pace of the last ones is kept up.
        all: blocks that are all played.
    """

    first: int
    cycles: int
    limit: int
    all: int

    def wanted(self, played: int, blocks: Number) -> Any:
        """Whether pipelines of some blocks are looked at when so many are played: not where their end is near."""
        near = self.first // 2 if played < self.limit else 0
        return (blocks > self.all) & (played + near < blocks)


def play_blocks(machine: Machine, block: Sequence[Event], blocks: Number, looks: Looks) -> tuple[Machine, Any]:
    """The machine after all its blocks, and whether its state is exact.

    Args:
        machine: before its first block.
        block: events of one period.
        blocks: how often it is played: a number, or an array with one for each problem.
        looks: when to look for a rhythm.
    """
    players = _Players(machine, blocks)
    played = since = 0
    look = min(looks.first, looks.limit)
    while players.playing:
        players.machine.play(block)
        played += 1
        wanted = looks.wanted(look, players.blocks)
        looking = players.some(wanted)
        if looking and played >= look - looks.cycles:
            players.remember()
        ended = players.blocks == played
        if players.some(ended):
            players.leave(ended, players.machine.state())
        if played < look:
            continue
        if looking and players.playing:
            wanted = looks.wanted(look, players.blocks)
            players.leave(*players.rhythm(wanted, played))
        if look == looks.limit and players.playing:
            left = players.blocks - played
            pace = players.machine.clocks[0] / (played - since)
            players.leave(left > 0, [row + pace * left for row in players.machine.state()], exact=False)
        if looking and players.playing:
            players.rebase(looks.wanted(look, players.blocks))
        players.forget()
        look, since = min(2 * look, looks.limit), played
    return players.through()


class _Players:
    """The problems that are still played, and the states of those that are through."""

    def __init__(self, machine: Machine, blocks: Number) -> None:
        self.machine = machine
        self.blocks = blocks
        self.playing = True
        self._window: list[list[Number]] = []  # states after the last blocks, the latest last
        self._whole = (machine.arithmetic, machine.seconds, machine.send)
        self._rows: list[Number] = []
        self._exact: Any = True
        self._members: Any = None  # which problems are still played; None for all
        self._origin: Number = None  # what was taken off their clocks

    @property
    def arithmetic(self) -> Arithmetic:
        """Of the problems still played."""
        return self.machine.arithmetic

    def some(self, mask: Any) -> bool:
        """Whether any of the problems is meant."""
        return bool(self.arithmetic.some(mask))

    def remember(self) -> None:
        """Keep the state."""
        self._window.append(self.machine.snapshot())

    def forget(self) -> None:
        """Keep none of the states."""
        self._window = []

    def rhythm(self, wanted: Any, played: int) -> tuple[Any, list[Number]]:
        """Which of the problems wanted repeat a state remembered, and their states after all their blocks."""
        where, some, every = self.arithmetic.where, self.arithmetic.some, self.arithmetic.every
        latest = self._window[-1]
        rows = list(latest)
        found: Any = where(wanted, False, False)
        for cycle in range(1, len(self._window)):
            before = self._window[-1 - cycle]
            gap = latest[0] - before[0]
            rounding = self.arithmetic.rounding(gap)
            same = where(found, False, wanted)
            for now, then in zip(latest, before, strict=True):
                same = same & (abs(now - then - gap) <= rounding)
                if not some(same):
                    break
            else:
                periods, rest = divmod(self.blocks - played, cycle)
                reached = [
                    self.arithmetic.pick(states, rest) for states in zip(*self._window[-1 - cycle : -1], strict=True)
                ]
                lasting = (periods + 1) * gap
                rows = [where(same, row + lasting, kept) for row, kept in zip(reached, rows, strict=True)]
                found = where(same, True, found)
                if every(found):
                    break
        return found, rows

    def leave(self, through: Any, rows: Sequence[Number], exact: bool = True) -> None:
        """Some problems are through, with these states."""
        if not self.some(through):
            return
        if self._origin is not None:
            rows = [row + self._origin for row in rows]
        self.playing = not self.arithmetic.every(through)
        if self._members is None and not self.playing:
            self._rows, self._exact = list(rows), exact
            return
        self._put(through, rows, exact)
        if self.playing:
            self._keep(~through)

    def _put(self, through: Any, rows: Sequence[Number], exact: bool) -> None:
        import numpy as np

        whole = self._whole[0]
        if self._members is None:
            self._members = np.arange(whole.size)
            self._rows = [whole.blank() for _ in rows]
            self._exact = np.ones(whole.size, dtype=bool)
        chosen = through if self.playing else slice(None)
        for kept, row in zip(self._rows, rows, strict=True):
            kept[self._members[chosen]] = row[chosen]
        self._exact[self._members[chosen]] = exact

    def _keep(self, kept: Any) -> None:
        self.machine.narrow(kept)
        self._members = self._members[kept]
        self._window = [[row[kept] for row in rows] for rows in self._window]
        if self._origin is not None:
            self._origin = self._origin[kept]
        if not isinstance(self.blocks, int):
            self.blocks = self.blocks[kept]

    def rebase(self, wanted: Any) -> None:
        """Count the times of some from where their first device is: large clocks round what they add."""
        since = self.arithmetic.where(wanted, self.arithmetic.copy(self.machine.clocks[0]), 0)
        self.machine.restore([row - since for row in self.machine.state()])
        self._origin = since if self._origin is None else self._origin + since

    def through(self) -> tuple[Machine, Any]:
        """The machine with all problems, after all their blocks; and whether that is exact."""
        self.machine.arithmetic, self.machine.seconds, self.machine.send = self._whole
        self.machine.restore(self._rows)
        return self.machine, self._exact
