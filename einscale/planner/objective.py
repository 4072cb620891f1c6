"""What a plan is judged by: bytes received, or seconds. Both as ints, so that searches are exact and repeatable.

The unit of bytes is 1/P^2 byte received by a device, P the devices of the mesh; that of time a femtosecond.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from einscale.collectives import FREE
from einscale.hardware import flop_rate as chip_rate
from einscale.layout import Layout, Tensor
from einscale.planner.question import Measured, Question
from einscale.reshard import MERGED, links_of, solve
from einscale.reshard.moves import State, digits_in, size_of
from einscale.reshard.search import NEVER, UNIT, Path, least_units, shards_of
from einscale.reshard.timed import FEMTO, least_crossing, solve_timed
from einscale.steps import LocalEinsum, compute_dtype, step_flops, work_traffic

if TYPE_CHECKING:
    from einscale.topology import Network


class Bytes:
    """Bytes received by a device, then the number of collectives.

    Args:
        question: whose plans are judged.
        most_points: most points of the iteration space on one device; None sets no limit.
        base: units of what is done before, whatever the placement.
    """

    __slots__ = ("base", "most_points", "question")

    merged = MERGED
    """Kinds of which two in a row are one move: fusing them changes no byte, where no shard is padded."""

    def __init__(self, question: Question, most_points: int | None = None, base: int = 0) -> None:
        """Judge the plans of a question."""
        self.question = question
        self.most_points = most_points
        self.base = base

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
        """Cost of the local work: none, if it keeps within the cap."""
        if self.most_points is not None and self.question.points(counts) > self.most_points:
            return BEYOND
        return self.base

    def least_work(self, shards: int) -> int:
        """Least cost of the local work of an iteration space in so many parts."""
        return self.base

    def fewest_shards(self, most: int) -> int:
        """Parts that the iteration space must be divided into for the local work to cost less than `most`."""
        return 1

    def path(self, source: State, target: State, room: tuple[int, ...], measured: Measured, most: int) -> Path:
        """Cheapest moves of a tensor; given up where they cannot cost less than `most`."""
        shape, padded, volume = measured
        radices, devices = self.question.radices, self.question.devices
        if padded:
            return solve(source, target, radices, room, devices, most, shape=shape)
        limit = (most // UNIT // volume + 1) * UNIT
        path = solve(source, target, radices, room, devices, limit)
        units, low = divmod(path.cost, UNIT)
        cost = units * volume * UNIT + low
        return Path(cost, path.steps, exact=path.exact, met=path.met, looked=path.looked)

    def bound(self, source: State, target: State, volume: int) -> int:
        """Least cost of bringing a tensor from one layout to another."""
        return volume * _units(self.question, source, target)


BEYOND = NEVER // UNIT
"""Cost of local work that no cap allows."""


class Seconds:
    """Time of the moves on a network, one after the other, plus that of the local work, as reports print them.

    Args:
        question: whose plans are judged.
        network: the mesh on its links.
        flop_rate: FLOP/s of a device; None takes that of the network's chip.
        most_points: most points of the iteration space on one device; None sets no limit.
        base: femtoseconds of what is done before, whatever the placement.
    """

    __slots__ = (
        "_bandwidth",
        "_known",
        "_least_traffic",
        "_rate",
        "_read",
        "_symbolic",
        "base",
        "links",
        "most_points",
        "question",
    )

    merged = FREE
    """Kinds of which two in a row are one move: other moves are priced as they are fused."""

    fine = False
    """Latencies and whole permutes keep bounds too weak to search single digits of a large mesh."""

    nodes, tried = 150, 1_000
    """Most partial placements, and most moves in the reshards around them, that one plan tries."""

    def __init__(
        self,
        question: Question,
        network: Network,
        flop_rate: float | None = None,
        most_points: int | None = None,
        base: int = 0,
    ) -> None:
        """Bind the network's links to the question's digits."""
        self.question = question
        self.links = links_of(question.digits, network)
        self.most_points = most_points
        self.base = base
        chip = network.system.chip
        self._bandwidth = chip.memory_bandwidth.used
        self._rate = math.inf if flop_rate is None else flop_rate
        if flop_rate is None and question.flops_factor:
            self._rate = chip_rate(chip, compute_dtype([operand.tensor for operand in question.operands]))
        self._known: dict[tuple[int, ...], int] = {}
        self._least_traffic = -1
        once = {operand.tensor: operand for operand in question.operands}.values()
        self._read = tuple((operand.labels, operand.shape) for operand in once)
        chosen = any(operand.tensor.chosen for operand in once)
        self._symbolic = _symbolic(question) if chosen else None

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
            if self.most_points is not None and self.question.points(counts) > self.most_points:
                return BEYOND
            found = self._known[counts] = self.base + int(self._seconds(counts) * FEMTO)
        return found

    def _seconds(self, counts: tuple[int, ...]) -> float:
        """The longer of arithmetic and memory traffic, as `local_seconds` has it."""
        question = self.question
        if self._symbolic is not None:
            sizes = {_axis(k): size for k, size in enumerate(question.sizes)}
            degrees = {_axis(k): count for k, count in enumerate(counts)}
            flops = step_flops(self._symbolic, sizes, degrees)
            return float(max(flops / self._rate, work_traffic(self._symbolic, sizes, degrees) / self._bandwidth))
        traffic = question.out_shape.local([counts[k] for k in question.out_labels])
        for labels, shape in self._read:
            traffic += shape.local([counts[k] for k in labels])
        return max(question.points(counts) * question.flops_factor / self._rate, traffic / self._bandwidth)

    def least_work(self, shards: int) -> int:
        """Least time of an iteration space in so many parts: of its FLOPs, and of what every device must touch."""
        return max(self._arithmetic(shards), self._traffic()) + self.base

    def _arithmetic(self, shards: int) -> int:
        if self._symbolic is not None:
            return 0
        flops = self.question.iterations * self.question.flops_factor
        return int(flops / self._rate / shards * FEMTO * (1 - 1e-9))

    def _traffic(self) -> int:
        if self._least_traffic < 0:
            volume = self.question.out_volume + sum(shape.least for _, shape in self._read)
            known = self._symbolic is None
            seconds = volume / self.question.devices / self._bandwidth if known else 0.0
            self._least_traffic = int(seconds * FEMTO * (1 - 1e-9))
        return self._least_traffic

    def fewest_shards(self, most: int) -> int:
        """Parts that the iteration space must be divided into for the FLOPs to take less than `most`."""
        return max(1, -(-self._arithmetic(1) // most))

    def path(self, source: State, target: State, room: tuple[int, ...], measured: Measured, most: int) -> Path:
        """Fastest moves of a tensor; given up where they cannot take less than `most`."""
        shape, padded, volume = measured
        return solve_timed(source, target, room, volume, self.links, most, shape=shape if padded else None)

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


def _axis(k: int) -> str:
    """Name of an index by its number, and of an axis that stands for its count of shards."""
    return f"i{k}"


def _symbolic(question: Question) -> LocalEinsum:
    """The local einsum with each index divided over an axis of its own, to be priced under any counts of shards."""
    names = {name: _axis(k) for k, name in enumerate(question.names)}

    def renamed(tensor: Tensor) -> Tensor:
        chosen = tuple((names[index], count) for index, count in tensor.chosen)
        return Tensor(tensor.name, tuple(names[index] for index in tensor.indices), tensor.dtype, chosen)

    def divided(tensor: Tensor) -> Layout:
        return Layout(tuple((names[index],) for index in tensor.indices))

    tensors = tuple(operand.tensor for operand in question.operands)
    layouts = tuple(divided(tensor) for tensor in tensors)
    return LocalEinsum(tuple(map(renamed, tensors)), layouts, renamed(question.output), divided(question.output))
