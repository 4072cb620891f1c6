"""The gated delta net, a linear layer in the place of attention (Yang et al. 2024, arXiv 2412.06464)."""

from __future__ import annotations

from einscale.models.attention import Weights
from einscale.models.values import Delta, ModelConfig
from einscale.program.trace import (
    Traced,
    add,
    broadcast,
    causal_conv,
    delta_rule,
    einsum,
    exp,
    group,
    mul,
    rms_norm,
    sigmoid,
    silu,
    softplus,
    swiglu,
)


def value_axes(delta: Delta) -> str:
    """Axes of the value heads: `n g`, or `n` where each has its own key head."""
    return "n g" if delta.value_heads > delta.heads else "n"


def delta_parameters(delta: Delta) -> dict[str, str]:
    """Axes of the parameters of a gated delta net."""
    heads = value_axes(delta)
    weights = {"wq": "d n k", "wk": "d n k", "wv": f"d {heads} u", "wz": f"d {heads} u"}
    weights |= {"w_rate": f"d {heads}", "w_decay": f"d {heads}"}
    weights |= {"conv_q": "n k c", "conv_k": "n k c", "conv_v": f"{heads} u c"}
    return weights | {"dt_bias": heads, "a_log": heads, "out_norm": "u", "wo": f"{heads} u d"}


def delta_net(x: Traced, weights: Weights, config: ModelConfig, delta: Delta) -> Traced:
    """Queries, keys, values through a short convolution, the gated delta rule, a gated norm: b s d -> b s d.

    The keys' heads are copied to the value heads they serve, as transformers' model does.
    """
    heads = value_axes(delta)
    q = einsum("b s d, d n k -> b s n k", x, weights["wq"], name="q")
    k = einsum("b s d, d n k -> b s n k", x, weights["wk"], name="k")
    v = einsum(f"b s d, d {heads} u -> b s {heads} u", x, weights["wv"], name="v")
    z = einsum(f"b s d, d {heads} u -> b s {heads} u", x, weights["wz"], name="z")
    rate = sigmoid(einsum(f"b s d, d {heads} -> b s {heads}", x, weights["w_rate"], name="rate_logits"), name="rate")
    step = einsum(f"b s d, d {heads} -> b s {heads}", x, weights["w_decay"], name="decay_logits")
    step = softplus(add(step, weights["dt_bias"], name="decay_biased"), name="step")
    decay = mul(step, exp(weights["a_log"], name="a"), name="decay")
    with group("delta"):
        q, k, v = (
            silu(causal_conv(y, weights[f"conv_{name}"], width=delta.taps, name=f"{name}_mixed"), name=f"{name}_active")
            for name, y in (("q", q), ("k", k), ("v", v))
        )
        if heads != "n":
            q = broadcast(q, f"b s {heads} k", name="q_copied")
            k = broadcast(k, f"b s {heads} k", name="k_copied")
        read = delta_rule(q, k, v, decay, rate, sizes=(delta.key, delta.value), name="read")
    normed = rms_norm(read, weights["out_norm"], axis="u", eps=config.norm_eps, name="read_normed")
    gated = swiglu(z, normed, name="read_gated")
    return einsum(f"b s {heads} u, {heads} u d -> b s d", gated, weights["wo"], name="attn_out")
