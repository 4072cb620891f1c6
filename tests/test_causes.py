"""Causes in words: one sentence for each rule, with the fields of the value in it."""

from __future__ import annotations

import pytest

from einscale.causes import Cause, CauseRule, EinsumCause, ProgramCause, TableRow
from einscale.layout import make_layout
from einscale.report.causes import cause_document, cause_words

X = ("x",)
ROW = TableRow("store.residual", "s -> model", "megatron-sp")
COMPUTE = TableRow("compute", "f -> model", "megatron-sp")
THERE = make_layout([("data",), ("model",)])

ALONE = {
    CauseRule.HELD_WHOLE: (
        Cause(CauseRule.HELD_WHOLE, "A", X, gained=("i",)),
        "A is held whole on every device of `x`, `i` is wanted divided over `x`: each keeps its part",
    ),
    CauseRule.OWED: (
        Cause(CauseRule.OWED, "A", X),
        "A is held whole on every device of `x`, a sum over `x` may stay owed: each keeps its part",
    ),
    CauseRule.WANTED_WHOLE: (
        Cause(CauseRule.WANTED_WHOLE, "A", X, ("i", "j")),
        "A has `i`, `j` divided over `x` and it is wanted whole there",
    ),
    CauseRule.SUM_IN_PARTS: (
        Cause(CauseRule.SUM_IN_PARTS, "A", ("x", "y"), gained=("i",)),
        "A owes a sum over `x`, `y`; each device keeps a part of `i`",
    ),
    CauseRule.SUM_WHOLE: (Cause(CauseRule.SUM_WHOLE, "A", X), "A owes a sum over `x` and is wanted whole there"),
    CauseRule.OTHER_DIM: (
        Cause(CauseRule.OTHER_DIM, "A", X, ("i", "j")),
        "A is divided over `x` in another dim than wanted (`i`, `j`)",
    ),
    CauseRule.OTHER_DEVICES: (
        Cause(CauseRule.OTHER_DEVICES, "A", X, ("i",)),
        "A has the shards of `i` on other devices than wanted (`x`)",
    ),
    CauseRule.DIAGONAL: (
        Cause(CauseRule.DIAGONAL, "A"),
        "operand A repeats an index: its diagonal is taken with those dims whole",
    ),
    CauseRule.SETTLED: (
        Cause(CauseRule.SETTLED, "A", X, reduction="max"),
        "operand A owes a max, which must be settled before it is summed",
    ),
    CauseRule.STAGES: (
        Cause(CauseRule.STAGES, "h", ("pipe",)),
        "the stages of the pipeline are on different devices along pipe",
    ),
    CauseRule.SHARED_TABLE: (
        Cause(CauseRule.SHARED_TABLE, "d_embedding", ("pipe",)),
        "d_embedding: the first and the last stage share the table",
    ),
}

EINSUM = {
    CauseRule.OPERAND_SLICED: (
        EinsumCause(CauseRule.OPERAND_SLICED, "A", X, gained=("i",), divides=("i",)),
        "operand A is the same on all of `x` and the einsum divides `i` over `x`: each device keeps its part of `i`",
    ),
    CauseRule.OPERAND_MASKED: (
        EinsumCause(CauseRule.OPERAND_MASKED, "A", X),
        "operand A is the same on all of `x`: one device keeps it, the others take zeros",
    ),
    CauseRule.OPERAND_GATHERED: (
        EinsumCause(CauseRule.OPERAND_GATHERED, "A", X, ("i", "j"), contracted=False),
        "operand A has index `i` and `j` divided over `x` but the einsum runs without dividing `i` and `j` over `x`:"
        " the operand is gathered",
    ),
    CauseRule.OPERAND_REDUCED: (
        EinsumCause(CauseRule.OPERAND_REDUCED, "A", X, reduction="sum", divides=("i",)),
        "operand A owes a sum over `x`, which is settled before the einsum",
    ),
    CauseRule.OPERAND_SCATTERED: (
        EinsumCause(CauseRule.OPERAND_SCATTERED, "A", X, reduction="sum"),
        "operand A owes a sum over `x`, which is settled before the einsum, and the einsum does not divide over `x`",
    ),
    CauseRule.OPERAND_DIM: (
        EinsumCause(CauseRule.OPERAND_DIM, "A", X, ("i",), ("j",), divides=("j",)),
        "operand A has `i` divided over `x` but the einsum divides `j` over `x`: the same axes change index",
    ),
    CauseRule.OPERAND_DEVICES: (
        EinsumCause(CauseRule.OPERAND_DEVICES, "A", X),
        "operand A is divided over other axes, or in another order, than the einsum divides over (`x`)",
    ),
    CauseRule.RESULT_SLICED: (
        EinsumCause(CauseRule.RESULT_SLICED, "C", X, gained=("i",)),
        "C is the same on all of `x` and wanted with `i` divided over it: each keeps its part",
    ),
    CauseRule.RESULT_MASKED: (
        EinsumCause(CauseRule.RESULT_MASKED, "C", X),
        "C may owe a sum over `x`: one device keeps the value, the others take zeros",
    ),
    CauseRule.RESULT_REDUCED: (
        EinsumCause(CauseRule.RESULT_REDUCED, "C", X, ("k",), reduction="sum", alone=("l", "m"), arrives=True),
        "`k` is contracted and divided over `x`; `l` and `m` are summed and divided over `x`:"
        " the partial sums must be added, and every device wants the whole",
    ),
    CauseRule.RESULT_SCATTERED: (
        EinsumCause(CauseRule.RESULT_SCATTERED, "C", X, gained=("i",), reduction="max", arrives=True),
        "an operand arrives owing a max over `x`, kept through the einsum:"
        " the partial results must be combined, each device keeps its part of `i`",
    ),
    CauseRule.RESULT_GATHERED: (
        EinsumCause(CauseRule.RESULT_GATHERED, "C", X, ("i",)),
        "the einsum leaves C with `i` divided over `x` and it is wanted whole there",
    ),
    CauseRule.RESULT_DIM: (
        EinsumCause(CauseRule.RESULT_DIM, "C", X, ("i",), ("j",)),
        "the einsum leaves C with `i` divided over `x`, wanted with `j` divided over it",
    ),
    CauseRule.RESULT_DEVICES: (
        EinsumCause(CauseRule.RESULT_DEVICES, "C", X),
        "the einsum leaves C divided over other axes, or in another order, than wanted (`x`)",
    ),
}

PROGRAM = {
    CauseRule.READ_WHOLER: (
        ProgramCause(
            CauseRule.READ_WHOLER,
            "w",
            kind="parameter",
            op="einsum",
            output="q",
            divided=(("d", ("data",)),),
            layout=THERE,
            labels=("b", "s"),
            row=ROW,
        ),
        "parameter `w` rests divided as d/data; the einsum for `q` reads it as `b/data s/model`"
        " (rule store.residual: s -> model of megatron-sp)",
    ),
    CauseRule.READ_DIVIDED: (
        ProgramCause(
            CauseRule.READ_DIVIDED, "h", kind="activation", op="norm", output="n", divided=(("s", ("model",)),)
        ),
        "`norm` for `n` reads tensor `h` divided as s/model",
    ),
    CauseRule.SUMMED: (
        ProgramCause(
            CauseRule.SUMMED,
            "y",
            ("model",),
            ("f",),
            layout=THERE,
            labels=("b", "s"),
            row=ROW,
            summed_by=COMPUTE,
        ),
        "`f` is summed over and divided over model (rule compute: f -> model of megatron-sp): `y` is in parts;"
        " `y` rests as `b/data s/model` (rule store.residual: s -> model of megatron-sp)",
    ),
    CauseRule.ADDED: (
        ProgramCause(CauseRule.ADDED, "y", ("data", "model")),
        "the values added up are in parts over data/model: their sum is reduced once",
    ),
    CauseRule.RESTS: (
        ProgramCause(CauseRule.RESTS, "y", layout=THERE, labels=("b", "s")),
        "`y` rests as `b/data s/model`",
    ),
    CauseRule.STATISTIC: (
        ProgramCause(CauseRule.STATISTIC, "h", ("x", "y"), ("n", "g"), reduction="max", op="softmax", output="p"),
        "`softmax` for `p` needs the max over `n g`, which is divided over x/y",
    ),
    CauseRule.GRADIENT_TO_STATES: (
        ProgramCause(
            CauseRule.GRADIENT_TO_STATES, "d_w", ("data",), of="w", op="adamw", layout=THERE, labels=("d", "f")
        ),
        "the accumulated gradient of w owes its sum over data; adamw runs where its states rest: d/data f/model",
    ),
    CauseRule.UPDATED_TO_REST: (
        ProgramCause(
            CauseRule.UPDATED_TO_REST, "w_new", ("data",), of="w", op="adamw", layout=THERE, labels=("d", "f")
        ),
        "adamw updates a part of w on each device of data; it rests as d/data f/model",
    ),
    CauseRule.WHOLE_MATRIX: (
        ProgramCause(CauseRule.WHOLE_MATRIX, "m", of="w", op="newton_schulz", layout=THERE, labels=("d", "f")),
        "w is made orthogonal as a whole matrix: its momentum is wanted as d/data f/model",
    ),
    CauseRule.TO_STATES: (
        ProgramCause(CauseRule.TO_STATES, "w", of="w", op="adamw", layout=THERE, labels=("d", "f")),
        "adamw runs where the states of w rest: w is wanted as d/data f/model",
    ),
    CauseRule.SQUARES: (
        ProgramCause(CauseRule.SQUARES, "d_w", ("data",), op="adafactor"),
        "adafactor sums d_w over axes that are divided over data",
    ),
}


@pytest.mark.parametrize("rule", CauseRule)
def test_every_rule_in_words(rule: CauseRule) -> None:
    cause, words = {**ALONE, **EINSUM, **PROGRAM}[rule]
    assert cause.rule is rule
    assert cause_words(cause) == words
    document = cause_document(cause)
    assert document is not None
    assert document["rule"] == rule.value
    assert document.get("tensor", "") == cause.tensor


def test_no_cause_says_nothing() -> None:
    assert cause_words(None) == ""
    assert cause_document(None) is None


def test_rows_that_are_sent_once_say_so() -> None:
    cause = Cause(CauseRule.OTHER_DIM, "A", X, ("i",), copies=8)
    assert cause_words(cause).endswith("; a device with several of a token's 8 experts is sent one row")


def test_a_document_leaves_out_what_says_nothing() -> None:
    cause, _ = PROGRAM[CauseRule.READ_WHOLER]
    assert cause_document(cause) == {
        "rule": "read with less divided",
        "tensor": "w",
        "kind": "parameter",
        "op": "einsum",
        "output": "q",
        "divided": ["d/data"],
        "layout": "b/data s/model",
        "row": {"table": "store.residual", "text": "s -> model", "strategy": "megatron-sp"},
    }
