"""JAX: `P('x', None, ('y', 'z'), unreduced={'t'})`, and the type form `bf16[8@x,16@(y,z)]{U:t}`.

The forms are those that jax prints: `jax.sharding.PartitionSpec` (its `unreduced_kind` since the versions that have
`jax.sharding.UnreducedKind`), and the types of its explicit sharding mode (`jax.typeof`, `jax._src.core`). jax is never
imported.
"""

from __future__ import annotations

from collections.abc import Iterable

from einscale.dtypes import ALIASES, BITS, dtype, is_dtype
from einscale.errors import NotationError, did_you_mean
from einscale.notation.foreign import (
    MANUAL,
    DimLayout,
    Dims,
    MeshAxes,
    Reading,
    Scanner,
    check_parts,
    lay_out,
    mesh_axis,
    owed_axes,
    owing,
    quoted_axis,
    stored_dims,
    whole_axes,
)
from einscale.notation.syntax import REDUCTIONS, Partial, Shard, TensorSpec
from einscale.notation.tokens import Token, shorten
from einscale.vocabulary import SUM, Reduction

SPEC_NAMES = ("P", "PartitionSpec")
NAME = "JAX"
REDUCED = "it is *reduced* over {}, which says how its gradient is reduced; its values are replicated there"
_ENTRY = "`None`, `'x'` or `('x', 'y')`"
_KEYWORDS = ("unreduced", "reduced", "unreduced_kind")


def read_jax(scanner: Scanner, dims: Dims | None = None) -> Reading:
    """A PartitionSpec or a type of JAX.

    >>> print(read_jax(Scanner("P('x', None, ('y', 'z'), unreduced={'t'})")).tensor)
    i/x j k/y/z {U:t}
    >>> print(read_jax(Scanner("bf16[8@x,16@(y,z)]{U:t}")).tensor)
    bf16[i=8/x j=16/y/z {U:t}]

    Args:
        scanner: where it stands; left behind it.
        dims: dims of the tensor, whose names it takes.

    Raises:
        NotationError: it is malformed, or does not fit the dims.
    """
    start = scanner.peek()
    while scanner.follows("name", "."):  # jax.sharding.PartitionSpec, jnp.float32
        scanner.at += 2
    token = scanner.peek()
    if token.kind == "[" or (scanner.peek(1).kind in {"[", "<"} and token.kind == "name"):
        return _type(scanner, start, dims)
    if token.kind != "name" or token.text not in SPEC_NAMES:
        found = f"`{shorten(token.text)}`" if token.text else "the end"
        raise scanner.fail(f"{found} is no PartitionSpec", expected="`P('x', None)` or `bf16[8@x,16]`")
    scanner.take()
    return _spec(scanner, start, dims)


def _spec(scanner: Scanner, start: Token, dims: Dims | None) -> Reading:
    """The arguments of a PartitionSpec."""
    scanner.need("(", "after a PartitionSpec's name")
    layouts: list[DimLayout] = []
    owed: list[Shard] = []
    reduction, lost, kind = SUM, [], None
    while not scanner.accept(")"):
        token = scanner.peek()
        if token.kind == "name" and scanner.peek(1).kind == "=":
            word = scanner.take()
            scanner.take()
            if word.text == "unreduced":
                owed += _name_set(scanner)
            elif word.text == "reduced":
                names = ", ".join(f"`{shard}`" for shard in _name_set(scanner))
                lost += [REDUCED.format(names)] if names else []
            elif word.text == "unreduced_kind":
                reduction, kind = _kind(scanner), word
            else:
                hint = did_you_mean(word.text, _KEYWORDS, "its keywords are")
                raise scanner.fail(f"a PartitionSpec has no `{shorten(word.text)}`", word, hint=hint)
        elif owed or kind:
            raise scanner.fail("an entry after `unreduced=`", expected="the entries of the dims first")
        else:
            layouts.append(_entry(scanner))
        scanner.separate(start, ")")
    if kind and not owed:
        raise scanner.fail("`unreduced_kind` without `unreduced`", kind, expected="`unreduced={'x'}` before it")
    span = scanner.since(start)
    check_parts(scanner, [shard for layout in layouts for shard in layout.shards] + owed)
    laid = lay_out(scanner, layouts, dims, span, exact=False, what="entries")
    return Reading(TensorSpec(laid, partial=owing(owed, reduction, span), span=span), tuple(lost))


def _entry(scanner: Scanner) -> DimLayout:
    """What a PartitionSpec says of one dim."""
    token = scanner.take()
    if token.kind == "string":
        return DimLayout((quoted_axis(scanner, token),), span=scanner.since(token))
    if token.kind == "(":
        shards: list[Shard] = []
        while not scanner.accept(")"):
            shards.append(quoted_axis(scanner, scanner.need("string", "in a tuple of mesh axes", _ENTRY)))
            scanner.separate(token, ")")
        return DimLayout(tuple(shards), span=scanner.since(token))
    while token.kind == "name" and scanner.peek().kind == ".":
        scanner.take()
        token = scanner.need("name", "after `.`")
    if token.kind == "name" and token.text == "None":
        return DimLayout(span=token.span)
    if token.kind == "name" and token.text == "UNCONSTRAINED":
        return DimLayout(open=True, span=token.span)
    if token.kind == "name":
        hint = f"write `'{token.text}'`"
        raise scanner.fail(f"`{shorten(token.text)}` is not quoted", token, expected=_ENTRY, hint=hint)
    found = f"`{shorten(token.text)}`" if token.text else "the end"
    raise scanner.fail(f"{found} in a PartitionSpec", token, expected=_ENTRY)


def _name_set(scanner: Scanner) -> list[Shard]:
    """`{'x', 'y'}`, `frozenset({'x'})`, `set()`."""
    wrapped = scanner.accept("frozenset", "set")
    if wrapped:
        scanner.need("(", f"after `{wrapped.text}`")
    shards: list[Shard] = []
    brace = scanner.peek()
    if not (wrapped and brace.kind == ")"):
        scanner.need("{", "where a set of mesh axes should stand", "a set: `{'x'}`")
        while not scanner.accept("}"):
            shards.append(quoted_axis(scanner, scanner.need("string", "in a set of mesh axes")))
            scanner.separate(brace, "}")
    if wrapped:
        scanner.need(")", f"after `{wrapped.text}`")
    return shards


def _kind(scanner: Scanner) -> Reduction:
    """`sum`, `UnreducedKind.max`, `'min'`."""
    while scanner.follows("name", "."):
        scanner.at += 2
    token = scanner.take()
    word = token.text.strip("'\"")
    if word not in REDUCTIONS:
        raise scanner.fail(
            f"unknown reduction `{shorten(word)}`", token, hint=did_you_mean(word, REDUCTIONS, "reductions")
        )
    return Reduction(word)


def _type(scanner: Scanner, start: Token, dims: Dims | None) -> Reading:
    """A type of JAX, its element type to come or left out."""
    word = scanner.accept("name")
    if word is not None and not is_dtype(word.text):
        hint = did_you_mean(word.text, (*BITS, *ALIASES), "dtypes")
        raise scanner.fail(f"unknown dtype `{shorten(word.text)}`", word, expected="a dtype before `[`", hint=hint)
    lost: list[str] = []
    if scanner.accept("<"):
        space = scanner.need("name", "where a memory space should stand")
        scanner.need(">", "after a memory space")
        lost.append(f"it is in memory space `{space.text}`, which a layout does not hold")
    bracket = scanner.need("[", "after a dtype")
    layouts = []
    while not scanner.accept("]"):
        layouts.append(_sized(scanner))
        scanner.separate(bracket, "]")
    partial = _marks(scanner, lost) if scanner.peek().kind == "{" else None
    span = scanner.since(start)
    owed = list(partial.axes) if partial else []
    check_parts(scanner, [shard for layout in layouts for shard in layout.shards] + owed)
    laid = lay_out(scanner, layouts, dims, span, exact=True, what="sizes")
    return Reading(TensorSpec(laid, dtype=dtype(word.text) if word else None, partial=partial, span=span), tuple(lost))


def _sized(scanner: Scanner) -> DimLayout:
    """`8@x` or `8@(x,y)` or `8`."""
    start = scanner.peek()
    if start.kind == ".":
        raise scanner.fail("a type without sizes", expected="a size for every dim: `bf16[8@x,16]`")
    size = scanner.number()
    shards = _plain_axes(scanner) if scanner.accept("@") else ()
    return DimLayout(shards, False, size, scanner.since(start))


def _plain_axes(scanner: Scanner) -> tuple[Shard, ...]:
    """`x` or `(x,y)`, without quotation marks."""
    bracket = scanner.accept("(")
    shards = []
    while True:
        token = scanner.need("name", "where a mesh axis should stand")
        shards.append(mesh_axis(scanner, token, token.text, token.span))
        if not (bracket and scanner.accept(",")):
            break
    if bracket:
        scanner.need(")", "after mesh axes")
    return tuple(shards)


def _marks(scanner: Scanner, lost: list[str]) -> Partial | None:
    """`{U:x}`, `{V:x, U:(y,z), R:w}`."""
    brace = scanner.take()
    partial = None
    while not scanner.accept("}"):
        word = scanner.need("name", "in `{U:...}`", "`U`, `V` or `R`")
        letter, _, kind = word.text.partition("_")
        kind = kind or SUM
        if letter not in {"U", "V", "R"} or (letter != "U" and kind != SUM) or kind not in REDUCTIONS:
            raise scanner.fail(f"unknown mark `{shorten(word.text)}`", word, expected="`U`, `U_max`, `V` or `R`")
        scanner.need(":", f"after `{word.text}`")
        shards = _plain_axes(scanner)
        names = ", ".join(f"`{shard}`" for shard in shards)
        if letter == "U":
            partial = owing(shards, Reduction(kind), scanner.since(brace))
        elif letter == "R":
            lost.append(REDUCED.format(names))
        else:
            lost.append(MANUAL.format(names))
        scanner.separate(brace, "}")
    return partial


def write_spec(tensor: TensorSpec, mesh: MeshAxes | None = None) -> str:
    """A tensor's layout as a PartitionSpec, an entry for every dim.

    >>> from einscale.notation import parse_tensor
    >>> write_spec(parse_tensor("B/x S D/y/z {U:t}"))
    "P('x', None, ('y', 'z'), unreduced={'t'})"

    Raises:
        NotationError: a PartitionSpec cannot say it.
    """
    words = []
    for dim in stored_dims(tensor, NAME, mesh):
        names = whole_axes([shard.name for shard in dim.shards], NAME)
        if dim.open and names:
            raise NotationError(f"a dim in JAX is given or UNCONSTRAINED: `{'/'.join(names)}/?` is neither")
        quoted = [repr(name) for name in names]
        one = "P.UNCONSTRAINED" if dim.open else quoted[0] if quoted else "None"
        words.append(f"({', '.join(quoted)})" if len(quoted) > 1 else one)
    owed = whole_axes(owed_axes(tensor, NAME, mesh), NAME)
    if owed:
        words.append(f"unreduced={{{', '.join(map(repr, owed))}}}")
    if owed and tensor.reduction != SUM:
        words.append(f"unreduced_kind={tensor.reduction}")
    return f"P({', '.join(words)})"


def write_type(tensor: TensorSpec, mesh: MeshAxes | None = None) -> str:
    """A tensor as a type of JAX.

    >>> from einscale.notation import parse_tensor
    >>> write_type(parse_tensor("bf16[B=8/x D=16/y/z {U(max):t}]"))
    'bf16[8@x,16@(y,z)]{U_max:t}'

    Raises:
        NotationError: a type cannot say it, or a size is not known.
    """
    words = []
    dims = stored_dims(tensor, NAME, mesh)
    for dim, axis in zip(dims, tensor.dims, strict=True):
        if dim.open:
            raise NotationError("a type is settled: it has no open dims")
        if dim.size is None:
            raise NotationError(f"a type has the size of every dim, and that of `{axis}` is not given")
        words.append(f"{dim.size}{_at(whole_axes([shard.name for shard in dim.shards], NAME), '@')}")
    owed = whole_axes(owed_axes(tensor, NAME, mesh), NAME)
    letter = "U" if tensor.reduction == SUM else f"U_{tensor.reduction}"
    mark = f"{{{_at(owed, f'{letter}:')}}}" if owed else ""
    if tensor.dtype not in _SHORT:
        why = "none is given" if tensor.dtype is None else f"JAX has none called `{tensor.dtype}`"
        raise NotationError(f"a type has an element type, and {why}")
    return f"{_SHORT[tensor.dtype]}[{','.join(words)}]{mark}"


def _at(names: Iterable[str], sign: str) -> str:
    """Mesh axes after a sign, in parentheses if there are several."""
    names = tuple(names)
    if not names:
        return ""
    return f"{sign}{names[0]}" if len(names) == 1 else f"{sign}({','.join(names)})"


_SHORT = {
    "bf16": "bf16",
    "bool": "bool",
    "fp64": "f64",
    "fp32": "f32",
    "fp16": "f16",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "int4": "i4",
    "uint8": "u8",
}
"""Element types as jax prints them where it prints them short."""
