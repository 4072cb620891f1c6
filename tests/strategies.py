"""Hypothesis strategies for meshes, layouts, tensors, einsums and sizes, small enough to emulate."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from einscale.einsum import Einsum
from einscale.layout import Layout, Tensor, make_layout
from einscale.mesh import Mesh, MeshAxis, sub_axis

AXES = ("x", "y", "z")
INDICES = ("a", "b", "c", "d", "e")


@st.composite
def meshes(draw: st.DrawFn, *, most_axes: int = 3, degrees: Sequence[int] = (2, 3, 4, 8), devices: int = 24) -> Mesh:
    """A mesh of one to three axes and at most `devices` devices."""
    axes: list[MeshAxis] = []
    left = devices
    for name in AXES[: draw(st.integers(1, most_axes))]:
        fitting = [degree for degree in degrees if degree <= left]
        if not fitting:
            break
        axes.append(MeshAxis(name, draw(st.sampled_from(fitting))))
        left //= axes[-1].size
    return Mesh(tuple(axes))


@st.composite
def atoms(draw: st.DrawFn, mesh: Mesh, *, split: bool = True) -> list[str]:
    """The axes of a mesh in some order, some of them split into two parts."""
    names: list[str] = []
    for axis in mesh.axes:
        parts = [size for size in range(2, axis.size) if axis.size % size == 0]
        if split and parts and draw(st.booleans()):
            first = draw(st.sampled_from(parts))
            names += [sub_axis(axis.name, 1, first), sub_axis(axis.name, first, axis.size // first)]
        else:
            names.append(axis.name)
    return draw(st.permutations(names))


@st.composite
def layouts(
    draw: st.DrawFn,
    indices: Sequence[str],
    names: Sequence[str],
    *,
    unreduced: bool = True,
    reduction: str = "sum",
) -> Layout:
    """A layout that gives each of some mesh axes to a dim, to the sums it owes, or to nothing."""
    dims: list[list[str]] = [[] for _ in indices]
    owed: list[str] = []
    for name in draw(st.permutations(list(names))):
        place = draw(st.integers(-2 if unreduced else -1, len(indices) - 1))
        if place >= 0 and list(indices).count(indices[place]) == 1:
            dims[place].append(name)
        elif place == -2:
            owed.append(name)
    return make_layout(dims, owed, reduction if owed else "sum")


@st.composite
def tensors(draw: st.DrawFn, *, name: str = "A", most_dims: int = 3) -> Tensor:
    """A tensor of up to three dims; its indices differ."""
    indices = draw(st.permutations(INDICES))[: draw(st.integers(0, most_dims))]
    return Tensor(name, tuple(indices), draw(st.sampled_from(["bf16", "fp32", "int8", "int4"])))


@st.composite
def einsums(draw: st.DrawFn, *, most_operands: int = 3, most_dims: int = 3, diagonals: bool = False) -> Einsum:
    """An einsum of one to three operands; indices may be batch, free, contracted or lonely."""
    inputs = []
    for _ in range(draw(st.integers(1, most_operands))):
        indices = draw(st.lists(st.sampled_from(INDICES[:4]), max_size=most_dims, unique=not diagonals))
        inputs.append(tuple(indices))
    known = list(dict.fromkeys(index for operand in inputs for index in operand))
    output = draw(st.permutations(known))[: draw(st.integers(0, len(known)))]
    return Einsum(tuple(inputs), tuple(output))


def sizes(indices: Sequence[str], *, even: int = 1, least: int = 1, most: int = 6) -> st.SearchStrategy[dict[str, int]]:
    """A size for each index: a multiple of `even`, up to `most` times it."""
    length = st.integers(least, most).map(lambda size: size * even)
    return st.fixed_dictionaries(dict.fromkeys(indices, length))
