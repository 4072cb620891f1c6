"""`einscale models`, `einscale model` and `einscale program`: what einscale knows of a model before any mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from einscale.cli.groups import command
from einscale.cli.options import AxisSizes, Manner, ModelName, Output

if TYPE_CHECKING:
    from einscale.models import Model
    from einscale.program import Program

Kind = Annotated[str | None, typer.Option("--layer", metavar="KIND", help="Only this kind of layer.")]
Decode = Annotated[bool, typer.Option("--decode", help="As decoding runs it, where that is another program.")]
WithBackward = Annotated[bool, typer.Option("--backward", help="With the derived backward pass.")]
TextFile = Annotated[str | None, typer.Option("--out", "-o", metavar="FILE", help="Write there.")]


@command
def models(output: Output) -> None:
    """List the model presets."""
    from einscale.cli.output import emit
    from einscale.report import catalogue

    emit(output.destination(), catalogue.models_document, catalogue.models_report)


@command
def model(name: ModelName, *, size: AxisSizes = None, output: Output) -> None:
    """Count a model's parameters, tensor by tensor, and show what its configuration says."""
    from einscale.cli.arguments import read_sizes
    from einscale.cli.output import emit
    from einscale.models import load_model
    from einscale.report import catalogue

    destination = output.destination()
    loaded = load_model(name, sizes=read_sizes(size or ()))
    emit(destination, lambda: catalogue.model_document(loaded), lambda: catalogue.model_report(loaded))


@command
def program(
    name: ModelName,
    *,
    layer: Kind = None,
    size: AxisSizes = None,
    decode: Decode = False,
    with_backward: WithBackward = False,
    out: TextFile = None,
    manner: Manner,
) -> None:
    """Print a model's programs, one for each kind of layer, as text that reads back."""
    from pathlib import Path

    from einscale.cli.arguments import read_sizes
    from einscale.cli.output import show, write_file
    from einscale.models import load_model
    from einscale.program.text import print_program

    destination = manner.destination()
    chosen = _programs(load_model(name, sizes=read_sizes(size or ())), layer, decode=decode)
    if with_backward:
        from einscale.program.backward import backward

        chosen = [backward(program) for program in chosen]
    text = "\n".join(print_program(program).rstrip("\n") + "\n" for program in chosen)
    if out is None:
        show(destination, text)
    else:
        write_file(Path(out), text, quiet=destination.quiet)


def _programs(model: Model, kind: str | None, *, decode: bool) -> list[Program]:
    """The programs of every kind of layer, or of one, which may be one that only training runs."""
    from einscale.errors import UsageError, did_you_mean

    kinds = [layer.kind for layer in (*model.layers, *model.ahead)]
    if kind is not None and kind not in kinds:
        raise UsageError(f"{model.name} has no layer `{kind}`", hint=did_you_mean(kind, kinds, f"{model.name} has"))
    wanted = model.layers if kind is None else (*model.layers, *model.ahead)
    chosen = [layer for layer in wanted if kind in (None, layer.kind)]
    return [(layer.decode if decode else None) or layer.program for layer in chosen]
