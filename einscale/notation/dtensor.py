"""PyTorch's DTensor: one placement a mesh dim, `[Shard(0), Replicate(), Partial()]` or `S(0)RP(sum)`.

The forms are those of `torch.distributed.tensor` (`Shard`, `Replicate`, `Partial`, the private `_StridedShard`) and of
the strings its specs print, in which a number in brackets says which of the mesh dims that divide one dim comes first.
torch is never imported.
"""

from __future__ import annotations

from enum import StrEnum
from math import prod

from msgspec import Struct

from einscale.errors import NotationError, did_you_mean
from einscale.notation.foreign import (
    MOST_DIMS,
    DimLayout,
    Dims,
    MeshAxes,
    Reading,
    Scanner,
    lay_out,
    owed_axes,
    owing,
    stored_dims,
    whole_axes,
)
from einscale.notation.syntax import REDUCTIONS, Shard, Span, TensorSpec
from einscale.notation.tokens import Token, shorten
from einscale.vocabulary import SUM, Reduction

NAME = "DTensor"
_EXPECTED = "`[Shard(0), Replicate(), Partial()]`, one placement a mesh dim"
UNKNOWN_RANK = "placements do not say how many dims the tensor has: more may follow"
_UNKNOWN_OPS = {"avg": "an average", "product": "a product"}


class PlacementKind(StrEnum):
    """What PyTorch calls the placements of a mesh dim."""

    SHARD = "Shard"
    REPLICATE = "Replicate"
    PARTIAL = "Partial"
    STRIDED_SHARD = "_StridedShard"


_SHARD = (PlacementKind.SHARD, PlacementKind.STRIDED_SHARD)
_WORDS = {
    "S": PlacementKind.SHARD,
    "R": PlacementKind.REPLICATE,
    "P": PlacementKind.PARTIAL,
    "_S": PlacementKind.STRIDED_SHARD,
    "_Partial": PlacementKind.PARTIAL,
}


class DimPlacement(Struct, frozen=True):
    """What is done over one mesh dim.

    Args:
        kind: what is done.
        dim: the tensor dim that is divided.
        reduction: what a `Partial` owes.
        split: how many shards a `_StridedShard` finds there already.
        marks: the numbers in brackets behind it.
        span: where it stands.
    """

    kind: PlacementKind
    dim: int = 0
    reduction: Reduction = SUM
    split: int = 1
    marks: tuple[int, ...] = ()
    span: Span = (0, 0)

    @property
    def shards(self) -> bool:
        """Whether it divides a dim."""
        return self.kind in _SHARD


def _short_run(word: str) -> bool:
    """Whether a name is placements written without anything between them: `R`, `RRP`, `RS`."""
    return bool(word) and set(word) <= {"R", "P", "S"}


def read_dtensor(scanner: Scanner, dims: Dims | None = None, mesh: MeshAxes | None = None) -> Reading:
    """Placements, one a mesh dim in mesh order; they say nothing of the tensor's rank beyond the dims they divide.

    >>> mesh = (("dp", 2), ("tp", 4))
    >>> print(read_dtensor(Scanner("[Shard(0), Partial()]"), None, mesh).tensor)
    i/dp {U:tp}
    >>> print(read_dtensor(Scanner("[_StridedShard(dim=0, sf=4), Shard(dim=0)]"), None, mesh).tensor)
    i/tp/dp
    >>> print(read_dtensor(Scanner("S(0)[1]S(0)[0]"), None, mesh).tensor)
    i/tp/dp

    Args:
        scanner: where they stand; left behind them.
        dims: dims of the tensor, whose names it takes.
        mesh: the mesh; sizes count for `_StridedShard` only.

    Raises:
        NotationError: they are malformed, fit neither the mesh nor the dims, or say what no layout can.
    """
    if mesh is None:
        expected = "a mesh: its dims in order"
        raise scanner.fail("placements are listed by mesh dim, and the mesh is not known", expected=expected)
    start = scanner.peek()
    placements = _placements(scanner)
    given = _shard_order(scanner)
    span = scanner.since(start)
    rank = _rank(scanner, placements, dims, span)
    placements = [_counted(scanner, placement, rank) for placement in placements]
    by_mesh_dim = _one_a_mesh_dim(placements, mesh)
    orders = _by_dim(scanner, placements, mesh, span) if by_mesh_dim else _by_marks(scanner, placements, len(mesh))
    if given is not None:
        orders = _reordered(scanner, orders, given, span)
    names = [name for name, _ in mesh]
    spans = [placement.span for placement in placements] if by_mesh_dim else [span] * len(mesh)
    layouts = [
        DimLayout(tuple(Shard(names[k], spans[k]) for k in orders.get(dim, ())), span=span) for dim in range(rank)
    ]
    places = None if by_mesh_dim else _left(placements, len(mesh))
    owed, reduction = _owed(scanner, placements, places)
    laid = lay_out(scanner, layouts, dims, span, exact=False, what="divided dims")
    partial = owing([Shard(names[k], spans[k]) for k in owed], reduction, span)
    return Reading(TensorSpec(laid, partial=partial, span=span), () if dims is not None else (UNKNOWN_RANK,))


def _placements(scanner: Scanner) -> list[DimPlacement]:
    """The list, in brackets or written one after the other."""
    bracket = scanner.accept("[", "(")
    found: list[DimPlacement] = []
    while True:
        token = scanner.peek()
        if bracket and scanner.accept("]" if bracket.kind == "[" else ")"):
            return found
        if token.kind != "name" and not bracket:
            break
        found += _one(scanner)
        if len(found) > MOST_DIMS:
            raise scanner.fail("an absurd number of placements", expected=f"at most {MOST_DIMS}")
        if bracket and not scanner.accept(",") and scanner.peek().kind == "end":
            raise scanner.fail(f"`{bracket.kind}` is never closed", bracket, expected=_EXPECTED)
    if not found:
        raise scanner.fail("placements are missing", expected=_EXPECTED)
    return found


def _one(scanner: Scanner) -> list[DimPlacement]:
    """One placement, or several written as one word: `RRS(0)`."""
    token = scanner.need("name", "where a placement should stand", _EXPECTED)
    word = token.text
    if _short_run(word) and len(word) > 1:
        before = [_bare(scanner, letter, (token.start + k, token.start + k + 1)) for k, letter in enumerate(word[:-1])]
        last = Token("name", word[-1], token.stop - 1, token.stop)
        return [*before, _called(scanner, last)]
    return [_called(scanner, token)]


def _bare(scanner: Scanner, letter: str, span: Span) -> DimPlacement:
    """`R` or `P` without parentheses."""
    if letter == "S":
        raise scanner.fail("`S` without a dim", span, expected="`S(0)`")
    return DimPlacement(_WORDS[letter], span=span)


def _called(scanner: Scanner, token: Token) -> DimPlacement:
    """A placement by its name, its arguments and the numbers in brackets to come."""
    word = _WORDS.get(token.text, token.text)
    if word not in tuple(PlacementKind):
        hint = did_you_mean(token.text, tuple(PlacementKind), "placements are")
        if "Mask" in token.text:
            hint = "the partial sum of an embedding's lookup is `Partial()`"
        raise scanner.fail(f"unknown placement `{shorten(token.text)}`", token, expected=_EXPECTED, hint=hint)
    if scanner.peek().kind != "(":
        placement = _bare(scanner, token.text[0], token.span) if token.text in {"R", "P", "S"} else None
        if placement is None:
            raise scanner.fail(f"`(` is missing after `{token.text}`", token, expected=_EXPECTED)
        return placement
    kind = PlacementKind(word)
    dim, reduction, split = _arguments(scanner, token, kind)
    marks: list[int] = []
    if kind != PlacementKind.REPLICATE and scanner.follows("[", "number"):
        scanner.take()
        while True:
            marks.append(scanner.index("in the order of mesh dims")[0])
            if not scanner.accept(","):
                break
        scanner.need("]", "after the order of mesh dims")
    return DimPlacement(kind, dim, reduction, split, tuple(marks), scanner.since(token))


def _arguments(scanner: Scanner, token: Token, kind: PlacementKind) -> tuple[int, Reduction, int]:
    """(dim, reduction, split factor) in the parentheses of a placement."""
    scanner.take()
    dim, reduction, split = None, SUM, None
    while not scanner.accept(")"):
        key = scanner.take().text if scanner.follows("name", "=") else None
        if key is not None:
            scanner.take()
        if kind == PlacementKind.PARTIAL and key in {None, "reduce_op"}:
            reduction = _reduction(scanner)
        elif kind in _SHARD and (key == "dim" or (key is None and dim is None)):
            sign = -1 if scanner.accept("-") else 1
            dim = sign * scanner.index("where a dim should stand")[0]
        elif kind == PlacementKind.STRIDED_SHARD and key in {None, "sf", "split_factor"}:
            split = scanner.number("split factor")
        else:
            what = f"`{key}`" if key else f"`{shorten(scanner.peek().text)}`"
            raise scanner.fail(f"`{token.text}` takes no {what}", expected=_EXPECTED)
        scanner.separate(token, ")")
    if kind in _SHARD and dim is None:
        raise scanner.fail(f"`{token.text}` without a dim", scanner.since(token), expected="`Shard(0)`")
    if kind == PlacementKind.STRIDED_SHARD and split is None:
        raise scanner.fail(f"`{kind}` without a split factor", scanner.since(token), expected=f"`{kind}(0, sf=2)`")
    return dim or 0, reduction, split or 1


def _reduction(scanner: Scanner) -> Reduction:
    token = scanner.take()
    word = token.text.strip("'\"")
    if word in _UNKNOWN_OPS:
        message = f"a tensor that owes {_UNKNOWN_OPS[word]} has no layout here"
        raise scanner.fail(message, token, expected="`sum`, `max` or `min`")
    if word not in REDUCTIONS:
        hint = did_you_mean(word, REDUCTIONS, "reductions")
        raise scanner.fail(f"unknown reduction `{shorten(word)}`", token, hint=hint)
    return Reduction(word)


def _shard_order(scanner: Scanner) -> dict[int, tuple[int, ...]] | None:
    """`shard_order=(ShardOrderEntry(tensor_dim=0, mesh_dims=(1, 0)),)`, `((0, (1, 0)),)` or `{0: [1, 0]}`."""
    if not scanner.follows("shard_order", "=") and not scanner.follows(",", "shard_order", "="):
        return None
    scanner.accept(",")
    scanner.at += 2
    bracket = scanner.need("{", "after `shard_order=`") if scanner.peek().kind == "{" else None
    expected = "`(ShardOrderEntry(tensor_dim=0, mesh_dims=(1, 0)),)`"
    opened = bracket or scanner.need("(", "after `shard_order=`", expected)
    closing = "}" if bracket else ")"
    found: dict[int, tuple[int, ...]] = {}
    while not scanner.accept(closing):
        inner = None if bracket else (scanner.accept("ShardOrderEntry"), scanner.need("(", "in `shard_order=`"))
        if scanner.accept("tensor_dim"):
            scanner.need("=", "after `tensor_dim`")
        dim, token = scanner.index()
        scanner.need(":" if bracket else ",", "in `shard_order=`")
        if scanner.accept("mesh_dims"):
            scanner.need("=", "after `mesh_dims`")
        if dim in found:
            raise scanner.fail(f"two orders for dim {dim}", token)
        found[dim] = _numbers(scanner)
        if inner:
            scanner.accept(",")
            scanner.need(")", "in `shard_order=`")
        scanner.separate(opened, closing)
    return found


def _numbers(scanner: Scanner) -> tuple[int, ...]:
    bracket = scanner.accept("[") or scanner.need("(", "where mesh dims should stand", "`(1, 0)`")
    closing = "]" if bracket.kind == "[" else ")"
    found = []
    while not scanner.accept(closing):
        found.append(scanner.index()[0])
        scanner.separate(bracket, closing)
    return tuple(found)


def _rank(scanner: Scanner, placements: list[DimPlacement], dims: Dims | None, span: Span) -> int:
    """Dims of the tensor: those given, or as many as are divided."""
    if dims is not None:
        return len(dims)
    if any(placement.dim < 0 for placement in placements):
        raise scanner.fail("a dim counted from the end of a tensor of unknown rank", span, expected="the indices")
    rank = max([placement.dim + 1 for placement in placements if placement.shards], default=0)
    if rank > MOST_DIMS:
        raise scanner.fail(f"a tensor of {rank} dims", span, expected=f"at most {MOST_DIMS}")
    return rank


def _counted(scanner: Scanner, placement: DimPlacement, rank: int) -> DimPlacement:
    """The placement with its dim counted from the front."""
    dim = placement.dim + rank if placement.dim < 0 else placement.dim
    if placement.shards and not 0 <= dim < rank:
        raise scanner.fail(f"dim {placement.dim} of a tensor of {rank} dims", placement.span)
    return DimPlacement(placement.kind, dim, placement.reduction, placement.split, placement.marks, placement.span)


def _one_a_mesh_dim(placements: list[DimPlacement], mesh: MeshAxes) -> bool:
    """Whether there is a placement for each mesh dim, so that numbers in brackets are places in an order.

    The other form has the mesh dims in brackets: `S(0)[0,1]`.
    """
    if not any(placement.marks for placement in placements):
        return True
    by_dim: dict[int, list[tuple[int, ...]]] = {}
    for placement in placements:
        if placement.shards:
            by_dim.setdefault(placement.dim, []).append(placement.marks)
    return len(placements) == len(mesh) and all(map(_ranked, by_dim.values()))


def _ranked(marks: list[tuple[int, ...]]) -> bool:
    """Whether the numbers in brackets are places in the order of the mesh dims that divide one dim."""
    return not any(marks) or sorted(marks) == [(k,) for k in range(len(marks))]


def _by_dim(scanner: Scanner, placements: list[DimPlacement], mesh: MeshAxes, span: Span) -> dict[int, tuple[int, ...]]:
    """Tensor dim -> mesh dims that divide it, major to minor."""
    if len(placements) != len(mesh):
        names = ", ".join(name for name, _ in mesh)
        message = f"{len(placements)} placement{'s' * (len(placements) != 1)} on a mesh of {len(mesh)} dims"
        raise scanner.fail(message, span, expected=f"one for each of: {names}")
    by_dim: dict[int, list[tuple[int, DimPlacement]]] = {}
    for position, placement in enumerate(placements):
        if placement.shards:
            by_dim.setdefault(placement.dim, []).append((position, placement))
    return {dim: _ordered(scanner, found, mesh) for dim, found in by_dim.items()}


def _ordered(scanner: Scanner, found: list[tuple[int, DimPlacement]], mesh: MeshAxes) -> tuple[int, ...]:
    """The mesh dims that divide one dim, major to minor."""
    if any(placement.marks for _, placement in found):
        return tuple(position for position, _ in sorted(found, key=lambda pair: pair[1].marks))
    order: list[int] = []
    if any(placement.split > 1 for _, placement in found) and not all(size for _, size in mesh):
        raise scanner.fail("a strided shard on a mesh whose sizes are not known", found[0][1].span, expected="sizes")
    for position, placement in reversed(found):  # a strided shard stands behind as many shards as it finds
        before = [prod(mesh[k][1] for k in order[:count]) for count in range(len(order) + 1)]
        if placement.split not in before:
            raise scanner.fail(
                f"a split factor of {placement.split}, which no order of the mesh dims has",
                placement.span,
                expected=f"one of {', '.join(map(str, dict.fromkeys(before)))}",
                hint="such blocks are strided, and no layout here says so",
            )
        order.insert(before.index(placement.split), position)
    return tuple(order)


def _by_marks(scanner: Scanner, placements: list[DimPlacement], rank: int) -> dict[int, tuple[int, ...]]:
    """Tensor dim -> mesh dims, where the numbers in brackets are mesh dims: `S(0)[0,1]P(sum)R`."""
    taken = [mark for placement in placements for mark in placement.marks]
    for placement in placements:
        for mark in placement.marks:
            if mark >= rank or taken.count(mark) > 1:
                what = "is there twice" if mark < rank else f"on a mesh of {rank} dims"
                raise scanner.fail(f"mesh dim {mark} {what}", placement.span)
        if placement.shards and not placement.marks:
            raise scanner.fail("a shard without its mesh dims beside others with theirs", placement.span)
    return {placement.dim: placement.marks for placement in placements if placement.shards}


def _left(placements: list[DimPlacement], rank: int) -> list[int]:
    """The mesh dims that no bracket names, in order."""
    named = {mark for placement in placements for mark in placement.marks}
    return [k for k in range(rank) if k not in named]


def _owed(scanner: Scanner, placements: list[DimPlacement], places: list[int] | None) -> tuple[list[int], Reduction]:
    """Mesh dims over which a reduction is owed, and which it is.

    Args:
        scanner: for errors.
        placements: as read.
        places: mesh dims of the placements without numbers in brackets, in order; None if each has its own.
    """
    owed: list[int] = []
    reduction = None
    for position, placement in enumerate(placements):
        if placement.shards:
            continue
        at = list(placement.marks) or ([position] if places is None else places[:1])
        if not at:
            raise scanner.fail("more placements than mesh dims", placement.span)
        if places is not None and not placement.marks:
            places = places[1:]
        if placement.kind == PlacementKind.PARTIAL:
            owed += at
            reduction = reduction or placement.reduction
            if placement.reduction != reduction:
                message = f"one tensor owes both a {reduction} and a {placement.reduction}"
                raise scanner.fail(message, placement.span, expected="one reduction per tensor")
    return owed, reduction or SUM


def _reordered(
    scanner: Scanner, orders: dict[int, tuple[int, ...]], given: dict[int, tuple[int, ...]], span: Span
) -> dict[int, tuple[int, ...]]:
    """The orders with those given in their place."""
    for dim, order in given.items():
        if sorted(order) != sorted(orders.get(dim, ())):
            message = f"`shard_order` says mesh dims {list(order)} for dim {dim}"
            raise scanner.fail(message, span, expected=f"those of the placements: {sorted(orders.get(dim, ()))}")
    return {**orders, **given}


def write_dtensor(tensor: TensorSpec, mesh: MeshAxes) -> str:
    """A tensor's layout as placements, with the order of mesh dims where it is not that of the mesh.

    >>> from einscale.notation import parse_tensor
    >>> mesh = (("dp", 2), ("tp", 4))
    >>> write_dtensor(parse_tensor("B/dp S D {U:tp}"), mesh)
    '[Shard(0), Partial()]'
    >>> write_dtensor(parse_tensor("B/tp/dp"), mesh)
    '[Shard(0), Shard(0)], shard_order=(ShardOrderEntry(tensor_dim=0, mesh_dims=(1, 0)),)'

    Raises:
        NotationError: placements cannot say it.
    """
    names = [name for name, _ in mesh]
    words = ["Replicate()"] * len(names)
    orders = []
    for dim, layout in enumerate(stored_dims(tensor, NAME, mesh)):
        if layout.open:
            raise NotationError("placements are settled: DTensor has no open dims")
        places = [_place(name, names) for name in whole_axes([shard.name for shard in layout.shards], NAME)]
        for place in places:
            words[place] = f"Shard({dim})"
        if places != sorted(places):
            orders.append(f"ShardOrderEntry(tensor_dim={dim}, mesh_dims=({', '.join(map(str, places))})),")
    for name in whole_axes(owed_axes(tensor, NAME, mesh), NAME):
        words[_place(name, names)] = "Partial()" if tensor.reduction == SUM else f'Partial("{tensor.reduction}")'
    order = f", shard_order=({' '.join(orders)})" if orders else ""
    return f"[{', '.join(words)}]{order}"


def _place(name: str, names: list[str]) -> int:
    if name not in names:
        raise NotationError(f"unknown mesh axis `{name}`", hint=did_you_mean(name, names, "the mesh has"))
    return names.index(name)
