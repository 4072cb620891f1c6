"""Bytes of what is kept of earlier tokens: of a token, of a sequence, on a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from einscale.layout import Layout, local_bytes
from einscale.models import LayerKind, Model
from einscale.numeric import Number, ceil_div, minimum, truncate
from einscale.planner.planned import PlannedProgram
from einscale.precision import Precision, parse_precision
from einscale.program.cache import KEYS, SEQUENCE, window
from einscale.program.shapes import known_sizes
from einscale.program.values import Program, Value
from einscale.serving.structure import serving_program
from einscale.serving.values import PAGE
from einscale.units import check_size
from einscale.vocabulary import CACHE


def kv_bytes_per_token(model: Model, precision: Precision | str = "bf16", *, absorbed: bool = True) -> int:
    """Bytes one more token of one sequence adds to the caches of all layers, while no window is full.

    Args:
        model: its layers as programs.
        precision: element types; `kv_cache` is the cache's.
        absorbed: latents are kept where decoding attends to them; else the keys and values of every head.

    >>> from einscale.models import load_model
    >>> model = load_model("llama2-13b")
    >>> kv_bytes_per_token(model) == 2 * 40 * 40 * 128 * 2, kv_bytes_per_token(model, "bf16,kv_cache=int8")
    (True, 409600)
    """
    sizes = [
        _bytes(program, value, 1) * repeat
        for program, repeat, caches in _caches(model, precision, absorbed=absorbed)
        for value in caches
        if KEYS in value.axes
    ]
    return sum(sizes)


def kv_bytes(model: Model, precision: Precision | str, tokens: int, *, page: int = PAGE, absorbed: bool = True) -> int:
    """Bytes that one sequence of so many tokens keeps in the caches and recurrent states of all layers.

    A windowed layer keeps its window at most; every layer keeps whole pages.

    Args:
        model: its layers as programs.
        precision: element types; `kv_cache` is the cache's.
        tokens: tokens of the sequence.
        page: tokens in a page; 1 for a cache without pages.
        absorbed: latents are kept where decoding attends to them.

    >>> from einscale.models import load_model
    >>> kv_bytes(load_model("llama2-13b"), "bf16", 8192) / 1e9
    6.7108864

    Raises:
        SizeError: no positive number of tokens, or no page.
    """
    check_size(tokens, "number of tokens")
    check_size(page, "page")
    return sum(
        _bytes(program, value, tokens_kept(program, tokens, page)) * repeat
        for program, repeat, caches in _caches(model, precision, absorbed=absorbed)
        for value in caches
    )


def tokens_kept(program: Program, tokens: Number, page: int) -> Number:
    """Tokens of a sequence that a layer keeps: a window's at most, in whole pages.

    >>> from einscale.models import load_model
    >>> windowed = load_model("gemma2-9b").layer("window_block").program
    >>> tokens_kept(windowed, 100, 16), tokens_kept(windowed, 9000, 16)
    (112, 4096)
    """
    span = window(program)
    return ceil_div(minimum(tokens, span) if span else tokens, page) * page


def _caches(
    model: Model, precision: Precision | str, *, absorbed: bool
) -> Iterable[tuple[Program, int, tuple[Value, ...]]]:
    """Program, layers that run it, and the caches fed into it, of every kind of layer."""
    parsed = parse_precision(precision)
    for layer in model.layers:
        whole = layer if absorbed else LayerKind(layer.kind, layer.program, layer.repeat)
        program = serving_program(whole, parsed, absorbed=absorbed)
        caches = fed_caches(program)
        if caches:
            yield program, layer.repeat, caches


def fed_caches(program: Program) -> tuple[Value, ...]:
    """Caches that a program of new tokens is fed."""
    return tuple(program.table[name] for name in program.inputs if program.table[name].kind == CACHE)


def _bytes(program: Program, value: Value, tokens: int) -> int:
    """Bytes of one sequence's cache of so many tokens, on one device that holds it whole."""
    sizes = known_sizes(program, defaults={"b": 1, SEQUENCE: 1, KEYS: tokens})
    whole = Layout(((),) * len(value.axes))
    return int(local_bytes(value.tensor, whole, {**sizes, KEYS: tokens}, {}))


def device_cache_bytes(
    plans: Mapping[str, PlannedProgram], batch: Number, tokens: Number, page: int, counts: Iterable[tuple[str, int]]
) -> Number:
    """Bytes on one device of the caches of some layers, for a batch of sequences of so many tokens.

    Args:
        plans: planned program of new tokens of each kind of layer.
        batch: sequences.
        tokens: tokens of each.
        page: tokens in a page.
        counts: kinds of layers, and how many of each the device holds.
    """
    total: Number = 0
    for kind, count in counts:
        if kind not in plans:
            continue
        planned = plans[kind]
        sizes = {**planned.sizes, "b": batch, KEYS: tokens_kept(planned.program, tokens, page)}
        for value in fed_caches(planned.program):
            held = truncate(local_bytes(value.tensor, planned.resting[value.name], sizes, planned.degrees))
            total = total + held * count
    return total
