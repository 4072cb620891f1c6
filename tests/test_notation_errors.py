"""The exact words of every error: tests/data/notation_errors.txt holds the inputs and what they must say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from einscale.errors import EinscaleError, NotationError
from einscale.notation import parse_rules, parse_spec, parse_tensor

DATA = Path(__file__).parent / "data" / "notation_errors.txt"


def read_cases() -> list[tuple[str, str]]:
    """(arguments of parse_spec as JSON, message) of each block `>>> JSON`, message, blank line."""
    blocks = DATA.read_text(encoding="utf-8").strip("\n").split("\n\n")
    return [tuple(block.removeprefix(">>> ").split("\n", 1)) for block in blocks]  # type: ignore[misc]


CASES = read_cases()


@pytest.mark.parametrize(("arguments", "message"), CASES, ids=[arguments for arguments, _ in CASES])
def test_malformed_spec_says_exactly(arguments: str, message: str) -> None:
    with pytest.raises(NotationError) as caught:
        parse_spec(**json.loads(arguments))
    assert str(caught.value) == message


def test_the_file_of_malformed_specs_is_not_empty() -> None:
    assert len(CASES) >= 200
    assert len({arguments for arguments, _ in CASES}) == len(CASES)


def test_errors_are_value_errors_and_keep_their_parts() -> None:
    with pytest.raises(ValueError, match="unknown mesh axis") as caught:
        parse_spec("B/modle D", mesh_axes=("data", "model"))
    error = caught.value
    assert isinstance(error, EinscaleError)
    assert (error.message, error.text, error.span, error.hint) == (
        "unknown mesh axis `modle`",
        "B/modle D",
        (2, 7),
        "did you mean `model`?",
    )


ABSURD = {
    "long": ("B D " * 25_000, "the spec is absurdly long: 100000 characters, at most 65536 are read"),
    "nested": ("(" * 50_000, "a group inside a group"),
    "name": ("a" * 50_000, "a name of 50000 characters"),
    "number": ("B=" + "9" * 50_000, "the size is absurd: more than 1e+18"),
    "suffixed number": ("B=" + "9" * 50_000 + "k", f"`{'9' * 63}…` is not a whole number"),
    "slashes": ("B" + "/x" * 30_000, "mesh axis `x` is used twice in one tensor"),
    "partials": ("B" + "{U:x}" * 10_000, "mesh axis `x` is used twice in one tensor"),
    "stars": ("*" * 50_000, "a `*` without a name"),
    "control": ("\x00" * 50_000, "unexpected control character U+0000"),
    "operands": ("i," * 30_000 + "i -> k", "output index `k` occurs in no operand"),
    "surrogate": ("B\ud800", "unexpected control character U+D800"),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_text_is_refused_at_once(name: str) -> None:
    text, message = ABSURD[name]
    with pytest.raises(NotationError) as caught:
        parse_spec(text)
    assert caught.value.message == message
    assert len(str(caught.value)) < 600


def test_long_but_sensible_specs_are_read() -> None:
    spec = parse_spec(",".join(f"i{k} j" for k in range(5000)) + " -> j")
    assert len(spec.operands) == 5000
    wide = parse_spec("B" + "".join(f"/m{k}" for k in range(5000)))
    assert len(wide.operands[0].axes[0].shards) == 5000


@pytest.mark.parametrize("text", [None, 3, b"B D", ["B D"]])
def test_what_is_not_text_is_refused(text: object) -> None:
    with pytest.raises(NotationError, match="the spec must be text, not"):
        parse_spec(text)  # type: ignore[arg-type]
    with pytest.raises(NotationError, match="the tensor must be text, not"):
        parse_tensor(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("rules", [3, [1], {"B": 3}, {"B": [1]}, [("B",)], object()])
def test_what_are_not_rules_is_refused(rules: object) -> None:
    with pytest.raises(NotationError, match="rules must map an index to mesh axes"):
        parse_rules(rules)  # type: ignore[arg-type]


def test_rules_in_a_mapping_are_checked_like_text() -> None:
    with pytest.raises(NotationError, match="unknown mesh axis `modle`") as caught:
        parse_rules({"B": "data", "F": ["modle"]}, mesh_axes=("data", "model"))
    assert (caught.value.text, caught.value.span) == ("B=data,F=modle", (9, 14))
    with pytest.raises(NotationError, match="unexpected character"):
        parse_rules({"B": ("da ta", "x&y")})
