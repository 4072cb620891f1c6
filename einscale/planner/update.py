"""An optimizer's step under a strategy: it runs where its states rest; gradients are brought there, weights back.

Nothing here knows ZeRO or FSDP. A gradient arrives in the layout it was accumulated in, owing the sums that no
microbatch settled; the states rest where the optimizer's store rules say; the parameter where its own do. The moves
between the three are an all-reduce for plain data parallelism, a reduce-scatter and an all-gather for ZeRO-1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from einscale.causes import CauseRule, ProgramCause
from einscale.collectives import Collective
from einscale.layout import Layout, Tensor
from einscale.numeric import as_int, product
from einscale.planner.classes import moved_class
from einscale.planner.decisions import Fixed
from einscale.planner.direct import direct
from einscale.planner.planned import Decision, PlannedProgram, PlannedStatement, accumulator_layouts
from einscale.program.maps import option_axes
from einscale.program.optimizers import FLOPS, NEWTON_SCHULZ, orthogonal_flops
from einscale.program.values import Program, Statement, Value
from einscale.steps import LocalMap
from einscale.vocabulary import GRADIENT, STATE, UPDATED, TensorClass


def plan_update(planned: PlannedProgram, update: Program) -> PlannedProgram:
    """Derive the layouts and collectives of an optimizer's step.

    Args:
        planned: the program with its backward pass, planned with `deferred`; where gradients, parameters and states
            rest follows from it.
        update: the step, from `update_program`.

    >>> from einscale.mesh import parse_mesh
    >>> from einscale.planner.program import plan_program
    >>> from einscale.precision import parse_precision
    >>> from einscale.program import backward, parse_program
    >>> from einscale.program.typed import typed
    >>> from einscale.program.update import update_program
    >>> from einscale.strategy import load_strategy, with_zero
    >>> source = '''program p
    ... input x: bf16[b d]
    ... param w: bf16[d f]
    ... y = einsum("b d, d f -> b f", x, w)
    ... return y'''
    >>> precision = parse_precision("bf16")
    >>> program = typed(backward(parse_program(source)), precision)
    >>> sizes, mesh, zero1 = {"b": 8, "d": 64, "f": 64}, parse_mesh("data=8"), with_zero(load_strategy("dp"), 1)
    >>> planned = plan_program(program, zero1, mesh, sizes, deferred=True)
    >>> step = plan_update(planned, update_program(program, "adamw", precision))
    >>> for move in step.collectives:
    ...     print(move, move.tensor.dtype)
    reduce-scatter(data) d_w: d f {U:data} -> d/data f fp32
    all-gather(data) w_new: d/data f -> d f bf16
    """
    return plan_kernels(update, planned, accumulator_layouts(planned))


def plan_kernels(update: Program, planned: PlannedProgram, accumulators: Mapping[str, Layout | None]) -> PlannedProgram:
    """The same, from where parameters and states rest.

    Args:
        update: the step.
        planned: says where parameters and optimizer states rest.
        accumulators: parameter -> the layout its gradient comes in; None where it rests as the planned one does.
    """
    return _Update(planned, update, accumulators).run()


class _Update:
    """Walks the kernels of a step; what is remembered is where each value rests."""

    def __init__(self, planned: PlannedProgram, update: Program, accumulators: Mapping[str, Layout | None]) -> None:
        self.planned = planned
        self.program = update
        self.decisions: list[Decision] = list(planned.structure.requires)
        self.table = update.table
        self.sizes = {axis: as_int(size) for axis, size in planned.sizes.items()}
        self.resting = {value.name: self.rest(value, accumulators) for value in update.values}

    def rest(self, value: Value, accumulators: Mapping[str, Layout | None]) -> Layout:
        """Layout a value rests in."""
        of = value.of or value.name
        if value.kind == GRADIENT:
            return accumulators.get(of) or self.planned.resting.get(value.name, self.planned.resting[of])
        if value.kind == STATE:
            where = dict(zip(self.planned.program.table[of].axes, self.planned.optimizer[of].dims, strict=True))
            return Layout(tuple(where[axis] for axis in value.axes))
        return self.planned.resting[of]

    def run(self) -> PlannedProgram:
        """Plan every kernel."""
        statements = tuple(self.plan(statement) for statement in self.program.statements)
        requires = tuple(dict.fromkeys(self.decisions))
        structure = replace(
            self.planned.structure, program=self.program, statements=statements, resting=self.resting, requires=requires
        )
        return replace(self.planned, structure=structure)

    def plan(self, statement: Statement) -> PlannedStatement:
        """One kernel: operands to the layout of the states, new weights back to where the parameter rests."""
        of = self.table[statement.output].of
        assert of is not None
        axes = self.planned.program.table[of].axes
        placement = dict(zip(axes, self.planned.optimizer[of].dims, strict=True))
        rows, columns = (option_axes(statement.option(name)) for name in ("rows", "columns"))
        inside: tuple[Collective, ...] = ()
        if statement.op == NEWTON_SCHULZ:
            placement |= dict.fromkeys((*rows, *columns), ())
        elif rows:
            inside = self.factors(statement, placement, rows, columns)
        layouts = self.layouts(statement.inputs, placement)
        natural = self.layouts(statement.outputs, placement)
        before = [
            step
            for name, layout in zip(statement.inputs, layouts, strict=True)
            for step in self.move(name, self.resting[name], layout, statement)
        ]
        after = [
            step
            for name, layout in zip(statement.outputs, natural, strict=True)
            for step in self.move(name, layout, self.resting[name], statement)
        ]
        return PlannedStatement(
            statement, self.work(statement, layouts, natural, rows, columns), tuple(before), inside, tuple(after)
        )

    def layouts(self, names: Sequence[str], placement: Mapping[str, tuple[str, ...]]) -> tuple[Layout, ...]:
        """Layout of each value in a kernel."""
        return tuple(Layout(tuple(placement[axis] for axis in self.table[name].axes)) for name in names)

    def tensor(self, name: str) -> Tensor:
        """A value as a tensor."""
        return self.table[name].tensor

    def move(self, name: str, before: Layout, after: Layout, statement: Statement) -> tuple[Collective, ...]:
        """Moves of a value between two layouts, with their reason."""
        if before == after:
            return ()
        planned = self.planned
        return direct(
            self.tensor(name),
            before,
            after,
            self.sizes,
            planned.mesh,
            self.cause(name, before, after, statement),
            self.decisions,
        )

    def cause(self, name: str, before: Layout, after: Layout, statement: Statement) -> ProgramCause:
        """Why a value moves."""
        value = self.table[name]
        kind = moved_class(self.program, name)
        rule, axes = CauseRule.TO_STATES, tuple(dict.fromkeys((*before.axes, *after.axes)))
        if kind == TensorClass.GRADIENTS:
            rule, axes = CauseRule.GRADIENT_TO_STATES, before.unreduced
        elif value.kind == UPDATED:
            rule = CauseRule.UPDATED_TO_REST
        elif statement.op == NEWTON_SCHULZ:
            rule = CauseRule.WHOLE_MATRIX
        return ProgramCause(
            rule=rule,
            tensor=name,
            axes=axes,
            kind=value.kind,
            of=value.of or "",
            op=statement.op,
            output=statement.output,
            layout=after,
            labels=value.axes,
        )

    def factors(
        self,
        statement: Statement,
        placement: Mapping[str, tuple[str, ...]],
        rows: tuple[str, ...],
        columns: tuple[str, ...],
    ) -> tuple[Collective, ...]:
        """All-reduces of the sums of squares by row and by column, and of the update's size, where they are divided."""
        gradient = self.table[statement.inputs[0]]
        moves: list[Collective] = []
        for what, gone in (("rows", columns), ("columns", rows), ("whole", gradient.axes)):
            over = tuple(sorted({part for axis in gone for part in placement[axis]}))
            if not over:
                continue
            axes = tuple(axis for axis in gradient.axes if axis not in gone)
            tensor = Tensor(f"squares of {gradient.name} by {what}", axes, "fp32")
            owing = Layout(tuple(placement[axis] for axis in axes), over)
            cause = ProgramCause(CauseRule.SQUARES, gradient.name, over, gone, op=statement.op, output=statement.output)
            moves += direct(tensor, owing, owing.reduced(), self.sizes, self.planned.mesh, cause, self.decisions)
        return tuple(moves)

    def work(
        self,
        statement: Statement,
        layouts: tuple[Layout, ...],
        natural: tuple[Layout, ...],
        rows: Iterable[str],
        columns: Iterable[str],
    ) -> LocalMap:
        """What one device does."""
        return LocalMap(
            op=statement.op,
            inputs=tuple(self.tensor(name) for name in statement.inputs),
            layouts=layouts,
            outputs=tuple(self.tensor(name) for name in statement.outputs),
            output_layouts=natural,
            flops_per_element=self.flops(statement, rows, columns),
            counts_first=True,
            reads=tuple(range(len(statement.inputs))),
        )

    def flops(self, statement: Statement, rows: Iterable[str], columns: Iterable[str]) -> float:
        """FLOPs an element of the first operand."""
        if statement.op != NEWTON_SCHULZ:
            return FLOPS[statement.op]
        sizes = self.sizes
        self.decisions.append(Fixed(tuple((axis, sizes[axis]) for axis in (*rows, *columns))))
        m, n = (as_int(product(sizes[axis] for axis in axes)) for axes in (rows, columns))
        total = orthogonal_flops(m, n)
        if total % (m * n) == 0:
            return total // (m * n)
        return total / (m * n)
