"""`einscale shard`: who holds which part of a tensor, as a picture."""

from __future__ import annotations

from typing import Annotated

import typer

from einscale.cli.groups import command
from einscale.cli.options import Detail, Dtype, Hardware, Indices, MeshText, Output, Sizes, Syntax

Layout = Annotated[
    str,
    typer.Argument(
        metavar="LAYOUT",
        help="One tensor's layout, in single quotes: 'B/x F/y', \"P('x', 'y')\"; `-` reads stdin, `@FILE` a file.",
    ),
]
Dims = Annotated[
    str | None,
    typer.Option("--dims", metavar="DIM,DIM", help="The dims to draw, down and across; else those with most parts."),
]


@command
def shard(
    layout: Layout,
    mesh: MeshText,
    *,
    size: Sizes = None,
    dtype: Dtype = "bf16",
    hardware: Hardware = None,
    dims: Dims = None,
    syntax: Syntax = None,
    indices: Indices = None,
    detail: Detail = False,
    output: Output,
) -> None:
    """Draw the mesh, and who holds which part of a tensor: copies, partial sums, uneven parts and padding said.

    einscale shard 'B/x F/y' --mesh x=2,y=4 -s B=8,F=16

    einscale shard 'B/data S D {U:model}' --mesh data=4,model=2 --hardware h100
    """
    from einscale.api.shard import shard as ask
    from einscale.cli.arguments import read_sizes, read_spec
    from einscale.cli.output import emit

    destination = output.destination()
    result = ask(
        read_spec(layout),
        mesh=mesh,
        sizes=read_sizes(size or ()),
        dtype=dtype,
        hardware=hardware,
        dims=dims,
        syntax=syntax,
        indices=indices,
    )
    long = detail or destination.format == "csv" or destination.table == "devices"
    emit(destination, result.to_dict, lambda: result.to_report(detail=long, units=output.units))
