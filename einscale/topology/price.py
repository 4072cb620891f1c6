"""Seconds of collectives on a bound mesh: alpha-beta coefficients, elementwise prices, and the formula in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from einscale.collectives import FREE, Collective, divided_most
from einscale.expert_spread import distinct_share
from einscale.hardware import Level, System
from einscale.layout import local_bytes, shards
from einscale.numeric import Number, as_float, maximum, product, tabulated
from einscale.topology.formulas import Segment, check_kind, entering
from einscale.topology.network import AnyNetwork, Network, level_counts, segments, wraps
from einscale.topology.patterns import PATTERNS, TORUS, LevelGroup, Operands, level_cost, level_text
from einscale.units import format_seconds
from einscale.vocabulary import MODELLED, CollectiveKind, Provenance

PROVENANCE = MODELLED
"""What a collective's time is: a formula on the link figures of the system, not a measurement of the collective."""


def groups(axes: tuple[str, ...], network: Network) -> tuple[LevelGroup, ...]:
    """A group over mesh axes on each level, fast to slow."""
    counts = level_counts(axes, network)
    return tuple(
        LevelGroup(count, segments(axes, level, network) if network.shapes[level] else _alone(count, network, level))
        for level, count in enumerate(counts)
    )


def _alone(count: int, network: Network, level: int) -> tuple[Segment, ...]:
    """Segments where no torus shape could be made out: a line."""
    return (Segment(count, 1, 0),) if PATTERNS[network.system.levels[level].kind] is TORUS else ()


def alpha_beta(
    kind: str, parts: Sequence[LevelGroup], system: System, shares: Sequence[Number] = ()
) -> tuple[Number, Number]:
    """(seconds of latency, seconds per local byte) of a collective over groups on every level, elementwise.

    The levels work at the same time on their own shares of the data, so the slowest decides the bytes; latencies add,
    and the launch of the slowest-starting level is paid once. `shares` says per level what enters it where that is not
    what `entering` says.
    """
    check_kind(kind)
    counts = [part.count for part in parts]
    launch: Number = 0.0
    alpha: Number = 0.0
    beta: Number = 0.0
    for position, (part, level) in enumerate(zip(parts, system.levels, strict=True)):
        steps, factor = level_cost(kind, part, level, first=position == 0)
        scale = (
            shares[position]
            if shares
            else entering(kind, part.count, product(counts[:position]), product(counts[position + 1 :]))
        )
        beta = maximum(beta, factor * scale / level.bandwidth.used)
        alpha = alpha + steps * level.hop.used
        launch = maximum(launch, (part.count > 1) * level.launch.used)
    return alpha + launch, beta


def coefficients(kind: str, axes: tuple[str, ...], network: AnyNetwork) -> tuple[Number, Number]:
    """(alpha seconds, seconds per byte): a collective over mesh axes takes alpha + beta * L.

    L is the bytes one device holds before the move. Both are 0 for a group of one device and for the free moves `slice`
    and `mask`. A permute sends its full L, at the distance of the farthest shift on a torus.

    >>> from einscale.hardware import load_system
    >>> from einscale.mesh import parse_mesh
    >>> from einscale.topology import bind
    >>> network = bind(parse_mesh("data=4,model=8"), load_system("h100").ideal())
    >>> alpha, beta = coefficients("all-gather", ("data", "model"), network)
    >>> round(beta * 1e9 / 32 * 1e3, 2)  # ms to gather 1 GB
    1.94

    Raises:
        MeshError: the mesh has no such axis.
        UsageError: no such collective.
    """
    if isinstance(network, Network):
        return _coefficients(kind, axes, network)
    key = kind, axes
    if key not in network.kept:
        pairs = [_coefficients(kind, axes, one) for one in network.members]
        alpha, beta = (network.gather(column) for column in zip(*pairs, strict=True))
        network.kept[key] = alpha, beta
    return network.kept[key]


@lru_cache(maxsize=65536)
def _coefficients(kind: str, axes: tuple[str, ...], network: Network) -> tuple[float, float]:
    """The same on one network."""
    if kind in FREE:
        return 0.0, 0.0
    parts = groups(axes, network)
    if product(part.count for part in parts) == 1:
        check_kind(kind)
        return 0.0, 0.0
    alpha, beta = alpha_beta(kind, parts, network.system)
    return float(alpha), float(beta)


def seconds_on(kind: str, local_bytes: Number, counts_per_level: Sequence[Number], system: System) -> Number:
    """Seconds of a collective, elementwise on numpy arrays.

    Args:
        kind: the collective.
        local_bytes: bytes one device holds before the move.
        counts_per_level: group size on each level of the system, fast to slow (`split_levels` gives them); on a torus
            also a tuple of sizes, one per torus dim the group takes.
        system: the system.

    >>> from einscale.hardware import load_system
    >>> seconds_on("all-reduce", 1e9, (8, 1), load_system("h100").ideal())
    0.0039038888888888886
    """
    if kind in FREE:
        return local_bytes * 0.0
    parts = [_group(count, level) for count, level in zip(counts_per_level, system.levels, strict=True)]
    alpha, beta = alpha_beta(kind, parts, system)
    some = product(part.count for part in parts) > 1
    return (alpha + beta * local_bytes) * some


def _group(count: Number, level: Level) -> LevelGroup:
    """A group on a level, each torus extent a dim of its own."""
    if PATTERNS[level.kind] is not TORUS:
        return LevelGroup(count)
    sizes = count if isinstance(count, tuple) else (count,)
    parts = tuple(Segment(size, 1, wraps(size, level) * 1, dim) for dim, size in enumerate(sizes))
    return LevelGroup(product(sizes), parts)


def step_seconds(
    step: Collective, sizes: Mapping[str, Number], network: AnyNetwork, held: Number | None = None
) -> Number:
    """Seconds of one planned move on the busiest device, by the local bytes (padding included) before it.

    Args:
        step: the move.
        sizes: index -> size.
        network: the mesh on its links, or the meshes of many points.
        held: the local bytes, where they are known already.

    Raises:
        MeshError: the step's axes are not of this mesh.
    """
    if step.kind in FREE:
        return 0.0
    if held is None:
        degrees = network.mesh.degrees if isinstance(network, Network) else network.degrees
        held = local_bytes(step.tensor, step.before, sizes, degrees)
    if step.distinct:
        alpha, beta = _distinct_coefficients(step, sizes, network)
    else:
        alpha, beta = coefficients(step.kind, step.axes, network)
    return alpha + beta * held


def _distinct_coefficients(step: Collective, sizes: Mapping[str, Number], network: AnyNetwork) -> tuple[Number, Number]:
    """(alpha, beta) of an all-to-all of tokens that sends no copy twice, by how experts lie on each level."""
    members = (network,) if isinstance(network, Network) else network.members

    def one(member: int, elements: int, which: int) -> float:
        there = members[member]
        shares = level_shares(step, {divided_most(step)[0]: elements}, there)
        return float(alpha_beta(step.kind, groups(step.axes, there), there.system, shares)[which])

    elements = sizes[divided_most(step)[0]]
    member: Number = 0 if isinstance(network, Network) else network.which
    found = tabulated(one)
    return found(member, elements, 0), found(member, elements, 1)


def level_shares(step: Collective, sizes: Mapping[str, Number], network: Network) -> tuple[float, ...]:
    """Per level, fast to slow, what of the copies of tokens enters it in an all-to-all that sends no copy twice.

    A token crosses to each domain of a level once, however many of its experts lie there, and is passed on inside to
    the devices that hold them (DeepEP; DeepSeek-V3, arXiv 2412.19437, section 3.2.2): a slow level carries the expected
    number of its domains met, and the fastest that of devices.
    """
    degrees = network.mesh.degrees
    index, axes = divided_most(step)
    counts = level_counts(tuple(axis for axis in axes if axis in step.axes), network)
    elsewhere = shards((axis for axis in axes if axis not in step.axes), degrees)
    return tuple(
        float(distinct_share(sizes[index], elsewhere * product(counts[level:]), step.distinct, *step.limited))
        for level in range(len(counts))
    )


class LevelTerm(Struct, frozen=True):
    """What one network level does in a collective: the formula, the same with operands filled in, and its seconds."""

    level: str
    pattern: str
    expression: str
    filled: str
    seconds: float


class Formula(Struct, frozen=True):
    """The time of one collective: a term per level in use, the latency, and the sum of the slowest term and latency.

    `str()` is one line.
    """

    kind: CollectiveKind
    devices: int
    terms: tuple[LevelTerm, ...]
    latency: str
    latency_seconds: float
    seconds: float
    provenance: Provenance = PROVENANCE

    @property
    def slowest(self) -> LevelTerm | None:
        """The level that decides; None where nothing is sent."""
        return max(self.terms, key=lambda term: term.seconds) if self.terms else None

    def __str__(self) -> str:
        if not self.terms:
            return f"{self.kind}: free"
        shown = [
            f"{term.level} ({term.pattern}) {term.expression} = {term.filled} = {format_seconds(term.seconds)}"
            for term in self.terms
        ]
        bytes_part = shown[0] if len(shown) == 1 else "slowest of " + "; ".join(shown)
        if self.latency_seconds == 0:
            return bytes_part
        latency = f"latency {self.latency} = {format_seconds(self.latency_seconds)}"
        return f"{bytes_part}; {latency}; together {format_seconds(self.seconds)}"


def explain_step(step: Collective, sizes: Mapping[str, Number], network: Network) -> Formula:
    """The formula of a planned move with its operands filled in.

    >>> from einscale.hardware import load_system
    >>> from einscale.layout import Tensor, make_layout
    >>> from einscale.mesh import parse_mesh
    >>> from einscale.topology import bind
    >>> network = bind(parse_mesh("model=8"), load_system("h100").ideal())
    >>> gather = Collective("all-gather", Tensor("w", ("d",)), ("model",), make_layout([("model",)]), make_layout([()]))
    >>> print(explain_step(gather, {"d": 32 * 2**20}, network).slowest.filled)
    64 MiB × 7/8 / 450 GB/s
    """
    held = local_bytes(step.tensor, step.before, sizes, network.mesh.degrees)
    shares = level_shares(step, sizes, network) if step.distinct else ()
    return explain(step.kind, step.axes, as_float(held), network, shares)


def explain(kind: str, axes: tuple[str, ...], held: float, network: Network, shares: Sequence[float] = ()) -> Formula:
    """The formula of a collective over mesh axes on `held` bytes per device, its operands filled in.

    `shares` says per level what of them enters it, where an all-to-all of tokens sends no copy twice.
    """
    if kind not in FREE:
        check_kind(kind)
    kind = CollectiveKind(kind)
    if kind in FREE:
        return Formula(kind, 1, (), "", 0.0, 0.0)
    parts = groups(axes, network)
    counts = [part.count for part in parts]
    devices = int(product(counts))
    if devices == 1:
        return Formula(kind, 1, (), "", 0.0, 0.0)
    system = network.system
    terms: list[LevelTerm] = []
    waits: list[str] = []
    launch = 0.0
    for position, (part, level) in enumerate(zip(parts, system.levels, strict=True)):
        if part.count == 1:
            continue
        steps, factor = level_cost(kind, part, level, first=position == 0)
        inside, outside = int(product(counts[:position])), int(product(counts[position + 1 :]))
        share = shares[position] if shares else entering(kind, part.count, inside, outside)
        seconds = factor * share * held / level.bandwidth.used
        operands = Operands(kind, part, level, held, devices, inside, 1 if shares else outside)
        expression, filled = level_text(operands)
        if shares:
            expression, filled = f"D {expression}", f"{share:.3g} sent once × {filled}"
        terms.append(LevelTerm(level.name, PATTERNS[level.kind].named(part), expression, filled, float(seconds)))
        if steps * level.hop.used:
            waits.append(f"{steps:g} × {format_seconds(level.hop.used)}")
        launch = max(launch, level.launch.used)
    if launch:
        waits.append(format_seconds(launch))
    alpha, beta = alpha_beta(kind, parts, system, shares)
    seconds = float(alpha + beta * held)
    return Formula(kind, devices, tuple(terms), " + ".join(waits), float(alpha), seconds)
