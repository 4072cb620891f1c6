"""How many shards each index gets: the coarse half of the search, with a lower bound per vector of counts."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

from einscale.planner.objective import Objective
from einscale.planner.question import Question, union
from einscale.reshard.moves import State, digits_in, mask_of, size_of

Counts = tuple[int, ...]

VECTORS = 4_000
"""Most vectors of counts one search looks at."""

FEW, SOON = 12, 1_000
"""So many vectors are few, and that is to be seen after looking at no more than this."""


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


Atoms = tuple[tuple[int, ...], ...]
"""Runs of digits that are handed out whole."""

Class = tuple[int, int]
"""(size, how many atoms of that size)."""


def single_digits(question: Question) -> Atoms:
    """Every digit by itself."""
    return tuple((digit,) for digit in range(len(question.radices)))


def coarse_atoms(question: Question, slow: int, limit: int) -> Atoms:
    """At most `limit` atoms, or more if the given layouts cut the axes into more; the largest are split first.

    Digits of one axis stay together unless a layout separates them or one lies on a slower level than the other.
    """
    states = [operand.source for operand in question.operands]
    states.append((tuple(dim or () for dim in question.target), question.owes))
    runs: list[tuple[int, ...]] = []
    for axis in question.digits.whole.values():
        for digit in axis:
            if runs and runs[-1][-1] == digit - 1 and digit - 1 in axis and _together(digit, states, slow):
                runs[-1] = (*runs[-1], digit)
            else:
                runs.append((digit,))
    while len(runs) < limit:
        largest = max(
            runs, key=lambda run: (size_of(run, question.radices) if len(run) > 1 else 0, -run[0]), default=()
        )
        if len(largest) < 2:
            break
        k = runs.index(largest)
        half = len(largest) // 2
        runs[k : k + 1] = [largest[:half], largest[half:]]
    return tuple(runs)


def _together(digit: int, states: list[State], slow: int) -> bool:
    """Whether a digit comes right after the one before it wherever either is."""
    before = digit - 1
    if (slow >> digit & 1) != (slow >> before & 1):
        return False
    for dims, owed in states:
        if (owed >> digit & 1) != (owed >> before & 1):
            return False
        for dim in dims:
            if (digit in dim) != (before in dim):
                return False
            if digit in dim and dim.index(digit) != dim.index(before) + 1:
                return False
    return True


def classes_of(question: Question, atoms: Atoms, allowed: int) -> list[Class]:
    """Sizes of the allowed atoms, and how many there are of each."""
    amounts: dict[int, int] = {}
    for atom in atoms:
        if not mask_of(atom) & ~allowed:
            size = size_of(atom, question.radices)
            amounts[size] = amounts.get(size, 0) + 1
    return sorted(amounts.items(), reverse=True)


def most_shards(question: Question, rooms: Counts) -> int:
    """Largest number of parts that the mesh can divide the iteration space into, shard counts dividing the rooms."""
    result = 1
    for radix, amount in classes_of(question, single_digits(question), (1 << len(question.radices)) - 1):
        result *= radix ** min(amount, _usable(radix, rooms))
    return result


def _usable(size: int, rooms: Counts) -> int:
    """How many atoms of a size the indices can use, no others being there."""
    usable = 0
    for room in rooms:
        count = size
        while room % count == 0:
            count *= size
            usable += 1
    return usable


def count_vectors(classes: list[Class], needed: int, rooms: Counts) -> tuple[list[Counts], bool]:
    """Every way to give the indices numbers of shards of a product of at least `needed`, and whether that is all.

    Args:
        classes: the atoms to be given; those of one size are handed out together, the most first.
        needed: least product.
        rooms: per index what its count must divide.
    """
    partial: list[Counts] = [(1,) * len(rooms)]
    most = 1
    amounts = [(size, min(amount, _usable(size, rooms))) for size, amount in classes]
    for size, amount in amounts:
        most *= size**amount
    if most < needed:
        return [], True
    every = True
    for size, amount in amounts:
        spare = most // needed
        least = amount
        while least and size <= spare:
            spare //= size
            least -= 1
        grown: dict[Counts, None] = {}
        for counts in partial:
            _spread(grown, counts, rooms, size, least, amount)
        partial = list(grown)
        if len(partial) > VECTORS:
            partial, every = partial[:VECTORS], False
    return [counts for counts in partial if product_of(counts) >= needed], every


def _spread(result: dict[Counts, None], counts: Counts, rooms: Counts, radix: int, least: int, most: int) -> None:
    """Every way to multiply the counts by `radix`, from `most` down to `least` times in all."""
    reach = [0] * (len(counts) + 1)
    for k in range(len(counts) - 1, -1, -1):
        room, powers = rooms[k] // counts[k], 0
        while room % radix == 0 and powers < most:
            room //= radix
            powers += 1
        reach[k] = reach[k + 1] + powers

    def place(k: int, done: int, current: Counts) -> None:
        if len(result) > VECTORS:
            return
        if k == len(counts):
            result[current] = None
            return
        powers = reach[k] - reach[k + 1]
        for power in range(min(powers, most - done), -1, -1):
            if done + power + reach[k + 1] < least:
                return
            place(k + 1, done + power, (*current, counts[k] * radix**power))

    place(0, 0, ())


def _nothing(counts: Counts) -> object:
    """What a scalar's bounds depend on."""
    return ()


class CountShare:
    """One tensor's share in the cost of a vector of counts: an operand on its way in, or the result on its way out.

    Args:
        volume: bytes of the tensor.
        labels: its indices.
        homes: per dim, the digits it has (an operand), or is wanted to have (the result).
        due: digits of the partial sums it arrives with; those of contracted indices come on top.
        question: for radices and devices.
        slow: digits that lie between fast domains, whose bytes cost more.
        contracted: for the result, the indices that are summed.
        free: nothing is known of where it must go; only its sums cost.
    """

    __slots__ = (
        "_due",
        "_far",
        "_floors",
        "_last",
        "_pick",
        "_sizes",
        "_wanted",
        "contracted",
        "devices",
        "free",
        "homes",
        "labels",
        "volume",
    )

    def __init__(
        self,
        volume: int,
        labels: Counts,
        homes: tuple[tuple[int, ...], ...],
        due: int,
        question: Question,
        slow: int,
        contracted: Counts | None = None,
        *,
        free: bool = False,
    ) -> None:
        """Count the shards of every dim, and those of its slow digits."""
        radices = question.radices
        self.volume = volume
        self.labels = labels
        self.homes = homes
        self.contracted = contracted
        self.free = free
        inside = size_of(digits_in(~slow & (1 << len(radices)) - 1), radices)
        self.devices = (question.devices, question.devices // inside)
        every = tuple(size_of(home, radices) for home in homes)
        far = tuple(size_of(tuple(d for d in home if slow >> d & 1), radices) for home in homes)
        self._sizes = (every, far)
        self._due = (size_of(digits_in(due), radices), size_of(digits_in(due & slow), radices))
        self._far: dict[object, float] = {}
        self._floors: dict[object, int] = {}
        self._pick = itemgetter(*labels) if labels else _nothing
        self._last: tuple[Counts | None, float] = (None, 0.0)
        self._wanted = inside

    def measures(self, counts: Counts, level: int = 0) -> tuple[int, int, int]:
        """(shards wanted, joint shards, sums due) under given counts, as `floor_units` takes them.

        Level 0 is of devices, level 1 of fast domains, with the counts of slow digits.
        """
        wanted = joint = 1
        due = self._due[level]
        sizes = self._sizes[level]
        if self.contracted is None:
            for k, size in zip(self.labels, sizes, strict=True):
                count = counts[k]
                wanted *= count
                joint *= count if count > size else size
            return wanted, joint, due
        for k in self.contracted:
            due *= counts[k]
        for k, size in zip(self.labels, sizes, strict=True):
            wanted *= size
            joint *= max(counts[k], size)
        return wanted, joint, due

    def units(self, counts: Counts, level: int) -> int:
        """Units of V/P^2 that a device, or at level 1 a domain, must receive at least; none where nothing is known."""
        if not self.volume:
            return 0
        devices = self.devices[level]
        wanted, joint, due = self.measures(counts, level)
        return devices * (due - 1) if self.free else floor_units(devices, wanted, joint, due)

    def _key(self, counts: Counts) -> object:
        """What of the counts this tensor's bounds depend on."""
        if self.contracted is None:
            return self._pick(counts)
        due = 1
        for k in self.contracted:
            due *= counts[k]
        return self._pick(counts), due

    def floor(self, counts: Counts, far: Counts | None, objective: Objective) -> int:
        """Least cost of this tensor under given counts; `far` are the counts of slow digits among them."""
        across = 0.0 if far is None else self.across(far)
        key = self._key(counts)
        if across:
            key = (key, across)
        found = self._floors.get(key)
        if found is None:
            found = self._floors[key] = objective.floor(self.volume, self.units(counts, 0), across)
        return found

    def across(self, far: Counts) -> float:
        """Share of the tensor that a device must receive from beyond its domain, whose devices share the work."""
        if far is self._last[0]:
            return self._last[1]
        key = self._key(far)
        found = self._far.get(key)
        if found is None:
            found = self._far[key] = self.units(far, 1) / (self.devices[1] ** 2 * self._wanted)
        self._last = (far, found)
        return found


def parts_of(question: Question, kept: tuple[int, ...], slow: int) -> list[CountShare]:
    """The parts of a question, operands first; `kept` says over which digits each operand stays unreduced."""
    parts = [
        CountShare(operand.volume, operand.labels, operand.source[0], operand.source[1] & ~mask, question, slow)
        for operand, mask in zip(question.operands, kept, strict=True)
    ]
    homes = tuple(dim or () for dim in question.target)
    volume = question.out_volume
    if question.wanted.unreduced_open or question.owes:
        volume = 0  # what may stay owed costs nothing for sure
    free = question.open or bool(question.owes)
    parts.append(
        CountShare(volume, question.out_labels, homes, union(kept), question, slow, question.contracted, free=free)
    )
    return parts


Vector = tuple[int, Counts, Counts | None]
"""A bound, counts, and which part of them is of slow digits (None where no digit is told apart)."""


def ordered_vectors(
    question: Question, parts: list[CountShare], atoms: Atoms, banned: int, needed: int, most: int, objective: Objective
) -> tuple[list[Vector], bool]:
    """Count vectors that can be cheaper than `most`, the least bound first; and whether all were looked at."""
    result: list[Vector] = []
    looked = 0
    cut: list[Counts] = []
    for vector in vectors(question, parts, atoms, banned, needed, most, objective, cut):
        looked += 1
        if looked > VECTORS:
            break
        if vector is not None:
            result.append(vector)
    return sorted(result, key=_bound), looked <= VECTORS and not cut


def few_vectors(
    question: Question, parts: list[CountShare], atoms: Atoms, banned: int, needed: int, most: int, objective: Objective
) -> list[Vector] | None:
    """Count vectors that can be cheaper than `most`, the least bound first; None if not soon seen to be few."""
    result: list[Vector] = []
    cut: list[Counts] = []
    for looked, vector in enumerate(vectors(question, parts, atoms, banned, needed, most, objective, cut)):
        if vector is not None:
            result.append(vector)
        if len(result) > FEW or looked > SOON:
            return None
    return None if cut else sorted(result, key=_bound)


def vectors(
    question: Question,
    parts: list[CountShare],
    atoms: Atoms,
    banned: int,
    needed: int,
    most: int,
    objective: Objective,
    cut: list[Counts],
) -> Iterator[Vector | None]:
    """Count vectors that can be cheaper than `most`; None for each that is looked at and cannot.

    Where levels differ in speed the slow digits are handed out first: what crosses between domains is known then, and
    most of their vectors need no second look. `cut` grows where there are too many vectors to list.
    """
    parts = sorted(parts, key=_volume)  # what costs much is looked at first
    every = (1 << len(question.radices)) - 1 & ~banned
    slow = objective.crossing & every
    if not slow:
        found, complete = count_vectors(classes_of(question, atoms, every), needed, question.limits)
        if not complete:
            cut.append(())
        for counts in found:
            yield _kept(counts, None, parts, most, objective)
        return
    inside = classes_of(question, atoms, every & ~slow)
    within = 1
    for size, amount in inside:
        within *= size**amount
    beyond, complete = count_vectors(classes_of(question, atoms, slow), -(-needed // within), question.limits)
    if not complete:
        cut.append(())
    for far in beyond:
        least = objective.least_work(product_of(far) * within)
        for part in parts:
            least += objective.floor(part.volume, 0, part.across(far))
        if least >= most:
            yield None
            continue
        rooms = tuple([room // count for room, count in zip(question.limits, far, strict=True)])
        nearer, complete = count_vectors(inside, -(-needed // product_of(far)), rooms)
        if not complete:
            cut.append(far)
        for near in nearer:
            counts = tuple([a * b for a, b in zip(far, near, strict=True)])
            yield _kept(counts, far, parts, most, objective)


def product_of(counts: Counts) -> int:
    """Product of the counts."""
    result = 1
    for count in counts:
        result *= count
    return result


def _volume(part: CountShare) -> int:
    return -part.volume


def _bound(vector: Vector) -> tuple[int, Counts, Counts]:
    return vector[0], vector[1], vector[2] or ()


def _kept(
    counts: Counts, far: Counts | None, parts: list[CountShare], most: int, objective: Objective
) -> Vector | None:
    """A vector with its bound, None if that reaches `most`."""
    floor = objective.work(counts)
    for part in parts:
        if floor >= most:
            return None
        floor += part.floor(counts, far, objective)
    return (floor, counts, far) if floor < most else None
