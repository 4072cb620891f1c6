"""The attention block: projections, norms and rotation of queries and keys, the core, the output projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from einscale.models.values import HeadNorm, ModelConfig, Norm
from einscale.program.trace import (
    Traced,
    add,
    clamp,
    dropout,
    einsum,
    group,
    layer_norm,
    mask,
    mul,
    rms_norm,
    rope,
    sigmoid,
    softcap,
    softmax,
)

Weights: TypeAlias = Mapping[str, Traced]
"""Parameters by name; a name that is not there is a parameter the model does not have."""


def linear(spec: str, x: Traced, weight: Traced, bias: Traced | None, name: str) -> Traced:
    """A linear map, the bias added by a statement of its own."""
    if bias is None:
        return einsum(spec, x, weight, name=name)
    plain = einsum(spec, x, weight, name=f"{name}_linear")
    return add(plain, bias, name=name)


def project(spec: str, x: Traced, weights: Weights, which: str, name: str) -> Traced:
    """The linear map with the weight `w` and, if the model has it, the bias `b` of a name: `wq` and `bq` for `q`."""
    return linear(spec, x, weights[f"w{which}"], weights.get(f"b{which}"), name)


def prepare(x: Traced, weight: Traced | None, heads: str, theta: float, config: ModelConfig, name: str) -> Traced:
    """Queries or keys as the scores read them: clamped, normed, rotated, as far as the model does it."""
    x = clamp(x, config.clip_qkv, name=f"{name}_clipped" if config.clip_qkv else None)
    if weight is not None:
        axes = f"{heads} k" if config.qk_norm == HeadNorm.ALL else "k"
        norm = rms_norm if config.norm == Norm.RMS else layer_norm
        x = norm(x, weight, axis=axes, eps=config.norm_eps, name=f"{name}_normed")
    return rope(x, theta=theta, rotary=config.rotary, name=f"{name}_rotated") if theta else x


def attention(x: Traced, weights: Weights, config: ModelConfig, *, windowed: bool = False) -> Traced:
    """Causal self-attention with grouped queries: softmax(q k / sqrt(head size)) v, projected back: b s d -> b s d.

    Args:
        x: b s d.
        weights: `wq` d n g k (no `g` where each query head has its own key head), `wk` and `wv` d n k, `wo` n g k d;
            biases `bq`, `bk`, `bv`, `bo`; `q_norm` and `k_norm`, scales of the norms; `sink` n g, a score of each query
            head that attends to nothing; `w_out_gate` d n g k: what is attended to times the sigmoid of a projection.
        config: of the model.
        windowed: whether a query sees the last `window` keys only, and with the angles of such layers.
    """
    heads = " ".join(config.head_axes)
    theta = (windowed and config.window_rope_theta) or config.rope_theta
    q = project(f"b s d, d {heads} k -> b s {heads} k", x, weights, "q", "q")
    k = project("b s d, d n k -> b s n k", x, weights, "k", "k")
    v = project("b s d, d n k -> b s n k", x, weights, "v", "v")
    q = prepare(q, weights.get("q_norm"), heads, theta, config, "q")
    k = prepare(k, weights.get("k_norm"), "n", theta, config, "k")
    v = clamp(v, config.clip_qkv, name="v_clipped" if config.clip_qkv else None)
    with group("attention"):
        scores = einsum(f"b s {heads} k, b t n k -> b {heads} s t", q, k)
        factor = config.score_factor
        if config.softcap:
            scores, factor = softcap(scores, config.softcap, factor=factor, name="scores_capped"), 1.0
        window = config.window if windowed else 0
        masked = mask(
            scores, query="s", key="t", causal=True, window=window, factor=factor, alibi=config.alibi, heads=heads
        )
        probs = softmax(masked, "t", weights.get("sink"))
        kept = dropout(probs, config.attention_dropout, name="probs_dropped")
        attended = einsum(f"b {heads} s t, b t n k -> b s {heads} k", kept, v, name="attended")
    if config.output_gate:
        gate = einsum(f"b s d, d {heads} k -> b s {heads} k", x, weights["w_out_gate"], name="out_gate")
        attended = mul(attended, sigmoid(gate, name="opened"), name="attended_gated")
    return project(f"b s {heads} k, {heads} k d -> b s d", attended, weights, "o", "attn_out")
