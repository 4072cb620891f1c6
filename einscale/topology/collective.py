"""One collective on its own: from its name, the bytes of the whole array and mesh axes, to times on a bound mesh."""

from __future__ import annotations

from msgspec import Struct

from einscale.collectives import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, PERMUTE, REDUCE_SCATTER
from einscale.errors import MeshError, UsageError, did_you_mean
from einscale.mesh import Mesh, split_name
from einscale.numeric import as_int, ceil_div, product
from einscale.topology.algorithms import Algorithm, algorithms
from einscale.topology.formulas import MOVES
from einscale.topology.network import Network
from einscale.topology.price import Formula, explain
from einscale.vocabulary import CollectiveKind

SPELLINGS = {
    "allgather": ALL_GATHER,
    "reducescatter": REDUCE_SCATTER,
    "psumscatter": REDUCE_SCATTER,
    "allreduce": ALL_REDUCE,
    "psum": ALL_REDUCE,
    "alltoall": ALL_TO_ALL,
    "permute": PERMUTE,
    "collectivepermute": PERMUTE,
    "ppermute": PERMUTE,
    "sendrecv": PERMUTE,
    "ag": ALL_GATHER,
    "rs": REDUCE_SCATTER,
    "ar": ALL_REDUCE,
    "a2a": ALL_TO_ALL,
}
"""Names of collectives in other tools, case, `-` and `_` left out."""

SHARDED = (ALL_GATHER, ALL_TO_ALL, PERMUTE)
"""Collectives before which each device holds a part of the array, one n-th; before the others it holds all of it."""

SIZES = tuple(2**power for power in range(10, 35, 2))
"""Bytes of the whole array that a table runs over: 1 KiB to 16 GiB."""


def move_name(text: str) -> CollectiveKind:
    """The name einscale has for a collective, from any usual spelling.

    >>> print(move_name("AllReduce"), move_name("reduce_scatter"), move_name("collective-permute"))
    all-reduce reduce-scatter permute

    Raises:
        UsageError: no such collective.
    """
    folded = text.strip().casefold().replace("-", "").replace("_", "").replace(" ", "")
    if folded in SPELLINGS:
        return SPELLINGS[folded]
    shown = text if len(text) <= 60 else text[:60] + "…"
    raise UsageError(f"no collective is called `{shown}`", hint=did_you_mean(shown.casefold(), MOVES, "collectives"))


def group_axes(axes: str, mesh: Mesh) -> tuple[str, ...]:
    """Mesh axes (or sub-axes) named in `data,model`, in mesh order.

    >>> from einscale.mesh import parse_mesh
    >>> group_axes("model,data", parse_mesh("data=4,model=8"))
    ('data', 'model')

    Raises:
        MeshError: an axis is missing, named twice, or a part that does not divide its axis.
    """
    found: list[str] = []
    position = 0
    for part in axes.split(","):
        name = part.strip()
        start = position + len(part) - len(part.lstrip())
        span = (start, max(start + 1, start + len(name)))
        axis, before, size = split_name(name)
        if not name:
            raise MeshError("a mesh axis is missing", text=axes, span=span, expected=f"one of {', '.join(mesh.names)}")
        if axis not in mesh.names:
            raise MeshError(
                f"the mesh {mesh} has no axis `{axis}`",
                text=axes,
                span=span,
                hint=did_you_mean(axis, mesh.names, "the mesh has"),
            )
        if size is not None and (before < 1 or size < 1 or mesh.size(axis) % (before * size)):
            raise MeshError(f"mesh axis `{axis}` of {mesh.size(axis)} has no part `{name}`", text=axes, span=span)
        if axis in (split_name(other)[0] for other in found):
            raise MeshError(f"mesh axis `{axis}` is named twice", text=axes, span=span)
        found.append(name)
        position += len(part) + 1
    return tuple(sorted(found, key=lambda name: mesh.names.index(split_name(name)[0])))


class Alone(Struct, frozen=True):
    """A collective on its own, per device of one group; every group of the mesh runs it at the same time.

    Args:
        kind: the collective.
        axes: the mesh axes that make a group, in mesh order.
        network: the mesh bound to the links of a system.
        whole: bytes of the whole array of one group, V: gathered, or owed before it is reduced.
        devices: devices of one group, n.
        held: bytes a device holds before the move: V/n, rounded up, where the array is sharded, else V.
        after: bytes it holds after the move.
        received: bytes it receives, rounded up.
        formula: the time that plans are priced with, in words.
        algorithms: that time first, then other ways to run the collective on the same links.
    """

    kind: CollectiveKind
    axes: tuple[str, ...]
    network: Network
    whole: int
    devices: int
    held: int
    after: int
    received: int
    formula: Formula
    algorithms: tuple[Algorithm, ...]

    @property
    def priced(self) -> Algorithm | None:
        """What plans are priced with; None for a group of one device, where nothing moves."""
        return self.algorithms[0] if self.algorithms else None

    @property
    def fastest(self) -> Algorithm | None:
        """The algorithm with the least modelled time; the priced one where several tie."""
        return min(self.algorithms, key=lambda way: way.seconds) if self.algorithms else None

    @property
    def seconds(self) -> float:
        """Time that plans are priced with."""
        return self.priced.seconds if self.priced else 0.0

    @property
    def groups(self) -> int:
        """Groups of the mesh that run it at the same time."""
        return self.network.mesh.devices // self.devices

    @property
    def whole_bytes_per_second(self) -> float:
        """Bytes of the whole array in a second; 0 where nothing moves."""
        return self.whole / self.seconds if self.seconds else 0.0

    @property
    def received_bytes_per_second(self) -> float:
        """Bytes a device receives in a second, which nccl-tests call bus bandwidth; 0 where nothing moves."""
        return self.received / self.seconds if self.seconds else 0.0

    def even_bytes(self, algorithm: Algorithm) -> float:
        """V at which latency is half of an algorithm's time: larger arrays are bandwidth-bound."""
        return algorithm.even_held * (self.devices if self.kind in SHARDED else 1)


def over_sizes(alone: Alone) -> tuple[Alone, ...]:
    """The same collective on arrays of `SIZES`."""
    return tuple(price_alone(alone.kind, whole, alone.axes, alone.network) for whole in SIZES)


def price_alone(kind: str, whole: int, axes: tuple[str, ...], network: Network) -> Alone:
    """Price one collective on an array of `whole` bytes per group.

    >>> from einscale.hardware import load_system
    >>> from einscale.mesh import parse_mesh
    >>> from einscale.topology import bind
    >>> network = bind(parse_mesh("data=4,model=8"), load_system("h100").ideal())
    >>> gather = price_alone("all-gather", 2**30, ("model",), network)
    >>> gather.held == 2**27, gather.after == 2**30, gather.received == 7 * 2**27
    (True, True, True)

    Raises:
        MeshError: the mesh has no such axis.
        UsageError: no such collective.
    """
    n = as_int(product(network.mesh.size(name) for name in axes))
    held = as_int(ceil_div(whole, n)) if kind in SHARDED else whole
    after = held * n if kind == ALL_GATHER else as_int(ceil_div(held, n)) if kind == REDUCE_SCATTER else held
    formula = explain(kind, axes, held, network)
    ways = algorithms(kind, axes, held, network)
    return Alone(formula.kind, axes, network, whole, n, held, after, _received(kind, held, n), formula, ways)


def _received(kind: str, held: int, n: int) -> int:
    """Bytes a device receives (see `einscale.collectives`); a permute counts as one that moves every block."""
    if kind == PERMUTE:
        return held if n > 1 else 0
    if kind == ALL_GATHER:
        return held * (n - 1)
    return int(ceil_div((2 if kind == ALL_REDUCE else 1) * held * (n - 1), n))
