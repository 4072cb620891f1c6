"""One enum for each vocabulary: a member is its text wherever both meet, and no field of words is any text."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec
import pytest

import einscale
from einscale.collectives import ALL_GATHER
from einscale.hardware import load_system
from einscale.mesh import parse_mesh
from einscale.topology import bind, coefficients
from einscale.vocabulary import FORWARD, CollectiveKind, Phase

PACKAGE = Path(einscale.__file__).parent

VOCABULARIES = {"bound", "convention", "kind", "norm", "objective", "phase", "positions", "provenance", "reduction"}
VOCABULARIES |= {"scoring", "what"}
"""Names of fields that hold a word of a vocabulary."""

FREE = {
    "Alive.kind": "a kind of layer, which a user's program may call anything",
    "AtWork.kind": "the same",
    "Gain.kind": "the same",
    "KindStep.kind": "the same",
    "LayerCost.kind": "the same",
    "LayerKind.kind": "the same",
    "Moment.kind": "the same",
    "Cost.what": "a phrase in a report",
    "PricedStep.bound": "for a collective the name of a network level, which a system's file may call anything",
    "Table.kind": "a table's name in CSV",
    "Token.kind": "what a token is: a sign stands for itself",
}
"""Fields of such a name that hold any text, and why."""


def text_fields(source: str) -> Iterator[str]:
    """`Class.field` of the fields of msgspec structs that are called like a vocabulary and may be any text.

    A struct inherits from `Struct`, directly or through a class of the same file, or has its keywords (`frozen=True`).
    """
    structs = {"Struct"}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        if not (bases & structs or any(keyword.arg == "frozen" for keyword in node.keywords)):
            continue
        structs.add(node.name)
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                words = {one.id for one in ast.walk(field.annotation) if isinstance(one, ast.Name)}
                if field.target.id in VOCABULARIES and "str" in words:
                    yield f"{node.name}.{field.target.id}"


def test_fields_of_vocabularies_are_annotated_by_their_enum() -> None:
    found = {name for path in PACKAGE.rglob("*.py") for name in text_fields(path.read_text())}
    assert found - set(FREE) == set(), "annotate them by an enum, or say in FREE why they hold any text"
    assert set(FREE) - found == set(), "no longer any text: take them off the list"


def test_a_field_of_any_text_is_found() -> None:
    source = """
class Move(Struct, frozen=True):
    kind: str
    phase: Phase
    what: str | TimePart
    name: str
class Longer(Move):
    bound: "Bound"
    objective: str = "time"
class Inherits(Elsewhere, frozen=True):
    reduction: str | None = None
class NoStruct:
    kind: str
"""
    assert list(text_fields(source)) == ["Move.kind", "Move.what", "Longer.objective", "Inherits.reduction"]


def enums() -> list[type[StrEnum]]:
    """Every enum of words of the package."""
    found: set[type[StrEnum]] = set()
    for module in pkgutil.walk_packages(einscale.__path__, "einscale."):
        if not module.name.endswith("__main__"):
            values = vars(importlib.import_module(module.name)).values()
            found |= {
                one for one in values if isinstance(one, type) and issubclass(one, StrEnum) and one is not StrEnum
            }
    return sorted(found, key=lambda one: one.__name__)


def test_no_two_vocabularies_have_one_name() -> None:
    names = [one.__name__ for one in enums()]
    assert len(names) > 30
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("words", enums(), ids=lambda one: one.__name__)
def test_a_member_is_its_text(words: type[StrEnum]) -> None:
    """Tables may mix both: equal, of one hash, and written the same in text and JSON."""
    for member in words:
        text = member.value
        assert member == text
        assert hash(member) == hash(text)
        assert hash(("axis", member)) == hash(("axis", text))
        assert {text: 1}[member] == {member: 1}[text] == 1
        assert str(member) == f"{member}" == "".join([member]) == text
        assert json.dumps({member: member}) == json.dumps({text: text})
        assert msgspec.json.encode({member: member}) == msgspec.json.encode({text: text})


def test_functions_accept_plain_text() -> None:
    network = bind(parse_mesh("x=8"), load_system("h100"))
    assert coefficients("all-gather", ("x",), network) == coefficients(ALL_GATHER, ("x",), network)
    assert CollectiveKind("all-gather") is ALL_GATHER
    assert Phase("forward") is FORWARD


def members(value: object) -> Iterator[StrEnum]:
    """The members of enums in a document, keys included."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from members(key)
            yield from members(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from members(one)
    elif isinstance(value, StrEnum):
        yield value


def test_documents_hold_plain_text() -> None:
    """Not every writer takes a member for its text: PyYAML's safe one does not."""
    mesh, model = "data=4,model=2", "llama3-8b"
    answers = (
        einscale.plan("B/x D, D/x F -> B/x F", mesh="x=4", sizes={"B": 64, "D": 128, "F": 256}),
        einscale.train_step(model, mesh=mesh, strategy="fsdp+tp", batch=32),
        einscale.layer(model, mesh=mesh, strategy="megatron-sp"),
        einscale.collective("all-reduce", "1GiB", mesh="data=8"),
        einscale.infer(model, mesh="model=4"),
        einscale.shard("B/x F/y", mesh="x=2,y=2", sizes={"B": 4, "F": 6}),
        einscale.compare(model, ["fsdp@data=8", f"megatron-sp@{mesh}"], batch=32),
    )
    for answer in answers:
        assert list(members(answer.to_dict())) == [], type(answer).__name__
    assert list(members({"a": [Phase.FORWARD]})) == [FORWARD]
