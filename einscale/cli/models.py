"""`einscale models`, `einscale model` and `einscale program`: what einscale knows of a model before any mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from einscale.cli.options import AxisSizes, Format, Json, Output, Units

if TYPE_CHECKING:
    from einscale.models import Model
    from einscale.program import Program

Name: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A preset (`einscale models`), or the path of a config.json or .ein program."),
]


def models(as_json: Json = False, output_format: Format = "auto", output: Output = None, units: Units = "iec") -> None:
    """List the model presets."""
    from einscale.cli.output import choose, emit
    from einscale.report import catalogue

    destination = choose(output_format=output_format, json=as_json, output=output, units=units)
    emit(destination, catalogue.models_document, catalogue.models_report)


def model(
    name: Name,
    size: AxisSizes = None,
    as_json: Json = False,
    output_format: Format = "auto",
    output: Output = None,
    units: Units = "iec",
) -> None:
    """Count a model's parameters, tensor by tensor, and show what its configuration says."""
    from einscale.cli.arguments import read_sizes
    from einscale.cli.output import choose, emit
    from einscale.models import load_model
    from einscale.report import catalogue

    destination = choose(output_format=output_format, json=as_json, output=output, units=units)
    loaded = load_model(name, sizes=read_sizes(size or ()))
    emit(destination, lambda: catalogue.model_document(loaded), lambda: catalogue.model_report(loaded))


def program(
    name: Name,
    layer: Annotated[str | None, typer.Option("--layer", metavar="KIND", help="Only this kind of layer.")] = None,
    size: AxisSizes = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="As decoding runs it, where that is another program.")
    ] = False,
    with_backward: Annotated[bool, typer.Option("--backward", help="With the derived backward pass.")] = False,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="Write there.")] = None,
) -> None:
    """Print a model's programs, one for each kind of layer, as text that reads back."""
    import sys
    from pathlib import Path

    from einscale.cli.arguments import read_sizes
    from einscale.cli.output import write, write_file
    from einscale.models import load_model
    from einscale.program.text import print_program

    chosen = _programs(load_model(name, sizes=read_sizes(size or ())), layer, decode=decode)
    if with_backward:
        from einscale.program.backward import backward

        chosen = [backward(program) for program in chosen]
    text = "\n".join(print_program(program).rstrip("\n") + "\n" for program in chosen)
    if output is None:
        write(sys.stdout, text)
    else:
        write_file(Path(output), text)


def _programs(model: Model, kind: str | None, *, decode: bool) -> list[Program]:
    """The programs of every kind of layer, or of one, which may be one that only training runs."""
    from einscale.errors import UsageError, did_you_mean

    kinds = [layer.kind for layer in (*model.layers, *model.ahead)]
    if kind is not None and kind not in kinds:
        raise UsageError(f"{model.name} has no layer `{kind}`", hint=did_you_mean(kind, kinds, f"{model.name} has"))
    wanted = model.layers if kind is None else (*model.layers, *model.ahead)
    chosen = [layer for layer in wanted if kind in (None, layer.kind)]
    return [(layer.decode if decode else None) or layer.program for layer in chosen]
