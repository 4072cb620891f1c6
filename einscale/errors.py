"""Errors: one class per stage under `EinscaleError`, and the text that underlines what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class EinscaleError(Exception):
    """Base of every error einscale raises for bad input.

    Args:
        message: the fact, one sentence.
        text: the text the user wrote, if the fault is somewhere in it.
        span: (start, stop) of the guilty characters in `text`.
        expected: what would have been right, in words.
        hint: the near miss or the next thing to try, a full sentence.

    The parts stay readable as attributes; `str(error)` is the whole message, the guilty characters underlined.

    >>> print(NotationError("unknown mesh axis `modle`", text="B/modle D", span=(2, 7), hint="did you mean `model`?"))
    unknown mesh axis `modle`
      B/modle D
        ^^^^^
      did you mean `model`?
    """

    def __init__(
        self,
        message: str,
        *,
        text: str | None = None,
        span: tuple[int, int] | None = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Keep the parts; the message is made on demand."""
        message = message.replace("\n", " ")
        super().__init__(message)
        self.message = message
        self.text = text
        self.span = span
        self.expected = expected
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message]
        if self.text is not None:
            lines += underline(self.text, self.span)
        if self.expected:
            lines.append(f"  expected {self.expected}")
        if self.hint:
            lines.append(f"  {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        parts = {"text": self.text, "span": self.span, "expected": self.expected, "hint": self.hint}
        return (_rebuild, (type(self), self.message, parts))


def _rebuild(kind: type[EinscaleError], message: str, parts: dict[str, object]) -> EinscaleError:
    return kind(message, **parts)  # type: ignore[arg-type]


class NotationError(EinscaleError, ValueError):
    """A spec, a mesh or a program text that does not follow the grammar."""


class MeshError(EinscaleError, ValueError):
    """A mesh that cannot exist, or an axis it does not have."""


class LayoutError(EinscaleError, ValueError):
    """A layout that no tensor can have, or a move that no collective makes."""


class SizeError(EinscaleError, ValueError):
    """A size that is missing, contradictory, not positive or absurd."""


class PlanError(EinscaleError, ValueError):
    """A question that no plan answers."""


class InfeasibleError(PlanError):
    """A question that is understood and has no answer: no plan keeps within the cap."""


class UncountableError(PlanError, ArithmeticError):
    """A mesh whose axes line up so badly that the blocks two layouts share cannot be counted in reasonable time."""


class ProgramError(EinscaleError, ValueError):
    """A program that is not well formed."""


class ModelError(EinscaleError, ValueError):
    """A model configuration that cannot be read or is not known."""


class StrategyError(EinscaleError, ValueError):
    """A strategy that is unknown, malformed or does not fit the mesh."""


class ScheduleError(EinscaleError, ValueError):
    """A pipeline schedule that is unknown, or that no pipeline of these numbers follows."""


class HardwareError(EinscaleError, ValueError):
    """Hardware that is unknown or whose description is malformed."""


class UsageError(EinscaleError, ValueError):
    """A command line or call whose arguments do not fit together."""


class VerificationError(EinscaleError, AssertionError):
    """A plan whose emulated result or bytes differ from what it claims: a fault of einscale, never of the user."""


WINDOW = 96


def underline(text: str, span: tuple[int, int] | None) -> list[str]:
    """The line of `text` that holds `span`, and carets below it; a long line is cut to a window around the span.

    >>> underline("B/d D", (2, 3))
    ['  B/d D', '    ^']
    """
    if span is None:
        return [f"  {text}"] if "\n" not in text and len(text) <= WINDOW else []
    start = max(0, min(span[0], len(text)))
    stop = max(start + 1, span[1])
    line_start = text.rfind("\n", 0, start) + 1
    line_stop = text.find("\n", start)
    line = text[line_start : line_stop if line_stop >= 0 else len(text)].replace("\t", " ")
    column, width = start - line_start, stop - start
    width = max(1, min(width, len(line) - column if column < len(line) else 1))
    if len(line) > WINDOW:
        cut = max(0, min(column - WINDOW // 3, len(line) - WINDOW))
        before = "…" if cut else ""
        after = "…" if cut + WINDOW < len(line) else ""
        line = before + line[cut : cut + WINDOW] + after
        column = column - cut + len(before)
        width = min(width, max(1, len(line) - column))
    return [f"  {line}", "  " + " " * column + "^" * width]


def near_miss(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` most likely stands for, or None.

    >>> near_miss("modle", ["data", "model"])
    'model'
    >>> near_miss("D", ["d", "f"])
    'd'
    """
    import difflib

    if not isinstance(word, str):
        return None
    names = list(known)
    folded = {name.casefold(): name for name in reversed(names)}
    if word.casefold() in folded and folded[word.casefold()] != word:
        return folded[word.casefold()]
    matches = difflib.get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str], what: str = "") -> str:
    """One sentence: the near miss, or the list of what is known.

    >>> did_you_mean("modle", ["data", "model"])
    'did you mean `model`?'
    >>> did_you_mean("zzz", ["data", "model"], "the mesh has")
    'the mesh has: data, model'
    """
    names = list(known)
    match = near_miss(word, names)
    if match is not None:
        return f"did you mean `{match}`?"
    return f"{what or 'known'}: {', '.join(names) if names else 'none'}"
