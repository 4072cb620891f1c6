"""A planned program on real hardware: FLOPs, bytes and seconds of every statement and every collective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from einscale.bounds import placement_bound
from einscale.collectives import Collective, received
from einscale.efficiency import Execution, launch_seconds
from einscale.hardware import Chip
from einscale.hiders import Hider, HidingWork
from einscale.kernels import Local, execute
from einscale.layout import shards
from einscale.mesh import Mesh
from einscale.numeric import ceil_div
from einscale.plan import Plan, work_flops, work_reads, work_results, work_traffic
from einscale.planner.classes import moved_class
from einscale.planner.fusion import kept_residuals, never_written
from einscale.planner.planned import UPDATE, PlannedProgram, PlannedStatement
from einscale.precision import Precision, uniform
from einscale.program.maps import attended_pairs
from einscale.program.typed import computed
from einscale.roofline import LocalTime, local_seconds
from einscale.topology import Network, step_seconds


class PricedCollective(Struct, frozen=True):
    """A collective with its price.

    Args:
        step: the move.
        bytes: bytes a device receives.
        seconds: time on the network.
        bound_bytes: bytes a device must receive however the move is done.
        exposed_seconds: what of the time no local work hides; all of it unless the move is streamed.
        hidden_by: the work that hides the rest, None where nothing does.
    """

    step: Collective
    bytes: int
    seconds: float
    bound_bytes: int
    exposed_seconds: float
    hidden_by: Hider | None = None

    @property
    def bound_ratio(self) -> float:
        """Bytes moved over bytes that must move; 1.0 is as good as can be, and for a free move."""
        return self.bytes / self.bound_bytes if self.bound_bytes else 1.0


class PricedStatement(Struct, frozen=True):
    """A statement with the price of its local work.

    Args:
        planned: the statement and its layouts.
        flops: FLOPs one device spends.
        traffic: bytes of HBM one device reads and writes.
        local: time of the local work and what bounds it; inside a fused kernel, its share of the kernel's time.
        collectives: what it makes the network do.
    """

    planned: PlannedStatement
    flops: int
    traffic: int
    local: LocalTime
    collectives: tuple[PricedCollective, ...]

    @property
    def communication_seconds(self) -> float:
        """Time of its collectives that nothing hides, one after the other."""
        return sum((priced.exposed_seconds for priced in self.collectives), 0.0)

    @property
    def seconds(self) -> float:
        """Local work and collectives, nothing overlapped."""
        return float(self.local.seconds) + self.communication_seconds

    @property
    def received(self) -> int:
        """Bytes a device receives."""
        return sum(priced.bytes for priced in self.collectives)


class Totals(Struct, frozen=True):
    """Sums over statements, per device; nothing overlaps but streamed collectives with the work that needs them."""

    flops: int
    traffic: int
    received: int
    compute_seconds: float
    communication_seconds: float

    @property
    def seconds(self) -> float:
        """Local work and collectives, one after the other."""
        return self.compute_seconds + self.communication_seconds

    def times(self, repeat: int) -> Totals:
        """The sums of so many layers."""
        return Totals(
            self.flops * repeat,
            self.traffic * repeat,
            self.received * repeat,
            self.compute_seconds * repeat,
            self.communication_seconds * repeat,
        )

    def plus(self, other: Totals) -> Totals:
        """The sums of both."""
        return Totals(
            self.flops + other.flops,
            self.traffic + other.traffic,
            self.received + other.received,
            self.compute_seconds + other.compute_seconds,
            self.communication_seconds + other.communication_seconds,
        )


NOTHING = Totals(0, 0, 0, 0.0, 0.0)


def total(rows: Iterable[PricedStatement]) -> Totals:
    """Sums over statements."""
    result = NOTHING
    for row in rows:
        result = result.plus(Totals(row.flops, row.traffic, row.received, row.local.seconds, row.communication_seconds))
    return result


def price_program(
    planned: PlannedProgram,
    network: Network,
    precision: Precision | str,
    *,
    causal: bool = False,
    execution: Execution | None = None,
) -> tuple[PricedStatement, ...]:
    """Price every statement of a planned program.

    Args:
        planned: statements with layouts.
        network: the mesh bound to the links of a system.
        precision: what einsums are computed in: those with a weight in its compute type, others in its activations'
            type; an element type stands for all of them.
        causal: a fused group skips the pairs of queries and keys that its mask hides, as flash attention does; else
            every pair counts.
        execution: how local work is run, to be timed by what the chip's kernels reach (`efficiency`); None prices it by
            the roofline.

    A fused group is one kernel: its time is that of its whole FLOPs and of the bytes that leave the chip, shared out
    among its statements by FLOPs.
    """
    inside = never_written(planned)
    rates = rates_of(planned, precision)
    rows = [_price(row, planned, network, rates, inside) for row in planned.statements]
    fuse = planned.strategy.policy.fuse
    done: list[PricedStatement] = []
    for key, group in _runs(rows):
        fused = bool(key) and key in fuse
        seen = _attended(group, planned) if fused and causal else group
        kernel = _fused(seen, planned, network, rates) if fused else group
        if execution is not None:
            kernel = _executed(kernel, fused, planned, rates, execution, network.system.chip)
        done += _hidden(kernel, planned.mesh)
    return tuple(done if execution is None else _launched(done, planned, execution, network.system.chip))


PRODUCTS = ("newton_schulz", "delta_rule", "delta_rule_backward")
"""Maps that are matrix products: their FLOPs run at the rate of one."""


def rates_of(planned: PlannedProgram, precision: Precision | str) -> dict[str, str]:
    """First output of each statement that is a matrix product -> the element type it is computed in."""
    chosen = uniform(precision) if isinstance(precision, str) else precision
    rates = computed(planned.program, chosen)
    for row in planned.statements:
        if row.statement.op in PRODUCTS:
            rates[row.statement.output] = planned.program.table[row.statement.output].dtype
    return rates


def _price(
    row: PlannedStatement, planned: PlannedProgram, network: Network, rates: Mapping[str, str], inside: frozenset[str]
) -> PricedStatement:
    degrees = planned.degrees
    flops = int(work_flops(row.work, planned.sizes, degrees))
    traffic = int(work_traffic(row.work, planned.sizes, degrees, inside))
    rate = rates.get(row.statement.output)
    local = local_seconds(flops if rate else 0, traffic, rate or "fp32", network.system.chip)
    return PricedStatement(row, flops, traffic, local, tuple(price_collectives(row.collectives, planned, network)))


def price_collectives(
    steps: Iterable[Collective], planned: PlannedProgram, network: Network
) -> Iterable[PricedCollective]:
    """Price moves, one after the other."""
    for step in steps:
        alone = Plan((step.tensor,), (step.before,), (step,), step.tensor, step.after)
        seconds = step_seconds(step, planned.sizes, network)
        moved = int(received(step, planned.sizes, planned.mesh))
        bound = int(placement_bound(alone, planned.sizes, planned.mesh))
        if step.distinct:  # the bound counts the copies, of which some are not sent
            bound = min(bound, moved)
        yield PricedCollective(step, moved, seconds, bound, seconds)


def _runs(rows: list[PricedStatement]) -> Iterable[tuple[str, list[PricedStatement]]]:
    """Consecutive statements of one fused group and one phase."""
    run: list[PricedStatement] = []
    key = ""
    for row in rows:
        statement = row.planned.statement
        this = statement.group
        if run and (this != key or row.planned.phase != run[-1].planned.phase):
            yield key, run
            run = []
        run.append(row)
        key = this
    if run:
        yield key, run


def _attended(rows: list[PricedStatement], planned: PlannedProgram) -> list[PricedStatement]:
    """Statements of one kernel, FLOPs on pairs of queries and keys counted only for those its mask lets through."""
    mask = next((row.planned.statement for row in rows if row.planned.statement.op in ("mask", "mask_backward")), None)
    if mask is None:
        return rows
    query, key = str(mask.option("query")), str(mask.option("key"))
    pairs = planned.sizes[query] * planned.sizes[key]
    attended = int(attended_pairs(mask, planned.sizes[query], planned.sizes[key]))
    table = planned.program.table
    counted = []
    for row in rows:
        statement = row.planned.statement
        axes = {axis for name in statement.inputs for axis in table[name].axes}
        axes |= {label for operand in statement.labels for label in operand}
        whole = {query, key} <= axes
        counted.append(replace(row, flops=int(ceil_div(row.flops * attended, pairs))) if whole else row)
    return counted


def _executed(
    rows: list[PricedStatement],
    fused: bool,
    planned: PlannedProgram,
    rates: Mapping[str, str],
    execution: Execution,
    chip: Chip,
) -> list[PricedStatement]:
    """The same statements, their local work timed by what the chip's kernels reach."""
    works = [
        Local(row.planned, row.flops, row.traffic, row.local, any(priced.seconds for priced in row.collectives))
        for row in rows
    ]
    return [
        replace(row, traffic=work.traffic, local=work.local)
        for row, work in zip(rows, execute(works, fused, planned, rates, execution, chip), strict=True)
    ]


def _launched(
    rows: list[PricedStatement], planned: PlannedProgram, execution: Execution, chip: Chip
) -> list[PricedStatement]:
    """Statements of each pass, which is never shorter than the host takes to send its kernels.

    The host runs ahead while kernels are long, so the floor is that of a pass and not of each kernel. Kernels of an
    update are sent for many parameters at once, so they have none.
    """
    longer: dict[str, float] = {}
    for phase in dict.fromkeys(row.planned.phase for row in rows):
        here = [row for row in rows if row.planned.phase == phase]
        sent = sum(row.local.kernels for row in here)
        sent += sum(1 for row in here for p in row.collectives if p.seconds)
        working = sum(float(row.local.seconds) for row in here)
        moving = sum(
            p.exposed_seconds
            for row in here
            for p in row.collectives
            if moved_class(planned.program, p.step.tensor.name) in ("activations", "statistics")
        )
        host = 0.0 if phase == UPDATE else launch_seconds(sent, execution, chip)
        longer[phase] = (host - moving) / working if working and host - moving > working else 1.0
    return [
        row
        if longer[row.planned.phase] == 1.0
        else replace(
            row,
            local=replace(row.local, seconds=float(row.local.seconds) * longer[row.planned.phase], launched=longer[row.planned.phase]),
        )
        for row in rows
    ]


def _once(rows: list[PricedStatement], planned: PlannedProgram) -> list[PricedStatement]:
    """Statements of one kernel, each tensor that enters or leaves it counted where it first occurs.

    What the kernel keeps of a softmax for the backward pass, its log-sum-exp, is written forward and read backward.
    """
    seen = set(never_written(planned))
    degrees = planned.degrees
    counted = []
    for row in rows:
        traffic = int(work_traffic(row.planned.work, planned.sizes, degrees, seen))
        for held in kept_residuals(planned, row.planned):
            traffic += held
        touched = (*work_reads(row.planned.work), *work_results(row.planned.work))
        seen.update(tensor.name for tensor, _ in touched)
        counted.append(replace(row, traffic=traffic))
    return counted


def _fused(
    rows: list[PricedStatement], planned: PlannedProgram, network: Network, rates: Mapping[str, str]
) -> list[PricedStatement]:
    """Statements of one kernel, its time shared out by their FLOPs."""
    rows = _once(rows, planned)
    whole = _kernel(rows, rates, network)
    every = sum(row.flops for row in rows)
    shared = []
    for row in rows:
        share = row.flops / every if every else 1 / len(rows)
        local = replace(
            whole,
            seconds=whole.seconds * share,
            compute_seconds=whole.compute_seconds * share,
            memory_seconds=whole.memory_seconds * share,
        )
        shared.append(PricedStatement(row.planned, row.flops, row.traffic, local, row.collectives))
    return shared


def _kernel(rows: list[PricedStatement], rates: Mapping[str, str], network: Network) -> LocalTime:
    """Time of one kernel: that of its products, each at its rate, or that of its bytes."""
    flops: dict[str, int] = {}
    for row in rows:
        rate = rates.get(row.planned.statement.output)
        if rate:
            flops[rate] = flops.get(rate, 0) + row.flops
    chip, traffic = network.system.chip, sum(row.traffic for row in rows)
    if len(flops) < 2:
        rate, count = next(iter(flops.items()), ("fp32", 0))
        return local_seconds(count, traffic, rate, chip)
    parts = [local_seconds(count, 0, rate, chip) for rate, count in flops.items()]
    memory = local_seconds(0, traffic, "fp32", chip)
    compute = sum(float(part.compute_seconds) for part in parts)
    measured = any(part.provenance == "modelled" for part in (*parts, memory))
    return LocalTime(
        max(compute, memory.memory_seconds),
        compute,
        memory.memory_seconds,
        "modelled" if measured else "bound",
    )


def _hidden(rows: list[PricedStatement], mesh: Mesh) -> list[PricedStatement]:
    """Statements of one group; what is streamed is hidden by their local work.

    A ring of n devices computes n blocks and passes n - 1 of them on meanwhile, so (n - 1)/n of the work can hide the
    moves (Liu et al. 2023, Ring Attention, arXiv 2310.01889).
    """
    streamed = [priced for row in rows for priced in row.collectives if priced.step.streamed]
    moving = sum(priced.seconds for priced in streamed)
    if not moving:
        return rows
    ways = max(int(shards(priced.step.axes, mesh.degrees)) for priced in streamed)
    window = sum(float(row.local.seconds) for row in rows) * (ways - 1) / ways
    exposed = max(0.0, moving - window) / moving
    return [
        replace(
            row,
            collectives=tuple(
                replace(priced, exposed_seconds=priced.seconds * exposed, hidden_by=Hider(HidingWork.RING_BLOCK))
                if priced.step.streamed
                else priced
                for priced in row.collectives
            ),
        )
        for row in rows
    ]
