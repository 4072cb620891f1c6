"""Blocks with a mixture of experts, written through trace: what the tests of routed tensors plan and run."""

from einscale.program.trace import (
    add,
    arrange,
    combine,
    dispatch,
    einsum,
    group,
    mul,
    rms_norm,
    route,
    section,
    swiglu,
    trace,
)

SIZES = {"e": 8, "d": 16, "m": 4}


def moe_block(
    *,
    top=2,
    shared=False,
    bias=False,
    capacity=1.0,
    weigh_first=False,
    dtype="bf16",
    sizes=None,
    repeat=1,
    **routing,
):
    """A residual mixture of experts: norm, router, dispatch, gated experts, combine, and a shared expert if wanted."""

    def block(x, norm, w_router, w_gate, w_up, w_down, **extra):
        with section("mlp"):
            h = rms_norm(x, norm)
            with group("routing"):
                logits = einsum("b s d, d e -> b s e", h, w_router)
                gates = route(logits, top, bias=extra.get("choice"), **routing)
                sent = dispatch(h, gates, capacity=capacity)
            with group("experts"):
                rows = arrange(sent)
                gate = einsum("e b s d, e d m -> e b s m", rows, w_gate)
                gate = add(gate, extra["gate_bias"]) if bias else gate
                up = einsum("e b s d, e d m -> e b s m", rows, w_up)
                hidden = swiglu(gate, up)
                hidden = mul(hidden, gates, name="weighed") if weigh_first else hidden
                made = einsum("e b s m, e m d -> e b s d", hidden, w_down)
                made = add(made, extra["down_bias"], name="biased") if bias else made
                made = made if weigh_first else mul(made, gates, name="weighed")
            with group("routing"):
                routed = combine(made)
            parts = [x, routed]
            if shared:
                one = einsum("b s d, d f -> b s f", h, extra["s_gate"])
                other = einsum("b s d, d f -> b s f", h, extra["s_up"])
                parts.append(einsum("b s f, f d -> b s d", swiglu(one, other), extra["s_down"]))
            return add(*parts, name="out")

    parameters = {
        "norm": "[d]",
        "w_router": "[d e]",
        "w_gate": "[e d m]",
        "w_up": "[e d m]",
        "w_down": "[e m d]",
    }
    parameters |= {"gate_bias": "[e m]", "down_bias": "[e d]"} if bias else {}
    parameters |= {"s_gate": "[d f]", "s_up": "[d f]", "s_down": "[f d]"} if shared else {}
    inputs = {"x": f"{dtype}[b s d]"} | ({"choice": "fp32[e]"} if routing.pop("choice", False) else {})
    return trace(
        block,
        inputs,
        {name: dtype + axes for name, axes in parameters.items()},
        name="moe_block",
        sizes={**SIZES, **({"f": 12} if shared else {}), **(sizes or {})},
        repeat=repeat,
    )
