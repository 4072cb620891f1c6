"""XLA's warning that it will replicate a tensor: "Involuntary full rematerialization", from one sharding to another."""

from __future__ import annotations

import re

from msgspec import Struct

from einscale.notation.syntax import Span
from einscale.units import LIMIT

_FROM = re.compile(r"from\s+sharding\s*(?=\{)")
_TO = re.compile(r"\s*to\s*(?=\{)")
_OPERATION = re.compile(r"HLO\s+operation:?\s+(%?[\w.\-]+)\s*=\s*([a-z]\w*)\[([\d,\s]*)\]")
_OP_NAME = re.compile(r'op_name="([^"]*)"')

_BITS = {
    "pred": 8,
    "bf16": 16,
    "c64": 64,
    "c128": 128,
}


class Rematerialization(Struct, frozen=True):
    """One such warning.

    The shape is that of one device's part: XLA prints the operation after it has been partitioned.

    Args:
        source: the sharding the tensor has.
        target: the sharding it is wanted in.
        operation: name of the HLO operation, "" if the warning has none.
        element: XLA's name of its element type, "" if the warning has none.
        shape: its shape on one device, None if the warning has none.
        op_name: where it comes from in the program, "" if the warning does not say.
        span: where the two shardings stand in the text.
        count: how often the text has the same warning.
    """

    source: str
    target: str
    operation: str = ""
    element: str = ""
    shape: tuple[int, ...] | None = None
    op_name: str = ""
    span: Span = (0, 0)
    count: int = 1


def has_warning(text: str) -> bool:
    """Whether a text holds such a warning.

    >>> has_warning("not able to go from sharding {replicated} to {devices=[2]<=[2]} without")
    True
    """
    found = _FROM.search(text)
    return found is not None and _pair(text, found.end()) is not None


def find_warnings(text: str) -> tuple[Rematerialization, ...]:
    """The warnings in a text, such as a log, each kind once and in order.

    >>> line = "cannot go from sharding {devices=[2,1]<=[2]} to {devices=[1,2]<=[2]} efficiently for HLO operation "
    >>> (found,) = find_warnings(line + "%add.2 = f32[8,16]{1,0} add(...)")
    >>> found.target, found.element, found.shape
    ('{devices=[1,2]<=[2]}', 'f32', (8, 16))
    """
    found: dict[tuple[object, ...], Rematerialization] = {}
    starts = [match.end() for match in _FROM.finditer(text)]
    for position, start in enumerate(starts):
        pair = _pair(text, start)
        if pair is None:
            continue
        source, target, stop = pair
        rest = text[stop : starts[position + 1] if position + 1 < len(starts) else len(text)]
        operation, name = _OPERATION.search(rest), _OP_NAME.search(rest)
        one = Rematerialization(
            source=source,
            target=target,
            operation=operation[1] if operation else "",
            element=operation[2] if operation else "",
            shape=_shape(operation[3]) if operation else None,
            op_name=name[1] if name else "",
            span=(start, stop),
        )
        key = (source, target, one.element, one.shape, one.op_name)
        before = found.get(key)
        found[key] = one if before is None else _again(before)
    return tuple(found.values())


def _again(one: Rematerialization) -> Rematerialization:
    return Rematerialization(
        one.source, one.target, one.operation, one.element, one.shape, one.op_name, one.span, one.count + 1
    )


def _pair(text: str, start: int) -> tuple[str, str, int] | None:
    """(source, target, where they end) of the two shardings that begin at `start`."""
    stop = _closed(text, start)
    if stop is None:
        return None
    between = _TO.match(text, stop)
    end = _closed(text, between.end()) if between else None
    if between is None or end is None:
        return None
    return text[start:stop], text[between.end() : end], end


def _closed(text: str, start: int) -> int | None:
    """Where the brace that opens at `start` is closed."""
    depth = 0
    for position in range(start, min(len(text), start + 200_000)):
        depth += (text[position] == "{") - (text[position] == "}")
        if depth == 0:
            return position + 1
    return None


def _shape(text: str) -> tuple[int, ...] | None:
    sizes = [word.strip() for word in text.split(",") if word.strip()]
    if any(len(word) > 19 or not 0 < int(word) <= LIMIT for word in sizes):
        return None
    return tuple(map(int, sizes))


def element_bits(name: str) -> int | None:
    """Bits of an element of one of XLA's types, None if it is not known.

    >>> element_bits("f32"), element_bits("c128"), element_bits("f8e4m3fn"), element_bits("token")
    (32, 128, 8, None)
    """
    if name in _BITS:
        return _BITS[name]
    found = re.match(r"[fsu](\d+)(?:e\d\w*)?$", name)
    return int(found[1]) if found and found[1] in {"4", "8", "16", "32", "64"} else None
