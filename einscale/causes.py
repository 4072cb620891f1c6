"""Why a collective runs, as a value: the rule that made it necessary, and which tensor, index and axes it is about.

`report.causes` makes the sentence; nothing reads a sentence back.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from einscale.layout import Layout
from einscale.vocabulary import Reduction, ValueKind


class CauseRule(StrEnum):
    """What makes a collective necessary."""

    # a tensor that is to be in another layout, and nothing else is known
    HELD_WHOLE = "held whole, wanted divided"
    OWED = "may stay owed"
    WANTED_WHOLE = "divided, wanted whole"
    SUM_IN_PARTS = "sum wanted in parts"
    SUM_WHOLE = "sum wanted whole"
    OTHER_DIM = "wanted divided in another dim"
    OTHER_DEVICES = "wanted on other devices"
    # an operand of an einsum
    OPERAND_SLICED = "operand sliced"
    OPERAND_MASKED = "operand masked"
    OPERAND_GATHERED = "operand gathered"
    OPERAND_REDUCED = "operand reduced"
    OPERAND_SCATTERED = "operand reduced and scattered"
    OPERAND_DIM = "operand divided in another dim"
    OPERAND_DEVICES = "operand on other devices"
    DIAGONAL = "diagonal taken"
    SETTLED = "settled before a sum"
    # the result of an einsum
    RESULT_SLICED = "result sliced"
    RESULT_MASKED = "result masked"
    RESULT_REDUCED = "result reduced"
    RESULT_SCATTERED = "result reduced and scattered"
    RESULT_GATHERED = "result gathered"
    RESULT_DIM = "result divided in another dim"
    RESULT_DEVICES = "result on other devices"
    # a value of a program under a strategy
    READ_WHOLER = "read with less divided"
    READ_DIVIDED = "read divided"
    SUMMED = "summed over a divided index"
    ADDED = "values in parts added up"
    RESTS = "rests divided otherwise"
    STATISTIC = "statistic over a divided axis"
    # the optimizer's step
    GRADIENT_TO_STATES = "gradient wanted where states rest"
    UPDATED_TO_REST = "updated where states rest"
    WHOLE_MATRIX = "wanted as a whole matrix"
    TO_STATES = "wanted where states rest"
    SQUARES = "sum over divided axes"
    # stages of a pipeline
    STAGES = "sent to the next stage"
    SHARED_TABLE = "table shared by two stages"


class Cause(Struct, frozen=True):
    """The reason of a collective.

    Args:
        rule: what makes it necessary.
        tensor: what moves.
        axes: mesh axes it is about.
        indices: indices that those axes divide before the move; for a result, those summed over.
        gained: indices that they divide after it.
        reduction: `sum`, `max` or `min`, where one is owed.
        copies: how many of its experts a token's row goes to, where a device with several of them is sent it once; else
            0.

    >>> Cause(CauseRule.WANTED_WHOLE, "W", ("x",), ("d",)).rule.value
    'divided, wanted whole'
    """

    rule: CauseRule
    tensor: str = ""
    axes: tuple[str, ...] = ()
    indices: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()
    reduction: Reduction | Literal[""] = ""
    copies: int = 0


class EinsumCause(Cause, frozen=True):
    """The reason of a collective of one einsum, planned by itself.

    Args:
        divides: indices that the einsum divides over the axes.
        contracted: the gathered indices are all contracted.
        whole: the einsum runs with them whole, not only without dividing them over these axes.
        alone: indices of one operand alone that were summed, divided over the axes, before the einsum.
        arrives: an operand brings a sum over the axes along, which the einsum keeps.
    """

    divides: tuple[str, ...] = ()
    contracted: bool = False
    whole: bool = False
    alone: tuple[str, ...] = ()
    arrives: bool = False


class TableRow(Struct, frozen=True):
    """One row of a strategy's tables.

    Args:
        table: `compute`, or `store.` and a class of tensors.
        text: the row as it is written.
        strategy: its name.
    """

    table: str
    text: str
    strategy: str


class ProgramCause(Cause, frozen=True):
    """The reason of a collective of a program under a strategy.

    Args:
        kind: what sort of value moves: `parameter`, `gradient`, ...
        of: the parameter whose gradient, state or new value it is.
        op: operation of the statement that reads or makes it.
        output: first output of that statement.
        divided: (index, mesh axes) that differ between the two layouts, as the one that divides them says.
        layout: the layout it goes to; None where it keeps its own.
        labels: names of that layout's dims.
        row: the row of the strategy that asks for the layout.
        summed_by: the row that divides the indices summed over.
    """

    kind: ValueKind | None = None
    of: str = ""
    op: str = ""
    output: str = ""
    divided: tuple[tuple[str, tuple[str, ...]], ...] = ()
    layout: Layout | None = None
    labels: tuple[str, ...] = ()
    row: TableRow | None = None
    summed_by: TableRow | None = None
