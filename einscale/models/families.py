"""A `config.json` to facts, by its `model_type`: the table of families has a row that says how.

A model of text and images holds the language model's configuration in `text_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einscale.errors import ModelError, near_miss
from einscale.models.config import ConfigReader
from einscale.models.reading import Family
from einscale.models.table import FAMILIES
from einscale.models.values import ModelConfig, Scoring

LANGUAGE_MODELS = {"gemma3": "gemma3_text"}
"""`model_type` of a model of text and images -> that of the language model inside, where it does not say itself."""

OTHERS = ("llama4", "mamba2", "deepseek_v32", "t5")
"""Architectures that exist and are none of those read here: their names are no slips."""


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
            if family.causal_class in names:
                return name, family
        raise ModelError(f'{where}: the key "model_type" is missing', expected=f"one of {known}")
    if isinstance(model_type, str) and model_type in FAMILIES:
        return model_type, FAMILIES[model_type]
    near = None if model_type in OTHERS else near_miss(str(model_type), FAMILIES)
    hint = f"did you mean `{near}`?" if near else None
    raise ModelError(f"{where}: the architecture `{model_type}` is not known", expected=f"one of {known}", hint=hint)


def language_model(data: Mapping[str, Any], where: str) -> tuple[dict[str, Any], str]:
    """The configuration of the language model, and a note where it is nested in that of a larger model.

    Raises:
        ModelError: `text_config` is no object.
    """
    outer = data.get("model_type")
    if "text_config" not in data or (isinstance(outer, str) and outer in FAMILIES):
        return dict(data), ""
    inner = data["text_config"]
    if not isinstance(inner, dict):
        raise ModelError(f'{where}: "text_config" is not an object', expected="the language model's configuration")
    default = LANGUAGE_MODELS.get(str(outer))
    kind = inner.get("model_type") or default or outer
    outside = {key: data[key] for key in ("dtype", "torch_dtype", "tie_word_embeddings") if data.get(key) is not None}
    note = f"the language model of {outer}, from text_config; its other parts are not read"
    return {**outside, **inner, "model_type": kind}, note


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
    inner, nested = language_model(data, where)
    name, family = find_family(inner, where)
    left_out = {key: given for key, given in family.nested_sizes.items() if nested and key not in inner}
    reader = ConfigReader(
        {**left_out, **inner, "model_type": name}, where, text, family.class_name, family.defaults, family.aliases
    )
    reader.taken.update({key: str(given) for key, given in left_out.items()})
    config = family.read(reader, dtype)
    notes = [nested] if nested else []
    if left_out:
        notes.append(f"sizes that text_config leaves out are those of {family.class_name}: {', '.join(left_out)}")
    if data.get("quantization_config") is not None:
        notes.append(f"quantization_config is not read: weights are taken as {config.dtype}")
    if inner.get("scale_attn_by_inverse_layer_idx"):
        notes.append("scale_attn_by_inverse_layer_idx changes a factor, not the cost: it is not read")
    if config.experts is not None and config.experts.scoring == Scoring.SIGMOID:
        notes.append("e_score_correction_bias balances the choice of experts and has no gradient: it is not counted")
    if inner.get("layerdrop"):
        notes.append("layerdrop is not read: every layer is priced")
    return config, tuple(reader.taken.items()), tuple(notes)
