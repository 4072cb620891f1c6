"""The published JSON Schemas: what the documents are, no more and no less."""

from __future__ import annotations

import json
from typing import Any

import document_schemas
import pytest
from command import refused, run_command
from document_schemas import FOLDER, check, faults, infer, unseen, written

from einscale.cli import COMMANDS

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    return document_schemas.schemas()


def test_they_are_what_the_documents_say_today(made: dict[str, dict[str, Any]]) -> None:
    assert sorted(made) == NAMES
    for name, schema in made.items():
        assert (FOLDER / f"{name}.json").read_text("utf-8") == written(schema), (
            f"{name}: run tests/document_schemas.py and read what changed"
        )


def test_every_key_was_seen_with_a_value(made: dict[str, dict[str, Any]]) -> None:
    assert {path for schema in made.values() for path in unseen(schema)} <= document_schemas.EMPTY


def test_every_command_that_prints_json_has_one() -> None:
    other = {"explain": "plan", "hardware": "system"}
    without = {"program", "schema"}
    assert {other.get(name, name) for name in COMMANDS if name not in without} <= set(NAMES)


def test_a_command_prints_them() -> None:
    assert run_command("schema").out.split() == NAMES
    for name in NAMES:
        assert json.loads(run_command("schema", name).out)["properties"]["command"] == {"const": name}
    assert run_command("schema explain").out == run_command("schema plan").out
    assert "did you mean `train`?" in refused(run_command("schema", "trian"))


def test_they_are_json_schemas() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = json.loads(run_command("plan 'B/x D, D F -> B/x F' --mesh x=2 -s B=8,D=8,F=8 --json").out)
    for name in NAMES:
        schema = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        found = list(jsonschema.Draft202012Validator(schema).iter_errors(document))
        assert bool(found) == (name != "plan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": "1 s"}, "/seconds: string, not number"),
        ({"flops": 1.5}, "/flops: number, not integer"),
        ({"extra": 1}, "`extra` is not in the schema"),
        ({"schema_version": 99}, "/schema_version: 99 is not 1"),
        ({"exact": None}, "/exact: null, not boolean"),
        ({"inputs": {}}, "/inputs: no `spec`"),
    ],
)
def test_a_document_that_is_not_as_it_should_be_is_found(change: dict[str, Any], message: str) -> None:
    document = json.loads(run_command("plan 'B/x D, D F -> B/x F' --mesh x=2 -s B=8,D=8,F=8 --json").out)
    check(document)
    with pytest.raises(AssertionError) as caught:
        check(document | change)
    assert message in str(caught.value)


def test_what_is_inferred() -> None:
    schema = infer([{"a_seconds": 1, "b": [1, None]}, {"a_seconds": 0.5, "c": {}}], "x")
    assert schema["properties"]["a_seconds"] == {"type": "number", "description": "seconds"}
    assert schema["properties"]["b"]["items"] == {"type": ["integer", "null"]}
    assert schema["required"] == ["a_seconds"]
    assert list(faults({"a_seconds": 2, "b": ["q"]}, schema)) == ["/b[0]: string, not integer or null"]
