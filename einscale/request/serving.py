"""What is asked about requests, as one value: what `prefill`, `decode`, `infer` and `compare_serving` take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from msgspec import Struct
from msgspec.structs import replace

from einscale.efficiency import find_execution
from einscale.errors import UsageError, did_you_mean
from einscale.hardware import System
from einscale.mesh import Mesh, make_mesh
from einscale.models import Model
from einscale.precision import Precision, parse_precision
from einscale.price.memory import FRAMEWORK
from einscale.request.common import (
    check_batch,
    check_number,
    check_overhead,
    check_price,
    check_text,
    chosen_model,
    chosen_strategy,
    chosen_system,
)
from einscale.serving import Instance, ahead_instance
from einscale.serving.asked import Apart, AskedRequests, Points, Serving, Speculation
from einscale.serving.values import PAGE
from einscale.strategy import Strategy, default_serving_strategy
from einscale.units import check_size, parse_size

DEFAULT_PROMPT, DEFAULT_OUTPUT = 2048, 256
"""Tokens of a prompt and of an answer when none are given, if the model allows so many."""

AHEAD = "ahead"
"""What a draft is called that is the model's own layer which predicts a token further ahead."""

DEFAULT_GUESSES, DEFAULT_ACCEPTANCE = 4, 0.8
"""Guesses of a draft in a row and the probability that one is accepted, where nobody says: assumed, and noted."""

PADDING = 512
"""Vocabularies that differ by fewer tokens are one, padded differently: 151936 and 152064 of Qwen2.5's sizes."""

APART = (
    "prefill_strategy",
    "prefill_hardware",
    "prefill_batch",
    "prefill_instances",
    "decode_instances",
    "link",
    "prefill_price_per_hour",
)
"""What is said of instances that only prefill."""

MOST_POINTS = 1024
"""Points of a sweep at most."""

SWEPT = ("batch", "context")
"""What a sweep varies."""


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


def asked_requests(model: str | Model, asked: ServeRequest) -> AskedRequests:
    """A request from prompt to last token, everything resolved and what was decided noted.

    Raises:
        EinscaleError: an argument cannot be understood.
    """
    serving = chosen_serving(model, asked)
    notes = [*strategy_note(serving)]
    instance = serving.instance()
    requests = chosen_requests(instance, asked.batch, notes)
    tokens, generated = chosen_lengths(serving.model, asked.prompt, asked.output, notes)
    guessing = chosen_speculation(instance, asked, notes)
    notes += length_notes(serving.model, tokens + generated)
    if guessing is not None and guessing.draft is not None:
        notes += length_notes(guessing.draft, tokens + generated)
    notes += microbatch_notes(instance, asked.microbatches)
    parts = asked.microbatches
    return AskedRequests(
        serving,
        requests,
        tokens,
        generated,
        apart=chosen_apart(serving, asked),
        chunk=None if asked.chunk is None else check_size(asked.chunk, "chunk"),
        microbatches=None if parts is None else check_size(parts, "number of microbatches"),
        speculation=guessing,
        points=read_sweep(asked.sweep, requests, tokens),
        price_per_hour=check_price(asked.price_per_hour),
        notes=tuple(notes),
    )


def chosen_serving(model: str | Model, asked: ServeRequest) -> Serving:
    """An instance as a request asks for it.

    Raises:
        EinscaleError: an argument cannot be understood.
    """
    devices = make_mesh(asked.mesh)
    loaded = chosen_model(model, asked.sizes)
    execution, strategy = asked.execution, asked.strategy
    find_execution(check_text(execution, "an execution", "compiled"))
    own = strategy is not None or asked.shard
    return Serving(
        model=loaded,
        mesh=devices,
        system=chosen_system(asked.hardware),
        strategy=chosen_strategy(strategy, asked.shard, loaded, devices) if own else None,
        precision=parse_precision(asked.precision),
        page=check_size(asked.page, "page"),
        memory_share=check_number(asked.memory_share, "share of the memory", "more than 0, at most 1"),
        overhead=check_overhead(asked.overhead),
        execution=execution,
    )


def chosen_apart(serving: Serving, asked: ServeRequest) -> Apart | None:
    """Instances for prefill as a request asks for them; None where it does not.

    Raises:
        EinscaleError: an argument cannot be understood, or something is said of instances that nobody asked for.
    """
    if asked.disaggregate is None:
        for name in APART:
            if getattr(asked, name) is not None:
                raise UsageError(
                    f"`{name}` is of prefill and decode apart, which is not asked for",
                    expected="with `disaggregate` the mesh of a prefill instance, as model=8",
                )
        return None
    side = replace(
        asked,
        mesh=asked.disaggregate,
        strategy=asked.prefill_strategy,
        hardware=serving.system if asked.prefill_hardware is None else asked.prefill_hardware,
        sizes=None,
        shard=None,
    )
    rate = None if asked.link is None else check_number(asked.link, "link", "bytes/s above 0, as 50e9", above=True)
    return Apart(
        chosen_serving(serving.model, side),
        asked.prefill_batch,
        rate,
        asked.prefill_instances,
        asked.decode_instances,
        check_price(asked.prefill_price_per_hour),
    )


def strategy_note(serving: Serving) -> tuple[str, ...]:
    """A note that says which strategy was chosen, where none was given and there is a choice."""
    if serving.strategy is not None or serving.mesh.devices == 1:
        return ()
    return (f"strategy: {default_serving_strategy(serving.mesh)}, which suits this mesh (none was given)",)


def chosen_lengths(model: Model, prompt: int | None, output: int | None, notes: list[str]) -> tuple[int, int]:
    """Tokens of prompts and answers; where none are given, defaults as far as learned positions reach."""
    config = model.config
    limit = config.max_positions if config is not None and config.positions == "learned" else None
    tokens = None if prompt is None else check_size(prompt, "prompt")
    answer = None if output is None else check_size(output, "output")
    if answer is None:
        left = limit + 1 - (tokens or 0) if limit else DEFAULT_OUTPUT
        answer = max(1, min(DEFAULT_OUTPUT, left))
    if tokens is None:
        tokens = max(1, min(DEFAULT_PROMPT, limit + 1 - answer)) if limit else DEFAULT_PROMPT
        notes.append(f"prompt: {tokens} tokens (none were given)")
    if output is None:
        notes.append(f"output: {answer} tokens (none were given)")
    return tokens, answer


def chosen_requests(instance: Instance, batch: int | None, notes: list[str]) -> int:
    """Requests at the same time; by default one for each data-parallel device."""
    if batch is None:
        ways = instance.ways
        many = f"{ways} sequence" + ("s" if ways > 1 else "")
        notes.append(f"batch: {many}, one for each data-parallel device (none was given)")
        return ways
    return check_batch(batch)


def chosen_speculation(target: Instance, asked: ServeRequest, notes: list[str]) -> Speculation | None:
    """Speculative decoding as asked for; what is not said is assumed and noted.

    Raises:
        UsageError: guesses of no draft, an acceptance that is no probability, or layers ahead that the model has not.
    """
    speculative, acceptance = asked.speculative, asked.acceptance
    if speculative is None:
        for value, name in ((asked.guesses, "guesses"), (acceptance, "acceptance")):
            if value is not None:
                raise UsageError(
                    f"`{name}` of no draft",
                    expected=f"with `speculative` a draft model, or `{AHEAD}` for the model's own layers",
                )
        return None
    draft = None if speculative == AHEAD else chosen_model(speculative, None)
    if draft is None:
        ahead_instance(target)
    length = asked.guesses
    if length is None:
        length = len(target.model.ahead) if draft is None else DEFAULT_GUESSES
        notes.append(f"speculation: {length} guess{'es' if length > 1 else ''} in a row (no number was given)")
    if acceptance is None:
        acceptance = DEFAULT_ACCEPTANCE
        notes.append(f"speculation: a guess is accepted with probability {acceptance:g}, assumed (none was given)")
    share = check_number(acceptance, "acceptance", "a probability, 0 to 1", least=0.0, most=1.0)
    guessed = check_size(length, "number of guesses")
    if draft is not None:
        _check_vocabulary(target.model, draft, notes)
        notes.extend(f"{draft.name}: {note}" for note in draft.notes)
    return Speculation(draft, guessed, share)


def _check_vocabulary(target: Model, draft: Model, notes: list[str]) -> None:
    """Raise where the guesses of a draft are no tokens of its target; vocabularies may be padded differently.

    Raises:
        UsageError: they are not.
    """
    if target.config is None or draft.config is None:
        return
    one, other = target.config.vocab, draft.config.vocab
    if abs(one - other) >= PADDING:
        raise UsageError(
            f"{draft.name} has a vocabulary of {other} tokens and {target.name} one of {one}: its guesses are no tokens"
            " of the other",
            expected="a draft of the same family, with the same vocabulary",
        )
    if one != other:
        notes.append(f"speculation: vocabularies of {one} and {other} tokens are taken as one, padded differently")


def length_notes(model: Model, tokens: int) -> tuple[str, ...]:
    """A note where sequences are longer than the positions a model's config names; learned ones are refused instead."""
    config = model.config
    if config is None or not config.max_positions or tokens <= config.max_positions:
        return ()
    return (f"positions: {tokens} tokens, and the config of {model.name} goes up to {config.max_positions}",)


def microbatch_notes(instance: Instance, microbatches: int | None) -> tuple[str, ...]:
    """A note where the batch is in parts and no pipeline has several of them at work."""
    if microbatches is None or microbatches == 1 or instance.stages > 1:
        return ()
    return (
        f"microbatches: {microbatches}, one after the other, for the mesh has no axis `pipe`: less working memory, and"
        f" weights read {microbatches} times",
    )


def read_sweep(sweep: str | Mapping[str, Iterable[int]] | None, batch: int, context: int) -> Points | None:
    """Points of a sweep, from text or a mapping; what it does not vary is as in the request.

    >>> read_sweep("batch=1,8,64 context=1Ki,8Ki", 1, 2048)
    Points(batches=(1, 8, 64), contexts=(1024, 8192))
    >>> read_sweep({"batch": [1, 8]}, 1, 2048)
    Points(batches=(1, 8), contexts=(2048,))

    Args:
        sweep: `batch=INT,... context=INT,...`, or a mapping of these names to numbers; None for no sweep.
        batch: sequences of the request.
        context: tokens of its prompt.

    Raises:
        UsageError: it varies something else, one thing twice, nothing, or has too many points.
        SizeError: sizes that cannot be.
    """
    if sweep is None:
        return None
    found = _sweep_text(sweep) if isinstance(sweep, str) else _sweep_mapping(sweep)
    if not found:
        raise UsageError("the sweep varies nothing", expected="for example batch=1,8,64 context=1024,8192")
    points = Points(found.get("batch", (batch,)), found.get("context", (context,)))
    count = len(points.batches) * len(points.contexts)
    if count > MOST_POINTS:
        raise UsageError(f"the sweep has {count} points", expected=f"at most {MOST_POINTS}")
    return points


def _sweep_mapping(sweep: Mapping[str, Iterable[int]]) -> dict[str, tuple[int, ...]]:
    """Points from a mapping."""
    if not isinstance(sweep, Mapping):
        raise UsageError(f"a sweep is text or a mapping, not {type(sweep).__name__}")
    found: dict[str, tuple[int, ...]] = {}
    for name, values in sweep.items():
        if name not in SWEPT:
            raise UsageError(f"a sweep cannot vary `{name}`", hint=did_you_mean(str(name), SWEPT, "it varies"))
        listed = [values] if isinstance(values, int) else list(values)
        found[name] = tuple(dict.fromkeys(check_size(value, name) for value in listed))
        if not listed:
            raise UsageError(f"the sweep gives no value for `{name}`")
    return found


def _sweep_text(text: str) -> dict[str, tuple[int, ...]]:
    """Points from text."""
    found: dict[str, tuple[int, ...]] = {}
    for part in re.finditer(r"\S+", text):
        word, start = part.group(), part.start()
        name, equals, values = word.partition("=")
        if not equals or not values:
            raise UsageError(
                "cannot read a sweep", text=text, span=part.span(), expected="NAME=INT,..., for example batch=1,8,64"
            )
        span = (start, start + max(1, len(name)))
        if name not in SWEPT:
            raise UsageError(
                f"a sweep cannot vary `{name}`", text=text, span=span, hint=did_you_mean(name, SWEPT, "it varies")
            )
        if name in found:
            raise UsageError(f"the sweep varies `{name}` twice", text=text, span=span)
        found[name] = tuple(dict.fromkeys(parse_size(value, name) for value in values.split(",")))
    return found
