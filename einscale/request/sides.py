"""The strategies of a comparison as a caller gives them: `NAME@MESH`, pairs, values; what each is called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from einscale.checks import batch_ways
from einscale.errors import EinscaleError, StrategyError, UsageError
from einscale.mesh import Mesh, make_mesh
from einscale.stages import in_stages, pipe_axis
from einscale.strategy import Strategy, bind_strategy, load_strategy

MeshLike: TypeAlias = Mesh | str | Mapping[str, int]
Chosen: TypeAlias = str | Strategy | tuple[str | Strategy, MeshLike]
"""A strategy by name, file or value; with `@MESH` behind it, or in a pair, on a mesh of its own."""

MOST = 16
"""Strategies compared at once; more is a search, and its tables nobody reads."""

OWN_MESH = re.compile(r"(?P<name>.*?)@(?P<mesh>[A-Za-z]\w*\s*=.*)", re.DOTALL)
"""`fsdp@data=64` and `my.toml@data=8@ib,model=8`: the mesh begins at the first `@` before a `NAME=`."""


def listed(strategies: Sequence[Chosen]) -> Sequence[Chosen]:
    """The strategies, of which there must be enough and not too many."""
    several = [strategies] if isinstance(strategies, (str, Strategy)) else list(strategies)
    if len(several) < 2:
        found = f"`{_called(several[0])}` alone has nothing to be compared with" if several else "no strategy is given"
        raise UsageError(found, expected="two strategies or more, for example megatron and megatron-sp")
    if len(several) > MOST:
        raise UsageError(f"{len(several)} strategies are too many to read side by side", expected=f"at most {MOST}")
    return several


def _called(chosen: Chosen) -> str:
    """What a strategy was called when it was given."""
    name = chosen[0] if isinstance(chosen, tuple) else chosen
    return name.name if isinstance(name, Strategy) else name


def chosen_side(chosen: Chosen, shared: MeshLike | None) -> tuple[Strategy, Mesh]:
    """A strategy and the mesh it is to run on."""
    own: MeshLike | None = None
    name: str | Strategy
    if isinstance(chosen, tuple):
        name, own = chosen
    else:
        name = chosen
        found = OWN_MESH.fullmatch(chosen) if isinstance(chosen, str) else None
        if found:
            name, own = found["name"], found["mesh"]
    if isinstance(name, str) and "@" in name and not name.endswith(".toml") and "/" not in name:
        raise _no_mesh(name)
    if name == "":
        raise UsageError(
            "a strategy is missing before `@`", text=str(chosen), span=(0, 1), expected="NAME@MESH such as fsdp@data=64"
        )
    strategy = name if isinstance(name, Strategy) else load_strategy(name)
    devices = own if own is not None else shared
    if devices is None:
        raise UsageError(
            f"`{strategy.name}` has no mesh",
            expected=f"--mesh for all of them, or a mesh of its own: {strategy.name}@data=8,model=8",
        )
    return strategy, make_mesh(devices)


def _no_mesh(text: str) -> EinscaleError:
    """What is wrong with the mesh behind `@`."""
    start = text.index("@") + 1
    return UsageError(
        "cannot read the mesh behind `@`",
        text=text,
        span=(min(start, len(text) - 1), len(text)),
        expected="STRATEGY@NAME=INT,... such as fsdp@data=64",
    )


def side_labels(chosen: Sequence[tuple[Strategy, Mesh]]) -> list[str]:
    """What each is called: its strategy's name, with its mesh where that tells them apart.

    Raises:
        UsageError: the same strategy on the same mesh twice.
    """
    meshes = {str(mesh) for _, mesh in chosen}
    labels: list[str] = []
    for position, (strategy, mesh) in enumerate(chosen):
        if (strategy, mesh) in chosen[:position]:
            raise UsageError(f"`{strategy.name}` on {mesh} is given twice", expected="strategies or meshes that differ")
        label = f"{strategy.name}@{mesh}" if len(meshes) > 1 else strategy.name
        twins = sum(other == label or other.startswith(f"{label} (") for other in labels)
        labels.append(f"{label} ({twins + 1})" if twins else label)
    return labels


def side_ways(label: str, strategy: Strategy, mesh: Mesh) -> int:
    """How many ways a strategy divides the batch; the first thing to go wrong where it does not fit its mesh."""
    staged = in_stages(strategy, pipe_axis(mesh))
    try:
        bind_strategy(staged, mesh)
        return batch_ways(staged, mesh)
    except StrategyError as error:
        if "has no role" in error.message:
            error.hint = f"give it a mesh of its own: {strategy.name}@{_suited(strategy, mesh)}"
        raise said_of(error, label) from None


def _suited(strategy: Strategy, mesh: Mesh) -> str:
    """A mesh of as many devices, along the first axis that plays a role in the strategy."""
    for axis in mesh.axes:
        alone = Mesh((type(axis)(axis.name, mesh.devices),))
        try:
            bind_strategy(strategy, alone)
        except StrategyError:
            continue
        return str(alone)
    return f"{strategy.roles[0] if strategy.roles else 'data'}={mesh.devices}"


def said_of(error: EinscaleError, label: str) -> EinscaleError:
    """The same error, saying which strategy it is about."""
    if f"`{label}`" in error.message:
        return error
    return type(error)(
        f"{label}: {error.message}", text=error.text, span=error.span, expected=error.expected, hint=error.hint
    )
