"""The strategy taken where none is named: by the roles that the axes of the mesh play."""

from __future__ import annotations

from collections.abc import Mapping

from einscale.errors import StrategyError, did_you_mean, near_miss
from einscale.mesh import Mesh
from einscale.strategy.values import ROLES

TRAINING = {
    (): "dp",
    ("data",): "fsdp",
    ("model",): "megatron-sp",
    ("data", "model"): "fsdp+tp",
    ("context",): "context",
    ("data", "context"): "context",
    ("model", "context"): "megatron-sp+context",
    ("data", "model", "context"): "megatron-sp+context",
    ("pod", "data"): "hsdp",
}
"""Roles that the mesh has -> the strategy that a model is trained with when none is given."""

SERVING = {
    (): "dp",
    ("data",): "dp",
    ("model",): "megatron",
    ("data", "model"): "megatron",
    ("x", "y"): "2d",
    ("data", "x", "y"): "2d",
    ("model", "context"): "split-kv",
    ("data", "model", "context"): "split-kv",
}
"""Roles that the mesh has -> the strategy requests are answered with when none is given."""


def default_strategy(mesh: Mesh, table: Mapping[tuple[str, ...], str] = TRAINING) -> str:
    """Name of the strategy used when none is given: by the roles the axes of the mesh play.

    Args:
        mesh: the devices.
        table: roles, those of experts and pipeline stages aside -> the strategy.

    >>> from einscale.mesh import parse_mesh
    >>> default_strategy(parse_mesh("data=8,model=8")), default_strategy(parse_mesh("tp=8"))
    ('fsdp+tp', 'megatron-sp')

    Raises:
        StrategyError: no named strategy suits the mesh.
    """
    live = [axis.name for axis in mesh.axes if axis.size > 1]
    roles = {next((role for role, names in ROLES.items() if name in names), name) for name in live}
    roles = {"data" if role == "expert" else role for role in roles}  # the batch is divided over both
    roles -= {"pipe"}  # stages of a pipeline: within one, any strategy will do
    for known, strategy in table.items():
        if roles == set(known):
            return strategy
    names = [name for role in ROLES.values() for name in role]
    typo = next((name for name in live if name not in (*names, "x", "y") and near_miss(name, names)), None)
    start = str(mesh).find(f"{typo}=")
    raise StrategyError(
        f"no strategy is given, and none suits the mesh axes {', '.join(live)} by itself",
        text=str(mesh),
        span=(start, start + len(typo)) if typo else None,
        expected="a strategy that uses these axes; `einscale strategies` lists those known by name",
        hint=did_you_mean(typo, names) if typo else None,
    )


def default_serving_strategy(mesh: Mesh) -> str:
    """Name of the strategy requests are answered with when none is given: by the roles the mesh axes play.

    >>> from einscale.mesh import parse_mesh
    >>> default_serving_strategy(parse_mesh("model=8")), default_serving_strategy(parse_mesh("pipe=2,x=4,y=4"))
    ('megatron', '2d')

    Raises:
        StrategyError: no named strategy suits the mesh.
    """
    return default_strategy(mesh, SERVING)
