"""Which dialect a text is in: slash notation, unless it is unmistakably another."""

from __future__ import annotations

import re
from collections.abc import Sequence

from einscale.dtypes import ALIASES, BITS, is_dtype
from einscale.errors import NotationError, UsageError, did_you_mean, near_miss

DIALECTS = ("slash", "numpy", "book", "jax", "dtensor", "shardy", "hlo")
"""The dialects that can be read, the primary one first."""

_OWED = r"P\((?:sum|max|min|avg|product)\)"
_HEADS = {
    "jax": (
        r"(?:\w+\.)*(?:PartitionSpec\(|P\(\s*(?:\)|['\"(]|\w+\s*,|None\b|(?:\w+\.)*UNCONSTRAINED\b|unreduced\b|reduced\b))"
        r"|(?:\w+(?:<\w+>)?)?\[\s*\d+\s*[@,]"
        r"|\w+(?:<\w+>)?\[[\d\s]*\]\s*\{[UVR]"
    ),
    "dtensor": (
        r"[\[(]?\s*(?:Shard|_StridedShard|Replicate|_?Partial)\("
        rf"|[\[(]?\s*(?:(?:R|P|{_OWED})\s*(?:,\s*)?)*(?:_?S\(\s*-?\d+\s*[,)]|{_OWED})"
    ),
    "shardy": r"(?:sdy\.sharding\s*=\s*)?(?:#sdy\.)?sharding\s*<|<\s*@|\[\s*\{",
    "hlo": (
        r"(?:sharding\s*=\s*)?\{\s*(?:devices?\s*=|replicated\b|maximal\b|maximal_mesh|manual\b|unknown\b|unreduced\b"
        r"|mesh\[|\{)"
    ),
}
"""How a layout in a notation that lays out one tensor begins, where it can be nothing else."""

_BOOK = re.compile(r"\s*([^\W\d_]\w*)\s*\[([^\[\]]*)")
_WORD = re.compile(r"(?:[^\W\d_]|\.\.\.)*")
_SEPARATOR = re.compile(r"->|,")


def detect(text: str, syntax: str | None = None, rule_indices: Sequence[str] = ()) -> str:
    """The dialect to read `text` in: the one asked for or, without, the one that it can only be.

    >>> detect("B/x D, D F -> B/x F"), detect("A[I_X, J] * B[J, K]"), detect("bd,df->bf", None, ("b",))
    ('slash', 'book', 'numpy')

    Raises:
        UsageError: no such dialect.
        NotationError: the text can be read both as words and as numpy's one-letter axes.
    """
    if syntax is not None:
        if syntax not in DIALECTS:
            raise UsageError(f"unknown syntax `{syntax}`", hint=did_you_mean(str(syntax), DIALECTS, "dialects"))
        return syntax
    equation, semicolon, layouts = text.partition(";")
    if semicolon and equation.strip():
        notation = detect_layout(layouts) or ("dtensor" if re.match(r"\s*[\[(]?\s*[RP]+\b", layouts) else None)
        if notation is not None:
            return notation
    if _looks_like_book(text):
        return "book"
    if not looks_like_numpy(text):
        return "slash"
    words = {word.strip() for word in _SEPARATOR.split(text)}
    if rule_indices:
        if all(len(index) == 1 for index in rule_indices) and not words.issuperset(rule_indices):
            return "numpy"
        if words.issuperset(rule_indices) and any(len(index) > 1 for index in rule_indices):
            return "slash"
    if any(character.isspace() for character in text.strip()) or len(_SEPARATOR.split(text)) == 1:
        return "slash"
    raise _ambiguous(text)


def detect_layout(text: str) -> str | None:
    """The notation of a text that begins with the layout of one tensor, None where it might be another.

    >>> detect_layout("P('x', None)"), detect_layout("bf16[8@x,16]"), detect_layout("S(0)R"), detect_layout("[{}, {}]")
    ('jax', 'jax', 'dtensor', 'shardy')
    >>> detect_layout("{replicated}"), detect_layout("B/x D")
    ('hlo', None)
    """
    text = text.strip()
    return next((notation for notation, head in _HEADS.items() if re.match(head, text)), None)


def looks_like_numpy(text: str) -> bool:
    """Whether `text` is an einsum string: every tensor one run of letters, and some of them more than one letter."""
    words = [word.strip() for word in _SEPARATOR.split(text)]
    return all(map(_WORD.fullmatch, words)) and any(len(word.replace("...", "")) > 1 for word in words)


def _looks_like_book(text: str) -> bool:
    """Whether it begins with `NAME[`, which is no dtype, and axes that are not separated by blanks."""
    found = _BOOK.match(text)
    if found is None or is_dtype(found[1]):
        return False
    inside = re.split(r"[*·→]|->", found[2])[0]
    if re.fullmatch(r"(?=.*\d).{4,}", found[1]) and "," not in inside and near_miss(found[1], (*BITS, *ALIASES)):
        return False  # `bf61[B]` is a misspelt dtype rather than a tensor of one axis
    return not re.search(r"[/:@=?]|\w\s+\w", inside)


def _ambiguous(text: str) -> NotationError:
    parts = [(separator, word) for separator, word in re.findall(r"(^|->|,)([^,-]*)", text.strip())]
    spelled = {"": "", ",": ", ", "->": " -> "}
    words = "".join(spelled[separator] + word.replace("...", "... ").strip() for separator, word in parts)
    letters = "".join(spelled[separator] + " ".join(re.findall(r"\.\.\.|\S", word)) for separator, word in parts)
    start = len(text) - len(text.lstrip())
    return NotationError(
        "two readings: words, or numpy's one-letter axes",
        text=text,
        span=(start, len(text.rstrip())),
        expected=f"`{_cut(letters)}` (`--syntax numpy`) or `{_cut(words)}` (`--syntax slash`)",
    )


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
