"""A caching allocator: what a framework keeps reserved on a device while its tensors come and go.

PyTorch's CUDA caching allocator as its source describes it (c10/cuda/CUDACachingAllocator.cpp): sizes are rounded up
to 512 bytes; small tensors come from segments of 2 MiB, larger ones from segments of 20 MiB, those over 10 MiB from one
of their own, rounded up to 2 MiB; the smallest free block that is large enough is taken and split; free neighbours are
joined, but only within a segment; nothing is given back; memory freed on one stream serves that stream alone. With
expandable segments each stream has one that grows at its end, so that all neighbours may be joined.
"""

from __future__ import annotations

from bisect import bisect_left, insort

KIB, MIB = 2**10, 2**20

ROUND = 512
"""Bytes that sizes are rounded up to."""

SMALL = MIB
"""Largest tensor that comes from a small segment."""

SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB
"""Segments for small tensors, and for those up to `OWN_SEGMENT` bytes; expandable ones grow in steps of these."""

OWN_SEGMENT = 10 * MIB
"""Tensors of this size and more get a segment of their own."""

LEFT_OVER = MIB
"""What is left of a block of a large segment is split off if it is larger than this."""


class CachedBlock:
    """A piece of a segment, in use or free.

    Attributes:
        pool: stream and whether it is for small tensors.
        start: place in the order in which memory was reserved: breaks ties between blocks of one size.
        size: bytes.
        free: whether it may be taken.
        before: neighbour in the segment.
        after: neighbour in the segment.
    """

    __slots__ = ("after", "before", "free", "pool", "size", "start")

    def __init__(self, pool: tuple[str, bool], start: int, size: int) -> None:
        self.pool = pool
        self.start = start
        self.size = size
        self.free = True
        self.before: CachedBlock | None = None
        self.after: CachedBlock | None = None


class CachingAllocator:
    """Bytes reserved on one device.

    >>> allocator = CachingAllocator()
    >>> first, second = allocator.allocate(64 * MIB), allocator.allocate(64 * MIB)
    >>> allocator.release(first), allocator.release(second)
    (None, None)
    >>> _ = allocator.allocate(128 * MIB)
    >>> allocator.reserved // MIB, allocator.allocated // MIB
    (256, 128)

    Attributes:
        expandable: segments grow, so that the two halves above would have been joined.
        reserved: bytes reserved; they never become fewer.
        allocated: bytes in use, rounding included.
        peak_allocated: most bytes that were in use.
    """

    def __init__(self, *, expandable: bool = False) -> None:
        self.expandable = expandable
        self.reserved = 0
        self.allocated = 0
        self.peak_allocated = 0
        self._free: dict[tuple[str, bool], list[tuple[int, int, CachedBlock]]] = {}
        self._end: dict[tuple[str, bool], CachedBlock] = {}

    def allocate(self, size: int, stream: str = "") -> CachedBlock:
        """Take a block of at least so many bytes.

        Args:
            size: bytes.
            stream: the stream that works with it.
        """
        size = max(ROUND, -(-size // ROUND) * ROUND)
        pool = (stream, size <= SMALL)
        free = self._free.setdefault(pool, [])
        place = bisect_left(free, (size, 0))
        if place < len(free):
            block = free.pop(place)[2]
        else:
            block = self._grown(pool, size) if self.expandable else self._segment(pool, size)
        block.free = False
        left = block.size - size
        if left >= ROUND if pool[1] or self.expandable else left > LEFT_OVER:
            self._split(block, size)
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def release(self, block: CachedBlock) -> None:
        """Give a block back to its stream, joined with free neighbours."""
        self.allocated -= block.size
        block.free = True
        for other in (block.before, block.after):
            if other is not None and other.free:
                self._forget(other)
                first, second = (other, block) if other is block.before else (block, other)
                first.size += second.size
                first.after = second.after
                if second.after is not None:
                    second.after.before = first
                if self._end.get(first.pool) is second:
                    self._end[first.pool] = first
                first.free, block = True, first
        insort(self._free.setdefault(block.pool, []), (block.size, block.start, block))

    def _forget(self, block: CachedBlock) -> None:
        free = self._free[block.pool]
        del free[bisect_left(free, (block.size, block.start))]

    def _split(self, block: CachedBlock, size: int) -> None:
        """Cut a block; what is left is free."""
        rest = CachedBlock(block.pool, block.start + size, block.size - size)
        rest.before, rest.after = block, block.after
        if block.after is not None:
            block.after.before = rest
        block.after, block.size = rest, size
        if self._end.get(block.pool) is block:
            self._end[block.pool] = rest
        insort(self._free[block.pool], (rest.size, rest.start, rest))

    def _segment(self, pool: tuple[str, bool], size: int) -> CachedBlock:
        """A new segment that is large enough."""
        if pool[1]:
            whole = SMALL_SEGMENT
        else:
            whole = LARGE_SEGMENT if size < OWN_SEGMENT else -(-size // SMALL_SEGMENT) * SMALL_SEGMENT
        block = CachedBlock(pool, self.reserved, whole)
        self.reserved += whole
        return block

    def _grown(self, pool: tuple[str, bool], size: int) -> CachedBlock:
        """The free end of a pool's one segment, grown until it is large enough."""
        step = SMALL_SEGMENT if pool[1] else LARGE_SEGMENT
        end = self._end.get(pool)
        if end is not None and end.free:
            self._forget(end)
            more = -(-(size - end.size) // step) * step
            end.size += more
            self.reserved += more
            return end
        whole = -(-size // step) * step
        start = end.start + end.size if end is not None else 0
        block = CachedBlock(pool, start, whole)
        block.before = end
        if end is not None:
            end.after = block
        self._end[pool] = block
        self.reserved += whole
        return block
