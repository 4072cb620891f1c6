"""What numbers decided while a program was planned: with other sizes or degrees, the same plan if all come out alike.

A plan under a strategy follows from names: rules, axes, layouts. Only a few of its choices look at numbers, and each
leaves one of these values behind, so that a structure knows for which points it holds (`Structure.requires`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from einscale.collectives import FREE, Collective, received_total
from einscale.errors import EinscaleError
from einscale.layout import Layout, Tensor
from einscale.mesh import Mesh
from einscale.reshard import reshard
from einscale.strategy import Rule, place, stored_layout

Composites = tuple[tuple[str, tuple[str, ...]], ...]


class Divided(Struct, frozen=True, cache_hash=True):
    """An iteration space was divided over mesh axes: as far as its sizes allow.

    Args:
        indices: of the iteration space.
        rules: bound to the mesh.
        composites: name -> the indices it is made of.
        scopes: groups and sections the work belongs to.
        found: per index the mesh axes that divide it.
    """

    indices: tuple[str, ...]
    rules: tuple[Rule, ...]
    composites: Composites
    scopes: tuple[str, ...]
    found: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """Indices that a rule divides: sizes of others have no say."""
        return _ruled(self)

    def holds(self, sizes: Mapping[str, int], mesh: Mesh) -> bool:
        """Whether the same axes divide the same indices."""
        names = _ruled(self)
        return not names or _divided(self, tuple((name, sizes[name]) for name in names if name in sizes), mesh)


@lru_cache(maxsize=65536)
def _ruled(asked: Divided) -> tuple[str, ...]:
    """Indices of the rules that an iteration space is divided by."""
    named, found = dict(asked.composites), dict[str, None]()
    for rule in asked.rules:
        parts = named.get(rule.index, (rule.index,))
        if (not rule.scope or rule.scope in asked.scopes) and any(part in asked.indices for part in parts):
            found |= dict.fromkeys(parts)
    return tuple(found)


@lru_cache(maxsize=65536)
def _divided(asked: Divided, sizes: tuple[tuple[str, int], ...], mesh: Mesh) -> bool:
    try:
        found = place(asked.indices, asked.rules, dict(sizes), mesh, dict(asked.composites), asked.scopes)
    except EinscaleError:
        return False
    return tuple(found.items()) == asked.found


class Rested(Struct, frozen=True, cache_hash=True):
    """A tensor was divided at rest by the store rules of its class: where it has as many elements as there are devices.

    Args:
        axes: of the tensor.
        placed: per axis the mesh axes that divide it where it is computed.
        rules: store rules of its class.
        composites: name -> the axes it is made of.
        found: its layout at rest.
    """

    axes: tuple[str, ...]
    placed: tuple[tuple[str, tuple[str, ...]], ...]
    rules: tuple[Rule, ...]
    composites: Composites
    found: Layout

    @property
    def reads(self) -> tuple[str, ...]:
        """Axes of the tensor: the largest may be the one that is divided."""
        return self.axes

    def holds(self, sizes: Mapping[str, int], mesh: Mesh) -> bool:
        """Whether it rests in the same layout."""
        return _rested(self, tuple(sizes[axis] for axis in self.axes), mesh)


@lru_cache(maxsize=65536)
def _rested(asked: Rested, sizes: tuple[int, ...], mesh: Mesh) -> bool:
    known = dict(zip(asked.axes, sizes, strict=True))
    found = stored_layout(asked.axes, dict(asked.placed), asked.rules, known, mesh, dict(asked.composites))
    return found == asked.found


class Fetched(Struct, frozen=True):
    """Of several layouts at hand, the one from which a value is brought with the fewest bytes was taken.

    Args:
        ways: moves from each layout.
        chosen: number of the way taken.
    """

    ways: tuple[tuple[Collective, ...], ...]
    chosen: int

    @property
    def reads(self) -> tuple[str, ...]:
        """Indices of what moves."""
        return tuple(dict.fromkeys(name for way in self.ways for step in way for name in sized_by(step.tensor)))

    def holds(self, sizes: Mapping[str, int], mesh: Mesh) -> bool:
        """Whether the same way moves least."""
        return least_moved(self.ways, sizes, mesh) == self.chosen


def sized_by(tensor: Tensor) -> tuple[str, ...]:
    """Indices whose sizes say how many bytes a tensor has."""
    return (*tensor.indices, *(index for index, _ in tensor.chosen if index not in tensor.indices))


def least_moved(ways: Sequence[Sequence[Collective]], sizes: Mapping[str, int], mesh: Mesh) -> int:
    """Number of the way with the fewest bytes received by the mesh, then the fewest moves that send any."""

    def burden(number: int) -> tuple[int, int]:
        moving = [step for step in ways[number] if step.kind not in FREE]
        return sum(int(received_total(step, sizes, mesh)) for step in moving), len(moving)

    return min(range(len(ways)), key=burden)


class Searched(Struct, frozen=True):
    """No collective makes a move, so the cheapest path between its layouts was looked for.

    Args:
        tensor: what moves.
        before: its layout.
        after: the one it is wanted in.
        found: the path.
    """

    tensor: Tensor
    before: Layout
    after: Layout
    found: tuple[Collective, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """Indices of what moves."""
        return sized_by(self.tensor)

    def holds(self, sizes: Mapping[str, int], mesh: Mesh) -> bool:
        """Whether the cheapest path is the same."""
        cause = self.found[0].cause if self.found else None
        return reshard(self.tensor, self.before, self.after, sizes, mesh, cause=cause) == self.found


class Fixed(Struct, frozen=True):
    """Something was worked out for these sizes, and for this mesh, that no rule repeats: a statement planned freely.

    The links that such a statement was priced on had a say, too: who keeps a structure keeps it by them.

    Args:
        sizes: sizes that decided.
        mesh: the mesh that did; None where it did not.
    """

    sizes: tuple[tuple[str, int], ...]
    mesh: Mesh | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """Every axis that decided."""
        return tuple(name for name, _ in self.sizes)

    def holds(self, sizes: Mapping[str, int], mesh: Mesh) -> bool:
        """Whether the numbers are the same."""
        return all(sizes[name] == size for name, size in self.sizes) and self.mesh in (None, mesh)
