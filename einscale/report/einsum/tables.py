"""The plan report: one row for each step, the answer per device, the lower bounds, and how to read it all."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from einscale.bounds import BoundName
from einscale.collectives import Collective
from einscale.mesh import split_name
from einscale.price.alternatives import Alternative, Avoidance
from einscale.price.plan import LowerBounds, PricedPlan, PricedStep
from einscale.report.causes import cause_words
from einscale.report.einsum.steps import StepWords, explain_plan, move_text, placement_words, step_title, work_text
from einscale.report.table import Cell, Column, Report, Row, Table, format_ratio
from einscale.units import format_bytes, format_flops, format_seconds
from einscale.vocabulary import BYTES, Aim

STEPS = (
    Column("step", "step", wrap=True),
    Column("flops", "FLOPs", "flops"),
    Column("received_bytes", "received", "bytes"),
    Column("seconds", "time", "seconds"),
    Column("bound_ratio", "x bound", "ratio"),
    Column("limited_by", "limited by"),
    Column("layout", "layout", detail=True),
    Column("cause", "cause", detail=True),
)

FORMULAS = (*STEPS, Column("amount", "amount", detail=True), Column("time_formula", "time formula", detail=True))

WAYS = (
    Column("placement", "work divided as", wrap=True),
    Column("flops", "FLOPs", "flops"),
    Column("received_bytes", "received", "bytes"),
    Column("memory_bytes", "memory", "bytes"),
    Column("seconds", "time", "seconds"),
    Column("ratio", "x this", "ratio"),
    Column("steps", "its steps", detail=True),
)

AVOID = (
    Column("change", "change", wrap=True),
    Column("received_bytes", "received", "bytes"),
    Column("memory_bytes", "memory", "bytes"),
    Column("seconds", "time", "seconds"),
    Column("ratio", "x this", "ratio"),
    Column("spec", "spec", detail=True),
)

MEMORY = (
    Column("part", "held"),
    Column("bytes", "bytes", "bytes"),
    Column("share", "of it all", "share"),
)

BOUNDS = {
    BoundName.PLACEMENT: (
        "what must arrive to go from where the tensors are to where this plan computes, however it is done"
    ),
    BoundName.LAYOUT_FREE: (
        "what any division of this einsum over these devices must move if each does an equal share of the work"
    ),
}
"""What each bound is, and under which assumption."""


class PlanView(Struct, frozen=True):
    """What a plan report shows beside the priced plan.

    Args:
        spec: canonical text of the question, its output layout filled in.
        objective: `time` or `bytes`.
        max_flops: the cap on FLOPs per device, if one was set.
        exact: whether the search for the plan was complete.
        bounds: lower bounds on the bytes a device receives.
        notes: what the reader must know about this plan: inexact search, verification.
    """

    spec: str
    objective: Aim
    max_flops: int | None
    exact: bool
    bounds: LowerBounds
    notes: tuple[str, ...] = ()


def plan_report(priced: PricedPlan, view: PlanView, units: str = "iec", *, detail: bool = False) -> Report:
    """A plan as a report: its steps, the answer, the bounds; with `detail` also what memory holds."""
    rows = tuple(_step_row(number, step) for number, step in enumerate(priced.steps, 1))
    table = Table("steps", "", STEPS, (*rows, _total_row(priced, view, len(STEPS))))
    tables = (table, _memory_table(priced)) if detail else (table,)
    return Report(_heading(priced, view), tables, _summary(priced, view, units), conventions(priced, view, units))


def explain_report(
    priced: PricedPlan,
    view: PlanView,
    alternatives: Sequence[Alternative],
    avoidances: Sequence[Avoidance],
    units: str = "iec",
    *,
    detail: bool = False,
) -> Report:
    """A plan with its reasons: formulas with operands, how to avoid each collective, other placements priced."""
    words = explain_plan(priced, units)
    rows = tuple(
        _formula_row(number, step, word) for number, (step, word) in enumerate(zip(priced.steps, words, strict=True), 1)
    )
    tables = [Table("steps", "", FORMULAS, (*rows, _total_row(priced, view, len(FORMULAS))))]
    tables += [_memory_table(priced)] if detail else []
    if avoidances:
        tables.append(
            Table("avoid", "how to avoid what moves", AVOID, tuple(_avoid_row(priced, view, a) for a in avoidances))
        )
    if alternatives:
        ways = tuple(_way_row(priced, view, a) for a in alternatives)
        tables.append(Table("alternatives", "other ways to divide the work, to the same result", WAYS, ways))
    summary = _summary(priced, view, units)
    return Report(_heading(priced, view), tuple(tables), summary, conventions(priced, view, units))


def _heading(priced: PricedPlan, view: PlanView) -> tuple[str, ...]:
    mesh = priced.mesh
    sizes = " ".join(f"{index}={size}" for index, size in priced.sizes.items())
    dtypes = ", ".join(dict.fromkeys(tensor.dtype for tensor in (*priced.plan.inputs, priced.plan.output)))
    cap = f", at most {format_flops(view.max_flops)} a device" if view.max_flops is not None else ""
    least = f"least {view.objective}{cap}"
    return (
        view.spec,
        f"mesh {mesh}, {mesh.devices:,} devices of {priced.network.system.name}; {least}",
        f"sizes {sizes}; {dtypes}" if sizes else dtypes,
    )


def _step_row(number: int, step: PricedStep) -> Row:
    work = step.step
    if isinstance(work, Collective):
        cells: tuple[Cell, ...] = (
            f"{number}. {step_title(work)}",
            None,
            step.received,
            step.seconds,
            step.bound_ratio if step.received else None,
            step.bound,
            move_text(work),
            f"because {cause_words(work.cause)}" if work.cause else "",
        )
        return Row(cells, 0, "collective")
    return Row((f"{number}. {step_title(work)}", step.flops, None, step.seconds, None, step.bound, work_text(work), ""))


def _formula_row(number: int, step: PricedStep, words: StepWords) -> Row:
    row = _step_row(number, step)
    amount = f"bytes: {words.amount}" if step.collective is not None else f"FLOPs: {words.amount}"
    return Row((*row.cells, amount, f"time: {words.time}"), row.level, row.role)


def _total_row(priced: PricedPlan, view: PlanView, width: int) -> Row:
    ratio = view.bounds.placement.ratio if priced.bytes_received else None
    cells: tuple[Cell, ...] = ("per device", priced.flops, priced.bytes_received, priced.seconds, ratio, "")
    return Row((*cells, *("",) * (width - len(cells))), 0, "total")


def _way_row(priced: PricedPlan, view: PlanView, way: Alternative) -> Row:
    other = way.priced
    steps = "; ".join(step_title(step) for step in other.plan.steps)
    ratio = _ratio(priced, other, view.objective)
    cells = (other.flops, other.bytes_received, other.memory.peak, other.seconds, ratio, steps)
    return Row((placement_words(dict(way.placement)), *cells))


def _avoid_row(priced: PricedPlan, view: PlanView, avoidance: Avoidance) -> Row:
    other = avoidance.priced
    ratio = _ratio(priced, other, view.objective)
    return Row((avoidance.change, other.bytes_received, other.memory.peak, other.seconds, ratio, avoidance.spec))


def _memory_table(priced: PricedPlan) -> Table:
    """What a device holds when it holds most."""
    memory = priced.memory
    parts = (("operands", memory.operands), ("result", memory.result), ("temporaries", memory.temporaries))
    rows = [Row((name, size, size / memory.peak)) for name, size in parts if size]
    rows.append(Row(("together", memory.peak, 1.0), 0, "total"))
    where = f"in step {memory.step}" if memory.step else "before any step"
    return Table("memory", f"memory at its peak, {where}", MEMORY, tuple(rows))


def _ratio(priced: PricedPlan, other: PricedPlan, objective: str) -> float | None:
    """What the other plan costs of this one's price; None where this one costs nothing."""
    if objective == BYTES:
        return other.bytes_received / priced.bytes_received if priced.bytes_received else None
    return other.seconds / priced.seconds if priced.seconds else None


def _summary(priced: PricedPlan, view: PlanView, units: str) -> tuple[str, ...]:
    def size(value: float) -> str:
        return format_bytes(value, units)

    compute, network = priced.compute_seconds, priced.network_seconds
    lines = [
        f"time {format_seconds(priced.seconds)} = compute {format_seconds(compute)}"
        f" + network {format_seconds(network)}, nothing overlapped"
    ]
    memory = priced.memory
    parts = [f"operands {size(memory.operands)}"]
    if memory.result:
        parts.append(f"result {size(memory.result)}")
    if memory.temporaries:
        parts.append(f"temporaries {size(memory.temporaries)}")
    where = f", at its peak in step {memory.step}" if memory.step else ""
    lines.append(f"memory {size(memory.peak)} = {' + '.join(parts)}{where}")
    bounds = [
        f"{bound.name} {size(bound.bytes)}" + (f" (this plan {format_ratio(bound.ratio)} x)" if bound.bytes else "")
        for bound in view.bounds.all
    ]
    lines.append(f"lower bounds: {', '.join(bounds)}")
    if priced.redundancy > 1.005:
        lines.append(
            f"redundant work: together the devices spend {priced.redundancy:.3g} times the FLOPs of doing it once"
        )
    lines += [f"padding: {padding}" for padding in priced.padding]
    return (*lines, *view.notes)


def conventions(priced: PricedPlan, view: PlanView, units: str) -> tuple[str, ...]:
    """How to read the numbers of a plan report."""
    size = "1 GiB = 2^30 bytes" if units == "iec" else "1 GB = 10^9 bytes"
    return (
        f"every figure is per device, padding included; 1 FLOP = half a multiply-add (2mnk); {size}",
        "received: bytes that arrive over the network; x bound: against the least that must for that change of layout",
        *(f"{bound.name} bound: {BOUNDS[bound.name]}" for bound in view.bounds.all),
        *_sub_axis_words(priced),
        f"times are modelled, not measured: attainable rates of {priced.network.system.name} where a source has them,"
        " otherwise datasheet",
        "local time is the roofline: what a kernel's tiles and its start cost on top is in the prices of `layer` and"
        " `train`",
    )


def _sub_axis_words(priced: PricedPlan) -> tuple[str, ...]:
    """What `x:(2)4` means, where the plan has such a part of a mesh axis."""
    axes = (axis for step in priced.plan.collectives for axis in (*step.axes, *step.before.axes, *step.after.axes))
    for name in axes:
        axis, before, size = split_name(name)
        if size is not None:
            whole = priced.mesh.size(axis)
            return (
                f"`{name}` is a part of mesh axis {axis}={whole}: {size} shards in each of {before} more major ones",
            )
    return ()
