"""How many shards each index gets: the coarse half of the search, with a lower bound per vector of counts."""

from __future__ import annotations

from collections.abc import Iterator

from einscale.planner.objective import Objective
from einscale.planner.question import Question, union
from einscale.reshard.moves import digits_in, size_of

Counts = tuple[int, ...]

VECTORS = 12_000
"""Most vectors of counts one search looks at."""


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
    square = devices * devices
    if due == 1:
        return square // wanted + -square // joint
    return devices * (due + devices // wanted - 2) + max(0, devices + -square // joint)


def capacities(question: Question, banned: int) -> list[tuple[int, int]]:
    """(radix, how many digits of it the indices can use), for every radix of the mesh."""
    amounts: dict[int, int] = {}
    for digit, radix in enumerate(question.radices):
        if not banned >> digit & 1:
            amounts[radix] = amounts.get(radix, 0) + 1
    result = []
    for radix, amount in sorted(amounts.items()):
        usable = 0
        for room in question.rooms:
            while room % radix == 0:
                room //= radix
                usable += 1
        result.append((radix, min(amount, usable)))
    return result


def most_shards(question: Question, banned: int) -> int:
    """Largest number of parts the iteration space can be divided into."""
    result = 1
    for radix, usable in capacities(question, banned):
        result *= radix**usable
    return result


def count_vectors(question: Question, banned: int, needed: int) -> Iterator[Counts]:
    """Every way to give the indices numbers of shards whose product is at least `needed`, the largest products first."""
    partial: list[Counts] = [(1,) * len(question.rooms)]
    most = most_shards(question, banned)
    for radix, usable in capacities(question, banned):
        spare = most // needed
        least = usable
        while least and radix <= spare:
            spare //= radix
            least -= 1
        grown: list[Counts] = []
        for counts in partial:
            _spread(grown, counts, question.rooms, radix, least, usable)
        partial = grown
    for counts in partial:
        total = 1
        for count in counts:
            total *= count
        if total >= needed:
            yield counts


def _spread(result: list[Counts], counts: Counts, rooms: Counts, radix: int, least: int, most: int) -> None:
    """Every way to multiply the counts by `radix`, from `most` down to `least` times in all."""
    reach = [0] * (len(counts) + 1)
    for k in range(len(counts) - 1, -1, -1):
        room, powers = rooms[k] // counts[k], 0
        while room % radix == 0 and powers < most:
            room //= radix
            powers += 1
        reach[k] = reach[k + 1] + powers

    def place(k: int, done: int, current: Counts) -> None:
        if len(result) >= VECTORS:
            return
        if k == len(counts):
            result.append(current)
            return
        powers = reach[k] - reach[k + 1]
        for power in range(min(powers, most - done), -1, -1):
            if done + power + reach[k + 1] < least:
                return
            place(k + 1, done + power, (*current, counts[k] * radix**power))

    place(0, 0, ())


class Part:
    """One tensor's share in the cost of a vector of counts: an operand on its way in, or the result on its way out.

    Args:
        volume: bytes of the tensor.
        labels: its indices.
        homes: per dim, the digits it has (an operand), or is wanted to have (the result).
        due: partial sums it arrives with; those of contracted indices come on top where `contracted` names them.
        contracted: for the result, the indices that are summed.
        free: nothing is known of where it must go; only its sums cost.
    """

    __slots__ = ("_known", "contracted", "due", "free", "homes", "labels", "sizes", "volume")

    def __init__(
        self,
        volume: int,
        labels: tuple[int, ...],
        homes: tuple[tuple[int, ...], ...],
        due: int,
        radices: tuple[int, ...],
        contracted: tuple[int, ...] | None = None,
        *,
        free: bool = False,
    ) -> None:
        """Count the shards of every dim."""
        self.volume = volume
        self.labels = labels
        self.homes = homes
        self.sizes = tuple(size_of(home, radices) for home in homes)
        self.due = due
        self.contracted = contracted
        self.free = free
        self._known: dict[Counts, int] = {}

    def measures(self, counts: Counts) -> tuple[int, int, int]:
        """(shards wanted, joint shards, sums due) under given counts, as `floor_units` takes them."""
        wanted = joint = 1
        due = self.due
        if self.contracted is None:
            for k, size in zip(self.labels, self.sizes, strict=True):
                count = counts[k]
                wanted *= count
                joint *= max(count, size)
            return wanted, joint, due
        for k in self.contracted:
            due *= counts[k]
        for k, size in zip(self.labels, self.sizes, strict=True):
            wanted *= size
            joint *= max(counts[k], size)
        return wanted, joint, due

    def floor(self, counts: Counts, devices: int, objective: Objective) -> int:
        """Least cost of this tensor under given counts."""
        key = tuple([counts[k] for k in self.labels])
        if self.contracted is not None:
            due = self.due
            for k in self.contracted:
                due *= counts[k]
            key = (*key, due)
        found = self._known.get(key)
        if found is None:
            wanted, joint, due = self.measures(counts)
            if self.free:
                units = devices * (due - 1)
            else:
                units = floor_units(devices, wanted, joint, due)
            found = self._known[key] = objective.floor(self.volume, units)
        return found


def parts_of(question: Question, kept: tuple[int, ...]) -> list[Part]:
    """The parts of a question, operands first; `kept` says over which digits each operand stays unreduced."""
    radices = question.radices
    parts = [
        Part(
            operand.volume,
            operand.labels,
            operand.source[0],
            size_of(digits_in(operand.source[1] & ~mask), radices),
            radices,
        )
        for operand, mask in zip(question.operands, kept, strict=True)
    ]
    due = size_of(digits_in(union(kept)), radices)
    homes = tuple(dim or () for dim in question.target)
    volume = question.out_volume
    if question.wanted.unreduced_open or question.owes:
        volume = 0  # what may stay owed costs nothing for sure
    free = question.open or bool(question.owes)
    parts.append(Part(volume, question.out_labels, homes, due, radices, question.contracted, free=free))
    return parts


def ordered_vectors(
    question: Question, parts: list[Part], banned: int, needed: int, most: int, objective: Objective
) -> tuple[list[tuple[int, Counts]], bool]:
    """Count vectors that can be cheaper than `most`, the least bound first; and whether all were looked at."""
    devices = question.devices
    result = []
    looked = 0
    for counts in count_vectors(question, banned, needed):
        looked += 1
        floor = objective.work(counts)
        for part in parts:
            if floor >= most:
                break
            floor += part.floor(counts, devices, objective)
        if floor < most:
            result.append((floor, counts))
    result.sort()
    return result, looked < VECTORS
