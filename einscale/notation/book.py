"""The notation of the scaling book, `A[I_X, J] * B[J, K_Y] -> C[I_X, K_Y] {U_X}`: mesh axes are subscripts.

The notation is that of "How To Scale Your Model", chapter "Sharded Matrices and How to Multiply Them".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from einscale.errors import NotationError, did_you_mean
from einscale.notation.syntax import Axis, Partial, Shard, Span, Spec, TensorSpec
from einscale.notation.tokens import Token, bad_character, check_name
from einscale.vocabulary import SUM

_TOKEN = re.compile(
    r"\s*(?:(?P<name>[^\W\d_]\w*)|(?P<arrow>->|→|\\rightarrow\b|\\to\b)|(?P<times>\\cdot\b|\\times\b|[*·⋅×.])"
    r"|(?P<mark>\\?[{}]|[\[\],]))"
)
_EXPECTED = "`NAME[I_X, J]`, subscripts naming mesh axes"


def parse_book(text: str, mesh_axes: Sequence[str] | None = None) -> Spec:
    """Syntax of a spec in the scaling book's notation, its subscripts taken apart into mesh axes.

    With `mesh_axes`, a subscript is a mesh axis, or several written without blanks (`J_XY`, `J_{YZ}`), capitals or not.
    Without, a subscript of capitals is one mesh axis a letter, any other is one mesh axis. `J_{Y,Z}` is always two.

    >>> str(parse_book("A[I_X, J] * B[J, K_{YZ}] -> C[I_X, K_{YZ}]"))
    'A: I/X J, B: J K/Y/Z -> C: I/X K/Y/Z'

    Raises:
        NotationError: the text does not follow the notation, or a subscript names no mesh axes.
    """
    reader = _Reader(text, mesh_axes)
    if reader.peek().kind == "end":
        raise NotationError("the spec is empty", expected="a text such as `A[I_X, J] * B[J, K_Y] -> C[I_X, K_Y]`")
    operands = [reader.tensor("the first tensor")]
    output = None
    while reader.accept("times", ","):
        operands.append(reader.tensor("another tensor"))
    if reader.accept("arrow"):
        output = reader.tensor("the output")
    token = reader.peek()
    if token.kind != "end":
        if token.kind == "name" and output is None:
            raise reader.fail("an operator is missing between tensors", expected="`*` or `->`")
        raise reader.fail(f"unexpected `{token.text}`", expected="the end" if output else "`*` or `->`")
    return Spec(tuple(operands), output, text, "book")


class _Reader:
    """The tokens of one text and the mesh axes its subscripts may name."""

    def __init__(self, text: str, mesh_axes: Sequence[str] | None) -> None:
        self.text = text
        self.mesh_axes = None if mesh_axes is None else tuple(mesh_axes)
        self.tokens = _tokenize(text)
        self.at = 0

    def peek(self) -> Token:
        return self.tokens[min(self.at, len(self.tokens) - 1)]

    def accept(self, *kinds: str) -> Token | None:
        if self.peek().kind not in kinds:
            return None
        self.at += 1
        return self.tokens[self.at - 1]

    def fail(
        self, message: str, span: Span | None = None, *, expected: str | None = None, hint: str | None = None
    ) -> NotationError:
        return NotationError(message, text=self.text, span=span or self.peek().span, expected=expected, hint=hint)

    def tensor(self, what: str) -> TensorSpec:
        name = self.accept("name")
        if name is None:
            raise self.fail(f"{what} is missing", expected=_EXPECTED)
        bracket = self.accept("[")
        if bracket is None:
            raise self.fail(f"`[` is missing after `{name.text}`", expected=_EXPECTED)
        axes: list[Axis] = []
        if self.peek().kind != "]":
            axes.append(self.axis())
            while self.accept(","):
                axes.append(self.axis())
        if not self.accept("]"):
            if self.peek().kind in {"name", "["}:
                raise self.fail("a `,` is missing between axes", expected=_EXPECTED)
            raise self.fail("`[` is never closed", bracket.span, expected="`]`")
        partial = self.partial() if self.peek().kind == "{" else None
        span = (name.start, self.tokens[self.at - 1].stop)
        return TensorSpec(tuple(axes), name.text, partial=partial, span=span, name_span=name.span)

    def axis(self) -> Axis:
        token = self.accept("name")
        if token is None:
            raise self.fail("an axis is missing", expected=_EXPECTED)
        name, underscore, _ = token.text.partition("_")
        shards = self.subscript(token, len(name) + 1) if underscore else ()
        span = (token.start, self.tokens[self.at - 1].stop)
        return Axis(name, None, shards, span=span, name_span=(token.start, token.start + len(name)))

    def partial(self) -> Partial:
        brace = self.tokens[self.at]
        self.at += 1
        token = self.accept("name")
        if token is None or not token.text.startswith("U_"):
            span = token.span if token else None
            raise self.fail("`U_` is missing after `{`", span, expected="`{U_X}`, a sum still owed over mesh axis X")
        shards = self.subscript(token, 2)
        close = self.accept("}")
        if close is None:
            raise self.fail("`{` is never closed", brace.span, expected="`}`")
        ordered = tuple(sorted(shards, key=lambda shard: shard.name))
        return Partial(SUM, ordered, span=(brace.start, close.stop))

    def subscript(self, token: Token, offset: int) -> tuple[Shard, ...]:
        """Mesh axes of a subscript that begins `offset` characters into a name token, or in braces after it."""
        start = token.start + offset
        if start < token.stop:
            return self.resolve(self.text[start : token.stop], start)
        if not self.accept("{") or self.tokens[self.at - 1].start != token.stop:
            raise self.fail("a subscript is missing after `_`", token.span, expected="`I_X` or `I_{XY}`")
        shards: tuple[Shard, ...] = ()
        while True:
            word = self.accept("name")
            if word is None:
                raise self.fail("a mesh axis is missing in the subscript", expected="`I_{XY}` or `I_{X,Y}`")
            shards += self.resolve(word.text, word.start)
            if self.accept("}"):
                return shards
            if not self.accept(","):
                raise self.fail("the subscript is never closed", expected="`}`, as in `I_{XY}`")

    def resolve(self, word: str, start: int) -> tuple[Shard, ...]:
        """The mesh axes that a subscript stands for."""
        known = self.mesh_axes
        if known is None:
            parts = list(word) if word.isalpha() and word.isupper() else [word]
            return _placed(parts, parts, start)
        if word in known:
            return (Shard(word, (start, start + len(word))),)
        for fold in (False, True):
            readings = split_subscript(word, known, fold=fold)
            if len(readings) == 1:
                return _placed(readings[0], _cut(word, readings[0]), start)
            if readings:
                both = " or ".join("/".join(reading) for reading in readings)
                span = (start, start + len(word))
                raise self.fail(f"the subscript `{word}` is ambiguous: {both}", span, expected="`_{X,Y}`")
        raise self.fail(
            f"the subscript `{word}` names no mesh axes",
            (start, start + len(word)),
            hint=did_you_mean(word, known, "the mesh has"),
        )


def split_subscript(word: str, known: Sequence[str], *, fold: bool = False) -> list[list[str]]:
    """Up to two ways to write `word` as mesh axes one after the other; with `fold`, capitals or not.

    >>> split_subscript("XY", ("x", "y"), fold=True), split_subscript("abc", ("a", "ab", "bc", "c"))
    ([['x', 'y']], [['a', 'bc'], ['ab', 'c']])
    """
    target = word.casefold() if fold else word
    spelled = [(name.casefold() if fold else name, name) for name in known if name]
    ways: list[list[list[str]]] = [[] for _ in range(len(target) + 1)]
    ways[0] = [[]]
    for stop in range(1, len(target) + 1):
        found: list[list[str]] = []
        for spelling, name in spelled:
            start = stop - len(spelling)
            if start >= 0 and target[start:stop] == spelling:
                found += [[*before, name] for before in ways[start]]
        ways[stop] = sorted(found)[:2]
    return ways[len(target)]


def _cut(word: str, names: Sequence[str]) -> list[str]:
    parts, start = [], 0
    for name in names:
        parts.append(word[start : start + len(name)])
        start += len(name)
    return parts


def _placed(names: Sequence[str], parts: Sequence[str], start: int) -> tuple[Shard, ...]:
    shards = []
    for name, part in zip(names, parts, strict=True):
        shards.append(Shard(name, (start, start + len(part))))
        start += len(part)
    return tuple(shards)


def _tokenize(text: str) -> list[Token]:
    tokens: list[Token] = []
    stop = len(text.rstrip())
    position = 0
    while position < stop:
        found = _TOKEN.match(text, position)
        if found is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            error = bad_character(text, at)
            if text[at] == "=":
                message = "unexpected `=`"
                expected = "`A[I, J] * B[J, K] -> C[I, K]`, the output last"
                raise NotationError(message, text=text, span=(at, at + 1), expected=expected)
            if text[at] in "/:?":
                hint = "slash notation, `A: I/X J`, is read in syntax slash (`--syntax slash`)"
                error = NotationError(error.message, text=text, span=error.span, expected=_EXPECTED, hint=hint)
            raise error
        kind = found.lastgroup or ""
        word = found[kind]
        token = Token(word[-1] if kind == "mark" else kind, word, found.start(kind), found.end(kind))
        if kind == "name":
            check_name(text, token)
        tokens.append(token)
        position = found.end()
    tokens.append(Token("end", "", stop, stop))
    return tokens
