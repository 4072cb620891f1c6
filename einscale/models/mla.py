"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), as training runs it and as decoding does.

Keys and values of all heads come from one latent of each token. Training and prefill make them (`absorbed=False`).
Decoding maps the queries into the latent instead, attends to the latents themselves, and expands what it attended to:
the same numbers, but only the latent and the rotated key are read from the cache.
"""

from __future__ import annotations

from einscale.models.attention import Weights, project
from einscale.models.values import Latent, ModelConfig
from einscale.program.trace import Traced, add, dropout, einsum, group, mask, rms_norm, rope, softmax


def latent_parameters(config: ModelConfig, latent: Latent) -> dict[str, str]:
    """Axes of the parameters of multi-head latent attention."""
    if latent.queries:
        weights = {"w_dq": "d q"} | ({"b_dq": "q"} if config.qkv_bias else {})
        weights |= {"q_latent_norm": "q", "w_uq": "q n k", "w_qr": "q n r"}
    else:
        weights = {"wq": "d n k", "w_qr": "d n r"}
    weights |= {"w_dkv": "d l", "w_kr": "d r"} | ({"b_dkv": "l", "b_kr": "r"} if config.qkv_bias else {})
    weights |= {"kv_latent_norm": "l", "w_uk": "l n k", "w_uv": "l n u", "wo": "n u d"}
    return weights | ({"bo": "d"} if config.out_bias else {})


def latent_attention(
    x: Traced, weights: Weights, config: ModelConfig, latent: Latent, *, absorbed: bool = False
) -> Traced:
    """Causal self-attention through latents: b s d -> b s d.

    The score of a pair is the sum of two: of the part of the heads without rotation, and of the rotated one.

    Args:
        x: b s d.
        weights: see `latent_parameters`.
        config: of the model.
        latent: its sizes.
        absorbed: attend to the latents themselves, as decoding does.
    """
    q, q_rotated = _queries(x, weights, config, latent)
    kv_latent = project("b s d, d l -> b s l", x, weights, "_dkv", "kv_down")
    kv_latent = rms_norm(kv_latent, weights["kv_latent_norm"], axis="l", eps=config.norm_eps, name="kv_latent")
    k_rotated = project("b s d, d r -> b s r", x, weights, "_kr", "k_shared")
    k_rotated = rope(k_rotated, axis="r", theta=config.rope_theta, name="k_rotated")
    if absorbed:
        q = einsum("b s n k, l n k -> b s n l", q, weights["w_uk"], name="q_absorbed")
        keys, values, inner = kv_latent, kv_latent, "l"
        scored, read = "b s n l, b t l -> b n s t", "b n s t, b t l -> b s n l"
    else:
        keys = einsum("b s l, l n k -> b s n k", kv_latent, weights["w_uk"], name="k")
        values = einsum("b s l, l n u -> b s n u", kv_latent, weights["w_uv"], name="v")
        inner = "u"
        scored, read = "b s n k, b t n k -> b n s t", "b n s t, b t n u -> b s n u"
    with group("attention"):
        plain = einsum(scored, q, keys, name="scores_plain")
        rotated = einsum("b s n r, b t r -> b n s t", q_rotated, k_rotated, name="scores_rotated")
        scores = add(plain, rotated, name="scores")
        masked = mask(scores, query="s", key="t", causal=True, factor=config.score_factor, heads="n")
        probs = softmax(masked, "t")
        probs = dropout(probs, config.attention_dropout, name="probs_dropped")
        attended = einsum(read, probs, values, name=f"attended_{inner}" if absorbed else "attended")
    if absorbed:
        attended = einsum("b s n l, l n u -> b s n u", attended, weights["w_uv"], name="attended")
    return project("b s n u, n u d -> b s d", attended, weights, "o", "attn_out")


def _queries(x: Traced, weights: Weights, config: ModelConfig, latent: Latent) -> tuple[Traced, Traced]:
    """Queries, the part without rotation and the rotated one, from a latent of their own where the model has it."""
    if latent.queries:
        q_latent = project("b s d, d q -> b s q", x, weights, "_dq", "q_down")
        q_latent = rms_norm(q_latent, weights["q_latent_norm"], axis="q", eps=config.norm_eps, name="q_latent")
        q = einsum("b s q, q n k -> b s n k", q_latent, weights["w_uq"], name="q")
        turned = einsum("b s q, q n r -> b s n r", q_latent, weights["w_qr"], name="q_unrotated")
    else:
        q = einsum("b s d, d n k -> b s n k", x, weights["wq"], name="q")
        turned = einsum("b s d, d n r -> b s n r", x, weights["w_qr"], name="q_unrotated")
    return q, rope(turned, axis="r", theta=config.rope_theta, name="q_rotated")
