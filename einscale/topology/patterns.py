"""How the devices of one network level are linked: one row each holds the cost of a collective there and its text.

What is charged and what is printed stand side by side: another kind of links is one more row of `PATTERNS`.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from einscale.collectives import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, PERMUTE, REDUCE_SCATTER
from einscale.hardware import Level
from einscale.numeric import Number
from einscale.topology.formulas import Cost, Segment, full, switch, torus
from einscale.units import format_bytes
from einscale.vocabulary import CollectiveKind

REDUCTIONS = (ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE)
"""Collectives that move V(n-1)/n into every device, the last of them twice."""


class LevelGroup(Struct, frozen=True):
    """A group on one level: its size there and, on a torus, the segments of dims it runs over."""

    count: Number
    parts: tuple[Segment, ...] = ()


class Operands(Struct, frozen=True):
    """What a formula of one level is filled in with.

    Args:
        kind: the collective.
        part: the group on this level.
        level: its links.
        held: bytes a device holds before the move, L.
        devices: devices of the whole group.
        inside: of them, those within one domain of the next faster level, m.
        outside: how many times the group on this level there is beyond it.
    """

    kind: CollectiveKind
    part: LevelGroup
    level: Level
    held: float
    devices: int
    inside: int
    outside: int

    @property
    def n(self) -> int:
        """Devices of the group on this level."""
        return int(self.part.count)

    @property
    def rate(self) -> str:
        """Bandwidth of a port or link, W."""
        return f"{self.level.bandwidth.used / 1e9:g} GB/s"

    @property
    def whole(self) -> str:
        """Bytes of the whole array, V."""
        return format_bytes(self.held * self.devices if self.kind == ALL_GATHER else self.held)

    @property
    def two(self) -> str:
        """A factor of two, for an all-reduce."""
        return "2" if self.kind == ALL_REDUCE else ""

    @property
    def twice(self) -> str:
        """The same in the text with operands."""
        return "2 × " if self.two else ""

    @property
    def over(self) -> tuple[str, str]:
        """What divides V: `n`, or `n m` behind a faster level, and the same with operands."""
        return ("n m", f"({self.n} × {self.inside})") if self.inside > 1 else ("n", f"{self.n}")

    @property
    def beyond(self) -> tuple[str, str]:
        """What divides an all-to-all besides, where the group goes on beyond this level."""
        return ("/m", f" / {self.outside}") if self.outside > 1 else ("", "")


Text = Callable[[Operands], tuple[str, str]]
"""Operands -> a formula, and the same with operands filled in."""


class Pattern(Struct, frozen=True):
    """One way in which devices are linked.

    Args:
        cost: (kind, group, level, whether it is the fastest level) -> (steps, factor); see `topology.formulas`.
        reduction: text for those of `REDUCTIONS`.
        exchange: text for an all-to-all.
        named: what the links of a group are called.
        algorithm: (kind, group, level, whether it is the fastest level) -> what the field calls the collective here.
    """

    cost: Callable[[str, LevelGroup, Level, bool], Cost]
    reduction: Text
    exchange: Text
    named: Callable[[LevelGroup], str]
    algorithm: Callable[[str, LevelGroup, Level, bool], str]


def _switch_cost(kind: str, part: LevelGroup, level: Level, first: bool) -> Cost:
    return switch(kind, part.count, tree=not first, in_network_reduction=level.in_network_reduction)


def _switch_reduction(operands: Operands) -> tuple[str, str]:
    whole, rate = operands.whole, operands.rate
    if operands.level.in_network_reduction and operands.kind == ALL_REDUCE:
        return f"V/({'m' if operands.inside > 1 else '1'} W)", f"{whole} / {operands.inside} / {rate}"
    over, below = operands.over
    return f"{operands.two}V(n-1)/({over} W)", f"{operands.twice}{whole} × {operands.n - 1}/{below} / {rate}"


def _switch_exchange(operands: Operands) -> tuple[str, str]:
    split, beyond = operands.beyond
    n, held = operands.n, format_bytes(operands.held)
    return f"L(n-1)/(n W){split}", f"{held} × {n - 1}/{n}{beyond} / {operands.rate}"


def _switch_algorithm(kind: str, part: LevelGroup, level: Level, first: bool) -> str:
    if kind == PERMUTE:
        return "direct"
    if kind == ALL_TO_ALL:
        return "pairwise"
    if kind == ALL_REDUCE and level.in_network_reduction:
        return "reduced in the switch"
    return "tree" if kind == ALL_REDUCE and not first else "ring"


def _full_cost(kind: str, part: LevelGroup, level: Level, first: bool) -> Cost:
    return full(kind, part.count)


def _full_reduction(operands: Operands) -> tuple[str, str]:
    over, below = operands.over
    return f"{operands.two}V/({over} W)", f"{operands.twice}{operands.whole} / {below} / {operands.rate}"


def _full_exchange(operands: Operands) -> tuple[str, str]:
    split, beyond = operands.beyond
    return f"L/(n W){split}", f"{format_bytes(operands.held)} / {operands.n}{beyond} / {operands.rate}"


def _torus_cost(kind: str, part: LevelGroup, level: Level, first: bool) -> Cost:
    return torus(kind, part.parts)


def _torus_reduction(operands: Operands) -> tuple[str, str]:
    over, below = operands.over
    links = f"({_links(operands.part):g} × {operands.rate})"
    return (
        f"{operands.two}V(n-1)/({over} k W)",
        f"{operands.twice}{operands.whole} × {operands.n - 1}/{below} / {links}",
    )


def _torus_exchange(operands: Operands) -> tuple[str, str]:
    split, beyond = operands.beyond
    longest = max(operands.part.parts, key=lambda segment: segment.size)
    two = "2 " if longest.wraps else ""
    _, factor = torus(ALL_TO_ALL, operands.part.parts)
    held = format_bytes(operands.held)
    return f"L floor(n²/4)/({two}n W){split}", f"{held} × {factor:g}{beyond} / {operands.rate}"


def _torus_named(part: LevelGroup) -> str:
    if len(part.parts) > 1:
        return "torus " + "x".join(str(segment.size) for segment in part.parts)
    return "bidirectional ring" if part.parts[0].wraps else "line"


def _torus_algorithm(kind: str, part: LevelGroup, level: Level, first: bool) -> str:
    if kind == PERMUTE:
        return "farthest shift"
    return "torus" if len(part.parts) > 1 else _torus_named(part)


def _links(part: LevelGroup) -> float:
    """Links into a device that a gather over these torus segments keeps busy, shared ones counted by their share."""
    _, gathered = torus(ALL_GATHER, part.parts)
    return float((part.count - 1) / gathered)


SWITCH = Pattern(_switch_cost, _switch_reduction, _switch_exchange, lambda part: "switch", _switch_algorithm)
FULL = Pattern(_full_cost, _full_reduction, _full_exchange, lambda part: "full", lambda *_: "direct")
TORUS = Pattern(_torus_cost, _torus_reduction, _torus_exchange, _torus_named, _torus_algorithm)

PATTERNS = {"switch": SWITCH, "full": FULL, "torus": TORUS, "ring": TORUS, "line": TORUS}
"""Kind of a level -> how its devices are linked."""


def level_cost(kind: str, group: LevelGroup, level: Level, *, first: bool) -> Cost:
    """(steps, factor) of a collective on one level; see `einscale.topology.formulas`."""
    return PATTERNS[level.kind].cost(kind, group, level, first)


def level_text(operands: Operands) -> tuple[str, str]:
    """(formula, the same with operands) of one level's term: V is the whole array of the group, L one device's."""
    pattern = PATTERNS[operands.level.kind]
    if operands.kind in REDUCTIONS:
        return pattern.reduction(operands)
    if operands.kind == ALL_TO_ALL:
        return pattern.exchange(operands)
    _, factor = pattern.cost(PERMUTE, operands.part, operands.level, True)
    hops = f" × {factor:g}" if factor != 1 else ""
    return ("L k/W" if hops else "L/W"), f"{format_bytes(operands.held)}{hops} / {operands.rate}"
