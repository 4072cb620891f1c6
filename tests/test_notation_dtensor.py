"""DTensor placements: text and objects, mesh dimension order, and the blocks that strided shards make."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from layout_specs import tensor_of
from strategies import layouts, meshes

from einscale import convert, make_mesh
from einscale.errors import NotationError
from einscale.notation import parse_tensor
from einscale.notation.dtensor import write_dtensor
from einscale.notation.layouts import parse_layout
from einscale.notation.syntax import Axis

MESH = (("pod", 2), ("data", 3), ("model", 4))


@pytest.mark.parametrize(
    ("text", "slash"),
    [
        ("[Shard(0), Replicate(), Partial()]", "i/pod {U:model}"),
        ("(Shard(dim=1), Shard(dim=0), Replicate())", "i/data j/pod"),
        ("[Shard(0), Shard(0), Shard(0)]", "i/pod/data/model"),
        ('[Partial("max"), Partial(reduce_op="max"), Replicate()]', "{U(max):data,pod}"),
        ("S(0)RP(sum)", "i/pod {U:model}"),
        ("S(0)S(1)R", "i/pod j/data"),
        ("RRS(0)", "i/model"),
        ("RPR", "{U:data}"),
        ("[S(0), R, R]", "i/pod"),
        ("S(0)[2]S(0)[0]S(0)[1]", "i/data/model/pod"),
        ("S(0)[0,1]P(sum)", "i/pod/data {U:model}"),
        ("S(0)[2,0]R", "i/model/pod"),
        ("S(0)[1]S(1)[2]", "i/data j/model"),
        ("S(0)[2]P(sum)[0]", "i/model {U:pod}"),
        ("[_StridedShard(dim=0, sf=4), Replicate(), Shard(dim=0)]", "i/model/pod"),
        ("[_StridedShard(0, split_factor=12), _StridedShard(0, sf=4), Shard(0)]", "i/model/data/pod"),
        ("[_StridedShard(0, sf=4), _StridedShard(0, sf=4), Shard(0)]", "i/model/pod/data"),
        ("[_S(0, 3), S(0), R]", "i/data/pod"),
        ("[Shard(0), Shard(0), Replicate()], shard_order=((0, (1, 0)),)", "i/data/pod"),
        ("[Shard(0), Shard(0), Replicate()], shard_order={0: [1, 0]}", "i/data/pod"),
        (
            "[Shard(0), Shard(0), Replicate()], shard_order=(ShardOrderEntry(tensor_dim=0, mesh_dims=(1, 0)),)",
            "i/data/pod",
        ),
    ],
)
def test_what_is_read(text: str, slash: str) -> None:
    reading = parse_layout(text, "dtensor", None, MESH)
    assert str(reading.tensor) == slash
    assert reading.lost == ("placements do not say how many dims the tensor has: more may follow",)


def test_dims_are_counted_from_the_end_of_a_tensor_that_is_known() -> None:
    reading = parse_layout("[Shard(-1), Shard(-3), Replicate()]", "dtensor", parse_tensor("B S D").dims, MESH)
    assert str(reading.tensor) == "B/data S D/pod"
    assert reading.lost == ()


@pytest.mark.parametrize(
    ("slash", "text"),
    [
        ("B/pod D/data {U:model}", "[Shard(0), Shard(1), Partial()]"),
        ("B {U(max):data}", '[Replicate(), Partial("max"), Replicate()]'),
        ("B/pod/model D", "[Shard(0), Replicate(), Shard(0)]"),
        (
            "B/model/pod D",
            "[Shard(0), Replicate(), Shard(0)], shard_order=(ShardOrderEntry(tensor_dim=0, mesh_dims=(2, 0)),)",
        ),
        ("B/model:(1)2/model:(2)2", "[Replicate(), Replicate(), Shard(0)]"),
    ],
)
def test_what_is_written(slash: str, text: str) -> None:
    assert write_dtensor(parse_tensor(slash), MESH) == text


@pytest.mark.parametrize(
    ("slash", "why"),
    [
        ("B/model:(1)2", "a mesh on which `model` is two axes can say it"),
        ("B/?", "DTensor has no open dims"),
        ("B {U:?}", "no word for a sum that may stay owed"),
        ("B/mdel", "did you mean `model`?"),
        ("... D", "lists every dim"),
    ],
)
def test_what_cannot_be_written_says_why(slash: str, why: str) -> None:
    with pytest.raises(NotationError) as caught:
        write_dtensor(parse_tensor(slash), MESH)
    assert why in str(caught.value)


@given(layouts(("i", "j", "k"), ("pod", "data", "model")))
def test_reading_what_is_written_gives_the_layout_back(layout) -> None:
    tensor = tensor_of(layout)
    bare = tuple(Axis(name) for name in tensor.indices)
    again = parse_layout(write_dtensor(tensor, MESH), "dtensor", bare, MESH).tensor
    assert (again.layout, again.unreduced, again.reduction) == (tensor.layout, tensor.unreduced, tensor.reduction)


def blocks(length: int, placements: list[tuple[int, int]], sizes: list[int]) -> dict[tuple[int, ...], list[int]]:
    """Coordinates -> elements a device holds, by PyTorch's rule for `_StridedShard`, one mesh dim after the other.

    A strided shard cuts what there is into `split` pieces, each into as many chunks as the mesh dim has devices, and
    joins the k-th chunk of every piece; a split of 1 is `Shard`. `placements` has (split, 1 if it shards) a mesh dim.
    """
    held = {}
    for coordinates in product(*map(range, sizes)):
        elements = list(range(length))
        for (split, shards), coordinate, size in zip(placements, coordinates, sizes, strict=True):
            if shards:
                piece, chunk = len(elements) // split, len(elements) // split // size
                starts = [k * piece + coordinate * chunk for k in range(split)]
                elements = [elements[start + j] for start in starts for j in range(chunk)]
        held[coordinates] = elements
    return held


def blocks_of_layout(
    length: int, axes: tuple[str, ...], mesh: list[tuple[str, int]]
) -> dict[tuple[int, ...], list[int]]:
    """Coordinates -> elements a device holds of a dim divided over these mesh axes, major to minor."""
    names, sizes = [name for name, _ in mesh], dict(mesh)
    held = {}
    for coordinates in product(*(range(size) for _, size in mesh)):
        block = 0
        for axis in axes:
            block = block * sizes[axis] + coordinates[names.index(axis)]
        local = length // prod(sizes[axis] for axis in axes)
        held[coordinates] = list(range(block * local, (block + 1) * local))
    return held


@given(st.data(), meshes(devices=64))
def test_a_strided_shard_is_read_as_the_blocks_that_pytorch_makes(data: st.DataObject, mesh) -> None:
    pairs = [(axis.name, axis.size) for axis in mesh.axes]
    sizes = [size for _, size in pairs]
    sharded = [data.draw(st.booleans()) for _ in pairs]
    splits = []
    for position in range(len(pairs)):
        later = [size for size, on in list(zip(sizes, sharded, strict=True))[position + 1 :] if on]
        counts = [
            prod(chosen) for k in range(1 << len(later)) if (chosen := [s for i, s in enumerate(later) if k >> i & 1])
        ]
        splits.append(data.draw(st.sampled_from([1, *counts])))
    words = [f"_StridedShard(0, sf={split})" if on else "R" for split, on in zip(splits, sharded, strict=True)]
    try:
        tensor = parse_layout(f"[{', '.join(words)}]", "dtensor", (Axis("i"),), pairs).tensor
    except NotationError:
        assume(False)
    length = prod(sizes) ** 2
    placed = [(split, int(on)) for split, on in zip(splits, sharded, strict=True)]
    assert blocks(length, placed, sizes) == blocks_of_layout(length, tensor.layout[0], pairs)


# Stand-ins: what torch's classes look like, without torch.


class Placement:
    def is_shard(self) -> bool:
        return False

    def is_partial(self) -> bool:
        return False

    def is_replicate(self) -> bool:
        return False


class Shard(Placement):
    def __init__(self, dim: int) -> None:
        self.dim = dim

    def is_shard(self) -> bool:
        return True


class StridedShard(Placement):
    """`_StridedShard`, which says it is no shard in some versions."""

    def __init__(self, dim: int, split_factor: int) -> None:
        self.dim, self.split_factor = dim, split_factor


class Replicate(Placement):
    def is_replicate(self) -> bool:
        return True


class Partial(Placement):
    def __init__(self, reduce_op: str = "sum") -> None:
        self.reduce_op = reduce_op

    def is_partial(self) -> bool:
        return True


class DeviceMesh:
    shape = (2, 4)
    mesh_dim_names = ("dp", "tp")


class DTensor:
    device_mesh = DeviceMesh()
    shape = (16, 8)
    dtype = "torch.bfloat16"

    def __init__(self, *placements: Placement) -> None:
        self.placements = placements


def test_objects_are_read() -> None:
    assert str(make_mesh(DeviceMesh())) == "dp=2,tp=4"
    answer = convert(DTensor(StridedShard(0, 4), Shard(0)))
    assert answer["slash"] == "bf16[i=16/tp/dp j=8]"
    assert answer["jax"] == "P(('tp', 'dp'), None)"
    assert convert([Replicate(), Partial("max")], mesh="a=2,b=2", indices="B")["slash"] == "B {U(max):b}"


def test_a_placement_of_no_known_kind_is_refused() -> None:
    with pytest.raises(NotationError, match="`Placement` is no placement"):
        convert([Placement()], mesh="a=2")


def test_a_mesh_whose_dims_have_no_names_is_refused() -> None:
    class Unnamed(DeviceMesh):
        mesh_dim_names = None

    with pytest.raises(NotationError.__base__, match="no mesh with names"):
        make_mesh(Unnamed())
