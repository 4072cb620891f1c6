from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import atoms, einsums, layouts, meshes, sizes

from einscale.bounds import (
    layout_free_bound,
    lower_bounds,
    matmul_accesses,
    placement_bound,
    plan_layout_free_bound,
    transition_bytes,
)
from einscale.collectives import Collective, check_move, received_total
from einscale.einsum import Einsum
from einscale.errors import PlanError
from einscale.layout import Layout, Tensor, local_bytes, make_layout
from einscale.mesh import Mesh, make_mesh, split_name
from einscale.steps import LocalEinsum, Plan, plan_received

MATMUL = Einsum((("m", "k"), ("k", "n")), ("m", "n"))
BYTES = ("int8", "int8", "int8")


def moved(tensor: Tensor, before: Layout, after: Layout, size: dict[str, int], mesh: Mesh) -> float:
    numerator, denominator = transition_bytes(tensor, before, after, size, mesh)
    return numerator / denominator


# ---------------------------------------------------------------- placement


@pytest.mark.parametrize(
    ("kind", "before", "owed", "after", "owes", "axes"),
    [
        ("all-gather", (("x",), ()), (), ((), ()), (), ("x",)),
        ("all-gather", (("x", "y"), ()), (), ((), ()), (), ("x", "y")),
        ("all-gather", (("x",), ("y",)), (), ((), ("y",)), (), ("x",)),
        ("reduce-scatter", ((), ()), ("x", "y"), (("x", "y"), ()), (), ("x", "y")),
        ("reduce-scatter", (("y",), ()), ("x",), (("y",), ("x",)), (), ("x",)),
        ("all-reduce", (("y",), ()), ("x",), (("y",), ()), (), ("x",)),
        ("all-reduce", ((), ()), ("x", "y"), ((), ()), (), ("x", "y")),
        ("all-to-all", (("x",), ()), (), ((), ("x",)), (), ("x",)),
        ("all-to-all", (("y", "x"), ()), (), (("y",), ("x",)), (), ("x",)),
        ("permute", (("x", "y"), ()), (), (("y", "x"), ()), (), ("x", "y")),
        ("slice", ((), ()), (), (("x",), ()), (), ("x",)),
        ("mask", ((), ()), (), ((), ()), ("x",), ("x",)),
    ],
)
def test_a_single_collective_meets_its_bound(
    kind: str,
    before: tuple[tuple[str, ...], ...],
    owed: tuple[str, ...],
    after: tuple[tuple[str, ...], ...],
    owes: tuple[str, ...],
    axes: tuple[str, ...],
) -> None:
    mesh, size = make_mesh("x=4,y=2"), {"a": 16, "b": 8}
    tensor = Tensor("t", ("a", "b"))
    step = Collective(kind, tensor, axes, make_layout(before, owed), make_layout(after, owes))
    check_move(step, mesh)
    assert moved(tensor, step.before, step.after, size, mesh) == received_total(step, size, mesh)


def test_reducing_one_of_two_owed_sums() -> None:
    mesh, tensor = make_mesh("x=4,y=2"), Tensor("t", ("a",), "int8")
    assert moved(tensor, make_layout([()], ["x", "y"]), make_layout([()], ["y"]), {"a": 64}, mesh) == 64 * (
        8 - 2 + 4 - 1
    )


def test_a_sum_that_no_holder_wants() -> None:
    """a/x owing y, wanted as a/y/x: a quarter is wanted where a part of it lies; the rest takes one message more."""
    mesh, size, tensor = make_mesh("x=4,y=2"), {"a": 64}, Tensor("t", ("a",), "int8")
    start, middle, end = make_layout([("x",)], ["y"]), make_layout([("x", "y")]), make_layout([("y", "x")])
    scatter = Collective("reduce-scatter", tensor, ("y",), start, middle)
    permute = Collective("permute", tensor, ("x", "y"), middle, end)
    total = received_total(scatter, size, mesh) + received_total(permute, size, mesh)
    assert moved(tensor, start, end, size, mesh) == total == 64 + 48


def test_a_shard_is_already_a_part_of_a_sum() -> None:
    mesh, tensor = make_mesh("x=4"), Tensor("t", ("a",), "int8")
    assert moved(tensor, make_layout([("x",)]), make_layout([()], ["x"]), {"a": 64}, mesh) == 0


def test_an_operand_wanted_twice_must_arrive_where_it_needs_more() -> None:
    mesh, stored, whole = make_mesh("x=4"), make_layout([("x",)]), make_layout([()])
    left, right, out = Tensor("v", ("a",), "int8"), Tensor("v", ("b",), "int8"), Tensor("o", ("a", "b"), "int8")
    gather = Collective("all-gather", right, ("x",), stored, whole)
    end = make_layout([("x",), ()])
    work = LocalEinsum((left, right), (stored, whole), out, end)
    plan = Plan((left, right), (stored, stored), (gather, work), out, end)
    assert placement_bound(plan, {"a": 64, "b": 64}, mesh) == plan_received(plan, {"a": 64, "b": 64}, mesh) == 48


def test_full_rematerialization_case() -> None:
    """P('y', None, 'x') to P(None, ('x', 'y'), None) with x=4, y=2: 7/64 of the array a device (jax issue 21562)."""
    tensor, mesh = Tensor("t", ("a", "b", "c"), "int8"), make_mesh("x=4,y=2")
    before, after = make_layout([("y",), (), ("x",)]), make_layout([(), ("x", "y"), ()])
    size = {"a": 8, "b": 8, "c": 8}
    assert moved(tensor, before, after, size, mesh) == 8 * 512 * 7 / 64
    step = Collective("all-to-all", tensor, ("x", "y"), before, after)
    check_move(step, mesh)
    plan = Plan((tensor,), (before,), (step,), tensor, after)
    assert placement_bound(plan, size, mesh) == plan_received(plan, size, mesh) == 56


def test_idle_axes_can_help_an_all_reduce() -> None:
    """Replicas on y may each reduce half: slice over y, reduce-scatter over x, gather over both meets the bound."""
    mesh, size, tensor = make_mesh("x=4,y=2"), {"a": 64}, Tensor("t", ("a",), "int8")
    layouts_on_the_way = [
        ("slice", ("y",), make_layout([("y",)], ["x"])),
        ("reduce-scatter", ("x",), make_layout([("y", "x")])),
        ("all-gather", ("x", "y"), make_layout([()])),
    ]
    before, total = make_layout([()], ["x"]), 0
    for kind, axes, after in layouts_on_the_way:
        step = Collective(kind, tensor, axes, before, after)
        check_move(step, mesh)
        total += received_total(step, size, mesh)
        before = after
    assert total == moved(tensor, make_layout([()], ["x"]), before, size, mesh) == 64 * (4 - 1 + 8 - 1)
    direct = Collective("all-reduce", tensor, ("x",), make_layout([()], ["x"]), before)
    assert received_total(direct, size, mesh) == 64 * 12


def boxes(layout: Layout, shape: Sequence[int], mesh: Mesh) -> np.ndarray:
    """For every device of the mesh, a mask of the elements it holds."""
    masks = np.zeros((mesh.devices, *shape), dtype=bool)
    for device, coordinates in enumerate(np.ndindex(*(axis.size for axis in mesh.axes))):
        place = dict(zip(mesh.names, coordinates, strict=True))
        window = []
        for length, names in zip(shape, layout.dims, strict=True):
            block, count = 0, 1
            for name in names:
                axis, before, part = split_name(name)
                whole = mesh.size(axis)
                part = whole if part is None else part
                block = block * part + place[axis] // (whole // (before * part)) % part
                count *= part
            window.append(slice(block * length // count, (block + 1) * length // count))
        masks[(device, *window)] = True
    return masks


@st.composite
def transitions(draw: st.DrawFn) -> tuple[Mesh, tuple[str, ...], Layout, Layout]:
    mesh = draw(meshes(degrees=(2, 3, 4, 6)))
    names = draw(atoms(mesh))
    indices = ("a", "b")[: draw(st.integers(1, 2))]
    return mesh, indices, draw(layouts(indices, names, unreduced=False)), draw(layouts(indices, names, unreduced=False))


@given(transitions())
def test_what_must_arrive_by_brute_force(case: tuple[Mesh, tuple[str, ...], Layout, Layout]) -> None:
    mesh, indices, before, after = case
    shape = [mesh.devices] * len(indices)
    own, need = boxes(before, shape, mesh), boxes(after, shape, mesh)
    tensor = Tensor("t", indices, "int8")
    assert moved(tensor, before, after, dict.fromkeys(indices, mesh.devices), mesh) == (need & ~own).sum()


def walk(data: st.DataObject, tensor: Tensor, names: Sequence[str], mesh: Mesh, start: Layout) -> list[Collective]:
    """A random chain of legal moves over whole names."""
    steps: list[Collective] = []
    layout = start
    for _ in range(data.draw(st.integers(1, 5))):
        kind = data.draw(st.sampled_from(["slice", "mask", "gather", "scatter", "reduce", "exchange", "swap"]))
        name = data.draw(st.sampled_from(list(names)))
        dim = data.draw(st.integers(0, len(tensor.indices) - 1))
        step = _propose(kind, name, dim, tensor, layout, mesh)
        if step is not None:
            check_move(step, mesh)
            steps.append(step)
            layout = step.after
    return steps


def _propose(kind: str, name: str, dim: int, tensor: Tensor, layout: Layout, mesh: Mesh) -> Collective | None:
    dims, owed = [list(axes) for axes in layout.dims], set(layout.unreduced)
    free = name not in layout.axes
    moves = {
        "slice": "slice",
        "mask": "mask",
        "gather": "all-gather",
        "scatter": "reduce-scatter",
        "reduce": "all-reduce",
    }
    axes = [name]
    if (kind == "slice" and free) or (kind == "scatter" and name in owed):
        dims[dim].append(name)
        owed.discard(name)
    elif kind == "mask" and free:
        owed.add(name)
    elif kind == "reduce" and name in owed:
        owed.discard(name)
    elif kind in ("gather", "exchange") and dims[dim] and len(dims) > (kind == "exchange"):
        axes = [dims[dim].pop()]
        if kind == "exchange":
            dims[1 - dim].append(axes[0])
    elif kind == "swap" and free and dims[dim] and mesh.size(dims[dim][-1]) == mesh.size(name):
        axes = [name, dims[dim][-1]]
        dims[dim][-1] = name
    else:
        return None
    after = make_layout(dims, owed)
    move = moves.get(kind) or {"exchange": "all-to-all", "swap": "permute"}[kind]
    return Collective(move, tensor, tuple(axes), layout, after)


@given(st.data())
def test_no_chain_of_moves_beats_the_bound(data: st.DataObject) -> None:
    mesh = data.draw(meshes())
    names = data.draw(atoms(mesh))
    tensor = Tensor("t", ("a", "b"), data.draw(st.sampled_from(["int4", "int8", "bf16"])))
    even = data.draw(st.sampled_from([mesh.devices, 1]))
    size = data.draw(sizes(tensor.indices, even=even))
    start = data.draw(layouts(tensor.indices, names))
    steps = walk(data, tensor, names, mesh, start)
    end = steps[-1].after if steps else start
    total = sum(received_total(step, size, mesh) for step in steps)
    assert moved(tensor, start, end, size, mesh) <= total
    plan = Plan((tensor,), (start,), tuple(steps), tensor, end)
    assert placement_bound(plan, size, mesh) <= plan_received(plan, size, mesh)


@st.composite
def naive_plans(draw: st.DrawFn) -> tuple[Plan, dict[str, int], Mesh]:
    """A plan that gathers all operands, takes slices for a random placement, multiplies, and reduces everything."""
    mesh = draw(meshes(devices=16))
    einsum = draw(einsums(most_operands=2))
    names = list(mesh.names)
    places = {name: draw(st.sampled_from([None, *einsum.indices])) for name in names}
    work = {index: tuple(name for name in names if places[name] == index) for index in einsum.indices}
    tensors = [Tensor(f"t{k}", indices) for k, indices in enumerate(einsum.inputs)]
    given_layouts, wanted, steps = [], [], []
    for tensor in tensors:
        layout = draw(layouts(tensor.indices, names, unreduced=False))
        whole, need = make_layout([()] * len(tensor.indices)), make_layout([work[index] for index in tensor.indices])
        given_layouts.append(layout)
        wanted.append(need)
        if layout.axes:
            steps.append(Collective("all-gather", tensor, layout.axes, layout, whole))
        if need.axes:
            steps.append(Collective("slice", tensor, need.axes, whole, need))
    output = Tensor("out", einsum.output)
    owed = [name for index in einsum.contracted for name in work[index]]
    result = make_layout([work[index] for index in einsum.output], owed)
    steps.append(LocalEinsum(tuple(tensors), tuple(wanted), output, result))
    end = result
    if owed and draw(st.booleans()):
        end = result.reduced()
        steps.append(Collective("all-reduce", output, tuple(owed), result, end))
    size = draw(sizes(einsum.indices, even=mesh.devices, most=3))
    return Plan(tuple(tensors), tuple(given_layouts), tuple(steps), output, end), size, mesh


@given(naive_plans())
def test_no_plan_beats_either_bound(case: tuple[Plan, dict[str, int], Mesh]) -> None:
    plan, size, mesh = case
    received = plan_received(plan, size, mesh)
    assert placement_bound(plan, size, mesh) <= received
    assert plan_layout_free_bound(plan, size, mesh) <= received * (1 + 1e-9)
    for bound in lower_bounds(plan, size, mesh):
        assert bound.bytes <= received
        assert bound.ratio >= 1


def gathered_weight(mesh: Mesh) -> Plan:
    x, w, y = Tensor("x", ("b", "d")), Tensor("w", ("d", "f")), Tensor("y", ("b", "f"))
    batch, stored, whole = make_layout([("x",), ()]), make_layout([("x",), ()]), make_layout([(), ()])
    gather = Collective("all-gather", w, ("x",), stored, whole)
    return Plan((x, w), (batch, stored), (gather, LocalEinsum((x, w), (batch, whole), y, batch)), y, batch)


def test_bounds_of_a_gathered_weight() -> None:
    """FSDP: the gather is what its placement needs; with a large batch no other layout does with less either."""
    mesh, size = make_mesh("x=8"), {"b": 2**20, "d": 512, "f": 512}
    bounds = lower_bounds(gathered_weight(mesh), size, mesh)
    assert {bound.name: bound.bytes for bound in bounds} == {
        "placement": 2 * 512 * 64 * 7,
        "layout-free": 2 * 512 * 64 * 7,
    }
    assert [bound.ratio for bound in bounds] == [1.0, 1.0]
    small = lower_bounds(gathered_weight(mesh), {"b": 8, "d": 512, "f": 512}, mesh)
    assert [bound.name for bound in small] == ["placement", "layout-free"]
    assert small[1].bytes < small[0].bytes


def test_an_intermediate_counts_from_where_it_was_made() -> None:
    mesh, size = make_mesh("x=4"), {"a": 8, "b": 8, "c": 8}
    left, right, product = Tensor("l", ("a", "b")), Tensor("r", ("b", "c")), Tensor("p", ("a", "c"))
    split, stacked, whole = make_layout([(), ("x",)]), make_layout([("x",), ()]), make_layout([(), ()])
    owed = make_layout([(), ()], ["x"])
    work = LocalEinsum((left, right), (split, stacked), product, owed)
    reduce = Collective("all-reduce", product, ("x",), owed, whole)
    plan = Plan((left, right), (split, stacked), (work, reduce), product, whole)
    assert placement_bound(plan, size, mesh) == plan_received(plan, size, mesh) == 2 * 3 * 128 // 4
    owing = Plan((left, right), (split, stacked), (work,), product, owed)
    assert lower_bounds(owing, size, mesh)[0].bytes == 0
    assert lower_bounds(owing, size, mesh)[0].ratio == 1.0


def test_blocks_too_uneven_to_count_still_give_a_bound() -> None:
    mesh = make_mesh("x=257,y=263")
    before, after = make_layout([("x",)]), make_layout([("y",)])
    bytes_moved = moved(Tensor("t", ("a",), "int8"), before, after, {"a": 257 * 263}, mesh)
    exact = sum(  # blocks of 263 against blocks of 257 elements
        257 - max(0, min((i + 1) * 263, (j + 1) * 257) - max(i * 263, j * 257)) for i in range(257) for j in range(263)
    )
    assert 0 <= bytes_moved <= exact


# ---------------------------------------------------------------- layout-free


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 5000))
def test_closed_form_is_the_numeric_optimum(m: int, n: int, k: int, devices: int) -> None:
    size = {"m": m, "n": n, "k": k}
    least = (m * n + m * k + n * k) / devices
    if devices > m * n * k:
        return
    touched = layout_free_bound(MATMUL, size, BYTES, devices) + least
    assert touched == pytest.approx(matmul_accesses(m, n, k, devices), rel=1e-9)


@pytest.mark.parametrize(
    ("devices", "accesses"),
    [  # m, n, k = 4096, 1024, 256: one dim up to 4 devices, two up to 64, three beyond
        (2, (4096 * 1024 + 4096 * 256) / 2 + 1024 * 256),
        (16, 2 * math.sqrt(4096 * 1024 * 256**2 / 16) + 4096 * 1024 / 16),
        (512, 3 * (4096 * 1024 * 256 / 512) ** (2 / 3)),
    ],
)
def test_three_regimes(devices: int, accesses: float) -> None:
    for m, n, k in itertools.permutations((4096, 1024, 256)):
        assert matmul_accesses(m, n, k, devices) == pytest.approx(accesses)


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


@pytest.mark.parametrize("devices", [2, 8, 12, 64])
@pytest.mark.parametrize("shape", [(64, 64, 64), (512, 64, 16), (1024, 8, 8), (24, 48, 96)])
@pytest.mark.parametrize("dtypes", [("bf16", "bf16", "bf16"), ("fp32", "int8", "bf16")])
def test_no_grid_of_devices_beats_it(devices: int, shape: tuple[int, int, int], dtypes: tuple[str, ...]) -> None:
    m, n, k = shape
    widths = [{"bf16": 2, "fp32": 4, "int8": 1}[dtype] for dtype in dtypes]
    bound = layout_free_bound(MATMUL, {"m": m, "n": n, "k": k}, dtypes, devices)
    best = min(
        widths[0] * m * k / (a * c) + widths[1] * k * n / (c * b) + widths[2] * m * n / (a * b)
        for a in divisors(devices)
        for b in divisors(devices // a)
        for c in [devices // a // b]
    )
    owned = (widths[0] * m * k + widths[1] * k * n + widths[2] * m * n) / devices
    assert 0 <= bound <= best - owned + 1e-6
    if shape == (64, 64, 64) and devices in (8, 64) and len(set(dtypes)) == 1:
        assert bound == pytest.approx(best - owned)  # a cube is attained


@given(
    st.integers(1, 6).map(lambda e: 2**e),
    st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3),
    st.permutations(["fp32", "bf16", "int8"]),
)
def test_no_feasible_choice_is_smaller(devices: int, where: list[float], dtypes: list[str]) -> None:
    size = {"m": 300, "n": 80, "k": 500}
    widths = [{"fp32": 4, "bf16": 2, "int8": 1}[dtype] for dtype in dtypes]
    volumes = [300 * 500, 500 * 80, 300 * 80]
    touched = [volume / devices * devices**place for volume, place in zip(volumes, where, strict=True)]
    if math.prod(touched) < (300 * 80 * 500 / devices) ** 2:
        return
    total = sum(width * x for width, x in zip(widths, touched, strict=True))
    assert layout_free_bound(MATMUL, size, dtypes, devices, owned=0) <= total * (1 + 1e-9)


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_a_batch_needs_no_communication(devices: int) -> None:
    batched = Einsum((("b", "m", "k"), ("b", "k", "n")), ("b", "m", "n"))
    size = {"b": 8, "m": 64, "k": 64, "n": 64}
    assert layout_free_bound(batched, size, BYTES, devices) == 0
    assert layout_free_bound(batched, size, BYTES, 64) > 0


@pytest.mark.parametrize(
    ("einsum", "expected"),
    [
        (Einsum((("a", "b"), ("a", "b")), ("a", "b")), 0),  # elementwise
        (Einsum((("a",), ("b",)), ("a", "b")), 2 * 64 / math.sqrt(16) - 2 * 64 / 16),  # outer: two edges of a square
        (Einsum((("a", "b"), ("b",)), ("a",)), 2 * 64 / math.sqrt(16) - 2 * 64 / 16),  # matrix-vector: the same
        (Einsum((("a", "b", "z"), ("b",)), ("a",)), 2 * 64 / math.sqrt(16) - 2 * 64 / 16),  # z is summed first
        (Einsum((("a", "b"),), ("b", "a")), 0),
        (Einsum((("a", "b"), ("b", "c"), ("c", "d")), ("a", "d")), 0),
    ],
)
def test_other_einsums(einsum: Einsum, expected: float) -> None:
    size = dict.fromkeys("abcdz", 64)
    dtypes = ["int8"] * (len(einsum.inputs) + 1)
    assert layout_free_bound(einsum, size, dtypes, 16) == pytest.approx(expected)


def test_what_is_owned_is_taken_off() -> None:
    size = {"m": 512, "n": 512, "k": 512}
    free = layout_free_bound(MATMUL, size, BYTES, 8, owned=0)
    assert layout_free_bound(MATMUL, size, BYTES, 8, owned=free / 2) == pytest.approx(free / 2)
    assert layout_free_bound(MATMUL, size, BYTES, 8, owned=2 * free) == 0
    mesh = make_mesh("x=8")
    plan = gathered_weight(mesh)
    held = {"b": 4096, "d": 512, "f": 512}
    replicated = Plan(
        plan.inputs, (plan.input_layouts[0], make_layout([(), ()])), plan.steps[1:], plan.output, plan.output_layout
    )
    assert plan_layout_free_bound(plan, held, mesh) > 0
    assert plan_layout_free_bound(replicated, held, mesh) == 0
    assert local_bytes(plan.inputs[1], plan.input_layouts[1], held, mesh.degrees) == 512 * 64 * 2


def test_one_dtype_for_each_array() -> None:
    with pytest.raises(PlanError, match="one dtype for each operand and one for the result"):
        layout_free_bound(MATMUL, {"m": 1, "n": 1, "k": 1}, ["bf16"], 2)
