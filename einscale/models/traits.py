"""Traits that take a rule: heads that divide, parts that are rotated, which layers are windowed or routed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einscale.models.config import ConfigReader
from einscale.models.reading import ConfigSource, Facts, Read, activation, defaults_of, filled, size
from einscale.models.values import Activation, Delta, Experts, Latent, NormPlace

SLIDING, FULL, LINEAR = "sliding_attention", "full_attention", "linear_attention"
"""Words of `layer_types`."""

ALIBI_EXPONENT = 8.0
"""Slopes of ALiBi fall from 2^(-8/heads) to 2^-8 (Press et al. 2021, arXiv 2108.12409)."""


def rope_theta(key: str = "rope_theta", kind: str = FULL) -> Read:
    """Base of the rotary angles in layers of one kind.

    Version 5 writes `rope_parameters.rope_theta`, or one such object for each kind of layer; version 4 a plain key.
    """

    def read(reader: ConfigReader, facts: Facts) -> float:
        nested = reader.data.get("rope_parameters")
        if nested is None or reader.key(key) in reader.data:
            return reader.number(key, 1.0)
        if not isinstance(nested, dict):
            raise reader.error("rope_parameters", "is not an object", 'an object with "rope_theta"')
        inner = reader.nested("rope_parameters")
        if FULL in nested or SLIDING in nested:
            inner = inner.nested(kind)
        return inner.number("rope_theta" if "rope_theta" in inner.data else key, 1.0)

    return read


def rotated(key: str = "partial_rotary_factor") -> Read:
    """Elements of a head that are rotated, from the share under a key; 0 for all."""

    def read(reader: ConfigReader, facts: Facts) -> int:
        nested, head_dim = reader.nested("rope_parameters"), facts["head_dim"]
        name = "partial_rotary_factor" if "partial_rotary_factor" in nested.data else key
        rotary = int(head_dim * (nested if name in nested.data else reader).number(name, 1e-9, 1.0 + 1e-9))
        check_rotary(reader, name, rotary, f"makes {rotary} of {head_dim} elements of a head turn")
        return rotary if rotary != head_dim else 0

    return read


def key_heads(key: str) -> Read:
    """Key heads, a divisor of the query heads; null for as many."""

    def read(reader: ConfigReader, facts: Facts) -> int:
        heads = facts["heads"]
        kv_heads = reader.size(key, heads)
        if heads % kv_heads:
            fault = f"is {kv_heads}, which does not divide the {heads} query heads"
            raise reader.error(reader.key(key), fault, "a divisor of num_attention_heads")
        return kv_heads

    return read


def head_size(key: str) -> Read:
    """Size of a head; the width over the heads where the class lets the key be missing."""

    def read(reader: ConfigReader, facts: Facts) -> int:
        share = None
        if key in reader.defaults:
            share = max(1, facts["hidden"] // facts["heads"])
            if reader.data.get(key) is None:
                check_heads(reader, facts, "hidden_size", "num_attention_heads", f", or an explicit {key}")
        head_dim = reader.size(key, share)
        check_rotary(reader, key, head_dim)
        return head_dim

    return read


def widths(hidden: str, heads: str, layers: str) -> dict[str, Read]:
    """Width, heads and layers under the keys of their sizes, and the size of a head: the width over the heads."""

    def head_dim(reader: ConfigReader, facts: Facts) -> int:
        check_heads(reader, facts, hidden, heads)
        return int(facts["hidden"] // facts["heads"])

    return {"hidden": size(hidden), "heads": size(heads), "head_dim": head_dim, "layers": size(layers)}


def check_heads(reader: ConfigReader, facts: Facts, hidden: str, heads: str, more: str = "") -> None:
    """Raise unless the heads divide the width.

    Raises:
        ModelError: they do not.
    """
    if facts["hidden"] % facts["heads"]:
        fault = f"is {facts['heads']}, which does not divide {hidden} {facts['hidden']}"
        raise reader.error(reader.key(heads), fault, f"a divisor of {hidden}{more}")


def check_rotary(reader: ConfigReader, key: str, turned: int, fault: str = "") -> None:
    """Raise unless pairs can be turned.

    Args:
        reader: the configuration.
        key: what the number of elements follows from.
        turned: elements of a head that are rotated.
        fault: how it follows, where the key is not the number itself.

    Raises:
        ModelError: an odd number of elements is to be rotated.
    """
    if turned % 2:
        raise reader.error(reader.key(key), fault or f"is {turned}", "an even number: rotary positions turn pairs")


def layers(
    rule: Callable[[int, int], object], by: ConfigSource | None = None, word: str = SLIDING, letter: str = "w"
) -> ConfigSource:
    """One letter for each layer, `f` for full attention; from `layer_types`, else from the class's rule.

    Args:
        rule: layer, from 0, and number of the class -> whether it is one of those that `word` means.
        by: where that number is, if it needs one.
        word: the other kind of layer in `layer_types`.
        letter: its letter.
    """

    def read(reader: ConfigReader, facts: Facts) -> str:
        kinds, count = reader.data.get("layer_types"), facts["layers"]
        if kinds is None:
            found = int(by(reader, facts)) if by else 0
            return "".join(letter if rule(layer, found) else "f" for layer in range(count))
        if not isinstance(kinds, list) or len(kinds) != count or any(kind not in (FULL, word) for kind in kinds):
            raise reader.error("layer_types", "does not fit", f"{count} entries, each {FULL} or {word}")
        return "".join(letter if kind == word else "f" for kind in kinds)

    return ConfigSource(read, defaults_of(by))


def routed_layers(step: str, dense: str) -> Read:
    """Routed are all layers but those that a list names, and of the others every so many."""

    def read(reader: ConfigReader, facts: Facts) -> str:
        every, named, count = int(reader.number(step, 1.0)), reader.value(dense), int(facts["layers"])
        if named is not None:
            expected = f"numbers from 0 to {count - 1}"
            if not isinstance(named, list) or any(type(layer) is not int for layer in named):
                raise reader.error(dense, "is no list of layers", expected)
            if outside := [layer for layer in named if not 0 <= layer < count]:
                raise reader.error(dense, f"names layer {outside[0]}", expected)
        # from transformers' Qwen3MoeDecoderLayer
        return "".join("d" if layer in (named or ()) or (layer + 1) % every else "e" for layer in range(count))

    return read


def routed_behind(key: str) -> Read:
    """The first layers dense, the others routed."""

    def read(reader: ConfigReader, facts: Facts) -> str:
        count = int(facts["layers"])
        dense = min(int(reader.number(key)), count)
        return "d" * dense + "e" * (count - dense)

    return read


def experts(**traits: Any) -> ConfigSource:
    """The mixture of experts from a row of its own, where a layer is routed."""

    def read(reader: ConfigReader, facts: Facts) -> Experts | None:
        return Experts(**filled(traits, reader)) if "e" in facts["mlps"] else None

    return ConfigSource(read, defaults_of(*traits.values()))


def top(key: str) -> Read:
    """How many experts a token takes, of as many as there are."""

    def read(reader: ConfigReader, facts: Facts) -> int:
        taken, count = reader.size(key), facts["count"]
        if taken > count:
            raise reader.error(reader.key(key), f"is {taken}, more than the {count} experts", f"at most {count}")
        return taken

    return read


def groups(reader: ConfigReader, facts: Facts) -> Facts:
    """Groups of experts, and how many of them a token takes experts from; null, and a greedy choice, is one."""
    (found, limit), count = (reader.optional_count(key) or 1 for key in ("n_group", "topk_group")), facts["count"]
    if count % found:
        raise reader.error("n_group", f"is {found}, which does not divide the {count} experts", "a divisor")
    if limit > found:
        raise reader.error("topk_group", f"is {limit}, more than the {found} groups", f"at most {found}")
    greedy = "topk_method" in reader.defaults and reader.value("topk_method") == "greedy"
    return {"groups": 1, "top_groups": 1} if greedy else {"groups": found, "top_groups": limit}


def latent(reader: ConfigReader, facts: Facts) -> Facts:
    """Multi-head latent attention; `head_dim` in these files is the rotated part, and is not read."""
    if "q_lora_rank" not in reader.data:
        raise reader.missing("q_lora_rank")
    keys, turned, value = (reader.size(key) for key in ("kv_lora_rank", "qk_rope_head_dim", "v_head_dim"))
    check_rotary(reader, "qk_rope_head_dim", turned)
    found = Latent(keys, reader.optional_count("q_lora_rank"), turned, value)
    return {"kv_heads": facts["heads"], "score_factor": (facts["head_dim"] + turned) ** -0.5, "latent": found}


def delta(reader: ConfigReader, facts: Facts) -> Delta:
    """The gated delta net of linear layers; its value heads are a multiple of its key heads."""
    heads, value_heads = reader.size("linear_num_key_heads"), reader.size("linear_num_value_heads")
    if value_heads % heads:
        fault = f"is {value_heads}, which the {heads} key heads do not divide"
        raise reader.error("linear_num_value_heads", fault, "a multiple of linear_num_key_heads")
    names = ("key_head_dim", "value_head_dim", "conv_kernel_dim")
    return Delta(heads, value_heads, *(reader.size(f"linear_{name}") for name in names))


def four_wide(reader: ConfigReader, facts: Facts) -> int:
    """Hidden width of an MLP four times as wide as the residual stream."""
    return int(4 * facts["hidden"])


def narrow_table(reader: ConfigReader, facts: Facts) -> int:
    """Width of a table of tokens that is projected to the residual stream; 0 where it is as wide."""
    width = reader.size("word_embed_proj_dim", facts["hidden"])
    return width if width != facts["hidden"] else 0


def opt_final_norm(reader: ConfigReader, facts: Facts) -> bool:
    """A norm before the head only where the others come before, too."""
    return facts["norm_place"] == NormPlace.BEFORE and not reader.flag("_remove_final_layer_norm")


def usual_scale(reader: ConfigReader, facts: Facts) -> float:
    """One over the root of the head size."""
    return root(facts["head_dim"])


def mpt_scale(reader: ConfigReader, facts: Facts) -> float:
    """The scale that the file names, else the usual one."""
    return reader.nested("attn_config").optional_number("softmax_scale") or usual_scale(reader, facts)


def falcon_attention(reader: ConfigReader, facts: Facts) -> Facts:
    """One key head and one norm in the 7b, one for each query head without `multi_query`; groups in the new design."""
    parallel, kv_heads = reader.flag("parallel_attn"), facts["heads"]
    if not reader.flag("new_decoder_architecture"):
        kv_heads = 1 if reader.flag("multi_query") else kv_heads
        return {"kv_heads": kv_heads, "parallel": parallel, "parallel_norms": 1}
    if not parallel:
        raise reader.error("parallel_attn", "is false, but new_decoder_architecture is built in parallel only", "true")
    norms = 2 if reader.data.get("num_ln_in_parallel_attn") in (None, 2) else 1
    return {"kv_heads": key_heads("num_kv_heads")(reader, facts), "parallel": parallel, "parallel_norms": norms}


def falcon_positions(reader: ConfigReader, facts: Facts) -> Facts:
    """ALiBi or rotary; the model scales ALiBi's bias, and drops no rotary probabilities: neither changes a cost."""
    if reader.flag("alibi"):
        return {"alibi": ALIBI_EXPONENT}
    heads, head_dim = facts["heads"], facts["head_dim"]
    check_rotary(reader, "num_attention_heads", head_dim, f"is {heads}, which makes heads of {head_dim}")
    return {"rope_theta": rope_theta()(reader, facts)}


def every_layer_routed(reader: ConfigReader, facts: Facts) -> str:
    """All layers routed."""
    return "e" * int(facts["layers"])


def gemma_activation(reader: ConfigReader, facts: Facts) -> Activation:
    """`hidden_activation` where it says something, else `hidden_act`: its `gelu` was always meant as the tanh form."""
    if reader.data.get("hidden_activation") is not None or "hidden_activation" in reader.defaults:
        return Activation(activation("hidden_activation")(reader, facts))
    name = Activation(activation("hidden_act")(reader, facts))
    return Activation.GELU_TANH if name is Activation.GELU else name


def root(value: float) -> float:
    """One over the root: the scale of scores."""
    return float(value**-0.5)
