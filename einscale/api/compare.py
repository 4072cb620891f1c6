"""`einscale.compare`: a training step of a model under several strategies, and why they differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import lcm
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, Unpack

from msgspec.structs import replace

from einscale.api.answer import Figure, Parted
from einscale.checks import batch_ways, check_divides
from einscale.comparison import Comparison, Scope, Side, compare_reports
from einscale.errors import EinscaleError, StrategyError, UsageError, did_you_mean
from einscale.mesh import Mesh, make_mesh
from einscale.models import Model
from einscale.price.footprint import Memory
from einscale.request.common import check_batch, chosen_model
from einscale.request.training import RUN, TrainOptions, TrainRequest, train_request, train_setup
from einscale.stages import in_stages, pipe_axis
from einscale.strategy import Strategy, bind_strategy, load_strategy
from einscale.training import TrainReport, TrainSetup, train_report
from einscale.units import check_size

if TYPE_CHECKING:
    from einscale.report.table import Report

MeshLike: TypeAlias = Mesh | str | Mapping[str, int]
Chosen: TypeAlias = str | Strategy | tuple[str | Strategy, MeshLike]
"""A strategy by name, file or value; with `@MESH` behind it, or in a pair, on a mesh of its own."""

MOST = 16
"""Strategies compared at once; more is a search, and its tables nobody reads."""

OWN_MESH = re.compile(r"(?P<name>.*?)@(?P<mesh>[A-Za-z]\w*\s*=.*)", re.DOTALL)
"""`fsdp@data=64` and `my.toml@data=8@ib,model=8`: the mesh begins at the first `@` before a `NAME=`."""


class Purpose(StrEnum):
    """What strategies are compared for."""

    TRAIN = "train"
    """A training step."""

    LAYER = "layer"
    """The forward and backward passes of one microbatch through one layer of each kind."""


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


def compare(
    model: str | Model, strategies: Sequence[Chosen], *, for_: str = "train", **options: Unpack[TrainOptions]
) -> CompareResult:
    """Price a training step of a model under several strategies and explain how they differ from the first.

    Every figure is the one that `train_step` gives for the same request.

    >>> answer = compare("llama3-8b", ["megatron", "megatron-sp"], mesh="model=8", sequence=2048)
    >>> change = answer.comparison.differences[0]
    >>> change.memory_change < 0, sum(term.change.flops for term in change.terms) == change.change.flops
    (True, True)

    Args:
        model: a preset, the path of a `config.json` or of a program of your own (`.ein`, `.py`), or a `Model`.
        strategies: two or more: names, paths of TOML files, or `Strategy` values; `"fsdp@data=64"`, or a pair of a
            strategy and a mesh, is on a mesh of its own.
        for_: what they are compared for: `train` (a whole step) or `layer` (one microbatch through one layer of each
            kind).
        options: of every step, as `TrainRequest` documents them; `mesh` is that of strategies that have none of their
            own, and `batch` by default the fewest sequences that divide over the replicas of each.

    Raises:
        EinscaleError: fewer than two strategies, one of them twice, or one without a mesh; or a request that one of
            them cannot meet, which the message names.
    """
    purpose = _purpose(for_)
    asked = train_request(options, without=RUN)
    if asked.strategy is not None:
        raise UsageError("the strategies are the second argument of compare", expected='["megatron", "fsdp@data=8"]')
    chosen = [_resolve(one, asked.mesh if "mesh" in options else None) for one in _listed(strategies)]
    labels = _labels(chosen)
    ways = [_ways(label, *one) for label, one in zip(labels, chosen, strict=True)]
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
            raise _said_of(error, label) from None
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
        raise first if shared else _said_of(first, label)
    return found


def _listed(strategies: Sequence[Chosen]) -> Sequence[Chosen]:
    """The strategies, of which there must be enough and not too many."""
    several = [strategies] if isinstance(strategies, (str, Strategy)) else list(strategies)
    if len(several) < 2:
        found = f"`{_called(several[0])}` alone has nothing to be compared with" if several else "no strategy is given"
        raise UsageError(found, expected="two strategies or more, for example megatron and megatron-sp")
    if len(several) > MOST:
        raise UsageError(f"{len(several)} strategies are too many to read side by side", expected=f"at most {MOST}")
    return several


def _called(chosen: Chosen) -> str:
    """What a strategy was called when it was given."""
    name = chosen[0] if isinstance(chosen, tuple) else chosen
    return name.name if isinstance(name, Strategy) else name


def _resolve(chosen: Chosen, shared: MeshLike | None) -> tuple[Strategy, Mesh]:
    """A strategy and the mesh it is to run on."""
    own: MeshLike | None = None
    name: str | Strategy
    if isinstance(chosen, tuple):
        name, own = chosen
    else:
        name = chosen
        found = OWN_MESH.fullmatch(chosen) if isinstance(chosen, str) else None
        if found:
            name, own = found["name"], found["mesh"]
    if isinstance(name, str) and "@" in name and not name.endswith(".toml") and "/" not in name:
        raise _no_mesh(name)
    if name == "":
        raise UsageError(
            "a strategy is missing before `@`", text=str(chosen), span=(0, 1), expected="NAME@MESH such as fsdp@data=64"
        )
    strategy = name if isinstance(name, Strategy) else load_strategy(name)
    devices = own if own is not None else shared
    if devices is None:
        raise UsageError(
            f"`{strategy.name}` has no mesh",
            expected=f"--mesh for all of them, or a mesh of its own: {strategy.name}@data=8,model=8",
        )
    return strategy, make_mesh(devices)


def _no_mesh(text: str) -> EinscaleError:
    """What is wrong with the mesh behind `@`."""
    start = text.index("@") + 1
    return UsageError(
        "cannot read the mesh behind `@`",
        text=text,
        span=(min(start, len(text) - 1), len(text)),
        expected="STRATEGY@NAME=INT,... such as fsdp@data=64",
    )


def _labels(chosen: Sequence[tuple[Strategy, Mesh]]) -> list[str]:
    """What each is called: its strategy's name, with its mesh where that tells them apart.

    Raises:
        UsageError: the same strategy on the same mesh twice.
    """
    meshes = {str(mesh) for _, mesh in chosen}
    labels: list[str] = []
    for position, (strategy, mesh) in enumerate(chosen):
        if (strategy, mesh) in chosen[:position]:
            raise UsageError(f"`{strategy.name}` on {mesh} is given twice", expected="strategies or meshes that differ")
        label = f"{strategy.name}@{mesh}" if len(meshes) > 1 else strategy.name
        twins = sum(other == label or other.startswith(f"{label} (") for other in labels)
        labels.append(f"{label} ({twins + 1})" if twins else label)
    return labels


def _ways(label: str, strategy: Strategy, mesh: Mesh) -> int:
    """How many ways a strategy divides the batch; the first thing to go wrong where it does not fit its mesh."""
    staged = in_stages(strategy, pipe_axis(mesh))
    try:
        bind_strategy(staged, mesh)
        return batch_ways(staged, mesh)
    except StrategyError as error:
        if "has no role" in error.message:
            error.hint = f"give it a mesh of its own: {strategy.name}@{_suited(strategy, mesh)}"
        raise _said_of(error, label) from None


def _suited(strategy: Strategy, mesh: Mesh) -> str:
    """A mesh of as many devices, along the first axis that plays a role in the strategy."""
    for axis in mesh.axes:
        alone = Mesh((type(axis)(axis.name, mesh.devices),))
        try:
            bind_strategy(strategy, alone)
        except StrategyError:
            continue
        return str(alone)
    return f"{strategy.roles[0] if strategy.roles else 'data'}={mesh.devices}"


def _said_of(error: EinscaleError, label: str) -> EinscaleError:
    """The same error, saying which strategy it is about."""
    if f"`{label}`" in error.message:
        return error
    return type(error)(
        f"{label}: {error.message}", text=error.text, span=error.span, expected=error.expected, hint=error.hint
    )
