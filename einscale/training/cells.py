"""Layer cells: the numbers of one kind of layer that a step is made of, one of each or an array for many strategies.

A `LayerCost` says statement by statement what a layer costs; its cell is the sums. Steps are priced from cells alone,
so that cells made once serve every schedule, number of microbatches and division into stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct

from einscale.collectives import FREE
from einscale.numeric import Array, Number, is_array, maximum, scattered
from einscale.planner.planned import PlannedProgram
from einscale.price.memory import Held
from einscale.price.overlap import GRADIENTS, PARAMETERS, overlap_kind
from einscale.price.program import PricedStatement, host_waits, total
from einscale.training.stages import stream_name
from einscale.training.values import LayerCost, makes_gradient
from einscale.vocabulary import BACKWARD, FORWARD

Once = tuple[tuple[tuple[str, str], Number], ...]
"""(what moves, mesh axes) -> seconds of the update's collectives."""


Places: TypeAlias = "Array | list[int]"
"""Numbers of some of many strategies."""


class LayerCell(Struct, frozen=True):
    """Numbers of one layer of a kind for one microbatch; arrays where there are many strategies.

    Args:
        forward: seconds of the forward pass, exposed communication included.
        backward: seconds of the backward pass; adding up gradients is left out, for it depends on how many there are.
        apart: seconds of the backward pass where its two parts are tasks of their own (zero-bubble schedules): the host
            sends the kernels of each, so each takes as long as that at least.
        weight: of these, what makes gradients of parameters.
        forward_work: seconds of local work of the forward pass, which hides what does not wait for it.
        backward_work: the same of the backward pass.
        flops: of both passes.
        update: seconds of the optimizer's local work.
        once: seconds of its collectives.
        first: what the first layer of a pass exposes besides, for nothing runs before it.
        parameters: bytes at rest.
        gradients: bytes as they are accumulated.
        optimizer: bytes of the optimizer's state.
        gathered: bytes of gathered parameters that stay from the forward pass to the backward.
        fetched: bytes of its parameters as they are gathered ahead.
        saved: bytes one microbatch saves.
        working: bytes it needs while it runs, beside what it saves.
        stream: bytes of the residual stream that goes to the next stage.
        tied: bytes of the gradients of tables that another layer of the model holds too.
    """

    forward: Number
    backward: Number
    apart: Number
    weight: Number
    forward_work: Number
    backward_work: Number
    flops: Number
    update: Number
    once: Once
    first: Number
    parameters: Number
    gradients: Number
    optimizer: Number
    gathered: Number
    fetched: Number
    saved: Number
    working: Number
    stream: Number
    tied: Number

    def work(self, phase: str) -> Number:
        """Seconds of local work of a pass."""
        return self.forward_work if phase == FORWARD else self.backward_work

    def moving(self, what: str) -> dict[str, Number]:
        """Mesh axes -> seconds of the update's collectives of one kind."""
        return {axis: seconds for (kind, axis), seconds in self.once if kind == what}

    def take(self, places: Places) -> LayerCell:
        """The cells of some of many strategies, by their numbers, in that order."""

        def taken(value: Number) -> Number:
            return value[places] if is_array(value) and value.shape else value

        numbers = {name: taken(getattr(self, name)) for name in self.__struct_fields__ if name != "once"}
        return LayerCell(once=tuple((key, taken(seconds)) for key, seconds in self.once), **numbers)


def layer_cell(cost: LayerCost, shared: frozenset[str] = frozenset()) -> LayerCell:
    """The numbers of a priced layer.

    Args:
        cost: the layer.
        shared: names of parameters that live in another layer of the model, too.
    """
    planned, saved = cost.planned, _bytes(cost.saved)
    forward = total(row for row in cost.rows if row.planned.phase == FORWARD)
    backward = total(row for row in cost.rows if row.planned.phase == BACKWARD)
    late = [row for row in cost.rows if makes_gradient(planned, row)]
    soon = [row for row in cost.rows if row.planned.phase == BACKWARD and not makes_gradient(planned, row)]
    weight = _task_seconds(late, cost)
    return LayerCell(
        forward=forward.seconds,
        backward=backward.seconds,
        apart=_task_seconds(soon, cost) + weight,
        weight=weight,
        forward_work=forward.compute_seconds,
        backward_work=backward.compute_seconds,
        flops=total(cost.rows).flops,
        update=sum(row.local.seconds for row in cost.update),
        once=tuple(_once(cost).items()),
        first=sum(window.first for window in cost.windows if window.kind in (PARAMETERS, GRADIENTS)),
        parameters=_bytes(cost.parameters),
        gradients=_bytes(cost.gradients),
        optimizer=_bytes(cost.optimizer),
        gathered=_bytes(cost.gathered),
        fetched=_bytes(cost.fetched),
        saved=saved,
        working=maximum(0, cost.peak.bytes - saved),
        stream=stream_bytes(planned),
        tied=_bytes(tuple(one for one in cost.gradients if one.tensor.name.removeprefix("d_") in shared)),
    )


def _task_seconds(rows: Sequence[PricedStatement], cost: LayerCost) -> Number:
    """Seconds of some statements of a pass as a task of its own.

    A pass that the host cannot send fast enough is stretched as a whole. Were its parts stretched in proportion, one
    that works longer would leave less for the other, and a slower chip could make a shorter step.
    """
    work = sum(row.local.seconds / row.local.launched for row in rows)
    waits = sum(host_waits(row, cost.planned) for row in rows)
    sent = sum(row.local.kernels for row in rows)
    sent += sum(1 for row in rows for priced in row.collectives if priced.step.kind not in FREE)
    moving = sum(row.communication_seconds for row in rows)
    return maximum(work, sent * cost.launch - waits) + moving


def stream_bytes(planned: PlannedProgram) -> Number:
    """Bytes on one device of what a layer reads from the one before it; 0 for the embedding, which reads tokens."""
    name = stream_name(planned.program)
    return planned.held(planned.program.table[name].tensor, planned.resting[name]) if name else 0


def _once(cost: LayerCost) -> dict[tuple[str, str], Number]:
    found: dict[tuple[str, str], Number] = {}
    for row in cost.update:
        for priced in row.collectives:
            if priced.step.kind not in FREE:
                key = overlap_kind(cost.updated, priced), "/".join(priced.step.axes)
                found[key] = found.get(key, 0.0) + priced.seconds
    return found


def _bytes(held: tuple[Held, ...]) -> Number:
    return sum(one.bytes for one in held)


def joined(parts: Sequence[LayerCell], places: Sequence[Places], count: int) -> LayerCell:
    """Cells of several structures as one, each in its own places among so many points.

    Args:
        parts: cells of each structure.
        places: numbers of their points.
        count: points altogether.
    """

    def spread(values: Sequence[Number]) -> Number:
        return scattered(values, places, count)

    fields = [name for name in LayerCell.__struct_fields__ if name != "once"]
    numbers = {name: spread([getattr(one, name) for one in parts]) for name in fields}
    tables = [dict(one.once) for one in parts]
    keys = dict.fromkeys(key for table in tables for key in table)
    return LayerCell(once=tuple((key, spread([table.get(key, 0.0) for table in tables])) for key in keys), **numbers)
