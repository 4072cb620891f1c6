"""What to change so that requests fit: the nearest changes, each planned and priced anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from einscale.changes import Change, Option, arguments_of, options_of
from einscale.dtypes import bits_of
from einscale.errors import EinscaleError
from einscale.mesh import Mesh, MeshAxis
from einscale.precision import PRESETS, Precision, parse_precision
from einscale.serving import Planner, requests_fit
from einscale.serving.answer import answer_requests
from einscale.serving.asked import Apart, AskedRequests, Serving
from einscale.serving.run import InferRun

MOST = 6
"""Most changes that are reported."""

CHUNKS = (8192, 4096, 2048, 1024, 512)
"""Sizes of chunks that are tried, tokens of each prompt."""

QUANTISED = ("w8a8-fp8", "int8", "int4")
"""Presets with narrower weights that are tried."""

Changed = tuple[tuple[Change, ...], AskedRequests]
"""Changes, and the request with them."""

MODEL = "model"
"""Mesh axis that every device is put along, where the mesh has none of that name."""

DOUBLINGS = 5
"""How often the devices along one mesh axis are doubled at most."""

NARROW = "fp8"
"""Type of the cache that is tried where it is wider."""


class ServingAdvice(Struct, frozen=True):
    """One change, or two together, and what requests cost with it.

    Args:
        changes: what is set to another value.
        result: the answer with it.
    """

    changes: tuple[Change, ...]
    result: InferRun

    @property
    def arguments(self) -> dict[str, object]:
        """The changes as arguments of `infer`."""
        return arguments_of(self.changes)


def advise(result: InferRun) -> tuple[ServingAdvice, ...]:
    """The nearest changes with which requests fit, best first: on fewer devices first, then one change before two.

    Single changes are tried first: a smaller batch, prompts read in chunks, a narrower cache, narrower weights, twice
    as many devices along one mesh axis until it fits, or all of them along `model`. If nothing fits on the same devices
    but fewer requests, narrower types are tried together with chunks; if nothing fits on more either, narrower types
    and the smallest chunks together with the others. Empty where nothing tried fits, or it fits already.
    """
    if result.fits:
        return ()
    asked, kind = replace(result.asked, points=None), type(result)
    found = _nearest(_changes(asked, result), kind)
    fewer = all(_fewer(advice) for advice in found)
    if all(_fewer(advice) or advice.result.devices > result.devices for advice in found):
        for changes, changed in (change for group in _precisions(asked) for change in group):
            for more in _nearest([_chunks(changed)], kind):
                found.append(ServingAdvice((*changes, *more.changes), more.result))
    if fewer:
        for changes, changed in [
            *(change for group in _precisions(asked) for change in group),
            *list(_chunks(asked))[-1:],
        ]:
            for more in _nearest(_more(changed, fewer=not found), kind):
                found.append(ServingAdvice((*changes, *more.changes), more.result))
        found = list({advice.changes: advice for advice in found}.values())
    simplest = sorted(found, key=lambda advice: (len(advice.changes) > 1, _rank(advice)))[:MOST]
    return tuple(sorted(simplest, key=_rank))


def _fewer(advice: ServingAdvice) -> bool:
    """Whether it asks for fewer requests and for nothing else."""
    return options_of(advice.changes) == {Option.BATCH}


def _rank(advice: ServingAdvice) -> tuple[int, int, float]:
    """Fewer devices first, then one change before two, then tokens/s for each."""
    result = advice.result
    return result.devices, len(advice.changes), -result.tokens_per_second_per_device


def _nearest(groups: Iterable[Iterator[Changed]], kind: type[InferRun]) -> list[ServingAdvice]:
    """Of each group of changes, nearest first, the first with which it fits."""
    found = []
    for group in groups:
        for changes, asked in group:
            try:
                changed = answer_requests(asked, kind) if _may_fit(asked) else None
            except EinscaleError:
                continue
            if changed is not None and changed.fits:
                found.append(ServingAdvice(changes, changed))
                break
    return found


def _may_fit(asked: AskedRequests) -> bool:
    """Whether it is worth its price to price a request: where nothing guesses and nothing is apart, it fits."""
    if asked.speculation is not None or asked.apart is not None:
        return True
    return requests_fit(
        Planner(asked.serving.instance()),
        batch=asked.batch,
        prompt=asked.prompt,
        output=asked.output,
        chunk=asked.chunk,
        microbatches=asked.microbatches,
    )


def _changes(asked: AskedRequests, result: InferRun) -> Iterator[Iterator[Changed]]:
    """Groups of single changes, each from the nearest on; not all of them are possible."""
    yield _batches(asked, result)
    yield from _precisions(asked)
    yield from _more(asked, fewer=False)


def _more(asked: AskedRequests, *, fewer: bool) -> Iterator[Iterator[Changed]]:
    """Groups of changes that may come on top of others."""
    if fewer:
        yield _batches(asked, None)
    if asked.chunk != CHUNKS[-1]:
        yield _chunks(asked)
    for axis in _growing(asked.serving.mesh):
        yield _meshes(asked, axis)
    if MODEL not in asked.serving.mesh.names:
        yield _along_model(asked)
    if asked.apart is not None:
        if asked.apart.batch is not None:
            yield _prefill_batches(asked, asked.apart)
        for axis in _growing(asked.apart.serving.mesh):
            yield _prefill_meshes(asked, asked.apart, axis)


def _batches(asked: AskedRequests, result: InferRun | None) -> Iterator[Changed]:
    """Smaller batches: the largest that fits where it is known, else half of it and so on."""
    tried = []
    if result is not None and asked.speculation is None and asked.apart is None:
        tried.append(result.largest_batch)
    batch = asked.batch // 2
    while batch:
        tried.append(batch)
        batch //= 2
    for size in tried:
        if 0 < size < asked.batch:
            yield (Change(Option.BATCH, size),), replace(asked, batch=size)


def _chunks(asked: AskedRequests) -> Iterator[Changed]:
    """Prompts read in smaller pieces."""
    now = asked.chunk or asked.prompt
    for size in CHUNKS:
        if size < now:
            yield (Change(Option.CHUNK, size),), replace(asked, chunk=size)


def _precisions(asked: AskedRequests) -> Iterator[Iterator[Changed]]:
    """A narrower cache; narrower weights, and with them a narrower cache."""
    for group in narrower(asked.serving.precision):
        yield (_typed(asked, precision) for precision in group)


def _typed(asked: AskedRequests, precision: Precision) -> Changed:
    """The same request in other types."""
    serving, apart = replace(asked.serving, precision=precision), asked.apart
    if apart is not None:
        apart = replace(apart, serving=replace(apart.serving, precision=precision))
    return (Change(Option.PRECISION, precision),), replace(asked, serving=serving, apart=apart)


def narrower(now: Precision) -> tuple[tuple[Precision, ...], ...]:
    """Precisions with a narrower cache or narrower weights, and then a narrower cache, as they would be asked for.

    >>> from einscale.precision import parse_precision
    >>> for group in narrower(parse_precision("bf16")):
    ...     print(*group)
    bf16,kv_cache=fp8
    w8a8-fp8
    int8 int8,kv_cache=fp8
    int4 int4,kv_cache=fp8
    """
    caches = [now.kv_cache, *([NARROW] if _bits(now.kv_cache) > _bits(NARROW) else [])]
    groups: list[tuple[Precision, ...]] = []
    if len(caches) > 1:
        groups.append((_asked_for(now.name.partition(",")[0] or "bf16", now, NARROW),))
    for name in QUANTISED:
        if _bits(PRESETS[name].weights) < _bits(now.weights):
            own = PRESETS[name].kv_cache
            kept = [own if _bits(own) <= _bits(cache) else cache for cache in caches]
            groups.append(tuple(parse_precision(f"{name},kv_cache={cache}") for cache in dict.fromkeys(kept)))
    return tuple(groups)


def _asked_for(preset: str, now: Precision, cache: str) -> Precision:
    """A precision with another cache, whose name reads as one would ask for it."""
    settings = [word for word in now.name.split(",")[1:] if not word.startswith("kv_cache")]
    if preset not in PRESETS:
        return replace(now, kv_cache=cache)
    return parse_precision(",".join((preset, *settings, f"kv_cache={cache}")))


def _bits(dtype: str) -> float:
    """Bits of an element, scales of blocks in it."""
    return bits_of(4096, dtype) / 4096


def _growing(mesh: Mesh) -> list[str]:
    """Axes along which there could be more devices; `model` where there is one device."""
    return [axis.name for axis in mesh.axes if axis.size > 1] or [MODEL]


def _grown(mesh: Mesh, name: str, times: int) -> Mesh:
    """A mesh with so many times the devices along an axis."""
    if mesh.devices == 1:
        return Mesh((MeshAxis(name, times),))
    return Mesh(tuple(replace(axis, size=axis.size * times) if axis.name == name else axis for axis in mesh.axes))


def _meshes(asked: AskedRequests, axis: str) -> Iterator[Changed]:
    """Twice the devices along an axis, four times, and so on."""
    for doubling in range(1, DOUBLINGS + 1):
        mesh = _grown(asked.serving.mesh, axis, 2**doubling)
        yield _on_mesh(asked, mesh)


def _along_model(asked: AskedRequests) -> Iterator[Changed]:
    """The same devices all along `model`, twice as many, and so on."""
    for doubling in range(DOUBLINGS + 1):
        size = asked.serving.mesh.devices * 2**doubling
        if size > 1:
            yield _on_mesh(asked, Mesh((MeshAxis(MODEL, size),)))


def _on_mesh(asked: AskedRequests, mesh: Mesh) -> Changed:
    """The same requests on another mesh, or as few more as its data-parallel devices need to have one each."""
    changed, change = replace(asked, serving=_on(asked.serving, mesh)), Change(Option.MESH, mesh)
    try:
        ways = changed.serving.instance().ways
    except EinscaleError:
        return (change,), changed
    if asked.batch < ways:
        return (change, Change(Option.BATCH, ways)), replace(changed, batch=ways)
    return (change,), changed


def _prefill_meshes(asked: AskedRequests, apart: Apart, axis: str) -> Iterator[Changed]:
    """Twice the devices of a prefill instance along an axis, four times, and so on."""
    for doubling in range(1, DOUBLINGS + 1):
        mesh = _grown(apart.serving.mesh, axis, 2**doubling)
        changed = replace(asked, apart=replace(apart, serving=_on(apart.serving, mesh)))
        yield (Change(Option.DISAGGREGATE, mesh),), changed


def _prefill_batches(asked: AskedRequests, apart: Apart) -> Iterator[Changed]:
    """Fewer prompts read at a time."""
    batch = (apart.batch or 1) // 2
    while batch:
        yield (Change(Option.PREFILL_BATCH, batch),), replace(asked, apart=replace(apart, batch=batch))
        batch //= 2


def _on(serving: Serving, mesh: Mesh) -> Serving:
    """The same instance on another mesh."""
    return replace(serving, mesh=mesh)
