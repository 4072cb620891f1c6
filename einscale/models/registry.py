"""Finding a model: a preset by name, a `config.json`, or a program of the user's own by path."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

from msgspec.structs import replace

from einscale.errors import ModelError, SizeError, did_you_mean
from einscale.models.config import parse_json, read_text
from einscale.models.families import read_config
from einscale.models.layers import ahead_kinds, layer_kinds
from einscale.models.programs import read_programs
from einscale.models.values import LayerKind, Model, ModelConfig
from einscale.program.shapes import axis_names
from einscale.program.values import Program
from einscale.units import check_size

PRESETS = Path(__file__).parent / "presets"

ALIASES = {
    "llama-3-8b": "llama3-8b",
    "llama-3-70b": "llama3-70b",
    "llama-3.1-8b": "llama3.1-8b",
    "llama-3.1-70b": "llama3.1-70b",
    "llama-3.1-405b": "llama3.1-405b",
    "llama-2-7b": "llama2-7b",
    "llama-2-70b": "llama2-70b",
    "mistral-7b-v0.1": "mistral-7b",
    "llama-65b": "llama1-65b",
    "gemma-2-9b": "gemma2-9b",
    "gemma-2-27b": "gemma2-27b",
    "gemma-3-27b": "gemma3-27b",
    "qwen-2.5-7b": "qwen2.5-7b",
    "qwen-3-8b": "qwen3-8b",
    "qwen-3-32b": "qwen3-32b",
    "olmo-3-7b": "olmo3-7b",
    "qwen-3-30b-a3b": "qwen3-30b-a3b",
    "qwen-3-235b-a22b": "qwen3-235b-a22b",
    "deepseek2-16b": "deepseek-v2-lite",
    "deepseek3-671b": "deepseek-v3",
    "deepseek-v3-671b": "deepseek-v3",
    "kimi-k2-instruct": "kimi-k2",
    "qwen3-next": "qwen3-next-80b-a3b",
    "mixtral": "mixtral-8x7b",
    "bloom": "bloom-176b",
    "gpt-2": "gpt2",
    "gpt3": "gpt3-175b",
    "gpt-3": "gpt3-175b",
}
"""Other names of presets."""


@cache
def list_models() -> tuple[str, ...]:
    """Names of the presets.

    >>> "llama3-70b" in list_models()
    True
    """
    return tuple(sorted(path.stem for path in PRESETS.iterdir() if path.suffix == ".json"))


def is_path(name: str) -> bool:
    """Whether a name means a file: it has a separator or a known ending, or a file of that name exists."""
    if "/" in name or "\\" in name or name.endswith((".json", ".ein", ".py")):
        return True
    return name not in ("", ".") and "\0" not in name and len(name) < 256 and Path(name).exists()


def load_model(name_or_path: str | Path, *, dtype: str | None = None, sizes: Mapping[str, int] | None = None) -> Model:
    """A model by preset name (in any case) or by the path of a `config.json`, an `.ein` text or a Python file.

    Args:
        name_or_path: a preset wins over a file of the same name; write `./name` for the file.
        dtype: element type of parameters and activations, over the file's own.
        sizes: axis -> size, for axes that a program of one's own leaves open.

    >>> load_model("llama3-70b").config.hidden
    8192

    Raises:
        ModelError: no such preset or file, or a configuration that cannot be used.
        NotationError, ProgramError: a program text with a fault.
        SizeError: a size for an axis that no program has, or that is fixed to another size.
    """
    name_or_path = str(name_or_path)
    folded = name_or_path.strip().casefold()
    folded = ALIASES.get(folded, folded)
    presets = list_models()
    if folded in presets:
        model = _load_preset(folded, dtype)
    elif is_path(name_or_path):
        model = _load_file(name_or_path, dtype)
    else:
        raise ModelError(
            f"unknown model `{name_or_path}`",
            expected="the name of a preset, or the path of a config.json, .ein or .py file",
            hint=did_you_mean(name_or_path, (*presets, *ALIASES), "presets"),
        )
    return resized(model, sizes) if sizes else model


def resized(model: Model, sizes: Mapping[str, int]) -> Model:
    """The model with the sizes of further axes fixed, in every program that has them.

    Raises:
        SizeError: an axis that no program has, or whose size a program fixes already to another.
    """
    every = (*model.layers, *model.ahead)
    names = dict.fromkeys(axis for layer in every for axis in axis_names(layer.program))
    for name, size in sizes.items():
        check_size(size, f"size of axis `{name}`")
        if name not in names:
            raise SizeError(
                f"no program of `{model.name}` has an axis `{name}`", hint=did_you_mean(name, names, "axes")
            )
    layers, ahead = (tuple(_resized(layer, sizes) for layer in part) for part in (model.layers, model.ahead))
    return replace(model, layers=layers, ahead=ahead)


def _resized(layer: LayerKind, sizes: Mapping[str, int]) -> LayerKind:
    programs = (_with_sizes(layer.program, sizes), layer.decode and _with_sizes(layer.decode, sizes))
    return replace(layer, program=programs[0], decode=programs[1])


def _with_sizes(program: Program, sizes: Mapping[str, int]) -> Program:
    fixed, own = dict(program.sizes), set(axis_names(program))
    for name, size in sizes.items():
        if name in own and fixed.setdefault(name, size) != size:
            raise SizeError(f"axis `{name}` is {fixed[name]} in program `{program.name}`, not {size}")
    return replace(program, sizes=tuple(fixed.items()))


@lru_cache(maxsize=128)
def _load_preset(name: str, dtype: str | None) -> Model:
    preset = parse_json(read_text(str(PRESETS / f"{name}.json")), name)
    config, defaults, notes = read_config(preset["config"], name, "", dtype)
    return _model(name, preset["source"], config, defaults, notes)


def _model(
    name: str, source: str, config: ModelConfig, defaults: tuple[tuple[str, str], ...], notes: tuple[str, ...]
) -> Model:
    return Model(name, layer_kinds(config), source, config, defaults, notes, ahead_kinds(config))


def _load_file(path: str, dtype: str | None) -> Model:
    text = read_text(path)
    if path.endswith((".ein", ".py")):
        programs = read_programs(path, text)
        layers = tuple(LayerKind(program.name, program, program.repeat) for program in programs)
        return Model(Path(path).stem, layers, path)
    config, defaults, notes = read_config(parse_json(text, path), path, text, dtype)
    file = Path(path).resolve()
    name = file.parent.name if file.name == "config.json" else file.stem.removesuffix(".config")
    return _model(name or path, path, config, defaults, notes)
