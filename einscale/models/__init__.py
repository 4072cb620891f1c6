"""Models: Hugging Face configurations and presets as programs, one for each kind of layer."""

from einscale.models.counts import parameter_counts, program_parameters
from einscale.models.families import read_config
from einscale.models.flops import ModelFlops, model_flops
from einscale.models.layers import ahead_kinds, block_order, layer_kinds
from einscale.models.registry import list_models, load_model, resized
from einscale.models.table import FAMILIES
from einscale.models.values import Delta, Experts, Latent, LayerKind, Model, ModelConfig, ParameterCounts

__all__ = [
    "FAMILIES",
    "Delta",
    "Experts",
    "Latent",
    "LayerKind",
    "Model",
    "ModelConfig",
    "ModelFlops",
    "ParameterCounts",
    "ahead_kinds",
    "block_order",
    "layer_kinds",
    "list_models",
    "load_model",
    "model_flops",
    "parameter_counts",
    "program_parameters",
    "read_config",
    "resized",
]
