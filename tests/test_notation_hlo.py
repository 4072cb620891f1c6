"""HloSharding: tilings decoded to names, against the devices that a tiling and a layout give each block to."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_specs import tensor_of
from strategies import atoms, layouts, meshes

from einscale.errors import NotationError
from einscale.notation import parse_tensor
from einscale.notation.foreign import join_parts
from einscale.notation.hlo_sharding import write_hlo
from einscale.notation.layouts import parse_layout
from einscale.notation.syntax import Axis

XY = (("x", 4), ("y", 2))
ABC = (("a", 2), ("b", 2), ("c", 2))
INDICES = ("i", "j", "k")


# What `jax.sharding.NamedSharding(AbstractMesh(...), PartitionSpec(...))` gives for a layout: printed by jax 0.10.2.
PRINTED = [
    (XY, "i/x j/y", "{devices=[4,2]<=[8]}"),
    (XY, "i/y j/x", "{devices=[2,4]<=[4,2]T(1,0)}"),
    (XY, "i/y j k/x", "{devices=[2,1,4]<=[4,2]T(1,0)}"),
    (XY, "i/x/y j", "{devices=[8,1]<=[8]}"),
    (XY, "i j/y/x", "{devices=[1,8]<=[4,2]T(1,0)}"),
    (XY, "i/x j k", "{devices=[4,1,1,2]<=[8] last_tile_dim_replicate}"),
    (XY, "i j", "{replicated}"),
    (ABC, "i/c j/a", "{devices=[2,2,2]<=[4,2]T(1,0) last_tile_dim_replicate}"),
    (ABC, "i/c/a j/b", "{devices=[4,2]<=[4,2]T(1,0)}"),
    (ABC, "i/b j k", "{devices=[2,1,1,4]<=[2,2,2]T(1,0,2) last_tile_dim_replicate}"),
    (ABC, "i j/b/c", "{devices=[1,4,2]<=[2,4]T(1,0) last_tile_dim_replicate}"),
    (ABC, "i/c j k/b/a", "{devices=[2,1,4]<=[2,2,2]T(2,1,0)}"),
    (ABC, "i/a {U:b}", "{devices=[2,2,2]<=[8] last_tile_dims={unreduced, replicated}}"),
    (ABC, "i/c j {U:a}", "{devices=[2,1,2,2]<=[4,2]T(1,0) last_tile_dims={unreduced, replicated}}"),
    (ABC, "i/a/c {U:b}", "{devices=[4,2]<=[2,2,2]T(0,2,1) last_tile_dims={unreduced}}"),
    (ABC, "i {U:a,b}", "{devices=[1,4,2]<=[8] last_tile_dims={unreduced, replicated}}"),
    (ABC, "i j {U:a,b,c}", "{unreduced}"),
]


@pytest.mark.parametrize(("mesh", "slash", "text"), PRINTED)
def test_what_jax_prints_is_written_and_read(mesh, slash: str, text: str) -> None:
    tensor = parse_tensor(slash)
    assert write_hlo(tensor, mesh) == text
    bare = tuple(Axis(name) for name in tensor.indices)
    assert str(parse_layout(text, "hlo", bare, mesh).tensor) == slash


@pytest.mark.parametrize(
    ("mesh", "text", "slash"),
    [
        (XY, "{devices=[2,2,2]<=[8] last_tile_dim_replicate}", "i/x:(1)2 j/x:(2)2"),
        (XY, "{devices=[4,2]<=[2,4]T(1,0)}", "i/x:(2)2/y j/x:(1)2"),
        (XY, "{devices=[2,4]<=[2,4]}", "i/x:(1)2 j/x:(2)2/y"),
        (XY, "{devices=[2,1,4]0,2,4,6,1,3,5,7}", "i/y j k/x"),
        (XY, "{devices=[2,4]0,4,2,6,1,5,3,7 last_tile_dim_replicate}", "i/y"),
        (XY, "{devices=[2,1,4]3,1,2,0,5,7,6,4 last_tile_dim_replicate}", "i/x:(1)2 j"),
        ((("x", 8),), "{devices=[2,2,2]<=[2,2,2]T(2,0,1)}", "i/x:(4)2 j/x:(1)2 k/x:(2)2"),
        ((("x", 6), ("y", 2)), "{devices=[2,3,2]<=[12] last_tile_dim_replicate}", "i/x:(1)2 j/x:(2)3"),
        ((("x", 2), ("e", 1), ("y", 2)), "{devices=[2,2]<=[2,2]T(1,0)}", "i/y j/x"),
        (XY, "{devices=[4,2]<=[8] last_tile_dims={replicated}}", "i/x"),
        (XY, 'sharding={devices=[4,1,2]<=[8] last_tile_dim_replicate metadata={op_name="a{b"}}', "i/x j"),
        (XY, "{devices=[4,2]<=[8] shard_as 3}", "i/x j/y"),
        (XY, "{mesh[x=4,y=2], [{y}, {x:(1)2, ?}], replicated={x:(2)2}}", "i/y j/x:(1)2/?"),
        (XY, "{mesh['x'=4,'y'=2], [{'y'}], unreduced=max{'x'}}", "i/y {U(max):x}"),
        (None, "{mesh[a=2,b=2], [{a}, {}]}", "i/a j"),
    ],
)
def test_what_is_read(mesh, text: str, slash: str) -> None:
    assert str(parse_layout(text, "hlo", None, mesh).tensor) == slash


def test_what_has_no_rank_takes_it_from_the_tensor() -> None:
    dims = parse_tensor("B S").dims
    assert str(parse_layout("{replicated}", "hlo", dims, XY).tensor) == "B S"
    assert str(parse_layout("{unreduced}", "hlo", dims, XY).tensor) == "B S {U:x,y}"
    assert str(parse_layout("{mesh[x=4,y=2], replicated}", "hlo", dims, XY).tensor) == "B S"


@pytest.mark.parametrize(
    "text",
    ["{devices=[2,4]<=[2,4] last_tile_dims={manual}}", "{mesh[x=4,y=2], [{x:(1)2}], manual={x:(2)2, y}}"],
)
def test_manual_axes_are_said(text: str) -> None:
    (sentence,) = parse_layout(text, "hlo", None, XY).lost
    assert sentence.startswith("over `x:(2)2`, `y` the program is manual")


@pytest.mark.parametrize(
    ("slash", "why"),
    [
        ("B/?", "it has no open dims"),
        ("B {U:?}", "no word for a sum that may stay owed"),
        ("B {U(max):x}", "owes sums only, and the tensor a max"),
        ("B/x:(1)3", "is no part of mesh axis `x` of 4 devices"),
        ("B/z", "unknown mesh axis `z`"),
    ],
)
def test_what_cannot_be_written_says_why(slash: str, why: str) -> None:
    with pytest.raises(NotationError) as caught:
        write_hlo(parse_tensor(slash), XY)
    assert why in str(caught.value)


def tiles_by_layout(tensor, mesh) -> dict[int, tuple[int, ...]]:
    """Device -> the block of each dim that it holds, from mesh coordinates alone."""
    sizes = dict(mesh)
    held = {}
    for device, coordinates in enumerate(product(*(range(size) for _, size in mesh))):
        place = dict(zip(sizes, coordinates, strict=True))
        held[device] = tuple(block_of(axes, place, sizes) for axes in tensor.layout)
    return held


def block_of(axes, place, sizes) -> int:
    """The block of a dim that the device at `place` holds."""
    block = 0
    for name in axes:
        axis, _, part = name.partition(":(")
        before, size = map(int, part.split(")")) if part else (1, sizes[axis])
        block = block * size + place[axis] // (sizes[axis] // (before * size)) % size
    return block


def tiles_by_devices(text: str, rank: int) -> dict[int, tuple[int, ...]]:
    """Device -> the tile that it holds, from the array of devices of the text, as XLA's sources define it."""
    shape, _, rest = text.removeprefix("{devices=[").partition("]<=[")
    tiles = [int(word) for word in shape.split(",")]
    sizes, _, rest = rest.partition("]")
    order = rest[2 : rest.index(")")].split(",") if rest.startswith("T(") else None
    devices = np.arange(prod(tiles)).reshape([int(word) for word in sizes.split(",")])
    devices = (devices.transpose([int(word) for word in order]) if order else devices).reshape(tiles)
    return {int(device): index[:rank] for index, device in np.ndenumerate(devices)}


@st.composite
def placed(draw: st.DrawFn):
    """A tensor and a mesh; mesh axes may be split."""
    mesh = draw(meshes(devices=64, degrees=(2, 3, 4, 6, 8)))
    layout = draw(layouts(INDICES, draw(atoms(mesh))))
    pairs = tuple((axis.name, axis.size) for axis in mesh.axes)
    return tensor_of(layout), pairs


@given(placed())
def test_devices_hold_the_tiles_that_the_layout_says(case) -> None:
    tensor, mesh = case
    text = write_hlo(tensor, mesh)
    if text.startswith("{devices"):
        assert tiles_by_devices(text, 3) == tiles_by_layout(tensor, mesh)
    else:
        assert not any(tensor.layout)


@given(placed())
def test_reading_what_is_written_gives_the_layout_back(case) -> None:
    tensor, mesh = case
    bare = tuple(Axis(name) for name in INDICES)
    again = parse_layout(write_hlo(tensor, mesh), "hlo", bare, mesh).tensor
    joined = tuple(join_parts(axes, dict(mesh)) for axes in tensor.layout)
    assert again.layout == joined
    assert sorted(again.unreduced) == sorted(whole(tensor.unreduced, mesh))


def whole(names, mesh):
    """The names in mesh order, parts joined."""
    order = [name for name, _ in mesh]
    ranked = sorted(names, key=lambda name: (order.index(name.partition(":")[0]), name))
    return join_parts(ranked, dict(mesh))


@given(placed())
def test_a_list_of_devices_says_the_same_as_the_short_form(case) -> None:
    tensor, mesh = case
    text = write_hlo(tensor, mesh)
    if not text.startswith("{devices"):
        return
    head, _, rest = text.partition("<=")
    held = tiles_by_devices(text, 99)
    devices = sorted(held, key=lambda device: held[device])
    tail = rest[rest.index(" ") :] if " " in rest else "}"
    bare = tuple(Axis(name) for name in INDICES)
    listed = parse_layout(f"{head}{','.join(map(str, devices))}{tail}", "hlo", bare, mesh).tensor
    assert listed.layout == parse_layout(text, "hlo", bare, mesh).tensor.layout


@given(st.permutations(range(8)))
def test_an_order_of_devices_is_decoded_truly_or_refused(order) -> None:
    """Whatever the order, a decoded layout gives every device its tile."""
    text = f"{{devices=[2,4]{','.join(map(str, order))}}}"
    try:
        tensor = parse_layout(text, "hlo", None, (("x", 2), ("y", 2), ("z", 2))).tensor
    except NotationError as error:
        assert "devices in an order that no layout over a mesh has" in str(error)
        return
    tiles = {device: divmod(place, 4) for place, device in enumerate(order)}
    assert tiles_by_layout(tensor, (("x", 2), ("y", 2), ("z", 2))) == tiles
