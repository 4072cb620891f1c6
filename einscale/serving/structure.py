"""Layers as they serve requests, planned once for every size: a pass of new tokens beside a cache, under a strategy.

A structure is kept and serves every batch, number of new tokens and context for which its decisions come out alike
(`structures`), as in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from einscale.errors import StrategyError
from einscale.layout import shards
from einscale.mesh import Mesh
from einscale.models import LayerKind
from einscale.numeric import Number, minimum
from einscale.planner.planned import PlannedProgram, Structure
from einscale.planner.program import plan_program
from einscale.planner.structures import MOST_KEPT, Structures
from einscale.precision import Precision
from einscale.program.cache import KEYS, SEQUENCE, cached_values, decode_program, window
from einscale.program.shapes import program_sizes
from einscale.program.typed import typed
from einscale.program.values import Program
from einscale.stages import LAYER
from einscale.strategy import Rule, Strategy
from einscale.topology import Network


class Served(Struct, frozen=True, cache_hash=True):
    """What the structure of a layer in serving follows from, sizes aside.

    Args:
        program: its pass of new tokens beside a cache, in the element types it works in.
        strategy: compute and store tables, as they divide so many new tokens.
    """

    program: Program
    strategy: Strategy


@lru_cache(maxsize=MOST_KEPT)
def serving_program(layer: LayerKind, precision: Precision, *, absorbed: bool) -> Program:
    """The program of new tokens beside a cache, in the element types of a precision.

    Where decoding has a program of its own (attention on latents) both read and write the same cache: the ordinary
    program then makes keys and values from it again.

    Args:
        layer: a kind of layer.
        precision: element types; what is appended to rests in its `kv_cache` type.
        absorbed: take the program that decoding has of its own.
    """
    keep: tuple[str, ...] = ()
    program = layer.program
    if layer.decode is not None:
        keep = cached_values(layer.decode)
        program = layer.decode if absorbed else layer.program
    serving = typed(decode_program(program, keep), precision)
    caches = {n for s in serving.statements if s.op == "append" for n in (s.inputs[0], s.output)}
    values = tuple(replace(v, dtype=precision.kv_cache) if v.name in caches else v for v in serving.values)
    return replace(serving, values=values)


def serving_strategy(strategy: Strategy, mesh: Mesh, new: int, *, head: bool) -> Strategy:
    """The strategy as it divides so few new tokens: rules that divide the sequence further do not hold.

    Args:
        strategy: bound to the axes of the mesh.
        mesh: the devices.
        new: new tokens of each sequence.
        head: of the last layer, which may run on fewer tokens than the others.

    Raises:
        StrategyError: it divides the sequence of all layers more ways than there are new tokens.
    """
    whole: list[Rule] = []
    for rule in strategy.compute:
        if rule.index == SEQUENCE and new < (ways := int(shards(rule.axes, mesh.degrees))):
            if not rule.scope and not head:
                raise StrategyError(
                    f"strategy `{strategy.name}` divides the tokens of a sequence {ways} ways over"
                    f" {'/'.join(rule.axes)}, and a step has {new} of each",
                    expected="a strategy that divides what is cached, such as split-kv: `attention:t = context`",
                )
            whole.append(replace(rule, index=LAYER))
        else:
            whole.append(rule)
    return replace(strategy, compute=tuple(whole))


def keys_seen(program: Program, new: Number, cached: Number) -> Number:
    """Tokens that new tokens look back at, themselves among them: of those cached, a window's at most.

    >>> from einscale.models import load_model
    >>> windowed = load_model("gemma2-9b").layer("window_block").program  # 4096 tokens
    >>> [keys_seen(windowed, *sizes) for sizes in ((1, 100), (1, 9000), (64, 9000))]
    [101, 4096, 4159]
    """
    return _looking_back(window(program), new, cached)


def _looking_back(span: int | None, new: Number, cached: Number) -> Number:
    """Tokens that new tokens look back at, where each sees so many at most."""
    return (minimum(cached, span - 1) if span else cached) + new


ONE = {"b": 1, SEQUENCE: 1, KEYS: 1}
"""Axes that requests decide."""


@lru_cache(maxsize=MOST_KEPT)
def _own_sizes(program: Program) -> Mapping[str, int]:
    """Size of every axis that requests do not decide; 1 for those that they do."""
    return program_sizes(program, defaults=ONE)


@lru_cache(maxsize=MOST_KEPT)
def _deciders(program: Program) -> Mapping[str, str]:
    """Axis of a program -> the axis that requests decide, of those whose size is another's."""
    own, found = _own_sizes(program), dict[str, str]()
    for decided in ONE:
        other = program_sizes(program, defaults={**ONE, decided: 2})
        found |= {name: decided for name, size in other.items() if size != own[name]}
    return found


def serving_sizes(program: Program, batch: Number, new: Number, cached: Number) -> dict[str, Number]:
    """Size of every axis in a pass; arrays where there are many passes.

    Args:
        program: of new tokens beside a cache.
        batch: sequences.
        new: new tokens of each.
        cached: tokens of each in the cache.
    """
    decided = {"b": batch, SEQUENCE: new, KEYS: keys_seen(program, new, cached)}
    return {**_own_sizes(program), **{name: decided[by] for name, by in _deciders(program).items()}}


def serving_plan(asked: Served, network: Network, batch: int, new: int, cached: int) -> PlannedProgram:
    """A layer planned for one pass.

    Args:
        asked: what the structure follows from.
        network: devices of one pipeline stage, and their links.
        batch: sequences.
        new: new tokens of each.
        cached: tokens of each in the cache.

    Raises:
        StrategyError: the strategy divides the batch, or a sequence, more ways than it has elements.
    """
    sizes = serving_sizes(asked.program, batch, new, cached)
    return PlannedProgram(_STRUCTURES.find(asked, network, sizes), network.mesh, sizes)


def sorted_passes(
    asked: Served, network: Network, batches: Sequence[int], new: int, cached: Sequence[int]
) -> list[tuple[Structure, list[int]]]:
    """The structures of a layer for many passes, each with the numbers of its passes.

    Args:
        asked: what the structures follow from.
        network: devices of one pipeline stage, and their links.
        batches: sequences of every pass.
        new: new tokens of each.
        cached: tokens of each in the cache, of every pass.

    Raises:
        StrategyError: the strategy divides the batch, or a sequence, more ways than it has elements.
    """
    program = asked.program
    span = window(program)
    keys = [_looking_back(span, new, one) for one in cached]
    each = {"b": batches, SEQUENCE: [new] * len(batches), KEYS: keys}
    columns = {name: each[by] for name, by in _deciders(program).items()}
    if not columns:
        return [(_STRUCTURES.find(asked, network, dict(_own_sizes(program))), list(range(len(batches))))]
    return _STRUCTURES.sort(asked, network, _own_sizes(program), columns)


def _planned(asked: Served, network: Network, sizes: dict[str, int]) -> Structure:
    """A structure planned anew."""
    return plan_program(asked.program, asked.strategy, network.mesh, sizes, network=network).structure


_STRUCTURES = Structures(_planned)
