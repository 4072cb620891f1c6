"""One layer of a kind under one microbatch: planned forward, backward and update, priced, with what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from einscale.collectives import FREE
from einscale.efficiency import launch_seconds
from einscale.models import LayerKind
from einscale.numeric import Number, maximum
from einscale.planner.planned import PlannedProgram
from einscale.planner.structures import on_one_stage
from einscale.price.memory import (
    gathered_copies,
    gradients_held,
    kept_gathered,
    optimizer_held,
    parameters_held,
    peak,
    saved_activations,
)
from einscale.price.overlap import ACTIVATIONS, GRADIENTS, PARAMETERS, hide, overlap_kind
from einscale.price.program import PricedCollective, PricedStatement, price_program
from einscale.program.values import Program
from einscale.strategy import Strategy
from einscale.topology import AnyNetwork, Network, coefficients
from einscale.training.structure import LayerStructure, Trained, layer_structure, training_sizes
from einscale.training.values import LayerCost, TrainSetup, accumulating


def layer_cost(layer: LayerKind, setup: TrainSetup) -> LayerCost:
    """Plan and price one layer of a kind for one microbatch on every replica.

    Raises:
        StrategyError: the strategy does not fit the mesh or the layer.
        HardwareError: the chip has no rate for the compute type.
    """
    asked = trained(layer.program, setup)
    network = on_one_stage(setup.timed_by, setup.pipe)
    batch = setup.microbatch * setup.replicas
    structure = layer_structure(asked, network, batch, setup.sequence)
    cost = price_layer(layer.kind, structure, training_sizes(asked, batch, setup.sequence), network, setup)
    return overlapped(cost, setup.strategy.policy.overlap)


def forward_cost(layer: LayerKind, setup: TrainSetup) -> LayerCost:
    """Plan and price the forward pass of a layer alone, for which nothing is saved, nothing added up or updated.

    Raises:
        StrategyError: the strategy does not fit the mesh or the layer.
        HardwareError: the chip has no rate for the compute type.
    """
    asked = replace(trained(layer.program, setup), trains=False)
    network = on_one_stage(setup.timed_by, setup.pipe)
    batch = setup.microbatch * setup.replicas
    structure = layer_structure(asked, network, batch, setup.sequence)
    cost = price_layer(layer.kind, structure, training_sizes(asked, batch, setup.sequence), network, setup)
    return overlapped(
        replace(cost, gradients=(), optimizer=(), saved=(), gathered=(), accumulate_seconds=0.0),
        setup.strategy.policy.overlap,
    )


def trained(program: Program, setup: TrainSetup) -> Trained:
    """What the structure of a layer follows from in a request."""
    return Trained(program, trained_under(setup), setup.precision, setup.optimizer, setup.loss, setup.capacity)


def trained_under(setup: TrainSetup) -> Strategy:
    """The strategy that structures follow from: what is hidden makes no difference to a plan."""
    return replace(setup.strategy, policy=replace(setup.strategy.policy, overlap=()))


def price_layer(
    kind: str, structure: LayerStructure, sizes: Mapping[str, Number], network: AnyNetwork, setup: TrainSetup
) -> LayerCost:
    """Price a planned layer at a point, or at many points at once, nothing hidden yet.

    Args:
        kind: as the model calls it.
        structure: its passes and its update.
        sizes: of every axis.
        network: devices of one pipeline stage, at the bandwidth that collectives reach.
        setup: precision, optimizer and execution.
    """
    many = None if isinstance(network, Network) else network.degrees
    planned = PlannedProgram(structure.passes, network.mesh, sizes, many)
    updated = PlannedProgram(structure.update, network.mesh, sizes, many)
    priced = price_program(planned, network, setup.precision, setup.execution, causal=True)
    repriced = price_program(updated, network, setup.precision, setup.execution)
    gradients = gradients_held(planned)
    return LayerCost(
        kind=kind,
        planned=planned,
        rows=coalesced(priced, planned, network),
        windows=(),
        update=coalesced(repriced, updated, network),
        updated=updated,
        parameters=parameters_held(planned, setup.precision),
        gradients=gradients,
        optimizer=optimizer_held(planned, setup.optimizer, setup.precision),
        saved=saved_activations(planned),
        gathered=kept_gathered(planned),
        fetched=(),
        peak=peak(planned, accumulates=True),
        accumulate_seconds=accumulating(
            sum(one.bytes for one in gradients), setup.microbatches, setup.network.system.chip
        ),
        launch=launch_seconds(1, setup.execution, network.system.chip),
    )


def overlapped(cost: LayerCost, overlap: tuple[str, ...]) -> LayerCost:
    """A priced layer with what a strategy hides of its collectives hidden, and what that needs held.

    Args:
        cost: the layer, nothing hidden.
        overlap: kinds of collectives that are hidden, of `overlap.OVERLAPS`.
    """
    planned = cost.planned
    hidden = hide(cost.rows, planned, overlap)
    ahead = PARAMETERS in overlap and planned.strategy.policy.reshard_after_forward
    block_by_block = ACTIVATIONS in overlap and planned.strategy.policy.ordered
    return replace(
        cost,
        rows=hidden.rows,
        windows=hidden.windows,
        fetched=gathered_copies(planned) if ahead else (),
        peak=peak(planned, accumulates=True, overlap=overlap) if block_by_block else cost.peak,
    )


def coalesced(
    rows: Sequence[PricedStatement], planned: PlannedProgram, network: AnyNetwork
) -> tuple[PricedStatement, ...]:
    """Rows whose moves of parameters and of gradients share one launch for each kind, group and pass.

    Frameworks move the parameters of a layer in one message (FSDP's units, Megatron's buckets), so only the first of
    them pays the latency.
    """
    seen: set[tuple[str, str, tuple[str, ...], str]] = set()
    done = []
    for row in rows:
        collectives: list[PricedCollective] = []
        for priced in row.collectives:
            what = overlap_kind(planned, priced)
            key = (row.planned.phase, priced.step.kind, priced.step.axes, what)
            seconds = priced.seconds
            if what in (PARAMETERS, GRADIENTS) and priced.step.kind not in FREE and key in seen:
                alpha, _ = coefficients(priced.step.kind, priced.step.axes, network)
                seconds = maximum(0.0, seconds - alpha)
            seen.add(key)
            same = seconds is priced.seconds
            collectives.append(priced if same else replace(priced, seconds=seconds, exposed_seconds=seconds))
        done.append(replace(row, collectives=tuple(collectives)))
    return tuple(done)
