"""The numpy dialect against numpy itself: the same strings are accepted, and the output has the same axes."""

from __future__ import annotations

import numpy as np
import opt_einsum
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einscale.errors import NotationError
from einscale.notation import lower, parse_spec

SIZES = {"a": 2, "b": 3, "c": 4, "B": 5, "Z": 6}
BROADCAST = (7, 8)
"""Axes that `...` stands for: with at least one, so that numpy refuses an output that forgets it."""


def shape_of(labels: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(size for label in labels for size in (BROADCAST if label == "..." else (SIZES[label],)))


def numpy_shape(text: str, shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Shape of numpy's result, None where numpy refuses the string. Zero strides make the operands free."""
    operands = [np.broadcast_to(np.float64(1.0), shape) for shape in shapes]
    try:
        return np.einsum(text, *operands).shape
    except (ValueError, TypeError):
        return None


def check_against_numpy(text: str) -> bool:
    """Assert that numpy and we agree on `text`; whether it was accepted."""
    try:
        question = lower(parse_spec(text, syntax="numpy"))
    except NotationError:
        operands = text.partition("->")[0].split(",")
        letters = [[c for c in operand if c in SIZES] + ["..."] * ("..." in operand) for operand in operands]
        assert numpy_shape(text, [shape_of(tuple(labels)) for labels in letters]) is None, f"numpy reads {text!r}"
        return False
    assert numpy_shape(text, [shape_of(labels) for labels in question.inputs]) == shape_of(question.output), text
    return True


@st.composite
def einsum_strings(draw: st.DrawFn) -> str:
    """Mostly valid einsum strings: operands, ellipsis anywhere, blanks, implicit or explicit output."""
    letters = st.sampled_from(list(SIZES))
    operands = draw(st.lists(st.lists(letters, max_size=3), min_size=1, max_size=3))
    words = []
    dotted = draw(st.booleans())
    for labels in operands:
        word = list(labels)
        if dotted and draw(st.booleans()):
            word.insert(draw(st.integers(0, len(word))), "...")
        words.append(word)
    text = ",".join(draw(st.sampled_from(["", " "])).join(word) for word in words)
    if draw(st.booleans()):
        used = sorted({label for labels in operands for label in labels}) or ["a"]
        output = draw(st.lists(st.sampled_from(used), max_size=3, unique=draw(st.integers(0, 4)) > 0))
        if dotted and draw(st.integers(0, 4)) > 0:
            output.insert(draw(st.integers(0, len(output))), "...")
        text += draw(st.sampled_from(["->", " -> "])) + "".join(output)
    return text


@settings(max_examples=200, deadline=None)
@given(einsum_strings())
def test_agrees_with_numpy_on_einsum_strings(text: str) -> None:
    check_against_numpy(text)


@settings(max_examples=200, deadline=None)
@given(st.text("abB,.-> ", max_size=9))
def test_agrees_with_numpy_on_any_text(text: str) -> None:
    check_against_numpy(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("bsd,df->bsf", "b s d, d f -> b s f"),
        ("ij,jk", "i j, j k -> i k ?"),
        ("ba", "b a -> a b ?"),
        ("Ba", "B a -> B a ?"),
        ("aB", "a B -> B a ?"),
        ("ii", "i i -> ?"),
        ("ii->i", "i i -> i"),
        (",ij->ij", "A:, i j -> i j"),
        ("ij,", "i j, B: -> i j ?"),
        ("", "A: -> ?"),
        ("->", "A: ->"),
        (",", "A:, B: -> ?"),
        ("i...", "i ... -> ... i ?"),
        ("a...b,b...c->a...c", "a ... b, b ... c -> a ... c"),
        ("...,...", "..., ... -> ... ?"),
        ("ij->...ij", "i j -> i j"),
        ("i j , j k -> i k", "i j, j k -> i k"),
        ("ab,bc,cd,de->ea", "a b, b c, c d, d e -> e a"),
        ("αβ,βγ->αγ", "α β, β γ -> α γ"),
    ],
)
def test_canonical_form_reads_back(text: str, canonical: str) -> None:
    spec = parse_spec(text, syntax="numpy")
    assert str(spec) == canonical
    again = parse_spec(canonical)
    assert again.syntax == "slash"
    assert again.canonical == spec.canonical
    assert lower(again) == lower(spec)


@pytest.mark.parametrize("text", ["abc,cB->aBb", "a...b,b->...a", "ab,bc,cZ->Za", "aab->b", ",a->a", "a b -> b a"])
def test_known_strings_are_accepted_by_both(text: str) -> None:
    assert check_against_numpy(text)


@pytest.mark.parametrize("text", ["ab->aa", "ab->c", "a->b", "a..b", "a.b", "...a...", "a->->", "a-", "a>", "a->a,b"])
def test_known_strings_are_refused_by_both(text: str) -> None:
    assert not check_against_numpy(text)


def test_many_letters_of_opt_einsum() -> None:
    symbols = [opt_einsum.get_symbol(k) for k in (0, 25, 26, 51, 52, 60, 70)]
    text = f"{symbols[5]}{symbols[0]}{symbols[4]},{symbols[4]}{symbols[6]}{symbols[3]}"
    _, output, _ = opt_einsum.parser.parse_einsum_input(((text), np.ones((2, 3, 4)), np.ones((4, 5, 6))))
    assert lower(parse_spec(text, syntax="numpy")).output == tuple(output)
