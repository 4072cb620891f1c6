"""What hides a collective, as a value: which work runs meanwhile; `report.words` says it in a sentence."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from einscale.vocabulary import Phase


class HidingWork(StrEnum):
    """Work that does not wait for a collective, and so may run beside it."""

    LAYER_BEFORE = "layer before"
    LAYER_AFTER = "layer after"
    OTHER_MICROBATCH = "other microbatch"
    OWN_EINSUM = "own einsum"
    RING_BLOCK = "ring block"
    LAST_BACKWARD = "last backward pass"
    FIRST_FORWARD = "first forward pass"


class Hider(Struct, frozen=True):
    """The work behind which a collective hides.

    Args:
        work: what it is.
        phase: `forward` or `backward`, the pass it belongs to, where that is not clear from `work`; else "".
        statement: first output of the einsum, for `OWN_EINSUM`; "" for that of each of several collectives.

    >>> Hider(HidingWork.LAYER_BEFORE, Phase.FORWARD).work.value
    'layer before'
    """

    work: HidingWork
    phase: Phase | Literal[""] = ""
    statement: str = ""
