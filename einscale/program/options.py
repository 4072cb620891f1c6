"""Names, words of messages, and the checks of a map's options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite

from einscale.errors import ProgramError, did_you_mean
from einscale.program.maps import option_axes
from einscale.program.values import Option, Value

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What a value, an axis, an option and a word option look like."""

NUMBERS = (
    "factor",
    "rate",
    "eps",
    "theta",
    "causal",
    "window",
    "cap",
    "limit",
    "alibi",
    "rotary",
    "alpha",
    "width",
    "chunk",
    "flops",
    "top",
    "groups",
    "top_groups",
    "capacity",
    "normalise",
)
"""Options that are numbers."""


def check_name(name: str, what: str) -> None:
    """Raise unless `name` is a letter or underscore followed by letters, digits, underscores.

    Raises:
        ProgramError: it is not.
    """
    if not NAME.fullmatch(name):
        raise ProgramError(f"`{name}` is not a {what}", expected="letters, digits and underscores, a letter first")


def words(axes: Iterable[str]) -> str:
    """Axes as a message shows them.

    >>> words(("b", "s"))
    '[b s]'
    """
    return f"[{' '.join(axes)}]"


def quoted(axes: Iterable[str]) -> str:
    """Axes in a sentence.

    >>> quoted(("n", "k"))
    '`n`, `k`'
    """
    return ", ".join(f"`{axis}`" for axis in axes)


def need_axes(op: str, value: Value, axes: Iterable[str]) -> None:
    """Raise unless a value has the axes that a map works along.

    Raises:
        ProgramError: it has not.
    """
    for axis in axes:
        if axis not in value.axes:
            raise ProgramError(
                f"{op} works along axis `{axis}`, which `{value.name}` {words(value.axes)} has not",
                hint=did_you_mean(axis, value.axes, f"`{value.name}` has"),
            )


def _shown(value: Option) -> str:
    return f"({' '.join(value)})" if isinstance(value, tuple) else str(value)


def _check_option(op: str, name: str, value: object) -> None:
    """Options are numbers, words, or words in brackets: what the text form can say."""
    check_name(name, "name of an option")
    if isinstance(value, (str, tuple)):
        for word in (value,) if isinstance(value, str) else value:
            check_name(word, f"word for option `{name}` of {op}")
    elif isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ProgramError(f"option `{name}` of {op} must be a number, a word or words, not {value!r}")


def check_options(op: str, inputs: Sequence[Value], options: Mapping[str, Option]) -> None:
    """Raise unless the options of a map have the types and name the axes that they must.

    Raises:
        ProgramError: they do not.
    """
    for name, value in options.items():
        _check_option(op, name, value)
    for name in NUMBERS:
        if name in options:
            _check_number(op, name, options[name])
    for name in ("axis", "sequence", "query", "key", "heads"):
        if name not in options:
            continue
        axis = options[name]
        several = name == "heads" or (name == "axis" and op.startswith("norm"))
        if not isinstance(axis, (str, tuple)) or (isinstance(axis, tuple) and not (several and axis)):
            raise ProgramError(f"option `{name}` of {op} must be one axis name, not {_shown(axis)}")
        if op not in ("lookup_backward", "dispatch"):
            need_axes(op, inputs[0], option_axes(axis))
    if options.get("alibi", 0) and "heads" not in options:
        raise ProgramError(f"option `alibi` of {op} needs the option `heads`", expected="for example heads=(n g)")


def _check_number(op: str, name: str, number: Option) -> None:
    if isinstance(number, (str, tuple)):
        raise ProgramError(f"option `{name}` of {op} must be a number, not {_shown(number)}")
    if name == "rate" and not 0 <= number < 1:
        raise ProgramError(f"option `rate` of {op} must lie in [0, 1), not {number}")
    if name in ("window", "rotary", "width", "chunk", "flops") and (number != int(number) or number < 0):
        raise ProgramError(f"option `{name}` of {op} must be a whole number, not {number}")
    if name == "rotary" and number % 2:
        raise ProgramError(f"option `rotary` of {op} must be even, not {number}: pairs are turned")
    if name in ("top", "groups", "top_groups") and (number != int(number) or number < 1):
        raise ProgramError(f"option `{name}` of {op} must be a whole number from 1, not {number}")
    if name == "capacity" and number < 1:
        raise ProgramError(f"option `capacity` of {op} must be at least 1, not {number}")
    if name in ("cap", "limit") and number <= 0:
        raise ProgramError(f"option `{name}` of {op} must be larger than 0, not {number}")
