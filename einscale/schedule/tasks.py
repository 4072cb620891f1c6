"""What schedules are written in: tasks, the lists of them that devices run, and what a device keeps meanwhile."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class TaskKind(StrEnum):
    """What a task is: a forward pass, a backward pass, the gradients of weights alone."""

    F = "F"
    B = "B"
    W = "W"


F = TaskKind.F
B = TaskKind.B
W = TaskKind.W


class Task(Struct, frozen=True, gc=False):
    """One pass of one microbatch through one chunk of the model.

    Args:
        kind: F forward, B backward, W the gradients of weights alone. A backward pass whose W is a task of its own
            computes the gradients of inputs only; any other computes both.
        microbatch: from 0.
        chunk: of the model, in the order a microbatch passes them.
        overlapped: a forward pass that runs in one block with the backward pass behind it in the order (dualpipe).
    """

    kind: TaskKind
    microbatch: int
    chunk: int
    overlapped: bool = False

    def __str__(self) -> str:
        return f"{self.kind} of microbatch {self.microbatch} in chunk {self.chunk}"


Tasks = tuple[Task, ...]
"""What one device runs, in this order."""

Order = tuple[Tasks, ...]
"""The tasks of every device."""


class InFlight(Struct, frozen=True, gc=False):
    """Most activations of one microbatch in one chunk that a device keeps at a time, both peaks for themselves.

    Args:
        until_backward: forward passes begun whose backward pass (B) is not done.
        until_weight: forward passes begun whose last task is not done: W where it is a task of its own, else B.
    """

    until_backward: int
    until_weight: int


def split_passes(tasks: Iterable[Task]) -> frozenset[tuple[int, int]]:
    """(microbatch, chunk) of the backward passes whose gradients of weights are a task of their own."""
    return frozenset([(task.microbatch, task.chunk) for task in tasks if task.kind == W])


def in_flight_of(tasks: Sequence[Task]) -> InFlight:
    """Peaks of one device, counted along its order.

    >>> from einscale.schedule.orders import order
    >>> in_flight_of(order("1f1b", 4, 8)[0]), in_flight_of(order("zb-h1", 4, 8)[3])
    (InFlight(until_backward=4, until_weight=4), InFlight(until_backward=1, until_weight=4))
    """
    split = split_passes(tasks)
    backward = weight = most_backward = most_weight = 0
    for task in tasks:
        if task.kind == F:
            backward += 1
            weight += 1
            most_backward = max(most_backward, backward)
            most_weight = max(most_weight, weight)
        elif task.kind == B:
            backward -= 1
            weight -= not split or (task.microbatch, task.chunk) not in split
        else:
            weight -= 1
    return InFlight(most_backward, most_weight)


def passes(kind: TaskKind, stage: int, microbatches: int) -> list[Task]:
    """One kind of pass of every microbatch, in order."""
    return [Task(kind, microbatch, stage) for microbatch in range(microbatches)]


def alternating(forwards: list[Task], backwards: list[Task], warm_up: int, weight_delay: int | None = None) -> Tasks:
    """`warm_up` forward passes, then forward and backward in turn, then the rest; W `weight_delay` passes behind B."""
    tasks = forwards[:warm_up]
    waiting = forwards[warm_up:]
    weights = [] if weight_delay is None else [Task(W, task.microbatch, task.chunk) for task in backwards]
    for index, backward in enumerate(backwards):
        if index < len(waiting):
            tasks.append(waiting[index])
        tasks.append(backward)
        if weight_delay is not None and index >= weight_delay:
            tasks.append(weights[index - weight_delay])
    if weight_delay is not None:
        tasks += weights[max(0, len(backwards) - weight_delay) :]
    return tuple(tasks)


class Lane:
    """The tasks of one device while they are written down: each chunk takes its microbatches in order."""

    def __init__(self, lanes: tuple[tuple[int, int], ...]) -> None:
        self.lanes = lanes  # (chunk, its first microbatch)
        self.next: dict[tuple[TaskKind, int], int] = {}
        self.tasks: list[Task] = []
        self.waiting: list[Task] = []  # gradients of weights put off, oldest first

    def run(self, kind: TaskKind, lane: int, overlapped: bool = False) -> Task:
        """Write down the next task of a kind in one of the device's lanes."""
        chunk, first = self.lanes[lane]
        turn = self.next.get((kind, lane), 0)
        self.next[kind, lane] = turn + 1
        task = Task(kind, first + turn, chunk, overlapped)
        self.tasks.append(task)
        return task

    def forward(self, lane: int) -> None:
        """A forward pass."""
        self.run(F, lane)

    def backward(self, lane: int, split: bool = False) -> None:
        """A backward pass; where it is split, its gradients of weights wait for `weight`."""
        task = self.run(B, lane)
        if split:
            self.waiting.append(Task(W, task.microbatch, task.chunk))

    def block(self, forward: int, backward: int) -> None:
        """A forward and a backward pass that run together."""
        self.run(F, forward, overlapped=True)
        self.run(B, backward)

    def weight(self) -> None:
        """The gradients of weights put off longest."""
        self.tasks.append(self.waiting.pop(0))
