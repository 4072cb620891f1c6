"""Syntax of a spec: frozen nodes that remember where they were written, and print as canonical slash notation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from einscale.errors import NotationError
from einscale.vocabulary import SUM, Reduction

Span: TypeAlias = tuple[int, int]
"""(start, stop) of characters in the text that was read."""

NOWHERE: Span = (0, 0)
"""The span of a node that was made, not read."""

ELLIPSIS = "..."
"""Name of the one index that `...` stands for; it is never sharded and never summed."""

REDUCTIONS = tuple(Reduction)
"""What a tensor may owe over the mesh axes in `{U:...}`."""


class Shard(Struct, frozen=True):
    """A mesh axis, or a part of one (`x:(2)4`), that divides an axis or over which a reduction is owed."""

    name: str
    span: Span = NOWHERE

    def __str__(self) -> str:
        return self.name


class Axis(Struct, frozen=True):
    """One axis of a tensor.

    Args:
        name: the index; `...` for an ellipsis, the digits for an axis of fixed size.
        size: the size written in the spec, if one is.
        shards: the mesh axes that divide it, major to minor.
        open: whether `/?` was written: further mesh axes may follow.
        family: whether it was written `*name`: several axes under one name.
        span: where the whole axis stands.
        name_span: where its name stands.
        size_span: where its size stands.

    >>> str(Axis("B", 32, (Shard("pod"), Shard("data"))))
    'B=32/pod/data'
    """

    name: str
    size: int | None = None
    shards: tuple[Shard, ...] = ()
    open: bool = False
    family: bool = False
    span: Span = NOWHERE
    name_span: Span = NOWHERE
    size_span: Span = NOWHERE

    @property
    def fixed(self) -> bool:
        """Whether the axis has a size for its name."""
        return self.name[0].isdigit()

    def __str__(self) -> str:
        size = "" if self.size is None or self.fixed else f"={self.size}"
        words = [f"{'*' if self.family else ''}{self.name}{size}", *(shard.name for shard in self.shards)]
        return "/".join([*words, "?"] if self.open else words)


class Group(Struct, frozen=True):
    """Axes that the tensor stores as one dim, `(H K)`; the einsum sees its factors.

    >>> str(Group((Axis("H", None, (Shard("t"),)), Axis("K"))))
    '(H/t K)'
    """

    axes: tuple[Axis, ...]
    span: Span = NOWHERE

    def __str__(self) -> str:
        return f"({' '.join(map(str, self.axes))})"


class Partial(Struct, frozen=True):
    """A reduction that is still owed over mesh axes, `{U:x}`; `open` is `{U:?}`.

    >>> str(Partial("max", (Shard("c"),))), str(Partial(open=True))
    ('{U(max):c}', '{U:?}')
    """

    reduction: Reduction = SUM
    axes: tuple[Shard, ...] = ()
    open: bool = False
    span: Span = NOWHERE

    def __str__(self) -> str:
        marker = "U" if self.reduction == SUM else f"U({self.reduction})"
        return f"{{{marker}:{'?' if self.open else ','.join(axis.name for axis in self.axes)}}}"


class TensorSpec(Struct, frozen=True):
    """One tensor as written: dims, what it owes, whether its layout is open, and its name and dtype if given.

    >>> tensor = TensorSpec((Axis("B", None, (Shard("data"),)), Axis("D")), "x", "bf16")
    >>> str(tensor), tensor.indices, tensor.layout
    ('x: bf16[B/data D]', ('B', 'D'), (('data',), ()))
    """

    dims: tuple[Axis | Group, ...]
    name: str | None = None
    dtype: str | None = None
    partial: Partial | None = None
    open: bool = False
    span: Span = NOWHERE
    name_span: Span = NOWHERE

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Every axis, groups taken apart."""
        found: list[Axis] = []
        for dim in self.dims:
            found += dim.axes if isinstance(dim, Group) else (dim,)
        return tuple(found)

    @property
    def indices(self) -> tuple[str, ...]:
        """Index names, groups taken apart."""
        return tuple(axis.name for axis in self.axes)

    @property
    def layout(self) -> tuple[tuple[str, ...], ...]:
        """Per index the mesh axes written for it, major to minor."""
        return tuple(tuple(shard.name for shard in axis.shards) for axis in self.axes)

    @property
    def unreduced(self) -> tuple[str, ...]:
        """Mesh axes over which a reduction is owed, sorted."""
        return tuple(shard.name for shard in self.partial.axes) if self.partial else ()

    @property
    def reduction(self) -> Reduction:
        """The reduction that is owed: `sum` where nothing else is said."""
        return self.partial.reduction if self.partial else SUM

    @property
    def sizes(self) -> dict[str, int]:
        """Index -> size, for the sizes that are written."""
        return {axis.name: axis.size for axis in self.axes if axis.size is not None}

    def __str__(self) -> str:
        words = [str(dim) for dim in self.dims]
        if self.partial:
            words.append(str(self.partial))
        if self.open:
            words.append("?")
        body = " ".join(words)
        if self.dtype is not None:
            body = f"{self.dtype}[{body}]"
        return f"{self.name}: {body}".rstrip() if self.name is not None else body


class Spec(Struct, frozen=True):
    """An einsum with its layouts: operands, and the output if one was written.

    Args:
        operands: the tensors before `->`.
        output: the tensor after it; None where there is no `->`, and then the layout is the planner's choice.
        text: the text that was read: errors underline it.
        syntax: the dialect it was read in.
    """

    operands: tuple[TensorSpec, ...]
    output: TensorSpec | None = None
    text: str = ""
    syntax: str = "slash"

    @property
    def output_axes(self) -> tuple[Axis, ...]:
        """Axes of the output: those written or, without `->`, those of the indices that occur once, and `...`."""
        return self.output.axes if self.output is not None else implicit_axes(self.operands)

    @property
    def canonical(self) -> Spec:
        """The same spec without spans, text and dialect: what two texts of one meaning have in common."""
        return Spec(tuple(map(_bare, self.operands)), None if self.output is None else _bare(self.output))

    def with_output(
        self, dims: Sequence[Sequence[str]], unreduced: Iterable[str] = (), reduction: Reduction = SUM
    ) -> Spec:
        """The spec with an output that has exactly this layout; names, dtypes, sizes and groups stay.

        Args:
            dims: per output index (groups taken apart) the mesh axes that divide it, major to minor.
            unreduced: mesh axes over which the output owes a reduction.
            reduction: which: `sum`, `max` or `min`.

        Raises:
            NotationError: there are more or fewer dims than output indices, or `...` would be sharded.
        """
        before = self.output if self.output is not None else TensorSpec(self.output_axes)
        if len(dims) != len(before.axes):
            raise NotationError(f"the output has {len(before.axes)} axes, the layout {len(dims)}: {self}")
        filled = iter([_laid_out(axis, axes) for axis, axes in zip(before.axes, dims, strict=True)])
        after: list[Axis | Group] = [
            Group(tuple(next(filled) for _ in dim.axes)) if isinstance(dim, Group) else next(filled)
            for dim in before.dims
        ]
        owed = tuple(Shard(name) for name in sorted(unreduced))
        partial = Partial(reduction, owed) if owed else None
        return replace(self, output=replace(before, dims=tuple(after), partial=partial, open=False))

    def __str__(self) -> str:
        operands = ", ".join(map(str, self.operands))
        return operands if self.output is None else f"{operands} -> {self.output}".rstrip()


def implicit_axes(operands: Iterable[TensorSpec]) -> tuple[Axis, ...]:
    """Axes of the output of an einsum without `->`: indices that occur once, in order of appearance, and `...`.

    numpy keeps `...` whether it occurs once or more, since it is never summed; so do we.
    """
    counts: dict[str, int] = {}
    first: dict[str, Axis] = {}
    for operand in operands:
        for axis in operand.axes:
            counts[axis.name] = counts.get(axis.name, 0) + 1
            first.setdefault(axis.name, axis)
    once = [axis for name, axis in first.items() if counts[name] == 1 or name == ELLIPSIS]
    return tuple(Axis(axis.name, axis.size if axis.fixed else None, family=axis.family) for axis in once)


def default_name(position: int) -> str:
    """Name of an operand that has none: A, B, ..., Z, A1, B1, ...

    >>> default_name(0), default_name(27)
    ('A', 'B1')
    """
    letter, turn = chr(ord("A") + position % 26), position // 26
    return f"{letter}{turn}" if turn else letter


def split_shard(name: str) -> tuple[str, int, int | None]:
    """(mesh axis, shards before, size) of a mesh axis or a part of one; size is None for the whole axis.

    >>> split_shard("x:(2)4"), split_shard("x")
    (('x', 2, 4), ('x', 1, None))
    """
    axis, found, rest = name.partition(":(")
    if not found:
        return name, 1, None
    before, _, size = rest.partition(")")
    return axis, int(before), int(size)


def overlap(first: str, second: str) -> bool:
    """Whether two mesh axes, or parts of one, share devices' coordinates.

    >>> overlap("x", "x:(2)4"), overlap("x:(1)2", "x:(2)4"), overlap("x", "y")
    (True, False, False)
    """
    axis, before, size = split_shard(first)
    other, other_before, other_size = split_shard(second)
    if axis != other:
        return False
    if size is None or other_size is None:
        return True
    return before < other_before * other_size and other_before < before * size


def claim(shard: Shard, used: dict[str, list[Shard]]) -> Shard | None:
    """Note that `shard` is used; the one in `used` (mesh axis -> parts of it) that it overlaps, if there is one.

    >>> used = {}
    >>> claim(Shard("x:(1)2"), used), claim(Shard("x:(2)4"), used), str(claim(Shard("x"), used))
    (None, None, 'x:(1)2')
    """
    parts = used.setdefault(split_shard(shard.name)[0], [])
    for other in parts:
        if overlap(shard.name, other.name):
            return other
    parts.append(shard)
    return None


def _laid_out(axis: Axis, axes: Sequence[str]) -> Axis:
    """The axis, divided over exactly these mesh axes."""
    if axis.name == ELLIPSIS and axes:
        raise NotationError("`...` is never sharded", hint="name its axes: `*batch/x`")
    return replace(axis, shards=tuple(Shard(name) for name in axes), open=False)


def _bare_axis(axis: Axis) -> Axis:
    shards = tuple(Shard(shard.name) for shard in axis.shards)
    return Axis(axis.name, axis.size, shards, axis.open, axis.family)


def _bare(tensor: TensorSpec) -> TensorSpec:
    dims = tuple(
        Group(tuple(map(_bare_axis, dim.axes))) if isinstance(dim, Group) else _bare_axis(dim) for dim in tensor.dims
    )
    partial = tensor.partial
    if partial is not None:
        partial = Partial(partial.reduction, tuple(Shard(axis.name) for axis in partial.axes), partial.open)
    return TensorSpec(dims, tensor.name, tensor.dtype, partial, tensor.open)
