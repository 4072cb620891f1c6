"""The typer application, made of the commands asked for."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

from einscale.cli import COMMANDS
from einscale.cli.options import Color, Pager, Quiet

EPILOGUE = (
    "Every command: `help COMMAND` or `COMMAND --help`. Defaults: einscale.toml, EINSCALE_HARDWARE, EINSCALE_UNITS."
    " Exit status: 0 done, 1 the answer is no, 2 the request cannot be understood."
)


def application(names: Iterable[str], *, listed: bool = False) -> typer.Typer:
    """A typer application that has the named commands; the modules of the others are not imported.

    Args:
        names: of `COMMANDS`.
        listed: the commands are only named, as in an overview, and none of their modules is imported.
    """
    app = typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
        epilog=EPILOGUE,
    )
    app.callback()(_options)
    for name in names:
        module, summary = COMMANDS[name]
        function = _unloaded if listed else getattr(import_module(f"einscale.cli.{module}"), name)
        app.command(name, short_help=summary)(function)
    return app


def _unloaded() -> None:
    """Stands for a command in an overview."""


def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and leave.")] = False,
    color: Color = "auto",
    quiet: Quiet = False,
    pager: Pager = True,
) -> None:
    """Derive, explain, prove and price the collectives of a sharded Transformer."""
    given = {"color": color, "quiet": quiet, "pager": pager}
    sources = {name: getattr(context.get_parameter_source(name), "name", "") for name in given}
    context.obj = {
        **(context.obj or {}),
        **{name: value for name, value in given.items() if sources[name] == "COMMANDLINE"},
    }
