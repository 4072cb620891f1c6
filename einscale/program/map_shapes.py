"""Axes and element type of what each map makes, by the shape its rule names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from einscale.dtypes import BITS
from einscale.errors import ProgramError, did_you_mean
from einscale.program.maps import option_axes
from einscale.program.options import need_axes, quoted, words
from einscale.program.routed import combine_shape, dispatch_shape, route_shape
from einscale.program.values import Option, Value

Shape: TypeAlias = tuple[tuple[str, ...], str]
"""Axes and element type of a value."""

Inputs: TypeAlias = Sequence[Value]
Options: TypeAlias = Mapping[str, Option]


def is_float(dtype: str) -> bool:
    """Whether values of the type have gradients.

    >>> is_float("bf16"), is_float("int64"), is_float("bool")
    (True, False, False)
    """
    return not dtype.startswith(("int", "uint", "bool"))


def widest(values: Sequence[Value]) -> str:
    """The element type of a sum or product of values: the one of most bits, of floats if there are any."""
    floats = [value.dtype for value in values if is_float(value.dtype)] or [value.dtype for value in values]
    return max(floats, key=lambda name: BITS[name])


def _elementwise(op: str, inputs: Inputs, options: Options) -> Shape:
    largest = max(inputs, key=lambda value: len(value.axes))
    for value in inputs:
        extra = [axis for axis in value.axes if axis not in largest.axes]
        if extra:
            raise ProgramError(
                f"{op} matches axes by name: `{value.name}` {words(value.axes)} has `{extra[0]}`, which"
                f" `{largest.name}` {words(largest.axes)} has not"
            )
    return largest.axes, widest(inputs)


def _axes_option(op: str, options: Mapping[str, Option]) -> tuple[str, ...]:
    axes = options["axes"]
    if isinstance(axes, str):
        return (axes,)
    if not isinstance(axes, tuple):
        raise ProgramError(f"option `axes` of {op} must be axis names", expected="for example axes=(b s)")
    return axes


def _sum(op: str, inputs: Inputs, options: Options) -> Shape:
    axes = _axes_option(op, options)
    need_axes(op, inputs[0], axes)
    return tuple(axis for axis in inputs[0].axes if axis not in axes), inputs[0].dtype


def _first(op: str, inputs: Inputs, options: Options) -> Shape:
    axes = option_axes(options.get("axis", ""))
    for value in inputs[1:] if op == "norm" else ():
        if value.axes not in (axes, inputs[0].axes):
            raise ProgramError(f"{op} along {quoted(axes)} takes scale and bias of axes {words(axes)}, not {value}")
    return inputs[0].axes, inputs[0].dtype


def _lookup(op: str, inputs: Inputs, options: Options) -> Shape:
    axis = _axis(options)
    table, tokens = inputs
    rest = tuple(name for name in table.axes if name != axis)
    twice = [name for name in rest if name in tokens.axes]
    if twice:
        raise ProgramError(f"table `{table.name}` and indices `{tokens.name}` both have axis `{twice[0]}`")
    return tokens.axes + rest, table.dtype


def _append(op: str, inputs: Inputs, options: Options) -> Shape:
    axis = _axis(options)
    cache, new = inputs
    need_axes("append", cache, (axis,))
    same = len(cache.axes) == len(new.axes) and all(
        one in (other, axis) for one, other in zip(cache.axes, new.axes, strict=True)
    )
    if not same:
        raise ProgramError(
            f"append writes rows behind those of `{cache.name}` {words(cache.axes)} along `{axis}`: the axes of"
            f" `{new.name}` {words(new.axes)} must be the same but for that one"
        )
    return cache.axes, cache.dtype


def _conv(op: str, inputs: Inputs, options: Options) -> Shape:
    if op != "causal_conv":
        return inputs[0].axes, inputs[0].dtype
    taps = str(options["taps"])
    x, weight = inputs
    channels = tuple(axis for axis in weight.axes if axis != taps)
    if taps not in weight.axes or not set(channels) <= set(x.axes):
        raise ProgramError(
            f"causal_conv of `{x.name}` {words(x.axes)} takes a weight of axes of it and `{taps}`, not {weight}"
        )
    return x.axes, x.dtype


def _delta(op: str, inputs: Inputs, options: Options) -> Shape:
    """Queries and keys have a key axis, values a value axis; decay and rate are one number for each token and head."""
    key, value = _axis(options), str(options["value"])
    heads = tuple(axis for axis in inputs[0].axes if axis != key)
    wanted = ((*heads, key), (*heads, key), (*heads, value), heads, heads)
    for operand, axes in zip(inputs, wanted, strict=False):
        if operand.axes != axes:
            raise ProgramError(f"delta_rule reads `{operand.name}` with axes {words(axes)}, not {operand}")
    return inputs[2].axes, inputs[2].dtype


def _axis(options: Options) -> str:
    """The axis a map works along, the first of several."""
    named = option_axes(options.get("axis", ""))
    return named[0] if named else ""


def _broadcast(op: str, inputs: Inputs, options: Options) -> Shape:
    axes = _axes_option(op, options)
    if not set(inputs[0].axes) <= set(axes):
        raise ProgramError(f"broadcast to {words(axes)} would lose an axis of {inputs[0]}")
    return axes, inputs[0].dtype


def _cast(op: str, inputs: Inputs, options: Options) -> Shape:
    name = str(options["dtype"])
    if options["dtype"] not in BITS:
        raise ProgramError(f"unknown dtype `{name}`", hint=did_you_mean(name, BITS, "dtypes"))
    return inputs[0].axes, name


def _reduce(op: str, inputs: Inputs, options: Options) -> Shape:
    need_axes(op, inputs[0], inputs[1].axes)
    return tuple(name for name in inputs[0].axes if name != _axis(options)), "fp32"


def _table(op: str, inputs: Inputs, options: Options) -> Shape:
    return (_axis(options), *(name for name in inputs[0].axes if name not in inputs[1].axes)), inputs[0].dtype


SHAPES: dict[str, Callable[[str, Inputs, Options], Shape]] = {
    "elementwise": _elementwise,
    "first": _first,
    "sum": _sum,
    "broadcast": _broadcast,
    "cast": _cast,
    "lookup": _lookup,
    "table": _table,
    "append": _append,
    "reduce": _reduce,
    "axis": lambda op, inputs, options: (option_axes(options.get("axis", "")), inputs[0].dtype),
    "axes": lambda op, inputs, options: (_axes_option(op, options), inputs[0].dtype),
    "conv": _conv,
    "delta": _delta,
    "route": route_shape,
    "dispatch": lambda op, inputs, options: dispatch_shape(inputs, _axis(options)),
    "combine": lambda op, inputs, options: combine_shape(inputs, _axis(options)),
}
"""Name of a shape -> axes and element type of a map's first output."""

EACH: dict[str, slice] = {"operands": slice(1, None), "others": slice(0, -1)}
"""Name of a shape -> the operands that the outputs are like, one by one: for gradients of several operands at once."""


def map_shapes(shape: str, extra: Sequence[str], op: str, inputs: Inputs, options: Options) -> tuple[Shape, ...]:
    """Axes and element type of each output of a map.

    Args:
        shape: name of the shape, of `SHAPES` or `EACH`.
        extra: suffixes of the outputs after the first.
        op: the map.
        inputs: its operands.
        options: its options.

    Raises:
        ProgramError: operands whose axes do not fit.
    """
    if shape == "others":
        _delta(op, inputs, options)
    if shape in EACH:
        return tuple((value.axes, value.dtype) for value in inputs[EACH[shape]])
    first = SHAPES[shape](op, inputs, options)
    return (first, *((first[0], "bool" if suffix == "mask" else first[1]) for suffix in extra))
