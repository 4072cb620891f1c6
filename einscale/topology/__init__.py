"""Times on links: mesh axes bound to network levels, alpha-beta prices of collectives, and their formulas in words."""

from einscale.topology.algorithms import Algorithm, algorithms
from einscale.topology.collective import Alone, group_axes, move_name, price_alone
from einscale.topology.formulas import ALGORITHMS, MOVES, Segment, collective_seconds
from einscale.topology.network import AnyNetwork, Network, Networks, Place, bind, level_counts, segments, split_levels
from einscale.topology.price import (
    PROVENANCE,
    Formula,
    LevelTerm,
    coefficients,
    explain,
    explain_step,
    seconds_on,
    step_seconds,
)

__all__ = [
    "ALGORITHMS",
    "MOVES",
    "PROVENANCE",
    "Algorithm",
    "Alone",
    "AnyNetwork",
    "Formula",
    "LevelTerm",
    "Network",
    "Networks",
    "Place",
    "Segment",
    "algorithms",
    "bind",
    "coefficients",
    "collective_seconds",
    "explain",
    "explain_step",
    "group_axes",
    "level_counts",
    "move_name",
    "price_alone",
    "seconds_on",
    "segments",
    "split_levels",
    "step_seconds",
]
