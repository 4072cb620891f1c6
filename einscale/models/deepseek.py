"""Reading the DeepSeek line: DeepSeek V2 and V3, Kimi K2, and GLM-4 MoE, which routes as DeepSeek V3 does.

Defaults are those of the configuration classes of transformers 5; sizes, the numbers of experts and layers among them,
have none.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from einscale.models.config import ConfigReader
from einscale.models.llama import COMMON, read_common
from einscale.models.reading import Family, check_rotary, read_rotary, read_top
from einscale.models.values import Experts, Latent, ModelConfig


def _routed(reader: ConfigReader, facts: ModelConfig) -> ModelConfig:
    """The first layers dense, the others routed, each with as wide a shared expert as its shared experts together."""
    reader.refuse("moe_layer_freq", 1, "the class routes every layer behind the dense ones")
    dense = min(int(reader.number("first_k_dense_replace")), facts.layers)
    facts = replace(facts, mlps="d" * dense + "e" * (facts.layers - dense))
    if dense == facts.layers:
        return replace(facts, mlps="")
    count, hidden = reader.size("n_routed_experts"), reader.size("moe_intermediate_size")
    shared = reader.optional_count("n_shared_experts")
    groups, limit = _groups(reader, count)
    experts = Experts(
        count,
        read_top(reader, "num_experts_per_tok", count),
        hidden,
        shared=shared * hidden,
        scoring="sigmoid",
        normalise=reader.flag("norm_topk_prob"),
        factor=reader.number("routed_scaling_factor", 1e-9),
        groups=groups,
        top_groups=limit,
    )
    return replace(facts, experts=experts)


def _groups(reader: ConfigReader, experts: int) -> tuple[int, int]:
    """Groups of experts, and how many of them a token takes experts from; null is one."""
    groups, limit = (reader.optional_count(key) or 1 for key in ("n_group", "topk_group"))
    if experts % groups:
        raise reader.error("n_group", f"is {groups}, which does not divide the {experts} experts", "a divisor")
    if limit > groups:
        raise reader.error("topk_group", f"is {limit}, more than the {groups} groups", f"at most {groups}")
    return groups, limit


def _latent(reader: ConfigReader, facts: ModelConfig) -> ModelConfig:
    """Multi-head latent attention; `head_dim` in these files is the rotated part, and is not read."""
    if "q_lora_rank" not in reader.data:
        raise reader.missing("q_lora_rank")
    sizes = [reader.size(key) for key in ("kv_lora_rank", "qk_rope_head_dim", "v_head_dim", "qk_nope_head_dim")]
    keys, rotated, value, plain = sizes
    check_rotary(reader, "qk_rope_head_dim", rotated)
    latent = Latent(keys, reader.optional_count("q_lora_rank"), rotated, value)
    factor = (plain + rotated) ** -0.5
    return replace(facts, kv_heads=facts.heads, head_dim=plain, score_factor=factor, latent=latent)


def read_deepseek_v2(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """DeepSeek V2: softmax scores that are not normalised; its Lite form projects queries directly."""
    facts = _routed(reader, _latent(reader, read_common(reader, dtype, head_dim="qk_nope_head_dim")))
    if facts.experts is None:
        return facts
    experts = replace(facts.experts, scoring="softmax", normalise=False)
    if reader.value("topk_method") == "greedy":
        experts = replace(experts, groups=1, top_groups=1)
    return replace(facts, experts=experts)


def read_deepseek_v3(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """DeepSeek V3 and Kimi K2: sigmoid scores, node-limited routing, layers that predict further tokens."""
    facts = _routed(reader, _latent(reader, read_common(reader, dtype, head_dim="qk_nope_head_dim")))
    return replace(facts, ahead=reader.optional_count("num_nextn_predict_layers"))


def read_glm4_moe(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """GLM-4.5 and later: grouped queries that rotate half of each head, experts as DeepSeek V3's."""
    facts = read_common(reader, dtype)
    bias = reader.flag("attention_bias")
    facts = replace(
        facts,
        qkv_bias=bias,
        out_bias=False,
        rotary=read_rotary(reader, facts.head_dim),
        qk_norm="head" if reader.flag("use_qk_norm") else "",
        ahead=reader.optional_count("num_nextn_predict_layers"),
    )
    return _routed(reader, facts)


_DEEPSEEK: dict[str, Any] = {
    **{key: value for key, value in COMMON.items() if key != "head_dim"},
    "attention_bias": False,
    "n_group": None,
    "topk_group": None,
    "n_shared_experts": None,
    "q_lora_rank": None,
}

_V3: dict[str, Any] = {
    **_DEEPSEEK,
    "max_position_embeddings": 4096,
    "first_k_dense_replace": 3,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "n_group": 8,
    "topk_group": 4,
    "n_shared_experts": 1,
    "num_nextn_predict_layers": 0,
}

_EXPERTS = {"n_routed_experts": ("num_local_experts", "num_experts")}

FAMILIES: dict[str, Family] = {
    "deepseek_v2": Family(
        "DeepseekV2Config",
        "DeepseekV2ForCausalLM",
        {
            **_DEEPSEEK,
            "max_position_embeddings": 2048,
            "first_k_dense_replace": 0,
            "norm_topk_prob": False,
            "routed_scaling_factor": 1.0,
            "n_shared_experts": 2,
            "topk_method": "greedy",
        },
        read_deepseek_v2,
        _EXPERTS,
    ),
    "deepseek_v3": Family("DeepseekV3Config", "DeepseekV3ForCausalLM", _V3, read_deepseek_v3, _EXPERTS),
    "kimi_k2": Family("DeepseekV3Config", "DeepseekV3ForCausalLM", _V3, read_deepseek_v3, _EXPERTS),
    "glm4_moe": Family(
        "Glm4MoeConfig",
        "Glm4MoeForCausalLM",
        {
            **COMMON,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 131072,
            "attention_bias": False,
            "partial_rotary_factor": 0.5,
            "use_qk_norm": False,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.0,
            "n_group": 1,
            "topk_group": 1,
            "n_shared_experts": 1,
            "num_nextn_predict_layers": 0,
        },
        read_glm4_moe,
        _EXPERTS,
    ),
}
"""`model_type` -> how it is read."""
