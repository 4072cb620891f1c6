"""What each device holds: parameters, gradients, optimizer state, what is saved for the backward pass, and the peak."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from einscale.collectives import ALL_GATHER
from einscale.layout import Layout, Tensor, local_bytes, shards
from einscale.planner.classes import moved_class
from einscale.planner.fusion import interior, never_written, residual_layouts
from einscale.planner.program import BACKWARD, FORWARD, PlannedProgram
from einscale.program.backward import WHOLE
from einscale.program.maps import saved
from einscale.program.values import Program, Statement

MOMENTS = ("fp32", "fp32")
"""Element types of AdamW's two moments."""


class Held(Struct, frozen=True):
    """One tensor a device holds.

    Args:
        tensor: what it is.
        layout: how it is divided.
        bytes: bytes on one device, padding included.
        reason: which statement or rule keeps it.
    """

    tensor: Tensor
    layout: Layout
    bytes: int
    reason: str

    @property
    def text(self) -> str:
        """The tensor in slash notation."""
        return f"{self.tensor.name}: {self.tensor.dtype}[{self.layout.text(self.tensor.indices)}]"


class Peak(Struct, frozen=True):
    """The moment of a program at which a device holds most, parameters at rest left out.

    Args:
        bytes: bytes held then.
        statement: first output of the statement that runs then.
        phase: its phase.
        alive: what is held, largest first.
    """

    bytes: int
    statement: str
    phase: str
    alive: tuple[Held, ...]


def _held(planned: PlannedProgram, name: str, reason: str, layout: Layout | None = None) -> Held:
    value = planned.program.table[name]
    tensor = Tensor(name, value.axes, value.dtype)
    where = planned.resting[name] if layout is None else layout
    return Held(tensor, where, int(local_bytes(tensor, where, planned.sizes, planned.mesh.degrees)), reason)


def parameters_held(planned: PlannedProgram) -> tuple[Held, ...]:
    """Parameters of one program as they rest, those that live in another program left out."""
    program = planned.program
    return tuple(_held(planned, p.name, "parameter") for p in program.parameters if p.name not in program.tied)


def gradient_bytes(planned: PlannedProgram) -> int:
    """Bytes of the gradients of a program's parameters as they rest on one device.

    Those of tied parameters are left out: they are added to the ones of the program the parameter lives in.
    """
    table, tied = planned.program.table, planned.program.tied
    gradients = [
        v.name for v in table.values() if v.of in table and table[v.of].kind == "parameter" and v.of not in tied
    ]
    final = [name for name in gradients if name in planned.program.outputs]
    return sum(_held(planned, name, "gradient").bytes for name in final)


def optimizer_state(dtype: str) -> tuple[str, ...]:
    """Element types of what AdamW keeps for each parameter: two fp32 moments, and a master copy of what is not fp32.

    12 bytes for a 16-bit parameter (Rajbhandari et al. 2020, ZeRO, arXiv 1910.02054, section 3.1), 8 for an fp32 one.
    """
    return MOMENTS if dtype == "fp32" else (*MOMENTS, "fp32")


def optimizer_bytes(planned: PlannedProgram) -> int:
    """Bytes of AdamW's state on one device, laid out by the `optimizer` store rules, else as the parameters are."""
    total = 0
    for held in parameters_held(planned):
        where = planned.optimizer[held.tensor.name]
        for dtype in optimizer_state(held.tensor.dtype):
            state = Tensor(held.tensor.name, held.tensor.indices, dtype)
            total += int(local_bytes(state, where, planned.sizes, planned.mesh.degrees))
    return total


def kept_gathered(planned: PlannedProgram) -> tuple[Held, ...]:
    """Gathered parameters that stay from the forward pass to the backward, where the strategy keeps them."""
    if planned.strategy.policy.reshard_after_forward:
        return ()
    parameters = {value.name for value in planned.program.parameters}
    kept = dict.fromkeys(
        (tensor.name, layout)
        for row in planned.statements
        for tensor, layout in zip(row.work.inputs, row.work.layouts, strict=True)
        if tensor.name in parameters and layout != planned.resting[tensor.name]
    )
    return tuple(_held(planned, name, "gathered and kept", layout) for name, layout in kept)


def saved_activations(planned: PlannedProgram) -> tuple[Held, ...]:
    """What a program's forward pass saves for its backward pass, each tensor once, as it rests.

    Generic rules: an einsum saves the operands that are not parameters, a map what its rule says. A fused group saves
    what it reads, what it makes and the log-sum-exp of its softmaxes; a recomputed group what it reads; neither saves
    its interior.
    Applied to a GPT layer they give the closed forms of Korthikanti et al. 2022, arXiv 2205.05198.
    """
    program, policy = planned.program, planned.strategy.policy
    if WHOLE in policy.recompute:
        fed = [name for name in program.inputs if program.table[name].kind == "input"]
        return tuple(_held(planned, name, "input of the layer") for name in fed)
    kept: dict[str, Held] = {}
    inside = interior(program, {*policy.fuse, *policy.recompute})
    for statement in program.statements:
        if statement.phase != FORWARD:
            continue
        fused = statement.group in policy.fuse and statement.group not in policy.recompute
        for name in _saved_by(program, statement, fused):
            if name not in inside and name not in kept:
                kept[name] = _held(planned, name, f"{statement.op} for {statement.output}")
        for tensor, layout in residual_layouts(planned, statement) if fused else ():
            size = int(local_bytes(tensor, layout, planned.sizes, planned.mesh.degrees))
            kept[tensor.name] = Held(tensor, layout, size, f"fused {statement.op} for {statement.output}")
    return tuple(kept.values())


def _saved_by(program: Program, statement: Statement, fused: bool) -> tuple[str, ...]:
    """Names of the values one forward statement keeps for its backward."""
    names = saved(statement)
    if fused:
        names = (*names, *statement.outputs)
    return tuple(name for name in names if program.table[name].kind != "parameter")


def peak(planned: PlannedProgram) -> Peak:
    """The most a device holds while a program runs, from the lifetime of every tensor in every layout.

    Parameters and their gradients at rest are left out: they are held all the time. Gathered copies of parameters count
    while they are needed, unless the strategy keeps them.
    """
    lifetimes, degrees = _lifetimes(planned), planned.mesh.degrees
    fused = never_written(planned)
    best = Peak(0, "", "", ())
    streamed = {
        (step.tensor.name, step.after if step.kind == ALL_GATHER else step.before): int(shards(step.axes, degrees))
        for step in planned.collectives
        if step.streamed
    }
    sizes = {
        key: _two_blocks(_held(planned, key[0], key[2], key[1]), streamed.get(key[:2], 1))
        for key in lifetimes
        if key[0] not in fused
    }
    for moment, statement in enumerate(planned.statements):
        alive = [held for key, held in sizes.items() if lifetimes[key][0] <= moment <= lifetimes[key][1]]
        total = sum(held.bytes for held in alive)
        if total > best.bytes:
            largest = tuple(sorted(alive, key=lambda held: -held.bytes))
            best = Peak(total, statement.statement.output, statement.statement.phase, largest)
    return best


def _two_blocks(held: Held, ways: int) -> Held:
    """A tensor that goes around a ring of so many devices: two blocks of it are held, not all."""
    return replace(held, bytes=held.bytes * 2 // ways, reason="streamed: two blocks") if ways > 2 else held


def _lifetimes(planned: PlannedProgram) -> dict[tuple[str, Layout, str], tuple[int, int]]:
    """(value, layout, phase) -> the first and last statement at which a device holds it.

    A value at rest has no phase: it is held until its last reader. A copy in another layout is dropped after its last
    reader in the phase that made it. Parameters at rest, their gradients at rest and gathered parameters that are kept
    are left out: they are held for every layer at once.
    """
    program, table = planned.program, planned.program.table
    apart = {
        (name, planned.resting[name]) for name in table if moved_class(program, name) in ("parameters", "gradients")
    }
    apart |= {(held.tensor.name, held.layout) for held in kept_gathered(planned)}
    spans: dict[tuple[str, Layout, str], tuple[int, int]] = {}

    def touch(name: str, layout: Layout, moment: int, phase: str) -> None:
        if name in table and (name, layout) not in apart:
            key = (name, layout, "" if layout == planned.resting[name] else phase)
            spans[key] = (spans.get(key, (moment, moment))[0], moment)

    last = len(planned.statements) - 1
    for name in program.inputs:
        if table[name].kind != "gradient":
            touch(name, planned.resting[name], 0, FORWARD)
    for moment, row in enumerate(planned.statements):
        for tensor, layout in zip(row.work.inputs, row.work.layouts, strict=True):
            touch(tensor.name, layout, moment, row.phase)
        for step in (*row.before, *row.after):
            touch(step.tensor.name, step.before, moment, row.phase)
        for name in (*row.statement.inputs, *row.statement.outputs):
            touch(name, planned.resting[name], moment, row.phase)
    for name in program.outputs:
        touch(name, planned.resting[name], last, BACKWARD)
    return spans
