"""One layout or einsum in every notation, XLA's warnings decoded, and the command that prints both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import refused, run_command
from hypothesis import given
from hypothesis import strategies as st
from strategies import layouts, meshes

import einscale
from einscale import convert, plan
from einscale.errors import MeshError, NotationError, UsageError
from einscale.layout import Layout, Tensor
from einscale.mesh import make_mesh
from einscale.notation import LAYOUTS, TensorSpec, lower, parse_spec, parse_tensor
from einscale.notation.layouts import write_with_layouts
from einscale.notation.syntax import Axis, Partial, Shard, Spec
from einscale.notation.writers import write_book, write_book_tensor, write_numpy
from einscale.notation.xla_warning import element_bits, find_warnings
from einscale.reshard import reshard

MESH = "x=4,y=2"
JAX_ISSUE = (
    "W1122 23:04:58.189800   16916 spmd_partitioner.cc:656] [SPMD] Involuntary full rematerialization. The compiler "
    "cannot go from sharding {devices=[2,1,4]<=[4,2]T(1,0)} to {devices=[1,8,1]<=[8]} efficiently for HLO operation "
    "%add.2 = f32[8,16,4]{2,1,0} add(%param, %param), sharding={devices=[2,1,4]<=[4,2]T(1,0)}, "
    'metadata={op_name="jit(f)/add" stack_frame_id=2}. As the last resort, SPMD will replicate the tensor and then '
    "partition it to obtain the target sharding, which is inefficient. This issue will be fixed by Shardy partitioner "
    "in the future, which is tracked in b/433785288. Contact Shardy or XLA team for help."
)
"""What jax 0.10.2 prints for P('y', None, 'x') -> P(None, ('x', 'y'), None) of f32[16,16,16] on a mesh of 4 x 2."""

OLD = (
    "E0531 10:54:04 spmd_partitioner.cc:569] [spmd] Involuntary full rematerialization. The compiler was not able to "
    "go from sharding {devices=[2,1,4]<=[4,2]T(1,0)} to {devices=[1,8,1]<=[8]} without doing a full rematerialization "
    "of the tensor. You probably want to enrich the sharding annotations to prevent this from happening."
)
"""The same in the words of 2024, without the operation."""


def test_one_tensor_in_every_notation() -> None:
    answer = convert("bf16[B=32/x S=64 D=64 {U:y}]", mesh=MESH)
    assert answer.syntax == "slash"
    assert answer.item is not None
    assert {one.notation: one.text for one in answer.item.written} == {
        "slash": "bf16[B=32/x S=64 D=64 {U:y}]",
        "numpy": None,
        "book": "A[B_x, S, D] {U_y}",
        "jax": "P('x', None, None, unreduced={'y'})",
        "jax-type": "bf16[32@x,64,64]{U:y}",
        "dtensor": "[Shard(0), Partial()]",
        "shardy": '#sdy.sharding<@mesh, [{"x"}, {}, {}], unreduced={"y"}>',
        "hlo": "{devices=[4,1,1,2]<=[8] last_tile_dims={unreduced}}",
    }
    notes = {one.notation: one.note for one in answer.item.written}
    assert notes["numpy"] == "an einsum string has no word for a sum that is owed, `{U:y}`"
    assert notes["jax"] == notes["hlo"] == "leaves out sizes, element types"
    assert notes["jax-type"] == ""
    assert answer.item.layouts == ((("x",), (), ()),)


def test_an_einsum_in_every_notation() -> None:
    answer = convert("b/x s d=8, d=8 f/y -> b/x s f/y", mesh=MESH)
    assert answer.item is not None
    assert answer["numpy"] == "bsd,df->bsf"
    assert [one.rules for one in answer.item.written][1] == "b=x,f=y"
    assert answer["book"] == "A[b_x, s, d] * B[d, f_y] -> C[b_x, s, f_y]"
    assert answer["jax"] == "bsd,df->bsf; P('x', None, None), P(None, 'y') -> P('x', None, 'y')"
    assert answer["dtensor"] == (
        "bsd,df->bsf; [Shard(0), Replicate()], [Replicate(), Shard(1)] -> [Shard(0), Shard(2)]"
    )
    for notation in LAYOUTS:
        text = answer[notation]
        assert text is not None
        assert convert(text, mesh=MESH)["slash"] == "b/x s d, d f/y -> b/x s f/y"
        assert convert(text, mesh=MESH).syntax == notation


def test_without_a_mesh_what_needs_one_says_so() -> None:
    answer = convert("P('x', None)", indices="B D")
    assert answer.item is not None
    notes = {one.notation: one.note for one in answer.item.written if one.text is None}
    assert notes["dtensor"] == "it lists placements by mesh dim, and the mesh is not given"
    assert notes["hlo"] == "it numbers the devices of a mesh, and the mesh is not given"
    assert answer["shardy"] == '#sdy.sharding<@mesh, [{"x"}, {}]>'


def test_what_is_lost_in_reading_is_said() -> None:
    answer = convert("P('x', reduced={'y'})", mesh=MESH)
    assert answer.item is not None
    assert "its values are replicated there" in answer.item.lost[0]
    assert "lost: it is *reduced* over `y`" in str(answer)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("B/x D",), {"indices": "B D"}),
        (("P('x')",), {"syntax": "jaxx"}),
        (("P('x')",), {"indices": "B/x"}),
        ((("x", None),), {"syntax": "dtensor"}),
    ],
)
def test_arguments_that_do_not_fit(arguments: tuple[object, ...], words: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        convert(*arguments, **words)


def test_an_unknown_notation_is_refused_with_the_near_miss() -> None:
    with pytest.raises(UsageError, match="did you mean `jax`"):
        convert("B/x D")["jaxx"]


@st.composite
def specs(draw: st.DrawFn) -> tuple[Spec, tuple[tuple[str, int], ...]]:
    """`a b, b c -> a c` in layouts of whole mesh axes, an output that is settled or open, and a mesh."""
    mesh = draw(meshes(devices=64))
    names = [axis.name for axis in mesh.axes]
    tensors = []
    for indices in ("ab", "bc", "ac"):
        layout = draw(layouts(tuple(indices), names, unreduced=indices != "bc"))
        axes = tuple(Axis(name, None, tuple(map(Shard, dim))) for name, dim in zip(indices, layout.dims, strict=True))
        partial = Partial("sum", tuple(map(Shard, layout.unreduced))) if layout.unreduced else None
        tensors.append(TensorSpec(axes, partial=partial))
    if draw(st.booleans()):
        tensors[2] = TensorSpec((Axis("a"), Axis("c")), open=True)
    return Spec(tuple(tensors[:2]), tensors[2]), tuple((axis.name, axis.size) for axis in mesh.axes)


@given(specs(), st.sampled_from(LAYOUTS))
def test_an_einsum_reads_back_from_every_notation(case, notation: str) -> None:
    spec, mesh = case
    again = parse_spec(
        write_with_layouts(spec, notation, mesh), mesh_axes=[n for n, _ in mesh], mesh_sizes=[s for _, s in mesh]
    )
    assert again.canonical == spec.canonical
    assert again.syntax == notation


@given(specs())
def test_numpy_and_book_say_what_they_write(case) -> None:
    spec, mesh = case
    names = [name for name, _ in mesh]
    try:
        text, rules = write_numpy(spec)
    except NotationError:
        assert any(tensor.partial for tensor in (*spec.operands, spec.output)) or spec.output.open or differs(spec)
    else:
        assert lower(parse_spec(text, syntax="numpy", rules=rules or None)) == lower(spec)
    try:
        book = write_book(spec)
    except NotationError as error:
        assert "open layouts" in str(error)
        assert spec.output.open
    else:
        read, asked = lower(parse_spec(book, mesh_axes=names)), lower(spec)
        assert (read.input_dims, read.input_unreduced) == (asked.input_dims, asked.input_unreduced)
        assert (read.output_dims, read.output_unreduced) == (asked.output_dims, asked.output_unreduced)


def differs(spec: Spec) -> bool:
    """Whether an index is laid out in two ways."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for tensor in (*spec.operands, spec.output):
        for axis, dim in zip(tensor.indices, tensor.layout, strict=True):
            found.setdefault(axis, set()).add(dim)
    return any(len(dims) > 1 for dims in found.values())


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("a/x b, b/y c -> a c", "rules divide an index alike in every tensor"),
        ("a b, b c -> c a ?", "sorts the output's indices"),
        ("a b, b c -> a/? c", "cannot leave the layout of some axes open"),
        ("*a b, b c -> *a c", "no names for several axes"),
    ],
)
def test_what_numpy_cannot_say(spec: str, why: str) -> None:
    with pytest.raises(NotationError, match=why):
        write_numpy(parse_spec(spec))


@pytest.mark.parametrize(
    ("slash", "why"),
    [
        ("B/x:(1)2", "names whole mesh axes"),
        ("d_model/x", "a word of letters and digits"),
        ("(h k)", "no dims of several indices"),
        ("B {U(max):x}", "owes sums over named axes only"),
        ("B/?", "no open layouts"),
    ],
)
def test_what_the_book_cannot_say(slash: str, why: str) -> None:
    with pytest.raises(NotationError, match=why):
        write_book_tensor(parse_tensor(slash), "A")


def test_words_become_letters_that_differ() -> None:
    assert write_numpy(parse_spec("batch/x model, model mlp -> batch/x mlp")) == ("bm,ml->bl", "b=x")


@pytest.mark.parametrize(
    ("text", "syntax"),
    [
        ("ij,jk->ik; P('x'), P()", "jax"),
        ("ij,jk->ik; f32[8@x,4], f32[4,2]", "jax"),
        ("ij,jk->ik; S(0)R, RR", "dtensor"),
        ("ij,jk->ik; RR, S(0)R", "dtensor"),
        ('ij,jk->ik; [{"x"}, {}], [{}, {}]', "shardy"),
        ("ij,jk->ik; {replicated}, {replicated}", "hlo"),
        ("batch/x d, d f -> batch/x f", "slash"),
        ("P S, S R -> P R", "slash"),
        ("R, R", "slash"),
        ("f32[8 16]", "slash"),
        ("bf16[8]", "slash"),
        ("B {U:x}, B -> B", "slash"),
    ],
)
def test_a_dialect_is_told_only_where_it_is_unmistakable(text: str, syntax: str) -> None:
    assert convert(text, mesh=MESH).syntax == syntax


def test_a_spec_in_another_dialect_is_planned() -> None:
    sizes = {"b": 64, "s": 16, "d": 128, "f": 256}
    text = "bsd,df->bsf; P('x', None, None), P('x', 'y') -> P('x', None, 'y')"
    answer = plan(text, mesh=MESH, sizes=sizes)
    assert answer.spec == "b/x s d, d/x f/y -> b/x s f/y"
    assert [step.step.kind for step in answer.steps if hasattr(step.step, "kind")] == ["all-gather"]
    strided = "ij->ij; [_StridedShard(0, sf=2), Shard(0)] -> {devices=[8,1]<=[8]}"
    with pytest.raises(NotationError):
        plan(strided, mesh=MESH, sizes={"i": 64, "j": 64})
    strided = "ij->ij; [_StridedShard(0, sf=2), Shard(0)] -> [Shard(0), Shard(0)]"
    assert plan(strided, mesh=MESH, sizes={"i": 64, "j": 64}).spec == "i/y/x j -> i/x/y j"


def test_the_warning_of_the_jax_issue() -> None:
    answer = convert(JAX_ISSUE, mesh=MESH, indices="B S D")
    assert answer.syntax == "xla-warning"
    (warning,) = answer.warnings
    assert (warning.operation, warning.op_name, warning.element) == ("%add.2", "jit(f)/add", "f32")
    assert warning.shape == (16, 16, 16)
    assert warning.before is not None and warning.after is not None
    assert warning.before["jax"] == "P('y', None, 'x')"
    assert warning.after["jax"] == "P(None, ('x', 'y'), None)"
    assert warning.before.canonical == "fp32[B=16/y S=16 D=16/x]"
    # 16 KiB in 8 shards: one all-to-all of 7/8 of a shard, against 7/8 of the tensor
    assert [move.kind for move in warning.moves] == ["all-to-all"]
    assert warning.bytes_received == 2048 * 7 // 8
    assert warning.bytes_replicated == 16384 * 7 // 8


def test_a_warning_without_its_operation_says_how_to_give_the_shape() -> None:
    (warning,) = convert(OLD, mesh=MESH).warnings
    assert warning.moves == ()
    assert "its moves are not either; give it as `--indices 'i=16 j=16'`" in warning.note
    (sized,) = convert(OLD, mesh=MESH, indices="bf16[i=16 j=16 k=16]").warnings
    assert sized.shape == (16, 16, 16)
    assert sized.bytes_received is None
    assert "element type" in sized.note


def test_a_log_has_each_warning_once_with_its_count() -> None:
    other = JAX_ISSUE.replace("f32[8,16,4]", "c128[8,16,4]")
    log = "\n".join([JAX_ISSUE, "something else {devices=[2]<=[2]}", OLD, JAX_ISSUE, other])
    found = convert(log, mesh=MESH).warnings
    assert [(one.element, one.count) for one in found] == [("f32", 2), ("", 1), ("c128", 1)]
    assert found[2].bytes_received == 4 * (found[0].bytes_received or 0)


def test_a_large_mesh_and_partial_replication() -> None:
    text = (
        "cannot go from sharding {devices=[2,32,4]<=[2,8,4,4]T(0,2,1,3) last_tile_dim_replicate} to "
        "{devices=[1,256]<=[256]} efficiently for HLO operation %param = f32[1024,64]{1,0} parameter(0)"
    )
    (warning,) = convert(text, mesh="a=2,b=8,c=4,d=4").warnings
    assert warning.shape == (2048, 2048)
    assert warning.before is not None and warning.after is not None
    assert (warning.before["jax"], warning.after["jax"]) == ("P('a', ('c', 'b'))", "P(None, ('a', 'b', 'c', 'd'))")
    assert warning.moves
    assert (warning.bytes_received or 0) < (warning.bytes_replicated or 0) / 50


def test_an_operation_of_another_rank_says_nothing_of_the_tensor() -> None:
    text = (
        "not able to go from sharding {devices=[1,1,2,2]<=[4] last_tile_dim_replicate} to "
        "{devices=[1,2,2]<=[2,2]T(1,0)} without doing a full rematerialization of the tensor for HLO operation: "
        "%pad = f64[96]{0} pad(%broadcast.690, %constant), padding=8_7"
    )
    (warning,) = convert(text, mesh="x=2,y=2").warnings
    assert warning.shape is None
    assert "the operation has 1 dims and its shardings 3" in warning.note


def test_a_warning_that_cannot_be_decoded() -> None:
    alone = "from sharding {maximal device=0} to {devices=[8,1]<=[8]} without"
    with pytest.raises(NotationError, match="on one device alone"):
        convert(alone, mesh=MESH)
    first, second = convert(f"{alone}\n{JAX_ISSUE}", mesh=MESH).warnings
    assert first.before is None
    assert first.note.startswith("not decoded: the tensor is on one device alone")
    assert second.before is not None
    with pytest.raises(MeshError, match="the mesh that names them is not given"):
        convert(JAX_ISSUE)


def test_a_replicated_side_takes_its_rank_from_the_other() -> None:
    (warning,) = convert(
        "from sharding {replicated} to {devices=[4,2]<=[8]} for HLO operation %p = s8[8,8]{1,0} parameter(0)", mesh=MESH
    ).warnings
    assert warning.before is not None
    assert warning.before.canonical == "int8[i=8 j=8]"
    assert [move.bytes_received for move in warning.moves] == [0]
    assert warning.bytes_replicated == 0


def test_the_moves_are_those_of_reshard() -> None:
    (warning,) = convert(JAX_ISSUE, mesh=MESH).warnings
    before, after = Layout((("y",), (), ("x",))), Layout(((), ("x", "y"), ()))
    steps = reshard(Tensor("add.2", ("i", "j", "k"), "fp32"), before, after, dict.fromkeys("ijk", 16), make_mesh(MESH))
    assert [move.text for move in warning.moves] == [str(step) for step in steps]


@pytest.mark.parametrize(
    ("name", "bits"), [("f32", 32), ("bf16", 16), ("c64", 64), ("u4", 4), ("s64", 64), ("f8e5m2", 8), ("opaque", None)]
)
def test_element_types_of_xla(name: str, bits: int | None) -> None:
    assert element_bits(name) == bits


def test_text_without_a_pair_of_shardings_holds_no_warning() -> None:
    assert find_warnings("from sharding {devices=[2]<=[2]} and then {replicated}") == ()
    assert find_warnings("from sharding {devices=[2]<=[2") == ()


# The command


def test_the_command_prints_a_table() -> None:
    done = run_command("notation", "P('x', None, ('y', 'z'))", "--mesh", "x=2,y=4,z=2", "--indices", "B S D")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[:3] == ["B/x S D/y/z", "read as JAX PartitionSpec", "mesh x=2,y=4,z=2"]
    assert "DTensor placements  [Shard(0), Shard(2), Shard(2)]" in lines
    assert "numpy with rules    BSD  --shard B=x,D=y/z" in lines


def test_the_command_decodes_a_warning_from_stdin_and_from_a_file(tmp_path: Path) -> None:
    done = run_command("notation", "-", "--mesh", MESH, stdin=JAX_ISSUE)
    assert done.status == 0, done.err
    assert "JAX PartitionSpec   P('y', None, 'x')                         P(None, ('x', 'y'), None)" in done.out
    assert "all-to-all(x,y) add.2: i/y j k/x -> i j/x/y k  1.75 KiB" in done.out
    assert "to replicate it makes a device receive 14 KiB, 8 times as much; the moves above 1.75 KiB" in done.out
    log = tmp_path / "log.txt"
    log.write_text(JAX_ISSUE)
    assert run_command("notation", f"@{log}", "--mesh", MESH).out == done.out


def test_the_command_prints_json() -> None:
    done = run_command("notation", JAX_ISSUE, "--mesh", MESH, "--json")
    document = json.loads(done.out)
    assert document["schema_version"] == 1
    assert document["command"] == "notation"
    assert document["mesh"] == {"text": "x=4,y=2", "axes": {"x": 4, "y": 2}}
    assert document["item"] is None
    assert document["warnings"][0]["bytes_received"] == 1792
    assert document["warnings"][0]["before"]["layouts"] == [[["y"], [], ["x"]]]
    document = json.loads(run_command("notation", "B/x D {U:?}", "--json").out)
    assert document["item"]["written"][3] == {
        "notation": "jax",
        "text": None,
        "rules": "",
        "note": "JAX has no word for a sum that may stay owed, `{U:?}`",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{devices=[2,4]<=[8]}",), "expected a mesh of 8 devices"),
        (("P('x')", "--from", "jaxx"), "did you mean `jax`?"),
        (("P('x')", "--mesh", "y=2"), "unknown mesh axis `x`"),
        (("B/x D", "--indices", "B D"), "leave out `indices` (`--indices`)"),
        ((JAX_ISSUE,), "the mesh that names them is not given"),
    ],
)
def test_the_command_refuses_in_words(arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(run_command("notation", *arguments))


def test_a_conversion_is_public() -> None:
    assert einscale.convert is convert
    assert "convert" in einscale.__all__


def test_a_table_in_a_pipe_imports_nothing_heavy() -> None:
    code = (
        "import sys; from einscale.cli import run; "
        f"status = run(['notation', {JAX_ISSUE!r}, '--mesh', 'x=4,y=2']); "
        "sys.exit(status or bool({'numpy', 'opt_einsum', 'rich', 'jax', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
