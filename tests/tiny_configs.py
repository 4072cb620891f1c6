"""A small configuration of every family, with the options that change its programs."""

LLAMA = {
    "model_type": "llama",
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "vocab_size": 11,
}
GEMMA2 = {**LLAMA, "model_type": "gemma2", "query_pre_attn_scalar": 3, "sliding_window": 3}
OPT = {
    "model_type": "opt",
    "hidden_size": 12,
    "ffn_dim": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "vocab_size": 11,
    "max_position_embeddings": 7,
}
BLOOM = {"model_type": "bloom", "hidden_size": 12, "n_layer": 2, "n_head": 3, "vocab_size": 11}
NEOX = {
    "model_type": "gpt_neox",
    "hidden_size": 24,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "vocab_size": 11,
}
FALCON = {
    "model_type": "falcon",
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "vocab_size": 11,
    "ffn_hidden_size": 10,
}

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 5}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
QWEN3_NEXT = {
    **LLAMA,
    **EXPERTS,
    "model_type": "qwen3_next",
    "num_hidden_layers": 4,
    "partial_rotary_factor": 0.5,
    "shared_expert_intermediate_size": 3,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 3,
    "linear_value_head_dim": 5,
    "linear_conv_kernel_dim": 4,
}
DEEPSEEK = {
    **{key: value for key, value in LLAMA.items() if key != "head_dim"},
    "model_type": "deepseek_v3",
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 5,
    "n_shared_experts": 2,
    "n_group": 2,
    "topk_group": 1,
    "q_lora_rank": 7,
    "kv_lora_rank": 6,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 2,
    "v_head_dim": 3,
    "num_nextn_predict_layers": 1,
}
GPT_OSS = {**LLAMA, "model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 3}

CONFIGS = {
    "llama": LLAMA,
    "llama with every option": LLAMA
    | {"attention_bias": True, "mlp_bias": True, "attention_dropout": 0.25, "tie_word_embeddings": True},
    "llama with gelu": LLAMA | {"hidden_act": "gelu", "num_key_value_heads": 6},
    "mistral": {**LLAMA, "model_type": "mistral", "sliding_window": 3},
    "gpt2": {"model_type": "gpt2", "n_embd": 12, "n_layer": 2, "n_head": 3, "vocab_size": 11, "n_positions": 7},
    "qwen3": {**LLAMA, "model_type": "qwen3"},
    "gemma": {**LLAMA, "model_type": "gemma", "num_key_value_heads": 1},
    "gemma2": GEMMA2,
    "gemma3": {**LLAMA, "model_type": "gemma3_text", "sliding_window": 3, "sliding_window_pattern": 2},
    "olmo": {**LLAMA, "model_type": "olmo", "clip_qkv": 0.75},
    "olmo2": {**LLAMA, "model_type": "olmo2"},
    "olmo3": {**LLAMA, "model_type": "olmo3", "num_hidden_layers": 4, "sliding_window": 2},
    "opt": OPT,
    "opt with norms after": OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 5},
    "opt without weights in norms": OPT | {"layer_norm_elementwise_affine": False, "enable_bias": False},
    "bloom": BLOOM,
    "bloom with the residual after the norm": BLOOM
    | {"apply_residual_connection_post_layernorm": True, "hidden_dropout": 0.1},
    "gpt_neox": NEOX,
    "gpt_neox with dropout": NEOX | {"hidden_dropout": 0.25},
    "gpt_neox one after the other": NEOX | {"use_parallel_residual": False},
    "falcon with one key head": FALCON,
    "falcon, new": FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2, "hidden_dropout": 0.25},
    "falcon with biases": FALCON | {"bias": True, "hidden_dropout": 0.25},
    "falcon one after the other": FALCON | {"parallel_attn": False, "alibi": True, "bias": True, "multi_query": False},
    "mpt": {
        "model_type": "mpt",
        "d_model": 12,
        "n_layers": 2,
        "n_heads": 3,
        "vocab_size": 11,
        "attn_config": {"clip_qkv": 1.5},
    },
    "phi3": {**LLAMA, "model_type": "phi3", "partial_rotary_factor": 0.5, "resid_pdrop": 0.25},
    "granite": {
        **LLAMA,
        "model_type": "granite",
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.2,
        "residual_multiplier": 0.25,
        "logits_scaling": 8.0,
    },
    "mixtral": MIXTRAL,
    "qwen2_moe": {
        **LLAMA,
        **EXPERTS,
        "model_type": "qwen2_moe",
        "shared_expert_intermediate_size": 3,
        "mlp_only_layers": [0],
    },
    "qwen3_moe": {**LLAMA, **EXPERTS, "model_type": "qwen3_moe", "norm_topk_prob": True, "decoder_sparse_step": 2},
    "qwen3_next": QWEN3_NEXT,
    "deepseek_v2": DEEPSEEK | {"model_type": "deepseek_v2", "q_lora_rank": None, "topk_method": "group_limited_greedy"},
    "deepseek_v3": DEEPSEEK,
    "kimi_k2": {**DEEPSEEK, "model_type": "kimi_k2", "n_group": 1, "topk_group": 1, "attention_bias": True},
    "glm4_moe": {
        **LLAMA,
        "model_type": "glm4_moe",
        "first_k_dense_replace": 1,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 5,
        "use_qk_norm": True,
    },
    "gpt_oss": GPT_OSS,
}
