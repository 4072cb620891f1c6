"""Answers remembered: a question is made small and nameless, asked once, its answer written in the mesh's digits."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from einscale.reshard.joins import Small, grown, shrink
from einscale.reshard.moves import State
from einscale.reshard.search import NEVER, NOWHERE, Path, Problem, cheapest
from einscale.reshard.shape import Shape

REMEMBERED = 50_000
"""Answers kept; then all are forgotten."""

_answers: dict[Hashable, Path] = {}

Groups = tuple[tuple[int, ...], ...]


def forget() -> None:
    """Forget every answer, as a fresh process would."""
    _answers.clear()


def answered(
    source: State,
    target: State,
    radices: tuple[int, ...],
    most: int,
    terms: Hashable,
    make: Callable[[Small, Groups], Problem],
    apart: int = 0,
    *,
    idle: bool = True,
) -> Path:
    """The cheapest path; first without the digits that are idle in both layouts, then, if that may gain, with them.

    Args:
        source: (dims, owed) in digits of the mesh.
        target: the same.
        radices: of those.
        most: see `cheapest`.
        terms: whatever else the answer depends on.
        make: the problem, from the shrunken question and what its digits stand for.
        apart: digits that are not glued to those outside it.
        idle: whether idle digits may help.
    """
    path, groups = _asked(source, target, radices, most, terms, make, apart, idle=False)
    looked = path.until(most)
    exact = path.exact or len(looked) < len(path.looked)
    if idle and not path.met:
        less = min(most, path.cost)
        other, other_groups = _asked(source, target, radices, less, terms, make, apart, idle=True)
        further = other.until(less)
        looked += further
        exact = exact and (other.exact or len(further) < len(other.looked))
        if other.cost < path.cost:
            path, groups = other, other_groups
    steps = tuple(
        (kind, tuple(old for digit in moved for old in groups[digit]), grown(state, groups))
        for kind, moved, state in path.steps
    )
    return Path(path.cost, steps, exact=exact, met=path.met, looked=looked)


def _asked(
    source: State,
    target: State,
    radices: tuple[int, ...],
    most: int,
    terms: Hashable,
    make: Callable[[Small, Groups], Problem],
    apart: int,
    *,
    idle: bool,
) -> tuple[Path, Groups]:
    small, groups = shrink(source, target, radices, idle=idle, apart=apart)
    key = (small, terms, groups if apart else ())
    path = _answers.get(key)
    if path is None or (not path.steps and path.cost < most):  # an answer that was cut off serves only closer cuts
        path = cheapest(make(small, groups), most)
        if len(_answers) >= REMEMBERED:
            _answers.clear()
        _answers[key] = path
    return path, groups


def solve(
    source: State,
    target: State,
    radices: tuple[int, ...],
    room: tuple[int, ...],
    devices: int,
    most: int = NEVER,
    *,
    idle: bool = True,
    shape: Shape | None = None,
) -> Path:
    """Cheapest path in digits, remembered whatever the digits are called; see `cheapest` for `most`.

    In units of V/P^2; with the `shape` of a tensor whose shards are padded, in units of 1/P^2 byte.
    """
    if source == target:
        return NOWHERE

    def problem(small: Small, groups: tuple[tuple[int, ...], ...]) -> Problem:
        return Problem(small[0], small[1], small[2], room, devices, shape)

    return answered(source, target, radices, most, (room, devices, shape), problem, idle=idle)
