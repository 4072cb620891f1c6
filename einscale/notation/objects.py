"""Layouts given as objects of JAX and PyTorch, by what they look like: neither library is ever imported."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from einscale.dtypes import dtype, is_dtype
from einscale.errors import NotationError


class Given(Struct, frozen=True):
    """What an object says, in words that its notation's reader reads.

    Args:
        notation: `jax` or `dtensor`.
        text: the layout.
        mesh: the mesh the object knows, to be given to `einscale.make_mesh`; None if it knows none.
        shape: the tensor's shape, if the object knows it and the text does not say it.
        dtype: its canonical element type, likewise.
    """

    notation: str
    text: str
    mesh: object = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


def given(value: object) -> Given:
    """What a layout object says.

    A `PartitionSpec`, a tuple of what one holds, a `NamedSharding`, a `jax.Array` or its type; a list of placements or
    a `DTensor`, or anything that looks like one of them.

    >>> given(("x", None, ("y", "z"))).text
    "P('x', None, ('y', 'z'))"

    Raises:
        NotationError: it is none of these.
    """
    if _has(value, "placements", "device_mesh"):
        shape = tuple(map(int, getattr(value, "shape", ()))) if hasattr(value, "shape") else None
        return Given("dtensor", _placements(value.placements), value.device_mesh, shape, _element(value))  # type: ignore[attr-defined]
    if _has(value, "spec", "mesh"):
        return Given("jax", _partition_spec(value.spec), value.mesh)  # type: ignore[attr-defined]
    if _has(value, "shape", "sharding") and _has(value.sharding, "spec"):  # type: ignore[attr-defined]
        sharding, shape = value.sharding, tuple(map(int, value.shape))  # type: ignore[attr-defined]
        return Given("jax", _partition_spec(sharding.spec), getattr(sharding, "mesh", None), shape, _element(value))
    if _has(value, "unreduced") or _has(value, "partitions"):
        return Given("jax", _partition_spec(value))
    if isinstance(value, (tuple, list)):
        if value and all(hasattr(one, "is_shard") for one in value):
            return Given("dtensor", _placements(value))
        if isinstance(value, tuple) and all(one is None or isinstance(one, (str, tuple)) for one in value):
            return Given("jax", _partition_spec(value))
    raise NotationError(
        f"`{type(value).__name__}` is no layout",
        expected="text, a PartitionSpec, a NamedSharding, a list of placements, or a DTensor",
    )


def _has(value: object, *names: str) -> bool:
    return all(hasattr(value, name) for name in names)


def _element(value: object) -> str | None:
    """The element type of a tensor, if it has one that is known here."""
    name = str(getattr(value, "dtype", ""))
    return dtype(name) if is_dtype(name) else None


def _partition_spec(value: object) -> str:
    """A PartitionSpec, or a tuple of its entries, as text."""
    entries = getattr(value, "partitions", value)
    if not isinstance(entries, Iterable) or isinstance(entries, str):
        raise NotationError(f"`{type(value).__name__}` is no PartitionSpec", expected="entries to iterate over")
    words = [_entry(entry) for entry in entries]
    for keyword in ("unreduced", "reduced"):
        names = sorted(map(str, getattr(value, keyword, None) or ()))
        if names:
            words.append(f"{keyword}={{{', '.join(map(repr, names))}}}")
    kind = getattr(value, "unreduced_kind", None)
    if kind is not None:
        words.append(f"unreduced_kind={getattr(kind, 'name', kind)}")
    return f"P({', '.join(words)})"


def _entry(entry: object) -> str:
    if entry is None or isinstance(entry, str):
        return repr(entry)
    if isinstance(entry, (tuple, list)):
        return f"({', '.join(repr(str(name)) for name in entry)})"
    if "unconstrained" in type(entry).__name__.casefold():
        return "P.UNCONSTRAINED"
    raise NotationError(
        f"`{type(entry).__name__}` in a PartitionSpec", expected="None, a mesh axis, a tuple of them or UNCONSTRAINED"
    )


def _placements(values: Iterable[object]) -> str:
    """Placements as text."""
    return f"[{', '.join(map(_placement, values))}]"


def _placement(value: object) -> str:
    if hasattr(value, "split_factor"):
        return f"_StridedShard({getattr(value, 'dim', 0)}, {value.split_factor})"
    if _says(value, "is_shard"):
        return f"Shard({getattr(value, 'dim', 0)})"
    if _says(value, "is_partial"):
        return f"Partial({getattr(value, 'reduce_op', 'sum')})"
    if _says(value, "is_replicate"):
        return "Replicate()"
    raise NotationError(
        f"`{type(value).__name__}` is no placement that a layout can say", expected="Shard, Replicate or Partial"
    )


def _says(value: object, question: str) -> bool:
    answer = getattr(value, question, None)
    return bool(answer()) if callable(answer) else False
