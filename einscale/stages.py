"""Pipeline stages: the mesh axis that they lie along, and the layers that each of them holds."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from einscale.mesh import Mesh
from einscale.models import Model, block_order
from einscale.strategy import ROLES, Rule, Strategy

LAYER = "layer"
"""Index of a rule that divides layers: `layer -> pipe` is a pipeline. No statement has it."""

EMBEDDING = "embedding"
"""Kind of layer that the first stage holds."""

HEAD = "head"
"""Kind of layer that the last stage holds."""


def pipe_axis(mesh: Mesh) -> str:
    """Mesh axis that plays the role `pipe`, "" if none has more than one device.

    >>> from einscale.mesh import parse_mesh
    >>> pipe_axis(parse_mesh("pp=4,model=2")), pipe_axis(parse_mesh("model=2"))
    ('pp', '')
    """
    return next((name for name in mesh.names if name in ROLES["pipe"] and mesh.size(name) > 1), "")


def in_stages(strategy: Strategy, pipe: str) -> Strategy:
    """The strategy with its layers divided over the pipeline axis, where the mesh has one.

    Args:
        strategy: roles not yet bound.
        pipe: name of the pipeline axis, "" for none.

    >>> from einscale.strategy import load_strategy
    >>> [str(rule) for rule in in_stages(load_strategy("dp"), "pp").compute][:1]
    ['layer -> pipe']
    """
    if not pipe or any(rule.index == LAYER for rule in strategy.compute):
        return strategy
    return replace(strategy, compute=(Rule(LAYER, ("pipe",)), *strategy.compute))


def held_layers(model: Model, counts: Iterable[int], *, ahead: bool = False) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Kinds of layers, and how many of each, in every part of a model: the first has the embedding, the last the head.

    Args:
        model: its layers.
        counts: blocks in each part, in the order a token passes them.
        ahead: the last part also holds the layers that predict tokens further ahead.

    >>> from einscale.models import load_model
    >>> held_layers(load_model("llama3-8b"), (20, 12))
    ((('embedding', 1), ('block', 20)), (('block', 12), ('head', 1)))
    """
    blocks = block_order(model)
    kinds = [layer.kind for layer in model.layers]
    parts, start = [], 0
    for count in counts:
        parts.append(list(blocks[start : start + count]))
        start += count
    parts[0] = [kind for kind in (EMBEDDING,) if kind in kinds] + parts[0]
    parts[-1] += [kind for kind in (HEAD,) if kind in kinds]
    if ahead:
        parts[-1] += [layer.kind for layer in model.ahead for _ in range(layer.repeat)]
    return tuple(tuple((kind, part.count(kind)) for kind in dict.fromkeys(part)) for part in parts)
