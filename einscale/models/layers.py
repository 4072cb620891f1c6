"""The programs of a decoder-only Transformer: embedding, block, head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from msgspec.structs import replace

from einscale.models.attention import AttentionForm, attention
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
    scale,
    section,
    softcap,
    trace,
)
from einscale.program.values import Program

Weights: TypeAlias = Mapping[str, Traced]
"""Parameters by name; a name that is not there is a parameter the model does not have."""

BEFORE = ("before", "both")
AFTER = ("after", "both")
"""Places of norms that are before attention and MLP, and after them."""


def norm(x: Traced, weights: Weights, which: str, config: ModelConfig, name: str) -> Traced:
    """The model's norm along `d`, with the scale `which` and the bias `which_bias` if it has them."""
    weight, bias = weights.get(which), weights.get(f"{which}_bias")
    if config.norm == "rms":
        return rms_norm(x, weight, eps=config.norm_eps, name=name)
    return layer_norm(x, weight, bias, eps=config.norm_eps, name=name)


def norm_parameters(config: ModelConfig, name: str) -> dict[str, str]:
    """Axes of a norm's parameters."""
    scales = {name: "d"} if config.norm_weight else {}
    return scales | ({f"{name}_bias": "d"} if config.norm_weight and config.norm_bias else {})


def attention_parameters(config: ModelConfig) -> dict[str, str]:
    """Axes of the attention's parameters."""
    heads = " ".join(config.head_axes)
    weights = {"wq": f"d {heads} k", "wk": "d n k", "wv": "d n k", "wo": f"{heads} k d"}
    biases = {"bq": f"{heads} k", "bk": "n k", "bv": "n k"} if config.qkv_bias else {}
    weights |= biases | ({"bo": "d"} if config.out_bias else {})
    norms = {
        "": {},
        "head": {"q_norm": "k", "k_norm": "k"},
        "all": {"q_norm": f"{heads} k", "k_norm": "n k"},
    }
    return weights | norms[config.qk_norm]


def mlp_parameters(config: ModelConfig) -> dict[str, str]:
    """Axes of the MLP's parameters."""
    weights = {"w_gate": "d f"} if config.gated else {}
    weights |= {"w_up": "d f", "w_down": "f d"}
    if not config.mlp_bias:
        return weights
    return weights | ({"b_gate": "f"} if config.gated else {}) | {"b_up": "f", "b_down": "d"}


def section_norms(config: ModelConfig, name: str) -> dict[str, str]:
    """Axes of the parameters of the norms around attention (`attn`) or the MLP (`mlp`)."""
    parameters = norm_parameters(config, f"{name}_norm") if config.norm_place in BEFORE else {}
    if config.norm_place != "before":
        parameters |= norm_parameters(config, f"{name}_post_norm")
    return parameters


def block_parameters(config: ModelConfig) -> dict[str, str]:
    """Axes of the parameters of a block."""
    shared = config.parallel and config.parallel_norms == 1
    return (
        section_norms(config, "attn")
        | attention_parameters(config)
        | ({} if shared else section_norms(config, "mlp"))
        | mlp_parameters(config)
    )


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
    width = "e" if config.embedding_size else "d"

    def embedding(tokens: Traced, embedding: Traced, positions: Traced | None = None, **weights: Traced) -> Traced:
        x = lookup(embedding, tokens, "v", name="embedded")
        if config.embedding_size:
            x = einsum("b s e, e d -> b s d", x, weights["project_in"], name="projected")
        if config.embedding_scale != 1:
            x = scale(x, config.embedding_scale, name="embedded_scaled")
        if positions is not None:
            rows = lookup(weights["position_embedding"], positions, "p", name="embedded_positions")
            x = add(x, rows, name="embedded_sum")
        if config.embedding_norm:
            x = norm(x, weights, "embedding_norm", config, "embedded_normed")
        return dropout(x, config.embedding_dropout)

    inputs, parameters = {"tokens": "int64[b s]"}, {"embedding": f"v {width}"}
    if config.embedding_size:
        parameters |= {"project_in": "e d"}
    if config.positions == "learned":
        inputs |= {"positions": "int64[s]"}
        parameters |= {"position_embedding": "p d"}
    if config.embedding_norm:
        parameters |= norm_parameters(config, "embedding_norm")
    return _trace(config, "embedding", embedding, inputs, parameters)


def attention_form(config: ModelConfig, *, windowed: bool) -> AttentionForm:
    """What the model's attention does, in windowed layers or in the others."""
    theta = config.window_rope_theta if windowed and config.window_rope_theta else config.rope_theta
    return AttentionForm(
        heads=" ".join(config.head_axes),
        rope_theta=theta,
        rotary=config.rotary,
        alibi=config.alibi,
        window=config.window if windowed else 0,
        factor=config.score_factor,
        cap=config.softcap,
        clip=config.clip_qkv,
        rate=config.attention_dropout,
        norm=config.norm,
        norm_axes=config.qk_norm,
        eps=config.norm_eps,
    )


def _chosen(weights: Weights, names: Mapping[str, str], without: str = "") -> dict[str, Traced]:
    return {name: weights[name] for name in names if name != without}


def _mlp(x: Traced, weights: Weights, config: ModelConfig, without: str = "") -> Traced:
    run = gated_mlp if config.gated else mlp
    return run(x, **_chosen(weights, mlp_parameters(config), without), activation=config.activation)


def _sequential(x: Traced, weights: Weights, config: ModelConfig, form: AttentionForm) -> Traced:
    """Attention is added to the residual stream, then the MLP, each with its norms."""

    def attend(y: Traced) -> Traced:
        return attention(y, **_chosen(weights, attention_parameters(config)), form=form)

    def feed(y: Traced) -> Traced:
        return _mlp(y, weights, config)

    with section("attention"):
        mid = _added(x, attend, "attn", weights, config, "mid")
    with section("mlp"):
        return _added(mid, feed, "mlp", weights, config, "out")


def _added(
    x: Traced,
    function: Callable[[Traced], Traced],
    which: str,
    weights: Weights,
    config: ModelConfig,
    name: str,
) -> Traced:
    """The residual stream with the result of attention or MLP added, norms where the model has them."""
    inner = norm(x, weights, f"{which}_norm", config, f"{which}_in") if config.norm_place in BEFORE else x
    result = function(inner)
    if config.norm_place in AFTER:
        result = norm(result, weights, f"{which}_post_norm", config, f"{which}_normed")
    result = dropout(result, config.residual_dropout, name=f"{which}_dropped")
    residual = inner if config.residual_from_norm else x
    if config.norm_place != "residual":
        return add(residual, result, name=name)
    total = add(residual, result, name=f"{name}_sum")
    return norm(total, weights, f"{which}_post_norm", config, name)


def _parallel(x: Traced, weights: Weights, config: ModelConfig, form: AttentionForm) -> Traced:
    """Attention and MLP of the same x, added together and then to x.

    Where nothing is between them and their sum, their biases are added last: what both owe is then reduced once.
    """
    apart = config.residual_dropout > 0 and not config.dropout_of_sum
    late = [] if apart else [name for name in ("bo", "b_down") if name in weights]
    with section("attention"):
        attn_in = norm(x, weights, "attn_norm", config, "attn_in")
        without = "bo" if "bo" in late else ""
        attn_out = attention(attn_in, **_chosen(weights, attention_parameters(config), without), form=form)
    with section("mlp"):
        mlp_in = norm(x, weights, "mlp_norm", config, "mlp_in") if config.parallel_norms > 1 else attn_in
        mlp_out = _mlp(mlp_in, weights, config, "b_down" if "b_down" in late else "")
        if apart:
            attn_out = dropout(attn_out, config.residual_dropout, name="attn_dropped")
            mlp_out = dropout(mlp_out, config.residual_dropout, name="mlp_dropped")
        both = add(attn_out, mlp_out, name="both")
        biases = [weights[name] for name in late]
        if biases and config.residual_dropout:
            both, biases = add(both, *biases, name="both_biased"), []
        if config.dropout_of_sum:
            both = dropout(both, config.residual_dropout, name="both_dropped")
        return add(x, both, *biases, name="out")


def block_program(config: ModelConfig, *, windowed: bool = False, name: str = "block") -> Program:
    """One layer: x b s d -> out b s d.

    Args:
        config: of the model.
        windowed: whether it is one of the windowed layers.
        name: of the program.
    """
    form = attention_form(config, windowed=windowed)

    def block(x: Traced, **weights: Traced) -> Traced:
        return (_parallel if config.parallel else _sequential)(x, weights, config, form)

    return _trace(config, name, block, {"x": f"{config.dtype}[b s d]"}, block_parameters(config))


def head_program(config: ModelConfig) -> Program:
    """From x b s d and targets b s to loss b s: the final norm, the logits in fp32, the cross-entropy of each token."""
    table = "embedding" if config.tied else "lm_head"
    width = "e" if config.embedding_size else "d"

    def head(x: Traced, targets: Traced, **weights: Traced) -> Traced:
        if config.final_norm:
            x = norm(x, weights, "final_norm", config, "head_in")
        if config.embedding_size:
            x = einsum("b s d, d e -> b s e", x, weights["project_out"], name="projected")
        logits = einsum(f"b s {width}, v {width} -> b s v", x, weights[table], name="logits")
        if config.logit_softcap:
            logits = softcap(logits, config.logit_softcap, name="logits_capped")
        if config.dtype != "fp32":
            logits = cast(logits, "fp32", name="logits_fp32")
        return cross_entropy(logits, targets, "v", name="loss")

    inputs = {"x": f"{config.dtype}[b s d]", "targets": "int64[b s]"}
    parameters = norm_parameters(config, "final_norm") if config.final_norm else {}
    if config.embedding_size:
        parameters |= {"project_out": "d e"}
    parameters |= {table: f"v {width}"}
    return _trace(config, "head", head, inputs, parameters, ("embedding",) if config.tied else ())


def layer_kinds(config: ModelConfig) -> tuple[LayerKind, ...]:
    """Embedding, block or blocks in the order they run first, head, with how often each runs."""
    pattern = config.pattern or "f" * config.layers
    programs = [embedding_program(config)]
    for letter in dict.fromkeys(pattern):
        windowed = letter == "w"
        name = "window_block" if windowed and "f" in pattern else "block"
        program = block_program(config, windowed=windowed, name=name)
        programs.append(replace(program, repeat=pattern.count(letter)))
    programs.append(head_program(config))
    return tuple(LayerKind(program.name, program, program.repeat) for program in programs)
