"""One optimizer step on a cluster: what it computes, moves, holds and takes, stage by stage."""

from einscale.training.advice import Advice, advise
from einscale.training.levers import levers
from einscale.training.reserved import reserved_memory, reserves
from einscale.training.step import train_report, trained_layers
from einscale.training.values import (
    Alive,
    LayerCost,
    Offload,
    StageReport,
    TrainReport,
    TrainSetup,
)

__all__ = [
    "Advice",
    "Alive",
    "LayerCost",
    "Offload",
    "StageReport",
    "TrainReport",
    "TrainSetup",
    "advise",
    "levers",
    "reserved_memory",
    "reserves",
    "train_report",
    "trained_layers",
]
