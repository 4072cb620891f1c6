"""Terms of what a device of the fullest stage holds, tensor by tensor; they add up to what one side needs more."""

from __future__ import annotations

from collections.abc import Iterator

from einscale.comparison.pieces import View
from einscale.comparison.values import MemoryTerm, Rests
from einscale.price.footprint import MemoryPart

Key = tuple[MemoryPart | None, str, str]
"""What a tensor is matched by: what it is held as, kind of layer, name."""


def memory_terms(first: View, other: View) -> Iterator[MemoryTerm]:
    """One term for each tensor, one for what the runtime takes, and one for what rests on the host instead."""
    mine, theirs = _held(first), _held(other)
    for key in dict.fromkeys((*mine, *theirs)):
        before, after = mine.get(key, (None, 0)), theirs.get(key, (None, 0))
        part, layer, name = key
        yield MemoryTerm(part, layer, (name,) if name else (), before[0], after[0], after[1] - before[1])


def _held(side: View) -> dict[Key, tuple[Rests | None, int]]:
    """Everything the fullest stage of a side holds: how, and its bytes."""
    found: dict[Key, tuple[Rests | None, int]] = {}
    stage = side.report.fullest
    for alive in stage.alive:
        key = alive.what, alive.kind, alive.held.tensor.name
        divided = side.divided(zip(alive.held.tensor.indices, alive.held.layout.dims, strict=True))
        known = found.get(key, (None, 0))
        copies = alive.copies + (known[0].copies if known[0] else 0)
        found[key] = Rests(divided, copies), alive.total + known[1]
    memory = stage.memory
    found[MemoryPart.OVERHEAD, "", ""] = (None, memory.overhead)
    away = sum(size for _, size in found.values()) - memory.needed
    if away:
        found[None, "", ""] = (None, -away)
    return found
