"""What a spec means must make sense: every rule that the grammar cannot state, each error underlined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from einscale.errors import NotationError, did_you_mean
from einscale.notation.detect import looks_like_numpy
from einscale.notation.syntax import ELLIPSIS, Axis, Shard, Span, Spec, TensorSpec, claim, split_shard
from einscale.notation.tokens import describe
from einscale.vocabulary import SUM

_MAX_KNOWN = 30


def check_spec(spec: Spec, mesh_axes: Sequence[str] | None = None) -> None:
    """Raise unless the spec is an einsum whose layouts tensors can have.

    Raises:
        NotationError: it is not.
    """
    tensors = spec.operands if spec.output is None else (*spec.operands, spec.output)
    check_tensors(spec.text, tensors, mesh_axes)
    for operand in spec.operands:
        _check_closed(spec.text, operand)
    _check_output(spec)
    _check_owed(spec)


def check_tensors(text: str, tensors: Sequence[TensorSpec], mesh_axes: Sequence[str] | None = None) -> None:
    """Raise unless each tensor can have its layout, and no two contradict each other in names or sizes.

    Raises:
        NotationError: a mesh axis is unknown or used twice in a tensor, a sharded axis is repeated, two tensors have
            one name, or an index has two sizes.
    """
    for tensor in tensors:
        _check_tensor(text, tensor, mesh_axes)
    _check_names(text, tensors)
    _check_axes(text, tensors)


def _check_tensor(text: str, tensor: TensorSpec, mesh_axes: Sequence[str] | None) -> None:
    seen: dict[str, Axis] = {}
    for axis in tensor.axes:
        first = seen.setdefault(axis.name, axis)
        if first is not axis and (first.shards or axis.shards or first.open or axis.open):
            raise NotationError(
                f"a diagonal over a sharded axis: `{axis.name}` occurs twice in one tensor",
                text=text,
                span=axis.span,
                expected=f"`{axis.name}` without mesh axes, or two different names",
            )
    uses = [shard for axis in tensor.axes for shard in axis.shards]
    used: dict[str, list[Shard]] = {}
    for shard in (*uses, *(tensor.partial.axes if tensor.partial else ())):
        check_mesh_axis(text, shard, mesh_axes)
        other = claim(shard, used)
        if other is not None:
            later = max(shard.span, other.span)
            message = f"mesh axis `{split_shard(shard.name)[0]}` is used twice in one tensor"
            raise NotationError(message, text=text, span=later, expected="each mesh axis at most once per tensor")


def check_mesh_axis(text: str, shard: Shard, mesh_axes: Sequence[str] | None) -> None:
    """Raise if the mesh is known and has no such axis, or if the part of an axis cannot exist.

    Raises:
        NotationError: so it is.
    """
    axis, _, size = split_shard(shard.name)
    if size == 1:
        raise NotationError("a part of a mesh axis has at least 2 shards", text=text, span=shard.span)
    if mesh_axes is not None and axis not in mesh_axes:
        span = (shard.span[0], shard.span[0] + len(axis)) if size is not None else shard.span
        hint = did_you_mean(axis, known_names(mesh_axes), "the mesh has")
        raise NotationError(f"unknown mesh axis `{axis}`", text=text, span=span, hint=hint)


def known_names(names: Iterable[str]) -> list[str]:
    """Names to compare a misspelt one with: so many as a person can read."""
    return list(islice(dict.fromkeys(names), _MAX_KNOWN))


def _check_names(text: str, tensors: Sequence[TensorSpec]) -> None:
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name is not None and tensor.name in seen:
            message = f"two tensors are named `{tensor.name}`"
            raise NotationError(message, text=text, span=tensor.name_span, expected="a name for each")
        seen.add(tensor.name or "")


def _check_axes(text: str, tensors: Sequence[TensorSpec]) -> None:
    """One size, and one meaning, for each index wherever it occurs."""
    first: dict[str, Axis] = {}
    sized: dict[str, Axis] = {}
    for axis in (axis for tensor in tensors for axis in tensor.axes):
        if first.setdefault(axis.name, axis).family != axis.family:
            raise NotationError(
                f"`{axis.name}` stands for one axis and `*{axis.name}` for several",
                text=text,
                span=axis.name_span,
                expected="one or the other throughout",
            )
        if axis.size is None:
            continue
        before = sized.setdefault(axis.name, axis).size
        if before != axis.size:
            message = f"index `{axis.name}` has size {before} and size {axis.size}"
            raise NotationError(message, text=text, span=axis.size_span, expected="one size for each index")


def _check_closed(text: str, operand: TensorSpec) -> None:
    """An operand's layout is given, so nothing in it is open."""
    span: Span | None = None
    for axis in operand.axes:
        if axis.open:
            span = (axis.span[1] - 1, axis.span[1])
    if operand.open:
        at = text.rindex("?", operand.span[0], operand.span[1])
        span = (at, at + 1)
    if operand.partial is not None and operand.partial.open:
        span = operand.partial.span
    if span is not None:
        raise NotationError("an operand with an open layout", text=text, span=span, expected="`?` in the output only")


def _check_output(spec: Spec) -> None:
    known = {name: None for operand in spec.operands for name in operand.indices}
    seen: set[str] = set()
    for axis in spec.output_axes:
        if axis.name not in known:
            odd = next((character for character in axis.name if not character.isascii()), None)
            made_of = f", with {describe(odd)}," if odd else ""
            message = f"output index `{axis.name}`{made_of} occurs in no operand"
            hint = _output_hint(spec, axis.name, known)
            raise NotationError(message, text=spec.text, span=axis.name_span, hint=hint)
        if axis.name in seen:
            message = f"index `{axis.name}` occurs twice in the output"
            raise NotationError(message, text=spec.text, span=axis.span, expected="each index once")
        seen.add(axis.name)
    if ELLIPSIS in known and ELLIPSIS not in seen:
        axis = next(axis for operand in spec.operands for axis in operand.axes if axis.name == ELLIPSIS)
        raise NotationError(
            "`...` is not in the output, but it is never summed",
            text=spec.text,
            span=axis.span,
            expected="`...` in the output too",
            hint=None if spec.syntax == "numpy" else "to sum over several axes, name them: `*batch`",
        )


def _output_hint(spec: Spec, name: str, known: Iterable[str]) -> str:
    if spec.syntax == "slash" and looks_like_numpy(spec.text):
        return "one-letter axes are read in syntax numpy (`--syntax numpy`)"
    return did_you_mean(name, known_names(known), "the operands have")


def _check_owed(spec: Spec) -> None:
    """A product is linear in each operand alone, and only sums pass through it."""
    used: dict[str, list[Shard]] = {}
    for operand in spec.operands:
        for shard in operand.partial.axes if operand.partial else ():
            if claim(shard, used) is not None:
                raise NotationError(
                    f"two operands of a product owe a sum over mesh axis `{split_shard(shard.name)[0]}`",
                    text=spec.text,
                    span=shard.span,
                    expected="at most one: a product of sums is not the sum of products",
                )
    partials = [operand.partial for operand in spec.operands if operand.partial]
    if spec.output is not None and spec.output.partial is not None:
        partials.append(spec.output.partial)
    produced = {axis.name for axis in spec.output_axes}
    adds = len(spec.operands) > 1 or any(name not in produced for name in spec.operands[0].indices)
    for partial in partials:
        if partial.reduction != SUM and adds:
            message = f"an einsum cannot carry a {partial.reduction} that is still owed"
            expected = "`{U:x}`, or one operand whose axes are all in the output"
            raise NotationError(message, text=spec.text, span=partial.span, expected=expected)
        anything = partial.open and partial.reduction == SUM
        if partial.reduction != partials[0].reduction and not anything:
            message = f"the operand owes a {partials[0].reduction}, the output a {partial.reduction}"
            raise NotationError(message, text=spec.text, span=partial.span, expected="the same reduction")
