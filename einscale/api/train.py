"""`einscale.train_step`: a model, a mesh, a strategy -> what one optimizer step costs, and whether it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from einscale.api.answer import Figure, Parted
from einscale.models import Model
from einscale.request.common import check_price
from einscale.request.training import TrainOptions, TrainRequest, train_request, train_setup
from einscale.training import train_report
from einscale.training.advice import Advice
from einscale.training.run import TrainRun
from einscale.units import check_size, format_seconds

if TYPE_CHECKING:
    from einscale.report.table import Report

__all__ = ["TrainOptions", "TrainRequest", "TrainResult", "train_step"]


class TrainResult(TrainRun, Parted, frozen=True):
    """One optimizer step, priced: read `step`, print it, or take it as a document.

    Args:
        step: layers, stages, times and memory.
        price_per_hour: of one device, None if not given; in whatever money it was given in.
        training_tokens: tokens of the whole training run, None if not given.
    """

    BARS: ClassVar[tuple[str, ...]] = ("time", "memory")

    @property
    def figures(self) -> dict[str, Figure]:
        """Time, memory of the fullest stage, whether it fits, and rates of all devices."""
        report = self.step
        return {
            "seconds": report.step_seconds,
            "memory_bytes": report.fullest.memory.needed,
            "capacity_bytes": report.capacity,
            "devices": report.setup.mesh.devices,
            "tokens_per_second": report.tokens_per_second,
            "mfu": report.mfu,
            "fits": report.fits,
        }

    def to_dict(self, *, advice: tuple[Advice, ...] | None = None) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved.

        Args:
            advice: what `advice` gave, if it is worked out already.
        """
        from einscale.report.training.document import train_document

        return train_document(self, advice)

    def to_report(
        self,
        *,
        detail: bool = False,
        explain: bool = False,
        advice: bool = True,
        units: str = "iec",
        only: str | None = None,
    ) -> Report:
        """The report: one screen, or tables; arguments as for `Parted.to_report`.

        `detail` adds every tensor at the peak and every collective.
        """
        from einscale.report.training.tables import train_tables

        return train_tables(self, detail=detail, explain=explain, only=only, units=units, changes=advice)

    @property
    def headline(self) -> tuple[str, str]:
        """The request, and whether it fits."""
        setup, fits = self.step.setup, "fits" if self.fits else "does not fit"
        where = f"{setup.model.name}, {setup.mesh} on {setup.network.system.name}"
        step = f"a step {format_seconds(self.step.step_seconds)}"
        return f"{where}, batch {setup.batch} x {setup.sequence}", f"{step}, {fits}"


def train_step(model: str | Model, **options: Unpack[TrainOptions]) -> TrainResult:
    """Price one optimizer step of a model on a cluster: time, memory of every pipeline stage, and what decides them.

    >>> step = {"mesh": "data=8,model=2", "strategy": "megatron-sp", "zero": 1, "batch": 64}
    >>> answer = train_step("llama3-8b", **step)
    >>> answer.fits, answer.step.setup.microbatches, 0.2 < answer.step.mfu < 0.7
    (True, 8, True)

    Args:
        model: a preset, the path of a `config.json` or of a program of your own (`.ein`, `.py`), or a `Model`.
        options: of the step, as `TrainRequest` documents them: `mesh`, `strategy`, `hardware`, `batch`, `sequence`, ...

    Raises:
        EinscaleError: an argument cannot be understood, or a request cannot be met; the message names the nearest
            values that could.
    """
    asked = train_request(options)
    setup, notes = train_setup(model, asked)
    price = check_price(asked.price_per_hour)
    trained = None if asked.tokens is None else check_size(asked.tokens, "tokens")
    return TrainResult(train_report(setup, notes), price, trained)
