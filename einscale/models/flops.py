"""Model FLOPs: what the mathematics of a training step needs, from the einsums of a model's programs.

A forward and backward pass of an einsum is three times its forward FLOPs (the gradient of each of two operands costs as
much again). Norms, activations and the like are left out, as everyone does (Chowdhery et al. 2022, arXiv 2204.02311,
appendix B), and so is recomputation. Of routed experts the chosen ones count.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from einscale.errors import UsageError, did_you_mean
from einscale.models.values import LayerKind, Model
from einscale.numeric import ceil_div, product
from einscale.program.maps import attended_pairs, flops_per_element
from einscale.program.shapes import program_sizes
from einscale.program.values import Program, Statement
from einscale.units import check_size
from einscale.vocabulary import PARAMETER, Convention

CONVENTIONS = tuple(Convention)
"""How attention is counted: the pairs that its mask lets through, or all pairs of a sequence."""


def find_convention(name: str) -> Convention:
    """How attention is counted, by its name.

    >>> print(find_convention("full"))
    full

    Raises:
        UsageError: an unknown convention.
    """
    if name not in CONVENTIONS:
        hint = did_you_mean(name, CONVENTIONS, "conventions")
        raise UsageError(f"unknown convention of attention `{name}`", hint=hint)
    return Convention(name)


class ModelFlops(Struct, frozen=True):
    """FLOPs of the forward and backward pass of one sequence.

    Args:
        sequence: its tokens.
        projections: einsums that read a parameter.
        attention: the others: scores and what they weigh.
        recurrence: convolutions and recurrences of linear layers, by the count that their maps state.
        router: of `projections` and not counted in `total` unless asked for: the experts' router.
        total: what is counted.
        convention: of the attention.
    """

    sequence: int
    projections: int
    attention: int
    recurrence: int
    router: int
    total: int
    convention: Convention

    @property
    def per_token(self) -> float:
        """FLOPs of the forward and backward pass of one token."""
        return self.total / self.sequence


def model_flops(
    model: Model, sequence: int, *, convention: str = "causal", ahead: bool = True, router: bool = False
) -> ModelFlops:
    """Model FLOPs of one sequence, forward and backward.

    Defaults are those of NVIDIA's Megatron-Bridge: half of causal attention, windows respected; layers that predict
    further tokens counted; routers not. Before 2025 many sources counted all pairs (`full`).

    Args:
        model: what is trained.
        sequence: tokens of a sequence.
        convention: `causal` or `full`, see `CONVENTIONS`.
        ahead: count the layers that only training runs.
        router: count the projection to the experts' scores.

    >>> from einscale.models import load_model
    >>> round(model_flops(load_model("llama3-8b"), 8192).per_token / 1e9, 2)
    51.47

    Raises:
        UsageError: an unknown convention.
        SizeError: a sequence that is no positive size, or an axis of a program of one's own without a size.
    """
    counted = find_convention(convention)
    check_size(sequence, "length of the sequence")
    parts = {"projections": 0, "attention": 0, "recurrence": 0, "router": 0}
    for layer in (*model.layers, *(model.ahead if ahead else ())):
        for name, flops in layer_flops(layer, sequence, counted).items():
            parts[name] += flops * layer.repeat
    total = parts["projections"] + parts["attention"] + parts["recurrence"] + (parts["router"] if router else 0)
    return ModelFlops(sequence, total=total, convention=counted, **parts)


def layer_flops(layer: LayerKind, sequence: int, convention: str) -> dict[str, int]:
    """Forward and backward FLOPs of one layer and one sequence, by the parts of `ModelFlops`."""
    program = layer.program
    sizes = program_sizes(program, defaults={"b": 1, "s": sequence})
    sizes |= {"b": 1} if "b" in sizes else {}
    masks = [statement for statement in program.statements if statement.op == "mask"]
    parts = {"projections": 0, "attention": 0, "recurrence": 0, "router": 0}
    for statement in program.statements:
        if statement.op == "einsum":
            kind = _kind(statement, program)
            flops = _einsum_flops(statement, program, sizes)
            if kind == "attention" and convention == "causal":
                flops = _attended(statement, masks, flops, sizes)
            parts[kind] += 3 * flops
        elif statement.op in ("causal_conv", "delta_rule"):
            largest = max(product(sizes[axis] for axis in program.table[name].axes) for name in statement.inputs)
            parts["recurrence"] += 3 * int(largest * flops_per_element(statement))
    return parts


def _kind(statement: Statement, program: Program) -> str:
    """Which part an einsum belongs to; a router's is the one whose result, perhaps with a bias, `route` reads."""
    if not any(program.table[name].kind == PARAMETER for name in statement.inputs):
        return "attention"
    ways = {statement.output}
    for later in program.statements:
        if later.op in ("add", "cast") and ways & set(later.inputs) and later.group == statement.group:
            ways.add(later.output)
        if later.op == "route" and ways & set(later.inputs):
            return "router"
    return "projections"


def _einsum_flops(statement: Statement, program: Program, sizes: Mapping[str, int]) -> int:
    """Forward FLOPs: two for each point of the iteration space, of a chosen axis only the chosen."""
    labels = dict.fromkeys(label for operand in statement.labels for label in operand)
    points = int(product(sizes[label] for label in labels))
    chosen = {
        label: count
        for name, operand in zip(statement.inputs, statement.labels, strict=False)
        for axis, count in program.table[name].chosen
        for label in (operand[program.table[name].axes.index(axis)],)
    }
    for label, count in chosen.items():
        points = int(ceil_div(points * count, sizes[label]))
    return 2 * points if len(statement.inputs) > 1 else 0


def _attended(statement: Statement, masks: list[Statement], flops: int, sizes: Mapping[str, int]) -> int:
    """FLOPs of the pairs that a mask lets through, where an einsum runs over queries and keys."""
    labels = {label for operand in statement.labels for label in operand}
    for mask in masks:
        query, key = str(mask.option("query")), str(mask.option("key"))
        if {query, key} <= labels:
            pairs = sizes[query] * sizes[key]
            return flops // pairs * int(attended_pairs(mask, sizes[query], sizes[key]))
    return flops
