"""Parameters of a model, counted from its programs."""

from __future__ import annotations

from einscale.models.values import Model, ParameterCounts
from einscale.numeric import product
from einscale.program.shapes import known_sizes, missing_size
from einscale.program.values import Program


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


def parameter_counts(model: Model) -> ParameterCounts:
    """Exact counts; a tied parameter counts once.

    Raises:
        SizeError: the program of the user's own does not fix the size of a parameter.
    """
    total = embedding = 0
    for layer in model.layers:
        table_names = tables(layer.program)
        for name, elements in program_parameters(layer.program).items():
            total += elements * layer.repeat
            embedding += elements * layer.repeat * (name in table_names)
    return ParameterCounts(total, total, embedding, total - embedding)
