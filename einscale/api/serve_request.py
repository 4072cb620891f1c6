"""What is asked about requests, as one value: what `prefill`, `decode`, `infer` and `compare_serving` take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from msgspec import Struct

from einscale.errors import UsageError, did_you_mean
from einscale.hardware import System
from einscale.mesh import Mesh
from einscale.models import Model
from einscale.precision import Precision
from einscale.price.memory import FRAMEWORK
from einscale.serving.values import PAGE
from einscale.strategy import Strategy


class InstanceOptions(TypedDict, total=False):
    """Keyword arguments of every question about requests, as `ServeRequest` documents them."""

    mesh: Mesh | str | Mapping[str, int]
    strategy: str | Strategy | None
    hardware: str | Path | System | None
    batch: int | None
    microbatches: int | None
    precision: str | Precision
    page: int
    memory_share: float
    overhead: int
    execution: str
    price_per_hour: float | None
    sizes: Mapping[str, int] | None
    shard: str | Mapping[str, str | Iterable[str] | None] | None


class PrefillOptions(InstanceOptions, total=False):
    """Keyword arguments of `prefill`."""

    prompt: int | None
    chunk: int | None
    cached: int


class DecodeOptions(InstanceOptions, total=False):
    """Keyword arguments of `decode`."""

    context: int | None
    output: int | None


class CompareServingOptions(InstanceOptions, total=False):
    """Keyword arguments of `compare_serving`."""

    prompt: int | None
    output: int | None
    chunk: int | None


class ServeOptions(CompareServingOptions, total=False):
    """Keyword arguments of `infer`."""

    speculative: str | Model | None
    guesses: int | None
    acceptance: float | None
    disaggregate: Mesh | str | Mapping[str, int] | None
    prefill_strategy: str | Strategy | None
    prefill_hardware: str | Path | System | None
    prefill_batch: int | None
    prefill_instances: int | None
    decode_instances: int | None
    link: float | None
    prefill_price_per_hour: float | None
    sweep: str | Mapping[str, Iterable[int]] | None


class ServeRequest(Struct, frozen=True, kw_only=True):
    """What is asked about answering requests: one value for `prefill`, `decode`, `infer` and `compare_serving`.

    Args:
        mesh: its axes, major to minor: `"data=2,model=8"`, a mapping of names to sizes, or a `Mesh`.
        strategy: a named strategy, the path of a TOML file, or a `Strategy`; by default one that suits the mesh.
        hardware: name of a system, path of a system's TOML file, or a `System`; the default is `DEFAULT_SYSTEM`.
        batch: requests at the same time, all data-parallel replicas together; by default one for each.
        prompt: tokens of each prompt; 2048 by default.
        output: tokens generated of each, the first by the prefill; 256 by default. Of `decode` the steps, 1 by default:
            the cache grows by one in each, and times are means over them.
        context: tokens of each sequence in the cache before the first step of `decode`; 2048 by default.
        cached: tokens of each that are in the cache before a `prefill`: a prefix that many requests share.
        chunk: tokens of each prompt that are read at a time; by default all at once.
        microbatches: parts the batch is divided into; by default as many as there are pipeline stages.
        precision: a preset, `PRESET,KEY=DTYPE,...`, or a `Precision`; weights, cache and compute each have a type.
        page: tokens in a page of the cache; 1 for a cache without pages.
        memory_share: share of the chip's memory that may be used.
        overhead: bytes of it that a runtime takes on each device beside tensors.
        execution: how local work runs: `compiled` (captured once, replayed, maps fused), `eager` (kernel by kernel),
            `fused` (the same, maps fused) or `roofline` (nothing is faster).
        speculative: a smaller model that guesses tokens ahead, or `"ahead"`: the model's own layers for that.
        guesses: tokens it guesses in a row; 4 by default, or as many as the model has layers for.
        acceptance: probability that a guess is accepted; 0.8 by default.
        disaggregate: mesh of an instance that only reads prompts; `mesh` then only decodes.
        prefill_strategy: its strategy, if not one that suits it.
        prefill_hardware: its system, if another one.
        prefill_batch: prompts it reads at a time; by default one for each of its data-parallel replicas.
        prefill_instances: how many there are; without both numbers those that serve most tokens a device.
        decode_instances: how many there are of the others.
        link: bytes/s from one prefill instance to a decode instance; by default what their network gives.
        prefill_price_per_hour: of one device that prefills, if another.
        sweep: decode steps at every batch and context, `"batch=1,8,64 context=1024,8192"` or a mapping.
        price_per_hour: of one device.
        sizes: axis -> size, for axes that a program of your own leaves open.
        shard: compute rules of your own, before those of `strategy`.
    """

    mesh: Mesh | str | Mapping[str, int] = "data=1"
    strategy: str | Strategy | None = None
    hardware: str | Path | System | None = None
    batch: int | None = None
    prompt: int | None = None
    output: int | None = None
    context: int | None = None
    cached: int = 0
    chunk: int | None = None
    microbatches: int | None = None
    precision: str | Precision = "bf16"
    page: int = PAGE
    memory_share: float = 1.0
    overhead: int = FRAMEWORK
    execution: str = "compiled"
    speculative: str | Model | None = None
    guesses: int | None = None
    acceptance: float | None = None
    disaggregate: Mesh | str | Mapping[str, int] | None = None
    prefill_strategy: str | Strategy | None = None
    prefill_hardware: str | Path | System | None = None
    prefill_batch: int | None = None
    prefill_instances: int | None = None
    decode_instances: int | None = None
    link: float | None = None
    prefill_price_per_hour: float | None = None
    sweep: str | Mapping[str, Iterable[int]] | None = None
    price_per_hour: float | None = None
    sizes: Mapping[str, int] | None = None
    shard: str | Mapping[str, str | Iterable[str] | None] | None = None


def serve_request(options: Mapping[str, Any], verb: str, known: Iterable[str]) -> ServeRequest:
    """A request from keyword arguments.

    >>> serve_request({"prompt": 512}, "prefill", PrefillOptions.__optional_keys__).prompt
    512

    Args:
        options: by name.
        verb: the function that was called, for the message.
        known: names that it has.

    Raises:
        UsageError: a name that it does not have, with the near miss.
    """
    names = [name for name in ServeRequest.__struct_fields__ if name in frozenset(known)]
    for name in options:
        if name not in names:
            raise UsageError(f"`{verb}` has no argument `{name}`", hint=did_you_mean(name, names, "it has"))
    return ServeRequest(**options)
