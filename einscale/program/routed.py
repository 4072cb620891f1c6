"""Routed values: of one axis (experts) only the elements that a token chose exist; what makes, keeps and ends that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from einscale.errors import ProgramError
from einscale.layout import Chosen
from einscale.program.maps import option_axes
from einscale.program.options import need_axes, words
from einscale.program.values import Option, Program, Statement, Value

SCORINGS = ("sigmoid", "softmax")
"""How a router's logits become weights."""

Shape: TypeAlias = tuple[tuple[str, ...], str]


def route_shape(op: str, inputs: Sequence[Value], options: Mapping[str, Option]) -> Shape:
    """Axes and element type of the weights of what is chosen, or of the gradient of the logits.

    Raises:
        ProgramError: a bias of other axes, unknown scoring, groups of which more are taken than there are.
    """
    logits, axis = inputs[0], option_axes(options["axis"])
    if op == "route" and len(inputs) > 1 and inputs[1].axes != axis:
        raise ProgramError(f"route along {words(axis)} takes a bias of these axes, not {inputs[1]}")
    if options["scoring"] not in SCORINGS:
        raise ProgramError(f"route has no scoring `{options['scoring']}`", expected="one of " + ", ".join(SCORINGS))
    top, groups = options["top"], options.get("groups", 1)
    limit = options.get("top_groups", groups)
    if not isinstance(groups, int) or not isinstance(limit, int) or limit > groups:
        raise ProgramError(f"route takes experts from {limit} of {groups} groups", expected="top_groups up to groups")
    if not isinstance(top, int):
        raise ProgramError(f"option `top` of route must be a whole number, not {top}")
    return logits.axes, logits.dtype


def check_route(statement: Statement, size: int | None) -> None:
    """Raise unless there are as many elements to choose from as a `route` takes; nothing is known without a size.

    Raises:
        ProgramError: there are not.
    """
    if statement.op != "route" or size is None:
        return
    axis, top = statement.option("axis"), int(statement.option("top"))  # type: ignore[arg-type]
    groups = int(statement.option("groups", 1))  # type: ignore[arg-type]
    limit = int(statement.option("top_groups", groups))  # type: ignore[arg-type]
    if size % groups:
        raise ProgramError(f"`{axis}` of {size} is not divided into {groups} groups", expected="a divisor of its size")
    if top > size:
        raise ProgramError(f"route takes the top {top} of `{axis}`, which has {size}")
    if top > size // groups * limit:
        raise ProgramError(
            f"route takes the top {top} of `{axis}`, but {limit} of {groups} groups have {size // groups * limit}"
        )


def dispatch_shape(inputs: Sequence[Value], axis: str) -> Shape:
    """Axes and element type of the copies of `x`, one for each element of `axis` that the weights choose.

    Raises:
        ProgramError: the weights choose nothing along the axis, or have axes that `x` has not.
    """
    x, gates = inputs
    if axis in x.axes:
        raise ProgramError(f"dispatch along `{axis}`, which `{x.name}` {words(x.axes)} has already")
    if axis not in dict(gates.chosen):
        raise ProgramError(
            f"dispatch along `{axis}`, of which `{gates.name}` chooses nothing", expected="the result of a route"
        )
    need_axes("dispatch", x, (name for name in gates.axes if name != axis))
    return (axis, *x.axes), x.dtype


def combine_shape(inputs: Sequence[Value], axis: str) -> Shape:
    """Axes and element type of the sum over what is chosen.

    Raises:
        ProgramError: nothing is chosen along the axis.
    """
    (x,) = inputs
    need_axes("combine", x, (axis,))
    if axis not in dict(x.chosen):
        raise ProgramError(
            f"combine sums what is chosen of `{axis}`, but `{x.name}` has all of it", expected="sum for all of an axis"
        )
    return tuple(name for name in x.axes if name != axis), x.dtype


def infer_chosen(
    op: str,
    inputs: Sequence[Value],
    labels: tuple[tuple[str, ...], ...],
    options: Mapping[str, Option],
    outputs: Sequence[Sequence[str]],
) -> tuple[Chosen, ...]:
    """What of each output exists: `route` and `dispatch` choose, `combine` ends it, everything else passes it on.

    It is passed on where an output has the axis and every other axis of the routed operands that no dense operand has:
    tokens are not summed over. The gradient of expert weights sums over tokens: it is dense.

    Args:
        op: the operation.
        inputs: its operands.
        labels: of an einsum.
        options: of a map.
        outputs: axes of each output; an einsum's are its labels.

    >>> x = Value("x", ("e", "b", "d"), "bf16", chosen=(("e", 2),))
    >>> labels = ("e", "b", "d"), ("e", "d", "m"), ("e", "b", "m")
    >>> infer_chosen("einsum", [x, Value("w", ("e", "d", "m"), "bf16")], labels, {}, labels[-1:])
    ((('e', 2),),)
    >>> labels = ("e", "b", "d"), ("e", "b", "f"), ("e", "d", "f")
    >>> infer_chosen("einsum", [x, x], labels, {}, labels[-1:])
    ((),)
    """
    if op == "route":
        top = options["top"]
        return (((option_axes(options["axis"])[0], top if isinstance(top, int) else 0),),)
    if op == "route_backward" or not any(value.chosen for value in inputs):
        return ((),) * len(outputs)
    if op == "dispatch":
        axis = option_axes(options["axis"])[0]
        return ((*inputs[0].chosen, (axis, _padded(dict(inputs[1].chosen)[axis], options.get("capacity", 1)))),)
    if op == "combine":
        axis = option_axes(options["axis"])[0]
        return (tuple(pair for pair in inputs[0].chosen if pair[0] != axis),)
    read = labels[:-1] if op == "einsum" else [value.axes for value in inputs]
    return tuple(_passed_on(inputs, read, output) for output in outputs)


def part_chosen(inferred: Chosen, whole: Chosen, axes: Sequence[str]) -> Chosen:
    """What exists of a part of a gradient: what follows from its operands, and what does for what it is a part of.

    >>> part_chosen((), (("e", 2),), ("e", "b"))
    (('e', 2),)
    """
    return tuple(({axis: count for axis, count in whole if axis in axes} | dict(inferred)).items())


def _padded(count: float, capacity: Option) -> int | float:
    """Elements chosen, times a capacity; a whole number where it is one."""
    padded = count * float(capacity)  # type: ignore[arg-type]
    return int(padded) if padded == int(padded) else padded


def _passed_on(inputs: Sequence[Value], read: Sequence[Sequence[str]], output: Sequence[str]) -> Chosen:
    """What an einsum or elementwise map leaves chosen of an output."""
    found: dict[str, int | float] = {}
    for value, names in zip(inputs, read, strict=True):
        for axis, count in value.chosen:
            label = names[value.axes.index(axis)]
            found[label] = max(count, found.get(label, 0))
    kept = []
    for label, count in found.items():
        routed = [label in _labels(value, names) for value, names in zip(inputs, read, strict=True)]
        dense = {name for names, is_routed in zip(read, routed, strict=True) if not is_routed for name in names}
        tokens = {name for names, is_routed in zip(read, routed, strict=True) if is_routed for name in names} - dense
        if label in output and tokens - {label} <= set(output):
            kept.append((label, count))
    return tuple(kept)


def _labels(value: Value, names: Sequence[str]) -> set[str]:
    """Labels along which an operand is routed."""
    return {names[value.axes.index(axis)] for axis, _ in value.chosen}


class Routing(Struct, frozen=True):
    """What chose the elements of a routed value.

    Args:
        gates: name of the value that `route` made.
        top: elements chosen at each position.
        groups: groups the elements are in; those chosen lie in `top_groups` of them. 1 and 1 without such a limit.
        top_groups: see `groups`.
        padded: rows are padded to a capacity somewhere between the choice and the value.
    """

    gates: str
    top: int
    groups: int = 1
    top_groups: int = 1
    padded: bool = False


def routing_of(name: str, axis: str, program: Program) -> Routing | None:
    """The `route` that chose the elements of a value along an axis, looked for among what it was made of.

    Returns None where it lies outside the program.
    """
    table = program.table
    makers = {output: statement for statement in program.statements for output in statement.outputs}
    seen: set[str] = set()
    waiting, padded = [name], False
    while waiting:
        at = waiting.pop(0)
        statement = makers.get(at)
        if statement is None or at in seen:
            continue
        seen.add(at)
        if statement.op == "dispatch" and statement.option("axis") == axis:
            padded = padded or statement.option("capacity", 1) != 1
            waiting = [statement.inputs[1]]
        elif statement.op == "route" and statement.option("axis") == axis:
            return _routing(statement, padded)
        else:
            waiting += [source for source in statement.inputs if table[source].chosen]
    return None


def _routing(statement: Statement, padded: bool) -> Routing:
    """A route's options as numbers."""
    groups = int(statement.option("groups", 1))  # type: ignore[arg-type]
    limit = int(statement.option("top_groups", groups))  # type: ignore[arg-type]
    return Routing(statement.output, int(statement.option("top")), groups, limit, padded)  # type: ignore[arg-type]
