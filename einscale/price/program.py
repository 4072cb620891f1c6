"""A planned program on real hardware: FLOPs, bytes and seconds of every statement and every collective."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from einscale.bounds import placement_bound
from einscale.collectives import FREE, Collective, received_each
from einscale.efficiency import COMPILED, Execution, launch_seconds, launches
from einscale.hardware import Chip
from einscale.layout import shards
from einscale.numeric import Number, as_float, as_int, exact, largest, maximum, minimum, never, ratio, where
from einscale.planner.classes import moved_class
from einscale.planner.planned import PlannedProgram, PlannedStatement
from einscale.precision import Precision, uniform
from einscale.price.hiders import Hider, HidingWork
from einscale.price.kernels import KernelKind, kernels_of, local_work
from einscale.roofline import LocalTime
from einscale.steps import move_alone
from einscale.topology import AnyNetwork, step_seconds
from einscale.vocabulary import UPDATE, TensorClass


class PricedCollective(Struct, frozen=True):
    """A collective with its price.

    Args:
        step: the move.
        bytes: bytes a device receives.
        seconds: time on the network.
        exposed_seconds: what of the time no local work hides; all of it unless the move is streamed.
        hidden_by: the work that hides the rest, None where nothing does.
    """

    step: Collective
    bytes: Number
    seconds: Number
    exposed_seconds: Number
    hidden_by: Hider | None = None


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
    flops: Number
    traffic: Number
    local: LocalTime
    collectives: tuple[PricedCollective, ...]

    @property
    def communication_seconds(self) -> Number:
        """Time of its collectives that nothing hides, one after the other."""
        return sum((priced.exposed_seconds for priced in self.collectives), 0.0)

    @property
    def seconds(self) -> Number:
        """Local work and exposed collectives."""
        return self.local.seconds + self.communication_seconds

    @property
    def received(self) -> Number:
        """Bytes a device receives."""
        return sum(priced.bytes for priced in self.collectives)


class Totals(Struct, frozen=True):
    """Sums over statements, per device.

    Args:
        flops: FLOPs.
        traffic: bytes of HBM read and written.
        received: bytes received from other devices.
        compute_seconds: local work.
        communication_seconds: collectives that no other work hides.
        waiting_seconds: neither, as in a pipeline's bubble.
    """

    flops: Number
    traffic: Number
    received: Number
    compute_seconds: Number
    communication_seconds: Number
    waiting_seconds: Number = 0.0

    @property
    def seconds(self) -> Number:
        """Local work, exposed collectives and waiting, one after the other."""
        return self.compute_seconds + self.communication_seconds + self.waiting_seconds

    def times(self, repeat: Number) -> Totals:
        """The sums of so many layers."""
        return Totals(
            self.flops * repeat,
            self.traffic * repeat,
            self.received * repeat,
            self.compute_seconds * repeat,
            self.communication_seconds * repeat,
            self.waiting_seconds * repeat,
        )

    def plus(self, other: Totals) -> Totals:
        """The sums of both."""
        return Totals(
            self.flops + other.flops,
            self.traffic + other.traffic,
            self.received + other.received,
            self.compute_seconds + other.compute_seconds,
            self.communication_seconds + other.communication_seconds,
            self.waiting_seconds + other.waiting_seconds,
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
    network: AnyNetwork,
    precision: Precision | str,
    execution: Execution = COMPILED,
    *,
    causal: bool = False,
) -> tuple[PricedStatement, ...]:
    """Price every statement of a planned program.

    Args:
        planned: statements with layouts, at a point.
        network: the mesh bound to the links of a system, or the meshes of many points.
        precision: what einsums are computed in: those with a weight in its compute type, others in its activations'
            type; an element type stands for all of them.
        execution: how local work is run; how long its kernels take is the chip's affair (`efficiency`).
        causal: a fused group skips the pairs of queries and keys that its mask hides, as flash attention does; else
            every pair counts.
    """
    chosen = uniform(precision) if isinstance(precision, str) else precision
    chip = network.system.chip
    works = local_work(planned, chosen, execution, chip, causal=causal)
    rows = [
        PricedStatement(row, work.flops, work.traffic, work.time, price_collectives(row.collectives, planned, network))
        for row, work in zip(planned.statements, works, strict=True)
    ]
    for kernel in kernels_of(planned.structure, chosen, execution):
        if kernel.kind is KernelKind.FUSED:
            hidden = _beside_ring([rows[number] for number in kernel.members], planned)
            for number, row in zip(kernel.members, hidden, strict=True):
                rows[number] = row
    return _launched(rows, planned, execution, chip)


def price_collectives(
    steps: Iterable[Collective], planned: PlannedProgram, network: AnyNetwork
) -> tuple[PricedCollective, ...]:
    """Price moves, one after the other."""
    priced = []
    for step in steps:
        held = planned.held(step.tensor, step.before)
        seconds = step_seconds(step, planned.sizes, network, held)
        moved = exact(received_each(step, planned.sizes, planned.degrees, held))
        priced.append(PricedCollective(step, moved, seconds, seconds))
    return tuple(priced)


def bound_bytes(priced: PricedCollective, planned: PlannedProgram) -> int:
    """Bytes a device must receive however a move is done, given what it owns and needs (`bounds.placement_bound`)."""
    step = priced.step
    sizes = {name: as_int(size) for name, size in planned.sizes.items()}
    bound = as_int(placement_bound(move_alone(step), sizes, planned.mesh))
    return (
        as_int(minimum(bound, priced.bytes)) if step.distinct else bound
    )  # it counts the copies, of which some are not sent


def bound_ratio(priced: PricedCollective, planned: PlannedProgram) -> float:
    """Bytes moved over bytes that must move; 1.0 is as good as can be, and for a free move."""
    bound = bound_bytes(priced, planned)
    return as_float(priced.bytes) / bound if bound else 1.0


def _launched(
    rows: Sequence[PricedStatement], planned: PlannedProgram, execution: Execution, chip: Chip
) -> tuple[PricedStatement, ...]:
    """Statements of each pass, which is never shorter than the host takes to send its kernels.

    The host runs ahead while kernels are long, so the floor is that of a pass and not of each kernel. Kernels of an
    update are sent for many parameters at once, so they have none.
    """
    if not launches(execution, chip):
        return tuple(rows)
    longer: dict[str, Number] = {UPDATE: 1.0}
    for phase in dict.fromkeys(row.planned.phase for row in rows if row.planned.phase != UPDATE):
        here = [row for row in rows if row.planned.phase == phase]
        sent = sum(row.local.kernels for row in here)
        sent += sum(1 for row in here for priced in row.collectives if priced.step.kind not in FREE)
        working = sum(row.local.seconds for row in here)
        moving = sum(host_waits(row, planned) for row in here)
        waited = launch_seconds(sent, execution, chip) - moving
        longer[phase] = where(waited > working, ratio(waited, working, 1.0), 1.0)
    return tuple(
        row
        if never(longer[row.planned.phase] > 1.0)
        else replace(row, local=_stretched(row.local, longer[row.planned.phase]))
        for row in rows
    )


def host_waits(row: PricedStatement, planned: PlannedProgram) -> Number:
    """Seconds of a statement's collectives in which the device has no kernel to run, so that the host gets ahead."""
    return sum(
        priced.exposed_seconds
        for priced in row.collectives
        if moved_class(planned.program, priced.step.tensor.name) in (TensorClass.ACTIVATIONS, TensorClass.STATISTICS)
    )


def _stretched(local: LocalTime, times: Number) -> LocalTime:
    """Local work of a pass that waits for the host."""
    return replace(local, seconds=local.seconds * times, launched=times)


def _beside_ring(rows: list[PricedStatement], planned: PlannedProgram) -> list[PricedStatement]:
    """Statements of one kernel; what is streamed is hidden by their local work.

    A ring of n devices computes n blocks and passes n - 1 of them on meanwhile, so (n - 1)/n of the work can hide the
    moves (Liu et al. 2023, Ring Attention, arXiv 2310.01889).
    """
    streamed = [priced for row in rows for priced in row.collectives if priced.step.streamed]
    if not streamed:
        return rows
    moving = sum(priced.seconds for priced in streamed)
    ways = largest(shards(priced.step.axes, planned.degrees) for priced in streamed)
    window = sum(row.local.seconds for row in rows) * (ways - 1) / ways
    exposed = ratio(maximum(0.0, moving - window), moving, 0.0)
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
