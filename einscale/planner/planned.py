"""What planning a program gives: every statement with its layouts and its collectives, every value with its layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from einscale.collectives import FREE, Collective
from einscale.layout import Layout, Tensor, local_bytes
from einscale.mesh import Mesh
from einscale.numeric import Number, truncate
from einscale.program.update import gradient_names
from einscale.program.values import Program, Statement
from einscale.steps import LocalEinsum, LocalMap
from einscale.strategy import Strategy
from einscale.vocabulary import BACKWARD, FORWARD, UPDATE, Phase


class Decision(Protocol):
    """Something in a plan that numbers decided: whether it would be decided the same way for others."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Axes whose sizes have a say in it."""

    def holds(self, sizes: Mapping[str, int], mesh: Mesh) -> bool:
        """Whether other sizes, and other degrees of the same mesh axes, lead to the same."""


class PlannedStatement(Struct, frozen=True):
    """A statement with its layouts: operands are brought in, the work runs locally, the result is brought to rest.

    Args:
        statement: what is computed.
        work: the local einsum or map.
        before: collectives that bring operands to the layouts the work reads.
        statistics: collectives inside the work, where a map reduces a divided axis.
        after: collectives that bring the result to the layout it rests in.
    """

    statement: Statement
    work: LocalEinsum | LocalMap
    before: tuple[Collective, ...] = ()
    statistics: tuple[Collective, ...] = ()
    after: tuple[Collective, ...] = ()

    @property
    def collectives(self) -> tuple[Collective, ...]:
        """Every collective this statement causes, in the order they run."""
        return self.before + self.statistics + self.after

    @property
    def sends(self) -> bool:
        """Whether it makes the network work, which ends a kernel."""
        return any(step.kind not in FREE for step in self.collectives)

    @property
    def phase(self) -> Phase:
        """`forward`, `backward` or `update`; recomputed work belongs to the backward pass."""
        return self.statement.phase if self.statement.phase in (FORWARD, UPDATE) else BACKWARD


class Structure(Struct, frozen=True, dict=True):
    """A planned program without numbers: names, layouts and steps, which hold for every size that `requires` allows.

    What is worked out of a structure is kept with it (`of_structure`).

    Args:
        program: what is computed.
        strategy: the strategy, bound to the axes of a mesh.
        statements: in order.
        resting: value name -> the layout it rests in between statements.
        optimizer: parameter -> the layout its optimizer state rests in.
        requires: decisions that sizes or degrees had a say in while it was planned.
    """

    program: Program
    strategy: Strategy
    statements: tuple[PlannedStatement, ...]
    resting: Mapping[str, Layout]
    optimizer: Mapping[str, Layout]
    requires: tuple[Decision, ...] = ()

    def holds(self, sizes: Mapping[str, int], mesh: Mesh) -> bool:
        """Whether planning anew, for other sizes and a mesh of other degrees, would give the same."""
        return all(decision.holds(sizes, mesh) for decision in self.requires)

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Axes whose sizes had a say while it was planned: points that differ in others share it."""
        return tuple(dict.fromkeys(name for decision in self.requires for name in decision.reads))

    @cached_property
    def kept(self) -> dict[object, Any]:
        """What has been worked out of it, by what was asked (see `of_structure`)."""
        return {}


class PlannedProgram(Struct, frozen=True, dict=True):
    """A structure at a point: the mesh and the sizes it is priced for.

    Args:
        structure: statements with their layouts.
        mesh: the devices; of several meshes, one that stands for the names of their axes.
        sizes: axis name -> size; of many points at once an array of one size for each.
        many: mesh axis -> an array of devices along it, of many meshes at once; None for the one.
    """

    structure: Structure
    mesh: Mesh
    sizes: Mapping[str, Number]
    many: Mapping[str, Number] | None = None

    @property
    def program(self) -> Program:
        """What is computed."""
        return self.structure.program

    @property
    def strategy(self) -> Strategy:
        """The strategy, bound to the axes of the mesh."""
        return self.structure.strategy

    @property
    def statements(self) -> tuple[PlannedStatement, ...]:
        """Statements in order."""
        return self.structure.statements

    @property
    def resting(self) -> Mapping[str, Layout]:
        """Value name -> the layout it rests in between statements."""
        return self.structure.resting

    @property
    def optimizer(self) -> Mapping[str, Layout]:
        """Parameter -> the layout its optimizer state rests in."""
        return self.structure.optimizer

    @property
    def degrees(self) -> Mapping[str, Number]:
        """Mesh axis -> devices along it, a number or an array of many."""
        return self.mesh.degrees if self.many is None else self.many

    def held(self, tensor: Tensor, layout: Layout) -> Number:
        """Bytes one device holds of a tensor in a layout, padding included; each shape is worked out once."""
        key = tensor.indices, tensor.dtype, tensor.chosen, layout.dims
        kept = self._bytes
        if key not in kept:
            kept[key] = truncate(local_bytes(tensor, layout, self.sizes, self.degrees))
        return kept[key]

    @cached_property
    def _bytes(self) -> dict[object, Number]:
        return {}

    @property
    def collectives(self) -> tuple[Collective, ...]:
        """Every collective, in order."""
        return tuple(step for planned in self.statements for step in planned.collectives)


Result = TypeVar("Result")


def of_structure(function: Callable[..., Result]) -> Callable[..., Result]:
    """A function of a structure (and of hashable arguments) whose result is kept with the structure."""

    @wraps(function)
    def call(structure: Structure, *arguments: Any) -> Result:
        key = (function, arguments)
        kept = structure.kept
        if key not in kept:
            kept[key] = function(structure, *arguments)
        found: Result = kept[key]
        return found

    return call


def accumulator_layouts(planned: PlannedProgram) -> dict[str, Layout]:
    """Parameter -> the layout its gradient is added up in over microbatches, of a program planned with `deferred`.

    It may owe sums: over the data-parallel axes, unless the gradients' store rules divide it over them. Tied parameters
    are left out: their gradients are added to those of the program they live in.
    """
    names = gradient_names(planned.program)
    return {of: planned.resting[name] for of, name in names.items() if of not in planned.program.tied}
