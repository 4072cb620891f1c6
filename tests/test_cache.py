"""What is kept of earlier tokens: derived from programs, and right: decoding token by token makes the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interpreter import random_arrays, run
from tiny_configs import CONFIGS

from einscale.errors import ProgramError, StrategyError
from einscale.hardware import load_system
from einscale.layout import make_layout
from einscale.mesh import parse_mesh
from einscale.models import load_model
from einscale.models.values import LayerKind
from einscale.planner.planned import PlannedProgram
from einscale.planner.program import plan_program
from einscale.program.backward import backward
from einscale.program.cache import (
    cached_values,
    decode_program,
    inference_program,
    reads_of_others,
    window,
    with_states,
)
from einscale.program.shapes import program_sizes
from einscale.program.text import parse_program, print_program
from einscale.program.values import Program
from einscale.strategy import Strategy, load_strategy, parse_strategy
from einscale.topology import bind

TOKENS = 6


def layers(name: str, tmp_path: Path) -> tuple[LayerKind, ...]:
    """The layers of a tiny model, dropout and targets taken away."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGS[name]), "utf-8")
    return load_model(str(path)).layers


def sliced(arrays: dict[str, Any], program: Program, start: int, stop: int) -> dict[str, Any]:
    """Inputs for some of the tokens; parameters are left whole."""
    table = program.table
    result = {}
    for name, array in arrays.items():
        axes = table[name].axes
        along = "s" in axes and table[name].kind != "parameter"
        result[name] = np.take(array, range(start, stop), axes.index("s")) if along else array
    return result


def fed(program: Program, caches: dict[str, Any], sizes: dict[str, int], new: int) -> dict[str, Any]:
    """Caches as a step reads them: rows of earlier tokens, and room for the new ones that nobody may read."""
    found = {}
    for name in program.inputs:
        value = program.table[name]
        if value.kind == "cache":
            shape = [new if axis == "t" else sizes[axis] for axis in value.axes]
            room = np.full(shape, np.nan)
            before = caches.get(name)
            found[name] = room if before is None else np.concatenate([before, room], value.axes.index("t"))
    return found


def decoded(program: Program, arrays: dict[str, Any], sizes: dict[str, int], chunks: list[int]) -> list[Any]:
    """First result of a program of new tokens, run on some tokens after the others."""
    results, caches, start = [], {}, 0
    written = {s.output: s.inputs[0] for s in program.statements if s.op == "append"}
    for new in chunks:
        inputs = {name: array for name, array in arrays.items() if name in program.table}
        given = sliced(inputs, program, start, start + new) | fed(program, caches, sizes, new)
        here = {**sizes, "s": new, "t": start + new, "past": start}
        values = run(program, given, here)
        caches = {before: values[after] for after, before in written.items()}
        results.append(values[program.outputs[0]])
        start += new
    return results


RECURRENT = ("qwen3_next",)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in RECURRENT])
@pytest.mark.parametrize("chunks", [[1] * TOKENS, [4, 2], [TOKENS]])
def test_tokens_one_after_the_other_make_what_all_make_at_once(name: str, chunks: list[int], tmp_path: Path) -> None:
    for layer in layers(name, tmp_path):
        whole = inference_program(layer.program)
        given = {k: v for k, v in {"b": 2, "s": TOKENS, "t": TOKENS}.items() if k in axes_of(whole)}
        arrays, sizes = random_arrays(whole, given)
        expected = run(whole, arrays, sizes)[whole.outputs[0]]
        forms = [decode_program(layer.program)]
        if layer.decode is not None:
            keep = cached_values(layer.decode)
            forms = [*forms, decode_program(layer.decode), decode_program(layer.program, keep)]
        for program in forms:
            parts = decoded(program, arrays, sizes, chunks)
            axis = program.table[program.outputs[0]].axes.index("s")
            np.testing.assert_allclose(np.concatenate(parts, axis), expected, rtol=1e-9, atol=1e-9)


def axes_of(program: Program) -> set[str]:
    return {axis for value in program.values for axis in value.axes} | {
        label for statement in program.statements for operand in statement.labels for label in operand
    }


def block(name: str, kind: str = "block") -> Program:
    return load_model(name).layer(kind).program


@pytest.mark.parametrize(
    ("model", "caches"),
    [
        ("gpt2", ["k_cache: bf16[b t n k]", "v_cache: bf16[b t n k]"]),
        ("llama3-8b", ["k_rotated_cache: bf16[b t n k]", "v_cache: bf16[b t n k]"]),
        ("falcon-7b", ["k_rotated_cache: bf16[b t n k]", "v_cache: bf16[b t n k]"]),
    ],
)
def test_keys_and_values_are_kept_as_the_scores_read_them(model: str, caches: list[str]) -> None:
    program = decode_program(block(model))
    assert sorted(str(program.table[name]) for name in program.inputs if "cache" in name) == caches


def test_latents_are_kept_in_place_of_what_is_made_of_them(tmp_path: Path) -> None:
    layer = next(one for one in layers("deepseek_v3", tmp_path) if one.decode is not None)
    assert layer.decode is not None
    kept = cached_values(layer.decode)
    assert kept == ("kv_latent", "k_rotated")
    for program in (decode_program(layer.decode), decode_program(layer.program, kept)):
        fed_axes = {n: program.table[n].axes for n in program.inputs if program.table[n].kind == "cache"}
        assert fed_axes == {"kv_latent_cache": ("b", "t", "l"), "k_rotated_cache": ("b", "t", "r")}
    again = decode_program(layer.program, kept)
    assert again.table["k_all"].axes == ("b", "t", "n", "k")
    assert "k" not in again.table  # made for all tokens at once, not once more for the new ones


def test_a_linear_layer_keeps_a_state_of_fixed_size(tmp_path: Path) -> None:
    layer = next(one for one in layers("qwen3_next", tmp_path) if "delta" in one.kind)
    program = decode_program(layer.program)
    states = {str(program.table[n]) for n in program.inputs if program.table[n].kind == "cache"}
    assert "read_state_cache: fp32[b n g k u]" in states
    assert {text.partition(":")[0] for text in states} == {
        "read_state_cache",
        "q_mixed_state_cache",
        "k_mixed_state_cache",
        "v_mixed_state_cache",
    }
    assert not any(" t " in text or "s" in text.partition("[")[2].split() for text in states)
    assert with_states(layer.program) != layer.program


def test_what_has_no_other_token_in_it_needs_no_cache() -> None:
    for kind in ("embedding", "head"):
        program = decode_program(block("llama3-8b", kind))
        assert not reads_of_others(program)
        assert all(value.kind != "cache" for value in program.values)


def test_requests_need_no_dropout_and_no_loss() -> None:
    program = inference_program(block("gpt2"))
    assert "dropout" in {s.op for s in block("gpt2").statements}
    assert "dropout" not in {s.op for s in program.statements}
    head = inference_program(block("llama3-8b", "head"))
    assert head.inputs == ("x",)
    assert head.outputs == ("logits_fp32",)


def test_a_window_is_one_of_every_mask() -> None:
    assert window(block("gemma2-9b", "window_block")) == 4096
    assert window(block("gemma2-9b")) == 0
    assert window(block("llama3-8b", "head")) == 0


@pytest.mark.parametrize("model", ["gpt2", "llama3-8b", "gemma2-9b"])
def test_a_program_of_new_tokens_reads_back_from_its_text(model: str) -> None:
    program = decode_program(block(model))
    assert parse_program(print_program(program)) == program
    assert decode_program(program) == program  # its keys have an axis of their own: nothing more to keep


def test_a_program_that_trains_answers_no_request() -> None:
    with pytest.raises(ProgramError, match="only a forward pass can answer requests"):
        decode_program(backward(block("llama3-8b")))


def test_a_cache_has_no_gradient() -> None:
    with pytest.raises(ProgramError, match="`append` has no gradient"):
        backward(decode_program(block("llama3-8b")))


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (("kk",), "`kk` cannot be kept for later tokens: program `block` has no such value along `s`"),
        (("wq",), "`wq` cannot be kept for later tokens"),
        (("v",), "`x` is read for every earlier token, and cannot be made from what is kept: v"),
    ],
)
def test_what_cannot_be_kept_is_refused(keep: tuple[str, ...], words: str) -> None:
    with pytest.raises(ProgramError) as caught:
        decode_program(block("llama3-8b"), keep)
    assert words in str(caught.value)


def test_two_axes_of_earlier_tokens_are_refused() -> None:
    text = """
program twice
input x: bf16[b s d]
one = einsum("b s d, b t d -> b s t", x, x)
other = einsum("b s d, b u d -> b s u", x, x)
return one, other
"""
    with pytest.raises(ProgramError, match="reads earlier tokens along several axes: t, u"):
        decode_program(parse_program(text))


def test_rows_that_do_not_fit_a_cache_are_refused() -> None:
    text = "program p\ncache k: bf16[b t n]\ninput x: bf16[b s d]\ny = append(k, x, axis=t)\nreturn y"
    with pytest.raises(ProgramError) as caught:
        parse_program(text)
    assert "append writes rows behind those of `k` [b t n] along `t`: the axes of `x` [b s d]" in str(caught.value)


# ---------------------------------------------------------------- under a strategy


def planned(strategy: Strategy, mesh: str, model: str = "llama3-8b", **sizes: int) -> PlannedProgram:
    program = decode_program(block(model))
    devices = parse_mesh(mesh)
    every = program_sizes(program, defaults={"b": 8, "s": 1, "t": 4096} | sizes)
    return plan_program(program, strategy, devices, every, network=bind(devices, load_system("h100")))


def rests(plan: PlannedProgram, name: str) -> str:
    return plan.resting[name].text(plan.program.table[name].axes)


def moves(plan: PlannedProgram) -> list[str]:
    return [f"{step.kind} {step.tensor.name}" for step in plan.collectives]


def test_heads_divide_the_cache_without_a_move() -> None:
    plan = planned(load_strategy("megatron"), "model=8")
    assert rests(plan, "v_cache") == rests(plan, "v_all") == "b t n/model k"
    assert moves(plan) == ["all-reduce attn_out", "all-reduce mlp_out"]


def test_more_devices_than_key_heads_repeat_the_cache() -> None:
    plan = planned(load_strategy("megatron"), "model=16", b=16)
    assert rests(plan, "v_cache") == "b t n/model:(1)8 k"


def test_a_cache_divided_along_the_keys_reduces_the_softmax() -> None:
    plan = planned(parse_strategy('[compute]\n"attention:t" = "model"\nh = "model"\nf = "model"\n'), "model=8")
    assert rests(plan, "v_cache") == "b t/model n k"
    assert [step for step in moves(plan) if "of masked" in step] == [
        "all-reduce max of masked",
        "all-reduce sum of masked",
    ]
    assert "reduce-scatter attended" in moves(plan)


def test_a_cache_divided_along_the_batch_exchanges_heads_for_sequences() -> None:
    rules = '[compute]\n"attention:b" = ["data", "model"]\nb = "data"\nh = "model"\nf = "model"\n'
    plan = planned(parse_strategy(rules), "model=8")
    assert rests(plan, "k_rotated_cache") == "b/model t n k"
    exchanged = ["v", "k_rotated", "q_rotated", "attended"]
    assert [step for step in moves(plan) if "all-to-all" in step] == [f"all-to-all {name}" for name in exchanged]


def test_one_key_head_is_sliced_not_exchanged() -> None:
    rules = '[compute]\n"attention:b" = ["data", "model"]\nb = "data"\nh = "model"\nf = "model"\n'
    plan = planned(parse_strategy(rules), "model=8", "falcon-7b", b=16)
    assert "slice v" in moves(plan)
    assert "all-to-all v" not in moves(plan)


def test_a_store_rule_divides_the_cache_at_rest() -> None:
    plan = planned(parse_strategy('[compute]\nb = "data"\n[store.kv_cache]\nn = "model"\n'), "data=2,model=4")
    assert rests(plan, "v_cache") == "b/data t n/model k"
    assert "all-gather v_all" in moves(plan)


def test_new_rows_are_whole_where_they_are_written() -> None:
    plan = planned(parse_strategy('[compute]\nb = "data"\ns = "context"\n'), "context=4", s=64)
    append = next(row for row in plan.statements if row.statement.op == "append")
    assert append.work.layouts[1] == make_layout([(), (), (), ()])
    assert append.work.output_layouts[0] == make_layout([(), (), (), ()])
    assert [step.kind for step in append.before] == ["all-gather"]


def test_more_parts_than_keys_are_refused() -> None:
    with pytest.raises(StrategyError, match="`t` has 4 elements and cannot be divided 8 ways"):
        planned(parse_strategy('[compute]\n"attention:t" = "model"\nf = "model"\n'), "model=8", t=4)
