"""What a model is: facts from its configuration, and a program for each kind of layer."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from einscale.program.values import Program


class Activation(StrEnum):
    """The function between the maps of an MLP; `GELU` is the form with erf."""

    SILU = "silu"
    RELU = "relu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"


class Norm(StrEnum):
    """What is normalised by: the root of the mean square, or mean and variance."""

    RMS = "rms"
    LAYER = "layer"


class NormPlace(StrEnum):
    """Where norms are: around attention and MLP, or after their result is added."""

    BEFORE = "before"
    AFTER = "after"
    BOTH = "both"
    RESIDUAL = "residual"


class HeadNorm(StrEnum):
    """How queries and keys are normalised: each head by itself, or all heads together."""

    HEAD = "head"
    ALL = "all"


class Positions(StrEnum):
    """How a model knows positions: rotary angles, a learned table, or biases on attention scores."""

    ROPE = "rope"
    LEARNED = "learned"
    ALIBI = "alibi"


class Scoring(StrEnum):
    """What makes weights of a router's logits."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


class Experts(Struct, frozen=True):
    """Facts of a mixture of experts.

    Args:
        count: routed experts, axis `e`.
        top: how many of them each token takes.
        hidden: hidden width of one, axis `m`.
        shared: hidden width of what every token takes besides (several shared experts side by side), axis `f`; 0 for
            none.
        shared_gate: the shared expert's result is multiplied with the sigmoid of a score of the token.
        scoring: `softmax` or `sigmoid` of the router's logits.
        normalise: the weights of the chosen experts sum to one.
        factor: what those weights are multiplied with.
        groups: groups the experts are in, of which a token takes experts from `top_groups` only (node-limited routing).
        top_groups: see `groups`.
        bias: router and experts have biases.
        limit: bound of gate and up projections (clamped swiglu); 0 for the plain one.
        alpha: gain of the sigmoid in the clamped swiglu.
    """

    count: int
    top: int
    hidden: int
    shared: int = 0
    shared_gate: bool = False
    scoring: Scoring = Scoring.SOFTMAX
    normalise: bool = True
    factor: float = 1.0
    groups: int = 1
    top_groups: int = 1
    bias: bool = False
    limit: float = 0.0
    alpha: float = 1.702


class Latent(Struct, frozen=True):
    """Sizes of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434).

    Args:
        keys: latent of keys and values, axis `l`: what a cache keeps of a token, beside the rotated part.
        queries: latent of the queries, axis `q`; 0 where they are projected directly.
        rotated: part of a head that is rotated, axis `r`; its key is shared by all heads.
        value: size of a value head, axis `u`.
    """

    keys: int
    queries: int
    rotated: int
    value: int


class Delta(Struct, frozen=True):
    """Sizes of a gated delta net (Yang et al. 2024, arXiv 2412.06464).

    Args:
        heads: key heads, axis `n`.
        value_heads: value heads, a multiple of them; `g` to a key head.
        key: size of a key head, axis `k`.
        value: size of a value head, axis `u`.
        taps: width of the causal convolution, axis `c`.
    """

    heads: int
    value_heads: int
    key: int
    value: int
    taps: int


class ModelConfig(Struct, frozen=True, kw_only=True):
    """Facts of a decoder-only Transformer, whatever its family calls them.

    Args:
        architecture: `model_type` of the configuration.
        class_name: the transformers class that reads it.
        hidden: width of the residual stream, axis `d`.
        layers: number of blocks.
        heads: query heads.
        kv_heads: key and value heads, axis `n`; each serves heads/kv_heads query heads, axis `g`.
        head_dim: size of a head, axis `k`.
        intermediate: hidden width of the MLP, axis `f`.
        vocab: axis `v`.
        max_positions: longest sequence; axis `p` of the table where positions are learned.
        activation: `silu`, `gelu`, `gelu_tanh` or `relu`.
        gated: whether the MLP has a gate beside its up projection.
        norm: `rms` or `layer`.
        norm_eps: added under the root of the norm.
        positions: `rope`, `learned` or `alibi` (a bias on the scores).
        rope_theta: base of the rotary angles; in windowed layers, `window_rope_theta`.
        qkv_bias: biases on the query, key and value projections.
        out_bias: bias on the attention's output projection.
        mlp_bias: biases in the MLP.
        tied: whether the head reads the embedding's table.
        window: keys a query sees in windowed layers; 0 for all.
        pattern: one letter for each layer: `w` windowed attention, `f` full attention, `l` a linear layer (gated delta
            net); empty if all are full.
        attention_dropout: rate on the attention probabilities.
        residual_dropout: rate on the output of attention and MLP.
        embedding_dropout: rate on the embedding.
        score_factor: what attention scores are multiplied with.
        dtype: element type of parameters and activations.
        window_rope_theta: base of the rotary angles in windowed layers; 0 for the same as in the others.
        rotary: elements of a head that are rotated; 0 for all.
        alibi: exponent range of the slopes of ALiBi, usually 8; 0 for no bias.
        softcap: attention scores are kept within plus and minus so much; 0 for no bound.
        logit_softcap: the same for the logits.
        clip_qkv: queries, keys and values are clamped to so much; 0 for no bound.
        qk_norm: norm of queries and keys: `head` (each head by itself), `all` (all heads together) or "" for none.
        norm_weight: whether norms have a scale.
        norm_bias: whether they have a bias.
        norm_place: `before` attention and MLP, `after` them, `both`, or `residual`: after their result is added.
        final_norm: whether a norm precedes the head.
        parallel: attention and MLP read the same x; their results are added to it together.
        parallel_norms: 1 if they share a norm, 2 if each has its own.
        dropout_of_sum: in a parallel block dropout applies to the sum of both results, not to each.
        residual_from_norm: what attention and MLP are added to is the norm's result, not its input.
        embedding_scale: what the embedding is multiplied with.
        embedding_norm: a norm follows the embedding.
        embedding_size: width of the table of tokens, axis `w`, where it is projected to `d`; 0 where it is `d` itself.
        position_offset: rows of the table of positions that no position uses.
        mlps: one letter for each layer: `e` a mixture of experts, `d` a dense MLP; empty if all are dense.
        experts: the mixture of experts, None for a dense model.
        latent: multi-head latent attention, None for the ordinary one.
        delta: the linear layers, None for a model without.
        sinks: each query head has a learned score that takes part in the softmax and attends to nothing.
        output_gate: what is attended to is multiplied with the sigmoid of a projection of the input.
        residual_scale: what the results of attention and MLP are multiplied with before they are added.
        logit_scale: what the logits are multiplied with.
        ahead: layers that only training runs, each to predict one token further ahead.
    """

    architecture: str
    class_name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_positions: int
    activation: Activation
    gated: bool = True
    norm: Norm = Norm.RMS
    norm_eps: float
    positions: Positions
    rope_theta: float = 0.0
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    tied: bool
    window: int = 0
    pattern: str = ""
    attention_dropout: float
    residual_dropout: float = 0.0
    embedding_dropout: float = 0.0
    score_factor: float
    dtype: str
    window_rope_theta: float = 0.0
    rotary: int = 0
    alibi: float = 0.0
    softcap: float = 0.0
    logit_softcap: float = 0.0
    clip_qkv: float = 0.0
    qk_norm: HeadNorm | Literal[""] = ""
    norm_weight: bool = True
    norm_bias: bool = False
    norm_place: NormPlace = NormPlace.BEFORE
    final_norm: bool = True
    parallel: bool = False
    parallel_norms: int = 2
    dropout_of_sum: bool = False
    residual_from_norm: bool = False
    embedding_scale: float = 1.0
    embedding_norm: bool = False
    embedding_size: int = 0
    position_offset: int = 0
    mlps: str = ""
    experts: Experts | None = None
    latent: Latent | None = None
    delta: Delta | None = None
    sinks: bool = False
    output_gate: bool = False
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    ahead: int = 0

    @property
    def windowed_layers(self) -> int:
        """How many layers are windowed."""
        return self.pattern.count("w")

    @property
    def sizes(self) -> dict[str, int]:
        """Size of every axis that the model fixes; `g` only where a key head serves several query heads.

        A mixture of experts has an `f` of its own, and so have linear layers their heads: see `layers.kind_sizes`.
        """
        groups = self.heads // self.kv_heads
        sizes = {"d": self.hidden, "n": self.kv_heads, "g": groups, "k": self.head_dim, "f": self.intermediate}
        sizes |= {"v": self.vocab, "p": self.max_positions + self.position_offset, "w": self.embedding_size}
        if self.experts is not None:
            sizes |= {"e": self.experts.count, "m": self.experts.hidden}
        if self.latent is not None:
            sizes |= {"l": self.latent.keys, "q": self.latent.queries}
            sizes |= {"r": self.latent.rotated, "u": self.latent.value}
        return {name: size for name, size in sizes.items() if name != "g" or groups > 1}

    @property
    def head_axes(self) -> tuple[str, ...]:
        """Axes of the query heads, major to minor: the composite `h`."""
        return ("n", "g") if self.heads > self.kv_heads else ("n",)


class LayerKind(Struct, frozen=True):
    """Layers that run the same program.

    Args:
        kind: the program's name: `embedding`, `head`, or what the block does beside ordinary attention and a dense MLP:
            `block`; `window_block` where only some layers are windowed; in a model with experts `dense_block` and
            `moe_block`; `delta_block` for a linear layer; joined, as in `window_moe_block` and `delta_moe_block`.
        program: forward statements.
        repeat: how many layers run it.
        decode: the forward program that decoding runs instead, where it is another: attention on the latent itself.
    """

    kind: str
    program: Program
    repeat: int
    decode: Program | None = None


class Model(Struct, frozen=True):
    """A model: its layers as programs.

    Args:
        name: preset or file name.
        layers: kinds of layers in the order they run first.
        source: where the configuration comes from.
        config: facts; None for a program of the user's own.
        defaults: (key, value as JSON) that the file leaves to the class's documented default.
        notes: what the file says and the programs do not, in words.
        ahead: layers that only training runs (multi-token prediction); the counts' `total` leaves them out.
    """

    name: str
    layers: tuple[LayerKind, ...]
    source: str
    config: ModelConfig | None = None
    defaults: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    ahead: tuple[LayerKind, ...] = ()

    def layer(self, kind: str) -> LayerKind:
        """The layers of one kind.

        Raises:
            KeyError: the model has none.
        """
        for layer in self.layers:
            if layer.kind == kind:
                return layer
        raise KeyError(kind)


class ParameterCounts(Struct, frozen=True):
    """Exact numbers of parameters.

    Args:
        total: all, a tied one once; without the layers that only training runs.
        active: those that one token meets: of routed experts the chosen share, of all else everything, the tables of
            the embedding and the head in full.
        embedding: tables of tokens and positions, and the head's.
        non_embedding: the others.
        routed: those of the routed experts, their biases among them.
        ahead: those of the layers that only training runs.
    """

    total: int
    active: int
    embedding: int
    non_embedding: int
    routed: int = 0
    ahead: int = 0
