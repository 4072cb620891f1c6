"""Shardy's notation: dims, open dims, parts of axes, replicated and unreduced axes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_specs import tensor_of
from strategies import atoms, layouts, meshes

from einscale.errors import NotationError
from einscale.notation import parse_spec, parse_tensor
from einscale.notation.foreign import join_parts
from einscale.notation.layouts import parse_layout
from einscale.notation.shardy import write_shardy

EIGHT = (("x", 2), ("y", 8), ("z", 2))


@pytest.mark.parametrize(
    ("text", "slash"),
    [
        ('#sdy.sharding<@mesh_xyz, [{"x"}, {"z", "y"}]>', "i/x j/z/y"),
        ('sharding<@mesh_xyz, [{"x"}, {"z", ?}]>', "i/x j/z/?"),
        ('<@mesh, [{"x"}, {?}]>', "i/x j/?"),
        ('sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>', "i/x"),
        ('[{"x"}, {}]', "i/x j"),
        ("[{'x'}, {}]", "i/x j"),
        ("[]", ""),
        ('[{"x":(1)2}, {"x":(2)2}]', "i/x:(1)2 j/x:(2)2"),
        ('#sdy.sharding<@mesh, [{"x"}, {"y":(2)2}], replicated={"y":(1)2}>', "i/x j/y:(2)2"),
        ('#sdy.sharding<@mesh, [{}, {}], replicated={"a"}, unreduced={"b", "c"}>', "i j {U:b,c}"),
        ('#sdy.sharding<@mesh, [{}, {}], unreduced=max{"a"}>', "i j {U(max):a}"),
        ('[{"x"}, {}] unreduced={"u"}', "i/x j {U:u}"),
        ('[{"x"}, {}], unreduced={"u"}', "i/x j {U:u}"),
        ('#sdy.sharding<mesh<["x"=2, "y"=4]>, [{"x"}, {"y"}]>', "i/x j/y"),
    ],
)
def test_what_is_read(text: str, slash: str) -> None:
    reading = parse_layout(text, "shardy")
    assert str(reading.tensor) == slash
    assert reading.lost == ()


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ('[{"x"}p1, {}]', "priority 1 of a dim"),
        ('#sdy.sharding<@mesh, [{"x"}, {?}], replicated={"y"}>', "its open dims may not be divided over `y`"),
        ('[{"x"}], manual={"m"}', "over `m` the program is manual"),
    ],
)
def test_what_a_layout_cannot_hold_is_said_and_refused_in_a_spec(text: str, lost: str) -> None:
    assert lost in parse_layout(text, "shardy").lost[0]
    rank = text.count("{") - text.count("={")
    with pytest.raises(NotationError, match="a layout that says no more"):
        parse_spec(f"{'ij'[:rank]}->{'ij'[:rank]}; {text}", syntax="shardy")


@pytest.mark.parametrize(
    ("slash", "text"),
    [
        ("B/x S D/z/y", '#sdy.sharding<@mesh, [{"x"}, {}, {"z", "y"}]>'),
        ("B/x/? S ?", '#sdy.sharding<@mesh, [{"x", ?}, {?}]>'),
        ("B/y:(1)2/y:(2)4", '#sdy.sharding<@mesh, [{"y"}]>'),
        ("B/y:(2)2/y:(4)2 {U:z,x}", '#sdy.sharding<@mesh, [{"y":(2)4}], unreduced={"x", "z"}>'),
        ("B {U(min):x}", '#sdy.sharding<@mesh, [{}], unreduced=min{"x"}>'),
    ],
)
def test_what_is_written(slash: str, text: str) -> None:
    assert write_shardy(parse_tensor(slash), EIGHT) == text


def test_what_cannot_be_written_says_why() -> None:
    with pytest.raises(NotationError, match=r"Shardy lists every dim, and `\.\.\.` stands for any number of them"):
        write_shardy(parse_tensor("... D"))


@given(st.data(), meshes(devices=64, degrees=(2, 3, 4, 6, 8)))
def test_reading_what_is_written_gives_the_layout_back(data: st.DataObject, mesh) -> None:
    reduction = data.draw(st.sampled_from(["sum", "max", "min"]))
    tensor = tensor_of(data.draw(layouts(("i", "j", "k"), data.draw(atoms(mesh)), reduction=reduction)))
    pairs = tuple((axis.name, axis.size) for axis in mesh.axes)
    again = parse_layout(write_shardy(tensor, pairs), "shardy").tensor
    assert again.layout == tuple(join_parts(axes, dict(pairs)) for axes in tensor.layout)
    assert again.reduction == tensor.reduction
    plain = parse_layout(write_shardy(tensor), "shardy").tensor
    assert plain.layout == tuple(join_parts(axes, None) for axes in tensor.layout)
    assert plain.unreduced == tuple(sorted(join_parts(sorted(tensor.unreduced), None)))
