"""What a schedule is: one row of the catalogue, with its order, closed forms, peaks, texts and limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from einscale.schedule.tasks import Order


class Even(Struct, frozen=True):
    """A pipeline whose chunks all take equally long, and no hop any time: what closed forms are written for.

    Args:
        stages: p.
        microbatches: m.
        chunks: v.
        forward: F, seconds of one chunk.
        inputs: B, seconds of the gradients of inputs of one chunk.
        weight: W, seconds of the gradients of weights; a whole backward pass takes B + W.
        overlap: share of the shorter pass that a block of two hides.
        barrier: the devices wait for each other after the step.
    """

    stages: int
    microbatches: int
    chunks: int
    forward: float
    inputs: float
    weight: float
    overlap: float = 0
    barrier: bool = True

    @property
    def backward(self) -> float:
        """Seconds of a whole backward pass, B + W."""
        return self.inputs + self.weight


def _any_numbers(stages: int, microbatches: int) -> None:
    """Every number of stages and of microbatches will do."""


def _everywhere(even: Even) -> str | None:
    """A closed form that holds for all times."""
    return None


def _one(stages: int) -> int:
    return 1


class Schedule(Struct, frozen=True):
    """A pipeline schedule: all that is known of it.

    Args:
        name: how it is called.
        summary: one sentence.
        source: where it was described.
        order: (stages, microbatches, chunks) -> the tasks of every device.
        bubble: seconds a device does not compute in one step, in closed form.
        bubble_text: the same for people, with B a whole backward pass and W its gradients of weights.
        in_flight: (stages, microbatches, chunks, stage) -> most activations kept at a time, counted in chunks, until
            their backward pass is done and until their gradients of weights are; never more than there are.
        in_flight_text: the second of these for people.
        refuse: (stages, microbatches): raises a ScheduleError where the schedule cannot be followed.
        outside: why the closed form does not hold, in words; None if it does.
        period: stages -> microbatches after which the steady state repeats itself.
        paired: (stages, passes of a device) -> blocks of two passes that the devices with fewest run; None without any.
        splits_backward: some or all backward passes run as two tasks: gradients of inputs (B), and of weights (W).
        two_phases: no backward pass begins before the last forward pass has: every microbatch is kept at once.
        chunks_fixed: chunks of the model a stage must hold, copies not counted; None where any number above 1 will do.
        copies: how often the parameters are held: twice where microbatches travel both ways.
        folded: the chunks go down the devices and back up again (a V), not round and round.
        aliases: what it is called elsewhere.
    """

    name: str
    summary: str
    source: str
    order: Callable[[int, int, int], Order]
    bubble: Callable[[Even], float]
    bubble_text: str
    in_flight: Callable[[int, int, int, int], tuple[int, int]]
    in_flight_text: str
    refuse: Callable[[int, int], None] = _any_numbers
    outside: Callable[[Even], str | None] = _everywhere
    period: Callable[[int], int] = _one
    paired: Callable[[int, int], int] | None = None
    splits_backward: bool = False
    two_phases: bool = False
    chunks_fixed: int | None = 1
    copies: int = 1
    folded: bool = False
    aliases: tuple[str, ...] = ()


def counted(number: int, what: str) -> str:
    """A number and what it counts.

    >>> counted(1, "stage"), counted(3, "stage")
    ('1 stage', '3 stages')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
