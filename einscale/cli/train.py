"""`einscale train`: what one optimizer step of a model costs on a cluster, and whether it fits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from einscale.cli.layer import MeshText, ModelName, Sequence, Shard, StrategyName
from einscale.cli.options import AxisSizes, Format, Hardware, Json, Output, Units

if TYPE_CHECKING:
    from einscale.report.table import Report
    from einscale.train import Advice, TrainReport

Batch = Annotated[
    str | None, typer.Option("--batch", metavar="INT", help="Sequences in the global batch; else one microbatch each.")
]
Microbatch = Annotated[
    str | None, typer.Option("--microbatch", metavar="INT", help="Sequences a replica works on at a time; else 1.")
]
Schedule = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        metavar="NAME",
        help="gpipe, 1f1b, interleaved, zb-h1, zb-h2, zb-v, dualpipe or dualpipev, for a mesh with an axis pipe.",
    ),
]
Chunks = Annotated[
    str | None, typer.Option("--chunks", metavar="INT", help="Model chunks on each pipeline stage (virtual stages).")
]
FirstLayers = Annotated[
    str | None,
    typer.Option("--first-layers", metavar="INT", help="Blocks of the first chunk, if not divided evenly."),
]
LastLayers = Annotated[
    str | None, typer.Option("--last-layers", metavar="INT", help="Blocks of the last chunk, if not divided evenly.")
]
PrecisionName = Annotated[
    str,
    typer.Option(
        "--precision", metavar="PRESET[,KEY=DTYPE]", help="Element types: bf16, mixed, fp8, mxfp8, fp32, fp16, ..."
    ),
]
OptimizerName = Annotated[
    str, typer.Option("--optimizer", metavar="NAME", help="adamw, adam, adam8bit, adafactor, muon, sgd, ...")
]
Zero = Annotated[
    str | None,
    typer.Option(
        "--zero", metavar="0|1|2|3", help="Divide optimizer state (1), gradients (2), parameters (3) over data."
    ),
]
Recompute = Annotated[
    list[str] | None,
    typer.Option(
        "--recompute",
        metavar="GROUP,...",
        help="none, selective (attention), full, alternate, or groups, sections, results.",
    ),
]
Overlap = Annotated[
    list[str] | None,
    typer.Option(
        "--overlap", metavar="KIND,...", help="Collectives that are hidden: parameters, gradients, activations, routed."
    ),
]
OffloadOptimizer = Annotated[
    bool, typer.Option("--offload-optimizer", help="Optimizer state in the host's memory, updated there.")
]
OffloadActivations = Annotated[
    float,
    typer.Option("--offload-activations", metavar="SHARE", help="Share of saved activations on the host, 0 to 1."),
]
Attention = Annotated[
    str,
    typer.Option("--attention", metavar="causal|full", help="Attention in model FLOPs: half its square, or all of it."),
]
Overhead = Annotated[
    str | None,
    typer.Option("--overhead", metavar="BYTES", help="What a runtime takes beside tensors: 1GiB; else 1.5 GiB."),
]
Loss = Annotated[
    str,
    typer.Option(
        "--loss",
        metavar="NAME",
        help="How the loss runs: fused (one kernel, fp32 logits), compiled (16 bits) or eager.",
    ),
]
Capacity = Annotated[
    float,
    typer.Option("--capacity", metavar="FACTOR", help="Rows each expert has room for, in even shares; 1 is dropless."),
]
Price = Annotated[
    float | None, typer.Option("--price-per-hour", metavar="MONEY", help="Of one device; gives the price of a step.")
]
Tokens = Annotated[
    str | None, typer.Option("--tokens", metavar="INT", help="Tokens of the whole run, 15T: gives days and money.")
]
Detail = Annotated[
    bool, typer.Option("--detail", help="Also every collective with its cause, every tensor at the peak, every stage.")
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Also how each number came about: formulas, operands, a timeline.")
]


def train(
    model: ModelName,
    mesh: MeshText = "data=1",
    strategy: StrategyName = None,
    shard: Shard = None,
    size: AxisSizes = None,
    hardware: Hardware = None,
    batch: Batch = None,
    seq: Sequence = None,
    microbatch: Microbatch = None,
    schedule: Schedule = None,
    chunks: Chunks = None,
    first_layers: FirstLayers = None,
    last_layers: LastLayers = None,
    precision: PrecisionName = "bf16",
    optimizer: OptimizerName = "adamw",
    zero: Zero = None,
    recompute: Recompute = None,
    overlap: Overlap = None,
    offload_optimizer: OffloadOptimizer = False,
    offload_activations: OffloadActivations = 0.0,
    attention: Attention = "causal",
    overhead: Overhead = None,
    loss: Loss = "fused",
    capacity: Capacity = 1.0,
    price_per_hour: Price = None,
    tokens: Tokens = None,
    detail: Detail = False,
    explain: Explain = False,
    as_json: Json = False,
    output_format: Format = "auto",
    output: Output = None,
    units: Units = "iec",
) -> None:
    """Price one training step on a cluster: time, memory of every pipeline stage, and what decides them.

    Exit status 1, and the nearest changes that would fit, if it does not fit.

    einscale train llama3-8b --mesh data=8,model=2 --strategy megatron-sp --zero 1 --batch 64

    einscale train llama3-70b --mesh pipe=4,data=4,model=8 --batch 128 --strategy megatron-sp --zero 1 --explain
    """
    from einscale.api.train import train_step
    from einscale.cli.arguments import read_count, read_sizes, read_tokens
    from einscale.cli.output import choose, emit, write
    from einscale.memory import FRAMEWORK
    from einscale.units import parse_size

    destination = choose(output_format=output_format, json=as_json, output=output, units=units)
    answer = train_step(
        model,
        mesh=mesh,
        strategy=strategy,
        shard=",".join(shard) if shard else None,
        sizes=read_sizes(size or ()),
        hardware=hardware,
        batch=None if batch is None else parse_size(batch, "batch"),
        sequence=None if seq is None else parse_size(seq, "sequence"),
        microbatch=None if microbatch is None else parse_size(microbatch, "microbatch"),
        schedule=schedule,
        chunks=None if chunks is None else parse_size(chunks, "number of chunks"),
        first_layers=None if first_layers is None else read_count(first_layers, "number of layers"),
        last_layers=None if last_layers is None else read_count(last_layers, "number of layers"),
        precision=precision,
        optimizer=optimizer,
        zero=None if zero is None else read_count(zero, "ZeRO stage"),
        recompute=",".join(recompute) if recompute else None,
        overlap=",".join(overlap) if overlap else None,
        offload_optimizer=offload_optimizer,
        offload_activations=offload_activations,
        attention=attention,
        overhead=FRAMEWORK if overhead is None else read_count(overhead, "overhead"),
        loss=loss,
        capacity=capacity,
        price_per_hour=price_per_hour,
        tokens=None if tokens is None else read_tokens(tokens),
    )
    advice = answer.advice

    def report() -> Report:
        from einscale.report.train import train_tables

        return train_tables(answer, detail=detail, explain=explain, units=units, advice=advice)

    emit(destination, lambda: answer.to_dict(advice=advice), report)
    if not answer.fits:
        write(sys.stderr, _no(answer.report, advice, units))
        raise typer.Exit(1)


def _no(report: TrainReport, advice: tuple[Advice, ...], units: str) -> str:
    """What does not fit, by how much, what is to blame, and what would fit."""
    from einscale.report.train import blamed, verdict
    from einscale.report.words import changes_words
    from einscale.units import format_bytes, format_seconds

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
