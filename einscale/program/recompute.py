"""Forward work done again in the backward pass: clones of statements, placed where they are first needed."""

from __future__ import annotations

from msgspec.structs import replace

from einscale.program.values import Statement, Value


def _needed(region: list[Statement], reads: set[str]) -> list[Statement]:
    """Statements of a region that make what is read, directly or through others of the region."""
    needed = []
    for statement in reversed(region):
        if reads & set(statement.outputs):
            needed.append(statement)
            reads |= set(statement.inputs)
    return needed[::-1]


def redo(
    statements: tuple[Statement, ...], values: dict[str, Value], group: str | None, *, whole: bool
) -> tuple[Statement, ...]:
    """Clone a group's statements ahead of the first backward statement of the group that reads what they make.

    Args:
        statements: the program so far.
        values: every value by name; the clones' are added.
        group: name of the group; None for all statements.
        whole: clone all of it rather than what is read.
    """
    region = [
        statement
        for statement in statements
        if statement.phase != "backward" and (group is None or statement.group == group)
    ]
    readers = [
        statement for statement in statements if statement.phase == "backward" and group in (None, statement.group)
    ]
    reads = {name for statement in readers for name in statement.inputs}
    redone = (
        [statement for statement in region if statement.phase == "forward"] if whole else _needed(region, set(reads))
    )
    made = {name for statement in redone for name in statement.outputs}
    if not made & reads:
        return statements
    again: dict[str, str] = {}
    for name in (name for statement in redone for name in statement.outputs):
        unique, number = f"{name}_again", 2
        while unique in values:
            unique, number = f"{name}_again_{number}", number + 1
        again[name] = unique
        old = values[name]
        values[unique] = Value(unique, old.axes, old.dtype, old.kind)
    clones = [
        replace(
            statement,
            inputs=tuple(again.get(name, name) for name in statement.inputs),
            outputs=tuple(again[name] for name in statement.outputs),
            phase="recompute",
            source=statement.source or statement.output,
        )
        for statement in redone
    ]
    result: list[Statement] = []
    for statement in statements:
        if statement.phase != "backward" or group not in (None, statement.group):
            result.append(statement)
            continue
        if clones and made & set(statement.inputs):
            result += clones
            clones = []
        result.append(replace(statement, inputs=tuple(again.get(name, name) for name in statement.inputs)))
    return tuple(result)
