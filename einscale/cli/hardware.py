"""`einscale hardware`: the systems einscale knows, every figure of one and its roofline, a critical look at a file."""

from __future__ import annotations

from typing import Annotated

import typer

from einscale.cli import complete
from einscale.cli.groups import command
from einscale.cli.options import Output

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME|FILE]", help="A system's name, or the path of its TOML file.", autocompletion=complete.hardware
    ),
]
Check = Annotated[
    bool, typer.Option("--check", help="Read a file critically: what was read, and figures that may be a mistake.")
]


@command
def hardware(*, name: Name = None, check: Check = False, output: Output) -> None:
    """List the hardware einscale knows, or show every figure of one with its source, and its roofline.

    einscale hardware h100

    einscale hardware --check cluster.toml
    """
    from einscale.cli.output import emit
    from einscale.errors import UsageError
    from einscale.hardware import doubts, load_system
    from einscale.report import hardware as report

    destination = output.destination()
    if name is None and check:
        raise UsageError("--check needs something to check", expected="the path of a TOML file after it")
    if name is None:
        emit(destination, report.systems_document, report.systems_report)
        return
    system = load_system(name)
    if check:
        found = doubts(system)
        emit(destination, lambda: report.check_document(system, found), lambda: report.check_report(system, found))
        return
    emit(destination, lambda: report.system_document(system), lambda: report.system_report(system))
