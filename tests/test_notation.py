"""The notation: every example and pitfall of the reference, what a spec lowers to, rules, output layouts."""

from __future__ import annotations

import pytest

from einscale.errors import NotationError, UsageError
from einscale.notation import DIALECTS, Axis, EinsumQuestion, Shard, lower, parse_rules, parse_spec, parse_tensor

EXAMPLES = {
    "batch/data seq model, model ff/tensor -> batch/data seq ff/tensor": (
        (("batch", "seq", "model"), ("model", "ff")),
        ("batch", "seq", "ff"),
        ((("data",), (), ()), ((), ("tensor",))),
        (("data",), (), ("tensor",)),
    ),
    "B/pod/data S D, D/data F/model -> B/pod/data S F/model": (
        (("B", "S", "D"), ("D", "F")),
        ("B", "S", "F"),
        ((("pod", "data"), (), ()), (("data",), ("model",))),
        (("pod", "data"), (), ("model",)),
    ),
    "B/d S F/t, F/t D -> B/d S D {U:t}": (
        (("B", "S", "F"), ("F", "D")),
        ("B", "S", "D"),
        ((("d",), (), ("t",)), (("t",), ())),
        (("d",), (), ()),
    ),
    "B/d S F/t, F/t D -> B/d S/t D": (
        (("B", "S", "F"), ("F", "D")),
        ("B", "S", "D"),
        ((("d",), (), ("t",)), (("t",), ())),
        (("d",), ("t",), ()),
    ),
    "... D, D F/t -> ... F/t": (
        (("...", "D"), ("D", "F")),
        ("...", "F"),
        (((), ()), ((), ("t",))),
        ((), ("t",)),
    ),
    "B/d S (H/t K), (H/t K) D -> B/d S D {U:t}": (
        (("B", "S", "H", "K"), ("H", "K", "D")),
        ("B", "S", "D"),
        ((("d",), (), ("t",), ()), (("t",), (), ())),
        (("d",), (), ()),
    ),
    "B/d T/c K/t G H, B/d S/c K/t H -> B/d K/t G T/c S": (
        (("B", "T", "K", "G", "H"), ("B", "S", "K", "H")),
        ("B", "K", "G", "T", "S"),
        ((("d",), ("c",), ("t",), (), ()), (("d",), ("c",), ("t",), ())),
        (("d",), ("t",), (), ("c",), ()),
    ),
    "G/ep S M, G/ep S E C -> E/ep G C M": (
        (("G", "S", "M"), ("G", "S", "E", "C")),
        ("E", "G", "C", "M"),
        ((("ep",), (), ()), (("ep",), (), (), ())),
        (("ep",), (), (), ()),
    ),
    "E/ep X M, E/ep M F/t -> E X F ?": (
        (("E", "X", "M"), ("E", "M", "F")),
        ("E", "X", "F"),
        ((("ep",), (), ()), (("ep",), (), ("t",))),
        (None, None, None),
    ),
    "x: bf16[B=32/d S=4096 D=8192], w: bf16[D/d F=28672/t] -> y: bf16[B/d S F/t]": (
        (("B", "S", "D"), ("D", "F")),
        ("B", "S", "F"),
        ((("d",), (), ()), (("d",), ("t",))),
        (("d",), (), ("t",)),
    ),
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_example_lowers_and_is_its_own_canonical_form(text: str) -> None:
    spec = parse_spec(text)
    question = lower(spec)
    assert (question.inputs, question.output, question.input_dims, question.output_dims) == EXAMPLES[text]
    assert str(spec) == text
    assert parse_spec(str(spec)).canonical == spec.canonical


def test_softmax_statistics_owe_a_maximum() -> None:
    tensor = parse_tensor("B/d T K/t G {U(max):c}")
    assert (tensor.indices, tensor.layout) == (("B", "T", "K", "G"), (("d",), (), ("t",), ()))
    assert (tensor.unreduced, tensor.reduction) == (("c",), "max")


def test_question_has_every_part() -> None:
    spec = parse_spec("x: bf16[B=32/d S D {U:p}], f32[D F=8/t:(2)4] -> y: F B/? S/q/? {U:?}")
    assert lower(spec) == EinsumQuestion(
        inputs=(("B", "S", "D"), ("D", "F")),
        output=("F", "B", "S"),
        names=("x", "B"),
        output_name="y",
        dtypes=("bf16", "fp32"),
        output_dtype=None,
        input_dims=((("d",), (), ()), ((), ("t:(2)4",))),
        input_unreduced=(("p",), ()),
        reductions=("sum", "sum"),
        output_dims=((), None, ("q", "?")),
        output_unreduced=(),
        output_unreduced_open=True,
        output_reduction="sum",
        sizes=(("B", 32), ("F", 8)),
        has_output=True,
    )


def test_names_that_nobody_gave_are_letters_and_never_repeat() -> None:
    question = lower(parse_spec("i, A: i, i, out: i -> i"))
    assert (question.names, question.output_name) == (("A_", "A", "C", "out"), "out_")
    assert lower(parse_spec(", ".join(["i"] * 28))).names[25:] == ("Z", "A1", "B1")


# Spans ---------------------------------------------------------------------------------------------------------------


def test_every_node_knows_where_it_was_written() -> None:
    text = "x: bf16[B=32/pod/data (H/t K) {U:u,v}], D -> B"
    spec = parse_spec(text)
    first = spec.operands[0]
    batch, group = first.dims
    assert isinstance(batch, Axis)

    def at(span: tuple[int, int]) -> str:
        return text[slice(*span)]

    assert at(first.span) == "x: bf16[B=32/pod/data (H/t K) {U:u,v}]"
    assert (at(first.name_span), at(batch.span), at(batch.name_span), at(batch.size_span)) == (
        "x",
        "B=32/pod/data",
        "B",
        "32",
    )
    assert [at(shard.span) for shard in batch.shards] == ["pod", "data"]
    assert at(group.span) == "(H/t K)"
    assert first.partial is not None
    assert at(first.partial.span) == "{U:u,v}"
    assert [at(shard.span) for shard in first.partial.axes] == ["u", "v"]
    assert at(spec.operands[1].span) == "D"


# Output --------------------------------------------------------------------------------------------------------------


def test_bare_output_axis_is_replicated_exactly_and_question_mark_is_open() -> None:
    assert lower(parse_spec("B/x D -> B D")).output_dims == ((), ())
    assert lower(parse_spec("B/x D -> B/? D")).output_dims == (None, ())
    assert lower(parse_spec("B/x D -> B/x D ?")).output_dims == (("x",), None)


def test_without_arrow_the_output_is_what_occurs_once_in_order_and_open() -> None:
    question = lower(parse_spec("c/x b, b a"))
    assert (question.output, question.output_dims, question.has_output) == (("c", "a"), (None, None), False)
    assert not question.output_unreduced_open


def test_ellipsis_stays_in_the_implied_output_however_often_it_occurs() -> None:
    question = lower(parse_spec("... D, ... D F"))
    assert (question.output, question.output_dims) == (("...", "F"), ((), None))


def test_scalar_output() -> None:
    spec = parse_spec("i j ->")
    assert (lower(spec).output, str(spec)) == ((), "i j ->")
    assert lower(parse_spec("i/x -> {U:x}")).output_unreduced == ("x",)


def test_scalar_operand_needs_a_name_or_a_dtype() -> None:
    assert lower(parse_spec("A:, i j -> i j")).inputs == ((), ("i", "j"))
    assert lower(parse_spec("bf16[], i -> i")).inputs == ((), ("i",))
    with pytest.raises(NotationError, match="an empty operand"):
        parse_spec(", i j -> i j")


def test_with_output_fills_in_a_layout_and_keeps_the_rest() -> None:
    spec = parse_spec("x: bf16[B/d S (H/t K)], H K D -> y: bf16[B=8 S D ?]")
    filled = spec.with_output([("d",), (), ("t:(1)2",)], ["t:(2)4"])
    assert str(filled) == "x: bf16[B/d S (H/t K)], H K D -> y: bf16[B=8/d S D/t:(1)2 {U:t:(2)4}]"
    assert lower(parse_spec(str(filled))).output_dims == (("d",), (), ("t:(1)2",))


def test_with_output_writes_the_output_that_was_implied() -> None:
    spec = parse_spec("B/d (H/t K), K D")
    assert str(spec.with_output([("d",), ("t",), ()])) == "B/d (H/t K), K D -> B/d H/t D"
    assert str(parse_spec("*b 128, 128 c").with_output([("d",), ()])) == "*b 128, 128 c -> *b/d c"


def test_with_output_sorts_what_is_owed() -> None:
    filled = parse_spec("B D -> B D").with_output([(), ("z",)], ["y", "x"], "max")
    assert str(filled) == "B D -> B D/z {U(max):x,y}"


def test_with_output_fills_groups() -> None:
    spec = parse_spec("B (H K) -> (H/? K) B")
    assert str(spec.with_output([("t",), (), ("d",)])) == "B (H K) -> (H/t K) B/d"


def test_with_output_refuses_what_no_output_can_have() -> None:
    with pytest.raises(NotationError, match="the output has 2 axes, the layout 1"):
        parse_spec("B D -> B D").with_output([()])
    with pytest.raises(NotationError, match=r"`\.\.\.` is never sharded"):
        parse_spec("... D -> ... D").with_output([("x",), ()])


# Axes ----------------------------------------------------------------------------------------------------------------


def test_fixed_size_is_an_index_named_by_its_digits() -> None:
    question = lower(parse_spec("B 128/x, 0128 F -> B F"))
    assert question.inputs == (("B", "128"), ("128", "F"))
    assert question.sizes == (("128", 128),)
    assert str(parse_spec("128=128 -> 128")) == "128 -> 128"


def test_family_is_one_index_that_may_be_sharded() -> None:
    spec = parse_spec("*batch=64/data D, D F -> *batch/data F")
    assert lower(spec).inputs == (("batch", "D"), ("D", "F"))
    assert str(spec) == "*batch=64/data D, D F -> *batch/data F"


def test_diagonal_is_allowed_where_it_is_not_sharded() -> None:
    assert lower(parse_spec("i i -> i")).inputs == (("i", "i"),)
    assert lower(parse_spec("i i j/x -> j/x")).output == ("j",)


def test_order_of_mesh_axes_matters() -> None:
    assert parse_spec("B/x/y").canonical != parse_spec("B/y/x").canonical
    assert lower(parse_spec("B/x/y D")).input_dims == ((("x", "y"), ()),)


def test_one_index_may_be_laid_out_differently_in_two_operands() -> None:
    assert lower(parse_spec("B D/x, D/y F -> B F")).input_dims == (((), ("x",)), (("y",), ()))


def test_underscore_is_part_of_a_name() -> None:
    question = lower(parse_spec("B d_model, d_model F -> B F", mesh_axes=("model",)))
    assert question.inputs == (("B", "d_model"), ("d_model", "F"))


def test_dtypes_are_normalised() -> None:
    assert str(parse_spec("float32[i], BFloat16[i], f8e4m3fn[i] -> i")) == "fp32[i], bf16[i], fp8[i] -> i"


def test_partial_is_sorted_and_merged() -> None:
    assert str(parse_spec("B {U:y,x} {U:a} -> B")) == "B {U:a,x,y} -> B"
    assert str(parse_spec("B {U(sum):x} -> B")) == "B {U:x} -> B"


def test_operands_may_owe_sums_over_different_axes() -> None:
    assert lower(parse_spec("i {U:x}, i {U:y} -> i")).input_unreduced == (("x",), ("y",))
    assert lower(parse_spec("i {U:x:(1)2}, i {U:x:(2)4} -> i")).input_unreduced == (("x:(1)2",), ("x:(2)4",))


def test_an_owed_maximum_passes_where_nothing_is_added() -> None:
    question = lower(parse_spec("B/d T {U(max):c} -> T B/d {U:?}"))
    assert (question.reductions, question.output_unreduced_open, question.output_reduction) == (("max",), True, "max")
    assert lower(parse_spec("B {U(max):c} -> B {U(max):c}")).output_reduction == "max"


def test_parts_of_one_mesh_axis_in_one_tensor() -> None:
    text = "B/x:(2)4 D/x:(1)2 {U:y:(1)2} -> B D/y:(2)2/x:(4)2"
    assert str(parse_spec(text, mesh_axes=("x", "y"))) == text


def test_blanks_and_newlines_mean_nothing_between_words() -> None:
    spec = parse_spec(" B = 32/d\tS\r\n  ,S   D\u00a0-> (B   D) {U : d , e}\n")
    assert str(spec) == "B=32/d S, S D -> (B D) {U:d,e}"


# Dialects ------------------------------------------------------------------------------------------------------------


def test_dialects_are_named() -> None:
    assert DIALECTS == ("slash", "numpy", "book", "jax", "dtensor", "shardy", "hlo")
    with pytest.raises(UsageError, match="did you mean `numpy`"):
        parse_spec("ij->ji", syntax="numppy")


@pytest.mark.parametrize(
    ("text", "rules", "dialect"),
    [
        ("B/x D", None, "slash"),
        ("batch D, D -> batch", None, "slash"),
        ("i,j->i", None, "slash"),
        ("batch, seq -> batch seq", None, "slash"),
        ("d_model,d_model->d_model", None, "slash"),
        ("batch", None, "slash"),
        ("bf16[B D]", None, "slash"),
        ("bd,df->bf", "b=data", "numpy"),
        ("bd, df -> bf", {"b": "data", "f": "model"}, "numpy"),
        ("...d,df->...f", "f=model", "numpy"),
        ("batch,seq->seq", "batch=data", "slash"),
        ("A[I_X, J]", None, "book"),
        ("A[I,J]", None, "book"),
        ("A[I] * B[J]", None, "book"),
        ("W_in[D_X, F] · B[F]", None, "book"),
    ],
)
def test_dialect_is_detected(text: str, rules: str | None, dialect: str) -> None:
    assert parse_spec(text, rules=rules).syntax == dialect


@pytest.mark.parametrize("text", ["bd,df->bf", "bsd,df->bsf", ",ij->ij", "...d,df->...f", "ij->ji", "batch,seq->seq"])
def test_two_readings_are_refused_and_each_can_be_chosen(text: str) -> None:
    with pytest.raises(NotationError, match="two readings") as caught:
        parse_spec(text)
    assert "--syntax numpy" in str(caught.value)
    assert "--syntax slash" in str(caught.value)
    assert parse_spec("batch,seq->seq", syntax="slash").operands[0].indices == ("batch",)
    assert parse_spec("batch,seq->seq", syntax="numpy").operands[0].indices == ("b", "a", "t", "c", "h")


# Rules ---------------------------------------------------------------------------------------------------------------


def test_rules_have_a_text_form_and_a_mapping_form() -> None:
    expected = (("B", ("pod", "data")), ("F", ("model:(2)4",)), ("128", ("x",)))
    assert parse_rules("B=pod/data, F = model:(2)4,128=x") == expected
    assert parse_rules("B=pod+data,F=model:(2)4,128=x") == expected
    assert parse_rules({"B": ("pod", "data"), "F": "model:(2)4", "S": (), "D": None, "128": ["x"]}) == expected
    assert parse_rules(expected) == expected
    assert parse_rules("") == parse_rules({}) == ()


def test_rules_expand_axes_without_a_slash_in_every_dialect() -> None:
    expected = "b/data s d, d f/model -> b/data s f/model"
    rules = "b=data,f=model"
    assert str(parse_spec("b s d, d f -> b s f", rules=rules)) == expected
    assert str(parse_spec("bsd,df->bsf", rules=rules)) == expected
    book = parse_spec("A[b, s, d] * B[d, f] -> C[b, s, f]", rules=rules)
    assert str(book) == "A: b/data s d, B: d f/model -> C: b/data s f/model"


def test_rules_leave_what_is_written() -> None:
    spec = parse_spec("B/x D, D (F G) -> B/? F G ?", rules="B=data,F=model,D=y")
    assert str(spec) == "B/x D/y, D/y (F/model G) -> B/? F/model G ?"


def test_an_implied_output_stays_open_under_rules() -> None:
    assert lower(parse_spec("B D, D F", rules="B=data")).output_dims == (None, None)
    assert lower(parse_spec("bd,df", rules="b=data")).output_dims == (None, None)


def test_a_mesh_axis_that_is_taken_is_left_out() -> None:
    """FSDP in one line: the batch has the first choice of `data`, weights take it where there is no batch."""
    spec = parse_spec("B S D, D F -> B S F", rules="B=pod/data,D=data/model")
    assert str(spec) == "B/pod/data S D/model, D/data/model F -> B/pod/data S F"
    assert str(parse_spec("B D -> D B", rules="D=x,B=x/y")) == "B/y D/x -> D/x B/y"
    assert str(parse_spec("B D {U:x} -> B D", rules="D=x")) == "B D {U:x} -> B D/x"


# Bad mesh axes -------------------------------------------------------------------------------------------------------


def test_mesh_axes_are_checked_only_if_the_mesh_is_known() -> None:
    assert str(parse_spec("B/modle D")) == "B/modle D"
    with pytest.raises(NotationError, match="did you mean `model`") as caught:
        parse_spec("B/modle D", mesh_axes=["data", "model"])
    assert (caught.value.span, caught.value.text) == ((2, 7), "B/modle D")


def test_parse_tensor_accepts_an_open_layout() -> None:
    tensor = parse_tensor("w: D/? F/x {U:?} ?", mesh_axes=("x",))
    assert (tensor.name, tensor.open, str(tensor)) == ("w", True, "w: D/? F/x {U:?} ?")
    assert tensor.dims[1].shards == (Shard("x", (9, 10)),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the tensor is empty"),
        ("A, B", "unexpected `,`"),
        ("A -> B", "unexpected `->`"),
        ("A/x B/x", "mesh axis `x` is used twice"),
        ("A=3 A=4", "index `A` has size 3 and size 4"),
        ("A/y", "unknown mesh axis `y`"),
    ],
)
def test_parse_tensor_refuses(text: str, message: str) -> None:
    with pytest.raises(NotationError, match=message):
        parse_tensor(text, mesh_axes=("x",))
