"""Layers as they are trained, planned once for every size: passes and update of a kind under a strategy.

A structure is kept and serves every microbatch, batch and mesh for which its decisions come out alike
(`Structure.holds`), so that pricing many strategies plans few programs.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from einscale.layer import is_end, recomputed_here
from einscale.layout import Layout
from einscale.mesh import Mesh
from einscale.planner.planned import PlannedProgram, Structure, accumulator_layouts
from einscale.planner.program import plan_program
from einscale.planner.sending import sent_as
from einscale.precision import Precision
from einscale.program.backward import backward
from einscale.program.capacity import with_capacity
from einscale.program.loss import with_loss
from einscale.program.shapes import program_sizes
from einscale.program.typed import typed
from einscale.program.update import update_program
from einscale.program.values import Program
from einscale.strategy import Strategy
from einscale.topology import Network

MOST_KEPT = 4096
"""Kinds of structures that are kept: programs under rules, on meshes of the same live axes."""


class Trained(Struct, frozen=True, cache_hash=True):
    """What the structure of a layer in training follows from, sizes aside.

    Args:
        program: its forward pass, as the model has it.
        strategy: compute and store tables; what it hides makes no difference to a plan.
        precision: element types.
        optimizer: by name.
        loss: how the software stack runs the loss.
        capacity: rows each expert has room for.
        trains: there is a backward pass, whose gradients are added up over microbatches and reduced once a step as far
            as they can be, and an update.
    """

    program: Program
    strategy: Strategy
    precision: Precision
    optimizer: str
    loss: str
    capacity: float
    trains: bool = True


class LayerStructure(Struct, frozen=True):
    """A kind of layer planned for training.

    Args:
        passes: forward and backward statements; gradients of parameters left as they are accumulated.
        update: the optimizer's step of its parameters; no statement where it does not train.
        program: its passes, in the element types it works in.
    """

    passes: Structure
    update: Structure
    program: Program

    def holds(self, sizes: dict[str, int], mesh: Mesh) -> bool:
        """Whether planning for other sizes, and other degrees of the same axes, would give the same."""
        return self.passes.holds(sizes, mesh) and self.update.holds(sizes, mesh)


@lru_cache(maxsize=MOST_KEPT)
def _kept(
    asked: Trained, names: tuple[str, ...], live: frozenset[str], links: Network | None
) -> list[LayerStructure]:
    """Structures that were planned for meshes of these axes, of which `live` have several devices.

    `links` are those that statements were planned by which the strategy leaves to the free planner; None for none.
    """
    return []


@lru_cache(maxsize=MOST_KEPT)
def trained_program(asked: Trained) -> Program:
    """Forward and backward pass of a layer in the element types it works in."""
    policy = trained_strategy(asked).policy
    written = typed(forward_program(asked), asked.precision)
    if not asked.trains:
        return written
    return typed(backward(written, frozenset(policy.recompute), frozenset(policy.fuse)), asked.precision)


@lru_cache(maxsize=MOST_KEPT)
def forward_program(asked: Trained) -> Program:
    """The layer with its loss as the software stack runs it, and with what room its experts have."""
    return with_capacity(with_loss(asked.program, asked.loss), asked.capacity)


def trained_strategy(asked: Trained) -> Strategy:
    """The strategy as it holds for this layer: of blocks, or of what a model begins and ends with."""
    program = forward_program(asked)
    return root_unit(recomputed_here(asked.strategy, program), program)


def training_sizes(asked: Trained, batch: int, sequence: int) -> dict[str, int]:
    """Size of every axis of a layer.

    Args:
        asked: the layer.
        batch: sequences that all replicas work on at a time.
        sequence: tokens in a sequence.
    """
    return program_sizes(forward_program(asked), defaults={"b": batch, "s": sequence, "t": sequence})


def layer_structure(asked: Trained, network: Network, batch: int, sequence: int) -> LayerStructure:
    """The structure of a layer for some sizes: one that was planned before if it holds for them.

    Args:
        asked: what it follows from.
        network: the devices of one pipeline stage and their links.
        batch: sequences that all replicas work on at a time.
        sequence: tokens in a sequence.

    Raises:
        StrategyError: the strategy does not fit the mesh or the layer.
    """
    mesh = network.mesh
    sizes = training_sizes(asked, batch, sequence)
    links = network if asked.strategy.policy.auto else None
    kept = _kept(asked, mesh.names, frozenset(axis.name for axis in mesh.axes if axis.size > 1), links)
    for one in kept:
        if one.holds(sizes, mesh):
            return one
    found = _planned(asked, network, sizes)
    kept.append(found)
    return found


def _planned(asked: Trained, network: Network, sizes: dict[str, int]) -> LayerStructure:
    """A structure planned anew."""
    program, mesh = trained_program(asked), network.mesh
    planned = plan_program(program, trained_strategy(asked), mesh, sizes, network=network, deferred=asked.trains)
    planned = sent_as(planned, asked.precision)
    if not asked.trains:
        return LayerStructure(planned.structure, replace(planned.structure, statements=()), program)
    updated = plan_program(
        update_program(program, asked.optimizer, asked.precision),
        asked.strategy,
        mesh,
        sizes,
        pinned=accumulated(planned),
        network=network,
    )
    return LayerStructure(planned.structure, updated.structure, program)


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
