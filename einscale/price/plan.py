"""One plan with its prices: FLOPs, bytes, memory and time of every step, and of the whole, per device.

Times add up: each step waits for the one before it, so nothing is hidden behind something else. A step of local work
takes the longer of its arithmetic and its memory traffic (`roofline`), a collective the time of its algorithm on the
links it crosses (`topology`).
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from einscale.bounds import LowerBound, placement_bound
from einscale.bounds import lower_bounds as every_bound
from einscale.collectives import FREE, Collective, received_total
from einscale.einsum import Einsum
from einscale.layout import Layout, Tensor, local_bytes, shards
from einscale.mesh import Mesh
from einscale.numeric import as_int, ceil_div, product
from einscale.roofline import local_seconds
from einscale.steps import (
    LocalEinsum,
    Plan,
    Step,
    compute_dtype,
    plan_flops,
    plan_received,
    step_flops,
    work_traffic,
)
from einscale.topology import Network, explain_step


class PricedStep(Struct, frozen=True):
    """A step and what it costs one device.

    Args:
        step: the local einsum or the collective.
        flops: FLOPs, padding included; 0 for a collective.
        traffic: bytes of HBM that local work reads and writes; 0 for a collective.
        received: bytes a device receives, rounded up; 0 for local work.
        received_total: bytes received by all devices of the mesh together, exact.
        bound_bytes: bytes a device must receive to get from the layout before to the layout after, however it is done.
        seconds: time it takes.
        bound: what limits it: `compute` or `memory`; for a collective the network level that is slowest, `nvlink`, or
            its latency, `nvlink latency`; `free` where it sends nothing.
    """

    step: Step
    flops: int
    traffic: int
    received: int
    received_total: int
    bound_bytes: int
    seconds: float
    bound: str

    @property
    def collective(self) -> Collective | None:
        """The step if it is a collective."""
        return self.step if isinstance(self.step, Collective) else None

    @property
    def bound_ratio(self) -> float:
        """Bytes received over the bytes that must be; 1.0 is as good as can be, and for what sends nothing."""
        return self.received / self.bound_bytes if self.bound_bytes else 1.0


class PlanPeak(Struct, frozen=True):
    """The most bytes a device holds at once while the plan runs, and what they are.

    The operands stay throughout: the caller owns them. Every other tensor is held from the step that makes it to the
    last step that reads it (the result to the end), and no step works in place, so what it reads and what it makes are
    both there while it runs. A slice is counted as a tensor of its own.

    Args:
        peak: bytes at the worst moment.
        step: number of the step that runs then, from 1; 0 for a plan without steps.
        operands: bytes of the operands as they are given.
        result: bytes of the result, if it is held at that moment.
        temporaries: bytes of every other tensor held at that moment.
    """

    peak: int
    step: int
    operands: int
    result: int
    temporaries: int

    @property
    def needed(self) -> int:
        """The same as `peak`, by the name that every answer's memory has for it."""
        return self.peak


class LowerBounds(Struct, frozen=True):
    """Least bytes that a device must receive, and how near a plan comes.

    Args:
        placement: given what it owns and what the plan's work needs.
        layout_free: for any division of an einsum of two operands; None where it says no more than zero.
    """

    placement: LowerBound
    layout_free: LowerBound | None

    @property
    def all(self) -> tuple[LowerBound, ...]:
        """Those there are."""
        return (self.placement,) if self.layout_free is None else (self.placement, self.layout_free)


class Padding(Struct, frozen=True):
    """A dim that its shards do not divide, so that each is rounded up.

    Args:
        index: its name, and `size` what it should be.
        axes: the mesh axes that divide it.
        stored: its size with the padding: local size times shards.
    """

    index: str
    axes: tuple[str, ...]
    size: int
    stored: int

    @property
    def waste(self) -> float:
        """Share of what is stored and computed along this dim that is padding."""
        return 1.0 - self.size / self.stored

    def __str__(self) -> str:
        return (
            f"{self.index}={self.size} over {'/'.join(self.axes)} is stored as {self.stored}"
            f" ({100 * self.waste:.2g} % padding)"
        )


class PricedPlan(Struct, frozen=True):
    """A plan, the sizes and hardware it is priced for, and its price per device.

    Args:
        plan: the steps.
        sizes: index -> size.
        network: the mesh bound to the links of a system.
        steps: each step with its price.
        flops: FLOPs.
        bytes_received: bytes received: the exact total over the mesh by its devices, rounded up once.
        memory: the most bytes held at once.
        padding: dims that are padded anywhere in the plan.
    """

    plan: Plan
    sizes: Mapping[str, int]
    network: Network
    steps: tuple[PricedStep, ...]
    flops: int
    bytes_received: int
    memory: PlanPeak
    padding: tuple[Padding, ...]

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        return self.network.mesh

    @property
    def compute_seconds(self) -> float:
        """Time of local work."""
        return sum(step.seconds for step in self.steps if step.collective is None)

    @property
    def network_seconds(self) -> float:
        """Time of collectives."""
        return sum(step.seconds for step in self.steps if step.collective is not None)

    @property
    def seconds(self) -> float:
        """Time of all steps, one after the other."""
        return self.compute_seconds + self.network_seconds

    @property
    def redundancy(self) -> float:
        """FLOPs of all devices over those of the work without repetition; 1.0 where no device repeats another's."""
        degrees = self.mesh.degrees
        once = 0
        for step, price in zip(self.plan.steps, self.steps, strict=True):
            if isinstance(step, LocalEinsum):
                once += price.flops * int(product(shards(axes, degrees) for axes in step.placement.values()))
        return self.flops * self.mesh.devices / once if once else 1.0


def price_plan(plan: Plan, sizes: Mapping[str, int], network: Network) -> PricedPlan:
    """Price every step of a plan on one system.

    Args:
        plan: what runs.
        sizes: index -> size.
        network: a mesh bound to the links of a system.
    """
    mesh = network.mesh
    return PricedPlan(
        plan=plan,
        sizes=sizes,
        network=network,
        steps=tuple(_price(step, sizes, network) for step in plan.steps),
        flops=int(plan_flops(plan, sizes, mesh.degrees)),
        bytes_received=int(plan_received(plan, sizes, mesh)),
        memory=peak_memory(plan, sizes, mesh),
        padding=paddings(plan, sizes, mesh),
    )


def lower_bounds(priced: PricedPlan) -> LowerBounds:
    """Both bounds of a priced plan."""
    found: dict[str, LowerBound] = {bound.name: bound for bound in every_bound(priced.plan, priced.sizes, priced.mesh)}
    return LowerBounds(found["placement"], found.get("layout-free"))


def _price(step: Step, sizes: Mapping[str, int], network: Network) -> PricedStep:
    mesh = network.mesh
    if isinstance(step, LocalEinsum):
        flops = int(step_flops(step, sizes, mesh.degrees))
        traffic = int(work_traffic(step, sizes, mesh.degrees))
        local = local_seconds(flops, traffic, compute_dtype(step.inputs), network.system.chip)
        return PricedStep(step, flops, traffic, 0, 0, 0, float(local.seconds), str(local.bound))
    total = int(received_total(step, sizes, mesh))
    alone = Plan((step.tensor,), (step.before,), (step,), step.tensor, step.after)
    bound = 0 if step.kind in FREE else int(placement_bound(alone, sizes, mesh))
    formula = explain_step(step, sizes, network)
    slowest = formula.slowest
    limit = slowest.level if slowest is not None else "free"
    if slowest is not None and formula.latency_seconds > slowest.seconds:
        limit += " latency"
    received = as_int(ceil_div(total, mesh.devices))
    return PricedStep(step, 0, 0, received, total, bound, float(formula.seconds), limit)


def peak_memory(plan: Plan, sizes: Mapping[str, int], mesh: Mesh) -> PlanPeak:
    """The most bytes a device holds at once while a plan runs; `PlanPeak` says what counts."""
    degrees = mesh.degrees

    def held(key: tuple[Tensor, Layout]) -> int:
        return int(local_bytes(key[0], key[1], sizes, degrees))

    operands = {
        (tensor.name, layout): (tensor, layout) for tensor, layout in zip(plan.inputs, plan.input_layouts, strict=True)
    }
    owned = sum(map(held, operands.values()))
    result_key = (plan.output.name, plan.output_layout)
    made: dict[tuple[str, Layout], tuple[Tensor, Layout]] = {}
    last: dict[tuple[str, Layout], int] = {result_key: len(plan.steps)}
    for number, step in enumerate(plan.steps):
        for tensor, layout in _reads(step):
            key = (tensor.name, layout)
            last[key] = max(last.get(key, 0), number)
    best = PlanPeak(owned, 0, owned, 0, 0)
    for number, step in enumerate(plan.steps):
        tensor, layout = _makes(step)
        if (tensor.name, layout) not in operands:
            made[tensor.name, layout] = (tensor, layout)
        result = held(made[result_key]) if result_key in made else 0
        temporaries = sum(held(value) for key, value in made.items() if key != result_key)
        if owned + result + temporaries > best.peak or best.step == 0:
            best = PlanPeak(owned + result + temporaries, number + 1, owned, result, temporaries)
        made = {key: value for key, value in made.items() if last.get(key, -1) > number}
    return best


def _reads(step: Step) -> list[tuple[Tensor, Layout]]:
    if isinstance(step, LocalEinsum):
        return list(zip(step.inputs, step.layouts, strict=True))
    return [(step.tensor, step.before)]


def _makes(step: Step) -> tuple[Tensor, Layout]:
    if isinstance(step, LocalEinsum):
        return step.output, step.output_layout
    return step.tensor, step.after


def paddings(plan: Plan, sizes: Mapping[str, int], mesh: Mesh) -> tuple[Padding, ...]:
    """Every (index, axes) of a plan whose size the axes do not divide, in order of appearance."""
    found: dict[tuple[str, tuple[str, ...]], Padding] = {}
    held = [*zip(plan.inputs, plan.input_layouts, strict=True), *map(_makes, plan.steps)]
    for tensor, layout in held:
        for index, axes in zip(tensor.indices, layout.dims, strict=True):
            count = int(shards(axes, mesh.degrees))
            stored = as_int(ceil_div(sizes[index], count)) * count
            if stored != sizes[index]:
                found.setdefault((index, axes), Padding(index, axes, sizes[index], stored))
    return tuple(found.values())


def whole_einsum(plan: Plan) -> Einsum:
    """The einsum a plan answers, without layouts."""
    return Einsum(tuple(tensor.indices for tensor in plan.inputs), plan.output.indices)
