"""What a plan is judged by: bytes received, or seconds. Both as ints, so that searches are exact and repeatable.

The unit of bytes is 1/P^2 byte received by a device, P the devices of the mesh; that of time a femtosecond.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from einscale.collectives import FREE
from einscale.hardware import flop_rate as chip_rate
from einscale.planner.question import Question
from einscale.reshard import MERGED, links_of, solve
from einscale.reshard.moves import State, digits_in, size_of
from einscale.reshard.search import UNIT, Path, least_units, shards_of
from einscale.reshard.timed import FEMTO, least_crossing, solve_timed

if TYPE_CHECKING:
    from einscale.topology import Network


class Bytes:
    """Bytes received by a device, then the number of collectives."""

    __slots__ = ("question",)

    merged = MERGED
    """Kinds of which two in a row are one move: fusing them changes no byte."""

    def __init__(self, question: Question) -> None:
        """Judge the plans of a question."""
        self.question = question

    crossing = 0
    """Digits whose bytes cost more than others': none."""

    fine = True
    """Bounds are strong enough to search single digits of a large mesh."""

    nodes, tried = 2000, 10_000
    """Most partial placements, and most moves in the reshards around them, that one plan tries."""

    def floor(self, volume: int, units: int, across: float) -> int:
        """Least cost of a tensor that must receive so many units of V/P^2."""
        return volume * units

    def work(self, counts: tuple[int, ...]) -> int:
        """Cost of the local work: none."""
        return 0

    def least_work(self, shards: int) -> int:
        """Least cost of the local work of an iteration space in so many parts: none."""
        return 0

    def fewest_shards(self, most: int) -> int:
        """Parts that the iteration space must be divided into for the local work to cost less than `most`."""
        return 1

    def path(self, source: State, target: State, room: tuple[int, ...], volume: int, most: int) -> Path:
        """Cheapest moves of a tensor, priced for its volume; given up where they cannot cost less than `most`."""
        limit = (most // UNIT // volume + 1) * UNIT
        path = solve(source, target, self.question.radices, room, self.question.devices, limit)
        units, low = divmod(path.cost, UNIT)
        cost = units * volume * UNIT + low
        return Path(cost, path.steps, exact=path.exact, met=path.met, looked=path.looked)

    def bound(self, source: State, target: State, volume: int) -> int:
        """Least cost of bringing a tensor from one layout to another."""
        return volume * _units(self.question, source, target)


class Seconds:
    """Time of the moves on a network, one after the other, plus that of the local work.

    Args:
        question: whose plans are judged.
        network: the mesh on its links.
        flop_rate: FLOP/s of a device; None takes the roofline of the network's chip, memory traffic included.
    """

    __slots__ = ("_bandwidth", "_flops", "_known", "_rate", "links", "question")

    merged = FREE
    """Kinds of which two in a row are one move: other moves are priced as they are fused."""

    fine = False
    """Latencies and whole permutes keep bounds too weak to search single digits of a large mesh."""

    nodes, tried = 150, 1_000
    """Most partial placements, and most moves in the reshards around them, that one plan tries."""

    def __init__(self, question: Question, network: Network, flop_rate: float | None) -> None:
        """Bind the network's links to the question's digits."""
        self.question = question
        self.links = links_of(question.digits, network)
        chip = network.system.chip
        self._flops = question.iterations * question.flops_factor
        self._bandwidth = chip.memory_bandwidth.used if flop_rate is None else math.inf
        self._rate = math.inf if flop_rate is None else flop_rate
        if flop_rate is None and self._flops:
            self._rate = chip_rate(chip, question.operands[0].tensor.dtype)
        self._known: dict[tuple[int, ...], int] = {}

    @property
    def crossing(self) -> int:
        """Digits that lie between the fastest domains, if there are others."""
        return self.links.crossing if self.links.inside > 1 else 0

    def floor(self, volume: int, units: int, across: float) -> int:
        """Least time of a tensor that must receive so many units of V/P^2, and a share of V from beyond its domain."""
        return self.links.least(units, across, volume)

    def work(self, counts: tuple[int, ...]) -> int:
        """Time of the local work under given numbers of shards."""
        found = self._known.get(counts)
        if found is None:
            found = self._known[counts] = int(self._seconds(counts) * FEMTO)
        return found

    def _seconds(self, counts: tuple[int, ...]) -> float:
        """Roofline of the local work, as `local_seconds` has it."""
        question = self.question
        points = 1
        for size, count in zip(question.sizes, counts, strict=True):
            points *= size // count
        traffic = question.out_volume / _shards(question.out_labels, counts)
        for operand in question.operands:
            traffic += operand.volume / _shards(operand.labels, counts)
        return max(points * question.flops_factor / self._rate, traffic / self._bandwidth)

    def least_work(self, shards: int) -> int:
        """Least time of the FLOPs of an iteration space in so many parts."""
        return int(self._flops / self._rate / shards * FEMTO * (1 - 1e-9))

    def fewest_shards(self, most: int) -> int:
        """Parts that the iteration space must be divided into for the FLOPs to take less than `most`."""
        return max(1, -(-self.least_work(1) // most))

    def path(self, source: State, target: State, room: tuple[int, ...], volume: int, most: int) -> Path:
        """Fastest moves of a tensor; given up where they cannot take less than `most`."""
        return solve_timed(source, target, room, volume, self.links, most)

    def bound(self, source: State, target: State, volume: int) -> int:
        """Least time of bringing a tensor from one layout to another."""
        question, links = self.question, self.links
        across = 0.0
        if links.crossing:
            due = size_of(digits_in(source[1] & ~target[1] & links.crossing), question.radices)
            across = least_crossing(source[0], target, due, links.crossing, question.radices, links)
        return links.least(_units(question, source, target), across, volume)


Objective = Bytes | Seconds


def _units(question: Question, source: State, target: State) -> int:
    """Placement bound between two layouts, in units of V/P^2."""
    radices, devices = question.radices, question.devices
    if source == target:
        return 0
    parts = size_of(digits_in(source[1] & ~target[1]), radices)
    replicas = devices // (shards_of(target[0], radices) * size_of(digits_in(target[1]), radices))
    return least_units(source[0], target, parts, replicas, radices, devices)


def _shards(labels: tuple[int, ...], counts: tuple[int, ...]) -> int:
    result = 1
    for k in labels:
        result *= counts[k]
    return result
