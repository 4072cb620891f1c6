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
    "mxfp8": 8,
    "fp6": 6,
    "fp4": 4,
    "nvfp4": 4,
    "mxfp4": 4,
    "int64": 64,
    "int32": 32,
    "int16": 16,
    "int8": 8,
    "int4": 4,
    "uint8": 8,
    "bool": 8,
}
"""Bits of one element in memory. tf32 is stored as fp32; block scales are not counted here."""

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
    """Bytes that so many elements take in memory, rounded up to whole bytes.

    >>> bytes_of(3, "bf16"), bytes_of(3, "int4")
    (6, 2)
    """
    bits = BITS[name]
    return elements * (bits // 8) if bits % 8 == 0 else ceil_div(elements * bits, 8)
