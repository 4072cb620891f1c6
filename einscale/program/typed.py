"""A program in a precision: the element types values have while they work, and what each einsum is computed in."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from einscale.dtypes import BITS
from einscale.precision import Precision
from einscale.program.values import Program, Statement, Value
from einscale.vocabulary import BACKWARD, CACHE, GRADIENT, PARAMETER

WRITTEN = ("bf16", "fp16")
"""Types that models are written in: values of these take the types of a precision, all others stay."""

VOCABULARY = "v"
"""Axis of the vocabulary: the embedding and the head have it, and are never quantised."""


def typed(program: Program, precision: Precision) -> Program:
    """The program with the element types its values have while they work.

    Activations and their gradients take the activations' type, parameters the type they are gathered and read in,
    gradients of parameters the one they are accumulated in. What a program holds in another type than 16-bit floats (a
    log-sum-exp, a router in fp32) stays as it is. The program may have its backward pass already, or get it later.

    >>> from einscale.precision import parse_precision
    >>> from einscale.program.backward import backward
    >>> from einscale.program.text import parse_program
    >>> source = '''program p
    ... input x: bf16[b d]
    ... param w: bf16[d f]
    ... y = einsum("b d, d f -> b f", x, w)
    ... return y'''
    >>> [str(value) for value in typed(backward(parse_program(source)), parse_precision("mixed")).values]
    ['x: bf16[b d]', 'w: bf16[d f]', 'd_y: bf16[b f]', 'y: bf16[b f]', 'd_x: bf16[b d]', 'd_w: fp32[d f]']
    """
    table = program.table
    matrices = quantizable(program) if precision.quantized else frozenset(value.name for value in program.parameters)
    values = tuple(replace(v, dtype=_working(v, table, matrices, precision)) for v in program.values)
    dtypes = {value.name: value.dtype for value in values}
    statements = tuple(_cast(one, dtypes) if one.op == "cast" else one for one in program.statements)
    return replace(program, values=values, statements=statements)


def _working(value: Value, table: Mapping[str, Value], matrices: frozenset[str], precision: Precision) -> str:
    """Element type of one value."""
    root = table.get(value.of or "")
    if root is not None and root.kind == PARAMETER and value.kind == GRADIENT:
        written = value.dtype in (*WRITTEN, precision.activations, precision.weights)
        return precision.gradients if written else value.dtype
    if value.dtype not in WRITTEN:
        return value.dtype
    if value.kind == CACHE:
        return precision.kv_cache
    return precision.weights if value.name in matrices else precision.activations


def _cast(statement: Statement, dtypes: Mapping[str, str]) -> Statement:
    """A cast says the type of what it makes."""
    options = {**dict(statement.options), "dtype": dtypes[statement.output]}
    return replace(statement, options=tuple(sorted(options.items())))


def quantizable(program: Program) -> frozenset[str]:
    """Parameters that quantisation narrows: operands of einsums, but not the embedding, the head, and routers."""
    kept = {name for statement in _routers(program) for name in statement.inputs}
    return frozenset(
        name
        for statement in program.statements
        if statement.op == "einsum"
        for name in statement.inputs
        if program.table[name].kind == PARAMETER and VOCABULARY not in program.table[name].axes and name not in kept
    )


def _routers(program: Program) -> list[Statement]:
    """Einsums whose result a `route` reads."""
    scores = {name for statement in program.statements if statement.op == "route" for name in statement.inputs}
    return [s for s in program.statements if s.op == "einsum" and s.output.removesuffix("_again") in scores]


def made_of_parameters(program: Program) -> frozenset[str]:
    """Parameters, and what is made of nothing else: their casts, and products of weights."""
    found = {value.name for value in program.parameters}
    for statement in program.statements:
        if statement.phase != BACKWARD and statement.inputs and found.issuperset(statement.inputs):
            found.update(statement.outputs)
    return frozenset(found)


def computed(program: Program, precision: Precision) -> dict[str, str]:
    """Result of each einsum -> the element type it is computed in.

    Products with a weight, and those that make a weight's gradient, run in the compute type; others, attention's own,
    in the activations' type. A compute type narrower than the activations' spares the head and the routers.

    >>> from einscale.precision import parse_precision
    >>> from einscale.program.text import parse_program
    >>> source = '''program p
    ... input x: bf16[b d]
    ... input y: bf16[c d]
    ... param w: bf16[d f]
    ... scores = einsum("b d, c d -> b c", x, y)
    ... up = einsum("b d, d f -> b f", x, w)
    ... return scores, up'''
    >>> computed(parse_program(source), parse_precision("fp8"))
    {'scores': 'bf16', 'up': 'fp8'}
    """
    table, weights = program.table, made_of_parameters(program)
    narrower = BITS[precision.compute] < BITS[precision.activations]
    spared = {value.name for value in program.parameters if VOCABULARY in value.axes} if narrower else set()
    spared |= {name for statement in _routers(program) for name in statement.inputs if name in weights and narrower}
    found = {}
    for statement in program.statements:
        if statement.op != "einsum":
            continue
        touched = {name for name in statement.inputs if name in weights}
        touched |= {of for name in statement.outputs if (of := table[name].of) is not None and of in weights}
        plain = not touched or touched & spared
        found[statement.output] = precision.activations if plain else precision.compute
    return found
