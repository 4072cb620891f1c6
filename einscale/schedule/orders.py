"""The order of work: the tasks of every device, schedule by schedule."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from einscale.errors import ScheduleError
from einscale.schedule.catalogue import check_schedule

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["F", "B", "W"]


class Task(Struct, frozen=True, gc=False):
    """One pass of one microbatch through one chunk of the model.

    Args:
        kind: F forward, B backward, W the gradients of weights alone. A backward pass whose W is a task of its own
            computes the gradients of inputs only; any other computes both.
        microbatch: from 0.
        chunk: of the model, in the order a microbatch passes them.
        overlapped: a forward pass that runs in one block with the backward pass behind it in the order (dualpipe).
    """

    kind: Kind
    microbatch: int
    chunk: int
    overlapped: bool = False

    def __str__(self) -> str:
        return f"{self.kind} of microbatch {self.microbatch} in chunk {self.chunk}"


Tasks = tuple[Task, ...]

KEPT = 1 << 14
"""Passes, microbatches times chunks of the model, of the largest order that is kept for the next who asks."""


MOST_PASSES = 10**7
"""Passes of the largest order that is made: some gigabytes of tasks."""


def order(name: str, stages: int, microbatches: int, chunks: int = 1) -> tuple[Tasks, ...]:
    """The tasks of each device, in the order it runs them.

    Args:
        name: of the schedule.
        stages: devices along the pipeline.
        microbatches: of one step. dualpipe's first half enters at device 0, its second half at the last device.
        chunks: parts of the model a stage holds, copies not counted.

    >>> for tasks in order("1f1b", 2, 2):
    ...     print(" ".join(f"{task.kind}{task.microbatch}" for task in tasks))
    F0 F1 B0 B1
    F0 B0 F1 B1

    Raises:
        ScheduleError: no pipeline of these numbers follows the schedule, or its tasks are too many to write down.
    """
    schedule = check_schedule(name, stages, microbatches, chunks)
    if microbatches * stages * chunks > MOST_PASSES:
        raise ScheduleError(
            f"{microbatches} microbatches through {stages} stages of {chunks} chunks are more tasks than can be listed",
            expected=f"at most {MOST_PASSES // (stages * chunks)} microbatches",
        )
    build = _build_kept if microbatches * stages * chunks <= KEPT else _build
    return build(schedule.name, stages, microbatches, chunks)


def _build(name: str, stages: int, microbatches: int, chunks: int) -> tuple[Tasks, ...]:
    return _BUILDERS[name](stages, microbatches, chunks)


_build_kept = lru_cache(maxsize=16)(_build)


def period(name: str, stages: int) -> int:
    """Microbatches after which a schedule's steady state repeats itself."""
    return {"interleaved": stages, "dualpipe": 2}.get(name, 1)


def enough_microbatches(name: str, stages: int, microbatches: int, warm_up: int) -> int:
    """As few microbatches as `warm_up` a stage, congruent to `microbatches`; that many if there are not as many.

    >>> enough_microbatches("interleaved", 4, 1000, 6), enough_microbatches("dualpipe", 4, 12, 6)
    (24, 12)
    """
    repeats = period(name, stages)
    least = warm_up * stages
    return min(microbatches, least + (microbatches - least) % repeats)


def _gpipe(stages: int, microbatches: int, chunks: int) -> tuple[Tasks, ...]:
    return tuple(
        (
            *(Task("F", microbatch, stage) for microbatch in range(microbatches)),
            *(Task("B", microbatch, stage) for microbatch in reversed(range(microbatches))),
        )
        for stage in range(stages)
    )


def _alternating(forwards: list[Task], backwards: list[Task], warm_up: int, weight_delay: int | None = None) -> Tasks:
    """`warm_up` forward passes, then forward and backward in turn, then the rest; W `weight_delay` passes behind B."""
    tasks = forwards[:warm_up]
    waiting = forwards[warm_up:]
    weights = [] if weight_delay is None else [Task("W", task.microbatch, task.chunk) for task in backwards]
    for index, backward in enumerate(backwards):
        if index < len(waiting):
            tasks.append(waiting[index])
        tasks.append(backward)
        if weight_delay is not None and index >= weight_delay:
            tasks.append(weights[index - weight_delay])
    if weight_delay is not None:
        tasks += weights[max(0, len(backwards) - weight_delay) :]
    return tuple(tasks)


def _passes(kind: Kind, stage: int, microbatches: int) -> list[Task]:
    return [Task(kind, microbatch, stage) for microbatch in range(microbatches)]


def _one_f_one_b(stages: int, microbatches: int, chunks: int) -> tuple[Tasks, ...]:
    return tuple(
        _alternating(_passes("F", stage, microbatches), _passes("B", stage, microbatches), stages - 1 - stage)
        for stage in range(stages)
    )


def _zero_bubble(stages: int, microbatches: int, factor: int) -> tuple[Tasks, ...]:
    # a stage i hops from the first delays its W by as many passes as its warm-up is shorter than the first's: every
    # stage keeps the same number of microbatches, and the tail has W left to fill it
    return tuple(
        _alternating(
            _passes("F", stage, microbatches),
            _passes("B", stage, microbatches),
            factor * (stages - 1 - stage),
            factor * stage,
        )
        for stage in range(stages)
    )


def _zero_bubble_h1(stages: int, microbatches: int, chunks: int) -> tuple[Tasks, ...]:
    return _zero_bubble(stages, microbatches, 1)


def _zero_bubble_h2(stages: int, microbatches: int, chunks: int) -> tuple[Tasks, ...]:
    return _zero_bubble(stages, microbatches, 2)


def _interleaved(stages: int, microbatches: int, chunks: int) -> tuple[Tasks, ...]:
    # groups of as many microbatches as stages pass one chunk after the other; backward passes take the last chunk first
    rounds = [
        (microbatch, turn)
        for group in range(0, microbatches, stages)
        for turn in range(chunks)
        for microbatch in range(group, group + stages)
    ]
    return tuple(
        _alternating(
            [Task("F", microbatch, turn * stages + stage) for microbatch, turn in rounds],
            [Task("B", microbatch, (chunks - 1 - turn) * stages + stage) for microbatch, turn in rounds],
            2 * (stages - 1 - stage) + (chunks - 1) * stages,
        )
        for stage in range(stages)
    )


class _Lane:
    """The tasks of one device while they are written down: each chunk takes its microbatches in order."""

    def __init__(self, lanes: tuple[tuple[int, int], ...]) -> None:
        self.lanes = lanes  # (chunk, its first microbatch)
        self.next: dict[tuple[Kind, int], int] = {}
        self.tasks: list[Task] = []
        self.waiting: list[Task] = []  # gradients of weights put off, oldest first

    def run(self, kind: Kind, lane: int, overlapped: bool = False) -> Task:
        chunk, first = self.lanes[lane]
        turn = self.next.get((kind, lane), 0)
        self.next[kind, lane] = turn + 1
        task = Task(kind, first + turn, chunk, overlapped)
        self.tasks.append(task)
        return task

    def forward(self, lane: int) -> None:
        self.run("F", lane)

    def backward(self, lane: int, split: bool = False) -> None:
        task = self.run("B", lane)
        if split:
            self.waiting.append(Task("W", task.microbatch, task.chunk))

    def block(self, forward: int, backward: int) -> None:
        self.run("F", forward, overlapped=True)
        self.run("B", backward)

    def weight(self) -> None:
        self.tasks.append(self.waiting.pop(0))


def _zero_bubble_v(stages: int, microbatches: int, chunks: int) -> tuple[Tasks, ...]:
    return tuple(_zero_bubble_v_device(stages, microbatches, device) for device in range(stages))


def _zero_bubble_v_device(stages: int, microbatches: int, device: int) -> Tasks:
    lane = _Lane(((device, 0), (2 * stages - 1 - device, 0)))
    count = max(2 * stages - 1, microbatches)  # written for a full pipeline; microbatches that are not there drop out

    def backward(chunk: int) -> None:
        lane.run("B", chunk)
        lane.run("W", chunk)

    for _ in range(2 * (stages - device) - 1):
        lane.forward(0)
    for _ in range(device):
        lane.forward(1)
        lane.forward(0)
    for _ in range(stages - device):
        lane.forward(1)
        backward(1)
    started, turned = 2 * stages - 1 - device, stages
    while turned < started or started < count:
        if started < count:
            lane.forward(0)
            started += 1
        backward(0)
        lane.forward(1)
        turned += 1
        backward(1)
    for _ in range(device):
        lane.run("B", 0)
        lane.run("B", 1)
    for _ in range(stages - device):
        lane.run("B", 0)
        lane.run("W", 0)
    for chunk in (1, 0):
        for _ in range(device):
            lane.run("W", chunk)
    return tuple(task for task in lane.tasks if task.microbatch < microbatches)


def _dualpipe(stages: int, microbatches: int, chunks: int) -> tuple[Tasks, ...]:
    half = microbatches // 2
    devices = []
    for device in range(stages):
        ends = ((device, 0), (stages - 1 - device, half))
        near = ends if device < stages // 2 else ends[::-1]  # lane 0 comes from the nearer end
        devices.append(_dualpipe_device(near, stages // 2, min(device, stages - 1 - device), half))
    return tuple(devices)


def _dualpipev(stages: int, microbatches: int, chunks: int) -> tuple[Tasks, ...]:
    return tuple(
        _dualpipe_device(((device, 0), (2 * stages - 1 - device, 0)), stages, device, microbatches)
        for device in range(stages)
    )


def _dualpipe_device(lanes: tuple[tuple[int, int], ...], depth: int, rank: int, microbatches: int) -> Tasks:
    """One device, `rank` hops from its end of a pipeline of `depth`; `microbatches` in either lane."""
    lane = _Lane(lanes)
    outward = depth - rank - 1  # devices between this one and the middle
    for _ in range(2 * outward):
        lane.forward(0)
    for _ in range(rank + 1):
        lane.forward(0)
        lane.forward(1)
    for _ in range(outward):
        lane.backward(1, split=True)
        lane.weight()
        lane.forward(1)
    for turn in range(microbatches - 2 * depth + rank + 1):
        if turn == 0 and outward == 0:  # the middle devices run these two apart: the one waits for the other's input
            lane.forward(0)
            lane.backward(1)
        else:
            lane.block(0, 1)
        lane.block(1, 0)
    for _ in range(outward):
        lane.backward(1)
        lane.block(1, 0)
    for turn in range(2 * (rank + 1)):  # the second half puts its gradients of weights off
        lane.backward(1 - turn % 2, split=turn > rank)
    for _ in range(outward):
        lane.weight()
        lane.backward(0, split=True)
    for _ in range(rank + 1):
        lane.weight()
    return tuple(lane.tasks)


_BUILDERS: dict[str, Callable[[int, int, int], tuple[Tasks, ...]]] = {
    "gpipe": _gpipe,
    "1f1b": _one_f_one_b,
    "interleaved": _interleaved,
    "zb-h1": _zero_bubble_h1,
    "zb-h2": _zero_bubble_h2,
    "zb-v": _zero_bubble_v,
    "dualpipe": _dualpipe,
    "dualpipev": _dualpipev,
}
