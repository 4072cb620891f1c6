"""Rows of formulas: what a row charges is what its text says, whatever the collective, the links and the group."""

from __future__ import annotations

import math
import re

import pytest

from einscale.collectives import ALL_GATHER, ALL_TO_ALL
from einscale.hardware import Level, load_system
from einscale.hardware.values import NetworkKind
from einscale.topology import MOVES
from einscale.topology.algorithms import WAYS, Way
from einscale.topology.formulas import Segment, entering
from einscale.topology.patterns import FULL, PATTERNS, SWITCH, TORUS, LevelGroup, Operands, level_cost, level_text

LEVELS: dict[str, Level] = {
    "switch": load_system("h100").ideal().levels[0],
    "full": load_system("mi300x").ideal().levels[0],
    "torus": load_system("tpu-v5p").ideal().levels[0],
}

GROUPS = {
    "switch": [LevelGroup(n) for n in (2, 6, 8)],
    "full": [LevelGroup(n) for n in (2, 6, 8)],
    "torus": [
        LevelGroup(8, (Segment(8),)),
        LevelGroup(6, (Segment(6, 1, 0),)),
        LevelGroup(32, (Segment(8, dim=0), Segment(4, dim=1))),
    ],
}

HELD = 2**20


def value(formula: str, **names: float) -> float:
    """The value of a formula in which factors stand side by side."""
    text = formula.replace("log₂(n)", "depth").replace("²", " ** 2")
    tokens = re.findall(r"\d+|[A-Za-z]+|\*\*|[()/+-]", text)
    parts: list[str] = []
    for token in tokens:
        factor = token == "(" or token[0].isalnum()
        if factor and parts and parts[-1] != "floor" and (parts[-1] == ")" or parts[-1][0].isalnum()):
            parts.append("*")
        parts.append(token)
    return float(eval(" ".join(parts), {"floor": math.floor, **names}))


def links(part: LevelGroup) -> float:
    """Links of a device at work, of a gather over a torus without shared ones."""
    return sum(1 + segment.wraps for segment in part.parts)


@pytest.mark.parametrize("kind", MOVES)
@pytest.mark.parametrize("pattern", LEVELS)
@pytest.mark.parametrize(("inside", "outside"), [(1, 1), (4, 1), (1, 2)])
def test_what_plans_are_charged_is_what_the_text_says(kind: str, pattern: str, inside: int, outside: int) -> None:
    level = LEVELS[pattern]
    for part in GROUPS[pattern]:
        n = int(part.count)
        devices = n * inside * outside
        first = inside == 1
        _, factor = level_cost(kind, part, level, first=first)
        seconds = factor * entering(kind, n, inside, outside) * HELD / level.bandwidth.used
        text, _ = level_text(Operands(kind, part, level, HELD, devices, inside, outside))
        whole = HELD * devices if kind == ALL_GATHER else HELD
        longest = max((segment.size for segment in part.parts), default=n)
        if kind == ALL_TO_ALL and pattern == "torus":
            n = int(longest)
        names = {"V": whole, "L": HELD, "n": n, "W": level.bandwidth.used, "k": factor, "m": inside}
        if kind != "permute":
            names |= {"k": links(part), "m": outside if kind == ALL_TO_ALL else inside}
        assert value(text, **names) == pytest.approx(seconds), text


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.name}, {' '.join(way.kinds)}")
def test_what_another_algorithm_takes_is_what_its_text_says(way: Way) -> None:
    for pattern, level in LEVELS.items():
        if PATTERNS[level.kind] not in way.links:
            continue
        for part in filter(way.where, GROUPS[pattern]):
            for kind in way.kinds:
                found = way.algorithm(kind, part, level, HELD)
                text = found.formula.partition(" = ")[0].partition(",")[0]
                n = int(part.count)
                _, factor = way.cost(kind, part)
                names = {"V": HELD * n if kind == ALL_GATHER else HELD, "L": HELD, "n": n, "W": level.bandwidth.used}
                depth = math.ceil(math.log2(n))
                assert value(text, **names, depth=depth, k=factor) == pytest.approx(found.beta * HELD), found.formula


def test_a_name_stands_for_one_algorithm() -> None:
    names = [(way.name, id(link), kind) for way in WAYS for link in way.links for kind in way.kinds]
    assert len(names) == len(set(names))


def test_every_kind_of_level_has_a_row() -> None:
    assert set(NetworkKind) == set(PATTERNS)
    assert {id(pattern) for pattern in PATTERNS.values()} == {id(SWITCH), id(FULL), id(TORUS)}
