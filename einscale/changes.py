"""Changes of a request, as values: which option, and what it is set to; `report.words` writes them as one would ask."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from einscale.mesh import Mesh
from einscale.precision import Precision


class Option(StrEnum):
    """What a change sets, named as the argument of `train_step` and `infer` is."""

    BATCH = "batch"
    CHUNK = "chunk"
    DISAGGREGATE = "disaggregate"
    MESH = "mesh"
    MICROBATCH = "microbatch"
    OFFLOAD_OPTIMIZER = "offload_optimizer"
    PRECISION = "precision"
    PREFILL_BATCH = "prefill_batch"
    RECOMPUTE = "recompute"
    SCHEDULE = "schedule"
    ZERO = "zero"


class Change(Struct, frozen=True):
    """One option set to another value.

    Args:
        option: which.
        value: what it is set to; True for an option that takes no value.

    >>> Change(Option.MICROBATCH, 2)
    Change(option=<Option.MICROBATCH: 'microbatch'>, value=2)
    """

    option: Option
    value: int | str | Mesh | Precision


def options_of(changes: tuple[Change, ...]) -> frozenset[Option]:
    """The options that changes set."""
    return frozenset(change.option for change in changes)


def arguments_of(changes: tuple[Change, ...]) -> dict[str, object]:
    """Changes as keyword arguments: of two that set the same option the later counts.

    >>> arguments_of((Change(Option.RECOMPUTE, "full"), Change(Option.ZERO, 1)))
    {'recompute': 'full', 'zero': 1}
    """
    return {change.option.value: change.value for change in changes}
