"""A plan in plain words: why each step is there, and its formulas with the operands filled in."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from einscale.collectives import AMOUNTS, FREE, PERMUTE, Collective, changed_blocks
from einscale.einsum import Einsum
from einscale.layout import Layout, Tensor, local_bytes, local_shape, shards
from einscale.mesh import Mesh
from einscale.price.plan import PricedPlan, PricedStep
from einscale.report.causes import cause_words
from einscale.roofline import local_seconds
from einscale.steps import LocalEinsum, compute_dtype
from einscale.topology import Network, explain_step
from einscale.units import format_bytes, format_flops, format_seconds


class StepWords(Struct, frozen=True):
    """One step in words.

    Args:
        title: what it does: `all-gather W over x`.
        layout: the layouts it goes from and to.
        because: why it is there; "" for local work.
        amount: bytes received, or FLOPs, as a formula with its operands.
        time: seconds as a formula with its operands.
    """

    title: str
    layout: str
    because: str
    amount: str
    time: str


def explain_plan(priced: PricedPlan, units: str = "iec") -> tuple[StepWords, ...]:
    """Every step of a priced plan in words, in order."""
    return tuple(explain_priced_step(step, priced.sizes, priced.network, units) for step in priced.steps)


def explain_priced_step(step: PricedStep, sizes: Mapping[str, int], network: Network, units: str = "iec") -> StepWords:
    """One step in words."""
    work = step.step
    if isinstance(work, Collective):
        return StepWords(
            title=step_title(work),
            layout=move_text(work),
            because=cause_words(work.cause),
            amount=_received_words(step, work, sizes, network.mesh),
            time=str(explain_step(work, sizes, network)),
        )
    return StepWords(
        title=step_title(work),
        layout=work_text(work),
        because="",
        amount=_flops_words(work, step.flops, sizes, network.mesh),
        time=_local_words(step, work, network, units),
    )


def step_title(step: LocalEinsum | Collective) -> str:
    """What a step does, in a few words.

    >>> from einscale.layout import make_layout
    >>> step_title(Collective("all-gather", Tensor("W", ("d",)), ("x",), make_layout([("x",)]), make_layout([()])))
    'all-gather W over x'
    """
    if isinstance(step, Collective):
        return f"{step.kind} {step.tensor.name} over {', '.join(step.axes)}"
    names = ", ".join(tensor.name for tensor in step.inputs)
    return f"{'einsum' if len(step.inputs) > 1 else 'local sum'} {names} -> {step.output.name}"


def move_text(step: Collective) -> str:
    """From which layout to which a collective takes its tensor."""
    indices = step.tensor.indices
    return f"{step.before.text(indices) or 'scalar'} -> {step.after.text(indices) or 'scalar'}"


def work_text(work: LocalEinsum) -> str:
    """A local einsum with the layouts it runs in, as a spec."""
    operands = ", ".join(_tensor_text(*pair) for pair in zip(work.inputs, work.layouts, strict=True))
    return f"{operands} -> {_tensor_text(work.output, work.output_layout)}"


def _tensor_text(tensor: Tensor, layout: Layout) -> str:
    return f"{tensor.name}: {layout.text(tensor.indices)}".rstrip()


def _local_words(step: PricedStep, work: LocalEinsum, network: Network, units: str) -> str:
    """Time of local work: the longer of arithmetic and memory traffic."""
    local = local_seconds(step.flops, step.traffic, compute_dtype(work.inputs), network.system.chip)
    memory = _quotient(format_bytes(step.traffic, units), float(local.memory_seconds), step.traffic, "B/s")
    if not step.flops:
        return f"{memory} of memory traffic"
    compute = _quotient(format_flops(step.flops), float(local.compute_seconds), step.flops, "FLOP/s")
    return f"max({compute}, {memory}) = {format_seconds(step.seconds)}, {step.bound} bound"


def _quotient(amount: str, seconds: float, count: int, unit: str) -> str:
    """`1.05 MFLOP / 700 TFLOP/s = 1.5 ns`."""
    if not seconds or not count:
        return f"{amount} = 0 s"
    rate = count / seconds
    scale, prefix = next((s, p) for s, p in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (0.0, "")) if rate >= s)
    return f"{amount} / {rate / (scale or 1):.3g} {prefix}{unit} = {format_seconds(seconds)}"


def _flops_words(work: LocalEinsum, flops: int, sizes: Mapping[str, int], mesh: Mesh) -> str:
    """FLOPs of a local einsum: 2 for each point of its iteration space for two operands, one addition for one."""
    placement = work.placement
    lengths = []
    for index, axes in placement.items():
        (length,) = local_shape(Layout((axes,)), (index,), sizes, mesh.degrees)
        lengths.append(f"{index} {length:,}")
    points = " x ".join(lengths) or "1"
    einsum: Einsum = work.einsum
    if len(einsum.inputs) == 1:
        return f"{points} = {flops:,} additions" if einsum.contracted else "moves data only: 0 FLOPs"
    factor = 2 * (len(einsum.inputs) - 1)
    return f"{factor} x {points} = {flops:,} FLOPs"


def _received_words(step: PricedStep, move: Collective, sizes: Mapping[str, int], mesh: Mesh) -> str:
    """Bytes received: the formula of the collective, its operands, its bound."""
    if move.kind in FREE:
        return "0 bytes: every device keeps a part of what it holds"
    local = int(local_bytes(move.tensor, move.before, sizes, mesh.degrees))
    shape = " x ".join(f"{n:,}" for n in local_shape(move.before, move.tensor.indices, sizes, mesh.degrees))
    size = f"L = {shape} {move.tensor.dtype} = {local:,}" if shape else f"L = {local:,}"
    n = int(shards(move.axes, mesh.degrees))
    if move.kind == PERMUTE:
        changed = changed_blocks(move, mesh)
        formula = f"L x changed / devices = {local:,} x {changed:,}/{mesh.devices:,}"
    else:
        amount = AMOUNTS[move.kind]
        several = f"{amount.times} x " if amount.times > 1 else ""
        formula = f"{amount.text} = {several}{local:,} x {n - 1:,}" + (f"/{n:,}" if amount.shared else "")
    return (
        f"{formula} = {step.received:,} bytes received, with n = {n:,} and {size} bytes; at least {step.bound_bytes:,}"
    )


def placement_words(placement: Mapping[str, tuple[str, ...]]) -> str:
    """How work is divided.

    >>> placement_words({"b": ("x", "y"), "d": ("z",)}), placement_words({})
    ('b over x/y, d over z', 'no index divided')
    """
    parts = [f"{index} over {'/'.join(axes)}" for index, axes in placement.items() if axes]
    return ", ".join(parts) or "no index divided"
