"""Every collective of a step on one stage: how often it runs, and what of it the step waits for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from einscale.causes import Cause, CauseRule
from einscale.collectives import FREE, PERMUTE, Collective
from einscale.numeric import as_float, as_int
from einscale.price.hiders import Hider
from einscale.price.overlap import GRADIENTS, PARAMETERS, what_moves
from einscale.price.program import PricedCollective, bound_bytes
from einscale.price.spent import TimePart
from einscale.schedule import placement
from einscale.stages import HEAD
from einscale.training.values import TrainReport
from einscale.vocabulary import UPDATE, Moving, Phase

STAGES = Moving.STAGES
OPTIMIZER = Moving.OPTIMIZER

ONCE = {PARAMETERS: TimePart.PARAMETERS_ONCE, GRADIENTS: TimePart.GRADIENTS_ONCE}
"""What the update moves -> the part of a step's time that says how much of it is hidden."""


class Move(Struct, frozen=True):
    """A collective, as often as the stage that works longest runs it.

    Args:
        layer: kind of the layer it belongs to, "" between stages.
        phase: `forward`, `backward` or `update`; "" between stages.
        what: `parameters`, `gradients`, `activations`, `routed`, `statistics`, `streamed`, `optimizer` or `between
            stages`.
        priced: the collective.
        times: how often it runs in a step.
        exposed_seconds: what of one run the step waits for; None where it only moves the bubble.
        bound_bytes: bytes a device must receive in one run however the move is done.
        hidden_by: the work that hides the rest, None where nothing does.
        section: of the layer that the statement which needs it belongs to.
    """

    layer: str
    phase: Phase | Literal[""]
    what: Moving
    priced: PricedCollective
    times: int
    exposed_seconds: float | None
    bound_bytes: int
    hidden_by: Hider | None = None
    section: str = ""

    @property
    def axis(self) -> str:
        """Mesh axes, major to minor."""
        return "/".join(self.priced.step.axes)

    @property
    def bound_ratio(self) -> float:
        """Bytes moved over bytes that must move."""
        return self.priced.bytes / self.bound_bytes if self.bound_bytes else 1.0

    @property
    def bytes(self) -> int:
        """Bytes that one device receives in a step."""
        return as_int(self.priced.bytes) * self.times

    @property
    def seconds(self) -> float:
        """Time on the network in a step."""
        return as_float(self.priced.seconds) * self.times

    @property
    def exposed(self) -> float:
        """What of it the step waits for."""
        return (self.exposed_seconds or 0.0) * self.times

    @property
    def hidden_share(self) -> float:
        """What part of one run other work hides."""
        return 1 - (self.exposed_seconds or 0.0) / self.priced.seconds if self.priced.seconds else 0.0

    @property
    def hidden(self) -> float:
        """What of it other work hides."""
        return 0.0 if self.exposed_seconds is None else self.seconds - self.exposed


def step_moves(report: TrainReport) -> tuple[Move, ...]:
    """Collectives of the busiest stage, in the order of its layers; those that move nothing are left out."""
    setup, stage = report.setup, report.busiest
    each = setup.each
    moves = [
        move
        for kind, count in stage.layers
        for move in (*_passes(report, kind, count * each), *_update(report, kind, count))
    ]
    return (*moves, *_between(report, each, setup.copies), *_shared_table(report))


def _passes(report: TrainReport, kind: str, times: int) -> Iterator[Move]:
    """Collectives of one kind of layer in its forward and backward passes."""
    layer = report.layer(kind)
    for row in layer.rows:
        for priced in row.collectives:
            if priced.step.kind not in FREE:
                what, least = what_moves(layer.planned, priced), bound_bytes(priced, layer.planned)
                section, behind = row.planned.statement.section, priced.hidden_by
                yield Move(kind, row.planned.phase, what, priced, times, priced.exposed_seconds, least, behind, section)


def _update(report: TrainReport, kind: str, times: int) -> Iterator[Move]:
    """Collectives of one kind of layer in the optimizer step; hidden as far as `spent` says."""
    layer = report.layer(kind)
    for row in layer.update:
        for priced in row.collectives:
            if priced.step.kind in FREE:
                continue
            what = what_moves(layer.updated, priced)
            least = bound_bytes(priced, layer.updated)
            what = what if what in ONCE else OPTIMIZER
            axis = "/".join(priced.step.axes)
            part = next((one for one in report.spent if one.what is ONCE.get(what) and one.axis == axis), None)
            if part is None or not part.hidden:
                yield Move(kind, UPDATE, what, priced, times, priced.seconds, least)
            else:
                share = part.seconds / (part.seconds + part.hidden)
                yield Move(kind, UPDATE, what, priced, times, priced.seconds * share, least, part.hidden_by[0])


def _between(report: TrainReport, each: int, copies: int) -> Iterator[Move]:
    """What the busiest stage receives from other stages: activations forward, their gradients backward."""
    setup = report.setup
    if report.sent is None:
        return
    held = placement(setup.schedule, setup.stages, setup.chunks)[report.busiest.stage]
    last = setup.stages * setup.chunks - 1
    neighbours = [near for chunk in held for near in (chunk - 1, chunk + 1) if 0 <= near <= last]
    times = each * sum(copies > 1 or near not in held for near in neighbours)
    if times:
        yield Move("", "", STAGES, report.sent, times, None, report.sent.bytes)


def _shared_table(report: TrainReport) -> Iterator[Move]:
    """The gradient of a table that the first and the last stage both hold, where the busiest stage is one of them."""
    pipe = report.setup.pipe
    part = next((one for one in report.spent if one.what is TimePart.SHARED_TABLE), None)
    if part is None:
        return
    tied = {f"d_{name}" for layer in report.setup.model.layers for name in layer.program.tied}
    held = [one for one in report.layer(HEAD).gradients if one.tensor.name in tied]
    for one in held:
        seconds = part.seconds * one.bytes / sum(other.bytes for other in held)
        cause = Cause(CauseRule.SHARED_TABLE, one.tensor.name, (pipe,))
        step = Collective(PERMUTE, one.tensor, (pipe,), one.layout, one.layout, cause)
        yield Move(HEAD, UPDATE, GRADIENTS, PricedCollective(step, one.bytes, seconds, seconds), 1, seconds, one.bytes)
