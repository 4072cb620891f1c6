"""Many training steps at once: strategies that share structures, schedules and stages are priced together on arrays.

Nothing is priced here: requests are grouped, layer cells are made once for all points of a structure
(`layers.price_layer`), and steps of one schedule and division into stages are priced as one (`price.price_step`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from einscale.errors import EinscaleError
from einscale.numeric import Number
from einscale.planner.structures import on_one_stage
from einscale.topology import Network, Networks
from einscale.training.cells import LayerCell, joined, layer_cell
from einscale.training.layers import overlapped, price_layer, trained, trained_under
from einscale.training.price import StepPrice, hides_of, price_step, shared_tables
from einscale.training.step import trained_layers
from einscale.training.structure import LayerStructure, Trained, layer_structure, training_sizes
from einscale.training.values import LayerCost, TrainSetup

FEW = 4
"""Points of a structure from which on arrays are faster than one by one (`tests/benchmarks/price.py`)."""


class Columns(Struct, frozen=True):
    """Numbers of many steps, one array each; 0 where a request cannot be met.

    Args:
        seconds: of the step.
        passes: from the first forward task of any stage to the last backward task of any.
        tail: what the slowest stage does once a step.
        needed: bytes that the fullest stage needs on each device.
        host: bytes that rest in the host's memory.
        errors: why a request cannot be met, None where it can.
    """

    seconds: Number
    passes: Number
    tail: Number
    needed: Number
    host: Number
    errors: tuple[EinscaleError | None, ...]


def price_setups(setups: Sequence[TrainSetup]) -> Columns:
    """Price many requests.

    Args:
        setups: resolved requests, of any models, meshes and strategies.
    """
    import numpy as np

    columns = {name: np.zeros(len(setups)) for name in Columns.__struct_fields__ if name != "errors"}
    errors: list[EinscaleError | None] = [None] * len(setups)
    for numbers in _grouped(setups, range(len(setups)), _model_key).values():
        cells = _cells(setups, numbers, errors)
        good = [number for number in numbers if errors[number] is None]
        for alike in _grouped(setups, good, _step_key).values():
            try:
                price = _steps([setups[one] for one in alike], {kind: cell.take(alike) for kind, cell in cells.items()})
            except EinscaleError as error:  # what they share cannot be met
                _refuse(errors, alike, error)
                continue
            columns["seconds"][alike] = price.seconds
            columns["passes"][alike] = price.makespan
            columns["tail"][alike] = price.tail_seconds
            columns["needed"][alike] = price.needed
            columns["host"][alike] = price.host
    return Columns(errors=tuple(errors), **columns)


def _refuse(errors: list[EinscaleError | None], numbers: Sequence[int], error: EinscaleError) -> None:
    for number in numbers:
        errors[number] = error


def _cells(
    setups: Sequence[TrainSetup], numbers: Sequence[int], errors: list[EinscaleError | None]
) -> dict[str, LayerCell]:
    """Cells of every kind of layer, one for each request; those that have none are noted among the errors."""
    parts: dict[str, list[LayerCell]] = {}
    places: list[list[int]] = []
    for alike in _grouped(setups, numbers, _cell_key).values():
        try:
            layers, at = _priced_layers(setups, alike, errors)
        except EinscaleError as error:
            _refuse(errors, alike, error)
            continue
        good = [number for number in alike if errors[number] is None]
        for hiding, group in _grouped(setups, good, lambda setup: setup.strategy.policy.overlap).items():
            points = [at[number] for number in group]
            for kind, layer in layers.items():
                parts.setdefault(kind, []).append(layer.cells(hiding).take(points))
            places.append(group)
    return {kind: joined(some, places, len(setups)) for kind, some in parts.items()}


def _grouped(setups: Sequence[TrainSetup], numbers: Sequence[int], key: Any) -> dict[Any, list[int]]:
    """Numbers of requests by what they have in common, in order."""
    found: dict[Any, list[int]] = {}
    for number in numbers:
        found.setdefault(key(setups[number]), []).append(number)
    return found


def _cell_key(setup: TrainSetup) -> tuple[object, ...]:
    """What layer cells follow from, points aside."""
    live = tuple(axis.name for axis in setup.mesh.axes if axis.size > 1)
    return (
        id(setup.model),
        trained_under(setup),
        setup.mesh.names,
        live,
        setup.network.system,
        setup.pipe,
        setup.sequence,
        setup.precision,
        setup.optimizer,
        setup.execution,
        setup.loss,
        setup.capacity,
    )


def _model_key(setup: TrainSetup) -> tuple[object, ...]:
    """What decides which kinds of layers a step has, and the constants of the machine it runs on."""
    return id(setup.model), setup.network.system, setup.pipe, setup.sequence


def _step_key(setup: TrainSetup) -> tuple[object, ...]:
    """What besides must be alike for steps to be priced as one: the schedule, the stages and what is offloaded."""
    piped = setup.stages > 1
    return (
        setup.stages,
        setup.schedule if piped else "",
        setup.chunks,
        setup.first,
        setup.last,
        setup.microbatches if piped else 0,
        setup.offload,
        setup.overhead,
    )


class _Layers(Struct, frozen=True):
    """A kind of layer at many points.

    Args:
        costs: priced at one point or at several of one structure, nothing hidden.
        places: the numbers of the points of each.
        count: points altogether.
        shared: parameters that another layer of the model has, too.
    """

    costs: tuple[LayerCost, ...]
    places: tuple[list[int], ...]
    count: int
    shared: frozenset[str]

    def cells(self, hiding: tuple[str, ...]) -> LayerCell:
        """Its numbers at every point where such collectives are hidden."""
        parts = [layer_cell(overlapped(cost, hiding), self.shared) for cost in self.costs]
        return joined(parts, self.places, self.count)


Point = tuple[Network, int]
"""The devices of a pipeline stage on their links, and the sequences that all replicas work on at a time."""


def _priced_layers(
    setups: Sequence[TrainSetup], numbers: Sequence[int], errors: list[EinscaleError | None]
) -> tuple[dict[str, _Layers], dict[int, int]]:
    """Every kind of layer at every point that requests differ in, and the number of each request's point."""
    met: dict[Point, dict[str, LayerStructure]] = {}
    at: dict[int, int] = {}
    first = setups[numbers[0]]
    kinds = {layer.kind: trained(layer.program, first) for layer in trained_layers(first)}
    where_from: dict[Point, list[int]] = {}
    for number in numbers:
        setup = setups[number]
        point = on_one_stage(setup.timed_by, setup.pipe), setup.microbatch * setup.replicas
        where_from.setdefault(point, []).append(number)
    for point, here in where_from.items():
        try:
            met[point] = {kind: layer_structure(asked, *point, first.sequence) for kind, asked in kinds.items()}
        except EinscaleError as error:
            _refuse(errors, here, error)
            continue
        at |= dict.fromkeys(here, len(met) - 1)
    return {kind: _priced(kind, asked, met, first) for kind, asked in kinds.items() if met}, at


def _priced(kind: str, asked: Trained, met: Mapping[Point, Mapping[str, LayerStructure]], setup: TrainSetup) -> _Layers:
    """One kind of layer at many points, those of each structure priced together."""
    import numpy as np

    points = tuple(met)
    groups: dict[int, list[int]] = {}
    for place, point in enumerate(points):
        groups.setdefault(id(met[point][kind]), []).append(place)
    costs, places = [], []
    for here in groups.values():
        structure, sizes = met[points[here[0]]][kind], training_sizes(asked, 1, setup.sequence)
        if len(here) < FEW:
            for place in here:
                network, batch = points[place]
                costs.append(price_layer(kind, structure, {**sizes, "b": batch}, network, setup))
                places.append([place])
        else:
            many = _networks([points[place][0] for place in here])
            batches = np.array([float(points[place][1]) for place in here])
            costs.append(price_layer(kind, structure, {**sizes, "b": batches}, many, setup))
            places.append(here)
    return _Layers(tuple(costs), tuple(places), len(points), frozenset(shared_tables(setup)))


def _networks(each: Sequence[Network]) -> Networks:
    """Networks of many points as one value."""
    import numpy as np

    members = {network: number for number, network in enumerate(dict.fromkeys(each))}
    return Networks(tuple(members), np.array([members[network] for network in each]))


def _steps(setups: Sequence[TrainSetup], cells: Mapping[str, LayerCell]) -> StepPrice:
    """The price of steps that share a schedule and a division into stages."""
    import numpy as np

    first = setups[0]
    if first.stages == 1:
        first = replace(first, microbatches=np.array([float(setup.microbatches) for setup in setups]))
    hides = [hides_of(setup.strategy.policy.overlap) for setup in setups]
    many = _networks([setup.timed_by for setup in setups])
    return price_step(first, cells, many, {what: np.array([one[what] for one in hides]) for what in hides[0]})
