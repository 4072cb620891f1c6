"""`einscale collective`: the time of one collective by algorithm and topology, and over sizes."""

from __future__ import annotations

from typing import Annotated

import typer

from einscale.cli import complete
from einscale.cli.groups import command
from einscale.cli.options import Hardware, MeshText, Output

Kind = Annotated[
    str,
    typer.Argument(
        metavar="KIND",
        help="all-gather, reduce-scatter, all-reduce, all-to-all or permute.",
        autocompletion=complete.collectives,
    ),
]
Bytes = Annotated[
    str,
    typer.Option(
        "--bytes",
        "-b",
        metavar="BYTES",
        help="Bytes of the whole array of one group: gathered, or owed before it is reduced; 64MiB, 1GiB.",
    ),
]
Axes = Annotated[
    str | None,
    typer.Option("--axes", metavar="AXIS,...", help="Mesh axes that make a group; without it, all of them."),
]


@command
def collective(
    kind: Kind,
    mesh: MeshText,
    *,
    size: Bytes = "1GiB",
    axes: Axes = None,
    hardware: Hardware = None,
    output: Output,
) -> None:
    """Price one collective on its own: its time by algorithm, its latency, and a table over sizes.

    einscale collective all-reduce --bytes 1GiB --axes model --mesh data=8,model=8 --hardware h100
    """
    from einscale.api.collective import collective as ask
    from einscale.cli.output import emit

    destination = output.destination()
    result = ask(kind, size, mesh=mesh, axes=axes, hardware=hardware)
    emit(destination, result.to_dict, lambda: result.to_report(units=output.units))
