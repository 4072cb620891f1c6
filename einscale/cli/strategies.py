"""`einscale strategies`: the named strategies, and the tables of one."""

from __future__ import annotations

from typing import Annotated

import typer

from einscale.cli.options import Format, Json, Output, Units


def strategies(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE]", help="A strategy's name, or the path of its TOML file.")
    ] = None,
    as_json: Json = False,
    output_format: Format = "auto",
    output: Output = None,
    units: Units = "iec",
) -> None:
    """List the named strategies, or show the tables of one."""
    from einscale.cli.output import choose, emit
    from einscale.report import catalogue
    from einscale.strategy import load_strategy

    destination = choose(output_format=output_format, json=as_json, output=output, units=units)
    if name is None:
        emit(destination, catalogue.strategies_document, catalogue.strategies_report)
        return
    strategy = load_strategy(name)
    emit(destination, lambda: catalogue.strategy_document(strategy), lambda: catalogue.strategy_report(strategy))
