"""One statement as devices run it: what rules call its labels, its local work, and tokens that are sent once."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from einscale.collectives import Collective
from einscale.layout import Layout
from einscale.program.maps import flops_per_element, rule
from einscale.program.routed import routing_of
from einscale.program.values import Program, Statement, Value
from einscale.steps import LocalMap


def axis_names(statement: Statement, labels: tuple[tuple[str, ...], ...], table: Mapping[str, Value]) -> dict[str, str]:
    """What rules call each label: the axis it reads, where no other label reads that axis; else the label itself.

    Keys with axes `b s n k` read as `b t n k` beside queries `b s ...` keep their label `t`: rules for `s` divide
    the queries, and the keys are whole.
    """
    every = dict.fromkeys(label for operand in labels for label in operand)
    reads: dict[str, set[str]] = {label: set() for label in every}
    for name, operand in zip(statement.inputs, labels[:-1], strict=True):
        for label, axis in zip(operand, table[name].axes, strict=True):
            reads[label].add(axis)
    names = {}
    for label in every:
        shared = {axis for other in every if other != label for axis in (*reads[other], other)}
        alone = len(reads[label]) == 1 and not reads[label] & shared
        names[label] = next(iter(reads[label])) if alone else label
    return names


def local_map(
    statement: Statement, layouts: tuple[Layout, ...], outputs: tuple[Layout, ...], table: Mapping[str, Value]
) -> LocalMap:
    """The work of a map statement."""
    this = rule(statement)
    in_place = statement.op == "append"
    unread = (*this.row_inputs, *{"append": (0,), "carry": (1,)}.get(statement.op, ()))
    read = tuple(k for k in range(len(statement.inputs)) if k not in unread)
    return LocalMap(
        op=statement.op,
        inputs=tuple(table[name].tensor for name in statement.inputs),
        layouts=layouts,
        outputs=tuple(table[name].tensor for name in statement.outputs),
        output_layouts=outputs,
        flops_per_element=flops_per_element(statement),
        counts_first=this.counted_on == "first",
        reads=read,
        rows=len(this.row_inputs),
        in_place=in_place,
    )


def sent_once(step: Collective, value: Value, program: Program) -> Collective:
    """An all-to-all with how many experts a token has, if it divides the experts otherwise than before."""
    for (axis, _), before, after in (
        (pair, step.before.dims[at], step.after.dims[at])
        for pair in value.chosen
        for at in (value.axes.index(pair[0]),)
    ):
        routing = routing_of(value.name, axis, program) if before != after else None
        if routing is not None and not routing.padded:
            limited = (routing.groups, routing.top_groups) if routing.groups > 1 else ()
            cause = replace(step.cause, copies=routing.top) if step.cause else None
            return replace(step, cause=cause, distinct=routing.top, limited=limited)
    return step
