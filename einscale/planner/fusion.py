"""Fused groups: which values stay on chip, and what a kernel keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Iterable

from einscale.layout import Layout, Tensor, local_bytes
from einscale.planner.planned import FORWARD, PlannedProgram, PlannedStatement
from einscale.program.maps import fused_residuals
from einscale.program.values import Program, Statement

RECOMPUTE = "recompute"


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


def never_written(planned: PlannedProgram) -> frozenset[str]:
    """Values that stay inside a fused kernel, forward or backward."""
    program, fuse = planned.program, set(planned.strategy.policy.fuse)
    inside = set(interior(program, fuse))
    for statement in program.statements:
        if statement.group in fuse and statement.phase != FORWARD:
            readers = [s for s in program.statements if set(statement.outputs) & set(s.inputs)]
            if readers and all(s.group == statement.group for s in readers):
                inside.update(statement.outputs)
    return frozenset(inside)


def residual_layouts(planned: PlannedProgram, statement: Statement) -> tuple[tuple[Tensor, Layout], ...]:
    """What a fused kernel keeps of a forward statement for the backward pass, divided as the statement's result is."""
    program = planned.program
    made = program.table[statement.output]
    dims = dict(zip(made.axes, planned.resting[statement.output].dims, strict=True))
    return tuple(
        (value.tensor, Layout(tuple(dims[axis] for axis in value.axes)))
        for value in fused_residuals(statement, program.table)
    )


def kept_residuals(planned: PlannedProgram, row: PlannedStatement) -> tuple[int, ...]:
    """Bytes on one device of what a fused kernel keeps of a statement; none for statements of the backward rules."""
    if row.statement.phase not in (FORWARD, RECOMPUTE):
        return ()
    pairs = residual_layouts(planned, row.statement)
    return tuple(int(local_bytes(tensor, layout, planned.sizes, planned.degrees)) for tensor, layout in pairs)
