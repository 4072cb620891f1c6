"""Structures that were planned, kept by what they follow from and found again for every point at which they hold.

Training and serving keep theirs here alike: a layer under a strategy, on meshes of the same live axes, is planned once
for all sizes and degrees for which its decisions come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Generic, Protocol, TypeVar, cast

from msgspec.structs import replace

from einscale.mesh import Mesh
from einscale.planner.planned import Decision
from einscale.strategy import Strategy
from einscale.topology import Network

MOST_KEPT = 4096
"""Kinds of structures that are kept: programs under rules, on meshes of the same live axes."""


class StructureKey(Hashable, Protocol):
    """What a structure follows from, sizes and degrees aside."""

    @property
    def strategy(self) -> Strategy:
        """Rules that it is planned under."""


class Planned(Protocol):
    """A structure, or several of one layer."""

    @property
    def requires(self) -> tuple[Decision, ...]:
        """Decisions that sizes or degrees had a say in."""

    def holds(self, sizes: Mapping[str, int], mesh: Mesh) -> bool:
        """Whether all of them come out alike for other sizes, and other degrees of the same axes."""


Question = TypeVar("Question", bound=StructureKey)
Found = TypeVar("Found", bound=Planned)


class Structures(Generic[Question, Found]):
    """Structures of one sort.

    Args:
        plan: plans one anew, for what it follows from, a network and the size of every axis.
    """

    def __init__(self, plan: Callable[[Question, Network, dict[str, int]], Found]) -> None:
        self._plan = plan
        self._kept = lru_cache(maxsize=MOST_KEPT)(_nothing)

    def find(self, asked: Question, network: Network, sizes: dict[str, int]) -> Found:
        """The structure for some sizes: one that was planned before if it holds for them.

        Args:
            asked: what it follows from.
            network: the devices and their links.
            sizes: of every axis.

        Raises:
            StrategyError: the strategy does not fit the mesh or the program.
        """
        kept = cast("list[Found]", self._kept(asked, *_place(asked, network)))
        for one in kept:
            if one.holds(sizes, network.mesh):
                return one
        found = self._plan(asked, network, sizes)
        kept.append(found)
        return found

    def sort(
        self, asked: Question, network: Network, sizes: Mapping[str, int], columns: Mapping[str, Sequence[int]]
    ) -> list[tuple[Found, list[int]]]:
        """The structures of many points of one mesh, each with the numbers of its points.

        Args:
            asked: what they follow from.
            network: the devices and their links.
            sizes: of every axis, those that points differ in aside.
            columns: axis -> its size at every point.

        Raises:
            StrategyError: the strategy does not fit the mesh or the program at one of them.
        """
        groups: list[tuple[Found, list[int]]] = []
        left = list(range(len(next(iter(columns.values())))))
        sizes = {**sizes, **{name: column[0] for name, column in columns.items()}}
        columns = {name: column for name, column in columns.items() if len(set(column)) > 1}
        while left:
            first = {**sizes, **{name: column[left[0]] for name, column in columns.items()}}
            found = self.find(asked, network, first)
            here = {name: [column[number] for number in left] for name, column in columns.items()}
            held = _holding(found, first, here, len(left), network.mesh)
            groups.append((found, [number for number, holds in zip(left, held, strict=True) if holds]))
            left = [number for number, holds in zip(left, held, strict=True) if not holds]
        return groups


def _nothing(*_: object) -> list[object]:
    """No structure yet."""
    return []


def _place(asked: StructureKey, network: Network) -> tuple[object, ...]:
    """What a structure follows from besides: the names of mesh axes, and those along which there are several devices.

    What a strategy leaves to the free planner is judged by the price of the system.
    """
    mesh = network.mesh
    live = frozenset(axis.name for axis in mesh.axes if axis.size > 1)
    return mesh.names, live, network.system if asked.strategy.policy.auto else None


def _holding(
    found: Planned, first: Mapping[str, int], columns: Mapping[str, Sequence[int]], count: int, mesh: Mesh
) -> list[bool]:
    """At which points all decisions come out as at the first; each is asked once for points that look alike to it."""
    holding = [True] * count
    for decision in found.requires:
        names = [name for name in decision.reads if name in columns]
        if not names:  # it came out so at the first
            continue
        answers: dict[tuple[int, ...], bool] = {}
        for number, seen in enumerate(zip(*(columns[name] for name in names), strict=True)):
            if seen not in answers:
                answers[seen] = decision.holds({**first, **dict(zip(names, seen, strict=True))}, mesh)
            holding[number] = holding[number] and answers[seen]
    return holding


def on_one_stage(network: Network, pipe: str) -> Network:
    """The devices of one pipeline stage and their links: the other stages hold other layers, not copies of its tensors.

    A plan on the whole mesh would divide work over devices that hold nothing of it.

    Args:
        network: all devices.
        pipe: name of the pipeline axis, "" for none.
    """
    if not pipe:
        return network
    axes = (replace(axis, size=1) if axis.name == pipe else axis for axis in network.mesh.axes)
    return replace(network, mesh=Mesh(tuple(axes)))
