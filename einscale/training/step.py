"""One optimizer step on a cluster, as a report: one row of its price, with the words' values taken from its layers."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from einscale.models import LayerKind, model_flops
from einscale.price.hiders import Hider, HidingWork
from einscale.price.overlap import what_moves
from einscale.price.spent import Spent, SpentPart, TimePart
from einscale.stages import EMBEDDING, HEAD
from einscale.training.cells import layer_cell
from einscale.training.layers import layer_cost
from einscale.training.memory import alive_tensors
from einscale.training.price import (
    Cells,
    StagePrice,
    StepPrice,
    accumulate_seconds,
    hides_of,
    offload_rate,
    price_step,
    shared_tables,
    written_out,
)
from einscale.training.stages import Content, sent_between
from einscale.training.values import AtWork, LayerCost, StageReport, TrainReport, TrainSetup
from einscale.vocabulary import BACKWARD, FORWARD, RECOMPUTE


def train_report(setup: TrainSetup, notes: tuple[str, ...] = ()) -> TrainReport:
    """Plan and price one optimizer step.

    Raises:
        StrategyError: the strategy does not fit the mesh or the model.
        ScheduleError: the schedule does not fit the stages, the layers or the microbatches.
        HardwareError: the chip has no rate for the compute type.
    """
    layers = {layer.kind: layer_cost(layer, setup) for layer in trained_layers(setup)}
    shared = frozenset(shared_tables(setup))
    cells = {kind: layer_cell(cost, shared) for kind, cost in layers.items()}
    sent = None
    if setup.stages > 1:
        planned = next(layer.planned for layer in layers.values() if layer.kind not in (EMBEDDING, HEAD))
        sent = sent_between(planned, setup.timed_by, setup.pipe)
    price = price_step(setup, cells, setup.timed_by, hides_of(setup.strategy.policy.overlap))
    busiest = max(price.stages, key=lambda stage: stage.busy)
    counted = model_flops(setup.model, setup.sequence, convention=setup.attention)
    return TrainReport(
        setup=setup,
        layers=tuple(layers.values()),
        stages=tuple(_stage(number, stage, layers, setup) for number, stage in enumerate(price.stages)),
        spent=_spent(busiest, price, layers, cells, setup),
        step_seconds=price.seconds,
        sent=sent,
        model_flops=counted.total * setup.batch,
        hardware_flops=price.flops * setup.microbatches * (setup.mesh.devices // setup.stages),
        chunks=price.chunks,
        notes=notes,
        passes_seconds=price.makespan,
    )


def trained_layers(setup: TrainSetup) -> tuple[LayerKind, ...]:
    """Layers of the model and those that only training runs.

    A head on another stage than the embedding has a table of its own, even if the model ties the two.
    """
    layers = (*setup.model.layers, *setup.model.ahead)
    if setup.stages == 1:
        return layers
    return tuple(
        replace(layer, program=replace(layer.program, tied=())) if layer.kind == HEAD else layer for layer in layers
    )


def _stage(number: int, stage: StagePrice, layers: Mapping[str, LayerCost], setup: TrainSetup) -> StageReport:
    """One stage: its times, and its memory at the moment it holds most."""
    moment = stage.moments[stage.moment]
    at_work = layers[moment.kind].peak
    chunks = setup.chunks * setup.copies
    return StageReport(
        stage=number,
        layers=stage.content,
        in_flight=moment.chunks / chunks,
        forward_seconds=stage.forward,
        backward_seconds=stage.backward,
        busy_seconds=stage.busy,
        memory=stage.memory,
        moment=AtWork(at_work.phase, at_work.statement, moment.kind),
        alive=alive_tensors(stage.content, moment, layers, setup),
    )


def _spent(
    stage: StagePrice, price: StepPrice, layers: Mapping[str, LayerCost], cells: Cells, setup: TrainSetup
) -> Spent:
    """Parts of the step's time on one stage; they add up to the step."""
    content = stage.content
    each = setup.each
    parts = [
        SpentPart(TimePart.FORWARD, each * _local(content, layers, FORWARD)),
        SpentPart(TimePart.BACKWARD, each * _local(content, layers, BACKWARD)),
    ]
    adding = each * sum(accumulate_seconds(cells[kind], setup) * number for kind, number in content)
    if adding:
        parts.append(SpentPart(TimePart.ACCUMULATE, adding))
    if setup.offload.activations:
        away = each * sum(written_out(content, cells, setup, phase) for phase in (FORWARD, BACKWARD))
        rate = offload_rate(content, cells, setup)
        parts.append(SpentPart(TimePart.OFFLOADED_ACTIVATIONS, away, "host", rate=rate))
    again = each * _local(content, layers, RECOMPUTE)
    if again:
        parts.append(SpentPart(TimePart.RECOMPUTE, again))
    parts += _exposed(content, layers, each)
    if setup.stages > 1:
        idle = max(0.0, price.makespan - sum(part.seconds for part in parts))
        parts.append(SpentPart(TimePart.BUBBLE, idle, setup.pipe))
    waited = price.tail_seconds - stage.tail_seconds
    if waited > 0:
        parts.append(SpentPart(TimePart.WAIT, waited, setup.pipe))
    return Spent((*parts, *stage.tail))


def _exposed(content: Content, layers: Mapping[str, LayerCost], each: float) -> list[SpentPart]:
    """Collectives of the passes by what they move and over which axes: what is exposed of them, and what hides."""
    exposed: dict[tuple[TimePart, str], list[float]] = {}
    behind: dict[tuple[TimePart, str], dict[Hider, None]] = {}
    for kind, number in content:
        for row in layers[kind].rows:
            for priced in row.collectives:
                if not priced.seconds:
                    continue
                what = TimePart(what_moves(layers[kind].planned, priced))
                key = (what, "/".join(priced.step.axes))
                sums = exposed.setdefault(key, [0.0, 0.0])
                sums[0] += priced.exposed_seconds * number * each
                sums[1] += (priced.seconds - priced.exposed_seconds) * number * each
                if priced.hidden_by is not None:
                    many = what is TimePart.ACTIVATIONS  # each behind an einsum of its own
                    by = Hider(HidingWork.OWN_EINSUM) if many else priced.hidden_by
                    behind.setdefault(key, {})[by] = None
    return [
        SpentPart(what, open_, axis, hidden, tuple(behind.get((what, axis), ())))
        for (what, axis), (open_, hidden) in exposed.items()
    ]


def _local(content: Content, layers: Mapping[str, LayerCost], phase: str) -> float:
    """Seconds of local work of one microbatch: `forward`, `backward` (recomputation left out) or `recompute`."""
    return sum(
        float(row.local.seconds) * number
        for kind, number in content
        for row in layers[kind].rows
        if row.planned.statement.phase == phase
    )
