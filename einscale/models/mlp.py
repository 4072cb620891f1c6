"""The MLP block, plain and gated."""

from __future__ import annotations

from einscale.models.attention import project
from einscale.program.trace import Traced, geglu, gelu, mul, relu, silu, swiglu


def activate(x: Traced, activation: str, name: str) -> Traced:
    """The activation function of a name: `silu`, `relu`, `gelu` (erf) or `gelu_tanh`."""
    if activation == "silu":
        return silu(x, name=name)
    if activation == "relu":
        return relu(x, name=name)
    return gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none", name=name)


def mlp(
    x: Traced,
    w_up: Traced,
    w_down: Traced,
    b_up: Traced | None = None,
    b_down: Traced | None = None,
    *,
    activation: str = "gelu_tanh",
) -> Traced:
    """Two linear maps and an activation between them: b s d -> b s f -> b s d."""
    up = project("b s d, d f -> b s f", x, w_up, b_up, "up")
    hidden = activate(up, activation, "hidden")
    return project("b s f, f d -> b s d", hidden, w_down, b_down, "mlp_out")


def gated_mlp(
    x: Traced,
    w_gate: Traced,
    w_up: Traced,
    w_down: Traced,
    b_gate: Traced | None = None,
    b_up: Traced | None = None,
    b_down: Traced | None = None,
    *,
    activation: str = "silu",
    prefix: str = "",
) -> Traced:
    """activation(gate) times up, projected back (Shazeer 2020, arXiv 2002.05202); `prefix` begins the values' names."""
    gate = project("b s d, d f -> b s f", x, w_gate, b_gate, f"{prefix}gate")
    up = project("b s d, d f -> b s f", x, w_up, b_up, f"{prefix}up")
    hidden = gated(gate, up, activation, prefix)
    return project("b s f, f d -> b s d", hidden, w_down, b_down, f"{prefix}mlp_out")


def gated(gate: Traced, up: Traced, activation: str, prefix: str = "") -> Traced:
    """activation(gate) times up, of any axes."""
    if activation == "silu":
        return swiglu(gate, up, name=f"{prefix}hidden")
    if activation == "relu":
        return mul(relu(gate, name=f"{prefix}gate_active"), up, name=f"{prefix}hidden")
    approximate = "tanh" if activation == "gelu_tanh" else "none"
    return geglu(gate, up, approximate=approximate, name=f"{prefix}hidden")
