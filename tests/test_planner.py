"""Planning one einsum: every plan is proven on the emulated mesh, and known cases come out as known."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import atoms, einsums, layouts, meshes, sizes

from einscale.causes import CauseRule, EinsumCause
from einscale.collectives import check_move, received_total
from einscale.emulate import verify_plan
from einscale.errors import LayoutError, PlanError, SizeError, UsageError
from einscale.hardware import load_system
from einscale.layout import Layout, Tensor, make_layout, replicated
from einscale.mesh import Mesh, make_mesh
from einscale.planner.einsum import PlannedEinsum, Wanted, alternatives, forget, plan_einsum
from einscale.report.causes import cause_words
from einscale.reshard import reshard
from einscale.roofline import local_seconds
from einscale.steps import LocalEinsum, step_flops, work_traffic
from einscale.topology import Network, bind, step_seconds

SIZES = {"b": 64, "s": 128, "d": 64, "f": 256, "h": 32, "k": 16}


def spec(text: str) -> tuple[tuple[str, ...], Layout]:
    """Indices and layout of `b/x s {U:y}`."""
    words = text.split()
    owed = [word[3:-1].split(",") for word in words if word.startswith("{")]
    dims = [word.split("/") for word in words if not word.startswith("{")]
    return tuple(dim[0] for dim in dims), make_layout([dim[1:] for dim in dims], owed[0] if owed else ())


def plan(text: str, mesh: str, sizes: dict[str, int] | None = None, **options: object) -> PlannedEinsum:
    """Plan, and prove, a question in slash notation; `?` as the only mesh axis leaves a dim open."""
    left, right = text.split("->")
    operands = [spec(part) for part in left.split(",")]
    indices, goal = spec(right)
    dims = tuple(None if dim == ("?",) else dim for dim in goal.dims)
    tensors = tuple(Tensor("ABCDE"[k], names) for k, (names, _) in enumerate(operands))
    known = {**SIZES, **(sizes or {})}
    wanted = Wanted(dims, goal.unreduced, bool(options.pop("open_sums", False)))
    planned = plan_einsum(
        tensors,
        tuple(layout for _, layout in operands),
        Tensor("out", indices),
        wanted,
        known,
        make_mesh(mesh),
        **options,
    )  # type: ignore[arg-type]
    check(planned, known, make_mesh(mesh))
    return planned


def check(planned: PlannedEinsum, known: dict[str, int], mesh: Mesh) -> None:
    """Every move is one, has a cause, and the whole computes the einsum."""
    for step in planned.plan.collectives:
        check_move(step, mesh)
        assert step.cause
        assert step.axes
    verify_plan(planned.plan, known, mesh)


def kinds(planned: PlannedEinsum) -> list[str]:
    """Kind and axes of every move."""
    return [f"{step.kind}({','.join(step.axes)})" for step in planned.plan.collectives]


@pytest.mark.parametrize(
    ("text", "mesh", "expected"),
    [
        ("b/x s d, d f/y -> b/x s f/y", "x=4,y=2", []),
        ("b/x s f/y, f/y d -> b/x s d", "x=4,y=2", ["all-reduce(y)"]),
        ("b/x s f/y, f/y d -> b/x s/y d", "x=4,y=2", ["reduce-scatter(y)"]),
        ("b/x s/y d, d f/y -> b/x s f/y", "x=4,y=2", ["all-gather(y)"]),
        ("b/x s d, d/x f -> b/x s f", "x=4", ["all-gather(x)"]),
        ("b s/x d -> b s/x d", "x=4", []),
        ("b/x s d -> b s/x d", "x=4", ["all-to-all(x)"]),
        ("b/x s -> b", "x=4", ["all-gather(x)"]),
        ("b s/x -> b/x", "x=4", ["reduce-scatter(x)"]),
        ("b/x d/y -> ", "x=2,y=2", ["all-reduce(x,y)"]),
        (" , b/x -> b/x", "x=4", []),
    ],
)
def test_textbook_cases(text: str, mesh: str, expected: list[str]) -> None:
    assert kinds(plan(text, mesh)) == expected


def test_the_four_cases_of_a_sharded_matmul_are_found() -> None:
    # a contracted index divided in one operand only: move it, or slice the other and add the parts, by size
    narrow = plan("b s d/x, d f -> b/x s f", "x=4", {"f": 16, "d": 1024})
    assert kinds(narrow) == ["slice(x)", "reduce-scatter(x)"]
    wide = plan("b s d/x, d f -> b/x s f", "x=4", {"f": 1024, "d": 16})
    assert kinds(wide) == ["all-to-all(x)"]
    kept = plan("b d/x, d/x f -> b f {U:x}", "x=4")
    assert kinds(kept) == []
    assert kept.received == 0


def test_causes_name_tensor_index_axis_and_rule() -> None:
    gather = plan("b/data s d, d/data f/model -> b/data s f/model", "data=4,model=2").plan.collectives[0]
    assert gather.cause == EinsumCause(
        CauseRule.OPERAND_GATHERED, "B", ("data",), ("d",), divides=("b",), contracted=True, whole=True
    )
    assert cause_words(gather.cause) == (
        "operand B has contracted index `d` divided over `data` but the einsum runs with `d` whole: FSDP-style gather"
    )
    scatter = plan("b/data s f/model, f/model d -> b/data s/model d", "data=4,model=2").plan.collectives[0]
    assert scatter.cause == EinsumCause(
        CauseRule.RESULT_SCATTERED, scatter.tensor.name, ("model",), ("f",), ("s",), "sum"
    )
    assert cause_words(scatter.cause) == (
        "`f` is contracted and divided over `model`: the partial sums must be added, each device keeps its part of `s`"
    )


def test_flops_are_the_least_attainable_unless_a_cap_allows_more() -> None:
    question = "b d, d f -> b f"
    divided = plan(question, "x=4,y=2")
    whole = 2 * SIZES["b"] * SIZES["d"] * SIZES["f"]
    assert divided.flops == whole // 8
    assert divided.received > 0
    redundant = plan(question, "x=4,y=2", max_flops=whole)
    assert (redundant.flops, redundant.received) == (whole, 0)
    between = plan(question, "x=4,y=2", max_flops=whole // 2)
    assert between.flops <= whole // 2
    assert 0 < between.received < divided.received


def test_a_cap_that_nothing_keeps_is_refused_with_the_least_that_can_be_had() -> None:
    with pytest.raises(PlanError, match="no placement keeps within 1 FLOPs per device") as caught:
        plan("b d, d f -> b f", "x=4", max_flops=1)
    assert caught.value.hint == f"the least attainable is {2 * 64 * 64 * 256 // 4}"


def test_open_outputs_stay_where_the_einsum_leaves_them() -> None:
    planned = plan("b/x d, d f/y -> b/? f/?", "x=4,y=2")
    assert planned.plan.output_layout == make_layout([("x",), ("y",)])
    scattered = plan("b d/x, d/x f -> b/? f/?", "x=4", {"d": 4096})
    assert kinds(scattered) == ["reduce-scatter(x)"]
    assert not scattered.plan.output_layout.unreduced
    owing = plan("b d/x, d/x f -> b/? f/?", "x=4", {"d": 4096}, open_sums=True)
    assert kinds(owing) == []
    assert owing.plan.output_layout.unreduced == ("x",)


def test_partly_open_outputs_keep_what_is_fixed() -> None:
    planned = plan("b/x d/y, d/y f -> b/y f/?", "x=4,y=2")
    assert planned.plan.output_layout.dims[0] == ("y",)


def test_an_owed_sum_is_kept_through_a_product_where_that_is_cheaper() -> None:
    planned = plan("b {U:x}, f -> b f {U:x}", "x=4", {"b": 5, "f": 7})
    assert kinds(planned) == []
    settled = plan("b {U:x}, b -> b", "x=4")
    assert "reduce-scatter(x)" in kinds(settled)
    both = plan("b d {U:x}, d f {U:x} -> b f", "x=4", {"b": 6, "d": 5, "f": 7})
    assert both.received > 0


def test_lonely_indices_are_summed_first() -> None:
    planned = plan("b/x k, b d -> d", "x=4")
    first = planned.plan.steps[0]
    assert str(first) == "einsum A: b/x k -> A_sum: b/x"


def test_diagonals_are_taken_with_their_dims_whole() -> None:
    planned = plan("b/x d d, d f -> b/x f", "x=4")
    assert kinds(planned) == []
    gathered = plan("d/x d -> d", "x=4")
    assert kinds(gathered) == ["all-gather(x)"]


def test_no_devices_no_collectives() -> None:
    assert kinds(plan("b/x s d, d/x f -> b s/x f", "x=1")) == []
    assert kinds(plan("b/x d/y, d f/y -> b/y f", "x=1,y=1")) == []
    assert kinds(plan("b/x d/y, d f -> b/x f/y", "x=1,y=2")) != []


@pytest.mark.parametrize("mesh", ["x=3,y=6", "x=24,y=2", "x=6,y=4", "x=5,y=2"])
def test_mixed_radices(mesh: str) -> None:
    known = {"b": 24 * 30, "d": 24 * 30, "f": 24 * 30}
    plan("b/x d/y, d/x f/y -> b/y f/x", mesh, known)
    plan("b/x/y d, d f/y/x -> b/y/x f", mesh, known)


def test_uneven_sizes_are_padded() -> None:
    planned = plan("b/x d, d/y f -> b/y f", "x=4,y=2", {"b": 10, "d": 7, "f": 9})
    assert planned.received > 0
    plan("b/x/y d, d f/x -> b f/y", "x=4,y=8", {"b": 10, "d": 7, "f": 9})


def test_three_and_more_operands() -> None:
    chain = plan("b/x d, d h/y, h/y f -> b/x f", "x=4,y=2")
    assert kinds(chain) == ["all-reduce(y)"]
    assert not chain.exact
    plan("b/x d, d h, h k/y, k/y f -> b/x f", "x=4,y=2")
    plan("b/x, b, b/x, b, b -> b/x", "x=4")


def test_repeated_questions_are_free_and_equal() -> None:
    forget()
    first = plan("b/x s/y d, d f/y -> b/x s f/y", "x=4,y=2")
    again = plan("b/x s/y d, d f/y -> b/x s f/y", "x=4,y=2")
    assert again is first
    renamed = plan("h/x s/y k, k f/y -> h/x s f/y", "x=4,y=2", {"h": 64, "k": 64})
    assert renamed.received == first.received
    forget()
    assert plan("b/x s/y d, d f/y -> b/x s f/y", "x=4,y=2") == first


def test_alternatives_differ_and_cost_no_less() -> None:
    tensors = (Tensor("A", ("b", "d")), Tensor("B", ("d", "f")))
    given_layouts = (make_layout([("x",), ()]), make_layout([("x",), ("y",)]))
    arguments = (
        tensors,
        given_layouts,
        Tensor("out", ("b", "f")),
        Wanted((("x",), ("y",))),
        SIZES,
        make_mesh("x=4,y=2"),
    )
    best = plan_einsum(*arguments)
    others = alternatives(*arguments, count=3)
    assert len(others) == 3
    costs = [best.received, *(other.received for other in others)]
    assert costs == sorted(costs)
    for other in others:
        check(other, SIZES, make_mesh("x=4,y=2"))


def seconds_of(planned: PlannedEinsum, known: dict[str, int], network: Network) -> float:
    """Time of a plan's moves and local work, one after the other."""
    total = sum(step_seconds(step, known, network) for step in planned.plan.collectives)
    for step in planned.plan.steps:
        if isinstance(step, LocalEinsum):
            flops = step_flops(step, known, network.mesh.degrees)
            traffic = work_traffic(step, known, network.mesh.degrees)
            total += local_seconds(flops, traffic, step.inputs[0].dtype, network.system.chip).seconds
    return total


@pytest.mark.parametrize("mesh", ["data=4,model=4", "data=2,model=8", "data=16"])
@pytest.mark.parametrize(
    "text",
    [
        "b/{0} s d, d f/{1} -> b/{0} s f/{1}",
        "b/{0} s/{1} d, d/{0} f/{1} -> b/{0} s f/{1}",
        "b s d/{0}, d/{0} f -> b s f",
    ],
)
def test_time_is_what_the_steps_take_and_no_more_than_the_plan_by_bytes(text: str, mesh: str) -> None:
    names = make_mesh(mesh).names
    text = text.format(names[0], names[-1])
    if len(names) == 1:
        text = (
            text.replace(f"/{names[0]} f/{names[0]}", f"/{names[0]} f")
            .replace(f"f/{names[0]}", "f")
            .replace(f"s/{names[0]}", "s")
        )
    known = {"b": 256, "s": 512, "d": 1024, "f": 2048}
    network = bind(make_mesh(mesh), load_system("h100"))
    fast = plan(text, mesh, known, network=network, objective="time")
    lean = plan(text, mesh, known)
    assert fast.seconds is not None
    assert fast.seconds == pytest.approx(seconds_of(fast, known, network), rel=1e-9)
    assert fast.seconds <= seconds_of(lean, known, network) * (1 + 1e-9)


def test_time_needs_a_network() -> None:
    with pytest.raises(UsageError, match="needs a network"):
        plan("b d, d f -> b f", "x=4", objective="time")
    with pytest.raises(UsageError, match="did you mean `bytes`"):
        plan("b d, d f -> b f", "x=4", objective="byte")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("b/z d -> b", LayoutError, "`A` uses mesh axis `z`, which the mesh x=4 does not have"),
        ("b/x d/x -> b", LayoutError, "uses mesh axis `x` twice"),
        ("b d -> b f", PlanError, "output index `f` occurs in no operand"),
        ("b d -> b b", PlanError, "an index occurs twice in the output"),
        ("b q -> b", SizeError, "index `q` has no size"),
    ],
)
def test_errors(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plan(text, "x=4")


@st.composite
def questions(draw: st.DrawFn, *, most_operands: int = 2, owed: bool = True, even: bool = False) -> tuple[object, ...]:
    """A mesh, an einsum, layouts, a wanted output that may be open, and sizes."""
    mesh = draw(meshes(degrees=(1, 2, 3, 4, 6, 8)))
    names = draw(atoms(mesh))
    einsum = draw(einsums(most_operands=most_operands, diagonals=draw(st.integers(0, 9)) == 0))
    tensors = tuple(Tensor("ABCD"[k], indices, "fp32") for k, indices in enumerate(einsum.inputs))
    given_layouts = tuple(draw(layouts(tensor.indices, names, unreduced=owed)) for tensor in tensors)
    goal = draw(layouts(einsum.output, names, unreduced=owed and draw(st.booleans())))
    dims = tuple(None if draw(st.integers(0, 4)) == 0 else dim for dim in goal.dims)
    wanted = Wanted(dims, goal.unreduced, draw(st.integers(0, 5)) == 0)
    length = draw(sizes(einsum.indices, even=24 if even else draw(st.sampled_from([1, 4, 24]))))
    return tensors, given_layouts, Tensor("out", einsum.output, "fp32"), wanted, length, mesh


PROVEN = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@PROVEN
@given(questions())
def test_every_plan_is_proven(question: tuple[object, ...]) -> None:
    planned = plan_einsum(*question)  # type: ignore[arg-type]
    check(planned, question[4], question[5])  # type: ignore[arg-type]
    assert_ends_as_wanted(planned, question)


@settings(PROVEN, max_examples=25)
@given(questions(), st.sampled_from(["h100", "tpu-v5e"]))
def test_every_plan_by_time_is_proven(question: tuple[object, ...], system: str) -> None:
    network = bind(question[5], load_system(system))  # type: ignore[arg-type]
    planned = plan_einsum(*question, network=network, objective="time")  # type: ignore[arg-type]
    check(planned, question[4], question[5])  # type: ignore[arg-type]
    assert_ends_as_wanted(planned, question)


@settings(PROVEN, max_examples=15)
@given(questions(most_operands=3))
def test_every_plan_of_three_operands_is_proven(question: tuple[object, ...]) -> None:
    planned = plan_einsum(*question)  # type: ignore[arg-type]
    check(planned, question[4], question[5])  # type: ignore[arg-type]


def assert_ends_as_wanted(planned: PlannedEinsum, question: tuple[object, ...]) -> None:
    """The fixed parts of the wanted layout are there, and no more is owed than asked for."""
    wanted = question[3]
    assert isinstance(wanted, Wanted)
    end = planned.plan.output_layout
    for asked, got in zip(wanted.dims, end.dims, strict=True):
        assert asked is None or asked == got
    if not wanted.unreduced_open:
        assert end.unreduced == wanted.unreduced


@settings(PROVEN, max_examples=40)
@given(questions(owed=False, even=True), st.data())
def test_renaming_axes_and_swapping_operands_changes_no_cost(question: tuple[object, ...], data: st.DataObject) -> None:
    tensors, given_layouts, output, wanted, length, mesh = question
    planned = plan_einsum(*question)  # type: ignore[arg-type]
    if len(tensors) != 2 or not planned.exact:  # type: ignore[arg-type]
        return
    swapped = plan_einsum(tensors[::-1], given_layouts[::-1], output, wanted, length, mesh)  # type: ignore[arg-type, index]
    assert not swapped.exact or swapped.received == planned.received
    assert swapped.flops == planned.flops


@settings(PROVEN, max_examples=30)
@given(questions(owed=False))
def test_no_plan_is_dearer_than_gathering_every_operand(question: tuple[object, ...]) -> None:
    tensors, given_layouts, output, _, length, mesh = question
    wanted = Wanted(((),) * len(output.indices))  # type: ignore[attr-defined]
    planned = plan_einsum(tensors, given_layouts, output, wanted, length, mesh, max_flops=10**9)  # type: ignore[arg-type]
    gathered = 0
    for tensor, layout in zip(tensors, given_layouts, strict=True):  # type: ignore[call-overload]
        steps = reshard(tensor, layout, replicated(len(tensor.indices)), length, mesh)  # type: ignore[arg-type]
        gathered += sum(received_total(step, length, mesh) for step in steps)  # type: ignore[arg-type]
    assert planned.received <= -(-gathered // mesh.devices)  # type: ignore[attr-defined]
