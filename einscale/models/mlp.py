"""The MLP block, plain and gated."""

from __future__ import annotations

from einscale.models.attention import Weights, project
from einscale.models.values import Activation
from einscale.program.trace import Traced, geglu, gelu, mul, relu, silu, swiglu


def activate(x: Traced, activation: Activation, name: str) -> Traced:
    """The activation function of a name: `silu`, `relu`, `gelu` (erf) or `gelu_tanh`."""
    if activation == Activation.SILU:
        return silu(x, name=name)
    if activation == Activation.RELU:
        return relu(x, name=name)
    return gelu(x, approximate="tanh" if activation == Activation.GELU_TANH else "none", name=name)


def mlp(x: Traced, weights: Weights, activation: Activation, prefix: str = "") -> Traced:
    """Two linear maps and an activation between them: b s d -> b s f -> b s d.

    Where there is a gate, activation(gate) times up is projected back (Shazeer 2020, arXiv 2002.05202).

    Args:
        x: b s d.
        weights: `w_up` d f, `w_down` f d, `w_gate` d f where it is gated, and the biases of them.
        activation: see `activate`.
        prefix: begins the names of weights, behind `w_`, and of values.
    """
    gate = None
    if f"w_{prefix}gate" in weights:
        gate = project("b s d, d f -> b s f", x, weights, f"_{prefix}gate", f"{prefix}gate")
    up = project("b s d, d f -> b s f", x, weights, f"_{prefix}up", f"{prefix}up")
    hidden = activate(up, activation, f"{prefix}hidden") if gate is None else gated(gate, up, activation, prefix)
    return project("b s f, f d -> b s d", hidden, weights, f"_{prefix}down", f"{prefix}mlp_out")


def gated(gate: Traced, up: Traced, activation: Activation, prefix: str = "") -> Traced:
    """activation(gate) times up, of any axes."""
    if activation == Activation.SILU:
        return swiglu(gate, up, name=f"{prefix}hidden")
    if activation == Activation.RELU:
        return mul(relu(gate, name=f"{prefix}gate_active"), up, name=f"{prefix}hidden")
    approximate = "tanh" if activation == Activation.GELU_TANH else "none"
    return geglu(gate, up, approximate=approximate, name=f"{prefix}hidden")
