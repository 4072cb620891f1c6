"""Layers of a training step, statement by statement: the view of a step that `einscale layer` shows.

Nothing is priced here. A kind of layer is a `LayerCost` of the step, and its sums over all layers are what the step
takes for the forward and backward passes of one microbatch.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from einscale.checks import role_names
from einscale.layout import padding_fraction
from einscale.mesh import Mesh, split_name
from einscale.models import Model
from einscale.planner.classes import moved_class
from einscale.planner.planned import PlannedProgram
from einscale.price.footprint import Memory, fullest
from einscale.price.memory import Held, Peak
from einscale.price.program import NOTHING, PricedStatement, Totals, total
from einscale.schedule import find_schedule, placement
from einscale.strategy import Strategy
from einscale.topology import Network
from einscale.training.layers import forward_cost
from einscale.training.stages import chunk_layers, merged
from einscale.training.step import train_report, trained_layers
from einscale.training.values import LayerCost, TrainReport, TrainSetup
from einscale.vocabulary import (
    ACTIVATION,
    BACKWARD,
    FORWARD,
    INPUT,
    PARAMETER,
    UPDATE,
    CollectiveKind,
    Phase,
    TensorClass,
)


class KindReport(Struct, frozen=True):
    """One kind of layer: its priced statements for one microbatch, and what it holds.

    Args:
        cost: as the step has it.
        repeat: how many layers of this kind the model has.
        phases: passes that are shown: `forward`, `backward` or both.
        padding: (tensor in slash notation, share of it that is padding) where a dim does not divide evenly.
    """

    cost: LayerCost
    repeat: int
    phases: tuple[Phase, ...]
    padding: tuple[tuple[str, float], ...]

    @property
    def kind(self) -> str:
        """`embedding`, a kind of block, or `head`."""
        return self.cost.kind

    @property
    def planned(self) -> PlannedProgram:
        """Forward and backward statements with layouts."""
        return self.cost.planned

    @property
    def rows(self) -> tuple[PricedStatement, ...]:
        """Priced statements of the passes that are shown, what overlap hides taken off their collectives."""
        return tuple(row for row in self.cost.rows if row.planned.phase in self.phases)

    @property
    def update(self) -> tuple[PricedStatement, ...]:
        """The optimizer's statements, once a step: gradients are settled, states updated, parameters brought back."""
        return self.cost.update if BACKWARD in self.phases else ()

    @property
    def parameters(self) -> tuple[Held, ...]:
        """Parameters as they rest on one device."""
        return self.cost.parameters

    @property
    def saved(self) -> tuple[Held, ...]:
        """Activations one layer saves for its backward pass; none for a forward pass alone."""
        return self.cost.saved

    @property
    def peak(self) -> Peak:
        """The most one layer holds while it runs, its parameters at rest left out."""
        return self.cost.peak

    def totals(self, phase: str = "", section: str | None = None) -> Totals:
        """Sums for one microbatch over the statements of one phase (`forward`, `backward`; "" both) and section.

        A backward pass as a whole reads back the gradients that its own are added to. `update` is what is done once a
        step.
        """
        rows = self.update if phase == UPDATE else self.rows
        found = total(
            row
            for row in rows
            if (not phase or row.planned.phase == phase)
            and (section is None or row.planned.statement.section == section)
        )
        adds = section is None and phase in ("", BACKWARD) and BACKWARD in self.phases
        if not adds:
            return found
        return replace(found, compute_seconds=found.compute_seconds + self.cost.accumulate_seconds)

    @property
    def sections(self) -> tuple[str, ...]:
        """Sections its statements belong to, in order."""
        return tuple(dict.fromkeys(row.planned.statement.section for row in self.rows))

    @property
    def parameter_bytes(self) -> int:
        """Bytes of its parameters on one device."""
        return _bytes(self.cost.parameters)

    @property
    def gradient_bytes(self) -> int:
        """Bytes of its parameters' gradients on one device, as they are added up."""
        return _bytes(self.cost.gradients)

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of the optimizer's state for them on one device."""
        return _bytes(self.cost.optimizer)

    @property
    def gathered_bytes(self) -> int:
        """Bytes of gathered parameters kept from its forward pass to its backward."""
        return _bytes(self.cost.gathered)

    @property
    def saved_bytes(self) -> int:
        """Bytes one layer saves for its backward pass on one device."""
        return _bytes(self.cost.saved)

    @property
    def working_bytes(self) -> int:
        """Bytes one layer needs while it runs, beside what every layer holds all the time."""
        found: int = self.cost.working_bytes
        return found


def _bytes(held: tuple[Held, ...]) -> int:
    return sum(one.bytes for one in held)


class Unexpected(Struct, frozen=True):
    """A collective that a strategy's `expect` list does not name.

    Args:
        layer: kind of layer.
        kind: of the collective.
        axis: the mesh axis it runs over.
        tensor: what moves.
        entry: what the list would have to say.
    """

    layer: str
    kind: CollectiveKind
    axis: str
    tensor: str
    entry: str


class LayerReport(Struct, frozen=True):
    """Every kind of layer of a model, priced for one microbatch, and the model's sums.

    Args:
        setup: the request, resolved.
        phases: `forward`, `backward` or both.
        kinds: one report for each kind of layer.
        step: the training step they belong to; None where only the forward pass is asked for.
        memory: bytes on each device: of the step's fullest stage, or what a forward pass alone needs.
        notes: what was chosen where nothing was given.
        unexpected: collectives that the strategy does not expect.
    """

    setup: TrainSetup
    phases: tuple[Phase, ...]
    kinds: tuple[KindReport, ...]
    step: TrainReport | None
    memory: Memory
    notes: tuple[str, ...]
    unexpected: tuple[Unexpected, ...]

    @property
    def model(self) -> Model:
        """The model."""
        return self.setup.model

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        return self.setup.mesh

    @property
    def strategy(self) -> Strategy:
        """As asked for, roles not yet bound to the mesh."""
        return self.setup.strategy

    @property
    def network(self) -> Network:
        """The mesh bound to the links of the system."""
        return self.setup.network

    @property
    def batch(self) -> int:
        """Sequences that all replicas work on at a time: one microbatch each."""
        return self.setup.microbatch * self.setup.replicas

    @property
    def sequence(self) -> int:
        """Tokens in a sequence."""
        return self.setup.sequence

    @property
    def fits(self) -> bool:
        """Whether what is needed fits in the memory of a device."""
        return bool(self.memory.fits)

    @property
    def totals(self) -> Totals:
        """Sums over all layers of the model for one microbatch: what a step takes for its passes on one stage."""
        return self._layer_totals.plus(replace(NOTHING, waiting_seconds=self.waiting_seconds))

    @property
    def waiting_seconds(self) -> float:
        """What one microbatch waits beside its layers.

        For activations on their way to the host and back; and where the parts of a backward pass are tasks of their
        own, for the host to send the kernels of each.
        """
        if self.step is None:
            return 0.0
        splits = self.setup.stages > 1 and find_schedule(self.setup.schedule).splits_backward
        if not (self.setup.offload.activations or splits):
            return 0.0
        taken = sum(sum(getattr(self.step.chunks, phase)) for phase in self.phases)
        return max(0.0, float(taken - self._layer_totals.seconds))

    @property
    def _layer_totals(self) -> Totals:
        result = NOTHING
        for kind in self.kinds:
            result = result.plus(kind.totals().times(kind.repeat))
        return result


def layer_report(
    setup: TrainSetup, phases: tuple[Phase, ...] = (FORWARD, BACKWARD), notes: tuple[str, ...] = ()
) -> LayerReport:
    """Plan and price one layer of each kind.

    Args:
        setup: the request.
        phases: passes that are shown; the forward pass alone is priced as inference is, with nothing saved.
        notes: what was chosen where nothing was given.

    Raises:
        StrategyError: the strategy does not fit the mesh or the model.
        ScheduleError: the schedule does not fit the stages, the layers or the microbatches.
        HardwareError: the chip has no rate for the compute type.
    """
    step = train_report(setup, notes) if BACKWARD in phases else None
    layers = trained_layers(setup) if step else setup.model.layers
    costs = {cost.kind: cost for cost in step.layers} if step else {}
    kinds = tuple(
        KindReport(cost, layer.repeat, phases, padded_values(cost.planned))
        for layer in layers
        for cost in (costs.get(layer.kind) or forward_cost(layer, setup),)
    )
    return LayerReport(
        setup=setup,
        phases=phases,
        kinds=kinds,
        step=step,
        memory=step.fullest.memory if step else _forward_memory(kinds, setup),
        notes=(*notes, *undivided(kinds)),
        unexpected=unexpected_collectives(kinds, setup),
    )


def _forward_memory(kinds: tuple[KindReport, ...], setup: TrainSetup) -> Memory:
    """What a forward pass alone needs on the fullest stage: parameters, and the hungriest layer at work."""
    held = {kind.kind: kind for kind in kinds}
    chunks = chunk_layers(setup.model, setup.stages, setup.chunks, setup.first, setup.last)
    stages = placement(setup.schedule, setup.stages, setup.chunks) if setup.stages > 1 else (range(len(chunks)),)
    return fullest(
        Memory(
            parameters=sum(held[kind].parameter_bytes * count for kind, count in content),
            working=max(held[kind].working_bytes for kind, _ in content),
            overhead=setup.overhead,
            capacity=setup.network.system.chip.memory_bytes,
        )
        for content in (
            [entry for entry in merged([chunks[chunk] for chunk in stage]) if entry[0] in held] for stage in stages
        )
    )


def undivided(kinds: tuple[KindReport, ...]) -> tuple[str, ...]:
    """What the store rules for parameters leave whole because no dim has as many elements as there are devices."""
    found = []
    for kind in kinds:
        planned = kind.planned
        axes = {axis for rule in planned.strategy.store_rules(TensorClass.PARAMETERS) for axis in rule.axes}
        whole = [
            value.name
            for value in planned.program.parameters
            if axes and not axes & {split_name(axis)[0] for axis in planned.resting[value.name].axes}
        ]
        if whole:
            found.append(
                f"{kind.kind}: {', '.join(whole)} stay whole, for no dim can be divided over {'/'.join(sorted(axes))}"
            )
    return tuple(found)


def padded_values(planned: PlannedProgram) -> tuple[tuple[str, float], ...]:
    """Values of which some part is padding, and how much."""
    found = []
    for value in planned.program.values:
        layout = planned.resting[value.name]
        share = padding_fraction(layout, value.axes, planned.sizes, planned.degrees)
        if share > 0 and value.kind in (PARAMETER, ACTIVATION, INPUT):
            found.append((f"{value.name}: {layout.text(value.axes)}", share))
    return tuple(found)


def unexpected_collectives(kinds: tuple[KindReport, ...], setup: TrainSetup) -> tuple[Unexpected, ...]:
    """Collectives that the strategy's `expect` list does not name; empty where it has no such list."""
    expected = setup.strategy.expect
    if expected is None:
        return ()
    roles = role_names(setup.strategy, setup.mesh)
    found: dict[Unexpected, None] = {}
    for kind in kinds:
        for planned, rows in ((kind.planned, kind.rows), (kind.cost.updated, kind.update)):
            for priced in (priced for row in rows for priced in row.collectives if priced.bytes):
                what = moved_class(planned.program, priced.step.tensor.name)
                for axis in priced.step.axes:
                    entry = f"{priced.step.kind} {roles.get(split_name(axis)[0], axis)} {what}"
                    if entry not in expected:
                        found[Unexpected(kind.kind, priced.step.kind, axis, priced.step.tensor.name, entry)] = None
    return tuple(found)
