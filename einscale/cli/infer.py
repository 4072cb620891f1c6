"""`einscale infer`: what a batch of requests costs, from prompt to last token, and whether it fits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from einscale.cli import complete
from einscale.cli.groups import Options, command
from einscale.cli.options import (
    Detail,
    Explain,
    Only,
    Output,
    Overhead,
    PlacedOptions,
    PrecisionName,
    count,
    number,
)
from einscale.cli.serving import Engine, Prompts

if TYPE_CHECKING:
    from collections.abc import Callable

    from einscale.api.infer_result import InferResult
    from einscale.report.table import Report
    from einscale.serving.advice import ServingAdvice


class Requests(Options, frozen=True, kw_only=True):
    """What is asked of the instance."""

    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="INT", help="Requests at the same time; else one a data-parallel device."),
    ] = None
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep", metavar="NAME=INT,...", help="Decode steps at 'batch=1,8,64 context=1024,8192'; repeat it."
        ),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """What `einscale.infer` calls these."""
        return {
            "batch": number(self.batch, "batch"),
            "sweep": " ".join(self.sweep) if self.sweep else None,
        }


class Running(Options, frozen=True, kw_only=True):
    """How an instance runs."""

    precision: PrecisionName = "bf16"
    overhead: Overhead = None
    execution: Annotated[
        str,
        typer.Option(
            "--execution",
            metavar="NAME",
            help="How kernels run: compiled, fused, eager, or roofline: none is faster.",
            autocompletion=complete.executions,
        ),
    ] = "compiled"

    def arguments(self) -> dict[str, Any]:
        """What `einscale.infer` calls these."""
        from einscale.price.memory import FRAMEWORK

        overhead = count(self.overhead, "overhead")
        return {
            "precision": self.precision,
            "overhead": FRAMEWORK if overhead is None else overhead,
            "execution": self.execution,
        }


class Ways(Options, frozen=True, kw_only=True):
    """Other ways to serve: a draft that guesses, prefill on its own instances. Messages of the library name these."""

    speculative: Annotated[
        str | None,
        typer.Option(
            "--speculative",
            metavar="MODEL|ahead",
            help="A draft that guesses tokens; ahead: the model's own MTP layers.",
            autocompletion=complete.models,
        ),
    ] = None
    guesses: Annotated[
        str | None, typer.Option("--guesses", metavar="INT", help="Tokens it guesses in a row; else 4.")
    ] = None
    acceptance: Annotated[
        float | None, typer.Option("--acceptance", metavar="SHARE", help="How probably a guess is accepted; else 0.8.")
    ] = None
    disaggregate: Annotated[
        str | None,
        typer.Option(
            "--disaggregate",
            metavar="AXIS=INT,...",
            help="Mesh of an instance that only prefills; --mesh then decodes.",
        ),
    ] = None
    prefill_strategy: Annotated[
        str | None,
        typer.Option(
            "--prefill-strategy",
            metavar="NAME|FILE",
            help="Its strategy, if another.",
            autocompletion=complete.strategies,
        ),
    ] = None
    prefill_hardware: Annotated[
        str | None,
        typer.Option(
            "--prefill-hardware",
            metavar="NAME|FILE",
            help="What it runs on, if something else.",
            autocompletion=complete.hardware,
        ),
    ] = None
    prefill_batch: Annotated[
        str | None,
        typer.Option("--prefill-batch", metavar="INT", help="Prompts it reads at a time; else one a replica."),
    ] = None
    prefill_instances: Annotated[
        str | None,
        typer.Option("--prefill-instances", metavar="INT", help="How many; else what serves most a device."),
    ] = None
    decode_instances: Annotated[
        str | None, typer.Option("--decode-instances", metavar="INT", help="How many of those that decode.")
    ] = None
    link: Annotated[
        str | None,
        typer.Option(
            "--link", metavar="BYTES/S", help="Between a prefill and a decode instance: 50GB/s; else the network's."
        ),
    ] = None
    prefill_price_per_hour: Annotated[
        float | None,
        typer.Option("--prefill-price-per-hour", metavar="MONEY", help="Of one device that prefills, if another."),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """What `einscale.infer` calls these."""
        from einscale.cli.arguments import read_rate

        return {
            "speculative": self.speculative,
            "guesses": number(self.guesses, "number of guesses"),
            "acceptance": self.acceptance,
            "disaggregate": self.disaggregate,
            "prefill_strategy": self.prefill_strategy,
            "prefill_hardware": self.prefill_hardware,
            "prefill_batch": number(self.prefill_batch, "prefill batch"),
            "prefill_instances": number(self.prefill_instances, "number of prefill instances"),
            "decode_instances": number(self.decode_instances, "number of decode instances"),
            "link": None if self.link is None else read_rate(self.link, "link"),
            "prefill_price_per_hour": self.prefill_price_per_hour,
        }


@command
def infer(
    placed: PlacedOptions,
    requests: Requests,
    prompts: Prompts,
    engine: Engine,
    running: Running,
    ways: Ways,
    *,
    detail: Detail = False,
    explain: Explain = False,
    only: Only = None,
    output: Output,
) -> None:
    """Price a batch of requests: time to first token, time per token, throughput, memory, money, and why.

    Exit status 1, and the nearest changes that would fit, if it does not fit.

    einscale infer llama3-70b --mesh model=8 --batch 32 --prompt 2048 --output 256 --price-per-hour 2.5

    einscale infer llama3-70b --mesh model=8 --sweep 'batch=1,8,64 context=1024,8192'
    """
    from einscale.api.infer import infer as price_requests
    from einscale.cli.output import emit, write

    destination = output.destination(only=only)
    answer = _in_options(
        price_requests,
        **placed.arguments(),
        **requests.arguments(),
        **prompts.arguments(),
        **engine.arguments(),
        **running.arguments(),
        **ways.arguments(),
    )
    advice = None if answer.fits else answer.advice

    def report() -> Report:
        from einscale.report.serving.tables import infer_tables

        return infer_tables(answer, detail=detail, explain=explain, only=only, units=output.units, advice=advice)

    emit(destination, lambda: answer.to_dict(advice=advice or ()), report)
    if not answer.fits:
        write(sys.stderr, _no(answer, advice or (), output.units, short=destination.on_screen))
        raise typer.Exit(1)


def _in_options(call: Callable[..., InferResult], **named: object) -> InferResult:
    """What a function of the library answers; its errors name options, not arguments."""
    import re

    from einscale.errors import UsageError

    names = Ways.__struct_fields__

    def options(text: str | None) -> str | None:
        if text is None:
            return None
        return re.sub(r"`(\w+)`", lambda m: f"`--{m[1].replace('_', '-')}`" if m[1] in names else m[0], text)

    try:
        return call(**named)
    except UsageError as error:
        parts = {"expected": options(error.expected), "hint": options(error.hint)}
        message = options(error.message) or ""
        raise UsageError(message, text=error.text, span=error.span, **parts) from error


def _no(answer: InferResult, advice: tuple[ServingAdvice, ...], units: str, *, short: bool) -> str:
    """What does not fit and by how much; what is to blame, and what would fit, unless the screen says it."""
    from einscale.report.serving.tables import blamed, fit_words
    from einscale.report.words import changes_words
    from einscale.units import format_bytes, format_seconds

    lines: list[str] = []
    for words, memory in zip(fit_words(answer, units), answer.memories, strict=True):
        if not memory.fits:
            lines += [words] if short else [words, f"  of that: {blamed(memory, units)}"]
    if short:
        return "\n".join(lines) + "\n"
    lines += ["  it would fit with"] if advice else ["  no change was found with which it fits"]
    for one in advice:
        found = one.result
        needed = format_bytes(max(memory.needed for memory in found.memories), units)
        token = f", a token {format_seconds(found.seconds_per_token)}" if found.seconds_per_token else ""
        devices = f" on {found.devices} devices" if found.devices != answer.devices else ""
        first = format_seconds(found.first_token_seconds)
        lines.append(f"    {changes_words(one.changes)}: {needed}{devices}, first token {first}{token}")
    return "\n".join(lines) + "\n"
