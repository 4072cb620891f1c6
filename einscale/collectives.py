"""The moves between layouts: what each does to a layout, and the exact bytes it makes devices receive.

With L the local bytes before a move over a group of n devices, a device receives: all-gather L(n-1), reduce-scatter
L(n-1)/n, all-reduce 2L(n-1)/n, all-to-all L(n-1)/n, permute L if its block changes. These are the amounts of the
bandwidth-optimal algorithms; the first three are also what NCCL's documentation calls bus bytes. Totals over the mesh
are whole numbers, so they are carried as totals and rounded once, where a per-device figure is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

from msgspec import Struct

from einscale.causes import Cause
from einscale.digits import Digits, changed, digits_of, overlap
from einscale.errors import LayoutError
from einscale.expert_spread import distinct_share
from einscale.layout import Layout, Tensor, check_layout, local_bytes, shards
from einscale.mesh import Mesh, MeshAxis
from einscale.numeric import Number, ceil_div, divide_exact, is_array, product, tabulated
from einscale.vocabulary import CollectiveKind

SLICE = CollectiveKind.SLICE
MASK = CollectiveKind.MASK
ALL_GATHER = CollectiveKind.ALL_GATHER
REDUCE_SCATTER = CollectiveKind.REDUCE_SCATTER
ALL_REDUCE = CollectiveKind.ALL_REDUCE
ALL_TO_ALL = CollectiveKind.ALL_TO_ALL
PERMUTE = CollectiveKind.PERMUTE

FREE = (SLICE, MASK)
"""Moves that send nothing: taking one's part of a replicated dim; keeping a value on one device, zeros elsewhere."""

KINDS = tuple(CollectiveKind)


class Amount(Struct, frozen=True):
    """What one device receives in a collective over n, L being the bytes it holds before: times x L(n-1), or that / n.

    Args:
        text: the amount as a formula.
        times: how often the array passes.
        shared: each device receives 1/n of it only.
    """

    text: str
    times: int = 1
    shared: bool = True


AMOUNTS = {
    ALL_GATHER: Amount("L(n-1)", shared=False),
    REDUCE_SCATTER: Amount("L(n-1)/n"),
    ALL_REDUCE: Amount("2L(n-1)/n", times=2),
    ALL_TO_ALL: Amount("L(n-1)/n"),
}
"""Collective -> what a device receives. A permute moves L to each device whose block changes, and to no other."""


class Collective(Struct, frozen=True):
    """One move of one tensor from a layout to another, over a set of mesh axes at once.

    Args:
        kind: which move.
        tensor: what moves.
        axes: the mesh axes (or sub-axes) it runs over, in mesh order, major to minor.
        before: layout before the move.
        after: layout after it.
        cause: which rule, index and axes made it necessary; None where nothing says.
        streamed: it goes around a ring block by block while the work that needs it runs: the same bytes in n - 1 steps,
            two blocks alive.
        distinct: for an all-to-all of the copies of tokens, how many different experts each has: a device that holds
            several of them receives one copy. 0 where every copy moves.
        limited: (groups of experts, groups that those of one token lie in); empty for no limit.
    """

    kind: CollectiveKind
    tensor: Tensor
    axes: tuple[str, ...]
    before: Layout
    after: Layout
    cause: Cause | None = None
    streamed: bool = False
    distinct: int = 0
    limited: tuple[int, ...] = ()

    def __str__(self) -> str:
        indices = self.tensor.indices
        over = ",".join(self.axes)
        return f"{self.kind}({over}) {self.tensor.name}: {self.before.text(indices)} -> {self.after.text(indices)}"


def changed_blocks(step: Collective, mesh: Mesh) -> int:
    """How many devices of the mesh end a permute with another block than they began with.

    >>> from einscale.layout import make_layout
    >>> from einscale.mesh import make_mesh
    >>> weight, before, after = Tensor("W", ("d",)), make_layout([("x", "y")]), make_layout([("y", "x")])
    >>> swap = Collective(PERMUTE, weight, ("x", "y"), before, after)
    >>> changed_blocks(swap, make_mesh("x=2,y=4")), changed_blocks(swap, make_mesh("x=4,y=4"))
    (6, 12)

    Raises:
        LayoutError: the two layouts divide a dim into different numbers of shards.
    """
    digits = digits_of(mesh, step.before.axes + step.after.axes)
    before, after = digits.dims(step.before.dims), digits.dims(step.after.dims)
    counts = 1
    for one, other in zip(before, after, strict=True):
        if digits.size(one) != digits.size(other):
            raise LayoutError(f"a permute keeps the number of shards of every dim; this one does not: {step}")
        counts *= digits.size(one)
    same, of = overlap(before, after, digits.radices)
    return mesh.devices - int(divide_exact(mesh.devices * counts * same, of))


def received_total(step: Collective, sizes: Mapping[str, Number], mesh: Mesh) -> Number:
    """Bytes received, summed over every device of the mesh: an exact int on ints.

    >>> from einscale.layout import make_layout
    >>> from einscale.mesh import make_mesh
    >>> weight = Tensor("W", ("d", "f"), "bf16")
    >>> gather = Collective(ALL_GATHER, weight, ("x",), make_layout([("x",), ()]), make_layout([(), ()]))
    >>> received_total(gather, {"d": 8, "f": 16}, make_mesh("x=4"))  # 4 devices, 3/4 of 256 bytes each
    768
    """
    return received_by_degrees(step, sizes, mesh.degrees)


def received_by_degrees(
    step: Collective, sizes: Mapping[str, Number], degrees: Mapping[str, Number], held: Number | None = None
) -> Number:
    """`received_total` with the mesh given as axis -> devices, major to minor; sizes and degrees may be arrays.

    Args:
        step: the move.
        sizes: index -> size.
        degrees: mesh axis -> devices.
        held: bytes one device holds before the move, where they are known already.
    """
    devices = product(degrees.values())
    local = local_bytes(step.tensor, step.before, sizes, degrees) if held is None else held
    if step.kind in FREE:
        return devices * local * 0
    if step.kind == PERMUTE:
        if not any(map(is_array, degrees.values())):
            return local * changed_blocks(step, _mesh(tuple(degrees.items())))
        blocks = tabulated(lambda *counts: changed_blocks(step, _mesh(tuple(zip(degrees, counts, strict=True)))))
        moved: Number = local * blocks(*degrees.values())
        return moved
    group, amount = shards(step.axes, degrees), AMOUNTS[step.kind]
    total = (divide_exact(devices, group) if amount.shared else devices) * local * (group - 1)
    if step.distinct:
        share = sent_share(step, sizes, degrees)
        if isinstance(share, int | Fraction) and isinstance(total, int):
            return ceil_div(total * share.numerator, share.denominator)
        return total * (float(share) if isinstance(share, Fraction) else share)
    return total * amount.times


def sent_share(step: Collective, sizes: Mapping[str, Number], degrees: Mapping[str, Number]) -> Number:
    """What an all-to-all of tokens sends as a share of their copies: a device with several experts gets one.

    1 where every copy moves. Otherwise the expected number of devices that a token is sent to, out of all that the
    experts are divided over, by how many experts it has: an exact fraction on ints.

    >>> from einscale.layout import make_layout
    >>> sent = Tensor("sent", ("e", "b", "d"), "bf16", (("e", 2),))
    >>> before, after = make_layout([(), ("x",), ()]), make_layout([("x",), (), ()])
    >>> move = Collective(ALL_TO_ALL, sent, ("x",), before, after, distinct=2)
    >>> sent_share(move, {"e": 4, "b": 8, "d": 16}, {"x": 2})
    Fraction(5, 6)
    """
    if not step.distinct:
        return 1
    index, axes = divided_most(step)
    return distinct_share(sizes[index], shards(axes, degrees), step.distinct, *step.limited)


def divided_most(step: Collective) -> tuple[str, tuple[str, ...]]:
    """The index of which elements are chosen, and the mesh axes that divide it where it is divided most."""
    chosen = dict(step.tensor.chosen)
    pairs = zip(step.tensor.indices, step.before.dims, step.after.dims, strict=True)
    return next((index, max(one, other, key=len)) for index, one, other in pairs if index in chosen)


def received(step: Collective, sizes: Mapping[str, Number], mesh: Mesh) -> Number:
    """Bytes received per device: the total over the mesh divided by its devices, rounded up once."""
    return received_each(step, sizes, mesh.degrees)


def received_each(
    step: Collective, sizes: Mapping[str, Number], degrees: Mapping[str, Number], held: Number | None = None
) -> Number:
    """`received` with the mesh given as axis -> devices; arguments as for `received_by_degrees`."""
    return ceil_div(received_by_degrees(step, sizes, degrees, held), product(degrees.values()))


@lru_cache(maxsize=256)
def _mesh(degrees: tuple[tuple[str, int], ...]) -> Mesh:
    return Mesh(tuple(MeshAxis(name, size) for name, size in degrees))


def check_move(step: Collective, mesh: Mesh) -> None:
    """Raise unless the move is one that its collective makes: only the minor ends of dims change, and nothing is lost.

    >>> from einscale.layout import make_layout
    >>> from einscale.mesh import make_mesh
    >>> weight, before, after = Tensor("W", ("d",)), make_layout([("x", "y")]), make_layout([("y",)])
    >>> check_move(Collective(ALL_GATHER, weight, ("x",), before, after), make_mesh("x=2,y=4"))
    Traceback (most recent call last):
    einscale.errors.LayoutError: all-gather(x) W: d/x/y -> d/y is no move: an all-gather takes axes off the minor ends

    Raises:
        LayoutError: it is not.
    """
    check_layout(step.before, mesh, step.tensor.name)
    check_layout(step.after, mesh, step.tensor.name)
    rank = len(step.tensor.indices)
    if step.kind not in KINDS or len(step.before.dims) != rank or len(step.after.dims) != rank:
        raise LayoutError(f"{step} is no move: unknown kind, or a layout of another rank")
    digits = digits_of(mesh, (*step.before.axes, *step.after.axes, *step.axes))
    fault = _fault(step, digits)
    if fault:
        raise LayoutError(f"{step} is no move: {fault}")


def _fault(step: Collective, digits: Digits) -> str:
    """What is wrong with a move, in words; empty if nothing is."""
    before, after = digits.dims(step.before.dims), digits.dims(step.after.dims)
    owed, owes = set(digits.expand(step.before.unreduced)), set(digits.expand(step.after.unreduced))
    used = {digit for dim in before for digit in dim}
    lost = [one[len(other) :] if one[: len(other)] == other else None for one, other in zip(before, after, strict=True)]
    gain = [other[len(one) :] if other[: len(one)] == one else None for one, other in zip(before, after, strict=True)]
    gained = {digit for dim in gain if dim for digit in dim}
    moved = set(digits.expand(step.axes))
    if step.before.reduction != step.after.reduction and owed and owes:
        return "the owed reduction changes"
    match step.kind:
        case CollectiveKind.SLICE:
            good = None not in gain and owed == owes and moved == gained and not gained & (used | owed)
            rule = "a slice puts free axes on the minor ends"
        case CollectiveKind.MASK:
            good = before == after and owes == owed | moved and not moved & (used | owed)
            rule = "a mask makes free axes owe a sum"
        case CollectiveKind.ALL_GATHER:
            good = None not in lost and owed == owes and moved == {digit for dim in lost if dim for digit in dim}
            rule = "an all-gather takes axes off the minor ends"
        case CollectiveKind.REDUCE_SCATTER:
            good = None not in gain and moved == gained and gained <= owed and owes == owed - gained
            rule = "a reduce-scatter puts owed axes on the minor ends"
        case CollectiveKind.ALL_REDUCE:
            good = before == after and moved <= owed and owes == owed - moved
            rule = "an all-reduce settles owed axes and keeps the dims"
        case CollectiveKind.ALL_TO_ALL:
            ends = all(one is not None or other is not None for one, other in zip(lost, gain, strict=True))
            leaving = {digit for dim in lost if dim for digit in dim}
            good = ends and owed == owes and leaving == gained == moved
            rule = "an all-to-all moves axes from minor ends to minor ends, each dim only losing or only gaining"
        case _:
            counts = all(digits.size(a) == digits.size(b) for a, b in zip(before, after, strict=True))
            differ = {d for a, b in zip(before, after, strict=True) if a != b for d in (*a, *b)}
            least = set(changed(before, after, digits.radices))
            good = counts and owed == owes and least <= moved <= differ
            rule = "a permute keeps the number of shards of every dim, and its axes are those that change places"
    return "" if good else rule
