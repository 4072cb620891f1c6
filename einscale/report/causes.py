"""Why a collective runs, in words: one sentence for each rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec.structs import asdict

from einscale.causes import Cause, CauseRule, EinsumCause, ProgramCause, TableRow
from einscale.vocabulary import GRADIENT, PARAMETER, SUM


def cause_words(cause: Cause | None) -> str:
    """The sentence of a cause; "" where there is none.

    >>> cause_words(Cause(CauseRule.WANTED_WHOLE, "W", ("x",), ("d",)))
    'W has `d` divided over `x` and it is wanted whole there'
    """
    if cause is None:
        return ""
    if isinstance(cause, EinsumCause):
        words = _EINSUM[cause.rule](cause)
    elif isinstance(cause, ProgramCause):
        words = _PROGRAM[cause.rule](cause)
    else:
        words = _ALONE[cause.rule](cause)
    once = f"; a device with several of a token's {cause.copies} experts is sent one row" if cause.copies else ""
    return words + once


def cause_document(cause: Cause | None) -> dict[str, Any] | None:
    """The fields of a cause for programs, those that say nothing left out; None where there is none."""
    if cause is None:
        return None
    fields = {name: value for name, value in asdict(cause).items() if value}
    if isinstance(cause, ProgramCause):
        fields.pop("labels", None)
        if cause.layout is not None:
            fields["layout"] = cause.layout.text(cause.labels)
        if cause.divided:
            fields["divided"] = _slashed(cause)
        fields |= {name: asdict(row) for name, row in (("row", cause.row), ("summed_by", cause.summed_by)) if row}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _listed(words: Iterable[str]) -> str:
    """`x`, `y` and `z`."""
    quoted = [f"`{word}`" for word in words]
    return " and ".join((", ".join(quoted[:-1]), quoted[-1])) if len(quoted) > 1 else "".join(quoted)


def _are(words: tuple[str, ...]) -> str:
    """One or several words with their verb."""
    return f"{_listed(words)} {'is' if len(words) == 1 else 'are'}"


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


# a tensor by itself


def _held_whole(cause: Cause) -> str:
    return _kept(cause, f"{_quoted(cause.gained)} is wanted divided over {_quoted(cause.axes)}")


def _owed(cause: Cause) -> str:
    return _kept(cause, f"a sum over {_quoted(cause.axes)} may stay owed")


def _kept(cause: Cause, how: str) -> str:
    return f"{cause.tensor} is held whole on every device of {_quoted(cause.axes)}, {how}: each keeps its part"


def _wanted_whole(cause: Cause) -> str:
    return (
        f"{cause.tensor} has {_quoted(cause.indices)} divided over {_quoted(cause.axes)} and it is wanted whole there"
    )


def _sum_in_parts(cause: Cause) -> str:
    owed = f"{cause.tensor} owes a sum over {_quoted(cause.axes)}"
    return f"{owed}; each device keeps a part of {_quoted(cause.gained)}"


def _sum_whole(cause: Cause) -> str:
    return f"{cause.tensor} owes a sum over {_quoted(cause.axes)} and is wanted whole there"


def _other_dim(cause: Cause) -> str:
    over, which = _quoted(cause.axes), _quoted(cause.indices)
    return f"{cause.tensor} is divided over {over} in another dim than wanted ({which})"


def _other_devices(cause: Cause) -> str:
    over, which = _quoted(cause.axes), _quoted(cause.indices)
    return f"{cause.tensor} has the shards of {which} on other devices than wanted ({over})"


def _diagonal(cause: Cause) -> str:
    return f"operand {cause.tensor} repeats an index: its diagonal is taken with those dims whole"


def _settled(cause: Cause) -> str:
    return f"operand {cause.tensor} owes a {cause.reduction}, which must be settled before it is summed"


def _stages(cause: Cause) -> str:
    return f"the stages of the pipeline are on different devices along {', '.join(cause.axes)}"


def _shared_table(cause: Cause) -> str:
    return f"{cause.tensor}: the first and the last stage share the table"


# an einsum


def _instead(cause: EinsumCause) -> str:
    over = _listed(cause.axes)
    if cause.divides:
        return f"the einsum divides {_listed(cause.divides)} over {over}"
    return f"the einsum does not divide over {over}"


def _operand_sliced(cause: EinsumCause) -> str:
    same = f"operand {cause.tensor} is the same on all of {_listed(cause.axes)}"
    return f"{same} and {_instead(cause)}: each device keeps its part of {_listed(cause.gained)}"


def _operand_masked(cause: EinsumCause) -> str:
    over = _listed(cause.axes)
    return f"operand {cause.tensor} is the same on all of {over}: one device keeps it, the others take zeros"


def _operand_gathered(cause: EinsumCause) -> str:
    which, over = _listed(cause.indices), _listed(cause.axes)
    role = "contracted index" if cause.contracted else "index"
    runs = f"with {which} whole" if cause.whole else f"without dividing {which} over {over}"
    rule = "FSDP-style gather" if cause.contracted and cause.whole else "the operand is gathered"
    return f"operand {cause.tensor} has {role} {which} divided over {over} but the einsum runs {runs}: {rule}"


def _operand_reduced(cause: EinsumCause) -> str:
    over = _listed(cause.axes)
    return f"operand {cause.tensor} owes a {cause.reduction} over {over}, which is settled before the einsum"


def _operand_scattered(cause: EinsumCause) -> str:
    return f"{_operand_reduced(cause)}, and {_instead(cause)}"


def _operand_dim(cause: EinsumCause) -> str:
    divided = f"operand {cause.tensor} has {_listed(cause.indices)} divided over {_listed(cause.axes)}"
    return f"{divided} but {_instead(cause)}: the same axes change index"


def _operand_devices(cause: EinsumCause) -> str:
    other = f"operand {cause.tensor} is divided over other axes, or in another order,"
    return f"{other} than the einsum divides over ({_listed(cause.axes)})"


def _result_sliced(cause: EinsumCause) -> str:
    same = f"{cause.tensor} is the same on all of {_listed(cause.axes)}"
    return f"{same} and wanted with {_listed(cause.gained)} divided over it: each keeps its part"


def _result_masked(cause: EinsumCause) -> str:
    owes = f"{cause.tensor} may owe a sum over {_listed(cause.axes)}"
    return f"{owes}: one device keeps the value, the others take zeros"


def _in_parts(cause: EinsumCause) -> str:
    """Why a result is in parts."""
    over = _listed(cause.axes)
    reasons = [f"{_are(cause.indices)} contracted and divided over {over}"] if cause.indices else []
    if cause.alone:
        reasons.append(f"{_are(cause.alone)} summed and divided over {over}")
    elif cause.arrives:
        reasons.append(f"an operand arrives owing a {cause.reduction} over {over}, kept through the einsum")
    partial = "sums must be added" if cause.reduction == SUM else "results must be combined"
    return f"{'; '.join(reasons)}: the partial {partial}"


def _result_reduced(cause: EinsumCause) -> str:
    return f"{_in_parts(cause)}, and every device wants the whole"


def _result_scattered(cause: EinsumCause) -> str:
    return f"{_in_parts(cause)}, each device keeps its part of {_listed(cause.gained)}"


def _left(cause: EinsumCause) -> str:
    """How the einsum leaves its result."""
    return f"the einsum leaves {cause.tensor} with {_listed(cause.indices)} divided over {_listed(cause.axes)}"


def _result_gathered(cause: EinsumCause) -> str:
    return f"{_left(cause)} and it is wanted whole there"


def _result_dim(cause: EinsumCause) -> str:
    return f"{_left(cause)}, wanted with {_listed(cause.gained)} divided over it"


def _result_devices(cause: EinsumCause) -> str:
    left = f"the einsum leaves {cause.tensor} divided over other axes, or in another order,"
    return f"{left} than wanted ({_listed(cause.axes)})"


# a program


def _statement(cause: ProgramCause) -> str:
    """A statement, named so that a reader finds its row."""
    what = "the einsum" if cause.op == "einsum" else f"`{cause.op}`"
    return f"{what} for `{cause.output}`"


def _row(row: TableRow | None) -> str:
    """The row of the strategy that asks for it."""
    return f" (rule {row.table}: {row.text} of {row.strategy})" if row else ""


def _kind(cause: ProgramCause) -> str:
    return cause.kind if cause.kind in (PARAMETER, GRADIENT) else "tensor"


def _slashed(cause: ProgramCause) -> list[str]:
    """Divided dims in slash notation."""
    return ["/".join((index, *axes)) for index, axes in cause.divided]


def _where(cause: ProgramCause) -> str:
    """The layout it goes to, in slash notation."""
    return cause.layout.text(cause.labels) if cause.layout else ""


def _read_wholer(cause: ProgramCause) -> str:
    rests = f"{_kind(cause)} `{cause.tensor}` rests divided as {', '.join(_slashed(cause))}"
    return f"{rests}; {_statement(cause)} reads it as `{_where(cause)}`{_row(cause.row)}"


def _read_divided(cause: ProgramCause) -> str:
    reads = f"{_statement(cause)} reads {_kind(cause)} `{cause.tensor}`"
    return f"{reads} divided as {', '.join(_slashed(cause))}{_row(cause.row)}"


def _summed(cause: ProgramCause) -> str:
    names = " and ".join(f"`{index}`" for index in cause.indices)
    verb = "is" if len(cause.indices) == 1 else "are"
    over = f"{'/'.join(cause.axes)}{_row(cause.summed_by)}"
    return _and_rests(cause, f"{names} {verb} summed over and divided over {over}: `{cause.tensor}` is in parts")


def _added(cause: ProgramCause) -> str:
    over = "/".join(cause.axes)
    return _and_rests(cause, f"the values added up are in parts over {over}: their sum is reduced once")


def _rests(cause: ProgramCause) -> str:
    return _and_rests(cause, "")


def _and_rests(cause: ProgramCause, words: str) -> str:
    """Words, and where the result rests if that is not where it is made."""
    rests = f"`{cause.tensor}` rests as `{_where(cause)}`{_row(cause.row)}" if cause.layout else ""
    return "; ".join(part for part in (words, rests) if part)


def _statistic(cause: ProgramCause) -> str:
    needs = f"{_statement(cause)} needs the {cause.reduction} over `{' '.join(cause.indices)}`"
    return f"{needs}, which is divided over {'/'.join(cause.axes)}{_row(cause.row)}"


def _gradient_to_states(cause: ProgramCause) -> str:
    owed = f"owes its sum over {', '.join(cause.axes)}" if cause.axes else "rests divided otherwise"
    where = f"{cause.op} runs where its states rest: {_where(cause)}"
    return f"the accumulated gradient of {cause.of} {owed}; {where}"


def _updated_to_rest(cause: ProgramCause) -> str:
    part = f"{cause.op} updates a part of {cause.of} on each device of {', '.join(cause.axes)}"
    return f"{part}; it rests as {_where(cause)}"


def _whole_matrix(cause: ProgramCause) -> str:
    return f"{cause.of} is made orthogonal as a whole matrix: its momentum is wanted as {_where(cause)}"


def _to_states(cause: ProgramCause) -> str:
    runs = f"{cause.op} runs where the states of {cause.of} rest"
    return f"{runs}: {cause.tensor} is wanted as {_where(cause)}"


def _squares(cause: ProgramCause) -> str:
    return f"{cause.op} sums {cause.tensor} over axes that are divided over {', '.join(cause.axes)}"


_ALONE: Mapping[CauseRule, Callable[[Cause], str]] = {
    CauseRule.HELD_WHOLE: _held_whole,
    CauseRule.OWED: _owed,
    CauseRule.WANTED_WHOLE: _wanted_whole,
    CauseRule.SUM_IN_PARTS: _sum_in_parts,
    CauseRule.SUM_WHOLE: _sum_whole,
    CauseRule.OTHER_DIM: _other_dim,
    CauseRule.OTHER_DEVICES: _other_devices,
    CauseRule.DIAGONAL: _diagonal,
    CauseRule.SETTLED: _settled,
    CauseRule.STAGES: _stages,
    CauseRule.SHARED_TABLE: _shared_table,
}

_EINSUM: Mapping[CauseRule, Callable[[EinsumCause], str]] = {
    CauseRule.OPERAND_SLICED: _operand_sliced,
    CauseRule.OPERAND_MASKED: _operand_masked,
    CauseRule.OPERAND_GATHERED: _operand_gathered,
    CauseRule.OPERAND_REDUCED: _operand_reduced,
    CauseRule.OPERAND_SCATTERED: _operand_scattered,
    CauseRule.OPERAND_DIM: _operand_dim,
    CauseRule.OPERAND_DEVICES: _operand_devices,
    CauseRule.RESULT_SLICED: _result_sliced,
    CauseRule.RESULT_MASKED: _result_masked,
    CauseRule.RESULT_REDUCED: _result_reduced,
    CauseRule.RESULT_SCATTERED: _result_scattered,
    CauseRule.RESULT_GATHERED: _result_gathered,
    CauseRule.RESULT_DIM: _result_dim,
    CauseRule.RESULT_DEVICES: _result_devices,
}

_PROGRAM: Mapping[CauseRule, Callable[[ProgramCause], str]] = {
    CauseRule.READ_WHOLER: _read_wholer,
    CauseRule.READ_DIVIDED: _read_divided,
    CauseRule.SUMMED: _summed,
    CauseRule.ADDED: _added,
    CauseRule.RESTS: _rests,
    CauseRule.STATISTIC: _statistic,
    CauseRule.GRADIENT_TO_STATES: _gradient_to_states,
    CauseRule.UPDATED_TO_REST: _updated_to_rest,
    CauseRule.WHOLE_MATRIX: _whole_matrix,
    CauseRule.TO_STATES: _to_states,
    CauseRule.SQUARES: _squares,
}
