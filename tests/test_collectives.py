"""What moves do to layouts, and the exact bytes they make devices receive."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einscale.collectives import (
    FREE,
    KINDS,
    Collective,
    changed_blocks,
    check_move,
    received,
    received_by_degrees,
    received_total,
)
from einscale.digits import changed, digits_of, overlap
from einscale.errors import LayoutError
from einscale.layout import Layout, Tensor, make_layout
from einscale.mesh import make_mesh

MATRIX = Tensor("W", ("d", "f"), "bf16")
SIZES = {"d": 48, "f": 96}
BYTES = 48 * 96 * 2


def layout(text: str) -> Layout:
    """A layout of two dims from `x/y,z {U:w}`."""
    dims, _, owed = text.partition("{U:")
    parts = [part.strip() for part in dims.split(",")]
    return make_layout([part.split("/") if part else () for part in parts], owed.rstrip("}").split(",") if owed else ())


def move(kind: str, axes: str, before: str, after: str) -> Collective:
    """A move of the matrix."""
    return Collective(kind, MATRIX, tuple(axes.split(",")), layout(before), layout(after))


@pytest.mark.parametrize(
    ("step", "mesh", "share"),
    [
        # per device, as a share of the whole matrix
        (move("all-gather", "x", "x,", ","), "x=4", 3 / 4),
        (move("all-gather", "x,y", "x/y,", ","), "x=4,y=2", 7 / 8),
        (move("reduce-scatter", "x", ", {U:x}", "x,"), "x=4", 3 / 4),
        (move("all-reduce", "x", ", {U:x}", ","), "x=4", 2 * 3 / 4),
        (move("all-to-all", "x", "x,", ",x"), "x=4", 3 / 16),
        (move("permute", "x,y", "x,", "y,"), "x=4,y=4", 3 / 16),
        (move("slice", "x", ",", "x,"), "x=4", 0),
        (move("mask", "x", ",", ", {U:x}"), "x=4", 0),
        (move("all-gather", "x:(4)2", "x,", "x:(1)4,"), "x=8", 1 / 8),
    ],
)
def test_bytes_received(step: Collective, mesh: str, share: float) -> None:
    check_move(step, make_mesh(mesh))
    devices = make_mesh(mesh).devices
    assert received_total(step, SIZES, make_mesh(mesh)) == share * BYTES * devices
    assert received(step, SIZES, make_mesh(mesh)) == share * BYTES


def test_totals_are_exact_ints_however_large() -> None:
    step = move("all-gather", "x", "x,", ",")
    huge = {"d": 3 * 10**12, "f": 10**9 + 7}
    assert received_total(step, huge, make_mesh("x=3")) == 3 * 2 * (2 * 10**12 // 2) * (10**9 + 7) * 2


def test_per_device_is_rounded_up_once() -> None:
    scalar = Collective("all-reduce", Tensor("s", (), "fp32"), ("x", "y"), make_layout([], ["x", "y"]), make_layout([]))
    assert received_total(scalar, {}, make_mesh("x=2,y=4")) == 2 * 4 * 7
    assert received(scalar, {}, make_mesh("x=2,y=4")) == 7


def test_uneven_shards_count_their_padding() -> None:
    step = move("all-gather", "x", "x,", ",")
    assert received_total(step, {"d": 10, "f": 1}, make_mesh("x=4")) == 4 * 3 * 2 * 3  # shards of 3, not 2.5


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([2, 3, 4, 6]), st.sampled_from([1, 2, 5]))
def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather(d: int, f: int, n: int, other: int) -> None:
    mesh = make_mesh({"x": n, "y": other})
    sizes = {"d": d * n * other, "f": f}
    whole = received_total(move("all-reduce", "x", "y, {U:x}", "y,"), sizes, mesh)
    parts = received_total(move("reduce-scatter", "x", "y, {U:x}", "y/x,"), sizes, mesh)
    parts += received_total(move("all-gather", "x", "y/x,", "y,"), sizes, mesh)
    assert whole == parts


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_price_like_ints(kind: str) -> None:
    np = pytest.importorskip("numpy")
    step = {
        "slice": move("slice", "x", ",", "x,"),
        "mask": move("mask", "x", ",", ", {U:x}"),
        "all-gather": move("all-gather", "x", "x,", ","),
        "reduce-scatter": move("reduce-scatter", "x", ", {U:x}", "x,"),
        "all-reduce": move("all-reduce", "x", ", {U:x}", ","),
        "all-to-all": move("all-to-all", "x", "x,", ",x"),
        "permute": move("permute", "x,y", "x/y,", "y/x,"),
    }[kind]
    degrees = np.array([1, 2, 4, 3])
    rows = np.array([48, 96, 48, 144])
    found = received_by_degrees(step, {"d": rows, "f": 96}, {"x": degrees, "y": degrees})
    for k, n in enumerate(degrees.tolist()):
        expected = received_by_degrees(step, {"d": int(rows[k]), "f": 96}, {"x": n, "y": n})
        assert isinstance(expected, int)
        assert found[k] == pytest.approx(expected, rel=1e-12)
    assert found[0] == 0


def brute_blocks(before: list[list[int]], after: list[list[int]], radices: list[int]) -> int:
    """Devices whose block numbers differ in some dim, device by device."""
    different = 0
    for values in itertools.product(*[range(radix) for radix in radices]):
        for one, other in zip(before, after, strict=True):
            numbers = []
            for dim in (one, other):
                number = 0
                for digit in dim:
                    number = number * radices[digit] + values[digit]
                numbers.append(number)
            if numbers[0] != numbers[1]:
                different += 1
                break
    return different


@pytest.mark.parametrize(
    ("mesh", "before", "after"),
    [
        ("x=2,y=4", "x/y,", "y/x,"),
        ("x=4,y=4", "x,y", "y,x"),
        ("x=2,y=3", "x/y,", "y/x,"),
        ("x=6,y=4", "x/y,", "y/x,"),
        ("x=3,y=3,z=3", "x/y,z", "z/x,y"),
        ("x=2,y=2,z=2", "x,y", "z,x"),
    ],
)
def test_changed_blocks_counts_devices(mesh: str, before: str, after: str) -> None:
    step = move("permute", "x,y", before, after)
    digits = digits_of(make_mesh(mesh))
    dims = [list(map(list, digits.dims(one.dims))) for one in (step.before, step.after)]
    assert changed_blocks(step, make_mesh(mesh)) == brute_blocks(dims[0], dims[1], list(digits.radices))


@given(st.permutations(range(4)), st.permutations(range(4)), st.lists(st.sampled_from([2, 3]), min_size=4, max_size=4))
def test_overlap_is_the_share_that_devices_keep(one: list[int], other: list[int], radices: list[int]) -> None:
    first, second = [one[:2], one[2:3]], [other[:1], other[1:3]]
    total = 0.0
    for values in itertools.product(*[range(radix) for radix in radices]):
        common = 1.0
        for a, b in zip(first, second, strict=True):
            low, high = 0.0, 1.0
            for dim in (a, b):
                number, shards = 0, 1
                for digit in dim:
                    number, shards = number * radices[digit] + values[digit], shards * radices[digit]
                low, high = max(low, number / shards), min(high, (number + 1) / shards)
            common *= max(0.0, high - low)
        total += common
    same, of = overlap(first, second, radices)
    devices = radices[0] * radices[1] * radices[2] * radices[3]
    assert same / of == pytest.approx(total / devices)


def test_a_digit_is_changed_where_its_weight_is() -> None:
    assert changed([(0, 1, 2)], [(2, 1, 0)], [3, 3, 2]) == (0, 1, 2)
    assert changed([(0, 1, 2)], [(2, 1, 0)], [2, 3, 2]) == (0, 2)


@pytest.mark.parametrize(
    ("step", "rule"),
    [
        (move("all-gather", "x", "x/y,", "y,"), "takes axes off the minor ends"),
        (move("all-gather", "x,y", "x/y,", "x,"), "takes axes off the minor ends"),
        (move("slice", "x", "y,", "x/y,"), "puts free axes on the minor ends"),
        (move("slice", "x", ", {U:x}", "x, {U:x}"), "uses mesh axis `x` twice"),
        (move("mask", "x", "x,", "x, {U:x}"), "uses mesh axis `x` twice"),
        (move("mask", "y", "x,", ", {U:y}"), "makes free axes owe a sum"),
        (move("reduce-scatter", "x", "y, {U:x}", "x/y,"), "puts owed axes on the minor ends"),
        (move("all-reduce", "x", "y, {U:x}", "x/y,"), "settles owed axes"),
        (move("all-to-all", "x,y", "x,y", "y,x"), "each dim only losing or only gaining"),
        (move("all-to-all", "x", "x/y,", "y,x"), "each dim only losing or only gaining"),
        (move("permute", "x,y", "x,", "x/y,"), "keeps the number of shards of every dim"),
        (move("permute", "x", "x/y,", "y/x,"), "its axes are those that change places"),
        (move("shuffle", "x", "x,", ","), "unknown kind"),
    ],
)
def test_what_is_no_move_is_refused(step: Collective, rule: str) -> None:
    with pytest.raises(LayoutError, match=rule):
        check_move(step, make_mesh("x=2,y=4,z=2"))


def test_free_moves_send_nothing() -> None:
    assert set(FREE) < set(KINDS)
    with pytest.raises(LayoutError, match="keeps the number of shards"):
        changed_blocks(move("permute", "x", "x,", "x/y,"), make_mesh("x=2,y=4"))


def test_parts_of_an_axis_need_a_common_refinement() -> None:
    digits = digits_of(make_mesh("x=12"), ["x:(1)2", "x:(4)3"])
    assert digits.radices == (2, 2, 3)
    assert digits.names((0, 1, 2)) == ("x",)
    assert digits.names((1, 2)) == ("x:(2)6",)
    assert digits.names((2, 0)) == ("x:(4)3", "x:(1)2")
    with pytest.raises(LayoutError, match="no common refinement"):
        digits_of(make_mesh("x=6"), ["x:(1)2", "x:(1)3"])
