"""An order of the operands that no name and no order of writing changes, so that equal questions get equal answers."""

from __future__ import annotations

from collections.abc import Mapping

from einscale.digits import Digits
from einscale.layout import Layout, Tensor
from einscale.planner.question import Wanted
from einscale.reshard import to_state

ROUNDS = 2
"""How often what is known of the operands is passed on to their indices and back."""


def canonical_order(
    tensors: tuple[Tensor, ...],
    layouts: tuple[Layout, ...],
    output: Tensor,
    wanted: Wanted,
    sizes: Mapping[str, int],
    digits: Digits,
) -> tuple[int, ...]:
    """Positions of the operands, sorted by element type, layout, and what their indices are.

    An index is what it is by its size, its place in the output, and the operands it occurs in. Indices of one element
    that nothing divides are as if they were not there.

    >>> from einscale.digits import digits_of
    >>> from einscale.layout import replicated
    >>> from einscale.mesh import make_mesh
    >>> x, w = Tensor("x", ("b", "d")), Tensor("w", ("d", "f"))
    >>> rest = (Tensor("y", ("b", "f")), Wanted(((), ())), {"b": 8, "d": 4, "f": 2}, digits_of(make_mesh("x=2")))
    >>> both = (replicated(2), replicated(2))
    >>> canonical_order((x, w), both, *rest), canonical_order((w, x), both, *rest)
    ((1, 0), (0, 1))
    """
    if len(tensors) == 1:
        return (0,)
    states = [to_state(layout, digits) for layout in layouts]
    divided = {
        index
        for tensor, (dims, _) in zip(tensors, states, strict=True)
        for index, dim in zip(tensor.indices, dims, strict=True)
        if dim
    }
    divided |= {index for index, dim in zip(output.indices, wanted.dims, strict=True) if dim}
    kept = [index for index in output.indices if sizes[index] > 1 or index in divided]
    place = {index: k for k, index in enumerate(kept)}
    seen: dict[str, object] = {}
    for tensor in tensors:
        for index in tensor.indices:
            if sizes[index] > 1 or index in divided:
                seen[index] = (sizes[index], place.get(index, -1))
    plain: list[tuple[object, ...]] = [
        (tensor.dtype, layout.reduction, state[1], tuple(count for _, count in tensor.chosen))
        for tensor, layout, state in zip(tensors, layouts, states, strict=True)
    ]
    keys: list[str] = []
    for _ in range(ROUNDS):
        keys = [
            repr((key, [(seen[i], dim) for i, dim in zip(tensor.indices, dims, strict=True) if i in seen]))
            for key, tensor, (dims, _) in zip(plain, tensors, states, strict=True)
        ]
        seen = {index: (known, _occurrences(index, tensors, keys)) for index, known in seen.items()}
    return tuple(sorted(range(len(tensors)), key=lambda k: keys[k]))


def _occurrences(index: str, tensors: tuple[Tensor, ...], keys: list[str]) -> list[tuple[str, int]]:
    """Keys of the operands an index occurs in, and where, in no order."""
    return sorted(
        (key, place)
        for tensor, key in zip(tensors, keys, strict=True)
        for place, other in enumerate(tensor.indices)
        if other == index
    )
