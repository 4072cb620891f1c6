"""Exact cost of a placement: the cheapest reshard of every operand to it, and of the result to the wanted layout.

A cost is one int: the objective's units times `UNIT`, plus the number of collectives and free moves in its low bits.
"""

from __future__ import annotations

from einscale.planner.objective import Objective
from einscale.planner.question import Measured, Placement, Question, union
from einscale.reshard.moves import Dims, State, mask_of, size_of
from einscale.reshard.search import NEVER, NOWHERE, UNIT, Path


class Pricing:
    """Prices of one question, remembered.

    Args:
        question: what is planned.
        kept: per operand, the digits over which it stays unreduced through the einsum.
        objective: bytes or seconds.
        work: counts the moves that the reshard searches tried.
    """

    __slots__ = (
        "_bounds",
        "_operands",
        "_outputs",
        "_target",
        "banned",
        "exact",
        "kept",
        "objective",
        "question",
        "work",
    )

    def __init__(self, question: Question, kept: tuple[int, ...], objective: Objective) -> None:
        """Nothing is priced yet."""
        self.question = question
        self.kept = kept
        self.banned = union(kept)
        self.objective = objective
        self.work = 0
        self.exact = True
        self._target: Dims = tuple(dim or () for dim in question.target)
        self._operands: dict[tuple[int, Dims], Path] = {}
        self._outputs: dict[State, tuple[Path, State]] = {}
        self._bounds: dict[tuple[int, State], int] = {}

    def operand(self, j: int, dims: Dims, most: int = NEVER) -> Path:
        """Cheapest path of operand j to given dims; one without steps where it cannot cost less than `most`."""
        found = self._operands.get((j, dims))
        if found is None or (not found.steps and found.cost < most):
            operand = self.question.operands[j]
            room = self.question.operand_room(operand)
            measured = (operand.shape, operand.padded, operand.volume)
            found = self._path(operand.source, (dims, self.kept[j]), room, measured, most)
            self._operands[j, dims] = found
        return found

    def output(self, dims: Dims, owed: int, most: int = NEVER) -> tuple[Path, State]:
        """Cheapest path of the result to (the best layout that is) the wanted one, and that layout."""
        found = self._outputs.get((dims, owed))
        if found is None or (not found[0].steps and found[0].cost < most):
            question = self.question
            found = None
            for target in output_targets(question, dims, owed):
                limit = most if found is None else min(most, found[0].cost)
                measured = (question.out_shape, question.out_padded, question.out_volume)
                path = self._path((dims, owed), target, question.output_room, measured, limit)
                if found is None or path.cost < found[0].cost:
                    found = (path, target)
            assert found is not None
            self._outputs[dims, owed] = found
        return found

    def _path(self, source: State, target: State, room: tuple[int, ...], measured: Measured, most: int) -> Path:
        if source == target:
            return NOWHERE
        path = self.objective.path(source, target, room, measured, most)
        self.work += path.work
        self.exact = self.exact and path.exact
        return path

    def owed(self, placement: Placement) -> int:
        """Digits over which the result of a placement owes its sum."""
        return self.banned | mask_of(tuple(digit for k in self.question.contracted for digit in placement[k]))

    def bounds(self, placement: Placement) -> tuple[int, tuple[tuple[int, int, Dims], ...], int]:
        """Least cost of a placement; of each operand with its number and dims, the largest first; of the result."""
        question, objective = self.question, self.objective
        total = objective.work(tuple([size_of(dim, question.radices) for dim in placement])) * UNIT
        operands = []
        for j, operand in enumerate(question.operands):
            dims = question.operand_dims(operand, placement)
            least = self._least(j, operand.source, (dims, self.kept[j]), operand.volume)
            total += least
            operands.append((-operand.volume, j, least, dims))
        last = 0
        if not question.open:
            out = (question.output_dims(placement), self.owed(placement))
            last = self._least(-1, out, (self._target, question.owes), question.out_volume)
        return total + last, tuple((least, j, dims) for _, j, least, dims in sorted(operands)), last

    def _least(self, j: int, source: State, target: State, volume: int) -> int:
        """Least cost of a tensor on its way, remembered; -1 is the result, whose source changes."""
        key = (j, source if j < 0 else target)
        found = self._bounds.get(key)
        if found is None:
            found = self._bounds[key] = self.objective.bound(source, target, volume) * UNIT
        return found

    def cost(self, placement: Placement, most: int = NEVER) -> int:
        """Cost of a placement, or anything not below `most` where it is not below it.

        The bounds of all tensors come first, so that each search knows how little is left for it.
        """
        total, operands, least = self.bounds(placement)
        for bound, j, dims in operands:
            if total >= most:
                return total
            total += self.operand(j, dims, most - total + bound).cost - bound
        if total >= most:
            return total
        dims, owed = self.question.output_dims(placement), self.owed(placement)
        return total + self.output(dims, owed, most - total + least)[0].cost - least


def output_targets(question: Question, dims: Dims, owed: int) -> list[State]:
    """The layouts among which the result may end, for a result that the einsum leaves in given dims, owing sums.

    A closed question has one. Where dims are open the result keeps its own digits there, and sums that must be
    settled are scattered onto one open dim or another, or all-reduced.
    """
    if not question.open:
        return [(tuple(dim or () for dim in question.target), question.owes)]
    fixed = question.owes
    for dim in question.target:
        fixed |= mask_of(dim or ())
    base = []
    for dim, wanted in zip(dims, question.target, strict=True):
        if wanted is None:
            stop = next((k for k, digit in enumerate(dim) if fixed >> digit & 1), len(dim))
            base.append(dim[:stop])
        else:
            base.append(wanted)
    due = owed & ~fixed
    if question.wanted.unreduced_open:
        return [(tuple(base), question.owes | due)]
    targets = [(tuple(base), question.owes)]
    if due:
        targets += _scattered(question, base, due)
    return targets


def _scattered(question: Question, base: list[tuple[int, ...]], due: int) -> list[State]:
    """Targets with the digits of a settled sum on an open dim, as many as fit."""
    targets = []
    for d, wanted in enumerate(question.target):
        if wanted is not None:
            continue
        dim = base[d]
        for digit, radix in enumerate(question.radices):
            if due >> digit & 1 and question.output_room[d] % (size_of(dim, question.radices) * radix) == 0:
                dim = (*dim, digit)
        if dim != base[d]:
            targets.append(((*base[:d], dim, *base[d + 1 :]), question.owes))
    return targets
