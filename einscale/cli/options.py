"""Command-line options that several commands share, written once."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Spec: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="The sharded einsum, in single quotes: 'B/x D, D/y F -> B/x F/y'. `-` reads stdin, `@FILE` a file.",
    ),
]
MeshText: TypeAlias = Annotated[
    str,
    typer.Option("--mesh", metavar="AXIS=INT,...", help="Mesh axes, major to minor: x=2,y=4 or data=16@ib,model=8."),
]
Sizes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--size", "-s", metavar="NAME=INT", help="Size of an index; repeat it, or part several by commas."),
]
AxisSizes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--size", metavar="NAME=INT", help="Size of an axis that a program of your own leaves open; repeat, or commas."
    ),
]
Dtype: TypeAlias = Annotated[
    str, typer.Option("--dtype", metavar="NAME", help="Element type of tensors that name none.")
]
Objective: TypeAlias = Annotated[
    str,
    typer.Option(
        "--objective", metavar="time|bytes", help="What to make least: time on the hardware, or bytes received."
    ),
]
MaxFlops: TypeAlias = Annotated[
    str | None, typer.Option("--max-flops", metavar="NUMBER", help="Most FLOPs a device may spend: 1e12, 2T.")
]
Hardware: TypeAlias = Annotated[
    str | None,
    typer.Option("--hardware", metavar="NAME|FILE", help="What it runs on; `einscale hardware` lists the names."),
]
Shard: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--shard", metavar="INDEX=AXIS,...", help="Rules: divide every such index that has no slash of its own."
    ),
]
Syntax: TypeAlias = Annotated[
    str | None,
    typer.Option("--syntax", metavar="NAME", help="Notation of the spec where it cannot be told: numpy, jax, ..."),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
Format: TypeAlias = Annotated[
    str, typer.Option("--format", metavar="FORMAT", help="auto, table, json, csv or md; auto follows -o, else a table.")
]
Output: TypeAlias = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Write there; its extension chooses the format.")
]
Units: TypeAlias = Annotated[str, typer.Option("--units", metavar="iec|si", help="Bytes in powers of 1024 or of 1000.")]
Verify: TypeAlias = Annotated[
    bool, typer.Option("--verify", help="Also run the plan on an emulated mesh: result and bytes must be as claimed.")
]
