"""The table of forward maps.

FLOPs are counted as one for each addition, multiplication, division, comparison, square root and transcendental, in the
usual way of writing the operation; they are small beside the einsums, and a map is almost always bound by memory.
"""

from __future__ import annotations

from einscale.program.map_rule import MapRule
from einscale.vocabulary import SUM, Reduction

MANY = 64
"""Most operands of an n-ary map."""

NORM_OPTIONS = ("axis", "variant")
"""Options that a norm and its gradients need; those below are of other ops, `_MAY` those that may be left out."""

ROPE_OPTIONS = ("axis", "sequence")
ROPE_MAY = ("rotary", "theta")
MASK_MAY = ("alibi", "causal", "factor", "heads", "key", "query", "window")
ROUTE_MAY = ("factor", "groups", "normalise", "top_groups")
CONV_OPTIONS = ("sequence", "taps", "width")
DELTA_OPTIONS = ("axis", "chunk", "flops", "sequence", "value")

FORWARD_MAPS = (
    MapRule("add", 1, "one addition for each further operand, most have two", (2, MANY), linear=True),
    MapRule("mul", 1, "one multiplication", (2, 2), saves_inputs=(0, 1)),
    MapRule("scale", 1, "one multiplication", needs=("factor",), linear=True),
    MapRule("cast", 0, "a change of format, no arithmetic", shape="cast", needs=("dtype",), linear=True),
    MapRule("sum", 1, "one addition for each element summed", shape="sum", needs=("axes",), linear=True),
    MapRule("broadcast", 0, "copies", shape="broadcast", needs=("axes",), linear=True),
    MapRule("mask", 2, "one multiplication by the factor, one selection", takes=MASK_MAY),
    MapRule(
        "softcap",
        3,
        "cap tanh(c x): two multiplications and a tanh",
        needs=("cap",),
        takes=("factor",),
        saves_outputs=(0,),
    ),
    MapRule("clamp", 2, "two comparisons", needs=("limit",), saves_outputs=(0,)),
    MapRule(
        "softmax",
        5,
        "maximum, subtraction, exponential, sum, division",
        (1, 2),
        needs=("axis",),
        statistic=(Reduction.MAX, SUM),
        saves_outputs=(0,),
        fused_residual="lse",
    ),
    MapRule(
        "dropout",
        3,
        "one random comparison, one multiplication by the mask, one by 1/(1-rate)",
        extra_outputs=("mask",),
        needs=("rate",),
        saves_outputs=(1,),
    ),
    MapRule(
        "norm.rms",
        4,
        "square, sum, times the reciprocal root, times the scale",
        (1, 2),
        "first",
        needs=NORM_OPTIONS,
        takes=("eps",),
        statistic=(SUM,),
        saves_inputs=(0, 1),
    ),
    MapRule(
        "norm.layer",
        7,
        "sum, subtraction of the mean, square, sum, times the reciprocal root, times the scale, plus the bias",
        (1, 3),
        "first",
        needs=NORM_OPTIONS,
        takes=("eps",),
        statistic=(SUM, SUM),
        saves_inputs=(0, 1),
    ),
    MapRule(
        "gelu",
        9,
        "tanh form x(1+tanh(c(x+ax^3)))/2: 5 multiplications, 2 additions, tanh, half",
        takes=("approximate",),
        saves_inputs=(0,),
    ),
    MapRule("relu", 1, "one comparison", saves_outputs=(0,)),
    MapRule("silu", 4, "x/(1+exp(-x)): negation, exponential, addition, division", saves_inputs=(0,)),
    MapRule("sigmoid", 4, "1/(1+exp(-x)): negation, exponential, addition, division", saves_outputs=(0,)),
    MapRule("softplus", 3, "log(1+exp(x)): exponential, addition, logarithm", saves_inputs=(0,)),
    MapRule("exp", 1, "one exponential", saves_outputs=(0,)),
    MapRule("swiglu", 5, "silu (4) times the up projection", (2, 2), saves_inputs=(0, 1)),
    MapRule(
        "swiglu_clamped",
        10,
        "three comparisons, the gain, a sigmoid (4), one added to the up projection, two products less one",
        (2, 2),
        needs=("alpha", "limit"),
        saves_inputs=(0, 1),
    ),
    MapRule(
        "causal_conv",
        2,
        "one multiplication and one addition for each tap",
        (2, 2),
        "conv",
        needs=CONV_OPTIONS,
        whole=("sequence", "taps"),
        saves_inputs=(0, 1),
        counted_on="first",
        times=("width",),
    ),
    MapRule(
        "delta_rule",
        1,
        "the products of the chunked form, as `trace.delta_rule` counts them",
        (5, 5),
        "delta",
        needs=DELTA_OPTIONS,
        whole=("axis", "sequence", "value"),
        saves_inputs=(0, 1, 2, 3, 4),
        times=("flops",),
    ),
    MapRule("geglu", 10, "gelu (9) times the up projection", (2, 2), takes=("approximate",), saves_inputs=(0, 1)),
    MapRule(
        "rope",
        3,
        "x cos + rotated x sin: two multiplications and an addition",
        needs=ROPE_OPTIONS,
        takes=ROPE_MAY,
        linear=True,
        whole=("axis",),
    ),
    MapRule(
        "lookup",
        0,
        "copies rows of a table",
        (2, 2),
        "lookup",
        needs=("axis",),
        saves_inputs=(1,),
        integer_inputs=(1,),
        row_inputs=(0,),
    ),
    MapRule(
        "append",
        0,
        "writes rows behind those of a cache, in place",
        (2, 2),
        "append",
        needs=("axis",),
    ),
    MapRule(
        "carry",
        0,
        "a recurrent state, read and written whole; the arithmetic is that of the map it belongs to",
        (2, 2),
        "first",
    ),
    MapRule(
        "cross_entropy",
        4,
        "maximum, subtraction, exponential, sum for each logit",
        (2, 2),
        "reduce",
        ("lse",),
        needs=("axis",),
        statistic=(Reduction.MAX, SUM, SUM),
        saves_inputs=(0, 1),
        saves_outputs=(1,),
        integer_inputs=(1,),
    ),
    MapRule(
        "log_softmax",
        5,
        "maximum, subtraction, exponential, sum, subtraction of the logarithm",
        needs=("axis",),
        statistic=(Reduction.MAX, SUM),
        saves_outputs=(0,),
    ),
    MapRule(
        "pick",
        0,
        "reads one element, minus it",
        (2, 2),
        "reduce",
        needs=("axis",),
        statistic=(SUM,),
        saves_inputs=(0, 1),
        integer_inputs=(1,),
    ),
    MapRule(
        "route",
        6,
        "softmax (5) or sigmoid (4) of each logit, one comparison",
        (1, 2),
        "route",
        needs=("axis", "scoring", "top"),
        takes=ROUTE_MAY,
        whole=("axis",),
        saves_inputs=(0,),
        saves_outputs=(0,),
        constant_inputs=(1,),
    ),
    MapRule(
        "dispatch",
        0,
        "copies of a row, one for each element chosen",
        (2, 2),
        "dispatch",
        needs=("axis",),
        takes=("capacity",),
        linear=True,
        constant_inputs=(1,),
    ),
    MapRule("arrange", 0, "copies", linear=True),
    MapRule("combine", 1, "one addition for each copy", shape="combine", needs=("axis",), linear=True),
)
"""Every map of a forward pass; those at the end route tokens to experts."""
