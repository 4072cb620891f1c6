"""The backward pass of a program, derived statement by statement.

`gradient_rules` has a rule for each op; `transposer` sums the contributions to one value by one `add`.
"""

from __future__ import annotations

from msgspec import Struct

from einscale.errors import ProgramError
from einscale.program.gradient_rules import RULES
from einscale.program.recompute import WHOLE, redo, redo_named, redone_values
from einscale.program.shapes import check_program
from einscale.program.transposer import Transposer, unit_losses
from einscale.program.values import Program
from einscale.vocabulary import FORWARD


class Gradients(Struct, frozen=True):
    """A program with its backward pass, and which value holds which gradient.

    Args:
        program: forward, recompute and backward statements.
        gradients: (input or parameter, the value that is its gradient), in the order of the program's outputs. Two may
            share one value: the gradient of a sum is passed on as it is.
    """

    program: Program
    gradients: tuple[tuple[str, str], ...]


def _check_forward(program: Program) -> None:
    """Raise unless every statement is of the forward pass and has a gradient."""
    for statement in program.statements:
        if statement.phase != FORWARD:
            raise ProgramError(
                f"`{statement.output}` belongs to phase {statement.phase}: only a forward program has a gradient"
            )
        if statement.op not in RULES:
            raise ProgramError(f"`{statement.op}` has no gradient")


def differentiate(
    program: Program, recompute: frozenset[str] = frozenset(), fused: frozenset[str] = frozenset()
) -> Gradients:
    """Forward, recompute and backward statements in one program, and the names of the gradients.

    Args:
        program: a forward program. Its outputs' gradients become inputs `d_OUT`; an output that a cross-entropy makes
            is the loss itself and starts from one.
        recompute: groups that are run again as a whole before the backward pass reads them, sections and single
            results that are made again; `full` is the whole program.
        fused: groups whose interior is never written: as much of it as the backward pass reads is redone (flash
            attention redoes the scores and the softmax, not their product with the values).

    Raises:
        ProgramError: the program has a backward pass already, or a statement has no gradient.
    """
    _check_forward(program)
    writer = Transposer(program)
    losses = unit_losses(program)
    for name in dict.fromkeys(program.outputs):
        if name in writer.expected and name not in losses:
            writer.feed(name)
    for statement in reversed(program.statements):
        if statement.output in writer.gradient or statement.output in losses:
            writer.statement = statement
            RULES[statement.op](writer, statement, writer.gradient.get(statement.output, ""))
    sources = [*program.inputs, *(value.name for value in program.parameters)]
    gradients = tuple((name, writer.gradient[name]) for name in sources if name in writer.gradient)
    if not gradients:
        raise ProgramError(
            f"program `{program.name}` has no floating-point input or parameter that its outputs depend on"
        )
    statements = program.statements + tuple(writer.statements)
    values = {value.name: value for value in (*program.values, *writer.fed, *writer.values)}
    if WHOLE in recompute:
        statements = redo(statements, values, None, whole=True)
    for name in _groups(program):
        if name in recompute and name not in fused and WHOLE not in recompute:
            statements = redo(statements, values, name, whole=True)
        if name in fused:
            statements = redo(statements, values, name, whole=False)
    for names in redone_values(program, recompute) if WHOLE not in recompute else ():
        statements = redo_named(statements, values, names)
    made = {name for statement in statements for name in statement.outputs}
    fed = [value for name, value in values.items() if name not in made]
    in_order = [values[name] for statement in statements for name in statement.outputs]
    result = Program(
        program.name,
        (*fed, *in_order),
        statements,
        (*program.inputs, *(value.name for value in writer.fed)),
        tuple(gradient for _, gradient in gradients),
        program.sizes,
        program.composites,
        program.tied,
        program.repeat,
    )
    return Gradients(check_program(result), gradients)


def backward(program: Program, recompute: frozenset[str] = frozenset(), fused: frozenset[str] = frozenset()) -> Program:
    """The program with its backward pass; its outputs are the gradients of the inputs, then of the parameters.

    >>> from einscale.program.text import parse_program, print_program
    >>> matmul = parse_program('''
    ... program matmul
    ... input x: bf16[b d]
    ... param w: bf16[d f]
    ... y = einsum("b d, d f -> b f", x, w)
    ... return y
    ... ''')
    >>> print("".join(print_program(backward(matmul)).partition("phase")[1:]), end="")
    phase backward:
      d_x of x = einsum("b f, d f -> b d", d_y, w) from y
      d_w of w = einsum("b f, b d -> d f", d_y, x) from y
    return d_x, d_w

    Args:
        program: a forward program.
        recompute: see `differentiate`.
        fused: see `differentiate`.

    Raises:
        ProgramError: the program has a backward pass already, or a statement has no gradient.
    """
    return differentiate(program, recompute, fused).program


def _groups(program: Program) -> tuple[str, ...]:
    return tuple(dict.fromkeys(statement.group for statement in program.statements if statement.group))
