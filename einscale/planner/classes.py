"""Classes of tensors: what store rules speak of, and what collectives are said to move."""

from __future__ import annotations

from einscale.program.shapes import is_float
from einscale.program.values import Program, Value
from einscale.vocabulary import CACHE, GRADIENT, PARAMETER, STATE, TensorClass

CLASS_OF = {GRADIENT: TensorClass.GRADIENTS, STATE: TensorClass.OPTIMIZER}
"""Kind of what belongs to a parameter -> its class; the parameter itself, and what an update makes of it, are
parameters."""


def stream_axes(program: Program) -> tuple[str, ...]:
    """Axes of the residual stream: those of the first float input, else of the first output.

    Values with exactly these axes are of class `residual` in the store tables.
    """
    table = program.table
    floats = [name for name in program.inputs if is_float(table[name].dtype)]
    names = [*floats, *program.outputs]
    return table[names[0]].axes if names else ()


def root_of(value: Value, program: Program) -> Value:
    """What a gradient, an optimizer state or an updated parameter belongs to; any other value itself."""
    return program.table.get(value.of, value) if value.of is not None else value


def store_class(value: Value, root: Value, stream: tuple[str, ...]) -> TensorClass | None:
    """Class of a value in the store tables, None if none speaks of it.

    Args:
        value: the value.
        root: what it is the gradient of, or itself.
        stream: axes of the residual stream.
    """
    if root.kind == PARAMETER:
        return CLASS_OF.get(value.kind, TensorClass.PARAMETERS)
    if root.kind == CACHE:
        return TensorClass.KV_CACHE
    if value.chosen:
        return TensorClass.ROUTED
    return TensorClass.RESIDUAL if value.axes == stream else None


def moved_class(program: Program, name: str) -> TensorClass:
    """Class of what a collective moves, as a strategy's `expect` list names it.

    `parameters`, `gradients` (of parameters), `optimizer` (its state), `kv_cache`, `statistics` (of a map), `shared`
    (made of parameters alone, such as the positions of a sequence) or `activations`.
    """
    known = program.kept.setdefault(moved_class, {})
    if name not in known:
        known[name] = _moved_class(program, name)
    found: TensorClass = known[name]
    return found


def _moved_class(program: Program, name: str) -> TensorClass:
    value = program.table.get(name)
    if value is None:
        return TensorClass.STATISTICS
    if value.kind == PARAMETER:
        return TensorClass.PARAMETERS
    if value.kind == CACHE:
        return TensorClass.KV_CACHE
    root = root_of(value, program)
    if root.kind == PARAMETER:
        return CLASS_OF.get(value.kind, TensorClass.PARAMETERS)
    return TensorClass.SHARED if _made_of_parameters(program, root) else TensorClass.ACTIVATIONS


def _made_of_parameters(program: Program, value: Value) -> bool:
    """Whether a value is made of parameters alone, the same for every sequence of the batch: looked-up positions."""
    producer = next((s for s in program.statements if value.name in s.outputs), None)
    if producer is None or "b" in value.axes:
        return False
    floats = [source for source in producer.inputs if is_float(program.table[source].dtype)]
    return all(program.table[source].kind == PARAMETER for source in floats)
