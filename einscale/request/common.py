"""What every command on a model is asked: the model, the strategy, the batch and the sequence, resolved and checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

from msgspec.structs import replace

from einscale.errors import SizeError, StrategyError, UsageError, did_you_mean
from einscale.hardware import DEFAULT_SYSTEM, System, load_system
from einscale.mesh import Mesh
from einscale.models import Model, load_model, resized
from einscale.program.shapes import axis_names
from einscale.strategy import ROLES, Rule, Strategy, default_strategy, load_strategy
from einscale.units import check_size

DEFAULT_SEQUENCE = 4096
"""Tokens in a sequence when none is given, if the model allows so many."""

SYNONYMS = {"seq": "sequence"}
"""Other names of arguments, alike on the command line and in Python."""

LARGEST_EXACT = 10**15
"""Largest batch or sequence: beyond it nobody means it."""


def chosen_system(hardware: str | Path | System | None) -> System:
    """The system asked for, or the default one.

    Raises:
        HardwareError: no such system, or a file that does not describe one.
    """
    return hardware if isinstance(hardware, System) else load_system(DEFAULT_SYSTEM if hardware is None else hardware)


def chosen_model(model: str | Model, sizes: Mapping[str, int] | None) -> Model:
    """The model, axes that a program of one's own leaves open filled in.

    Raises:
        EinscaleError: no such model, or sizes that it cannot have.
    """
    if sizes is not None and not isinstance(sizes, Mapping):
        raise UsageError(f"sizes must be a mapping of axes to sizes, not {type(sizes).__name__}")
    loaded = model if isinstance(model, Model) else load_model(model)
    return resized(loaded, sizes) if sizes else loaded


def chosen_strategy(
    strategy: str | Strategy | None,
    shard: str | Mapping[str, str | Iterable[str] | None] | None,
    model: Model,
    mesh: Mesh,
) -> Strategy:
    """The strategy asked for, or the one that suits the mesh, with the rules of `shard` before its own.

    Raises:
        EinscaleError: no such strategy, none that suits the mesh, or a rule that matches nothing of the model.
    """
    from einscale.notation.rules import parse_rules

    rules = parse_rules(shard, mesh.names) if shard else ()
    chosen = strategy if isinstance(strategy, Strategy) else None
    if chosen is None and (strategy is not None or not rules):
        chosen = load_strategy(suited_strategy(model, mesh) if strategy is None else strategy)  # type: ignore[arg-type]
    if not rules:
        assert chosen is not None
        return chosen
    names = dict.fromkeys(axis for layer in model.layers for axis in axis_names(layer.program))
    names |= dict.fromkeys(name for layer in model.layers for name, _ in layer.program.composites)
    for index, _ in rules:
        if index not in names:
            text = ",".join(f"{name}={'/'.join(axes)}" for name, axes in rules)
            start = text.index(f"{index}=")
            raise StrategyError(
                f"a rule for axis `{index}`, which no layer of {model.name} has",
                text=text,
                span=(start, start + len(index)),
                hint=did_you_mean(index, names, "its axes are"),
            )
    own = tuple(Rule(index, axes) for index, axes in rules)
    words = ", ".join(str(rule) for rule in own)
    if chosen is None:
        return Strategy(name="shard", compute=own, summary=words)
    return replace(chosen, name=f"{chosen.name} + shard", compute=own + chosen.compute, expect=None)


def check_text(value: str, what: str, example: str) -> str:
    """A name that was given, if it is text.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(value, str):
        raise UsageError(f"{what} is named by text, not by {type(value).__name__}", expected=f"for example {example}")
    return value


def check_batch(batch: int) -> int:
    """Sequences of a batch.

    Raises:
        SizeError: no whole number, less than 1, or absurd.
    """
    sequences = check_size(batch, "batch")
    if sequences > LARGEST_EXACT:
        raise SizeError(f"the batch is absurd: {sequences} sequences")
    return sequences


def check_overhead(overhead: int) -> int:
    """Bytes that a runtime takes beside tensors; it may take none.

    Raises:
        SizeError: it is no number of bytes.
    """
    return 0 if overhead == 0 and not isinstance(overhead, bool) else check_size(overhead, "overhead")


def suited_strategy(model: Model, mesh: Mesh) -> str:
    """Name of the strategy used when none is given: by the roles of the mesh, and by whether the experts go around.

    >>> from einscale.mesh import parse_mesh
    >>> suited_strategy(load_model("mixtral-8x7b"), parse_mesh("expert=8,model=8"))
    'megatron-sp+etp'

    Raises:
        StrategyError: no named strategy suits the mesh.
    """
    name = default_strategy(mesh)
    experts = [size for layer in model.layers for axis, size in layer.program.sizes if axis == "e"]
    roles = (*ROLES["expert"], *ROLES["model"])
    ways = prod(mesh.size(axis) for axis in mesh.names if axis in roles)
    if experts and name in ("megatron-sp", "fsdp+tp") and ways > min(experts):
        return "megatron-sp+etp"
    return name


def fixed_size(model: Model, axis: str, what: str, wanted: int | None) -> int | None:
    """Size of an axis where a program of one's own fixes it.

    Raises:
        SizeError: another size of it is wanted.
    """
    fixed = next((size for layer in model.layers for name, size in layer.program.sizes if name == axis), None)
    if None not in (fixed, wanted) and fixed != wanted:
        raise SizeError(f"{model.name} fixes the {what}, axis `{axis}`, at {fixed}: it cannot be {wanted}")
    return fixed


def chosen_sequence(model: Model, sequence: int | None, notes: list[str]) -> int:
    """Tokens in a sequence; a default is noted.

    Raises:
        SizeError: no number of tokens, or more than the model has learned positions for.
    """
    limit = model.config.max_positions if model.config else None
    sequence = fixed_size(model, "s", "sequence", sequence) or sequence
    if sequence is None:
        chosen = min(DEFAULT_SEQUENCE, limit) if limit else DEFAULT_SEQUENCE
        notes.append(f"sequence: {chosen} tokens (none was given)")
        return chosen
    tokens = check_size(sequence, "sequence")
    if tokens > LARGEST_EXACT:
        raise SizeError(f"the sequence is absurd: {tokens} tokens")
    if model.config and model.config.positions == "learned" and tokens > model.config.max_positions:
        raise SizeError(
            f"{model.name} has {limit} learned positions, fewer than a sequence of {tokens} tokens",
            hint=f"use a sequence of at most {limit}",
        )
    return tokens


def check_number(
    value: float, what: str, expected: str, *, least: float = 0.0, most: float = math.inf, above: bool = False
) -> float:
    """A finite number within limits.

    Args:
        value: what was given.
        what: what it is, for the message.
        expected: what would have been right.
        least: the least it may be.
        most: the most it may be.
        above: it must be more than `least`.

    >>> check_number(2, "price", "at least 0")
    2.0

    Raises:
        UsageError: it is none.
    """
    good = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    if not good or not least <= value <= most or (above and value == least):
        shown = repr(value) if isinstance(value, str) or not good else f"{value:g}"
        raise UsageError(f"the {what} cannot be {shown}", expected=expected)
    return float(value)


def check_price(price: float | None) -> float | None:
    """Money for an hour of one device, None if not given.

    Raises:
        UsageError: it is none.
    """
    return None if price is None else check_number(price, "price of an hour", "a number, at least 0")
