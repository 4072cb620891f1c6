"""The table of maps, checked against what it is said to mean."""

from pathlib import Path

import numpy as np
import pytest
from interpreter import MAPS as RUNS
from interpreter import allowed

from einscale.dtypes import bytes_of
from einscale.errors import ProgramError
from einscale.models import load_model
from einscale.program import (
    MAPS,
    OPS,
    Program,
    Statement,
    Value,
    attended_pairs,
    backward,
    fused_residuals,
    parse_program,
    program_sizes,
    rule,
    saved,
    statistic_axes,
    statistics,
    summed_axes,
    whole_axes,
)
from einscale.program.map_shapes import EACH, SHAPES


def test_every_map_says_why_it_costs_what_it_costs_and_can_be_run():
    assert {name.partition(".")[0] for name in MAPS} == set(RUNS) == set(OPS) - {"einsum"}
    for this in MAPS.values():
        assert this.flops_per_element >= 0
        assert len(this.why) > 5
        assert not set(this.needs) & set(this.takes)


def test_every_shape_that_a_rule_names_is_known():
    assert {this.shape for this in MAPS.values()} == {*SHAPES, *EACH}


def documented(this):
    saves = [f"operand {place + 1}" for place in this.saves_inputs]
    saves += [("result", *this.extra_outputs)[place] for place in this.saves_outputs]
    cells = [f"`{this.name}`", str(this.flops_per_element), this.why, ", ".join(this.statistic), ", ".join(saves)]
    return f"| {' | '.join(cells)} | {'yes' if this.linear else ''} |"


def test_the_page_about_programs_shows_the_table():
    page = (Path(__file__).parent.parent / "docs" / "programs.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in page if line.startswith("| `") and line.partition("`")[2].partition("`")[0] in MAPS]
    assert rows == [documented(this) for this in MAPS.values()]


def statement(text, *, header="input x: bf16[b s d]\nparam w: bf16[d]"):
    """A statement and the table of the program it stands in."""
    program = parse_program(f"{header}\n{text}\nreturn {text.partition(' ')[0].rstrip(',')}")
    return program.statements[-1], program.table


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("y = norm(x, w, axis=d, variant=rms)", ("x", "w")),
        ("y = gelu(x)", ("x",)),
        ("y = relu(x)", ("y",)),
        ("y = swiglu(x, x)", ("x",)),
        ("y = softmax(x, axis=d)", ("y",)),
        ("y, m = dropout(x, rate=0.1)", ("m",)),
        ("y = rope(x, axis=d, sequence=s)", ()),
        ("y = scale(x, factor=2)", ()),
        ("y = add(x, w)", ()),
        ("y = mul(x, w)", ("x", "w")),
        ("y = mask(x, query=b, key=s)", ()),
        ("y = cast(x, dtype=fp32)", ()),
        ('y = einsum("b s d, d -> b s", x, w)', ("x", "w")),
        ('y = einsum("b s d -> b s", x)', ()),
    ],
)
def test_what_a_statement_saves(text, names):
    assert saved(statement(text)[0]) == names


def test_a_loss_saves_its_logits_their_targets_and_the_log_sum_exp():
    header = "input logits: fp32[b s v]\ninput targets: int64[b s]"
    loss, table = statement("loss, lse = cross_entropy(logits, targets, axis=v)", header=header)
    assert saved(loss) == ("logits", "targets", "lse")
    assert (table["lse"].axes, table["lse"].dtype, table["lse"].kind) == (("b", "s"), "fp32", "residual")
    assert statistics(loss) == ("max", "sum", "sum")
    assert statistic_axes(loss, table) == ("b", "s")
    assert summed_axes(loss, table) == ()


def test_the_backward_pass_reads_what_is_saved_and_nothing_else():
    for name in ("llama3-8b", "gpt3-175b", "qwen2.5-7b"):
        for layer in load_model(name).layers:
            program = backward(layer.program)
            kept = {kept for s in program.statements if s.phase == "forward" for kept in saved(s)}
            read = {name for s in program.statements if s.phase == "backward" for name in s.inputs}
            parameters = {value.name for value in program.parameters}
            assert {n for n in read if program.table[n].kind != "gradient"} - parameters == kept - parameters


def saved_bytes(program: Program, sizes: dict[str, int]) -> int:
    kept = dict.fromkeys(name for s in program.statements for name in saved(s))
    values = [program.table[name] for name in kept if program.table[name].kind != "parameter"]
    return sum(
        bytes_of(int(np.prod([sizes[axis] for axis in value.axes], dtype=object)), value.dtype) for value in values
    )


@pytest.mark.parametrize(("batch", "sequence"), [(1, 2048), (4, 1024), (3, 77)])
def test_a_gpt_layer_saves_the_bytes_of_korthikanti_et_al(batch, sequence):
    # arXiv 2205.05198 equation 1: s b h (34 + 5 a s / h).
    model = load_model("gpt3-175b")
    hidden, heads = model.config.hidden, model.config.heads
    program = model.layer("block").program
    sizes = program_sizes(program, {"b": batch, "s": sequence})
    closed = sequence * batch * (34 * hidden + 5 * heads * sequence)
    assert saved_bytes(program, sizes) == closed


def test_a_fused_softmax_keeps_its_log_sum_exp_in_fp32():
    scores, table = statement("y = softmax(x, axis=d)")
    assert fused_residuals(scores, table) == (Value("y_lse", ("b", "s"), "fp32", "residual"),)
    assert fused_residuals(*statement("y = gelu(x)")) == ()


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("y = sum(x, axes=(b s))", ("b", "s")),
        ("y = norm_scale_backward(x, x, axis=d, variant=rms)", ("b", "s")),
        ("y = softmax(x, axis=d)", ()),
        ("y = norm(x, w, axis=d, variant=rms)", ()),
        ("y = add(x, w)", ()),
    ],
)
def test_axes_whose_sum_is_owed(text, axes):
    assert summed_axes(*statement(text)) == axes


def test_a_lookup_owes_the_sum_over_a_sharded_vocabulary_and_its_gradient_that_over_tokens():
    header = "input tokens: int32[b s]\nparam table: bf16[v d]\ninput g: bf16[b s d]"
    assert summed_axes(*statement("y = lookup(table, tokens, axis=v)", header=header)) == ("v",)
    assert summed_axes(*statement("y = lookup_backward(g, tokens, axis=v)", header=header)) == ("b", "s")


def test_statistics_depend_on_the_variant():
    assert statistics(statement("y = norm(x, w, axis=d, variant=rms)")[0]) == ("sum",)
    assert statistics(statement("y = norm(x, w, axis=d, variant=layer)")[0]) == ("sum", "sum")
    assert statistics(statement('y = einsum("b s d -> b", x)')[0]) == ()
    assert rule(statement("y = norm(x, w, axis=d, variant=layer)")[0]).flops_per_element == 7


def test_rope_needs_its_axis_whole():
    assert whole_axes(statement("y = rope(x, axis=d, sequence=s)")[0]) == ("d",)
    assert whole_axes(statement("y = gelu(x)")[0]) == ()


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("window", [0, 1, 3, 5, 9])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 5), (1, 7), (3, 7), (7, 7)])
def test_attended_pairs_are_those_the_mask_lets_through(causal, window, queries, keys):
    options = {"causal": causal, "query": "s", "key": "t"} | ({"window": window} if window and causal else {})
    this = Statement("mask", ("x",), ("y",), options=tuple(sorted(options.items())))
    expected = int(np.broadcast_to(allowed(("s", "t"), (queries, keys), options), (queries, keys)).sum())
    assert attended_pairs(this, queries, keys) == expected
    many = attended_pairs(this, np.array([queries, queries]), np.array([keys, keys]))
    assert many.tolist() == [expected, expected]


def test_other_statements_attend_to_everything():
    assert attended_pairs(Statement("softmax", ("x",), ("y",), options=(("axis", "t"),)), 3, 4) == 12


def test_an_unknown_map_is_refused_with_the_near_miss():
    with pytest.raises(ProgramError) as caught:
        rule(Statement("sofmax", ("x",), ("y",)))
    assert str(caught.value) == "unknown map `sofmax`\n  did you mean `softmax`?"


def test_a_norm_needs_a_known_variant():
    with pytest.raises(ProgramError, match="norm has no variant `batch`"):
        rule(Statement("norm", ("x", "w"), ("y",), options=(("variant", "batch"),)))
    with pytest.raises(ProgramError, match="norm needs the option `variant`"):
        rule(Statement("norm", ("x", "w"), ("y",)))
