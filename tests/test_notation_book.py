"""The scaling book's notation: subscripts against the mesh, and the canonical form."""

from __future__ import annotations

import pytest

from einscale.errors import NotationError
from einscale.notation import lower, parse_spec


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("A[I_X, J] * B[J, K_Y] -> C[I_X, K_Y]", "A: I/X J, B: J K/Y -> C: I/X K/Y"),
        ("A[I, J_X] * B[J, K] -> C[I, K]", "A: I J/X, B: J K -> C: I K"),
        ("A[I, J_X] . B[J_X, K] -> C[I, K] {U_X}", "A: I J/X, B: J/X K -> C: I K {U:X}"),
        ("A[I_X, J] · B[J, K_X] -> C[I_X, K]", "A: I/X J, B: J K/X -> C: I/X K"),
        ("A[I_{XY}, J]", "A: I/X/Y J"),
        ("A[I_XY, J]", "A: I/X/Y J"),
        ("A[I_{Y,X}, J_{Z}]", "A: I/Y/X J/Z"),
        ("A[I, J] {U_{YX}} -> A2[I_X, J]", "A: I J {U:X,Y} -> A2: I/X J"),
        ("A[] × B[I] -> C[I]", "A:, B: I -> C: I"),
        (r"A[I_X, J] \cdot B[J, K] \to C[I_X, K] \{U_Y\}", "A: I/X J, B: J K -> C: I/X K {U:Y}"),
        (r"A[I_{X}] → B[I]", "A: I/X -> B: I"),
        ("W_in[D_X, F_Y], A[B, D]", "W_in: D/X F/Y, A: B D"),
    ],
)
def test_book_reads_and_its_canonical_form_reads_back(text: str, canonical: str) -> None:
    spec = parse_spec(text)
    assert (spec.syntax, str(spec)) == ("book", canonical)
    assert parse_spec(canonical).canonical == spec.canonical


@pytest.mark.parametrize(
    ("subscript", "mesh_axes", "axes"),
    [
        ("_X", ("X", "Y"), ("X",)),
        ("_XY", ("X", "Y"), ("X", "Y")),
        ("_{XY}", ("x", "y"), ("x", "y")),
        ("_XY", ("XY", "X", "Y"), ("XY",)),
        ("_{X,Y}", ("XY", "X", "Y"), ("X", "Y")),
        ("_data", ("data",), ("data",)),
        ("_{poddata}", ("pod", "data"), ("pod", "data")),
        ("_tensor_parallel", ("tensor_parallel",), ("tensor_parallel",)),
        ("_data", None, ("data",)),
        ("_XYZ", None, ("X", "Y", "Z")),
    ],
)
def test_subscripts_are_resolved_against_the_mesh(
    subscript: str, mesh_axes: tuple[str, ...] | None, axes: tuple[str, ...]
) -> None:
    assert lower(parse_spec(f"A[I{subscript}, J]", mesh_axes=mesh_axes)).input_dims == ((axes, ()),)


def test_spans_of_a_subscript_are_those_of_its_mesh_axes() -> None:
    text = "A[I_{poddata}, J]"
    shards = parse_spec(text, mesh_axes=("pod", "data")).operands[0].axes[0].shards
    assert [text[slice(*shard.span)] for shard in shards] == ["pod", "data"]


def test_ambiguous_subscript_is_refused() -> None:
    with pytest.raises(NotationError, match="ambiguous: a/bc or ab/c"):
        parse_spec("A[I_abc, J]", mesh_axes=("a", "ab", "bc", "c"))
    with pytest.raises(NotationError, match="ambiguous: xY or xy"):
        parse_spec("A[I_XY, J]", mesh_axes=("xy", "xY"))
