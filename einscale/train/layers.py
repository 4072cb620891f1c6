"""One layer of a kind under one microbatch: planned forward, backward and update, priced, with what it holds."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from einscale.collectives import FREE
from einscale.cost import PricedCollective, PricedStatement, price_program
from einscale.layer import is_end, recomputed_here
from einscale.layout import Layout
from einscale.memory import (
    gathered_copies,
    gradients_held,
    kept_gathered,
    optimizer_held,
    parameters_held,
    peak,
    saved_activations,
)
from einscale.mesh import Mesh
from einscale.models import LayerKind
from einscale.numeric import maximum
from einscale.overlap import GRADIENTS, PARAMETERS, hide, overlap_kind
from einscale.planner.planned import PlannedProgram, accumulator_layouts
from einscale.planner.program import plan_program
from einscale.planner.sending import sent_as
from einscale.program.backward import backward
from einscale.program.capacity import with_capacity
from einscale.program.loss import with_loss
from einscale.program.shapes import program_sizes
from einscale.program.typed import typed
from einscale.program.update import update_program
from einscale.program.values import Program
from einscale.strategy import Strategy
from einscale.topology import AnyNetwork, Network, coefficients
from einscale.train.values import LayerCost, TrainSetup


def layer_cost(layer: LayerKind, setup: TrainSetup) -> LayerCost:
    """Plan and price one layer of a kind for one microbatch on every replica.

    Raises:
        StrategyError: the strategy does not fit the mesh or the layer.
        HardwareError: the chip has no rate for the compute type.
    """
    program = with_capacity(with_loss(layer.program, setup.loss), setup.capacity)
    network = on_one_stage(setup.timed_by, setup.pipe)
    mesh = network.mesh
    strategy = root_unit(recomputed_here(setup.strategy, program), program)
    policy = strategy.policy
    sizes = program_sizes(
        program,
        defaults={"b": setup.microbatch * setup.replicas, "s": setup.sequence, "t": setup.sequence},
    )
    whole = backward(typed(program, setup.precision), frozenset(policy.recompute), frozenset(policy.fuse))
    typed_whole = typed(whole, setup.precision)
    planned = plan_program(typed_whole, strategy, mesh, sizes, network=network, deferred=True)
    planned = sent_as(planned, setup.precision)
    priced = price_program(planned, network, setup.precision, setup.execution, causal=True)
    hidden = hide(coalesced(priced, planned, network), planned, policy.overlap)
    updated = plan_program(
        update_program(typed_whole, setup.optimizer, setup.precision),
        setup.strategy,
        mesh,
        sizes,
        pinned=accumulated(planned),
        network=network,
    )
    repriced = price_program(updated, network, setup.precision, setup.execution)
    gradients = gradients_held(planned)
    return LayerCost(
        kind=layer.kind,
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
        fetched=gathered_copies(planned) if PARAMETERS in policy.overlap and policy.reshard_after_forward else (),
        peak=peak(planned, accumulates=True),
        accumulate_seconds=_accumulating(sum(one.bytes for one in gradients), setup),
    )


def _accumulating(gradients: int, setup: TrainSetup) -> float:
    """Seconds a microbatch, on average, to read back the gradients its own are added to; the first finds none."""
    share = (setup.microbatches - 1) / setup.microbatches
    return share * gradients / setup.network.system.chip.memory_bandwidth.used


def root_unit(strategy: Strategy, program: Program) -> Strategy:
    """The strategy for one layer: an embedding's and a head's gathered parameters stay from forward to backward.

    FSDP's unit is the block; what belongs to none is the root's, which is gathered when a step begins and not dropped
    between the passes, for the head is the last layer of one and the first of the other (PyTorch, `fully_shard`).
    """
    return (
        replace(strategy, policy=replace(strategy.policy, reshard_after_forward=False)) if is_end(program) else strategy
    )


def on_one_stage(network: Network, pipe: str) -> Network:
    """The devices of one pipeline stage and their links: the other stages hold other layers, not copies of its tensors.

    A plan on the whole mesh would divide work over devices that hold nothing of it.
    """
    if not pipe:
        return network
    axes = (replace(axis, size=1) if axis.name == pipe else axis for axis in network.mesh.axes)
    return replace(network, mesh=Mesh(tuple(axes)))


def accumulated(planned: PlannedProgram) -> dict[str, Layout]:
    """Gradient of each parameter -> the layout it is accumulated in."""
    return {f"d_{name}": layout for name, layout in accumulator_layouts(planned).items()}


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
