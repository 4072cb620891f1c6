"""One account of where time goes, for a training step, a prefill and a decode step alike: parts that add up.

Numbers are of one point or arrays of many (`numeric`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from einscale.numeric import Number, scattered
from einscale.price.hiders import Hider


class TimePart(StrEnum):
    """What a part of the time of a step, or of a pass of new tokens, goes to."""

    FORWARD = "forward"
    BACKWARD = "backward"
    ACCUMULATE = "accumulate"
    RECOMPUTE = "recompute"
    OFFLOADED_ACTIVATIONS = "offloaded activations"
    COMPUTE = "compute"
    WEIGHTS = "weights"
    CACHE = "cache"
    TRAFFIC = "other traffic"
    LAUNCH = "launch"
    PARAMETERS = "parameters"
    GRADIENTS = "gradients"
    ACTIVATIONS = "activations"
    ROUTED = "routed"
    STATISTICS = "statistics"
    STREAMED = "streamed"
    HOPS = "hops"
    BUBBLE = "bubble"
    WAIT = "wait"
    GRADIENTS_ONCE = "gradients once a step"
    PARAMETERS_ONCE = "parameters once a step"
    FIRST_AND_LAST = "first and last layer"
    OPTIMIZER_ONCE = "optimizer once a step"
    SHARED_TABLE = "shared table once a step"
    UPDATE = "update"
    OFFLOADED_OPTIMIZER = "offloaded optimizer"

    @property
    def group(self) -> TimeGroup:
        """Whether it is local work, what is left of collectives, or waiting."""
        return _GROUPS.get(self, TimeGroup.COLLECTIVES)


class TimeGroup(StrEnum):
    """What sort of time a part of a step is."""

    WORK = "local work"
    COLLECTIVES = "exposed collectives"
    WAITING = "waiting"


KERNELS = (TimePart.COMPUTE, TimePart.WEIGHTS, TimePart.CACHE, TimePart.TRAFFIC)
"""Local work of a pass of new tokens by what bounds it: arithmetic, or reading and writing these."""

MOVES = (
    TimePart.PARAMETERS,
    TimePart.GRADIENTS,
    TimePart.ACTIVATIONS,
    TimePart.ROUTED,
    TimePart.STATISTICS,
    TimePart.STREAMED,
)
"""Collectives of a pass by what they move."""

_GROUPS = {
    **dict.fromkeys((TimePart.FORWARD, TimePart.BACKWARD, TimePart.ACCUMULATE, TimePart.RECOMPUTE), TimeGroup.WORK),
    **dict.fromkeys((TimePart.OFFLOADED_ACTIVATIONS, TimePart.OFFLOADED_OPTIMIZER, TimePart.UPDATE), TimeGroup.WORK),
    **dict.fromkeys((*KERNELS, TimePart.LAUNCH), TimeGroup.WORK),
    **dict.fromkeys((TimePart.BUBBLE, TimePart.WAIT, TimePart.FIRST_AND_LAST), TimeGroup.WAITING),
}


class SpentPart(Struct, frozen=True):
    """One part of the time of a step.

    Args:
        what: what the time goes to.
        seconds: on the critical path.
        axis: mesh axes, for communication.
        hidden: communication that other work hides.
        hidden_by: the work that hides it.
        tensors: names of what moves, where that is a few tensors.
        rate: bytes a second with which the work at hand would hide it, for `OFFLOADED_ACTIVATIONS`.
        bytes: bytes that a device receives, where they are counted.
        count: how many collectives there are, where they are counted.
        latency: what of the seconds does not depend on bytes, where it is told apart.
    """

    what: TimePart
    seconds: Number
    axis: str = ""
    hidden: Number = 0.0
    hidden_by: tuple[Hider, ...] = ()
    tensors: tuple[str, ...] = ()
    rate: float = 0.0
    bytes: Number = 0
    count: Number = 0
    latency: Number = 0.0

    def times(self, factor: Number) -> SpentPart:
        """So many of them, one after the other."""
        return self.mapped(lambda number: number * factor)

    def mapped(self, change: Callable[[Number], Number]) -> SpentPart:
        """The part with every number changed."""
        return replace(
            self,
            seconds=change(self.seconds),
            hidden=change(self.hidden),
            bytes=change(self.bytes),
            count=change(self.count),
            latency=change(self.latency),
        )


class Spent(Struct, frozen=True):
    """Where time goes: parts, one after the other, which add up to `seconds`.

    >>> step = Spent((SpentPart(TimePart.WEIGHTS, 3.0), SpentPart(TimePart.ACTIVATIONS, 1.0, "model", latency=0.5)))
    >>> step.plus(step).seconds, step.times(3).of(TimePart.WEIGHTS), step.local, step.communication
    (8.0, 9.0, 3.0, 1.0)

    Args:
        parts: in the order they are shown.
    """

    parts: tuple[SpentPart, ...] = ()

    def __iter__(self) -> Iterator[SpentPart]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def of(self, *whats: TimePart) -> Number:
        """Seconds of some sorts of parts."""
        return sum((part.seconds for part in self.parts if part.what in whats), 0.0)

    @property
    def seconds(self) -> Number:
        """Everything together."""
        return sum((part.seconds for part in self.parts), 0.0)

    @property
    def local(self) -> Number:
        """Kernels by what bounds them; what their starts wait for is left out."""
        return self.of(*KERNELS)

    @property
    def communication(self) -> Number:
        """Collectives over all axes."""
        return self.of(*MOVES)

    @property
    def latency(self) -> Number:
        """What of the collectives does not depend on bytes."""
        return sum((part.latency for part in self.parts), 0.0)

    @property
    def compute(self) -> Number:
        """Kernels bound by arithmetic."""
        return self.of(TimePart.COMPUTE)

    @property
    def weights(self) -> Number:
        """Kernels bound by memory, for the weights they read."""
        return self.of(TimePart.WEIGHTS)

    @property
    def cache(self) -> Number:
        """The same, for keys and values (and recurrent states) they read and write."""
        return self.of(TimePart.CACHE)

    @property
    def traffic(self) -> Number:
        """The same, for everything else."""
        return self.of(TimePart.TRAFFIC)

    @property
    def launch(self) -> Number:
        """Starts of kernels, and what they wait for the host that sends them."""
        return self.of(TimePart.LAUNCH)

    @property
    def hops(self) -> Number:
        """Transfers between pipeline stages, where they are told apart from waiting."""
        return self.of(TimePart.HOPS)

    @property
    def waiting(self) -> Number:
        """Pipeline stages that have nothing to do."""
        return self.of(TimePart.BUBBLE)

    @property
    def by_axes(self) -> tuple[SpentPart, ...]:
        """Collectives over the same mesh axes taken together, whatever they move."""
        found: dict[str, list[SpentPart]] = {}
        for part in self.parts:
            if part.what in MOVES:
                found.setdefault(part.axis, []).append(part)
        return tuple(_sum(alike) for alike in found.values())

    def plus(self, other: Spent) -> Spent:
        """Both, one after the other; parts of one sort and axes are one."""
        return together((*self.parts, *other.parts))

    def times(self, factor: Number) -> Spent:
        """So many of them, one after the other."""
        return Spent(tuple(part.times(factor) for part in self.parts))

    def mapped(self, change: Callable[[Number], Number]) -> Spent:
        """The account with every number changed: columns added up, or some of many points taken."""
        return Spent(tuple(part.mapped(change) for part in self.parts))

    def table(self) -> dict[tuple[TimePart, str], SpentPart]:
        """The parts by what they are and the mesh axes they are over."""
        return {(part.what, part.axis): part for part in self.parts}


def together(parts: Iterable[SpentPart]) -> Spent:
    """Parts as an account, those of one sort and axes added up."""
    found: dict[tuple[TimePart, str], list[SpentPart]] = {}
    for part in parts:
        found.setdefault((part.what, part.axis), []).append(part)
    return Spent(tuple(alike[0] if len(alike) == 1 else _sum(alike) for alike in found.values()))


def _sum(alike: Sequence[SpentPart]) -> SpentPart:
    """Parts of one sort, one after the other."""
    return SpentPart(
        alike[0].what,
        sum(part.seconds for part in alike),
        alike[0].axis,
        sum(part.hidden for part in alike),
        tuple(dict.fromkeys(hider for part in alike for hider in part.hidden_by)),
        tuple(dict.fromkeys(name for part in alike for name in part.tensors)),
        alike[0].rate,
        sum(part.bytes for part in alike),
        sum(part.count for part in alike),
        sum(part.latency for part in alike),
    )


def weighted(accounts: Sequence[Spent], weights: Sequence[float]) -> Spent:
    """Accounts one after the other, each so many times."""
    return together(
        part.times(weight) for account, weight in zip(accounts, weights, strict=True) for part in account.parts
    )


def at_places(accounts: Sequence[Spent], places: Sequence[Sequence[int]], count: int) -> Spent:
    """Accounts of some of many points each as one account of all of them; what a point does not have is 0 there.

    Args:
        accounts: each of its own points.
        places: numbers of their points.
        count: points altogether.
    """
    if len(accounts) == 1 and len(places[0]) == count:
        return accounts[0]
    tables = [account.table() for account in accounts]
    found: list[SpentPart] = []
    for key in dict.fromkeys(key for table in tables for key in table):
        parts = [table.get(key, SpentPart(key[0], 0.0, key[1])) for table in tables]
        found.append(
            SpentPart(
                what=key[0],
                seconds=scattered([part.seconds for part in parts], places, count),
                axis=key[1],
                hidden=scattered([part.hidden for part in parts], places, count),
                bytes=scattered([part.bytes for part in parts], places, count),
                count=scattered([part.count for part in parts], places, count),
                latency=scattered([part.latency for part in parts], places, count),
            )
        )
    return Spent(tuple(found))
