"""Parameters of a model, counted from its programs."""

from __future__ import annotations

from collections.abc import Mapping

from einscale.models.values import LayerKind, Model, ParameterCounts
from einscale.numeric import product
from einscale.program.shapes import known_sizes, missing_size
from einscale.program.values import Program, Statement, Value
from einscale.vocabulary import PARAMETER


def program_parameters(program: Program) -> dict[str, int]:
    """Elements of each parameter of a program, those counted elsewhere left out.

    Raises:
        SizeError: a parameter has an axis whose size the program does not fix.
    """
    wanted = [value for value in program.parameters if value.name not in program.tied]
    sizes = dict(program.sizes)
    if any(axis not in sizes for value in wanted for axis in value.axes):
        sizes = known_sizes(program)
        for axis in (axis for value in wanted for axis in value.axes):
            if axis not in sizes:
                raise missing_size(program, axis)
    return {value.name: int(product(sizes[axis] for axis in value.axes)) for value in wanted}


def tables(program: Program) -> frozenset[str]:
    """Parameters that are tables: looked up, or the vocabulary's."""
    looked_up = {statement.inputs[0] for statement in program.statements if statement.op == "lookup"}
    return frozenset(value.name for value in program.parameters if value.name in looked_up or "v" in value.axes)


def routed_parameters(program: Program) -> dict[str, tuple[float, int]]:
    """Parameters of which a token meets only some: name -> how many of how many.

    They have an axis that another operand of a statement that reads them is chosen in. The router's weights have the
    axis of the experts too, but what they are multiplied with is not chosen.
    """
    table, sizes = program.table, dict(program.sizes)
    if not any(value.chosen for value in program.values):
        return {}
    routed: dict[str, tuple[float, int]] = {}
    for statement in program.statements:
        chosen = dict(pair for name in statement.inputs for pair in table[name].chosen)
        for name in statement.inputs:
            for axis in _axes_read(statement, name, table):
                if table[name].kind == PARAMETER and axis in chosen and axis in sizes:
                    routed[name] = (chosen[axis], sizes[axis])
    return routed


def _axes_read(statement: Statement, name: str, table: Mapping[str, Value]) -> tuple[str, ...]:
    """What a statement calls the axes of an operand: an einsum's labels, a map's axes."""
    return statement.labels[statement.inputs.index(name)] if statement.op == "einsum" else table[name].axes


def _elements(layers: tuple[LayerKind, ...]) -> int:
    return sum(sum(program_parameters(layer.program).values()) * layer.repeat for layer in layers)


def parameter_counts(model: Model) -> ParameterCounts:
    """Exact counts; a tied parameter counts once.

    Raises:
        SizeError: the program of the user's own does not fix the size of a parameter.
    """
    total = embedding = routed = met = 0
    for layer in model.layers:
        table_names, shares = tables(layer.program), routed_parameters(layer.program)
        for name, elements in program_parameters(layer.program).items():
            total += elements * layer.repeat
            embedding += elements * layer.repeat * (name in table_names)
            if name in shares:
                count, size = shares[name]
                routed += elements * layer.repeat
                met += int(elements * layer.repeat * count // size)
    ahead = _elements(model.ahead)
    return ParameterCounts(total, total - routed + met, embedding, total - embedding, routed, ahead)
