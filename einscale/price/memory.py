"""What each device holds: parameters, gradients, optimizer state, what is saved for the backward pass, and the peak."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from einscale.collectives import ALL_GATHER, REDUCE_SCATTER
from einscale.layout import Layout, Tensor, local_shape, shards
from einscale.mesh import split_name
from einscale.numeric import Condition, Number, as_int, is_array, maximum, never, product, where
from einscale.planner.classes import moved_class
from einscale.planner.fusion import interior, never_written, residual_layouts
from einscale.planner.planned import PlannedProgram, Structure, of_structure
from einscale.precision import PRESETS, Precision
from einscale.program.maps import saved
from einscale.program.optimizers import Optimizer, optimizer_states
from einscale.program.recompute import WHOLE, kept_anyway, redone_values
from einscale.program.update import gradient_names
from einscale.program.values import Program, Statement
from einscale.vocabulary import BACKWARD, FORWARD, GRADIENT, INPUT, PARAMETER, UPDATE, Phase, TensorClass

UNFUSED = ("log_softmax", "log_softmax_backward")
"""Maps of the loss as a framework runs it op by op."""

FRAMEWORK = 3 * 2**29
"""Bytes that a runtime takes beside tensors where nothing else is said: 1.5 GiB, assumed.

A CUDA context is about half a GiB, the buffers of a collective library grow with its channels and groups; neither is
counted by an allocator's own statistics.
"""

DEFAULT = PRESETS["bf16"]
"""Precision of optimizer states where none is given: moments in fp32, and a master copy of what is narrower."""


class Why(StrEnum):
    """The rule that keeps a tensor."""

    AT_REST = "at rest"
    PASS = "pass"
    PARAMETER = "parameter"
    GRADIENT = "gradient"
    STATE = "state"
    GATHERED = "gathered"
    LAYER_INPUT = "layer input"
    READ_BACK = "read back"
    FUSED_READ_BACK = "fused read back"
    KEPT_ANYWAY = "kept anyway"
    BETWEEN_KERNELS = "between kernels"
    PUT_IN_ORDER = "put in order"
    MADE = "made"
    STREAMED = "streamed"


class HoldReason(Struct, frozen=True):
    """Why a device holds a tensor; `report.words` says it in a sentence.

    Args:
        why: the rule.
        of: what it is kept for: first output of the statement whose backward pass reads it, or the parameter whose
            state it is.
        op: operation of that statement, or name of the state.
        phase: the pass in which it is held, for copies.
    """

    why: Why
    of: str = ""
    op: str = ""
    phase: Phase | Literal[""] = ""


class Held(Struct, frozen=True):
    """One tensor a device holds.

    Args:
        tensor: what it is.
        layout: how it is divided.
        bytes: bytes on one device, padding included.
        reason: the rule, and the statement it holds for, that keeps it.
    """

    tensor: Tensor
    layout: Layout
    bytes: Number
    reason: HoldReason

    @property
    def text(self) -> str:
        """The tensor in slash notation."""
        return f"{self.tensor.name}: {self.tensor.dtype}[{self.layout.text(self.tensor.indices, self.tensor.chosen)}]"


class Peak(Struct, frozen=True):
    """The moment of a program at which a device holds most, parameters at rest left out.

    Args:
        bytes: bytes held then; of many points at once an array, and nothing else is known.
        statement: first output of the statement that runs then.
        phase: its phase.
        alive: what is held, largest first.
    """

    bytes: Number
    statement: str
    phase: Phase | Literal[""]
    alive: tuple[Held, ...]


def _held(planned: PlannedProgram, name: str, reason: HoldReason, layout: Layout | None = None) -> Held:
    tensor = planned.program.table[name].tensor
    where = planned.resting[name] if layout is None else layout
    return Held(tensor, where, planned.held(tensor, where), reason)


def parameters_held(planned: PlannedProgram, precision: Precision | None = None) -> tuple[Held, ...]:
    """Parameters of one program as they rest, those that live in another program left out.

    Args:
        planned: the program in the types of the precision.
        precision: the types parameters rest in; by default those they work in.
    """
    program = planned.program
    found = []
    for value in program.parameters:
        if value.name not in program.tied:
            dtype = precision.stored(value.dtype) if precision else value.dtype
            tensor = replace(value.tensor, dtype=dtype)
            layout = planned.resting[value.name]
            size = planned.held(tensor, layout)
            found.append(Held(tensor, layout, size, HoldReason(Why.PARAMETER)))
    return tuple(found)


def gradients_held(planned: PlannedProgram) -> tuple[Held, ...]:
    """Gradients of a program's parameters as they are added up on one device, in the layout they rest in.

    Those of tied parameters are left out: they are added to the ones of the program the parameter lives in. Of a
    program planned with `deferred` these are the accumulators of a step; while microbatches are added to them, each is
    read and written once more a microbatch.
    """
    program = planned.program
    names = (name for of, name in gradient_names(program).items() if of not in program.tied)
    return tuple(_held(planned, name, HoldReason(Why.GRADIENT)) for name in names)


def gradient_bytes(planned: PlannedProgram) -> Number:
    """Bytes of the gradients of a program's parameters as they rest on one device, tied ones left out."""
    return sum(held.bytes for held in gradients_held(planned))


def optimizer_held(
    planned: PlannedProgram, optimizer: str | Optimizer = "adamw", precision: Precision | None = None
) -> tuple[Held, ...]:
    """What the optimizer keeps for a program's parameters on one device: master copies and states.

    Each is laid out as the `optimizer` store rules say, else as its parameter is; exact bytes, block scales counted.
    AdamW keeps 12 bytes for a 16-bit parameter (Rajbhandari et al. 2020, ZeRO, arXiv 1910.02054, section 3.1), 8 for an
    fp32 one.

    Args:
        planned: the program in the types of the precision.
        optimizer: whose states.
        precision: types of moments and of the master copy; by default fp32, a master copy of what is narrower.
    """
    program = planned.program
    found = []
    for name, states in optimizer_states(program, optimizer, precision or DEFAULT):
        where = dict(zip(program.table[name].axes, planned.optimizer[name].dims, strict=True))
        for state in states:
            layout = Layout(tuple(where[axis] for axis in state.axes))
            size = planned.held(state.tensor, layout)
            reason = HoldReason(Why.STATE, name, state.name.removeprefix(f"{name}_"))
            found.append(Held(state.tensor, layout, size, reason))
    return tuple(found)


def undivided_states(planned: PlannedProgram) -> tuple[str, ...]:
    """Parameters whose optimizer state the store rules would divide, but no dim has as many elements as devices.

    A flat buffer, as Megatron's distributed optimizer has one, would divide them.
    """
    axes = {axis for rule in planned.strategy.store_rules(TensorClass.OPTIMIZER) for axis in rule.axes}
    return tuple(
        value.name
        for value in planned.program.parameters
        if axes and not axes & {split_name(axis)[0] for axis in planned.optimizer[value.name].axes}
    )


def optimizer_bytes(planned: PlannedProgram) -> Number:
    """Bytes of AdamW's state on one device, laid out by the `optimizer` store rules, else as the parameters are."""
    return sum(held.bytes for held in optimizer_held(planned))


def kept_gathered(planned: PlannedProgram) -> tuple[Held, ...]:
    """Gathered parameters that stay from the forward pass to the backward, where the strategy keeps them."""
    return () if planned.strategy.policy.reshard_after_forward else gathered_copies(planned)


def gathered_copies(planned: PlannedProgram) -> tuple[Held, ...]:
    """Parameters in the layouts they are read in, where they rest in others: what fetching a layer holds."""
    reason = HoldReason(Why.GATHERED)
    return tuple(_held(planned, name, reason, layout) for name, layout in _gathered(planned.structure))


@of_structure
def _gathered(structure: Structure) -> tuple[tuple[str, Layout], ...]:
    """Parameters and the layouts they are read in, where they rest in others."""
    parameters = {value.name for value in structure.program.parameters}
    return tuple(
        dict.fromkeys(
            (tensor.name, layout)
            for row in structure.statements
            for tensor, layout in zip(row.work.inputs, row.work.layouts, strict=True)
            if tensor.name in parameters and layout != structure.resting[tensor.name]
        )
    )


def saved_activations(planned: PlannedProgram) -> tuple[Held, ...]:
    """What a program's forward pass saves for its backward pass, each tensor once, as it rests.

    Generic rules: an einsum saves the operands that are not parameters, a map what its rule says. A fused group saves
    what it reads, what it makes and the log-sum-exp of its softmaxes; what is recomputed saves what it reads; neither
    saves its interior.
    Applied to a GPT layer they give the closed forms of Korthikanti et al. 2022, arXiv 2205.05198.
    """
    program, policy = planned.program, planned.strategy.policy
    if WHOLE in policy.recompute:
        fed = [name for name in program.inputs if program.table[name].kind == INPUT]
        return tuple(_held(planned, name, HoldReason(Why.LAYER_INPUT)) for name in fed)
    kept: dict[str, Held] = {}
    parts = redone_values(program, policy.recompute)
    again = frozenset().union(*parts)
    inside = interior(program, {*policy.fuse, *policy.recompute}) | again
    for statement in program.statements:
        if statement.phase != FORWARD:
            continue
        fused = statement.group in policy.fuse and statement.group not in policy.recompute
        names = _saved_by(program, statement, fused)
        if again & set(statement.outputs):
            names = (*names, *(n for n in statement.inputs if program.table[n].kind != PARAMETER))
        for name in names:
            if name not in inside and name not in kept:
                kept[name] = _held(planned, name, HoldReason(Why.READ_BACK, statement.output, statement.op))
        for tensor, layout in residual_layouts(planned.structure, statement) if fused else ():
            size = planned.held(tensor, layout)
            reason = HoldReason(Why.FUSED_READ_BACK, statement.output, statement.op)
            kept[tensor.name] = Held(tensor, layout, size, reason)
    for name in sorted(kept_anyway(program, policy.recompute) - set(kept)):
        kept[name] = _held(planned, name, HoldReason(Why.KEPT_ANYWAY))
    return tuple(kept.values())


def _saved_by(program: Program, statement: Statement, fused: bool) -> tuple[str, ...]:
    """Names of the values one forward statement keeps for its backward."""
    names = saved(statement)
    if fused:
        names = (*names, *statement.outputs)
    return tuple(name for name in names if program.table[name].kind != PARAMETER)


def peak(planned: PlannedProgram, *, accumulates: bool = False, overlap: Collection[str] = ()) -> Peak:
    """The most a device holds while a program runs, from the lifetime of every tensor in every layout.

    Parameters and their gradients at rest are left out: they are held all the time. Gathered copies of parameters count
    while they are needed, unless the strategy keeps them.

    Args:
        planned: the program.
        accumulates: a parameter's gradient is made beside what it is then added to, so that both are held a moment; one
            that is reduced first waits for the last of its layer, with which it goes in one message.
        overlap: kinds of collectives that hide behind work; activations that do move block by block.
    """
    held_spans = spans(planned, accumulates=accumulates, overlap=overlap)
    most, moment = _fullest(planned, held_spans)
    if is_array(most):
        return Peak(most, "", "", ())
    if not most:
        return Peak(0, "", "", ())
    alive = [span.held for span in held_spans if span.first <= moment <= span.last]
    statement = planned.statements[as_int(moment)].statement
    return Peak(most, statement.output, statement.phase, tuple(sorted(alive, key=lambda held: -held.bytes)))


def _fullest(planned: PlannedProgram, held_spans: Sequence[Span]) -> tuple[Number, Number]:
    """The most bytes held at once, and the number of the first statement at which they are."""
    changes: dict[int, Number] = {}
    for span in held_spans:
        changes[span.first] = changes.get(span.first, 0) + span.held.bytes
        changes[span.last + 1] = changes.get(span.last + 1, 0) - span.held.bytes
    now: Number = 0
    most: Number = 0
    at: Number = 0
    for moment in range(len(planned.statements)):
        now = now + changes.get(moment, 0)
        at = where(now > most, moment, at)
        most = maximum(most, now)
    return most, at


class Span(Struct, frozen=True):
    """How long a device holds a tensor while a program runs.

    Args:
        held: the tensor.
        first: number of the statement that makes it, or brings it into its layout.
        last: number of the last one that reads it.
        fed: whether it is there before the program starts.
    """

    held: Held
    first: int
    last: int
    fed: bool


def spans(planned: PlannedProgram, *, accumulates: bool = False, overlap: Collection[str] = ()) -> tuple[Span, ...]:
    """Every tensor a device holds while a program runs, in every layout; what it holds all the time is left out.

    Args:
        planned: the program.
        accumulates: see `peak`.
        overlap: see `peak`.
    """
    lifetimes, degrees = dict(_lifetimes(planned.structure)), planned.degrees
    if accumulates:
        last = len(planned.statements) - 1
        lifetimes |= {key: (lifetimes[key][0], last) for key in _sent_together(planned) if key in lifetimes}
        lifetimes |= _made_beside(planned)
    lifetimes |= _copied(planned)
    ordered = {} if "activations" in overlap else _put_in_order(planned)
    lifetimes |= {key: (moment, moment) for key, (moment, _) in ordered.items()}
    fused = never_written(planned.structure)
    streamed = {
        (step.tensor.name, step.after if step.kind == ALL_GATHER else step.before): shards(step.axes, degrees)
        for step in planned.collectives
        if step.streamed
    }
    fed = set(planned.program.inputs)
    return tuple(
        Span(
            _part_held(
                _two_blocks(_held(planned, name, reason, layout), streamed.get((name, layout), 1)),
                ordered.get((name, layout, reason)),
            ),
            first,
            last,
            name in fed and reason is AT_REST,
        )
        for (name, layout, reason), (first, last) in lifetimes.items()
        if name not in fused
    )


Copy = tuple[str, Layout, HoldReason]
"""A value, the layout it is in, and why it is there; at rest, that is `AT_REST`."""

AT_REST = HoldReason(Why.AT_REST)

_PASSES = {phase: HoldReason(Why.PASS, phase=phase) for phase in (FORWARD, BACKWARD, UPDATE)}


def _sent_together(planned: PlannedProgram) -> list[Copy]:
    """Gradients of parameters before they are reduced: a layer's go in one message (FSDP's units)."""
    return [
        (step.tensor.name, step.before, _PASSES[row.phase])
        for row in planned.statements
        for step in row.after
        if moved_class(planned.program, step.tensor.name) == TensorClass.GRADIENTS
    ]


def _copied(planned: PlannedProgram) -> dict[Copy, tuple[int, int]]:
    """Copies that a map works with where it runs kernel by kernel because its statistics run over a divided axis.

    The maximum is known on all devices before the exponentials are taken, their sum before the result is made: what is
    in between is written. PyTorch's loss under DTensor's loss parallelism holds one such copy beside input and result.
    """
    return {
        (row.statement.inputs[0], row.work.layouts[0], HoldReason(Why.BETWEEN_KERNELS)): (moment, moment)
        for moment, row in enumerate(planned.statements)
        if row.statistics and row.statement.op in UNFUSED
    }


def _put_in_order(planned: PlannedProgram) -> dict[Copy, tuple[int, Condition]]:
    """Copies of whole activations that a gather makes after it, or a scatter before it, where the policy says so.

    A collective puts the devices' blocks one behind another: along the tensor's first dim with more than one element
    that is their order, along a later one it is not: each with its statement, and whether it is one.
    """
    if not planned.strategy.policy.ordered:
        return {}
    found: dict[Copy, tuple[int, Condition]] = {}
    for moment, row in enumerate(planned.statements):
        for step in (*row.before, *row.after):
            if step.kind not in (ALL_GATHER, REDUCE_SCATTER) or step.streamed:
                continue
            if moved_class(planned.program, step.tensor.name) != TensorClass.ACTIVATIONS:
                continue
            whole, part = (step.after, step.before) if step.kind == ALL_GATHER else (step.before, step.after)
            changed = [whole.dims[k] != part.dims[k] for k in range(len(whole.dims))]
            shape = local_shape(whole, step.tensor.indices, planned.sizes, planned.degrees)
            apart = any(changed) and product(shape[: changed.index(True)]) > 1
            if not never(apart):
                found[step.tensor.name, whole, HoldReason(Why.PUT_IN_ORDER, phase=row.phase)] = (moment, apart)
    return found


def _made_beside(planned: PlannedProgram) -> dict[Copy, tuple[int, int]]:
    """Gradients of parameters that are made in the layout they are accumulated in: held once more for a moment."""
    program = planned.program
    return {
        (name, planned.resting[name], HoldReason(Why.MADE)): (moment, moment)
        for moment, row in enumerate(planned.statements)
        for name in row.statement.outputs
        if moved_class(program, name) == TensorClass.GRADIENTS and not row.after and name in program.outputs
    }


def _two_blocks(held: Held, ways: Number) -> Held:
    """A tensor that goes around a ring of so many devices: two blocks of it are held, not all."""
    if never(ways > 2):
        return held
    return replace(held, bytes=where(ways > 2, held.bytes * 2 // ways, held.bytes), reason=HoldReason(Why.STREAMED))


def _part_held(held: Held, ordered: tuple[int, Condition] | None) -> Held:
    """A copy that is made only where the devices' blocks are not in order as they come."""
    return held if ordered is None else replace(held, bytes=where(ordered[1], held.bytes, 0))


@of_structure
def _lifetimes(structure: Structure) -> Mapping[Copy, tuple[int, int]]:
    """(value, layout, reason) -> the first and last statement at which a device holds it.

    A value at rest is held until its last reader. A copy in another layout is dropped after its last
    reader in the phase that made it. Parameters at rest, their gradients at rest, gathered parameters that are kept
    and caches are left out: they are held for every layer at once.
    """
    program, table = structure.program, structure.program.table
    held_all_the_time = (TensorClass.PARAMETERS, TensorClass.GRADIENTS, TensorClass.KV_CACHE)
    apart = {(name, structure.resting[name]) for name in table if moved_class(program, name) in held_all_the_time}
    apart |= set() if structure.strategy.policy.reshard_after_forward else set(_gathered(structure))
    spans: dict[Copy, tuple[int, int]] = {}

    def touch(name: str, layout: Layout, moment: int, phase: Phase) -> None:
        if name in table and (name, layout) not in apart:
            key = (name, layout, AT_REST if layout == structure.resting[name] else _PASSES[phase])
            spans[key] = (spans.get(key, (moment, moment))[0], moment)

    last = len(structure.statements) - 1
    for name in program.inputs:
        if table[name].kind != GRADIENT:
            touch(name, structure.resting[name], 0, FORWARD)
    for moment, row in enumerate(structure.statements):
        for tensor, layout in zip(row.work.inputs, row.work.layouts, strict=True):
            touch(tensor.name, layout, moment, row.phase)
        for step in (*row.before, *row.after):
            touch(step.tensor.name, step.before, moment, row.phase)
        for name in (*row.statement.inputs, *row.statement.outputs):
            touch(name, structure.resting[name], moment, row.phase)
    for name in program.outputs:
        touch(name, structure.resting[name], last, BACKWARD)
    return spans
