"""Where a strategy puts things: roles bound to a mesh, iteration spaces placed, tensors laid out at rest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from einscale.errors import StrategyError, did_you_mean
from einscale.layout import Layout, shards
from einscale.mesh import Mesh, split_name, sub_axis
from einscale.numeric import ceil_div, gcd, product
from einscale.strategy.values import LARGEST, ROLES, Rule, Strategy


def bind_strategy(strategy: Strategy, mesh: Mesh) -> Strategy:
    """The strategy with its roles replaced by the axes of this mesh; axes of one device are left out.

    A role the mesh does not have counts as one device.

    >>> from einscale.mesh import parse_mesh
    >>> from einscale.strategy import load_strategy
    >>> bind_strategy(load_strategy("megatron"), parse_mesh("dp=2,tp=4")).compute[1]
    Rule(index='b', axes=('dp',), scope='')

    Raises:
        StrategyError: an axis of the mesh plays no role in the strategy, so its devices would only repeat work.
    """
    playing = {role: _player(role, mesh) for role in strategy.roles}
    idle = [axis.name for axis in mesh.axes if axis.size > 1 and axis.name not in playing.values()]
    strange = [role for role, name in playing.items() if name is None and role not in ROLES]
    if idle and strange:
        known = [*mesh.names, *(name for names in ROLES.values() for name in names)]
        raise StrategyError(
            f"strategy `{strategy.name}` divides over `{strange[0]}`, which is no axis of the mesh {mesh} and no role",
            hint=did_you_mean(strange[0], known, "the mesh has"),
        )
    if idle:
        roles = ", ".join(
            f"{role} ({', '.join(ROLES[role][:3])})" if role in ROLES else role for role in strategy.roles
        )
        twin = next((name for role, name in playing.items() if name and idle[0] in ROLES.get(role, ())), None)
        names = [name for role in strategy.roles for name in ROLES.get(role, (role,))]
        raise StrategyError(
            f"mesh axis `{idle[0]}` has no role in strategy `{strategy.name}`: its devices would only repeat work",
            text=str(mesh),
            span=(at := str(mesh).find(f"{idle[0]}="), at + len(idle[0])),
            expected=f"axes that play {roles}",
            hint=f"`{twin}` plays its role already" if twin else did_you_mean(idle[0], names, "names"),
        )
    live = {role: name for role, name in playing.items() if name is not None and mesh.size(name) > 1}
    return msgspec.structs.replace(
        strategy,
        compute=_bound(strategy.compute, live),
        store=tuple((kind, _bound(rules, live)) for kind, rules in strategy.store),
    )


def _player(role: str, mesh: Mesh) -> str | None:
    """The mesh axis that plays a role, one with several devices if there is one, or None."""
    players = [name for name in dict.fromkeys((role, *ROLES.get(role, ()))) if name in mesh.names]
    return next((name for name in players if mesh.size(name) > 1), players[0] if players else None)


def _bound(rules: Iterable[Rule], live: Mapping[str, str]) -> tuple[Rule, ...]:
    bound = (Rule(r.index, tuple(dict.fromkeys(live[a] for a in r.axes if a in live)), r.scope) for r in rules)
    return tuple(rule for rule in bound if rule.axes)


def place(
    indices: Sequence[str],
    rules: Sequence[Rule],
    sizes: Mapping[str, int],
    mesh: Mesh,
    composites: Mapping[str, tuple[str, ...]],
    scopes: Collection[str] = (),
) -> dict[str, tuple[str, ...]]:
    """Mesh axes of every index of an iteration space: for each index, those of the first rule that matches it.

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
        named = composites.get(rule.index, (rule.index,))
        parts = tuple(part for part in named if not placed.get(part))
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
        what = f"heads `h` ({total})" if rule.index == "h" else f"`{rule.index}` has {total} elements and"
        raise StrategyError(
            f"{what} cannot be divided {ways} ways over mesh axis {'/'.join(axes)}",
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
    composites: Mapping[str, tuple[str, ...]] | None = None,
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
            parts = (composites or {}).get(rule.index, (rule.index,))
            name = next((part for part in parts if part in fits), None)
        if name is not None and fresh:
            dims[name] += fresh
            used.update(fresh)
    return Layout(tuple(dims[axis] for axis in axes))
