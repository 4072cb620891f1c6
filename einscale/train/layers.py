"""One layer of a kind under one microbatch: planned forward, backward and update, priced, with what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from einscale.collectives import FREE
from einscale.cost import PricedCollective, PricedStatement, price_program
from einscale.memory import (
    gathered_copies,
    gradients_held,
    kept_gathered,
    optimizer_held,
    parameters_held,
    peak,
    saved_activations,
)
from einscale.models import LayerKind
from einscale.numeric import Number, maximum
from einscale.overlap import GRADIENTS, PARAMETERS, hide, overlap_kind
from einscale.planner.planned import PlannedProgram
from einscale.program.values import Program
from einscale.topology import AnyNetwork, Network, coefficients
from einscale.train.structure import LayerStructure, Trained, layer_structure, on_one_stage, training_sizes
from einscale.train.values import LayerCost, TrainSetup, accumulating


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
    return price_layer(layer.kind, structure, training_sizes(asked, batch, setup.sequence), network, setup)


def trained(program: Program, setup: TrainSetup) -> Trained:
    """What the structure of a layer follows from in a request; what is hidden makes no difference to a plan."""
    strategy = replace(setup.strategy, policy=replace(setup.strategy.policy, overlap=()))
    return Trained(program, strategy, setup.precision, setup.optimizer, setup.loss, setup.capacity)


def price_layer(
    kind: str, structure: LayerStructure, sizes: Mapping[str, Number], network: AnyNetwork, setup: TrainSetup
) -> LayerCost:
    """Price a planned layer at a point, or at many points at once.

    Args:
        kind: as the model calls it.
        structure: its passes and its update.
        sizes: of every axis.
        network: devices of one pipeline stage, at the bandwidth that collectives reach.
        setup: precision, optimizer, overlap and execution.
    """
    many = None if isinstance(network, Network) else network.degrees
    policy = setup.strategy.policy
    planned = PlannedProgram(structure.passes, network.mesh, sizes, many)
    updated = PlannedProgram(structure.update, network.mesh, sizes, many)
    priced = price_program(planned, network, setup.precision, setup.execution, causal=True)
    hidden = hide(coalesced(priced, planned, network), planned, policy.overlap)
    repriced = price_program(updated, network, setup.precision, setup.execution)
    gathers_ahead = PARAMETERS in policy.overlap and planned.strategy.policy.reshard_after_forward
    gradients = gradients_held(planned)
    return LayerCost(
        kind=kind,
        planned=planned,
        rows=hidden.rows,
        windows=hidden.windows,
        update=coalesced(repriced, updated, network),
        updated=updated,
        parameters=parameters_held(planned, setup.precision),
        gradients=gradients,
        optimizer=optimizer_held(planned, setup.optimizer, setup.precision),
        saved=saved_activations(planned),
        gathered=kept_gathered(planned),
        fetched=gathered_copies(planned) if gathers_ahead else (),
        peak=peak(planned, accumulates=True, overlap=policy.overlap),
        accumulate_seconds=accumulating(sum(one.bytes for one in gradients), setup.microbatches, setup.network.system.chip),
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
            if what in (PARAMETERS, GRADIENTS) and priced.step.kind not in FREE and key in seen:
                alpha, _ = coefficients(priced.step.kind, priced.step.axes, network)
                seconds = maximum(0.0, priced.seconds - alpha)
                priced = replace(priced, seconds=seconds, exposed_seconds=seconds)
            seen.add(key)
            collectives.append(priced)
        done.append(replace(row, collectives=tuple(collectives)))
    return tuple(done)
