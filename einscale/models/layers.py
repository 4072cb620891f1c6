"""The programs of a decoder-only Transformer: embedding, blocks, head, and what only training runs.

A block is attention, or a linear layer in its place, and an MLP, or a mixture of experts in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from einscale.models.attention import Weights, attention
from einscale.models.delta import delta_net, delta_parameters
from einscale.models.mla import latent_attention, latent_parameters
from einscale.models.mlp import mlp
from einscale.models.moe import moe, moe_parameters
from einscale.models.values import Delta, Experts, HeadNorm, LayerKind, Model, ModelConfig, Norm, NormPlace, Positions
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

BEFORE = (NormPlace.BEFORE, NormPlace.BOTH)
AFTER = (NormPlace.AFTER, NormPlace.BOTH)
"""Places of norms that are before attention and MLP, and after them."""


class BlockForm(Struct, frozen=True):
    """What one kind of block is made of.

    Args:
        windowed: whether its attention is windowed.
        delta: the linear layer in the place of attention, None for attention.
        experts: the mixture of experts in the place of the MLP, None for the MLP.
        absorbed: latent attention as decoding runs it.
    """

    windowed: bool = False
    delta: Delta | None = None
    experts: Experts | None = None
    absorbed: bool = False


def kind_sizes(config: ModelConfig, form: BlockForm) -> dict[str, int]:
    """Size of every axis in one kind of block: linear layers have heads of their own, shared experts a width."""
    sizes = dict(config.sizes)
    if form.delta is not None:
        sizes |= {"n": form.delta.heads, "g": form.delta.value_heads // form.delta.heads}
        sizes |= {"k": form.delta.key, "u": form.delta.value, "c": form.delta.taps}
    if form.experts is not None:
        sizes["f"] = form.experts.shared
    return sizes


def norm(x: Traced, weights: Weights, which: str, config: ModelConfig, name: str) -> Traced:
    """The model's norm along `d`, with the scale `which` and the bias `which_bias` if it has them."""
    weight, bias = weights.get(which), weights.get(f"{which}_bias")
    if config.norm == Norm.RMS:
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
    weights |= ({"sink": heads} if config.sinks else {}) | (
        {"w_out_gate": f"d {heads} k"} if config.output_gate else {}
    )
    norms = {
        "": {},
        HeadNorm.HEAD: {"q_norm": "k", "k_norm": "k"},
        HeadNorm.ALL: {"q_norm": f"{heads} k", "k_norm": "n k"},
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
    if config.norm_place != NormPlace.BEFORE:
        parameters |= norm_parameters(config, f"{name}_post_norm")
    return parameters


def mixer_parameters(config: ModelConfig, form: BlockForm) -> dict[str, str]:
    """Axes of the parameters of attention, or of what is in its place."""
    if form.delta is not None:
        return delta_parameters(form.delta)
    return attention_parameters(config) if config.latent is None else latent_parameters(config, config.latent)


def feed_parameters(config: ModelConfig, form: BlockForm) -> dict[str, str]:
    """Axes of the parameters of the MLP, or of the mixture of experts in its place."""
    return mlp_parameters(config) if form.experts is None else moe_parameters(form.experts)


def block_parameters(config: ModelConfig, form: BlockForm) -> dict[str, str]:
    """Axes of the parameters of a block."""
    shared = config.parallel and config.parallel_norms == 1
    return (
        section_norms(config, "attn")
        | mixer_parameters(config, form)
        | ({} if shared else section_norms(config, "mlp"))
        | feed_parameters(config, form)
    )


def _trace(
    config: ModelConfig,
    name: str,
    function: Callable[..., Traced],
    inputs: dict[str, str],
    parameters: dict[str, str],
    tied: Iterable[str] = (),
    sizes: Mapping[str, int] | None = None,
) -> Program:
    """Trace a function, parameters in the model's element type, with the sizes of the axes it uses."""
    typed = {key: f"{config.dtype}[{axes}]" for key, axes in parameters.items()}
    used = {axis for axes in parameters.values() for axis in axes.split()}
    sizes = {axis: size for axis, size in (sizes or config.sizes).items() if axis in used}
    heads = tuple(axis for axis in ("n", "g") if axis in used)
    composites = {"h": heads} if heads else {}
    tied = tuple(tied)
    return trace(function, inputs, typed, name=name, sizes=sizes, composites=composites, tied=tied)


def embedding_program(config: ModelConfig) -> Program:
    """From tokens b s to x b s d; learned positions are added, indices p < s of their table."""
    width = "w" if config.embedding_size else "d"

    def embedding(tokens: Traced, embedding: Traced, positions: Traced | None = None, **weights: Traced) -> Traced:
        x = lookup(embedding, tokens, "v", name="embedded")
        if config.embedding_size:
            x = einsum("b s w, w d -> b s d", x, weights["project_in"], name="projected")
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
        parameters |= {"project_in": "w d"}
    if config.positions == Positions.LEARNED:
        inputs |= {"positions": "int64[s]"}
        parameters |= {"position_embedding": "p d"}
    if config.embedding_norm:
        parameters |= norm_parameters(config, "embedding_norm")
    return _trace(config, "embedding", embedding, inputs, parameters)


def _mix(x: Traced, weights: Weights, config: ModelConfig, form: BlockForm) -> Traced:
    """Attention, or what is in its place."""
    if form.delta is not None:
        return delta_net(x, weights, config, form.delta)
    if config.latent is not None:
        return latent_attention(x, weights, config, config.latent, absorbed=form.absorbed)
    return attention(x, weights, config, windowed=form.windowed)


def _sequential(x: Traced, weights: Weights, config: ModelConfig, form: BlockForm) -> Traced:
    """Attention is added to the residual stream, then the MLP, each with its norms."""

    def attend(y: Traced) -> Traced:
        return _mix(y, weights, config, form)

    def feed(y: Traced) -> Traced:
        if form.experts is not None:
            return moe(y, weights, config, form.experts)
        return mlp(y, weights, config.activation)

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
    if config.residual_scale != 1:
        result = scale(result, config.residual_scale, name=f"{which}_scaled")
    residual = inner if config.residual_from_norm else x
    if config.norm_place != NormPlace.RESIDUAL:
        return add(residual, result, name=name)
    total = add(residual, result, name=f"{name}_sum")
    return norm(total, weights, f"{which}_post_norm", config, name)


def _parallel(x: Traced, weights: Weights, config: ModelConfig, form: BlockForm) -> Traced:
    """Attention and MLP of the same x, added together and then to x.

    Where nothing is between them and their sum, their biases are added last: what both owe is then reduced once.
    """
    apart = config.residual_dropout > 0 and not config.dropout_of_sum
    late = {} if apart else {name: weights[name] for name in ("bo", "b_down") if name in weights}
    early = {name: weight for name, weight in weights.items() if name not in late}
    with section("attention"):
        attn_in = norm(x, weights, "attn_norm", config, "attn_in")
        attn_out = _mix(attn_in, early, config, form)
    with section("mlp"):
        mlp_in = norm(x, weights, "mlp_norm", config, "mlp_in") if config.parallel_norms > 1 else attn_in
        mlp_out = mlp(mlp_in, early, config.activation)
        if apart:
            attn_out = dropout(attn_out, config.residual_dropout, name="attn_dropped")
            mlp_out = dropout(mlp_out, config.residual_dropout, name="mlp_dropped")
        both = add(attn_out, mlp_out, name="both")
        biases = list(late.values())
        if biases and config.residual_dropout:
            both, biases = add(both, *biases, name="both_biased"), []
        if config.dropout_of_sum:
            both = dropout(both, config.residual_dropout, name="both_dropped")
        return add(x, both, *biases, name="out")


def block_program(config: ModelConfig, form: BlockForm | None = None, *, name: str = "block") -> Program:
    """One layer: x b s d -> out b s d.

    Args:
        config: of the model.
        form: what it is made of; attention and an MLP if left out.
        name: of the program.
    """
    form = form or BlockForm()

    def block(x: Traced, **weights: Traced) -> Traced:
        return (_parallel if config.parallel else _sequential)(x, weights, config, form)

    inputs, parameters = {"x": f"{config.dtype}[b s d]"}, block_parameters(config, form)
    return _trace(config, name, block, inputs, parameters, sizes=kind_sizes(config, form))


def head_table(config: ModelConfig) -> dict[str, str]:
    """Axes of the table that the logits are of: the embedding's, or one of the head's own."""
    return {"embedding" if config.tied else "lm_head": "v w" if config.embedding_size else "v d"}


def _loss(x: Traced, targets: Traced, weights: Weights, config: ModelConfig) -> Traced:
    """Loss of each token: the logits in fp32, their cross-entropy."""
    ((table, axes),) = head_table(config).items()
    logits = einsum(f"b s {axes[-1]}, {axes} -> b s v", x, weights[table], name="logits")
    if config.logit_scale != 1:
        logits = scale(logits, config.logit_scale, name="logits_scaled")
    if config.logit_softcap:
        logits = softcap(logits, config.logit_softcap, name="logits_capped")
    if config.dtype != "fp32":
        logits = cast(logits, "fp32", name="logits_fp32")
    return cross_entropy(logits, targets, "v", name="loss")


def head_program(config: ModelConfig) -> Program:
    """From x b s d and targets b s to loss b s: the final norm, the logits in fp32, the cross-entropy of each token."""

    def head(x: Traced, targets: Traced, **weights: Traced) -> Traced:
        if config.final_norm:
            x = norm(x, weights, "final_norm", config, "head_in")
        if config.embedding_size:
            x = einsum("b s d, d w -> b s w", x, weights["project_out"], name="projected")
        return _loss(x, targets, weights, config)

    inputs = {"x": f"{config.dtype}[b s d]", "targets": "int64[b s]"}
    parameters = norm_parameters(config, "final_norm") if config.final_norm else {}
    if config.embedding_size:
        parameters |= {"project_out": "d w"}
    parameters |= head_table(config)
    return _trace(config, "head", head, inputs, parameters, ("embedding",) if config.tied else ())


def ahead_program(config: ModelConfig, form: BlockForm) -> Program:
    """Multi-token prediction (DeepSeek-V3, arXiv 2412.19437, section 2.2): one depth of it.

    The hidden state x b s d and the embedding of the next token, each normed, side by side, projected from 2d to d: the
    sum of two projections. Then a block, a norm, and the model's own head, against targets one token further ahead.
    """

    def ahead(x: Traced, tokens: Traced, targets: Traced, **weights: Traced) -> Traced:
        rows = lookup(weights["embedding"], tokens, "v", name="embedded")
        state = norm(x, weights, "state_norm", config, "state_normed")
        rows = norm(rows, weights, "token_norm", config, "token_normed")
        parts = (
            einsum("b s w, w d -> b s d", state, weights["project_state"], name="state_projected"),
            einsum("b s w, w d -> b s d", rows, weights["project_token"], name="token_projected"),
        )
        y = _sequential(add(*parts, name="joined"), weights, config, form)
        return _loss(norm(y, weights, "ahead_norm", config, "head_in"), targets, weights, config)

    inputs = {"x": f"{config.dtype}[b s d]", "tokens": "int64[b s]", "targets": "int64[b s]"}
    tables = {"embedding": "v d"} | head_table(config)
    parameters = tables | norm_parameters(config, "state_norm") | norm_parameters(config, "token_norm")
    parameters |= {"project_state": "w d", "project_token": "w d"} | block_parameters(config, form)
    parameters |= norm_parameters(config, "ahead_norm")
    sizes = kind_sizes(config, form) | {"w": config.hidden}
    return _trace(config, "ahead", ahead, inputs, parameters, tables, sizes)


def block_forms(config: ModelConfig) -> tuple[tuple[str, BlockForm], ...]:
    """Name and form of each layer, from the first; see `LayerKind` for the names."""
    pattern, mlps = config.pattern or "f" * config.layers, config.mlps or "d" * config.layers
    forms = []
    for mixer, feed in zip(pattern, mlps, strict=True):
        delta, experts = config.delta if mixer == "l" else None, config.experts if feed == "e" else None
        words = ["window"] if mixer == "w" and "f" in pattern else ["delta"] if delta is not None else []
        if config.experts is not None:
            words.append("dense" if experts is None else "moe")
        forms.append(("_".join((*words, "block")), BlockForm(mixer == "w", delta, experts)))
    return tuple(forms)


def layer_kinds(config: ModelConfig) -> tuple[LayerKind, ...]:
    """Embedding, block or blocks in the order they run first, head, with how often each runs."""
    forms = block_forms(config)
    names = [name for name, _ in forms]
    embedding, head = embedding_program(config), head_program(config)
    kinds = [LayerKind(embedding.name, embedding, 1)]
    for name, form in dict(forms).items():
        repeat = names.count(name)
        program = replace(block_program(config, form, name=name), repeat=repeat)
        decode = None
        if config.latent is not None and form.delta is None:
            decode = replace(block_program(config, replace(form, absorbed=True), name=name), repeat=repeat)
        kinds.append(LayerKind(name, program, repeat, decode))
    return (*kinds, LayerKind(head.name, head, 1))


def ahead_kinds(config: ModelConfig) -> tuple[LayerKind, ...]:
    """Layers that only training runs: one for each further token it predicts, with a block as the model's last."""
    if not config.ahead:
        return ()
    program = replace(ahead_program(config, block_forms(config)[-1][1]), repeat=config.ahead)
    return (LayerKind(program.name, program, config.ahead),)


def block_order(model: Model) -> tuple[str, ...]:
    """Kind of every block, from the first; the embedding, the head and what predicts further tokens left out.

    >>> from einscale.models.registry import load_model
    >>> block_order(load_model("gemma2-9b"))[:3]
    ('window_block', 'block', 'window_block')
    """
    if model.config is not None:
        return tuple(name for name, _ in block_forms(model.config))
    ends = ("embedding", "head")
    return tuple(layer.kind for layer in model.layers for _ in range(layer.repeat) if layer.kind not in ends)
