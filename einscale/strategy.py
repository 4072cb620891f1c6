"""Strategies: two tables that say where work runs and where tensors rest; the collectives follow from them.

`compute` divides the iteration space of every statement: index -> mesh axes. `store` adds, for a class of tensors, axes
that divide it while it rests: the residual stream along the sequence (Megatron-SP), parameters along the model dim
(FSDP).
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from einscale.errors import StrategyError, did_you_mean
from einscale.layout import Layout, shards
from einscale.mesh import Mesh, split_name, sub_axis
from einscale.numeric import ceil_div, gcd, product

ROLES: dict[str, tuple[str, ...]] = {
    "data": ("data", "dp", "fsdp", "batch", "shard"),
    "model": ("model", "tp", "tensor"),
    "context": ("context", "cp", "seq", "sequence"),
    "pod": ("pod", "dcn", "replicate"),
    "expert": ("expert", "ep"),
    "pipe": ("pipe", "pp", "stage"),
}
"""Role -> the mesh-axis names that play it; a name outside this table plays itself."""

CLASSES = ("residual", "parameters", "gradients", "optimizer", "kv_cache")
"""Classes of tensors a store table may speak of."""

LARGEST = "*"
"""Store rule key: the tensor's largest dim, where no earlier rule used the axes."""

MAX_FILE_BYTES = 1_000_000


class Policy(Struct, frozen=True, forbid_unknown_fields=True):
    """Choices that are not layouts.

    Args:
        reshard_after_forward: gathered parameters are dropped after the forward pass, gathered again in the backward.
        fuse: statement groups run as one kernel: their interior is neither written to memory nor saved.
        recompute: statement groups whose interior is not saved but computed again in the backward pass; `full` stands
            for everything but a layer's input.
        stream: statement groups whose operands are gathered, and results scattered, block by block around a ring while
            the group computes (ring attention): two blocks are held instead of all.
        auto: groups, sections or single results whose einsums are placed by the free planner, not by the compute table.
    """

    reshard_after_forward: bool = True
    fuse: tuple[str, ...] = ("attention",)
    recompute: tuple[str, ...] = ()
    stream: tuple[str, ...] = ()
    auto: tuple[str, ...] = ()


class Rule(Struct, frozen=True):
    """One line of a table: an index (or a composite, or `*`), where it holds, and the mesh axes it is divided over.

    Args:
        index: axis name, composite name (`h`), or `*`.
        axes: roles or mesh axes, major to minor.
        scope: the rule holds in this statement group only, or section if no group has the name; "" is everywhere.
    """

    index: str
    axes: tuple[str, ...]
    scope: str = ""

    def __str__(self) -> str:
        within = f"{self.scope}:" if self.scope else ""
        return f"{within}{self.index} -> {'/'.join(self.axes)}"


class Strategy(Struct, frozen=True):
    """Ordered compute and store rules: first match wins, a mesh axis at most once per tensor.

    Args:
        name: how it is called.
        compute: rules on the iteration space of statements.
        store: class of tensors -> rules added to the compute layout while such a tensor rests.
        summary: one sentence.
        source: where it was described.
        expect: `KIND ROLE CLASS` of the collectives it is known to need; None where it does not say.
        policy: choices that are not layouts.
    """

    name: str
    compute: tuple[Rule, ...]
    store: tuple[tuple[str, tuple[Rule, ...]], ...] = ()
    summary: str = ""
    source: str = ""
    expect: tuple[str, ...] | None = None
    policy: Policy = Policy()

    def store_rules(self, kind: str) -> tuple[Rule, ...]:
        """Rules for a class; gradients and optimizer state rest where the parameters do unless they have their own."""
        tables = dict(self.store)
        if kind in tables:
            return tables[kind]
        return tables.get("parameters", ()) if kind in ("gradients", "optimizer") else ()

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role or mesh axis its rules name."""
        rules = [*self.compute, *(rule for _, table in self.store for rule in table)]
        return tuple(dict.fromkeys(axis for rule in rules for axis in rule.axes))


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
    "fsdp",
    "hsdp",
    "megatron",
    "megatron-sp",
    "fsdp+tp",
    "2d",
    "weight-gathered",
    "context",
    "ring",
    "ulysses",
    "megatron-sp+context",
)
"""Named strategies in the order they are best read."""


def list_strategies() -> tuple[Strategy, ...]:
    """The named strategies, in the order they are best read.

    >>> [strategy.name for strategy in list_strategies()][:5]
    ['dp', 'fsdp', 'hsdp', 'megatron', 'megatron-sp']
    """
    folder = Path(__file__).parent / "strategies"
    return tuple(parse_strategy((folder / f"{name}.toml").read_text("utf-8"), f"{name}.toml") for name in ORDER)


def load_strategy(name: str) -> Strategy:
    """A strategy by its name, or from the user's own TOML file by its path.

    >>> load_strategy("Megatron-SP").store_rules("residual")[0].index
    's'

    Raises:
        StrategyError: unknown name, unreadable or malformed file.
    """
    folder = Path(__file__).parent / "strategies"
    names = [path.stem for path in sorted(folder.glob("*.toml"))]
    folded = name.casefold().replace("_", "-")
    if folded in names:
        return parse_strategy((folder / f"{folded}.toml").read_text("utf-8"), folded)
    if not name.endswith(".toml") and "/" not in name:
        hint = did_you_mean(name, names, "strategies")
        raise StrategyError(f"unknown strategy `{name}`", expected="a name, or the path of a .toml file", hint=hint)
    return parse_strategy(_read(Path(name)), name)


def _read(path: Path) -> str:
    """Text of a strategy file, with one clear error for whatever is wrong with it."""
    if path.is_dir():
        raise StrategyError(f"the strategy `{path}` is a directory", expected="a .toml file")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise StrategyError(f"the strategy file `{path}` is too large", expected="at most 1 MB of TOML")
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise StrategyError(f"the strategy file `{path}` is not UTF-8 text") from None
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise StrategyError(f"cannot read the strategy file `{path}`: {reason}") from None


def parse_strategy(text: str, where: str = "strategy") -> Strategy:
    """Read a strategy from TOML text.

    Args:
        text: TOML with `[compute]`, and optionally `[store.CLASS]`, `[policy]`, `name`, `summary`, `source`, `expect`.
        where: file or name for messages.

    Raises:
        StrategyError: not TOML, an unknown key or class, a rule that is not a name or a list of names.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StrategyError(f"{where} is not TOML: {error}") from None
    known = {"name", "summary", "source", "expect", "compute", "store", "policy"}
    for key in table:
        if key not in known:
            raise StrategyError(f"unknown key `{key}` in {where}", hint=did_you_mean(key, sorted(known), "keys"))
    for kind in table.get("store", {}) if isinstance(table.get("store"), dict) else ():
        if kind not in CLASSES:
            raise StrategyError(
                f"unknown class `{kind}` in [store.{kind}] of {where}", hint=did_you_mean(kind, CLASSES, "classes")
            )
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
        store=tuple((kind, _rules(rules, where)) for kind, rules in file.store.items()),
        summary=file.summary,
        source=file.source,
        expect=file.expect,
        policy=file.policy,
    )


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
        rules.append(Rule(index.strip(), axes, scope.strip()))
    return tuple(rules)


def bind_strategy(strategy: Strategy, mesh: Mesh) -> Strategy:
    """The strategy with its roles replaced by the axes of this mesh; axes of one device are left out.

    A role the mesh does not have counts as one device.

    >>> from einscale.mesh import parse_mesh
    >>> bind_strategy(load_strategy("megatron"), parse_mesh("dp=2,tp=4")).compute[1].axes
    ('tp',)

    Raises:
        StrategyError: an axis of the mesh plays no role in the strategy, so its devices would only repeat work.
    """
    playing = {role: _player(role, mesh) for role in strategy.roles}
    idle = [axis.name for axis in mesh.axes if axis.size > 1 and axis.name not in playing.values()]
    if idle:
        roles = ", ".join(
            f"{role} ({', '.join(ROLES[role][:3])})" if role in ROLES else role for role in strategy.roles
        )
        raise StrategyError(
            f"mesh axis `{idle[0]}` has no role in strategy `{strategy.name}`: its devices would only repeat work",
            text=str(mesh),
            span=(at := str(mesh).find(f"{idle[0]}="), at + len(idle[0])),
            expected=f"axes that play {roles}",
            hint=did_you_mean(idle[0], [name for role in strategy.roles for name in ROLES.get(role, (role,))], "names"),
        )
    live = {role: name for role, name in playing.items() if name is not None and mesh.size(name) > 1}
    return msgspec.structs.replace(
        strategy,
        compute=_bound(strategy.compute, live),
        store=tuple((kind, _bound(rules, live)) for kind, rules in strategy.store),
    )


def _player(role: str, mesh: Mesh) -> str | None:
    """The mesh axis that plays a role, or None."""
    return next((name for name in (role, *ROLES.get(role, ())) if name in mesh.names), None)


def _bound(rules: Iterable[Rule], live: Mapping[str, str]) -> tuple[Rule, ...]:
    bound = (Rule(r.index, tuple(live[a] for a in r.axes if a in live), r.scope) for r in rules)
    return tuple(rule for rule in bound if rule.axes)


def place(
    indices: Sequence[str],
    rules: Sequence[Rule],
    sizes: Mapping[str, int],
    mesh: Mesh,
    composites: Mapping[str, tuple[str, ...]],
    scopes: Collection[str] = (),
) -> dict[str, tuple[str, ...]]:
    """Mesh axes of every index of an iteration space, by the first rules that match.

    A composite (query heads `h` = kv heads `n` x group `g`) is divided over its first index as far as that divides, the
    rest over the next; where only the first index occurs (keys and values), the rest of the mesh axis repeats it.

    Args:
        indices: the indices of the iteration space.
        rules: bound to the mesh.
        sizes: index -> size.
        mesh: the devices.
        composites: name -> the indices it is made of, major to minor.
        scopes: groups and sections the work belongs to.

    Raises:
        StrategyError: an index is divided into more parts than it has elements.
    """
    placed: dict[str, tuple[str, ...]] = dict.fromkeys(indices, ())
    used: set[str] = set()
    for rule in rules:
        parts = composites.get(rule.index, (rule.index,))
        if (rule.scope and rule.scope not in scopes) or not any(part in placed for part in parts):
            continue
        axes = tuple(axis for axis in rule.axes if axis not in used)
        divided = divide_composite(parts, axes, sizes, mesh, rule)
        for part, part_axes in divided.items():
            if part in placed:
                placed[part] += part_axes
                used.update(split_name(axis)[0] for axis in part_axes)
    return placed


def divide_composite(
    parts: Sequence[str], axes: Sequence[str], sizes: Mapping[str, int], mesh: Mesh, rule: Rule
) -> dict[str, tuple[str, ...]]:
    """Divide the mesh axes over the parts of a composite, major to minor, splitting an axis where a part ends.

    Where the parts do not divide evenly, the rest of an axis goes to the part with the most elements left, padded: one
    key head with 71 query heads is not divided 4 ways, its query heads are.

    >>> from einscale.mesh import parse_mesh
    >>> divide_composite(("n", "g"), ("model",), {"n": 8, "g": 8}, parse_mesh("model=16"), Rule("h", ("model",)))
    {'n': ('model:(1)8',), 'g': ('model:(8)2',)}
    >>> divide_composite(("n", "g"), ("model",), {"n": 1, "g": 71}, parse_mesh("model=4"), Rule("h", ("model",)))
    {'n': (), 'g': ('model',)}
    """
    room = {part: sizes[part] for part in parts}
    total = product(room.values())
    ways = shards(axes, mesh.degrees)
    if ways > total:
        raise StrategyError(
            f"`{rule.index}` has {total} elements and cannot be divided {ways} ways over mesh axis {'/'.join(axes)}",
            hint=f"use at most {total} devices along {'/'.join(axes)}, or another rule for `{rule.index}`",
        )
    placed: dict[str, tuple[str, ...]] = dict.fromkeys(parts, ())
    if len(parts) == 1:
        placed[parts[0]] = tuple(axes)
        return placed
    for axis in axes:
        left, before, whole = mesh.size(axis), 1, mesh.size(axis)
        for part in parts:
            take = int(gcd(left, room[part]))
            if take > 1:
                placed[part] += (axis if take == whole else sub_axis(axis, before, take),)
                before, left, room[part] = before * take, left // take, room[part] // take
        if left > 1:
            roomiest = max(parts, key=lambda name: room[name])
            if room[roomiest] < left:
                return {part: (tuple(axes) if part == parts[0] else ()) for part in parts}
            placed[roomiest] += (axis if left == whole else sub_axis(axis, before, left),)
            room[roomiest] = int(ceil_div(room[roomiest], left))
    return placed


def stored_layout(
    axes: Sequence[str],
    placed: Mapping[str, tuple[str, ...]],
    rules: Sequence[Rule],
    sizes: Mapping[str, int],
    mesh: Mesh,
) -> Layout:
    """Layout a tensor rests in: its compute layout, and behind it what the store rules of its class add.

    A store rule that would divide a dim into more parts than it has elements is passed over; `*` then takes the largest
    dim left, one that divides evenly if there is one.
    """
    dims = {axis: placed.get(axis, ()) for axis in axes}
    used = {split_name(axis)[0] for dim in dims.values() for axis in dim}
    for rule in rules:
        fresh = tuple(axis for axis in rule.axes if axis not in used)
        ways = shards(fresh, mesh.degrees)
        local = {name: ceil_div(sizes[name], shards(dim, mesh.degrees)) for name, dim in dims.items()}
        fits = [name for name in dims if local[name] >= ways]
        if rule.index == LARGEST:
            name = max(fits, key=lambda n: (local[n] % ways == 0, local[n]), default=None)
        else:
            name = rule.index if rule.index in fits else None
        if name is not None and fresh:
            dims[name] += fresh
            used.update(fresh)
    return Layout(tuple(dims[axis] for axis in axes))
