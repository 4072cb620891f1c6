"""Where the time of one layer in a pass of new tokens goes: kernels by what bounds them, collectives by what they move.

Everything is arithmetic on numbers that may be arrays: one layer at one point, or at many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from einscale.efficiency import Execution
from einscale.layout import Layout, Tensor
from einscale.mesh import split_name
from einscale.numeric import Number, maximum, minimum, never, ratio, where
from einscale.planner.fusion import never_written
from einscale.planner.planned import PlannedProgram, Structure, of_structure
from einscale.precision import Precision
from einscale.price.kernels import kernels_of
from einscale.price.overlap import what_moves
from einscale.price.program import PricedStatement
from einscale.price.spent import Spent, SpentPart, TimePart, together
from einscale.program.shapes import CACHING
from einscale.steps import work_reads, work_results
from einscale.topology import AnyNetwork, coefficients
from einscale.vocabulary import CACHE, PARAMETER


class Touched(Struct, frozen=True):
    """What a kernel reads and writes.

    Args:
        members: numbers of its statements in the program.
        appending: those of them that put new tokens into a cache.
        caches: caches that the others touch.
        others: everything else but parameters.
        weights: whether it touches parameters.
    """

    members: tuple[int, ...]
    appending: tuple[int, ...]
    caches: tuple[tuple[Tensor, Layout], ...]
    others: tuple[tuple[Tensor, Layout], ...]
    weights: bool


@of_structure
def touched(structure: Structure, precision: Precision, execution: Execution) -> tuple[Touched, ...]:
    """What every kernel of a planned program touches, in order."""
    inside, table, found = never_written(structure), structure.program.table, []
    for kernel in kernels_of(structure, precision, execution):
        rows = [(number, structure.statements[number]) for number in kernel.members]
        tensors = {
            tensor.name: (tensor, layout)
            for _, row in rows
            if row.statement.op not in CACHING
            for tensor, layout in (*work_reads(row.work), *work_results(row.work))
            if tensor.name not in inside
        }
        kinds = {name: table[name].kind for name in tensors}
        found.append(
            Touched(
                members=kernel.members,
                appending=tuple(number for number, row in rows if row.statement.op in CACHING),
                caches=tuple(one for name, one in tensors.items() if kinds[name] == CACHE),
                others=tuple(one for name, one in tensors.items() if kinds[name] not in (CACHE, PARAMETER)),
                weights=PARAMETER in kinds.values(),
            )
        )
    return tuple(found)


def layer_spent(
    rows: Sequence[PricedStatement],
    planned: PlannedProgram,
    network: AnyNetwork,
    precision: Precision,
    execution: Execution,
) -> Spent:
    """Where the time of one layer goes.

    A kernel bound by compute counts as compute; one bound by memory is shared out by the bytes it moves.

    Args:
        rows: its priced statements.
        planned: its program at a point, or at many.
        network: what it was priced on.
        precision: element types.
        execution: how local work is run.
    """
    kernels = (
        part
        for kernel in touched(planned.structure, precision, execution)
        for part in _kernel_parts([rows[number] for number in kernel.members], kernel, planned)
    )
    return together((*kernels, *_moves(rows, planned, network)))


def _kernel_parts(rows: Sequence[PricedStatement], kernel: Touched, planned: PlannedProgram) -> Iterable[SpentPart]:
    """Where the time of one kernel goes, and of the one that converts its operands before it."""
    converting = sum(_converting_seconds(row) for row in rows)
    seconds = sum(row.local.seconds for row in rows) - converting
    compute = sum(row.local.compute_seconds for row in rows)
    memory = sum(row.local.memory_seconds for row in rows) - converting
    work = minimum(seconds, maximum(compute, memory))
    arithmetic = (compute >= memory) & (compute > 0)
    reading = where(arithmetic, 0.0, work)
    weights, cache, other = _traffic(rows, kernel, planned)
    every = weights + cache + other
    yield SpentPart(TimePart.WEIGHTS, ratio(reading * weights, every, 0.0))
    yield SpentPart(TimePart.CACHE, ratio(reading * cache, every, 0.0))
    yield SpentPart(TimePart.TRAFFIC, where(every > 0, ratio(reading * other, every, 0.0), reading) + converting)
    yield SpentPart(TimePart.COMPUTE, where(arithmetic, work, 0.0))
    yield SpentPart(TimePart.LAUNCH, seconds - work)


def _converting_seconds(row: PricedStatement) -> Number:
    """Time of the kernel that converts the operands of a product to a narrower type, its start left out."""
    return ratio(row.local.memory_seconds * row.local.converted, row.traffic, 0.0)


def _traffic(
    rows: Sequence[PricedStatement], kernel: Touched, planned: PlannedProgram
) -> tuple[Number, Number, Number]:
    """Bytes one kernel reads and writes: of weights, of caches, of everything else; converting operands left out."""
    written: Number = 0
    every: Number = 0
    for number, row in zip(kernel.members, rows, strict=True):
        if number in kernel.appending:
            written = written + row.traffic
        else:
            every = every + row.traffic - row.local.converted
    cache = minimum(every, sum(planned.held(*one) for one in kernel.caches))
    if not kernel.weights:
        return 0, written + cache, every - cache
    other = sum(planned.held(*one) for one in kernel.others)
    weights = maximum(0, every - cache - other)
    return weights, written + cache, every - cache - weights


def _moves(rows: Iterable[PricedStatement], planned: PlannedProgram, network: AnyNetwork) -> Iterable[SpentPart]:
    """Collectives by what they move and the mesh axes they run over, each with what does not depend on its bytes."""
    for row in rows:
        for priced in row.collectives:
            if never(priced.bytes > 0):
                continue
            alpha, _ = coefficients(priced.step.kind, priced.step.axes, network)
            yield SpentPart(
                TimePart(what_moves(planned, priced)),
                priced.exposed_seconds,
                axis="/".join(dict.fromkeys(split_name(axis)[0] for axis in priced.step.axes)),
                bytes=priced.bytes,
                count=1,
                latency=minimum(alpha, priced.exposed_seconds),
            )
