"""What any planned program must satisfy, checked statement by statement for every model and strategy.

The rules are those of arithmetic on shards, written here without the planner: an index has the same mesh axes wherever
a statement reads it, a sum over a divided index is owed, only linear work reads a value that owes a sum, and
collectives lead from where a value was to where it is read.
"""

from __future__ import annotations

from functools import cache

import pytest

from einscale.collectives import check_move
from einscale.layout import Layout, check_layout, local_shape
from einscale.mesh import parse_mesh, split_name
from einscale.models import list_models, load_model
from einscale.planner.planned import PlannedProgram, PlannedStatement
from einscale.planner.program import plan_program
from einscale.program import Program, backward
from einscale.program.maps import rule, statistics, whole_axes
from einscale.steps import LocalEinsum, LocalMap
from einscale.strategy import load_strategy
from einscale.vocabulary import BACKWARD

MESHES = {
    "dp": "data=8",
    "zero1": "data=8",
    "zero2": "data=8",
    "fsdp": "data=8",
    "hsdp": "pod=2,data=4",
    "megatron": "data=2,model=4",
    "megatron-sp": "data=2,model=16",
    "megatron-sp+etp": "data=2,model=16",
    "fsdp+tp": "data=2,model=4",
    "2d": "x=2,y=4",
    "weight-gathered": "data=2,model=4",
    "context": "data=2,context=4",
    "ring": "context=8",
    "ulysses": "data=2,context=4",
    "ulysses+ring": "data=2,context=2,ulysses=2",
    "megatron-sp+context": "data=2,context=2,model=4",
    "batch-attention": "data=2,model=4",
    "2d-batch-attention": "x=2,y=4",
    "split-kv": "data=2,model=2,context=2",
    "dp-attention": "data=2,model=4",
}
MODELS = ("llama3-70b", "gpt3-175b", "mistral-7b", "qwen2.5-7b")


@cache
def programs(model: str) -> tuple[Program, ...]:
    kinds = load_model(model).layers
    return tuple(backward(kind.program, fused=frozenset({"attention"})) for kind in kinds)


def placement_of(planned: PlannedStatement) -> dict[str, tuple[str, ...]]:
    """Mesh axes of every index of the local work, the same wherever it occurs."""
    work = planned.work
    if isinstance(work, LocalEinsum):
        pairs = [*zip(work.inputs, work.layouts, strict=True), (work.output, work.output_layout)]
    else:
        pairs = [*zip(work.inputs, work.layouts, strict=True), *zip(work.outputs, work.output_layouts, strict=True)]
    placed: dict[str, tuple[str, ...]] = {}
    for tensor, layout in pairs:
        for index, axes in zip(tensor.indices, layout.dims, strict=True):
            assert placed.setdefault(index, axes) == axes, (planned.statement.output, index, axes, placed[index])
    return placed


def covered(axes: list[str], plan: PlannedProgram) -> set[tuple[str, int, int]]:
    """Mesh axes as sets of unit steps, so that parts and wholes compare."""
    found = set()
    for name in axes:
        axis, before, size = split_name(name)
        stop = plan.mesh.size(axis) if size is None else before * size
        while before < stop:
            factor = next(f for f in range(2, stop // before + 1) if (stop // before) % f == 0)
            found.add((axis, before, factor))
            before *= factor
    return found


AtHand = dict[tuple[str, str], set[Layout]]
"""(value, phase) -> the layouts a device has it in."""


def check_statement(plan: PlannedProgram, planned: PlannedStatement, at_hand: AtHand) -> None:
    statement, work = planned.statement, planned.work
    phase = planned.phase
    for step in planned.collectives:
        check_move(step, plan.mesh)
    for step in planned.before:
        known = at_hand.setdefault((step.tensor.name, phase), {plan.resting[step.tensor.name]})
        assert step.before in known, (statement.output, step)
        known.add(step.after)
    for tensor, layout in zip(work.inputs, work.layouts, strict=True):
        check_layout(layout, plan.mesh)
        known = at_hand.setdefault((tensor.name, phase), {plan.resting[tensor.name]})
        assert layout in known, (statement.output, tensor.name, layout.text(tensor.indices))
    placed = placement_of(planned)
    used = [axis for axes in placed.values() for axis in axes]
    assert len(covered(used, plan)) == sum(len(covered([axis], plan)) for axis in used), (
        "a mesh axis divides two indices"
    )
    natural = work.output_layout if isinstance(work, LocalEinsum) else work.output_layouts[0]
    kept = (work.output if isinstance(work, LocalEinsum) else work.outputs[0]).indices
    gone = [axis for index, axes in placed.items() if index not in kept for axis in axes]
    read = [axis for layout in work.layouts for axis in layout.unreduced]
    if isinstance(work, LocalMap):
        check_map(planned, placed)
        reduced = statistics(statement)
        if reduced:
            gone = [a for i, axes in placed.items() if i not in kept and i != statement.option("axis") for a in axes]
    assert covered(list(natural.unreduced), plan) == covered(gone, plan) | covered(read, plan), statement.output
    here = natural
    for step in planned.after:
        assert step.before == here
        here = step.after
    assert here == plan.resting[statement.output]


def check_map(planned: PlannedStatement, placed: dict[str, tuple[str, ...]]) -> None:
    statement, work = planned.statement, planned.work
    owing = [layout.unreduced for layout in work.layouts]
    if any(owing):
        assert rule(statement).linear or statement.op == "mul", f"{statement.op} reads a value that owes a sum"
        whole = owing[1:] if statement.op == "mul" else []  # a product is linear in one factor at a time
        assert not any(whole)
        assert len(set(owing)) - len(set(whole)) == 1, "an addition of values that owe sums over different axes"
    for axis in whole_axes(statement):
        assert placed[axis] == ()
    over = placed.get(str(statement.option("axis")), ())
    assert len(planned.statistics) == (len(statistics(statement)) if over and statistics(statement) else 0)


@pytest.mark.parametrize("strategy", MESHES)
@pytest.mark.parametrize("model", MODELS)
def test_a_planned_program_is_sound(model: str, strategy: str) -> None:
    mesh = parse_mesh(MESHES[strategy])
    for program in programs(model):
        sizes = {**dict(program.sizes), "b": 16, "s": 1024, "t": 1024}
        plan = plan_program(program, load_strategy(strategy), mesh, sizes)
        at_hand: AtHand = {}
        for planned in plan.statements:
            check_statement(plan, planned, at_hand)
        for name in program.outputs:
            # The gradient of a tied table is reduced with that of the program the table lives in.
            if program.table[name].of in program.tied:
                continue
            assert not plan.resting[name].unreduced, f"{name} leaves the program owing a sum"


def test_gradients_rest_as_what_they_are_of() -> None:
    mesh = parse_mesh("data=2,model=4")
    for program in programs("llama3-70b"):
        plan = plan_program(program, load_strategy("fsdp+tp"), mesh, {**dict(program.sizes), "b": 16, "s": 64, "t": 64})
        table = program.table
        for value in program.values:
            if value.of in table and value.name in program.outputs:
                assert plan.resting[value.name].dims == plan.resting[value.of].dims


def test_the_soundness_check_can_fail() -> None:
    program = programs("llama3-70b")[1]
    sizes = {**dict(program.sizes), "b": 16, "s": 64, "t": 64}
    plan = plan_program(program, load_strategy("megatron"), parse_mesh("model=8"), sizes)
    broken = next(row for row in plan.statements if row.after)
    from msgspec.structs import replace

    with pytest.raises(AssertionError):
        check_statement(plan, replace(broken, after=()), {})
    gathered = plan_program(program, load_strategy("megatron-sp"), parse_mesh("model=8"), sizes)
    fed = next(row for row in gathered.statements if row.before)
    with pytest.raises(AssertionError):
        check_statement(gathered, replace(fed, before=()), {})


def test_what_a_device_holds_of_every_value_is_never_more_than_the_whole() -> None:
    program = programs("gpt3-175b")[1]
    sizes = {**dict(program.sizes), "b": 16, "s": 64, "t": 64}
    plan = plan_program(program, load_strategy("fsdp+tp"), parse_mesh("data=2,model=4"), sizes)
    for value in program.values:
        shape = local_shape(plan.resting[value.name], value.axes, sizes, plan.mesh.degrees)
        assert all(local <= sizes[axis] for local, axis in zip(shape, value.axes, strict=True))
    assert any(planned.phase == BACKWARD for planned in plan.statements)
    assert len(list_models()) >= 12
