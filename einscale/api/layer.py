"""`einscale.layer`: a model, a mesh and a strategy -> the cost report of every kind of layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from einscale.api.request import (
    chosen_batch,
    chosen_model,
    chosen_sequence,
    chosen_strategy,
    chosen_system,
    fixed_size,
)
from einscale.dtypes import dtype as canonical_dtype
from einscale.errors import UsageError
from einscale.gains import Gain, free_gains
from einscale.hardware import System
from einscale.layer import LayerReport, layer_report
from einscale.mesh import Mesh, make_mesh
from einscale.models import Model
from einscale.planner.planned import BACKWARD, FORWARD
from einscale.program.shapes import is_float
from einscale.strategy import Strategy


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

    def __repr__(self) -> str:
        report, kinds = self.report, ", ".join(kind.kind for kind in self.report.kinds)
        where = f"{report.mesh} on {report.network.system.name}"
        return f"LayerResult({report.model.name}, {where}, batch {report.batch} x {report.sequence}: {kinds})"


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
    loaded = chosen_model(model, sizes)
    system = chosen_system(hardware)
    chosen = chosen_strategy(strategy, shard, loaded, devices)
    if strict and chosen.expect is None:
        raise UsageError(
            f"strategy `{chosen.name}` does not say which collectives it expects",
            expected='a list such as `expect = ["all-reduce model activations"]` in its file, or no --strict',
        )
    notes: list[str] = []
    if strategy is None and not shard and devices.devices > 1:
        notes.append(f"strategy: {chosen.name}, which suits this mesh (none was given)")
    tokens = chosen_sequence(loaded, sequence, notes)
    sequences = chosen_batch(chosen, devices, batch, fixed_size(loaded, "b", "batch", batch), notes)
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
