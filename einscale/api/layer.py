"""`einscale.layer`: a model, a mesh and a strategy -> the cost report of every kind of layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from einscale.dtypes import dtype as canonical_dtype
from einscale.errors import SizeError, StrategyError, UsageError, did_you_mean
from einscale.gains import Gain, free_gains
from einscale.hardware import DEFAULT_SYSTEM, System, load_system
from einscale.layer import LayerReport, batch_ways, default_strategy, layer_report
from einscale.mesh import Mesh, make_mesh
from einscale.models import Model, load_model, resized
from einscale.planner.program import BACKWARD, FORWARD
from einscale.program.shapes import axis_names, is_float
from einscale.strategy import Rule, Strategy, load_strategy
from einscale.units import check_size

DEFAULT_SEQUENCE = 4096
"""Tokens in a sequence when none is given, if the model allows so many."""

LARGEST_EXACT = 10**15
"""Largest batch or sequence: beyond it nobody means it."""


class LayerResult(Struct, frozen=True):
    """The priced layers of a model: read `report`, print it, or take it as a document.

    Args:
        report: every kind of layer with its statements, collectives, memory and sums.
    """

    report: LayerReport

    @property
    def gains(self) -> tuple[Gain, ...]:
        """Statements that a free plan would run faster than the strategy does; worked out when asked for."""
        return free_gains(self.report)

    def to_dict(self, *, free: bool = False) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved."""
        from einscale import __version__
        from einscale.report.layer_document import layer_document

        head = {"schema_version": 1, "einscale_version": __version__, "command": "layer"}
        return {**head, **layer_document(self.report, self.gains if free else None)}

    def to_text(self, *, detail: bool = False, free: bool = False, width: int | None = None, units: str = "iec") -> str:
        """The report as text.

        Args:
            detail: also operand layouts, free moves, parameters and saved activations one by one.
            free: also where a free plan would beat the strategy, and by how much.
            width: columns to wrap at; None does not wrap.
            units: `iec` or `si`.
        """
        from einscale.report.layer import layer_tables
        from einscale.report.text import render_text

        tables = layer_tables(self.report, self.gains if free else None, detail=detail, units=units)
        return render_text(tables, width=width, units=units)

    def __str__(self) -> str:
        return self.to_text()


def layer(
    model: str | Model,
    *,
    mesh: Mesh | str | Mapping[str, int] = "data=1",
    strategy: str | Strategy | None = None,
    hardware: str | Path | System | None = None,
    batch: int | None = None,
    sequence: int | None = None,
    dtype: str = "bf16",
    forward: bool = True,
    backward: bool = True,
    strict: bool = False,
    sizes: Mapping[str, int] | None = None,
    shard: str | Mapping[str, str | Iterable[str] | None] | None = None,
) -> LayerResult:
    """Price every kind of layer of a model under a strategy.

    >>> answer = layer("llama3-8b", mesh="model=8", strategy="megatron", sequence=2048)
    >>> [kind.kind for kind in answer.report.kinds], answer.report.totals.flops > 10**13
    (['embedding', 'block', 'head'], True)

    Args:
        model: a preset, the path of a `config.json` or of a program of your own (`.ein`, `.py`), or a `Model`.
        mesh: its axes, major to minor: `"data=8,model=8"`, a mapping of names to sizes, or a `Mesh`.
        strategy: a named strategy, the path of a TOML file, or a `Strategy`; by default one that suits the mesh.
        hardware: name of a system, path of a system's TOML file, or a `System`; the default is `DEFAULT_SYSTEM`.
        batch: sequences in the global batch; by default one for each data-parallel device.
        sequence: tokens in a sequence; by default 4096, or as many as the model allows.
        dtype: element type of parameters, activations and einsums.
        forward: price the forward pass.
        backward: price the backward pass.
        sizes: axis -> size, for axes that a program of your own leaves open.
        shard: compute rules of your own, `"b=data,h=model"` or a mapping of axes to mesh axes: a strategy by
            themselves, or rules that come before those of `strategy`.
        strict: refuse a strategy that does not say which collectives it expects; what it does not expect is in
            `report.unexpected`.

    Raises:
        ModelError, ProgramError, MeshError, StrategyError, HardwareError, SizeError, NotationError, UsageError: an
            argument cannot be understood.
    """
    phases = _phases(forward, backward)
    element = _element(dtype)
    devices = make_mesh(mesh)
    loaded = _model(model, sizes)
    system = hardware if isinstance(hardware, System) else load_system(DEFAULT_SYSTEM if hardware is None else hardware)
    chosen = _strategy(strategy, shard, loaded, devices)
    if strict and chosen.expect is None:
        raise UsageError(
            f"strategy `{chosen.name}` does not say which collectives it expects",
            expected='a list such as `expect = ["all-reduce model activations"]` in its file, or no --strict',
        )
    notes: list[str] = []
    if strategy is None and not shard and devices.devices > 1:
        notes.append(f"strategy: {chosen.name}, which suits this mesh (none was given)")
    tokens = _sequence(loaded, sequence, notes)
    sequences = _batch(chosen, devices, batch, fixed_size(loaded, "b", "batch", batch), notes)
    report = layer_report(
        loaded,
        chosen,
        devices,
        system,
        batch=sequences,
        sequence=tokens,
        dtype=element,
        phases=phases,
        notes=(*notes, *loaded.notes),
    )
    return LayerResult(report)


def _phases(forward: bool, backward: bool) -> tuple[str, ...]:
    """Phases asked for, at least one."""
    phases = tuple(phase for phase, wanted in ((FORWARD, forward), (BACKWARD, backward)) if wanted)
    if not phases:
        raise UsageError("neither the forward nor the backward pass is asked for", expected="one of them, or both")
    return phases


def _element(dtype: str) -> str:
    """A floating-point element type by its canonical name."""
    element = canonical_dtype(dtype)
    if not is_float(element):
        raise UsageError(
            f"a model cannot be trained or run in `{element}` throughout",
            expected="a floating-point dtype such as bf16",
        )
    return element


def _model(model: str | Model, sizes: Mapping[str, int] | None) -> Model:
    """The model, axes that a program of one's own leaves open filled in."""
    if sizes is not None and not isinstance(sizes, Mapping):
        raise UsageError(f"sizes must be a mapping of axes to sizes, not {type(sizes).__name__}")
    loaded = model if isinstance(model, Model) else load_model(model)
    return resized(loaded, sizes) if sizes else loaded


def _strategy(
    strategy: str | Strategy | None,
    shard: str | Mapping[str, str | Iterable[str] | None] | None,
    model: Model,
    mesh: Mesh,
) -> Strategy:
    """The strategy asked for, or the one that suits the mesh, with the rules of `shard` before its own."""
    from einscale.notation.rules import parse_rules

    rules = parse_rules(shard, mesh.names) if shard else ()
    chosen = strategy if isinstance(strategy, Strategy) else None
    if chosen is None and (strategy is not None or not rules):
        chosen = load_strategy(default_strategy(mesh) if strategy is None else strategy)  # type: ignore[arg-type]
    if not rules:
        assert chosen is not None
        return chosen
    names = dict.fromkeys(axis for layer in model.layers for axis in axis_names(layer.program))
    names |= dict.fromkeys(name for layer in model.layers for name, _ in layer.program.composites)
    for index, _ in rules:
        if index not in names:
            text = ",".join(f"{name}={'/'.join(axes)}" for name, axes in rules)
            start = text.index(f"{index}=")
            raise StrategyError(
                f"a rule for axis `{index}`, which no layer of {model.name} has",
                text=text,
                span=(start, start + len(index)),
                hint=did_you_mean(index, names, "its axes are"),
            )
    own = tuple(Rule(index, axes) for index, axes in rules)
    words = ", ".join(str(rule) for rule in own)
    if chosen is None:
        return Strategy(name="shard", compute=own, summary=words)
    return replace(chosen, name=f"{chosen.name} + shard", compute=own + chosen.compute, expect=None)


def fixed_size(model: Model, axis: str, what: str, wanted: int | None) -> int | None:
    """Size of an axis where a program of one's own fixes it.

    Raises:
        SizeError: another size of it is wanted.
    """
    fixed = next((size for layer in model.layers for name, size in layer.program.sizes if name == axis), None)
    if None not in (fixed, wanted) and fixed != wanted:
        raise SizeError(f"{model.name} fixes the {what}, axis `{axis}`, at {fixed}: it cannot be {wanted}")
    return fixed


def _sequence(model: Model, sequence: int | None, notes: list[str]) -> int:
    """Tokens in a sequence; a longer one than learned positions allow is refused, than trained on is noted."""
    limit = model.config.max_positions if model.config else None
    sequence = fixed_size(model, "s", "sequence", sequence) or sequence
    if sequence is None:
        chosen = min(DEFAULT_SEQUENCE, limit) if limit else DEFAULT_SEQUENCE
        notes.append(f"sequence: {chosen} tokens (none was given)")
        return chosen
    tokens = check_size(sequence, "sequence")
    if tokens > LARGEST_EXACT:
        raise SizeError(f"the sequence is absurd: {tokens} tokens")
    if model.config and model.config.positions == "learned" and tokens > model.config.max_positions:
        raise SizeError(
            f"{model.name} has {limit} learned positions, fewer than a sequence of {tokens} tokens",
            hint=f"use a sequence of at most {limit}",
        )
    return tokens


def _batch(strategy: Strategy, mesh: Mesh, batch: int | None, fixed: int | None, notes: list[str]) -> int:
    """Sequences in the global batch; they must divide evenly over the data-parallel devices."""
    ways = batch_ways(strategy, mesh)
    batch = fixed or batch
    if batch is None:
        notes.append(
            f"batch: {ways} sequence{'s' if ways > 1 else ''}, one for each data-parallel device (none was given)"
        )
        return ways
    sequences = check_size(batch, "batch")
    if sequences > LARGEST_EXACT:
        raise SizeError(f"the batch is absurd: {sequences} sequences")
    if sequences % ways:
        nearest = max(ways, round(sequences / ways) * ways)
        raise SizeError(
            f"a batch of {sequences} sequences does not divide over {ways} data-parallel devices",
            hint=f"the nearest that does is {nearest}",
        )
    return sequences
