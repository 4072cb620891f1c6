"""Fused groups: which values stay on chip."""

from __future__ import annotations

from collections.abc import Iterable

from einscale.planner.program import FORWARD, PlannedProgram
from einscale.program.values import Program


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
