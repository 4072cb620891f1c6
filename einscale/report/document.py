"""What every JSON document begins with."""

from __future__ import annotations

from typing import Any

SCHEMA_VERSION = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""


def head(command: str) -> dict[str, Any]:
    """The keys that say what a document is.

    >>> sorted(head("plan"))
    ['command', 'einscale_version', 'schema_version']
    """
    from einscale import __version__

    return {"schema_version": SCHEMA_VERSION, "einscale_version": __version__, "command": command}
