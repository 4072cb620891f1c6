"""Programs as text: printing and parsing are inverses, and a fault is pointed at."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_strategies import programs

from einscale.errors import EinscaleError, NotationError, ProgramError
from einscale.models import list_models, load_model
from einscale.program import WHOLE, backward, parse_program, print_program


def assert_round_trip(program):
    text = print_program(program)
    again = parse_program(text)
    assert again == program
    assert print_program(again) == text


@settings(max_examples=100, deadline=None)
@given(programs())
def test_a_program_survives_being_printed(program):
    assert_round_trip(program)


@settings(max_examples=60, deadline=None)
@given(programs(), st.sampled_from([(), ("first",), ("first", "second"), (WHOLE,)]), st.booleans())
def test_a_backward_pass_survives_being_printed(program, groups, fused):
    chosen = frozenset(groups)
    assert_round_trip(backward(program, fused=chosen) if fused else backward(program, chosen))


@pytest.mark.parametrize("name", list_models())
def test_every_preset_survives_being_printed(name):
    for layer in load_model(name).layers:
        assert_round_trip(layer.program)
        assert_round_trip(backward(layer.program, fused=frozenset({"attention"})))


def test_the_form_of_a_whole_program():
    text = """\
program tiny.v1
size d = 8
composite h = (n g)
input x: bf16[b s d]
input tokens: int64[b]
param w: fp32[d n g]
param e: bf16[v d] tied
section attention:
  q = einsum("b s d, d n g -> b s n g", x, w)
  group core:
    p: bf16[b s n g] = softmax(q, axis=g)
    r, r_mask = dropout(p, rate=0.25)
  rows = lookup(e, tokens, axis=v)
out = sum(r, axes=(n g))
return out, rows
"""
    program = parse_program(text)
    assert print_program(program) == text
    assert program.sizes == (("d", 8),)
    assert program.composites == (("h", ("n", "g")),)
    assert program.tied == ("e",)
    assert program.outputs == ("out", "rows")
    assert [(s.section, s.group) for s in program.statements] == [
        ("attention", ""),
        ("attention", "core"),
        ("attention", "core"),
        ("attention", ""),
        ("", ""),
    ]
    assert program.table["r_mask"].kind == "residual"
    assert program.table["r_mask"].dtype == "bool"
    assert program.statements[2].option("rate") == 0.25


def test_spaces_comments_aliases_and_blank_lines_are_free():
    program = parse_program(
        "\n# a comment\nprogram  p # named\n input x :bfloat16[ a\tb ]\n\n"
        "\ty=gelu( x,approximate = none )# done\r\nreturn y"
    )
    assert print_program(program) == ("program p\ninput x: bf16[a b]\ny = gelu(x, approximate=none)\nreturn y\n")


def test_a_scalar_and_an_empty_operand_print_and_parse():
    program = parse_program('input x: fp32[]\ninput y: fp32[a]\nz = einsum(", a ->", x, y)\nreturn z')
    assert program.table["z"].axes == ()
    assert_round_trip(program)


def test_words_of_the_grammar_are_free_as_names_of_values():
    program = parse_program("input input: fp32[a]\nsize = relu(input)\nreturn = gelu(size)\nreturn return")
    assert program.outputs == ("return",)
    assert_round_trip(program)


HEADER = "program p\ninput x: bf16[a b]\nparam w: bf16[b c]\n"

FAULTS = [
    # text after the header, words of the message, the characters underlined
    ("y = gelu(z)\nreturn y", "line 4: unknown value `z`", "z"),
    ("y = gelu(xx)\nreturn y", "did you mean `x`?", "xx"),
    ("y = gelo(x)\nreturn y", "line 4: unknown map `gelo`", "gelo"),
    ("y = gelo(x)\nreturn y", "did you mean `gelu`?", "gelo"),
    ("y = gelu x\nreturn y", "line 4: `(` is wanted here, not `x`", "x"),
    ("y = gelu(x\nreturn y", "line 4: `,` is wanted here, but the line ends", " "),
    ("y = gelu(x,)\nreturn y", "an operand is wanted here, not `)`", ")"),
    ("y gelu(x)\nreturn y", "a line cannot start with `y`", "y"),
    ("y = \nreturn y", "an operation is wanted here, but the line ends", " "),
    ("y = gelu(x) x\nreturn y", "`x` is left over at the end of the line", "x"),
    ("y = gelu(x, approximate=)\nreturn y", "the value of an option is wanted here", ")"),
    ("y = scale(x, factor=" + "9" * 31 + ")\nreturn y", "the number is absurd", "9" * 31),
    ("y = scale(x, factor=1e999)\nreturn y", "must be a number, a word or words, not inf", "scale(x, factor=1e999)"),
    ("y = gelu(approximate=tanh, x)\nreturn y", "operands come before options", "x"),
    ("y = gelu(x, approximate=tanh, approximate=none)\nreturn y", "option `approximate` is given twice", "approximate"),
    ("y = gelu(x, approx=tanh)\nreturn y", "gelu has no option `approx`", "gelu(x, approx=tanh)"),
    ("y = softmax(x, axis=c)\nreturn y", "softmax works along axis `c`, which `x` [a b] has not", "softmax(x, axis=c)"),
    ("y = sum(x, axes=(a\nreturn y", "a name or `)` is wanted here, but the line ends", " "),
    ("y = dropout(x, rate=0.1)\nreturn y", "dropout makes 2 values, not 1", "y"),
    ("y, z = gelu(x)\nreturn y", "gelu makes 1 value, not 2", "y, z"),
    ("x = gelu(x)\nreturn x", "two values are called `x`", "x"),
    ("y = einsum(x, w)\nreturn y", "an einsum starts with its spec", "x"),
    ('y = einsum("a b, b c", x, w)\nreturn y', "an einsum of a program needs one `->`", "a b, b c"),
    ('y = einsum("a b, b 4 -> a", x, w)\nreturn y', "`4` is not an axis name", "4"),
    (
        'y = einsum("a b, b c -> a d", x, w)\nreturn y',
        "output index `d` occurs in no operand",
        'einsum("a b, b c -> a d", x, w)',
    ),
    (
        'y = einsum("a, b c -> a c", x, w)\nreturn y',
        "operand 1, `x`, has 2 axes [a b] but the spec reads 1: [a]",
        'einsum("a, b c -> a c", x, w)',
    ),
    ('y = einsum("a b, b c -> a c, x, w)\nreturn y', '`"` does not belong here', '"'),
    ("y = gelu(x) from z\nreturn y", "unknown value `z`", "z"),
    ("y of z = gelu(x)\nreturn y", "unknown value `z`", "z"),
    ("y: bf16[a c] = gelu(x)\nreturn y", "gelu makes [a b], but `y` has [a c]", "gelu(x)"),
    ("y: bf17[a b] = gelu(x)\nreturn y", "unknown dtype `bf17`", "bf17"),
    ("y: bf16[a b = gelu(x)\nreturn y", "an axis name or `]` is wanted here, not `=`", "="),
    ("y = gelu(x)\nreturn z", "line 5: unknown value `z`", "z"),
    ("y = gelu(x)\nreturn y\nz = gelu(y)", "a line after `return`", "z = gelu(y)"),
    ("y = gelu(x)\ninput z: bf16[a]\nreturn y", "come before the first statement", "z"),
    ("size b = 4096.5\ny = gelu(x)\nreturn y", "the size of `b` must be a whole number from 1 to 10^18", "4096.5"),
    ("size b = 0\ny = gelu(x)\nreturn y", "the size of `b` must be a whole number", "0"),
    (
        "size b = 9999999999999999999999999\ny = gelu(x)\nreturn y",
        "the size of `b` must be",
        "9999999999999999999999999",
    ),
    ("size b = 4\nsize b = 4\ny = gelu(x)\nreturn y", "the size of `b` is given twice", "b"),
    ("size q = 4\ny = gelu(x)\nreturn y", "no value has the axis `q`", "q"),
    ("composite h = (a q)\ny = gelu(x)\nreturn y", "no value has the axis `q`", "h"),
    ("composite h = a\ny = gelu(x)\nreturn y", "`(` is wanted here, not `a`", "a"),
    (
        'size a = 2\nsize c = 3\ny = einsum("a b, b a -> a", x, w)\nreturn y',
        "index `a` reads axis `c`, but `a` is 2 and `c` is 3",
        'einsum("a b, b a -> a", x, w)',
    ),
    ("input v: bf16[a a]\ny = gelu(x)\nreturn y", "a tensor has an axis twice", "[a a]"),
    ("input w: bf16[a]\ny = gelu(x)\nreturn y", "two values are called `w`", "w"),
    ("input v bf16[a]\ny = gelu(x)\nreturn y", "`:` is wanted here, not `bf16`", "bf16"),
    ("sectoin attention:\n  y = gelu(x)\nreturn y", "did you mean `section`?", "sectoin"),
    ("section attention\n  y = gelu(x)\nreturn y", "`:` is wanted here, but the line ends", " "),
    ("phase backwards:\n  y = gelu(x)\nreturn y", "did you mean `backward`?", "backwards"),
    ("y = gelu(x) ; z\nreturn y", "`;` does not belong here", ";"),
    ("program q\ny = gelu(x)\nreturn y", "the program has a name already", "program q"),
]


@pytest.mark.parametrize(("text", "words", "guilty"), FAULTS)
def test_a_fault_is_told_and_underlined(text, words, guilty):
    with pytest.raises((NotationError, ProgramError)) as caught:
        parse_program(HEADER + text)
    error = caught.value
    assert words in str(error)
    assert error.message.startswith("line ")
    line = str(error).splitlines()[1:3]
    assert set(line[1].strip()) == {"^"}
    start = line[1].index("^")
    assert line[0].ljust(start + 1)[start : start + len(line[1].strip())] == guilty


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the program has no statement"),
        (HEADER, "the program has no statement"),
        (HEADER + "y = gelu(x)", "the program returns nothing"),
        ("program a b\n", "`a b` is not a program's name"),
        ("program\n", "`` is not a program's name"),
    ],
)
def test_a_text_without_a_program_is_refused(text, words):
    with pytest.raises(EinscaleError) as caught:
        parse_program(text)
    assert words in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet='abxyw =(),:[]"->\n#.49_', max_size=60), st.integers(0, len(HEADER) + 20))
def test_any_text_is_read_or_refused(noise, place):
    text = HEADER + "y = gelu(x)\nreturn y\n"
    try:
        program = parse_program(text[:place] + noise + text[place:])
    except (NotationError, ProgramError) as error:
        assert str(error)
    else:
        assert_round_trip(program)
