"""What a question about requests asks, resolved and checked: instances, prompts, ways to serve, points of a sweep."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from einscale.api.request import (
    check_batch,
    check_number,
    check_overhead,
    check_price,
    check_text,
    chosen_model,
    chosen_strategy,
    chosen_system,
)
from einscale.api.serve_request import ServeRequest
from einscale.efficiency import EXECUTIONS, ROOFLINE
from einscale.errors import UsageError, did_you_mean
from einscale.hardware import System, rooflines
from einscale.layout import shards
from einscale.mesh import Mesh, make_mesh
from einscale.models import Model
from einscale.numeric import product
from einscale.precision import Precision, parse_precision
from einscale.serving import Instance, StepReport, ahead_instance, default_serving_strategy, fed_caches, make_instance
from einscale.strategy import Strategy
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


class Serving(Struct, frozen=True):
    """An instance as it is asked for.

    Args:
        model: its layers as programs.
        mesh: the devices.
        system: chips and links.
        strategy: compute and store tables; None for one that suits the mesh.
        precision: element types.
        page: tokens in a page of the cache.
        memory_share: share of the chip's memory that may be used.
        overhead: bytes of each device that a runtime takes beside tensors.
        execution: one of `EXECUTIONS`.
    """

    model: Model
    mesh: Mesh
    system: System
    strategy: Strategy | None
    precision: Precision
    page: int
    memory_share: float
    overhead: int
    execution: str

    def instance(self) -> Instance:
        """The instance, its parts checked against each other."""
        return make_instance(
            self.model,
            self.mesh,
            rooflines(self.system) if self.execution == ROOFLINE else self.system,
            self.strategy,
            precision=self.precision,
            page=self.page,
            memory_share=self.memory_share,
            execution=EXECUTIONS[self.execution],
            overhead=self.overhead,
        )


class Speculation(Struct, frozen=True):
    """Speculative decoding as it is asked for.

    Args:
        draft: the smaller model; None for the model's own layer that predicts a token further ahead.
        guesses: tokens it guesses in a row.
        acceptance: probability that a guess is accepted.
    """

    draft: Model | None
    guesses: int
    acceptance: float


class Apart(Struct, frozen=True):
    """Prefill on instances of their own, as it is asked for.

    Args:
        serving: an instance for prefill.
        batch: prompts that it reads at a time; None for one a data-parallel replica.
        link: bytes/s from one prefill instance to a decode instance; None for the network's.
        prefill_instances: how many there are; None with `decode_instances` for the numbers that serve most a device.
        decode_instances: how many there are.
        price_per_hour: of one of its devices; None for the price of the others.
    """

    serving: Serving
    batch: int | None = None
    link: float | None = None
    prefill_instances: int | None = None
    decode_instances: int | None = None
    price_per_hour: float | None = None


class Points(Struct, frozen=True):
    """Points of a sweep: every batch at every context."""

    batches: tuple[int, ...]
    contexts: tuple[int, ...]


class Asked(Struct, frozen=True):
    """A request as it is asked for, every input resolved.

    Args:
        serving: what answers.
        batch: requests at the same time, all data-parallel replicas together.
        prompt: tokens of each prompt.
        output: tokens generated of each.
        chunk: tokens of each prompt that are read at a time; None for all at once.
        microbatches: parts the batch is divided into; None for as many as there are pipeline stages.
        speculation: a draft guesses; None if nothing does.
        apart: instances of their own for prefill; None for the same ones.
        points: points of a sweep.
        price_per_hour: of one device.
        notes: what was decided where nothing was given.
    """

    serving: Serving
    batch: int
    prompt: int
    output: int
    chunk: int | None = None
    microbatches: int | None = None
    speculation: Speculation | None = None
    apart: Apart | None = None
    points: Points | None = None
    price_per_hour: float | None = None
    notes: tuple[str, ...] = ()


def chosen_serving(model: str | Model, asked: ServeRequest) -> Serving:
    """An instance as a request asks for it.

    Raises:
        EinscaleError: an argument cannot be understood.
    """
    devices = make_mesh(asked.mesh)
    loaded = chosen_model(model, asked.sizes)
    execution, strategy = asked.execution, asked.strategy
    if check_text(execution, "an execution", "compiled") not in EXECUTIONS:
        raise UsageError(f"unknown execution `{execution}`", hint=did_you_mean(execution, EXECUTIONS, "it is one of"))
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


def repeated_cache_notes(instance: Instance, step: StepReport) -> tuple[str, ...]:
    """A note where several devices hold the same keys and values, or latents.

    Args:
        instance: what answers.
        step: any pass of it.
    """
    most, divided = 1, True
    for kind in step.kinds:
        for value in fed_caches(kind.planned.program):
            layout, degrees = kind.planned.resting[value.name], instance.mesh.degrees
            ways = product(shards(axes, degrees) for axes in layout.dims)
            copies = int(instance.devices // instance.stages // ways)
            if copies > most:
                most, divided = copies, "n" in value.axes
    if most == 1:
        return ()
    why = "the mesh has more ways than there are key and value heads" if divided else "a latent has no heads to divide"
    return (
        f"cache: each part is on {most} devices, for {why}; strategies batch-attention, split-kv and dp-attention"
        " divide it otherwise",
    )


def microbatch_notes(instance: Instance, microbatches: int | None) -> tuple[str, ...]:
    """A note where the batch is in parts and no pipeline has several of them at work."""
    if microbatches is None or microbatches == 1 or instance.stages > 1:
        return ()
    return (
        f"microbatches: {microbatches}, one after the other, for the mesh has no axis `pipe`: less working memory, and"
        f" weights read {microbatches} times",
    )


def draft_instance(target: Instance, serving: Serving, speculation: Speculation) -> Instance:
    """The draft, on the devices of its target and under the same strategy, in the same types."""
    if speculation.draft is None:
        return ahead_instance(target)
    named = Serving(
        speculation.draft,
        serving.mesh,
        serving.system,
        serving.strategy,
        serving.precision,
        serving.page,
        serving.memory_share,
        serving.overhead,
        serving.execution,
    )
    return named.instance()


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
