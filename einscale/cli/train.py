"""`einscale train`: what one optimizer step of a model costs on a cluster, and whether it fits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from einscale.cli.groups import Options, command
from einscale.cli.options import Detail, Explain, Only, Output, PlacedOptions, Price
from einscale.cli.training import Pipeline, StateOptions

if TYPE_CHECKING:
    from einscale.report.table import Report
    from einscale.training import Advice, TrainReport


class Run(Options, frozen=True, kw_only=True):
    """The whole run of which the step is one."""

    price_per_hour: Price = None
    tokens: Annotated[
        str | None, typer.Option("--tokens", metavar="INT", help="Tokens of the whole run, 15T: gives days and money.")
    ] = None

    def arguments(self) -> dict[str, Any]:
        """What `einscale.train_step` calls these."""
        from einscale.cli.arguments import read_tokens

        return {
            "price_per_hour": self.price_per_hour,
            "tokens": None if self.tokens is None else read_tokens(self.tokens),
        }


@command
def train(
    placed: PlacedOptions,
    pipeline: Pipeline,
    state: StateOptions,
    run: Run,
    *,
    detail: Detail = False,
    explain: Explain = False,
    only: Only = None,
    output: Output,
) -> None:
    """Price one training step on a cluster: time, memory of every pipeline stage, and what decides them.

    Exit status 1, and the nearest changes that would fit, if it does not fit.

    einscale train llama3-8b --mesh data=8,model=2 --strategy megatron-sp --zero 1 --batch 64

    einscale train llama3-70b --mesh pipe=4,data=4,model=8 --batch 128 --strategy megatron-sp --zero 1 --explain
    """
    from einscale.api.train import train_step
    from einscale.cli.output import emit, write

    destination = output.destination(only=only)
    answer = train_step(**placed.arguments(), **pipeline.arguments(), **state.arguments(), **run.arguments())
    advice = None if answer.fits else answer.advice

    def report() -> Report:
        from einscale.report.training.tables import train_tables

        return train_tables(answer, detail=detail, explain=explain, only=only, units=output.units, advice=advice)

    emit(destination, lambda: answer.to_dict(advice=advice or ()), report)
    if not answer.fits:
        write(sys.stderr, _no(answer.step, advice or (), output.units, short=destination.on_screen))
        raise typer.Exit(1)


def _no(report: TrainReport, advice: tuple[Advice, ...], units: str, *, short: bool) -> str:
    """What does not fit and by how much; what is to blame, and what would fit, unless the screen says it."""
    from einscale.report.training.parts import verdict
    from einscale.report.training.tables import blamed
    from einscale.report.words import changes_words
    from einscale.units import format_bytes, format_seconds

    if short:
        return f"{verdict(report, units)}\n"
    lines = [verdict(report, units), "  largest", *(f"    {words}" for words in blamed(report, units))]
    if not advice:
        lines.append("  no changes were found with which it fits: it wants more devices, or another strategy")
    lines += ["  it would fit with"] if advice else []
    lines += [
        f"    {changes_words(one.changes)}: {format_bytes(one.report.fullest.memory.needed, units)},"
        f" step {format_seconds(one.report.step_seconds)} instead of {format_seconds(report.step_seconds)}"
        for one in advice
    ]
    return "\n".join(lines) + "\n"
