"""`einscale schema`: the JSON Schemas of the documents that `--json` prints."""

from __future__ import annotations

from typing import Annotated

import typer

from einscale.cli import complete
from einscale.cli.groups import command
from einscale.cli.options import Manner

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="What a document's key `command` says: plan, train, ...",
        autocompletion=complete.documents,
    ),
]


SAME = {"explain": "plan"}
"""Commands whose documents go by another name."""


@command
def schema(*, name: Name = None, manner: Manner) -> None:
    """Print the JSON Schema of a document, or list the documents that have one.

    einscale schema train
    """
    from einscale.cli.output import show
    from einscale.errors import UsageError, did_you_mean

    destination = manner.destination()
    known = complete.documents("")
    name = SAME.get(name or "", name)
    if name is None:
        show(destination, "".join(f"{one}\n" for one in known))
        return
    if name not in known:
        raise UsageError(f"no document is called `{name}`", hint=did_you_mean(name, known, "the documents are"))
    show(destination, (complete.PACKAGE / "schemas" / f"{name}.json").read_text("utf-8"))
