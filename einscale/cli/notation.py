"""`einscale notation`: a layout or an einsum in every notation, and XLA's warnings as names."""

from __future__ import annotations

from typing import Annotated

import typer

from einscale.cli.options import Format, Json, Output, Units

Source = Annotated[
    str,
    typer.Argument(
        metavar="LAYOUT|SPEC|WARNING",
        help="One tensor's layout, an einsum with layouts, or XLA's warning; `-` reads stdin, `@FILE` a file.",
    ),
]
MeshText = Annotated[
    str | None, typer.Option("--mesh", metavar="AXIS=INT,...", help="Mesh axes, major to minor: x=2,y=4.")
]
Dialect = Annotated[
    str | None,
    typer.Option(
        "--from",
        "--syntax",
        metavar="DIALECT",
        help="Its notation where it cannot be told: slash, numpy, book, jax, dtensor, ...",
    ),
]
Indices = Annotated[
    str | None,
    typer.Option("--indices", metavar="NAMES", help="Names of the tensor's dims, with sizes if you like: 'B=32 S D'."),
]


def notation(
    source: Source,
    mesh: MeshText = None,
    dialect: Dialect = None,
    indices: Indices = None,
    as_json: Json = False,
    output_format: Format = "auto",
    output: Output = None,
    units: Units = "iec",
) -> None:
    """Write a layout, or an einsum with its layouts, in every notation that can say it; the others say why not.

    einscale notation "P('x', None, ('y', 'z'))" --mesh x=2,y=4,z=2 --indices 'B S D'
    """
    from einscale.api.notation import convert
    from einscale.cli.arguments import read_spec
    from einscale.cli.output import choose, emit

    destination = choose(output_format=output_format, json=as_json, output=output, units=units)
    result = convert(read_spec(source), mesh=mesh, syntax=dialect, indices=indices)
    emit(destination, result.to_dict, result.report)
