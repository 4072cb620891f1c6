"""What several families of configurations have in common: element types, heads, rotary angles, windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from einscale.dtypes import dtype as canonical_dtype
from einscale.dtypes import is_dtype
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

SLIDING, FULL, LINEAR = "sliding_attention", "full_attention", "linear_attention"
"""Words of `layer_types`."""


class Family(Struct, frozen=True):
    """How one transformers configuration class is read.

    Args:
        class_name: the class.
        model_class: the class with a language-model head, as `architectures` names it.
        defaults: the class's documented default of every key that is read and is not a size.
        read: configuration -> facts.
        aliases: key -> the other name, or names, that the class takes for it.
        nested_sizes: the class's documented sizes, for the object `text_config` of a model of text and images: the
            published files leave out those that equal them. A file of its own must give every size.
    """

    class_name: str
    model_class: str
    defaults: Mapping[str, Any]
    read: Callable[[ConfigReader, str | None], ModelConfig]
    aliases: Mapping[str, str | tuple[str, ...]] = {}
    nested_sizes: Mapping[str, int] = {}


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


def read_rope_theta(reader: ConfigReader, kind: str = FULL, key: str = "rope_theta") -> float:
    """Base of the rotary angles in layers of one kind.

    Version 5 writes `rope_parameters.rope_theta`, or one such object for each kind of layer; version 4 a plain key.

    Args:
        reader: the configuration.
        kind: `full_attention` or `sliding_attention`.
        key: the plain key.
    """
    nested = reader.data.get("rope_parameters")
    if nested is None or reader.key(key) in reader.data:
        return reader.number(key, 1.0)
    if not isinstance(nested, dict):
        raise reader.error("rope_parameters", "is not an object", 'an object with "rope_theta"')
    inner = reader.nested("rope_parameters")
    if FULL in nested or SLIDING in nested:
        inner = inner.nested(kind)
    if "rope_theta" in inner.data:
        return inner.number("rope_theta", 1.0)
    return inner.number(key, 1.0)


def read_heads(reader: ConfigReader, hidden: int, key: str = "head_dim") -> tuple[int, int, int]:
    """Query heads, key heads, head size (under `key`) of the Llama family; checks that they divide."""
    heads = reader.size("num_attention_heads")
    kv_heads = reader.size("num_key_value_heads", unless_null=heads)
    check_kv_heads(reader, "num_key_value_heads", heads, kv_heads)
    if key not in reader.defaults:
        return heads, kv_heads, reader.size(key)
    if reader.data.get("head_dim") is None:
        check_hidden(reader, hidden, heads, "num_attention_heads", "hidden_size", ", or an explicit head_dim")
    head_dim = reader.size("head_dim", unless_null=max(1, hidden // heads))
    return heads, kv_heads, head_dim


def check_kv_heads(reader: ConfigReader, key: str, heads: int, kv_heads: int) -> None:
    """Raise unless the key heads divide the query heads.

    Raises:
        ModelError: they do not.
    """
    if heads % kv_heads:
        raise reader.error(
            reader.key(key),
            f"is {kv_heads}, which does not divide the {heads} query heads",
            "a divisor of num_attention_heads",
        )


def check_hidden(reader: ConfigReader, hidden: int, heads: int, key: str, hidden_key: str, more: str = "") -> int:
    """Size of a head where it is the width over the heads.

    Raises:
        ModelError: the heads do not divide the width.
    """
    if hidden % heads:
        raise reader.error(
            reader.key(key),
            f"is {heads}, which does not divide {hidden_key} {hidden}",
            f"a divisor of {hidden_key}{more}",
        )
    return hidden // heads


def check_rotary(reader: ConfigReader, key: str, size: int, fault: str = "") -> None:
    """Raise unless pairs can be turned.

    Args:
        reader: the configuration.
        key: what the number of elements follows from.
        size: elements of a head that are rotated.
        fault: how it follows, where the key is not the number itself.

    Raises:
        ModelError: an odd number of elements is to be rotated.
    """
    if size % 2:
        raise reader.error(reader.key(key), fault or f"is {size}", "an even number: rotary positions turn pairs")


def read_pattern(
    reader: ConfigReader, layers: int, default: Callable[[int], bool], word: str = SLIDING, letter: str = "w"
) -> str:
    """One letter for each layer, `f` for full attention; from `layer_types`, else from the class's rule.

    Args:
        reader: the configuration.
        layers: how many there are.
        default: layer, from 0 -> whether the class makes it one of those that `word` means.
        word: the other kind of layer in `layer_types`.
        letter: its letter.
    """
    kinds = reader.data.get("layer_types")
    if kinds is None:
        return "".join(letter if default(layer) else "f" for layer in range(layers))
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in (FULL, word) for kind in kinds):
        raise reader.error("layer_types", "does not fit", f"{layers} entries, each {FULL} or {word}")
    return "".join(letter if kind == word else "f" for kind in kinds)


def read_layers(reader: ConfigReader, key: str, layers: int) -> frozenset[int]:
    """Numbers of layers, from 0; null or a missing key is none.

    Raises:
        ModelError: not a list of such numbers.
    """
    numbers = reader.value(key)
    if numbers is None:
        return frozenset()
    if not isinstance(numbers, list) or any(type(number) is not int for number in numbers):
        raise reader.error(key, "is no list of layers", f"numbers from 0 to {layers - 1}")
    outside = [number for number in numbers if not 0 <= number < layers]
    if outside:
        raise reader.error(key, f"names layer {outside[0]}", f"numbers from 0 to {layers - 1}")
    return frozenset(numbers)


def read_top(reader: ConfigReader, key: str, experts: int) -> int:
    """How many experts a token takes.

    Raises:
        ModelError: more than there are.
    """
    top = reader.size(key)
    if top > experts:
        raise reader.error(reader.key(key), f"is {top}, more than the {experts} experts", f"at most {experts}")
    return top


def read_rotary(reader: ConfigReader, head_dim: int) -> int:
    """Elements of a head that are rotated, from `partial_rotary_factor`; 0 for all.

    Raises:
        ModelError: an odd number of them.
    """
    key, nested = "partial_rotary_factor", reader.nested("rope_parameters")
    rotary = int(head_dim * (nested if key in nested.data else reader).number(key, 1e-9, 1.0 + 1e-9))
    check_rotary(reader, key, rotary, f"makes {rotary} of {head_dim} elements of a head turn")
    return rotary if rotary != head_dim else 0
