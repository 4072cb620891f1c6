"""Reading models with a mixture of experts: Mixtral, Qwen 2 and 3 MoE, Qwen3-Next, gpt-oss.

Defaults are those of the configuration classes of transformers 5; where version 4 spells a key otherwise
(`num_experts` and `num_local_experts`), both are read.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from einscale.models.config import ConfigReader
from einscale.models.llama import COMMON, QWEN_WINDOW, read_common, read_qwen_window
from einscale.models.reading import (
    LINEAR,
    Family,
    read_layers,
    read_pattern,
    read_rotary,
    read_top,
)
from einscale.models.values import Delta, Experts, ModelConfig


def _experts(reader: ConfigReader, hidden: str) -> Experts:
    """Number, choice and width of the routed experts."""
    count = reader.size("num_experts")
    return Experts(count, read_top(reader, "num_experts_per_tok", count), reader.size(hidden))


def _all_routed(facts: ModelConfig, experts: Experts) -> ModelConfig:
    return replace(facts, experts=experts, mlps="e" * facts.layers)


def read_mixtral(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Mixtral: every layer routed, a softmax over the chosen experts; windowed as Mistral where it says so."""
    facts = _all_routed(read_common(reader, dtype), _experts(reader, "intermediate_size"))
    window = reader.optional_size("sliding_window")
    return replace(facts, window=window, pattern="w" * facts.layers) if window else facts


def _qwen_experts(reader: ConfigReader, facts: ModelConfig) -> ModelConfig:
    """Routed are all layers but those named, and of the others every so many; the rest have a dense MLP."""
    step, dense = int(reader.number("decoder_sparse_step", 1.0)), read_layers(reader, "mlp_only_layers", facts.layers)
    mlps = "".join(
        "d" if layer in dense or (layer + 1) % step else "e"  # from transformers' Qwen3MoeDecoderLayer
        for layer in range(facts.layers)
    )
    if "e" not in mlps:
        return facts
    experts = replace(_experts(reader, "moe_intermediate_size"), normalise=reader.flag("norm_topk_prob"))
    return replace(facts, experts=experts, mlps=mlps)


def _with_shared(reader: ConfigReader, facts: ModelConfig) -> ModelConfig:
    """With a shared expert that a score of the token gates."""
    if facts.experts is None:
        return facts
    shared = reader.size("shared_expert_intermediate_size")
    return replace(facts, experts=replace(facts.experts, shared=shared, shared_gate=True))


def read_qwen2_moe(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Qwen 1.5 and 2 MoE: biases on queries, keys and values; a gated shared expert."""
    facts = replace(read_common(reader, dtype), qkv_bias=reader.flag("qkv_bias"))
    return _with_shared(reader, _qwen_experts(reader, read_qwen_window(reader, facts)))


def read_qwen3_moe(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Qwen 3 MoE: a norm of the queries and keys of each head; no shared expert."""
    facts = replace(read_common(reader, dtype), qk_norm="head")
    return _qwen_experts(reader, read_qwen_window(reader, facts))


def read_qwen3_next(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Qwen3-Next: three of four layers are gated delta nets; attention is gated and rotates a part of each head."""
    facts = replace(read_common(reader, dtype), qk_norm="head", output_gate=True)
    every = int(reader.number("full_attention_interval", 1.0)) if "layer_types" not in reader.data else 0
    pattern = read_pattern(reader, facts.layers, lambda layer: bool((layer + 1) % every), LINEAR, "l")
    heads, value_heads = reader.size("linear_num_key_heads"), reader.size("linear_num_value_heads")
    if value_heads % heads:
        raise reader.error(
            "linear_num_value_heads",
            f"is {value_heads}, which the {heads} key heads do not divide",
            "a multiple of linear_num_key_heads",
        )
    sizes = (reader.size(f"linear_{name}") for name in ("key_head_dim", "value_head_dim", "conv_kernel_dim"))
    facts = replace(
        facts,
        rotary=read_rotary(reader, facts.head_dim),
        pattern=pattern if "l" in pattern else "",
        delta=Delta(heads, value_heads, *sizes) if "l" in pattern else None,
    )
    return _with_shared(reader, _qwen_experts(reader, facts))


def read_gpt_oss(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Model gpt-oss: biases on everything that projects, a learned score that attends to nothing, clamped experts."""
    facts = replace(read_common(reader, dtype), sinks=True)
    experts = replace(
        _experts(reader, "intermediate_size"),
        bias=True,
        limit=reader.number("swiglu_limit", 1e-9),
        alpha=reader.number("swiglu_alpha", 1e-9),
    )
    facts = _all_routed(facts, experts)
    window = reader.optional_size("sliding_window")
    pattern = read_pattern(reader, facts.layers, lambda layer: layer % 2 == 0)
    return replace(facts, window=window, pattern=pattern) if window and "w" in pattern else facts


_BOTH = {"num_experts": "num_local_experts"}

_QWEN: dict[str, Any] = {
    **COMMON,
    **QWEN_WINDOW,
    "max_position_embeddings": 32768,
    "decoder_sparse_step": 1,
    "mlp_only_layers": None,
    "norm_topk_prob": False,
}

FAMILIES: dict[str, Family] = {
    "mixtral": Family(
        "MixtralConfig",
        "MixtralForCausalLM",
        {
            **COMMON,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000.0,
            "max_position_embeddings": 131072,
            "sliding_window": None,
        },
        read_mixtral,
        _BOTH,
    ),
    "qwen2_moe": Family("Qwen2MoeConfig", "Qwen2MoeForCausalLM", {**_QWEN, "qkv_bias": True}, read_qwen2_moe, _BOTH),
    "qwen3_moe": Family(
        "Qwen3MoeConfig", "Qwen3MoeForCausalLM", {**_QWEN, "attention_bias": False}, read_qwen3_moe, _BOTH
    ),
    "qwen3_next": Family(
        "Qwen3NextConfig",
        "Qwen3NextForCausalLM",
        {
            **{key: value for key, value in _QWEN.items() if key not in (*QWEN_WINDOW, "head_dim")},
            "attention_bias": False,
            "norm_topk_prob": True,
            "partial_rotary_factor": 0.25,
            "full_attention_interval": 4,
        },
        read_qwen3_next,
        _BOTH,
    ),
    "gpt_oss": Family(
        "GptOssConfig",
        "GptOssForCausalLM",
        {
            **{key: value for key, value in COMMON.items() if key != "head_dim"},
            "rms_norm_eps": 1e-5,
            "rope_theta": 150000.0,
            "max_position_embeddings": 131072,
            "attention_bias": True,
            "sliding_window": 128,
            "swiglu_limit": 7.0,
            "swiglu_alpha": 1.702,
        },
        read_gpt_oss,
        {**_BOTH, "num_experts_per_tok": "experts_per_token"},
    ),
}
"""`model_type` -> how it is read."""
