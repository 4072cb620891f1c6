"""What is asked about the training of a model, as one value, and the setup that it resolves to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from msgspec import Struct

from einscale.checks import batch_ways
from einscale.efficiency import Execution, find_execution, system_under
from einscale.errors import SizeError, UsageError, did_you_mean
from einscale.hardware import System
from einscale.mesh import Mesh, make_mesh
from einscale.models import Model
from einscale.precision import Precision, parse_precision
from einscale.price.memory import FRAMEWORK
from einscale.program.loss import FUSED
from einscale.request.common import (
    SYNONYMS,
    check_batch,
    check_overhead,
    check_text,
    chosen_model,
    chosen_sequence,
    chosen_strategy,
    chosen_system,
    fixed_size,
    suited_strategy,
)
from einscale.request.setup import make_setup
from einscale.stages import in_stages, pipe_axis
from einscale.strategy import Strategy, replicas
from einscale.training.values import Offload, TrainSetup
from einscale.units import check_size


class TrainOptions(TypedDict, total=False):
    """Keyword arguments of a training step, as `TrainRequest` documents them."""

    mesh: Mesh | str | Mapping[str, int]
    strategy: str | Strategy | None
    hardware: str | Path | System | None
    batch: int | None
    sequence: int | None
    seq: int | None
    microbatch: int | None
    schedule: str | None
    chunks: int | None
    first_layers: int | None
    last_layers: int | None
    precision: str | Precision
    optimizer: str
    zero: int | None
    recompute: str | Iterable[str] | None
    overlap: str | Iterable[str] | None
    offload_optimizer: bool
    offload_activations: float
    attention: str
    overhead: int
    loss: str
    capacity: float
    execution: str | Execution
    price_per_hour: float | None
    tokens: int | None
    sizes: Mapping[str, int] | None
    shard: str | Mapping[str, str | Iterable[str] | None] | None


class TrainRequest(Struct, frozen=True, kw_only=True):
    """What is asked about the training of a model: one request for `train_step`, `layer`, `compare`, `price_many`.

    Args:
        mesh: its axes, major to minor: `"pipe=4,data=8,model=8"`, a mapping of names to sizes, or a `Mesh`.
        strategy: a named strategy, the path of a TOML file, or a `Strategy`; by default one that suits the mesh.
        hardware: name of a system, path of a system's TOML file, or a `System`; the default is `DEFAULT_SYSTEM`.
        batch: sequences in the global batch.
        sequence: tokens in a sequence; by default 4096, or as many as the model allows.
        microbatch: sequences that a data-parallel replica works on at a time; 1 by default.
        schedule: pipeline schedule: `gpipe`, `1f1b`, `interleaved`, `zb-h1`, `zb-h2`, `zb-v`, `dualpipe`, `dualpipev`.
        chunks: model chunks on each pipeline stage (virtual stages).
        first_layers: blocks on the first stage, where they are not divided evenly.
        last_layers: blocks on the last stage.
        precision: a preset, `PRESET,KEY=DTYPE,...`, or a `Precision`.
        optimizer: `adamw`, `adam8bit`, `adafactor`, `muon`, `sgd`, ...
        zero: ZeRO stage added to the strategy: optimizer state (1), gradients (2), parameters (3) divided.
        recompute: `none`, `selective`, `full`, `alternate` (keeps every second product), or groups, sections, results.
        overlap: collectives that are hidden: of `parameters`, `gradients`, `activations`, `routed`; or `none`.
        offload_optimizer: the optimizer's state rests, and is updated, on the host.
        offload_activations: share of the saved activations that rests on the host.
        attention: how attention counts in model FLOPs: `causal` (half) or `full`.
        overhead: bytes a runtime takes on each device beside tensors.
        loss: how the software runs the loss: `fused` (one kernel, fp32 logits), `compiled` (16-bit logits) or `eager`.
        capacity: rows each expert has room for, in even shares of those the tokens chose; above 1 they are padded.
        execution: how local work runs: `eager` (kernel by kernel), `fused` (neighbouring maps are one kernel),
            `compiled` (fused, and the host is ahead), or `roofline`; or an `Execution`.
        price_per_hour: of one device.
        tokens: of the whole training run: days and money follow.
        sizes: axis -> size, for axes that a program of your own leaves open.
        shard: compute rules of your own, before those of `strategy`.
    """

    mesh: Mesh | str | Mapping[str, int] = "data=1"
    strategy: str | Strategy | None = None
    hardware: str | Path | System | None = None
    batch: int | None = None
    sequence: int | None = None
    microbatch: int | None = None
    schedule: str | None = None
    chunks: int | None = None
    first_layers: int | None = None
    last_layers: int | None = None
    precision: str | Precision = "bf16"
    optimizer: str = "adamw"
    zero: int | None = None
    recompute: str | Iterable[str] | None = None
    overlap: str | Iterable[str] | None = None
    offload_optimizer: bool = False
    offload_activations: float = 0.0
    attention: str = "causal"
    overhead: int = FRAMEWORK
    loss: str = FUSED
    capacity: float = 1.0
    execution: str | Execution = "fused"
    price_per_hour: float | None = None
    tokens: int | None = None
    sizes: Mapping[str, int] | None = None
    shard: str | Mapping[str, str | Iterable[str] | None] | None = None


RUN = ("price_per_hour", "tokens")
"""Arguments about the whole run that a step is one of."""


def train_request(options: Mapping[str, Any], without: Collection[str] = ()) -> TrainRequest:
    """A request from keyword arguments.

    >>> train_request({"seq": 2048}).sequence
    2048

    Args:
        options: by name.
        without: arguments that the question at hand does not have.

    Raises:
        UsageError: a name that no argument has, with the near miss, or one that is given twice.
    """
    known = TrainRequest.__struct_fields__
    for other, name in SYNONYMS.items():
        if other in options and name in options:
            raise UsageError(f"`{other}` and `{name}` are the same argument, and both are given")
    options = {SYNONYMS.get(name, name): value for name, value in options.items()}
    for name in options:
        if name in without:
            raise UsageError(f"`{name}` is about a whole run", expected="train_step, which prices one")
        if name == "dtype":
            raise UsageError("a training step has no argument `dtype`", hint="precision says it: bf16-pure, fp32, ...")
        if name not in known:
            raise UsageError(f"a training step has no argument `{name}`", hint=did_you_mean(name, known, "it has"))
    return TrainRequest(**options)


def train_setup(model: str | Model, asked: TrainRequest) -> tuple[TrainSetup, tuple[str, ...]]:
    """A request, everything resolved, and what was chosen where nothing was given.

    Raises:
        EinscaleError: an argument cannot be understood, or the request cannot be met.
    """
    devices = make_mesh(asked.mesh)
    notes: list[str] = []
    loaded = chosen_model(model, asked.sizes)
    strategy, zero = asked.strategy, asked.zero
    chosen = _chosen(strategy, asked.shard, loaded, devices, zero)
    if strategy is None and not asked.shard and zero is None and pipe_axis(devices) and replicas(chosen):
        zero = 1
        notes.append("zero: 1, as pipelines do (none was given)")
    if strategy is None and not asked.shard and devices.devices > 1:
        notes.append(f"strategy: {chosen.name}, which suits this mesh (none was given)")
    length = chosen_sequence(loaded, asked.sequence, notes)
    fixed = fixed_size(loaded, "b", "batch", asked.batch)
    given = fixed or asked.batch
    microbatch = None if asked.microbatch is None else check_size(asked.microbatch, "microbatch")
    execution = _execution(asked.execution)
    system = chosen_system(asked.hardware)
    setup = make_setup(
        loaded,
        chosen,
        devices,
        system_under(asked.execution, system),
        batch=None if given is None else check_batch(given),
        sequence=length,
        precision=parse_precision(asked.precision),
        microbatch=microbatch if fixed is None else _at_once(fixed, microbatch, chosen, devices),
        schedule=None if asked.schedule is None else check_text(asked.schedule, "a schedule", "1f1b"),
        chunks=None if asked.chunks is None else check_size(asked.chunks, "chunks"),
        first=asked.first_layers,
        last=asked.last_layers,
        optimizer=asked.optimizer,
        zero=zero,
        recompute=_words(asked.recompute, "recompute"),
        overlap=_words(asked.overlap, "overlap"),
        offload=_offload(asked.offload_optimizer, asked.offload_activations),
        attention=check_text(asked.attention, "the count of attention", "causal"),
        overhead=check_overhead(asked.overhead),
        loss=check_text(asked.loss, "a form of the loss", FUSED),
        capacity=asked.capacity,
        execution=execution,
        notes=notes,
    )
    return setup, (*notes, *loaded.notes)


def _at_once(fixed: int, microbatch: int | None, strategy: Strategy, mesh: Mesh) -> int | None:
    """The microbatch of a program that fixes how many sequences all replicas work on at a time.

    Raises:
        SizeError: another microbatch is asked for.
    """
    share, rest = divmod(fixed, batch_ways(in_stages(strategy, pipe_axis(mesh)), mesh))
    if rest:
        return microbatch  # which is the batch's fault, and said of it
    if microbatch not in (None, share):
        raise SizeError(
            f"the program fixes the batch, axis `b`, at {fixed}: a microbatch cannot be {microbatch}",
            expected=str(share),
        )
    return share


def _execution(given: str | Execution) -> Execution:
    """How local work runs.

    Raises:
        UsageError: no such way.
    """
    if isinstance(given, Execution):
        return given
    return find_execution(check_text(given, "an execution", "fused"))


def _chosen(
    strategy: str | Strategy | None,
    shard: str | Mapping[str, str | Iterable[str] | None] | None,
    model: Model,
    mesh: Mesh,
    zero: int | None,
) -> Strategy:
    """The strategy asked for, or one that suits the mesh.

    Beside a ZeRO stage, and in a pipeline, it is one that leaves parameters whole: FSDP would gather them again for
    every microbatch.
    """
    if strategy is None and not shard and (zero is not None or pipe_axis(mesh)):
        default = suited_strategy(model, mesh)
        strategy = {"fsdp": "dp", "fsdp+tp": "megatron-sp", "hsdp": "dp"}.get(default, default)
    return chosen_strategy(strategy, shard, model, mesh)


def _words(given: str | Iterable[str] | None, what: str) -> tuple[str, ...] | None:
    """Names, from a list or from text with commas."""
    if given is None:
        return None
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise UsageError(f"{what} must be names, not {type(given).__name__}", expected="text with commas, or a list")
    parts = given.split(",") if isinstance(given, str) else tuple(given)
    return tuple(part.strip() for part in parts if check_text(part, what, "none").strip())


def _offload(optimizer: bool, activations: float) -> Offload:
    """What rests on the host, every value checked."""
    if not isinstance(optimizer, bool):
        raise UsageError(f"offload_optimizer must be True or False, not {optimizer!r}")
    if isinstance(activations, bool) or not isinstance(activations, int | float) or not 0 <= activations <= 1:
        raise UsageError(f"offload_activations must be a share from 0 to 1, not {activations!r}")
    return Offload(optimizer, float(activations))
