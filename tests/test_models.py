"""Models from Hugging Face configurations: exact counts, documented defaults, and every bad file in words."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from interpreter import random_arrays, run

from einscale.errors import EinscaleError, ModelError, NotationError, ProgramError
from einscale.models import FAMILIES, list_models, load_model, parameter_counts, read_config
from einscale.models.config import LARGEST_FILE
from einscale.models.registry import ALIASES
from einscale.program import print_program, program_sizes, saved

CONFIGS = Path(__file__).parent / "data" / "hf_configs"
TRUTH = {row["model"]: row for row in json.loads((CONFIGS / "param_counts.json").read_text())}
"""Counted by transformers 5.23.0 on meta-device models."""

PRESET_OF = {name: name for name in TRUTH} | {"mistral-7b-v0.1": "mistral-7b"}
PRESET_OF |= {"mpt-7b-hf": "mpt-7b", "mpt-30b-hf": "mpt-30b"}
PRESET_OF |= {"deepseek2-16b": "deepseek-v2-lite", "deepseek3-671b": "deepseek-v3"}
PRINTED = {"bloom-176b", "gpt-neox-20b", "pythia-6.9b", "gemma3-27b", "gpt-oss-120b", "kimi-k2"}
"""Presets outside of the truth; `test_families` and `test_models_moe` check their counts."""


def config(name):
    return json.loads((CONFIGS / f"{name}.config.json").read_text())


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_parameters_are_counted_exactly(name):
    counts = parameter_counts(load_model(str(CONFIGS / f"{name}.config.json")))
    row = TRUTH[name]
    assert counts.total == row["total_params"]
    assert counts.active == row["active_params_per_token"]
    assert counts.embedding == row["embedding_and_head_params"]
    assert counts.non_embedding == row["non_embedding_params"]
    assert counts.routed == (row["routed_expert_params"] or 0)


PRESETS = sorted(set(list_models()) & set(PRESET_OF.values()))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_sizes_of_the_truth(name):
    truth = next(key for key, preset in PRESET_OF.items() if preset == name)
    model = load_model(name)
    assert parameter_counts(model).total == TRUTH[truth]["total_params"]
    facts = read_config(config(truth), truth)[0]
    assert model.config.sizes | {"p": 0} == facts.sizes | {"p": 0}
    assert (model.config.pattern, model.config.window) == (facts.pattern, facts.window)
    assert model.source


def test_the_presets_that_must_be_there_are():
    wanted = {"llama3-8b", "llama3-70b", "llama3.1-8b", "llama3.1-70b", "llama3.1-405b", "llama2-7b", "llama2-70b"}
    wanted |= {"mistral-7b", "qwen2.5-7b", "gpt2", "gpt2-xl", "gpt3-175b", "qwen3-8b", "qwen3-32b", "gemma-7b"}
    wanted |= {"gemma2-9b", "gemma2-27b", "olmo3-7b", "opt-6.7b", "falcon-7b", "falcon-180b", "mpt-7b", "mpt-30b"}
    wanted |= {"mixtral-8x7b", "qwen3-30b-a3b", "qwen3-235b-a22b", "qwen3-next-80b-a3b", "gpt-oss-20b", "gpt-oss-120b"}
    wanted |= {"deepseek-v2-lite", "deepseek-v3", "kimi-k2"}
    assert wanted | {"llama1-65b"} <= set(list_models())
    assert set(ALIASES.values()) <= set(list_models())
    assert set(list_models()) == set(PRESETS) | PRINTED


@pytest.mark.parametrize("name", ["LLaMA3-70B", "llama-3-70b", " llama3-70b "])
def test_names_are_read_in_any_case_and_under_aliases(name):
    assert load_model(name).name == "llama3-70b"


def test_the_kinds_of_layer_and_how_often_they_run():
    model = load_model("llama3-70b")
    assert [(layer.kind, layer.repeat) for layer in model.layers] == [("embedding", 1), ("block", 80), ("head", 1)]
    with pytest.raises(KeyError):
        model.layer("decoder")


def ops(program):
    return [s.op if s.op != "einsum" else s.output for s in program.statements]


def test_the_gpt_block_has_the_statements_of_the_papers_accounting():
    program = load_model("gpt3-175b").layer("block").program
    assert ops(program) == [
        *("norm", "q_linear", "add", "k_linear", "add", "v_linear", "add"),
        *("scores", "mask", "softmax", "dropout", "attended", "attn_out_linear", "add", "dropout", "add"),
        *("norm", "up_linear", "add", "gelu", "mlp_out_linear", "add", "dropout", "add"),
    ]
    assert dict(program.composites) == {"h": ("n",)}
    assert dict(program.sizes) == {"d": 12288, "n": 96, "k": 128, "f": 49152}
    group = [s.output for s in program.statements if s.group == "attention"]
    assert group == ["scores", "masked", "probs", "probs_dropped", "attended"]
    assert {s.section for s in program.statements} == {"attention", "mlp"}


def test_the_llama_block_groups_its_query_heads():
    program = load_model("llama3-70b").layer("block").program
    assert dict(program.composites) == {"h": ("n", "g")}
    assert dict(program.sizes) == {"d": 8192, "n": 8, "g": 8, "k": 128, "f": 28672}
    scores = next(s for s in program.statements if s.output == "scores")
    assert str(scores.einsum) == "b s n g k, b t n k -> b n g s t"
    masked = next(s for s in program.statements if s.op == "mask")
    assert dict(masked.options) == {"causal": 1, "factor": 128**-0.5, "key": "t", "query": "s"}
    rope = next(s for s in program.statements if s.op == "rope")
    assert dict(rope.options) == {"axis": "k", "sequence": "s", "theta": 500000.0}


def test_a_model_without_grouped_queries_has_no_group_axis():
    block = load_model("llama2-7b").layer("block").program
    assert dict(block.composites) == {"h": ("n",)}
    assert "g" not in program_sizes(block, {"b": 1, "s": 2})


def test_dropout_only_where_a_rate_is_not_zero():
    data = config("gpt2") | {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0}
    from einscale.models import layer_kinds

    for layer in layer_kinds(read_config(data, "gpt2")[0]):
        assert "dropout" not in {s.op for s in layer.program.statements}


def test_a_tied_head_reads_the_embedding_and_counts_it_once():
    model = load_model(str(CONFIGS / "qwen2.5-1.5b.config.json"))
    head = model.layer("head").program
    assert head.tied == ("embedding",)
    assert head.table["embedding"].axes == ("v", "d")
    assert load_model("qwen2.5-7b").layer("head").program.tied == ()


def test_the_head_keeps_its_logits_in_fp32():
    head = load_model("llama3-8b").layer("head").program
    assert head.outputs == ("loss",)
    kept = {name for s in head.statements for name in saved(s)}
    assert "logits" not in kept
    assert head.table["logits_fp32"].dtype == "fp32"


@pytest.mark.parametrize("name", ["qwen2.5-7b", "llama3-8b", "mistral-7b"])
def test_qwen_has_biases_on_query_key_and_value_alone(name):
    names = {value.name for value in load_model(name).layer("block").program.parameters}
    assert names & {"bq", "bk", "bv", "bo"} == ({"bq", "bk", "bv"} if name.startswith("qwen") else set())


TINY = {
    "model_type": "llama",
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "vocab_size": 11,
}


def layers_of(data):
    from einscale.models import layer_kinds

    return {layer.kind: layer for layer in layer_kinds(read_config(data, "tiny")[0])}


def test_the_llama_block_computes_what_the_architecture_says():
    layers = layers_of(TINY)
    program = layers["block"].program
    arrays, sizes = random_arrays(program, {"b": 2, "s": 5})
    values = run(program, arrays, sizes)

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight

    def rotated(x):
        angle = np.arange(5)[:, None] * 10000.0 ** (-np.arange(2) / 2)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        return np.concatenate([x[..., :2] * cos - x[..., 2:] * sin, x[..., 2:] * cos + x[..., :2] * sin], -1)

    x = arrays["x"]
    h = norm(x, arrays["attn_norm"])
    q = (h @ arrays["wq"].reshape(12, 24)).reshape(2, 5, 6, 4)
    k = (h @ arrays["wk"].reshape(12, 8)).reshape(2, 5, 2, 4)
    v = (h @ arrays["wv"].reshape(12, 8)).reshape(2, 5, 2, 4)
    q, k = rotated(q), rotated(k)
    heads = []
    for head in range(6):
        scores = q[:, :, head] @ k[:, :, head // 3].swapaxes(1, 2) / 2
        scores = np.where(np.tril(np.ones((5, 5))), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, :, head // 3])
    mid = x + np.concatenate(heads, -1) @ arrays["wo"].reshape(24, 12)
    h = norm(mid, arrays["mlp_norm"])
    gate = h @ arrays["w_gate"]
    out = mid + (gate / (1 + np.exp(-gate)) * (h @ arrays["w_up"])) @ arrays["w_down"]
    assert np.allclose(values["out"], out, rtol=1e-12)


def test_transformers_4_and_5_spell_the_same_model():
    new = config("llama3.1-8b")
    old = {key: value for key, value in new.items() if key not in ("dtype", "rope_parameters")}
    old |= {"torch_dtype": "bfloat16", "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3"}}
    one, other = read_config(new | {"dtype": "bfloat16"}, "new")[0], read_config(old, "old")[0]
    assert one == other
    assert (one.rope_theta, one.dtype) == (500000.0, "bf16")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"head_dim": None}, 2),
        ({"head_dim": 6}, 6),
    ],
)
def test_the_head_size_follows_from_the_width_where_it_is_not_given(change, wanted):
    assert read_config(TINY | change, "tiny")[0].head_dim == wanted
    without = {key: value for key, value in TINY.items() if key != "head_dim"}
    assert read_config(without, "tiny")[0].head_dim == 2


def test_missing_keys_take_the_documented_default_and_the_model_says_so():
    facts, defaults, _ = read_config(TINY, "tiny")
    assert (facts.rope_theta, facts.norm_eps, facts.activation, facts.tied) == (10000.0, 1e-6, "silu", False)
    taken = dict(defaults)
    assert taken["rope_theta"] == "10000.0"
    assert taken["attention_bias"] == "false"
    assert taken["dtype"] == '"bf16"'
    assert "hidden_size" not in taken


def test_the_defaults_of_gpt2_are_its_dropout_rates_and_tied_embeddings():
    data = {"model_type": "gpt2", "n_embd": 12, "n_layer": 2, "n_head": 3, "vocab_size": 11, "n_positions": 7}
    facts, defaults, _ = read_config(data, "tiny")
    assert (facts.attention_dropout, facts.residual_dropout, facts.embedding_dropout) == (0.1, 0.1, 0.1)
    assert (facts.intermediate, facts.tied, facts.activation) == (48, True, "gelu_tanh")
    assert dict(defaults)["n_inner"] == "48"


def test_gpt2_takes_the_common_names_of_its_sizes():
    common = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 7}
    own = {"n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 7}
    rest = {"model_type": "gpt2", "vocab_size": 11}
    assert read_config(rest | common, "tiny")[0] == read_config(rest | own, "tiny")[0]


def test_llama_without_key_heads_has_one_for_each_query_head():
    without = {key: value for key, value in TINY.items() if key != "num_key_value_heads"}
    facts, defaults, _ = read_config(without, "tiny")
    assert (facts.kv_heads, dict(defaults)["num_key_value_heads"]) == (6, "6")


def test_the_architecture_is_read_from_architectures_where_model_type_is_missing():
    data = {key: value for key, value in TINY.items() if key != "model_type"} | {"architectures": ["LlamaForCausalLM"]}
    assert read_config(data, "tiny")[0] == read_config(TINY, "tiny")[0]


def test_the_callers_element_type_wins():
    assert load_model("qwen2.5-7b", dtype="float32").config.dtype == "fp32"
    assert load_model("qwen2.5-7b", dtype="float32").layer("head").program.table["x"].dtype == "fp32"
    assert load_model("qwen2.5-7b").config.dtype == "bf16"


def test_mistral_has_a_sliding_window_in_every_layer():
    model = load_model("mistral-7b")
    masked = next(s for s in model.layer("block").program.statements if s.op == "mask")
    assert masked.option("window") == 4096
    assert [layer.kind for layer in model.layers] == ["embedding", "block", "head"]
    none = read_config(TINY | {"model_type": "mistral", "sliding_window": None}, "tiny")[0]
    assert (none.window, none.windowed_layers) == (0, 0)


def test_qwen_may_window_some_of_its_layers():
    data = TINY | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}
    layers = layers_of(data)
    assert {kind: layer.repeat for kind, layer in layers.items()} == {
        "embedding": 1,
        "block": 1,
        "window_block": 2,
        "head": 1,
    }
    windows = {
        kind: next(s for s in layers[kind].program.statements if s.op == "mask").option("window", 0)
        for kind in ("block", "window_block")
    }
    assert windows == {"block": 0, "window_block": 3}
    by_type = data | {"layer_types": ["sliding_attention", "full_attention", "full_attention"]}
    assert read_config(by_type, "tiny")[0].windowed_layers == 1
    assert read_config(data | {"use_sliding_window": False}, "tiny")[0].windowed_layers == 0


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu", "silu"])
def test_the_activation_decides_the_map(act):
    maps = {s.op for s in layers_of(TINY | {"hidden_act": act})["block"].program.statements}
    assert maps & {"swiglu", "geglu", "relu"} == {"swiglu" if act == "silu" else "relu" if act == "relu" else "geglu"}


def test_what_is_not_read_is_noted():
    notes = read_config(TINY | {"quantization_config": {"bits": 4}}, "tiny")[2]
    assert notes == ("quantization_config is not read: weights are taken as bf16",)


BAD_VALUES = [
    ({"hidden_size": "4096"}, '"hidden_size" is the text "4096"', "expected a whole number"),
    ({"hidden_size": 4096.5}, '"hidden_size" is the number 4096.5', "expected a whole number"),
    ({"hidden_size": True}, '"hidden_size" is the truth value true', "expected a whole number"),
    ({"hidden_size": None}, '"hidden_size" is null', "expected a whole number"),
    ({"hidden_size": [4096]}, '"hidden_size" is a list', "expected a whole number"),
    ({"hidden_size": 0}, '"hidden_size" is 0', "from 1 to 1,000,000,000"),
    ({"vocab_size": -32000}, '"vocab_size" is -32000', "from 1 to"),
    ({"num_hidden_layers": 10**30}, '"num_hidden_layers" is', "a whole number"),
    ({"intermediate_size": 10**12}, '"intermediate_size" is 1000000000000', "from 1 to"),
    ({"num_key_value_heads": 4}, '"num_key_value_heads" is 4, which does not divide the 6 query heads', "a divisor"),
    ({"num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": None}, "does not divide hidden_size 12", "or an"),
    ({"head_dim": 3}, '"head_dim" is 3', "an even number"),
    ({"hidden_act": "silly"}, '"hidden_act" is `silly`', "did you mean `silu`?"),
    ({"hidden_act": 3}, '"hidden_act" is the number 3', "one of silu"),
    ({"attention_bias": "yes"}, '"attention_bias" is the text "yes"', "true or false"),
    ({"attention_dropout": 1.0}, '"attention_dropout" is 1.0', "a number in [0, 1)"),
    ({"attention_dropout": "no"}, '"attention_dropout" is the text "no"', "a number"),
    ({"rope_theta": -1}, '"rope_theta" is -1', "a number of at least 1"),
    ({"rope_parameters": [1]}, '"rope_parameters" is not an object', "rope_theta"),
    ({"torch_dtype": "float17"}, '"torch_dtype" is not an element type', "bfloat16"),
    ({"max_position_embeddings": "long"}, '"max_position_embeddings" is the text "long"', "whole number or null"),
    ({"model_type": "lama"}, "the architecture `lama` is not known", "did you mean `llama`?"),
    ({"model_type": "t5"}, "the architecture `t5` is not known", "expected one of llama, mistral, qwen2"),
    ({"model_type": 3}, "the architecture `3` is not known", "expected one of"),
    (
        {"model_type": "gemma3", "text_config": {}},
        'the size "hidden_size" is missing',
        "as Gemma3TextConfig writes it",
    ),
    ({"model_type": None}, 'the key "model_type" is missing', "expected one of"),
    ({"model_type": "mistral", "sliding_window": 0}, '"sliding_window" is 0', "null, or a whole number"),
    ({"model_type": "gpt2"}, 'the size "n_positions" is missing', "sizes have no default"),
    (
        {"model_type": "qwen2", "use_sliding_window": True, "layer_types": ["full"]},
        '"layer_types" does not fit',
        "3 entries",
    ),
]


@pytest.mark.parametrize(("change", "words", "more"), BAD_VALUES)
def test_a_bad_value_is_told_with_the_file_the_key_and_the_line(tmp_path, change, words, more):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TINY | change, indent=1))
    with pytest.raises(ModelError) as caught:
        load_model(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert more in message
    key = re.search(r'"(\w+)" is', words)
    if key and "missing" not in words and caught.value.span and not words.startswith('"rope_parameters"'):
        assert f'"{key[1]}"' in message.splitlines()[1]


@pytest.mark.parametrize(
    "key", ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
)
def test_a_missing_size_is_an_error_that_names_the_key(key):
    data = {name: value for name, value in TINY.items() if name != key}
    with pytest.raises(ModelError) as caught:
        read_config(data, "tiny.json")
    assert f'tiny.json: the size "{key}" is missing' in str(caught.value)
    assert "LlamaConfig" in str(caught.value)


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_key_heads_have_no_default_where_the_class_has_a_number(family):
    data = {name: value for name, value in TINY.items() if name != "num_key_value_heads"} | {"model_type": family}
    with pytest.raises(ModelError, match='the size "num_key_value_heads" is missing'):
        read_config(data, "tiny")


def test_a_misspelt_key_is_recognised():
    data = {name: value for name, value in TINY.items() if name != "hidden_size"} | {"hiden_size": 12}
    with pytest.raises(ModelError, match="did you mean `hidden_size` where the file says `hiden_size`"):
        read_config(data, "tiny")


def test_every_default_belongs_to_a_named_class():
    for family in FAMILIES.values():
        assert family.class_name.endswith("Config")
        assert not {"hidden_size", "n_embd", "vocab_size", "intermediate_size"} & set(family.defaults)


BAD_FILES = [
    (b"", "is empty"),
    (b"  \n", "is empty"),
    (b'{"model_type": "llama", "hidden', "is not JSON: it ends too early"),
    (b"model_type: llama\nhidden_size: 4096\n", "is not JSON"),
    (b'{"a": 1,,}', "is not JSON"),
    (b"[1, 2]", "holds a list"),
    (b"4096", "holds the number 4096"),
    (b'"llama"', 'holds the text "llama"'),
    (b"null", "holds null"),
    (b"\xff\xfe{\x00}\x00", "is not UTF-8 text: byte 0 is 0xff"),
    (b'{"model_type": "\xe9"}', "is not UTF-8 text: byte 16 is 0xe9"),
    (b"\x80PK\x03\x04", "is not UTF-8 text"),
    (b"[" * 100_000, "nested too deeply"),
    (b"{}", 'the key "model_type" is missing'),
]


@pytest.mark.parametrize(("content", "words"), BAD_FILES)
def test_a_bad_file_is_one_clear_error(tmp_path, content, words):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_model(str(path))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_broken_json_is_underlined(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{\n "hidden_size": 4096,\n "vocab_size" 3\n}')
    with pytest.raises(ModelError) as caught:
        load_model(str(path))
    assert str(caught.value).splitlines()[1:] == ['   "vocab_size" 3', "                ^"]


def test_a_byte_order_mark_is_no_fault(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(TINY).encode())
    assert load_model(str(path)).config.hidden == 12


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(200 * 10**6)
    with pytest.raises(ModelError, match="has 200000000 bytes: too large for a model configuration"):
        load_model(str(path))
    assert LARGEST_FILE < 200 * 10**6


def test_a_directory_is_refused_and_its_config_is_hinted(tmp_path):
    with pytest.raises(ModelError, match="is a directory") as caught:
        load_model(str(tmp_path))
    assert caught.value.hint is None
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"did you mean `.*config.json`\?"):
        load_model(str(tmp_path))


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    with pytest.raises(ModelError, match="is not a regular file"):
        load_model(str(path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("llama3-70", "did you mean `llama3-70b`?"),
        ("lama3-70b", "did you mean `llama3-70b`?"),
        ("bert", "unknown model `bert`"),
        ("", "unknown model ``"),
        ("no/such/config.json", "no such file"),
        ("missing.json", "cannot read `missing.json`: no such file"),
        ("x" * 5000, "unknown model"),
        ("a\0b", "unknown model"),
        ("a\0b/config.json", "cannot read"),
        ("x" * 5000 + ".json", "cannot read"),
    ],
)
def test_an_unknown_model_is_told_with_the_near_miss(name, words):
    with pytest.raises(ModelError) as caught:
        load_model(name)
    assert words in str(caught.value)


def test_a_model_takes_its_folders_name_or_its_files(tmp_path):
    folder = tmp_path / "my-llama"
    folder.mkdir()
    for file, name in (("config.json", "my-llama"), ("tiny.config.json", "tiny"), ("other.json", "other")):
        (folder / file).write_text(json.dumps(TINY))
        assert load_model(folder / file).name == name


MLP = """\
program mlp
size d = 8
size f = 32
input x: bf16[b s d]
param w_in: bf16[d f]
param w_out: bf16[f d]
h = einsum("b s d, d f -> b s f", x, w_in)
a = gelu(h)
y = einsum("b s f, f d -> b s d", a, w_out)
return y
"""

MLP_PYTHON = """\
from einscale.program import trace
from einscale.program.trace import einsum, gelu

def mlp(x, w_in, w_out):
    h = einsum("b s d, d f -> b s f", x, w_in)
    a = gelu(h)
    return einsum("b s f, f d -> b s d", a, w_out, name="y")

WEIGHTS = {"w_in": "bf16[d f]", "w_out": "bf16[f d]"}
program = trace(mlp, {"x": "bf16[b s d]"}, WEIGHTS, sizes={"d": 8, "f": 32})
"""


def test_a_program_of_ones_own_takes_the_place_of_a_model(tmp_path):
    text, python = tmp_path / "mlp.ein", tmp_path / "mlp_in_python.py"
    text.write_text(MLP)
    python.write_text(MLP_PYTHON)
    one, other = load_model(str(text)), load_model(str(python))
    assert [(layer.kind, layer.repeat) for layer in one.layers] == [("mlp", 1)]
    assert parameter_counts(one).total == parameter_counts(other).total == 2 * 8 * 32
    assert one.config is None
    assert print_program(other.layers[0].program).replace(", approximate=tanh", "") == MLP


@pytest.mark.parametrize(
    ("file", "content", "kind", "words"),
    [
        ("a.ein", "input x: bf16[a]\ny = gelo(x)\nreturn y", ProgramError, "a.ein: line 2: unknown map `gelo`"),
        ("a.ein", "input x bf16[a]\n", NotationError, "a.ein: line 1: `:` is wanted here"),
        ("a.py", "x = 1\n", ModelError, "makes no program"),
        ("a.py", "x = 1\ny = x / 0\n", ModelError, "a.py: line 2: ZeroDivisionError: division by zero"),
        ("a.py", "def f(:\n", ModelError, "a.py: line 1: SyntaxError"),
        ("a.py", MLP_PYTHON.replace("gelu(h)", "h + 3"), ProgramError, "operand 2 of add is int"),
        ("a.py", "raise SystemExit(3)", ModelError, "SystemExit"),
    ],
)
def test_a_faulty_program_file_is_one_clear_error(tmp_path, file, content, kind, words):
    path = tmp_path / file
    path.write_text(content)
    with pytest.raises(EinscaleError) as caught:
        load_model(str(path))
    assert isinstance(caught.value, kind)
    assert words in str(caught.value)
