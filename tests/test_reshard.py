"""Cheapest paths between layouts: right ends, valid steps, and never worse than the judge or the plain path."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reshard_oracle import least_cost
from strategies import atoms, layouts, meshes

from einscale.causes import Cause, CauseRule
from einscale.collectives import Collective, check_move, received, received_total
from einscale.errors import LayoutError, UsageError
from einscale.hardware import load_system
from einscale.layout import Layout, Tensor, make_layout
from einscale.mesh import Mesh, make_mesh
from einscale.report.causes import cause_words
from einscale.reshard import reshard, solve
from einscale.reshard.moves import State, mask_of
from einscale.reshard.search import UNIT, Problem
from einscale.topology import Network, bind, step_seconds

TENSOR = Tensor("A", ("i", "j", "k"), "bf16")
SIZES = {"i": 48, "j": 48, "k": 48}
VOLUME = 48**3 * 2


def walk(
    before: Layout, after: Layout, mesh: Mesh, sizes: dict[str, int] | None = None, **options: object
) -> tuple[Collective, ...]:
    """Reshard; every step is a move, and they lead from one end to the other."""
    tensor = Tensor("A", ("i", "j", "k")[: len(before.dims)], "bf16")
    steps = reshard(tensor, before, after, sizes or SIZES, mesh, **options)  # type: ignore[arg-type]
    here = before
    for step in steps:
        assert step.before == here
        assert step.cause
        check_move(step, mesh)
        here = step.after
    if steps:
        assert here == after
    return steps


def total(steps: tuple[Collective, ...], mesh: Mesh, sizes: dict[str, int] | None = None) -> int:
    """Bytes over the mesh."""
    return sum(int(received_total(step, sizes or SIZES, mesh)) for step in steps)


def test_two_axes_change_dims_in_one_fused_all_to_all() -> None:
    # jax issue 21562: GSPMD replicates and slices, 0.875 of the tensor per device
    mesh = make_mesh("x=4,y=2")
    before, after = make_layout([("y",), (), ("x",)]), make_layout([(), ("x", "y"), ()])
    steps = walk(before, after, mesh)
    assert [str(step) for step in steps] == ["all-to-all(x,y) A: i/y j k/x -> i j/x/y k"]
    assert received(steps[0], SIZES, mesh) == 0.109375 * VOLUME


@pytest.mark.parametrize(
    ("mesh", "before", "after", "expected"),
    [
        ("x=4", [("x",)], [()], ["all-gather(x)"]),
        ("x=4", [()], [("x",)], ["slice(x)"]),
        ("x=4,y=4", [("x",)], [("y",)], ["permute(x,y)"]),
        ("x=4,y=2", [("x", "y")], [("x",)], ["all-gather(y)"]),
        ("x=2,y=2", [("x", "y")], [("y", "x")], ["permute(x,y)"]),
        ("x=4,y=4", [("x",), ("y",)], [("y",), ("x",)], ["permute(x,y)"]),
        ("x=8", [("x",), ()], [("x:(1)2",), ("x:(2)4",)], ["all-to-all(x:(2)4)"]),
        ("x=8", [("x:(1)2", "x:(2)4")], [("x",)], []),
        ("x=2,y=4", [("x", "y"), ()], [(), ()], ["all-gather(x,y)"]),
        ("x=1,y=4", [("x",), ()], [("y",), ()], ["slice(y)"]),
        ("x=1", [("x",)], [()], []),
    ],
)
def test_simple_paths(mesh: str, before: list, after: list, expected: list[str]) -> None:
    steps = walk(make_layout(before), make_layout(after), make_mesh(mesh))
    assert [f"{step.kind}({','.join(step.axes)})" for step in steps] == expected


@pytest.mark.parametrize(
    ("text", "before", "after", "expected"),
    [
        ("x=4", ([(), ()], "x"), ([("x",), ()], ""), ["reduce-scatter(x)"]),
        ("x=4,y=2", ([(), ("y",)], "x"), ([(), ("y",)], ""), ["all-reduce(x)"]),
        ("x=4", ([(), ()], "x"), ([(), ()], "x"), []),
        ("x=4,y=2", ([("y",), ()], ""), ([("y",), ()], "x"), ["mask(x)"]),
        ("x=4", ([("x",), ()], ""), ([(), ()], "x"), ["all-gather(x)", "mask(x)"]),
    ],
)
def test_owed_sums(text: str, before: tuple, after: tuple, expected: list[str]) -> None:
    mesh = make_mesh(text)
    steps = walk(make_layout(*before), make_layout(*after), mesh)
    assert [f"{step.kind}({','.join(step.axes)})" for step in steps] == expected


def test_replicas_share_the_work_of_a_reduction() -> None:
    # y is idle: each of its devices settles its part of the sum, and they gather last
    steps = walk(make_layout([(), ()], "x"), make_layout([(), ()]), make_mesh("x=4,y=8"))
    assert [step.kind for step in steps] == ["slice", "all-reduce", "all-gather"]
    alone = walk(make_layout([(), ()], "x"), make_layout([(), ()]), make_mesh("x=4,y=8"), share_replicas=False)
    assert [step.kind for step in alone] == ["all-reduce"]


def test_a_maximum_is_carried() -> None:
    before = Layout((("y",),), ("x",), "max")
    steps = walk(before, make_layout([("y", "x")]), make_mesh("x=4,y=2"))
    assert [step.kind for step in steps] == ["reduce-scatter"]
    stays = walk(before, Layout(((),), ("x",), "max"), make_mesh("x=4,y=2"))
    assert [step.before.reduction for step in stays] == ["max"]
    with pytest.raises(LayoutError, match="owes a max, and cannot owe a sum instead"):
        walk(before, Layout(((),), ("x",)), make_mesh("x=4,y=2"))


def test_whole_axes_only_where_asked() -> None:
    before, after, mesh = make_layout([("x",), ()]), make_layout([("y",), ()]), make_mesh("x=4,y=2")
    split = walk(before, after, mesh)
    whole = walk(before, after, mesh, split_axes=False)
    assert any(":" in axis for step in split for axis in step.axes)
    assert not any(":" in axis for step in whole for axis in step.axes)
    assert total(split, mesh) < total(whole, mesh)


def test_causes_say_what_moved_and_why() -> None:
    gather = walk(make_layout([("x",), ()]), make_layout([(), ()]), make_mesh("x=4"))[0]
    assert gather.cause == Cause(CauseRule.WANTED_WHOLE, "A", ("x",), ("i",))
    assert cause_words(gather.cause) == "A has `i` divided over `x` and it is wanted whole there"
    because = Cause(CauseRule.DIAGONAL, "A")
    told = walk(make_layout([("x",), ()]), make_layout([(), ()]), make_mesh("x=4"), cause=because)[0]
    assert told.cause == because


def test_bad_questions() -> None:
    with pytest.raises(LayoutError, match="a layout of 1 dims"):
        reshard(TENSOR, make_layout([()]), make_layout([()]), SIZES, make_mesh("x=4"))
    with pytest.raises(UsageError, match="unknown objective `bits`"):
        walk(make_layout([("x",)]), make_layout([()]), make_mesh("x=4"), objective="bits")
    with pytest.raises(UsageError, match="needs a network"):
        walk(make_layout([("x",)]), make_layout([()]), make_mesh("x=4"), objective="time")


@st.composite
def journeys(draw: st.DrawFn, count: int = 2, owed: bool = True) -> tuple[Mesh, list[Layout]]:
    """A mesh and layouts of one tensor."""
    mesh = draw(meshes(degrees=(2, 3, 4, 8)))
    names = draw(atoms(mesh))
    rank = draw(st.integers(1, 3))
    indices = ("i", "j", "k")[:rank]
    return mesh, [draw(layouts(indices, names, unreduced=owed)) for _ in range(count)]


@settings(deadline=None, max_examples=80)
@given(journeys())
def test_paths_are_valid_and_no_dearer_than_gathering_everything(journey: tuple[Mesh, list[Layout]]) -> None:
    mesh, (before, after) = journey
    moved = total(walk(before, after, mesh), mesh)
    rank = len(before.dims)
    whole = make_layout([()] * rank)
    plain = total(walk(before, whole, mesh), mesh)
    assert moved <= plain
    assert walk(before, before, mesh) == ()


STATES = st.permutations(range(3)).flatmap(
    lambda order: st.tuples(*[st.integers(-1, 3) for _ in order]).map(lambda places: (order, places))
)


def state(drawn: tuple[list[int], tuple[int, ...]], *, owed: bool) -> State:
    """Three digits in two dims, owed (place 2 or 3 if allowed) or free."""
    dims: list[tuple[int, ...]] = [(), ()]
    owes = []
    for digit, place in zip(drawn[0], drawn[1], strict=True):
        if 0 <= place < 2:
            dims[place] = (*dims[place], digit)
        elif place == 2 and owed:
            owes.append(digit)
    return (dims[0], dims[1]), mask_of(owes)


def distance(source: State, target: State, radices: tuple[int, ...]) -> int:
    """Units of bytes of the cheapest path."""
    devices = radices[0] * radices[1] * radices[2]
    return solve(source, target, radices, (devices, devices), devices).cost // UNIT


@settings(deadline=None, max_examples=60)
@given(STATES, STATES, st.booleans(), st.sampled_from([(2, 2, 2), (3, 3, 3)]))
def test_the_search_is_as_good_as_the_judge(
    one: tuple[list[int], tuple[int, ...]],
    other: tuple[list[int], tuple[int, ...]],
    owed: bool,
    radices: tuple[int, ...],
) -> None:
    source, target = state(one, owed=owed), state(other, owed=False)
    devices = radices[0] ** 3
    problem = Problem(source, target, tuple((radix,) for radix in radices), (devices, devices), devices)
    least = least_cost(problem)
    assert distance(source, target, radices) == least
    assert problem.bound(source) <= least


@settings(deadline=None, max_examples=80)
@given(STATES, STATES, STATES)
def test_a_detour_saves_nothing(
    one: tuple[list[int], tuple[int, ...]],
    other: tuple[list[int], tuple[int, ...]],
    third: tuple[list[int], tuple[int, ...]],
) -> None:
    a, b, c = state(one, owed=True), state(other, owed=False), state(third, owed=False)
    radices = (2, 2, 2)
    assert distance(a, c, radices) <= distance(a, b, radices) + distance(b, c, radices)
    assert distance(a, a, radices) == 0


def seconds(steps: tuple[Collective, ...], sizes: dict[str, int], network: Network) -> float:
    """Time of some steps."""
    return sum(step_seconds(step, sizes, network) for step in steps)


@settings(deadline=None, max_examples=40)
@given(journeys(), st.sampled_from(["h100", "tpu-v5e"]))
def test_by_time_is_no_slower_than_by_bytes(journey: tuple[Mesh, list[Layout]], system: str) -> None:
    mesh, (before, after) = journey
    network = bind(mesh, load_system(system))
    fast = walk(before, after, mesh, network=network, objective="time")
    lean = walk(before, after, mesh)
    assert seconds(fast, SIZES, network) <= seconds(lean, SIZES, network) * (1 + 1e-6) + 1e-12


def test_a_gather_across_nodes_is_one_fused_step_by_time() -> None:
    mesh = make_mesh("outer=4,inner=8")
    network = bind(mesh, load_system("h100"))
    before, after = make_layout([("outer", "inner")]), make_layout([()])
    steps = walk(before, after, mesh, {"i": 2**28}, network=network, objective="time")
    assert [str(step) for step in steps] == ["all-gather(outer,inner) A: i/outer/inner -> i"]
