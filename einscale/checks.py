"""Whether a strategy, a model, a mesh and a batch fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from msgspec.structs import replace

from einscale.errors import SizeError, StrategyError, did_you_mean, near_miss
from einscale.layout import shards
from einscale.mesh import Mesh
from einscale.models import LayerKind, Model
from einscale.numeric import nearest_divisors, nearest_multiples, product
from einscale.program.recompute import MODES, WHOLE
from einscale.program.shapes import axis_names
from einscale.program.shapes import program_sizes as sizes_of
from einscale.program.values import Program
from einscale.strategy import LARGEST, ROLES, Strategy, bind_strategy, place

AXES = ("b", "s", "t", "d", "h", "n", "g", "k", "f", "v", "p", "e", "m", "l", "q", "r", "u", "c", "w", "layer")
"""Axes and composites of the built-in models, and what the stages of a pipeline divide."""

GROUPS = ("attention", "activation", "routing")
"""Statement groups of the built-in models."""


def check_names(strategy: Strategy, model: Model) -> None:
    """Raise where a strategy speaks of an axis, a scope or a statement group that nothing in a model has.

    Axes that the built-in models use are always known, so that one strategy serves models that lack some of them.

    Raises:
        StrategyError: a rule that would match nothing, with the near miss.
    """
    axes, groups, sections, results = _names_of(model.layers)
    rules = [*strategy.compute, *(rule for _, table in strategy.store for rule in table)]
    policy = strategy.policy
    asked = [
        *((rule.index, "axis", axes) for rule in rules),
        *((rule.scope, "group or section", {**groups, **sections}) for rule in rules if rule.scope),
        *((name, "group", groups) for name in (*policy.fuse, *policy.stream)),
        *(
            (name, "group, section or result", {**groups, **sections, **results, **dict.fromkeys((WHOLE, *MODES))})
            for name in policy.recompute
        ),
        *((name, "group, section or result", {**groups, **sections, **results}) for name in policy.auto),
    ]
    for name, what, known in asked:
        if name not in known and not (known is not axes and name.startswith("d_")):
            raise StrategyError(
                f"strategy `{strategy.name}` speaks of the {what} `{name}`, which no layer of {model.name} has",
                hint=_known_names(name, known, results),
            )


@lru_cache(maxsize=256)
def _names_of(
    layers: tuple[LayerKind, ...],
) -> tuple[dict[str, None], dict[str, None], dict[str, None], dict[str, None]]:
    """Axes, groups, sections and results that a model's layers have, and the axes that the built-in ones use."""
    axes = dict.fromkeys((LARGEST, *AXES))
    for layer in layers:
        axes |= dict.fromkeys((*axis_names(layer.program), *(name for name, _ in layer.program.composites)))
    statements = [statement for layer in layers for statement in layer.program.statements]
    groups = dict.fromkeys((*GROUPS, *(s.group for s in statements if s.group)))
    sections = dict.fromkeys(("attention", "mlp", "experts", *(s.section for s in statements if s.section)))
    results = dict.fromkeys(name for s in statements for name in (*s.outputs, *(f"d_{one}" for one in s.outputs)))
    return axes, groups, sections, results


def _known_names(name: str, known: Mapping[str, None], results: Mapping[str, None]) -> str:
    """The near miss of a name; else what there is, results of statements left out for there are many."""
    if near_miss(name, known) is not None or not results.keys() <= known.keys():
        return did_you_mean(name, known, "known")
    rest = ", ".join(one for one in known if one not in results)
    return f"known: {rest}, and the results of statements (`einscale program MODEL` lists them)"


def recomputed_here(strategy: Strategy, program: Program) -> Strategy:
    """The strategy for one layer: full recomputation is of blocks, an embedding and a head keep what they save.

    Frameworks checkpoint block by block: what a head makes is needed at once, and would be made twice for nothing.
    """
    if WHOLE not in strategy.policy.recompute or not is_end(program):
        return strategy
    return replace(strategy, policy=replace(strategy.policy, recompute=()))


def is_end(program: Program) -> bool:
    """Whether a layer is an embedding or a head and no block: it looks up tokens or makes the loss, and has no group.

    >>> from einscale.models import load_model
    >>> [is_end(layer.program) for layer in load_model("llama3-8b").layers]
    [True, False, True]
    """
    ops = {statement.op for statement in program.statements}
    groups = any(statement.group for statement in program.statements)
    return not groups and bool(ops & {"lookup", "cross_entropy", "log_softmax"})


def program_sizes(program: Program, batch: int, sequence: int) -> dict[str, int]:
    """Sizes of every axis of a program: its own, batch `b`, and the sequence `s` (queries) and `t` (keys).

    Raises:
        SizeError: the size of another axis is not given.
    """
    return sizes_of(program, defaults={"b": batch, "s": sequence, "t": sequence})


def role_names(strategy: Strategy, mesh: Mesh) -> dict[str, str]:
    """Mesh axis -> the role it plays in a strategy."""
    return {
        name: next((role for role in strategy.roles if name in (role, *ROLES.get(role, ()))), name)
        for name in mesh.names
    }


def batch_ways(strategy: Strategy, mesh: Mesh) -> int:
    """How many ways a strategy divides the batch on a mesh.

    >>> from einscale.mesh import parse_mesh
    >>> from einscale.strategy import load_strategy
    >>> batch_ways(load_strategy("fsdp+tp"), parse_mesh("dp=4,tp=2"))
    4
    """
    rules = bind_strategy(strategy, mesh).compute
    axes = dict.fromkeys(axis for rule in rules if rule.index == "b" for axis in rule.axes)
    return int(product(mesh.size(axis) for axis in axes))


def check_divides(batch: int, ways: int, over: str) -> None:
    """Raise unless a batch divides evenly.

    Args:
        batch: sequences.
        ways: how many ways it is divided.
        over: what it is divided over, in words.

    Raises:
        SizeError: it does not; the message names the nearest that do.
    """
    if batch % ways:
        near = " or ".join(str(number) for number in nearest_multiples(batch, ways))
        raise SizeError(
            f"a batch of {batch} sequence{'s' if batch > 1 else ''} does not divide over {over}",
            hint=f"the nearest that does is {near}",
        )


def check_experts(strategy: Strategy, mesh: Mesh, model: Model) -> None:
    """Raise unless experts divide evenly over the devices that hold them.

    Args:
        strategy: bound to the mesh.
        mesh: the devices.
        model: its layers.

    Raises:
        StrategyError: some devices would hold fewer experts than others.
    """
    for layer in (*model.layers, *model.ahead):
        sizes = dict(layer.program.sizes)
        if "e" not in sizes:
            continue
        rules = tuple(rule for rule in strategy.compute if rule.index == "e")
        axes = place(("e",), rules, sizes, mesh, {}, ("experts",))["e"]
        ways = int(shards(axes, mesh.degrees))
        count = sizes["e"]
        if count % ways:
            near = " or ".join(str(number) for number in nearest_divisors(count, ways))
            raise StrategyError(
                f"{count} experts of {model.name} do not divide over {ways} devices along {'/'.join(axes)}",
                hint=f"divide them {near} ways",
            )
