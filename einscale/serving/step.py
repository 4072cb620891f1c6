"""One pass of new tokens through a model, planned and priced: prefill and decode are such passes, one or many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from einscale.collectives import PERMUTE
from einscale.models import LayerKind
from einscale.numeric import Number, largest
from einscale.planner.planned import PlannedProgram, Structure
from einscale.planner.structures import on_one_stage
from einscale.price.program import price_program
from einscale.price.spent import together
from einscale.serving.account import layer_spent
from einscale.serving.instance import stage_layers
from einscale.serving.structure import (
    Served,
    serving_plan,
    serving_program,
    serving_sizes,
    serving_strategy,
    sorted_passes,
)
from einscale.serving.values import Instance, KindStep, StepReport
from einscale.stages import HEAD
from einscale.strategy import bind_strategy
from einscale.topology import coefficients

FEW = 3
"""Passes of one structure from which on arrays are faster than one pass after the other."""


class Planner:
    """Passes of an instance: what it asks of the structures that are kept, and what has been priced."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.network = instance.timed_by
        self.stage = on_one_stage(self.network, instance.pipe)
        self.bound = bind_strategy(instance.strategy, self.stage.mesh)
        self.stages = stage_layers(instance.model, instance.stages)
        self._asked: dict[tuple[str, bool, int], Served] = {}
        self._steps: dict[tuple[object, ...], StepReport] = {}
        self._kinds: dict[tuple[object, ...], KindStep] = {}

    @property
    def freely(self) -> bool:
        """Whether statements are left to the free planner, which plans anew for every size."""
        return bool(self.bound.policy.auto)

    def asked(self, layer: LayerKind, new: int, *, absorbed: bool) -> Served:
        """What the structure of a kind of layer follows from.

        Raises:
            StrategyError: the strategy divides a step of so few tokens more ways than it has.
        """
        key = layer.kind, absorbed, new
        if key not in self._asked:
            program = serving_program(layer, self.instance.precision, absorbed=absorbed)
            strategy = serving_strategy(self.bound, self.stage.mesh, new, head=layer.kind == HEAD)
            self._asked[key] = Served(program, strategy)
        return self._asked[key]

    def counts(self, new: int, logits: int | None) -> list[tuple[LayerKind, int]]:
        """Kinds of layers that a pass runs, and the new tokens of each sequence that they run on."""
        wanted = new if logits is None else logits
        layers = self.instance.model.layers
        each = [(layer, wanted if layer.kind == HEAD else new) for layer in layers]
        return [(layer, count) for layer, count in each if count]

    def all_plans(
        self, batch: int, new: int, cached: int, *, logits: int | None = None, absorbed: bool = True
    ) -> dict[str, PlannedProgram]:
        """Planned programs of every kind of layer that a pass runs; arguments as for `step`.

        Raises:
            StrategyError: the strategy divides a step of so few tokens, or the batch, more ways than it has elements.
        """
        return {
            layer.kind: serving_plan(self.asked(layer, count, absorbed=absorbed), self.stage, batch, count, cached)
            for layer, count in self.counts(new, logits)
        }

    def step(
        self, batch: int, new: int, cached: int, *, logits: int | None = None, absorbed: bool = True
    ) -> StepReport:
        """Price one pass of new tokens.

        Args:
            batch: sequences.
            new: new tokens of each.
            cached: tokens of each in the cache.
            logits: tokens of each whose logits are wanted, the last ones; by default of every new one.
            absorbed: decode with programs of its own where a layer has them.
        """
        key = batch, new, cached, logits, absorbed
        if key not in self._steps:
            plans = self.all_plans(batch, new, cached, logits=logits, absorbed=absorbed)
            kinds = tuple(self._once(layer, plans[layer.kind]) for layer, _ in self.counts(new, logits))
            self._steps[key] = self._report(batch, new, cached, kinds)
        return self._steps[key]

    def passes(
        self,
        batches: Sequence[int],
        new: int,
        cached: Sequence[int],
        *,
        logits: int | None = None,
        absorbed: bool = True,
    ) -> list[tuple[Sequence[int], StepReport]]:
        """Price many passes, those that share the structures of all layers together: on arrays, unless they are few.

        Args:
            batches: sequences, of every pass.
            new: new tokens of each.
            cached: tokens of each in the cache, of every pass.
            logits: see `step`.
            absorbed: see `step`.

        Returns:
            The numbers of some passes, and their price, together all passes.
        """
        found: list[tuple[Sequence[int], StepReport]] = []
        for structures, here in self._sorted(batches, new, cached, logits, absorbed):
            if len(here) < FEW:
                steps = (self.step(batches[n], new, cached[n], logits=logits, absorbed=absorbed) for n in here)
                found += zip(([number] for number in here), steps, strict=True)
                continue
            batch, before = (column([values[number] for number in here]) for values in (batches, cached))
            plans = {
                layer.kind: PlannedProgram(
                    structures[layer.kind],
                    self.stage.mesh,
                    serving_sizes(structures[layer.kind].program, batch, count, before),
                )
                for layer, count in self.counts(new, logits)
            }
            kinds = tuple(self._kind(layer, plans[layer.kind]) for layer, _ in self.counts(new, logits))
            found.append((here, self._report(batch, new, before, kinds)))
        return found

    def _sorted(
        self, batches: Sequence[int], new: int, cached: Sequence[int], logits: int | None, absorbed: bool
    ) -> list[tuple[dict[str, Structure], list[int]]]:
        """The structures of all layers, and the numbers of the passes that share them."""
        found: list[tuple[dict[str, Structure], list[int]]] = [({}, list(range(len(batches))))]
        for layer, count in self.counts(new, logits):
            asked = self.asked(layer, count, absorbed=absorbed)
            of_layer = sorted_passes(asked, self.stage, batches, count, cached)
            if len(of_layer) == 1:
                found = [({**structures, layer.kind: of_layer[0][0]}, here) for structures, here in found]
                continue
            found = [
                ({**structures, layer.kind: structure}, both)
                for structures, here in found
                for structure, there in of_layer
                if (both := sorted({*here} & {*there}))
            ]
        return found

    def _report(self, batch: Number, new: int, cached: Number, kinds: tuple[KindStep, ...]) -> StepReport:
        """The price of one pass, or of many that share their structures."""
        spent = together(part.times(kind.repeat) for kind in kinds for part in kind.spent)
        return StepReport(batch, new, cached, kinds, self.stages, self._hop(kinds), spent)

    def _once(self, layer: LayerKind, planned: PlannedProgram) -> KindStep:
        """One layer in one pass, priced once for all passes in which it has the same sizes: the head at any context."""
        key = layer.kind, id(planned.structure), tuple(planned.sizes.items())
        if key not in self._kinds:
            self._kinds[key] = self._kind(layer, planned)
        return self._kinds[key]

    def _kind(self, layer: LayerKind, planned: PlannedProgram) -> KindStep:
        instance = self.instance
        rows = price_program(planned, self.stage, instance.precision, instance.execution, causal=True)
        spent = layer_spent(rows, planned, self.stage, instance.precision, instance.execution)
        return KindStep(layer.kind, layer.repeat, planned, rows, spent, sum(row.local.kernels for row in rows))

    def _hop(self, kinds: Iterable[KindStep]) -> Number:
        """Time of the residual stream to the next pipeline stage, as it rests."""
        if not self.instance.pipe:
            return 0.0
        alpha, beta = coefficients(PERMUTE, (self.instance.pipe,), self.network)
        return alpha + beta * largest(stream_bytes(kind.planned) for kind in kinds if kind.kind != HEAD)

    def back_seconds(self) -> float:
        """Time of a token from the last pipeline stage back to the first: a message whose bytes do not count."""
        if not self.instance.pipe:
            return 0.0
        alpha, _ = coefficients(PERMUTE, (self.instance.pipe,), self.network)
        seconds: float = alpha
        return seconds


def column(values: Sequence[int]) -> Number:
    """One number where all are alike, else an array of them."""
    if len(set(values)) == 1:
        return values[0]
    import numpy as np

    return np.array(values, dtype=np.float64)


def stream_bytes(planned: PlannedProgram) -> Number:
    """Bytes on one device of a layer's first result, what the next layer reads."""
    value = planned.program.table[planned.program.outputs[0]]
    return planned.held(value.tensor, planned.resting[value.name])
