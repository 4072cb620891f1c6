"""The optimizer's step as a program: accumulated gradients, weights and states in, updated ones out."""

from __future__ import annotations

from msgspec.structs import replace

from einscale.precision import Precision
from einscale.program.optimizers import (
    NEWTON_SCHULZ,
    Matrix,
    Optimizer,
    Step,
    find_optimizer,
    states_of,
    step_of,
)
from einscale.program.typed import typed
from einscale.program.values import Option, Program, Statement, Value
from einscale.vocabulary import BACKWARD, GRADIENT, PARAMETER, STATE, UPDATE, UPDATED

ORTHOGONAL_DTYPE = "bf16"
"""Type in which Muon's momentum is gathered and made orthogonal."""


def gradient_names(program: Program) -> dict[str, str]:
    """Parameter -> the value that is its whole gradient, of a program with its backward pass.

    >>> from einscale.program.backward import backward
    >>> from einscale.program.text import parse_program
    >>> source = '''program p
    ... input x: bf16[b d]
    ... param w: bf16[d f]
    ... y = einsum("b d, d f -> b f", x, w)
    ... return y'''
    >>> gradient_names(backward(parse_program(source)))
    {'w': 'd_w'}
    """
    table = program.table
    found: dict[str, str] = {}
    for name in program.outputs:
        of = table[name].of
        if of is not None and of in table and table[of].kind == PARAMETER:
            found[of] = name
    return found


def update_program(program: Program, optimizer: str | Optimizer, precision: Precision) -> Program:
    """The program of one optimizer step on the parameters that live in a program.

    For each parameter w one kernel reads the accumulated gradient, the master copy (or w itself where there is none)
    and the states, and makes `w_new` and new states. It runs where the states rest, and `w_new` rests where w does:
    what must move between the two, and between the gradient and the states, is the planner's to find. Muon takes three
    kernels for a matrix, the second of which needs it whole. Tied parameters are updated where they live.

    Args:
        program: with or without its backward pass, in the types of the precision or as it was written.
        optimizer: by name.
        precision: types of weights at rest, gradients, states.

    >>> from einscale.models import load_model
    >>> from einscale.precision import parse_precision
    >>> block = load_model("llama3-8b").layer("block").program
    >>> step = update_program(block, "adamw", parse_precision("bf16"))
    >>> kernel = next(s for s in step.statements if s.output == "w_up_new")
    >>> print(kernel.op, *kernel.inputs)
    adamw d_w_up w_up_master w_up_first_moment w_up_second_moment

    Raises:
        ProgramError: no such optimizer.
    """
    chosen = find_optimizer(optimizer)
    whole = typed(program, precision)
    gradients = gradient_names(whole)
    differentiated = any(statement.phase == BACKWARD for statement in whole.statements)
    fed: list[Value] = []
    made: list[Value] = []
    statements: list[Statement] = []
    for value in whole.parameters:
        if value.name in whole.tied or (differentiated and value.name not in gradients):
            continue
        weight = replace(value, dtype=precision.stored(value.dtype))
        made_as = whole.table.get(gradients.get(value.name, ""))
        learned = precision.gradients if value.dtype in (precision.weights, precision.activations) else value.dtype
        dtype = made_as.dtype if made_as else learned
        gradient = Value(f"d_{value.name}", value.axes, dtype, GRADIENT, value.name)
        states = states_of(whole, value.name, chosen, precision)
        has_master = bool(states) and states[0].name == f"{value.name}_master"
        step, matrix = step_of(chosen, whole, value.name)
        fed += [weight, gradient, *states]
        for statement, outputs in _kernels(weight, gradient, states, has_master, step, matrix, chosen):
            statements.append(_placed(statement, whole, value.name))
            made += outputs
    parameters = tuple(value for value in fed if value.kind == PARAMETER)
    inputs = tuple(value for value in fed if value.kind != PARAMETER)
    return Program(
        whole.name,
        (*inputs, *parameters, *made),
        tuple(statements),
        tuple(value.name for value in inputs),
        tuple(value.name for value in made if value.kind == UPDATED or value.name.endswith("_new")),
        whole.sizes,
        whole.composites,
        (),
        whole.repeat,
    )


def _placed(statement: Statement, program: Program, name: str) -> Statement:
    """A kernel in the section and group of its parameter's first reader, so that the same rules speak of both."""
    reader = next((s for s in program.statements if name in s.inputs), None)
    return replace(statement, section=reader.section, group=reader.group) if reader else statement


_Kernel = tuple[Statement, tuple[Value, ...]]


def _kernels(
    weight: Value,
    gradient: Value,
    states: tuple[Value, ...],
    has_master: bool,
    step: Step,
    matrix: Matrix | None,
    optimizer: Optimizer,
) -> list[_Kernel]:
    """The statements that update one parameter, each with what it makes."""
    read = states if has_master else (weight, *states)
    updated = Value(f"{weight.name}_new", weight.axes, weight.dtype, UPDATED, weight.name)
    if matrix is None or not optimizer.orthogonal:
        options = _matrix_options(matrix) if any(state.axes != weight.axes for state in states) else ()
        return [_kernel(step.op, (gradient, *read), (updated, *map(_after, states)), options)]
    target, momenta = read[0], read[1:]
    look_ahead = Value(f"{weight.name}_momentum_ahead", weight.axes, ORTHOGONAL_DTYPE, STATE, weight.name)
    orthogonal = Value(f"{weight.name}_orthogonal", weight.axes, ORTHOGONAL_DTYPE, STATE, weight.name)
    masters = (_after(target),) if has_master else ()
    return [
        _kernel("muon_momentum", (gradient, *momenta), (look_ahead, *map(_after, momenta))),
        _kernel(NEWTON_SCHULZ, (look_ahead,), (orthogonal,), _matrix_options(matrix)),
        _kernel("muon_apply", (orthogonal, target), (updated, *masters)),
    ]


def _after(state: Value) -> Value:
    """A state after the step."""
    return replace(state, name=f"{state.name}_new")


def _kernel(
    op: str, inputs: tuple[Value, ...], outputs: tuple[Value, ...], options: tuple[tuple[str, Option], ...] = ()
) -> _Kernel:
    names = tuple(value.name for value in inputs), tuple(value.name for value in outputs)
    return Statement(op, *names, options=options, phase=UPDATE), outputs


def _matrix_options(matrix: Matrix | None) -> tuple[tuple[str, Option], ...]:
    return () if matrix is None else (("columns", matrix.columns), ("rows", matrix.rows))
