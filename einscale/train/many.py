"""Many training steps at once: strategies that share structures, schedules and stages are priced together on arrays.

Nothing is priced here: requests are grouped, layer cells are made once for all points of a structure
(`layers.price_layer`), and steps of one schedule and division into stages are priced as one (`price.price_step`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from einscale.models import LayerKind
from einscale.numeric import Number
from einscale.topology import Network, Networks
from einscale.train.cells import LayerCell, joined, layer_cell
from einscale.train.layers import price_layer, trained
from einscale.train.price import StepPrice, price_step, shared_tables
from einscale.train.step import trained_layers
from einscale.train.structure import layer_structure, on_one_stage, training_sizes
from einscale.train.values import TrainSetup


class Columns(Struct, frozen=True):
    """Numbers of many steps, one array each.

    Args:
        seconds: of the step.
        passes: from the first forward task of any stage to the last backward task of any.
        tail: what the slowest stage does once a step.
        needed: bytes that the fullest stage needs on each device.
        host: bytes that rest in the host's memory.
    """

    seconds: Number
    passes: Number
    tail: Number
    needed: Number
    host: Number


def price_setups(setups: Sequence[TrainSetup]) -> Columns:
    """Price many requests.

    Args:
        setups: resolved requests, of any models, meshes and strategies.

    Raises:
        EinscaleError: as `train_report` would for one of them.
    """
    import numpy as np

    count = len(setups)
    columns = {name: np.zeros(count) for name in Columns.__struct_fields__}
    for numbers in _grouped(setups, range(count), _cell_key).values():
        members = [setups[number] for number in numbers]
        cells, places = _layer_cells(members)
        groups = _grouped(members, range(len(members)), _step_key)
        for group in groups.values():
            price = _steps([members[one] for one in group], cells, np.array([places[one] for one in group]))
            rows = np.array([numbers[one] for one in group])
            columns["seconds"][rows] = price.seconds
            columns["passes"][rows] = price.makespan
            columns["tail"][rows] = price.tail_seconds
            columns["needed"][rows] = price.needed
            columns["host"][rows] = price.host
    return Columns(**columns)


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
        setup.strategy,
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


def _layer_cells(setups: Sequence[TrainSetup]) -> tuple[dict[str, LayerCell], list[int]]:
    """Cells of every kind of layer at every point that requests differ in, and the number of each request's point."""
    points: dict[tuple[Network, int], int] = {}
    places = []
    for setup in setups:
        stage = on_one_stage(setup.timed_by, setup.pipe)
        places.append(points.setdefault((stage, setup.microbatch * setup.replicas), len(points)))
    first = setups[0]
    cells = {
        layer.kind: _kind_cells(layer, tuple(points), first, frozenset(shared_tables(first)))
        for layer in trained_layers(first)
    }
    return cells, places


def _kind_cells(
    layer: LayerKind, points: Sequence[tuple[Network, int]], setup: TrainSetup, shared: frozenset[str]
) -> LayerCell:
    """Cells of one kind of layer at many points, those of each structure priced together."""
    import numpy as np

    asked = trained(layer.program, setup)
    structures = [layer_structure(asked, network, batch, setup.sequence) for network, batch in points]
    known = {id(structure): structure for structure in structures}
    parts, places = {}, {}
    for number, (mark, structure) in enumerate(known.items()):
        here = [place for place, one in enumerate(structures) if id(one) == mark]
        networks = tuple(dict.fromkeys(points[place][0] for place in here))
        at = {network: which for which, network in enumerate(networks)}
        many = Networks(networks, np.array([at[points[place][0]] for place in here]))
        sizes: Mapping[str, Number] = training_sizes(asked, 1, setup.sequence)
        sizes = {**sizes, "b": np.array([float(points[place][1]) for place in here])}
        cost = price_layer(layer.kind, structure, sizes, many, setup)
        parts[number], places[number] = layer_cell(cost, shared), np.array(here)
    return joined(parts, places, len(points))


def _steps(setups: Sequence[TrainSetup], cells: Mapping[str, LayerCell], places: Number) -> StepPrice:
    """The price of steps that share a schedule and a division into stages."""
    import numpy as np

    networks = tuple(dict.fromkeys(setup.timed_by for setup in setups))
    at = {network: which for which, network in enumerate(networks)}
    many = Networks(networks, np.array([at[setup.timed_by] for setup in setups]))
    first = setups[0]
    if first.stages == 1:
        first = replace(first, microbatches=np.array([float(setup.microbatches) for setup in setups]))
    taken = {kind: cell.take(places) for kind, cell in cells.items()}
    return price_step(first, taken, many)
