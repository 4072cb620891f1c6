"""A planned program on real hardware: FLOPs, bytes and seconds of every statement and every collective."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from einscale.bounds import placement_bound
from einscale.collectives import Collective, received
from einscale.layout import shards
from einscale.mesh import Mesh
from einscale.plan import LocalEinsum, Plan, work_flops, work_reads, work_results, work_traffic
from einscale.planner.fusion import kept_residuals, never_written
from einscale.planner.program import PlannedProgram, PlannedStatement
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
    """

    step: Collective
    bytes: int
    seconds: float
    bound_bytes: int
    exposed_seconds: float

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


def price_program(planned: PlannedProgram, network: Network, dtype: str) -> tuple[PricedStatement, ...]:
    """Price every statement of a planned program.

    Args:
        planned: statements with layouts.
        network: the mesh bound to the links of a system.
        dtype: element type the einsums are computed in.

    A fused group is one kernel: its time is that of its whole FLOPs and of the bytes that leave the chip, shared out
    among its statements by FLOPs.
    """
    inside = never_written(planned)
    rows = [_price(row, planned, network, dtype, inside) for row in planned.statements]
    fuse = planned.strategy.policy.fuse
    done: list[PricedStatement] = []
    for key, group in _runs(rows):
        kernel = _fused(group, planned, network, dtype) if key and key in fuse else group
        done += _hidden(kernel, planned.mesh)
    return tuple(done)


def _price(
    row: PlannedStatement, planned: PlannedProgram, network: Network, dtype: str, inside: frozenset[str]
) -> PricedStatement:
    degrees = planned.mesh.degrees
    flops = int(work_flops(row.work, planned.sizes, degrees))
    traffic = int(work_traffic(row.work, planned.sizes, degrees, inside))
    rate = dtype if isinstance(row.work, LocalEinsum) else None
    local = local_seconds(flops if rate else 0, traffic, dtype, network.system.chip)
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


def _once(rows: list[PricedStatement], planned: PlannedProgram) -> list[PricedStatement]:
    """Statements of one kernel, each tensor that enters or leaves it counted where it first occurs.

    What the kernel keeps of a softmax for the backward pass, its log-sum-exp, is written forward and read backward.
    """
    seen = set(never_written(planned))
    degrees = planned.mesh.degrees
    counted = []
    for row in rows:
        traffic = int(work_traffic(row.planned.work, planned.sizes, degrees, seen))
        for held in kept_residuals(planned, row.planned):
            traffic += held
        touched = (*work_reads(row.planned.work), *work_results(row.planned.work))
        seen.update(tensor.name for tensor, _ in touched)
        counted.append(replace(row, traffic=traffic))
    return counted


def _fused(rows: list[PricedStatement], planned: PlannedProgram, network: Network, dtype: str) -> list[PricedStatement]:
    """Statements of one kernel, its time shared out by their FLOPs."""
    rows = _once(rows, planned)
    flops = sum(row.flops for row in rows if isinstance(row.planned.work, LocalEinsum))
    whole = local_seconds(flops, sum(row.traffic for row in rows), dtype, network.system.chip)
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
                replace(priced, exposed_seconds=priced.seconds * exposed) if priced.step.streamed else priced
                for priced in row.collectives
            ),
        )
        for row in rows
    ]
