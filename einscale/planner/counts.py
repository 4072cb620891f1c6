"""How many shards each index gets: the coarse half of the search, with a lower bound per vector of counts."""

from __future__ import annotations

from collections.abc import Iterator

from einscale.planner.question import Operand, Question, union

Counts = tuple[int, ...]

VECTORS = 20_000
"""Most vectors of counts one plan looks at."""


def floor_units(devices: int, wanted: int, joint: int, due: int) -> int:
    """Units of V/P^2 that a device must receive at least.

    Args:
        devices: P.
        wanted: shards of the target.
        joint: 1 in `joint` of the tensor is held and wanted by the same device.
        due: how many partial sums are still to be added; 1 for none.

    Without sums a device needs its block less what it holds. With them every element takes due - 1 additions and
    P/wanted - 1 copies, and one transfer more where no device both holds a part of it and wants it.
    """
    if due == 1:
        return devices * devices // wanted + -(devices * devices) // joint
    copies = devices // wanted - 1
    return devices * (due - 1 + copies) + max(0, devices + -(devices * devices) // joint)


def count_vectors(question: Question, banned: int, needed: int) -> Iterator[Counts]:
    """Every way to give the indices numbers of shards whose product is at least `needed`."""
    amounts: dict[int, int] = {}
    for digit, radix in enumerate(question.radices):
        if not banned >> digit & 1:
            amounts[radix] = amounts.get(radix, 0) + 1
    partial: list[Counts] = [(1,) * len(question.rooms)]
    for radix, amount in sorted(amounts.items()):
        grown: list[Counts] = []
        for counts in partial:
            grown += _spread(counts, question.rooms, radix, amount)
            if len(grown) > VECTORS:
                break
        partial = grown
    for counts in partial:
        total = 1
        for count in counts:
            total *= count
        if total >= needed:
            yield counts


def _spread(counts: Counts, rooms: Counts, radix: int, amount: int) -> list[Counts]:
    """Every way to multiply the counts by `radix` at most `amount` times in all, most times first."""
    result: list[Counts] = []
    size = len(counts)

    def place(k: int, left: int, current: list[int]) -> None:
        if k == size:
            result.append(tuple(current))
            return
        options = []
        count = counts[k]
        for power in range(left + 1):
            if rooms[k] % count:
                break
            options.append((count, left - power))
            count *= radix
        for count, rest in reversed(options):
            current.append(count)
            place(k + 1, rest, current)
            current.pop()

    place(0, amount, [])
    return result


def most_shards(question: Question, banned: int) -> int:
    """Largest number of parts the iteration space can be divided into."""
    best = 1
    for counts in count_vectors(question, banned, 1):
        total = 1
        for count in counts:
            total *= count
        best = max(best, total)
    return best


class Floors:
    """Lower bounds of count vectors, tensor by tensor, remembered by the counts that concern the tensor.

    `kept` says per operand over which digits it stays unreduced through the einsum.
    """

    __slots__ = ("_known", "_pieces", "banned", "kept", "question")

    def __init__(self, question: Question, kept: tuple[int, ...]) -> None:
        """Prepare the pieces: source counts of every operand, wanted counts of the output."""
        self.question = question
        self.kept = kept
        self.banned = union(kept)
        self._known: list[dict[Counts, int]] = [{} for _ in range(len(question.operands) + 1)]
        digits = question.digits
        self._pieces = [
            (operand, tuple(digits.size(dim) for dim in operand.source[0]), self._size(operand.source[1] & ~mask))
            for operand, mask in zip(question.operands, kept, strict=True)
        ]

    def _size(self, mask: int) -> int:
        result = 1
        for digit, radix in enumerate(self.question.radices):
            if mask >> digit & 1:
                result *= radix
        return result

    def total(self, counts: Counts) -> int:
        """Least bytes a device receives under these counts, in units of 1/P^2."""
        result = 0
        for known, (operand, source, due) in zip(self._known, self._pieces, strict=False):
            key = tuple([counts[k] for k in operand.labels])
            floor = known.get(key)
            if floor is None:
                floor = known[key] = self._operand(operand, source, due, key)
            result += floor
        floor = self._known[-1].get(counts)
        if floor is None:
            floor = self._known[-1][counts] = self._output(counts)
        return result + floor

    def _operand(self, operand: Operand, source: Counts, due: int, counts: Counts) -> int:
        wanted = joint = 1
        for have, need in zip(source, counts, strict=True):
            wanted *= need
            joint *= max(have, need)
        return operand.volume * floor_units(self.question.devices, wanted, joint, due)

    def _output(self, counts: Counts) -> int:
        question = self.question
        due = self._size(self.banned)
        for k in question.contracted:
            due *= counts[k]
        if question.wanted.unreduced_open:
            return 0
        if question.open or question.owes:
            owed = self._size(question.owes)
            return question.out_volume * question.devices * max(0, due - owed)
        wanted = joint = 1
        for k, dim in zip(question.out_labels, question.target, strict=True):
            need = question.digits.size(dim or ())
            wanted *= need
            joint *= max(counts[k], need)
        return question.out_volume * floor_units(question.devices, wanted, joint, due)


def ordered_vectors(question: Question, kept: tuple[int, ...], needed: int, most: int) -> list[tuple[int, Counts]]:
    """Count vectors that can be cheaper than `most`, the least bound first."""
    floors = Floors(question, kept)
    result = []
    for counts in count_vectors(question, floors.banned, needed):
        floor = floors.total(counts)
        if floor < most:
            result.append((floor, counts))
    result.sort()
    return result
