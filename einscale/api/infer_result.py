"""What `einscale.prefill`, `decode` and `infer` answer: reports with money, and what follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from einscale.api.answer import Figure, Parted
from einscale.price.footprint import Memory
from einscale.serving import Instance
from einscale.serving.advice import ServingAdvice
from einscale.serving.run import DecodeRun, InferRun, PrefillRun
from einscale.units import format_seconds

if TYPE_CHECKING:
    from einscale.report.table import Report


class PrefillResult(PrefillRun, Parted, frozen=True):
    """Prompts read into the cache, priced: read `prefill`, print it, or take it as a document.

    Args:
        prefill: the passes, where their time goes, memory.
        price_per_hour: of one device, None if not given.
        notes: what was decided where nothing was given.
    """

    BARS: ClassVar[tuple[str, ...]] = ("time", "memory")

    @property
    def figures(self) -> dict[str, Figure]:
        """Time, rate, memory and money."""
        return {
            "seconds": self.seconds,
            "tokens_per_second": self.prefill.tokens_per_second,
            **_figures(self.memory, self.prefill.instance.devices, self.cost_per_million_tokens),
        }

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved."""
        from einscale.report.serving.document import prefill_document

        return prefill_document(self)

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

        `detail` adds every kind of layer, every statement of a step and every collective with its cause.
        """
        from einscale.report.serving.tables import prefill_tables

        return prefill_tables(self, detail=detail, explain=explain, only=only, units=units)

    @property
    def headline(self) -> tuple[str, str]:
        """The request, and whether it fits."""
        report = self.prefill
        what = f"{_where(report.instance)}, batch {report.batch}, prompt {report.prompt}"
        return what, f"{format_seconds(report.seconds)}, {_fit(self.fits)}"


class DecodeResult(DecodeRun, Parted, frozen=True):
    """Tokens generated one after the other, priced: read `decode`, print it, or take it as a document.

    Args:
        decode: a step, where its time goes, memory.
        price_per_hour: of one device, None if not given.
        notes: what was decided where nothing was given.
    """

    BARS: ClassVar[tuple[str, ...]] = ("time", "memory")

    @property
    def figures(self) -> dict[str, Figure]:
        """Time, rate, memory and money."""
        return {
            "seconds": self.seconds,
            "seconds_per_token": self.decode.seconds_per_token,
            "tokens_per_second": self.decode.tokens_per_second,
            **_figures(self.memory, self.decode.instance.devices, self.cost_per_million_tokens),
        }

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved."""
        from einscale.report.serving.document import decode_document

        return decode_document(self)

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

        `detail` adds every kind of layer, every statement of a step and every collective with its cause.
        """
        from einscale.report.serving.tables import decode_tables

        return decode_tables(self, detail=detail, explain=explain, only=only, units=units)

    @property
    def headline(self) -> tuple[str, str]:
        """The request, and whether it fits."""
        report = self.decode
        what = f"{_where(report.instance)}, batch {report.batch}, context {report.context}, output {report.output}"
        return what, f"a token {format_seconds(report.seconds_per_token)}, {_fit(self.fits)}"


class InferResult(InferRun, Parted, frozen=True):
    """A batch of requests from prompt to last token, priced: read it, print it, or take it as a document.

    Args:
        asked: the request, every input resolved.
        request: prefill and decode on the same devices, nothing guessed.
        speculative: decoding with a draft, None if not asked for.
        draft_prefill: the draft reads the prompts too.
        disaggregated: prefill on instances of their own, None if not asked for.
        sweep: decode steps at the points of a sweep.
    """

    BARS: ClassVar[tuple[str, ...]] = ("time", "memory", "prefill_memory")

    @property
    def figures(self) -> dict[str, Figure]:
        """Times, rate, memory and money."""
        return {
            "seconds": self.seconds,
            "first_token_seconds": self.first_token_seconds,
            "seconds_per_token": self.seconds_per_token,
            "tokens_per_second": self.tokens_per_second,
            **_figures(self.memory, self.devices, self.cost_per_million_tokens),
        }

    def to_dict(self, *, advice: tuple[ServingAdvice, ...] | None = None) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved.

        Args:
            advice: what `advice` gave, if it is worked out already.
        """
        from einscale.report.serving.document import infer_document

        return infer_document(self, advice)

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

        `detail` adds every kind of layer, every statement of a step and every collective with its cause.
        """
        from einscale.report.serving.tables import infer_tables

        return infer_tables(self, detail=detail, explain=explain, only=only, units=units, changes=advice)

    @property
    def headline(self) -> tuple[str, str]:
        """The request, and whether it fits."""
        asked, first = self.asked, format_seconds(self.first_token_seconds)
        token = f", a token {format_seconds(self.seconds_per_token)}" if self.seconds_per_token else ""
        what = f"{_where(self.instance)}, batch {asked.batch}, prompt {asked.prompt}, output {asked.output}"
        return what, f"first token {first}{token}, {_fit(self.fits)}"


def _where(instance: Instance) -> str:
    """The model and what answers, for one line."""
    return f"{instance.model.name}, {instance.mesh} on {instance.system.name}"


def _figures(memory: Memory, devices: int, cost: float | None) -> dict[str, Figure]:
    """What figures of requests have in common."""
    return {
        "memory_bytes": memory.needed,
        "capacity_bytes": memory.capacity,
        "devices": devices,
        "cost_per_million_tokens": cost,
        "fits": memory.fits,
    }


def _fit(fits: bool) -> str:
    return "fits" if fits else "does not fit"
