"""The search for a placement: first guesses, then count vectors in the order of their bounds, each searched in full."""

from __future__ import annotations

from itertools import permutations

from einscale.planner.branches import Branches
from einscale.planner.counts import (
    VECTORS,
    Atoms,
    Counts,
    Vector,
    coarse_atoms,
    ordered_vectors,
    parts_of,
    single_digits,
    vectors,
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

FIRST = 0.15
"""Share of the work allowed after which a search turns to whole axes."""


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


class Best:
    """The cheapest placement found, and whether the search ended by itself.

    `allowance` is the share of the objective's bounds on work that may be spent.
    """

    __slots__ = ("allowance", "cost", "exact", "nodes", "placement", "pricing", "work")

    def __init__(self, allowance: float = 1.0) -> None:
        """Nothing yet."""
        self.allowance = allowance
        self.cost = NEVER
        self.exact = True
        self.placement: Placement = ()
        self.pricing: Pricing | None = None
        self.nodes = 0
        self.work = 0


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
    """

    __slots__ = ("_made", "_share", "atoms", "avoid", "best", "needed", "parts", "pricing", "question")

    def __init__(
        self,
        question: Question,
        kept: tuple[int, ...],
        needed: int,
        objective: Objective,
        best: Best,
        avoid: frozenset[Divisions] = frozenset(),
    ) -> None:
        """Collect the parts of the cost."""
        self.question = question
        self.needed = needed
        self.best = best
        self.avoid = avoid
        self.pricing = Pricing(question, kept, objective)
        self.atoms: Atoms = ()
        self._share = 1.0
        self._made: dict[Atoms, tuple[list[Vector], bool]] = {}
        self.parts = parts_of(question, kept, objective.crossing)

    def run(self, guesses: tuple[Placement, ...] = ()) -> None:
        """Improve on the best placement until none can be cheaper, or the work allowed is done.

        `guesses` are placements to price first, beside those that follow the given layouts.

        By bytes single digits are handed out; by time, where bounds are weaker, a few parts of axes. Most questions
        are answered within a fraction of the work allowed. The others go on with whole axes, which are few, before
        the rest of the work is spent on parts.
        """
        best, pricing = self.best, self.pricing
        slow = pricing.objective.crossing
        first = dict.fromkeys((*guesses, *self._seeds()))
        for placement in sorted(first, key=lambda placement: pricing.bounds(placement)[0]):
            self.consider(placement, free=True)
        parts = single_digits(self.question)
        if not pricing.objective.fine and len(parts) > ATOMS:
            best.exact = best.exact and not self._any_vector(parts)
            parts = coarse_atoms(self.question, slow, ATOMS)
        done = self._search(parts, FIRST)
        if not done:
            whole = coarse_atoms(self.question, slow, 0)
            if len(whole) < len(parts):
                self._search(whole, 2 * FIRST)
            done = self._search(parts, 1.0)
        best.exact = best.exact and done and pricing.exact
        best.work += pricing.work
        pricing.work = 0

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

    def _any_vector(self, atoms: Atoms) -> bool:
        """Whether any count vector may be cheaper than the best placement, or there are too many to tell."""
        most = -(-self.best.cost // UNIT)
        pricing = self.pricing
        needed = max(self.needed, pricing.objective.fewest_shards(most))
        found = vectors(self.question, self.parts, atoms, pricing.banned, needed, most, pricing.objective)
        return any(vector is not None or k > VECTORS for k, vector in enumerate(found))

    def allowed(self) -> bool:
        """Whether more may be looked at."""
        objective, best = self.pricing.objective, self.best
        share = self._share * best.allowance
        return best.nodes <= objective.nodes * share and best.work + self.pricing.work <= objective.tried * share

    def consider(self, placement: Placement, *, free: bool = False) -> None:
        """Price a placement exactly and keep it if it is the cheapest; `free` of the bounds on work."""
        if self.avoid and divisions(placement, self.question) in self.avoid:
            return
        if self.best.pricing is not None and not free and not self.allowed():
            return
        cost = self.pricing.cost(placement, self.best.cost)
        if cost < self.best.cost:
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
        for order in permutations(range(len(lists))):
            chosen: list[tuple[int, ...]] = [()] * len(question.names)
            used = self.pricing.banned
            for t in order:
                for k, dim in lists[t]:
                    fit = self._fit(chosen[k], dim, used, k)
                    used |= mask_of(fit)
                    chosen[k] = fit
            placement = self._filled(chosen, used)
            if placement is not None:
                result.append(placement)
        return result

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

    def _filled(self, chosen: list[tuple[int, ...]], used: int) -> Placement | None:
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
                    options.append((self.floor((*counts[:k], counts[k] * radix, *counts[k + 1 :])), k))
            if options:
                k = min(options)[1]
                counts[k] *= radix
                chosen[k] = (*chosen[k], digit)
                total *= radix
        return tuple(chosen) if total >= self.needed else None

    def floor(self, counts: Counts) -> int:
        """Least cost of a vector of counts."""
        objective = self.pricing.objective
        return objective.work(counts) + sum(part.floor(counts, None, objective) for part in self.parts)
