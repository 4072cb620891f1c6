"""One line of a program's text as tokens with their places, and what has been read of the program so far."""

from __future__ import annotations

import re

from einscale.errors import EinscaleError, NotationError, ProgramError, did_you_mean
from einscale.program.shapes import AxisSizes
from einscale.program.values import Statement, Value

_TOKEN = re.compile(
    r"""(?P<string>"[^"\n]*")
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![A-Za-z_0-9.]))
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<mark>[()\[\]:=,])""",
    re.VERBOSE | re.ASCII,
)


class Line:
    """The tokens of one line, read left to right, with their places in the whole text."""

    def __init__(self, text: str, start: int, stop: int, number: int) -> None:
        self.text = text
        self.start = start
        self.stop = stop
        self.number = number
        self.tokens: list[tuple[str, str, int, int]] = []
        self.place = 0
        position = start
        while position < stop:
            if text[position] in " \t\r":
                position += 1
                continue
            if text[position] == "#":
                break
            found = _TOKEN.match(text, position, stop)
            if found is None:
                raise self.error(f"`{text[position]}` does not belong here", (position, position + 1))
            self.tokens.append((str(found.lastgroup), found[0], found.start(), found.end()))
            position = found.end()
        self.end = self.tokens[-1][3] if self.tokens else start

    def error(
        self,
        message: str,
        span: tuple[int, int] | None = None,
        expected: str | None = None,
        hint: str | None = None,
        kind: type[EinscaleError] = NotationError,
    ) -> EinscaleError:
        """An error at `span`, or at the next token."""
        if span is None:
            span = self.tokens[self.place][2:] if self.place < len(self.tokens) else (self.stop, self.stop + 1)
        return kind(f"line {self.number}: {message}", text=self.text, span=span, expected=expected, hint=hint)

    def peek(self) -> str:
        """The next token, or nothing at the end."""
        return self.tokens[self.place][1] if self.place < len(self.tokens) else ""

    def accept(self, mark: str) -> bool:
        """Read the next token if it is `mark`."""
        if self.peek() == mark:
            self.place += 1
            return True
        return False

    def need(self, mark: str) -> None:
        """Read `mark`, or raise."""
        if not self.accept(mark):
            found = f"not `{self.peek()}`" if self.peek() else "but the line ends"
            raise self.error(f"`{mark}` is wanted here, {found}", expected=f"`{mark}`")

    def name(self, what: str) -> str:
        """Read a name."""
        if self.place >= len(self.tokens) or self.tokens[self.place][0] != "name":
            found = f"not `{self.peek()}`" if self.peek() else "but the line ends"
            raise self.error(
                f"{what} is wanted here, {found}", expected="letters, digits and underscores, a letter first"
            )
        self.place += 1
        return self.tokens[self.place - 1][1]

    def last(self) -> tuple[int, int]:
        """Span of the token read last."""
        return self.tokens[self.place - 1][2:]

    def finish(self) -> None:
        """Raise if something is left on the line."""
        if self.place < len(self.tokens):
            raise self.error(f"`{self.peek()}` is left over at the end of the line")

    def names_until(self, close: str, what: str) -> tuple[str, ...]:
        """Names up to a closing bracket, which is read too."""
        names = []
        while not self.accept(close):
            names.append(self.name(f"{what} or `{close}`"))
        return tuple(names)


class Reader:
    """What has been read of a program so far."""

    def __init__(self) -> None:
        self.title: str | None = None
        self.repeat: int | None = None
        self.sizes: dict[str, int] = {}
        self.composites: dict[str, tuple[str, ...]] = {}
        self.fed: list[Value] = []
        self.made: list[Value] = []
        self.table: dict[str, Value] = {}
        self.tied: list[str] = []
        self.statements: list[Statement] = []
        self.outputs: tuple[str, ...] | None = None
        self.regions: list[tuple[int, str, str]] = []
        self.places: dict[str, tuple[Line, tuple[int, int]]] = {}
        self.known_axes: AxisSizes | None = None

    @property
    def axes(self) -> AxisSizes:
        """Sizes of axes as far as they follow from the header and the statements read."""
        if self.known_axes is None:
            self.known_axes = AxisSizes(self.sizes)
        return self.known_axes

    def declare(self, line: Line, value: Value, span: tuple[int, int]) -> None:
        """Add a value under a name that is still free."""
        if value.name in self.table:
            raise line.error(f"two values are called `{value.name}`", span, kind=ProgramError)
        self.table[value.name] = value

    def value(self, line: Line, what: str = "a value") -> str:
        """Read the name of a value that exists."""
        name = line.name(what)
        if name not in self.table:
            raise line.error(
                f"unknown value `{name}`",
                line.last(),
                hint=did_you_mean(name, self.table, "values so far"),
                kind=ProgramError,
            )
        return name


def second_title(text: str) -> tuple[int, int]:
    """Place of the second `program` line."""
    found = list(re.finditer(r"^[ \t]*(program [^\n#]*[^\s#])", text, re.MULTILINE))
    return found[-1].span(1) if len(found) < 2 else found[1].span(1)
