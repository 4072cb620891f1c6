"""Programs of one's own in place of a model: several in a file, repeats, sizes, rules, faults."""

import json

import pytest
from command import run_command
from msgspec.structs import replace

from einscale.api.layer import layer
from einscale.errors import EinscaleError, ModelError, NotationError, ProgramError, SizeError, StrategyError
from einscale.models import list_models, load_model, parameter_counts, resized
from einscale.program import parse_program, parse_programs, print_program
from einscale.strategy import load_strategy

BLOCK = """\
program block
repeat 12
composite h = (n g)
input x: bf16[b s d]
param wq: bf16[d n g k]
param wk: bf16[d n k]
q = einsum("b s d, d n g k -> b s n g k", x, wq)
k = einsum("b s d, d n k -> b s n k", x, wk)
scores = einsum("b s n g k, b t n k -> b n g s t", q, k)
probs = softmax(scores, axis=t)
mixed = einsum("b n g s t, b t n k -> b s n g k", probs, k)
out = einsum("b s n g k, d n g k -> b s d", mixed, wq)
return out
"""
HEAD = """\
program head
input x: bf16[b s d]
param w: bf16[v d]
logits = einsum("b s d, v d -> b s v", x, w)
return logits
"""
SIZES = {"d": 64, "n": 2, "g": 4, "k": 8}
PYTHON = """\
from einscale.program import trace
from einscale.program.trace import einsum, gelu

def mlp(x, w):
    return gelu(einsum("b s d, d f -> b s f", x, w))

program = trace(mlp, {"x": "bf16[b s d]"}, {"w": "bf16[d f]"}, repeat=3)
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "own.ein"
    file.write_text(BLOCK + "\n" + HEAD)
    return str(file)


def test_repeats_are_written_and_read_back():
    program = parse_program(BLOCK)
    assert program.repeat == 12
    assert print_program(program) == BLOCK
    assert parse_program(print_program(program)) == program
    assert "repeat" not in print_program(parse_program(BLOCK.replace("repeat 12\n", "")))


def test_a_text_may_hold_several_programs():
    programs = parse_programs(BLOCK + HEAD)
    assert [(program.name, program.repeat) for program in programs] == [("block", 12), ("head", 1)]
    assert parse_programs("\n".join(print_program(program) for program in programs)) == programs
    assert parse_programs(BLOCK) == (parse_program(BLOCK),)


@pytest.mark.parametrize("name", list_models())
def test_a_preset_printed_and_read_back_is_the_same_model(tmp_path, name):
    file = tmp_path / "again.ein"
    assert run_command("program", name, "-o", str(file)).status == 0
    model, again = load_model(name), load_model(file)
    parts = [[(layer.kind, layer.program, layer.repeat) for layer in one.layers] for one in (model, again)]
    assert parts[0] == parts[1]
    assert parameter_counts(again) == replace(parameter_counts(model), ahead=0)


@pytest.mark.parametrize(
    ("text", "kind", "words", "guilty"),
    [
        (BLOCK + HEAD, ProgramError, "the text describes 2 programs: block, head", "program head"),
        (BLOCK + BLOCK, ProgramError, "line 14: two programs are called `block`", "program block"),
        (BLOCK.replace("12", "0"), NotationError, "line 2: the number of layers must be a whole number", "0"),
        (BLOCK.replace("12", "many"), NotationError, "line 2: the number of layers must be", "many"),
        (BLOCK.replace("12", "12 13"), NotationError, "line 2: `13` is left over", "13"),
        (BLOCK.replace("repeat 12", "repeat 12\nrepeat 3"), NotationError, "says twice how often", "repeat"),
        (BLOCK.replace("repeat", "repaet"), NotationError, "did you mean `repeat`?", "repaet"),
        (BLOCK + HEAD.replace("logits =", "logits = gelu(y)\nz ="), ProgramError, "line 17: unknown value `y`", "y"),
    ],
)
def test_a_fault_in_one_of_several_programs_is_underlined(text, kind, words, guilty):
    with pytest.raises(EinscaleError) as caught:
        parse_program(text)
    error = caught.value
    assert isinstance(error, kind)
    assert words in str(error)
    lines = str(error).splitlines()[1:3]
    start = lines[1].index("^")
    assert lines[0][start : start + len(lines[1].strip())] == guilty


def test_programs_of_a_file_are_the_layers_of_a_model(path):
    model = load_model(path, sizes={**SIZES, "v": 100})
    assert [(kind.kind, kind.repeat) for kind in model.layers] == [("block", 12), ("head", 1)]
    assert parameter_counts(model).total == 12 * (64 * 2 * 4 * 8 + 64 * 2 * 8) + 64 * 100
    assert model.config is None


def test_a_traced_function_says_how_often_it_runs(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(PYTHON)
    model = load_model(file, sizes={"d": 8, "f": 16})
    assert [(kind.kind, kind.repeat) for kind in model.layers] == [("mlp", 3)]
    assert parameter_counts(model).total == 3 * 8 * 16
    file.write_text(PYTHON + "second = trace(mlp, {'x': 'bf16[s d]'}, {'w': 'bf16[d f]'})\n")
    with pytest.raises(EinscaleError, match="has 2 axes"):
        load_model(file)
    file.write_text(PYTHON + "second = trace(mlp, {'x': 'fp32[b s d]'}, {'w': 'bf16[d f]'})\n")
    with pytest.raises(ModelError, match="makes two programs called `mlp`"):
        load_model(file)


def test_a_size_goes_to_every_program_that_has_the_axis(path):
    model = load_model(path, sizes={"d": 64})
    assert [dict(kind.program.sizes) for kind in model.layers] == [{"d": 64}, {"d": 64}]
    assert resized(model, {"v": 7}).layers[1].program.sizes == (("d", 64), ("v", 7))
    assert resized(model, {"d": 64}) == model


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"q": 3}, "no program of `own` has an axis `q`"),
        ({"d": 64, "v": 0}, "the size of axis `v` must be at least 1"),
        ({"v": 10**30}, "the size of axis `v` is absurd"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(path, sizes, words):
    with pytest.raises(SizeError) as caught:
        load_model(path, sizes=sizes)
    assert words in str(caught.value)


def test_a_size_that_a_program_fixes_cannot_be_another():
    with pytest.raises(SizeError, match="axis `d` is 4096 in program `embedding`, not 512"):
        load_model("llama3-8b", sizes={"d": 512})
    assert load_model("llama3-8b", sizes={"d": 4096}).layers == load_model("llama3-8b").layers


def test_an_axis_without_a_size_is_one_error_that_names_the_flag(path):
    for command in (f"layer {path} --size d=64,n=2,k=8", f"model {path} --size d=64,n=2,k=8"):
        outcome = run_command(command)
        assert outcome.status == 2
        assert outcome.err == (
            "error: the size of axis `g` of program `block` is not given\n"
            "  expected a line `size g = 64` in the program, or --size g=64\n"
        )


def test_every_command_that_takes_a_model_takes_the_file(path):
    sizes = "--size d=64,n=2,g=4 --size k=8,v=100"
    model = json.loads(run_command(f"model {path} {sizes} --json").out)
    assert model["params"]["total"] == 12 * (64 * 2 * 4 * 8 + 64 * 2 * 8) + 64 * 100
    text = run_command(f"program {path} {sizes} --layer block").out
    assert dict(parse_program(text).sizes) == SIZES
    priced = json.loads(run_command(f"layer {path} {sizes} --mesh data=2,model=4 --shard b=data,h=model --json").out)
    assert [kind["repeat"] for kind in priced["kinds"]] == [12, 1]
    assert priced["inputs"]["strategy"] == "shard"


def test_rules_of_ones_own_are_a_strategy(path):
    answer = layer(path, sizes={**SIZES, "v": 100}, mesh="data=2,model=4", shard="b=data,h=model", sequence=64)
    block = answer.layers.kinds[0]
    moved = [(row.planned.statement.output, c.step.kind, c.step.axes) for row in block.rows for c in row.collectives]
    assert ("out", "all-reduce", ("model",)) in moved
    assert block.planned.resting["wq"].text(("d", "n", "g", "k")) == "d n/model:(1)2 g/model:(2)2 k"
    assert answer.layers.strategy.name == "shard"
    assert answer.layers.strategy.summary == "b -> data, h -> model"
    same = layer(
        path, sizes={**SIZES, "v": 100}, mesh="data=2,model=4", shard={"b": "data", "h": ["model"]}, sequence=64
    )
    assert same.layers.totals == answer.layers.totals


def test_rules_of_ones_own_come_before_those_of_a_strategy():
    plain = layer("llama3-8b", mesh="data=2,model=4", strategy="megatron", sequence=512, batch=2)
    other = layer("llama3-8b", mesh="data=2,model=4", strategy="megatron", shard="d=model", sequence=512, batch=2)
    assert other.layers.strategy.name == "megatron + shard"
    assert other.layers.strategy.compute[0].index == "d"
    assert other.layers.strategy.compute[1:] == load_strategy("megatron").compute
    assert other.layers.totals.received != plain.layers.totals.received


@pytest.mark.parametrize(
    ("shard", "kind", "words"),
    [
        ("b=data,heads=model", StrategyError, "a rule for axis `heads`, which no layer of own has"),
        ("b=data,h=modle", NotationError, "did you mean `model`?"),
        ("b=data,b=model", NotationError, "two rules for index `b`"),
        ("b", NotationError, "`=` is missing after `b`"),
        ("b=data", StrategyError, "mesh axis `model` has no role in strategy `shard`"),
        ("b=data,n=model", StrategyError, "`n` has 2 elements and cannot be divided 4 ways"),
    ],
)
def test_rules_that_mean_nothing_are_refused(path, shard, kind, words):
    with pytest.raises(kind) as caught:
        layer(path, sizes={**SIZES, "v": 100}, mesh="data=2,model=4", shard=shard, sequence=64)
    assert words in str(caught.value)


def test_a_file_may_fix_the_sequence_and_the_batch(tmp_path):
    file = tmp_path / "fixed.ein"
    file.write_text(HEAD.replace("input x", "size b = 4\nsize s = 32\nsize d = 8\nsize v = 16\ninput x", 1))
    report = layer(str(file), mesh="data=2").layers
    assert (report.setup.batch, report.setup.microbatch, report.sequence) == (4, 2, 32)
    assert [report.kinds[0].planned.sizes[axis] for axis in "bs"] == [4, 32]
    with pytest.raises(SizeError, match="fixed fixes the sequence, axis `s`, at 32: it cannot be 64"):
        layer(str(file), mesh="data=2", sequence=64)
    with pytest.raises(SizeError, match="a batch of 4 sequences does not divide over 8"):
        layer(str(file), mesh="data=8")
    with pytest.raises(SizeError, match="fixes the batch, axis `b`, at 4: a microbatch cannot be 1"):
        layer(str(file), mesh="data=2", microbatch=1)


def test_keys_of_another_length_keep_it(tmp_path):
    file = tmp_path / "cross.ein"
    file.write_text(
        "size t = 7\nsize d = 8\ninput x: bf16[b s d]\ninput y: bf16[b t d]\n"
        'scores = einsum("b s d, b t d -> b s t", x, y)\nreturn scores'
    )
    sizes = layer(str(file), sequence=32).layers.kinds[0].planned.sizes
    assert (sizes["s"], sizes["t"]) == (32, 7)


@pytest.mark.parametrize(
    ("text", "words", "guilty"),
    [
        (PYTHON.replace("gelu(einsum", "gelu(einsmu"), "line 5: NameError", "einsmu"),
        (PYTHON.replace("gelu(", "3 / 0 + gelu("), "line 5: ZeroDivisionError: division by zero", "3 / 0"),
        (PYTHON.replace("x, w))", "x, 3))"), "line 5: operand 2 of einsum is int", '"b s d, d f -> b s f"'),
        (PYTHON.replace('"b s d, d f', '"b s, d f'), "has 3 axes [b s d] but the spec reads 2", '"b s, d f -> b s f"'),
        (PYTHON.replace('"b s d, d f', '"b s d, 4 f'), "line 5: `4` is not an axis name", "4"),
        (PYTHON.replace("return", "retrun"), "line 5: SyntaxError", None),
        (PYTHON.replace('"bf16[d f]"', '"bf17[d f]"'), "line 7:", None),
    ],
)
def test_a_fault_of_a_python_file_is_told_with_its_line_and_characters(tmp_path, text, words, guilty):
    file = tmp_path / "own.py"
    file.write_text(text)
    with pytest.raises(EinscaleError) as caught:
        load_model(file)
    error = caught.value
    assert str(error).startswith(f"{file}: ")
    assert words in str(error)
    if guilty is not None:
        lines = str(error).splitlines()[1:3]
        start = lines[1].index("^")
        assert guilty in lines[0][start : start + len(lines[1].strip())]
