"""Requests to a model under several strategies, and why they differ: what `einscale.compare` does to serve."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from msgspec.structs import replace

from einscale.api.answer import Figure, Parted
from einscale.api.infer_result import InferResult
from einscale.comparison.serving import ServedSide, ServingComparison, ServingMeasure, compare_requests
from einscale.errors import EinscaleError, UsageError
from einscale.models import Model
from einscale.price.footprint import Memory
from einscale.request.common import chosen_model
from einscale.request.serving import CompareServingOptions, asked_requests, serve_request
from einscale.request.sides import Chosen, chosen_side, listed, said_of, side_labels, side_ways
from einscale.serving.answer import answer_requests

if TYPE_CHECKING:
    from einscale.report.table import Report


class CompareServingResult(Parted, frozen=True):
    """Requests under several strategies: read `comparison`, print it, or take it as a document.

    Args:
        comparison: the requests of every strategy, the differences term by term, and the best by each measure.
        answers: the full answer of each, in the same order.
    """

    BARS: ClassVar[tuple[str, ...]] = ("strategies",)

    comparison: ServingComparison
    answers: tuple[InferResult, ...]

    @property
    def best(self) -> ServedSide:
        """The strategy that fits and serves most tokens a device, or that serves most where none fits."""
        comparison = self.comparison
        measure = ServingMeasure.RATE
        label = comparison.best_fitting(measure) or next(
            one.labels[0] for one in comparison.best if one.measure is measure
        )
        return next(side for side in comparison.sides if side.label == label)

    @property
    def seconds(self) -> float:
        """Time of a whole request under the best."""
        return self.best.seconds

    @property
    def memory(self) -> Memory:
        """Bytes on each device of the best."""
        return self.best.memory

    @property
    def fits(self) -> bool:
        """Whether any of them fits."""
        return bool(self.comparison.fitting)

    @property
    def figures(self) -> dict[str, Figure]:
        """The best, and the times and memory of each, by its label."""
        found: dict[str, Figure] = {"best": self.best.label, "seconds": self.seconds}
        found |= {"memory_bytes": self.memory.needed, "fits": self.fits}
        for side in self.comparison.sides:
            found[f"{side.label} first_token_seconds"] = side.first_token_seconds
            found[f"{side.label} seconds_per_token"] = side.seconds_per_token
            found[f"{side.label} memory_bytes"] = side.memory.needed
        return found

    def side(self, label: str) -> InferResult:
        """The full answer of one strategy, by the label it has in the comparison.

        Raises:
            UsageError: no strategy of the comparison is called that.
        """
        for side, found in zip(self.comparison.sides, self.answers, strict=True):
            if side.label == label:
                return found
        known = ", ".join(side.label for side in self.comparison.sides)
        raise UsageError(f"the comparison has no `{label}`", hint=f"it has: {known}")

    def to_report(
        self,
        *,
        detail: bool = False,
        explain: bool = False,
        advice: bool = True,
        units: str = "iec",
        only: str | None = None,
    ) -> Report:
        """The comparison: one screen, or tables; arguments as for `Parted.to_report`.

        Args:
            detail: every term by itself; memory and who is best by each measure.
            explain: the same; terms are the explanation.
            advice: there is none.
            units: `iec` or `si`.
            only: `terms`, `memory`, or the name of a table.
        """
        from einscale.report.comparison.requests import requests_compare_tables

        detail = detail or explain
        return requests_compare_tables(self.comparison, self.answers[0], detail=detail, only=only, units=units)

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved."""
        from einscale.report.comparison.requests_document import requests_compare_document

        return requests_compare_document(self.comparison, self.answers[0])

    @property
    def headline(self) -> tuple[str, str]:
        """The model and how many strategies, and the one of most tokens that fits."""
        best = self.comparison.best_fitting(ServingMeasure.RATE)
        where = f"{self.answers[0].instance.model.name}, {len(self.answers)} strategies"
        return where, f"most tokens of those that fit: {best}" if best else "none fits"


def compare_serving(
    model: str | Model, strategies: Sequence[Chosen], **options: Unpack[CompareServingOptions]
) -> CompareServingResult:
    """Price requests to a model under several strategies and explain how they differ from the first.

    Every figure is the one that `infer` gives for the same request.

    >>> found = compare_serving("llama3-70b", ["megatron@model=8", "megatron@data=2,model=4"], batch=32, prompt=1024)
    >>> change = found.comparison.differences[0]
    >>> change.token_change > 0, change.terms[0].phase.value, found.comparison.best_fitting(ServingMeasure.TOKEN)
    (True, 'prefill', 'megatron@model=8')
    >>> sum(term.bytes for term in change.memory_terms) == change.memory_change
    True

    Args:
        model: a preset, the path of a `config.json` or of a program of your own (`.ein`, `.py`), or a `Model`.
        strategies: two or more: names, paths of TOML files, or `Strategy` values; `"megatron@model=8"`, or a pair of a
            strategy and a mesh, is on a mesh of its own.
        options: of every request, as `ServeRequest` documents them; `mesh` is that of strategies that have none of
            their own, and `batch` by default the fewest requests that divide over the replicas of each.

    Raises:
        EinscaleError: fewer than two strategies, one of them twice, or one without a mesh; or a request that one of
            them cannot meet, which the message names.
    """
    known = CompareServingOptions.__optional_keys__
    asked = serve_request(options, "compare for requests", known)
    if asked.strategy is not None:
        raise UsageError("the strategies are the second argument of compare", expected='["megatron@model=8"]')
    chosen = [chosen_side(one, asked.mesh if "mesh" in options else None) for one in listed(strategies)]
    labels = side_labels(chosen)
    ways = [side_ways(label, *one) for label, one in zip(labels, chosen, strict=True)]
    loaded = chosen_model(model, asked.sizes)
    notes: list[str] = []
    given = replace(asked, sizes=None)
    if asked.batch is None:
        given = replace(given, batch=lcm(*ways))
        notes.append(f"batch: {given.batch} requests, the fewest that every strategy can divide (none was given)")
    answers: list[InferResult] = []
    for label, (strategy, mesh) in zip(labels, chosen, strict=True):
        try:
            requests = asked_requests(loaded, replace(given, strategy=strategy, mesh=mesh))
            answers.append(answer_requests(requests, InferResult))
        except EinscaleError as error:
            raise said_of(error, label) from None
        notes += answers[-1].notes
    sides = [
        ServedSide(label, found.request, found.asked.price_per_hour)
        for label, found in zip(labels, answers, strict=True)
    ]
    return CompareServingResult(compare_requests(sides, dict.fromkeys(notes)), tuple(answers))
