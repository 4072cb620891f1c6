from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from strategies import atoms, einsums, layouts, meshes, sizes

from einscale.collectives import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    MASK,
    PERMUTE,
    REDUCE_SCATTER,
    SLICE,
    Collective,
    received_total,
)
from einscale.einsum import Einsum
from einscale.emulate import Verification, verify_plan
from einscale.emulate import verify as verify_module
from einscale.emulate.cuts import count, cut_mesh
from einscale.emulate.moves import move
from einscale.emulate.shrink import smallest_size
from einscale.errors import LayoutError, PlanError, VerificationError
from einscale.layout import Layout, Tensor, check_layout, make_layout, replicated
from einscale.mesh import Mesh, parse_mesh
from einscale.planner.einsum import plan_einsum
from einscale.planner.question import Wanted
from einscale.steps import LocalEinsum, Plan, Step


def route(tensor: Tensor, before: Layout, after: Layout) -> list[Collective]:
    """The plainest way between two layouts: add up what is owed, gather everything, slice, mask."""
    if before == after:
        return []
    steps = []
    summed, whole, sliced = before.reduced(), replicated(len(before.dims)), after.reduced()
    if summed == sliced:
        whole = summed
    for kind, axes, start, stop in (
        (ALL_REDUCE, before.unreduced, before, summed),
        (ALL_GATHER, summed.axes, summed, whole),
        (SLICE, sliced.axes, whole, sliced),
        (MASK, after.unreduced, sliced, after),
    ):
        if start != stop:
            steps.append(Collective(kind, tensor, axes, start, stop))
    return steps


def local(inputs: tuple[Tensor, ...], given: tuple[Layout, ...], output: Tensor) -> LocalEinsum:
    """A local einsum; its output's layout follows from the operands'."""
    step = LocalEinsum(inputs, given, output, Layout(()))
    owed = [axis for layout in given for axis in layout.unreduced]
    owed += [axis for index in step.einsum.contracted for axis in step.placement[index]]
    result = make_layout([step.placement[index] for index in output.indices], owed)
    return replace(step, output_layout=result)


def plan_by_hand(
    einsum: Einsum, given: tuple[Layout, ...], placement: dict[str, tuple[str, ...]], wanted: Layout
) -> Plan:
    """Bring every operand to a placement of the einsum's indices the plain way, compute, and go on the same way."""
    inputs = tuple(Tensor(f"in{number}", indices) for number, indices in enumerate(einsum.inputs))
    output = Tensor("out", einsum.output)
    steps: list[Step] = []
    read = []
    for tensor, layout in zip(inputs, given, strict=True):
        repeated = {index for index in tensor.indices if tensor.indices.count(index) > 1}
        read.append(make_layout([() if index in repeated else placement[index] for index in tensor.indices]))
        steps += route(tensor, layout, read[-1])
    compute = local(inputs, tuple(read), output)
    steps += [compute, *route(output, compute.output_layout, wanted)]
    return Plan(inputs, given, tuple(steps), output, wanted)


# --- moves -----------------------------------------------------------------------------------------------------------


def test_gather_after_slice_is_the_identity_on_any_data() -> None:
    cut = cut_mesh(parse_mesh("x=3,y=2"), [])
    shape = (7, 5)
    whole, part = cut.place(make_layout([(), ("y",)])), cut.place(make_layout([("x",), ("y",)]))
    shards = np.broadcast_to(np.random.default_rng(0).integers(0, 99, (1, 2, 7, 3)).astype(float), (3, 2, 7, 3))
    sliced, nothing = move(SLICE, frozenset({0}), shards, whole, part, shape, shape, cut.radices)
    gathered, received = move(ALL_GATHER, frozenset({0}), sliced, part, whole, shape, shape, cut.radices)
    assert sliced.shape == (3, 2, 3, 3)
    assert nothing == 0
    assert np.array_equal(gathered, shards)
    assert received == 6 * 2 * (3 * 3)  # six devices, two others' shards of 3 x 3, padding included


@st.composite
def owing_shards(draw: st.DrawFn) -> tuple[Mesh, list[str], tuple[int, ...]]:
    mesh = draw(meshes())
    names = draw(atoms(mesh))
    return (
        mesh,
        names[: draw(st.integers(1, len(names)))],
        tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))),
    )


@given(owing_shards(), st.sampled_from(["sum", "max", "min"]), st.data())
def test_all_reduce_is_reduce_scatter_then_all_gather(
    question: tuple[Mesh, list[str], tuple[int, ...]], reduction: str, data: st.DataObject
) -> None:
    mesh, owed, shape = question
    cut = cut_mesh(mesh, owed)
    before = make_layout([()] * len(shape), owed, reduction)
    dims: list[list[str]] = [[] for _ in shape]
    for axis in owed:
        dims[data.draw(st.integers(0, len(shape) - 1))].append(axis)
    axes, radices = frozenset(cut.expand(owed)), cut.radices
    owing, part, whole = cut.place(before), cut.place(make_layout(dims)), cut.place(replicated(len(shape)))
    shards = np.random.default_rng(0).integers(-50, 50, radices + shape).astype(float)
    at_once, reduce_bytes = move(ALL_REDUCE, axes, shards, owing, whole, shape, shape, radices)
    scattered, scatter_bytes = move(REDUCE_SCATTER, axes, shards, owing, part, shape, shape, radices)
    gathered, gather_bytes = move(ALL_GATHER, axes, scattered, part, whole, shape, shape, radices)
    assert np.array_equal(at_once, gathered)
    if all(size % count(dim, radices) == 0 for size, dim in zip(shape, part.dims, strict=True)):
        assert reduce_bytes == scatter_bytes + gather_bytes


@given(st.data())
def test_permute_there_and_back_is_the_identity(data: st.DataObject) -> None:
    mesh = data.draw(meshes(degrees=(2, 4), devices=16))
    names = data.draw(atoms(mesh))
    before = data.draw(layouts(("a", "b"), names, unreduced=False))
    pools = {mesh.size(name): [other for other in names if mesh.size(other) == mesh.size(name)] for name in names}
    swapped = {
        name: other
        for pool in pools.values()
        for name, other in zip(pool, data.draw(st.permutations(pool)), strict=True)
    }
    after = make_layout([[swapped[name] for name in dim] for dim in before.dims])
    tensor, output = Tensor("A", ("a", "b")), Tensor("out", ("a", "b"))
    steps = (
        Collective(PERMUTE, tensor, tuple(names), before, after),
        Collective(PERMUTE, tensor, tuple(names), after, before),
        LocalEinsum((tensor,), (before,), output, before),
    )
    answer = verify_plan(Plan((tensor,), (before,), steps, output, before), {"a": 48, "b": 32}, mesh)
    assert answer.bytes_received[0] == answer.bytes_received[1]


def test_a_permute_may_reverse_the_order_of_unequal_axes() -> None:
    tensor = Tensor("A", ("a",))
    before, after = make_layout([("x", "y")]), make_layout([("y", "x")])
    step = Collective(PERMUTE, tensor, ("x", "y"), before, after)
    answer = verify_plan(Plan((tensor,), (before,), (step,), tensor, after), {"a": 24}, parse_mesh("x=2,y=3"))
    assert answer.bytes_received == (4 * 2,)  # of six devices the first and the last keep their block


@pytest.mark.parametrize("size", [5, 9, 23])
def test_a_permute_of_an_uneven_dim_works_where_all_counts_pad_it_alike(size: int) -> None:
    tensor = Tensor("A", ("a",))
    layout = [make_layout([("x", "y")]), make_layout([("y", "x")]), replicated(1)]
    steps = (
        Collective(PERMUTE, tensor, ("x", "y"), layout[0], layout[1]),
        Collective(ALL_GATHER, tensor, ("x", "y"), layout[1], layout[2]),
        Collective(SLICE, tensor, ("x", "y"), layout[2], layout[0]),
    )
    answer = verify_plan(Plan((tensor,), (layout[0],), steps, tensor, layout[0]), {"a": size}, parse_mesh("x=2,y=3"))
    assert dict(answer.sizes)["a"] % 6 != 0


def test_an_uneven_dim_is_taken_padded_where_a_permute_would_find_no_equal_blocks() -> None:
    # Of 51, six shards of 9 pad to 54 but two of 26 to 52: after the permute, a gather leaves 27, not 26.
    tensor = Tensor("A", ("a",))
    before, swapped, after = make_layout([("y", "x")]), make_layout([("x", "y")]), make_layout([("x",)])
    steps = (
        Collective(PERMUTE, tensor, ("x", "y"), before, swapped),
        Collective(ALL_GATHER, tensor, ("y",), swapped, after),
    )
    answer = verify_plan(Plan((tensor,), (before,), steps, tensor, after), {"a": 51}, parse_mesh("x=2,y=3"))
    assert (answer.padded, answer.sizes) == (("a",), (("a", 6),))
    assert " at a=6 (padded), which divide as a=51 do: " in str(answer)


def test_the_all_to_all_of_jax_21562_moves_seven_eighths_of_a_shard() -> None:
    # P('y', None, 'x') -> P(None, ('x', 'y'), None) on x=4, y=2: github.com/jax-ml/jax/issues/21562
    tensor = Tensor("A", ("a", "b", "c"), "int8")
    before, after = make_layout([("y",), (), ("x",)]), make_layout([(), ("x", "y"), ()])
    step = Collective(ALL_TO_ALL, tensor, ("x", "y"), before, after)
    plan = Plan((tensor,), (before,), (step,), tensor, after)
    answer = verify_plan(plan, {"a": 2, "b": 8, "c": 4}, parse_mesh("x=4,y=2"))
    assert answer.bytes_received == (64 // 8 * 7,)  # L (n - 1) / n of 8 elements on each of 8 devices


@given(st.data())
@settings(deadline=None)
def test_fused_all_to_alls_between_any_dims_move_what_they_claim(data: st.DataObject) -> None:
    indices = ("a", "b", "c", "d")
    mesh = data.draw(meshes())
    names = data.draw(atoms(mesh))
    moving = names[: data.draw(st.integers(1, len(names)))]
    kept = data.draw(layouts(indices, names[len(moving) :]))
    sources = data.draw(st.integers(1, 3))
    before, after = [list(dim) for dim in kept.dims], [list(dim) for dim in kept.dims]
    for axis in moving:
        before[data.draw(st.integers(0, sources - 1))].append(axis)
        after[data.draw(st.integers(sources, 3))].append(axis)
    start, stop = make_layout(before, kept.unreduced), make_layout(after, kept.unreduced)
    tensor = Tensor("A", indices, "int8")
    step = Collective(ALL_TO_ALL, tensor, tuple(moving), start, stop)
    lengths = data.draw(sizes(indices, most=30))
    answer = verify_plan(Plan((tensor,), (start,), (step,), tensor, stop), lengths, mesh)
    assert answer.bytes_received[0] > 0


# --- whole plans -----------------------------------------------------------------------------------------------------


@st.composite
def questions(draw: st.DrawFn, *, uneven: bool) -> tuple[Plan, dict[str, int], Mesh]:
    einsum = draw(einsums(diagonals=True))
    mesh = draw(meshes(devices=16))
    names = draw(atoms(mesh))
    given = tuple(draw(layouts(indices, names)) for indices in einsum.inputs)
    wanted = draw(layouts(einsum.output, names))
    divisible = [i for i in einsum.indices if all(operand.count(i) <= 1 for operand in einsum.inputs)]
    placed = draw(layouts(divisible, names, unreduced=False))
    placement = dict.fromkeys(einsum.indices, ()) | dict(zip(divisible, placed.dims, strict=True))
    lengths = draw(sizes(einsum.indices, even=1 if uneven else 24, least=1, most=40 if uneven else 9))
    return plan_by_hand(einsum, given, placement, wanted), lengths, mesh


@given(questions(uneven=False))
@settings(max_examples=60, deadline=None)
def test_plans_made_by_hand_verify(question: tuple[Plan, dict[str, int], Mesh]) -> None:
    answer = verify_plan(*question)
    assert len(answer.bytes_received) == len(question[0].steps)


@given(questions(uneven=True))
@settings(max_examples=60, deadline=None)
def test_plans_made_by_hand_verify_at_uneven_sizes(question: tuple[Plan, dict[str, int], Mesh]) -> None:
    plan, lengths, mesh = question
    answer = verify_plan(plan, lengths, mesh)
    for index, size in answer.sizes:
        assert size <= max(2, lengths[index])


@given(questions(uneven=False), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_plan_that_lost_a_step_fails(question: tuple[Plan, dict[str, int], Mesh], choice: int) -> None:
    plan, lengths, mesh = question
    lost = choice % len(plan.steps)
    with pytest.raises(VerificationError):
        verify_plan(replace(plan, steps=plan.steps[:lost] + plan.steps[lost + 1 :]), lengths, mesh)


@st.composite
def open_questions(draw: st.DrawFn) -> tuple[Einsum, tuple[Layout, ...], Wanted, dict[str, int], Mesh]:
    einsum = draw(einsums(diagonals=True))
    mesh = draw(meshes(devices=16))
    names = draw(atoms(mesh))
    given = tuple(draw(layouts(indices, names)) for indices in einsum.inputs)
    wanted = draw(layouts(einsum.output, names))
    dims = tuple(None if draw(st.integers(0, 4)) == 0 else dim for dim in wanted.dims)
    lengths = draw(sizes(einsum.indices, even=draw(st.sampled_from([1, 48])), most=20))
    return einsum, given, Wanted(dims, wanted.unreduced), lengths, mesh


@given(open_questions())
@settings(max_examples=50, deadline=None)
def test_planned_einsums_verify(
    question: tuple[Einsum, tuple[Layout, ...], Wanted, dict[str, int], Mesh],
) -> None:
    einsum, given, wanted, lengths, mesh = question
    tensors = tuple(Tensor(f"in{number}", indices) for number, indices in enumerate(einsum.inputs))
    planned = plan_einsum(tensors, given, Tensor("out", einsum.output), wanted, lengths, mesh)
    answer = verify_plan(planned.plan, lengths, mesh)
    assert len(answer.bytes_received) == len(planned.plan.steps)


A, B, C = Tensor("A", ("i", "k")), Tensor("B", ("k", "j")), Tensor("C", ("i", "j"))
MESH = parse_mesh("x=4,y=2")
SIZES = {"i": 32, "j": 32, "k": 32}
OWED = make_layout([("x",), ()], ["y"])


def good_plan() -> Plan:
    """i over x, k over y; the result reduce-scattered over j, then gathered over both axes, one permute on the way."""
    given = (make_layout([("x",), ("y",)]), make_layout([("y", "x"), ()]))
    gathered = make_layout([("y",), ()])
    scattered, both = make_layout([("x",), ("y",)]), make_layout([("x", "y"), ()])
    other, whole = make_layout([("y", "x"), ()]), replicated(2)
    steps = (
        Collective(ALL_GATHER, B, ("x",), given[1], gathered),
        LocalEinsum((A, B), (given[0], gathered), C, OWED),
        Collective(REDUCE_SCATTER, C, ("y",), OWED, scattered),
        Collective(ALL_TO_ALL, C, ("y",), scattered, both),
        Collective(PERMUTE, C, ("x", "y"), both, other),
        Collective(ALL_GATHER, C, ("x", "y"), other, whole),
    )
    return Plan((A, B), given, steps, C, whole)


def change(number: int, **parts: object) -> Plan:
    """The good plan with one step changed."""
    plan = good_plan()
    steps = list(plan.steps)
    steps[number] = replace(steps[number], **parts)
    return replace(plan, steps=tuple(steps))


def without(number: int) -> Plan:
    """The good plan without one step."""
    plan = good_plan()
    return replace(plan, steps=plan.steps[:number] + plan.steps[number + 1 :])


def test_the_good_plan_verifies_with_its_bytes() -> None:
    answer = verify_plan(good_plan(), SIZES, MESH)
    assert answer.sizes == (("i", 8), ("k", 8), ("j", 2))
    claimed = tuple(
        received_total(step, dict(answer.sizes), MESH) if isinstance(step, Collective) else 0
        for step in good_plan().steps
    )
    assert answer.bytes_received == claimed
    assert answer.total_received == sum(claimed) > 0
    assert (answer.devices, answer.elements, answer.mesh) == (8, 8 * 16, MESH)


MUTATIONS = {
    "the reduction is missing": (without(2), "step 3 of 5 reads `C` in a layout it is not in, i/x j/y"),
    "the first gather is missing": (without(0), "step 1 of 5 reads `B` in a layout it is not in, k/y j"),
    "the permute is missing": (without(4), "step 5 of 5 reads `C` in a layout it is not in, i/y/x j"),
    "the sum is said not to be owed": (
        change(1, output_layout=OWED.reduced()),
        "step 2 of 6 claims another layout than its operands give",
    ),
    "an index is divided in two ways": (
        change(1, layouts=(make_layout([("x",), ("y",)]), make_layout([("y", "x"), ()]))),
        "step 2 of 6 divides index `k` in two ways",
    ),
    "the operand is transposed": (
        change(
            1,
            inputs=(A, replace(B, indices=("j", "k"))),
            layouts=(make_layout([("x",), ()]), make_layout([("y",), ()])),
        ),
        "step 2 of 6 reads `A` in a layout it is not in, i/x k",
    ),
    "the wrong operand is read": (
        change(
            1,
            inputs=(A, replace(A, indices=("k", "j"))),
            layouts=(make_layout([("x",), ("y",)]), make_layout([("y",), ()])),
        ),
        "step 2 of 6 reads `A` in a layout it is not in, k/y j",
    ),
    "the gather takes the major axis": (
        change(0, axes=("y",), after=make_layout([("x",), ()])),
        "step 1 of 6 is not a move: the layouts do not differ by a all-gather over these axes",
    ),
    "the gather names another axis": (change(0, axes=("y",)), "step 1 of 6 is not a move"),
    "the reduce-scatter is called an all-reduce": (change(2, kind=ALL_REDUCE), "step 3 of 6 is not a move"),
    "the reduce-scatter reduces nothing": (change(2, kind=SLICE), "step 3 of 6 is not a move"),
    "the kind is unknown": (change(2, kind="reduce"), "there is no move called `reduce`"),
    "the owed reduction is another": (
        change(2, before=replace(OWED, reduction="max")),
        "step 3 of 6 reads `C` in a layout it is not in, i/x j {U(max):y}",
    ),
    "the all-to-all has no destination": (change(3, after=make_layout([("x",), ()])), "step 4 of 6 is not a move"),
    "the permute changes the number of shards": (
        change(4, after=make_layout([("y",), ("x",)])),
        "a permute keeps the number of shards of every dim",
    ),
    "the permute crosses its group": (change(4, axes=("x",)), "step 5 of 6 cannot run: no device of the group holds"),
    "an axis is used twice": (
        change(3, after=make_layout([("x", "y"), ("y",)])),
        "step 4 of 6 has an impossible layout: `C` uses mesh axis `y` twice",
    ),
    "an axis does not exist": (
        change(3, after=make_layout([("x", "w"), ()])),
        "step 4 of 6 has an impossible layout: `C` uses mesh axis `w`",
    ),
    "the result is left elsewhere": (
        replace(good_plan(), output_layout=make_layout([(), ("x",)])),
        "no step leaves the result `C` in its layout i j/x",
    ),
    "the rank is wrong": (change(0, after=make_layout([("y",)])), "step 1 of 6 has an impossible layout"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_plan_fails_at_its_wrong_step(name: str) -> None:
    plan, words = MUTATIONS[name]
    with pytest.raises(VerificationError) as caught:
        verify_plan(plan, SIZES, MESH)
    assert words in str(caught.value)


@pytest.mark.parametrize("number", [0, 2, 3, 4, 5])
@pytest.mark.parametrize("error", [-1, 1])
def test_a_wrong_claim_of_bytes_fails(number: int, error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    guilty = good_plan().steps[number]

    def wrong(step: Collective, lengths: dict[str, int], mesh: Mesh) -> int:
        return int(received_total(step, lengths, mesh)) + (error if step == guilty else 0)

    monkeypatch.setattr(verify_module, "received_total", wrong)
    with pytest.raises(VerificationError, match=rf"step {number + 1} of 6 claims \d+ bytes over all devices, but"):
        verify_plan(good_plan(), SIZES, MESH)


def test_a_wrong_value_is_named_with_its_device_and_place() -> None:
    # Two operands of equal shape, the wrong one read under the right labels: only the numbers can tell.
    square = {"i": 4, "j": 4, "k": 4}
    inputs = (A, B)
    given = (replicated(2), replicated(2))
    wrong = LocalEinsum((B, A), given, C, replicated(2))
    wrong = replace(wrong, inputs=(replace(B, indices=("i", "k")), replace(A, indices=("k", "j"))))
    with pytest.raises(VerificationError) as caught:
        verify_plan(Plan(inputs, given, (wrong,), C, replicated(2)), square, MESH)
    assert "step 1 of 1 is wrong: on device (x=0, y=0) element (i=0, j=0) of `C` is " in str(caught.value)


def test_two_operands_that_owe_sums_over_one_axis_fail() -> None:
    given = (make_layout([(), ()], ["x"]), make_layout([(), ()], ["x"]))
    steps = (
        LocalEinsum((A, B), given, C, given[0]),
        Collective(ALL_REDUCE, C, ("x",), given[0], replicated(2)),
    )
    with pytest.raises(VerificationError, match="step 1 of 2 uses one mesh axis for two things at once"):
        verify_plan(Plan((A, B), given, steps, C, replicated(2)), SIZES, MESH)


def test_a_maximum_still_owed_cannot_be_multiplied() -> None:
    given = (make_layout([(), ()], ["x"], "max"), replicated(2))
    step = LocalEinsum((A, B), given, C, make_layout([(), ()], ["x"]))
    with pytest.raises(VerificationError, match="reads `A`, which still owes a max"):
        verify_plan(Plan((A, B), given, (step,), C, make_layout([(), ()], ["x"])), SIZES, MESH)


def test_a_diagonal_over_a_divided_index_fails() -> None:
    square, line = Tensor("A", ("i", "i")), Tensor("d", ("i",))
    given = make_layout([("x",), ()])
    step = LocalEinsum((square,), (given,), line, make_layout([("x",)]))
    with pytest.raises(VerificationError, match="takes a diagonal over the divided index `i`"):
        verify_plan(Plan((square,), (given,), (step,), line, make_layout([("x",)])), {"i": 8}, MESH)


def test_a_maximum_still_owed_may_be_transposed() -> None:
    turned = replace(A, name="T", indices=("k", "i"))
    given, after = make_layout([("y",), ()], ["x"], "max"), make_layout([(), ("y",)], ["x"], "max")
    step = LocalEinsum((A,), (given,), turned, after)
    assert verify_plan(Plan((A,), (given,), (step,), turned, after), {"i": 5, "k": 3}, MESH).elements > 0


@pytest.mark.parametrize("reduction", ["max", "min"])
@pytest.mark.parametrize("size", [1, 5, 8])
def test_owed_maxima_and_minima_are_padded_with_their_identity(reduction: str, size: int) -> None:
    tensor = Tensor("m", ("i", "j"), "fp32")
    owed = make_layout([(), ("y",)], ["x"], reduction)
    steps = (
        Collective(REDUCE_SCATTER, tensor, ("x",), owed, make_layout([("x",), ("y",)])),
        Collective(ALL_GATHER, tensor, ("x", "y"), make_layout([("x",), ("y",)]), replicated(2)),
        Collective(MASK, tensor, ("x",), replicated(2), make_layout([(), ()], ["x"], reduction)),
        Collective(ALL_REDUCE, tensor, ("x",), make_layout([(), ()], ["x"], reduction), replicated(2)),
    )
    plan = Plan((tensor,), (owed,), steps, tensor, replicated(2))
    answer = verify_plan(plan, {"i": size, "j": 3}, MESH)
    assert answer.elements == 8 * dict(answer.sizes)["i"] * 3


def test_an_output_that_owes_its_sum_is_added_up_for_the_comparison() -> None:
    plan = good_plan()
    owing = replace(plan, steps=plan.steps[:2], output_layout=OWED)
    assert verify_plan(owing, SIZES, MESH).bytes_received[1] == 0


def test_bytes_of_half_byte_elements_are_counted() -> None:
    tensor = Tensor("w", ("i",), "int4")
    step = Collective(ALL_GATHER, tensor, ("x",), make_layout([("x",)]), replicated(1))
    answer = verify_plan(Plan((tensor,), (make_layout([("x",)]),), (step,), tensor, replicated(1)), {"i": 4}, MESH)
    assert answer.bytes_received == (8 * 3 // 2,)


def test_axes_of_one_device_and_scalars() -> None:
    tensor, total = Tensor("A", ("i",)), Tensor("s", ())
    given = make_layout([("x", "one")])
    steps = (
        LocalEinsum((tensor,), (given,), total, make_layout([], ["one", "x"])),
        Collective(ALL_REDUCE, total, ("one",), make_layout([], ["one", "x"]), make_layout([], ["x"])),
        Collective(ALL_REDUCE, total, ("x",), make_layout([], ["x"]), make_layout([])),
    )
    answer = verify_plan(Plan((tensor,), (given,), steps, total, make_layout([])), {"i": 9}, parse_mesh("x=2,one=1"))
    assert answer.bytes_received == (0, 0, 2 * 2)


# --- making it small -------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 4000),
    st.frozensets(st.sampled_from([2, 3, 4, 6, 8, 16, 64]).map(lambda n: (n, n)), max_size=4),
)
def test_the_smallest_size_keeps_divisibility(size: int, counts: frozenset[tuple[int, int]]) -> None:
    small = smallest_size(size, counts)
    assert small is not None
    assert small <= max(size, 2)
    for shards, _ in counts:
        assert (small % shards == 0) == (size % shards == 0)
        assert (small < shards) == (size < shards)


def big_plan() -> Plan:
    """A gather of half of x, and a permute of what is left with y, on any mesh where they match."""
    tensor = Tensor("A", ("i", "j"))
    before, half = make_layout([("x:(1)32", "x:(32)4"), ("y",)]), make_layout([("x:(1)32",), ("y",)])
    after = make_layout([("y",), ("x:(1)32",)])
    steps = (
        Collective(ALL_GATHER, tensor, ("x:(32)4",), before, half),
        Collective(PERMUTE, tensor, ("x:(1)32", "y"), half, after),
    )
    return Plan((tensor,), (before,), steps, tensor, after)


def test_a_large_mesh_shrinks_and_keeps_its_sub_axes_and_permutes() -> None:
    answer = verify_plan(big_plan(), {"i": 8192, "j": 4096}, parse_mesh("x=128,y=32,idle=1000"))
    # 32 and 32 stay equal, 4 stays different, the axis nobody uses is one device.
    assert str(answer.mesh) == "x=6,y=3,idle=1"
    assert dict(answer.sizes) == {"i": 6, "j": 3}
    assert answer.devices == 18


def test_uneven_sizes_stay_uneven_on_a_smaller_mesh() -> None:
    plan = big_plan()
    gather = plan.collectives[0]
    plan = replace(plan, steps=(gather,), output_layout=gather.after)
    answer = verify_plan(plan, {"i": 8200, "j": 4096}, parse_mesh("x=128,y=32"))
    lengths = dict(answer.sizes)
    assert lengths["i"] % answer.mesh.size("x") != 0  # 8200 is no multiple of 32 nor of 128
    assert lengths["j"] % answer.mesh.size("y") == 0
    assert answer.padded == ()


def test_a_million_devices_verify() -> None:
    given = (make_layout([("data",), ()]), make_layout([("data",), ("model",)]))
    gathered = make_layout([(), ("model",)])
    out = make_layout([("data",), ("model",)])
    b, w, y = Tensor("b", ("n", "d")), Tensor("w", ("d", "f")), Tensor("y", ("n", "f"))
    steps = (
        Collective(ALL_GATHER, w, ("data",), given[1], gathered),
        LocalEinsum((b, w), (given[0], gathered), y, out),
    )
    lengths = {"n": 10**9, "d": 10**6, "f": 10**6}
    answer = verify_plan(Plan((b, w), given, steps, y, out), lengths, parse_mesh("data=125000,model=8"))
    assert (answer.devices, answer.mesh.size("data"), answer.mesh.size("model")) == (6, 3, 2)


def test_a_plan_that_cannot_be_made_small_is_refused() -> None:
    axes = [f"x{number}" for number in range(26)]
    mesh = parse_mesh(",".join(f"{axis}=2" for axis in axes))
    tensor = Tensor("A", ("i",))
    step = Collective(ALL_GATHER, tensor, tuple(axes), make_layout([axes]), replicated(1))
    with pytest.raises(PlanError, match="too large to emulate") as caught:
        verify_plan(Plan((tensor,), (make_layout([axes]),), (step,), tensor, replicated(1)), {"i": 2**30}, mesh)
    assert "fewer or smaller axes" in str(caught.value)


def test_parts_of_an_axis_that_do_not_nest_are_refused() -> None:
    tensor = Tensor("A", ("i",))
    two, three = make_layout([("x:(1)2",)]), make_layout([("x:(1)3",)])
    steps = (
        Collective(ALL_GATHER, tensor, ("x:(1)2",), two, replicated(1)),
        Collective(SLICE, tensor, ("x:(1)3",), replicated(1), three),
    )
    with pytest.raises(PlanError, match="split in two ways that do not nest"):
        verify_plan(Plan((tensor,), (two,), steps, tensor, three), {"i": 6}, parse_mesh("x=6"))


# --- malformed questions ---------------------------------------------------------------------------------------------


def test_malformed_questions_are_errors_of_their_own() -> None:
    with pytest.raises(PlanError, match="the size of index `k` is missing"):
        verify_plan(good_plan(), {"i": 8, "j": 8}, MESH)
    with pytest.raises(LayoutError, match="mesh axis `y`, which the mesh x=4 does not have"):
        verify_plan(good_plan(), SIZES, parse_mesh("x=4"))
    plan = good_plan()
    with pytest.raises(PlanError, match="two operands are called `A`"):
        verify_plan(replace(plan, inputs=(A, replace(B, name="A"))), SIZES, MESH)
    with pytest.raises(PlanError, match="the layout of `A` has 1 dims, its tensor 2"):
        verify_plan(replace(plan, input_layouts=(make_layout([()]), plan.input_layouts[1])), SIZES, MESH)
    indices = tuple(f"i{number}" for number in range(60))
    wide = Tensor("A", indices)
    with pytest.raises(PlanError, match="more than 51 indices"):
        verify_plan(Plan((wide,), (replicated(60),), (), wide, replicated(60)), dict.fromkeys(indices, 1), MESH)


def test_the_result_reads_as_a_sentence_and_the_seed_is_kept() -> None:
    answer = verify_plan(good_plan(), SIZES, MESH, seed=7)
    assert isinstance(answer, Verification)
    assert answer.seed == 7
    assert str(answer) == (
        "verified on 8 emulated devices (x=4,y=2) at i=8 k=8 j=2, which divide as i=32 k=32 j=32 do: 6 steps, "
        "128 elements exact, "
        f"{answer.total_received} bytes received as claimed"
    )
    assert answer == verify_plan(good_plan(), SIZES, MESH, seed=7)


def test_importing_the_emulator_does_not_import_numpy() -> None:
    code = "import sys, einscale.emulate; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.data())
def test_layouts_drawn_for_tests_are_layouts(data: st.DataObject) -> None:
    mesh = data.draw(meshes())
    check_layout(data.draw(layouts(("a", "b"), data.draw(atoms(mesh)))), mesh)
