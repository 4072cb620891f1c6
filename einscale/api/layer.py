"""`einscale.layer`: a model, a mesh and a strategy -> the cost report of every kind of layer of a training step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from einscale.api.answer import Figure, Parted
from einscale.errors import UsageError
from einscale.free_plans import Gain, free_gains
from einscale.layers import LayerReport, layer_report
from einscale.models import Model
from einscale.price.footprint import Memory
from einscale.request.training import RUN, TrainOptions, train_request, train_setup
from einscale.units import format_seconds
from einscale.vocabulary import BACKWARD, FORWARD, Phase

if TYPE_CHECKING:
    from einscale.report.table import Report


class LayerResult(Parted, frozen=True):
    """The priced layers of a model: read `layers`, print it, or take it as a document.

    Args:
        layers: every kind of layer with its statements, collectives, memory and sums.
    """

    BARS: ClassVar[tuple[str, ...]] = ("layers",)

    layers: LayerReport

    @property
    def seconds(self) -> float:
        """Time of the passes of one microbatch through all layers."""
        return float(self.layers.totals.seconds)

    @property
    def memory(self) -> Memory:
        """Bytes on each device: of the step's fullest stage, or what a forward pass alone needs."""
        return self.layers.memory

    @property
    def fits(self) -> bool:
        """Whether that fits in the memory of a device."""
        return self.layers.fits

    @property
    def figures(self) -> dict[str, Figure]:
        """Time of a microbatch and of the step, memory, whether it fits, and what one device does and receives."""
        report, totals = self.layers, self.layers.totals
        return {
            "seconds": self.seconds,
            "step_seconds": None if report.step is None else report.step.step_seconds,
            "memory_bytes": report.memory.needed,
            "capacity_bytes": report.memory.capacity,
            "devices": report.mesh.devices,
            "flops": totals.flops,
            "received_bytes": totals.received,
            "compute_seconds": totals.compute_seconds,
            "communication_seconds": totals.communication_seconds,
            "fits": self.fits,
        }

    @property
    def headline(self) -> tuple[str, str]:
        """The request, and the time of a microbatch."""
        report = self.layers
        where = f"{report.model.name}, {report.mesh} on {report.network.system.name}"
        fits = "fits" if self.fits else "does not fit"
        return f"{where}, {report.batch} x {report.sequence}", f"a microbatch {format_seconds(self.seconds)}, {fits}"

    @property
    def gains(self) -> tuple[Gain, ...]:
        """Statements that a free plan would run faster than the strategy does; worked out when asked for."""
        return free_gains(self.layers)

    def to_dict(self, *, free: bool = False) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved.

        Args:
            free: also where a free plan would beat the strategy, and by how much.
        """
        from einscale.report.layer.document import layer_document

        return layer_document(self.layers, self.gains if free else None)

    def to_report(
        self,
        *,
        detail: bool = False,
        explain: bool = False,
        advice: bool = True,
        units: str = "iec",
        only: str | None = None,
        free: bool = False,
    ) -> Report:
        """The report: one screen, or tables; arguments as for `Parted.to_report`.

        Args:
            detail: every statement with operand layouts and free moves, parameters and saved activations one by one.
            explain: every collective says its cause in the tables; there is nothing else to explain.
            advice: there is none.
            units: `iec` or `si`.
            only: name of a kind of layer, or of a table.
            free: also where a free plan would beat the strategy, and by how much.
        """
        from einscale.report.layer.tables import layer_tables

        gains = self.gains if free else None
        return layer_tables(self.layers, gains, detail=detail or explain, only=only, units=units)


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
    setup, notes = train_setup(model, train_request(options, without=RUN))
    if strict and setup.strategy.expect is None:
        raise UsageError(
            f"strategy `{setup.strategy.name}` does not say which collectives it expects",
            expected='a list such as `expect = ["all-reduce model activations"]` in its file, or no --strict',
        )
    return LayerResult(layer_report(setup, phases, notes))


def _phases(forward: bool, backward: bool) -> tuple[Phase, ...]:
    """The passes that are shown, in order.

    Raises:
        UsageError: none is.
    """
    phases = tuple(phase for phase, wanted in ((FORWARD, forward), (BACKWARD, backward)) if wanted)
    if not phases:
        raise UsageError("neither the forward nor the backward pass is asked for", expected="at least one of them")
    return phases
