"""What else could have been done: other placements of one einsum's work, priced, made on demand.

A placement says which mesh axes divide which index while the work runs. For one or two operands every placement of
whole mesh axes is listed, ranked by the least bytes that its counts of shards allow; the first few of that list are
planned, each with the cheapest moves before and after it, to the same output layout as the plan, and priced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product as every
from math import prod

from msgspec import Struct

from einscale.collectives import Collective, received_total
from einscale.hardware import flop_rate
from einscale.layout import Layout, Tensor, local_bytes, make_layout, replicated, shards
from einscale.mesh import Mesh, split_name
from einscale.numeric import ceil_div, product
from einscale.price.plan import PricedPlan, price_plan, whole_einsum
from einscale.reshard import reshard
from einscale.roofline import local_seconds
from einscale.steps import LocalEinsum, Plan, compute_dtype, step_flops, work_traffic
from einscale.topology import Network, step_seconds
from einscale.vocabulary import BYTES, SUM, TIME

MOST = 20_000
"""Placements listed at most."""

PLANNED = 16
"""Placements planned and priced at most, the most promising first."""

Placement = dict[str, tuple[str, ...]]


class Alternative(Struct, frozen=True):
    """Another way to the same result.

    Args:
        placement: index -> mesh axes that divide it while the work runs, indices that are not divided left out.
        priced: the plan and its price.
    """

    placement: tuple[tuple[str, tuple[str, ...]], ...]
    priced: PricedPlan


class Avoidance(Struct, frozen=True):
    """A change of the question after which a tensor need not move as it does, and what the answer to that costs.

    Args:
        tensor: name of the tensor that moves.
        change: the change, in words.
        spec: canonical text of the changed question.
        priced: its plan and price.
    """

    tensor: str
    change: str
    spec: str
    priced: PricedPlan


def chosen_placement(plan: Plan) -> Placement:
    """Index -> mesh axes in the plan's main local einsum, the one with the most operands."""
    works = [step for step in plan.steps if isinstance(step, LocalEinsum)]
    if not works:
        return {}
    work = max(works, key=lambda step: (len(step.inputs), len(step.placement)))
    return {index: axes for index, axes in work.placement.items() if axes}


def alternatives(priced: PricedPlan, objective: str, count: int = 3) -> tuple[Alternative, ...]:
    """The best plans whose work is placed otherwise than the given plan's, best first.

    Args:
        priced: the plan to differ from.
        objective: `time` or `bytes`: what "best" means; ties go to fewer FLOPs, then fewer moves.
        count: how many.

    Returns:
        At most `count` of those planned; none for three or more operands, whose trees of work are not listed here.
    """
    plan, network = priced.plan, priced.network
    if len(plan.inputs) > 2:
        return ()
    search = _Search(plan, priced.sizes, network, objective)
    taken = _canonical(chosen_placement(plan), network.mesh)
    others = [
        placement
        for placement in _placements(plan, priced.sizes, network.mesh)
        if _canonical(placement, network.mesh) != taken
    ]
    found: list[tuple[tuple[float, int, int], Placement, Plan]] = []
    for placement in sorted(others, key=search.promise)[:PLANNED]:
        other = search.plan(placement)
        found.append((search.price(other), placement, other))
    found.sort(key=lambda entry: entry[0])
    return tuple(
        Alternative(tuple(placement.items()), price_plan(other, priced.sizes, network))
        for _, placement, other in found[:count]
    )


def _canonical(placement: Placement, mesh: Mesh) -> frozenset[tuple[str, tuple[str, ...]]]:
    """A placement as a value; axes of one device say nothing."""
    kept = {index: tuple(axis for axis in axes if mesh.size(axis) > 1) for index, axes in placement.items()}
    return frozenset((index, axes) for index, axes in kept.items() if axes)


def _placements(plan: Plan, sizes: Mapping[str, int], mesh: Mesh) -> Iterator[Placement]:
    """Every placement of whole mesh axes onto indices or onto none, no dim divided further than it is long.

    An index that an operand repeats is never divided: its diagonal is taken with those dims whole.
    """
    repeated = {index for tensor in plan.inputs for index in tensor.indices if tensor.indices.count(index) > 1}
    every_index = dict.fromkeys(index for tensor in plan.inputs for index in tensor.indices)
    indices = tuple(index for index in every_index if index not in repeated)
    axes = [axis.name for axis in mesh.axes if axis.size > 1]
    lists = [dim for layout in (*plan.input_layouts, plan.output_layout) for dim in layout.dims]
    tried = 0
    for choice in every((*indices, None), repeat=len(axes)):
        held: dict[str, list[str]] = {}
        for axis, index in zip(axes, choice, strict=True):
            if index is not None:
                held.setdefault(index, []).append(axis)
        if any(product(mesh.size(axis) for axis in names) > sizes[index] for index, names in held.items()):
            continue
        orders = [_orders(names, lists) for names in held.values()]
        for order in every(*orders):
            tried += 1
            if tried > MOST:
                return
            yield dict(zip(held, order, strict=True))


def _orders(names: list[str], lists: Iterable[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Orders worth trying for axes that divide one index: the mesh's, and those some tensor already has."""
    result = {tuple(names): None}
    for known in lists:
        whole = [split_name(axis)[0] for axis in known]
        first = [axis for axis in dict.fromkeys(whole) if axis in names]
        result[*first, *(axis for axis in names if axis not in first)] = None
    return tuple(result)


class _Search:
    """Plans for placements of one question, the moves of each tensor remembered."""

    def __init__(self, plan: Plan, sizes: Mapping[str, int], network: Network, objective: str) -> None:
        self.question = plan
        self.sizes = sizes
        self.network = network
        self.objective = objective
        self._moves: dict[tuple[Tensor, Layout, Layout], tuple[Collective, ...]] = {}
        chip = network.system.chip
        self._fastest = max(level.bandwidth.used for level in network.system.levels)
        works = any(
            isinstance(step, LocalEinsum) and step_flops(step, sizes, network.mesh.degrees) for step in plan.steps
        )
        self._rate = flop_rate(chip, compute_dtype(plan.inputs)) if objective == TIME and works else 1.0

    def promise(self, placement: Placement) -> tuple[float, float]:
        """What a placement costs at least, from its counts of shards alone, so that the promising come first.

        A device that held one block of a tensor cut into s shards a dim and needs one cut into c keeps at most what
        both have in common, V / prod(max(c, s)); a sum over u devices that r want costs u - 1 + r - 1 messages an
        element.
        """
        degrees, sizes = self.network.mesh.degrees, self.sizes
        counts = {index: int(shards(axes, degrees)) for index, axes in placement.items()}
        question = self.question
        received: float = 0
        for tensor, layout in zip(question.inputs, question.input_layouts, strict=True):
            held = [int(shards(axes, degrees)) for axes in layout.dims]
            need = [counts.get(index, 1) for index in tensor.indices]
            received += self._volume(tensor) * (1 / prod(need) - 1 / prod(map(max, held, need)))
        output = question.output
        made = [counts.get(index, 1) for index in output.indices]
        wanted = [int(shards(axes, degrees)) for axes in question.output_layout.dims]
        parts = prod(count for index, count in counts.items() if index not in output.indices)
        parts = max(1, parts // int(shards(question.output_layout.unreduced, degrees)))
        if parts == 1:
            received += self._volume(output) * (1 / prod(wanted) - 1 / prod(map(max, made, wanted)))
        else:
            copies = self.network.mesh.devices / prod(wanted)
            received += self._volume(output) / self.network.mesh.devices * (parts + copies - 2)
        points = prod(ceil_div(sizes[index], counts.get(index, 1)) for index in whole_einsum(question).indices)
        if self.objective == BYTES:
            return received, points
        return received / self._fastest + 2 * points / self._rate, received

    def _volume(self, tensor: Tensor) -> int:
        """Bytes of a whole tensor."""
        return int(local_bytes(tensor, replicated(len(tensor.indices)), self.sizes, self.network.mesh.degrees))

    def moves(self, tensor: Tensor, before: Layout, after: Layout) -> tuple[Collective, ...]:
        """Cheapest moves of one tensor."""
        key = (tensor, before, after)
        if key not in self._moves:
            mesh = self.network.mesh
            self._moves[key] = reshard(
                tensor, before, after, self.sizes, mesh, network=self.network, objective=self.objective
            )
        return self._moves[key]

    def plan(self, placement: Placement) -> Plan:
        """The plan whose work is placed so; an operand's owed sum is kept where its axes are free, else reduced."""
        question = self.question
        used = {axis for axes in placement.values() for axis in axes}
        steps: list[LocalEinsum | Collective] = []
        layouts = []
        owed: list[str] = []
        for tensor, before in zip(question.inputs, question.input_layouts, strict=True):
            kept = tuple(axis for axis in before.unreduced if split_name(axis)[0] not in used)
            owed += kept
            after = make_layout([placement.get(index, ()) for index in tensor.indices], kept, before.reduction)
            layouts.append(after if kept else after.reduced())
            steps += self.moves(tensor, before, layouts[-1])
        output = question.output
        summed = [axis for index, axes in placement.items() if index not in output.indices for axis in axes]
        reduction = next((layout.reduction for layout in layouts if layout.unreduced), SUM)
        partial = make_layout([placement.get(index, ()) for index in output.indices], {*summed, *owed}, reduction)
        steps.append(LocalEinsum(question.inputs, tuple(layouts), output, partial))
        steps += self.moves(output, partial, question.output_layout)
        return Plan(question.inputs, question.input_layouts, tuple(steps), output, question.output_layout)

    def price(self, plan: Plan) -> tuple[float, int, int]:
        """What the plan costs: the objective, then FLOPs, then moves."""
        degrees = self.network.mesh.degrees
        cost: float = 0
        flops = 0
        for step in plan.steps:
            if isinstance(step, Collective):
                if self.objective == BYTES:
                    cost += received_total(step, self.sizes, self.network.mesh)
                else:
                    cost += step_seconds(step, self.sizes, self.network)
                continue
            work = int(step_flops(step, self.sizes, degrees))
            flops += work
            if self.objective == TIME:
                traffic = int(work_traffic(step, self.sizes, degrees))
                cost += local_seconds(work, traffic, compute_dtype(step.inputs), self.network.system.chip).seconds
        return cost, flops, len(plan.steps)
