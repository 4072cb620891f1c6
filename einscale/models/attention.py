"""The attention block: projections, norms and rotation of queries and keys, the core, the output projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct

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


class AttentionForm(Struct, frozen=True):
    """What an attention block does besides its projections.

    Args:
        heads: axes of the query heads: `n g`, or `n` where each has its own key head.
        rope_theta: base of the rotary angles; 0 for no rotation.
        rotary: elements of a head that are rotated; 0 for all.
        alibi: exponent range of ALiBi's slopes; 0 for no bias.
        window: keys a query sees; 0 for all before it.
        factor: what the scores are multiplied with.
        cap: bound of the scores (softcapping); 0 for none.
        clip: bound of queries, keys and values; 0 for none.
        rate: dropout on the probabilities.
        norm: `rms` or `layer`, of queries and keys where they have a norm.
        norm_axes: axes of that norm besides the head's own: `all` heads together, or `head` by head.
        eps: added under the root of that norm.
    """

    heads: str = "n g"
    rope_theta: float = 0.0
    rotary: int = 0
    alibi: float = 0.0
    window: int = 0
    factor: float = 1.0
    cap: float = 0.0
    clip: float = 0.0
    rate: float = 0.0
    norm: str = "rms"
    norm_axes: str = "head"
    eps: float = 1e-6


def project(spec: str, x: Traced, weight: Traced, bias: Traced | None, name: str) -> Traced:
    """A linear map, the bias added by a statement of its own."""
    if bias is None:
        return einsum(spec, x, weight, name=name)
    linear = einsum(spec, x, weight, name=f"{name}_linear")
    return add(linear, bias, name=name)


def prepare(x: Traced, weight: Traced | None, heads: str, form: AttentionForm, name: str) -> Traced:
    """Queries or keys as the scores read them: clamped, normed, rotated, as far as the form says."""
    x = clamp(x, form.clip, name=f"{name}_clipped" if form.clip else None)
    if weight is not None:
        axes = f"{heads} k" if form.norm_axes == "all" else "k"
        norm = rms_norm if form.norm == "rms" else layer_norm
        x = norm(x, weight, axis=axes, eps=form.eps, name=f"{name}_normed")
    if form.rope_theta:
        x = rope(x, theta=form.rope_theta, rotary=form.rotary, name=f"{name}_rotated")
    return x


def attention(
    x: Traced,
    wq: Traced,
    wk: Traced,
    wv: Traced,
    wo: Traced,
    bq: Traced | None = None,
    bk: Traced | None = None,
    bv: Traced | None = None,
    bo: Traced | None = None,
    q_norm: Traced | None = None,
    k_norm: Traced | None = None,
    sink: Traced | None = None,
    w_out_gate: Traced | None = None,
    *,
    form: AttentionForm,
) -> Traced:
    """Causal self-attention with grouped queries: softmax(q k / sqrt(head size)) v, projected back.

    Args:
        x: b s d.
        wq: query weights, d n g k.
        wk: key weights, d n k.
        wv: value weights, d n k.
        wo: output weights, n g k d.
        bq: query bias, n g k.
        bk: key bias, n k.
        bv: value bias, n k.
        bo: output bias, d.
        q_norm: scale of the queries' norm, k or n g k.
        k_norm: scale of the keys' norm, k or n k.
        sink: a score of each query head that attends to nothing (attention sink), n g.
        w_out_gate: weights of the output gate, d n g k: what is attended to times the sigmoid of a projection of x.
        form: what else it does.
    """
    heads = form.heads
    q = project(f"b s d, d {heads} k -> b s {heads} k", x, wq, bq, "q")
    k = project("b s d, d n k -> b s n k", x, wk, bk, "k")
    v = project("b s d, d n k -> b s n k", x, wv, bv, "v")
    q = prepare(q, q_norm, heads, form, "q")
    k = prepare(k, k_norm, "n", form, "k")
    v = clamp(v, form.clip, name="v_clipped" if form.clip else None)
    with group("attention"):
        scores = einsum(f"b s {heads} k, b t n k -> b {heads} s t", q, k)
        factor = form.factor
        if form.cap:
            scores, factor = softcap(scores, form.cap, factor=factor, name="scores_capped"), 1.0
        masked = mask(
            scores,
            query="s",
            key="t",
            causal=True,
            window=form.window,
            factor=factor,
            alibi=form.alibi,
            heads=heads,
        )
        probs = softmax(masked, "t", sink)
        weights = dropout(probs, form.rate, name="probs_dropped")
        attended = einsum(f"b {heads} s t, b t n k -> b s {heads} k", weights, v, name="attended")
    if w_out_gate is not None:
        opened = sigmoid(einsum(f"b s d, d {heads} k -> b s {heads} k", x, w_out_gate, name="out_gate"), name="opened")
        attended = mul(attended, opened, name="attended_gated")
    return project(f"b s {heads} k, {heads} k d -> b s d", attended, wo, bo, "attn_out")
