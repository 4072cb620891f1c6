"""`einscale notation`: a layout or an einsum in every notation, and XLA's warnings as names."""

from __future__ import annotations

from typing import Annotated

import typer

from einscale.cli import complete
from einscale.cli.groups import command
from einscale.cli.options import Indices, MeshOrNone, Output

Source = Annotated[
    str,
    typer.Argument(
        metavar="LAYOUT|SPEC|WARNING",
        help="One tensor's layout, an einsum with layouts, or XLA's warning; `-` reads stdin, `@FILE` a file.",
    ),
]
Syntax = Annotated[
    str | None,
    typer.Option(
        "--syntax",
        "--from",
        metavar="NAME",
        help="Its notation where it cannot be told: slash, numpy, book, jax, dtensor, ...",
        autocompletion=complete.dialects,
    ),
]


@command
def notation(
    source: Source,
    *,
    mesh: MeshOrNone = None,
    syntax: Syntax = None,
    indices: Indices = None,
    output: Output,
) -> None:
    """Write a layout, or an einsum with its layouts, in every notation that can say it; the others say why not.

    einscale notation "P('x', None, ('y', 'z'))" --mesh x=2,y=4,z=2 --indices 'B S D'
    """
    from einscale.api.notation import convert
    from einscale.cli.arguments import read_spec
    from einscale.cli.output import emit

    destination = output.destination()
    result = convert(read_spec(source), mesh=mesh, syntax=syntax, indices=indices)
    emit(destination, result.to_dict, result.to_report)
