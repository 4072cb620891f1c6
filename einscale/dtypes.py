"""Element types: names, bits, and the spellings other tools use."""

from __future__ import annotations

from einscale.errors import NotationError, did_you_mean
from einscale.numeric import Number, ceil_div

BITS: dict[str, int] = {
    "fp64": 64,
    "fp32": 32,
    "tf32": 32,
    "bf16": 16,
    "fp16": 16,
    "fp8": 8,
    "fp8b": 8,
    "mxfp8": 8,
    "dynamic8": 8,
    "fp6": 6,
    "fp4": 4,
    "nvfp4": 4,
    "mxfp4": 4,
    "nf4": 4,
    "int64": 64,
    "int32": 32,
    "int16": 16,
    "int8": 8,
    "int4": 4,
    "int4g": 4,
    "uint8": 8,
    "bool": 8,
}
"""Bits of one element in memory, without the scales of its block (see `SCALES`). tf32 is stored as fp32."""

SCALES: dict[str, tuple[int, int]] = {
    "fp8b": (128, 32),
    "mxfp8": (32, 8),
    "mxfp4": (32, 8),
    "nvfp4": (16, 8),
    "nf4": (64, 32),
    "int4g": (128, 20),
    "dynamic8": (256, 32),
}
"""Block-scaled type -> (elements that share a scale, bits of the scale).

- fp8b: fp8 with one fp32 scale for 128 elements, the tiles of activations of DeepSeek-V3 (arXiv 2412.19437, section
  3.3.2); its weights share one among 128 x 128, so they are counted 3 % too large.
- mxfp8, mxfp4: an 8-bit exponent for 32 elements (OCP Microscaling Formats 1.0).
- nvfp4: an fp8 scale for 16 elements (NVIDIA, arXiv 2509.25149); its fp32 scale of the whole tensor is not counted.
- nf4: an fp32 constant for 64 elements, without double quantisation (Dettmers et al. 2023, QLoRA, arXiv 2305.14314).
- int4g: an fp16 scale and a 4-bit zero point for 128 elements (Lin et al. 2023, AWQ, arXiv 2306.00978).
- dynamic8: 8-bit optimizer states, an fp32 maximum for 256 elements, as bitsandbytes and torchao store them; the paper
  used 2048 (Dettmers et al. 2021, arXiv 2110.02861).

fp8, int8 and int4 have one scale for a tensor or a row of it, which is too little to count.
"""

ALIASES: dict[str, str] = {
    "f64": "fp64",
    "float64": "fp64",
    "double": "fp64",
    "f32": "fp32",
    "float32": "fp32",
    "float": "fp32",
    "single": "fp32",
    "tensorfloat32": "tf32",
    "bfloat16": "bf16",
    "f16": "fp16",
    "float16": "fp16",
    "half": "fp16",
    "f8": "fp8",
    "float8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
    "f8e4m3fn": "fp8",
    "f8e5m2": "fp8",
    "fp8-block": "fp8b",
    "fp8_block": "fp8b",
    "f4": "fp4",
    "float4": "fp4",
    "i64": "int64",
    "s64": "int64",
    "long": "int64",
    "i32": "int32",
    "s32": "int32",
    "int": "int32",
    "i16": "int16",
    "s16": "int16",
    "i8": "int8",
    "s8": "int8",
    "i4": "int4",
    "s4": "int4",
    "u8": "uint8",
    "pred": "bool",
}


def is_dtype(name: str) -> bool:
    """Whether `name` is an element type in any accepted spelling."""
    folded = name.removeprefix("torch.").removeprefix("jnp.").casefold()
    return folded in BITS or folded in ALIASES


def dtype(name: str) -> str:
    """Canonical name of an element type.

    >>> dtype("bfloat16"), dtype("F32"), dtype("torch.float16")
    ('bf16', 'fp32', 'fp16')

    Raises:
        NotationError: no such element type.
    """
    if not isinstance(name, str):
        raise NotationError(f"a dtype is named by text, not by {type(name).__name__}", expected="for example bf16")
    folded = name.removeprefix("torch.").removeprefix("jnp.").casefold()
    folded = ALIASES.get(folded, folded)
    if folded not in BITS:
        raise NotationError(
            f"unknown dtype `{name}`", text=name, span=(0, len(name)), hint=did_you_mean(folded, BITS, "dtypes")
        )
    return folded


def bytes_of(elements: Number, name: str) -> Number:
    """Bytes that so many elements take in memory: data rounded up to whole bytes, and the scales of begun blocks.

    >>> bytes_of(3, "bf16"), bytes_of(3, "int4")
    (6, 2)
    >>> bytes_of(1024, "mxfp8"), bytes_of(1024, "nvfp4"), bytes_of(1000, "fp8b")  # 32, 64 and 8 scales
    (1056, 576, 1032)
    """
    bits = BITS[name]
    data = elements * (bits // 8) if bits % 8 == 0 else ceil_div(elements * bits, 8)
    if name not in SCALES:
        return data
    block, scale = SCALES[name]
    return data + ceil_div(ceil_div(elements, block) * scale, 8)


def bits_of(elements: int, name: str) -> int:
    """Bits of so many elements, each with its share of its block's scale, rounded down: never more than `bytes_of`.

    >>> bits_of(1024, "bf16"), bits_of(1024, "mxfp8"), bits_of(16, "mxfp8")
    (16384, 8448, 132)
    """
    block, scale = SCALES.get(name, (1, 0))
    return elements * (BITS[name] * block + scale) // block


def convention(name: str) -> str:
    """How the elements of a type are stored, in words.

    >>> print(convention("mxfp8"))
    8 bits an element and an 8-bit scale for each block of 32
    >>> print(convention("bf16"))
    16 bits an element
    """
    words = f"{BITS[name]} bits an element"
    if name not in SCALES:
        return words
    block, scale = SCALES[name]
    article = "an" if scale == 8 else "a"
    return f"{words} and {article} {scale}-bit scale for each block of {block}"
