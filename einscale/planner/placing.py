"""Which digits, in which order, each index gets: the fine half of the search.

For given counts, digits are handed out place by place. A place that differs from what a tensor already has there costs
that tensor overlap (`digits.overlap`), so every partial placement has a lower bound, and branches that cannot beat the
best plan known are cut.
"""

from __future__ import annotations

from itertools import permutations

from einscale.planner.counts import Counts, Floors, floor_units, ordered_vectors
from einscale.planner.pricing import NEVER, Pricing
from einscale.planner.question import Placement, Question, union
from einscale.reshard.moves import mask_of, size_of
from einscale.reshard.search import UNIT

EVERY = 4
"""With no more digits than this every order of every digit is tried."""

NODES = 4000
"""Most partial placements one plan looks at."""

WORK = 1500
"""Most layouts that the reshard searches of one plan look at before no further placement is priced."""


class Best:
    """The cheapest placement found, and whether the search ended by itself."""

    __slots__ = ("cost", "exact", "placement", "pricing")

    def __init__(self) -> None:
        """Nothing yet."""
        self.cost = NEVER
        self.exact = True
        self.placement: Placement = ()
        self.pricing: Pricing | None = None


class Placer:
    """The search for the placement of one question, with given digits kept unreduced.

    Args:
        question: what is planned.
        kept: per operand, digits of its sum that stay owed through the einsum; no index may use them.
        needed: parts the iteration space must be divided into, or more.
        best: the cheapest so far, over all choices of `kept`.
        avoid: placements that do not count.
    """

    __slots__ = ("_homes", "_nodes", "_order", "_starts", "avoid", "banned", "best", "kept", "needed", "pricing", "question")

    def __init__(
        self, question: Question, kept: tuple[int, ...], needed: int, best: Best, avoid: frozenset[Placement] = frozenset()
    ) -> None:
        """Collect, per index, the tensors it is in and what they have there."""
        self.question = question
        self.kept = kept
        self.banned = union(kept)
        self.needed = needed
        self.best = best
        self.avoid = avoid
        self.pricing = Pricing(question, kept)
        self._nodes = 0
        weights = [0] * len(question.names)
        self._homes: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in question.names]
        for t, operand in enumerate(question.operands):
            for k, dim in zip(operand.labels, operand.source[0], strict=True):
                self._homes[k].append((t, dim))
                weights[k] += operand.volume
        for k, wanted in zip(question.out_labels, question.target, strict=True):
            if wanted is not None and not question.open:
                self._homes[k].append((len(question.operands), wanted))
            weights[k] += question.out_volume
        self._order = sorted(range(len(weights)), key=lambda k: (-weights[k], k))
        self._starts = sorted({dim[stop:] for home in question.homes for dim in home for stop in range(len(dim))})

    def run(self) -> None:
        """Improve on the best placement until none can be cheaper, or the work allowed is done."""
        self._seed()
        for floor, counts in ordered_vectors(self.question, self.kept, self.needed, self.best.cost // UNIT + 1):
            if floor * UNIT >= self.best.cost:
                break
            if self._nodes > NODES or self.pricing.work > WORK:
                self.best.exact = False
                break
            self._explore(counts)
        self.best.exact = self.best.exact and self.pricing.exact

    def consider(self, placement: Placement) -> None:
        """Price a placement exactly and keep it if it is the cheapest."""
        if placement in self.avoid:
            return
        cost = self.pricing.cost(placement, self.best.cost)
        if cost < self.best.cost:
            self.best.cost = cost
            self.best.placement = placement
            self.best.pricing = self.pricing

    # ---- first guesses

    def _seed(self) -> None:
        """Placements that follow one tensor's layout, then the others' where they still fit."""
        question = self.question
        lists: list[list[tuple[int, tuple[int, ...]]]] = [
            list(zip(operand.labels, operand.source[0], strict=True)) for operand in question.operands
        ]
        lists.append([(k, dim) for k, dim in zip(question.out_labels, question.target, strict=True) if dim is not None])
        floors = Floors(question, self.kept)
        seen = set()
        for order in permutations(range(len(lists))) if len(lists) <= 3 else (tuple(range(len(lists))),):
            chosen: list[tuple[int, ...]] = [()] * len(question.names)
            used = self.banned
            for t in order:
                for k, dim in lists[t]:
                    fit = self._fit(chosen[k], dim, used, k)
                    used |= mask_of(fit)
                    chosen[k] = fit
            placement = self._filled(chosen, used, floors)
            if placement is not None and placement not in seen:
                seen.add(placement)
                self.consider(placement)

    def _fit(self, have: tuple[int, ...], dim: tuple[int, ...], used: int, k: int) -> tuple[int, ...]:
        """`have`, continued as `dim` goes on, as far as its digits are unused and fit the index."""
        if dim[: len(have)] != have:
            return have
        for digit in dim[len(have) :]:
            count = size_of(have, self.question.radices) * self.question.radices[digit]
            if used >> digit & 1 or self.question.rooms[k] % count:
                break
            have = (*have, digit)
        return have

    def _filled(self, chosen: list[tuple[int, ...]], used: int, floors: Floors) -> Placement | None:
        """Hand out idle digits where they cost least until the work is divided enough; None if that cannot be."""
        question = self.question
        counts = [size_of(dim, question.radices) for dim in chosen]
        total = 1
        for count in counts:
            total *= count
        for digit, radix in enumerate(question.radices):
            if total >= self.needed:
                break
            if used >> digit & 1:
                continue
            options = []
            for k, room in enumerate(question.rooms):
                if room % (counts[k] * radix) == 0:
                    grown = (*counts[:k], counts[k] * radix, *counts[k + 1 :])
                    options.append((floors.total(grown), k))
            if options:
                k = min(options)[1]
                counts[k] *= radix
                chosen[k] = (*chosen[k], digit)
                total *= radix
        return tuple(chosen) if total >= self.needed else None

    # ---- every placement of given counts

    def _explore(self, counts: Counts) -> None:
        question = self.question
        free = [d for d in range(len(question.radices)) if not self.banned >> d & 1]
        search = _Branches(self, counts, len(free) <= EVERY)
        search.place(0, (), search.start, search.floor)

    def spend(self) -> bool:
        """Count one partial placement; False when there have been too many."""
        self._nodes += 1
        if self._nodes > NODES or self.pricing.work > WORK:
            self.best.exact = False
            return False
        return True


class _Branches:
    """Depth-first search over the placements of one vector of counts."""

    __slots__ = ("_chosen", "_counts", "_every", "_merged", "_parts", "_placer", "_used", "floor", "start")

    def __init__(self, placer: Placer, counts: Counts, every: bool) -> None:
        question = placer.question
        self._placer = placer
        self._counts = counts
        self._every = every
        self._chosen: list[tuple[int, ...]] = [()] * len(counts)
        self._used = placer.banned
        floors = Floors(question, placer.kept)
        self._parts: list[tuple[int, int, int, int]] = []
        for operand, kept in zip(question.operands, placer.kept, strict=True):
            wanted = joint = 1
            for k, dim in zip(operand.labels, operand.source[0], strict=True):
                wanted *= counts[k]
                joint *= max(counts[k], size_of(dim, question.radices))
            due = operand.source[1] & ~kept
            self._parts.append((operand.volume, wanted, joint, _size_of_mask(due, question.radices)))
        if not question.open:
            wanted = joint = 1
            due = _size_of_mask(placer.banned, question.radices)
            for k in question.contracted:
                due *= counts[k]
            for k, goal in zip(question.out_labels, question.target, strict=True):
                size = size_of(goal or (), question.radices)
                wanted *= size
                joint *= max(counts[k], size)
            self._parts.append((question.out_volume if not question.owes else 0, wanted, joint, due))
        self.floor = floors.total(counts)
        self.start = tuple((1, ()) for _ in self._parts)
        self._merged: dict[tuple[int, int], int] = {}

    def place(
        self,
        step: int,
        dim: tuple[int, ...],
        agreement: tuple[tuple[int, tuple[tuple[int, int], ...]], ...],
        floor: int,
    ) -> None:
        """Extend the list of the current index by one digit, or go on to the next index, or price the placement.

        `agreement` has, per tensor, the factor that mismatched places have cost it and the digits so identified.
        """
        placer = self._placer
        question = placer.question
        while step < len(self._counts):
            k = placer._order[step]
            left = self._counts[k] // size_of(dim, question.radices)
            if left > 1:
                break
            self._chosen[k] = dim
            step, dim = step + 1, ()
        if step == len(self._counts):
            placer.consider(tuple(self._chosen))
            return
        for digit in self._options(k, dim, left):
            if not placer.spend():
                return
            after, rise = self._charge(k, len(dim), digit, dim, agreement)
            if (floor + rise) * UNIT >= placer.best.cost:
                continue
            self._used |= 1 << digit
            self.place(step, (*dim, digit), after, floor + rise)
            self._used &= ~(1 << digit)

    def _charge(
        self,
        k: int,
        place: int,
        digit: int,
        dim: tuple[int, ...],
        agreement: tuple[tuple[int, tuple[tuple[int, int], ...]], ...],
    ) -> tuple[tuple[tuple[int, tuple[tuple[int, int], ...]], ...], int]:
        """What putting a digit in a place costs the tensors that have another digit there."""
        radices = self._placer.question.radices
        rise = 0
        after = agreement
        for t, home in self._placer._homes[k]:
            if place >= len(home) or home[place] == digit or t >= len(self._parts):
                continue
            if radices[home[place]] != radices[digit] or any(
                radices[a] != radices[b] for a, b in zip(dim, home, strict=False)
            ):
                continue
            factor, pairs = after[t]
            one, other = _root(pairs, digit), _root(pairs, home[place])
            if one == other:
                continue
            volume, wanted, joint, due = self._parts[t]
            devices = self._placer.question.devices
            new = factor * radices[digit]
            rise += volume * (
                floor_units(devices, wanted, joint * new, due) - floor_units(devices, wanted, joint * factor, due)
            )
            after = (*after[:t], (new, (*pairs, (other, one))), *after[t + 1 :])
        return after, rise

    def _options(self, k: int, dim: tuple[int, ...], left: int) -> list[int]:
        """Digits worth trying in the next place of an index, those that some tensor has there first."""
        placer = self._placer
        question = placer.question
        radices, digits = question.radices, question.digits
        place = len(dim)
        options: dict[int, None] = {}
        for _, home in placer._homes[k]:
            if place < len(home):
                options[home[place]] = None
        if self._every:
            options.update(dict.fromkeys(range(len(radices))))
        else:
            if dim:
                last = dim[-1]
                options[last + 1] = None
                for suffix in placer._starts:
                    if suffix[0] == last and len(suffix) > 1:
                        options[suffix[1]] = None
            for suffix in placer._starts:
                if size_of(suffix, radices) == left:
                    options[suffix[0]] = None
            for axis in digits.whole.values():
                unused = [digit for digit in axis if not self._used >> digit & 1]
                if unused:
                    options[unused[0]] = None
                    options[_tail(unused, left, radices)] = None
        return [
            digit
            for digit in options
            if digit < len(radices) and not self._used >> digit & 1 and left % radices[digit] == 0
        ]


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


def _size_of_mask(mask: int, radices: tuple[int, ...]) -> int:
    result = 1
    for digit, radix in enumerate(radices):
        if mask >> digit & 1:
            result *= radix
    return result
