"""Forward work done again in the backward pass: clones of statements, placed where they are first needed."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from msgspec.structs import replace

from einscale.program.values import Program, Statement, Value
from einscale.vocabulary import BACKWARD, FORWARD, RECOMPUTE


class RecomputeMode(StrEnum):
    """Words of a recompute list that stand for other values in every program; its other words are groups and values."""

    FULL = "full"
    ALTERNATE = "alternate"
    ALTERNATE_EAGER = "alternate-eager"


WHOLE = RecomputeMode.FULL
"""In a recompute list: the whole program taken as one group, full recomputation."""

ALTERNATE = RecomputeMode.ALTERNATE
"""In a recompute list: every second product with weights, the results of fused groups and the layer's input are kept.

Everything else is made again (torchtitan's selective activation checkpointing by operation, in
`torchtitan/parallelisms/parallelize_llama.py`: of the matrix products in the order they run every second is not saved).
"""

ALTERNATE_EAGER = RecomputeMode.ALTERNATE_EAGER
"""`alternate` as PyTorch runs it op by op: it keeps those results even where the backward pass reads none of them.

A compiler that parts forward and backward drops what nothing reads.
"""

MODES = (ALTERNATE, ALTERNATE_EAGER)
"""Words of a recompute list that stand for other values in every program."""


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
    inside = [group is None or statement.group == group for statement in statements]
    region = [s for s, member in zip(statements, inside, strict=True) if member and s.phase != BACKWARD]
    late = [member and s.phase == BACKWARD for s, member in zip(statements, inside, strict=True)]
    reads = {name for s, reader in zip(statements, late, strict=True) if reader for name in s.inputs}
    redone = [s for s in region if s.phase == FORWARD] if whole else _needed(region, set(reads))
    return _cloned(statements, values, redone, late)


def redo_named(
    statements: tuple[Statement, ...], values: dict[str, Value], names: frozenset[str]
) -> tuple[Statement, ...]:
    """Clone the statements that make values of these names ahead of the first statement that reads them later on.

    Args:
        statements: the program so far, other recomputation already in it.
        values: every value by name; the clones' are added.
        names: results of forward statements that depend on each other.
    """
    region = [s for s in statements if s.phase == FORWARD and names & set(s.outputs)]
    late = [s.phase != FORWARD for s in statements]
    reads = {name for s, reader in zip(statements, late, strict=True) if reader for name in s.inputs}
    return _cloned(statements, values, _needed(region, set(reads)), late)


def _cloned(
    statements: tuple[Statement, ...], values: dict[str, Value], redone: list[Statement], late: list[bool]
) -> tuple[Statement, ...]:
    """The statements, with clones of some ahead of the first late one that reads what they make; late ones read it."""
    made = {name for statement in redone for name in statement.outputs}
    if not any(reader and made & set(s.inputs) for s, reader in zip(statements, late, strict=True)):
        return statements
    again: dict[str, str] = {}
    for name in (name for statement in redone for name in statement.outputs):
        unique, number = f"{name}_again", 2
        while unique in values:
            unique, number = f"{name}_again_{number}", number + 1
        again[name] = unique
        values[unique] = replace(values[name], name=unique)
    clones = [
        replace(
            statement,
            inputs=tuple(again.get(name, name) for name in statement.inputs),
            outputs=tuple(again[name] for name in statement.outputs),
            phase=RECOMPUTE,
            source=statement.source or statement.output,
        )
        for statement in redone
    ]
    result: list[Statement] = []
    for statement, reader in zip(statements, late, strict=True):
        if not reader:
            result.append(statement)
            continue
        if clones and made & set(statement.inputs):
            result += clones
            clones = []
        result.append(replace(statement, inputs=tuple(again.get(name, name) for name in statement.inputs)))
    return tuple(result)


def redone_values(program: Program, words: Iterable[str]) -> tuple[frozenset[str], ...]:
    """Values that sections and single results in a recompute list stand for, dependent ones together.

    A section stands for what it makes and nothing outside it reads; a group is recomputed as a whole (see `redo`) and
    is not among them. `alternate` and `alternate-eager` stand for all but what they keep.

    >>> from einscale.models import load_model
    >>> block = load_model("llama3-8b").layer("block").program
    >>> [sorted(part) for part in redone_values(block, ["hidden", "k_rotated", "k", "attention"])]
    [['k', 'k_rotated'], ['hidden']]
    >>> [sorted(part) for part in redone_values(block, ["alternate"])]
    [['q_rotated'], ['attn_in', 'k', 'k_rotated'], ['attn_out', 'hidden', 'mid', 'mlp_in', 'up']]
    """
    wanted = set(words)
    if wanted & set(MODES):
        wanted |= _alternate(program)
    groups = {statement.group for statement in program.statements}
    forward = [statement for statement in program.statements if statement.phase == FORWARD]
    names: set[str] = set()
    for statement in forward:
        names |= wanted & set(statement.outputs)
        if statement.section in wanted - groups - {""}:
            outside = {n for s in forward if s.section != statement.section for n in s.inputs}
            names |= set(statement.outputs) - outside - set(program.outputs)
    parts: list[set[str]] = []
    for statement in forward:
        if names & set(statement.outputs):
            touching = [part for part in parts if part & set(statement.inputs)]
            joined = set(statement.outputs).union(*touching)
            parts = [part for part in parts if part not in touching] + [joined]
    return tuple(frozenset(part) for part in parts)


def kept_anyway(program: Program, words: Iterable[str]) -> frozenset[str]:
    """Values that a recompute list keeps whether or not the backward pass reads them: `alternate-eager` does.

    >>> from einscale.models import load_model
    >>> sorted(kept_anyway(load_model("llama3-8b").layer("block").program, ["alternate-eager"]))
    ['attended', 'gate', 'mlp_out', 'q', 'v']
    """
    return _checkpointed(program) if ALTERNATE_EAGER in words else frozenset()


def _checkpointed(program: Program) -> frozenset[str]:
    """Of the products with weights the first, third, ...; and of every group what the rest of the program reads.

    None where there is no group: an embedding and a head are not checkpointed.
    """
    forward = [statement for statement in program.statements if statement.phase == FORWARD]
    if not any(statement.group for statement in forward):
        return frozenset()
    parameters = {value.name for value in program.parameters}
    products = [s.output for s in forward if s.op == "einsum" and parameters & set(s.inputs)]
    outside = {(s.group, name) for s in forward for name in s.inputs}
    made = {
        name
        for s in forward
        if s.group and s.op == "einsum"
        for name in s.outputs
        if any(group != s.group for group, read in outside if read == name)
    }
    return frozenset(products[::2]) | made


def _alternate(program: Program) -> set[str]:
    """Values that alternate recomputation makes again: those that other statements read and it does not keep."""
    kept = _checkpointed(program)
    forward = [statement for statement in program.statements if statement.phase == FORWARD]
    read = {name for statement in forward for name in statement.inputs}
    return (
        {name for s in forward if not s.group for name in s.outputs if name in read and name not in kept}
        if kept
        else set()
    )
