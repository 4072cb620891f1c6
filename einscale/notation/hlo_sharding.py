"""HloSharding, which names devices and no axes: `{devices=[2,1,4]<=[4,2]T(1,0) last_tile_dim_replicate}`.

What is read is what `HloSharding::ToString` of XLA prints (xla/hlo/ir/hlo_sharding.cc, tile_assignment.cc and
named_sharding.cc in openxla/xla): device lists (V1), iota tilings (V2), and shardings by a mesh (V3).

A tiling is an array of device numbers, a coordinate for each tile of the tensor; tile dims behind those of the tensor
hold the devices that share a tile. With the mesh's devices numbered in its own order, last axis fastest, a tiling that
a layout can have is a rearrangement of digits of the device number: each tile dim is made of digits, and each digit is
a mesh axis or a part of one.
"""

from __future__ import annotations

from math import prod

from msgspec import Struct

from einscale.errors import NotationError
from einscale.notation.foreign import (
    MANUAL,
    DimLayout,
    Dims,
    MeshAxes,
    Reading,
    Scanner,
    check_parts,
    join_parts,
    lay_out,
    owed_axes,
    owing,
    shard_size,
    stored_dims,
)
from einscale.notation.shardy import read_dims, read_sets
from einscale.notation.syntax import Shard, Span, TensorSpec, split_shard
from einscale.notation.tokens import Token, shorten
from einscale.vocabulary import SUM

NAME = "HloSharding"
MOST_DEVICES = 1 << 20
"""Longest list of devices that is read one by one."""

_EXPECTED = "`{devices=[2,4]<=[8]}`, `{replicated}` or the like"
_SUBGROUPS = ("replicated", "manual", "unreduced", "maximal")
_WHOLE = {
    "maximal": "the tensor is on one device alone, which is no layout over a mesh",
    "manual": "inside shard_map each device has a tensor of its own, which is no layout of one tensor",
    "unknown": "the sharding is not known yet",
}


class Digit(Struct, frozen=True):
    """A factor of the device number: `size` values, `stride` devices apart."""

    stride: int
    size: int


class Tiling(Struct, frozen=True):
    """A tiled sharding as read.

    Args:
        tiles: size of each tile dim, those of the tensor first.
        digits: what the tile dims run over, major to minor; sizes multiply to all devices.
        subgroups: kinds of the last tile dims, which are none of the tensor's.
    """

    tiles: tuple[int, ...]
    digits: tuple[Digit, ...]
    subgroups: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Dims of the tensor."""
        return len(self.tiles) - len(self.subgroups)


def read_hlo(scanner: Scanner, dims: Dims | None = None, mesh: MeshAxes | None = None) -> Reading:
    """An HloSharding, decoded to names.

    >>> mesh = (("x", 4), ("y", 2))
    >>> print(read_hlo(Scanner("{devices=[2,1,4]<=[4,2]T(1,0)}"), None, mesh).tensor)
    i/y j k/x
    >>> print(read_hlo(Scanner("{devices=[2,2,2]0,1,2,3,4,5,6,7 last_tile_dim_replicate}"), None, mesh).tensor)
    i/x:(1)2 j/x:(2)2

    Args:
        scanner: where it stands; left behind it.
        dims: dims of the tensor, whose names it takes.
        mesh: the mesh, its devices numbered in its own order.

    Raises:
        NotationError: it is malformed, is not of that many devices, or no layout over this mesh has it.
    """
    start = scanner.peek()
    if scanner.follows("sharding", "="):
        scanner.at += 2
    brace = scanner.need("{", "where a sharding should stand", _EXPECTED)
    token = scanner.peek()
    if token.kind == "{":
        raise scanner.fail("a tuple of shardings", token, expected="one of them")
    if scanner.follows("mesh", "["):
        return _by_mesh(scanner, start, dims, mesh)
    if scanner.accept("maximal_mesh"):
        raise scanner.fail(_WHOLE["maximal"], token)
    if scanner.accept("devices"):
        tiling = _tiling(scanner, brace)
        _end(scanner, brace)
        return _decoded(scanner, start, tiling, dims, mesh)
    if scanner.accept("replicated", "unreduced"):
        _end(scanner, brace)
        return _everywhere(scanner, start, token, dims, mesh)
    if token.kind == "name" and token.text in _WHOLE:
        raise scanner.fail(_WHOLE[token.text], token)
    found = f"`{shorten(token.text)}`" if token.text else "the end"
    raise scanner.fail(f"{found} in a sharding", token, expected=_EXPECTED)


def _everywhere(scanner: Scanner, start: Token, token: Token, dims: Dims | None, mesh: MeshAxes | None) -> Reading:
    """`{replicated}` and `{unreduced}`, which do not say how many dims the tensor has."""
    span = scanner.since(start)
    if dims is None:
        message = f"`{{{token.text}}}` does not say how many dims the tensor has"
        raise scanner.fail(message, span, expected="its indices")
    if token.text == "unreduced" and mesh is None:
        raise scanner.fail("a sum owed over every axis of a mesh that is not known", span, expected="a mesh")
    owed = [Shard(name, span) for name, size in mesh or () if size > 1] if token.text == "unreduced" else []
    laid = lay_out(scanner, [], dims, span, exact=False, what="dims")
    return Reading(TensorSpec(laid, partial=owing(owed, SUM, span), span=span))


def _by_mesh(scanner: Scanner, start: Token, dims: Dims | None, mesh: MeshAxes | None) -> Reading:
    """`{mesh[x=2,y=4], [{x}, {y}], replicated={...}, unreduced={...}}`, whose names are its own."""
    token = scanner.take()
    bracket = scanner.take()
    own: list[tuple[str, int]] = []
    while not scanner.accept("]"):
        name = scanner.accept("string") or scanner.need("name", "where a mesh axis should stand")
        scanner.need("=", "after a mesh axis")
        own.append((name.text.strip("'\""), scanner.number("size of a mesh axis")))
        scanner.separate(bracket, "]")
    known = [(name, size) for name, size in mesh or () if size > 1]
    if mesh is not None and all(size for _, size in mesh) and known != [pair for pair in own if pair[1] > 1]:
        shown = ",".join(f"{name}={size}" for name, size in known)
        raise scanner.fail("a sharding on another mesh", scanner.since(token), expected=f"the mesh {shown}")
    if scanner.follows(",", "device_ids"):
        hint = "names stand for other devices than in a mesh in order"
        raise scanner.fail("a mesh whose devices are not in order", scanner.peek(1), hint=hint)
    scanner.need(",", "after the mesh")
    brace = scanner.peek()
    word = scanner.accept("replicated", "unreduced", "manual")
    if word is not None:
        if word.text == "manual":
            raise scanner.fail(_WHOLE["manual"], word)
        _end(scanner, brace)
        return _everywhere(scanner, start, word, dims, own)
    lost: list[str] = []
    layouts = read_dims(scanner, scanner.need("[", "where the dims should stand"), lost, quoted=False)
    replicated, owed, reduction = read_sets(scanner, lost, quoted=False, comma=True)
    _end(scanner, brace)
    span = scanner.since(start)
    check_parts(scanner, [shard for layout in layouts for shard in layout.shards] + replicated + owed)
    laid = lay_out(scanner, layouts, dims, span, exact=True, what="dims")
    return Reading(TensorSpec(laid, partial=owing(owed, reduction, span), span=span), tuple(lost))


def _end(scanner: Scanner, brace: Token) -> None:
    """Pass what XLA adds behind a sharding, and its closing brace."""
    while not scanner.accept("}"):
        if scanner.accept("metadata"):
            scanner.need("=", "after `metadata`")
            _skip(scanner, scanner.need("{", "after `metadata=`"))
        elif scanner.accept("shard_as", "shard_like"):
            scanner.index()
        elif not scanner.accept(",") or scanner.peek().kind == "end":
            token = scanner.peek()
            if token.kind == "end":
                raise scanner.fail("a sharding is never closed", brace, expected="`}`")
            raise scanner.fail(f"unexpected `{shorten(token.text)}` in a sharding", token, expected="`}`")


def _skip(scanner: Scanner, brace: Token) -> None:
    depth = 1
    while depth:
        token = scanner.take()
        if token.kind == "end":
            raise scanner.fail("`{` is never closed", brace, expected="`}`")
        depth += (token.kind == "{") - (token.kind == "}")


def _tiling(scanner: Scanner, brace: Token) -> Tiling:
    """`=[2,1,4]<=[4,2]T(1,0) last_tile_dim_replicate`."""
    scanner.need("=", "after `devices`")
    start = scanner.peek()
    tiles = _sizes(scanner)
    span = scanner.since(start)
    count = prod(tiles)
    if count > MOST_DEVICES:
        raise scanner.fail(f"a sharding over {count} devices", span, expected=f"at most {MOST_DEVICES}")
    if scanner.accept("<="):
        digits = _iota(scanner, tiles)
        listed = None
    else:
        digits, listed = (), _listed(scanner, tiles)
    subgroups = _subgroups(scanner)
    if len(subgroups) > len(tiles):
        raise scanner.fail(f"{len(subgroups)} kinds of tile dims, and {len(tiles)} tile dims", span)
    if listed is not None:
        shared = tiles[-1] if subgroups and subgroups[-1] == "replicated" else 1
        digits = _digits_of(scanner, listed, shared, scanner.since(start))
    return Tiling(tiles, digits, subgroups)


def _sizes(scanner: Scanner) -> tuple[int, ...]:
    bracket = scanner.need("[", "where sizes should stand", "`[2,1,4]`")
    found = []
    while not scanner.accept("]"):
        found.append(scanner.number())
        scanner.separate(bracket, "]")
    if not found:
        raise scanner.fail("no sizes", scanner.since(bracket), expected="`[2,1,4]`")
    return tuple(found)


def _iota(scanner: Scanner, tiles: tuple[int, ...]) -> tuple[Digit, ...]:
    """`[4,2]T(1,0)`: devices counted up in an array of those sizes, its dims rearranged."""
    start = scanner.peek()
    sizes = _sizes(scanner)
    order = tuple(range(len(sizes)))
    if prod(sizes) != prod(tiles):
        message = f"{prod(tiles)} tiles of {prod(sizes)} devices"
        raise scanner.fail(message, scanner.since(start), expected="as many devices as tiles")
    if scanner.accept("T"):
        bracket = scanner.need("(", "after `T`", "`T(1,0)`")
        listed = []
        while not scanner.accept(")"):
            listed.append(scanner.index()[0])
            scanner.separate(bracket, ")")
        if sorted(listed) != list(order):
            expected = f"each of 0 to {len(sizes) - 1} once"
            raise scanner.fail("no rearrangement of the dims", scanner.since(bracket), expected=expected)
        order = tuple(listed)
    strides = [prod(sizes[k + 1 :]) for k in range(len(sizes))]
    return tuple(Digit(strides[k], sizes[k]) for k in order if sizes[k] > 1)


def _listed(scanner: Scanner, tiles: tuple[int, ...]) -> tuple[int, ...]:
    """The devices one by one: `0,1,2,3`."""
    start = scanner.peek()
    found = [scanner.index("where a device should stand")[0]]
    while scanner.follows(",", "number"):
        scanner.take()
        found.append(scanner.index()[0])
    if sorted(found) != list(range(prod(tiles))):
        expected = f"each of 0 to {prod(tiles) - 1} once"
        raise scanner.fail(f"no list of {prod(tiles)} devices", scanner.since(start), expected=expected)
    return tuple(found)


def _digits_of(scanner: Scanner, devices: tuple[int, ...], shared: int, span: Span) -> tuple[Digit, ...]:
    """The digits that a list of devices runs over, major to minor; the order within groups of `shared` says nothing."""
    if shared > 1:
        groups = [sorted(devices[k : k + shared]) for k in range(0, len(devices), shared)]
        devices = tuple(device for group in groups for device in group)
    digits: list[Digit] = []
    rest = devices
    while len(rest) > 1:
        stride = rest[1]
        size = next((k for k, device in enumerate(rest) if device != k * stride), len(rest))
        if size < 2 or len(rest) % size:
            break
        digits.insert(0, Digit(stride, size))
        rest = rest[::size]
    if len(rest) > 1 or devices != _counted(digits):
        raise scanner.fail("devices in an order that no layout over a mesh has", span)
    return tuple(digits)


def _counted(digits: list[Digit]) -> tuple[int, ...]:
    """The devices that digits run over, the last digit fastest."""
    devices = [0]
    for digit in digits:
        devices = [device + k * digit.stride for device in devices for k in range(digit.size)]
    return tuple(devices)


def _subgroups(scanner: Scanner) -> tuple[str, ...]:
    """`last_tile_dim_replicate`, `last_tile_dims={manual, replicated}`."""
    found: list[str] = []
    if scanner.accept("last_tile_dim_replicate"):
        found.append("replicated")
    if scanner.accept("last_tile_dims"):
        scanner.need("=", "after `last_tile_dims`")
        brace = scanner.need("{", "after `last_tile_dims=`")
        while not scanner.accept("}"):
            word = scanner.need("name", "where the kind of a tile dim should stand")
            if word.text not in _SUBGROUPS:
                expected = f"one of {', '.join(_SUBGROUPS)}"
                raise scanner.fail(f"unknown kind of tile dim `{shorten(word.text)}`", word, expected=expected)
            found.append(word.text)
            scanner.separate(brace, "}")
    return tuple(found)


def _decoded(scanner: Scanner, start: Token, tiling: Tiling, dims: Dims | None, mesh: MeshAxes | None) -> Reading:
    """A tiling as a layout over the mesh."""
    span = scanner.since(start)
    count = prod(tiling.tiles)
    if mesh is None or not all(size for _, size in mesh):
        message = "an HloSharding numbers devices, and the mesh that names them is not known"
        raise scanner.fail(message, span, expected=f"a mesh of {count} devices, its axes in the order of the devices")
    devices = prod(size for _, size in mesh)
    if devices != count:
        shown = ",".join(f"{name}={size}" for name, size in mesh)
        raise scanner.fail(f"a sharding of {count} devices on the mesh {shown} of {devices}", span)
    parts = _per_tile_dim(scanner, tiling, mesh, span)
    sizes = dict(mesh)
    named = [tuple(Shard(name, span) for name in join_parts(names, sizes)) for names in parts]
    owed: list[Shard] = []
    lost = []
    for kind, shards in zip(tiling.subgroups, named[tiling.rank :], strict=True):
        if kind == "unreduced":
            owed += shards
        elif kind == "manual" and shards:
            lost.append(MANUAL.format(", ".join(f"`{shard}`" for shard in shards)))
        elif kind == "maximal":
            raise scanner.fail(_WHOLE["maximal"], span)
    layouts = [DimLayout(shards, span=span) for shards in named[: tiling.rank]]
    laid = lay_out(scanner, layouts, dims, span, exact=True, what="tile dims")
    return Reading(TensorSpec(laid, partial=owing(owed, SUM, span), span=span), tuple(lost))


def _per_tile_dim(scanner: Scanner, tiling: Tiling, mesh: MeshAxes, span: Span) -> list[list[str]]:
    """Per tile dim the parts of mesh axes that it runs over, major to minor."""
    ladder = _ladder(mesh)
    left = [piece for digit in tiling.digits for piece in _cut(scanner, digit, ladder, span)]
    found: list[list[str]] = []
    for size in tiling.tiles:
        names, tile = [], size
        while tile > 1:
            digit = left.pop(0)
            if tile % digit.size:  # a tile dim ends within this digit: its major part belongs here
                if digit.size % tile:
                    raise scanner.fail(
                        f"a tile dim of {tile} shards where the mesh has {digit.size} devices, {digit.stride} apart",
                        span,
                        hint="no part of a mesh axis is such",
                    )
                left.insert(0, Digit(digit.stride, digit.size // tile))
                digit = Digit(digit.stride * (digit.size // tile), tile)
            names.append(_named(digit, ladder))
            tile //= digit.size
        found.append(names)
    return found


def _ladder(mesh: MeshAxes) -> list[tuple[str, int, int]]:
    """(name, stride, size) of every mesh axis, major to minor."""
    found: list[tuple[str, int, int]] = []
    stride = 1
    for name, size in reversed(mesh):
        found.insert(0, (name, stride, size))
        stride *= size
    return found


def _cut(scanner: Scanner, digit: Digit, ladder: list[tuple[str, int, int]], span: Span) -> list[Digit]:
    """A digit cut where one mesh axis ends and the next begins, major to minor."""
    pieces: list[Digit] = []
    low, high = digit.stride, digit.stride * digit.size
    for name, stride, size in reversed(ladder):
        top = stride * size
        if size == 1 or top <= low or stride >= high:
            continue
        bottom, end = max(low, stride), min(high, top)
        if bottom % stride or top % end or end % bottom:
            shown = ",".join(f"{axis}={count}" for axis, _, count in ladder)
            raise scanner.fail(
                f"{digit.size} shards, {digit.stride} apart, are no part of axis `{name}` of the mesh {shown}",
                span,
                hint="it was made on another mesh, or one whose devices are in another order",
            )
        pieces.insert(0, Digit(bottom, end // bottom))
    return pieces


def _named(digit: Digit, ladder: list[tuple[str, int, int]]) -> str:
    """The part of a mesh axis that a digit within it is."""
    name, stride, size = next(
        (name, stride, size) for name, stride, size in ladder if stride <= digit.stride < stride * size
    )
    return name if digit.size == size else f"{name}:({stride * size // (digit.stride * digit.size)}){digit.size}"


def write_hlo(tensor: TensorSpec, mesh: MeshAxes) -> str:
    """A tensor's layout as an HloSharding in the shortest form, which is the one XLA prints.

    >>> from einscale.notation import parse_tensor
    >>> mesh = (("x", 4), ("y", 2))
    >>> write_hlo(parse_tensor("B/y S D/x"), mesh), write_hlo(parse_tensor("B/x S"), mesh)
    ('{devices=[2,1,4]<=[4,2]T(1,0)}', '{devices=[4,1,2]<=[8] last_tile_dim_replicate}')

    Raises:
        NotationError: an HloSharding cannot say it.
    """
    sizes = dict(mesh)
    dims = stored_dims(tensor, NAME, mesh)
    if any(dim.open for dim in dims):
        raise NotationError("an HloSharding is settled: it has no open dims")
    owed = owed_axes(tensor, NAME, mesh)
    if owed and tensor.reduction != SUM:
        raise NotationError(f"an HloSharding owes sums only, and the tensor a {tensor.reduction}")
    ladder = _ladder(mesh)
    tiles = [[_digit(shard.name, ladder, sizes) for shard in dim.shards] for dim in dims]
    owing_digits = [_digit(name, ladder, sizes) for name in owed]
    used = [digit for digits in (*tiles, owing_digits) for digit in digits]
    rest = _unused(used, ladder)
    subgroups = []
    for kind, digits in (("unreduced", owing_digits), ("replicated", rest)):
        if prod(digit.size for digit in digits) > 1:
            subgroups.append(kind)
            tiles.append(digits)
    flat = [digit for digits in tiles for digit in digits if digit.size > 1]
    count = prod(digit.size for digit in flat)
    if len(subgroups) == 1 and prod(d.size for digits in tiles[:-1] for d in digits) == 1:
        return f"{{{subgroups[0]}}}"
    if count == 1:
        return "{replicated}"
    reshape, order = _canonical(flat)
    turned = f"T({','.join(map(str, order))})" if len(order) > 1 else ""
    last = {("replicated",): " last_tile_dim_replicate", (): ""}.get(
        tuple(subgroups), f" last_tile_dims={{{', '.join(subgroups)}}}"
    )
    shape = ",".join(str(prod(digit.size for digit in digits)) for digits in tiles)
    return f"{{devices=[{shape}]<=[{','.join(map(str, reshape))}]{turned}{last}}}"


def _digit(name: str, ladder: list[tuple[str, int, int]], sizes: dict[str, int]) -> Digit:
    """The digit that a mesh axis, or a part of one, is."""
    size = shard_size(name, sizes)
    axis, before, _ = split_shard(name)
    whole, stride = next((count, stride) for known, stride, count in ladder if known == axis)
    if whole % (before * size):
        raise NotationError(f"`{name}` is no part of mesh axis `{axis}` of {whole} devices")
    return Digit(stride * whole // (before * size), size)


def _unused(used: list[Digit], ladder: list[tuple[str, int, int]]) -> list[Digit]:
    """The digits of the mesh that are not among those used, major to minor."""
    found: list[Digit] = []
    for _, stride, size in ladder:
        inside = [digit for digit in used if digit.size > 1 and stride <= digit.stride < stride * size]
        top = stride * size
        for digit in sorted(inside, key=lambda digit: -digit.stride):
            found.append(Digit(digit.stride * digit.size, top // (digit.stride * digit.size)))
            top = digit.stride
        found.append(Digit(stride, top // stride))
    return [digit for digit in found if digit.size > 1]


def _canonical(digits: list[Digit]) -> tuple[list[int], list[int]]:
    """(sizes of the array that counts the devices, order of its dims): neighbours that stay together are one dim."""
    merged: list[Digit] = []
    for digit in digits:
        if merged and merged[-1].stride == digit.stride * digit.size:
            merged[-1] = Digit(digit.stride, merged[-1].size * digit.size)
        else:
            merged.append(digit)
    by_stride = sorted(merged, key=lambda digit: -digit.stride)
    return [digit.size for digit in by_stride], [by_stride.index(digit) for digit in merged]
