"""Layers as they are trained, planned once for every size: passes and update of a kind under a strategy.

A structure is kept and serves every microbatch, batch and mesh for which its decisions come out alike
(`structures`), so that pricing many strategies plans few programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache

from msgspec import Struct
from msgspec.structs import replace

from einscale.checks import is_end, recomputed_here
from einscale.mesh import Mesh
from einscale.planner.communication import sent_as
from einscale.planner.planned import Decision, Structure
from einscale.planner.program import plan_program
from einscale.planner.structures import MOST_KEPT, Structures
from einscale.planner.update import plan_update
from einscale.precision import Precision
from einscale.program.backward import backward
from einscale.program.capacity import with_capacity
from einscale.program.loss import LossForm, with_loss
from einscale.program.shapes import program_sizes
from einscale.program.typed import typed
from einscale.program.update import update_program
from einscale.program.values import Program
from einscale.strategy import Strategy
from einscale.topology import Network


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
    loss: LossForm
    capacity: float
    trains: bool = True


class LayerStructure(Struct, frozen=True, dict=True):
    """A kind of layer planned for training.

    Args:
        passes: forward and backward statements; gradients of parameters left as they are accumulated.
        update: the optimizer's step of its parameters; no statement where it does not train.
        program: its passes, in the element types it works in.
    """

    passes: Structure
    update: Structure
    program: Program

    @cached_property
    def requires(self) -> tuple[Decision, ...]:
        """Decisions that sizes or degrees had a say in, of both."""
        return tuple(dict.fromkeys((*self.passes.requires, *self.update.requires)))

    def holds(self, sizes: Mapping[str, int], mesh: Mesh) -> bool:
        """Whether planning for other sizes, and other degrees of the same axes, would give the same."""
        return all(decision.holds(sizes, mesh) for decision in self.requires)


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
    return _STRUCTURES.find(asked, network, training_sizes(asked, batch, sequence))


def _planned(asked: Trained, network: Network, sizes: dict[str, int]) -> LayerStructure:
    """A structure planned anew."""
    program, mesh = trained_program(asked), network.mesh
    planned = plan_program(program, trained_strategy(asked), mesh, sizes, network=network, deferred=asked.trains)
    planned = sent_as(planned, asked.precision)
    if not asked.trains:
        return LayerStructure(planned.structure, replace(planned.structure, statements=()), program)
    updated = plan_update(planned, update_program(program, asked.optimizer, asked.precision))
    return LayerStructure(planned.structure, updated.structure, program)


def root_unit(strategy: Strategy, program: Program) -> Strategy:
    """The strategy for one layer: an embedding's and a head's gathered parameters stay from forward to backward.

    FSDP's unit is the block; what belongs to none is the root's, which is gathered when a step begins and not dropped
    between the passes, for the head is the last layer of one and the first of the other (PyTorch, `fully_shard`).
    """
    return (
        replace(strategy, policy=replace(strategy.policy, reshard_after_forward=False)) if is_end(program) else strategy
    )


_STRUCTURES = Structures(_planned)
