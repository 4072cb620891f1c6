"""The mixture of experts: router, dispatch, the experts' gated MLPs, the weighted sum, and what every token takes."""

from __future__ import annotations

from einscale.models.attention import Weights, linear, project
from einscale.models.mlp import gated, mlp
from einscale.models.values import Experts, ModelConfig
from einscale.program.trace import (
    Traced,
    add,
    arrange,
    combine,
    dispatch,
    einsum,
    group,
    mul,
    route,
    section,
    sigmoid,
    swiglu_clamped,
)


def moe_parameters(experts: Experts) -> dict[str, str]:
    """Axes of the parameters of a mixture of experts."""
    weights = {"router": "d e"} | ({"router_bias": "e"} if experts.bias else {})
    weights |= {"w_gate": "e d m", "w_up": "e d m", "w_down": "e m d"}
    if experts.bias:
        weights |= {"b_gate": "e m", "b_up": "e m", "b_down": "e d"}
    if experts.shared:
        weights |= {"w_shared_gate": "d f", "w_shared_up": "d f", "w_shared_down": "f d"}
    return weights | ({"shared_router": "d"} if experts.shared_gate else {})


def moe(x: Traced, weights: Weights, config: ModelConfig, experts: Experts) -> Traced:
    """Every token through its chosen experts, weighted and summed, and through the shared expert: b s d -> b s d.

    Each expert is a gated MLP of hidden width m (Shazeer et al. 2017, arXiv 1701.06538; Jiang et al. 2024, arXiv
    2401.04088). The bias that balances DeepSeek-V3's choice (`e_score_correction_bias`) is a buffer of `e` numbers that
    no gradient reaches: it is neither counted nor priced.
    """
    with group("routing"):
        logits = linear("b s d, d e -> b s e", x, weights["router"], weights.get("router_bias"), "router_logits")
        gates = route(
            logits,
            top=experts.top,
            axis="e",
            scoring=experts.scoring,
            normalise=experts.normalise,
            factor=experts.factor,
            groups=experts.groups,
            top_groups=experts.top_groups,
            name="gates",
        )
        sent = dispatch(x, gates, axis="e", name="dispatched")
    with section("experts"):
        made = _experts(sent, gates, weights, config, experts)
    with group("routing"):
        routed = combine(made, axis="e", name="combined")
    if not experts.shared:
        return routed
    return add(routed, _shared(x, weights, config, experts), name="moe_out")


def _experts(sent: Traced, gates: Traced, weights: Weights, config: ModelConfig, experts: Experts) -> Traced:
    """The experts' MLPs, their results weighted.

    Without a bias behind them, the weights multiply the hidden layer, which is narrower than the result: less to read,
    and less to keep for the backward pass: in one kernel with the activation, as grouped ones do it (Megatron-Core).
    """
    arranged = arrange(sent, name="arranged")
    gate = project("e b s d, e d m -> e b s m", arranged, weights, "_gate", "gate")
    up = project("e b s d, e d m -> e b s m", arranged, weights, "_up", "up")
    with group("activation"):
        if experts.limit:
            hidden = swiglu_clamped(gate, up, limit=experts.limit, alpha=experts.alpha, name="hidden")
        else:
            hidden = gated(gate, up, config.activation)
        if not experts.bias:
            hidden = mul(hidden, gates, name="hidden_weighed")
    made = project("e b s m, e m d -> e b s d", hidden, weights, "_down", "expert_out")
    return mul(made, gates, name="weighed") if experts.bias else made


def _shared(x: Traced, weights: Weights, config: ModelConfig, experts: Experts) -> Traced:
    """The shared expert; several of them side by side are one as wide as all."""
    made = mlp(x, weights, config.activation, "shared_")
    if not experts.shared_gate:
        return made
    share = sigmoid(einsum("b s d, d -> b s", x, weights["shared_router"], name="shared_logit"), name="shared_share")
    return mul(made, share, name="shared_weighed")
