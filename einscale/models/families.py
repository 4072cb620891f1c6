"""Families of models: which keys of a `config.json` say what, and what a missing one means.

Defaults are those of the configuration classes of transformers 5 (`configuration_llama.py` and so on); where version 4
spells a key otherwise (`torch_dtype`, `rope_theta`), both are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from einscale.dtypes import dtype as canonical_dtype
from einscale.dtypes import is_dtype
from einscale.errors import ModelError, did_you_mean
from einscale.models.config import ConfigReader
from einscale.models.values import ModelConfig

DEFAULT_DTYPE = "bf16"
"""Element type where neither the caller nor the file names one: that of mixed-precision training."""

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""Names of activation functions in transformers -> ours."""


class Family(Struct, frozen=True):
    """How one transformers configuration class is read.

    Args:
        class_name: the class.
        model_class: the class with a language-model head, as `architectures` names it.
        defaults: the class's documented default of every key that is read and is not a size.
        read: configuration -> facts.
        aliases: key -> the other name that the class takes for it.
    """

    class_name: str
    model_class: str
    defaults: Mapping[str, Any]
    read: Callable[[ConfigReader, str | None], ModelConfig]
    aliases: Mapping[str, str] = {}


def read_dtype(reader: ConfigReader, dtype: str | None) -> str:
    """Element type: the caller's, else the file's `dtype` or `torch_dtype`, else `DEFAULT_DTYPE`."""
    if dtype is not None:
        return canonical_dtype(dtype)
    for key in ("dtype", "torch_dtype"):
        value = reader.data.get(key)
        if value is None:
            continue
        if not isinstance(value, str) or not is_dtype(value):
            raise reader.error(key, "is not an element type", "for example bfloat16")
        return canonical_dtype(value)
    reader.taken.append(("dtype", f'"{DEFAULT_DTYPE}"'))
    return DEFAULT_DTYPE


def read_rope_theta(reader: ConfigReader) -> float:
    """Base of the rotary angles: `rope_parameters.rope_theta` (version 5) or `rope_theta` (version 4)."""
    nested = reader.data.get("rope_parameters")
    if nested is None or "rope_theta" in reader.data:
        return reader.number("rope_theta", 1.0)
    if not isinstance(nested, dict):
        raise reader.error("rope_parameters", "is not an object", 'an object with "rope_theta"')
    inner = ConfigReader(nested, reader.where, reader.text, reader.class_name, reader.defaults, {})
    theta = inner.number("rope_theta", 1.0)
    reader.taken += inner.taken
    return theta


def read_heads(reader: ConfigReader, hidden: int) -> tuple[int, int, int]:
    """Query heads, key heads, head size of the Llama family; checks that they divide."""
    heads = reader.size("num_attention_heads")
    kv_heads = reader.size("num_key_value_heads", unless_null=heads)
    if heads % kv_heads:
        raise reader.error(
            "num_key_value_heads",
            f"is {kv_heads}, which does not divide the {heads} query heads",
            "a divisor of num_attention_heads",
        )
    if reader.data.get("head_dim") is None and hidden % heads:
        raise reader.error(
            "num_attention_heads",
            f"is {heads}, which does not divide hidden_size {hidden}",
            "a divisor of hidden_size, or an explicit head_dim",
        )
    head_dim = reader.size("head_dim", unless_null=max(1, hidden // heads))
    return heads, kv_heads, head_dim


def read_window(reader: ConfigReader, layers: int) -> tuple[int, int]:
    """Sliding window and number of windowed layers."""
    model_type = reader.data.get("model_type")
    if "sliding_window" not in reader.defaults:
        return 0, 0
    if model_type != "mistral" and not reader.flag("use_sliding_window"):
        return 0, 0
    window = reader.optional_size("sliding_window")
    if not window:
        return 0, 0
    kinds = reader.data.get("layer_types")
    if kinds is not None:
        known = ("full_attention", "sliding_attention")
        if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in known for kind in kinds):
            raise reader.error(
                "layer_types", "does not fit", f"{layers} entries, each full_attention or sliding_attention"
            )
        return window, kinds.count("sliding_attention")
    if "max_window_layers" in reader.defaults:
        first = int(reader.number("max_window_layers"))
        return window, max(0, layers - first)
    return window, layers


def read_llama(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """Llama 1 to 3, Mistral, Qwen 2 and 2.5: RMS norm, rotary positions, gated MLP."""
    hidden, layers = reader.size("hidden_size"), reader.size("num_hidden_layers")
    heads, kv_heads, head_dim = read_heads(reader, hidden)
    if head_dim % 2:
        raise reader.error("head_dim", f"is {head_dim}", "an even number: rotary positions turn pairs")
    window, windowed = read_window(reader, layers)
    qwen = reader.class_name == "Qwen2Config"
    attention_bias = reader.flag("attention_bias") if "attention_bias" in reader.defaults else False
    return ModelConfig(
        architecture=str(reader.data.get("model_type")),
        class_name=reader.class_name,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=reader.size("intermediate_size"),
        vocab=reader.size("vocab_size"),
        max_positions=reader.optional_size("max_position_embeddings"),
        activation=reader.word("hidden_act", ACTIVATIONS),
        gated=True,
        norm="rms",
        norm_eps=reader.number("rms_norm_eps"),
        positions="rope",
        rope_theta=read_rope_theta(reader),
        qkv_bias=attention_bias or qwen,
        out_bias=attention_bias,
        mlp_bias=reader.flag("mlp_bias") if "mlp_bias" in reader.defaults else False,
        tied=reader.flag("tie_word_embeddings"),
        window=window if windowed else 0,
        windowed_layers=windowed,
        attention_dropout=reader.number("attention_dropout", 0.0, 1.0),
        residual_dropout=0.0,
        embedding_dropout=0.0,
        score_factor=head_dim**-0.5,
        dtype=read_dtype(reader, dtype),
    )


def read_gpt2(reader: ConfigReader, dtype: str | None) -> ModelConfig:
    """GPT-2 and GPT-3: layer norm, learned positions, plain MLP, biases and dropout everywhere."""
    hidden, heads = reader.size("n_embd"), reader.size("n_head")
    if hidden % heads:
        raise reader.error(reader.key("n_head"), f"is {heads}, which does not divide n_embd {hidden}")
    if reader.data.get("add_cross_attention"):
        raise reader.error("add_cross_attention", "is true: blocks with cross-attention are not known", "false")
    head_dim = hidden // heads
    return ModelConfig(
        architecture="gpt2",
        class_name=reader.class_name,
        hidden=hidden,
        layers=reader.size("n_layer"),
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        intermediate=reader.size("n_inner", unless_null=4 * hidden),
        vocab=reader.size("vocab_size"),
        max_positions=reader.size("n_positions"),
        activation=reader.word("activation_function", ACTIVATIONS),
        gated=False,
        norm="layer",
        norm_eps=reader.number("layer_norm_epsilon"),
        positions="learned",
        rope_theta=0.0,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        tied=reader.flag("tie_word_embeddings"),
        window=0,
        windowed_layers=0,
        attention_dropout=reader.number("attn_pdrop", 0.0, 1.0),
        residual_dropout=reader.number("resid_pdrop", 0.0, 1.0),
        embedding_dropout=reader.number("embd_pdrop", 0.0, 1.0),
        score_factor=head_dim**-0.5 if reader.flag("scale_attn_weights") else 1.0,
        dtype=read_dtype(reader, dtype),
    )


_LLAMA_COMMON: dict[str, Any] = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
    "head_dim": None,
}

FAMILIES: dict[str, Family] = {
    "llama": Family(
        "LlamaConfig",
        "LlamaForCausalLM",
        {
            **_LLAMA_COMMON,
            "max_position_embeddings": 2048,
            "num_key_value_heads": None,
            "attention_bias": False,
            "mlp_bias": False,
        },
        read_llama,
    ),
    "mistral": Family(
        "MistralConfig",
        "MistralForCausalLM",
        {**_LLAMA_COMMON, "max_position_embeddings": 131072, "sliding_window": 4096},
        read_llama,
    ),
    "qwen2": Family(
        "Qwen2Config",
        "Qwen2ForCausalLM",
        {
            **_LLAMA_COMMON,
            "max_position_embeddings": 32768,
            "use_sliding_window": False,
            "sliding_window": 4096,
            "max_window_layers": 28,
        },
        read_llama,
    ),
    "gpt2": Family(
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            "n_inner": None,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "resid_pdrop": 0.1,
            "embd_pdrop": 0.1,
            "attn_pdrop": 0.1,
            "scale_attn_weights": True,
            "tie_word_embeddings": True,
        },
        read_gpt2,
        {
            "n_embd": "hidden_size",
            "n_positions": "max_position_embeddings",
            "n_head": "num_attention_heads",
            "n_layer": "num_hidden_layers",
        },
    ),
}
"""`model_type` -> how it is read."""


def find_family(data: Mapping[str, Any], where: str) -> tuple[str, Family]:
    """The family of a configuration, by `model_type` or, where that is missing, by `architectures`.

    Raises:
        ModelError: neither names a known one.
    """
    known = ", ".join(FAMILIES)
    model_type = data.get("model_type")
    if model_type is None:
        architectures = data.get("architectures")
        names = architectures if isinstance(architectures, list) else []
        for name, family in FAMILIES.items():
            if family.model_class in names:
                return name, family
        raise ModelError(f'{where}: the key "model_type" is missing', expected=f"one of {known}")
    if isinstance(model_type, str) and model_type in FAMILIES:
        return model_type, FAMILIES[model_type]
    if "text_config" in data:
        hint = 'the language model is nested under "text_config": save that object as a file of its own'
    else:
        hint = did_you_mean(str(model_type), FAMILIES, "known")
    raise ModelError(f"{where}: the architecture `{model_type}` is not known", expected=f"one of {known}", hint=hint)


def read_config(
    data: Mapping[str, Any], where: str, text: str = "", dtype: str | None = None
) -> tuple[ModelConfig, tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Facts of a configuration, the defaults that were taken, and notes.

    Args:
        data: the JSON object.
        where: file or preset, for messages.
        text: the text of the file, so that messages show the line.
        dtype: element type, over that of the file.

    Raises:
        ModelError: an unknown architecture, a size that is missing, or a value of the wrong type.
    """
    name, family = find_family(data, where)
    reader = ConfigReader({**data, "model_type": name}, where, text, family.class_name, family.defaults, family.aliases)
    config = family.read(reader, dtype)
    notes = []
    if data.get("quantization_config") is not None:
        notes.append(f"quantization_config is not read: weights are taken as {config.dtype}")
    if data.get("scale_attn_by_inverse_layer_idx"):
        notes.append("scale_attn_by_inverse_layer_idx changes a factor, not the cost: it is not read")
    return config, tuple(reader.taken), tuple(notes)
