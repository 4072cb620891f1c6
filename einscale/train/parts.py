"""What a step's time goes to and what a device's memory holds: the two vocabularies of the training report."""

from __future__ import annotations

from enum import StrEnum


class TimePart(StrEnum):
    """What a part of a step's time goes to."""

    FORWARD = "forward"
    BACKWARD = "backward"
    ACCUMULATE = "accumulate"
    RECOMPUTE = "recompute"
    OFFLOADED_ACTIVATIONS = "offloaded activations"
    PARAMETERS = "parameters"
    GRADIENTS = "gradients"
    ACTIVATIONS = "activations"
    ROUTED = "routed"
    STATISTICS = "statistics"
    STREAMED = "streamed"
    BUBBLE = "bubble"
    WAIT = "wait"
    GRADIENTS_ONCE = "gradients once a step"
    PARAMETERS_ONCE = "parameters once a step"
    FIRST_AND_LAST = "first and last layer"
    OPTIMIZER_ONCE = "optimizer once a step"
    SHARED_TABLE = "shared table once a step"
    UPDATE = "update"
    OFFLOADED_OPTIMIZER = "offloaded optimizer"

    @property
    def group(self) -> TimeGroup:
        """Whether it is local work, what is left of collectives, or waiting."""
        return _GROUPS.get(self, TimeGroup.COLLECTIVES)


class TimeGroup(StrEnum):
    """What sort of time a part of a step is."""

    WORK = "local work"
    COLLECTIVES = "exposed collectives"
    WAITING = "waiting"


_GROUPS = {
    **dict.fromkeys((TimePart.FORWARD, TimePart.BACKWARD, TimePart.ACCUMULATE, TimePart.RECOMPUTE), TimeGroup.WORK),
    **dict.fromkeys((TimePart.OFFLOADED_ACTIVATIONS, TimePart.OFFLOADED_OPTIMIZER, TimePart.UPDATE), TimeGroup.WORK),
    **dict.fromkeys((TimePart.BUBBLE, TimePart.WAIT, TimePart.FIRST_AND_LAST), TimeGroup.WAITING),
}


class MemoryPart(StrEnum):
    """What a device holds a tensor as."""

    PARAMETERS = "parameters"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    SAVED = "saved"
    GATHERED = "gathered"
    WORKING = "working"
    OVERHEAD = "overhead"
    HOST = "host"
