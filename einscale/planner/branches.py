"""Which digits, in which order, each index gets under given counts: the fine half of the search.

Digits are handed out place by place. A place that differs from what a tensor already has there costs that tensor
overlap (`digits.overlap`), so every partial placement has a lower bound, and branches that cannot beat the best plan
known are cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.planner.counts import Vector, floor_units
from einscale.reshard.moves import mask_of, size_of
from einscale.reshard.search import UNIT

if TYPE_CHECKING:
    from einscale.planner.placing import Placer

EVERY = 4
"""With no more atoms than this every order of every one is tried."""

Agreement = tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
"""Per tensor, the factor that mismatched places have cost its overlap, and the digits so identified."""


class Branches:
    """Depth-first search over the placements of one vector of counts.

    Args:
        placer: the search this is part of; finished placements go there.
        vector: shards per index, how many of them by slow digits, and the least cost of it.
    """

    __slots__ = (
        "_atoms",
        "_chosen",
        "_counts",
        "_every",
        "_far",
        "_floor",
        "_homes",
        "_measures",
        "_order",
        "_placer",
        "_slow",
        "_start",
        "_starts",
        "_used",
    )

    def __init__(self, placer: Placer, vector: Vector) -> None:
        """Collect, per index, the tensors it is in and what they have there."""
        question = placer.question
        floor, counts, far = vector
        self._far = far
        self._slow = placer.pricing.objective.crossing
        self._placer = placer
        self._counts = counts
        self._floor = floor
        self._used = placer.pricing.banned
        self._atoms = {atom[0]: atom for atom in placer.atoms if not mask_of(atom) & self._used}
        self._every = len(self._atoms) <= EVERY
        self._chosen: list[tuple[int, ...]] = [()] * len(counts)
        self._measures = [part.measures(counts) for part in placer.parts]
        self._homes: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in counts]
        weights = [0] * len(counts)
        for t, part in enumerate(placer.parts):
            for k, home in zip(part.labels, part.homes, strict=True):
                weights[k] += part.volume
                if home and not part.free:
                    self._homes[k].append((t, home))
        self._order = sorted(range(len(weights)), key=lambda k: (-weights[k], k))
        self._starts = {dim[stop:] for home in question.homes for dim in home for stop in range(len(dim))}
        self._start: Agreement = tuple((1, ()) for _ in placer.parts)

    def place(self, step: int, dim: tuple[int, ...], agreement: Agreement | None = None, rise: int = 0) -> None:
        """Extend the list of the current index by one digit, or go on to the next index, or price the placement.

        Args:
            step: how many indices are done.
            dim: the digits of the current index so far.
            agreement: what the places handed out cost each tensor's overlap.
            rise: by how much that lifts the floor.
        """
        placer, counts = self._placer, self._counts
        agreement = self._start if agreement is None else agreement
        radices = placer.question.radices
        while step < len(counts):
            k = self._order[step]
            left = counts[k] // size_of(dim, radices)
            if left > 1:
                break
            self._chosen[k] = dim
            step, dim = step + 1, ()
        if step == len(counts):
            placer.consider(tuple(self._chosen))
            return
        for atom in self._options(k, dim, left):
            placer.best.nodes += 1
            if not placer.allowed():
                return
            after, more, grown = agreement, rise, dim
            for digit in atom:
                after, extra = self._charge(k, grown, digit, after)
                more += extra
                grown = (*grown, digit)
            if (self._floor + more) * UNIT >= placer.best.cost:
                continue
            mask = mask_of(atom)
            self._used |= mask
            self.place(step, grown, after, more)
            self._used &= ~mask

    def _charge(self, k: int, dim: tuple[int, ...], digit: int, agreement: Agreement) -> tuple[Agreement, int]:
        """What putting a digit in the next place costs the tensors that have another digit there."""
        placer = self._placer
        radices, devices, objective = placer.question.radices, placer.question.devices, placer.pricing.objective
        place = len(dim)
        rise = 0
        after = agreement
        for t, home in self._homes[k]:
            if place >= len(home) or home[place] == digit or radices[home[place]] != radices[digit]:
                continue
            if any(radices[a] != radices[b] for a, b in zip(dim, home, strict=False)):
                continue  # the places do not line up: nothing is known
            factor, pairs = after[t]
            one, other = _root(pairs, digit), _root(pairs, home[place])
            if one == other:
                continue
            wanted, joint, due = self._measures[t]
            volume = placer.parts[t].volume
            new = factor * radices[digit]
            across = 0.0 if self._far is None else placer.parts[t].across(self._far)
            rise += objective.floor(volume, floor_units(devices, wanted, joint * new, due), across)
            rise -= objective.floor(volume, floor_units(devices, wanted, joint * factor, due), across)
            after = (*after[:t], (new, (*pairs, (other, one))), *after[t + 1 :])
        return after, rise

    def _options(self, k: int, dim: tuple[int, ...], left: int) -> list[tuple[int, ...]]:
        """Atoms worth trying in the next place of an index, those that some tensor has there first."""
        question = self._placer.question
        radices = question.radices
        place = len(dim)
        options = {home[place]: None for home in question.homes[k] if place < len(home)}
        if self._every:
            options.update(dict.fromkeys(self._atoms))
        else:
            if dim:
                options[dim[-1] + 1] = None
            for suffix in sorted(self._starts):
                if dim and suffix[0] == dim[-1] and len(suffix) > 1:
                    options[suffix[1]] = None
                if size_of(suffix, radices) == left:
                    options[suffix[0]] = None
            for axis in question.digits.whole.values():
                unused = [digit for digit in axis if not self._used >> digit & 1]
                if unused:
                    options[unused[0]] = None
                    options[_tail(unused, left, radices)] = None
        near, beyond = left, 1
        if self._far is not None:
            beyond = self._far[k] // size_of(tuple(d for d in dim if self._slow >> d & 1), radices)
            near = left // beyond
        result = []
        for digit in options:
            atom = self._atoms.get(digit)
            if atom is None or self._used >> digit & 1:
                continue
            if (beyond if self._far is not None and self._slow >> digit & 1 else near) % size_of(atom, radices) == 0:
                result.append(atom)
        return result


def _tail(unused: list[int], left: int, radices: tuple[int, ...]) -> int:
    """First digit of the trailing part of an axis that just fills `left`."""
    for digit in reversed(unused):
        left //= radices[digit]
        if left <= 1:
            return digit
    return unused[0]


def _root(pairs: tuple[tuple[int, int], ...], digit: int) -> int:
    for old, new in pairs:
        if old == digit:
            digit = new
    return digit
