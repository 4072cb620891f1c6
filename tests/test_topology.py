from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from einscale.collectives import FREE, Collective
from einscale.errors import HardwareError, MeshError, UsageError
from einscale.hardware import System, load_system
from einscale.layout import Tensor, make_layout
from einscale.mesh import Mesh, parse_mesh
from einscale.topology import (
    ALGORITHMS,
    MOVES,
    Network,
    Segment,
    bind,
    coefficients,
    collective_seconds,
    explain,
    explain_step,
    level_counts,
    seconds_on,
    segments,
    split_levels,
    step_seconds,
)
from einscale.topology.formulas import bidirectional_ring, full, line, ring, switch, torus
from einscale.topology.network import UNBOUNDED, torus_shape
from einscale.units import format_seconds

H100 = load_system("h100").ideal()
V5E = load_system("tpu-v5e").ideal()
V4 = load_system("tpu-v4").ideal()
SYSTEMS = ("h100", "mi300x", "tpu-v5e", "tpu-v5p", "gb200-nvl72")
GATHERS = ("all-gather", "reduce-scatter", "all-reduce")
GB = 1e9


def network(mesh: str, system: System = H100) -> Network:
    return bind(parse_mesh(mesh), system)


def per_byte(kind: str, axes: tuple[str, ...], bound: Network) -> float:
    return coefficients(kind, axes, bound)[1]


# ---------------------------------------------------------------- closed forms


def ring_load(n: int, *, both_ways: bool, wraps: bool) -> float:
    """Blocks over the busiest link when each of n devices sends one block to every other, counted one by one."""
    loads: dict[tuple[int, int], float] = {}

    def send(start: int, hops: int, step: int, share: float) -> None:
        for hop in range(hops):
            link = ((start + step * hop) % n, step)
            loads[link] = loads.get(link, 0) + share

    for source in range(n):
        for target in range(n):
            right = (target - source) % n if wraps else target - source
            left = (source - target) % n if wraps else source - target
            if not both_ways:
                send(source, right, 1, 1)
            elif not wraps:
                send(source, max(right, 0), 1, 1)
                send(source, max(left, 0), -1, 1)
            elif right == left:
                send(source, right, 1, 0.5)
                send(source, left, -1, 0.5)
            else:
                send(source, min(right, left), 1 if right < left else -1, 1)
    return max(loads.values(), default=0)


@pytest.mark.parametrize("n", range(1, 13))
def test_all_to_all_by_brute_force(n: int) -> None:
    assert bidirectional_ring("all-to-all", n)[1] * n == pytest.approx(ring_load(n, both_ways=True, wraps=True))
    assert line("all-to-all", n)[1] * n == pytest.approx(ring_load(n, both_ways=True, wraps=False))
    assert ring("all-to-all", n)[1] * n == pytest.approx(ring_load(n, both_ways=False, wraps=True))


@pytest.mark.parametrize("shape", [(4, 4), (2, 3), (3, 5), (4, 2, 3)])
def test_all_to_all_on_a_torus_by_brute_force(shape: tuple[int, ...]) -> None:
    devices = int(np.prod(shape))
    loads: dict[tuple[int, tuple[int, ...], int], float] = {}
    for source in np.ndindex(*shape):
        for target in np.ndindex(*shape):
            here = list(source)
            for dim, n in enumerate(shape):  # one axis after the other, the shorter way round, ties half each
                right = (target[dim] - here[dim]) % n
                ways = ((right, 1), (n - right, -1))
                least = min(hops for hops, _ in ways)
                chosen = [way for way in ways if way[0] == least]
                for hops, step in chosen:
                    for hop in range(hops):
                        at = (*here[:dim], (here[dim] + step * hop) % n, *here[dim + 1 :])
                        loads[dim, at, step] = loads.get((dim, at, step), 0) + 1 / len(chosen)
                here[dim] = target[dim]
    _, factor = torus("all-to-all", [Segment(n, dim=dim) for dim, n in enumerate(shape)])
    assert factor * devices == pytest.approx(max(loads.values()))


def test_exact_forms_in_terms_of_the_whole_array() -> None:
    n, v = 8, 8.0  # V = 8, so one device of an all-gather or all-to-all holds 1
    assert ring("all-gather", n)[1] == v * 7 / 8
    assert bidirectional_ring("reduce-scatter", n)[1] * v == v * 7 / 16
    assert bidirectional_ring("all-to-all", 8)[1] == v / 8
    assert bidirectional_ring("all-to-all", 7)[1] == pytest.approx(7 * (49 - 1) / (8 * 49))
    assert line("all-to-all", n)[1] == v * 16 / 64
    assert switch("all-to-all", n)[1] == v * 7 / 64
    assert full("all-to-all", n)[1] == v / 64
    assert torus("all-gather", [Segment(4, dim=0), Segment(4, dim=1)])[1] == 16 * (15 / 16) / 4


def test_all_to_all_against_all_gather() -> None:
    """The book's quarter is a limit: it is 1/3 at n = 4, 1/3.5 at n = 8, and 1/7.5 on a 4x4 torus."""

    def ratio(n: int) -> float:
        return float(bidirectional_ring("all-gather", n)[1] / bidirectional_ring("all-to-all", n)[1])

    square = [Segment(4, dim=0), Segment(4, dim=1)]
    assert (ratio(4), ratio(8)) == (3.0, 3.5)
    assert ratio(10_000) == pytest.approx(4, rel=1e-3)
    assert torus("all-gather", square)[1] / torus("all-to-all", square)[1] == 7.5
    assert ring("all-to-all", 1000)[1] / ring("all-gather", 1000)[1] == 0.5


def test_blocks_of_an_all_to_all_cross_one_level_each() -> None:
    """Of 32 blocks 7 stay in the node and 24 leave it."""
    for bandwidths, factor in (((1.0, 1e9), 7 / 32), ((1e9, 1.0), 24 / 32)):
        assert collective_seconds("hierarchical", "all-to-all", 1.0, (8, 4), bandwidths) == factor


def test_a_permute_goes_as_far_as_it_can() -> None:
    assert torus("permute", [Segment(8), Segment(2, dim=1)])[1] == 2  # 4 hops, half of it each way
    assert torus("permute", [Segment(2), Segment(8, wraps=0, dim=1)])[1] == 4  # the row reversed
    assert switch("permute", 8) == (1, 1)


def test_in_network_reduction_sends_the_array_once() -> None:
    assert switch("all-reduce", 8, in_network_reduction=True)[1] == 1
    assert switch("all-reduce", 1, in_network_reduction=True)[1] == 0
    assert switch("all-reduce", 8)[1] == 1.75


@given(st.sampled_from(sorted(set(ALGORITHMS) - {"torus", "hierarchical"})), st.sampled_from(MOVES))
def test_one_device_is_free(algorithm: str, kind: str) -> None:
    assert collective_seconds(algorithm, kind, 1e9, 1, 50e9, hop=1e-6, launch=1e-5) == 0


@given(
    st.sampled_from(["ring", "bidirectional ring", "line", "switch", "full"]), st.integers(2, 300), st.floats(1, 1e12)
)
def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather(algorithm: str, n: int, size: float) -> None:
    def seconds(kind: str, local: float) -> float:
        return float(collective_seconds(algorithm, kind, local, n, 1e9))

    assert seconds("all-reduce", size) == pytest.approx(
        seconds("reduce-scatter", size) + seconds("all-gather", size / n), rel=1e-12
    )


def test_algorithms_by_name() -> None:
    assert collective_seconds("torus", "all-gather", 1.0, (4, 4), 1.0) == 3.75
    assert collective_seconds("torus", "all-gather", 1.0, (Segment(4, wraps=0), Segment(4, dim=1)), 1.0) == 5.0
    assert collective_seconds("line", "all-gather", 1.0, 4, 1.0, hop=2.0) == 3 + 6
    assert collective_seconds("hierarchical", "all-gather", GB / 32, (8, 4), (450 * GB, 50 * GB)) == pytest.approx(
        GB * 7 / 8 / (450 * GB)
    )
    with pytest.raises(UsageError, match=r"no collective algorithm is called `rign`\n  did you mean `ring`\?"):
        collective_seconds("rign", "all-gather", 1.0, 4, 1.0)
    with pytest.raises(UsageError, match=r"no time formula for the move `allgather`\n  did you mean `all-gather`\?"):
        collective_seconds("ring", "allgather", 1.0, 4, 1.0)


# ---------------------------------------------------------------- worked figures


def test_fused_gather_over_two_levels() -> None:
    """1 GB over outer 4 at 50 GB/s and inner 8 at 450 GB/s per GPU: 1.9 ms fused, 3.8 outer first, 15.5 minor first."""
    bound = network("outer=4,inner=8")
    fused = per_byte("all-gather", ("outer", "inner"), bound) * GB / 32
    inner, outer = (per_byte("all-gather", (axis,), bound) for axis in ("inner", "outer"))
    assert round(fused * 1e3, 1) == 1.9
    assert round((outer * GB / 32 + inner * GB / 8) * 1e3, 1) == 3.8
    assert round((inner * GB / 32 + outer * GB / 4) * 1e3, 1) == 15.5


def test_gather_on_a_row_of_four_tpus() -> None:
    """Sharding, pop quiz 2: bf16[2048_Y, 8192] on v5e, X=8, Y=4: 559 us over 3 hops; 3 us where latency decides."""
    bound = network("X=8,Y=4", V5E)
    alpha, beta = coefficients("all-gather", ("Y",), bound)
    assert beta * 2048 * 8192 * 2 / 4 * 1e6 == pytest.approx(559.24, abs=0.01)
    assert alpha == pytest.approx(3e-6)
    ideal_ring = collective_seconds("bidirectional ring", "all-gather", 2048 * 8192 * 2 / 4, 4, 45 * GB)
    assert ideal_ring * 1e6 == pytest.approx(372.83 * 3 / 4, abs=0.01)  # the book's 377 is V / (2W): n without limit


def test_small_gather_as_measured() -> None:
    """The same, bf16[256_Y, 256]: the book measured 8 us; launch is set from it, so this holds the sum together."""
    alpha, beta = coefficients("all-gather", ("Y",), network("X=8,Y=4", load_system("tpu-v5e")))
    assert alpha == pytest.approx(8e-6)
    assert beta * 256 * 256 * 2 / 4 < 3e-6


def test_gathers_on_a_cube() -> None:
    """Sharding, Q2 and Q3 on v4 4x4x4, bf16[1024_X, 4096_Y]: 23 us and 46 us at V/W, exact by (n-1)/n; 2 hops."""
    bound = network("X=4,Y=4,Z=4", V4)
    array = 1024 * 4096 * 2
    assert per_byte("all-gather", ("X",), bound) * array / 16 * 1e6 == pytest.approx(23.302 * 3 / 4, abs=0.01)
    assert per_byte("all-gather", ("X", "Y"), bound) * array / 16 * 1e6 == pytest.approx(46.603 * 15 / 16, abs=0.01)
    assert per_byte("all-reduce", ("Z",), bound) * array / 16 * 1e6 == pytest.approx(11.651 * 3 / 4, abs=0.01)
    assert coefficients("all-gather", ("X",), bound)[0] == pytest.approx(2e-6)


def test_gather_within_a_node() -> None:
    """GPUs, quiz 2 Q3 and pop quiz 1: 1.04 ms for bf16[4096, 65536], 65 us for bf16[1024, 16384] on 8 H100."""
    beta = per_byte("all-gather", ("x",), network("x=8"))
    assert round(beta * 4096 * 65536 * 2 / 8 * 1e3, 2) == 1.04
    assert round(beta * 1024 * 16384 * 2 / 8 * 1e6) == 65


def test_gather_on_a_4x4_slice_without_wraparound() -> None:
    """TPUs, Q6: 16 GB over 16 v5e chips, 15 GB into each over 2 links of 45 GB/s: 167 ms."""
    assert round(per_byte("all-gather", ("x", "y"), network("x=4,y=4", V5E)) * GB * 1e3) == 167


def test_nccl_latencies() -> None:
    """6.6 us to start, 0.6 us a step on NVLink, 2.7 us on the network; beyond a node an all-reduce is a tree."""
    bound = network("data=64,model=8")
    assert coefficients("all-gather", ("model",), bound)[0] == pytest.approx(6.6e-6 + 7 * 0.6e-6)
    assert coefficients("all-gather", ("data",), bound)[0] == pytest.approx(6.6e-6 + 63 * 2.7e-6)
    assert coefficients("all-reduce", ("data",), bound)[0] == pytest.approx(6.6e-6 + 12 * 2.7e-6)
    both = coefficients("reduce-scatter", ("data", "model"), bound)[0]
    assert both == pytest.approx(6.6e-6 + 7 * 0.6e-6 + 63 * 2.7e-6)


# ---------------------------------------------------------------- binding


@pytest.mark.parametrize(
    ("mesh", "axes", "counts"),
    [
        ("data=16,model=8", ("model",), (8, 1)),
        ("data=16,model=8", ("data",), (1, 16)),
        ("data=16,model=4", ("data",), (2, 8)),
        ("data=16,model=4", ("data", "model"), (8, 8)),
        ("data=16,model=4", ("data:(8)2",), (2, 1)),  # the minor part shares the node with model
        ("data=16,model=4", ("data:(1)8",), (1, 8)),
        ("data=16,model=4", ("data:(4)4",), (2, 2)),
        ("data=2,model=16", ("model",), (8, 2)),
        ("data=2,model=16", ("model:(2)8",), (8, 1)),
        ("data=2,model=16", ("model:(1)4",), (2, 2)),
        ("data=1,model=1", ("data", "model"), (1, 1)),
        ("x=6", ("x",), (6, 1)),  # the whole mesh is inside one node
        ("y=4,x=6", ("x",), (1, 6)),  # groups of 6 cross nodes of 8
        ("y=4,x=6", ("y",), (1, 4)),
        ("y=12,x=2", ("y",), (4, 3)),
        ("y=6,x=2", ("y",), (1, 6)),  # 4 of y share a node, and 4 does not divide 6
        ("y=6,x=2", ("y:(3)2",), (2, 1)),
        ("data=8@ib,model=8@nvlink", ("data",), (1, 8)),
        ("model=8@NVLink,data=8", ("data",), (1, 8)),  # model takes the node, though it is more major
        ("model=2@nvlink,data=8", ("data",), (4, 2)),
        ("model=8@ib,data=8", ("data",), (8, 1)),
        ("model=4@ib,data=8", ("model:(2)2",), (1, 2)),
        ("a=4@nvlink,b=2@nvlink,c=4", ("a", "b"), (8, 1)),
        ("a=3@nvlink,b=4", ("b",), (2, 2)),  # 2 groups of 3 fit in a node of 8
    ],
)
def test_levels_of_axes(mesh: str, axes: tuple[str, ...], counts: tuple[int, ...]) -> None:
    assert level_counts(axes, network(mesh)) == counts


def test_three_levels(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'base = "h100"\n[levels.ib]\ndomain = 64\n[levels.wan]\nkind = "switch"\n'
        'bandwidth = { value = 1, unit = "GB/s", direction = "one-way" }\n'
        'launch = { value = 0, unit = "us" }\nhop = { value = 1, unit = "ms" }\n'
    )
    bound = bind(parse_mesh("data=32,model=4"), load_system(path))
    assert level_counts(("data",), bound) == (2, 8, 2)
    assert level_counts(("data", "model"), bound) == (8, 8, 2)
    assert coefficients("all-gather", ("data",), bound)[1] == pytest.approx(1 / GB)


@pytest.mark.parametrize(
    ("mesh", "words"),
    [
        ("data=2,model=8@nvlnk", ["`model` names the network level `nvlnk`", "did you mean `nvlink`?", "^^^^^"]),
        ("data=2@ici", ["h100 does not have", "h100 has: nvlink, ib"]),
        ("data=16@nvlink", ["data=16 does not fit on nvlink: one nvlink network of h100 joins 8 devices"]),
        ("a=4@nvlink,b=4@nvlink", ["a=4 x b=4 does not fit on nvlink", "leave out the `@`"]),
    ],
)
def test_levels_that_do_not_exist_or_are_full(mesh: str, words: list[str]) -> None:
    with pytest.raises(HardwareError) as caught:
        network(mesh)
    for word in words:
        assert word in str(caught.value)


def test_a_mesh_larger_than_the_slowest_level(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('base = "h100"\n[levels.ib]\ndomain = 16\n')
    with pytest.raises(HardwareError, match="has 32 devices, but one ib network of node joins 16"):
        bind(parse_mesh("x=32"), load_system(path))
    with pytest.raises(HardwareError, match="x=4 does not fit on ib: one ib network of node joins 2 domains of 8"):
        bind(parse_mesh("x=4@ib"), load_system(path))


def test_unknown_axes() -> None:
    with pytest.raises(MeshError, match=r"has no axis `modle`\n  did you mean `model`\?"):
        coefficients("all-gather", ("modle",), network("model=8"))
    with pytest.raises(UsageError, match="no time formula for the move `gather`"):
        coefficients("gather", ("model",), network("model=8"))


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64))
def test_levels_multiply_to_the_group(a: int, b: int, c: int) -> None:
    bound = network(f"a={a},b={b},c={c}")
    for axes in (("a",), ("b",), ("a", "c"), ("a", "b", "c")):
        assert np.prod(level_counts(axes, bound)) == np.prod([bound.mesh.size(axis) for axis in axes])


@given(st.lists(st.tuples(st.integers(1, 512), st.integers(1, 512)), min_size=1, max_size=10))
def test_split_of_arrays_equals_scalars(cases: list[tuple[int, int]]) -> None:
    stride, size = (np.array(column) for column in zip(*cases, strict=True))
    together = split_levels(stride, size, stride * size, (8, 64, UNBOUNDED))
    for position, (s, n) in enumerate(cases):
        assert [level[position] for level in together] == list(split_levels(s, n, s * n, (8, 64, UNBOUNDED)))


# ---------------------------------------------------------------- tori


@pytest.mark.parametrize(
    ("axes", "pod", "shape"),
    [
        ((16, 16), (16, 16), (16, 16)),
        ((8, 4), (16, 16), (8, 4)),
        ((16,), (16, 16), (4, 4)),
        ((64,), (16, 20, 28), (4, 4, 4)),
        ((16, 4), (16, 20, 28), (4, 4, 4)),
        ((8, 16, 16), (16, 20, 28), (8, 16, 16)),
        ((4, 4, 4), (16, 16), (16, 4)),  # more axes than dims: the smallest neighbours share one
        ((64, 4), (16, 16), (16, 16)),  # 64 is longer than the pod: row by row over the most even shape
        ((2, 128), (16, 16), (16, 16)),
        ((7,), (16, 16), (7,)),
        ((17, 19), (16, 16), (17, 19)),  # fits in no way
        ((), (16, 16), ()),
    ],
)
def test_torus_shapes(axes: tuple[int, ...], pod: tuple[int, ...], shape: tuple[int, ...]) -> None:
    assert torus_shape(axes, pod) == shape


def parts(mesh: str, axes: tuple[str, ...], system: System = V5E) -> list[tuple[int, int, int]]:
    return [(part.size, part.stride, part.wraps) for part in segments(axes, 0, network(mesh, system))]


def test_wraparound_follows_the_pod_rule() -> None:
    assert parts("x=16,y=16", ("x",)) == [(16, 1, 1)]
    assert parts("x=16,y=8", ("y",)) == [(8, 1, 0)]
    assert parts("x=8,y=4,z=2", ("y",), V4) == [(4, 1, 1)]
    assert parts("x=8,y=4,z=2", ("z",), V4) == [(2, 1, 0)]


def test_parts_of_a_ring() -> None:
    assert parts("x=16,y=16", ("x:(1)4",)) == [(4, 4, 1)]  # every fourth device: a ring that shares its links
    assert parts("x=16,y=16", ("x:(4)4",)) == [(4, 1, 0)]  # four neighbours: a line
    assert parts("x=16,y=16", ("x:(2)4",)) == [(4, 2, 0)]
    assert parts("x=16,y=16", ("x:(1)4", "x:(4)4")) == [(16, 1, 1)]
    assert parts("x=4,y=4,z=4", ("x",)) == [(4, 4, 1)]  # x and y share a dim of 16
    assert parts("x=4,y=4,z=4", ("y",)) == [(4, 1, 0)]
    assert parts("x=4,y=4,z=4", ("x", "y")) == [(16, 1, 1)]
    assert parts("x=64,y=4", ("x",)) == [(16, 1, 1), (4, 4, 1)]
    assert parts("x=64,y=4", ("x", "y")) == [(16, 1, 1), (16, 1, 1)]
    assert parts("x=16,y=16", ("x:(1)1",)) == []


def test_an_axis_named_for_a_torus_takes_a_dim() -> None:
    assert parts("x=16@ici,y=8", ("x",)) == [(16, 1, 1)]
    assert parts("x=16@ici,y=8", ("y",)) == [(8, 1, 0)]
    assert parts("x=16@ici,y=8", ("x", "y")) == [(8, 1, 0), (16, 1, 1)]


def test_what_does_not_divide_is_one_line() -> None:
    assert parts("x=24", ("x:(2)3",)) == [(3, 1, 0)]  # 24 lies on 6x4


def test_shared_links_are_slower() -> None:
    bound = network("x=16,y=16", V5E)
    strided, whole = (per_byte("all-gather", (axis,), bound) for axis in ("x:(1)4", "x"))
    assert strided == pytest.approx(3 * 4 / (2 * 45 * GB))
    assert whole == pytest.approx(15 / (2 * 45 * GB))


def test_an_axis_over_pods_splits_between_ici_and_dcn() -> None:
    bound = network("data=64,model=16", V5E)
    assert level_counts(("data",), bound) == (16, 4)
    assert per_byte("all-gather", ("data",), bound) == pytest.approx(max(15 * 4 / 90, 3 / 3.125) / GB)


def test_rings_and_lines_as_levels(tmp_path: Path) -> None:
    path = tmp_path / "wire.toml"
    path.write_text('base = "h100"\n[levels.nvlink]\nkind = "ring"\n')
    system = load_system(path).ideal()
    assert per_byte("all-gather", ("x",), network("x=8", system)) == pytest.approx(7 / 900 / GB)
    assert per_byte("all-gather", ("x",), network("x=4", system)) == pytest.approx(
        3 / 450 / GB
    )  # half a ring is a line
    path = tmp_path / "row.toml"
    path.write_text('base = "h100"\n[levels.nvlink]\nkind = "line"\n')
    assert per_byte("all-gather", ("x",), network("x=8", load_system(path).ideal())) == pytest.approx(7 / 450 / GB)


def test_direct_links() -> None:
    """Two MI300X have one link of 64 GB/s between them, eight use seven each."""
    system = load_system("mi300x").ideal()
    assert per_byte("all-reduce", ("x",), network("x=2", system)) == pytest.approx(1 / 64 / GB)
    assert per_byte("all-reduce", ("x",), network("x=8", system)) == pytest.approx(2 / 8 / 64 / GB)


# ---------------------------------------------------------------- prices


@st.composite
def bound_groups(draw: st.DrawFn) -> tuple[Network, tuple[str, ...]]:
    """A mesh on a system, and some of its axes or parts of them."""
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6, 8, 16, 32]), min_size=1, max_size=4))
    mesh = parse_mesh(",".join(f"{name}={size}" for name, size in zip("wxyz", sizes, strict=False)))
    system = load_system(draw(st.sampled_from(SYSTEMS)))
    axes = draw(st.lists(st.sampled_from(mesh.names), min_size=1, unique=True))
    names = []
    for axis in axes:
        size = mesh.size(axis)
        before = draw(st.sampled_from([k for k in range(1, size + 1) if size % k == 0]))
        part = draw(st.sampled_from([k for k in range(1, size // before + 1) if (size // before) % k == 0]))
        names.append(draw(st.sampled_from([axis, f"{axis}:({before}){part}"])))
    return bind(mesh, system), tuple(names)


@given(bound_groups(), st.sampled_from(MOVES), st.integers(0, 10**12), st.integers(0, 10**12))
def test_time_never_falls_when_bytes_grow(
    group: tuple[Network, tuple[str, ...]], kind: str, fewer: int, more: int
) -> None:
    bound, axes = group
    alpha, beta = coefficients(kind, axes, bound)
    assert alpha >= 0
    assert alpha + beta * (fewer + more) >= alpha + beta * fewer
    alone = np.prod(level_counts(axes, bound)) == 1
    assert (beta == 0) == alone
    assert (alpha == 0) == alone


@given(bound_groups(), st.sampled_from(FREE))
def test_free_moves_cost_nothing(group: tuple[Network, tuple[str, ...]], kind: str) -> None:
    assert coefficients(kind, group[1], group[0]) == (0.0, 0.0)


@given(bound_groups())
def test_names_and_their_order_change_no_price(group: tuple[Network, tuple[str, ...]]) -> None:
    bound, axes = group
    renamed = Mesh(
        tuple(type(axis)(f"{axis.name}_", axis.size, axis.level) for axis in bound.mesh.axes),
    )
    other = bind(renamed, bound.system)
    names = tuple(re.sub(r"^(\w)", r"\1_", name) for name in reversed(axes))
    for kind in MOVES:
        assert coefficients(kind, names, other) == pytest.approx(coefficients(kind, axes, bound), rel=1e-12)


@given(bound_groups())
def test_a_fused_gather_beats_one_axis_after_the_other(group: tuple[Network, tuple[str, ...]]) -> None:
    bound, axes = group
    assume(bound.system.levels[0].kind == "switch")
    fused = per_byte("all-gather", axes, bound)
    held, one_by_one = 1.0, 0.0
    for axis in axes:
        one_by_one += per_byte("all-gather", (axis,), bound) * held
        held *= bound.mesh.size(axis)
    assert fused <= one_by_one * (1 + 1e-12)


@given(
    st.sampled_from(SYSTEMS),
    st.sampled_from(MOVES),
    st.lists(st.tuples(st.integers(1, 16), st.integers(1, 64), st.integers(0, 10**13)), min_size=1, max_size=8),
)
def test_arrays_equal_scalars(name: str, kind: str, cases: list[tuple[int, int, int]]) -> None:
    system = load_system(name)
    inner, outer, held = (np.array(column) for column in zip(*cases, strict=True))
    together = seconds_on(kind, held.astype(float), (inner, outer), system)
    alone = [seconds_on(kind, float(size), (a, b), system) for a, b, size in cases]
    assert list(together) == pytest.approx(alone, rel=1e-12)


@given(
    st.sampled_from(["h100", "gb200-nvl72", "mi300x"]), st.sampled_from(MOVES), st.integers(1, 8), st.integers(1, 32)
)
def test_elementwise_price_equals_that_of_a_bound_mesh(name: str, kind: str, model: int, data: int) -> None:
    system = load_system(name)
    bound = network(f"data={data},model={model}", system)
    for axes in (("model",), ("data",), ("data", "model")):
        alpha, beta = coefficients(kind, axes, bound)
        assert seconds_on(kind, 1e8, level_counts(axes, bound), system) == pytest.approx(alpha + beta * 1e8, rel=1e-12)


def test_elementwise_price_on_a_torus() -> None:
    sizes = np.array([4, 16])
    on_row = seconds_on("all-gather", 1e6, (sizes, 1), V5E)
    assert list(on_row) == pytest.approx([3e6 / 45e9 + 3e-6, 15e6 / 90e9 + 8e-6])
    assert seconds_on("all-gather", 1e6, ((16, 16), 1), V5E) == pytest.approx(255e6 / 180e9 + 16e-6)
    assert seconds_on("slice", sizes, (sizes, 1), V5E) == pytest.approx([0, 0])


def move(kind: str, before: tuple[str, ...], after: tuple[str, ...], axes: tuple[str, ...]) -> Collective:
    return Collective(kind, Tensor("w", ("d", "f")), axes, make_layout([before, ()]), make_layout([after, ()]))


def test_step_seconds_takes_local_bytes_before_the_move() -> None:
    bound = network("data=4,model=8")
    sizes = {"d": 4096, "f": 1000}
    gather = move("all-gather", ("data", "model"), ("data",), ("model",))
    alpha, beta = coefficients("all-gather", ("model",), bound)
    assert step_seconds(gather, sizes, bound) == alpha + beta * (4096 // 32 * 1000 * 2)
    swap = move("permute", ("data",), ("model:(2)4",), ("data", "model"))
    assert step_seconds(swap, sizes, bound) == pytest.approx(6.6e-6 + 0.6e-6 + 2.7e-6 + 4096 // 4 * 1000 * 2 / 50e9)
    assert step_seconds(move("slice", (), ("model",), ("model",)), sizes, bound) == 0
    uneven = move("all-gather", ("model",), (), ("model",))
    assert step_seconds(uneven, {"d": 17, "f": 1}, bound) == alpha + beta * 3 * 2


def test_explained_step() -> None:
    gather = move("all-gather", ("model",), (), ("model",))
    formula = explain_step(gather, {"d": 32 * 2**20, "f": 1}, network("model=8"))
    assert str(formula) == (
        "nvlink (switch) V(n-1)/(n W) = 64 MiB × 7/8 / 450 GB/s = 130 µs;"
        " latency 7 × 600 ns + 6.6 µs = 10.8 µs; together 141 µs"
    )
    assert formula.provenance == "modelled"
    assert str(explain("slice", ("model",), 1e6, network("model=8"))) == "slice: free"
    fused = explain("all-gather", ("outer", "inner"), GB / 32, network("outer=4,inner=8"))
    assert fused.slowest is not None
    assert [term.level for term in fused.terms] == ["nvlink", "ib"]
    assert fused.slowest.level == "nvlink"
    assert fused.terms[1].expression == "V(n-1)/(n m W)"
    assert fused.terms[1].filled == "954 MiB × 3/(4 × 8) / 50 GB/s"


def evaluated(filled: str) -> float:
    """The number that a filled-in formula comes to, by a calculator that knows units."""
    units = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
    text = re.sub(r"([\d.]+) GB/s", lambda found: f"({found[1]} * 1e9)", filled)
    text = re.sub(r"([\d.e+]+) ([KMGT]?i?B)\b", lambda found: f"({found[1]} * {units[found[2]]})", text)
    assert re.fullmatch(r"[\d.e+*/() -]+", text.replace("×", "*")), filled
    return float(eval(text.replace("×", "*")))


@given(bound_groups(), st.sampled_from(MOVES), st.integers(1, 10**12))
def test_formulas_come_to_what_they_claim(group: tuple[Network, tuple[str, ...]], kind: str, held: int) -> None:
    bound, axes = group
    formula = explain(kind, axes, held, bound)
    alpha, beta = coefficients(kind, axes, bound)
    assert formula.seconds == pytest.approx(alpha + beta * held, rel=1e-12)
    if formula.slowest is None:
        assert formula.devices == 1
        return
    assert formula.slowest.seconds == pytest.approx(beta * held, rel=1e-12)
    for term in formula.terms:
        assert evaluated(term.filled) == pytest.approx(term.seconds, rel=2e-2)
    assert format_seconds(formula.seconds) in str(formula)
