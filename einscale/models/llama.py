"""Reading the Llama line: Llama, Mistral, Qwen, Gemma, OLMo. Rotary positions, gated MLP.

Defaults are those of the configuration classes of transformers 5 (`configuration_llama.py` and so on); where version 4
spells a key otherwise (`torch_dtype`, `rope_theta`), both are read.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from einscale.models.config import ConfigReader
from einscale.models.reading import (
    ACTIVATIONS,
    SLIDING,
    Family,
    check_rotary,
    read_dtype,
    read_heads,
    read_pattern,
    read_rope_theta,
    read_rotary,
)
from einscale.models.values import ModelConfig


def read_common(
    reader: ConfigReader, dtype: str | None, activation: str = "", head_dim: str = "head_dim"
) -> ModelConfig:
    """The facts that all of them have, as Llama has them: RMS norm before attention and MLP, no window.

    Args:
        reader: the configuration.
        dtype: the caller's element type.
        activation: of the MLP, where it is not what `hidden_act` says.
        head_dim: key of the size of a head.
    """
    hidden, layers = reader.size("hidden_size"), reader.size("num_hidden_layers")
    heads, kv_heads, size = read_heads(reader, hidden, head_dim)
    check_rotary(reader, head_dim, size)
    attention_bias = reader.flag("attention_bias") if "attention_bias" in reader.defaults else False
    return ModelConfig(
        architecture=str(reader.data.get("model_type")),
        class_name=reader.class_name,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=size,
        intermediate=reader.size("intermediate_size"),
        vocab=reader.size("vocab_size"),
        max_positions=reader.optional_size("max_position_embeddings"),
        activation=activation or reader.word("hidden_act", ACTIVATIONS),
        gated=True,
        norm="rms",
        norm_eps=reader.number("rms_norm_eps") if "rms_norm_eps" in reader.defaults else 1e-5,
        positions="rope",
        rope_theta=read_rope_theta(reader),
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        mlp_bias=reader.flag("mlp_bias") if "mlp_bias" in reader.defaults else False,
        tied=reader.flag("tie_word_embeddings"),
        window=0,
        pattern="",
        attention_dropout=reader.number("attention_dropout", 0.0, 1.0),
        residual_dropout=0.0,
        embedding_dropout=0.0,
        score_factor=size**-0.5,
        dtype=read_dtype(reader, dtype),
    )


def read_llama(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Llama 1 to 3."""
    return read_common(reader, dtype)


def read_mistral(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Mistral: every layer is windowed, if any is."""
    facts = read_common(reader, dtype)
    window = reader.optional_size("sliding_window")
    if not window:
        return facts
    return replace(facts, window=window, pattern=read_pattern(reader, facts.layers, lambda layer: True))


def read_qwen2(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Qwen 2 and 2.5: biases on queries, keys and values; layers from `max_window_layers` on may be windowed."""
    return read_qwen_window(reader, replace(read_common(reader, dtype), qkv_bias=True))


def read_qwen3(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Qwen 3: a norm of the queries and keys of each head."""
    return read_qwen_window(reader, replace(read_common(reader, dtype), qk_norm="head"))


def read_qwen_window(reader: ConfigReader, facts: ModelConfig) -> ModelConfig:
    """With the windows of Qwen's layers, if it uses any."""
    if not reader.flag("use_sliding_window"):
        return facts
    window = reader.optional_size("sliding_window")
    if not window:
        return facts
    if reader.data.get("layer_types") is not None:
        pattern = read_pattern(reader, facts.layers, lambda layer: False)
    else:
        first = int(reader.number("max_window_layers"))
        pattern = read_pattern(reader, facts.layers, lambda layer: layer >= first)
    return replace(facts, window=window if "w" in pattern else 0, pattern=pattern if "w" in pattern else "")


def _gemma_activation(reader: ConfigReader) -> str:
    """`hidden_activation` where it says something, else `hidden_act`: its `gelu` was always meant as the tanh form."""
    if reader.data.get("hidden_activation") is not None or "hidden_activation" in reader.defaults:
        return reader.word("hidden_activation", ACTIVATIONS)
    return "gelu_tanh" if (name := reader.word("hidden_act", ACTIVATIONS)) == "gelu" else name


def read_gemma(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Gemma 1: wide heads, the embedding times the root of the width."""
    facts = read_common(reader, dtype, _gemma_activation(reader))
    reader.refuse("use_bidirectional_attention", False, "only causal attention is known")
    return replace(facts, embedding_scale=facts.hidden**0.5)


def read_gemma2(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Gemma 2: norms before and after, every other layer windowed, scores and logits capped."""
    facts = replace(
        read_gemma(reader, dtype),
        norm_place="both",
        score_factor=reader.number("query_pre_attn_scalar", 1e-9) ** -0.5,
        softcap=reader.optional_number("attn_logit_softcapping"),
        logit_softcap=reader.optional_number("final_logit_softcapping"),
    )
    return _windowed(reader, facts, read_pattern(reader, facts.layers, lambda layer: layer % 2 == 0))


def read_gemma3(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Gemma 3: as Gemma 2, queries and keys of each head normed, angles of their own in windowed layers."""
    facts = _read_gemma3_common(reader, dtype)
    layers = facts.layers
    if reader.data.get("layer_types") is None:
        every = int(reader.number("sliding_window_pattern", 1.0))
        pattern = read_pattern(reader, layers, lambda layer: (layer + 1) % every != 0)
    else:
        pattern = read_pattern(reader, layers, lambda layer: False)
    local = read_rope_theta(reader, SLIDING, "rope_local_base_freq")
    return _windowed(reader, replace(facts, window_rope_theta=local), pattern)


def _read_gemma3_common(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """What Gemma 3 shares with Gemma 2; its model has no use for `attn_logit_softcapping`."""
    return replace(
        read_gemma(reader, dtype),
        norm_place="both",
        qk_norm="head",
        score_factor=reader.number("query_pre_attn_scalar", 1e-9) ** -0.5,
        logit_softcap=reader.optional_number("final_logit_softcapping"),
    )


def read_phi3(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Phi-3: as Llama, a part of each head rotated, dropout behind attention and MLP; windowed where it says so."""
    facts = read_common(reader, dtype)
    facts = replace(
        facts,
        rotary=read_rotary(reader, facts.head_dim),
        residual_dropout=reader.number("resid_pdrop", 0.0, 1.0),
        embedding_dropout=reader.number("embd_pdrop", 0.0, 1.0),
    )
    window = reader.optional_size("sliding_window")
    return replace(facts, window=window, pattern="w" * facts.layers) if window else facts


def read_granite(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Granite: as Llama, with a factor on embedding, scores, results of attention and MLP, and logits."""
    return replace(
        read_common(reader, dtype),
        embedding_scale=reader.number("embedding_multiplier", 1e-9),
        score_factor=reader.number("attention_multiplier", 1e-9),
        residual_scale=reader.number("residual_multiplier", 1e-9),
        logit_scale=1 / reader.number("logits_scaling", 1e-9),
    )


def read_olmo(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """OLMo 1: layer norms without parameters (epsilon 1e-5, written in the model), queries, keys, values clamped."""
    facts = read_common(reader, dtype)
    return replace(facts, norm="layer", norm_weight=False, clip_qkv=reader.optional_number("clip_qkv"))


def read_olmo2(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """OLMo 2: norms after attention and MLP, and of all queries and of all keys together."""
    return replace(read_common(reader, dtype), norm_place="after", qk_norm="all")


def read_olmo3(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """OLMo 3: three of four layers windowed."""
    facts = read_olmo2(reader, dtype)
    facts = replace(facts, window_rope_theta=read_rope_theta(reader, SLIDING))
    return _windowed(reader, facts, read_pattern(reader, facts.layers, lambda layer: (layer + 1) % 4 != 0))


def _windowed(reader: ConfigReader, facts: ModelConfig, pattern: str) -> ModelConfig:
    """With a window of `sliding_window` in the layers of the pattern; null is none, layers with other angles stay."""
    window = reader.optional_size("sliding_window")
    other = facts.window_rope_theta not in (0.0, facts.rope_theta)
    if "w" not in pattern or not (window or other):
        return replace(facts, window_rope_theta=0.0)
    return replace(facts, window=window, pattern=pattern, window_rope_theta=facts.window_rope_theta if other else 0.0)


COMMON: dict[str, Any] = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
    "head_dim": None,
}
"""Defaults that most classes share."""

QWEN_WINDOW: dict[str, Any] = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
"""Defaults of the windows of Qwen."""

_GEMMA: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "max_position_embeddings": 8192,
}

_GEMMA2: dict[str, Any] = {
    **_GEMMA,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0,
}

_OLMO: dict[str, Any] = {
    **COMMON,
    "max_position_embeddings": 2048,
    "num_key_value_heads": None,
    "attention_bias": False,
}

_OLMO2: dict[str, Any] = {**_OLMO, "rms_norm_eps": 1e-5}

FAMILIES: dict[str, Family] = {
    "llama": Family(
        "LlamaConfig",
        "LlamaForCausalLM",
        {
            **COMMON,
            "max_position_embeddings": 2048,
            "num_key_value_heads": None,
            "attention_bias": False,
            "mlp_bias": False,
        },
        read_llama,
    ),
    "mistral": Family(
        "MistralConfig",
        "MistralForCausalLM",
        {**COMMON, "max_position_embeddings": 131072, "sliding_window": 4096},
        read_mistral,
    ),
    "qwen2": Family(
        "Qwen2Config", "Qwen2ForCausalLM", {**COMMON, "max_position_embeddings": 32768, **QWEN_WINDOW}, read_qwen2
    ),
    "qwen3": Family(
        "Qwen3Config",
        "Qwen3ForCausalLM",
        {
            **{key: value for key, value in COMMON.items() if key != "head_dim"},
            "max_position_embeddings": 32768,
            "attention_bias": False,
            **QWEN_WINDOW,
        },
        read_qwen3,
    ),
    "gemma": Family("GemmaConfig", "GemmaForCausalLM", {**_GEMMA, "hidden_act": "gelu_pytorch_tanh"}, read_gemma),
    "gemma2": Family("Gemma2Config", "Gemma2ForCausalLM", _GEMMA2, read_gemma2),
    "gemma3_text": Family(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            **_GEMMA2,
            "max_position_embeddings": 131072,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
            "sliding_window_pattern": 6,
            "final_logit_softcapping": None,
        },
        read_gemma3,
        nested_sizes={"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256},
    ),
    "phi3": Family(
        "Phi3Config",
        "Phi3ForCausalLM",
        {
            **COMMON,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
            "num_key_value_heads": None,
            "partial_rotary_factor": 1.0,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "sliding_window": None,
        },
        read_phi3,
    ),
    "granite": Family(
        "GraniteConfig",
        "GraniteForCausalLM",
        {
            **COMMON,
            "max_position_embeddings": 2048,
            "num_key_value_heads": None,
            "attention_bias": False,
            "mlp_bias": False,
            "embedding_multiplier": 1.0,
            "attention_multiplier": 1.0,
            "residual_multiplier": 1.0,
            "logits_scaling": 1.0,
        },
        read_granite,
    ),
    "olmo": Family(
        "OlmoConfig",
        "OlmoForCausalLM",
        {**{key: value for key, value in _OLMO.items() if key != "rms_norm_eps"}, "clip_qkv": None},
        read_olmo,
    ),
    "olmo2": Family("Olmo2Config", "Olmo2ForCausalLM", _OLMO2, read_olmo2),
    "olmo3": Family(
        "Olmo3Config",
        "Olmo3ForCausalLM",
        {**_OLMO2, "rope_theta": 500000.0, "sliding_window": 4096},
        read_olmo3,
    ),
}
"""`model_type` -> how it is read."""
