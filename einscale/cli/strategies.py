"""`einscale strategies`: the named strategies, and the tables of one."""

from __future__ import annotations

from typing import Annotated

import typer

from einscale.cli import complete
from einscale.cli.groups import command
from einscale.cli.options import Output

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME|FILE]",
        help="A strategy's name, or the path of its TOML file.",
        autocompletion=complete.strategies,
    ),
]


@command
def strategies(*, name: Name = None, output: Output) -> None:
    """List the named strategies, or show the tables of one."""
    from einscale.cli.output import emit
    from einscale.report import catalogue
    from einscale.strategy import load_strategy

    destination = output.destination()
    if name is None:
        emit(destination, catalogue.strategies_document, catalogue.strategies_report)
        return
    strategy = load_strategy(name)
    emit(destination, lambda: catalogue.strategy_document(strategy), lambda: catalogue.strategy_report(strategy))
