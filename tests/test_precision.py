"""Precisions: element types and their scales, presets, what programs are typed and computed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from einscale.dtypes import BITS, SCALES, bits_of, bytes_of, convention
from einscale.errors import HardwareError, NotationError
from einscale.hardware import flop_rate, load_system
from einscale.mesh import parse_mesh
from einscale.models import load_model
from einscale.planner.communication import sent_as
from einscale.planner.program import plan_program
from einscale.precision import FIELDS, PRESETS, Precision, parse_precision, uniform
from einscale.price.program import price_program
from einscale.program import Program, backward, parse_program
from einscale.program.typed import computed, made_of_parameters, quantizable, typed
from einscale.strategy import load_strategy, parse_strategy
from einscale.topology import bind

BLOCKS = {"fp8b": (128, 4), "mxfp8": (32, 1), "mxfp4": (32, 1), "nvfp4": (16, 1), "nf4": (64, 4), "dynamic8": (256, 4)}
"""Block-scaled types: elements that share a scale, and its bytes, as their sources print them."""


def block(name: str = "llama3-8b", kind: str = "block") -> Program:
    return load_model(name).layer(kind).program


@given(elements=st.integers(0, 10**12), name=st.sampled_from(sorted(BLOCKS)))
def test_scales_of_begun_blocks_are_counted(elements: int, name: str) -> None:
    width, scale = BLOCKS[name]
    data = -(-elements * BITS[name] // 8)
    assert bytes_of(elements, name) == data + -(-elements // width) * scale


@given(elements=st.integers(0, 10**9), name=st.sampled_from(sorted(BITS)))
def test_a_share_of_a_scale_is_never_more_than_whole_scales(elements: int, name: str) -> None:
    assert bits_of(elements, name) <= 8 * bytes_of(elements, name)
    assert bits_of(4096 * elements, name) == 8 * bytes_of(4096 * elements, name)


@given(parts=st.lists(st.integers(0, 10**6), min_size=1, max_size=8), name=st.sampled_from(sorted(BITS)))
def test_parts_take_no_less_than_the_whole(parts: list[int], name: str) -> None:
    assert sum(bytes_of(part, name) for part in parts) >= bytes_of(sum(parts), name)


def test_group_quantised_weights_count_scale_and_zero_point() -> None:
    assert SCALES["int4g"] == (128, 16 + 4)
    assert bytes_of(256, "int4g") == 128 + 5  # two groups of 20 bits
    assert bytes_of(1, "int4g") == 1 + 3
    assert convention("int4g") == "4 bits an element and a 20-bit scale for each block of 128"


def test_types_without_scales_stay_as_they_were() -> None:
    assert [bytes_of(7, name) for name in ("fp32", "bf16", "fp8", "int8", "int4")] == [28, 14, 7, 7, 4]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_where_it_comes_from_and_reads_back(name: str) -> None:
    preset = parse_precision(name)
    assert preset.source
    assert str(preset) == name
    assert all(getattr(preset, field) in (*BITS, "") for field in FIELDS)
    assert parse_precision(name.upper()) == preset


@pytest.mark.parametrize(
    ("name", "bytes_a_parameter"),
    [("bf16", 18), ("mixed", 16), ("fp16", 16), ("bf16-zero", 16), ("fp32", 16), ("tf32", 16), ("bf16-pure", 8)],
)
def test_bytes_a_parameter_are_the_published_ones(name: str, bytes_a_parameter: int) -> None:
    one = parse_precision(name)
    parts = (one.parameters, one.gradients, one.optimizer, one.optimizer, one.master)
    assert sum(BITS[part] // 8 for part in parts if part) == bytes_a_parameter


def test_what_differs_from_a_preset_is_written_behind_it() -> None:
    chosen = parse_precision("bf16, gradients = bfloat16 ,master=none")
    assert (chosen.gradients, chosen.master, chosen.optimizer) == ("bf16", "", "fp32")
    assert str(chosen) == "bf16,gradients=bf16,master=none"
    assert parse_precision(str(chosen)) == chosen
    assert parse_precision("bf16,gradients=fp32") == PRESETS["bf16"]
    assert parse_precision("kv-cache=fp8").kv_cache == "fp8"
    assert parse_precision(chosen) is chosen


@given(
    preset=st.sampled_from(sorted(PRESETS)),
    types=st.dictionaries(
        st.sampled_from(["gradients", "optimizer", "activations"]),
        st.sampled_from(["fp32", "bf16", "fp16"]),
        max_size=3,
    ),
)
def test_every_precision_reads_back(preset: str, types: dict[str, str]) -> None:
    chosen = parse_precision(",".join([preset, *(f"{key}={value}" for key, value in types.items())]))
    assert all(getattr(chosen, key) == value for key, value in types.items())
    assert parse_precision(str(chosen)) == chosen


MALFORMED = {
    "bf17": ("no precision is called `bf17`", "did you mean `bf16`?"),
    "bf16,gradient=fp32": ("a precision has no `gradient`", "did you mean `gradients`?"),
    "bf16,gradients=fp33": ("unknown dtype `fp33`", "did you mean `fp32`?"),
    "bf16,fp8": ("`fp8` says no type of anything", "KEY=DTYPE"),
    "bf16,gradients=fp32,gradients=bf16": ("`gradients` is given twice", ""),
    "compute=nf4": ("`nf4` cannot be the type of compute", "nothing is multiplied in it"),
    "gradients=int8": ("`int8` cannot be the type of gradients", "it holds integers"),
    "parameters=int64": ("`int64` cannot be the type of parameters", "nothing of a model is kept in it"),
    "master=mxfp8": ("`mxfp8` cannot be the type of master", "small updates would be lost in it"),
    "": ("no precision is called ``", ""),
}


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_precisions_are_one_message(text: str) -> None:
    with pytest.raises(NotationError) as caught:
        parse_precision(text)
    for words in MALFORMED[text]:
        assert words in str(caught.value)


def test_a_precision_is_text() -> None:
    with pytest.raises(NotationError, match="a precision is named by text, not by int"):
        parse_precision(16)  # type: ignore[arg-type]


def dtypes(program: Program, kind: str) -> set[str]:
    return {value.dtype for value in program.values if value.kind == kind}


@pytest.mark.parametrize("name", ["bf16", "mixed", "fp8", "fp32", "bf16-pure"])
def test_gradients_of_parameters_have_their_own_type(name: str) -> None:
    precision = parse_precision(name)
    program = typed(backward(block(), fused=frozenset({"attention"})), precision)
    table = program.table
    learned = {v.dtype for v in program.values if v.of in table and table[v.of].kind == "parameter"}
    others = {v.dtype for v in program.values if v.kind == "gradient" and table[v.of or ""].kind != "parameter"}
    assert learned == {precision.gradients}
    assert others == {precision.activations}
    assert dtypes(program, "parameter") == {precision.weights}


def test_before_or_after_the_backward_pass_and_twice_is_the_same() -> None:
    precision = parse_precision("fp8-deepseek")
    after = typed(backward(block()), precision)
    assert typed(after, precision) == after
    assert typed(backward(typed(block(), precision)), precision) == after


def test_quantised_weights_are_the_matrices_of_the_layers_alone() -> None:
    precision = parse_precision("int4")
    program = typed(block(), precision)
    narrow = {value.name for value in program.parameters if value.dtype == "int4g"}
    assert narrow == {"wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down"}
    assert dtypes(typed(block(kind="head"), precision), "parameter") == {"bf16"}
    assert quantizable(block(kind="embedding")) == frozenset()


ROUTED = """program p
input x: bf16[b d]
param w_router: bf16[d e]
param w_up: bf16[e d m]
logits = einsum("b d, d e -> b e", x, w_router)
gates = route(logits, axis=e, scoring=softmax, top=2)
sent = dispatch(x, gates, axis=e)
up = einsum("e b d, e d m -> e b m", sent, w_up)
weighed = mul(up, gates)
y = combine(weighed, axis=e)
return y
"""


def test_a_router_is_neither_quantised_nor_computed_narrower() -> None:
    program = backward(parse_program(ROUTED))
    assert quantizable(program) == {"w_up"}
    rates = computed(program, parse_precision("fp8-deepseek"))
    assert rates["logits"] == rates["d_w_router"] == "bf16"
    assert rates["up"] == rates["d_w_up"] == "fp8b"


def test_attention_is_computed_in_the_activations_type() -> None:
    program = backward(block(), fused=frozenset({"attention"}))
    rates = computed(program, parse_precision("fp8"))
    core = {name for name, dtype in rates.items() if dtype == "bf16"}
    grouped = {s.output for s in program.statements if s.op == "einsum" and s.group == "attention"}
    assert core == grouped
    assert set(rates.values()) == {"fp8", "bf16"}


def test_the_head_keeps_its_type_in_fp8_and_not_in_tf32() -> None:
    program = backward(block(kind="head"))
    assert set(computed(program, parse_precision("fp8")).values()) == {"bf16"}
    assert set(computed(program, parse_precision("tf32")).values()) == {"tf32"}


def test_what_is_made_of_weights_alone_counts_as_one() -> None:
    program = parse_program(
        """program absorbed
        input q: bf16[b k]
        param w_k: bf16[l k]
        param w_v: bf16[l u]
        both = einsum("l k, l u -> k u", w_k, w_v)
        y = einsum("b k, k u -> b u", q, both)
        return y
        """.replace("\n        ", "\n")
    )
    assert "both" in made_of_parameters(program)
    assert set(computed(program, parse_precision("fp8")).values()) == {"fp8"}


def test_casts_say_the_type_they_make() -> None:
    program = parse_program("program p\ninput x: fp32[b]\ny = cast(x, dtype=bf16)\nreturn y")
    cast = typed(program, parse_precision("fp16")).statements[0]
    assert cast.option("dtype") == "fp16"


def priced(precision: Precision | str, system: str = "h100", whole: bool = True) -> dict[str, float]:
    chosen = uniform(precision) if isinstance(precision, str) else precision
    program = typed(backward(block(), fused=frozenset({"attention"})), chosen)
    sizes = {**dict(program.sizes), "b": 8, "s": 4096, "t": 4096}
    mesh = parse_mesh("data=8")
    planned = plan_program(program, load_strategy("dp"), mesh, sizes)
    rows = price_program(planned, bind(mesh, load_system(system).ideal()), precision)
    return {row.planned.statement.output: row.local.compute_seconds for row in rows}


def test_fp8_halves_the_weights_products_and_not_attention() -> None:
    bf16, fp8 = priced(parse_precision("bf16")), priced(parse_precision("fp8"))
    chip = load_system("h100").ideal().chip
    ratio = flop_rate(chip, "fp8") / flop_rate(chip, "bf16")
    assert fp8["gate"] == pytest.approx(bf16["gate"] / ratio)
    assert fp8["d_wq"] == pytest.approx(bf16["d_wq"] / ratio)
    assert fp8["scores"] == bf16["scores"] > 0


def test_one_type_for_everything_prices_as_its_precision() -> None:
    assert priced("bf16") == priced(uniform("bf16"))


def test_weights_alone_compute_in_the_activations_type_on_any_chip() -> None:
    assert priced(parse_precision("int8,parameters=bf16"), "a100")["gate"] > 0
    with pytest.raises(HardwareError, match="has no matrix FLOP/s figure for fp8"):
        priced(parse_precision("fp8"), "a100")


def test_gradients_travel_in_the_type_of_communication() -> None:
    precision = parse_precision("bf16,communication=bf16")
    program = typed(backward(block()), precision)
    sizes = {**dict(program.sizes), "b": 8, "s": 16, "t": 16}
    planned = plan_program(program, load_strategy("fsdp"), parse_mesh("data=8"), sizes)
    scattered = [step for step in sent_as(planned, precision).collectives if step.kind == "reduce-scatter"]
    assert {step.tensor.dtype for step in scattered} == {"bf16"}
    assert {step.tensor.dtype for step in planned.collectives if step.kind == "reduce-scatter"} == {"fp32"}
    assert sent_as(planned, parse_precision("bf16")) is planned


def test_tokens_travel_to_their_experts_in_their_own_type() -> None:
    program = typed(backward(parse_program(ROUTED)), parse_precision("fp8-deepseek"))
    strategy = parse_strategy('[compute]\n"experts:e" = "expert"\nb = "expert"\n')
    sizes = {"b": 64, "d": 256, "e": 8, "m": 32}
    grouped = program_in_groups(program)
    planned = plan_program(grouped, strategy, parse_mesh("expert=4"), sizes)
    sent = sent_as(planned, parse_precision("fp8-deepseek")).collectives
    tokens = {step.tensor.name: step.tensor.dtype for step in sent if step.kind == "all-to-all"}
    assert tokens["sent"] == "fp8b"
    assert tokens["d_weighed"] == "fp8b"  # what the backward pass sends to the experts
    assert set(tokens.values()) == {"fp8b", "bf16"}


def program_in_groups(program: Program) -> Program:
    """The same with the products of the experts in a group of their own."""
    return replace(
        program,
        statements=tuple(
            replace(s, group="experts") if s.labels and s.labels[0][:2] == ("e", "b") else s for s in program.statements
        ),
    )
