"""Writing programs as Python functions: names, sections, and every fault in words."""

import pytest

from einscale.errors import NotationError, ProgramError, SizeError
from einscale.program import Program, check_program, print_program, program_sizes, trace
from einscale.program.trace import (
    Traced,
    add,
    apply,
    cast,
    dropout,
    einsum,
    gelu,
    group,
    lookup,
    mask,
    mul,
    relu,
    rms_norm,
    scale,
    section,
    softmax,
    sum_over,
    swiglu,
)

X = {"x": "bf16[b s d]"}
W = {"w": "bf16[d f]"}


def gated(x, w_gate, w_up, w_down):
    gate = einsum("b s d, d f -> b s f", x, w_gate)
    up = einsum("b s d, d f -> b s f", x, w_up)
    hidden = swiglu(gate, up)
    return einsum("b s f, f d -> b s d", hidden, w_down)


def test_a_block_reads_like_its_equations_and_takes_the_names_of_its_variables():
    weights = {"w_gate": "bf16[d f]", "w_up": "bf16[d f]", "w_down": "bf16[f d]"}
    program = trace(gated, X, weights, sizes={"d": 8, "f": 16})
    assert print_program(program) == (
        "program gated\n"
        "size d = 8\n"
        "size f = 16\n"
        "input x: bf16[b s d]\n"
        "param w_gate: bf16[d f]\n"
        "param w_up: bf16[d f]\n"
        "param w_down: bf16[f d]\n"
        'gate = einsum("b s d, d f -> b s f", x, w_gate)\n'
        'up = einsum("b s d, d f -> b s f", x, w_up)\n'
        "hidden = swiglu(gate, up)\n"
        'out = einsum("b s f, f d -> b s d", hidden, w_down)\n'
        "return out\n"
    )


def names(function, inputs=X, parameters=None, **options):
    program = trace(function, inputs, parameters, **options)
    return [name for statement in program.statements for name in statement.outputs]


def test_an_explicit_name_wins_and_an_unbound_value_takes_its_operations_name():
    def body(x):
        doubled = scale(x, 2.0, name="twice")
        return gelu(relu(relu(doubled)))

    assert names(body) == ["twice", "relu", "relu_2", "out"]


def test_a_value_keeps_the_name_it_has_where_it_was_made():
    def inner(argument):
        local = relu(argument)
        return gelu(local)

    def body(x):
        outer = relu(x)
        result = inner(outer)
        return relu(result)

    assert names(body) == ["outer", "local", "result", "out"]


def test_a_variable_that_is_bound_again_gets_a_number():
    def body(x):
        h = relu(x)
        h = gelu(h)
        return relu(h)

    assert names(body) == ["h", "h_2", "out"]


def test_several_outputs_and_residuals():
    def body(x):
        kept = dropout(x, 0.5)
        return kept, relu(kept)

    assert names(body) == ["kept", "kept_mask", "out_2"]
    assert trace(body, X).outputs == ("kept", "out_2")


def test_operators():
    def body(x):
        return (x + x * 0.5) * x

    assert [s.op for s in trace(body, X).statements] == ["scale", "add", "mul"]


def test_no_dropout_at_rate_zero():
    assert names(lambda x: relu(dropout(x, 0.0))) == ["out"]


def test_sections_and_groups_mark_statements_and_end():
    def body(x):
        with section("attention"):
            a = relu(x)
            with group("core"):
                b = relu(a)
            c = relu(b)
        return relu(c)

    marks = [(s.section, s.group) for s in trace(body, X).statements]
    assert marks == [("attention", ""), ("attention", "core"), ("attention", ""), ("", "")]


def test_a_region_ends_with_an_error_too():
    def body(x):
        try:
            with section("attention"):
                raise KeyError
        except KeyError:
            return relu(x)

    assert trace(body, X).statements[0].section == ""


def test_a_value_may_be_read_under_other_labels():
    def body(q, k):
        scores = einsum("b s k, b t k -> b s t", q, k)
        return softmax(scores, "t")

    program = trace(body, {"q": "bf16[b s k]", "k": "bf16[b s k]"})
    assert program_sizes(program, {"b": 2, "s": 5, "k": 4}) == {"b": 2, "s": 5, "k": 4, "t": 5}


def test_types_are_the_widest_unless_said_otherwise():
    def body(x, w):
        wide = einsum("b s d, d f -> b s f", x, w, dtype="float32")
        return add(wide, einsum("b s d, d f -> b s f", x, w))

    program = trace(body, X, W)
    assert [program.table[s.output].dtype for s in program.statements] == ["fp32", "bf16", "fp32"]


FAULTS = {
    "too few axes in the spec": (
        lambda x, w: einsum("b d, d f -> b f", x, w),
        "operand 1, `x`, has 3 axes [b s d] but the spec reads 2: [b d]\n  b d, d f -> b f",
    ),
    "too many values": (
        lambda x, w: einsum("b s d, d f -> b s f", x, w, w),
        "the einsum has 2 operands in its spec and 3 values",
    ),
    "unknown output index": (
        lambda x, w: einsum("b s d, d f -> b s g", x, w),
        "output index `g` occurs in no operand",
    ),
    "output index twice": (lambda x, w: einsum("b s d, d f -> b b", x, w), "an index occurs twice in the output"),
    "no arrow": (lambda x, w: einsum("b s d, d f", x, w), "an einsum of a program needs one `->`"),
    "label that is no name": (
        lambda x, w: einsum("b s d, d 4f -> b s d", x, w),
        "`4f` is not an axis name\n  b s d, d 4f -> b s d\n           ^^",
    ),
    "two outputs": (lambda x, w: einsum("b s d, d f -> b, s", x, w), "an einsum has one output"),
    "contradicting sizes": (
        lambda x, w: einsum("b s f, f d -> b s d", x, w),
        "index `f` reads axis `d`, but `f` is 6 and `d` is 4",
    ),
    "axes that do not match": (
        lambda x, w: w + x,
        "add matches axes by name: `w` [d f] has `f`, which `x` [b s d] has not",
    ),
    "an axis it has not": (
        lambda x, w: softmax(x, "t"),
        "softmax works along axis `t`, which `x` [b s d] has not\n  `x` has: b, s, d",
    ),
    "a near miss of an axis": (lambda x, w: softmax(x, "D"), "did you mean `d`?"),
    "a rate of one": (lambda x, w: dropout(x, 1.0), "option `rate` of dropout must lie in [0, 1), not 1.0"),
    "a window that is no number": (
        lambda x, w: mask(x, query="b", key="s", window=1.5),
        "option `window` of mask must be a whole number, not 1.5",
    ),
    "a factor that is a word": (
        lambda x, w: scale(x, "two"),
        "option `factor` of scale must be a number, not two",
    ),
    "an infinite factor": (
        lambda x, w: scale(x, float("inf")),
        "option `factor` of scale must be a number, a word or words, not inf",
    ),
    "a scale of the wrong axes": (
        lambda x, w: rms_norm(x, w, axis="d"),
        "norm along `d` takes scale and bias of axes [d], not w: bf16[d f]",
    ),
    "indices that are floats": (
        lambda x, w: lookup(w, x, "d"),
        "lookup takes integer indices as operand 2, not x: bf16[b s d]",
    ),
    "an unknown dtype": (lambda x, w: cast(x, "float17"), "unknown dtype `float17`"),
    "a sum over an axis it has not": (lambda x, w: sum_over(x, "b q"), "sum works along axis `q`"),
    "a broadcast that loses an axis": (
        lambda x, w: apply("broadcast", x, axes=("b", "s"))[0],
        "broadcast to [b s] would lose an axis of x: bf16[b s d]",
    ),
    "an unknown map": (lambda x, w: apply("gelo", x)[0], "unknown map `gelo`\n  did you mean `gelu`?"),
    "an unknown option": (lambda x, w: apply("gelu", x, approx=1)[0], "gelu has no option `approx`"),
    "a missing option": (lambda x, w: apply("softmax", x)[0], "softmax needs the option `axis`"),
    "too few operands": (lambda x, w: apply("swiglu", x)[0], "swiglu takes 2 operands, not 1"),
    "no operands": (lambda x, w: apply("add"), "add needs an operand"),
    "an operand of another kind": (lambda x, w: mul(x, 3), "operand 2 of mul is int, not a traced tensor"),
    "a first operand of another kind": (lambda x, w: gelu(3), "operand 1 of gelu is int, not a traced tensor"),
    "an einsum without tensors": (lambda x, w: einsum("a -> a"), "einsum needs traced tensors after its spec"),
    "a name that is taken": (lambda x, w: relu(x, name="w"), "two values are called `w`"),
    "a name that is none": (lambda x, w: relu(x, name="two words"), "`two words` is not a value name"),
    "a truth value": (lambda x, w: x if x else w, "`x: bf16[b s d]` has no truth value"),
    "a result of another kind": (lambda x, w: 3, "the function returns int, not a traced tensor"),
    "a section name that is none": (lambda x, w: section("a b"), "`a b` is not a section name"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told_in_words(name):
    body, words = FAULTS[name]
    with pytest.raises((ProgramError, NotationError)) as caught:
        trace(body, X, W, sizes={"d": 4, "f": 6})
    assert words in str(caught.value)


def test_a_value_of_another_program_is_refused():
    stolen: list[Traced] = []
    trace(lambda x: (stolen.append(x), relu(x))[1], X)
    with pytest.raises(ProgramError, match="belongs to another program"):
        trace(lambda x: add(x, stolen[0]), X)


def test_a_section_outside_of_a_trace_is_refused():
    with pytest.raises(ProgramError, match="outside of trace"), section("attention"):
        pass


@pytest.mark.parametrize(
    ("declaration", "words"),
    [
        ("b s d", "not a tensor"),
        ("bf16[b s", "not a tensor"),
        ("bf17[b]", "unknown dtype `bf17`"),
        ("bf16[b 4]", "`4` is not an axis name\n  bf16[b 4]\n         ^"),
        ("bf16[b b]", "a tensor has an axis twice"),
    ],
)
def test_a_declaration_with_a_fault(declaration, words):
    with pytest.raises(NotationError) as caught:
        trace(relu, {"x": declaration})
    assert words in str(caught.value)


def test_sizes_that_are_missing_contradict_or_name_no_axis():
    program = trace(gated, X, {"w_gate": "bf16[d f]", "w_up": "bf16[d f]", "w_down": "bf16[f d]"}, sizes={"d": 8})
    with pytest.raises(SizeError, match="the size of axis `b` of program `gated` is not given"):
        program_sizes(program, {"s": 2, "f": 3})
    with pytest.raises(SizeError, match="axis `d` is 8 in program `gated`, not 9"):
        program_sizes(program, {"d": 9})
    with pytest.raises(SizeError, match="program `gated` has no axis `q`"):
        program_sizes(program, {"q": 9})
    with pytest.raises(SizeError, match="must be at least 1"):
        program_sizes(program, {"b": 0})


def test_a_size_of_an_axis_that_no_value_has_is_refused():
    with pytest.raises(ProgramError, match="no value has the axis `q`"):
        trace(relu, X, sizes={"q": 4})
    with pytest.raises(ProgramError, match="composite `h` is made of `n`, which no value has"):
        trace(relu, X, composites={"h": ("n",)})
    with pytest.raises(SizeError, match="must be at least 1"):
        trace(relu, X, sizes={"d": -4})


def test_tied_parameters_are_parameters():
    program = trace(lambda x, w: einsum("b s d, d f -> b s f", x, w), X, W, tied=["w"])
    assert program.tied == ("w",)


def broken(**changes):
    from msgspec.structs import replace

    good = trace(lambda x, w: relu(einsum("b s d, d f -> b s f", x, w, name="h"), name="y"), X, W, name="p")
    return replace(good, **{name: change(good) for name, change in changes.items()})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"statements": lambda p: p.statements[::-1]}, "order in which the statements make them"),
        ({"values": lambda p: p.values[::-1]}, "inputs and parameters must come first"),
        ({"values": lambda p: p.values + p.values[:1]}, "two values are called `x`"),
        ({"statements": lambda p: p.statements[:1]}, "value `y` is never made"),
        ({"statements": lambda p: p.statements[1:]}, "value `h` is never made"),
        ({"outputs": lambda p: ("z",)}, "output `z` is never made"),
        ({"outputs": lambda p: ()}, "program `p` returns nothing"),
        ({"inputs": lambda p: ()}, "the inputs are said to be none, but are x"),
        ({"tied": lambda p: ("x",)}, "tied parameters must be parameters"),
        ({"sizes": lambda p: (("d", 4), ("d", 4))}, "a size is given twice"),
        ({"composites": lambda p: (("d", ("s",)),)}, "composite `d` must be a new name"),
    ],
)
def test_a_program_that_is_not_well_formed_is_refused(changes, words):
    with pytest.raises(ProgramError) as caught:
        check_program(broken(**changes))
    assert words in str(caught.value)


def test_a_well_formed_program_is_returned_as_it_is():
    program: Program = broken()
    assert check_program(program) is program
