"""Kernels that the statements of a planned program become, and the time of each on a chip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from einscale.dtypes import bytes_of
from einscale.efficiency import (
    QUERIES,
    Execution,
    attention_block,
    attention_blocks,
    attention_seconds,
    local_product,
    memory_rate,
    moving_seconds,
    product_seconds,
)
from einscale.hardware import Chip
from einscale.layout import local_bytes, local_elements
from einscale.plan import LocalEinsum, work_reads, work_results, work_traffic
from einscale.planner.planned import BACKWARD, UPDATE, PlannedProgram, PlannedStatement
from einscale.program.cache import KEYS, SEQUENCE
from einscale.program.maps import statistics
from einscale.roofline import LocalTime

NARROW = {
    "fp8": "fp8",
    "fp8b": "fp8",
    "mxfp8": "fp8",
    "int8": "int8",
    "fp6": "fp8",
    "fp4": "fp4",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
}
"""Element types that operands are converted to before they are multiplied -> the type their elements are stored in."""

COPIES = 2
"""Narrow copies of an operand in training, for each direction it is contracted in: forward, the weight's gradient."""


class Local(Struct, frozen=True):
    """The local work of a statement.

    Args:
        planned: the statement with its layouts.
        flops: FLOPs of one device.
        traffic: bytes of HBM that one device reads and writes.
        local: its time.
        moves: whether it makes the network work, which ends a kernel.
    """

    planned: PlannedStatement
    flops: int
    traffic: int
    local: LocalTime
    moves: bool

    @property
    def is_map(self) -> bool:
        """Whether it is a map, not an einsum."""
        return not isinstance(self.planned.work, LocalEinsum)


def execute(
    rows: Sequence[Local],
    fused: bool,
    planned: PlannedProgram,
    rates: Mapping[str, str],
    execution: Execution,
    chip: Chip,
) -> list[Local]:
    """Time the statements of one run by the kernels they become.

    Args:
        rows: consecutive statements of one group and pass.
        fused: whether they are one kernel; its FLOPs and bytes are shared out among them.
        planned: the program they belong to.
        rates: result of a matrix product -> the element type it is computed in.
        execution: how maps become kernels.
        chip: the chip.
    """
    if fused:
        return _whole(rows, planned, rates, execution, chip)
    done: list[Local] = []
    run: list[Local] = []
    for row in rows:
        if run and (not row.is_map or _ends(run[-1], row, execution)):
            done += _joined(run, planned, chip)
            run = []
        if not row.is_map or row.planned.statement.output in rates:
            done.append(_product(row, planned, rates, chip))
        elif not run and _bias_of(row, done, planned):
            done.append(replace(row, traffic=0, local=LocalTime(0.0, 0.0, 0.0, "modelled", 0)))
        else:
            run.append(row)
    return done + (_joined(run, planned, chip) if run else [])


def _ends(before: Local, row: Local, execution: Execution) -> bool:
    """Whether a map starts a kernel of its own, not joined to the map before it."""
    statement, last = row.planned.statement, before.planned.statement
    if execution.elementwise == "eager" or statement.phase != last.phase or statement.phase == UPDATE:
        return True
    return bool(statistics(last)) or before.moves or row.moves


def _bias_of(row: Local, done: Sequence[Local], planned: PlannedProgram) -> bool:
    """Whether a statement adds a bias to the einsum just before it: the product's kernel does so while it writes."""
    statement = row.planned.statement
    if statement.op != "add" or len(statement.inputs) != 2 or row.moves or not done:
        return False
    before, table = done[-1], planned.program.table
    if before.is_map or before.moves or before.planned.statement.output not in statement.inputs:
        return False
    return any(table[name].kind == "parameter" for name in statement.inputs)


def _whole(
    rows: Sequence[Local], planned: PlannedProgram, rates: Mapping[str, str], execution: Execution, chip: Chip
) -> list[Local]:
    """Statements of one fused kernel, its time shared out by FLOPs."""
    flops = sum(row.flops for row in rows if row.planned.statement.output in rates)
    traffic = sum(row.traffic for row in rows)
    rate = next((rates[row.planned.statement.output] for row in rows if row.planned.statement.output in rates), "")
    backward = any(row.planned.statement.phase == BACKWARD for row in rows)
    time = moving_seconds(traffic, chip)
    if rate:
        first = next((row.planned.work for row in rows if isinstance(row.planned.work, LocalEinsum)), None)
        queries, keys = (planned.sizes.get(axis, QUERIES) for axis in (SEQUENCE, KEYS))
        few = queries < QUERIES  # decoding, however many heads share the keys
        scores = local_product(first, planned.sizes, planned.degrees) if first is not None and not few else None
        time = attention_seconds(
            flops,
            traffic,
            rate,
            chip,
            block=attention_block(scores) if scores is not None else 0,
            blocks=attention_blocks(scores) if scores is not None and keys > queries else 0,
            backward=backward,
            library=execution.attention,
        )
    every = sum(row.flops for row in rows)
    shares = [row.flops / every if every else 1 / len(rows) for row in rows]
    return [
        replace(row, local=_part(time, share, not number))
        for number, (row, share) in enumerate(zip(rows, shares, strict=True))
    ]


def _part(time: LocalTime, share: float, first: bool) -> LocalTime:
    """A share of a kernel's time; the first of its statements counts the kernel."""
    return replace(
        time,
        seconds=time.seconds * share,
        compute_seconds=time.compute_seconds * share,
        memory_seconds=time.memory_seconds * share,
        kernels=time.kernels if first else 0,
    )


def _joined(rows: Sequence[Local], planned: PlannedProgram, chip: Chip) -> list[Local]:
    """Maps of one kernel: what comes in from outside is read once, what is read outside is written once."""
    degrees = planned.degrees
    seen = _inside(rows, planned) if len(rows) > 1 else set[str]()
    counted = []
    for row in rows:
        work, traffic = row.planned.work, row.traffic
        if len(rows) > 1:
            traffic = min(traffic, int(work_traffic(work, planned.sizes, degrees, seen)))
            seen.update(tensor.name for tensor, _ in (*work_reads(work), *work_results(work)))
        counted.append(replace(row, traffic=traffic))
    moved = sum(row.traffic for row in counted)
    time = moving_seconds(moved, chip)
    if rows[0].planned.phase == UPDATE:
        time = replace(time, seconds=time.memory_seconds, kernels=0)
    shares = [row.traffic / moved if moved else 1 / len(rows) for row in counted]
    return [
        replace(row, local=_part(time, share, not number))
        for number, (row, share) in enumerate(zip(counted, shares, strict=True))
    ]


def _inside(rows: Sequence[Local], planned: PlannedProgram) -> set[str]:
    """Values that the maps of one kernel make for each other alone."""
    here = {id(row.planned.statement) for row in rows}
    made = {name for row in rows for name in row.planned.statement.outputs}
    elsewhere = {
        name for statement in planned.program.statements if id(statement) not in here for name in statement.inputs
    }
    return made - elsewhere - set(planned.program.outputs)


def _product(row: Local, planned: PlannedProgram, rates: Mapping[str, str], chip: Chip) -> Local:
    """A matrix product, and the kernel that converts its operands where it is computed in a narrower type."""
    work, rate = row.planned.work, rates.get(row.planned.statement.output)
    shape = local_product(work, planned.sizes, planned.degrees) if isinstance(work, LocalEinsum) else None
    if rate is None:
        return replace(row, local=moving_seconds(row.traffic, chip))
    if shape is None:
        time = attention_seconds(row.flops, row.traffic, rate, chip)
        return replace(row, local=time)
    (result, layout), *_ = work_results(work)
    written = int(local_bytes(result, layout, planned.sizes, planned.degrees))
    time = product_seconds(shape, written, row.traffic, rate, chip)
    converted = _converted(row, planned, rate)
    if converted:
        seconds = moving_seconds(converted, chip)
        time = replace(
            time,
            seconds=time.seconds + seconds.seconds,
            memory_seconds=time.memory_seconds + converted / memory_rate(chip),
            kernels=2,
            converted=converted,
        )
    return replace(row, traffic=row.traffic + converted, local=time)


def _of_parameter(row: Local, planned: PlannedProgram) -> bool:
    """Whether it makes the gradient of a parameter."""
    value = planned.program.table[row.planned.statement.output]
    return value.kind == "gradient" and value.of in {one.name for one in planned.program.parameters}


def _converted(row: Local, planned: PlannedProgram, rate: str) -> int:
    """Bytes read and written to convert operands to a narrower type that they are multiplied in.

    An activation is converted where it is first multiplied, in training in both directions at once, so not again for
    the weight's gradient. Weights are converted once a step, which is left out.
    """
    narrow = NARROW.get(rate)
    if narrow is None or _of_parameter(row, planned):
        return 0
    table, found = planned.program.table, 0
    first: dict[str, str] = {}
    for statement in planned.program.statements:
        if statement.op == "einsum":
            for name in statement.inputs:
                first.setdefault(name, statement.output)
    work, copies = row.planned.work, COPIES if any(one.phase == BACKWARD for one in planned.statements) else 1
    for name, tensor, layout in zip(row.planned.statement.inputs, work.inputs, work.layouts, strict=True):
        if table[name].kind == "parameter" or tensor.dtype == narrow or first[name] != row.planned.statement.output:
            continue
        elements = local_elements(layout, tensor.indices, planned.sizes, planned.degrees, tensor.chosen)
        found += int(bytes_of(elements, tensor.dtype)) + copies * int(bytes_of(elements, narrow))
    return found
