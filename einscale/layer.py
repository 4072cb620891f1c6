"""One layer of each kind of a model under a strategy: what it computes, moves, holds and takes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from einscale.cost import NOTHING, PricedStatement, Totals, price_program, total
from einscale.errors import SizeError, StrategyError, did_you_mean, near_miss
from einscale.hardware import System
from einscale.layout import padding_fraction
from einscale.memory import (
    Held,
    Peak,
    gradient_bytes,
    kept_gathered,
    optimizer_bytes,
    parameters_held,
    peak,
    saved_activations,
)
from einscale.mesh import Mesh, split_name
from einscale.models import LayerKind, Model
from einscale.numeric import nearest_multiples, product
from einscale.planner.classes import moved_class
from einscale.planner.planned import BACKWARD, FORWARD, PlannedProgram
from einscale.planner.program import plan_program
from einscale.precision import uniform
from einscale.program.backward import WHOLE, backward
from einscale.program.recompute import MODES
from einscale.program.shapes import axis_names
from einscale.program.shapes import program_sizes as sizes_of
from einscale.program.typed import typed
from einscale.program.values import Program
from einscale.strategy import LARGEST, ROLES, Strategy, bind_strategy
from einscale.topology import Network, bind

AXES = ("b", "s", "t", "d", "h", "n", "g", "k", "f", "v", "p", "e", "m", "l", "q", "r", "u", "c", "w", "layer")
"""Axes and composites of the built-in models, and what the stages of a pipeline divide."""

GROUPS = ("attention", "activation", "routing")
"""Statement groups of the built-in models."""

DEFAULTS = {
    (): "dp",
    ("data",): "fsdp",
    ("model",): "megatron-sp",
    ("data", "model"): "fsdp+tp",
    ("context",): "context",
    ("data", "context"): "context",
    ("model", "context"): "megatron-sp+context",
    ("data", "model", "context"): "megatron-sp+context",
    ("pod", "data"): "hsdp",
}
"""Roles that the mesh has -> the strategy used when none is given."""


class KindReport(Struct, frozen=True):
    """One kind of layer: its priced statements and what it holds.

    Args:
        kind: `embedding`, a kind of block, or `head`.
        repeat: how many layers of this kind the model has.
        planned: statements with layouts.
        rows: priced statements, in order.
        parameters: parameters as they rest on one device.
        saved: activations one layer saves for its backward pass; empty for a forward pass alone.
        gradient_bytes: bytes of its parameters' gradients on one device.
        optimizer_bytes: bytes of their optimizer state on one device.
        gathered_bytes: bytes of gathered parameters kept from its forward pass to its backward.
        peak: the most one layer holds while it runs, its parameters at rest left out.
        padding: (tensor in slash notation, share of it that is padding) where a dim does not divide evenly.
    """

    kind: str
    repeat: int
    planned: PlannedProgram
    rows: tuple[PricedStatement, ...]
    parameters: tuple[Held, ...]
    saved: tuple[Held, ...]
    gradient_bytes: int
    optimizer_bytes: int
    gathered_bytes: int
    peak: Peak
    padding: tuple[tuple[str, float], ...]

    def totals(self, phase: str = "", section: str | None = None) -> Totals:
        """Sums over the statements of one phase (`forward`, `backward`; "" both) and section."""
        return total(
            row
            for row in self.rows
            if (not phase or row.planned.phase == phase)
            and (section is None or row.planned.statement.section == section)
        )

    @property
    def sections(self) -> tuple[str, ...]:
        """Sections its statements belong to, in order."""
        return tuple(dict.fromkeys(row.planned.statement.section for row in self.rows))

    @property
    def parameter_bytes(self) -> int:
        """Bytes of its parameters on one device."""
        return sum(held.bytes for held in self.parameters)

    @property
    def saved_bytes(self) -> int:
        """Bytes one layer saves for its backward pass on one device."""
        return sum(held.bytes for held in self.saved)

    @property
    def working_bytes(self) -> int:
        """Bytes one layer needs while it runs, beside what every layer holds all the time."""
        return max(0, self.peak.bytes - self.saved_bytes)


class MemoryReport(Struct, frozen=True):
    """Bytes on one device for the whole model, every layer counted.

    Args:
        parameters: at rest.
        gradients: at rest; 0 for a forward pass alone.
        optimizer: state of AdamW with an fp32 master copy; 0 for a forward pass alone.
        saved: activations every layer saves for the backward pass.
        gathered: parameters gathered in the forward pass and kept for the backward, where the strategy keeps them.
        working: the most any layer needs besides, while it runs.
        capacity: memory of the chip.
    """

    parameters: int
    gradients: int
    optimizer: int
    saved: int
    gathered: int
    working: int
    capacity: int

    @property
    def needed(self) -> int:
        """Everything together."""
        return self.parameters + self.gradients + self.optimizer + self.saved + self.gathered + self.working

    @property
    def fits(self) -> bool:
        """Whether it fits in the memory of the chip."""
        return self.needed <= self.capacity


class Unexpected(Struct, frozen=True):
    """A collective that a strategy's `expect` list does not name.

    Args:
        layer: kind of layer.
        kind: of the collective.
        axis: the mesh axis it runs over.
        tensor: what moves.
        entry: what the list would have to say.
    """

    layer: str
    kind: str
    axis: str
    tensor: str
    entry: str


class LayerReport(Struct, frozen=True):
    """Every kind of layer of a model, priced, and the model's sums.

    Args:
        model: the model.
        mesh: the devices.
        strategy: as given, roles not yet bound to the mesh.
        network: the mesh bound to the links of the system.
        batch: sequences in the global batch.
        sequence: tokens in a sequence.
        dtype: element type of parameters, activations and einsums.
        phases: `forward`, `backward` or both.
        kinds: one report for each kind of layer.
        memory: bytes on one device.
        notes: what was chosen where nothing was given.
        unexpected: collectives that the strategy does not expect.
    """

    model: Model
    mesh: Mesh
    strategy: Strategy
    network: Network
    batch: int
    sequence: int
    dtype: str
    phases: tuple[str, ...]
    kinds: tuple[KindReport, ...]
    memory: MemoryReport
    notes: tuple[str, ...]
    unexpected: tuple[Unexpected, ...]

    @property
    def totals(self) -> Totals:
        """Sums over the whole model, per device."""
        result = NOTHING
        for kind in self.kinds:
            result = result.plus(kind.totals().times(kind.repeat))
        return result


def default_strategy(mesh: Mesh, table: Mapping[tuple[str, ...], str] = DEFAULTS) -> str:
    """Name of the strategy used when none is given: by the roles the axes of the mesh play.

    Args:
        mesh: the devices.
        table: roles, those of experts and pipeline stages aside -> the strategy.

    >>> from einscale.mesh import parse_mesh
    >>> default_strategy(parse_mesh("data=8,model=8")), default_strategy(parse_mesh("tp=8"))
    ('fsdp+tp', 'megatron-sp')

    Raises:
        StrategyError: no named strategy suits the mesh.
    """
    live = [axis.name for axis in mesh.axes if axis.size > 1]
    roles = {next((role for role, names in ROLES.items() if name in names), name) for name in live}
    roles = {"data" if role == "expert" else role for role in roles}  # the batch is divided over both
    roles -= {"pipe"}  # stages of a pipeline: within one, any strategy will do
    for known, strategy in table.items():
        if roles == set(known):
            return strategy
    names = [name for role in ROLES.values() for name in role]
    typo = next((name for name in live if name not in (*names, "x", "y") and near_miss(name, names)), None)
    start = str(mesh).find(f"{typo}=")
    raise StrategyError(
        f"no strategy is given, and none suits the mesh axes {', '.join(live)} by itself",
        text=str(mesh),
        span=(start, start + len(typo)) if typo else None,
        expected="a strategy that uses these axes; `einscale strategies` lists those known by name",
        hint=did_you_mean(typo, names) if typo else None,
    )


def layer_report(
    model: Model,
    strategy: Strategy,
    mesh: Mesh,
    system: System,
    *,
    batch: int,
    sequence: int,
    dtype: str = "bf16",
    phases: tuple[str, ...] = (FORWARD, BACKWARD),
    notes: tuple[str, ...] = (),
) -> LayerReport:
    """Plan and price one layer of each kind.

    Raises:
        StrategyError: the strategy does not fit the mesh or the model.
        SizeError: the batch or the sequence does.
    """
    check_names(strategy, model)
    network = bind(mesh, system)
    kinds = tuple(
        _kind_report(layer.kind, layer.repeat, layer.program, strategy, network, batch, sequence, dtype, phases)
        for layer in model.layers
    )
    return LayerReport(
        model=model,
        mesh=mesh,
        strategy=strategy,
        network=network,
        batch=batch,
        sequence=sequence,
        dtype=dtype,
        phases=phases,
        kinds=kinds,
        memory=_memory(kinds, system),
        notes=(*notes, *undivided(kinds)),
        unexpected=unexpected_collectives(kinds, strategy, mesh),
    )


def check_names(strategy: Strategy, model: Model) -> None:
    """Raise where a strategy speaks of an axis, a scope or a statement group that nothing in a model has.

    Axes that the built-in models use are always known, so that one strategy serves models that lack some of them.

    Raises:
        StrategyError: a rule that would match nothing, with the near miss.
    """
    axes, groups, sections, results = _names_of(model.layers)
    rules = [*strategy.compute, *(rule for _, table in strategy.store for rule in table)]
    policy = strategy.policy
    asked = [
        *((rule.index, "axis", axes) for rule in rules),
        *((rule.scope, "group or section", {**groups, **sections}) for rule in rules if rule.scope),
        *((name, "group", groups) for name in (*policy.fuse, *policy.stream)),
        *(
            (name, "group, section or result", {**groups, **sections, **results, **dict.fromkeys((WHOLE, *MODES))})
            for name in policy.recompute
        ),
        *((name, "group, section or result", {**groups, **sections, **results}) for name in policy.auto),
    ]
    for name, what, known in asked:
        if name not in known and not (known is not axes and name.startswith("d_")):
            raise StrategyError(
                f"strategy `{strategy.name}` speaks of the {what} `{name}`, which no layer of {model.name} has",
                hint=_known_names(name, known, results),
            )


@lru_cache(maxsize=256)
def _names_of(layers: tuple[LayerKind, ...]) -> tuple[dict[str, None], dict[str, None], dict[str, None], dict[str, None]]:
    """Axes, groups, sections and results that a model's layers have, and the axes that the built-in ones use."""
    axes = dict.fromkeys((LARGEST, *AXES))
    for layer in layers:
        axes |= dict.fromkeys((*axis_names(layer.program), *(name for name, _ in layer.program.composites)))
    statements = [statement for layer in layers for statement in layer.program.statements]
    groups = dict.fromkeys((*GROUPS, *(s.group for s in statements if s.group)))
    sections = dict.fromkeys(("attention", "mlp", "experts", *(s.section for s in statements if s.section)))
    results = dict.fromkeys(name for s in statements for name in (*s.outputs, *(f"d_{one}" for one in s.outputs)))
    return axes, groups, sections, results


def _known_names(name: str, known: Mapping[str, None], results: Mapping[str, None]) -> str:
    """The near miss of a name; else what there is, results of statements left out for there are many."""
    if near_miss(name, known) is not None or not results.keys() <= known.keys():
        return did_you_mean(name, known, "known")
    rest = ", ".join(one for one in known if one not in results)
    return f"known: {rest}, and the results of statements (`einscale program MODEL` lists them)"


def undivided(kinds: tuple[KindReport, ...]) -> tuple[str, ...]:
    """What the store rules for parameters leave whole because no dim has as many elements as there are devices."""
    found = []
    for kind in kinds:
        planned = kind.planned
        axes = {axis for rule in planned.strategy.store_rules("parameters") for axis in rule.axes}
        whole = [
            value.name
            for value in planned.program.parameters
            if axes and not axes & {split_name(axis)[0] for axis in planned.resting[value.name].axes}
        ]
        if whole:
            found.append(
                f"{kind.kind}: {', '.join(whole)} stay whole, for no dim can be divided over {'/'.join(sorted(axes))}"
            )
    return tuple(found)


def _kind_report(
    kind: str,
    repeat: int,
    program: Program,
    strategy: Strategy,
    network: Network,
    batch: int,
    sequence: int,
    dtype: str,
    phases: tuple[str, ...],
) -> KindReport:
    mesh = network.mesh
    sizes = program_sizes(program, batch, sequence)
    precision = uniform(dtype)
    written = typed(program, precision)
    strategy = recomputed_here(strategy, program)
    policy = strategy.policy
    whole = backward(written, frozenset(policy.recompute), frozenset(policy.fuse)) if BACKWARD in phases else written
    planned = plan_program(whole, strategy, mesh, sizes, network=network)
    rows = tuple(row for row in price_program(planned, network, precision) if row.planned.phase in phases)
    trains = BACKWARD in phases
    return KindReport(
        kind=kind,
        repeat=repeat,
        planned=planned,
        rows=rows,
        parameters=parameters_held(planned),
        saved=saved_activations(planned) if trains else (),
        gradient_bytes=gradient_bytes(planned) if trains else 0,
        optimizer_bytes=optimizer_bytes(planned) if trains else 0,
        gathered_bytes=sum(held.bytes for held in kept_gathered(planned)),
        peak=peak(planned),
        padding=padded_values(planned),
    )


def recomputed_here(strategy: Strategy, program: Program) -> Strategy:
    """The strategy for one layer: full recomputation is of blocks, an embedding and a head keep what they save.

    Frameworks checkpoint block by block: what a head makes is needed at once, and would be made twice for nothing.
    """
    if WHOLE not in strategy.policy.recompute or not is_end(program):
        return strategy
    return replace(strategy, policy=replace(strategy.policy, recompute=()))


def is_end(program: Program) -> bool:
    """Whether a layer is an embedding or a head and no block: it looks up tokens or makes the loss, and has no group.

    >>> from einscale.models import load_model
    >>> [is_end(layer.program) for layer in load_model("llama3-8b").layers]
    [True, False, True]
    """
    ops = {statement.op for statement in program.statements}
    groups = any(statement.group for statement in program.statements)
    return not groups and bool(ops & {"lookup", "cross_entropy", "log_softmax"})


def program_sizes(program: Program, batch: int, sequence: int) -> dict[str, int]:
    """Sizes of every axis of a program: its own, batch `b`, and the sequence `s` (queries) and `t` (keys).

    Raises:
        SizeError: the size of another axis is not given.
    """
    return sizes_of(program, defaults={"b": batch, "s": sequence, "t": sequence})


def padded_values(planned: PlannedProgram) -> tuple[tuple[str, float], ...]:
    """Values of which some part is padding, and how much."""
    found = []
    for value in planned.program.values:
        layout = planned.resting[value.name]
        share = padding_fraction(layout, value.axes, planned.sizes, planned.degrees)
        if share > 0 and value.kind in ("parameter", "activation", "input"):
            found.append((f"{value.name}: {layout.text(value.axes)}", share))
    return tuple(found)


def _memory(kinds: tuple[KindReport, ...], system: System) -> MemoryReport:
    return MemoryReport(
        parameters=sum(kind.parameter_bytes * kind.repeat for kind in kinds),
        gradients=sum(kind.gradient_bytes * kind.repeat for kind in kinds),
        optimizer=sum(kind.optimizer_bytes * kind.repeat for kind in kinds),
        saved=sum(kind.saved_bytes * kind.repeat for kind in kinds),
        gathered=sum(kind.gathered_bytes * kind.repeat for kind in kinds),
        working=max(kind.working_bytes for kind in kinds),
        capacity=system.chip.memory_bytes,
    )


def unexpected_collectives(kinds: tuple[KindReport, ...], strategy: Strategy, mesh: Mesh) -> tuple[Unexpected, ...]:
    """Collectives that the strategy's `expect` list does not name; empty where it has no such list."""
    if strategy.expect is None:
        return ()
    roles = role_names(strategy, mesh)
    found: dict[Unexpected, None] = {}
    for kind in kinds:
        for row in kind.rows:
            for priced in row.collectives:
                if priced.bytes == 0:
                    continue
                what = moved_class(kind.planned.program, priced.step.tensor.name)
                for axis in priced.step.axes:
                    role = roles.get(split_name(axis)[0], axis)
                    entry = f"{priced.step.kind} {role} {what}"
                    if entry not in strategy.expect:
                        found[Unexpected(kind.kind, priced.step.kind, axis, priced.step.tensor.name, entry)] = None
    return tuple(found)


def role_names(strategy: Strategy, mesh: Mesh) -> dict[str, str]:
    """Mesh axis -> the role it plays in a strategy."""
    return {
        name: next((role for role in strategy.roles if name in (role, *ROLES.get(role, ()))), name)
        for name in mesh.names
    }


def batch_ways(strategy: Strategy, mesh: Mesh) -> int:
    """How many ways a strategy divides the batch on a mesh.

    >>> from einscale.mesh import parse_mesh
    >>> from einscale.strategy import load_strategy
    >>> batch_ways(load_strategy("fsdp+tp"), parse_mesh("dp=4,tp=2"))
    4
    """
    rules = bind_strategy(strategy, mesh).compute
    axes = dict.fromkeys(axis for rule in rules if rule.index == "b" for axis in rule.axes)
    return int(product(mesh.size(axis) for axis in axes))


def check_divides(batch: int, ways: int, over: str) -> None:
    """Raise unless a batch divides evenly.

    Args:
        batch: sequences.
        ways: how many ways it is divided.
        over: what it is divided over, in words.

    Raises:
        SizeError: it does not; the message names the nearest that do.
    """
    if batch % ways:
        near = " or ".join(str(number) for number in nearest_multiples(batch, ways))
        raise SizeError(
            f"a batch of {batch} sequence{'s' if batch > 1 else ''} does not divide over {over}",
            hint=f"the nearest that does is {near}",
        )
