"""Reading the GPT line: GPT-2 and GPT-3, OPT, BLOOM, GPT-NeoX and Pythia, Falcon, MPT. Layer norm, plain MLP.

Defaults are those of the configuration classes of transformers 5, and what a class leaves to its model is what the
model does (`modeling_bloom.py` and so on).
"""

from __future__ import annotations

from einscale.models.config import ConfigReader
from einscale.models.reading import (
    ACTIVATIONS,
    Family,
    check_hidden,
    check_kv_heads,
    check_rotary,
    read_dtype,
    read_rope_theta,
)
from einscale.models.values import ModelConfig

ALIBI_EXPONENT = 8.0
"""Slopes of ALiBi fall from 2^(-8/heads) to 2^-8 (Press et al. 2021, arXiv 2108.12409)."""


def read_gpt2(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """GPT-2 and GPT-3: learned positions, biases and dropout everywhere."""
    hidden, heads = reader.size("n_embd"), reader.size("n_head")
    head_dim = check_hidden(reader, hidden, heads, "n_head", "n_embd")
    reader.refuse("add_cross_attention", False, "blocks with cross-attention are not known")
    return ModelConfig(
        architecture="gpt2",
        class_name=reader.class_name,
        hidden=hidden,
        layers=reader.size("n_layer"),
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        intermediate=reader.size("n_inner", unless_null=4 * hidden),
        vocab=reader.size("vocab_size"),
        max_positions=reader.size("n_positions"),
        activation=reader.word("activation_function", ACTIVATIONS),
        gated=False,
        norm="layer",
        norm_eps=reader.number("layer_norm_epsilon"),
        norm_bias=True,
        positions="learned",
        rope_theta=0.0,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        tied=reader.flag("tie_word_embeddings"),
        window=0,
        pattern="",
        attention_dropout=reader.number("attn_pdrop", 0.0, 1.0),
        residual_dropout=reader.number("resid_pdrop", 0.0, 1.0),
        embedding_dropout=reader.number("embd_pdrop", 0.0, 1.0),
        score_factor=head_dim**-0.5 if reader.flag("scale_attn_weights") else 1.0,
        dtype=read_dtype(reader, dtype),
    )


def read_opt(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """OPT: learned positions behind two unused rows; the 350m has its norms after and a narrower table of tokens."""
    hidden, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    head_dim = check_hidden(reader, hidden, heads, "num_attention_heads", "hidden_size")
    table = reader.size("word_embed_proj_dim", unless_null=hidden)
    bias, weight = reader.flag("enable_bias"), reader.flag("layer_norm_elementwise_affine")
    before = reader.flag("do_layer_norm_before")
    return ModelConfig(
        architecture="opt",
        class_name=reader.class_name,
        hidden=hidden,
        layers=reader.size("num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        intermediate=reader.size("ffn_dim"),
        vocab=reader.size("vocab_size"),
        max_positions=reader.size("max_position_embeddings"),
        position_offset=2,
        activation=reader.word("activation_function", ACTIVATIONS),
        gated=False,
        norm="layer",
        norm_eps=1e-5,
        norm_weight=weight,
        norm_bias=weight,
        norm_place="before" if before else "residual",
        final_norm=before and not reader.flag("_remove_final_layer_norm"),
        positions="learned",
        rope_theta=0.0,
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        tied=reader.flag("tie_word_embeddings"),
        window=0,
        pattern="",
        attention_dropout=reader.number("attention_dropout", 0.0, 1.0),
        residual_dropout=reader.number("dropout", 0.0, 1.0),
        embedding_dropout=0.0,
        embedding_size=table if table != hidden else 0,
        score_factor=head_dim**-0.5,
        dtype=read_dtype(reader, dtype),
    )


def read_bloom(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """BLOOM: ALiBi, a norm behind the embedding, an MLP four times as wide."""
    hidden, heads = reader.size("hidden_size"), reader.size("n_head")
    head_dim = check_hidden(reader, hidden, heads, "n_head", "hidden_size")
    return ModelConfig(
        architecture="bloom",
        class_name=reader.class_name,
        hidden=hidden,
        layers=reader.size("n_layer"),
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        intermediate=4 * hidden,
        vocab=reader.size("vocab_size"),
        max_positions=reader.optional_size("seq_length") if "seq_length" in reader.data else 0,
        activation="gelu_tanh",
        gated=False,
        norm="layer",
        norm_eps=reader.number("layer_norm_epsilon"),
        norm_bias=True,
        positions="alibi",
        alibi=ALIBI_EXPONENT,
        rope_theta=0.0,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        tied=reader.flag("tie_word_embeddings"),
        window=0,
        pattern="",
        attention_dropout=reader.number("attention_dropout", 0.0, 1.0),
        residual_dropout=reader.number("hidden_dropout", 0.0, 1.0),
        embedding_dropout=0.0,
        embedding_norm=True,
        residual_from_norm=reader.flag("apply_residual_connection_post_layernorm"),
        score_factor=head_dim**-0.5,
        dtype=read_dtype(reader, dtype),
    )


def read_gpt_neox(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """GPT-NeoX and Pythia: attention and MLP in parallel, a quarter of each head rotated."""
    hidden, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    head_dim = check_hidden(reader, hidden, heads, "num_attention_heads", "hidden_size")
    nested = reader.nested("rope_parameters")
    key = "partial_rotary_factor" if "partial_rotary_factor" in nested.data else "rotary_pct"
    rotary = int(head_dim * (nested if key in nested.data else reader).number(key, 1e-9, 1.0 + 1e-9))
    check_rotary(reader, key, rotary, f"makes {rotary} of {head_dim} elements of a head turn")
    bias, dropout = reader.flag("attention_bias"), reader.number("hidden_dropout", 0.0, 1.0)
    return ModelConfig(
        architecture="gpt_neox",
        class_name=reader.class_name,
        hidden=hidden,
        layers=reader.size("num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        intermediate=reader.size("intermediate_size"),
        vocab=reader.size("vocab_size"),
        max_positions=reader.optional_size("max_position_embeddings"),
        activation=reader.word("hidden_act", ACTIVATIONS),
        gated=False,
        norm="layer",
        norm_eps=reader.number("layer_norm_eps"),
        norm_bias=True,
        positions="rope",
        rope_theta=read_rope_theta(reader, key="rotary_emb_base"),
        rotary=rotary if rotary != head_dim else 0,
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=True,
        tied=reader.flag("tie_word_embeddings"),
        window=0,
        pattern="",
        attention_dropout=reader.number("attention_dropout", 0.0, 1.0),
        residual_dropout=dropout,
        embedding_dropout=dropout,
        parallel=reader.flag("use_parallel_residual"),
        score_factor=head_dim**-0.5,
        dtype=read_dtype(reader, dtype),
    )


def read_falcon(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Falcon: attention and MLP in parallel; the 7b with one key head and one norm, later ones with grouped queries.

    Its model multiplies ALiBi's bias, too, with one over the root of the head size, and leaves out the dropout of the
    probabilities where positions are rotary: neither changes what a layer costs.
    """
    hidden, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    head_dim = check_hidden(reader, hidden, heads, "num_attention_heads", "hidden_size")
    new, alibi = reader.flag("new_decoder_architecture"), reader.flag("alibi")
    parallel = reader.flag("parallel_attn")
    if new and not parallel:
        raise reader.error("parallel_attn", "is false, but new_decoder_architecture is built in parallel only", "true")
    kv_heads = heads
    if new:
        kv_heads = reader.size("num_kv_heads", unless_null=heads)
        check_kv_heads(reader, "num_kv_heads", heads, kv_heads)
    elif reader.flag("multi_query"):
        kv_heads = 1
    if not alibi:
        check_rotary(reader, "num_attention_heads", head_dim, f"is {heads}, which makes heads of {head_dim}")
    bias = reader.flag("bias")
    return ModelConfig(
        architecture="falcon",
        class_name=reader.class_name,
        hidden=hidden,
        layers=reader.size("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=reader.size("ffn_hidden_size", unless_null=4 * hidden),
        vocab=reader.size("vocab_size"),
        max_positions=reader.optional_size("max_position_embeddings"),
        activation=reader.word("activation", ACTIVATIONS),
        gated=False,
        norm="layer",
        norm_eps=reader.number("layer_norm_epsilon"),
        norm_bias=True,
        positions="alibi" if alibi else "rope",
        alibi=ALIBI_EXPONENT if alibi else 0.0,
        rope_theta=0.0 if alibi else read_rope_theta(reader),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        tied=reader.flag("tie_word_embeddings"),
        window=0,
        pattern="",
        attention_dropout=reader.number("attention_dropout", 0.0, 1.0),
        residual_dropout=reader.number("hidden_dropout", 0.0, 1.0),
        embedding_dropout=0.0,
        parallel=parallel,
        parallel_norms=2 if new and reader.data.get("num_ln_in_parallel_attn") in (None, 2) else 1,
        dropout_of_sum=True,
        score_factor=head_dim**-0.5,
        dtype=read_dtype(reader, dtype),
    )


def read_mpt(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """MPT: ALiBi, no biases anywhere, an MLP four times as wide. Its model has no table of positions."""
    hidden, heads = reader.size("d_model"), reader.size("n_heads")
    head_dim = check_hidden(reader, hidden, heads, "n_heads", "d_model")
    attention = reader.nested("attn_config")
    attention.refuse("attn_type", "multihead_attention", "MptForCausalLM has one key head for each query head")
    attention.refuse("alibi", True, "MptForCausalLM knows no other positions")
    attention.refuse("qk_ln", False, "MptForCausalLM does not norm its queries and keys")
    attention.refuse("prefix_lm", False, "only causal attention is known")
    reader.refuse("no_bias", True, "MptForCausalLM has no biases")
    reader.refuse("expansion_ratio", 4, "the MLP of MptForCausalLM is four times as wide")
    dropout = attention.number("attn_pdrop", 0.0, 1.0)
    scale = attention.optional_number("softmax_scale")
    return ModelConfig(
        architecture="mpt",
        class_name=reader.class_name,
        hidden=hidden,
        layers=reader.size("n_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        intermediate=4 * hidden,
        vocab=reader.size("vocab_size"),
        max_positions=reader.optional_size("max_seq_len"),
        activation="gelu",
        gated=False,
        norm="layer",
        norm_eps=reader.number("layer_norm_epsilon"),
        positions="alibi",
        alibi=attention.number("alibi_bias_max", 1e-9),
        rope_theta=0.0,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        tied=reader.flag("tie_word_embeddings"),
        window=0,
        pattern="",
        attention_dropout=dropout,
        residual_dropout=dropout,
        embedding_dropout=0.0,
        clip_qkv=attention.optional_number("clip_qkv"),
        score_factor=scale or head_dim**-0.5,
        dtype=read_dtype(reader, dtype),
    )


FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            "n_inner": None,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "resid_pdrop": 0.1,
            "embd_pdrop": 0.1,
            "attn_pdrop": 0.1,
            "scale_attn_weights": True,
            "tie_word_embeddings": True,
        },
        read_gpt2,
        {
            "n_embd": "hidden_size",
            "n_positions": "max_position_embeddings",
            "n_head": "num_attention_heads",
            "n_layer": "num_hidden_layers",
        },
    ),
    "opt": Family(
        "OPTConfig",
        "OPTForCausalLM",
        {
            "word_embed_proj_dim": None,
            "do_layer_norm_before": True,
            "_remove_final_layer_norm": False,
            "dropout": 0.1,
            "attention_dropout": 0.0,
            "activation_function": "relu",
            "enable_bias": True,
            "layer_norm_elementwise_affine": True,
            "tie_word_embeddings": True,
        },
        read_opt,
    ),
    "bloom": Family(
        "BloomConfig",
        "BloomForCausalLM",
        {
            "layer_norm_epsilon": 1e-5,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "apply_residual_connection_post_layernorm": False,
            "tie_word_embeddings": True,
        },
        read_bloom,
        {"hidden_size": "n_embed", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads"},
    ),
    "gpt_neox": Family(
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        {
            "hidden_act": "gelu",
            "attention_dropout": 0.0,
            "hidden_dropout": 0.0,
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "use_parallel_residual": True,
            "rotary_emb_base": 10000.0,
            "rotary_pct": 0.25,
            "attention_bias": True,
        },
        read_gpt_neox,
        {"rotary_emb_base": "rope_theta"},
    ),
    "falcon": Family(
        "FalconConfig",
        "FalconForCausalLM",
        {
            "layer_norm_epsilon": 1e-5,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "num_kv_heads": None,
            "alibi": False,
            "new_decoder_architecture": False,
            "multi_query": True,
            "parallel_attn": True,
            "bias": False,
            "max_position_embeddings": 2048,
            "rope_theta": 10000.0,
            "ffn_hidden_size": None,
            "activation": "gelu",
            "tie_word_embeddings": True,
        },
        read_falcon,
        {
            "hidden_size": "n_embed",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "num_kv_heads": "n_head_kv",
        },
    ),
    "mpt": Family(
        "MptConfig",
        "MptForCausalLM",
        {
            "max_seq_len": 2048,
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
            "attn_pdrop": 0.0,
            "softmax_scale": None,
            "clip_qkv": None,
            "alibi_bias_max": 8,
        },
        read_mpt,
        {"d_model": "hidden_size", "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers"},
    ),
}
"""`model_type` -> how it is read."""
