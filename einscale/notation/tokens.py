"""Text to tokens with spans, and the words for characters that have no place in a spec."""

from __future__ import annotations

import re

from msgspec import Struct

from einscale.errors import EinscaleError, NotationError
from einscale.notation.syntax import Span
from einscale.units import LIMIT, parse_size

MAX_TEXT = 65_536
"""Longest text that is read: a spec of a thousand operands is shorter."""

MAX_NAME = 64
"""Longest name."""

_TOKEN = re.compile(r"\s*(?:(?P<name>[^\W\d_]\w*)|(?P<number>[0-9]\w*)|(?P<mark>->|\.\.\.|[/=:,(){}?*\[\]]))")

_INSTEAD = {
    "→": "->",
    "⟶": "->",
    "⇒": "->",
    "↦": "->",
    "×": ",",
    "·": ",",
    "⋅": ",",
    "•": ",",
    ";": ",",
    "；": ",",
    "，": ",",
    "、": ",",
    "…": "...",
    "⋯": "...",
    "／": "/",
    "÷": "/",
    "⁄": "/",
    "∕": "/",
    "\\": "/",
    "：": ":",
    "＝": "=",
    "（": "(",
    "）": ")",
    "［": "[",
    "］": "]",
    "｛": "{",
    "｝": "}",
    "？": "?",
    "＊": "*",
    "∗": "*",
}


class Token(Struct, frozen=True):
    """A word of the text: `kind` is `name`, `number`, `end` or the mark itself."""

    kind: str
    text: str
    start: int
    stop: int

    @property
    def span(self) -> Span:
        """Where it stands."""
        return (self.start, self.stop)


def check_text(text: object, what: str = "the spec") -> str:
    """`text` if it is a text of a length that a person or a program can mean; every blank but a newline is a space.

    Raises:
        NotationError: it is not a str, or it is absurdly long.
    """
    if not isinstance(text, str):
        raise NotationError(f"{what} must be text, not {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise NotationError(f"{what} is absurdly long: {len(text)} characters, at most {MAX_TEXT} are read")
    if text.isprintable():
        return text
    return "".join(" " if character.isspace() and character != "\n" else character for character in text)


def tokenize(text: str) -> list[Token]:
    """Tokens of slash notation, ended by one of kind `end` behind the last of them.

    >>> [token.text for token in tokenize("B/data 128 -> B")]
    ['B', '/', 'data', '128', '->', 'B', '']

    Raises:
        NotationError: a character has no place in a spec, or a name or a number is malformed.
    """
    tokens: list[Token] = []
    stop = len(text.rstrip())
    position = 0
    while position < stop:
        found = _TOKEN.match(text, position)
        if found is None:
            raise bad_character(text, position + len(text[position:]) - len(text[position:].lstrip()))
        kind = found.lastgroup or ""
        word = found[kind]
        token = Token(word if kind == "mark" else kind, word, found.start(kind), found.end(kind))
        if kind == "name":
            check_name(text, token)
        tokens.append(token)
        position = found.end()
    tokens.append(Token("end", "", stop, stop))
    return tokens


def check_name(text: str, token: Token) -> None:
    """Raise unless every character of a name is a letter, a digit 0-9 or `_`, and it is not absurdly long.

    Raises:
        NotationError: it is not so.
    """
    if len(token.text) > MAX_NAME:
        message = f"a name of {len(token.text)} characters"
        raise NotationError(message, text=text, span=token.span, expected=f"at most {MAX_NAME} characters")
    if token.text.isascii():
        return
    from unicodedata import normalize

    for offset, character in enumerate(token.text):
        plain = normalize("NFKC", character)
        if not character.isascii() and (plain.isascii() or not character.isalpha()):
            at = token.start + offset
            raise bad_character(text, at, plain if plain.isascii() and plain.isalnum() else None)


def bad_character(text: str, position: int, instead: str | None = None) -> NotationError:
    """The error for a character that has no place where it stands, with what to write in its stead."""
    character, following = text[position], text[position + 1 : position + 2]
    text, span = _printable(text), (position, position + 1)
    previous = text[:position].rstrip()[-1:]
    if character in "-.+" and (previous == "=" or (previous.isdigit() and following.isdigit())):
        message = f"unexpected `{character}` in a size"
        return NotationError(message, text=text, span=span, expected="a whole number, at least 1")
    if character == "-" and _in_word(text, position):
        message, expected = "unexpected `-` in a name", "letters, digits and `_`: `d_model`; or `->` before the output"
        return NotationError(message, text=text, span=span, expected=expected)
    if character in "-–—−<>":
        return bad_arrow(text, position)
    if character == ".":
        stop = position + (2 if following == "." else 1)
        message = f"`{text[position:stop]}` is no part of an ellipsis"
        hint = "operands are separated by `,`" if _apart(text, position) else None
        return NotationError(message, text=text, span=(position, stop), expected="`...`", hint=hint)
    instead = instead or _INSTEAD.get(character)
    hint = f"write `{instead}`" if instead else _CHARACTER_HINTS.get(character)
    return NotationError(f"unexpected {describe(character)}", text=text, span=span, hint=hint)


def bad_arrow(text: str, position: int) -> NotationError:
    """The error for an arrow that is not `->`; `position` is at one of its characters."""
    start = position - (text[position - 1 : position] == "=")
    found = re.compile(r"[-–—−=<>]+(?:\s*>)?").match(text, start)
    stop = found.end() if found else position + 1
    span = (start, stop)
    return NotationError(f"unexpected `{text[start:stop]}`", text=text, span=span, expected="`->` before the output")


def _apart(text: str, position: int) -> bool:
    """Whether a character stands between blanks."""
    return text[position - 1 : position].isspace() and text[position + 1 : position + 2].isspace()


def _printable(text: str) -> str:
    """The text with a visible character for each that a terminal would obey or hide; positions stay."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _in_word(text: str, position: int) -> bool:
    around = text[max(0, position - 1) : position] + text[position + 1 : position + 2]
    return len(around) == 2 and around.isalnum()


_CHARACTER_HINTS = {
    "+": "several mesh axes are written `B/pod/data`, major to minor; operands are separated by `,`",
    "@": "a mesh axis that divides an axis is written `B/x`; `@` belongs to a mesh: `data=16@ib`",
    "'": "give the spec without further quotation marks",
    '"': "give the spec without further quotation marks",
    "_": "a name begins with a letter",
}


def describe(character: str) -> str:
    """A character in words that can be read even if the character cannot.

    >>> describe("&"), describe(chr(7)), describe("а")
    ('character `&`', 'control character U+0007', 'character `а` (U+0430, cyrillic small letter a)')
    """
    from unicodedata import category, name

    code = f"U+{ord(character):04X}"
    if category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return f"control character {code}"
    if character.isascii():
        return f"character `{character}`"
    return f"character `{character}` ({code}, {name(character, 'unnamed').lower()})"


def whole_number(text: str, token: Token, what: str = "size") -> int:
    """The value of a number token.

    Raises:
        NotationError: it is not a whole number, it is zero, or absurd.
    """
    digits = token.text
    if not (digits.isascii() and digits.isdigit()):
        hint = "a name begins with a letter"
        if len(digits) <= MAX_NAME and re.fullmatch(r"[0-9]+(?:_[0-9]+)*(?:[eE][0-9]+|[kKmMgGtT]i?)?", digits):
            try:
                hint = f"write `{parse_size(digits, what)}`"
            except EinscaleError as error:
                raise NotationError(error.args[0], text=text, span=token.span) from None
        raise NotationError(
            f"`{shorten(digits)}` is not a whole number", text=text, span=token.span, expected="digits only", hint=hint
        )
    significant = digits.lstrip("0")
    if len(significant) > 19 or int(significant or "0") > LIMIT:
        raise NotationError(f"the {what} is absurd: more than {LIMIT:.0e}", text=text, span=token.span)
    if not significant:
        raise NotationError(f"the {what} must be at least 1", text=text, span=token.span)
    return int(significant)


def shorten(word: str) -> str:
    """A word for a message, cut where it is absurdly long."""
    return word if len(word) <= MAX_NAME else word[: MAX_NAME - 1] + "…"
