"""The rhythm of a pipeline: once it repeats itself, the periods to come are added, not played.

A pipeline's state is when its devices are free and what is on its way. If all of it lies as much later than some
periods before, so will every state to come, as often as one likes. Problems fall into their rhythms sooner or later:
each is looked at when it would be alone, and leaves the others when it is through. The few that are left of many go on
together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from einscale.numeric import Number
    from einscale.schedule.compiled import Event
    from einscale.schedule.machine import Machine


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


class Through:
    """States of problems after all their blocks.

    Args:
        count: of problems on arrays; None for a single one in numbers.
    """

    def __init__(self, count: int | None = None) -> None:
        self.rows: list[Number] = []
        self.exact: Any = True
        self._count = count

    def put(self, members: Any, rows: Sequence[Number], exact: bool) -> None:
        """States of some of the problems."""
        if self._count is None:
            self.rows, self.exact = list(rows), exact
            return
        if not self.rows:
            import numpy as np

            self.rows = [np.empty(self._count) for _ in rows]
            self.exact = np.ones(self._count, dtype=bool)
        for whole, row in zip(self.rows, rows, strict=True):
            whole[members] = row
        self.exact[members] = exact


class Players:
    """Problems that are played together.

    Args:
        machine: their states; before the first block.
        blocks: how often each plays the block: a number, or an array.
        members: which problems they are; None for a single one in numbers.
        through: where those are put that have played all their blocks.
    """

    def __init__(self, machine: Machine, blocks: Number, members: Any, through: Through) -> None:
        self.machine = machine
        self.blocks = blocks
        self.members = members
        self.playing = True
        self._through = through
        self._origin: Number = None  # what was taken off their clocks
        self._window: list[list[Number]] = []  # states after the last blocks, the latest last

    def play(self, block: Sequence[Event], since: int, look: int, looks: Looks) -> None:
        """Play up to the next look, and leave out those of which it shows the end."""
        looking = self._some(looks.wanted(look, self.blocks))
        for played in range(since + 1, look + 1):
            self.machine.play(block)
            if looking and played >= look - looks.cycles:
                self._window.append(self.machine.snapshot())
            ended = self.blocks == played
            if self._some(ended):
                self._leave(ended, self.machine.state())
                if not self.playing:
                    return
        if looking:
            self._leave(*self._rhythm(looks.wanted(look, self.blocks), look))
        if look == looks.limit and self.playing:
            left = self.blocks - look
            pace = self.machine.clocks[0] / (look - since)
            self._leave(left > 0, [row + pace * left for row in self.machine.state()], exact=False)
        if looking and self.playing:
            self._rebase(looks.wanted(look, self.blocks))
        self._window = []

    def join(self, others: Sequence[Players]) -> None:
        """Take in others at the same block of the same pipeline."""
        import numpy as np

        every = [self, *others]
        blocks = [np.broadcast_to(one.blocks, len(one.members)) for one in every]
        origins = [one.machine.arithmetic.blank() if one._origin is None else one._origin for one in every]
        self.blocks, self._origin = np.concatenate(blocks), np.concatenate(origins)
        self.members = np.concatenate([one.members for one in every])
        self.machine.join([one.machine for one in others])

    def _some(self, mask: Any) -> bool:
        return bool(self.machine.arithmetic.some(mask))

    def _rhythm(self, wanted: Any, played: int) -> tuple[Any, list[Number]]:
        """Which of the problems wanted repeat a state of the last blocks, and their states after all of them."""
        arithmetic = self.machine.arithmetic
        where = arithmetic.where
        latest = self._window[-1]
        rows = list(latest)
        found: Any = where(wanted, False, False)
        for cycle in range(1, len(self._window)):
            before = self._window[-1 - cycle]
            gap = latest[0] - before[0]
            rounding = arithmetic.rounding(gap)
            same = where(found, False, wanted)
            for now, then in zip(latest, before, strict=True):
                same = same & (abs(now - then - gap) <= rounding)
                if not arithmetic.some(same):
                    break
            else:
                periods, rest = divmod(self.blocks - played, cycle)
                lasting = (periods + 1) * gap
                for place, states in enumerate(zip(*self._window[-1 - cycle : -1], strict=True)):
                    rows[place] = where(same, arithmetic.pick(states, rest) + lasting, rows[place])
                found = where(same, True, found)
                if arithmetic.every(found):
                    break
        return found, rows

    def _leave(self, ended: Any, rows: Sequence[Number], exact: bool = True) -> None:
        """Some problems are through, with these states."""
        if not self._some(ended):
            return
        if self._origin is not None:
            rows = [row + self._origin for row in rows]
        self.playing = not self.machine.arithmetic.every(ended)
        if not self.playing:
            self._through.put(self.members, rows, exact)
            return
        self._through.put(self.members[ended], [row[ended] for row in rows], exact)
        kept = ~ended
        self.machine.narrow(kept)
        self.members = self.members[kept]
        self._window = [[row[kept] for row in rows] for rows in self._window]
        if self._origin is not None:
            self._origin = self._origin[kept]
        if not isinstance(self.blocks, int):
            self.blocks = self.blocks[kept]

    def _rebase(self, wanted: Any) -> None:
        """Count the times of some from where their first device is: large clocks round what they add."""
        since = self.machine.arithmetic.where(wanted, self.machine.clocks[0], 0)
        self.machine.restore([row - since for row in self.machine.state()])
        self._origin = since if self._origin is None else self._origin + since


def play_blocks(players: Sequence[Players], block: Sequence[Event], looks: Looks, width: int) -> None:
    """Play all blocks of all players.

    Args:
        players: at their first block.
        block: events of one period.
        looks: when to look for a rhythm.
        width: of how many problems players may become when they are joined.
    """
    since, look = 0, looks.first
    while players:
        for one in players:
            one.play(block, since, look, looks)
        players = _joined([one for one in players if one.playing], width)
        since, look = look, min(2 * look, looks.limit)


def _joined(players: Sequence[Players], width: int) -> list[Players]:
    """The same problems with fewer players, none of more than so many."""
    groups: list[list[Players]] = []
    size = width
    for one in players:
        arriving = one.machine.arithmetic.size
        if size + arriving > width:
            groups.append([])
            size = 0
        groups[-1].append(one)
        size += arriving
    for first, *others in groups:
        if others:
            first.join(others)
    return [group[0] for group in groups]
