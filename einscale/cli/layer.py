"""`einscale layer`: the cost report of every kind of layer of a model under a strategy."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from einscale.cli.groups import command
from einscale.cli.options import Detail, Only, Output, Passes, PlacedOptions
from einscale.cli.training import Pipeline, StateOptions

if TYPE_CHECKING:
    from einscale.report.table import Report

Free = Annotated[bool, typer.Option("--free", help="Also where a free plan would beat the strategy, and by how much.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit 1 if a collective runs that the strategy does not expect.")
]


@command
def layer(
    placed: PlacedOptions,
    pipeline: Pipeline,
    state: StateOptions,
    passes: Passes,
    *,
    detail: Detail = False,
    only: Only = None,
    free: Free = False,
    strict: Strict = False,
    output: Output,
) -> None:
    """Price every kind of layer of a training step: local shapes, collectives with causes, FLOPs, bytes, time, memory.

    The figures are those of `einscale train` for one microbatch.

    einscale layer llama3-70b --mesh data=8,model=8 --strategy megatron-sp --hardware h100

    einscale layer my_block.ein --size d=4096 --mesh data=8,model=8 --shard b=data,h=model
    """
    from einscale.api.layer import layer as price_layer
    from einscale.cli.output import emit, write

    destination = output.destination(only=only)
    answer = price_layer(
        **placed.arguments(), **pipeline.arguments(), **state.arguments(), **passes.arguments(), strict=strict
    )

    def report() -> Report:
        return answer.to_report(detail=detail, only=only, free=free, units=output.units)

    emit(destination, lambda: answer.to_dict(free=free), report)
    if strict and answer.layers.unexpected:
        from einscale.report.words import unexpected_words

        found = "\n".join(f"  {unexpected_words(one)}" for one in answer.layers.unexpected)
        write(sys.stderr, f"{answer.layers.strategy.name} does not expect:\n{found}\n")
        raise typer.Exit(1)
