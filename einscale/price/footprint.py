"""One account of what a device holds, for training and serving alike: its parts, what it has room for, and the fullest.

Numbers are of one point or arrays of many (`numeric`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

from einscale.numeric import Number, exact, one_of, where


class MemoryPart(StrEnum):
    """What a device holds something as: names of the fields of `Memory`."""

    PARAMETERS = "parameters"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    CACHE = "cache"
    SAVED = "saved"
    GATHERED = "gathered"
    WORKING = "working"
    OVERHEAD = "overhead"


class Memory(Struct, frozen=True, kw_only=True):
    """Bytes on a device at the moment it holds most; of a pipeline, on each device of one stage.

    >>> memory = Memory(parameters=60, cache=15, working=10, overhead=5, capacity=100)
    >>> memory.needed, memory.fits, memory.left
    (90, True, 10)

    Args:
        parameters: at rest.
        gradients: accumulated, at rest.
        optimizer: its state, with a master copy where the precision has one.
        cache: keys, values and recurrent states of every sequence, in whole pages.
        saved: activations of every microbatch in flight.
        gathered: gathered parameters that are kept, and those fetched ahead.
        working: what the layer at work needs besides.
        overhead: what a runtime takes beside tensors.
        host: bytes that rest in the host's memory instead.
        capacity: what of the device's memory may be used.
    """

    parameters: Number = 0
    gradients: Number = 0
    optimizer: Number = 0
    cache: Number = 0
    saved: Number = 0
    gathered: Number = 0
    working: Number = 0
    overhead: Number = 0
    host: Number = 0
    capacity: Number = 0

    def part(self, what: MemoryPart) -> Number:
        """Bytes of one part."""
        found: Number = getattr(self, what.value)
        return found

    def at(self, place: int) -> Memory:
        """That of one of many points, its bytes as ints."""
        return Memory(**{name: exact(one_of(getattr(self, name), place)) for name in self.__struct_fields__})

    @property
    def tensors(self) -> Number:
        """Bytes of tensors: everything but what the runtime takes."""
        return self.needed - self.overhead

    @property
    def needed(self) -> Number:
        """Bytes altogether."""
        return sum(self.part(what) for what in MemoryPart)

    @property
    def left(self) -> Number:
        """Bytes that are left of the capacity; below 0 where it does not fit."""
        return self.capacity - self.needed

    @property
    def fits(self) -> Number:
        """Whether it fits."""
        return self.needed <= self.capacity


def fullest(memories: Iterable[Memory]) -> Memory:
    """The one that needs most, at each of many points."""
    found: Memory | None = None
    for memory in memories:
        if found is None:
            found = memory
            continue
        fuller = memory.needed > found.needed
        names = Memory.__struct_fields__
        found = Memory(**{name: where(fuller, getattr(memory, name), getattr(found, name)) for name in names})
    return found or Memory()
