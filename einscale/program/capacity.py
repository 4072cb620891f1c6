"""Capacity of experts: rows padded to a fixed number for each, as the switch of a mixture of experts sets it."""

from __future__ import annotations

from msgspec.structs import replace

from einscale.errors import SizeError
from einscale.program.routed import infer_chosen
from einscale.program.values import Program

LARGEST_CAPACITY = 1000.0
"""Beyond it every expert would have room for many times all tokens."""


def check_capacity(capacity: float) -> float:
    """A capacity factor.

    >>> check_capacity(1.25)
    1.25

    Raises:
        SizeError: a capacity below 1, which would drop tokens, or an absurd one.
    """
    if isinstance(capacity, bool) or not isinstance(capacity, int | float) or not 1 <= capacity <= LARGEST_CAPACITY:
        raise SizeError(
            f"experts cannot have a capacity of {capacity!r}",
            hint=f"use a factor from 1 (as many rows as tokens chose) to {LARGEST_CAPACITY:g}",
        )
    return float(capacity)


def with_capacity(program: Program, capacity: float) -> Program:
    """A forward program whose experts each have room for so many times their even share of rows.

    At 1.0 there are as many rows as tokens chose, spread evenly (dropless). Above it rows are padded: they are
    computed, moved and kept though no token is in them (Fedus et al. 2021, Switch Transformers, arXiv 2101.03961,
    section 2.2).

    >>> from einscale.models import load_model
    >>> block = load_model("mixtral-8x7b").layer("moe_block").program
    >>> [with_capacity(block, factor).table["gate"].chosen for factor in (1.0, 1.5)]
    [(('e', 2),), (('e', 3),)]

    Raises:
        SizeError: see `check_capacity`.
    """
    if check_capacity(capacity) == 1 or not any(statement.op == "dispatch" for statement in program.statements):
        return program
    table, statements = dict(program.table), []
    for statement in program.statements:
        options = dict(statement.options)
        if statement.op == "dispatch":
            options["capacity"] = float(capacity)
        inputs = [table[name] for name in statement.inputs]
        outputs = (
            statement.labels[-1:] if statement.op == "einsum" else [table[name].axes for name in statement.outputs]
        )
        found = infer_chosen(statement.op, inputs, statement.labels, options, outputs)
        for name, chosen in zip(statement.outputs, found, strict=True):
            table[name] = replace(table[name], chosen=chosen)
        statements.append(replace(statement, options=tuple(sorted(options.items()))))
    values = tuple(table[value.name] for value in program.values)
    return replace(program, values=values, statements=tuple(statements))
