"""JAX's notations: PartitionSpecs and types as text, and objects by what they look like."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import pytest
from hypothesis import given as examples
from layout_specs import tensor_of
from strategies import layouts

from einscale import convert, make_mesh
from einscale.errors import MeshError, NotationError
from einscale.notation import parse_spec, parse_tensor
from einscale.notation.jax_spec import write_spec, write_type
from einscale.notation.layouts import parse_layout
from einscale.notation.objects import given
from einscale.notation.syntax import Axis, TensorSpec

MESH = (("x", 2), ("y", 4), ("z", 2), ("t", 8))


@pytest.mark.parametrize(
    ("text", "slash"),
    [
        ("P()", ""),
        ("P('x', None, ('y', 'z'))", "i/x j k/y/z"),
        ("P('x',)", "i/x"),
        ('PartitionSpec("x")', "i/x"),
        ("jax.sharding.PartitionSpec(('x',), None)", "i/x j"),
        ("P('x', unreduced={'t'})", "i/x {U:t}"),
        ("P('x', unreduced={'t', 'z'}, unreduced_kind=max)", "i/x {U(max):t,z}"),
        ("P('x', unreduced=frozenset({'t'}), unreduced_kind=UnreducedKind.sum)", "i/x {U:t}"),
        ("P(unreduced=set())", ""),
        ("P('x', reduced=frozenset())", "i/x"),
        ("P(None, P.UNCONSTRAINED)", "i j/?"),
        ("P('x', UNCONSTRAINED)", "i/x j/?"),
        ("bf16[8@x,16@(y,z)]{U:t}", "bf16[i=8/x j=16/y/z {U:t}]"),
        ("float32[8,16]", "fp32[i=8 j=16]"),
        ("[8@(x,y),2]", "i=8/x/y j=2"),
        ("f32[8@x]{U_max:(y,z)}", "fp32[i=8/x {U(max):y,z}]"),
        ("f32[]", "fp32[]"),
    ],
)
def test_what_is_read(text: str, slash: str) -> None:
    assert str(parse_layout(text, "jax").tensor) == slash


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("P('x', reduced={'y'})", "it is *reduced* over `y`"),
        ("f32[8@x]{R:y}", "it is *reduced* over `y`"),
        ("f32[8]{V:x, U:y}", "over `x` the program is manual"),
        ("f32<host>[8@x]", "memory space `host`"),
    ],
)
def test_what_a_layout_cannot_hold_is_said_and_refused_in_a_spec(text: str, lost: str) -> None:
    (sentence,) = parse_layout(text, "jax").lost
    assert lost in sentence
    with pytest.raises(NotationError, match="a layout that says no more"):
        parse_spec(f"i->i; {text}", syntax="jax")


@pytest.mark.parametrize(
    ("slash", "spec", "type_"),
    [
        ("bf16[B=8/x S=4 D=16/y/z {U:t}]", "P('x', None, ('y', 'z'), unreduced={'t'})", "bf16[8@x,4,16@(y,z)]{U:t}"),
        ("fp32[B=8 {U(min):z,t}]", "P(None, unreduced={'z', 't'}, unreduced_kind=min)", "f32[8]{U_min:(z,t)}"),
        ("bf16[B=8/y:(1)2/y:(2)2]", "P('y')", "bf16[8@y]"),
        ("bf16[B=8/x (H=4/y K=64)]", "P('x', 'y')", "bf16[8@x,256@y]"),
        ("bf16[(H=4/y K=64/x)]", "P(('y', 'x'))", "bf16[256@(y,x)]"),
        ("int8[]", "P()", "i8[]"),
    ],
)
def test_what_is_written(slash: str, spec: str, type_: str) -> None:
    tensor = parse_tensor(slash)
    assert write_spec(tensor, MESH) == spec
    assert write_type(tensor, MESH) == type_


@pytest.mark.parametrize(
    ("slash", "why"),
    [
        ("B/y:(1)2 D", "names whole mesh axes, and `y:(1)2` is a part of `y`"),
        ("B/x/? D", "a dim in JAX is given or UNCONSTRAINED"),
        ("B {U:?}", "no word for a sum that may stay owed"),
        ("... D", "lists every dim"),
        ("*batch/x D", "lists every dim"),
        ("(H K/x) D", "the blocks of `(H K/x)` are strided"),
    ],
)
def test_what_cannot_be_written_says_why(slash: str, why: str) -> None:
    with pytest.raises(NotationError) as caught:
        write_spec(parse_tensor(slash), MESH)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("slash", "why"),
    [
        ("B=8 D", "that of `D` is not given"),
        ("B=8", "an element type, and none is given"),
        ("tf32[B=8]", "JAX has none called `tf32`"),
        ("bf16[B=8/?]", "no open dims"),
    ],
)
def test_what_a_type_cannot_say(slash: str, why: str) -> None:
    with pytest.raises(NotationError) as caught:
        write_type(parse_tensor(slash), MESH)
    assert why in str(caught.value)


@examples(layouts(("i", "j", "k"), ("x", "y", "z", "t")))
def test_reading_what_is_written_gives_the_layout_back(layout) -> None:
    tensor = tensor_of(layout)
    again = parse_layout(write_spec(tensor, MESH), "jax").tensor
    assert (again.layout, again.unreduced) == (tensor.layout, tensor.unreduced)
    sized = parse_tensor("bf16[i=8 j=8 k=8]")
    sized = TensorSpec(
        tuple(Axis(axis.name, 8, axis.shards) for axis in tensor.axes), None, sized.dtype, tensor.partial
    )
    again = parse_layout(write_type(sized, MESH), "jax").tensor
    assert str(again) == str(sized)


# Stand-ins: what jax's classes look like, without jax.


class Unconstrained:
    """The class of `PartitionSpec.UNCONSTRAINED`."""


class Kind(NamedTuple):
    name: str


class PartitionSpec:
    """Entries and what is owed; like jax's it refuses to be iterated where it owes something."""

    def __init__(self, *partitions, unreduced=frozenset(), reduced=frozenset(), unreduced_kind=None) -> None:
        self.partitions = partitions
        self.unreduced, self.reduced, self.unreduced_kind = frozenset(unreduced), frozenset(reduced), unreduced_kind

    def __iter__(self):
        if self.unreduced or self.reduced:
            raise ValueError("Using *pspec is dangerous")
        return iter(self.partitions)


class OldSpec(tuple):
    """A PartitionSpec of the versions in which it was a tuple."""

    __slots__ = ()


class JaxMesh:
    def __init__(self, **sizes: int) -> None:
        self.shape = OrderedDict(sizes)
        self.axis_names = tuple(sizes)


class AbstractMesh(JaxMesh):
    @property
    def axis_sizes(self) -> tuple[int, ...]:
        return tuple(self.shape.values())


class NamedSharding:
    def __init__(self, mesh: JaxMesh, spec: PartitionSpec) -> None:
        self.mesh, self.spec = mesh, spec


class Array:
    def __init__(self, shape: tuple[int, ...], dtype: str, sharding: NamedSharding) -> None:
        self.shape, self.dtype, self.sharding = shape, dtype, sharding


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (PartitionSpec("x", None, ("y", "z")), "P('x', None, ('y', 'z'))"),
        (PartitionSpec("x", unreduced={"t"}), "P('x', unreduced={'t'})"),
        (
            PartitionSpec(unreduced={"t", "z"}, unreduced_kind=Kind("max")),
            "P(unreduced={'t', 'z'}, unreduced_kind=max)",
        ),
        (PartitionSpec(None, Unconstrained()), "P(None, P.UNCONSTRAINED)"),
        (OldSpec(("x", None)), "P('x', None)"),
        (("x", ("y", "z")), "P('x', ('y', 'z'))"),
        ((), "P()"),
        (NamedSharding(JaxMesh(x=2), PartitionSpec("x")), "P('x')"),
    ],
)
def test_objects_are_read(value: object, text: str) -> None:
    assert given(value).text == text


def test_an_array_brings_its_mesh_its_shape_and_its_element_type() -> None:
    array = Array((16, 8), "float32", NamedSharding(AbstractMesh(x=4, y=2), PartitionSpec("y", "x")))
    answer = convert(array)
    assert str(answer.mesh) == "x=4,y=2"
    assert answer["slash"] == "fp32[i=16/y j=8/x]"
    assert answer["jax-type"] == "f32[16@y,8@x]"
    assert convert(array, indices="B D")["slash"] == "B/y D/x"


@pytest.mark.parametrize("mesh", [JaxMesh(x=4, y=2), AbstractMesh(x=4, y=2)])
def test_a_mesh_of_jax_is_a_mesh(mesh: JaxMesh) -> None:
    assert str(make_mesh(mesh)) == "x=4,y=2"


def test_what_is_no_mesh_is_refused() -> None:
    with pytest.raises(MeshError, match="`int` is no mesh with names"):
        make_mesh(8)
    short = AbstractMesh(x=2)
    short.axis_names = ("x", "y")
    with pytest.raises(MeshError, match="not a size for each of its names"):
        make_mesh(short)


@pytest.mark.parametrize("value", [3, ["x"], object(), ("x", 3)])
def test_what_is_no_layout_is_refused(value: object) -> None:
    with pytest.raises(NotationError, match="is no layout"):
        given(value)


def test_a_strange_entry_is_refused() -> None:
    with pytest.raises(NotationError, match="`int` in a PartitionSpec"):
        given(PartitionSpec("x", 3))
