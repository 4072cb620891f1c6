"""A program under a strategy: every statement's layouts, and the collectives between them.

Nothing here knows Megatron or FSDP. The compute table says over which mesh axes each statement's iteration space is
divided, the store table how values rest between statements, and the collectives are whatever brings one to the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from einscale.collectives import ALL_GATHER, ALL_TO_ALL, REDUCE_SCATTER, Collective
from einscale.layout import Layout, Tensor
from einscale.mesh import Mesh, join_parts, part_order, split_name, without_covered
from einscale.planner.classes import root_of, store_class, stream_axes
from einscale.planner.decisions import Divided, Fetched, Fixed, Rested, least_moved
from einscale.planner.deferral import still_owing
from einscale.planner.direct import direct
from einscale.planner.free import plan_statement_freely
from einscale.planner.pins import check_pins
from einscale.planner.planned import Decision, PlannedProgram, PlannedStatement, Structure
from einscale.planner.statement import axis_names, local_map, sent_once
from einscale.planner.strategy_causes import gather_cause, result_cause, statistic_cause
from einscale.program.maps import (
    reduced_axes,
    rule,
    statistic_axes,
    statistics,
    summed_axes,
    whole_axes,
)
from einscale.program.values import Program, Statement, Value
from einscale.steps import LocalEinsum, LocalMap
from einscale.strategy import Rule, Strategy, bind_strategy, place, stored_layout
from einscale.vocabulary import BACKWARD, CACHE, FORWARD, PARAMETER, UPDATE, TensorClass

if TYPE_CHECKING:
    from einscale.topology import Network

LOOKUPS = ("lookup", "table", "dispatch", "combine")
"""Shapes of maps that are contractions with a one-hot operand: the looked-up axis is in the iteration space."""


def plan_program(
    program: Program,
    strategy: Strategy,
    mesh: Mesh,
    sizes: Mapping[str, int],
    pinned: Mapping[str, Layout] | None = None,
    network: Network | None = None,
    *,
    deferred: bool = False,
) -> PlannedProgram:
    """Derive the layouts and collectives of a program under a strategy.

    Args:
        program: forward statements, forward and backward ones, or those of an optimizer's update.
        strategy: compute and store tables; roles are bound to the axes of the mesh.
        mesh: the devices.
        sizes: a size for every axis of the program.
        pinned: value name -> the layout it rests in, whatever the store table says; a gradient rests as what it is of,
            but to an update it comes in the layout given here (see `accumulator_layouts`).
        network: links to price statements with that the strategy leaves to the free planner; without it, by bytes.
        deferred: gradients of parameters are added up over microbatches: they go on owing the sums that do not divide
            them, until the optimizer's update settles these once a step.

    Raises:
        LayoutError: a pinned layout is not one of the mesh.
        StrategyError: an axis is divided into more parts than it has elements, or a mesh axis has no role.
    """
    check_pins(pinned or {}, program, mesh)
    bound = bind_strategy(strategy, mesh)
    planner = _Planner(program, bound, mesh, dict(sizes), dict(pinned or {}), network, deferred)
    if any(statement.phase == UPDATE for statement in program.statements):
        from einscale.planner.update import plan_kernels

        return plan_kernels(program, planner.at_rest(), {of: (pinned or {}).get(f"d_{of}") for of in planner.table})
    return planner.run()


class _Planner:
    """Walks the statements once; what is remembered is where each value rests and which layouts of it are at hand."""

    def __init__(
        self,
        program: Program,
        strategy: Strategy,
        mesh: Mesh,
        sizes: dict[str, int],
        pinned: dict[str, Layout],
        network: Network | None,
        deferred: bool,
    ) -> None:
        self.program = program
        self.deferred = deferred
        self.strategy = strategy
        self.mesh = mesh
        self.sizes = sizes
        self.pinned = pinned
        self.network = network
        self.decisions: list[Decision] = []
        self.free: dict[str, dict[str, tuple[str, ...]]] = {}
        self.table = program.table
        self.composites = dict(program.composites)
        self.stream = stream_axes(program)
        self.producer = {name: statement for statement in program.statements for name in statement.outputs}
        self.readers: dict[str, list[Statement]] = {}
        for statement in program.statements:
            for name in statement.inputs:
                self.readers.setdefault(name, []).append(statement)
        self.groups = {statement.group for statement in program.statements}
        self.scopes = self._scopes()
        self.placements: dict[tuple[tuple[str, ...], tuple[str, ...]], Mapping[str, tuple[str, ...]]] = {}
        self.resting: dict[str, Layout] = {}
        self.carried: dict[str, Layout | None] = {}
        self.at_hand: dict[tuple[str, str], list[Layout]] = {}
        for value in program.values:
            self.resting[value.name] = self.rest(value)

    def run(self) -> PlannedProgram:
        """Plan every statement in order."""
        planned = tuple(self.plan(statement) for statement in self.program.statements)
        rest = self.at_rest()
        structure = replace(rest.structure, statements=planned, requires=tuple(dict.fromkeys(self.decisions)))
        return replace(rest, structure=structure)

    def at_rest(self) -> PlannedProgram:
        """The program with where values and optimizer states rest, and no statement planned."""
        optimizer = {value.name: self.optimizer_rest(value) for value in self.program.parameters}
        requires = tuple(dict.fromkeys(self.decisions))
        structure = Structure(self.program, self.strategy, (), self.resting, optimizer, requires)
        return PlannedProgram(structure, self.mesh, self.sizes)

    def optimizer_rest(self, value: Value) -> Layout:
        """Layout the optimizer state of a parameter rests in: its own store rules, else where the parameter rests."""
        if TensorClass.OPTIMIZER not in dict(self.strategy.store):
            return self.resting[value.name]
        placement = self.placed(value.axes, self.scopes.get(value.name, ()))
        return self.stored(value.axes, placement, self.strategy.store_rules(TensorClass.OPTIMIZER))

    def stored(
        self, axes: tuple[str, ...], placement: Mapping[str, tuple[str, ...]], rules: tuple[Rule, ...]
    ) -> Layout:
        """Layout a tensor rests in by store rules."""
        found = stored_layout(axes, placement, rules, self.sizes, self.mesh, self.composites)
        if rules:
            placed = tuple((axis, placement[axis]) for axis in axes)
            self.decisions.append(Rested(axes, placed, rules, tuple(self.composites.items()), found))
        return found

    def scopes_of(self, statement: Statement) -> tuple[str, ...]:
        """What scoped rules may call a statement: its group, and its section unless a group has that name."""
        return tuple(
            name for name in (statement.group, statement.section) if name == statement.group or name not in self.groups
        )

    def _scopes(self) -> dict[str, tuple[str, ...]]:
        """Value -> the scopes it belongs to: its producer's, or for what is fed in its first reader's.

        A cache belongs to what reads it, before and after new tokens are appended to it.
        """
        scopes = {name: self.scopes_of(statement) for name, statement in self.producer.items()}
        for name, readers in self.readers.items():
            scopes.setdefault(name, self.scopes_of(readers[0]))
        for statement in self.program.statements:
            if statement.op == "append" and statement.output in self.readers:
                reader = self.scopes_of(self.readers[statement.output][0])
                scopes[statement.output] = scopes[statement.inputs[0]] = reader
            if statement.phase == UPDATE:  # which stands where its parameter is read first
                scopes[root_of(self.table[statement.output], self.program).name] = self.scopes_of(statement)
        return scopes

    def placed(self, indices: Sequence[str], scopes: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
        """Compute placement of an iteration space; a program has few distinct ones, so they are kept."""
        key = (tuple(indices), scopes)
        if key not in self.placements:
            rules = self.strategy.compute
            found = place(indices, rules, self.sizes, self.mesh, self.composites, scopes)
            composites = tuple(self.composites.items())
            self.decisions.append(Divided(tuple(indices), rules, composites, scopes, tuple(found.items())))
            self.placements[key] = found
        return self.placements[key]

    def rest(self, value: Value) -> Layout:
        """Layout a value rests in: the compute rules on its axes, then the store rules of its class.

        A gradient rests as what it is of; a part of one, of other axes, where the statement that makes it runs.
        """
        root = root_of(value, self.program)
        if root.name in self.pinned and root.axes == value.axes:
            return self.pinned[root.name]
        kind = self.class_of(value)
        called = root.name if root.axes == value.axes else value.name
        placement = self.placed(value.axes, self.scopes.get(called, ()))
        rules = self.strategy.store_rules(kind) if kind else ()
        return self.stored(value.axes, placement, rules)

    def class_of(self, value: Value) -> TensorClass | None:
        """Class of a value in the store tables, None if none speaks of it."""
        return store_class(value, root_of(value, self.program), self.stream)

    def plan(self, statement: Statement) -> PlannedStatement:
        """Plan one statement."""
        if statement.op == "einsum":
            return self.plan_contraction(statement, statement.labels)
        if rule(statement).shape in LOOKUPS:
            names = (*statement.inputs, statement.output)
            return self.plan_contraction(statement, tuple(self.table[name].axes for name in names))
        return self.plan_map(statement)

    def plan_contraction(self, statement: Statement, labels: tuple[tuple[str, ...], ...]) -> PlannedStatement:
        """An einsum or a lookup (one with a one-hot operand): the compute table divides its iteration space."""
        placement = self.contraction_placement(statement, labels)
        owed = self.owed_by_operand(statement)
        layouts = tuple(Layout(tuple(placement[label] for label in operand), owed) for operand in labels[:-1])
        before = self.streaming(statement, self.fetch_all(statement, layouts, labels[:-1]))
        natural = self.contraction_result(labels, placement, owed)
        after = self.streaming(statement, self.bring_to_rest(statement, natural, labels[-1], placement))
        inputs = tuple(
            self.table[name].labelled(operand) for name, operand in zip(statement.inputs, labels[:-1], strict=True)
        )
        output = self.table[statement.output].labelled(labels[-1])
        if statement.op == "einsum":
            work: LocalEinsum | LocalMap = LocalEinsum(inputs, layouts, output, natural)
        else:
            work = local_map(statement, layouts, (natural,), self.table)
        return PlannedStatement(statement, work, before, (), after)

    def streaming(self, statement: Statement, steps: tuple[Collective, ...]) -> tuple[Collective, ...]:
        """The gathers and scatters of a streamed group, marked so."""
        if not statement.group or statement.group not in self.strategy.policy.stream:
            return steps
        ring = (ALL_GATHER, REDUCE_SCATTER)
        return tuple(replace(step, streamed=True) if step.kind in ring else step for step in steps)

    def contraction_placement(
        self, statement: Statement, labels: tuple[tuple[str, ...], ...]
    ) -> Mapping[str, tuple[str, ...]]:
        """Mesh axes of each label of an einsum's iteration space."""
        called = {statement.output, statement.group, statement.section} - {""}
        if statement.op == "einsum" and called & set(self.strategy.policy.auto):
            return self.free_placement(statement)
        names = axis_names(statement, labels, self.table)
        placed = self.placed(tuple(dict.fromkeys(names.values())), self.scopes_of(statement))
        return {label: placed[axis] for label, axis in names.items()}

    def free_placement(self, statement: Statement) -> dict[str, tuple[str, ...]]:
        """Placement the free planner chooses for an einsum, from where its operands rest to where its result does."""
        name = statement.output
        if name not in self.free:
            self.decisions.append(Fixed(tuple(self.sizes.items()), self.mesh))
            best = plan_statement_freely(statement, self.table, self.resting, self.sizes, self.mesh, self.network)
            chosen: dict[str, tuple[str, ...]] = {}
            for step in best.plan.steps:
                chosen |= step.placement if isinstance(step, LocalEinsum) else {}
            labels = dict.fromkeys(label for operand in statement.labels for label in operand)
            self.free[name] = {label: chosen.get(label, ()) for label in labels}
        return self.free[name]

    def contraction_result(
        self,
        labels: tuple[tuple[str, ...], ...],
        placement: Mapping[str, tuple[str, ...]],
        kept: tuple[str, ...] = (),
    ) -> Layout:
        """Layout a contraction leaves its result in: it owes a sum over the axes of every label it does not keep.

        `kept` are axes of the sums that its operand owes.
        """
        owed = [axis for label, axes in placement.items() if label not in labels[-1] for axis in axes]
        return Layout(tuple(placement[label] for label in labels[-1]), self.owing((*owed, *kept)))

    def owed_by_operand(self, statement: Statement) -> tuple[str, ...]:
        """Mesh axes of the sum that what a `combine` adds up goes on owing; none for other contractions."""
        if statement.op != "combine" or not self.keeps_owing(statement.inputs[0]):
            return ()
        carried = self.carry(statement.inputs[0])
        return carried.unreduced if carried is not None else ()

    def owing(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Mesh axes of an owed sum, each once, parts of an axis joined where they make a whole."""
        parts = sorted(without_covered(dict.fromkeys(axes), self.mesh.degrees), key=part_order)
        return tuple(sorted(join_parts(parts, self.mesh.degrees)))

    def plan_map(self, statement: Statement) -> PlannedStatement:
        """A map runs in the layout its result rests in, or where it sums axes away, in that of its largest operand."""
        placement = self.map_placement(statement)
        carried = self.carry(statement.output)
        owed_together = carried.unreduced if carried and self.adds_owed(statement) else ()
        layouts = tuple(
            Layout(
                tuple(placement[axis] for axis in self.table[name].axes),
                owed_together if statement.op != "mul" or position == 0 else (),
            )
            for position, name in enumerate(statement.inputs)
        )
        labels = tuple(self.table[name].axes for name in statement.inputs)
        before = self.fetch_all(statement, layouts, labels)
        inside = self.statistic_moves(statement, placement)
        owed = {mesh_axis for axis in summed_axes(statement, self.table) for mesh_axis in placement[axis]}
        owed.update(axis for layout in layouts for axis in layout.unreduced)
        naturals = tuple(
            Layout(tuple(placement[axis] for axis in self.table[name].axes), self.owing(owed))
            for name in statement.outputs
        )
        after = self.bring_to_rest(statement, naturals[0], self.table[statement.output].axes, placement)
        for name, natural in zip(statement.outputs[1:], naturals[1:], strict=True):
            self.resting[name] = natural
        return PlannedStatement(statement, local_map(statement, layouts, naturals, self.table), before, inside, after)

    def map_placement(self, statement: Statement) -> dict[str, tuple[str, ...]]:
        """Mesh axes of each axis a map runs over."""
        output = self.table[statement.output]
        largest = max(statement.inputs, key=lambda name: len(self.table[name].axes))
        guide = output.name if set(output.axes) >= set(self.table[largest].axes) else largest
        layout = (self.carry(guide) if guide == output.name and self.adds_owed(statement) else None) or (
            self.resting[guide]
        )
        placement = dict(zip(self.table[guide].axes, layout.dims, strict=True))
        used = {axis for axes in placement.values() for axis in axes}
        for name in (*statement.inputs, *statement.outputs):
            for axis, axes in zip(self.table[name].axes, self.resting[name].dims, strict=True):
                if axis not in placement:
                    placement[axis] = axes if not used & set(axes) else ()
                    used.update(placement[axis])
        for axis in whole_axes(statement):
            placement[axis] = ()
        if output.kind == CACHE:
            placement |= dict.fromkeys(set(placement) - set(output.axes), ())
        return placement

    def statistic_moves(self, statement: Statement, placement: Mapping[str, tuple[str, ...]]) -> tuple[Collective, ...]:
        """All-reduces of a map's statistics where the axis it reduces is divided: reduce, all-reduce, apply."""
        needed = statistics(statement)
        axis = " ".join(name for name in reduced_axes(statement) if placement.get(name))
        over = tuple(part for name in axis.split() for part in placement[name])
        if not over:
            return ()
        axes = statistic_axes(statement, self.table)
        moves: list[Collective] = []
        for reduction in needed:
            tensor = Tensor(f"{reduction} of {statement.inputs[0]}", axes, "fp32")
            owing = Layout(tuple(placement[name] for name in axes), self.owing(over), reduction)
            scopes = self.scopes_of(statement)
            cause = statistic_cause(statement, axis, over, reduction, self.strategy, self.composites, scopes)
            moves += direct(tensor, owing, owing.reduced(), self.sizes, self.mesh, cause, self.decisions)
        return tuple(moves)

    def tensor(self, name: str) -> Tensor:
        """A value as a tensor, labelled by its own axes."""
        return self.table[name].tensor

    def fetch_all(
        self, statement: Statement, layouts: Sequence[Layout], labels: Sequence[tuple[str, ...]]
    ) -> tuple[Collective, ...]:
        """Moves that bring every operand to the layout it is read in."""
        moves: list[Collective] = []
        for name, layout, operand in zip(statement.inputs, layouts, labels, strict=True):
            moves += self.fetch(statement, name, layout, operand)
        return tuple(moves)

    def fetch(self, statement: Statement, name: str, wanted: Layout, labels: tuple[str, ...]) -> tuple[Collective, ...]:
        """Moves that bring a value to a layout; once per value, layout and phase."""
        kept = self.table[name].kind == PARAMETER and not self.strategy.policy.reshard_after_forward
        phase = FORWARD if kept or statement.phase == FORWARD else BACKWARD
        at_hand = self.at_hand.setdefault((name, phase), [self.resting[name]])
        if wanted in at_hand:
            return ()
        value = self.table[name]
        ways = []
        for layout in at_hand:
            between = (layout, wanted)
            kind = self.class_of(value)
            scopes = {*self.scopes_of(statement), *self.scopes.get(root_of(value, self.program).name, ())}
            cause = gather_cause(statement, value, kind, between, labels, self.strategy, self.composites, scopes)
            way = direct(self.tensor(name), layout, wanted, self.sizes, self.mesh, cause, self.decisions)
            ways.append(self.sent_once(statement, name, way))
        at_hand.append(wanted)
        chosen = least_moved(ways, self.sizes, self.mesh) if len(ways) > 1 else 0
        if len(ways) > 1:
            self.decisions.append(Fetched(tuple(ways), chosen))
        return ways[chosen]

    def bring_to_rest(
        self,
        statement: Statement,
        natural: Layout,
        labels: tuple[str, ...],
        placement: Mapping[str, tuple[str, ...]],
    ) -> tuple[Collective, ...]:
        """Moves that bring a result to rest, none if it may go on owing its sum.

        The gradient of a tied parameter goes on owing: it is added to the one of the program the parameter lives in,
        and reduced with it.
        """
        name = statement.output
        value = self.table[name]
        if self.keeps_owing(name) or (value.of in self.program.tied and name in self.program.outputs):
            self.resting[name] = natural
            return ()
        if self.deferred and self.class_of(value) == TensorClass.GRADIENTS and name in self.program.outputs:
            self.resting[name] = still_owing(natural, self.resting[name])
        resting = self.resting[name]
        if natural == resting:
            return ()
        kind, between = self.class_of(value), (natural, resting)
        scopes = {*self.scopes_of(statement), *self.scopes.get(root_of(value, self.program).name, ())}
        cause = result_cause(value, kind, between, labels, placement, self.strategy, self.composites, scopes)
        steps = direct(self.tensor(name), natural, resting, self.sizes, self.mesh, cause, self.decisions)
        return self.sent_once(statement, name, steps)

    def sent_once(self, statement: Statement, name: str, steps: tuple[Collective, ...]) -> tuple[Collective, ...]:
        """Moves of tokens, marked so that a device with several of a token's experts is sent its row once.

        The copies that a `dispatch` made are alike, and of those that a `combine` adds up a device can send the sum.
        Rows that are padded to a capacity all move.
        """
        value = self.table[name]
        producer = self.producer.get(name)
        alike = statement.op == "combine" or (producer is not None and producer.op == "dispatch")
        if not value.chosen or not alike or not self.strategy.policy.deduplicate:
            return steps
        return tuple(sent_once(step, value, self.program) if step.kind == ALL_TO_ALL else step for step in steps)

    def carry(self, name: str) -> Layout | None:
        """Layout, owing a sum, in which a value could go on into linear maps; None if it owes nothing."""
        if name not in self.carried:
            self.carried[name] = self._carry(name)
        return self.carried[name]

    def _carry(self, name: str) -> Layout | None:
        statement = self.producer.get(name)
        if statement is None or name != statement.output:
            return None
        if statement.op == "einsum":
            placement = self.contraction_placement(statement, statement.labels)
            natural = self.contraction_result(statement.labels, placement)
            return natural if natural.unreduced else None
        if statement.op == "combine":
            labels = tuple(self.table[each].axes for each in (*statement.inputs, name))
            placement = self.contraction_placement(statement, labels)
            natural = self.contraction_result(labels, placement, self.owed_by_operand(statement))
            return natural if natural.unreduced else None
        if statement.op == "mul" and self.table[name].chosen:
            first, second = statement.inputs
            alone = self.readers[first] == [statement] and first not in self.program.outputs
            same = self.carry(second) is None and self.table[first].axes == self.table[name].axes
            return self.carry(first) if alone and same else None
        if not rule(statement).linear or len(statement.outputs) > 1:
            return None
        layouts = [self.carry(source) for source in statement.inputs]
        axes = {self.table[source].axes for source in statement.inputs}
        owing = [layout for layout in layouts if layout is not None]
        settled = [self.resting[source] for source, layout in zip(statement.inputs, layouts, strict=True) if not layout]
        if not owing or axes != {self.table[name].axes}:
            return None
        if any(layout.dims != owing[0].dims for layout in (*owing, *settled)):
            return None
        return Layout(owing[0].dims, self.owing(part for layout in owing for part in layout.unreduced))

    def adds_owed(self, statement: Statement) -> bool:
        """Whether a map adds values that go on owing their sums."""
        return any(self.keeps_owing(name) for name in statement.inputs)

    def keeps_owing(self, name: str) -> bool:
        """Whether a value goes on owing its sum: its one reader is an addition of values of which several owe one.

        Those that owe less, or nothing, are masked, which is free, and the sum is reduced once. The results of experts
        go on owing until they are combined, for then there is one row of a token left to reduce, unless they are
        weighed and kept for the backward pass before.
        """
        readers = self.readers.get(name, [])
        if self.carry(name) is None or len(readers) != 1 or name in self.program.outputs:
            return False
        reader = readers[0]
        if reader.op == "combine":
            return self.combines_owed(reader)
        if self.carry(reader.output) is None:
            return False
        if reader.op == "mul":
            return reader.inputs[0] == name and self.keeps_owing(reader.output)
        alone = all(self.readers[source] == [reader] for source in reader.inputs)
        several = sum(self.carry(source) is not None for source in set(reader.inputs)) > 1
        return alone and (several or self.keeps_owing(reader.output))

    def combines_owed(self, statement: Statement) -> bool:
        """Whether a `combine` can add up what owes a sum: it divides its own work over other mesh axes."""
        carried = self.carry(statement.inputs[0])
        labels = tuple(self.table[name].axes for name in (*statement.inputs, statement.output))
        placement = self.contraction_placement(statement, labels)
        used = {split_name(axis)[0] for axes in placement.values() for axis in axes}
        return carried is not None and not used & {split_name(axis)[0] for axis in carried.unreduced}
