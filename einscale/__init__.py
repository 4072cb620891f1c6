"""einscale: derive, explain, prove and price the collectives of a sharded Transformer.

>>> import einscale
>>> answer = einscale.plan("B/x D, D/x F -> B/x F", mesh="x=4", sizes={"B": 64, "D": 128, "F": 256})
>>> answer.bytes_received
49152

Names are imported when they are first used, so that `import einscale` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.version import __version__ as __version__

if TYPE_CHECKING:
    from einscale.api.answer import Answer as Answer
    from einscale.api.collective import CollectiveResult as CollectiveResult
    from einscale.api.collective import collective as collective
    from einscale.api.compare import CompareResult as CompareResult
    from einscale.api.compare import compare as compare
    from einscale.api.compare_serving import CompareServingResult as CompareServingResult
    from einscale.api.infer import decode as decode
    from einscale.api.infer import infer as infer
    from einscale.api.infer import prefill as prefill
    from einscale.api.infer_result import DecodeResult as DecodeResult
    from einscale.api.infer_result import InferResult as InferResult
    from einscale.api.infer_result import PrefillResult as PrefillResult
    from einscale.api.layer import LayerResult as LayerResult
    from einscale.api.layer import layer as layer
    from einscale.api.many import PriceColumns as PriceColumns
    from einscale.api.many import price_many as price_many
    from einscale.api.notation import Conversion as Conversion
    from einscale.api.notation import convert as convert
    from einscale.api.plan import PlanResult as PlanResult
    from einscale.api.plan import plan as plan
    from einscale.api.shard import ShardResult as ShardResult
    from einscale.api.shard import shard as shard
    from einscale.api.sweep import SweepResult as SweepResult
    from einscale.api.sweep import sweep as sweep
    from einscale.api.train import TrainResult as TrainResult
    from einscale.api.train import train_step as train_step
    from einscale.errors import EinscaleError as EinscaleError
    from einscale.errors import HardwareError as HardwareError
    from einscale.errors import LayoutError as LayoutError
    from einscale.errors import MeshError as MeshError
    from einscale.errors import ModelError as ModelError
    from einscale.errors import NotationError as NotationError
    from einscale.errors import PlanError as PlanError
    from einscale.errors import ProgramError as ProgramError
    from einscale.errors import ScheduleError as ScheduleError
    from einscale.errors import SizeError as SizeError
    from einscale.errors import StrategyError as StrategyError
    from einscale.errors import UsageError as UsageError
    from einscale.errors import VerificationError as VerificationError
    from einscale.hardware import list_systems as list_systems
    from einscale.hardware import load_system as load_system
    from einscale.mesh import Mesh as Mesh
    from einscale.mesh import make_mesh as make_mesh
    from einscale.models import list_models as list_models
    from einscale.models import load_model as load_model
    from einscale.notation import parse_spec as parse_spec
    from einscale.request.serving import ServeRequest as ServeRequest
    from einscale.request.training import TrainRequest as TrainRequest
    from einscale.strategy import list_strategies as list_strategies
    from einscale.strategy import load_strategy as load_strategy


_HOMES = {
    "api.answer": ("Answer",),
    "api.collective": ("CollectiveResult", "collective"),
    "api.compare": ("CompareResult", "compare"),
    "api.compare_serving": ("CompareServingResult",),
    "api.infer": ("decode", "infer", "prefill"),
    "api.infer_result": ("DecodeResult", "InferResult", "PrefillResult"),
    "api.layer": ("LayerResult", "layer"),
    "api.many": ("PriceColumns", "price_many"),
    "api.notation": ("Conversion", "convert"),
    "api.plan": ("PlanResult", "plan"),
    "api.shard": ("ShardResult", "shard"),
    "api.sweep": ("SweepResult", "sweep"),
    "api.train": ("TrainResult", "train_step"),
    "errors": (
        "EinscaleError",
        "HardwareError",
        "LayoutError",
        "MeshError",
        "ModelError",
        "NotationError",
        "PlanError",
        "ProgramError",
        "ScheduleError",
        "SizeError",
        "StrategyError",
        "UsageError",
        "VerificationError",
    ),
    "hardware": ("list_systems", "load_system"),
    "mesh": ("Mesh", "make_mesh"),
    "models": ("list_models", "load_model"),
    "notation": ("parse_spec",),
    "request.serving": ("ServeRequest",),
    "request.training": ("TrainRequest",),
    "strategy": ("list_strategies", "load_strategy"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "CollectiveResult",
    "CompareResult",
    "CompareServingResult",
    "Conversion",
    "DecodeResult",
    "EinscaleError",
    "HardwareError",
    "InferResult",
    "LayerResult",
    "LayoutError",
    "Mesh",
    "MeshError",
    "ModelError",
    "NotationError",
    "PlanError",
    "PlanResult",
    "PrefillResult",
    "PriceColumns",
    "ProgramError",
    "ScheduleError",
    "ServeRequest",
    "ShardResult",
    "SizeError",
    "StrategyError",
    "SweepResult",
    "TrainRequest",
    "TrainResult",
    "UsageError",
    "VerificationError",
    "__version__",
    "collective",
    "compare",
    "convert",
    "decode",
    "infer",
    "layer",
    "list_models",
    "list_strategies",
    "list_systems",
    "load_model",
    "load_strategy",
    "load_system",
    "make_mesh",
    "parse_spec",
    "plan",
    "prefill",
    "price_many",
    "shard",
    "sweep",
    "train_step",
]


def __getattr__(name: str) -> object:
    """Import a public name from its home, once."""
    if name not in _HOME:
        raise AttributeError(f"module 'einscale' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"einscale.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, imported yet or not, and nothing else."""
    return sorted(__all__)
