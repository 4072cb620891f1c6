"""Strategies from TOML: the named ones, and the user's own, with one clear error for whatever is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from einscale.collectives import FREE, KINDS
from einscale.errors import StrategyError, did_you_mean
from einscale.strategy.values import CLASSES, ROLES, Policy, Rule, Strategy
from einscale.vocabulary import TensorClass

NAMED = Path(__file__).parent / "named"
"""Folder of the named strategies."""

MAX_FILE_BYTES = 1_000_000

MOVED = (
    TensorClass.PARAMETERS,
    TensorClass.GRADIENTS,
    TensorClass.ACTIVATIONS,
    TensorClass.STATISTICS,
    TensorClass.SHARED,
    TensorClass.KV_CACHE,
    TensorClass.OPTIMIZER,
)
"""Classes of what a collective moves, as `expect` names them: parameters, their gradients, activations and theirs,
statistics of maps, what is made of parameters alone, keys and values kept for later tokens, and optimizer states."""


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    """What a strategy's TOML file may hold."""

    compute: dict[str, str | list[str]]
    name: str = ""
    summary: str = ""
    source: str = ""
    expect: tuple[str, ...] | None = None
    store: dict[str, dict[str, str | list[str]]] = {}
    policy: Policy = Policy()


ORDER = (
    "dp",
    "zero1",
    "zero2",
    "fsdp",
    "hsdp",
    "megatron",
    "megatron-sp",
    "megatron-sp+etp",
    "fsdp+tp",
    "2d",
    "weight-gathered",
    "context",
    "ring",
    "ulysses",
    "ulysses+ring",
    "megatron-sp+context",
    "batch-attention",
    "2d-batch-attention",
    "split-kv",
    "dp-attention",
)
"""Named strategies in the order they are best read."""


def list_strategies() -> tuple[Strategy, ...]:
    """The named strategies, in the order they are best read.

    >>> [strategy.name for strategy in list_strategies()][:5]
    ['dp', 'zero1', 'zero2', 'fsdp', 'hsdp']
    """
    return tuple(_named(name) for name in ORDER)


@cache
def _named(name: str) -> Strategy:
    return parse_strategy((NAMED / f"{name}.toml").read_text("utf-8"), name)


@cache
def _names() -> tuple[str, ...]:
    return tuple(path.stem for path in sorted(NAMED.glob("*.toml")))


def load_strategy(name: str | Path) -> Strategy:
    """A strategy by its name, or from the user's own TOML file by its path.

    >>> load_strategy("Megatron-SP").store_rules("residual")[0].index
    's'

    Args:
        name: of a strategy, or the path of a TOML file.

    Raises:
        StrategyError: unknown name, unreadable or malformed file.
    """
    if not isinstance(name, str | Path):
        raise StrategyError(f"a strategy is named by text, not by {type(name).__name__}")
    name = str(name)
    names = _names()
    folded = name.casefold().replace("_", "-")
    if folded in names:
        return _named(folded)
    if not name.endswith(".toml") and "/" not in name:
        hint = did_you_mean(name, names, "strategies")
        raise StrategyError(f"unknown strategy `{name}`", expected="a name, or the path of a .toml file", hint=hint)
    return parse_strategy(_read(Path(name)), name)


def _read(path: Path) -> str:
    """Text of a strategy file, with one clear error for whatever is wrong with it."""
    try:
        if path.is_dir():
            raise StrategyError(f"the strategy `{path}` is a directory", expected="a .toml file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise StrategyError(f"the strategy file `{path}` is too large", expected="at most 1 MB of TOML")
        return path.read_text("utf-8")
    except StrategyError:
        raise
    except UnicodeDecodeError:
        raise StrategyError(f"the strategy file `{path}` is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no file can have this name"
        raise StrategyError(f"cannot read the strategy file `{str(path)[:80]}`: {reason}") from None


def parse_strategy(text: str, where: str = "strategy") -> Strategy:
    """Read a strategy from TOML text.

    Args:
        text: TOML with `[compute]`, and optionally `[store.CLASS]`, `[policy]`, `name`, `summary`, `source`, `expect`.
        where: file or name for messages.

    Raises:
        StrategyError: not TOML, an unknown key or class, a rule that is not a name or a list of names.
    """
    table = _toml(text, where)
    known = ("name", "summary", "source", "expect", "compute", "store", "policy")
    for key in table:
        if key not in known:
            raise StrategyError(f"unknown key `{key}` in {where}", hint=did_you_mean(key, known, "keys"))
    for kind in table.get("store", {}) if isinstance(table.get("store"), dict) else ():
        if kind not in CLASSES:
            raise StrategyError(
                f"unknown class `{kind}` in [store.{kind}] of {where}", hint=did_you_mean(kind, CLASSES, "classes")
            )
    _check_types(table, where)
    try:
        file = msgspec.convert(table, _File)
    except msgspec.ValidationError as error:
        raise StrategyError(
            f"{where} does not describe a strategy: {error}",
            expected='a [compute] table such as `h = "model"`, and optionally [store.CLASS] tables and a [policy]',
        ) from None
    return Strategy(
        name=file.name or Path(where).stem,
        compute=_rules(file.compute, where),
        store=tuple((kind, _store_rules(rules, where)) for kind, rules in file.store.items()),
        summary=file.summary,
        source=file.source,
        expect=None if file.expect is None else tuple(_expectation(text, where) for text in file.expect),
        policy=file.policy,
    )


def _toml(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text."""
    if not isinstance(text, str):
        raise StrategyError(f"{where} must be text, not {type(text).__name__}")
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise StrategyError(f"{where} is not TOML: {error}") from None
    except RecursionError:
        raise StrategyError(f"{where} is not TOML that anyone wrote: it is nested too deep") from None


def _check_types(table: Mapping[str, Any], where: str) -> None:
    """Raise, naming the key, where a table holds what it cannot."""
    tables = {"compute": table.get("compute"), **{f"store.{k}": v for k, v in _items(table.get("store"))}}
    for name, rules in tables.items():
        for key, value in _items(rules):
            texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
            if not (isinstance(value, str) or texts):
                raise StrategyError(
                    f"`{key}` in [{name}] of {where} is {value!r}",
                    expected='the name of a mesh axis, or a list of names, for example `h = "model"`',
                )
    for key, value in _items(table.get("policy")):
        known = Policy.__struct_fields__
        if key not in known:
            raise StrategyError(f"unknown key `{key}` in [policy] of {where}", hint=did_you_mean(key, known, "keys"))
        if isinstance(getattr(Policy(), key), tuple) and not isinstance(value, list):
            raise StrategyError(
                f"`{key}` in [policy] of {where} is {value!r}", expected=f'a list, such as `{key} = ["attention"]`'
            )


def _items(table: object) -> list[tuple[str, Any]]:
    return list(table.items()) if isinstance(table, dict) else []


def _rules(table: Mapping[str, str | list[str]], where: str) -> tuple[Rule, ...]:
    rules = []
    for key, value in table.items():
        scope, _, index = key.rpartition(":")
        axes = tuple(value) if isinstance(value, list) else tuple(value.split("/"))
        if not index.strip() or not all(axis and axis.isidentifier() for axis in axes):
            raise StrategyError(
                f"cannot read the rule `{key} = {value!r}` in {where}",
                expected='INDEX = "AXIS", "AXIS/AXIS" or ["AXIS", ...], major to minor',
            )
        if len(set(axes)) < len(axes):
            raise StrategyError(f"the rule `{key} = {value!r}` in {where} names a mesh axis twice")
        rules.append(Rule(index.strip(), axes, scope.strip()))
    return tuple(rules)


def _store_rules(table: Mapping[str, str | list[str]], where: str) -> tuple[Rule, ...]:
    """Rules of a store table; a tensor rests in one place whatever reads it, so they have no scope."""
    rules = _rules(table, where)
    for rule in rules:
        if rule.scope:
            raise StrategyError(
                f"the store rule `{rule.scope}:{rule.index}` in {where} has a scope",
                expected="a rule without one: where a tensor rests does not depend on what reads it",
            )
    return rules


def _expectation(text: str, where: str) -> str:
    """One `KIND ROLE CLASS`, the role's alias replaced by the role."""
    words = text.split()
    kinds = [kind for kind in KINDS if kind not in FREE]
    if len(words) != 3 or words[0] not in kinds or words[2] not in MOVED:
        wrong = [words[0]] if words and words[0] not in kinds else words[2:3]
        near = did_you_mean(wrong[0], kinds if words[0] not in kinds else MOVED, "known") if wrong else None
        raise StrategyError(
            f"cannot read `{text}` in the `expect` list of {where}",
            expected='"KIND ROLE CLASS", for example "all-reduce model activations"',
            hint=near,
        )
    role = next((role for role, names in ROLES.items() if words[1] in names), words[1])
    return f"{words[0]} {role} {words[2]}"
