"""Precisions: the element types of a model at rest, at work, while it learns, and on the network."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from einscale.dtypes import BITS, SCALES, bits_of
from einscale.dtypes import dtype as canonical_dtype
from einscale.errors import NotationError, did_you_mean


class Precision(Struct, frozen=True):
    """The element type of everything a model holds, moves and computes with.

    Args:
        parameters: weights at rest. With 8 bits or fewer these are the matrices of the layers alone: embedding, head,
            norms, biases and routers stay in the activations' type, as every recipe leaves them.
        compute: what matrix products with a weight run in; attention's own products run in the activations' type.
        activations: what flows between statements, its gradients too; the type wider parameters are gathered in.
        gradients: gradients of parameters, as they are accumulated.
        optimizer: moments of the optimizer.
        master: a copy of the parameters that the optimizer updates; "" where it updates the parameters themselves.
        kv_cache: keys and values kept between decode steps.
        communication: what gradients are reduced in; "" is as they are accumulated.
        dispatch: tokens on their way to their experts, and gradients on theirs; "" is as the activations.
        name: preset, and what differs from it.
        source: where the preset is described.
    """

    parameters: str
    compute: str
    activations: str
    gradients: str
    optimizer: str = "fp32"
    master: str = ""
    kv_cache: str = "bf16"
    communication: str = ""
    dispatch: str = ""
    name: str = ""
    source: str = ""

    @property
    def weights(self) -> str:
        """Type that weights are gathered and read in: that of the parameters or the activations, the narrower.

        >>> PRESETS["mixed"].weights, PRESETS["bf16"].weights, PRESETS["int4"].weights
        ('bf16', 'bf16', 'int4g')
        """
        return min((self.activations, self.parameters), key=lambda name: bits_of(4096, name))

    @property
    def quantized(self) -> bool:
        """Whether weights are stored narrower than activations, so that only the layers' matrices are.

        >>> PRESETS["int4"].quantized, PRESETS["mixed"].quantized
        (True, False)
        """
        return bits_of(4096, self.weights) < bits_of(4096, self.activations)

    def stored(self, working: str) -> str:
        """Type that a parameter rests in, given the one that it works in.

        >>> PRESETS["mixed"].stored("bf16"), PRESETS["mixed"].stored("fp32"), PRESETS["int4"].stored("bf16")
        ('fp32', 'fp32', 'bf16')
        """
        return self.parameters if working == self.weights else working

    def __str__(self) -> str:
        return self.name


FIELDS = (
    "parameters",
    "compute",
    "activations",
    "gradients",
    "optimizer",
    "master",
    "kv_cache",
    "communication",
    "dispatch",
)
"""What a precision says, in the order it is shown."""

MAY_BE_NONE = ("master", "communication", "dispatch")
"""Fields that may be `none`."""

STORED_ONLY = ("nf4", "int4g", "dynamic8", "bool")
"""Types that nothing is multiplied in."""

_MEGATRON = "NVIDIA Megatron Core guide, Distributed Optimizer: bf16 parameters, fp32 gradients, 18 bytes a parameter"
_ENGINE = "NVIDIA Transformer Engine user guide, Using FP8"

PRESETS: dict[str, Precision] = {
    preset.name: preset
    for preset in (
        Precision("bf16", "bf16", "bf16", "fp32", master="fp32", name="bf16", source=_MEGATRON),
        Precision(
            "fp32",
            "bf16",
            "bf16",
            "fp32",
            name="mixed",
            source="Liang et al. 2024, TorchTitan, arXiv 2410.06511: FSDP2 gathers bf16, reduces and keeps fp32",
        ),
        Precision(
            "bf16",
            "bf16",
            "bf16",
            "bf16",
            optimizer="bf16",
            name="bf16-pure",
            source="PyTorch: a model cast to bf16, its AdamW made from the parameters",
        ),
        Precision(
            "bf16",
            "bf16",
            "bf16",
            "bf16",
            master="fp32",
            name="bf16-zero",
            source="Rajbhandari et al. 2020, ZeRO, arXiv 1910.02054, section 3.1, with bf16: 16 bytes a parameter",
        ),
        Precision(
            "fp16",
            "fp16",
            "fp16",
            "fp16",
            master="fp32",
            kv_cache="fp16",
            name="fp16",
            source="Rajbhandari et al. 2020, ZeRO, arXiv 1910.02054, section 3.1: 16 bytes a parameter",
        ),
        Precision("fp32", "fp32", "fp32", "fp32", kv_cache="fp32", name="fp32", source="IEEE 754, nothing mixed"),
        Precision(
            "fp32",
            "tf32",
            "tf32",
            "fp32",
            kv_cache="fp32",
            name="tf32",
            source="NVIDIA A100 whitepaper: fp32 in memory, 19 bits in the tensor cores",
        ),
        Precision("bf16", "fp8", "bf16", "fp32", master="fp32", name="fp8", source=_ENGINE),
        Precision("bf16", "mxfp8", "bf16", "fp32", master="fp32", name="mxfp8", source=f"{_ENGINE}: MXFP8"),
        Precision(
            "fp8b",
            "fp8b",
            "bf16",
            "fp32",
            optimizer="bf16",
            master="fp32",
            dispatch="fp8b",
            name="fp8-deepseek",
            source="DeepSeek-AI 2024, DeepSeek-V3, arXiv 2412.19437, section 3.3",
        ),
        Precision(
            "bf16",
            "nvfp4",
            "bf16",
            "fp32",
            master="fp32",
            name="nvfp4",
            source="NVIDIA 2025, Pretraining Large Language Models with NVFP4, arXiv 2509.25149",
        ),
        Precision(
            "bf16",
            "mxfp4",
            "bf16",
            "fp32",
            master="fp32",
            name="mxfp4",
            source="OCP Microscaling Formats 1.0; Tseng et al. 2025, arXiv 2502.20586",
        ),
        Precision(
            "mxfp4",
            "bf16",
            "bf16",
            "bf16",
            name="w4a16-mxfp4",
            source="OpenAI 2025, gpt-oss model card, arXiv 2508.10925: weights of the experts in MXFP4",
        ),
        Precision("int8", "bf16", "bf16", "bf16", name="int8", source="weights alone: one scale a row"),
        Precision("int4g", "bf16", "bf16", "bf16", name="int4", source="weights alone: AWQ, arXiv 2306.00978"),
        Precision("nf4", "bf16", "bf16", "bf16", name="nf4", source="weights alone: QLoRA, arXiv 2305.14314"),
        Precision("int8", "int8", "bf16", "bf16", name="w8a8", source="SmoothQuant, Xiao et al., arXiv 2211.10438"),
        Precision(
            "fp8",
            "fp8",
            "bf16",
            "bf16",
            kv_cache="fp8",
            name="w8a8-fp8",
            source="vLLM and TensorRT-LLM: fp8 weights, activations and KV cache",
        ),
    )
}
"""Presets by name; those with quantised weights (`int8` and after) serve a model, they do not train it."""

ALIASES = {
    "bf16-mixed": "mixed",
    "amp": "mixed",
    "fsdp": "mixed",
    "megatron": "bf16",
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    "fp8-block": "fp8-deepseek",
    "deepseek": "fp8-deepseek",
    "int4g": "int4",
    "w4a16": "int4",
    "awq": "int4",
    "w8a16": "int8",
}
"""Other names of presets."""


def uniform(name: str) -> Precision:
    """Everything in one type; AdamW's moments in fp32, with an fp32 master copy where that is wider.

    >>> uniform("fp16").gradients, uniform("fp16").master, uniform("fp32").master
    ('fp16', 'fp32', '')

    Raises:
        NotationError: no such element type.
    """
    one = canonical_dtype(name)
    return Precision(one, one, one, one, master="" if one == "fp32" else "fp32", kv_cache=one, name=f"uniform-{one}")


def parse_precision(text: str | Precision) -> Precision:
    """Read a preset, and what differs from it: `PRESET,KEY=DTYPE,...`; without a preset, from `bf16`.

    >>> parse_precision("bf16").gradients
    'fp32'
    >>> parse_precision("bf16,gradients=bf16,master=none").master
    ''
    >>> parse_precision("bf17")
    Traceback (most recent call last):
    einscale.errors.NotationError: no precision is called `bf17`
      bf17
      ^^^^
      expected a preset such as bf16, or KEY=DTYPE such as gradients=bf16
      did you mean `bf16`?

    Raises:
        NotationError: unknown preset, key or type; a type that cannot play the part.
    """
    if isinstance(text, Precision):
        return text
    if not isinstance(text, str):
        raise NotationError(f"a precision is named by text, not by {type(text).__name__}", expected="for example bf16")
    chosen = PRESETS["bf16"]
    place, seen = 0, dict[str, str]()
    for number, part in enumerate(text.split(",")):
        word = part.strip()
        start = place + len(part) - len(part.lstrip())
        span = (start, max(start + 1, start + len(word)))
        if "=" in word:
            key, value = _setting(text, word, span)
            if key in seen:
                raise NotationError(f"`{key}` is given twice", text=text, span=span)
            seen[key] = value
        elif number:
            raise NotationError(
                f"`{word}` says no type of anything", text=text, span=span, expected="KEY=DTYPE such as gradients=bf16"
            )
        else:
            chosen = _preset(text, word, span)
        place += len(part) + 1
    different = {key: value for key, value in seen.items() if getattr(chosen, key) != value}
    if not different:
        return chosen
    words = (chosen.name, *(f"{key}={different[key] or 'none'}" for key in FIELDS if key in different))
    return replace(chosen, **different, name=",".join(words))


def _preset(text: str, word: str, span: tuple[int, int]) -> Precision:
    """A preset by its name."""
    folded = word.casefold().replace("_", "-")
    found = PRESETS.get(ALIASES.get(folded, folded))
    if found is None:
        raise NotationError(
            f"no precision is called `{word}`",
            text=text,
            span=span,
            expected="a preset such as bf16, or KEY=DTYPE such as gradients=bf16",
            hint=did_you_mean(folded, (*PRESETS, *ALIASES), "presets"),
        )
    return found


def _setting(text: str, word: str, span: tuple[int, int]) -> tuple[str, str]:
    """`gradients=bf16` as a field and its canonical type."""
    key, _, value = (piece.strip() for piece in word.partition("="))
    name = key.casefold().replace("-", "_")
    if name not in FIELDS:
        raise NotationError(
            f"a precision has no `{key}`",
            text=text,
            span=(span[0], span[0] + max(1, len(key))),
            hint=did_you_mean(name, FIELDS, "it says"),
        )
    start = span[1] - len(value) if value else span[1] - 1
    where = (start, span[1])
    if value.casefold() in ("none", "no") and name in MAY_BE_NONE:
        return name, ""
    try:
        found = canonical_dtype(value)
    except NotationError as error:
        raise NotationError(error.message, text=text, span=where, hint=error.hint) from None
    fault = _fault(name, found)
    if fault:
        raise NotationError(f"`{found}` cannot be the type of {name}: {fault}", text=text, span=where)
    return name, found


def _fault(field: str, name: str) -> str:
    """Why a type cannot play a part, "" if it can."""
    whole = name.startswith(("int", "uint", "bool"))
    if name == "bool" or (whole and BITS[name] > 8):
        return "nothing of a model is kept in it"
    if field == "compute":
        return "it is a format to store in, nothing is multiplied in it" if name in STORED_ONLY else ""
    if field in ("activations", "gradients", "optimizer", "master") and whole:
        return "it holds integers"
    if field == "master" and name in SCALES:
        return "small updates would be lost in it"
    return ""
