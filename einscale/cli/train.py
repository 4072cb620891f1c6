"""`einscale train`: what one optimizer step of a model costs on a cluster, and whether it fits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from einscale.cli import complete
from einscale.cli.groups import Options, command
from einscale.cli.options import (
    Batch,
    Detail,
    Explain,
    Only,
    Output,
    Overhead,
    Placed,
    PrecisionName,
    Price,
    Sequence,
    count,
    joined,
    number,
)

if TYPE_CHECKING:
    from einscale.report.table import Report
    from einscale.train import Advice, TrainReport


class Pipeline(Options, frozen=True, kw_only=True):
    """The batch, and how it runs through the stages."""

    batch: Batch = None
    sequence: Sequence = None
    microbatch: Annotated[
        str | None, typer.Option("--microbatch", metavar="INT", help="Sequences a replica works on at a time; else 1.")
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option(
            "--schedule",
            metavar="NAME",
            help="gpipe, 1f1b, interleaved, zb-h1, zb-h2, zb-v, dualpipe or dualpipev, for a mesh with an axis pipe.",
            autocompletion=complete.schedules,
        ),
    ] = None
    chunks: Annotated[
        str | None,
        typer.Option("--chunks", metavar="INT", help="Model chunks on each stage (virtual stages)."),
    ] = None
    first_layers: Annotated[
        str | None,
        typer.Option("--first-layers", metavar="INT", help="Blocks of the first chunk, if not even."),
    ] = None
    last_layers: Annotated[
        str | None,
        typer.Option("--last-layers", metavar="INT", help="Blocks of the last chunk, if not even."),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """What `einscale.train_step` calls these."""
        return {
            "batch": number(self.batch, "batch"),
            "sequence": number(self.sequence, "sequence"),
            "microbatch": number(self.microbatch, "microbatch"),
            "schedule": self.schedule,
            "chunks": number(self.chunks, "number of chunks"),
            "first_layers": count(self.first_layers, "number of layers"),
            "last_layers": count(self.last_layers, "number of layers"),
        }


class State(Options, frozen=True, kw_only=True):
    """What is kept, in which element types, where, and what is hidden or computed again."""

    precision: PrecisionName = "bf16"
    optimizer: Annotated[
        str,
        typer.Option(
            "--optimizer",
            metavar="NAME",
            help="adamw, adam, adam8bit, adafactor, muon, sgd, ...",
            autocompletion=complete.optimizers,
        ),
    ] = "adamw"
    zero: Annotated[
        str | None,
        typer.Option(
            "--zero",
            metavar="0|1|2|3",
            help="Divide optimizer state (1), gradients (2), parameters (3) over data.",
            autocompletion=complete.words("0", "1", "2", "3"),
        ),
    ] = None
    recompute: Annotated[
        list[str] | None,
        typer.Option(
            "--recompute",
            metavar="GROUP,...",
            help="none, selective (attention), full, alternate, or groups, sections, results.",
            autocompletion=complete.words("none", "selective", "full", "alternate", several=True),
        ),
    ] = None
    overlap: Annotated[
        list[str] | None,
        typer.Option(
            "--overlap",
            metavar="KIND,...",
            help="Collectives that are hidden: parameters, gradients, activations, routed.",
            autocompletion=complete.overlaps,
        ),
    ] = None
    offload_optimizer: Annotated[
        bool, typer.Option("--offload-optimizer", help="Optimizer state in the host's memory, updated there.")
    ] = False
    offload_activations: Annotated[
        float,
        typer.Option("--offload-activations", metavar="SHARE", help="Share of saved activations on the host, 0 to 1."),
    ] = 0.0
    attention: Annotated[
        str,
        typer.Option(
            "--attention",
            metavar="causal|full",
            help="Attention in model FLOPs: half its square, or all of it.",
            autocompletion=complete.words("causal", "full"),
        ),
    ] = "causal"
    overhead: Overhead = None
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            metavar="NAME",
            help="How the loss runs: fused (one kernel, fp32 logits), compiled (16 bits) or eager.",
            autocompletion=complete.losses,
        ),
    ] = "fused"
    capacity: Annotated[
        float,
        typer.Option(
            "--capacity", metavar="FACTOR", help="Rows each expert has room for, in even shares; 1 is dropless."
        ),
    ] = 1.0

    def arguments(self) -> dict[str, Any]:
        """What `einscale.train_step` calls these."""
        from einscale.memory import FRAMEWORK

        overhead = count(self.overhead, "overhead")
        return {
            "precision": self.precision,
            "optimizer": self.optimizer,
            "zero": count(self.zero, "ZeRO stage"),
            "recompute": joined(self.recompute),
            "overlap": joined(self.overlap),
            "offload_optimizer": self.offload_optimizer,
            "offload_activations": self.offload_activations,
            "attention": self.attention,
            "overhead": FRAMEWORK if overhead is None else overhead,
            "loss": self.loss,
            "capacity": self.capacity,
        }


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
    placed: Placed,
    pipeline: Pipeline,
    state: State,
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
    advice = answer.advice

    def report() -> Report:
        from einscale.report.train import train_tables

        return train_tables(answer, detail=detail, explain=explain, only=only, units=output.units, advice=advice)

    emit(destination, lambda: answer.to_dict(advice=advice), report)
    if not answer.fits:
        write(sys.stderr, _no(answer.report, advice, output.units, short=destination.on_screen))
        raise typer.Exit(1)


def _no(report: TrainReport, advice: tuple[Advice, ...], units: str, *, short: bool) -> str:
    """What does not fit and by how much; what is to blame, and what would fit, unless the screen says it."""
    from einscale.report.train import blamed, verdict
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
