"""Sums that gradients go on owing while they are added up over the microbatches of a step."""

from __future__ import annotations

from einscale.layout import Layout
from einscale.mesh import split_name


def still_owing(natural: Layout, resting: Layout) -> Layout:
    """Layout of a gradient that is added up over microbatches: it owes every sum whose axes do not divide it at rest.

    Args:
        natural: as the backward pass leaves it.
        resting: as the gradients' store rules divide it.

    >>> from einscale.layout import make_layout
    >>> owing = make_layout([(), ()], ["data", "pod"])
    >>> still_owing(owing, make_layout([("data",), ()])).text(("d", "f"))
    'd/data f {U:pod}'
    """
    divided = [axis for dim in resting.dims for axis in dim]
    owed = tuple(axis for axis in natural.unreduced if not any(_overlap(axis, other) for other in divided))
    return Layout(resting.dims, owed, natural.reduction)


def _overlap(one: str, other: str) -> bool:
    """Whether two axes or parts of axes have devices in common."""
    (axis, before, size), (name, start, length) = split_name(one), split_name(other)
    if axis != name or size is None or length is None:
        return axis == name
    return before < start * length and start < before * size
