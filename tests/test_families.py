"""Every dense family: what its programs compute against the architecture written out again, its counts, bad files."""

import json

import numpy as np
import pytest
from interpreter import random_arrays, run
from reference import attended, gelu, gelu_tanh, heads_of, joined, layer, rms, silu, turned
from tiny_configs import BLOOM, CONFIGS, FALCON, GEMMA2, LLAMA, NEOX, OPT

from einscale.errors import ModelError
from einscale.models import FAMILIES, Model, layer_kinds, load_model, parameter_counts, read_config
from einscale.models.config import ConfigReader
from einscale.models.reading import rate
from einscale.program import print_program


def facts(data, name="tiny"):
    return read_config(data, name)[0]


def layers(data):
    return {layer.kind: layer for layer in layer_kinds(facts(data))}


def values_of(data, kind="block", seed=0):
    """Every value of a layer of a tiny model at batch 2, sequence 5; parameters by name."""
    program = layers(data)[kind].program
    arrays, sizes = random_arrays(program, {"b": 2, "s": 5}, seed)
    values = run(program, arrays, sizes)
    return values | {"out": values[program.outputs[0]]}, arrays


def agrees(data, expected, kind="block"):
    values, arrays = values_of(data, kind)
    assert np.allclose(values["out"], expected(arrays["x"], arrays), rtol=1e-10, atol=1e-12)


def test_gpt_neox_rotates_a_part_of_each_head_and_adds_attention_and_mlp_together():
    def expected(x, p):
        h = layer(x, p["attn_norm"], p["attn_norm_bias"])
        q, k, v = (heads_of(h, p[f"w{c}"], 8, p[f"b{c}"]) for c in "qkv")
        attention = joined(attended(turned(q, size=2), turned(k, size=2), v, 8**-0.5), p["wo"]) + p["bo"]
        h = layer(x, p["mlp_norm"], p["mlp_norm_bias"])
        return x + attention + gelu(h @ p["w_up"] + p["b_up"]) @ p["w_down"] + p["b_down"]

    agrees(NEOX, expected)


def test_falcon_7b_shares_one_norm_and_one_key_head():
    def expected(x, p):
        h = layer(x, p["attn_norm"], p["attn_norm_bias"])
        q, k, v = (heads_of(h, p[f"w{c}"], 2) for c in "qkv")
        assert k.shape[2] == 1
        return x + joined(attended(turned(q), turned(k), v, 2**-0.5), p["wo"]) + gelu(h @ p["w_up"]) @ p["w_down"]

    agrees(FALCON, expected)


def test_falcon_40b_has_two_norms_and_grouped_queries():
    def expected(x, p):
        h, m = (layer(x, p[f"{name}_norm"], p[f"{name}_norm_bias"]) for name in ("attn", "mlp"))
        q, k, v = (heads_of(h, p[f"w{c}"], 2) for c in "qkv")
        assert (q.shape[2], k.shape[2]) == (6, 2)
        return x + joined(attended(turned(q), turned(k), v, 2**-0.5), p["wo"]) + gelu(m @ p["w_up"]) @ p["w_down"]

    agrees(FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}, expected)


@pytest.mark.parametrize(("kind", "window"), [("window_block", 3), ("block", 0)])
def test_gemma_2_caps_its_scores_and_norms_before_and_after(kind, window):
    def expected(x, p):
        h = rms(x, p["attn_norm"])
        q, k, v = (heads_of(h, p[f"w{c}"], 4) for c in "qkv")
        scores = attended(turned(q), turned(k), v, 3**-0.5, cap=50.0, window=window)
        mid = x + rms(joined(scores, p["wo"]), p["attn_post_norm"])
        h = rms(mid, p["mlp_norm"])
        return mid + rms((gelu_tanh(h @ p["w_gate"]) * (h @ p["w_up"])) @ p["w_down"], p["mlp_post_norm"])

    agrees(GEMMA2, expected, kind)


def test_gemma_scales_its_embedding_and_gemma_2_caps_its_logits():
    values, arrays = values_of(GEMMA2, "embedding")
    assert np.allclose(values["out"], arrays["embedding"][arrays["tokens"]] * 12**0.5)
    values, arrays = values_of(GEMMA2, "head")
    logits = rms(arrays["x"], arrays["final_norm"]) @ arrays["embedding"].T
    assert np.allclose(values["logits_fp32"], 30 * np.tanh(logits / 30))


@pytest.mark.parametrize(("kind", "theta", "window"), [("window_block", 10000.0, 3), ("block", 1e6, 0)])
def test_gemma_3_norms_each_head_and_turns_windowed_layers_otherwise(kind, theta, window):
    def expected(x, p):
        h = rms(x, p["attn_norm"])
        q, k, v = (heads_of(h, p[f"w{c}"], 4) for c in "qkv")
        q, k = turned(rms(q, p["q_norm"]), theta), turned(rms(k, p["k_norm"]), theta)
        mid = x + rms(joined(attended(q, k, v, 1 / 16, window=window), p["wo"]), p["attn_post_norm"])
        h = rms(mid, p["mlp_norm"])
        return mid + rms((gelu_tanh(h @ p["w_gate"]) * (h @ p["w_up"])) @ p["w_down"], p["mlp_post_norm"])

    agrees(CONFIGS["gemma3"], expected, kind)


def test_olmo_2_norms_all_queries_together_and_after_attention_and_mlp():
    def expected(x, p):
        q, k, v = (x @ p[f"w{c}"].reshape(12, -1) for c in "qkv")
        q, k = rms(q, p["q_norm"].ravel(), 1e-5), rms(k, p["k_norm"].ravel(), 1e-5)
        q, k, v = (y.reshape(2, 5, -1, 4) for y in (q, k, v))
        mid = x + rms(joined(attended(turned(q), turned(k), v, 0.5), p["wo"]), p["attn_post_norm"], 1e-5)
        return mid + rms((silu(mid @ p["w_gate"]) * (mid @ p["w_up"])) @ p["w_down"], p["mlp_post_norm"], 1e-5)

    agrees(CONFIGS["olmo2"], expected)


def test_olmo_1_clamps_and_norms_without_parameters():
    def expected(x, p):
        q, k, v = (np.clip(heads_of(layer(x), p[f"w{c}"], 4), -0.75, 0.75) for c in "qkv")
        mid = x + joined(attended(turned(q), turned(k), v, 0.5), p["wo"])
        return mid + (silu(layer(mid) @ p["w_gate"]) * (layer(mid) @ p["w_up"])) @ p["w_down"]

    agrees(CONFIGS["olmo"], expected)


@pytest.mark.parametrize("name", ["bloom", "mpt"])
def test_alibi_takes_from_each_score_its_distance_times_the_slope_of_its_head(name):
    data = {**CONFIGS[name], "hidden_size": 16, "n_head": 4} if name == "bloom" else CONFIGS[name]
    if name == "mpt":
        data = {**data, "d_model": 16, "n_heads": 4, "attn_config": {}}
    slopes = [2**-2, 2**-4, 2**-6, 2**-8]  # Press et al. 2021, section 3: a geometric sequence from 2^(-8/n)

    def expected(x, p):
        bias = (lambda key: p.get(key, 0.0)) if name == "bloom" else (lambda key: 0.0)
        h = layer(x, p["attn_norm"], bias("attn_norm_bias"))
        q, k, v = (heads_of(h, p[f"w{c}"], 4, bias(f"b{c}")) for c in "qkv")
        mid = x + joined(attended(q, k, v, 0.5, slopes=slopes), p["wo"]) + bias("bo")
        h = layer(mid, p["mlp_norm"], bias("mlp_norm_bias"))
        active = (gelu_tanh if name == "bloom" else gelu)(h @ p["w_up"] + bias("b_up"))
        return mid + active @ p["w_down"] + bias("b_down")

    agrees(data, expected)
    assert set(load_model("mpt-7b").layer("block").program.table).isdisjoint({"bq", "bo", "b_up", "attn_norm_bias"})


def test_bloom_norms_its_embedding():
    values, p = values_of(BLOOM, "embedding")
    assert np.allclose(values["out"], layer(p["embedding"][p["tokens"]], p["embedding_norm"], p["embedding_norm_bias"]))


def test_the_opt_350m_norms_after_the_residual_and_projects_a_narrow_table():
    data = OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 5, "dropout": 0.0}

    def expected(x, p):
        q, k, v = (heads_of(x, p[f"w{c}"], 4, p[f"b{c}"]) for c in "qkv")
        mid = x + joined(attended(q, k, v, 0.5), p["wo"]) + p["bo"]
        mid = layer(mid, p["attn_post_norm"], p["attn_post_norm_bias"])
        out = mid + np.maximum(mid @ p["w_up"] + p["b_up"], 0) @ p["w_down"] + p["b_down"]
        return layer(out, p["mlp_post_norm"], p["mlp_post_norm_bias"])

    agrees(data, expected)
    values, p = values_of(data, "embedding")
    rows = p["embedding"][p["tokens"]] @ p["project_in"] + p["position_embedding"][p["positions"]]
    assert np.allclose(values["out"], rows)
    assert p["position_embedding"].shape[0] == 7 + 2
    values, p = values_of(data, "head")
    assert np.allclose(values["logits_fp32"], p["x"] @ p["project_out"] @ p["embedding"].T)
    assert "final_norm" not in p


COUNTS = {
    # Counts printed by others: tables of the papers, model cards.
    "bloom-176b": 176_247_271_424,
    "gpt-neox-20b": 20_554_567_680,
    "pythia-6.9b": 6_857_302_016,
    # The language model of 27B, worked out by hand: 62 x (2 x 5376 x 128 x 48 + 3 x 5376 x 21504 + 4 x 5376 + 256)
    # + 262208 x 5376 + 5376.
    "gemma3-27b": 62 * (2 * 5376 * 128 * 48 + 3 * 5376 * 21504 + 4 * 5376 + 256) + 262208 * 5376 + 5376,
}


@pytest.mark.parametrize("name", COUNTS)
def test_presets_have_the_counts_their_authors_print(name):
    assert parameter_counts(load_model(name)).total == COUNTS[name]


def parts(d, f, heads, kv, k, *, gated):
    """Weights of a block without norms."""
    return d * k * (2 * heads + 2 * kv) + (3 if gated else 2) * d * f


@pytest.mark.parametrize(
    ("data", "total"),
    [
        # 2 norms of d with bias, no biases in Falcon's projections; a norm at the end
        (
            FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2},
            2 * (parts(12, 10, 6, 2, 2, gated=False) + 4 * 12) + 11 * 12 + 2 * 12,
        ),
        # 4 norms of d, 2 of the head
        (CONFIGS["gemma3"], 3 * (parts(12, 10, 6, 2, 4, gated=True) + 4 * 12 + 2 * 4) + 11 * 12 + 12),
        # 2 norms of d, one of all queries, one of all keys; head of its own
        (CONFIGS["olmo2"], 3 * (parts(12, 10, 6, 2, 4, gated=True) + 2 * 12 + 24 + 8) + 2 * 11 * 12 + 12),
        (CONFIGS["olmo"], 3 * parts(12, 10, 6, 2, 4, gated=True) + 2 * 11 * 12),
        # biases everywhere; a norm behind the embedding and one at the end
        (BLOOM, 2 * (parts(12, 48, 3, 3, 4, gated=False) + 4 * 12 + 48 + 12 + 4 * 12) + 11 * 12 + 4 * 12),
    ],
)
def test_counts_add_up(data, total):
    model = Model("tiny", layer_kinds(facts(data)), "", facts(data))
    assert parameter_counts(model).total == parameter_counts(model).active == total


def test_alternating_layers_are_kinds_of_their_own_in_the_order_they_run_first():
    kinds = [(layer.kind, layer.repeat) for layer in load_model("gemma2-9b").layers]
    assert kinds == [("embedding", 1), ("window_block", 21), ("block", 21), ("head", 1)]
    assert facts(GEMMA2).pattern == "wfw"
    assert facts(CONFIGS["gemma3"] | {"num_hidden_layers": 7, "sliding_window_pattern": 3}).pattern == "wwfwwfw"
    assert facts(CONFIGS["olmo3"] | {"num_hidden_layers": 9}).pattern == "wwwfwwwfw"
    for layer_kind in load_model("gemma2-9b").layers:
        assert layer_kind.kind == layer_kind.program.name
        assert layer_kind.repeat == layer_kind.program.repeat


def test_layer_types_win_over_the_rule_of_the_class():
    types = ["full_attention", "sliding_attention", "sliding_attention"]
    for name in ("gemma2", "gemma3"):
        assert facts(CONFIGS[name] | {"layer_types": types}).pattern == "fww"
    assert facts(CONFIGS["gemma2"] | {"layer_types": ["full_attention"] * 3}).pattern == ""
    with pytest.raises(ModelError, match='"layer_types" does not fit'):
        facts(CONFIGS["gemma2"] | {"layer_types": types[:2]})


def test_a_window_of_null_leaves_layers_with_other_angles_apart():
    one = facts(CONFIGS["gemma3"] | {"sliding_window": None})
    assert (one.window, one.pattern, one.window_rope_theta) == (0, "wfw", 10000.0)
    other = facts(CONFIGS["gemma2"] | {"sliding_window": None})
    assert (other.window, other.pattern) == (0, "")


def test_angles_are_read_as_both_versions_of_transformers_write_them():
    old = CONFIGS["gemma3"] | {"rope_theta": 5e5, "rope_local_base_freq": 2e4}
    new = CONFIGS["gemma3"] | {
        "rope_parameters": {"full_attention": {"rope_theta": 5e5}, "sliding_attention": {"rope_theta": 2e4}}
    }
    assert facts(old) == facts(new)
    assert (facts(new).rope_theta, facts(new).window_rope_theta) == (5e5, 2e4)
    assert facts(CONFIGS["olmo3"]).rope_theta == 500000.0
    old = NEOX | {"rotary_pct": 0.5, "rotary_emb_base": 20000}
    new = NEOX | {"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 20000}}
    assert facts(old) == facts(new)
    assert facts(new).rotary == 4


def test_a_family_more_is_a_row_more():
    row = FAMILIES["llama"].like(
        "Novel", {"rms_norm_eps": 1e-5}, norm_place="both", residual_dropout=rate(resid_pdrop=0.25), intermediate=10
    )
    assert (row.class_name, row.causal_class) == ("NovelConfig", "NovelForCausalLM")
    assert FAMILIES["llama"].traits.keys() == row.traits.keys() - {"norm_place", "residual_dropout"}
    data = {key: value for key, value in LLAMA.items() if key != "intermediate_size"}
    reader = ConfigReader(data, "novel", "", row.class_name, row.defaults, row.aliases)
    config = row.read(reader, None)
    assert (config.class_name, config.norm_place, config.intermediate) == ("NovelConfig", "both", 10)
    assert (config.norm_eps, config.residual_dropout, config.hidden) == (1e-5, 0.25, LLAMA["hidden_size"])
    assert reader.taken["resid_pdrop"] == "0.25"
    with pytest.raises(ModelError, match='"resid_pdrop" is 2'):
        row.read(ConfigReader({**data, "resid_pdrop": 2}, "novel", "", "", row.defaults, row.aliases), None)


def test_a_window_that_no_layer_has_is_none():
    config = facts(CONFIGS["mistral"] | {"layer_types": ["full_attention"] * 3})
    assert (config.window, config.pattern) == (0, "")


def test_null_layer_types_are_those_of_the_class():
    assert facts(CONFIGS["qwen3_next"] | {"layer_types": None}) == facts(CONFIGS["qwen3_next"])


def test_a_default_that_two_traits_take_is_named_once():
    data = {key: value for key, value in CONFIGS["glm4_moe"].items() if key != "attention_bias"}
    names = [key for key, _ in read_config(data, "tiny")[1]]
    assert names.count("attention_bias") == 1
    assert len(set(names)) == len(names)


def test_a_language_model_inside_a_larger_one_is_read_from_text_config():
    # What google/gemma-3-4b-it's config.json says: sizes that equal the class's are left out.
    inner = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    data = {"model_type": "gemma3", "text_config": inner, "vision_config": {"hidden_size": 1152}}
    config, defaults, notes = read_config(data, "gemma-3-4b")
    assert (config.architecture, config.hidden, config.heads, config.head_dim) == ("gemma3_text", 2560, 8, 256)
    model = Model("gemma-3-4b", layer_kinds(config), "", config)
    assert parameter_counts(model).total == 3_880_263_168
    assert notes[0] == "the language model of gemma3, from text_config; its other parts are not read"
    assert "vocab_size, num_attention_heads" in notes[1]
    assert dict(defaults)["vocab_size"] == "262208"
    other = {"model_type": "some_vlm", "text_config": LLAMA, "torch_dtype": "float16"}
    assert facts(other).dtype == "fp16"
    assert facts(other).architecture == "llama"


def test_a_language_model_inside_must_say_what_it_is():
    with pytest.raises(ModelError, match="the architecture `some_vlm` is not known"):
        facts({"model_type": "some_vlm", "text_config": {"hidden_size": 3}})
    with pytest.raises(ModelError, match='"text_config" is not an object'):
        facts({"model_type": "gemma3", "text_config": 3})
    with pytest.raises(ModelError, match='the size "hidden_size" is missing'):
        facts({"model_type": "gemma3", "text_config": {}})


SIZES = {
    "qwen3": ["num_key_value_heads", "head_dim"],
    "gemma": ["num_key_value_heads", "head_dim"],
    "gemma3": ["vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim"],
    "opt": ["ffn_dim", "max_position_embeddings", "hidden_size"],
    "bloom": ["n_layer", "n_head", "hidden_size", "vocab_size"],
    "gpt_neox": ["intermediate_size", "num_attention_heads"],
    "falcon with one key head": ["num_attention_heads", "num_hidden_layers"],
    "mpt": ["d_model", "n_heads", "n_layers", "vocab_size"],
}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in SIZES.items() for key in keys])
def test_a_missing_size_is_an_error_in_every_family(name, key):
    data = {other: value for other, value in CONFIGS[name].items() if other != key}
    with pytest.raises(ModelError) as caught:
        facts(data, "tiny.json")
    assert f'tiny.json: the size "{key}" is missing' in str(caught.value)
    assert FAMILIES[data["model_type"]].class_name in str(caught.value)


REFUSED = [
    (FALCON | {"new_decoder_architecture": True, "parallel_attn": False}, '"parallel_attn" is false'),
    (FALCON | {"new_decoder_architecture": True, "num_kv_heads": 4}, "does not divide the 6 query heads"),
    (FALCON | {"hidden_size": 18}, '"num_attention_heads" is 6, which makes heads of 3'),
    (FALCON | {"hidden_size": 13}, "does not divide hidden_size 13"),
    (BLOOM | {"n_head": 5}, '"n_head" is 5, which does not divide hidden_size 12'),
    (NEOX | {"rotary_pct": 0.4}, '"rotary_pct" makes 3 of 8 elements of a head turn'),
    (NEOX | {"rotary_pct": 2.0}, '"rotary_pct" is 2.0'),
    (CONFIGS["mpt"] | {"attn_config": {"alibi": False}}, '"alibi" is false: MptForCausalLM knows no other positions'),
    (CONFIGS["mpt"] | {"attn_config": {"attn_type": "multiquery_attention"}}, '"attn_type" is "multiquery_attention"'),
    (CONFIGS["mpt"] | {"attn_config": 3}, '"attn_config" is not an object'),
    (CONFIGS["mpt"] | {"no_bias": False}, "MptForCausalLM has no biases"),
    (CONFIGS["mpt"] | {"expansion_ratio": 8}, '"expansion_ratio" is 8'),
    (CONFIGS["gemma"] | {"use_bidirectional_attention": True}, "only causal attention is known"),
    (GEMMA2 | {"query_pre_attn_scalar": 0}, '"query_pre_attn_scalar" is 0'),
    (GEMMA2 | {"attn_logit_softcapping": "no"}, '"attn_logit_softcapping" is the text "no"'),
    (OPT | {"word_embed_proj_dim": 0}, '"word_embed_proj_dim" is 0'),
    (CONFIGS["qwen3"] | {"head_dim": None}, '"head_dim" is null'),
]


@pytest.mark.parametrize(("data", "words"), REFUSED)
def test_what_a_class_cannot_build_is_refused_with_its_line(tmp_path, data, words):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data, indent=1))
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert words in str(caught.value)


def test_null_bounds_are_no_bounds():
    config = facts(GEMMA2 | {"attn_logit_softcapping": None, "final_logit_softcapping": None})
    assert (config.softcap, config.logit_softcap) == (0.0, 0.0)
    for kind in layer_kinds(config):
        assert "softcap" not in print_program(kind.program)


def test_old_names_of_keys_are_taken():
    renamed = {"n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_embed": "hidden_size"}
    old = {next((k for k, v in renamed.items() if v == key), key): value for key, value in FALCON.items()}
    assert set(old) != set(FALCON)
    assert facts(old) == facts(FALCON)
    common = {"d_model": "hidden_size", "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers"}
    assert facts({common.get(key, key): value for key, value in CONFIGS["mpt"].items()}) == facts(CONFIGS["mpt"])
