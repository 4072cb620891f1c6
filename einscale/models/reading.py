"""How traits of a model are read: a `Family` is a row of traits, each a constant or where a configuration spells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct, structs

from einscale.dtypes import dtype as canonical_dtype
from einscale.dtypes import is_dtype
from einscale.models.config import ConfigReader
from einscale.models.values import Activation, ModelConfig, Positions

DEFAULT_DTYPE = "bf16"
"""Element type where neither the caller nor the file names one: that of mixed-precision training."""

ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "gelu": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "relu": Activation.RELU,
}
"""Names of activation functions in transformers -> ours."""

Facts: TypeAlias = dict[str, Any]
"""What has been read so far: name of a fact -> value."""

Read: TypeAlias = Callable[[ConfigReader, Facts], Any]
"""How a fact is read, knowing those before it. What returns a dict states several facts at once."""

REQUIRED: Any = object()
"""In the place of a default: the class that a row is like has one, this one has none."""


class ConfigSource(Struct, frozen=True):
    """Where a fact comes from.

    Args:
        read: how.
        defaults: the class's documented default of the keys that it reads.
    """

    read: Read
    defaults: Mapping[str, Any] = {}

    def __call__(self, reader: ConfigReader, facts: Facts) -> Any:
        """The fact."""
        return self.read(reader, facts)


def defaults_of(*traits: Any) -> dict[str, Any]:
    """Defaults of the keys that sources read."""
    return {key: value for trait in traits if isinstance(trait, ConfigSource) for key, value in trait.defaults.items()}


class Family(Struct, frozen=True):
    """How one transformers configuration class is read.

    Args:
        name: what its classes begin with: `Llama` for `LlamaConfig` and `LlamaForCausalLM`.
        traits: fact of a `ModelConfig` -> its value, or its source, in the order they are read.
        defaults: the class's documented default of every key that is read and is not a size.
        aliases: key -> the other name, or names, that the class takes for it.
        refused: key, what alone it may say, and why, of what the programs cannot express.
        config_class: the configuration's class, where it is called otherwise.
        model_class: the class with a language-model head, as `architectures` names it, where it is called otherwise.
        nested_sizes: the class's documented sizes, for the object `text_config` of a model of text and images: the
            published files leave out those that equal them. A file of its own must give every size.
    """

    name: str = ""
    traits: Mapping[str, Any] = {}
    defaults: Mapping[str, Any] = {}
    aliases: Mapping[str, str | tuple[str, ...]] = {}
    refused: tuple[tuple[str, object, str], ...] = ()
    config_class: str = ""
    model_class: str = ""
    nested_sizes: Mapping[str, int] = {}

    @property
    def class_name(self) -> str:
        """The transformers class that holds the configuration."""
        return self.config_class or f"{self.name}Config"

    @property
    def causal_class(self) -> str:
        """The transformers class with a language-model head."""
        return self.model_class or f"{self.name}ForCausalLM"

    def like(self, name: str, defaults: Mapping[str, Any] | None = None, /, **changes: Any) -> Family:
        """This row for another class: with changed traits, of inherited ones perhaps the defaults only.

        Args:
            name: see `Family`.
            defaults: key -> default, over those that the row and the traits have.
            changes: traits; or other fields of the row, by their names.
        """
        fields: dict[str, Any] = {"config_class": "", "model_class": ""}
        fields |= {key: changes.pop(key) for key in list(changes) if key in self.__struct_fields__}
        merged = {**self.defaults, **defaults_of(*changes.values()), **(defaults or {})}
        kept = {key: value for key, value in merged.items() if value is not REQUIRED}
        return structs.replace(self, name=name, traits={**self.traits, **changes}, defaults=kept, **fields)

    def read(self, reader: ConfigReader, dtype: str | None) -> ModelConfig:
        """The facts of a configuration.

        Args:
            reader: the configuration.
            dtype: element type, over that of the file.

        Raises:
            ModelError: a size that is missing, a value of the wrong type, or one that the programs cannot express.
        """
        for key, wanted, why in self.refused:
            inner, name = at(reader, key)
            inner.refuse(name, wanted, why)
        facts = settled(filled(self.traits, reader))
        facts |= {"architecture": str(reader.data.get("model_type")), "class_name": reader.class_name}
        return ModelConfig(dtype=read_dtype(reader, dtype), **facts)


def filled(traits: Mapping[str, Any], reader: ConfigReader) -> Facts:
    """The facts of a row: constants as they are, sources read one after the other."""
    facts: Facts = {}
    for name, trait in traits.items():
        value = trait(reader, facts) if callable(trait) else trait
        facts |= value if isinstance(value, dict) else {name: value}
    return facts


def settled(facts: Facts) -> Facts:
    """With what follows from other facts, and without windows and experts that no layer has."""
    theta, other = facts.get("rope_theta", 0.0), facts.pop("window_rope_theta", 0.0)
    facts = {"kv_heads": facts["heads"], "score_factor": facts["head_dim"] ** -0.5, **facts}
    facts["positions"] = Positions.ALIBI if facts.get("alibi") else Positions.ROPE if theta else Positions.LEARNED
    if other not in (0.0, theta):
        facts["window_rope_theta"] = other
    if "l" not in (pattern := facts.get("pattern", "")):
        facts["delta"] = None
        if "w" not in pattern or not (facts.get("window") or "window_rope_theta" in facts):
            facts |= {"window": 0, "pattern": "", "window_rope_theta": 0.0}
    return facts if "e" in facts.get("mlps", "") else {**facts, "mlps": ""}


def at(reader: ConfigReader, key: str) -> tuple[ConfigReader, str]:
    """The object that holds a key, and its name there: `attn_config.alibi` is in an object inside."""
    outer, _, name = key.rpartition(".")
    return (reader.nested(outer) if outer else reader), name


def spelt(read: Callable[..., Any], *always: Any) -> Callable[..., ConfigSource]:
    """Sources that read a key in one way: a function of the key, or of `key=default`, the class's default of it."""

    def source(key: str = "", **default: Any) -> ConfigSource:
        spelling = key or next(iter(default))

        def get(reader: ConfigReader, facts: Facts) -> Any:
            inner, name = at(reader, spelling)
            return read(inner, name, *always)

        return ConfigSource(get, default)

    return source


flag, activation = spelt(ConfigReader.flag), spelt(ConfigReader.word, ACTIVATIONS)
number, optional_number = spelt(ConfigReader.number), spelt(ConfigReader.optional_number)
optional_size, optional_count = spelt(ConfigReader.optional_size), spelt(ConfigReader.optional_count)
rate, positive, from_one = (spelt(ConfigReader.number, *bounds) for bounds in ((0.0, 1.0), (1e-9,), (1.0,)))
bias = spelt(lambda reader, key: key in reader.defaults and reader.flag(key))
"""A flag, false in classes that do not have the key."""


def size(key: str = "", unless_null: Read | None = None, **default: None) -> ConfigSource:
    """A size; `unless_null` is what null, or a key that the class lets be missing (`key=None`), stands for."""
    name = key or next(iter(default))
    return ConfigSource(lambda reader, facts: reader.size(name, unless_null and unless_null(reader, facts)), default)


def then(source: ConfigSource, function: Callable[[Any], Any]) -> ConfigSource:
    """What follows from what a source reads."""
    return ConfigSource(lambda reader, facts: function(source(reader, facts)), source.defaults)


def where(condition: str | Read, source: Read, otherwise: object = 0) -> ConfigSource:
    """What a source reads, where a fact (by name) or another source says so; nothing is read elsewhere."""

    def read(reader: ConfigReader, facts: Facts) -> Any:
        holds = facts[condition] if isinstance(condition, str) else condition(reader, facts)
        return source(reader, facts) if holds else otherwise

    return ConfigSource(read, defaults_of(condition, source))


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
    reader.taken["dtype"] = f'"{DEFAULT_DTYPE}"'
    return DEFAULT_DTYPE
