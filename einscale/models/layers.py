"""The programs of a decoder-only Transformer: embedding, block, head."""

from __future__ import annotations

from collections.abc import Callable

from einscale.models.attention import attention
from einscale.models.mlp import gated_mlp, mlp
from einscale.models.values import LayerKind, ModelConfig
from einscale.program.trace import (
    Traced,
    add,
    cast,
    cross_entropy,
    dropout,
    einsum,
    layer_norm,
    lookup,
    rms_norm,
    section,
    trace,
)
from einscale.program.values import Program


def norm(x: Traced, weight: Traced, bias: Traced | None, config: ModelConfig, name: str) -> Traced:
    """The model's norm along `d`."""
    if config.norm == "rms":
        return rms_norm(x, weight, eps=config.norm_eps, name=name)
    return layer_norm(x, weight, bias, eps=config.norm_eps, name=name)


def norm_parameters(config: ModelConfig, name: str) -> dict[str, str]:
    """Axes of a norm's parameters."""
    return {name: "d"} if config.norm == "rms" else {name: "d", f"{name}_bias": "d"}


def attention_parameters(config: ModelConfig) -> dict[str, str]:
    """Axes of the attention's parameters."""
    heads = " ".join(config.head_axes)
    weights = {"wq": f"d {heads} k", "wk": "d n k", "wv": "d n k", "wo": f"{heads} k d"}
    biases = {"bq": f"{heads} k", "bk": "n k", "bv": "n k"} if config.qkv_bias else {}
    return weights | biases | ({"bo": "d"} if config.out_bias else {})


def mlp_parameters(config: ModelConfig) -> dict[str, str]:
    """Axes of the MLP's parameters."""
    weights = {"w_gate": "d f"} if config.gated else {}
    weights |= {"w_up": "d f", "w_down": "f d"}
    if not config.mlp_bias:
        return weights
    return weights | ({"b_gate": "f"} if config.gated else {}) | {"b_up": "f", "b_down": "d"}


def _trace(
    config: ModelConfig,
    name: str,
    function: Callable[..., Traced],
    inputs: dict[str, str],
    parameters: dict[str, str],
    tied: tuple[str, ...] = (),
) -> Program:
    """Trace a function, parameters in the model's element type, with the sizes of the axes it uses."""
    typed = {key: f"{config.dtype}[{axes}]" for key, axes in parameters.items()}
    used = {axis for axes in parameters.values() for axis in axes.split()}
    sizes = {axis: size for axis, size in config.sizes.items() if axis in used}
    composites = {"h": config.head_axes} if "n" in used else {}
    return trace(function, inputs, typed, name=name, sizes=sizes, composites=composites, tied=tied)


def embedding_program(config: ModelConfig) -> Program:
    """From tokens b s to x b s d; learned positions are added, indices p < s of their table."""

    def embedding(
        tokens: Traced, embedding: Traced, positions: Traced | None = None, position_embedding: Traced | None = None
    ) -> Traced:
        if positions is None or position_embedding is None:
            return dropout(lookup(embedding, tokens, "v", name="embedded"), config.embedding_dropout)
        token_part = lookup(embedding, tokens, "v", name="embedded")
        position_part = lookup(position_embedding, positions, "p", name="embedded_positions")
        return dropout(add(token_part, position_part, name="embedded_sum"), config.embedding_dropout)

    inputs, parameters = {"tokens": "int64[b s]"}, {"embedding": "v d"}
    if config.positions == "learned":
        inputs |= {"positions": "int64[s]"}
        parameters |= {"position_embedding": "p d"}
    return _trace(config, "embedding", embedding, inputs, parameters)


def block_program(config: ModelConfig, window: int = 0) -> Program:
    """One layer: x b s d -> out b s d, each of attention and MLP behind a norm and added to the residual stream."""
    heads = " ".join(config.head_axes)

    def block(x: Traced, attn_norm: Traced, mlp_norm: Traced, **weights: Traced) -> Traced:
        norm_biases = (weights.pop("attn_norm_bias", None), weights.pop("mlp_norm_bias", None))
        of_attention = {name: weights[name] for name in attention_parameters(config)}
        of_mlp = {name: weights[name] for name in mlp_parameters(config)}
        with section("attention"):
            attn_in = norm(x, attn_norm, norm_biases[0], config, "attn_in")
            attn_out = attention(
                attn_in,
                **of_attention,
                heads=heads,
                rope_theta=config.rope_theta,
                window=window,
                factor=config.score_factor,
                rate=config.attention_dropout,
            )
            attn_out = dropout(attn_out, config.residual_dropout, name="attn_dropped")
            mid = add(x, attn_out, name="mid")
        with section("mlp"):
            mlp_in = norm(mid, mlp_norm, norm_biases[1], config, "mlp_in")
            mlp_out = (gated_mlp if config.gated else mlp)(mlp_in, **of_mlp, activation=config.activation)
            mlp_out = dropout(mlp_out, config.residual_dropout, name="mlp_dropped")
            return add(mid, mlp_out, name="out")

    parameters = norm_parameters(config, "attn_norm") | attention_parameters(config)
    parameters |= norm_parameters(config, "mlp_norm") | mlp_parameters(config)
    return _trace(config, "block", block, {"x": f"{config.dtype}[b s d]"}, parameters)


def head_program(config: ModelConfig) -> Program:
    """From x b s d and targets b s to loss b s: the final norm, the logits in fp32, the cross-entropy of each token."""
    table = "embedding" if config.tied else "lm_head"

    def head(x: Traced, targets: Traced, final_norm: Traced, **weights: Traced) -> Traced:
        head_in = norm(x, final_norm, weights.get("final_norm_bias"), config, "head_in")
        logits = einsum("b s d, v d -> b s v", head_in, weights[table], name="logits")
        if config.dtype != "fp32":
            logits = cast(logits, "fp32", name="logits_fp32")
        return cross_entropy(logits, targets, "v", name="loss")

    inputs = {"x": f"{config.dtype}[b s d]", "targets": "int64[b s]"}
    parameters = norm_parameters(config, "final_norm") | {table: "v d"}
    return _trace(config, "head", head, inputs, parameters, ("embedding",) if config.tied else ())


def layer_kinds(config: ModelConfig) -> tuple[LayerKind, ...]:
    """Embedding, block or blocks, head, with how often each runs."""
    full = config.layers - config.windowed_layers
    blocks = []
    if full:
        blocks.append(LayerKind("block", block_program(config), full))
    if config.windowed_layers:
        kind = "window_block" if full else "block"
        blocks.append(LayerKind(kind, block_program(config, config.window), config.windowed_layers))
    return (
        LayerKind("embedding", embedding_program(config), 1),
        *blocks,
        LayerKind("head", head_program(config), 1),
    )
