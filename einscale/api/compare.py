"""`einscale.compare`: a model under several strategies, trained, layer by layer or served, and why they differ."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import lcm
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack, overload

from msgspec.structs import replace

from einscale.api.answer import Figure, Parted
from einscale.api.compare_serving import CompareServingResult, compare_serving
from einscale.checks import check_divides
from einscale.comparison import Comparison, Scope, Side, compare_reports
from einscale.errors import EinscaleError, UsageError, did_you_mean
from einscale.mesh import Mesh
from einscale.models import Model
from einscale.price.footprint import Memory
from einscale.request.common import check_batch, chosen_model
from einscale.request.serving import CompareServingOptions
from einscale.request.sides import Chosen, chosen_side, listed, said_of, side_labels, side_ways
from einscale.request.training import RUN, TrainOptions, TrainRequest, train_request, train_setup
from einscale.strategy import Strategy
from einscale.training import TrainReport, TrainSetup, train_report
from einscale.units import check_size

if TYPE_CHECKING:
    from einscale.report.table import Report


class Purpose(StrEnum):
    """What strategies are compared for."""

    TRAIN = "train"
    """A training step."""

    LAYER = "layer"
    """The forward and backward passes of one microbatch through all layers, as `layer` prices them."""

    SERVE = "serve"
    """A batch of requests, from prompt to last token."""


SCOPES = {Purpose.TRAIN: Scope.STEP, Purpose.LAYER: Scope.LAYER}


class CompareResult(Parted, frozen=True):
    """Strategies side by side: read `comparison`, print it, or take it as a document.

    Args:
        comparison: the step of every strategy, the differences term by term, and the best by each measure.
    """

    BARS: ClassVar[tuple[str, ...]] = ("strategies",)

    comparison: Comparison

    @property
    def best(self) -> Side:
        """The fastest strategy that fits, or the fastest where none does."""
        comparison = self.comparison
        label = comparison.fastest_fitting or comparison.best[0].labels[0]
        return next(side for side in comparison.sides if side.label == label)

    @property
    def seconds(self) -> float:
        """Time of the best."""
        comparison = self.comparison
        return float(comparison.totals[comparison.sides.index(self.best)].seconds)

    @property
    def memory(self) -> Memory:
        """Bytes on each device of the best."""
        return self.best.report.fullest.memory

    @property
    def fits(self) -> bool:
        """Whether any of them fits."""
        return bool(self.comparison.fitting)

    @property
    def figures(self) -> dict[str, Figure]:
        """The best, and the time and memory of each, by its label."""
        comparison = self.comparison
        found: dict[str, Figure] = {"best": self.best.label, "seconds": self.seconds}
        found |= {"memory_bytes": self.memory.needed, "fits": self.fits}
        for side, totals in zip(comparison.sides, comparison.totals, strict=True):
            found[f"{side.label} seconds"] = float(totals.seconds)
            found[f"{side.label} memory_bytes"] = side.report.fullest.memory.needed
        return found

    @property
    def headline(self) -> tuple[str, str]:
        """The request, and the fastest that fits."""
        comparison = self.comparison
        model = comparison.sides[0].report.setup.model.name
        fastest = comparison.fastest_fitting or "none fits"
        return f"{model}, {' | '.join(side.label for side in comparison.sides)}", f"fastest that fits: {fastest}"

    def side(self, label: str) -> TrainReport:
        """The step of one strategy, by the label it has in the comparison.

        Raises:
            UsageError: no strategy of the comparison is called that.
        """
        for side in self.comparison.sides:
            if side.label == label:
                return side.report
        known = ", ".join(side.label for side in self.comparison.sides)
        raise UsageError(f"the comparison has no `{label}`", hint=f"it has: {known}")

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved."""
        from einscale.report.comparison.document import compare_document

        return compare_document(self.comparison)

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
            detail: every term by itself, with its cause; layers and parts of the step.
            explain: the same; terms are the explanation.
            advice: there is none.
            units: `iec` or `si`.
            only: `terms`, `memory`, or the name of a table.
        """
        from einscale.report.comparison.tables import compare_tables

        return compare_tables(self.comparison, detail=detail or explain, only=only, units=units)


@overload
def compare(
    model: str | Model,
    strategies: Sequence[Chosen],
    *,
    for_: Literal["train", "layer"] = "train",
    **options: Unpack[TrainOptions],
) -> CompareResult: ...


@overload
def compare(
    model: str | Model,
    strategies: Sequence[Chosen],
    *,
    for_: Literal["serve"],
    **options: Unpack[CompareServingOptions],
) -> CompareServingResult: ...


@overload
def compare(
    model: str | Model, strategies: Sequence[Chosen], *, for_: str, **options: Any
) -> CompareResult | CompareServingResult: ...


def compare(
    model: str | Model, strategies: Sequence[Chosen], *, for_: str = "train", **options: Any
) -> CompareResult | CompareServingResult:
    """Price a model under several strategies and explain how they differ from the first.

    Every figure is the one that `train_step` gives for the same request, or `infer` with `for_="serve"`.

    >>> answer = compare("llama3-8b", ["megatron", "megatron-sp"], mesh="model=8", sequence=2048)
    >>> change = answer.comparison.differences[0]
    >>> change.memory_change < 0, sum(term.change.flops for term in change.terms) == change.change.flops
    (True, True)
    >>> sides = ["megatron@model=8", "megatron@data=2,model=4"]
    >>> compare("llama3-8b", sides, for_="serve", batch=8).figures["best"]
    'megatron@model=8'

    Args:
        model: a preset, the path of a `config.json` or of a program of your own (`.ein`, `.py`), or a `Model`.
        strategies: two or more: names, paths of TOML files, or `Strategy` values; `"fsdp@data=64"`, or a pair of a
            strategy and a mesh, is on a mesh of its own.
        for_: what they are compared for: `train` (a whole step), `layer` (one microbatch through all layers) or
            `serve` (a batch of requests).
        options: of every step, as `TrainRequest` documents them, or of every request, as `ServeRequest` does; `mesh` is
            that of strategies that have none of their own, and `batch` by default the fewest that divide over the
            replicas of each.

    Raises:
        EinscaleError: fewer than two strategies, one of them twice, or one without a mesh; or a request that one of
            them cannot meet, which the message names.
    """
    purpose = _purpose(for_)
    if purpose is Purpose.SERVE:
        return compare_serving(model, strategies, **options)
    asked = train_request(options, without=RUN)
    if asked.strategy is not None:
        raise UsageError("the strategies are the second argument of compare", expected='["megatron", "fsdp@data=8"]')
    chosen = [chosen_side(one, asked.mesh if "mesh" in options else None) for one in listed(strategies)]
    labels = side_labels(chosen)
    ways = [side_ways(label, *one) for label, one in zip(labels, chosen, strict=True)]
    if asked.batch is not None:
        each = 1 if asked.microbatch is None else check_size(asked.microbatch, "microbatch")
        check_divides(check_batch(asked.batch), lcm(*ways) * each, "the data-parallel replicas of every strategy")
    loaded = chosen_model(model, asked.sizes)
    given = replace(asked, sizes=None)
    setups = _setups(loaded, labels, chosen, given)
    notes: list[str] = []
    if len({setup.batch for setup, _ in setups}) > 1:
        common = lcm(*(setup.batch for setup, _ in setups))
        notes.append(f"batch: {common} sequences, the fewest that every strategy can divide (none was given)")
        setups = _setups(loaded, labels, chosen, replace(given, batch=common))
    sides = []
    for label, (setup, said) in zip(labels, setups, strict=True):
        try:
            sides.append(Side(label, train_report(setup, said)))
        except EinscaleError as error:
            raise said_of(error, label) from None
        notes += said
    return CompareResult(compare_reports(sides, dict.fromkeys(notes), SCOPES[purpose]))


def _purpose(given: str) -> Purpose:
    """What strategies are compared for.

    Raises:
        UsageError: nothing that they can be compared for.
    """
    if given not in tuple(Purpose):
        raise UsageError(f"nothing is compared for `{given}`", hint=did_you_mean(str(given), tuple(Purpose), "known"))
    return Purpose(given)


def _setups(
    model: Model, labels: Sequence[str], chosen: Sequence[tuple[Strategy, Mesh]], asked: TrainRequest
) -> list[tuple[TrainSetup, tuple[str, ...]]]:
    """The request of each strategy, resolved, and what was chosen in it.

    Raises:
        EinscaleError: one cannot be met; the message names the strategy, unless it is the same for all of them.
    """
    found: list[tuple[TrainSetup, tuple[str, ...]]] = []
    refused: list[tuple[str, EinscaleError]] = []
    for label, (strategy, mesh) in zip(labels, chosen, strict=True):
        try:
            found.append(train_setup(model, replace(asked, strategy=strategy, mesh=mesh)))
        except EinscaleError as error:
            refused.append((label, error))
    if refused:
        label, first = refused[0]
        shared = len(refused) == len(chosen) and len({str(error) for _, error in refused}) == 1
        raise first if shared else said_of(first, label)
    return found
