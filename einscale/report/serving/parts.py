"""Where the time of a request goes, as a table, and the words that several reports on requests share."""

from __future__ import annotations

from einscale.hardware import peak as peak_rate
from einscale.price.spent import Spent, SpentPart, TimePart
from einscale.report.table import Cell, Column, Row, RowRole, Table
from einscale.report.training.parts import part_words
from einscale.serving import DecodeReport, Instance, PrefillReport

WORK = (
    (TimePart.WEIGHTS, "weights"),
    (TimePart.CACHE, "cache"),
    (TimePart.TRAFFIC, "activations"),
    (TimePart.COMPUTE, "compute"),
    (TimePart.LAUNCH, "launch"),
)
"""Local work: parts of `Spent` and what they are called."""

PIPELINE = ((TimePart.HOPS, "hops"), (TimePart.BUBBLE, "waiting"))
"""The same of a pipeline."""

_TITLES = {**dict((*WORK, *PIPELINE)), TimePart.TRAFFIC: "activations in HBM"}

IDLE = "pipeline stages that have nothing to do"
"""What a pipeline waits for beside its transfers, which are told apart here."""


def time_table(prefill: PrefillReport | None, decode: DecodeReport | None, alone: bool = False) -> Table:
    """Parts of the prefill and of a mean decode step side by side; each column adds up.

    Args:
        prefill: None to leave it out.
        decode: None to leave it out.
        alone: a draft guesses besides, which is left out.
    """
    phases: list[tuple[str, str, Spent]] = []
    columns = [Column("part", "part", wrap=True)]
    if prefill is not None:
        phases.append(("prefill", "prefill", prefill.spent))
    if decode is not None:
        phases.append(("step", "a step", decode.spent))
    for key, title, _ in phases:
        columns += [Column(f"{key}_seconds", title, "seconds"), Column(f"{key}_share", "share", "share")]
    columns.append(Column("what", "what it is", wrap=True))
    spents = [spent for _, _, spent in phases]
    rows = [_part_row(what, name, spents) for what, name in WORK]
    rows.append(_row("local work", [spent.local + spent.launch for spent in spents], spents, "", "subtotal"))
    axes = dict.fromkeys(one.axis for spent in spents for one in spent.by_axes)
    for name in axes:
        rows += _axis_rows(name, spents)
    if axes:
        rows.append(_row("collectives", [spent.communication for spent in spents], spents, "", "subtotal"))
    if any(spent.hops or spent.waiting for spent in spents):
        rows += [_part_row(what, name, spents) for what, name in PIPELINE]
    rows.append(_row("together", [spent.seconds for spent in spents], spents, "", "total"))
    found = [row for row in rows if any(row.cells[1:-1]) or row.role == "total"]
    title = " and of ".join({"prefill": "the prefill", "step": "a decode step"}[key] for key, _, _ in phases)
    stages = (prefill or decode).instance.stages if prefill or decode else 1  # type: ignore[union-attr]
    path = ", on the path through the pipeline that takes longest" if stages > 1 else ""
    without = " without the draft" if alone else ""
    return Table("time", f"where the time of {title} goes{without}{path}", tuple(columns), tuple(found))


def part_title(what: TimePart, axis: str) -> str:
    """What a part of the time of a request is called.

    >>> part_title(TimePart.TRAFFIC, ""), part_title(TimePart.ROUTED, "expert"), part_title(TimePart.BUBBLE, "")
    ('activations in HBM', 'routed over expert', 'waiting')
    """
    if axis:
        return f"{what.value} over {axis}"
    return _TITLES[what]


def _part_row(what: TimePart, name: str, spents: list[Spent]) -> Row:
    """One part of local work, or of a pipeline."""
    part = SpentPart(what, 0.0)
    words = IDLE if what is TimePart.BUBBLE else part_words(part, "")
    return _row(name, [spent.of(what) for spent in spents], spents, words)


def _axis_rows(name: str, spents: list[Spent]) -> list[Row]:
    """Collectives over mesh axes: what grows with the bytes, and what does not."""
    nothing = SpentPart(TimePart.ACTIVATIONS, 0.0, name)
    parts = [next((one for one in spent.by_axes if one.axis == name), nothing) for spent in spents]
    counts = [f"{part.count:,.0f}" for part in parts]
    count = counts[0] if len(set(counts)) == 1 else " and ".join(counts)
    moved = [part.seconds - part.latency for part in parts]
    latency = [part.latency for part in parts]
    return [
        _row(f"{name}, bytes", moved, spents, f"{count} collectives: what grows with what they move", "collective"),
        _row(f"{name}, latency", latency, spents, "what does not", "collective"),
    ]


def _row(name: str, seconds: list[float], spents: list[Spent], words: str, role: RowRole = "") -> Row:
    cells: list[Cell] = [name]
    for part, spent in zip(seconds, spents, strict=True):
        cells += [part, part / spent.seconds if spent.seconds else 0.0]
    return Row((*cells, words), 0 if role in ("subtotal", "total") else 1, role)


def weights_words(instance: Instance) -> str:
    """Types that weights rest in."""
    precision = instance.precision
    if not precision.quantized:
        return f"{precision.weights} of {instance.model.name}"
    return f"{precision.weights} and, for what is never narrower, {precision.activations} of {instance.model.name}"


def cache_words(instance: Instance) -> str:
    """What is kept of every sequence, and how."""
    pages = f", whole pages of {instance.page} tokens" if instance.page > 1 else ""
    return f"keys and values of every sequence, {instance.precision.kv_cache}{pages}, of {instance.model.name}"


def peak_words(instance: Instance) -> str:
    """The datasheet's figures that shares are of."""
    chip = instance.system.chip
    rate = peak_rate(chip, instance.precision.compute)
    bandwidth = chip.memory_bandwidth.datasheet
    return (
        f"FLOP/s and HBM: of the datasheet's {rate.datasheet / 1e12:g} TFLOP/s {rate.dtype} and"
        f" {bandwidth / 1e9:g} GB/s of {chip.name}"
    )


def execution_words(instance: Instance) -> str:
    """Where the times come from."""
    system, execution = instance.system.name, instance.execution
    if instance.system.chip.kernels is None:
        return (
            f"times: modelled, not measured: rooflines of {system}, no figures of its kernels, attainable rates where a"
            " source states them, otherwise datasheet"
        )
    captured = (
        "a step is captured once and replayed" if execution.launch == "compiled" else "the host starts each kernel"
    )
    return (
        f"times: modelled, not measured: kernels as {system} runs them ({captured}, neighbouring maps"
        f" {execution.elementwise}), collectives at the bandwidth they sustain, nothing hidden behind anything"
    )
