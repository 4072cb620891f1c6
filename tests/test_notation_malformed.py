"""What is wrong with a layout in another notation is said in words, and underlined."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einscale import convert
from einscale.errors import EinscaleError
from einscale.notation import LAYOUTS, parse_spec

MESH = "x=4,y=2"

# text, guilty characters, words of the message
ONE_TENSOR = [
    ("P('x', None", "P", "`P` is never closed"),
    ("P(x, None)", "x", "`x` is not quoted\nwrite `'x'`"),
    ("P('x', 'x')", "x", "mesh axis `x` is used twice in one tensor"),
    ("P('yy', None)", "yy", "unknown mesh axis `yy`\ndid you mean `y`?"),
    ("P('x', unreduce={'y'})", "unreduce", "a PartitionSpec has no `unreduce`\ndid you mean `unreduced`?"),
    ("P('x', unreduced='y')", "'y'", "expected a set: `{'x'}`"),
    ("P('x', unreduced_kind=sum)", "unreduced_kind", "`unreduced_kind` without `unreduced`"),
    ("P('x', unreduced={'y'}, unreduced_kind=avg)", "avg", "unknown reduction `avg`\nreductions: sum, max, min"),
    ("P(unreduced={'y'}, 'x')", "'x'", "an entry after `unreduced=`"),
    ("P('x' 'y')", "'y'", "`'y'` where an entry should end"),
    ("P('x, None)", "'", "a quotation mark is never closed"),
    ("P('data-1')", "'data-1'", "is no name of a mesh axis\nrename the mesh axis"),
    ("P('x'))", ")", "unexpected `)` after a layout"),
    ("bf16[8@x,16@(y]", "]", "`]` after mesh axes"),
    ("bf16[8@,16]", ",", "where a mesh axis should stand"),
    ("bf61[8@x,16]", "bf61", "unknown dtype `bf61`\ndid you mean `bf16`?"),
    ("bf16[8@x,16]{W:y}", "W", "unknown mark `W`"),
    ("bf16[0@x,2]", "0", "the size must be at least 1"),
    ("[Shard(0)]", "[Shard(0)]", "1 placement on a mesh of 2 dims\nexpected one for each of: x, y"),
    ("[Shard(), Replicate()]", "Shard()", "`Shard` without a dim"),
    ("[Shard(0), Replicat()]", "Replicat", "unknown placement `Replicat`\ndid you mean `Replicate`?"),
    ("[Shard(0), Partial(avg)]", "avg", "a tensor that owes an average has no layout here"),
    ("[Shard(0), MaskPartial(0)]", "MaskPartial", "the partial sum of an embedding's lookup is `Partial()`"),
    ("[Shard(-1), Replicate()]", "[Shard(-1), Replicate()]", "counted from the end of a tensor of unknown rank"),
    (
        "[_StridedShard(dim=0, sf=3), Shard(0)]",
        "_StridedShard(dim=0, sf=3)",
        "a split factor of 3\nexpected one of 1, 2",
    ),
    ("[_StridedShard(0), Shard(0)]", "_StridedShard(0)", "without a split factor"),
    ("[Shard(0), Replicate()", "[", "`[` is never closed"),
    ("[Partial(), Partial(max)]", "Partial(max)", "one tensor owes both a sum and a max"),
    ("S(0)[0]S(0)[0]", "S(0)[0]", "mesh dim 0 is there twice"),
    ("S(0)[7]R", "S(0)[7]", "mesh dim 7 on a mesh of 2 dims"),
    ("[Shard(0), Shard(0)], shard_order=((0, (0, 2)),)", None, "`shard_order` says mesh dims [0, 2] for dim 0"),
    ("[Shard(0), Shard(0)], shard_order=((0, (1, 0)),(0, (1, 0)))", "0", "two orders for dim 0"),
    ("[Shard(dim=500), Replicate()]", None, "a tensor of 501 dims\nexpected at most 64"),
    ("[{x}, {}]", "x", 'expected a quoted name: `"x"`\nwrite `"x"`'),
    ('[{"x", ?, "y"}]', '"y"', "a mesh axis after `?`"),
    ('#sdy.sharding<@mesh [{"x"}]>', "[", "`[` after the mesh"),
    ('#sdy.sharding<[{"x"}]>', "[", "a mesh is missing"),
    ('[{"x"}, {}], unreduced=avg{"y"}', "avg", "unknown reduction `avg`"),
    ('[{"x"}, {}], replicate={"y"}', "replicate", "did you mean `replicated`?"),
    ('[{"x":(1)2}, {"x":(1)4}]', 'x":(1)4', "mesh axis `x` is used twice in one tensor"),
    ('[{"x":(0)2}]', "0", "the number of shards before must be at least 1"),
    ('[{"x":(1)3}]', None, "`x:(1)3` is no part of mesh axis `x` of 4 devices"),
    ("{devices=[2,2]<=[4]}", "{devices=[2,2]<=[4]}", "a sharding of 4 devices on the mesh x=4,y=2 of 8"),
    ("{devices=[8,2]<=[8]}", "[8]", "16 tiles of 8 devices"),
    ("{devices=[2,4]<=[4,2]T(0,0)}", "(0,0)", "no rearrangement of the dims\nexpected each of 0 to 1 once"),
    ("{devices=[2,4]0,1,2,3,4,5,6,6}", "0,1,2,3,4,5,6,6", "no list of 8 devices"),
    ("{devices=[2,4]0,1,2,4,3,5,6,7}", "[2,4]0,1,2,4,3,5,6,7", "devices in an order that no layout over a mesh has"),
    ("{replicated}", "{replicated}", "does not say how many dims the tensor has"),
    ("{maximal device=0}", "maximal", "the tensor is on one device alone"),
    ("{manual}", "manual", "inside shard_map each device has a tensor of its own"),
    ("{{replicated}, {devices=[8]<=[8]}}", "{", "a tuple of shardings\nexpected one of them"),
    ("{devices=[2,4]<=[8] last_tile_dims={repl}}", "repl", "unknown kind of tile dim `repl`"),
    ("{devices=[2,4]<=[8]", "{", "a sharding is never closed"),
    ("{device=[2,4]<=[8]}", "device", "`device` in a sharding"),
    ("{mesh[x=8,y=2], [{x}]}", None, "a sharding on another mesh\nexpected the mesh x=4,y=2"),
    ("{mesh[x=4,y=2], device_ids=(1,0), [{x}]}", "device_ids", "a mesh whose devices are not in order"),
]


def check(error: EinscaleError, text: str, guilty: str | None, words: str) -> None:
    for part in words.split("\n"):
        assert part in str(error), str(error)
    if guilty is not None:
        assert error.text == text
        assert error.span is not None
        assert text[slice(*error.span)] == guilty


@pytest.mark.parametrize(("text", "guilty", "words"), ONE_TENSOR, ids=[case[0] for case in ONE_TENSOR])
def test_a_malformed_layout(text: str, guilty: str | None, words: str) -> None:
    with pytest.raises(EinscaleError) as caught:
        convert(text, mesh=MESH)
    check(caught.value, text, guilty, words)


@pytest.mark.parametrize(
    ("text", "mesh", "words"),
    [
        ("{devices=[3,2]<=[6]}", "x=2,y=3", "a tile dim of 3 shards where the mesh has 2 devices, 3 apart"),
        ("{devices=[2,3]<=[3,2]T(1,0)}", "x=2,y=3", "it was made on another mesh, or one whose devices are in another"),
        ("{devices=[2,4]<=[8]}", None, "expected a mesh of 8 devices"),
        ("S(0)R", None, "placements are listed by mesh dim, and the mesh is not known"),
    ],
)
def test_a_mesh_that_does_not_fit(text: str, mesh: str | None, words: str) -> None:
    with pytest.raises(EinscaleError) as caught:
        convert(text, mesh=mesh)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("P('x', None, None)", "3 entries for a tensor of 2 dims\n"),
        ("[Shard(2), Replicate()]", "dim 2 of a tensor of 2 dims"),
        ('[{"x"}]', "1 dims for a tensor of 2 dims"),
        ("{devices=[2,2,2]<=[8]}", "3 tile dims for a tensor of 2 dims"),
        ("f32[8@x]", "1 sizes for a tensor of 2 dims"),
        ("f32[8@x,3]", "index `S` has size 4 and size 3"),
    ],
)
def test_a_tensor_that_does_not_fit(text: str, words: str) -> None:
    with pytest.raises(EinscaleError) as caught:
        convert(text, mesh=MESH, indices="B S=4")
    assert words in str(caught.value)


WHOLE = [
    ("ij,jk->ik; P('x'), P(None,'y'), P()", ",", "a layout too many for 2 operands"),
    ("ij,jk->ik; P('x')", None, "1 layout for 2 operands"),
    ("ij,jk->ik; P('x'), P(None,'y') -> P('x','y','z')", "'z'", "3 entries for a tensor of 2 dims"),
    ("ij,jk->ik; P('x'), P() -> P('x') extra", "extra", "unexpected `extra` after the layouts"),
    ("ij,jk->il; P('x'), P()", "l", "output index `l` occurs in no operand"),
    ("...j,jk->...k; P('x'), P()", "P('x')", "an einsum with `...` or `*name` beside layouts dim by dim"),
    ("ij,jk->ik; P('x'), P('q')", "q", "unknown mesh axis `q`"),
    ("ij,jk->ik; P('x'), ", None, "the end is no PartitionSpec"),
    ("ij,jk->ik; f32[8,4], f32[5,2]", None, "index `j` has size 4 and size 5"),
    ("i; P(P.UNCONSTRAINED)", None, "an operand with an open layout"),
]


@pytest.mark.parametrize(("text", "guilty", "words"), WHOLE, ids=[case[0] for case in WHOLE])
def test_a_malformed_einsum(text: str, guilty: str | None, words: str) -> None:
    with pytest.raises(EinscaleError) as caught:
        parse_spec(text, syntax="jax", mesh_axes=("x", "y"))
    check(caught.value, text, guilty, words)


def test_layouts_before_the_semicolon_are_refused() -> None:
    with pytest.raises(EinscaleError) as caught:
        parse_spec("i/x j, j k -> i k; P('x'), P()")
    assert "a layout before the `;`" in str(caught.value)


def test_an_einsum_without_layouts_is_refused_with_an_example() -> None:
    with pytest.raises(EinscaleError) as caught:
        parse_spec("ij,jk->ik", syntax="dtensor")
    assert "`ij,jk->ik; [Shard(0), Replicate()], [Replicate(), Shard(1)] -> [Shard(0), Shard(1)]`" in str(caught.value)


def test_a_strided_shard_needs_the_sizes_of_the_mesh() -> None:
    text = "i->i; [_StridedShard(0, sf=2), Shard(0)]"
    with pytest.raises(EinscaleError, match="a mesh whose sizes are not known"):
        parse_spec(text, mesh_axes=("x", "y"))
    assert str(parse_spec(text, mesh_axes=("x", "y"), mesh_sizes=(4, 2)).operands[0]) == "i/y/x"


PIECES = [
    *"()[]{}<>,:=@?#.;-'\" ",
    *("P", "S", "R", "Shard", "Partial", "Replicate", "_StridedShard", "None", "x", "y", "'x'", '"y"', "0", "1", "8"),
    *(
        "unreduced",
        "reduced",
        "shard_order",
        "dim",
        "sf",
        "sum",
        "devices",
        "replicated",
        "last_tile_dims",
        "mesh",
        "<=",
    ),
    *("T", "->", "sharding", "bf16", "U", "metadata", "manual", "last_tile_dim_replicate", "99999999999999999999"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), st.sampled_from(LAYOUTS))
def test_any_text_is_read_or_refused(text: str, notation: str) -> None:
    """No other error than ours, whatever is typed."""
    for mesh in (None, MESH):
        try:
            convert(text, mesh=mesh, syntax=notation)
        except EinscaleError as error:
            assert str(error)


@given(st.sampled_from([case[0] for case in ONE_TENSOR]), st.data())
def test_any_cut_of_a_text_is_read_or_refused(text: str, data: st.DataObject) -> None:
    start, stop = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    try:
        convert(text[:start] + text[stop:], mesh=MESH)
    except EinscaleError as error:
        assert str(error)


@pytest.mark.parametrize(
    "text", ["R  " * 60 + "X", "P(" * 5000, "a." * 20000 + "P", "{" * 20000, "[" * 20000, "R" * 60000]
)
def test_a_hostile_text_is_refused_or_read_and_soon(text: str) -> None:
    """Detection backtracks no more than the text is long: otherwise this test does not end."""
    try:
        convert(text, mesh=MESH)
    except EinscaleError as error:
        assert len(str(error)) < 2000
