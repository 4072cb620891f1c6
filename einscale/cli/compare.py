"""`einscale compare`: the layers of a model under several strategies, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from einscale.cli.layer import Backward, Batch, Forward, ModelName, Sequence
from einscale.cli.options import AxisSizes, Dtype, Format, Hardware, Json, Output, Units

if TYPE_CHECKING:
    from einscale.report.table import Report

Strategies = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        "-s",
        metavar="NAME|FILE[@MESH]",
        help="A named strategy or a .toml file; give two or more. `-s fsdp@data=64` is on a mesh of its own.",
    ),
]
MeshText = Annotated[
    str | None,
    typer.Option(
        "--mesh", metavar="AXIS=INT,...", help="Mesh axes, major to minor, of strategies without one: data=8,model=8."
    ),
]
Detail = Annotated[bool, typer.Option("--detail", help="Every term of the difference by itself.")]


def compare(
    model: ModelName,
    strategy: Strategies = None,
    mesh: MeshText = None,
    size: AxisSizes = None,
    hardware: Hardware = None,
    batch: Batch = None,
    seq: Sequence = None,
    dtype: Dtype = "bf16",
    forward: Forward = False,
    backward: Backward = False,
    detail: Detail = False,
    as_json: Json = False,
    output_format: Format = "auto",
    output: Output = None,
    units: Units = "iec",
) -> None:
    """Price the layers of a model under several strategies, and explain every difference from the first.

    einscale compare llama3-70b --mesh data=8,model=8 -s megatron -s megatron-sp

    einscale compare llama3-70b -s megatron-sp@data=8,model=8 -s fsdp@data=64
    """
    from einscale.api.compare import compare as compare_strategies
    from einscale.cli.arguments import read_sizes
    from einscale.cli.output import choose, emit
    from einscale.units import parse_size

    destination = choose(output_format=output_format, json=as_json, output=output, units=units)
    answer = compare_strategies(
        model,
        strategy or (),
        mesh=mesh,
        sizes=read_sizes(size or ()),
        hardware=hardware,
        batch=None if batch is None else parse_size(batch, "batch"),
        sequence=None if seq is None else parse_size(seq, "sequence"),
        dtype=dtype,
        forward=forward or not backward,
        backward=backward or not forward,
    )

    def report() -> Report:
        from einscale.report.compare import compare_tables

        return compare_tables(answer.comparison, detail=detail, units=units)

    emit(destination, answer.to_dict, report)
