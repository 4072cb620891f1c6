"""Models: Hugging Face configurations and presets as programs, one for each kind of layer."""

from einscale.models.counts import parameter_counts, program_parameters
from einscale.models.families import FAMILIES, read_config
from einscale.models.layers import layer_kinds
from einscale.models.registry import list_models, load_model, resized
from einscale.models.values import LayerKind, Model, ModelConfig, ParameterCounts

__all__ = [
    "FAMILIES",
    "LayerKind",
    "Model",
    "ModelConfig",
    "ParameterCounts",
    "layer_kinds",
    "list_models",
    "load_model",
    "parameter_counts",
    "program_parameters",
    "read_config",
    "resized",
]
