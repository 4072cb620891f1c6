"""Other ways to run a collective on the same links, priced beside the one that plans are priced with.

Latency is launch + steps x hop, as in `einscale.topology.formulas`; V is the bytes of the whole array of one group, L
the bytes a device holds before the move, n the group. log2(n) is rounded up. One-shot and two-shot are kernels that
read the memory of all peers at once, which only a network inside a node allows. What a message costs its sender beside
a step's latency is not counted. Sources: R. Thakur, R. Rabenseifner, W. Gropp, Optimization of Collective Communication
Operations in MPICH, IJHPCA 19(1), 2005 (recursive doubling and halving, Bruck); How To Scale Your Model (rings, tori,
switches); NCCL, src/graph/tuning.cc (rings over several nodes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from msgspec import Struct

from einscale.collectives import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, PERMUTE, REDUCE_SCATTER
from einscale.hardware import Level
from einscale.numeric import as_float, as_int, log2_ceil
from einscale.topology.formulas import Cost, Segment, ring, torus
from einscale.topology.network import Network
from einscale.topology.patterns import FULL, PATTERNS, REDUCTIONS, SWITCH, TORUS, LevelGroup, Pattern
from einscale.topology.price import Formula, coefficients, explain, groups
from einscale.units import format_bytes, format_seconds
from einscale.vocabulary import CollectiveKind


class Algorithm(Struct, frozen=True):
    """One way to run a collective.

    Args:
        name: what the field calls it.
        priced: whether plans are priced with it.
        held: bytes a device holds before the move.
        alpha: seconds of latency.
        beta: seconds per byte of `held`.
        formula: bytes and latency with operands filled in.
    """

    name: str
    priced: bool
    held: int
    alpha: float
    beta: float
    formula: str

    @property
    def seconds(self) -> float:
        """Time of the collective."""
        return self.at(self.held)

    @property
    def latency_share(self) -> float:
        """Part of the time that is latency."""
        return self.alpha / self.seconds if self.seconds else 0.0

    @property
    def even_held(self) -> float:
        """Bytes held before the move at which latency is half of the time: with more it is bandwidth-bound."""
        return self.alpha / self.beta

    def at(self, held: float) -> float:
        """Time if a device holds so many bytes before the move."""
        return self.alpha + self.beta * held


def algorithms(kind: str, axes: tuple[str, ...], held: int, network: Network) -> tuple[Algorithm, ...]:
    """Ways to run a collective over mesh axes, the one that plans are priced with first; none for a group of one.

    >>> from einscale.hardware import load_system
    >>> from einscale.mesh import parse_mesh
    >>> from einscale.topology import bind
    >>> network = bind(parse_mesh("data=4,model=8"), load_system("h100"))
    >>> [way.name for way in algorithms("all-reduce", ("model",), 2**20, network)]
    ['ring', 'bidirectional ring', 'tree', 'tree, whole array', 'switch two-shot', 'switch one-shot']
    >>> [way.name for way in algorithms("all-gather", ("data", "model"), 2**20, network)]
    ['hierarchical', 'hierarchical, one level after the other', 'ring through all devices']

    Raises:
        MeshError: the mesh has no such axis.
        UsageError: no such collective.
    """
    formula = explain(kind, axes, held, network)
    if not formula.terms:
        return ()
    parts = groups(axes, network)
    used = [(part, level) for part, level in zip(parts, network.system.levels, strict=True) if part.count > 1]
    alpha, beta = map(as_float, coefficients(kind, axes, network))
    if len(used) > 1:
        name = "direct" if kind == PERMUTE else "hierarchical"
        first = Algorithm(name, True, held, alpha, beta, str(formula))
        return first, *_across(kind, held, formula, parts, network)
    part, level = used[0]
    name = PATTERNS[level.kind].algorithm(kind, part, level, level is network.system.levels[0])
    first = Algorithm(name, True, held, alpha, beta, str(formula))
    return first, *(other for other in _on_level(kind, part, level, held) if other.name != name)


def _make(name: str, cost: Cost, level: Level, held: int, words: str, operands: str = "") -> Algorithm:
    """An algorithm of so many steps that sends factor x L over a link or port."""
    steps, factor = float(cost[0]), float(cost[1])
    alpha = level.launch.used + steps * level.hop.used
    beta = factor / level.bandwidth.used
    operands = operands or f"{format_bytes(held)} × {factor:.4g}"
    sent = f"{words} = {operands} / {level.bandwidth.used / 1e9:g} GB/s = {format_seconds(beta * held)}"
    waits = [f"{steps:g} × {format_seconds(level.hop.used)}"] if steps * level.hop.used else []
    waits += [format_seconds(level.launch.used)] if level.launch.used else []
    return Algorithm(name, False, held, alpha, beta, _sentence(sent, waits, alpha, alpha + beta * held))


def _sentence(sent: str, waits: list[str], alpha: float, seconds: float) -> str:
    """Bytes, latency and their sum, as `Formula` writes them."""
    if not alpha:
        return sent
    return f"{sent}; latency {' + '.join(waits)} = {format_seconds(alpha)}; together {format_seconds(seconds)}"


def _share(kind: str, n: int) -> float:
    """Bytes into every device as a multiple of L, at the least, for a collective of `REDUCTIONS`."""
    return n - 1 if kind == ALL_GATHER else _twice(kind) * (n - 1) / n


def _twice(kind: str) -> int:
    """An all-reduce is a scatter and a gather."""
    return 2 if kind == ALL_REDUCE else 1


def _least(kind: str, n: int, held: int) -> tuple[str, str]:
    """The formula of the least bytes into every device, and its operands, for a collective of `REDUCTIONS`."""
    whole = format_bytes(held * n if kind == ALL_GATHER else held)
    two, twice = ("2", "2 × ") if kind == ALL_REDUCE else ("", "")
    return f"{two}V(n-1)/(n W)", f"{twice}{whole} × {n - 1}/{n}"


def _closes_a_ring(part: LevelGroup) -> bool:
    """Whether neighbours of a group are neighbours on the wire, the last one of the first."""
    return len(part.parts) == 1 and bool(part.parts[0].wraps) and part.parts[0].stride == 1


def _in_turn(kind: str, parts: tuple[Segment, ...]) -> Cost:
    """(steps, factor) of a collective that runs over one torus dim after the other.

    A gather begins on the minor dim and a scatter on the major one, so that each deals with contiguous parts; a gather
    finds L, L x n1, L x n1 x n2, ..., a scatter the quotients. An all-reduce scatters, then gathers the same way back.
    """
    steps: float = 0
    factor: float = 0
    scale = 1.0
    for part in reversed(parts) if kind == ALL_GATHER else parts:
        some, share = torus(kind, (part,))
        steps, factor = steps + as_float(some), factor + as_float(share) * scale
        scale *= as_float(part.size if kind == ALL_GATHER else 1 if kind == ALL_TO_ALL else 1 / part.size)
    return steps, factor


class Way(Struct, frozen=True):
    """One row: a way to run some collectives on the links of one level, its cost and its text together.

    Args:
        name: what the field calls it.
        links: kinds of links it runs on.
        kinds: the collectives it runs.
        cost: (kind, group) -> (steps, factor): what it waits for, and what it sends as a multiple of L.
        text: the bytes it sends as a formula; "" for the least there is.
        inside: only inside a node, where one device reads the memory of the others.
        where: groups it runs on.
    """

    name: str
    links: tuple[Pattern, ...]
    kinds: tuple[CollectiveKind, ...]
    cost: Callable[[str, LevelGroup], Cost]
    text: str = ""
    inside: bool = False
    where: Callable[[LevelGroup], bool] = lambda part: True

    def algorithm(self, kind: str, part: LevelGroup, level: Level, held: int) -> Algorithm:
        """The way with its operands filled in."""
        words = (self.text, "") if self.text else _least(kind, int(part.count), held)
        return _make(self.name, self.cost(kind, part), level, held, *words)


def _per_group(cost: Callable[[str, int, int], Cost]) -> Callable[[str, LevelGroup], Cost]:
    """A cost of a group by its number of devices and the rounds of a tree over them."""
    return lambda kind, part: cost(kind, int(part.count), as_int(log2_ceil(part.count)))


WAYS = (
    Way(
        "ring", (SWITCH, FULL), REDUCTIONS, _per_group(lambda kind, n, depth: (_twice(kind) * (n - 1), _share(kind, n)))
    ),
    Way(
        "bidirectional ring",
        (SWITCH,),
        REDUCTIONS,
        _per_group(lambda kind, n, depth: (_twice(kind) * (n // 2), _share(kind, n))),
    ),
    Way("pairwise", (SWITCH,), (ALL_TO_ALL,), _per_group(lambda kind, n, depth: (n - 1, (n - 1) / n)), "L(n-1)/(n W)"),
    Way("tree", (SWITCH, FULL), REDUCTIONS, _per_group(lambda kind, n, depth: (_twice(kind) * depth, _share(kind, n)))),
    Way(
        "tree",
        (SWITCH, FULL),
        (ALL_TO_ALL,),
        _per_group(lambda kind, n, depth: (depth, depth / 2)),
        "L log₂(n)/(2 W)",
    ),
    Way(
        "tree, whole array", (SWITCH,), (ALL_REDUCE,), _per_group(lambda kind, n, depth: (depth, depth)), "V log₂(n)/W"
    ),
    Way(
        "switch two-shot",
        (SWITCH,),
        (ALL_REDUCE,),
        _per_group(lambda kind, n, depth: (2, _share(kind, n))),
        inside=True,
    ),
    Way(
        "switch one-shot",
        (SWITCH,),
        (ALL_GATHER, REDUCE_SCATTER),
        _per_group(lambda kind, n, depth: (1, _share(kind, n))),
        inside=True,
    ),
    Way(
        "switch one-shot",
        (SWITCH,),
        (ALL_REDUCE,),
        _per_group(lambda kind, n, depth: (1, n - 1)),
        "V(n-1)/W",
        inside=True,
    ),
    Way(
        "switch one-shot",
        (SWITCH,),
        (ALL_TO_ALL,),
        _per_group(lambda kind, n, depth: (1, (n - 1) / n)),
        "L(n-1)/(n W)",
        inside=True,
    ),
    Way(
        "torus, one dim after the other",
        (TORUS,),
        (*REDUCTIONS, ALL_TO_ALL),
        lambda kind, part: _in_turn(kind, part.parts),
        "L k/W, k summed over dims",
        where=lambda part: len(part.parts) > 1,
    ),
    Way("one-way ring", (TORUS,), REDUCTIONS, lambda kind, part: ring(kind, part.count), where=_closes_a_ring),
    Way(
        "one-way ring",
        (TORUS,),
        (ALL_TO_ALL,),
        lambda kind, part: ring(kind, part.count),
        "L(n-1)/(2 W)",
        where=_closes_a_ring,
    ),
)
"""Ways to run a collective on one level, beside what plans are priced with there. One more is one more row."""


def _on_level(kind: str, part: LevelGroup, level: Level, held: int) -> Iterator[Algorithm]:
    """Every way of `WAYS` that runs a collective on a level."""
    pattern = PATTERNS[level.kind]
    for way in WAYS:
        fits = pattern in way.links and kind in way.kinds and way.where(part)
        if fits and (level.domain is not None or not way.inside):
            yield way.algorithm(kind, part, level, held)


def _across(
    kind: str, held: int, formula: Formula, parts: tuple[LevelGroup, ...], network: Network
) -> Iterator[Algorithm]:
    """A hierarchy whose levels take turns; one ring through all devices that uses every port between nodes."""
    if kind == PERMUTE:
        return
    beta = sum(term.seconds for term in formula.terms) / held
    terms = " + ".join(f"{term.level} {format_seconds(term.seconds)}" for term in formula.terms)
    alpha = formula.latency_seconds
    words = _sentence(f"{terms} = {format_seconds(beta * held)}", [formula.latency], alpha, alpha + beta * held)
    yield Algorithm("hierarchical, one level after the other", False, held, alpha, beta, words)
    if kind in REDUCTIONS and all(level.kind == "switch" for level in network.system.levels):
        yield _flat_ring(kind, held, parts, network)


def _flat_ring(kind: str, held: int, parts: tuple[LevelGroup, ...], network: Network) -> Algorithm:
    """Rings through all devices, one for each port of a node, so that all ports between nodes are busy (NCCL).

    Of the steps, nodes - 1 cross to another node; the bytes go at the slower of a port inside and all ports outside.
    """
    twice = 2 if kind == ALL_REDUCE else 1
    n = math.prod(int(part.count) for part in parts)
    inside, hops, launch = 1, 0.0, 0.0
    rates: list[tuple[float, str]] = []
    waits: list[str] = []
    for part, level in zip(parts, network.system.levels, strict=True):
        count = int(part.count)
        if count > 1:
            crossing = twice * (n // (inside * count)) * (count - 1)
            hops += crossing * level.hop.used
            waits.append(f"{crossing} × {format_seconds(level.hop.used)}")
            rates.append((inside * level.bandwidth.used, level.name))
            launch = max(launch, level.launch.used)
        inside *= count
    rate, narrow = min(rates)
    alpha, beta = launch + hops, _share(kind, n) / rate
    words, operands = _least(kind, n, held)
    sent = f"{words} = {operands} / {rate / 1e9:g} GB/s of {narrow} = {format_seconds(beta * held)}"
    sentence = _sentence(sent, [*waits, format_seconds(launch)], alpha, alpha + beta * held)
    return Algorithm("ring through all devices", False, held, alpha, beta, sentence)
