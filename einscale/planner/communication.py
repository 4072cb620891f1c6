"""Element types on the network, where they are not those of the tensors that move."""

from __future__ import annotations

from msgspec.structs import replace

from einscale.collectives import Collective
from einscale.planner.classes import moved_class
from einscale.planner.planned import PlannedProgram
from einscale.precision import Precision
from einscale.vocabulary import TensorClass


def sent_as(planned: PlannedProgram, precision: Precision) -> PlannedProgram:
    """The planned program with its moves in the types a precision sends things in.

    Gradients of parameters go in `communication`; tokens on their way to their experts, and gradients on theirs, in
    `dispatch`. They are converted before the move and back after it; what the conversions cost is not counted.

    >>> from einscale.mesh import parse_mesh
    >>> from einscale.planner.program import plan_program
    >>> from einscale.precision import parse_precision
    >>> from einscale.program import backward, parse_program
    >>> from einscale.program.typed import typed
    >>> from einscale.strategy import load_strategy
    >>> source = '''program p
    ... input x: bf16[b d]
    ... param w: bf16[d f]
    ... y = einsum("b d, d f -> b f", x, w)
    ... return y'''
    >>> precision = parse_precision("bf16,communication=bf16")
    >>> program = typed(backward(parse_program(source)), precision)
    >>> planned = plan_program(program, load_strategy("dp"), parse_mesh("data=8"), {"b": 8, "d": 64, "f": 64})
    >>> rows = planned.statements, sent_as(planned, precision).statements
    >>> [str(row.collectives[0].tensor) for statements in rows for row in statements if row.collectives]
    ['d_w: fp32[d f]', 'd_w: bf16[d f]']
    """
    if not (precision.communication or precision.dispatch):
        return planned
    program = planned.program
    dispatched = {s.output for s in program.statements if s.op == "dispatch"}

    def sent(step: Collective) -> Collective:
        name = step.tensor.name
        dtype = precision.dispatch if name in dispatched else ""
        if moved_class(program, name) == TensorClass.GRADIENTS:
            dtype = precision.communication
        return replace(step, tensor=replace(step.tensor, dtype=dtype)) if dtype else step

    statements = tuple(
        replace(row, before=tuple(map(sent, row.before)), after=tuple(map(sent, row.after)))
        for row in planned.statements
    )
    return replace(planned, structure=replace(planned.structure, statements=statements))
