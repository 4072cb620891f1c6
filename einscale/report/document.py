"""What JSON documents have in common: how each begins, how changes of a request are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from functools import wraps
from typing import Any, ParamSpec

from einscale.changes import Change

SCHEMA_VERSION = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""


_Arguments = ParamSpec("_Arguments")


def plain(make: Callable[_Arguments, dict[str, Any]]) -> Callable[_Arguments, dict[str, Any]]:
    """A maker of documents, the words of enums in them as plain text: not every writer takes a member for its text.

    >>> from einscale.vocabulary import Phase
    >>> plain(lambda: {"phase": Phase.FORWARD, Phase.BACKWARD: [1, (Phase.UPDATE,)]})()
    {'phase': 'forward', 'backward': [1, ('update',)]}
    """

    @wraps(make)
    def made(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> dict[str, Any]:
        document: dict[str, Any] = _plain(make(*args, **kwargs))
        return document

    return made


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value.value if isinstance(value, Enum) else value


def head(command: str) -> dict[str, Any]:
    """The keys that say what a document is.

    >>> sorted(head("plan"))
    ['command', 'einscale_version', 'schema_version']
    """
    from einscale.version import __version__

    return {"schema_version": SCHEMA_VERSION, "einscale_version": __version__, "command": command}


def changes_document(changes: Iterable[Change]) -> dict[str, Any]:
    """Changes of a request: option -> what it is set to, as it is written on the command line."""
    return {
        change.option.value: change.value if isinstance(change.value, int | str) else str(change.value)
        for change in changes
    }
