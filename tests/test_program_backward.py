"""The derived backward pass: its numbers against finite differences, its form against what the planner relies on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import check_gradients, random_arrays, run
from program_strategies import programs
from tiny_configs import CONFIGS

from einscale.errors import ProgramError
from einscale.models import layer_kinds, load_model, read_config
from einscale.program import WHOLE, backward, differentiate, parse_program, print_program
from einscale.program.backward import RULES
from einscale.program.maps import OPS
from einscale.program.shapes import CACHING
from einscale.program.trace import (
    add,
    apply,
    cast,
    clamp,
    cross_entropy,
    einsum,
    group,
    layer_norm,
    lookup,
    mask,
    mul,
    relu,
    rms_norm,
    rope,
    softcap,
    softmax,
    sum_over,
    trace,
)

ATTENTION = frozenset({"attention"})
REDONE = {
    "fused": {"fused": ATTENTION},
    "selective": {"recompute": ATTENTION},
    "full": {"recompute": frozenset({WHOLE})},
    "full and fused": {"recompute": frozenset({WHOLE}), "fused": ATTENTION},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_every_layer_kind_are_those_of_finite_differences(name):
    """Those of a plain backward pass; what is fused or recomputed then gives the same bits."""
    for layer in layer_kinds(read_config(CONFIGS[name], name)[0]):
        plain = differentiate(layer.program)
        checked, values = check_gradients(layer.program, plain, {"b": 2, "s": 5}, directions=1)
        floats = [value.name for value in layer.program.values if value.kind == "parameter"]
        assert set(checked) == {*floats, *(["x"] if layer.kind != "embedding" else [])}
        arrays, sizes = random_arrays(plain.program, {"b": 2, "s": 5}, 0)
        for redone, options in REDONE.items():
            again = differentiate(layer.program, **options)
            found = run(again.program, arrays, sizes)
            assert [of for of, _ in again.gradients] == checked, redone
            for (of, one), (_, other) in zip(plain.gradients, again.gradients, strict=True):
                assert (values[one] == found[other]).all(), (redone, of)


@settings(max_examples=60, deadline=None)
@given(programs(), st.integers(0, 1000))
def test_gradients_of_generated_programs_are_those_of_finite_differences(program, seed):
    check_gradients(program, differentiate(program), {}, seed, directions=1, tolerance=1e-4)


@settings(max_examples=40, deadline=None)
@given(programs(), st.sampled_from([{"first"}, {"second"}, {"first", "second"}, {WHOLE}]), st.booleans())
def test_recomputation_changes_no_gradient(program, groups, fused):
    plain = differentiate(program)
    chosen = frozenset(groups)
    again = differentiate(program, fused=chosen - {WHOLE}, recompute=chosen & {WHOLE}) if fused else None
    again = again or differentiate(program, chosen)
    arrays, sizes = random_arrays(plain.program, {})
    first, second = run(plain.program, arrays, sizes), run(again.program, arrays, sizes)
    assert [name for name, _ in plain.gradients] == [name for name, _ in again.gradients]
    for (_, one), (_, other) in zip(plain.gradients, again.gradients, strict=True):
        assert (first[one] == second[other]).all()


def test_every_forward_map_has_a_rule():
    forward = [op for op in OPS if not op.endswith("_backward") and op not in CACHING]  # these serve, and never train
    assert sorted(RULES) == sorted(forward)


def traced(function, inputs, parameters=None, **options):
    return trace(function, inputs, parameters, name="tiny", **options)


def plus(x, y):
    return add(x, y)


def plus_both(x, y, z):
    return add(x, y, z)


def product(x, y):
    return mul(x, y)


def positive(x):
    return relu(x)


def square_and_relu(x):
    square = mul(x, x)
    return square, relu(square)


TINY = {
    "relu": lambda: traced(positive, {"x": "fp32[a b]"}),
    "mask that no softmax reads": lambda: traced(
        lambda x: mul(mask(x, query="a", key="b", factor=0.5), x), {"x": "fp32[a b]"}
    ),
    "mask without a factor": lambda: traced(
        lambda x: softmax(mask(x, query="a", key="b", window=2), "b"), {"x": "fp32[a b]"}
    ),
    "index that one operand has alone": lambda: traced(
        lambda x, y: einsum("a b c, b -> a", x, y), {"x": "fp32[a b c]", "y": "fp32[b]"}
    ),
    "sum by einsum": lambda: traced(lambda x: einsum("a b -> b", x), {"x": "fp32[a b]"}),
    "transpose": lambda: traced(lambda x: einsum("a b -> b a", x), {"x": "fp32[a b]"}),
    "three operands": lambda: traced(
        lambda x, y, z: einsum("a b, b c, c -> a", x, y, z), {"x": "fp32[a b]", "y": "fp32[b c]", "z": "fp32[c]"}
    ),
    "square": lambda: traced(lambda x: einsum("a b, a e -> b e", x, x), {"x": "fp32[a b]"}),
    "scalar": lambda: traced(lambda x: einsum("a b, a b ->", x, x), {"x": "fp32[a b]"}),
    "sum and broadcast": lambda: traced(
        lambda x: mul(apply("broadcast", sum_over(x, "b"), axes=("b", "a"))[0], x), {"x": "fp32[a b]"}
    ),
    "add that broadcasts, transposes and casts": lambda: traced(
        plus_both, {"x": "fp32[a b c]", "y": "bf16[c a]", "z": "fp32[c b a]"}
    ),
    "product that broadcasts": lambda: traced(product, {"x": "fp32[a b]", "y": "bf16[b]"}),
    "input that is the output's only summand": lambda: traced(plus, {"x": "fp32[a]", "y": "fp32[a]"}),
    "output that is used again": lambda: traced(square_and_relu, {"x": "fp32[a b]"}),
    "rms norm along a middle axis": lambda: traced(
        lambda x, w: rms_norm(x, w, axis="b"), {"x": "fp32[a b c]", "w": "fp32[b]"}
    ),
    "rms norm over two axes": lambda: traced(
        lambda x, w: rms_norm(x, w, axis="b c"), {"x": "fp32[a b c]", "w": "fp32[b c]"}
    ),
    "norms without a scale": lambda: traced(
        lambda x: mul(rms_norm(x, axis="b"), layer_norm(x, axis="b")), {"x": "fp32[a b]"}
    ),
    "softcap": lambda: traced(lambda x: softcap(x, 1.5, factor=0.7), {"x": "fp32[a b]"}),
    "clamp": lambda: traced(lambda x: clamp(x, 0.8), {"x": "fp32[a b]"}),
    "partial rotary embedding": lambda: traced(
        lambda x: rope(x, axis="b", sequence="a", theta=100.0, rotary=2), {"x": "fp32[a b]"}
    ),
    "alibi": lambda: traced(
        lambda x: softmax(mask(x, query="a", key="b", factor=0.5, alibi=4.0, heads="c v"), "b"), {"x": "fp32[c a b v]"}
    ),
    "layer norm without a bias": lambda: traced(
        lambda x, w: layer_norm(x, w, axis="b"), {"x": "fp32[a b]", "w": "fp32[b]"}
    ),
    "weighted loss": lambda: traced(
        lambda x, y, w: sum_over(mul(cross_entropy(x, y, "v"), w), "a b"),
        {"x": "fp32[a v b]", "y": "int32[b a]", "w": "fp32[a b]"},
    ),
    "table of two axes": lambda: traced(
        lambda t, i: cast(lookup(t, i, "v"), "fp32"), {"t": "bf16[c v b]", "i": "int32[a]"}
    ),
}


@pytest.mark.parametrize("name", TINY)
def test_gradients_of_single_rules(name):
    program = TINY[name]()
    names = {axis for value in program.values for axis in value.axes}
    sizes = {"a": 3, "b": 4, "c": 2, "v": 5}
    checked, _ = check_gradients(program, differentiate(program), {k: sizes[k] for k in sizes if k in names})
    assert checked == [value.name for value in program.values if value.kind == "input" and "int" not in value.dtype]


def block(name="llama3-8b"):
    return load_model(name).layer("block").program


def test_gradients_of_q_k_and_v_are_added_before_anything_reads_them():
    program = backward(block())
    adds = [s for s in program.statements if s.phase == "backward" and s.op == "add"]
    summed = {program.table[s.output].of: s.inputs for s in adds}
    assert summed["attn_in"] == ("d_attn_in_1", "d_attn_in_2", "d_attn_in_3")
    assert summed["mlp_in"] == ("d_mlp_in_1", "d_mlp_in_2")


def test_the_gradient_of_an_addition_is_passed_on_without_a_statement():
    program = backward(block())
    assert next(s for s in program.statements if s.output == "d_mid").inputs == ("d_out", "d_mid_2")
    assert "d_mlp_out" not in program.table
    assert next(s for s in program.statements if s.output == "d_hidden").inputs == ("d_out", "w_down")


def test_sections_groups_and_sources_come_from_the_forward_statement():
    program = backward(block())
    forward = {s.output: s for s in program.statements if s.phase == "forward"}
    for statement in program.statements:
        if statement.phase == "backward":
            assert statement.section == forward[statement.source].section
            assert statement.group in ("", forward[statement.source].group)
    assert next(s for s in program.statements if s.output == "d_scores").group == "attention"


def test_gradients_have_the_axes_and_type_of_their_values():
    program = backward(block("gpt3-175b"))
    table = program.table
    for value in program.values:
        if value.kind == "gradient" and not value.name.endswith("_part"):
            assert (value.axes, value.dtype) == (table[value.of].axes, table[value.of].dtype)


def test_outputs_are_the_gradients_of_inputs_then_parameters():
    forward = block()
    program = backward(forward)
    wanted = ["x", *(value.name for value in forward.parameters)]
    assert [program.table[name].of for name in program.outputs] == wanted
    assert program.inputs == ("x", "d_out")


def test_the_loss_starts_its_own_backward_pass_and_tokens_have_no_gradient():
    head = load_model("llama3-8b").layer("head").program
    program = backward(head)
    assert program.inputs == ("x", "targets")
    start = next(s for s in program.statements if s.phase == "backward")
    assert (start.op, start.inputs) == ("cross_entropy_backward", ("logits_fp32", "targets", "loss_lse"))
    assert all(program.table[name].of != "targets" for name in program.table)


def clones(program):
    return [s.source for s in program.statements if s.phase == "recompute"]


def test_a_recomputed_group_is_run_again_whole_and_a_fused_one_as_far_as_it_is_read():
    forward = block("gpt3-175b")
    group_ = ["scores", "masked", "probs", "probs_dropped"]
    assert clones(backward(forward)) == []
    assert clones(backward(forward, ATTENTION)) == [*group_, "attended"]
    assert clones(backward(forward, fused=ATTENTION)) == group_
    assert clones(backward(forward, ATTENTION, ATTENTION)) == group_


def test_full_recomputation_reads_nothing_but_inputs_and_parameters():
    forward = block()
    program = backward(forward, frozenset({WHOLE}))
    assert clones(program) == [s.output for s in forward.statements]
    made = {s.output for s in program.statements if s.phase == "forward"}
    for statement in program.statements:
        if statement.phase != "forward":
            assert not made & set(statement.inputs)


def test_clones_stand_before_the_first_statement_that_reads_them():
    program = backward(block(), fused=ATTENTION)
    places = {s.output: k for k, s in enumerate(program.statements)}
    first = min(k for k, s in enumerate(program.statements) if s.phase == "backward" and "probs_again" in s.inputs)
    assert places["probs_again"] == first - 1
    assert "scores" not in {name for s in program.statements if s.phase == "backward" for name in s.inputs}


def test_flops_of_a_fused_backward_pass_are_two_and_a_half_times_the_forward_ones():
    program = backward(block(), fused=ATTENTION)
    core = [s for s in program.statements if s.group == "attention" and s.op == "einsum"]
    counts = [sum(s.phase == phase for s in core) for phase in ("forward", "recompute", "backward")]
    assert counts == [2, 1, 4]


def test_a_group_that_reads_its_own_value_outside_is_left_alone():
    def body(x):
        with group("inner"):
            h = relu(x)
        return mul(h, x)

    program = traced(body, {"x": "fp32[a]"})
    assert clones(backward(program, frozenset({"inner"}))) == ["h"]
    assert next(s for s in backward(program, frozenset({"inner"})).statements if s.op == "mul").inputs == ("h", "x")


FAULTS = [
    ('input x: fp32[a a2]\ny = einsum("i i -> i", x)\nreturn y', "takes a diagonal of `x`"),
    ("input x: int32[a]\nparam w: fp32[v]\ny = lookup(w, x, axis=v)\nreturn y", ""),
    ('input x: int32[a]\ny = einsum("a -> a", x)\nreturn y', "has no floating-point input or parameter"),
    (
        "input x: fp32[a v]\ninput t: int32[a]\nl, e = cross_entropy(x, t, axis=v)\ny = mul(l, e)\nreturn y",
        "`e` is a resid",
    ),
    ("input x: fp32[a]\ninput g: fp32[a]\ny = silu_backward(g, x)\nreturn y", "`silu_backward` has no gradient"),
]


@pytest.mark.parametrize(("text", "words"), FAULTS)
def test_programs_without_a_gradient_are_refused_in_words(text, words):
    program = parse_program(text)
    if not words:
        assert backward(program).outputs == ("d_w",)
        return
    with pytest.raises(ProgramError) as caught:
        backward(program)
    assert words in str(caught.value)


def test_a_backward_program_has_no_backward_pass():
    with pytest.raises(ProgramError, match="belongs to phase backward: only a forward program has a gradient"):
        backward(backward(block()))


def test_names_that_are_taken_get_a_number():
    program = parse_program("input x: fp32[a]\ninput d_x: fp32[a]\ny = mul(x, d_x)\nreturn y")
    gradients = differentiate(program)
    assert gradients.gradients == (("x", "d_x_2"), ("d_x", "d_d_x"))
    assert print_program(gradients.program).count("d_x_2 of x") == 1
