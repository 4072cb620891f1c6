"""`einscale.layer`: a model, a mesh and a strategy -> the cost report of every kind of layer of a training step."""

from __future__ import annotations

from typing import Any, Unpack

from msgspec import Struct

from einscale.api.train import TrainOptions, train_request, train_setup
from einscale.errors import UsageError
from einscale.gains import Gain, free_gains
from einscale.layers import LayerReport, layer_report
from einscale.models import Model
from einscale.planner.planned import BACKWARD, FORWARD


class LayerResult(Struct, frozen=True):
    """The priced layers of a model: read `layers`, print it, or take it as a document.

    Args:
        layers: every kind of layer with its statements, collectives, memory and sums.
    """

    layers: LayerReport

    @property
    def seconds(self) -> float:
        """Time of the passes of one microbatch through all layers."""
        return float(self.layers.totals.seconds)

    @property
    def gains(self) -> tuple[Gain, ...]:
        """Statements that a free plan would run faster than the strategy does; worked out when asked for."""
        return free_gains(self.layers)

    def to_dict(self, *, free: bool = False) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved."""
        from einscale import __version__
        from einscale.report.layer_document import layer_document

        head = {"schema_version": 1, "einscale_version": __version__, "command": "layer"}
        return {**head, **layer_document(self.layers, self.gains if free else None)}

    def to_text(self, *, detail: bool = False, free: bool = False, width: int | None = None, units: str = "iec") -> str:
        """The report as text.

        Args:
            detail: also operand layouts, free moves, parameters and saved activations one by one.
            free: also where a free plan would beat the strategy, and by how much.
            width: columns to wrap at; None does not wrap.
            units: `iec` or `si`.
        """
        from einscale.report.layer import layer_tables
        from einscale.report.text import render_text

        tables = layer_tables(self.layers, self.gains if free else None, detail=detail, units=units)
        return render_text(tables, width=width, units=units)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        report, kinds = self.layers, ", ".join(kind.kind for kind in self.layers.kinds)
        where = f"{report.mesh} on {report.network.system.name}"
        return f"LayerResult({report.model.name}, {where}, batch {report.batch} x {report.sequence}: {kinds})"


def layer(
    model: str | Model,
    *,
    forward: bool = True,
    backward: bool = True,
    strict: bool = False,
    **options: Unpack[TrainOptions],
) -> LayerResult:
    """Price every kind of layer of a model under a strategy: the statements of a training step, for one microbatch.

    The request, its defaults and its prices are those of `train_step`.

    >>> answer = layer("llama3-8b", mesh="model=8", strategy="megatron", sequence=2048)
    >>> [kind.kind for kind in answer.layers.kinds], answer.layers.totals.flops > 10**13
    (['embedding', 'block', 'head'], True)

    Args:
        model: a preset, the path of a `config.json` or of a program of your own (`.ein`, `.py`), or a `Model`.
        forward: show the forward pass.
        backward: show the backward pass and the update; a forward pass alone is priced with nothing saved for one.
        strict: refuse a strategy that does not say which collectives it expects; what it does not expect is in
            `layers.unexpected`.
        options: of the step, as `TrainRequest` documents them: `mesh`, `strategy`, `hardware`, `batch`, `microbatch`...

    Raises:
        EinscaleError: an argument cannot be understood, or a request cannot be met; the message names the nearest
            values that could.
    """
    phases = _phases(forward, backward)
    setup, notes = train_setup(model, train_request(options))
    if strict and setup.strategy.expect is None:
        raise UsageError(
            f"strategy `{setup.strategy.name}` does not say which collectives it expects",
            expected='a list such as `expect = ["all-reduce model activations"]` in its file, or no --strict',
        )
    return LayerResult(layer_report(setup, phases, notes))


def _phases(forward: bool, backward: bool) -> tuple[str, ...]:
    """The passes that are shown, in order.

    Raises:
        UsageError: none is.
    """
    phases = tuple(phase for phase, wanted in ((FORWARD, forward), (BACKWARD, backward)) if wanted)
    if not phases:
        raise UsageError("neither the forward nor the backward pass is asked for", expected="at least one of them")
    return phases
