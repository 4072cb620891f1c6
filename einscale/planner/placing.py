"""The search for a placement: first guesses, then count vectors in the order of their bounds, each searched in full."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

from einscale.planner.branches import Branches
from einscale.planner.counts import (
    Atoms,
    Counts,
    Vector,
    coarse_atoms,
    few_vectors,
    ordered_vectors,
    parts_of,
    single_digits,
)
from einscale.planner.objective import Objective
from einscale.planner.pricing import Pricing
from einscale.planner.question import Placement, Question
from einscale.reshard.moves import mask_of, size_of
from einscale.reshard.search import NEVER, UNIT

ATOMS = 5
"""Most runs of digits that the first search hands out, unless the given layouts cut the axes into more."""


Divisions = tuple[tuple[tuple[str, int], ...], ...]
"""Per index, which mesh axes divide it and how far, in no order."""

Guess = Callable[[], Placement | None]
"""Where else to start, asked only if it matters."""

GAP = 1.22
"""A best plan no more than this times the least bound leaves little to be gained."""

SEEDS = 3
"""So many first placements are priced whatever that takes."""

MANY = 0.25
"""Share of the work allowed up to which there are so many choices of sums to keep that one placement is enough."""

FIRST = 0.15
"""Share of the work allowed after which a search by bytes turns to whole axes."""

FEW_SHARE = 0.8
"""Share of the work allowed up to which a search by time hands out single digits, if few vectors of counts are left."""


def divisions(placement: Placement, question: Question) -> Divisions:
    """What a placement divides over what, without the order of axes and which of their parts."""
    digits = question.digits
    result = []
    for dim in placement:
        sizes: dict[str, int] = {}
        for digit in dim:
            sizes[digits.axes[digit]] = sizes.get(digits.axes[digit], 1) * digits.radices[digit]
        result.append(tuple(sorted(sizes.items())))
    return tuple(result)


class BestPlacing:
    """The cheapest placement found, and whether the search ended by itself.

    `allowance` is the share of the objective's bounds on work that may be spent; `nodes` and `work` are what was spent
    of it, and `aside` what guesses took beside it.
    """

    __slots__ = ("allowance", "aside", "cost", "exact", "nodes", "placement", "points", "pricing", "work")

    def __init__(self, allowance: float = 1.0) -> None:
        """Nothing yet."""
        self.allowance = allowance
        self.cost = NEVER
        self.exact = True
        self.placement: Placement = ()
        self.points = 0
        self.pricing: Pricing | None = None
        self.nodes = 0
        self.work = 0
        self.aside = 0


class Placer:
    """The search for the placement of one question, with given sums kept unreduced.

    Args:
        question: what is planned.
        kept: per operand, digits of its sum that stay owed through the einsum; no index may use them.
        needed: parts the iteration space must be divided into, or more.
        objective: bytes or seconds.
        best: the cheapest so far, over all choices of `kept`.
        avoid: placements that do not count, nor others that divide the same indices over as many devices of the same
            axes (`divisions`).
        most: parts of the iteration space worth a try, if that is more than `needed`.
        promise: least cost thought possible once it has started, by time.
    """

    __slots__ = (
        "_limit",
        "_made",
        "_opened",
        "_share",
        "atoms",
        "avoid",
        "best",
        "most",
        "needed",
        "parts",
        "pricing",
        "promise",
        "question",
    )

    def __init__(
        self,
        question: Question,
        kept: tuple[int, ...],
        needed: int,
        objective: Objective,
        best: BestPlacing,
        avoid: frozenset[Divisions] = frozenset(),
        most: int = 1,
    ) -> None:
        """Collect the parts of the cost."""
        self.question = question
        self.needed = needed
        self.most = most
        self.best = best
        self.avoid = avoid
        self.pricing = Pricing(question, kept, objective)
        self.atoms: Atoms = ()
        self._share = 1.0
        self._limit = 1.0
        self.promise = 0
        self._opened = (0, 0)
        self._made: dict[Atoms, tuple[list[Vector], bool]] = {}
        self.parts = parts_of(question, kept, objective.crossing)

    def start(self, share: float) -> None:
        """Try first placements; by time also those of whole axes, with a share of the work allowed."""
        best, pricing = self.best, self.pricing
        self._opened = (best.nodes, best.work)
        first = dict.fromkeys(self._seeds())
        ordered = sorted(first, key=self._rank)
        none_yet = best.pricing is None
        seeds = SEEDS if share > MANY else 1
        for k, placement in enumerate(ordered):
            self.consider(placement, free=k < seeds or (none_yet and pricing.objective.fine))
        if pricing.objective.fine:
            return
        self._uncharged()
        whole = self._whole()
        if share < 1 or len(whole) < len(self.question.radices):
            self._search(whole, share)
            self.promise = min((vector[0] for vector in self._made.get(whole, ([], True))[0]), default=NEVER)
        self._uncharged()

    def finish(self, limit: float, guess: Guess | None = None) -> None:
        """Improve on the best placement until none can be cheaper, or the work allowed is done.

        By bytes single digits are handed out. By time bounds are weaker, and that is done only where few vectors of
        counts are left by the first placements; else `guess` has its say, and parts of axes are handed out.

        Args:
            limit: share of the work allowed that may be done when this ends, that of others before it included.
            guess: where else to start.
        """
        best, pricing = self.best, self.pricing
        self._opened, self._limit = (0, 0), limit
        parts = single_digits(self.question)
        done = self._by_bytes(parts) if pricing.objective.fine else self._by_time(parts, guess)
        best.exact = best.exact and done and pricing.exact
        best.work += pricing.work
        pricing.work = 0

    def _uncharged(self) -> None:
        """Leave out of account what was looked at so far: first guesses are dear by time, and must not end a search."""
        best = self.best
        best.aside += self.pricing.work + best.nodes - self._opened[0]
        best.nodes = self._opened[0]
        self.pricing.work = 0

    def _points(self, placement: Placement) -> int:
        """Points of the iteration space on one device."""
        question = self.question
        return question.points(tuple([size_of(dim, question.radices) for dim in placement]))

    def _rank(self, placement: Placement) -> tuple[int, int]:
        """Least cost, then points on one device; for one operand by bytes, which no cap restrains, the other way."""
        question, points = self.question, self._points(placement)
        least = self.pricing.bounds(placement)[0]
        uncapped = self.pricing.objective.fine and len(question.operands) == 1
        return (points, least) if uncapped else (least, points)

    def _by_bytes(self, parts: Atoms) -> bool:
        """Hand out single digits; whether the search ended by itself.

        Most questions are answered within a fraction of the work allowed. The others go on with whole axes, which are
        few, before the rest of the work is spent on parts.
        """
        if self._search(parts, FIRST):
            return True
        whole = self._whole()
        if len(whole) < len(parts):
            self._search(whole, 2 * FIRST)
        return self._search(parts, 1.0)

    def _by_time(self, parts: Atoms, guess: Guess | None) -> bool:
        """Hand out single digits where few vectors of counts are left, else a few parts of axes."""
        before = self.best.cost
        if self._few(parts):
            return True
        guessed = guess() if guess is not None and self.allowed() else None
        if guessed is not None:
            self.consider(guessed, free=True)
        small = len(parts) <= ATOMS
        atoms = parts if small else coarse_atoms(self.question, self.pricing.objective.crossing, ATOMS)
        if self._settled(before) and not small:
            return False
        return self._search(atoms, 1.0) and small

    def _whole(self) -> Atoms:
        """Whole axes, or the runs that the given layouts cut them into."""
        return coarse_atoms(self.question, self.pricing.objective.crossing, 0)

    def _settled(self, before: int) -> bool:
        """Whether the rest of the work allowed is spared: little can be gained, and what was done gained nothing."""
        objective, cost = self.pricing.objective, self.best.cost
        if objective.fine or cost * 1.01 < before:
            return False
        found = [vector[0] for made, _ in self._made.values() for vector in made[:1]]
        return bool(found) and min(found) * UNIT * GAP > cost

    def _few(self, atoms: Atoms) -> bool:
        """Hand out single digits where few vectors of counts may be cheaper; whether the search ended by itself."""
        most = -(-self.best.cost // UNIT)
        pricing = self.pricing
        needed = max(self.needed, pricing.objective.fewest_shards(most))
        found = few_vectors(self.question, self.parts, atoms, pricing.banned, needed, most, pricing.objective)
        if found is None:
            return False
        self._made[atoms] = (found, True)
        return self._search(atoms, FEW_SHARE)

    def _search(self, atoms: Atoms, share: float) -> bool:
        """Every placement of given atoms, cut by bounds, with a share of the work allowed; whether it was enough."""
        best = self.best
        self.atoms = atoms
        self._share = share
        if not self.allowed():
            return False
        found, every = self._vectors(atoms)
        for vector in found:
            if vector[0] * UNIT >= best.cost:
                return every
            if not self.allowed():
                return False
            Branches(self, vector).place(0, ())
        return every and self.allowed()

    def _vectors(self, atoms: Atoms) -> tuple[list[Vector], bool]:
        """Count vectors that may be cheaper than the best placement, and whether all were looked at; made once."""
        if atoms in self._made:
            return self._made[atoms]
        most = -(-self.best.cost // UNIT)
        pricing = self.pricing
        needed = max(self.needed, pricing.objective.fewest_shards(most))
        found = ordered_vectors(self.question, self.parts, atoms, pricing.banned, needed, most, pricing.objective)
        self._made[atoms] = found
        return found

    def allowed(self) -> bool:
        """Whether more may be looked at."""
        objective, best = self.pricing.objective, self.best
        share = self._share * self._limit * best.allowance
        nodes, work = best.nodes - self._opened[0], best.work + self.pricing.work - self._opened[1]
        return nodes <= objective.nodes * share and work <= objective.tried * share

    def consider(self, placement: Placement, *, free: bool = False) -> None:
        """Price a placement exactly and keep it if it is the cheapest; `free` of the bounds on work."""
        if self.avoid and divisions(placement, self.question) in self.avoid:
            return
        if self.best.pricing is not None and not free and not self.allowed():
            return
        points = self._points(placement) if self.pricing.objective.fine else self.best.points
        fewer = int(points < self.best.points)  # bytes do not weigh FLOPs: of equal placements the one with the fewest
        cost = self.pricing.cost(placement, self.best.cost + fewer)
        if cost < self.best.cost + fewer:
            self.best.points = points
            self.best.cost = cost
            self.best.placement = placement
            self.best.pricing = self.pricing

    def _seeds(self) -> list[Placement]:
        """Placements that follow one tensor's layout, then the others' where they still fit."""
        question = self.question
        lists: list[list[tuple[int, tuple[int, ...]]]] = [
            list(zip(operand.labels, operand.source[0], strict=True)) for operand in question.operands
        ]
        lists.append([(k, dim) for k, dim in zip(question.out_labels, question.target, strict=True) if dim is not None])
        result = []
        for rooms in dict.fromkeys((question.even[1], question.limits)):
            for order in permutations(range(len(lists))):
                chosen: list[tuple[int, ...]] = [()] * len(question.names)
                used = self.pricing.banned
                for t in order:
                    for k, dim in lists[t]:
                        fit = self._fit(chosen[k], dim, used, rooms[k])
                        used |= mask_of(fit)
                        chosen[k] = fit
                for shards in dict.fromkeys((self.needed, max(self.needed, self.most))):
                    placement = self._filled(chosen, used, shards, rooms)
                    if placement is not None:
                        result.append(placement)
        return result

    def _fit(self, have: tuple[int, ...], dim: tuple[int, ...], used: int, room: int) -> tuple[int, ...]:
        """`have`, continued as `dim` goes on, as far as its digits are unused and fit the index."""
        if dim[: len(have)] != have:
            return have
        for digit in dim[len(have) :]:
            count = size_of(have, self.question.radices) * self.question.radices[digit]
            if used >> digit & 1 or room % count:
                break
            have = (*have, digit)
        return have

    def _filled(self, chosen: list[tuple[int, ...]], used: int, shards: int, rooms: Counts) -> Placement | None:
        """Hand out idle digits where they cost least until there are enough shards; None if that cannot be."""
        question = self.question
        chosen = list(chosen)
        counts = [size_of(dim, question.radices) for dim in chosen]
        total = 1
        for count in counts:
            total *= count
        for digit, radix in enumerate(question.radices):
            if total >= shards:
                break
            if used >> digit & 1:
                continue
            options = []
            for k, room in enumerate(rooms):
                if room % (counts[k] * radix) == 0:
                    options.append((self.floor((*counts[:k], counts[k] * radix, *counts[k + 1 :])), k))
            if options:
                k = min(options)[1]
                counts[k] *= radix
                chosen[k] = (*chosen[k], digit)
                total *= radix
        return tuple(chosen) if total >= shards else None

    def floor(self, counts: Counts) -> int:
        """Least cost of a vector of counts."""
        objective = self.pricing.objective
        return objective.work(counts) + sum(part.floor(counts, None, objective) for part in self.parts)
