"""Numbers with units as people write them, to and from SI base units."""

from __future__ import annotations

import math
import operator
import re
from typing import SupportsIndex

from einscale.errors import SizeError

IEC = (("PiB", 2**50), ("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1))
SI_BYTES = (("PB", 10**15), ("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1))
SI = (("E", 10**18), ("P", 10**15), ("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3), ("", 1))
COUNTS = (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3), ("", 1))

LONGEST_NUMBER = 40
"""Digits of the longest number that is read at all; Python refuses to convert thousands of them."""

LIMIT = 10**18
"""Largest size or count that a person can mean; larger ones are refused."""


def _scaled(value: float, steps: tuple[tuple[str, int], ...], separator: str = " ") -> str:
    for suffix, factor in steps:
        if abs(value) >= factor or factor == 1:
            scaled = value / factor
            if factor == 1 and float(value).is_integer():
                text = str(int(value))
            else:
                text = f"{scaled:.3g}" if abs(scaled) < 999.5 else f"{scaled:.0f}"
            return f"{text}{separator}{suffix}".rstrip()
    raise AssertionError("the last step is 1")


def format_bytes(value: float, units: str = "iec") -> str:
    """Bytes for a person.

    >>> format_bytes(3 * 2**30), format_bytes(1500, "si"), format_bytes(999.9 * 2**20), format_bytes(0)
    ('3 GiB', '1.5 kB', '1000 MiB', '0 B')
    """
    return _scaled(value, IEC if units == "iec" else SI_BYTES)


def format_flops(value: float) -> str:
    """FLOPs for a person.

    >>> format_flops(2_500_000_000_000)
    '2.5 TFLOP'
    """
    text = _scaled(value, SI)
    number, _, suffix = text.partition(" ")
    return f"{number} {suffix}FLOP"


def format_si(value: float) -> str:
    """A number with an SI prefix, for columns whose heading names the unit.

    >>> format_si(68_719_476_736), format_si(12)
    ('68.7 G', '12')
    """
    return _scaled(value, SI)


def format_count(value: float) -> str:
    """A count (parameters, elements) for a person.

    >>> format_count(70_553_706_496), format_count(12)
    ('70.6B', '12')
    """
    return _scaled(value, COUNTS, "")


def format_seconds(value: float) -> str:
    """Seconds for a person.

    >>> format_seconds(0.00123), format_seconds(2.5e-6), format_seconds(75.0), format_seconds(0)
    ('1.23 ms', '2.5 µs', '75 s', '0 s')
    """
    if value == 0:
        return "0 s"
    for suffix, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= factor:
            scaled = value / factor
            return f"{scaled:.3g} {suffix}" if abs(scaled) < 999.5 else f"{scaled:.0f} {suffix}"
    scaled = value / 1e-9
    return f"{scaled:.3g} ns" if abs(scaled) < 999.5 else f"{scaled:.0f} ns"


_SUFFIXES = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def parse_size(text: str, what: str = "size") -> int:
    """A positive whole number, with an SI or IEC suffix if wanted; `1e6` and `4_096` are read too.

    >>> parse_size("4096"), parse_size("4Ki"), parse_size("1GiB"), parse_size("2e3")
    (4096, 4096, 1073741824, 2000)

    Raises:
        SizeError: not a number, not whole, not positive, or absurd.
    """
    found = re.fullmatch(r"([+-]?[\d_]*\.?\d+(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)", text.strip())
    factor = _SUFFIXES.get(found[2].casefold()) if found else None
    if found is None or factor is None:
        raise SizeError(
            f"the {what} is not a number", text=text, span=(0, len(text)), expected="a whole number such as 4096 or 4Ki"
        )
    if re.fullmatch(r"[KMGTkmgt]i?b", found[2]) and found[2][0].isupper():
        message = f"the {what} is in bits: `{found[2]}`"
        raise SizeError(message, text=text, span=(0, len(text)), expected=f"bytes, such as {found[2][:-1]}B")
    digits = found[1].replace("_", "")
    if len(digits) > LONGEST_NUMBER:
        raise SizeError(f"the {what} is absurd: a number of {len(digits)} digits", text=text, span=(0, len(text)))
    value = int(digits) * factor if re.fullmatch(r"[+-]?\d+", digits) else float(digits) * factor
    return check_size(value, what, text)


def check_size(value: SupportsIndex | float, what: str = "size", text: str | None = None) -> int:
    """`value` as an int if it is whole, positive and not absurd.

    Raises:
        SizeError: it is not.
    """
    shown = text if text is not None else str(value)
    span = (0, len(shown))
    if not isinstance(value, (bool, int, float)) and hasattr(value, "__index__"):
        value = operator.index(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SizeError(f"the {what} must be a whole number, not {type(value).__name__}", text=shown, span=span)
    if not math.isfinite(value):
        raise SizeError(f"the {what} must be a whole number", text=shown, span=span)
    if value > LIMIT:
        raise SizeError(f"the {what} is absurd: more than {LIMIT:.0e}", text=shown, span=span)
    if value != int(value):
        raise SizeError(f"the {what} must be a whole number", text=shown, span=span)
    if value < 1:
        raise SizeError(f"the {what} must be at least 1", text=shown, span=span)
    return int(value)
