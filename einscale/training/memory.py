"""What each device of a stage holds, and the moment at which it holds most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from einscale.layout import local_shape
from einscale.numeric import Number, largest, truncate, where
from einscale.price.footprint import Memory, MemoryPart
from einscale.price.memory import Held
from einscale.schedule import AliveForm, Task, alive_forms, order
from einscale.schedule.orders import enough_microbatches
from einscale.training.cells import LayerCell
from einscale.training.stages import Content
from einscale.training.values import Alive, LayerCost, TrainSetup

WARM_UP = 6
"""Microbatches a stage after which no device holds more than it did before."""


def stage_tasks(schedule: str, stages: int, chunks: int, microbatches: int, device: int) -> Sequence[Task]:
    """Tasks of one device, of as many microbatches as show the most it ever holds."""
    if stages == 1:
        return order("1f1b", 1, min(microbatches, 2), 1)[0]
    few = microbatches
    if schedule != "gpipe":
        few = enough_microbatches(schedule, stages, microbatches, WARM_UP)
    return order(schedule, stages, few, chunks)[device]


ALONE = AliveForm(work=0, chunks=(0,), counts=(1,))
"""What a device without a pipeline holds: a microbatch at a time, forward and then backward."""


class Moment(Struct, frozen=True):
    """A moment of a device's work: what it holds then beside parameters and what belongs to them.

    Args:
        copies: (kind of layer, layers whose activations are held, times microbatches).
        kind: kind of the layer at work; its own activations are among the copies.
        chunks: how many chunks' activations are held.
    """

    copies: tuple[tuple[str, int], ...]
    kind: str
    chunks: int


@lru_cache(maxsize=4096)
def stage_moments(
    schedule: str, stages: int, chunks: int, microbatches: int, device: int, contents: tuple[tuple[int, Content], ...]
) -> tuple[Moment, ...]:
    """The moments at which a device may hold most, whatever the bytes: no other holds at least as much of everything.

    A forward task leaves behind what its chunk saves; a backward task frees it layer by layer, last layer first, while
    each layer at work needs more. Where a backward pass is split, activations stay until the gradients of weights are
    made.

    Args:
        schedule: by name.
        stages: devices along the pipeline.
        chunks: model chunks on each of them.
        microbatches: of a step.
        device: which of them.
        contents: (chunk, its layers) of the chunks it holds.
    """
    found: dict[Moment, None] = {}
    holds = dict(contents)
    for form in alive_forms(schedule, stages, microbatches, chunks)[device] if stages > 1 else (ALONE,):
        layers: dict[str, int] = {}
        for chunk, count in zip(form.chunks, form.counts, strict=True):
            for kind, number in holds[chunk]:
                layers[kind] = layers.get(kind, 0) + number * count
        for kind, number in reversed(holds[form.work]):
            found[Moment(tuple(layers.items()), kind, sum(form.counts))] = None
            layers = {**layers, kind: layers[kind] - number}
    return _undominated(tuple(found))


def _undominated(moments: tuple[Moment, ...]) -> tuple[Moment, ...]:
    """Moments without those at which another, with the same layer at work, holds at least as much of everything."""

    def beats(one: Moment, other: Moment) -> bool:
        more = dict(one.copies)
        return one.kind == other.kind and all(more.get(kind, 0) >= count for kind, count in other.copies)

    kept: list[Moment] = []
    for moment in moments:
        if not any(beats(other, moment) for other in kept):
            kept = [other for other in kept if not beats(moment, other)] + [moment]
    return tuple(kept)


def stage_memory(
    content: Content, moments: Sequence[Moment], cells: Mapping[str, LayerCell], setup: TrainSetup
) -> tuple[Memory, Number]:
    """Bytes of one device of a stage at the moment it needs most, what goes to the host taken off; and which that is.

    Args:
        content: all layers it holds, of every chunk.
        moments: those at which it may.
        cells: numbers by kind of layer.
        setup: the request.
    """
    best: tuple[Number, Number, Number] = (0, 0, 0)  # saved on the device, written out, working
    at: Number = 0
    for number, moment in enumerate(moments):
        saved = sum(cells[kind].saved * count for kind, count in moment.copies)
        own = cells[moment.kind].saved  # the layer at work has its own back
        away = truncate((saved - own) * setup.offload.activations)
        now = (saved - away, away, cells[moment.kind].working)
        fuller = now[0] + now[2] > best[0] + best[2]
        at = where(fuller, number, at)
        saved, away, working = (where(fuller, new, old) for new, old in zip(now, best, strict=True))
        best = saved, away, working
    optimizer = _held(content, cells, "optimizer")
    memory = Memory(
        parameters=_held(content, cells, "parameters"),
        gradients=_held(content, cells, "gradients"),
        optimizer=0 if setup.offload.optimizer else optimizer,
        saved=best[0],
        gathered=_held(content, cells, "gathered") + largest(cells[kind].fetched for kind, _ in content),
        working=best[2],
        overhead=setup.overhead,
        capacity=setup.network.system.chip.memory_bytes,
        host=best[1] + (optimizer if setup.offload.optimizer else 0),
    )
    return memory, at


def _held(content: Content, cells: Mapping[str, LayerCell], which: str) -> Number:
    """Bytes of one class of tensors of every layer."""
    numbers: Iterable[Number] = (getattr(cells[kind], which) * count for kind, count in content)
    return sum(numbers)


def alive_tensors(
    content: Content, moment: Moment, layers: Mapping[str, LayerCost], setup: TrainSetup
) -> tuple[Alive, ...]:
    """Every tensor that a device of a stage holds at its peak, largest first, equal ones counted as copies.

    Saved activations are listed as if none were written out to the host.

    Args:
        content: all layers it holds, of every chunk.
        moment: its peak.
        layers: costs by kind.
        setup: the request.
    """
    found: list[Alive] = []
    for what in (MemoryPart.PARAMETERS, MemoryPart.GRADIENTS, MemoryPart.OPTIMIZER, MemoryPart.GATHERED):
        if what is MemoryPart.OPTIMIZER and setup.offload.optimizer:
            continue
        found += (
            _alive(what, layers[kind], one, count) for kind, count in content for one in getattr(layers[kind], what)
        )
    ahead = max((layers[kind] for kind, _ in content), key=lambda layer: layer.prefetched)
    found += (_alive(MemoryPart.GATHERED, ahead, one, 1) for one in ahead.fetched)
    for kind, count in moment.copies:
        others = count - (kind == moment.kind)
        found += (_alive(MemoryPart.SAVED, layers[kind], one, others) for one in layers[kind].saved if others)
    if moment.kind:
        layer = layers[moment.kind]
        kept = {(one.tensor.name, one.layout) for one in layer.saved}
        found += (
            _alive(MemoryPart.SAVED if (one.tensor.name, one.layout) in kept else MemoryPart.WORKING, layer, one, 1)
            for one in layer.peak.alive
        )
    return tuple(sorted(found, key=lambda one: -one.total))


def _alive(what: MemoryPart, layer: LayerCost, held: Held, copies: int) -> Alive:
    sizes, degrees = layer.planned.sizes, layer.planned.degrees
    shape = tuple(int(n) for n in local_shape(held.layout, held.tensor.indices, sizes, degrees))
    return Alive(what, layer.kind, held, copies, shape)
