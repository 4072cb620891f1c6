"""`einscale compare`: a training step of a model under several strategies, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from einscale.cli import complete
from einscale.cli.groups import Options, command
from einscale.cli.options import AxisSizes, Detail, Hardware, MeshOrNone, ModelName, Only, Output
from einscale.cli.training import Pipeline, StateOptions

if TYPE_CHECKING:
    from einscale.report.table import Report


class Compared(Options, frozen=True, kw_only=True):
    """A model, and what it is compared under."""

    model: ModelName
    strategies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|FILE[@MESH]]...",
            help="Two or more named strategies or .toml files; `fsdp@data=64` is on a mesh of its own.",
            autocompletion=complete.strategies,
        ),
    ] = None
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            metavar="NAME|FILE[@MESH]",
            help="The same, one at a time; those come after the others.",
            autocompletion=complete.strategies,
        ),
    ] = None
    mesh: MeshOrNone = None
    size: AxisSizes = None
    hardware: Hardware = None
    purpose: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="train|layer",
            help="Compare a whole training step, or one layer of each kind for one microbatch.",
            autocompletion=complete.words("train", "layer"),
        ),
    ] = "train"


@command
def compare(
    compared: Compared,
    pipeline: Pipeline,
    state: StateOptions,
    *,
    detail: Detail = False,
    only: Only = None,
    output: Output,
) -> None:
    """Price a training step of a model under several strategies, and explain every difference from the first.

    The figures are those of `einscale train`.

    einscale compare llama3-70b megatron megatron-sp --mesh data=8,model=8

    einscale compare llama3-70b megatron-sp@data=8,model=8 fsdp@data=64
    """
    from einscale.api.compare import compare as compare_strategies
    from einscale.cli.output import emit

    destination = output.destination(only=only)
    shared: dict[str, Any] = {} if compared.mesh is None else {"mesh": compared.mesh}
    answer = compare_strategies(
        compared.model,
        (*(compared.strategies or ()), *(compared.strategy or ())),
        for_=compared.purpose,
        **shared,
        sizes=_sizes(compared.size),
        hardware=compared.hardware,
        **pipeline.arguments(),
        **state.arguments(),
    )

    def report() -> Report:
        return answer.to_report(detail=detail, only=only, units=output.units)

    emit(destination, answer.to_dict, report)


def _sizes(given: list[str] | None) -> dict[str, int]:
    """Sizes of axes; `-s` was once a strategy here."""
    from einscale.cli.arguments import read_sizes
    from einscale.errors import SizeError

    try:
        return read_sizes(given or ())
    except SizeError as error:
        error.hint = (
            "`-s` is `--size`, as everywhere; strategies follow the model: einscale compare MODEL megatron fsdp@data=64"
        )
        raise
