"""What JSON documents have in common: how each begins, how changes of a request are written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from einscale.changes import Change

SCHEMA_VERSION = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""


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
