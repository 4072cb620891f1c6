"""ZeRO on any strategy: optimizer state, gradients and parameters divided over the devices that repeat them."""

from __future__ import annotations

from msgspec.structs import replace

from einscale.errors import StrategyError
from einscale.strategy.values import LARGEST, Rule, Strategy

REPEATING = ("b", "s")
"""Axes of a batch: devices that divide them hold the same parameters."""

STAGES = ("none", "optimizer", "gradients", "parameters")
"""What each stage divides, the ones before it included."""

MODEL = "d"
"""Axis that is divided where a tensor has it: most do, and compute rules leave it whole."""


def replicas(strategy: Strategy) -> tuple[str, ...]:
    """Roles whose devices repeat the parameters: those that divide the batch or the sequence, major to minor.

    >>> from einscale.strategy import load_strategy
    >>> replicas(load_strategy("hsdp")), replicas(load_strategy("megatron-sp+context"))
    (('pod', 'data', 'expert'), ('data', 'expert', 'context'))
    """
    return tuple(
        dict.fromkeys(
            axis
            for index in REPEATING
            for rule in strategy.compute
            if rule.index == index and not rule.scope
            for axis in rule.axes
        )
    )


def with_zero(strategy: Strategy, stage: int) -> Strategy:
    """The strategy with the store rules of a ZeRO stage added: optimizer state (1), gradients (2), parameters (3).

    They are divided over every role that divides the batch or the sequence, along the model dim, else along their
    largest dim that has enough elements. A parameter that is divided over some of these roles already, as experts are,
    takes the rest. What has no such dim stays whole. Megatron's distributed optimizer divides one flat buffer instead,
    evenly whatever the dims: per parameter the bytes are the same up to the padding of its dim.

    >>> from einscale.strategy import load_strategy
    >>> for kind, rules in with_zero(load_strategy("megatron"), 2).store:
    ...     print(kind, *rules, sep=", ")
    gradients, d -> data/expert, * -> data/expert
    optimizer, d -> data/expert, * -> data/expert

    Raises:
        StrategyError: no such stage, or no role divides the batch.
    """
    if isinstance(stage, bool) or not isinstance(stage, int) or not 0 <= stage <= 3:
        raise StrategyError(f"ZeRO has no stage {stage}", expected="0 (none), 1, 2 or 3")
    if stage == 0:
        return strategy
    axes = replicas(strategy)
    if not axes:
        raise StrategyError(
            f"strategy `{strategy.name}` divides neither batch nor sequence, so ZeRO has nothing to divide over",
            expected='a compute rule such as `b = "data"`',
        )
    rules = (Rule(MODEL, axes), Rule(LARGEST, axes))
    tables: dict[str, tuple[Rule, ...]] = dict(strategy.store)
    before = {kind: strategy.store_rules(kind) for kind in STAGES[1:]}
    for kind in STAGES[1 : stage + 1]:
        tables[kind] = (*before[kind], *(rule for rule in rules if rule not in before[kind]))
    if stage == 3:
        for kind in ("optimizer", "gradients"):
            if tables[kind] == tables["parameters"]:
                del tables[kind]
    order = dict.fromkeys((*dict(strategy.store), *STAGES[:0:-1]))
    store = tuple((kind, tables[kind]) for kind in order if kind in tables)
    return replace(strategy, name=f"{strategy.name}+zero{stage}", store=store, expect=_expect(strategy, axes))


def _expect(strategy: Strategy, axes: tuple[str, ...]) -> tuple[str, ...] | None:
    """The collectives the strategy needs, with those the division adds."""
    if strategy.expect is None:
        return None
    added = [f"{kind} {role} {what}" for role in axes for kind, what in _ADDED]
    return tuple(dict.fromkeys((*strategy.expect, *added)))


_ADDED = (("reduce-scatter", "gradients"), ("all-reduce", "gradients"), ("all-gather", "parameters"))
"""A gradient is scattered, one too small to be divided is reduced, and the parameter is gathered."""
