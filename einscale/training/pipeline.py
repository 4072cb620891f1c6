"""What a pipeline's closed forms say beside its simulation, and the simulation of every task, for whoever asks."""

from __future__ import annotations

from msgspec import Struct

from einscale.planner.planned import PlannedProgram
from einscale.price.spent import TimePart
from einscale.schedule import (
    Timeline,
    bubble_seconds,
    find_schedule,
    in_flight,
    order,
    outside_closed_form,
    simulate,
)
from einscale.training.moves import STAGES, step_moves
from einscale.training.values import TrainReport


class PipelineFigures(Struct, frozen=True):
    """A step's pipeline in figures.

    Args:
        forward: mean seconds of one microbatch's forward pass through a model chunk.
        backward: of its whole backward pass.
        weight: of the gradients of weights in it; 0 where the schedule does not part them from the others.
        closed_bubble: seconds that the closed form says stages of equal means are idle; None outside its domain.
        outside: why the closed form does not hold for these stages, as `schedule` says it; None where it does.
        bubble: seconds that the busiest stage is idle.
        held: chunks whose activations the fullest stage keeps at most.
        parts: model chunks on a device.
    """

    forward: float
    backward: float
    weight: float
    closed_bubble: float | None
    outside: str | None
    bubble: float
    held: int
    parts: int


def pipeline_figures(report: TrainReport) -> PipelineFigures:
    """Figures of a step with several stages.

    Args:
        report: the step.
    """
    setup = report.setup
    name, p, m, v = setup.schedule, setup.stages, setup.microbatches, setup.chunks
    forward, backward, weight = report.chunks.forward, report.chunks.backward, report.chunks.weight
    each, whole, part = (sum(times) / len(times) for times in (forward, backward, weight))
    send = report.sent.seconds if report.sent else 0.0
    even = outside_closed_form(name, p, m, v, each, whole, part)
    return PipelineFigures(
        forward=each,
        backward=whole,
        weight=part,
        closed_bubble=bubble_seconds(name, p, m, v, each, whole, part) if even is None else None,
        outside=outside_closed_form(name, p, m, v, forward, backward, weight, send=send),
        bubble=sum(part.seconds for part in report.spent if part.what is TimePart.BUBBLE),
        held=in_flight(name, p, m, v, report.fullest.stage).until_weight,
        parts=v * find_schedule(name).copies,
    )


def step_timeline(report: TrainReport) -> Timeline:
    """Every task of a step with several stages: its device, start and end.

    Args:
        report: the step.
    """
    setup = report.setup
    chunks = report.chunks
    tasks = order(setup.schedule, setup.stages, setup.microbatches, setup.chunks)
    return simulate(
        tasks, chunks.forward, chunks.backward, chunks.weight, send=report.sent.seconds if report.sent else 0.0
    )


def sent_times(report: TrainReport) -> int:
    """How often the busiest stage receives the stream of another in a step; 0 without a pipeline."""
    return sum(move.times for move in step_moves(report) if move.what == STAGES)


def sending_program(report: TrainReport) -> PlannedProgram | None:
    """The layer whose stream travels between stages; None without a pipeline."""
    if report.sent is None:
        return None
    stream = report.sent.step.tensor.name
    return next(layer.planned for layer in report.layers if stream in layer.planned.program.inputs)
