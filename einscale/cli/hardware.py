"""`einscale hardware`: the systems einscale knows, and every figure of one."""

from __future__ import annotations

from typing import Annotated

import typer

from einscale.cli.options import Format, Json, Output, Units


def hardware(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE]", help="A system's name, or the path of its TOML file.")
    ] = None,
    as_json: Json = False,
    output_format: Format = "auto",
    output: Output = None,
    units: Units = "iec",
) -> None:
    """List the hardware einscale knows, or show every figure of one with its source."""
    from einscale.cli.output import choose, emit
    from einscale.hardware import load_system
    from einscale.report import catalogue

    destination = choose(output_format=output_format, json=as_json, output=output, units=units)
    if name is None:
        emit(destination, catalogue.systems_document, catalogue.systems_report)
        return
    system = load_system(name)
    emit(destination, lambda: catalogue.system_document(system), lambda: catalogue.system_report(system))
