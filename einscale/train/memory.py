"""What each device of a stage holds, and the moment at which it holds most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from einscale.layout import local_shape
from einscale.memory import Held
from einscale.schedule import Task
from einscale.train.parts import MemoryPart
from einscale.train.values import Alive, LayerCost, StageMemory, TrainSetup

Content = tuple[tuple[str, int], ...]
"""Kinds of layers of a model chunk, and how many of each."""


class Moment(Struct, frozen=True):
    """When a device holds most, parameters and what belongs to them left out.

    Args:
        bytes: activations and what the layer at work needs.
        copies: kind of layer -> layers whose activations are held, times microbatches.
        kind: kind of the layer at work; its own activations are among the copies.
        chunks: how many chunks' activations are held.
    """

    bytes: int
    copies: dict[str, int]
    kind: str
    chunks: int


def stage_peak(tasks: Sequence[Task], contents: Mapping[int, Content], layers: Mapping[str, LayerCost]) -> Moment:
    """Walk the tasks of one device and find the moment at which most activations are alive.

    A forward task leaves behind what its chunk saves; a backward task frees it layer by layer, last layer first, while
    each layer at work needs more. Where a backward pass is split, activations stay until the gradients of weights are
    made.

    Args:
        tasks: of the device, in order.
        contents: chunk -> its layers.
        layers: costs by kind.
    """
    saved = {
        chunk: sum(layers[kind].saved_bytes * count for kind, count in content) for chunk, content in contents.items()
    }
    extra = {chunk: _working(content, layers) for chunk, content in contents.items()}
    alive: dict[tuple[int, int], None] = {}
    held = 0
    best = Moment(-1, {}, "", 0)
    split = {(task.microbatch, task.chunk) for task in tasks if task.kind == "W"}
    for task in tasks:
        chunk = task.chunk
        if task.kind == "F":
            alive[task.microbatch, chunk] = None
            held += saved[chunk]
        if task.kind == "B":
            freed, need, kind, gone = extra[chunk]
            if held - freed + need > best.bytes:
                copies = _copies(alive, contents)
                for name, count in gone.items():
                    copies[name] -= count
                best = Moment(held - freed + need, copies, kind, len(alive))
        if task.kind == ("W" if (task.microbatch, chunk) in split else "B"):
            del alive[task.microbatch, chunk]
            held -= saved[chunk]
    return best


def _copies(alive: Iterable[tuple[int, int]], contents: Mapping[int, Content]) -> dict[str, int]:
    """Kind -> how many layers' activations are held, microbatches counted."""
    found: dict[str, int] = {}
    for _, chunk in alive:
        for kind, count in contents[chunk]:
            found[kind] = found.get(kind, 0) + count
    return found


def _working(content: Content, layers: Mapping[str, LayerCost]) -> tuple[int, int, str, dict[str, int]]:
    """Of a chunk's backward pass the worst layer: bytes freed before it, bytes it needs, its kind, layers freed."""
    best = (0, 0, content[-1][0] if content else "", dict[str, int]())
    freed, gone = 0, dict[str, int]()
    for kind, count in reversed(content):
        need = layers[kind].working_bytes
        if need - freed > best[1] - best[0] or not best[1]:
            best = (freed, need, kind, dict(gone))
        freed += layers[kind].saved_bytes * count
        gone[kind] = count
    return best


def stage_memory(content: Content, moment: Moment, layers: Mapping[str, LayerCost], setup: TrainSetup) -> StageMemory:
    """Bytes of one device of a stage at its peak.

    Args:
        content: all layers it holds, of every chunk.
        moment: its peak.
        layers: costs by kind.
        setup: the request.
    """
    saved = sum(layers[kind].saved_bytes * count for kind, count in moment.copies.items())
    at_work = layers[moment.kind].saved_bytes if moment.kind else 0
    written_out = int((saved - at_work) * setup.offload.activations)  # the layer at work has its own back
    optimizer = _held(content, layers, "optimizer")
    return StageMemory(
        parameters=_held(content, layers, "parameters"),
        gradients=_held(content, layers, "gradients"),
        optimizer=0 if setup.offload.optimizer else optimizer,
        saved=saved - written_out,
        gathered=_held(content, layers, "gathered") + max((layers[kind].prefetched for kind, _ in content), default=0),
        working=moment.bytes - saved,
        overhead=setup.overhead,
        host=written_out + (optimizer if setup.offload.optimizer else 0),
    )


def _held(content: Content, layers: Mapping[str, LayerCost], which: str) -> int:
    """Bytes of one class of tensors of every layer."""
    return sum(one.bytes * count for kind, count in content for one in getattr(layers[kind], which))


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
    for kind, count in moment.copies.items():
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
    return Alive(what, layer.kind, held.text, held.bytes, copies, held.reason, shape, held.tensor.dtype)
