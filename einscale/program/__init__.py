"""Programs: statements over named tensors, written as Python functions or text, and their backward pass."""

from einscale.program.backward import Gradients, backward, differentiate
from einscale.program.map_rule import MapRule
from einscale.program.maps import (
    MAPS,
    OPS,
    attended_pairs,
    fused_residuals,
    rule,
    saved,
    statistic_axes,
    statistics,
    summed_axes,
    whole_axes,
)
from einscale.program.recompute import WHOLE
from einscale.program.shapes import check_program, is_float, program_sizes
from einscale.program.text import parse_program, parse_programs, print_program
from einscale.program.trace import trace
from einscale.program.values import Option, Program, Statement, Value

__all__ = [
    "MAPS",
    "OPS",
    "WHOLE",
    "Gradients",
    "MapRule",
    "Option",
    "Program",
    "Statement",
    "Value",
    "attended_pairs",
    "backward",
    "check_program",
    "differentiate",
    "fused_residuals",
    "is_float",
    "parse_program",
    "parse_programs",
    "print_program",
    "program_sizes",
    "rule",
    "saved",
    "statistic_axes",
    "statistics",
    "summed_axes",
    "trace",
    "whole_axes",
]
