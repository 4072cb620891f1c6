"""The families of models, a row for each: how its class differs from one that it is like.

A trait is a fact of a `ModelConfig`: its value, or where the configuration spells it (`reading` has the sources,
`traits` those that take a rule) and what a missing key means: the documented default of the transformers class
(version 5; keys that version 4 spells otherwise are read too, and what a class leaves to its model is what the model
does). A family more is a row more:

    "olmo2": OLMO.like("Olmo2", {"rms_norm_eps": 1e-5}, norm_place=NormPlace.AFTER, qk_norm=HeadNorm.ALL),

says that OLMo 2 is read as OLMo, with another default epsilon, norms after attention and MLP, and a norm of all queries
and of all keys together; `residual_dropout=rate(resid_pdrop=0.1)` would add a trait that the file spells, with the
default. A new function is due only where the class has a rule that no other has.
"""

from __future__ import annotations

from typing import Any

from einscale.models import traits
from einscale.models.reading import (
    REQUIRED,
    Family,
    activation,
    bias,
    flag,
    from_one,
    number,
    optional_count,
    optional_number,
    optional_size,
    positive,
    rate,
    size,
    then,
    where,
)
from einscale.models.values import Activation, HeadNorm, Norm, NormPlace, Scoring

GPT = Family().like(
    "",
    **traits.widths("hidden_size", "num_attention_heads", "num_hidden_layers"),
    intermediate=traits.four_wide,
    vocab=size("vocab_size"),
    max_positions=optional_size("max_position_embeddings"),
    activation=Activation.GELU,
    gated=False,
    norm=Norm.LAYER,
    norm_eps=number(layer_norm_epsilon=1e-5),
    norm_bias=True,
    qkv_bias=True,
    out_bias=True,
    mlp_bias=True,
    tied=flag(tie_word_embeddings=True),
    attention_dropout=rate(attention_dropout=0.0),
    residual_dropout=rate(hidden_dropout=0.0),
)
"""What the GPT line has in common: layer norm, a plain MLP, biases."""

DECODER = Family().like(
    "",
    {"rope_theta": 10000.0, "head_dim": None},
    hidden=size("hidden_size"),
    layers=size("num_hidden_layers"),
    heads=size("num_attention_heads"),
    kv_heads=traits.key_heads("num_key_value_heads"),
    head_dim=traits.head_size("head_dim"),
    qkv_bias=bias("attention_bias"),
    out_bias=bias("attention_bias"),
    intermediate=size("intermediate_size"),
    vocab=size("vocab_size"),
    max_positions=optional_size("max_position_embeddings"),
    activation=activation(hidden_act="silu"),
    norm_eps=number(rms_norm_eps=1e-6),
    rope_theta=traits.rope_theta(),
    mlp_bias=bias("mlp_bias"),
    tied=flag(tie_word_embeddings=False),
    attention_dropout=rate(attention_dropout=0.0),
)
"""What the Llama line has in common: RMS norm before attention and MLP, rotary positions, a gated MLP."""

# Every layer windowed, if any is; phi3 and mixtral do not even ask `layer_types`.
MISTRAL = DECODER.like(
    "Mistral",
    {"max_position_embeddings": 131072},
    window=optional_size(sliding_window=4096),
    pattern=where("window", traits.layers(lambda layer, _: True), ""),
)
WINDOWED = MISTRAL.like(
    "", {"rms_norm_eps": 1e-5, "sliding_window": None}, pattern=lambda reader, facts: "w" * facts["layers"]
)
LLAMA = DECODER.like(
    "Llama", {"max_position_embeddings": 2048, "num_key_value_heads": None, "attention_bias": False, "mlp_bias": False}
)
# Layers from `max_window_layers` on may be windowed.
QWEN = DECODER.like(
    "",
    {"max_position_embeddings": 32768},
    window=where(flag(use_sliding_window=False), optional_size(sliding_window=4096)),
    pattern=where("window", traits.layers(lambda layer, first: layer >= first, number(max_window_layers=28)), ""),
)
# Wide heads, the embedding times the root of the width.
GEMMA = DECODER.like(
    "Gemma",
    {
        "hidden_act": "gelu_pytorch_tanh",
        "head_dim": REQUIRED,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "max_position_embeddings": 8192,
    },
    refused=(("use_bidirectional_attention", False, "only causal attention is known"),),
    activation=traits.gemma_activation,
    embedding_scale=lambda reader, facts: facts["hidden"] ** 0.5,
)
# Norms before and after, every other layer windowed, scores and logits capped.
GEMMA2 = GEMMA.like(
    "Gemma2",
    activation=activation(hidden_activation="gelu_pytorch_tanh"),
    norm_place=NormPlace.BOTH,
    score_factor=then(positive(query_pre_attn_scalar=256), traits.root),
    softcap=optional_number(attn_logit_softcapping=50.0),
    logit_softcap=optional_number(final_logit_softcapping=30.0),
    pattern=traits.layers(lambda layer, _: layer % 2 == 0),
    window=optional_size(sliding_window=4096),
)
OLMO = LLAMA.like("Olmo", {"mlp_bias": REQUIRED})
# Norms after attention and MLP, and of all queries and of all keys together.
OLMO2 = OLMO.like("Olmo2", {"rms_norm_eps": 1e-5}, norm_place=NormPlace.AFTER, qk_norm=HeadNorm.ALL)

_TOP: dict[str, Any] = {"count": size("num_experts"), "top": traits.top("num_experts_per_tok")}
_EXPERTS = {"num_experts": "num_local_experts"}
_QWEN_ROUTED = {**_TOP, "hidden": size("moe_intermediate_size"), "normalise": flag(norm_topk_prob=False)}
# A shared expert that a score of the token gates.
QWEN_MOE = QWEN.like(
    "Qwen2Moe",
    {"decoder_sparse_step": 1, "mlp_only_layers": None},
    aliases=_EXPERTS,
    qkv_bias=flag(qkv_bias=True),
    mlps=traits.routed_layers("decoder_sparse_step", "mlp_only_layers"),
    experts=traits.experts(**_QWEN_ROUTED, shared=size("shared_expert_intermediate_size"), shared_gate=True),
)

_DEEPSEEK_ROUTED: dict[str, Any] = {
    "count": size("n_routed_experts"),
    "hidden": size("moe_intermediate_size"),
    "shared": lambda reader, facts: reader.optional_count("n_shared_experts") * facts["hidden"],
    "groups": traits.groups,
    "top": traits.top("num_experts_per_tok"),
    "scoring": Scoring.SIGMOID,
    "normalise": flag(norm_topk_prob=True),
    "factor": positive(routed_scaling_factor=1.0),
}
# The first layers dense, each other with one shared expert as wide as its shared experts together.
ROUTED_BEHIND = DECODER.like(
    "",
    {"attention_bias": False, "n_shared_experts": 1},
    aliases={"n_routed_experts": ("num_local_experts", "num_experts")},
    refused=(("moe_layer_freq", 1, "the class routes every layer behind the dense ones"),),
    mlps=traits.routed_behind("first_k_dense_replace"),
    experts=traits.experts(**_DEEPSEEK_ROUTED),
    ahead=optional_count(num_nextn_predict_layers=0),
)
# Latent attention, sigmoid scores, node-limited routing, layers that predict further tokens.
DEEPSEEK_V3 = ROUTED_BEHIND.like(
    "DeepseekV3",
    {
        "head_dim": REQUIRED,
        "q_lora_rank": None,
        "max_position_embeddings": 4096,
        "first_k_dense_replace": 3,
        "routed_scaling_factor": 2.5,
        "n_group": 8,
        "topk_group": 4,
    },
    head_dim=traits.head_size("qk_nope_head_dim"),
    latent=traits.latent,
)

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN.like("Qwen2", qkv_bias=True),
    "qwen3": QWEN.like("Qwen3", {"head_dim": REQUIRED, "attention_bias": False}, qk_norm=HeadNorm.HEAD),
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    # As Gemma 2, queries and keys of each head normed, angles of their own in windowed layers, scores not capped.
    "gemma3_text": GEMMA2.like(
        "Gemma3",
        {
            "max_position_embeddings": 131072,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
            "final_logit_softcapping": None,
        },
        config_class="Gemma3TextConfig",
        nested_sizes={"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256},
        qk_norm=HeadNorm.HEAD,
        softcap=0.0,
        pattern=traits.layers(lambda layer, every: (layer + 1) % every, from_one(sliding_window_pattern=6)),
        window_rope_theta=traits.rope_theta("rope_local_base_freq", traits.SLIDING),
    ),
    # As Llama, a part of each head rotated, dropout behind attention and MLP.
    "phi3": WINDOWED.like(
        "Phi3",
        {"max_position_embeddings": 4096, "num_key_value_heads": None, "partial_rotary_factor": 1.0},
        rotary=traits.rotated(),
        residual_dropout=rate(resid_pdrop=0.0),
        embedding_dropout=rate(embd_pdrop=0.0),
    ),
    # A factor on embedding, scores, results of attention and MLP, and logits.
    "granite": LLAMA.like(
        "Granite",
        embedding_scale=positive(embedding_multiplier=1.0),
        score_factor=positive(attention_multiplier=1.0),
        residual_scale=positive(residual_multiplier=1.0),
        logit_scale=then(positive(logits_scaling=1.0), lambda divisor: 1 / divisor),
    ),
    # Layer norms without parameters (epsilon 1e-5, written in the model), queries, keys, values clamped.
    "olmo": OLMO.like(
        "Olmo", norm=Norm.LAYER, norm_eps=1e-5, norm_weight=False, clip_qkv=optional_number(clip_qkv=None)
    ),
    "olmo2": OLMO2,
    "olmo3": OLMO2.like(  # three of four layers windowed
        "Olmo3",
        {"rope_theta": 500000.0},
        window_rope_theta=traits.rope_theta(kind=traits.SLIDING),
        pattern=traits.layers(lambda layer, _: (layer + 1) % 4),
        window=optional_size(sliding_window=4096),
    ),
    "gpt2": GPT.like(  # and GPT-3
        "GPT2",
        model_class="GPT2LMHeadModel",
        aliases={
            "n_embd": "hidden_size",
            "n_positions": "max_position_embeddings",
            "n_head": "num_attention_heads",
            "n_layer": "num_hidden_layers",
        },
        refused=(("add_cross_attention", False, "blocks with cross-attention are not known"),),
        **traits.widths("n_embd", "n_head", "n_layer"),
        intermediate=size(n_inner=None, unless_null=traits.four_wide),
        max_positions=size("n_positions"),
        activation=activation(activation_function="gelu_new"),
        attention_dropout=rate(attn_pdrop=0.1),
        residual_dropout=rate(resid_pdrop=0.1),
        embedding_dropout=rate(embd_pdrop=0.1),
        score_factor=where(flag(scale_attn_weights=True), traits.usual_scale, 1.0),
    ),
    # Learned positions behind two unused rows; the 350m has its norms after and a narrower table of tokens.
    "opt": GPT.like(
        "OPT",
        {"word_embed_proj_dim": None, "_remove_final_layer_norm": False},
        intermediate=size("ffn_dim"),
        max_positions=size("max_position_embeddings"),
        position_offset=2,
        activation=activation(activation_function="relu"),
        norm_eps=1e-5,
        **dict.fromkeys(("norm_weight", "norm_bias"), flag(layer_norm_elementwise_affine=True)),
        norm_place=then(
            flag(do_layer_norm_before=True), lambda before: NormPlace.BEFORE if before else NormPlace.RESIDUAL
        ),
        final_norm=traits.opt_final_norm,
        **dict.fromkeys(("qkv_bias", "out_bias", "mlp_bias"), flag(enable_bias=True)),
        residual_dropout=rate(dropout=0.1),
        embedding_size=traits.narrow_table,
    ),
    "bloom": GPT.like(  # ALiBi, a norm behind the embedding
        "Bloom",
        aliases={"hidden_size": "n_embed", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads"},
        **traits.widths("hidden_size", "n_head", "n_layer"),
        max_positions=where(lambda reader, facts: "seq_length" in reader.data, optional_size("seq_length")),
        activation=Activation.GELU_TANH,
        alibi=traits.ALIBI_EXPONENT,
        embedding_norm=True,
        residual_from_norm=flag(apply_residual_connection_post_layernorm=False),
    ),
    "gpt_neox": GPT.like(  # and Pythia: attention and MLP in parallel, a quarter of each head rotated
        "GPTNeoX",
        {"max_position_embeddings": 2048, "tie_word_embeddings": False, "rotary_emb_base": 10000.0, "rotary_pct": 0.25},
        aliases={"rotary_emb_base": "rope_theta"},
        intermediate=size("intermediate_size"),
        activation=activation(hidden_act="gelu"),
        norm_eps=number(layer_norm_eps=1e-5),
        rotary=traits.rotated("rotary_pct"),
        rope_theta=traits.rope_theta("rotary_emb_base"),
        **dict.fromkeys(("qkv_bias", "out_bias"), flag(attention_bias=True)),
        embedding_dropout=rate(hidden_dropout=0.0),
        parallel=flag(use_parallel_residual=True),
    ),
    "falcon": GPT.like(
        "Falcon",
        {
            "num_kv_heads": None,
            "alibi": False,
            "new_decoder_architecture": False,
            "multi_query": True,
            "parallel_attn": True,
            "max_position_embeddings": 2048,
            "rope_theta": 10000.0,
        },
        aliases={
            "hidden_size": "n_embed",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "num_kv_heads": "n_head_kv",
        },
        intermediate=size(ffn_hidden_size=None, unless_null=traits.four_wide),
        activation=activation(activation="gelu"),
        **dict.fromkeys(("qkv_bias", "out_bias", "mlp_bias"), flag(bias=False)),
        kv_heads=traits.falcon_attention,
        alibi=traits.falcon_positions,
        dropout_of_sum=True,
    ),
    "mpt": GPT.like(  # ALiBi, no biases anywhere; its model has no table of positions
        "Mpt",
        {"attn_pdrop": 0.0, "softmax_scale": None, "clip_qkv": None, "alibi_bias_max": 8},
        aliases={"d_model": "hidden_size", "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers"},
        refused=(
            ("attn_config.attn_type", "multihead_attention", "MptForCausalLM has one key head for each query head"),
            ("attn_config.alibi", True, "MptForCausalLM knows no other positions"),
            ("attn_config.qk_ln", False, "MptForCausalLM does not norm its queries and keys"),
            ("attn_config.prefix_lm", False, "only causal attention is known"),
            ("no_bias", True, "MptForCausalLM has no biases"),
            ("expansion_ratio", 4, "the MLP of MptForCausalLM is four times as wide"),
        ),
        **traits.widths("d_model", "n_heads", "n_layers"),
        max_positions=optional_size(max_seq_len=2048),
        **dict.fromkeys(("norm_bias", "qkv_bias", "out_bias", "mlp_bias"), False),
        alibi=positive("attn_config.alibi_bias_max"),
        **dict.fromkeys(("attention_dropout", "residual_dropout"), rate("attn_config.attn_pdrop")),
        clip_qkv=optional_number("attn_config.clip_qkv"),
        score_factor=traits.mpt_scale,
    ),
    # Every layer routed, a softmax over the chosen experts.
    "mixtral": WINDOWED.like(
        "Mixtral",
        {"rope_theta": 1000000.0},
        aliases=_EXPERTS,
        mlps=traits.every_layer_routed,
        experts=traits.experts(**_TOP, hidden=size("intermediate_size")),
    ),
    "qwen2_moe": QWEN_MOE,
    "qwen3_moe": QWEN_MOE.like(
        "Qwen3Moe",
        {"attention_bias": False},
        qkv_bias=bias("attention_bias"),
        qk_norm=HeadNorm.HEAD,
        experts=traits.experts(**_QWEN_ROUTED),
    ),
    # Three of four layers are gated delta nets; attention is gated and rotates a part of each head.
    "qwen3_next": QWEN_MOE.like(
        "Qwen3Next",
        {"head_dim": REQUIRED, "attention_bias": False, "norm_topk_prob": True, "partial_rotary_factor": 0.25},
        qkv_bias=bias("attention_bias"),
        qk_norm=HeadNorm.HEAD,
        output_gate=True,
        window=0,
        pattern=traits.layers(
            lambda layer, n: (layer + 1) % n, from_one(full_attention_interval=4), traits.LINEAR, "l"
        ),
        delta=traits.delta,
        rotary=traits.rotated(),
    ),
    # Biases on everything that projects, a learned score that attends to nothing, clamped experts.
    "gpt_oss": DECODER.like(
        "GptOss",
        {
            "head_dim": REQUIRED,
            "rms_norm_eps": 1e-5,
            "rope_theta": 150000.0,
            "max_position_embeddings": 131072,
            "attention_bias": True,
        },
        aliases={**_EXPERTS, "num_experts_per_tok": "experts_per_token"},
        mlps=traits.every_layer_routed,
        experts=traits.experts(
            **_TOP,
            hidden=size("intermediate_size"),
            bias=True,
            limit=positive(swiglu_limit=7.0),
            alpha=positive(swiglu_alpha=1.702),
        ),
        sinks=True,
        window=optional_size(sliding_window=128),
        pattern=where("window", traits.layers(lambda layer, _: layer % 2 == 0), ""),
    ),
    # Softmax scores that are not normalised, whatever the file says; its Lite form projects queries directly.
    "deepseek_v2": DEEPSEEK_V3.like(
        "DeepseekV2",
        {
            "max_position_embeddings": 2048,
            "first_k_dense_replace": 0,
            "norm_topk_prob": False,
            "routed_scaling_factor": 1.0,
            "n_group": None,
            "topk_group": None,
            "n_shared_experts": 2,
            "topk_method": "greedy",
        },
        experts=traits.experts(
            **_DEEPSEEK_ROUTED
            | {"scoring": Scoring.SOFTMAX, "normalise": then(flag("norm_topk_prob"), lambda _: False)}
        ),
        ahead=0,
    ),
    "deepseek_v3": DEEPSEEK_V3,
    "kimi_k2": DEEPSEEK_V3,
    # GLM-4.5 and later: grouped queries that rotate half of each head, experts as DeepSeek V3's.
    "glm4_moe": ROUTED_BEHIND.like(
        "Glm4Moe",
        {
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 131072,
            "partial_rotary_factor": 0.5,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
        out_bias=False,
        rotary=traits.rotated(),
        qk_norm=then(flag(use_qk_norm=False), lambda normed: HeadNorm.HEAD if normed else ""),
    ),
}
"""`model_type` -> how it is read."""
