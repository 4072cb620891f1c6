"""Mixtures of experts, latent attention, linear layers, further tokens: counts, kinds, what the blocks compute."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import run_command
from interpreter import random_arrays, run
from reference import attended, heads_of, joined, rms, sigmoid, silu, swiglu_mlp, turned
from tiny_configs import CONFIGS, DEEPSEEK, EXPERTS, GPT_OSS, LLAMA, MIXTRAL, QWEN3_NEXT

from einscale.api.layer import layer
from einscale.errors import ModelError, ProgramError
from einscale.models import (
    Model,
    ahead_kinds,
    layer_kinds,
    list_models,
    load_model,
    model_flops,
    parameter_counts,
    read_config,
)
from einscale.models.counts import routed_parameters
from einscale.program import backward, differentiate, parse_program, print_program, saved
from einscale.program.maps import flops_per_element, whole_axes

HF = Path(__file__).parent / "data" / "hf_configs"


def facts(data, name="tiny"):
    return read_config(data, name)[0]


def kinds(data):
    return {kind.kind: kind for kind in layer_kinds(facts(data))}


def values_of(program, seed=0):
    """Every value of a program at batch 2, sequence 6; its output as `result`."""
    arrays, sizes = random_arrays(program, {"b": 2, "s": 6}, seed)
    values = run(program, arrays, sizes)
    return values | {"result": values[program.outputs[0]]}


def agrees(program, expected):
    values = values_of(program)
    assert np.allclose(values["result"], expected(values["x"], values), rtol=1e-9, atol=1e-11)


KINDS = {
    "mixtral-8x7b": [("moe_block", 32)],
    "qwen3-30b-a3b": [("moe_block", 48)],
    "deepseek-v2-lite": [("dense_block", 1), ("moe_block", 26)],
    "deepseek-v3": [("dense_block", 3), ("moe_block", 58)],
    "kimi-k2": [("dense_block", 1), ("moe_block", 60)],
    "gpt-oss-20b": [("window_moe_block", 12), ("moe_block", 12)],
    "gpt-oss-120b": [("window_moe_block", 18), ("moe_block", 18)],
    "qwen3-next-80b-a3b": [("delta_moe_block", 36), ("moe_block", 12)],
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_layer_are_named_after_what_they_do_in_the_order_they_run_first(name):
    model = load_model(name)
    assert [(kind.kind, kind.repeat) for kind in model.layers] == [("embedding", 1), *KINDS[name], ("head", 1)]
    for kind in model.layers:
        assert (kind.program.name, kind.program.repeat) == (kind.kind, kind.repeat)
        assert (kind.decode is not None) == (model.config.latent is not None and kind.kind.endswith("block"))


def test_dense_models_keep_their_names_and_have_no_share():
    model = load_model("gemma2-9b")
    assert [kind.kind for kind in model.layers] == ["embedding", "window_block", "block", "head"]
    counts = parameter_counts(model)
    assert (counts.active, counts.routed, counts.ahead) == (counts.total, 0, 0)


def test_counts_of_models_outside_of_the_truth():
    # Model card of gpt-oss (arXiv 2508.10925), table 1: 116.83B, of which 5.13B active without the embedding's table.
    counts = parameter_counts(load_model("gpt-oss-120b"))
    assert round(counts.total / 1e9, 2) == 116.83
    assert round((counts.active - 201088 * 2880) / 1e9, 2) == 5.13
    # The same card for the smaller one: 20.91B and 3.61B.
    counts = parameter_counts(load_model("gpt-oss-20b"))
    assert round(counts.total / 1e9, 2) == 20.91
    assert round((counts.active - 201088 * 2880) / 1e9, 2) == 3.61
    # Kimi K2: DeepSeek-V3's block by hand, with 64 heads and 384 experts.
    d, heads = 7168, 64
    latent = d * 1536 + 1536 * heads * 192 + d * 576 + 512 * heads * 256 + heads * 128 * d + 1536 + 512
    expert, norms = 3 * d * 2048, 2 * d
    routed = latent + norms + d * 384 + 385 * expert
    total = 2 * 163840 * d + d + 60 * routed + latent + norms + 3 * d * 18432
    counts = parameter_counts(load_model("kimi-k2"))
    assert (counts.total, counts.active) == (total, total - 60 * 376 * expert)


def test_the_prediction_of_a_further_token_is_counted_apart():
    # DeepSeek-V3's README: 11.5B parameters of its own, 14B with the embedding and head that it shares, 671B without.
    counts = parameter_counts(load_model("deepseek-v3"))
    assert counts.total == 671_026_404_352
    assert counts.ahead == 11_507_286_016 + 2 * 7168**2 + 3 * 7168
    shared = 2 * 129280 * 7168
    assert 13.4e9 < counts.ahead + shared < 14e9


def test_only_what_a_chosen_operand_meets_is_routed():
    program = kinds(GPT_OSS)["moe_block"].program
    names = ("w_gate", "w_up", "w_down", "b_gate", "b_up", "b_down")
    assert routed_parameters(program) == dict.fromkeys(names, (2, 4))
    assert routed_parameters(kinds(LLAMA)["block"].program) == {}


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe", "qwen3_next", "gpt_oss"])
def test_both_spellings_of_the_number_of_experts_are_read(name):
    data = dict(CONFIGS[name])
    key = "num_experts" if "num_experts" in data else "num_local_experts"
    other = {"num_experts": "num_local_experts", "num_local_experts": "num_experts"}[key]
    renamed = {other if name == key else name: value for name, value in data.items()}
    assert facts(renamed) == facts(data)
    assert facts(data).experts.count == 4


def chosen_mlp(x, p, weights_of, expert):
    """Sum over the chosen experts of each token, one token at a time; `weights_of` makes {expert: weight} of logits."""
    result = np.zeros_like(x)
    for b in range(x.shape[0]):
        for s in range(x.shape[1]):
            for e, weight in weights_of(x[b, s] @ p["router"] + p.get("router_bias", 0.0)).items():
                result[b, s] += weight * expert(x[b, s], e)
    return result


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def top_two(logits):
    """Mixtral: the softmax over the two largest logits alone."""
    best = np.argsort(-logits)[:2]
    return dict(zip(best, softmax(logits[best]), strict=True))


def plain_expert(p):
    return lambda x, e: swiglu_mlp(x, p["w_gate"][e], p["w_up"][e], p["w_down"][e])


def llama_attention(x, p, theta=10000.0):
    q, k, v = (heads_of(x, p[f"w{c}"], 4, p.get(f"b{c}", 0.0)) for c in "qkv")
    return joined(attended(turned(q, theta), turned(k, theta), v, 0.5), p["wo"])


def test_mixtral_weighs_its_experts_by_a_softmax_over_the_chosen():
    def expected(x, p):
        mid = x + llama_attention(rms(x, p["attn_norm"], 1e-5), p, theta=1e6)
        return mid + chosen_mlp(rms(mid, p["mlp_norm"], 1e-5), p, top_two, plain_expert(p))

    agrees(kinds(MIXTRAL)["moe_block"].program, expected)


def test_qwen_2_moe_has_a_gated_shared_expert_and_weights_that_do_not_sum_to_one():
    def weights(logits):
        return {e: softmax(logits)[e] for e in np.argsort(-logits)[:2]}

    def expected(x, p):
        mid = x + llama_attention(rms(x, p["attn_norm"]), p)
        h = rms(mid, p["mlp_norm"])
        shared = swiglu_mlp(h, p["w_shared_gate"], p["w_shared_up"], p["w_shared_down"])
        share = sigmoid(h @ p["shared_router"])[..., None]
        return mid + chosen_mlp(h, p, weights, plain_expert(p)) + share * shared

    found = kinds(CONFIGS["qwen2_moe"])
    agrees(found["moe_block"].program, expected)
    assert [(name, kind.repeat) for name, kind in found.items()][1:3] == [("dense_block", 1), ("moe_block", 2)]
    assert {"bq", "bk", "bv"} <= {value.name for value in found["moe_block"].program.parameters}


def test_qwen_3_moe_may_route_every_other_layer():
    config = facts(CONFIGS["qwen3_moe"])
    assert (config.mlps, config.experts.normalise, config.qk_norm) == ("ded", True, "head")
    assert facts(CONFIGS["qwen3_moe"] | {"mlp_only_layers": [1]}).experts is None
    assert facts(CONFIGS["qwen3_moe"] | {"decoder_sparse_step": 1, "mlp_only_layers": [2]}).mlps == "eed"


def test_gpt_oss_clamps_its_experts_and_attends_to_nothing():
    data = GPT_OSS | {"swiglu_limit": 0.7}

    def expert(p):
        def one(x, e):
            gate = np.minimum(x @ p["w_gate"][e] + p["b_gate"][e], 0.7)
            up = np.clip(x @ p["w_up"][e] + p["b_up"][e], -0.7, 0.7)
            return ((up + 1) * gate * sigmoid(1.702 * gate)) @ p["w_down"][e] + p["b_down"][e]

        return one

    def expected(window):
        def block(x, p):
            h = rms(x, p["attn_norm"], 1e-5)
            q, k, v = (heads_of(h, p[f"w{c}"], 4, p[f"b{c}"]) for c in "qkv")
            made = attended(turned(q, 150000.0), turned(k, 150000.0), v, 0.5, window=window, sinks=p["sink"].ravel())
            mid = x + joined(made, p["wo"]) + p["bo"]
            return mid + chosen_mlp(rms(mid, p["mlp_norm"], 1e-5), p, top_two, expert(p))

        return block

    found = kinds(data)
    assert [(name, kind.repeat) for name, kind in found.items()][1:3] == [("window_moe_block", 2), ("moe_block", 1)]
    agrees(found["window_moe_block"].program, expected(3))
    agrees(found["moe_block"].program, expected(0))


def latent_reference(x, p, normed_queries=True):
    """Multi-head latent attention with whole keys, rotated and plain parts side by side."""
    if normed_queries:
        latent = rms(x @ p["w_dq"], p["q_latent_norm"])
        q, q_turned = np.einsum("bsq,qnk->bsnk", latent, p["w_uq"]), np.einsum("bsq,qnr->bsnr", latent, p["w_qr"])
    else:
        q, q_turned = np.einsum("bsd,dnk->bsnk", x, p["wq"]), np.einsum("bsd,dnr->bsnr", x, p["w_qr"])
    latent = rms(x @ p["w_dkv"], p["kv_latent_norm"])
    k, v = np.einsum("bsl,lnk->bsnk", latent, p["w_uk"]), np.einsum("bsl,lnu->bsnu", latent, p["w_uv"])
    k_turned = np.broadcast_to(turned((x @ p["w_kr"])[:, :, None]), (*k.shape[:3], 2))
    q, k = np.concatenate([q, turned(q_turned)], -1), np.concatenate([k, k_turned], -1)
    return joined(attended(q, k, v, 6**-0.5), p["wo"])


def node_limited(logits):
    """DeepSeek-V3: sigmoid scores; the better one of two groups by its two best; normalised, times 2.5."""
    scores = sigmoid(logits)
    group = int(np.argmax(scores.reshape(2, 2).sum(-1)))
    best = [2 * group, 2 * group + 1]
    return {e: 2.5 * scores[e] / scores[best].sum() for e in best}


def test_deepseek_v3_attends_through_latents_and_chooses_within_groups():
    def expected(x, p):
        mid = x + latent_reference(rms(x, p["attn_norm"]), p)
        h = rms(mid, p["mlp_norm"])
        shared = swiglu_mlp(h, p["w_shared_gate"], p["w_shared_up"], p["w_shared_down"])
        return mid + chosen_mlp(h, p, node_limited, plain_expert(p)) + shared

    program = kinds(DEEPSEEK)["moe_block"].program
    assert dict(program.sizes) | {"f": 10, "u": 3, "r": 2, "q": 7, "l": 6} == dict(program.sizes)
    agrees(program, expected)


def test_deepseek_v2_lite_projects_its_queries_directly():
    def expected(x, p):
        mid = x + latent_reference(rms(x, p["attn_norm"]), p, normed_queries=False)
        return mid + swiglu_mlp(rms(mid, p["mlp_norm"]), p["w_gate"], p["w_up"], p["w_down"])

    agrees(kinds(CONFIGS["deepseek_v2"])["dense_block"].program, expected)
    experts = facts(CONFIGS["deepseek_v2"]).experts
    assert (experts.scoring, experts.normalise, experts.groups) == ("softmax", False, 2)
    assert facts(CONFIGS["deepseek_v2"] | {"topk_method": "greedy"}).experts.groups == 1


@pytest.mark.parametrize("name", ["deepseek_v3", "deepseek_v2", "kimi_k2"])
def test_the_absorbed_form_computes_the_same(name):
    for kind in layer_kinds(facts(CONFIGS[name])):
        if kind.decode is None:
            continue
        assert kind.decode.parameters == kind.program.parameters
        assert kind.decode.repeat == kind.repeat
        arrays, sizes = random_arrays(kind.program, {"b": 2, "s": 6})
        first, second = (run(program, arrays, sizes)["out"] for program in (kind.program, kind.decode))
        assert np.allclose(first, second, rtol=1e-9, atol=1e-11)


def test_decoding_reads_only_the_latent_and_the_shared_rotated_key_of_other_tokens():
    program = load_model("deepseek-v3").layer("moe_block").decode
    keys = {
        name
        for statement in program.statements
        if statement.op == "einsum"
        for name, labels in zip(statement.inputs, statement.labels, strict=False)
        if "t" in labels and "s" not in labels
    }
    sizes = dict(program.sizes)
    assert keys == {"kv_latent", "k_rotated"}
    # 576 numbers a token and layer: DeepSeek-V2, arXiv 2405.04434, section 2.1.
    assert sum(sizes[program.table[name].axes[-1]] for name in keys) == 576


def test_a_further_token_is_predicted_by_a_block_of_its_own_and_the_models_head():
    config = facts(DEEPSEEK)
    (ahead,) = ahead_kinds(config)
    program = ahead.program
    assert (ahead.kind, ahead.repeat, program.tied) == ("ahead", 1, ("embedding", "lm_head"))
    values = values_of(program)

    def block(x, p):
        mid = x + latent_reference(rms(x, p["attn_norm"]), p)
        h = rms(mid, p["mlp_norm"])
        shared = swiglu_mlp(h, p["w_shared_gate"], p["w_shared_up"], p["w_shared_down"])
        return mid + chosen_mlp(h, p, node_limited, plain_expert(p)) + shared

    both = np.concatenate(
        [rms(values["x"], values["state_norm"]), rms(values["embedding"][values["tokens"]], values["token_norm"])], -1
    )
    joined_projection = np.concatenate([values["project_state"], values["project_token"]])
    h = rms(block(both @ joined_projection, values), values["ahead_norm"])
    logits = h @ values["lm_head"].T
    picked = np.take_along_axis(logits, values["targets"][..., None], -1)[..., 0]
    assert np.allclose(values["loss"], np.log(np.exp(logits).sum(-1)) - picked)
    differentiate(program)
    assert ahead_kinds(facts(DEEPSEEK | {"num_nextn_predict_layers": 0})) == ()
    assert ahead_kinds(facts(LLAMA)) == ()


def test_qwen3_next_gates_what_its_attention_reads():
    def expected(x, p):
        h = rms(x, p["attn_norm"])
        q, k, v = (heads_of(h, p[f"w{c}"], 4) for c in "qkv")
        q, k = rms(q, p["q_norm"]), rms(k, p["k_norm"])
        made = attended(turned(q, size=2), turned(k, size=2), v, 0.5) * sigmoid(heads_of(h, p["w_out_gate"], 4))
        mid = x + joined(made, p["wo"])
        return mid + next_mlp(rms(mid, p["mlp_norm"]), p)

    agrees(kinds(QWEN3_NEXT)["moe_block"].program, expected)


def next_mlp(h, p):
    shared = swiglu_mlp(h, p["w_shared_gate"], p["w_shared_up"], p["w_shared_down"])
    return chosen_mlp(h, p, top_two, plain_expert(p)) + sigmoid(h @ p["shared_router"])[..., None] * shared


def convolved(x, weight):
    """Causal convolution of [b, s, channels], one tap at a time; the last tap is on the token itself."""
    padded = np.concatenate([np.zeros((x.shape[0], weight.shape[-1] - 1, x.shape[2])), x], 1)
    return silu(sum(padded[:, age : age + x.shape[1]] * weight[:, age] for age in range(weight.shape[-1])))


def test_the_gated_delta_net_is_that_of_its_paper():
    """Yang et al. 2024, equation 10: S_t = S_{t-1} a (I - b k k') + b v k', the state as a matrix values x keys."""

    def expected(x, p):
        h = rms(x, p["attn_norm"])
        q, k = (convolved(h @ p[f"w{c}"].reshape(12, -1), p[f"conv_{c}"].reshape(-1, 4)) for c in "qk")
        v = convolved(h @ p["wv"].reshape(12, -1), p["conv_v"].reshape(-1, 4)).reshape(2, 6, 4, 5)
        q, k = (np.repeat(y.reshape(2, 6, 2, 3), 2, axis=2) for y in (q, k))
        q, k = (y / np.sqrt((y * y).sum(-1, keepdims=True) + 1e-6) for y in (q, k))
        rate = sigmoid(h @ p["w_rate"].reshape(12, 4))
        step = np.log1p(np.exp(h @ p["w_decay"].reshape(12, 4) + p["dt_bias"].ravel()))
        keep = np.exp(-np.exp(p["a_log"].ravel()) * step)
        made = np.zeros((2, 6, 4, 5))
        for b in range(2):
            for head in range(4):
                state = np.zeros((5, 3))
                for s in range(6):
                    key, r = k[b, s, head], rate[b, s, head]
                    state = keep[b, s, head] * state @ (np.eye(3) - r * np.outer(key, key))
                    state = state + r * np.outer(v[b, s, head], key)
                    made[b, s, head] = state @ q[b, s, head] / 3**0.5
        z = (h @ p["wz"].reshape(12, -1)).reshape(made.shape)
        mid = x + joined(rms(made, p["out_norm"]) * silu(z), p["wo"])
        return mid + next_mlp(rms(mid, p["mlp_norm"]), p)

    program = kinds(QWEN3_NEXT)["delta_moe_block"].program
    assert dict(program.sizes) | {"n": 2, "g": 2, "k": 3, "u": 5, "c": 4, "f": 3} == dict(program.sizes)
    agrees(program, expected)


def test_a_recurrence_needs_its_sequence_whole_and_saves_what_it_reads():
    program = load_model("qwen3-next-80b-a3b").layer("delta_moe_block").program
    by_op = {statement.op: statement for statement in program.statements}
    assert whole_axes(by_op["delta_rule"]) == ("k", "s", "u")
    assert whole_axes(by_op["causal_conv"]) == ("s", "c")
    assert saved(by_op["delta_rule"]) == ("q_copied", "k_copied", "v_active", "decay", "rate")
    # For each token and head 6 k u with the state and C (6 k + 4 u) inside chunks of C = 64: here k = u = 128.
    assert flops_per_element(by_op["delta_rule"]) * 128 == 6 * 128 * 128 + 64 * 10 * 128
    assert flops_per_element(by_op["causal_conv"]) == 2 * 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("y = causal_conv(x, w, sequence=s, taps=c, width=4)", "takes a weight of axes of it and `c`"),
        ("y = causal_conv(x, x, sequence=s, taps=c, width=4)", "takes a weight of axes of it and `c`"),
        ("y = causal_conv(x, v, sequence=s, taps=c)", "causal_conv needs the option `width`"),
        ("y = causal_conv(x, v, sequence=s, taps=c, width=1.5)", "must be a whole number"),
        (
            "y = delta_rule(x, x, v, x, x, axis=k, value=u, sequence=s, chunk=64, flops=9)",
            "delta_rule reads `v` with axes [b s u]",
        ),
        ("y = delta_rule(x, x, axis=k, value=u, sequence=s, chunk=64, flops=9)", "delta_rule takes 5 operands"),
        ("y = swiglu_clamped(x, x, limit=0, alpha=1)", "option `limit` of swiglu_clamped must be larger than 0"),
    ],
)
def test_faulty_statements_of_the_new_maps_are_told(line, words):
    text = f"input x: bf16[b s k]\nparam w: bf16[d c]\nparam v: bf16[k c]\n{line}\nreturn y"
    with pytest.raises(ProgramError) as caught:
        parse_program(text)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_programs_print_and_parse_back_with_their_backward_pass(name):
    model = load_model(name)
    for kind in (*model.layers, *model.ahead):
        for program in filter(None, (kind.program, kind.decode, backward(kind.program))):
            assert parse_program(print_program(program)) == program


REFUSED = [
    (MIXTRAL | {"num_experts_per_tok": 5}, '"num_experts_per_tok" is 5, more than the 4 experts'),
    ({key: value for key, value in MIXTRAL.items() if key != "num_local_experts"}, 'size "num_experts" is missing'),
    (CONFIGS["qwen3_moe"] | {"mlp_only_layers": [3]}, '"mlp_only_layers" names layer 3'),
    (CONFIGS["qwen3_moe"] | {"mlp_only_layers": 2}, '"mlp_only_layers" is no list of layers'),
    (LLAMA | EXPERTS | {"model_type": "qwen2_moe"}, 'the size "shared_expert_intermediate_size" is missing'),
    (DEEPSEEK | {"n_group": 3}, '"n_group" is 3, which does not divide the 4 experts'),
    (DEEPSEEK | {"topk_group": 3}, '"topk_group" is 3, more than the 2 groups'),
    (DEEPSEEK | {"qk_rope_head_dim": 3}, '"qk_rope_head_dim" is 3'),
    (DEEPSEEK | {"moe_layer_freq": 2}, '"moe_layer_freq" is 2'),
    (DEEPSEEK | {"num_nextn_predict_layers": -1}, '"num_nextn_predict_layers" is -1'),
    ({key: value for key, value in DEEPSEEK.items() if key != "q_lora_rank"}, 'the size "q_lora_rank" is missing'),
    ({key: value for key, value in DEEPSEEK.items() if key != "n_routed_experts"}, '"n_routed_experts" is missing'),
    (QWEN3_NEXT | {"linear_num_value_heads": 3}, '"linear_num_value_heads" is 3, which the 2 key heads do not divide'),
    (QWEN3_NEXT | {"layer_types": ["full_attention"] * 3}, '"layer_types" does not fit'),
    (QWEN3_NEXT | {"layer_types": ["sliding_attention"] * 4}, "each full_attention or linear_attention"),
    (QWEN3_NEXT | {"partial_rotary_factor": 0.3}, '"partial_rotary_factor" makes 1 of 4 elements'),
    (GPT_OSS | {"swiglu_limit": 0}, '"swiglu_limit" is 0'),
]


@pytest.mark.parametrize(("data", "words"), REFUSED)
def test_what_cannot_be_built_is_refused_with_its_line(tmp_path, data, words):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data, indent=1))
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert words in str(caught.value)


def test_a_routed_model_may_have_no_shared_expert_or_no_routed_layer():
    assert facts(DEEPSEEK | {"n_shared_experts": 0}).experts.shared == 0
    assert facts(DEEPSEEK | {"n_shared_experts": None}).experts.shared == 0
    dense = facts(DEEPSEEK | {"first_k_dense_replace": 3})
    assert (dense.experts, dense.mlps) == (None, "")
    assert [kind.kind for kind in layer_kinds(dense)] == ["embedding", "block", "head"]


def test_granite_scales_what_it_adds_and_its_logits():
    def expected(x, p):
        h = rms(x, p["attn_norm"])
        q, k, v = (heads_of(h, p[f"w{c}"], 4) for c in "qkv")
        mid = x + 0.25 * joined(attended(turned(q), turned(k), v, 0.2), p["wo"])
        return mid + 0.25 * swiglu_mlp(rms(mid, p["mlp_norm"]), p["w_gate"], p["w_up"], p["w_down"])

    found = kinds(CONFIGS["granite"])
    agrees(found["block"].program, expected)
    values = values_of(found["head"].program)
    assert np.allclose(values["logits_fp32"], rms(values["x"], values["final_norm"]) @ values["lm_head"].T / 8)


def test_a_model_of_every_new_family_counts_what_its_class_would_make():
    # Microsoft Phi-3-mini-4k: 3,821,079,552 parameters; Mixtral and the others are in the truth.
    phi3 = {"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32}
    phi3 |= {"num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "sliding_window": 2047}
    config = facts(phi3)
    assert parameter_counts(Model("phi-3-mini", layer_kinds(config), "", config)).total == 3_821_079_552
    # Qwen1.5-MoE-A2.7B: 14.3B parameters, 2.7B active (its model card).
    qwen = {"model_type": "qwen2_moe", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24}
    qwen |= {"num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 151936, "num_experts": 60}
    qwen |= {"num_experts_per_tok": 4, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632}
    config = facts(qwen)
    counts = parameter_counts(Model("qwen1.5-moe", layer_kinds(config), "", config))
    assert round(counts.total / 1e9, 1) == 14.3
    assert round(counts.active / 1e9, 1) == 2.7


@pytest.mark.parametrize("name", list_models())
def test_every_preset_runs_on_one_device_and_needs_the_memory_of_its_parameters(name):
    report = layer(name, mesh="data=1", strategy="dp", sequence=512, batch=1).layers
    model = load_model(name)
    counts = parameter_counts(model)
    held = (counts.total + counts.ahead) * (2 if model.config.dtype != "fp32" else 4)  # what only training runs, too
    assert report.memory.parameters == held
    assert report.memory.saved > 512 * model.config.layers * 2 * model.config.hidden
    # Fused attention works on the pairs its mask lets through, and makes their scores again in the backward pass.
    assert report.totals.flops > model_flops(model, 512, convention="causal").total
    assert all(not row.collectives for kind in report.kinds for row in kind.rows)


def saved_per_token(model, kind):
    report = layer(model, mesh="data=1", strategy="dp", sequence=512, batch=1).layers
    return next(one for one in report.kinds if one.kind == kind).saved_bytes / 512


def test_what_a_routed_block_saves_by_hand():
    """Numbers of 2 bytes: stream and norms, queries, keys, values, what is attended; of two experts all they make."""
    d, m = 4096, 14336
    stream = 6 * d + 2 * 1024  # x, attn_in, q, k and v, attended, mid, mlp_in
    experts = 2 * (d + 3 * m)  # arranged; gate, up, and hidden times the weights
    lse, router = 4 * 32, 2 * (8 + 2)  # log-sum-exp of each head; logits and the two weights
    assert saved_per_token("mixtral-8x7b", "moe_block") == 2 * (stream + experts) + lse + router


def test_what_latent_attention_saves_by_hand():
    """Materialised for training, as a fused attention needs it: queries and keys of 128 + 64, values of 128 a head."""
    d, f, heads = 2048, 10944, 16
    stream = 4 * d  # x, attn_in, mid, mlp_in
    latents = 2 * 512  # before its norm, and after
    core = heads * (128 + 64 + 128 + 128 + 128) + 64  # q, q_rotated, k, v, attended; k_rotated
    assert saved_per_token("deepseek-v2-lite", "dense_block") == 2 * (stream + latents + core + 3 * f) + 4 * heads


EXPERT_PARALLEL = """
name = "expert-parallel"
summary = "experts divided over the axis expert, tokens over both"

[compute]
"experts:e" = "expert"
b = ["data", "expert"]
"""


def test_experts_are_divided_and_their_tokens_exchanged(tmp_path):
    strategy = tmp_path / "ep.toml"
    strategy.write_text(EXPERT_PARALLEL)
    words = ("layer", "deepseek-v3", "--mesh", "data=2,expert=8", "--strategy", str(strategy), "--seq", "512")
    answer = run_command(*words, "--batch", "16", "--json")
    document = json.loads(answer.out)
    kind = next(kind for kind in document["kinds"] if kind["kind"] == "moe_block")
    moved = [(step["tensor"], step["kind"]) for row in kind["statements"] for step in row["collectives"]]
    assert {("dispatched", "all-to-all"), ("expert_out", "all-to-all"), ("d_expert_out", "all-to-all")} <= set(moved)


def test_the_command_shows_experts_latents_and_what_a_token_meets():
    text = run_command("model", "deepseek-v3").out
    for words in (
        "37.6B active for one token",
        "8 of 256 experts of 2048 and 2048 shared",
        "latent attention: 512 for keys and values and 64 rotated are kept of a token, queries through 1536",
        "experts in 58 of 61 layers, chosen by sigmoid, weights normalised, from 4 of 8 groups, weights times 2.5",
        "training only, not in the total",
    ):
        assert words in " ".join(text.split())
    document = json.loads(run_command("model", "qwen3-next-80b-a3b", "--json").out)
    assert document["params"]["active"] == 3_874_929_408
    assert document["config"]["experts"]["top"] == 10
    assert document["config"]["delta"] == {"heads": 16, "value_heads": 32, "key": 128, "value": 128, "taps": 4}
    assert document["config"]["latent"] is None
    listed = json.loads(run_command("models", "--json").out)["models"]
    assert {"name": "mixtral-8x7b", "active": 12_879_925_248}.items() <= {
        "name": "mixtral-8x7b",
        **next(one["params"] for one in listed if one["name"] == "mixtral-8x7b"),
    }.items()
    printed = run_command("program", "deepseek-v3", "--layer", "ahead").out
    assert printed.startswith("program ahead\n")
    printed = run_command("program", "deepseek-v3", "--layer", "moe_block", "--decode").out
    assert "q_absorbed = einsum" in printed
    assert run_command("program", "mixtral-8x7b", "--decode").out == run_command("program", "mixtral-8x7b").out
