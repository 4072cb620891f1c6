"""What the notations of other systems share: how their text is read, and what they see of a tensor.

They lay out the dims of one tensor and know no index names: for them a tensor is a list of `DimLayout`s, one a stored
dim.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from einscale.errors import NotationError, did_you_mean
from einscale.notation.check import known_names
from einscale.notation.syntax import (
    ELLIPSIS,
    NOWHERE,
    Axis,
    Group,
    Partial,
    Shard,
    Span,
    TensorSpec,
    claim,
    split_shard,
)
from einscale.notation.tokens import Token, describe, shorten, whole_number
from einscale.vocabulary import Reduction

MeshAxes: TypeAlias = Sequence[tuple[str, int]]
"""(name, size) of every mesh axis, major to minor."""

Dims: TypeAlias = Sequence[Axis | Group]
"""The stored dims of a tensor, their layouts still to be read."""

MOST_DIMS = 64

MANUAL = "over {} the program is manual (shard_map): each device has a tensor of its own"
"""What a layout cannot hold of a sharding made inside shard_map."""

_TOKEN = re.compile(
    r"\s*(?:(?P<name>[^\W\d]\w*)|(?P<string>'[^'\n]*'|\"[^\"\n]*\")|(?P<number>\d+)|(?P<mark><=|->|[-()\[\]{}<>,:=@?#.;/]))"
)


class DimLayout(Struct, frozen=True):
    """How one stored dim is divided.

    Args:
        shards: the mesh axes that divide it, major to minor.
        open: whether more may follow.
        size: its size, if the notation says it.
        span: where it stands.
    """

    shards: tuple[Shard, ...] = ()
    open: bool = False
    size: int | None = None
    span: Span = NOWHERE


class Reading(Struct, frozen=True):
    """A tensor as read, and what was written that its layout cannot hold: one sentence each."""

    tensor: TensorSpec
    lost: tuple[str, ...] = ()


class Scanner:
    """A place in the tokens of a part of a text; spans are those of the whole text."""

    __slots__ = ("at", "text", "tokens")

    def __init__(self, text: str, start: int = 0, stop: int | None = None) -> None:
        """Read `text[start:stop]` into tokens.

        Raises:
            NotationError: a character has no place in any of these notations.
        """
        self.text = text
        self.at = 0
        self.tokens: list[Token] = []
        stop = len(text[:stop].rstrip())
        while start < stop:
            found = _TOKEN.match(text, start, stop)
            if found is None:
                at = start + len(text[start:]) - len(text[start:].lstrip())
                hint = "a quotation mark is never closed" if text[at] in "'\"" else None
                message = f"unexpected {describe(text[at])}"
                raise NotationError(message, text=text, span=(at, at + 1), hint=hint)
            kind = found.lastgroup or ""
            word = found[kind]
            self.tokens.append(Token(word if kind == "mark" else kind, word, found.start(kind), found.end(kind)))
            start = found.end()
        self.tokens.append(Token("end", "", stop, stop))

    def peek(self, ahead: int = 0) -> Token:
        """The token to come, or one further on; the end stays the end."""
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)]

    def take(self) -> Token:
        """The token to come, passed."""
        token = self.peek()
        self.at += 1
        return token

    def accept(self, *words: str) -> Token | None:
        """The token to come, passed, if it is one of these marks, names or kinds."""
        token = self.peek()
        return self.take() if token.kind in words or (token.kind == "name" and token.text in words) else None

    def follows(self, *words: str) -> bool:
        """Whether these marks, names or kinds come next, one after the other."""
        ahead = [self.peek(k) for k in range(len(words))]
        return all(word in (token.kind, token.text) for token, word in zip(ahead, words, strict=True))

    def need(self, kind: str, where: str, expected: str | None = None) -> Token:
        """The token to come, passed.

        Raises:
            NotationError: it is not of this kind.
        """
        token = self.peek()
        if token.kind != kind and not (token.kind == "name" and token.text == kind):
            found = f"`{shorten(token.text)}`" if token.text else "the end"
            wanted = {"string": "a quoted name", "number": "a whole number", "name": "a name"}.get(kind, f"`{kind}`")
            raise self.fail(f"{found} {where}", token, expected=expected or wanted)
        return self.take()

    def number(self, what: str = "size") -> int:
        """The whole number to come, at least 1, passed.

        Raises:
            NotationError: there is none.
        """
        return whole_number(self.text, self.need("number", "where a number should stand"), what)

    def index(self, where: str = "where a number should stand") -> tuple[int, Token]:
        """The whole number to come, which may be 0, passed.

        Raises:
            NotationError: there is none, or an absurd one.
        """
        token = self.need("number", where)
        if len(token.text) > 9:
            raise self.fail(f"an absurd number: `{shorten(token.text)}`", token)
        return int(token.text), token

    def separate(self, opened: Token, closing: str) -> None:
        """Pass the comma between entries; the last one may go without.

        Args:
            opened: the mark that opens the list, or the word before it.
            closing: the mark that closes it.

        Raises:
            NotationError: neither a comma nor the closing mark follows.
        """
        token = self.peek()
        if self.accept(",") or token.kind == closing:
            return
        if token.kind == "end":
            raise self.fail(f"`{shorten(opened.text)}` is never closed", opened, expected=f"`{closing}`")
        raise self.fail(f"`{shorten(token.text)}` where an entry should end", token, expected=f"`,` or `{closing}`")

    def since(self, start: Token) -> Span:
        """The span from a token to the last one passed."""
        return (start.start, max(start.stop, self.tokens[self.at - 1].stop if self.at else start.stop))

    def fail(
        self, message: str, where: Token | Span | None = None, *, expected: str | None = None, hint: str | None = None
    ) -> NotationError:
        """An error at a token, a span, or the token to come."""
        span = where if isinstance(where, tuple) else (where or self.peek()).span
        return NotationError(message, text=self.text, span=span, expected=expected, hint=hint)


def quoted_axis(scanner: Scanner, token: Token) -> Shard:
    """The mesh axis that a quoted name names; a part of one, `"x":(2)4`, may follow.

    Raises:
        NotationError: einscale has no such names, or the part is malformed.
    """
    return mesh_axis(scanner, token, token.text[1:-1], (token.start + 1, token.stop - 1))


def mesh_axis(scanner: Scanner, token: Token, name: str, span: Span) -> Shard:
    """A mesh axis of this name, or the part of it that follows.

    Raises:
        NotationError: einscale has no such names, or the part is malformed.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise scanner.fail(
            f"`{shorten(name)}` is no name of a mesh axis",
            token,
            expected="letters, digits and `_`, a letter first",
            hint="rename the mesh axis",
        )
    if not scanner.follows(":", "("):
        return Shard(name, span)
    scanner.at += 2
    before = scanner.number("number of shards before")
    scanner.need(")", "in a part of a mesh axis", f"`{name}:(BEFORE)SIZE`")
    size = scanner.number("size of a part")
    return Shard(f"{name}:({before}){size}", (span[0], scanner.tokens[scanner.at - 1].stop))


def default_dims(rank: int) -> tuple[Axis, ...]:
    """Dims for a tensor whose indices nobody names: i, j, k, ...

    >>> [axis.name for axis in default_dims(3)]
    ['i', 'j', 'k']
    """
    letters = "ijklmnopqrstuvwxyzabcdefgh"
    return tuple(Axis(letters[k] if k < len(letters) else f"i{k}") for k in range(rank))


def lay_out(
    scanner: Scanner, layouts: Sequence[DimLayout], dims: Dims | None, span: Span, *, exact: bool, what: str
) -> tuple[Axis | Group, ...]:
    """The dims with the layouts written into them.

    Args:
        scanner: for errors.
        layouts: one a stored dim, as read.
        dims: the dims; None names them i, j, k, ...
        span: where the tensor stands.
        exact: whether each dim must be mentioned; otherwise those not mentioned are replicated.
        what: how the notation calls an entry.

    Raises:
        NotationError: there are more or fewer layouts than dims, or a size contradicts the one already known.
    """
    if len(layouts) > MOST_DIMS:
        raise scanner.fail(f"a tensor of {len(layouts)} dims", span, expected=f"at most {MOST_DIMS}")
    dims = default_dims(len(layouts)) if dims is None else dims
    if any(isinstance(dim, Axis) and (dim.name == ELLIPSIS or dim.family) for dim in dims):
        raise scanner.fail("an einsum with `...` or `*name` beside layouts dim by dim", span, expected="named axes")
    if len(layouts) > len(dims) or (exact and len(layouts) < len(dims)):
        shown = " ".join(map(str, dims)) or "a scalar"
        at = layouts[len(dims)].span if len(layouts) > len(dims) and layouts[len(dims)].span != NOWHERE else span
        raise scanner.fail(
            f"{len(layouts)} {what} for a tensor of {len(dims)} dims", at, expected=f"one for each of `{shown}`"
        )
    layouts = [*layouts, *[DimLayout()] * (len(dims) - len(layouts))]
    return tuple(_laid_out(scanner, dim, layout, span) for dim, layout in zip(dims, layouts, strict=True))


def _laid_out(scanner: Scanner, dim: Axis | Group, layout: DimLayout, span: Span) -> Axis | Group:
    at = layout.span if layout.span != NOWHERE else span
    if isinstance(dim, Group):
        first = replace(dim.axes[0], shards=layout.shards, open=layout.open, span=at, name_span=at)
        return Group((first, *dim.axes[1:]), at)
    size = dim.size if layout.size is None else layout.size
    if dim.size is not None and dim.size != size:
        raise scanner.fail(f"index `{dim.name}` has size {dim.size} and size {size}", at, expected="one size")
    return replace(dim, size=size, shards=layout.shards, open=layout.open, span=at, name_span=at, size_span=at)


def owing(shards: Sequence[Shard], reduction: Reduction, span: Span) -> Partial | None:
    """The mark of a reduction owed over these mesh axes, None where there are none."""
    ordered = tuple(sorted(shards, key=lambda shard: shard.name))
    return Partial(reduction, ordered, span=span) if ordered else None


def stored_dims(tensor: TensorSpec, notation: str, mesh: MeshAxes | None = None) -> tuple[DimLayout, ...]:
    """The stored dims of a tensor as other notations see them.

    A group is one dim there, so only blocks that lie together can be said: mesh axes on its first factor, or on later
    ones if the factors before are divided down to one element each. Parts of a mesh axis that follow on each other are
    joined where the mesh is known.

    >>> from einscale.notation import parse_tensor
    >>> [[str(shard) for shard in dim.shards] for dim in stored_dims(parse_tensor("B/x (H/t K)"), "JAX")]
    [['x'], ['t']]

    Raises:
        NotationError: the notation cannot say this layout.
    """
    sizes = None if mesh is None else dict(mesh)
    open_tensor = tensor.open
    found = []
    for dim in tensor.dims:
        axes = dim.axes if isinstance(dim, Group) else (dim,)
        if any(axis.name == ELLIPSIS or axis.family for axis in axes):
            raise NotationError(f"{notation} lists every dim, and `{dim}` stands for any number of them")
        shards: tuple[str, ...] = ()
        whole = True
        for axis in axes:
            names = [shard.name for shard in axis.shards]
            if names and not whole:
                raise NotationError(f"the blocks of `{dim}` are strided: {notation} divides a dim as a whole")
            shards += tuple(names)
            whole = sizes is not None and axis.size == prod(shard_size(name, sizes) for name in names)
        size = None if any(axis.size is None for axis in axes) else prod(axis.size or 1 for axis in axes)
        is_open = any(axis.open for axis in axes) or (open_tensor and not shards)
        found.append(DimLayout(tuple(map(Shard, join_parts(shards, sizes))), is_open, size, dim.span))
    return tuple(found)


def owed_axes(tensor: TensorSpec, notation: str, mesh: MeshAxes | None = None) -> tuple[str, ...]:
    """The mesh axes over which a tensor owes its reduction, parts joined, in mesh order where the mesh is known.

    Raises:
        NotationError: they are open, which no other notation can say.
    """
    if tensor.partial is not None and tensor.partial.open:
        raise NotationError(f"{notation} has no word for a sum that may stay owed, `{tensor.partial}`")
    sizes = None if mesh is None else dict(mesh)
    names = list(sizes or ())
    ordered = sorted(tensor.unreduced, key=lambda name: (_rank(name, names), *split_shard(name)[:2]))
    return join_parts(ordered, sizes)


def _rank(name: str, names: Sequence[str]) -> int:
    axis = split_shard(name)[0]
    return names.index(axis) if axis in names else len(names)


def shard_size(name: str, sizes: Mapping[str, int]) -> int:
    """Devices along a mesh axis or a part of one.

    Raises:
        NotationError: the mesh has no such axis.
    """
    axis, _, size = split_shard(name)
    if size is not None:
        return size
    if axis not in sizes:
        raise NotationError(f"unknown mesh axis `{axis}`", hint=did_you_mean(axis, known_names(sizes), "the mesh has"))
    return sizes[axis]


def join_parts(names: Sequence[str], sizes: Mapping[str, int] | None) -> tuple[str, ...]:
    """The names, parts of an axis that follow on each other as one, and all of an axis as the axis.

    >>> join_parts(["x:(1)2", "x:(2)4", "y"], {"x": 8, "y": 2}), join_parts(["x:(2)2", "x:(4)2"], {"x": 8})
    (('x', 'y'), ('x:(2)4',))
    """
    joined: list[str] = []
    for name in names:
        axis, before, size = split_shard(name)
        last = split_shard(joined[-1]) if joined else ("", 1, None)
        if size is not None and last[2] is not None and axis == last[0] and last[1] * last[2] == before:
            joined.pop()
            before, size = last[1], last[2] * size
        whole = size is None or (sizes is not None and before == 1 and size == sizes.get(axis))
        joined.append(axis if whole else f"{axis}:({before}){size}")
    return tuple(joined)


def whole_axes(names: Sequence[str], notation: str) -> tuple[str, ...]:
    """The names, if none is a part of a mesh axis.

    Raises:
        NotationError: one is.
    """
    for name in names:
        axis, _, size = split_shard(name)
        if size is not None:
            raise NotationError(
                f"{notation} names whole mesh axes, and `{name}` is a part of `{axis}`",
                hint=f"a mesh on which `{axis}` is two axes can say it",
            )
    return tuple(names)


def check_parts(scanner: Scanner, shards: Sequence[Shard]) -> None:
    """Raise if a mesh axis occurs twice in one tensor, or in overlapping parts.

    Raises:
        NotationError: so it is.
    """
    used: dict[str, list[Shard]] = {}
    for shard in shards:
        if claim(shard, used) is not None:
            axis = split_shard(shard.name)[0]
            expected = "each mesh axis at most once per tensor"
            raise scanner.fail(f"mesh axis `{axis}` is used twice in one tensor", shard.span, expected=expected)
