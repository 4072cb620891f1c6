"""Fused groups: which values stay on chip, and what a kernel keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Iterable

from einscale.layout import Layout, Tensor
from einscale.numeric import Number
from einscale.planner.planned import PlannedProgram, PlannedStatement, Structure, of_structure
from einscale.program.maps import fused_residuals
from einscale.program.values import Program, Statement
from einscale.vocabulary import FORWARD, RECOMPUTE


def interior(program: Program, groups: Iterable[str]) -> frozenset[str]:
    """Values made inside a group and read in the forward pass by nothing outside it."""
    chosen = {group for group in groups if group}
    inside: set[str] = set()
    for group in chosen:
        members = [s for s in program.statements if s.group == group and s.phase == FORWARD]
        made = {name for statement in members for name in statement.outputs}
        read_outside = {
            name
            for statement in program.statements
            if statement.phase == FORWARD and statement.group != group
            for name in statement.inputs
        }
        inside |= made - read_outside - set(program.outputs)
    return frozenset(inside)


@of_structure
def never_written(structure: Structure) -> frozenset[str]:
    """Values that stay inside a fused kernel, forward or backward."""
    program, fuse = structure.program, set(structure.strategy.policy.fuse)
    inside = set(interior(program, fuse))
    for statement in program.statements:
        if statement.group in fuse and statement.phase != FORWARD:
            readers = [s for s in program.statements if set(statement.outputs) & set(s.inputs)]
            if readers and all(s.group == statement.group for s in readers):
                inside.update(statement.outputs)
    return frozenset(inside)


def residual_layouts(structure: Structure, statement: Statement) -> tuple[tuple[Tensor, Layout], ...]:
    """What a fused kernel keeps of a forward statement for the backward pass, divided as the statement's result is."""
    program = structure.program
    made = program.table[statement.output]
    dims = dict(zip(made.axes, structure.resting[statement.output].dims, strict=True))
    return tuple(
        (value.tensor, Layout(tuple(dims[axis] for axis in value.axes)))
        for value in fused_residuals(statement, program.table)
    )


def kept_residuals(planned: PlannedProgram, row: PlannedStatement) -> tuple[Number, ...]:
    """Bytes on one device of what a fused kernel keeps of a statement; none for statements of the backward rules."""
    if row.statement.phase not in (FORWARD, RECOMPUTE):
        return ()
    return tuple(planned.held(tensor, layout) for tensor, layout in residual_layouts(planned.structure, row.statement))
