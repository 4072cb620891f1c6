"""One optimizer step on a cluster: what it computes, moves, holds and takes, stage by stage."""

from einscale.train.advice import Advice, advise
from einscale.train.levers import levers
from einscale.train.request import make_setup
from einscale.train.reserved import reserved_memory, reserves
from einscale.train.step import train_report, trained_layers
from einscale.train.values import (
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
    "make_setup",
    "reserved_memory",
    "reserves",
    "train_report",
    "trained_layers",
]
