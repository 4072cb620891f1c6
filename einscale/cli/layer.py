"""`einscale layer`: the cost report of every kind of layer of a model under a strategy."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from einscale.cli.options import AxisSizes, Dtype, Format, Hardware, Json, Output, Units

if TYPE_CHECKING:
    from einscale.report.table import Report

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A preset (`einscale models`), or the path of a config.json or of your own program."
    ),
]
MeshText = Annotated[
    str,
    typer.Option(
        "--mesh", metavar="AXIS=INT,...", help="Mesh axes, major to minor: data=8,model=8. One device if absent."
    ),
]
StrategyName = Annotated[
    str | None,
    typer.Option(
        "--strategy", metavar="NAME|FILE", help="A named strategy or a .toml file; else one that suits the mesh."
    ),
]
Shard = Annotated[
    list[str] | None,
    typer.Option(
        "--shard",
        metavar="AXIS=MESH_AXIS,...",
        help="Compute rules of your own: b=data,h=model; alone, or before those of --strategy.",
    ),
]
Batch = Annotated[
    str | None,
    typer.Option("--batch", metavar="INT", help="Sequences in the global batch; else one a data-parallel device."),
]
Sequence = Annotated[
    str | None, typer.Option("--seq", metavar="INT", help="Tokens in a sequence; else 4096, or what the model allows.")
]
Forward = Annotated[bool, typer.Option("--forward", help="The forward pass; without --backward, it alone.")]
Backward = Annotated[bool, typer.Option("--backward", help="The backward pass; without --forward, it alone.")]
Detail = Annotated[
    bool,
    typer.Option("--detail", help="Also operand layouts, free moves, parameters and saved activations one by one."),
]
Free = Annotated[bool, typer.Option("--free", help="Also where a free plan would beat the strategy, and by how much.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit 1 if a collective runs that the strategy does not expect.")
]


def layer(
    model: ModelName,
    mesh: MeshText = "data=1",
    strategy: StrategyName = None,
    shard: Shard = None,
    size: AxisSizes = None,
    hardware: Hardware = None,
    batch: Batch = None,
    seq: Sequence = None,
    dtype: Dtype = "bf16",
    forward: Forward = False,
    backward: Backward = False,
    detail: Detail = False,
    free: Free = False,
    strict: Strict = False,
    as_json: Json = False,
    output_format: Format = "auto",
    output: Output = None,
    units: Units = "iec",
) -> None:
    """Price every kind of layer of a model: local shapes, collectives with causes, FLOPs, bytes, time, memory.

    einscale layer llama3-70b --mesh data=8,model=8 --strategy megatron-sp --hardware h100

    einscale layer my_block.ein --size d=4096 --mesh data=8,model=8 --shard b=data,h=model
    """
    from einscale.api.layer import layer as price_layer
    from einscale.cli.arguments import read_sizes
    from einscale.cli.output import choose, emit, write
    from einscale.units import parse_size

    destination = choose(output_format=output_format, json=as_json, output=output, units=units)
    answer = price_layer(
        model,
        mesh=mesh,
        strategy=strategy,
        shard=",".join(shard) if shard else None,
        sizes=read_sizes(size or ()),
        hardware=hardware,
        batch=None if batch is None else parse_size(batch, "batch"),
        sequence=None if seq is None else parse_size(seq, "sequence"),
        dtype=dtype,
        forward=forward or not backward,
        backward=backward or not forward,
        strict=strict,
    )

    def report() -> Report:
        from einscale.report.layer import layer_tables

        return layer_tables(answer.report, answer.gains if free else None, detail=detail, units=units)

    emit(destination, lambda: answer.to_dict(free=free), report)
    if strict and answer.report.unexpected:
        from einscale.report.words import unexpected_words

        found = "\n".join(f"  {unexpected_words(one)}" for one in answer.report.unexpected)
        write(sys.stderr, f"{answer.report.strategy.name} does not expect:\n{found}\n")
        raise typer.Exit(1)
