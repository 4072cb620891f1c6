"""What would make a step that fits faster: a few nearby changes on as many devices, each planned and priced anew."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from einscale.changes import Change, Option
from einscale.checks import batch_ways, check_experts
from einscale.errors import EinscaleError
from einscale.nearby import same_devices
from einscale.schedule import check_schedule
from einscale.strategy import bind_strategy
from einscale.topology import bind
from einscale.training.advice import Advice
from einscale.training.step import train_report
from einscale.training.values import TrainReport, TrainSetup

DOUBLINGS = 2
"""How often the microbatch is doubled."""

NOTHING = "none"
"""How one asks for no recomputation."""

WORTH = 0.99
"""Share of the step's time that a change must come below to be worth saying."""


def levers(report: TrainReport) -> tuple[Advice, ...]:
    """Single changes on as many devices with which a step still fits and is faster, fastest first.

    Tried are larger microbatches, nothing computed again, and twice as many ways along one mesh axis taken from
    another. Empty where none of them helps, or the step does not fit.
    """
    if not report.fits:
        return ()
    found = [one for one in map(_priced, _changes(report.setup)) if one is not None and one.report.fits]
    faster = [one for one in found if one.report.step_seconds < WORTH * report.step_seconds]
    return tuple(sorted(faster, key=lambda one: one.report.step_seconds))


def _priced(changed: tuple[Change, TrainSetup]) -> Advice | None:
    """A change and its price; None where it is not possible."""
    change, setup = changed
    try:
        if setup.stages > 1:
            check_schedule(setup.schedule, setup.stages, setup.microbatches, setup.chunks)
        check_experts(bind_strategy(setup.strategy, setup.mesh), setup.mesh, setup.model)
        return Advice((change,), train_report(setup))
    except EinscaleError:
        return None


def _changes(setup: TrainSetup) -> Iterator[tuple[Change, TrainSetup]]:
    """Nearby setups on as many devices; not all of them are possible."""
    for doubling in range(1, DOUBLINGS + 1):
        times = 2**doubling
        if setup.microbatches % times == 0:
            size = setup.microbatch * times
            yield (
                Change(Option.MICROBATCH, size),
                replace(setup, microbatch=size, microbatches=setup.microbatches // times),
            )
    policy = setup.strategy.policy
    if policy.recompute:
        kept = replace(setup.strategy, policy=replace(policy, recompute=()))
        yield Change(Option.RECOMPUTE, NOTHING), replace(setup, strategy=kept)
    for mesh in same_devices(setup.mesh):
        ways = batch_ways(setup.strategy, mesh)
        if setup.batch % (ways * setup.microbatch) == 0:
            count = setup.batch // (ways * setup.microbatch)
            yield (
                Change(Option.MESH, mesh),
                replace(setup, mesh=mesh, network=bind(mesh, setup.network.system), microbatches=count),
            )
