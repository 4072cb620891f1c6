"""What every JSON document begins with."""

from __future__ import annotations

from typing import Any

SCHEMA_VERSION = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""


def head(kind: str) -> dict[str, Any]:
    """The keys that say what a document is.

    >>> sorted(head("plan"))
    ['einscale_version', 'kind', 'schema_version']
    """
    from einscale import __version__

    return {"schema_version": SCHEMA_VERSION, "kind": kind, "einscale_version": __version__}
