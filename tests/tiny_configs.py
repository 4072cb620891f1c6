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
}
