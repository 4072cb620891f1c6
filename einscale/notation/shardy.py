"""Shardy: `#sdy.sharding<@mesh, [{"x"}, {"z", "y", ?}], replicated={"w"}, unreduced={"u"}>`, or the list alone.

The grammar is that of Shardy's dialect and of docs/sharding_representation.md in openxla/shardy; parts of mesh axes are
written as here, `"x":(1)2`.
"""

from __future__ import annotations

from einscale.errors import did_you_mean
from einscale.notation.foreign import (
    MANUAL,
    DimLayout,
    Dims,
    MeshAxes,
    Reading,
    Scanner,
    check_parts,
    lay_out,
    owed_axes,
    owing,
    quoted_axis,
    stored_dims,
)
from einscale.notation.syntax import REDUCTIONS, Shard, TensorSpec, split_shard
from einscale.notation.tokens import Token, shorten
from einscale.vocabulary import SUM, Reduction

NAME = "Shardy"
_EXPECTED = '`[{"x"}, {"z", "y", ?}]`, one for each dim'


def read_shardy(scanner: Scanner, dims: Dims | None = None) -> Reading:
    """A sharding of Shardy.

    >>> reading = read_shardy(Scanner('#sdy.sharding<@mesh, [{"x"}, {"z", "y", ?}], unreduced={"u"}>'))
    >>> print(reading.tensor)
    i/x j/z/y/? {U:u}
    >>> print(read_shardy(Scanner('[{"x":(1)2}, {}]')).tensor)
    i/x:(1)2 j

    Args:
        scanner: where it stands; left behind it.
        dims: dims of the tensor, whose names it takes.

    Raises:
        NotationError: it is malformed, or does not fit the dims.
    """
    start = scanner.peek()
    angle = _head(scanner)
    bracket = scanner.need("[", "where the dims should stand", _EXPECTED)
    lost: list[str] = []
    layouts = read_dims(scanner, bracket, lost, quoted=True)
    replicated, owed, reduction = read_sets(scanner, lost, quoted=True, comma=angle is not None)
    if angle is not None:
        scanner.need(">", "after a sharding", "`>`, or `replicated={...}` or `unreduced={...}` before it")
    span = scanner.since(start)
    check_parts(scanner, [shard for layout in layouts for shard in layout.shards] + replicated + owed)
    if replicated and any(layout.open for layout in layouts):
        names = ", ".join(f"`{shard}`" for shard in replicated)
        lost.append(f"its open dims may not be divided over {names}, which `?` does not say here")
    laid = lay_out(scanner, layouts, dims, span, exact=True, what="dims")
    return Reading(TensorSpec(laid, partial=owing(owed, reduction, span), span=span), tuple(lost))


def _head(scanner: Scanner) -> Token | None:
    """What stands before the dims, up to and with the mesh; the `<` that is to be closed, if there is one."""
    while scanner.follows("sdy", ".", "sharding", "="):  # an attribute as it stands in a program
        scanner.at += 4
    scanner.accept("#")
    if scanner.follows("sdy", "."):
        scanner.at += 2
    word = scanner.accept("sharding")
    angle = scanner.need("<", "after `sharding`") if word else scanner.accept("<")
    if angle is None:
        return None
    if scanner.accept("@"):
        if not scanner.accept("name", "string"):
            raise scanner.fail("the name of a mesh is missing after `@`", expected="`@mesh`")
    elif scanner.accept("mesh"):  # the mesh itself: mesh<["x"=2, "y"=4]>
        inner = scanner.need("<", "after `mesh`")
        while not scanner.accept(">"):
            if scanner.take().kind == "end":
                raise scanner.fail("`mesh<` is never closed", inner, expected="`>`")
    else:
        raise scanner.fail("a mesh is missing", expected="`@mesh`")
    scanner.need(",", "after the mesh")
    return angle


def read_dims(scanner: Scanner, bracket: Token, lost: list[str], *, quoted: bool) -> list[DimLayout]:
    """The dims in brackets, the opening one passed.

    Args:
        scanner: where they stand; left behind the closing bracket.
        bracket: the opening one.
        lost: gets a sentence for what has no counterpart here.
        quoted: whether mesh axes are in quotation marks.

    Raises:
        NotationError: they are malformed.
    """
    layouts = []
    while not scanner.accept("]"):
        brace = scanner.need("{", "where a dim should stand", _EXPECTED)
        shards, is_open = _axes(scanner, brace, quoted=quoted)
        priority = scanner.peek()
        if priority.kind == "name" and priority.text[:1] == "p" and priority.text[1:].isdecimal():
            scanner.take()
            lost.append(f"priority {priority.text[1:]} of a dim: it orders propagation and lays out nothing")
        layouts.append(DimLayout(shards, is_open, span=scanner.since(brace)))
        scanner.separate(bracket, "]")
    return layouts


def _axes(scanner: Scanner, brace: Token, *, quoted: bool) -> tuple[tuple[Shard, ...], bool]:
    """Mesh axes in braces, the opening one passed, and whether `?` ends them."""
    shards: list[Shard] = []
    is_open = False
    while not scanner.accept("}"):
        if is_open:
            raise scanner.fail("a mesh axis after `?`", expected='`?` last: `{"x", ?}`')
        if scanner.accept("?"):
            is_open = True
        else:
            shards.append(_one_axis(scanner, quoted=quoted))
        scanner.separate(brace, "}")
    return tuple(shards), is_open


def _one_axis(scanner: Scanner, *, quoted: bool) -> Shard:
    token = scanner.peek()
    if not quoted and token.kind == "name":
        bare = Token("string", f"'{token.text}'", token.start - 1, token.stop + 1)
        scanner.take()
        return quoted_axis(scanner, bare)
    hint = f'write `"{token.text}"`' if token.kind == "name" else None
    if token.kind != "string":
        found = f"`{shorten(token.text)}`" if token.text else "the end"
        raise scanner.fail(f"{found} where a mesh axis should stand", token, expected='a quoted name: `"x"`', hint=hint)
    return quoted_axis(scanner, scanner.take())


def read_sets(
    scanner: Scanner, lost: list[str], *, quoted: bool, comma: bool
) -> tuple[list[Shard], list[Shard], Reduction]:
    """`replicated={"w"}`, `unreduced={"u"}`, `unreduced=max{"u"}`, `manual={"m"}`.

    Args:
        scanner: where they stand; left behind them.
        lost: gets a sentence for what has no counterpart here.
        quoted: whether mesh axes are in quotation marks.
        comma: whether a comma before them is theirs and must be; otherwise it is theirs if one of them follows.

    Returns:
        mesh axes that are replicated, those over which a reduction is owed, and which reduction.

    Raises:
        NotationError: they are malformed.
    """
    replicated: list[Shard] = []
    owed: list[Shard] = []
    reduction = SUM
    while scanner.follows(",", "name", "=") or (not comma and scanner.follows("name", "=")):
        scanner.accept(",")
        word = scanner.take()
        scanner.take()
        if word.text not in {"replicated", "unreduced", "manual"}:
            hint = did_you_mean(word.text, ("replicated", "unreduced"), "it may have")
            raise scanner.fail(f"a sharding has no `{shorten(word.text)}`", word, hint=hint)
        kind = scanner.accept("name") if word.text == "unreduced" else None
        if kind is not None and kind.text not in REDUCTIONS:
            hint = did_you_mean(kind.text, REDUCTIONS, "reductions")
            raise scanner.fail(f"unknown reduction `{shorten(kind.text)}`", kind, hint=hint)
        reduction = Reduction(kind.text) if kind else reduction
        brace = scanner.need("{", f"after `{word.text}=`")
        shards, is_open = _axes(scanner, brace, quoted=quoted)
        if is_open:
            raise scanner.fail(f"`?` in `{word.text}=`", scanner.since(brace))
        if word.text == "unreduced":
            owed += shards
        elif word.text == "manual" and shards:
            lost.append(MANUAL.format(", ".join(f"`{shard}`" for shard in shards)))
        else:
            replicated += shards
    return replicated, owed, reduction


def write_shardy(tensor: TensorSpec, mesh: MeshAxes | None = None) -> str:
    """A tensor's layout in Shardy's notation.

    >>> from einscale.notation import parse_tensor
    >>> write_shardy(parse_tensor("B/x:(1)2 D/z/y/? {U(max):u}"))
    '#sdy.sharding<@mesh, [{"x":(1)2}, {"z", "y", ?}], unreduced=max{"u"}>'

    Raises:
        NotationError: Shardy cannot say it.
    """
    words = []
    for dim in stored_dims(tensor, NAME, mesh):
        inner = [_quoted(shard.name) for shard in dim.shards] + (["?"] if dim.open else [])
        words.append(f"{{{', '.join(inner)}}}")
    owed = ", ".join(map(_quoted, owed_axes(tensor, NAME, mesh)))
    kind = "" if tensor.reduction == SUM else tensor.reduction
    return f"#sdy.sharding<@mesh, [{', '.join(words)}]{f', unreduced={kind}{{{owed}}}' if owed else ''}>"


def _quoted(name: str) -> str:
    """`x:(1)2` -> `"x":(1)2`."""
    axis = split_shard(name)[0]
    return f'"{axis}"{name[len(axis) :]}'
