"""Notation: einsums with layouts, as text, read in several dialects and printed in one canonical form.

The reference is docs/notation.md.

>>> spec = parse_spec("B/data S F/model, F/model D -> B/data S/model D", mesh_axes=("data", "model"))
>>> str(spec)
'B/data S F/model, F/model D -> B/data S/model D'
>>> str(parse_spec("bsd,df->bsf", rules="b=data,f=model"))
'b/data s d, d f/model -> b/data s f/model'
>>> lower(spec).output_dims
(('data',), ('model',), ())
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from einscale.notation.check import check_spec, check_tensors
from einscale.notation.detect import DIALECTS, detect
from einscale.notation.question import EinsumQuestion, lower
from einscale.notation.rules import Rules, expand, parse_rules
from einscale.notation.slash import parse_slash, parse_slash_tensor
from einscale.notation.syntax import Axis, Group, Partial, Shard, Spec, TensorSpec
from einscale.notation.tokens import check_text

LAYOUTS = ("jax", "dtensor", "shardy", "hlo")
"""Dialects that lay out one tensor; a whole einsum in them is `EQUATION; LAYOUT, LAYOUT -> LAYOUT`."""

__all__ = [
    "DIALECTS",
    "LAYOUTS",
    "Axis",
    "EinsumQuestion",
    "Group",
    "Partial",
    "Rules",
    "Shard",
    "Spec",
    "TensorSpec",
    "lower",
    "parse_rules",
    "parse_spec",
    "parse_tensor",
]


def parse_spec(
    text: str,
    *,
    syntax: str | None = None,
    mesh_axes: Sequence[str] | None = None,
    mesh_sizes: Sequence[int] | None = None,
    rules: str | Mapping[str, str | Iterable[str] | None] | Iterable[tuple[str, Iterable[str]]] | None = None,
) -> Spec:
    """Read an einsum with layouts.

    Args:
        text: the spec, in any dialect.
        syntax: the dialect, one of `DIALECTS`; without it, slash notation unless the text is unmistakably another.
        mesh_axes: names of the mesh's axes, if the mesh is known: others are refused, and the book's subscripts are
            resolved against them.
        mesh_sizes: their sizes, in the same order: an HloSharding or a `_StridedShard` cannot be read without.
        rules: mesh axes for axes written without a slash, as `parse_rules` reads them.

    Returns:
        The spec, checked; `str` of it is canonical slash notation, which reads back as an equal `.canonical`.

    Raises:
        NotationError: the text does not follow the grammar, or makes no sense; the guilty characters are underlined.
        UsageError: no such dialect.
    """
    text = check_text(text)
    pairs = parse_rules(rules, mesh_axes) if rules is not None else ()
    dialect = detect(text, syntax, [index for index, _ in pairs])
    if dialect == "numpy":
        from einscale.notation.numpy_dialect import complete_numpy, parse_numpy

        spec = complete_numpy(expand(parse_numpy(text), pairs))
    elif dialect == "book":
        from einscale.notation.book import parse_book

        spec = expand(parse_book(text, mesh_axes), pairs)
    elif dialect in LAYOUTS:
        from einscale.notation.layouts import parse_with_layouts

        spec = expand(parse_with_layouts(text, dialect, _mesh(mesh_axes, mesh_sizes)), pairs)
    else:
        spec = expand(parse_slash(text), pairs)
    check_spec(spec, mesh_axes)
    return spec


def _mesh(names: Sequence[str] | None, sizes: Sequence[int] | None) -> tuple[tuple[str, int], ...] | None:
    """(name, size) of every mesh axis, a size of 0 where it is not known; None where the mesh is not known."""
    if names is None:
        return None
    return tuple(zip(names, sizes if sizes is not None else [0] * len(names), strict=True))


def parse_tensor(text: str, *, mesh_axes: Sequence[str] | None = None) -> TensorSpec:
    """Read one tensor in slash notation, open layouts included.

    >>> tensor = parse_tensor("x: bf16[B=32/data S D {U:model}]")
    >>> tensor.indices, tensor.layout, tensor.unreduced, tensor.sizes
    (('B', 'S', 'D'), (('data',), (), ()), ('model',), {'B': 32})

    Raises:
        NotationError: the text is not one tensor, or no tensor can have its layout.
    """
    text = check_text(text, "the tensor")
    tensor = parse_slash_tensor(text)
    check_tensors(text, (tensor,), mesh_axes)
    return tensor
