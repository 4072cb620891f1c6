"""`einscale collective`: the time of one collective by algorithm and topology, and over sizes."""

from __future__ import annotations

from typing import Annotated

import typer

from einscale.cli.options import Format, Hardware, Json, MeshText, Output, Units


def collective(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="all-gather, reduce-scatter, all-reduce, all-to-all or permute.")
    ],
    mesh: MeshText,
    size: Annotated[
        str,
        typer.Option(
            "--bytes",
            "-b",
            metavar="BYTES",
            help="Bytes of the whole array of one group: gathered, or owed before it is reduced; 64MiB, 1GiB.",
        ),
    ] = "1GiB",
    axes: Annotated[
        str | None,
        typer.Option("--axes", metavar="AXIS,...", help="Mesh axes that make a group; without it, all of them."),
    ] = None,
    hardware: Hardware = None,
    as_json: Json = False,
    output_format: Format = "auto",
    output: Output = None,
    units: Units = "iec",
) -> None:
    """Price one collective on its own: its time by algorithm, its latency, and a table over sizes.

    einscale collective all-reduce --bytes 1GiB --axes model --mesh data=8,model=8 --hardware h100
    """
    from einscale.api.collective import collective as ask
    from einscale.cli.output import choose, emit

    destination = choose(output_format=output_format, json=as_json, output=output, units=units)
    result = ask(kind, size, mesh=mesh, axes=axes, hardware=hardware)
    emit(destination, result.to_dict, lambda: result.report(units))
