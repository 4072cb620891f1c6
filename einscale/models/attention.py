"""The attention block: projections, rotation, the core, the output projection."""

from __future__ import annotations

from einscale.program.trace import Traced, add, dropout, einsum, group, mask, rope, softmax


def project(spec: str, x: Traced, weight: Traced, bias: Traced | None, name: str) -> Traced:
    """A linear map, the bias added by a statement of its own."""
    if bias is None:
        return einsum(spec, x, weight, name=name)
    linear = einsum(spec, x, weight, name=f"{name}_linear")
    return add(linear, bias, name=name)


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
    *,
    heads: str = "n g",
    rope_theta: float = 0.0,
    window: int = 0,
    factor: float = 1.0,
    rate: float = 0.0,
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
        heads: axes of the query heads: `n g`, or `n` where each has its own key head.
        rope_theta: base of the rotary angles; 0 for no rotation.
        window: keys a query sees; 0 for all before it.
        factor: what the scores are multiplied with.
        rate: dropout on the probabilities.
    """
    q = project(f"b s d, d {heads} k -> b s {heads} k", x, wq, bq, "q")
    k = project("b s d, d n k -> b s n k", x, wk, bk, "k")
    v = project("b s d, d n k -> b s n k", x, wv, bv, "v")
    if rope_theta:
        q = rope(q, theta=rope_theta, name="q_rotated")
        k = rope(k, theta=rope_theta, name="k_rotated")
    with group("attention"):
        scores = einsum(f"b s {heads} k, b t n k -> b {heads} s t", q, k)
        masked = mask(scores, query="s", key="t", causal=True, window=window, factor=factor)
        probs = softmax(masked, "t")
        weights = dropout(probs, rate, name="probs_dropped")
        attended = einsum(f"b {heads} s t, b t n k -> b s {heads} k", weights, v, name="attended")
    return project(f"b s {heads} k, {heads} k d -> b s d", attended, wo, bo, "attn_out")
