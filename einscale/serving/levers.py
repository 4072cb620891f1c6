"""What would make requests that fit cheaper: a few nearby changes on as many devices, each planned and priced anew."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from einscale.changes import Change, Option
from einscale.errors import EinscaleError
from einscale.nearby import same_devices
from einscale.serving.advice import Changed, ServingAdvice
from einscale.serving.answer import answer_requests
from einscale.serving.asked import AskedRequests
from einscale.serving.run import InferRun

DOUBLINGS = 2
"""How often the batch is doubled."""

WORTH = 1.01
"""Times the tokens/s that a change must reach to be worth saying."""


def levers(result: InferRun) -> tuple[ServingAdvice, ...]:
    """Single changes on as many devices with which requests still fit and more tokens/s are served, most first.

    Tried are larger batches, and twice as many ways along one mesh axis taken from another. Empty where none of them
    helps, or requests do not fit.
    """
    if not result.fits:
        return ()
    found: list[ServingAdvice] = []
    for changes, asked in _changes(replace(result.asked, points=None)):
        try:
            changed = answer_requests(asked, type(result))
        except EinscaleError:
            continue
        more = changed.tokens_per_second > WORTH * result.tokens_per_second
        if changed.fits and more and changed.devices == result.devices:
            found.append(ServingAdvice(changes, changed))
    return tuple(sorted(found, key=lambda one: -one.result.tokens_per_second))


def _changes(asked: AskedRequests) -> Iterator[Changed]:
    """Nearby requests on as many devices; not all of them are possible."""
    for doubling in range(1, DOUBLINGS + 1):
        batch = asked.batch * 2**doubling
        yield (Change(Option.BATCH, batch),), replace(asked, batch=batch)
    for mesh in same_devices(asked.serving.mesh):
        yield (Change(Option.MESH, mesh),), replace(asked, serving=replace(asked.serving, mesh=mesh))
