"""Kernels that the statements of a planned program become, and the time of each on a chip.

Which statements share a kernel follows from the structure (`kernels_of`); what each takes from a point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

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
from einscale.hardware import Chip, flop_rate
from einscale.layout import local_elements
from einscale.numeric import Number, ceil_div, minimum, ratio, truncate, where
from einscale.planner.fusion import kept_residuals, never_written
from einscale.planner.planned import PlannedProgram, PlannedStatement, Structure, of_structure
from einscale.precision import Precision
from einscale.program.cache import KEYS, SEQUENCE
from einscale.program.maps import attended_pairs, statistics
from einscale.program.typed import computed
from einscale.roofline import LocalTime, local_seconds
from einscale.steps import LocalEinsum, work_flops, work_reads, work_results, work_traffic
from einscale.vocabulary import BACKWARD, GRADIENT, PARAMETER, UPDATE

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

PRODUCTS = ("newton_schulz", "delta_rule", "delta_rule_backward")
"""Maps that are matrix products: their FLOPs run at the rate of one."""


class KernelKind(StrEnum):
    """What a kernel is."""

    FUSED = "fused"
    """A group that the strategy fuses: values inside it never leave the chip."""

    PRODUCT = "product"
    """A matrix product, and the bias that its kernel adds while it writes."""

    MAPS = "maps"
    """Neighbouring maps: what comes in from outside is read once, what is read outside is written once."""


class Kernel(Struct, frozen=True):
    """Statements that run as one kernel.

    Args:
        kind: what it is.
        members: numbers of its statements in the program, in order.
    """

    kind: KernelKind
    members: tuple[int, ...]


class Local(Struct, frozen=True):
    """The local work of a statement.

    Args:
        flops: FLOPs of one device.
        traffic: bytes of HBM that one device reads and writes.
        time: its time; of a kernel with several statements, its share.
    """

    flops: Number
    traffic: Number
    time: LocalTime


@of_structure
def rates_of(structure: Structure, precision: Precision) -> Mapping[str, str]:
    """First output of each statement that is a matrix product -> the element type it is computed in."""
    rates = computed(structure.program, precision)
    for row in structure.statements:
        if row.statement.op in PRODUCTS:
            rates[row.statement.output] = structure.program.table[row.statement.output].dtype
    return rates


@of_structure
def kernels_of(structure: Structure, precision: Precision, execution: Execution) -> tuple[Kernel, ...]:
    """Kernels of a planned program, in order; every statement is in one.

    Args:
        structure: the planned program.
        precision: says which statements are matrix products.
        execution: how neighbouring maps are run.
    """
    rates, fuse = rates_of(structure, precision), structure.strategy.policy.fuse
    found: list[Kernel] = []
    for group, run in _runs(structure.statements):
        if group and group in fuse:
            found.append(Kernel(KernelKind.FUSED, run))
        else:
            found += _apart(run, structure, rates, execution)
    return tuple(found)


def _runs(statements: Sequence[PlannedStatement]) -> list[tuple[str, tuple[int, ...]]]:
    """Consecutive statements of one group and one pass."""
    found: list[tuple[str, tuple[int, ...]]] = []
    for number, row in enumerate(statements):
        group = row.statement.group
        if found and found[-1][0] == group and statements[number - 1].phase == row.phase:
            found[-1] = group, (*found[-1][1], number)
        else:
            found.append((group, (number,)))
    return found


def _apart(run: Sequence[int], structure: Structure, rates: Mapping[str, str], execution: Execution) -> list[Kernel]:
    """Kernels of statements that are not fused as a whole."""
    found: list[Kernel] = []
    for number in run:
        row, last = structure.statements[number], found[-1] if found else None
        if isinstance(row.work, LocalEinsum) or row.statement.output in rates:
            found.append(Kernel(KernelKind.PRODUCT, (number,)))
        elif last is not None and _adds_bias(structure, last, number):
            found[-1] = Kernel(KernelKind.PRODUCT, (*last.members, number))
        elif last is not None and last.kind is KernelKind.MAPS and _joins(structure, last, number, execution):
            found[-1] = Kernel(KernelKind.MAPS, (*last.members, number))
        else:
            found.append(Kernel(KernelKind.MAPS, (number,)))
    return found


def _joins(structure: Structure, last: Kernel, number: int, execution: Execution) -> bool:
    """Whether a map runs in the kernel of the maps before it."""
    row, before = structure.statements[number], structure.statements[last.members[-1]]
    if execution.elementwise == "eager" or row.statement.phase != before.statement.phase:
        return False
    if row.statement.phase == UPDATE:
        return False
    return not statistics(before.statement) and not before.sends and not row.sends


def _adds_bias(structure: Structure, last: Kernel, number: int) -> bool:
    """Whether a statement adds a bias to the einsum just before it: the product's kernel does so while it writes."""
    row, before = structure.statements[number], structure.statements[last.members[-1]]
    statement = row.statement
    if statement.op != "add" or len(statement.inputs) != 2 or row.sends:
        return False
    if not isinstance(before.work, LocalEinsum) or before.sends or before.statement.output not in statement.inputs:
        return False
    return any(structure.program.table[name].kind == PARAMETER for name in statement.inputs)


def local_work(
    planned: PlannedProgram, precision: Precision, execution: Execution, chip: Chip, *, causal: bool = False
) -> tuple[Local, ...]:
    """FLOPs, bytes and seconds of every statement's local work, in order.

    Args:
        planned: the program at a point.
        precision: element types that products are computed in.
        execution: how local work is run.
        chip: the chip.
        causal: a fused group skips the pairs of queries and keys that its mask hides, as flash attention does; else
            every pair counts.
    """
    sizes, degrees = planned.sizes, planned.degrees
    rates = rates_of(planned.structure, precision)
    flops = [truncate(work_flops(row.work, sizes, degrees)) for row in planned.statements]
    found: dict[int, Local] = {}
    for kernel in kernels_of(planned.structure, precision, execution):
        if kernel.kind is KernelKind.FUSED:
            found |= _fused(kernel, flops, planned, rates, execution, chip, causal=causal)
        elif kernel.kind is KernelKind.MAPS:
            found |= _maps(kernel, flops, planned, chip)
        else:
            found |= _product(kernel, flops, planned, rates, chip)
    return tuple(found[number] for number in range(len(flops)))


def _traffic(planned: PlannedProgram, number: int, resident: set[str] | frozenset[str]) -> Number:
    """Bytes that one statement reads and writes, of tensors that are not on chip already."""
    work = planned.statements[number].work
    return truncate(work_traffic(work, planned.sizes, planned.degrees, resident, planned.held))


def _fused(
    kernel: Kernel,
    flops: Sequence[Number],
    planned: PlannedProgram,
    rates: Mapping[str, str],
    execution: Execution,
    chip: Chip,
    *,
    causal: bool,
) -> dict[int, Local]:
    """Statements of one fused kernel, its time shared out by FLOPs; each tensor that enters or leaves it counts once.

    What the kernel keeps of a softmax for the backward pass, its log-sum-exp, is written forward and read backward.
    """
    rows = [planned.statements[number] for number in kernel.members]
    counted = _attended(kernel, flops, planned) if causal else [flops[number] for number in kernel.members]
    seen, traffic = set(never_written(planned.structure)), []
    for number, row in zip(kernel.members, rows, strict=True):
        traffic.append(_traffic(planned, number, seen) + sum(kept_residuals(planned, row)))
        seen.update(tensor.name for tensor, _ in (*work_reads(row.work), *work_results(row.work)))
    time = _attention(rows, counted, sum(traffic), planned, rates, execution, chip)
    every = sum(counted)
    return {
        number: Local(counted[at], traffic[at], time.share(ratio(counted[at], every, 1 / len(rows)), first=not at))
        for at, number in enumerate(kernel.members)
    }


def _attention(
    rows: Sequence[PlannedStatement],
    flops: Sequence[Number],
    traffic: Number,
    planned: PlannedProgram,
    rates: Mapping[str, str],
    execution: Execution,
    chip: Chip,
) -> LocalTime:
    """Time of a fused kernel: of its products at the rate of the first, of its bytes if it has none."""
    multiplied = [
        (rates[row.statement.output], count)
        for row, count in zip(rows, flops, strict=True)
        if row.statement.output in rates
    ]
    if not multiplied:
        return moving_seconds(traffic, chip)
    rate = multiplied[0][0]
    work = sum(
        count if one == rate else count * flop_rate(chip, rate) / flop_rate(chip, one) for one, count in multiplied
    )
    first = next((row.work for row in rows if isinstance(row.work, LocalEinsum)), None)
    queries, keys = (planned.sizes.get(axis, QUERIES) for axis in (SEQUENCE, KEYS))
    scores = local_product(first, planned.sizes, planned.degrees) if first is not None else None
    many = queries >= QUERIES  # else decoding, however many heads share the keys
    return attention_seconds(
        work,
        traffic,
        rate,
        chip,
        block=where(many, attention_block(scores), 0) if scores is not None else 0,
        blocks=where(many & (keys > queries), attention_blocks(scores), 0) if scores is not None else 0,
        backward=any(row.statement.phase == BACKWARD for row in rows),
        library=execution.attention,
    )


def _attended(kernel: Kernel, flops: Sequence[Number], planned: PlannedProgram) -> list[Number]:
    """FLOPs of the statements of one kernel, on pairs of queries and keys only of those its mask lets through."""
    statements = [planned.statements[number].statement for number in kernel.members]
    mask = next((one for one in statements if one.op in ("mask", "mask_backward")), None)
    if mask is None:
        return [flops[number] for number in kernel.members]
    query, key = str(mask.option("query")), str(mask.option("key"))
    pairs = planned.sizes[query] * planned.sizes[key]
    attended = truncate(attended_pairs(mask, planned.sizes[query], planned.sizes[key]))
    table, counted = planned.program.table, []
    for number, statement in zip(kernel.members, statements, strict=True):
        axes = {axis for name in statement.inputs for axis in table[name].axes}
        axes |= {label for operand in statement.labels for label in operand}
        whole = {query, key} <= axes
        counted.append(ceil_div(flops[number] * attended, pairs) if whole else flops[number])
    return counted


def _maps(kernel: Kernel, flops: Sequence[Number], planned: PlannedProgram, chip: Chip) -> dict[int, Local]:
    """Maps of one kernel, its time shared out by bytes."""
    inside = never_written(planned.structure)
    traffic = [_traffic(planned, number, inside) for number in kernel.members]
    if len(traffic) > 1:
        seen = set(_made_inside(planned.structure, kernel))
        for at, number in enumerate(kernel.members):
            traffic[at] = minimum(traffic[at], _traffic(planned, number, seen))
            work = planned.statements[number].work
            seen.update(tensor.name for tensor, _ in (*work_reads(work), *work_results(work)))
    moved = sum(traffic)
    time = moving_seconds(moved, chip)
    if planned.statements[kernel.members[0]].phase == UPDATE:  # sent for many parameters at once
        time = replace(time, seconds=time.memory_seconds, kernels=0)
    return {
        number: Local(flops[number], traffic[at], time.share(ratio(traffic[at], moved, 1 / len(traffic)), first=not at))
        for at, number in enumerate(kernel.members)
    }


@of_structure
def _made_inside(structure: Structure, kernel: Kernel) -> frozenset[str]:
    """Values that the maps of one kernel make for each other alone."""
    here = set(kernel.members)
    made = {name for number in here for name in structure.statements[number].statement.outputs}
    elsewhere = {
        name for number, row in enumerate(structure.statements) if number not in here for name in row.statement.inputs
    }
    return frozenset(made - elsewhere - set(structure.program.outputs))


def _product(
    kernel: Kernel, flops: Sequence[Number], planned: PlannedProgram, rates: Mapping[str, str], chip: Chip
) -> dict[int, Local]:
    """A matrix product, the kernel that converts its operands where it is computed in a narrower type, and its bias."""
    number, *biases = kernel.members
    row, traffic = planned.statements[number], _traffic(planned, number, never_written(planned.structure))
    rate = rates.get(row.statement.output)
    product = isinstance(row.work, LocalEinsum) and local_product(row.work, planned.sizes, planned.degrees)
    converted: Number = 0
    if rate is None:
        time = moving_seconds(traffic, chip)
    elif not product:
        time = attention_seconds(flops[number], traffic, rate, chip)
    else:
        (result, layout), *_ = work_results(row.work)
        if chip.kernels is None:  # a roofline counts the rows of an expert as they are on average, not in whole rows
            time = local_seconds(flops[number], traffic, rate, chip)
        else:
            time = product_seconds(product, planned.held(result, layout), traffic, rate, chip)
        converting = _conversions(planned.structure, number, rate)
        converted = _converted(planned, number, converting, rate)
        if converting:
            before = moving_seconds(converted, chip)
            memory = time.memory_seconds + converted / memory_rate(chip)
            time = replace(
                time, seconds=time.seconds + before.seconds, memory_seconds=memory, kernels=2, converted=converted
            )
    nothing = LocalTime(0.0, 0.0, 0.0, time.provenance, 0)
    written = {bias: Local(flops[bias], 0, nothing) for bias in biases}
    return {number: Local(flops[number], traffic + converted, time), **written}


@of_structure
def _conversions(structure: Structure, number: int, rate: str) -> tuple[int, ...]:
    """Operands of a product that are converted to a narrower type that it is computed in, by position.

    An activation is converted where it is first multiplied, in training in both directions at once, so not again for
    the weight's gradient. Weights are converted once a step, which is left out.
    """
    row, table = structure.statements[number], structure.program.table
    narrow, made = NARROW.get(rate), structure.program.table[row.statement.output]
    if narrow is None or (made.kind == GRADIENT and made.of in {one.name for one in structure.program.parameters}):
        return ()
    first: dict[str, str] = {}
    for statement in structure.program.statements:
        if statement.op == "einsum":
            for name in statement.inputs:
                first.setdefault(name, statement.output)
    return tuple(
        position
        for position, (name, tensor) in enumerate(zip(row.statement.inputs, row.work.inputs, strict=True))
        if table[name].kind != PARAMETER and tensor.dtype != narrow and first[name] == row.statement.output
    )


def _converted(planned: PlannedProgram, number: int, operands: Sequence[int], rate: str) -> Number:
    """Bytes read and written to convert operands of a product."""
    work, narrow = planned.statements[number].work, NARROW.get(rate, rate)
    copies = COPIES if any(one.phase == BACKWARD for one in planned.statements) else 1
    found: Number = 0
    for position in operands:
        tensor, layout = work.inputs[position], work.layouts[position]
        elements = local_elements(layout, tensor.indices, planned.sizes, planned.degrees, tensor.chosen)
        found += bytes_of(elements, tensor.dtype) + copies * bytes_of(elements, narrow)
    return found
