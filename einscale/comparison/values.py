"""What a comparison of strategies is made of, as frozen values."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from einscale.causes import Cause
from einscale.price.footprint import MemoryPart
from einscale.price.program import Totals
from einscale.price.spent import TimePart
from einscale.training.values import TrainReport
from einscale.vocabulary import CollectiveKind, Moving, Phase


class Scope(StrEnum):
    """What is compared."""

    STEP = "step"
    """Training steps: what `train` prices, bubbles, update and all."""

    LAYER = "layer"
    """The forward and backward passes of one microbatch through one layer of each kind."""


class About(StrEnum):
    """What a term is about."""

    COLLECTIVE = "collective"
    COMPUTE = "compute"
    PART = "part"
    """A part of a step's time that belongs to no statement, such as the bubble."""


class LocalWork(StrEnum):
    """What a device computes by itself."""

    EINSUM = "einsum"
    MAP = "map"


class Side(Struct, frozen=True):
    """One strategy of a comparison.

    Args:
        label: what it is called there.
        report: its training step.
    """

    label: str
    report: TrainReport


Divided = tuple[tuple[str, tuple[str, ...]], ...]
"""Indices that are divided, and the mesh axes that divide each, as the roles they play."""


class Moves(Struct, frozen=True):
    """Collectives that are alike.

    Args:
        kind: of the collective.
        axes: what it runs over: roles, with their devices where the meshes differ.
        count: how many different ones.
    """

    kind: CollectiveKind
    axes: tuple[str, ...]
    count: int = 1


class WorkDivision(Struct, frozen=True):
    """How the local work of a statement is divided.

    Args:
        ways: devices that its iteration space is divided over.
        divided: by which axes.
        repeated: how often the same work is done.
        partial_sums: how many devices hold a part of the sum each.
        padding: what padding adds, as a share of what is wanted.
    """

    ways: int
    divided: Divided
    repeated: int = 1
    partial_sums: int = 1
    padding: float = 0.0


class Runs(Struct, frozen=True):
    """How often the stage at hand runs a layer, where that is all that differs.

    Args:
        layers: layers of the kind it holds.
        microbatches: that pass it in a step.
    """

    layers: int
    microbatches: int


Doing = tuple[Moves, ...] | WorkDivision | Runs | None
"""What a side does: its collectives, how it divides the work, how often; None for nothing."""


class Term(Struct, frozen=True):
    """One difference between the first side and another.

    Args:
        about: what it is about.
        layer: kind of layer, "" for what belongs to none.
        phase: `forward`, `backward` or `update`; "" for what belongs to none.
        sections: sections of the layer it belongs to, "" for none.
        names: the tensors that move, or the results of the statements.
        what: class of the tensors (`parameters`, `gradients`, `activations`, ...), `einsum` or `map`, or the part of
            the step's time.
        first: what the first side does.
        other: what the other side does.
        first_cause: why the first side's largest collective of the term runs.
        other_cause: the same of the other side.
        change: the other side less the first.
    """

    about: About
    layer: str
    phase: Phase | Literal[""]
    sections: tuple[str, ...]
    names: tuple[str, ...]
    what: Moving | LocalWork | TimePart
    first: Doing
    other: Doing
    first_cause: Cause | None
    other_cause: Cause | None
    change: Totals


class Rests(Struct, frozen=True):
    """How a tensor is divided while it rests, and how often; `divided` is empty where it is whole."""

    divided: Divided
    copies: int = 1


class MemoryTerm(Struct, frozen=True):
    """One difference in what a device of the fullest stage holds.

    Args:
        part: what it is held as; None for what is written out to the host's memory, which is taken off.
        layer: kind of layer, "" for what belongs to none.
        names: the tensors; none for what is no tensor.
        first: how the first side holds them; None for not at all.
        other: how the other side does.
        bytes: the other side less the first.
    """

    part: MemoryPart | None
    layer: str
    names: tuple[str, ...]
    first: Rests | None
    other: Rests | None
    bytes: int


class Difference(Struct, frozen=True):
    """One side against the first, term by term, the largest first.

    Args:
        first: label of the first side.
        other: label of the other.
        change: totals of the other less those of the first; the sum of the terms.
        terms: of FLOPs, bytes received and seconds.
        memory_change: bytes needed on a device, the other less the first; the sum of the memory terms.
        memory_terms: of bytes held.
    """

    first: str
    other: str
    change: Totals
    terms: tuple[Term, ...]
    memory_change: int
    memory_terms: tuple[MemoryTerm, ...]


class Measure(StrEnum):
    """What sides are judged by; less is better in all of them."""

    TIME = "time"
    FLOPS = "FLOPs"
    RECEIVED = "bytes received"
    MEMORY = "memory"
    DEVICE_TIME = "device time"


class Best(Struct, frozen=True):
    """Which side is best by one measure.

    Args:
        measure: by what.
        labels: the best side, or all that share its value.
        value: its value: seconds, FLOPs, bytes, or device seconds.
        next_label: the next best; "" where all are the same.
        next_value: its value.
    """

    measure: Measure
    labels: tuple[str, ...]
    value: float
    next_label: str
    next_value: float


class Comparison(Struct, frozen=True):
    """Strategies side by side.

    Args:
        scope: what is compared of them.
        sides: in the order they were given.
        totals: of each side, on the stage that works longest.
        differences: every side but the first, against the first.
        best: the best side by each measure.
        notes: what was chosen where nothing was given, and what does not compare as it stands.
    """

    scope: Scope
    sides: tuple[Side, ...]
    totals: tuple[Totals, ...]
    differences: tuple[Difference, ...]
    best: tuple[Best, ...]
    notes: tuple[str, ...]

    @property
    def fitting(self) -> tuple[str, ...]:
        """Labels of the sides that fit in the memory of a chip."""
        return tuple(side.label for side in self.sides if side.report.fits)

    @property
    def fastest_fitting(self) -> str:
        """Label of the fastest side that fits; "" where none does."""
        fitting = {
            side.label: whole.seconds for side, whole in zip(self.sides, self.totals, strict=True) if side.report.fits
        }
        return min(fitting, key=lambda label: fitting[label]) if fitting else ""
