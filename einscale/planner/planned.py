"""What planning a program gives: every statement with its layouts and its collectives, every value with its layout."""

from __future__ import annotations

from msgspec import Struct

from einscale.collectives import Collective
from einscale.layout import Layout
from einscale.mesh import Mesh
from einscale.plan import LocalEinsum, LocalMap
from einscale.program.update import gradient_names
from einscale.program.values import Program, Statement
from einscale.strategy import Strategy

FORWARD = "forward"
BACKWARD = "backward"
UPDATE = "update"


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
    def phase(self) -> str:
        """`forward`, `backward` or `update`; recomputed work belongs to the backward pass."""
        return self.statement.phase if self.statement.phase in (FORWARD, UPDATE) else BACKWARD


class PlannedProgram(Struct, frozen=True):
    """A program whose every value has a layout.

    Args:
        program: what is computed.
        strategy: the strategy, bound to the axes of the mesh.
        mesh: the devices.
        sizes: axis name -> size.
        statements: in order.
        resting: value name -> the layout it rests in between statements.
        optimizer: parameter -> the layout its optimizer state rests in.
    """

    program: Program
    strategy: Strategy
    mesh: Mesh
    sizes: dict[str, int]
    statements: tuple[PlannedStatement, ...]
    resting: dict[str, Layout]
    optimizer: dict[str, Layout]

    @property
    def collectives(self) -> tuple[Collective, ...]:
        """Every collective, in order."""
        return tuple(step for planned in self.statements for step in planned.collectives)


def accumulator_layouts(planned: PlannedProgram) -> dict[str, Layout]:
    """Parameter -> the layout its gradient is added up in over microbatches, of a program planned with `deferred`.

    It may owe sums: over the data-parallel axes, unless the gradients' store rules divide it over them. Tied parameters
    are left out: their gradients are added to those of the program they live in.
    """
    names = gradient_names(planned.program)
    return {of: planned.resting[name] for of, name in names.items() if of not in planned.program.tied}
