"""The words that several rooms share, one enum for each vocabulary.

A member is its text: it compares, hashes, prints and serialises as that text, so tables may be read with either.
Vocabularies that one room alone speaks stand in that room.

>>> Phase.FORWARD == "forward", {"forward": 1}[Phase.FORWARD], f"{Phase.FORWARD}"
(True, 1, 'forward')
"""

from __future__ import annotations

from enum import StrEnum


class CollectiveKind(StrEnum):
    """Moves between layouts; the first two send nothing."""

    SLICE = "slice"
    MASK = "mask"
    ALL_GATHER = "all-gather"
    REDUCE_SCATTER = "reduce-scatter"
    ALL_REDUCE = "all-reduce"
    ALL_TO_ALL = "all-to-all"
    PERMUTE = "permute"


class Phase(StrEnum):
    """The pass of a training step that a statement belongs to."""

    FORWARD = "forward"
    RECOMPUTE = "recompute"
    BACKWARD = "backward"
    UPDATE = "update"


FORWARD = Phase.FORWARD
RECOMPUTE = Phase.RECOMPUTE
BACKWARD = Phase.BACKWARD
UPDATE = Phase.UPDATE


class ValueKind(StrEnum):
    """What a value of a program is; `Value` says what each is."""

    INPUT = "input"
    PARAMETER = "parameter"
    ACTIVATION = "activation"
    RESIDUAL = "residual"
    GRADIENT = "gradient"
    CACHE = "cache"
    STATE = "state"
    UPDATED = "updated"


INPUT = ValueKind.INPUT
PARAMETER = ValueKind.PARAMETER
ACTIVATION = ValueKind.ACTIVATION
RESIDUAL = ValueKind.RESIDUAL
GRADIENT = ValueKind.GRADIENT
CACHE = ValueKind.CACHE
STATE = ValueKind.STATE
UPDATED = ValueKind.UPDATED


class TensorClass(StrEnum):
    """Classes of tensors: what store tables speak of, and what collectives are said to move.

    `RESIDUAL` and `ROUTED` are for store tables alone; `ACTIVATIONS`, `STATISTICS` and `SHARED` for collectives alone.
    """

    RESIDUAL = "residual"
    PARAMETERS = "parameters"
    GRADIENTS = "gradients"
    ACTIVATIONS = "activations"
    STATISTICS = "statistics"
    SHARED = "shared"
    KV_CACHE = "kv_cache"
    OPTIMIZER = "optimizer"
    ROUTED = "routed"


class Moving(StrEnum):
    """What a collective moves, as a step's time and overlap tell them apart; the first four may be hidden."""

    PARAMETERS = "parameters"
    GRADIENTS = "gradients"
    ACTIVATIONS = "activations"
    ROUTED = "routed"
    STREAMED = "streamed"
    STATISTICS = "statistics"
    OPTIMIZER = "optimizer"
    STAGES = "between stages"


class LimitedBy(StrEnum):
    """What local work waits for."""

    COMPUTE = "compute"
    MEMORY = "memory"
    LAUNCH = "launch"


COMPUTE = LimitedBy.COMPUTE
MEMORY = LimitedBy.MEMORY
LAUNCH = LimitedBy.LAUNCH


class Provenance(StrEnum):
    """What a time is worth: no run is faster than a bound; a model has measured figures in it."""

    BOUND = "bound"
    MODELLED = "modelled"


BOUND = Provenance.BOUND
MODELLED = Provenance.MODELLED


class Reduction(StrEnum):
    """What makes one value of partial ones."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


SUM = Reduction.SUM


class Goal(StrEnum):
    """What a plan has the least of."""

    TIME = "time"
    BYTES = "bytes"


TIME = Goal.TIME
BYTES = Goal.BYTES


class Convention(StrEnum):
    """How model FLOPs count attention: half of its square, or all of it."""

    CAUSAL = "causal"
    FULL = "full"
