"""`einscale infer`: what a batch of requests costs, from prompt to last token, and whether it fits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from einscale.cli.layer import MeshText, ModelName, Shard, StrategyName
from einscale.cli.options import AxisSizes, Format, Hardware, Json, Units

if TYPE_CHECKING:
    from collections.abc import Callable

    from einscale.api.infer_result import InferResult
    from einscale.api.serving_advice import ServingAdvice
    from einscale.report.table import Report

Batch = Annotated[
    str | None,
    typer.Option("--batch", metavar="INT", help="Requests at the same time; else one a data-parallel device."),
]
Prompt = Annotated[str | None, typer.Option("--prompt", metavar="INT", help="Tokens of each prompt; else 2048.")]
OutputTokens = Annotated[
    str | None,
    typer.Option("--output", metavar="INT", help="Tokens generated of each, the first by the prefill; else 256."),
]
Chunk = Annotated[
    str | None,
    typer.Option("--chunk", metavar="INT", help="Tokens of each prompt that are read at a time; else all at once."),
]
Microbatches = Annotated[
    str | None,
    typer.Option("--microbatches", metavar="INT", help="Parts of the batch, for a mesh with an axis pipe."),
]
PrecisionName = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="PRESET[,KEY=DTYPE]",
        help="Element types: bf16, int8, int4, w8a8-fp8, ...; bf16,kv_cache=fp8.",
    ),
]
Page = Annotated[
    str, typer.Option("--page", metavar="INT", help="Tokens in a page of the cache; 1 for a cache without pages.")
]
MemoryShare = Annotated[
    float, typer.Option("--memory-share", metavar="SHARE", help="Share of the device's memory that may be used.")
]
Overhead = Annotated[
    str | None,
    typer.Option("--overhead", metavar="BYTES", help="What a runtime takes beside tensors: 1GiB; else 1.5 GiB."),
]
Execution = Annotated[
    str,
    typer.Option("--execution", metavar="NAME", help="How kernels run: compiled, eager, or roofline: none is faster."),
]
Speculative = Annotated[
    str | None,
    typer.Option(
        "--speculative", metavar="MODEL|ahead", help="A draft that guesses tokens; ahead: the model's own MTP layers."
    ),
]
Guesses = Annotated[str | None, typer.Option("--guesses", metavar="INT", help="Tokens it guesses in a row; else 4.")]
Acceptance = Annotated[
    float | None, typer.Option("--acceptance", metavar="SHARE", help="How probably a guess is accepted; else 0.8.")
]
Disaggregate = Annotated[
    str | None,
    typer.Option(
        "--disaggregate", metavar="AXIS=INT,...", help="Mesh of an instance that only prefills; --mesh then decodes."
    ),
]
PrefillStrategy = Annotated[
    str | None, typer.Option("--prefill-strategy", metavar="NAME|FILE", help="Its strategy, if another.")
]
PrefillHardware = Annotated[
    str | None, typer.Option("--prefill-hardware", metavar="NAME|FILE", help="What it runs on, if something else.")
]
PrefillBatch = Annotated[
    str | None, typer.Option("--prefill-batch", metavar="INT", help="Prompts it reads at a time; else one a replica.")
]
PrefillInstances = Annotated[
    str | None, typer.Option("--prefill-instances", metavar="INT", help="How many; else what serves most a device.")
]
DecodeInstances = Annotated[
    str | None, typer.Option("--decode-instances", metavar="INT", help="How many of those that decode.")
]
Link = Annotated[
    str | None,
    typer.Option(
        "--link", metavar="BYTES/S", help="Between a prefill and a decode instance: 50GB/s; else the network's."
    ),
]
Sweep = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep", metavar="NAME=INT,...", help="Decode steps at 'batch=1,8,64 context=1024,8192'; repeat it."
    ),
]
Price = Annotated[
    float | None, typer.Option("--price-per-hour", metavar="MONEY", help="Of one device; gives the price of tokens.")
]
PrefillPrice = Annotated[
    float | None,
    typer.Option("--prefill-price-per-hour", metavar="MONEY", help="Of one device that prefills, if another."),
]
Detail = Annotated[
    bool, typer.Option("--detail", help="Also every kind of layer, every statement, every collective with its cause.")
]
Explain = Annotated[bool, typer.Option("--explain", help="Also how each number came about: formulas and operands.")]
File = Annotated[str | None, typer.Option("-o", metavar="FILE", help="Write there; its extension chooses the format.")]


WAYS = (
    "speculative",
    "guesses",
    "acceptance",
    "disaggregate",
    "prefill_strategy",
    "prefill_hardware",
    "prefill_batch",
    "prefill_instances",
    "decode_instances",
    "link",
    "prefill_price_per_hour",
)
"""Arguments that messages of the library name."""


def infer(
    model: ModelName,
    mesh: MeshText = "data=1",
    strategy: StrategyName = None,
    shard: Shard = None,
    size: AxisSizes = None,
    hardware: Hardware = None,
    batch: Batch = None,
    prompt: Prompt = None,
    output: OutputTokens = None,
    chunk: Chunk = None,
    microbatches: Microbatches = None,
    precision: PrecisionName = "bf16",
    page: Page = "16",
    memory_share: MemoryShare = 1.0,
    overhead: Overhead = None,
    execution: Execution = "compiled",
    speculative: Speculative = None,
    guesses: Guesses = None,
    acceptance: Acceptance = None,
    disaggregate: Disaggregate = None,
    prefill_strategy: PrefillStrategy = None,
    prefill_hardware: PrefillHardware = None,
    prefill_batch: PrefillBatch = None,
    prefill_instances: PrefillInstances = None,
    decode_instances: DecodeInstances = None,
    link: Link = None,
    sweep: Sweep = None,
    price_per_hour: Price = None,
    prefill_price_per_hour: PrefillPrice = None,
    detail: Detail = False,
    explain: Explain = False,
    as_json: Json = False,
    output_format: Format = "auto",
    file: File = None,
    units: Units = "iec",
) -> None:
    """Price a batch of requests: time to first token, time per token, throughput, memory, money, and why.

    Exit status 1, and the nearest changes that would fit, if it does not fit.

    einscale infer llama3-70b --mesh model=8 --batch 32 --prompt 2048 --output 256 --price-per-hour 2.5

    einscale infer llama3-70b --mesh model=8 --sweep 'batch=1,8,64 context=1024,8192'
    """
    from einscale.api.infer import infer as price_requests
    from einscale.cli.arguments import read_count, read_rate, read_sizes
    from einscale.cli.output import choose, emit, write
    from einscale.memory import FRAMEWORK
    from einscale.units import parse_size

    def number(text: str | None, what: str) -> int | None:
        return None if text is None else parse_size(text, what)

    destination = choose(output_format=output_format, json=as_json, output=file, units=units)
    answer = _in_options(
        price_requests,
        model,
        mesh=mesh,
        strategy=strategy,
        shard=",".join(shard) if shard else None,
        sizes=read_sizes(size or ()),
        hardware=hardware,
        batch=number(batch, "batch"),
        prompt=number(prompt, "prompt"),
        output=None if output is None else _tokens(output),
        chunk=number(chunk, "chunk"),
        microbatches=number(microbatches, "number of microbatches"),
        precision=precision,
        page=parse_size(page, "page"),
        memory_share=memory_share,
        overhead=FRAMEWORK if overhead is None else read_count(overhead, "overhead"),
        execution=execution,
        speculative=speculative,
        guesses=number(guesses, "number of guesses"),
        acceptance=acceptance,
        disaggregate=disaggregate,
        prefill_strategy=prefill_strategy,
        prefill_hardware=prefill_hardware,
        prefill_batch=number(prefill_batch, "prefill batch"),
        prefill_instances=number(prefill_instances, "number of prefill instances"),
        decode_instances=number(decode_instances, "number of decode instances"),
        link=None if link is None else read_rate(link, "link"),
        sweep=" ".join(sweep) if sweep else None,
        price_per_hour=price_per_hour,
        prefill_price_per_hour=prefill_price_per_hour,
    )
    advice = answer.advice

    def report() -> Report:
        from einscale.report.infer import infer_tables

        return infer_tables(answer, detail=detail, explain=explain, units=units, advice=advice)

    emit(destination, lambda: answer.to_dict(advice=advice), report)
    if not answer.fits:
        write(sys.stderr, _no(answer, advice, units))
        raise typer.Exit(1)


def _in_options(call: Callable[..., InferResult], *arguments: object, **named: object) -> InferResult:
    """What a function of the library answers; its errors name options, not arguments."""
    import re

    from einscale.errors import UsageError

    def options(text: str | None) -> str | None:
        if text is None:
            return None
        return re.sub(r"`(\w+)`", lambda m: f"`--{m[1].replace('_', '-')}`" if m[1] in WAYS else m[0], text)

    try:
        return call(*arguments, **named)
    except UsageError as error:
        parts = {"expected": options(error.expected), "hint": options(error.hint)}
        message = options(error.message) or ""
        raise UsageError(message, text=error.text, span=error.span, **parts) from error


def _tokens(text: str) -> int:
    """Tokens of output; a file is meant by another flag here."""
    from einscale.errors import SizeError
    from einscale.units import parse_size

    try:
        return parse_size(text, "output")
    except SizeError as error:
        if error.text is not None and not any(sign.isdigit() for sign in text[:1]):
            error.hint = "`--output` is how many tokens are generated; a file is written with `-o FILE`"
        raise


def _no(answer: InferResult, advice: tuple[ServingAdvice, ...], units: str) -> str:
    """What does not fit, by how much, what is to blame, and what would fit."""
    from einscale.report.infer import blamed, verdicts
    from einscale.report.words import changes_words
    from einscale.units import format_bytes, format_seconds

    lines: list[str] = []
    for words, memory in zip(verdicts(answer, units), answer.memories, strict=True):
        if not memory.fits:
            lines += [words, f"  of that: {blamed(memory, units)}"]
    lines += ["  it would fit with"] if advice else ["  no change was found with which it fits"]
    for one in advice:
        found = one.result
        needed = format_bytes(max(memory.needed for memory in found.memories), units)
        token = f", a token {format_seconds(found.seconds_per_token)}" if found.seconds_per_token else ""
        devices = f" on {found.devices} devices" if found.devices != answer.devices else ""
        first = format_seconds(found.first_token_seconds)
        lines.append(f"    {changes_words(one.changes)}: {needed}{devices}, first token {first}{token}")
    return "\n".join(lines) + "\n"
