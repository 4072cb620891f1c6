"""What hides a collective: which local work runs meanwhile, and how much of its time is left over.

A collective hides behind work that does not wait for it. Which work that is follows from what it moves:

* `parameters` of a layer, gathered, are needed when that layer starts: the layer before it in the same pass hides them;
* `gradients` of a layer, once made, are needed at the step's end: the layer after it in the backward pass hides them;
* `activations` divided over one axis can move in pieces while the einsum that reads or made them works on the others
  (a collective matmul; Wang et al. 2023, ASPLOS, doi 10.1145/3567955.3567959): (n - 1)/n of that einsum hides them;
* `routed` rows of tokens on their way to experts and back hide behind another microbatch's work, where a schedule
  overlaps two of them (DeepSeek-V3, arXiv 2412.19437, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from einscale.collectives import ALL_TO_ALL
from einscale.layout import shards
from einscale.numeric import Number, largest, maximum, minimum, never, ratio, where
from einscale.planner.classes import moved_class
from einscale.planner.planned import PlannedProgram
from einscale.price.hiders import Hider, HidingWork
from einscale.price.program import PricedCollective, PricedStatement
from einscale.vocabulary import BACKWARD, FORWARD, Moving, Phase, TensorClass

PARAMETERS = Moving.PARAMETERS
GRADIENTS = Moving.GRADIENTS
ACTIVATIONS = Moving.ACTIVATIONS
ROUTED = Moving.ROUTED
STREAMED = Moving.STREAMED
STATISTICS = Moving.STATISTICS

OVERLAPS = (PARAMETERS, GRADIENTS, ACTIVATIONS, ROUTED)
"""Kinds of collectives that may be hidden, as a strategy's `overlap` list names them."""

_HIDEABLE = {
    TensorClass.PARAMETERS: PARAMETERS,
    TensorClass.GRADIENTS: GRADIENTS,
    TensorClass.ACTIVATIONS: ACTIVATIONS,
}

_Key: TypeAlias = tuple[Phase, "Moving | Literal['']"]
"""A pass, and which of `OVERLAPS` a collective belongs to, "" for none."""

EFFICIENCY = 0.8
"""Share of the communication beside work that work really hides.

The rest stays exposed however much work there is: the two share HBM and cores, and the network waits for the slowest
device. 0.80 is what a fit of 25 shared constants to published data-parallel training steps came out at: a figure of the
field, not of one machine.
"""


def left_exposed(moving: Number, window: Number) -> Number:
    """Seconds of communication that work beside it does not hide: moving - EFFICIENCY x min(moving, window).

    >>> [round(left_exposed(10.0, window), 6) for window in (0.0, 5.0, 20.0)]
    [10.0, 6.0, 2.0]
    """
    return moving - EFFICIENCY * minimum(moving, window)


class Window(Struct, frozen=True):
    """Work that hides collectives of one kind in one pass over a layer.

    Args:
        phase: `forward` or `backward`.
        kind: one of `OVERLAPS`.
        seconds: time of the work.
        moving: time of the collectives.
        exposed: what of it is left, `left_exposed(moving, seconds)`.
        first: what the first layer of a pass leaves open besides, for nothing runs before it (or after the last).
        behind: what the work is.
    """

    phase: Phase
    kind: Moving
    seconds: Number
    moving: Number
    exposed: Number
    first: Number
    behind: Hider


class Hidden(Struct, frozen=True):
    """A layer's statements with what overlap leaves exposed of their collectives.

    Args:
        rows: the priced statements, `exposed_seconds` and `hidden_by` filled in.
        windows: the work that hides, and how much.
    """

    rows: tuple[PricedStatement, ...]
    windows: tuple[Window, ...]

    def first_seconds(self, phase: str) -> Number:
        """Time that the first layer of a pass (backward: the last) exposes besides."""
        return sum(window.first for window in self.windows if window.phase == phase)


def overlap_kind(planned: PlannedProgram, priced: PricedCollective) -> Moving | Literal[""]:
    """Which of `OVERLAPS` a collective belongs to; "" for what nothing hides: statistics and streamed moves."""
    if priced.step.streamed:
        return ""
    if priced.step.kind == ALL_TO_ALL and priced.step.tensor.chosen:
        return ROUTED
    what = moved_class(planned.program, priced.step.tensor.name)
    return _HIDEABLE.get(what, "")


def what_moves(planned: PlannedProgram, priced: PricedCollective) -> Moving:
    """What a collective moves: one of `OVERLAPS`, `streamed` or `statistics`."""
    return STREAMED if priced.step.streamed else overlap_kind(planned, priced) or STATISTICS


def hide(rows: Iterable[PricedStatement], planned: PlannedProgram, overlap: tuple[str, ...]) -> Hidden:
    """Work out what the overlaps of a strategy leave exposed, for one layer among many of its kind.

    Args:
        rows: priced statements of both passes.
        planned: the program they belong to.
        overlap: kinds that are hidden, of `OVERLAPS`.
    """
    rows = tuple(rows)
    hidden: dict[_Key, Window] = {}
    room: dict[str, Number] = dict.fromkeys((FORWARD, BACKWARD), 0.0)
    moving: dict[_Key, Number] = {}
    for row in rows:
        phase = row.planned.phase
        room[phase] = room[phase] + row.local.seconds
        for priced in row.collectives:
            key = phase, overlap_kind(planned, priced)
            moving[key] = moving.get(key, 0.0) + priced.seconds
    for phase in (FORWARD, BACKWARD):
        for kind in (PARAMETERS, GRADIENTS):
            seconds = moving.get((phase, kind), 0.0)
            if kind in overlap and not never(seconds > 0):
                exposed = left_exposed(seconds, room[phase])
                first = seconds - exposed
                hidden[phase, kind] = Window(phase, kind, room[phase], seconds, exposed, first, _behind(phase, kind))
                room[phase] = maximum(0.0, room[phase] - seconds)
    if ROUTED in overlap:
        hidden |= _behind_other_microbatch(moving, sum(room.values()))
    done = tuple(_hide_row(row, planned, hidden, ACTIVATIONS in overlap) for row in rows)
    return Hidden(done, tuple(hidden.values()))


def _behind_other_microbatch(moving: Mapping[_Key, Number], room: Number) -> dict[_Key, Window]:
    """Windows of routed tokens: of a forward and a backward pass side by side the work of both hides both moves."""
    both = {phase: moving.get((phase, ROUTED), 0.0) for phase in (FORWARD, BACKWARD)}
    total = sum(both.values())
    exposed = left_exposed(total, room)
    return {
        (phase, ROUTED): Window(
            phase,
            ROUTED,
            ratio(room * seconds, total, 0.0),
            seconds,
            ratio(exposed * seconds, total, 0.0),
            0.0,
            _behind(phase, ROUTED),
        )
        for phase, seconds in both.items()
        if not never(seconds > 0)
    }


def _behind(phase: Phase, kind: Moving) -> Hider:
    """The work that hides a kind of collectives."""
    if kind == PARAMETERS:
        return Hider(HidingWork.LAYER_BEFORE, phase)
    if kind == GRADIENTS:
        return Hider(HidingWork.LAYER_AFTER, BACKWARD)
    return Hider(HidingWork.OTHER_MICROBATCH, BACKWARD if phase == FORWARD else FORWARD)


def _hide_row(
    row: PricedStatement, planned: PlannedProgram, hidden: Mapping[_Key, Window], matmuls: bool
) -> PricedStatement:
    """One statement, its collectives hidden as far as windows and its own einsum allow."""
    moves = [priced for priced in row.collectives if matmuls and overlap_kind(planned, priced) == ACTIVATIONS]
    own = sum(priced.seconds for priced in moves)
    ways = largest(shards(priced.step.axes, planned.degrees) for priced in moves)
    room = row.local.seconds * (ways - 1) / ways if row.planned.statement.op == "einsum" else 0.0
    done = []
    for priced in row.collectives:
        kind = overlap_kind(planned, priced)
        window = hidden.get((row.planned.phase, kind))
        if window is not None:
            share = ratio(window.exposed, window.moving, 1.0)
            done.append(replace(priced, exposed_seconds=priced.seconds * share, hidden_by=window.behind))
        elif moves and kind == ACTIVATIONS and not never(room > 0):
            share = where(room > 0, ratio(left_exposed(own, room), own, 1.0), 1.0)
            behind = Hider(HidingWork.OWN_EINSUM, row.planned.phase, row.planned.statement.output)
            done.append(replace(priced, exposed_seconds=priced.seconds * share, hidden_by=behind))
        else:
            done.append(priced)
    return replace(row, collectives=tuple(done))
