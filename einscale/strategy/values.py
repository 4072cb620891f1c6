"""Strategies: two tables that say where work runs and where tensors rest; the collectives follow from them.

`compute` divides the iteration space of every statement: index -> mesh axes. `store` adds, for a class of tensors, axes
that divide it while it rests: the residual stream along the sequence (Megatron-SP), parameters along the model dim
(FSDP).
"""

from __future__ import annotations

from msgspec import Struct

from einscale.vocabulary import TensorClass

ROLES: dict[str, tuple[str, ...]] = {
    "data": ("data", "dp", "fsdp", "batch", "shard"),
    "model": ("model", "tp", "tensor"),
    "context": ("context", "cp", "seq", "sequence"),
    "ulysses": ("ulysses",),
    "pod": ("pod", "dcn", "replicate"),
    "expert": ("expert", "ep"),
    "pipe": ("pipe", "pp", "stage"),
}
"""Role -> the mesh-axis names that play it; a name outside this table plays itself."""

CLASSES = (
    TensorClass.RESIDUAL,
    TensorClass.PARAMETERS,
    TensorClass.GRADIENTS,
    TensorClass.OPTIMIZER,
    TensorClass.KV_CACHE,
    TensorClass.ROUTED,
)
"""Classes of tensors a store table may speak of."""

LARGEST = "*"
"""Store rule key: the tensor's largest dim, where no earlier rule used the axes."""


class Policy(Struct, frozen=True, forbid_unknown_fields=True):
    """Choices that are not layouts.

    Args:
        reshard_after_forward: gathered parameters are dropped after the forward pass, gathered again in the backward.
        fuse: statement groups run as one kernel: their interior is neither written to memory nor saved.
        recompute: statement groups whose interior is not saved but computed again in the backward pass; `full` stands
            for everything but a layer's input.
        stream: statement groups whose operands are gathered, and results scattered, block by block around a ring while
            the group computes (ring attention): two blocks are held instead of all.
        auto: groups, sections or single results whose einsums are placed by the free planner, not by the compute table.
        deduplicate: a token is sent once to a device that holds several of its experts, and its results come back as
            one sum; without it, every copy is sent.
        overlap: collectives that a training step hides behind work that does not wait for them: of `parameters`,
            `gradients`, `activations` (collective matmuls), `routed` (tokens on their way to experts).
        ordered: activations gathered or scattered along a dim that others are outside of are copied into order, as
            PyTorch's functional collectives do with batch-first tensors; where the sequence is kept outermost
            (Megatron), or a collective matmul reads the blocks where they are, nothing is copied.
    """

    reshard_after_forward: bool = True
    fuse: tuple[str, ...] = ("attention", "activation")
    recompute: tuple[str, ...] = ()
    stream: tuple[str, ...] = ()
    auto: tuple[str, ...] = ()
    deduplicate: bool = True
    overlap: tuple[str, ...] = ("parameters", "gradients")
    ordered: bool = False


class Rule(Struct, frozen=True):
    """One line of a table: an index (or a composite, or `*`), where it holds, and the mesh axes it is divided over.

    Args:
        index: axis name, composite name (`h`), or `*`.
        axes: roles or mesh axes, major to minor.
        scope: the rule holds in this statement group only, or section if no group has the name; "" is everywhere.
    """

    index: str
    axes: tuple[str, ...]
    scope: str = ""

    def __str__(self) -> str:
        within = f"{self.scope}:" if self.scope else ""
        return f"{within}{self.index} -> {'/'.join(self.axes)}"


class Strategy(Struct, frozen=True):
    """Ordered compute and store rules: first match wins, a mesh axis at most once per tensor.

    Args:
        name: how it is called.
        compute: rules on the iteration space of statements.
        store: class of tensors -> rules added to the compute layout while such a tensor rests.
        summary: one sentence.
        source: where it was described.
        expect: `KIND ROLE CLASS` of the collectives it is known to need; None where it does not say.
        policy: choices that are not layouts.
    """

    name: str
    compute: tuple[Rule, ...]
    store: tuple[tuple[str, tuple[Rule, ...]], ...] = ()
    summary: str = ""
    source: str = ""
    expect: tuple[str, ...] | None = None
    policy: Policy = Policy()

    def store_rules(self, kind: str) -> tuple[Rule, ...]:
        """Rules for a class; gradients and optimizer state rest where the parameters do unless they have their own."""
        tables = dict(self.store)
        if kind in tables:
            return tables[kind]
        return tables.get(TensorClass.PARAMETERS, ()) if kind in (TensorClass.GRADIENTS, TensorClass.OPTIMIZER) else ()

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role or mesh axis its rules name: roles in the order of `ROLES`, then the others."""
        rules = [*self.compute, *(rule for _, table in self.store for rule in table)]
        named = dict.fromkeys(axis for rule in rules for axis in rule.axes)
        return (*(role for role in ROLES if role in named), *(axis for axis in named if axis not in ROLES))
