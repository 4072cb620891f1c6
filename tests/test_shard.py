"""Who holds which part: against an oracle on arrays of device numbers, as a picture, as rows, as a user meets it."""

from __future__ import annotations

import json
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pytest
from command import read_csv, refused, run_command
from hypothesis import given
from hypothesis import strategies as st

import einscale
from einscale.errors import EinscaleError
from einscale.layout import Layout, make_layout
from einscale.mesh import Mesh, MeshAxis
from einscale.placement import place_parts
from einscale.report.render.grid import MOST_ROWS, WIDEST, Cell, draw_grid

AXES = ("x", "y", "z")


@st.composite
def placements(draw: st.DrawFn) -> tuple[Layout, dict[str, int], Mesh]:
    """A layout of up to three dims on a mesh of up to three axes, whole or in parts."""
    sizes = [draw(st.sampled_from([1, 2, 3, 4, 6])) for _ in range(draw(st.integers(1, 3)))]
    mesh = Mesh(tuple(MeshAxis(name, size) for name, size in zip(AXES, sizes, strict=False)))
    pieces: list[str] = []
    for name, size in zip(AXES, sizes, strict=False):
        if size in (4, 6) and draw(st.booleans()):
            pieces += [f"{name}:(1)2", f"{name}:(2){size // 2}"][: draw(st.integers(1, 2))]
        else:
            pieces.append(name)
    dims: list[list[str]] = [[] for _ in range(draw(st.integers(0, 3)))]
    owed: list[str] = []
    for piece in draw(st.permutations(pieces)):
        where = draw(st.integers(-2, len(dims) - 1))
        if where == -1:
            owed.append(piece)
        elif where >= 0:
            dims[where].append(piece)
    layout = make_layout(dims, owed)
    indices = ("a", "b", "c")[: len(dims)]
    known = {index: draw(st.integers(1, 30)) for index in indices if draw(st.booleans())}
    return layout, known, mesh


def held(layout: Layout, mesh: Mesh) -> np.ndarray:
    """Devices by part of each dim: the mesh as an array whose axes are split, gathered and joined.

    The last axis lists the devices of one part.
    """
    devices = np.arange(mesh.devices).reshape([axis.size for axis in mesh.axes])
    names: list[str] = []
    shape: list[int] = []
    for axis in mesh.axes:  # each axis in the pieces that the layout names, and what is between them
        cuts = {1, axis.size}
        for name in layout.axes:
            if name.startswith(f"{axis.name}:("):
                before, size = map(int, name.removeprefix(f"{axis.name}:(").split(")"))
                cuts |= {before, before * size}
        bounds = sorted(cuts)
        for low, high in pairwise(bounds):
            whole = (low, high) == (1, axis.size)
            names.append(axis.name if whole else f"{axis.name}:({low}){high // low}")
            shape.append(high // low)
        if axis.size == 1:
            names.append(axis.name)
            shape.append(1)
    split = devices.reshape(shape)
    wanted = [name for dim in layout.dims for name in dim]
    rest = [name for name in names if name not in wanted]
    split = split.transpose([names.index(name) for name in (*wanted, *rest)])
    counts = [prod(shape[names.index(name)] for name in dim) for dim in layout.dims]
    return split.reshape([*counts, -1])


@given(placements())
def test_parts_are_on_the_devices_that_arrays_say(case: tuple[Layout, dict[str, int], Mesh]) -> None:
    layout, sizes, mesh = case
    indices = ("a", "b", "c")[: len(layout.dims)]
    placement = place_parts(layout, indices, sizes, mesh)
    expected = held(layout, mesh)
    assert placement.counts == expected.shape[:-1]
    assert len(placement.parts) == prod(placement.counts)
    for part in placement.parts:
        place = tuple(one.shard for one in part.slices)
        assert sorted(expected[place]) == list(part.devices)
        together = prod(mesh.size(name) for name in layout.unreduced)
        assert {len(copy) for copy in part.copies} == {together}
        assert len(part.copies) == prod(mesh.size(name) for name in placement.replicated)


@given(placements())
def test_slices_cover_each_dim_once(case: tuple[Layout, dict[str, int], Mesh]) -> None:
    layout, sizes, mesh = case
    indices = ("a", "b", "c")[: len(layout.dims)]
    placement = place_parts(layout, indices, sizes, mesh)
    for number, (index, count) in enumerate(zip(indices, placement.counts, strict=True)):
        slices = {part.slices[number] for part in placement.parts}
        assert len(slices) == count
        if index not in sizes:
            assert {one.start for one in slices} == {None}
            continue
        elements = [element for one in sorted(slices, key=lambda s: s.shard) for element in range(one.start, one.stop)]
        assert elements == list(range(sizes[index]))
        each = -(-sizes[index] // count)
        assert all(one.stop - one.start + one.padding == each for one in slices)


def test_copies_have_the_same_part_of_every_sum() -> None:
    (part,) = place_parts(make_layout([()], ["y"]), ("a",), {}, Mesh((MeshAxis("x", 2), MeshAxis("y", 2)))).parts
    assert part.copies == ((0, 1), (2, 3))  # over y the parts of a sum, over x copies


def test_the_answer_in_python() -> None:
    answer = einscale.shard("w: fp8[B=10/x F=4/y]", mesh={"x": 4, "y": 2}, hardware="h100")
    assert (answer.name, answer.dtype, answer.local_bytes) == ("w", "fp8", 6)
    assert answer.placement.local_shape == (3, 2)
    rows = answer.table
    assert [row["device"] for row in rows] == list(range(8))
    assert rows[7] | {"table": "", "section": "", "role": "", "level": 0} == {
        "table": "", "section": "", "role": "", "level": 0, "device": 7, "coordinates": "x=3,y=1", "part": "9:10, 2:4",
        "elements": 2, "padding_elements": 4, "stored_bytes": 6, "copies": 1, "summed_over": 1,
    }  # fmt: skip
    assert sum(row["elements"] for row in rows) == 40
    assert repr(answer) == "<ShardResult 'B=10/x F=4/y' on x=4,y=2: 8 parts on 8 devices>"
    assert answer.to_report().summary[2] == "uneven: B=10 in 4 parts of 3; the last is not full, 17 % is padding"
    assert "<pre " in answer._repr_html_()
    assert hash(answer) == hash(einscale.shard("w: fp8[B=10/x F=4/y]", mesh={"x": 4, "y": 2}, hardware="h100"))


def test_other_notations_and_objects() -> None:
    slash = einscale.shard("B/x S F/y", mesh="x=2,y=2").placement
    for text in ("P('x', None, 'y')", "[Shard(0), Shard(2)]", '#sdy.sharding<@mesh, [{"x"}, {}, {"y"}]>'):
        assert einscale.shard(text, mesh="x=2,y=2", indices="B S F").placement == slash
    assert einscale.shard(("x", None, "y"), mesh="x=2,y=2", indices="B S F").placement == slash


TWO_DIMS = """\
B=4/x F=6/y
bf16 on mesh x=2,y=2: 4 devices

the mesh: numbers of the devices
      y 0   y 1
    ┌─────┬─────┐
x 0 │  0  │  1  │
x 1 │  2  │  3  │
    └─────┴─────┘

the tensor: B and F by the devices that hold them
        F 0:3   F 3:6
      ┌───────┬───────┐
B 0:2 │   0   │   1   │
      ├───────┼───────┤
B 2:4 │   2   │   3   │
      └───────┴───────┘

dims of the tensor
dim  size  divided over  parts  a device  padding
─────────────────────────────────────────────────
B       4  x=2               2         2        0
F       6  y=2               2         3        0

each device holds 2 x 3, one of 4 parts: 12 B
nothing is held twice

devices are numbered along the mesh, the last axis fastest; 0-3 or 0,1: each holds a copy of the part
"""


def picture(line: str, number: int = 1) -> list[str]:
    """Lines of a picture: 0 is the mesh, 1 the tensor."""
    return run_command(line).out.split("\n\n")[1 + number].splitlines()[1:]


def test_two_dims() -> None:
    assert run_command("shard 'B/x F/y' --mesh x=2,y=2 -s B=4,F=6").out == TWO_DIMS


def test_one_dim_lies_across_and_padding_is_counted() -> None:
    assert picture("shard 'v/x' --mesh x=3 -s v=7") == [
        "   v 0:3      v 3:6     v 6:7 +2",
        "┌──────────┬──────────┬──────────┐",
        "│    0     │    1     │    2     │",
        "└──────────┴──────────┴──────────┘",
    ]


def test_copies_and_parts_of_sums() -> None:
    assert picture("shard 'B/x {U:y}' --mesh x=2,y=2,z=2")[2] == "│ 0+2,1+3 │ 4+6,5+7 │"
    out = run_command("shard 'B/x {U:y}' --mesh x=2,y=2,z=2").out
    assert "replicated over z=2: 2 copies of every part" in out
    assert "unreduced over y=2: a sum is owed, 2 devices hold partial results of each part" in out
    assert picture("shard 'B/x' --mesh x=2,z=8")[2] == "│  0-7  │ 8-15  │"
    assert picture("shard 'B/x {U(max):y}' --mesh x=1,y=8") == ["     B", "┌─────────┐", "│ 0+1+…+7 │", "└─────────┘"]


def test_of_three_dims_two_are_drawn_and_that_is_said() -> None:
    out = run_command("shard 'B/x S F/y' --mesh x=2,y=2").out
    assert "the tensor: B and F by the devices that hold them; S is not divided" in out
    line = "shard 'B/x S/y F/z' --mesh x=2,y=3,z=4"
    assert "the tensor: S and F by the devices that hold them\nB 1/2\n" in run_command(line).out
    assert picture(line, 2)[2].startswith("S 1/3 │  12   │")
    turned = run_command(f"{line} --dims F,B").out
    assert "the tensor: F and B by the devices that hold them\nS 1/3\n" in turned
    assert "2 more such grids for the other parts of S" in run_command("shard 'B/x C/z S/y' --mesh x=8,y=6,z=7").out


def test_one_number_is_one_cell() -> None:
    assert picture("shard '{U:x}' --mesh x=2") == ["┌─────┐", "│ 0+1 │", "└─────┘"]


def test_the_network_is_named_where_hardware_is_given() -> None:
    lines = picture("shard 'B/x' --mesh x=4,y=16 --hardware h100", 0)
    assert lines[-2:] == ["x=4: 4 on ib", "y=16: 8 on nvlink, 2 on ib"]
    document = json.loads(run_command("shard 'B/x' --mesh x=4,y=16 --hardware h100 --json").out)
    assert document["axes"][1] == {
        "axis": "y",
        "size": 16,
        "stride": 1,
        "levels": [{"level": "nvlink", "devices": 8}, {"level": "ib", "devices": 2}],
    }


def test_rows_and_document_agree() -> None:
    line = "shard 'B/x S F/z {U:y}' --mesh x=4,y=2,z=2,w=2 -s B=10,S=3,F=6"
    rows = read_csv(run_command(f"{line} --format csv").out)
    document = json.loads(run_command(f"{line} --json").out)
    by_device = {
        device: [f"{one['start']}:{one['stop']}" for one in part["slices"]]
        for part in document["parts"]
        for copy in part["copies"]
        for device in copy
    }
    assert [int(row["device"]) for row in rows] == sorted(by_device)
    assert [row["part"].split(", ") for row in rows] == [by_device[device] for device in sorted(by_device)]
    assert {(row["copies"], row["summed_over"]) for row in rows} == {("2", "2")}


@pytest.mark.parametrize("columns", [80, 100, 160])
@pytest.mark.parametrize(
    "line", ["shard 'B/x F/y' --mesh x=32,y=64 -s B=1Ki,F=4Ki", "shard 'B/x {U:y}' --mesh x=9,y=7,z=5"]
)
def test_no_width_is_exceeded(line: str, columns: int) -> None:
    for env in ({"NO_COLOR": "1"}, {}):
        out = run_command(line, terminal=columns, env=env).out
        plain = out.replace("\x1b", "")
        assert ("\x1b" in out) == (not env)
        if env:
            assert max(map(len, plain.splitlines())) <= columns


def test_cells_are_coloured_and_equal_parts_alike() -> None:
    out = run_command("shard 'B/x' --mesh x=2,y=2 --color always").out
    assert out.count("\x1b[30;44m") == 1  # blue
    assert out.count("\x1b[30;42m") == 1  # green
    assert run_command("shard 'B/x' --mesh x=2", encoding="ascii").out.isascii()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9))
def test_grids_fit_and_count_what_they_leave_out(rows: int, columns: int, width: int) -> None:
    cells = [[Cell("7" * width, 0)] * columns for _ in range(rows)]
    lines = draw_grid([f"r{n}" for n in range(rows)], [f"c{n}" for n in range(columns)], cells)
    text = ["".join(piece for piece, _ in line) for line in lines]
    assert max(map(len, text)) <= WIDEST + 1
    drawn = sum("│" in line and "7" in line.partition("│")[2] for line in text)
    assert drawn == (rows if rows <= MOST_ROWS else MOST_ROWS - 1)
    assert (f"{rows - drawn} of {rows} rows" in text[-1]) == (drawn < rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("'B/q' --mesh x=2", "unknown mesh axis `q`\n  B/q\n    ^\n"),
        ("'B/x D, D' --mesh x=2", "expected"),
        ("'B/x -> B' --mesh x=2", "an einsum has several tensors, and one can be drawn\n  B/x -> B\n      ^^\n"),
        ("'B/x' --mesh x=8 -s B=4", "index `B` has 4 elements and is divided over 8 devices (x=8)\n  B/x\n  ^^^\n"),
        ("'B/x B' --mesh x=8", "`B` occurs twice in one tensor"),
        ("'B B' --mesh x=8", "an index occurs twice"),
        (
            "'B/x D' --mesh x=8 -s d=4",
            "a size is given for index `d`, which the tensor does not have\n  did you mean `D`?",
        ),
        ("'B=8/x D' --mesh x=8 -s B=4", "index `B` has size 8 in the text and 4 beside it"),
        ("'B/x D' --mesh x=8 --dims Q", "the tensor has no dim `Q`\n  its dims are: B, D"),
        ("'B/x D E' --mesh x=8 --dims B,D,E", "a picture shows two dims, not B, D, E"),
        ("'B/? D' --mesh x=8", "the layout is left open"),
        ("'B/x' --mesh x=100000", "too many to list one by one"),
        ("'B/x'", "`einscale shard` needs a mesh"),
        ("'B/x' --mesh x=4 --hardware h10", "unknown hardware `h10`"),
        ("'B/x' --mesh x=4 --dtype bf61", "bf61"),
    ],
)
def test_what_cannot_be_drawn(line: str, message: str) -> None:
    assert message in refused(run_command(f"shard {line}"))


def test_python_refuses_as_the_command_does() -> None:
    with pytest.raises(EinscaleError, match="the mesh is not given"):
        einscale.shard("B/x")
    with pytest.raises(EinscaleError, match="has no dim `Q`"):
        einscale.shard("B/x", mesh="x=2", dims=["Q"])


def test_a_file_and_stdin(tmp_path: Path) -> None:
    (tmp_path / "layout.txt").write_text("B/x F\n")
    out = run_command(f"shard @{tmp_path / 'layout.txt'} --mesh x=2").out
    assert run_command("shard - --mesh x=2", stdin="B/x F\n").out == out == run_command("shard 'B/x F' --mesh x=2").out
