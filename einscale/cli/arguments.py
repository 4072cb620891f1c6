"""Text of command-line arguments -> values, with errors that show the argument."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from einscale.errors import SizeError, UsageError
from einscale.units import LONGEST_NUMBER, check_size, parse_size

LONGEST_SPEC = 1_000_000
"""Bytes of a spec read from a file or stdin; nobody writes a longer einsum by hand."""


def read_spec(argument: str) -> str:
    """The spec itself, or read from stdin (`-`) or from a file (`@FILE`).

    Raises:
        UsageError: it cannot be read, is not UTF-8, is empty or too long to be a spec.
    """
    if argument == "-":
        return _decode(sys.stdin.buffer.read(LONGEST_SPEC + 1), "stdin")
    if not argument.startswith("@"):
        return argument
    path = Path(argument[1:])
    if path.is_dir() or not argument[1:]:
        raise UsageError(f"`{argument}` names no file", expected="@ and the name of a file that holds the spec")
    try:
        with path.open("rb") as file:
            return _decode(file.read(LONGEST_SPEC + 1), str(path))
    except OSError as error:
        raise UsageError(f"cannot read the spec from `{path}`: {error.strerror or error}") from error


def _decode(data: bytes, source: str) -> str:
    if len(data) > LONGEST_SPEC:
        raise UsageError(f"{source} holds more than {LONGEST_SPEC} bytes: that is no spec")
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not UTF-8 text (byte {error.start})") from error
    if not text:
        raise UsageError(f"{source} is empty", expected="a spec")
    return text


def read_sizes(arguments: Iterable[str]) -> dict[str, int]:
    """`NAME=INT` arguments, each perhaps several parted by commas.

    >>> read_sizes(["B=32", "S=4096,D=8Ki"])
    {'B': 32, 'S': 4096, 'D': 8192}

    Raises:
        SizeError: not of that form, not a size, or one index given two sizes.
    """
    sizes: dict[str, int] = {}
    for argument in arguments:
        position = 0
        for part in argument.split(","):
            found = re.fullmatch(r"\s*([A-Za-z_]\w*|\.\.\.)\s*=\s*(.*?)\s*", part, re.ASCII | re.DOTALL)
            if found is None:
                span = (position, position + max(1, len(part)))
                raise SizeError("cannot read a size", text=argument, span=span, expected="NAME=INT, for example B=32")
            name, value = found[1], parse_size(found[2], f"size of `{found[1]}`")
            if sizes.setdefault(name, value) != value:
                raise SizeError(f"index `{name}` is given two sizes: {sizes[name]} and {value}")
            position += len(part) + 1
    return sizes


def read_count(argument: str, what: str) -> int:
    """A whole number that may be 0: a size otherwise.

    >>> read_count("0", "ZeRO stage"), read_count("1GiB", "overhead")
    (0, 1073741824)

    Raises:
        SizeError: not a number, not whole, negative, or absurd.
    """
    if re.fullmatch(r"\s*-\s*[\d.].*", argument):
        raise SizeError(f"the {what} must be at least 0", text=argument, span=(0, len(argument)))
    return 0 if argument.strip() == "0" else parse_size(argument, what)


def read_rate(argument: str, what: str) -> int:
    """Bytes a second: a number of bytes with its unit, `/s` behind it or not.

    >>> read_rate("50GB/s", "link"), read_rate("50e9B", "link")
    (50000000000, 50000000000)

    Raises:
        SizeError: not a number, without a unit, not whole, not positive, or absurd.
    """
    if re.fullmatch(r"\s*[\d._]+(e[+-]?\d+)?\s*(/s)?\s*", argument, re.IGNORECASE):
        raise SizeError(
            f"the {what} has no unit", text=argument, span=(0, len(argument)), expected="for example 50GB/s"
        )
    return parse_size(argument.strip().removesuffix("/s"), what)


_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}


def read_tokens(argument: str) -> int:
    """A number of tokens as papers write it, where B is a billion: a whole number, `15T`, `1.4e12`.

    >>> read_tokens("300B"), read_tokens("1.5T"), read_tokens("2e9")
    (300000000000, 1500000000000, 2000000000)

    Raises:
        SizeError: not a number, not whole, not positive, or absurd.
    """
    found = re.fullmatch(r"\s*(\d[\d_]*|\d*\.?\d+(?:e[+-]?\d{1,2})?)\s*([kmbgt]?)\s*", argument, re.IGNORECASE)
    if found is None:
        raise SizeError(
            "the number of tokens is not a number",
            text=argument,
            span=(0, len(argument)),
            expected="a whole number such as 15T, 300B or 2e12",
        )
    digits, factor = found[1].replace("_", ""), _COUNTS[found[2].casefold()]
    value = int(digits[:LONGEST_NUMBER]) * factor if digits.isdigit() else round(float(digits) * factor, 6)
    return check_size(value, "number of tokens", argument)


_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15, "e": 10**18}


def read_flops(argument: str) -> int:
    """A number of FLOPs: a whole number, `1e12`, or one with an SI suffix.

    >>> read_flops("1e12") == read_flops("1T") == read_flops("1 TFLOP") == 10**12
    True

    Raises:
        SizeError: it is not one.
    """
    found = re.fullmatch(
        r"(\d[\d_]*|\d*\.?\d+(?:e[+-]?\d{1,2})?)\s*([kmgtpe]?)(?:flops?)?", argument.strip(), re.IGNORECASE
    )
    if found is None:
        raise SizeError(
            "the cap on FLOPs is not a number",
            text=argument,
            span=(0, len(argument)),
            expected="a number such as 1e12 or 2T",
        )
    digits = found[1].replace("_", "")
    scale = _SCALES[found[2].casefold()]
    return int(digits) * scale if digits.isdigit() else int(float(digits) * scale)
