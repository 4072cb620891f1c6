"""What a comparison of strategies is made of, as frozen values."""

from __future__ import annotations

from msgspec import Struct

from einscale.causes import Cause
from einscale.cost import Totals
from einscale.layer import LayerReport

COLLECTIVE = "collective"
COMPUTE = "compute"

PARAMETERS, GRADIENTS, OPTIMIZER, SAVED, GATHERED, WORKING = MEMORY_PARTS = (
    "parameters",
    "gradients",
    "optimizer",
    "saved activations",
    "gathered parameters",
    "working",
)
"""Parts of what a device holds, as the report of a layer adds them up."""


class Side(Struct, frozen=True):
    """One strategy of a comparison: what it is called there, and its priced layers."""

    label: str
    report: LayerReport


Divided = tuple[tuple[str, tuple[str, ...]], ...]
"""Indices that are divided, and the mesh axes that divide each, as the roles they play."""


class Moves(Struct, frozen=True):
    """Collectives that are alike.

    Args:
        kind: of the collective.
        axes: what it runs over: roles, with their devices where the meshes differ.
        count: how many.
    """

    kind: str
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


class Term(Struct, frozen=True):
    """One difference between the first side and another.

    Args:
        about: `collective` or `compute`.
        layer: kind of layer.
        phase: `forward` or `backward`.
        sections: sections of the layer it belongs to, "" for none.
        names: the tensors that move, or the results of the statements.
        what: class of the tensors (`parameters`, `gradients`, `activations`, ...), or `einsum` or `map`.
        first: what the first side does: its collectives, or how it divides the work; nothing where it is empty.
        other: what the other side does.
        first_cause: why the first side's largest collective of the term runs.
        other_cause: the same of the other side.
        change: the other side less the first, for every layer of the kind.
    """

    about: str
    layer: str
    phase: str
    sections: tuple[str, ...]
    names: tuple[str, ...]
    what: str
    first: tuple[Moves, ...] | WorkDivision
    other: tuple[Moves, ...] | WorkDivision
    first_cause: Cause | None
    other_cause: Cause | None
    change: Totals


class Rests(Struct, frozen=True):
    """How a tensor is divided while it rests; `divided` is empty where it is whole."""

    divided: Divided


class AtPeak(Struct, frozen=True):
    """The statement at which a layer holds most."""

    statement: str
    layer: str


class MemoryTerm(Struct, frozen=True):
    """One difference in what a device holds.

    Args:
        part: one of `MEMORY_PARTS`.
        layer: kind of layer.
        names: tensors that rest otherwise, or are held by one side only; none where a part is counted as a whole.
        first: how the first side holds them, or when; None for not at all, and where it does not say.
        other: how the other side does.
        bytes: the other side less the first, for every layer of the kind.
    """

    part: str
    layer: str
    names: tuple[str, ...]
    first: Rests | AtPeak | None
    other: Rests | AtPeak | None
    bytes: int


class Difference(Struct, frozen=True):
    """One side against the first, term by term, the largest first.

    Args:
        first: label of the first side.
        other: label of the other.
        change: totals of the other less those of the first, every layer counted; the sum of the terms.
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


class Best(Struct, frozen=True):
    """Which side is best by one measure.

    Args:
        measure: `time`, `FLOPs`, `bytes received`, `memory`, or `device time` (time x devices).
        unit: `second`, `FLOP`, `byte` or `device second`.
        labels: the best side, or all that share its value.
        value: its value.
        next_label: the next best; "" where all are the same.
        next_value: its value.
    """

    measure: str
    unit: str
    labels: tuple[str, ...]
    value: float
    next_label: str
    next_value: float


class Comparison(Struct, frozen=True):
    """Strategies side by side.

    Args:
        sides: in the order they were given.
        differences: every side but the first, against the first.
        best: the best side by each measure.
        notes: what was chosen where nothing was given, and what does not compare as it stands.
    """

    sides: tuple[Side, ...]
    differences: tuple[Difference, ...]
    best: tuple[Best, ...]
    notes: tuple[str, ...]

    @property
    def fitting(self) -> tuple[str, ...]:
        """Labels of the sides that fit in the memory of a chip."""
        return tuple(side.label for side in self.sides if side.report.memory.fits)

    @property
    def fastest_fitting(self) -> str:
        """Label of the fastest side that fits; "" where none does."""
        fitting = [side for side in self.sides if side.report.memory.fits]
        return min(fitting, key=lambda side: side.report.totals.seconds).label if fitting else ""
