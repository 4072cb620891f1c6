"""The typer application, made of the commands asked for."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

from einscale.cli import COMMANDS

EPILOGUE = "Every command: COMMAND --help. Exit status: 0 done, 1 the answer is no, 2 the request cannot be understood."


def application(names: Iterable[str]) -> typer.Typer:
    """A typer application that has the named commands; the modules of the others are not imported."""
    app = typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
        epilog=EPILOGUE,
    )
    app.callback()(_options)
    for name in names:
        module, summary = COMMANDS[name]
        function = getattr(import_module(f"einscale.cli.{module}"), name)
        app.command(name, short_help=summary)(function)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from einscale import __version__

        print(f"einscale {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Derive, explain, prove and price the collectives of a sharded Transformer."""
