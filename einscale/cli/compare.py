"""`einscale compare`: a model under several strategies side by side: a training step, a layer, or requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from einscale.cli import complete
from einscale.cli.groups import Options, command
from einscale.cli.options import AxisSizes, Detail, Hardware, MeshOrNone, ModelName, Only, Output
from einscale.cli.serving import Engine, Prompts
from einscale.cli.training import Pipeline, StateOptions

if TYPE_CHECKING:
    from einscale.report.table import Report


Group: TypeAlias = Pipeline | StateOptions | Prompts | Engine

BOTH = ("batch", "precision", "overhead", "execution")
"""Options of training that requests have too; their defaults are their own."""


class Compared(Options, frozen=True, kw_only=True):
    """A model, and what it is compared under."""

    model: ModelName
    strategies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|FILE[@MESH]",
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
            metavar="train|layer|serve",
            help="Compare a whole training step, one microbatch through all layers, or a batch of requests.",
            autocompletion=complete.words("train", "layer", "serve"),
        ),
    ] = "train"


@command
def compare(
    compared: Compared,
    pipeline: Pipeline,
    state: StateOptions,
    prompts: Prompts,
    engine: Engine,
    *,
    detail: Detail = False,
    only: Only = None,
    output: Output,
) -> None:
    """Price a model under several strategies, and explain every difference from the first.

    The figures are those of `einscale train`, or of `einscale infer` with `--for serve`.

    einscale compare llama3-70b megatron megatron-sp --mesh data=8,model=8

    einscale compare llama3-70b megatron-sp@data=8,model=8 fsdp@data=64

    einscale compare llama3-8b megatron@model=8 dp@data=8 --for serve
    """
    from einscale.api.compare import compare as compare_strategies
    from einscale.cli.output import emit

    destination = output.destination(only=only)
    shared: dict[str, Any] = {} if compared.mesh is None else {"mesh": compared.mesh}
    asked = (
        _arguments((pipeline, state), (prompts, engine), "`{}` is about requests", "`--for serve` compares them")
        if compared.purpose != "serve"
        else _arguments(
            (prompts, engine), (pipeline, state), "`{}` is about training", "`--for serve` compares requests"
        )
    )
    answer = compare_strategies(
        compared.model,
        (*(compared.strategies or ()), *(compared.strategy or ())),
        for_=compared.purpose,
        **shared,
        sizes=_sizes(compared.size),
        hardware=compared.hardware,
        **asked,
    )

    def report() -> Report:
        return answer.to_report(detail=detail, only=only, units=output.units)

    emit(destination, answer.to_dict, report)


def _arguments(groups: tuple[Group, ...], foreign: tuple[Group, ...], said: str, hint: str) -> dict[str, Any]:
    """The arguments of what is compared; of the groups of something else, what both have and is given.

    Args:
        groups: options of what is compared.
        foreign: options of something else.
        said: of a flag that is about that, `{}`.
        hint: what to do.

    Raises:
        UsageError: an option of something else.
    """
    from einscale.errors import UsageError

    arguments = {name: value for group in groups for name, value in group.arguments().items()}
    for group in foreign:
        for name, flag in group.given().items():
            if name not in BOTH:
                raise UsageError(said.format(flag), hint=hint)
            arguments[name] = group.arguments()[name]
    return arguments


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
