"""What to change so that a step fits: the nearest changes, each planned and priced anew."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from einscale.changes import Change, Option, arguments_of, options_of
from einscale.checks import batch_ways, check_experts
from einscale.errors import EinscaleError
from einscale.nearby import nearby_meshes
from einscale.numeric import as_int
from einscale.program.recompute import WHOLE
from einscale.schedule import check_schedule
from einscale.strategy import bind_strategy, with_zero
from einscale.topology import bind
from einscale.training.step import train_report
from einscale.training.values import TrainReport, TrainSetup

MOST = 6
"""Most changes that are reported."""

MOST_TRIED = 8
"""Most single changes, those that save most, to which another is added."""

PLAIN = "1f1b"
"""Schedule that keeps least in flight of those whose stages hold one chunk."""


class Advice(Struct, frozen=True):
    """One change, or two together, and what the step costs with it.

    Args:
        changes: what is set to another value.
        report: the step with it.
    """

    changes: tuple[Change, ...]
    report: TrainReport

    @property
    def arguments(self) -> dict[str, object]:
        """The changes as arguments of `train_step`."""
        return arguments_of(self.changes)


def advise(report: TrainReport) -> tuple[Advice, ...]:
    """The nearest changes with which a step fits, best first: on the same devices before on more, faster before slower.

    Single changes are tried first: recomputing more, another schedule, smaller microbatches, the next ZeRO stages, the
    optimizer on the host, twice as many ways along one mesh axis (on as many devices, or on twice as many). If none of
    them fits, pairs are tried; if none of these does, what saves most is added one by one on the same devices. Empty
    where nothing tried fits, or the step fits already.
    """
    if report.fits:
        return ()
    tried = list(_tried(report.setup))
    found = [advice for advice in tried if advice.report.fits]
    if not found:
        needed = report.fullest.memory.needed
        helpful = sorted((one for one in tried if _needed(one) < needed), key=_needed)[:MOST_TRIED]
        found = [pair for one in helpful for pair in _further(one) if pair.report.fits]
        found = found or _piled_up(helpful, report.setup.mesh.devices)
    seen: dict[tuple[object, ...], Advice] = {}
    for advice in sorted(found, key=_rank):
        setup = advice.report.setup
        seen.setdefault((setup.mesh, setup.strategy, setup.microbatch, setup.offload, setup.schedule), advice)
    return tuple(seen.values())[:MOST]


def _needed(advice: Advice) -> int:
    return as_int(advice.report.fullest.memory.needed)


def _further(advice: Advice) -> Iterator[Advice]:
    """A change with every single one added that is not of the same option."""
    given = options_of(advice.changes)
    for more in _tried(advice.report.setup):
        if not given & options_of(more.changes):
            yield Advice((*advice.changes, *more.changes), more.report)


def _piled_up(helpful: list[Advice], devices: int) -> list[Advice]:
    """Changes on the same devices, that which saves most first, until the step fits; none if it never does."""
    same = [advice for advice in helpful if advice.report.setup.mesh.devices == devices]
    best = min(same, key=_needed, default=None)
    while best is not None and not best.report.fits:
        more = [
            one for one in _further(best) if one.report.setup.mesh.devices == devices and _needed(one) < _needed(best)
        ]
        best = min(more, key=_needed, default=None)
    return [] if best is None else [best]


def _rank(advice: Advice) -> tuple[int, float, int]:
    """Devices, then time of the step, then changes: of two ways to the same end that which changes less."""
    return advice.report.setup.mesh.devices, advice.report.step_seconds, len(advice.changes)


def _tried(setup: TrainSetup) -> Iterator[Advice]:
    """Every single change that is possible, priced."""
    for change, changed in _changes(setup):
        try:
            if changed.stages > 1:
                check_schedule(changed.schedule, changed.stages, changed.microbatches, changed.chunks)
            check_experts(bind_strategy(changed.strategy, changed.mesh), changed.mesh, changed.model)
            yield Advice((change,), train_report(changed))
        except EinscaleError:
            continue


def _changes(setup: TrainSetup) -> Iterator[tuple[Change, TrainSetup]]:
    """Single changes of a setup; not all of them are possible."""
    strategy, policy = setup.strategy, setup.strategy.policy
    if WHOLE not in policy.recompute:
        yield Change(Option.RECOMPUTE, WHOLE.value), _with_policy(setup, recompute=(WHOLE,))
        if "attention" not in {*policy.recompute, *policy.fuse}:
            yield Change(Option.RECOMPUTE, "selective"), _with_policy(setup, recompute=("attention",))
    halved = max((n for n in range(1, setup.microbatch) if setup.microbatch % n == 0), default=1)
    for size in dict.fromkeys((halved, 1)):
        if size < setup.microbatch:
            times = setup.microbatch // size
            changed = replace(setup, microbatch=size, microbatches=setup.microbatches * times)
            yield Change(Option.MICROBATCH, size), changed
    if setup.stages > 1 and setup.chunks == 1 and setup.schedule != PLAIN:
        yield Change(Option.SCHEDULE, PLAIN), replace(setup, schedule=PLAIN)
    if setup.replicas > 1:
        for stage in (1, 2, 3):
            try:
                divided = with_zero(strategy, stage)
            except EinscaleError:
                continue
            if dict(divided.store) != dict(strategy.store):
                yield Change(Option.ZERO, stage), replace(setup, strategy=divided)
    if not setup.offload.optimizer and setup.network.system.chip.host_bandwidth is not None:
        yield Change(Option.OFFLOAD_OPTIMIZER, True), replace(setup, offload=replace(setup.offload, optimizer=True))
    for mesh in nearby_meshes(setup.mesh):
        ways = batch_ways(strategy, mesh)
        if setup.batch % (ways * setup.microbatch) == 0:
            count = setup.batch // (ways * setup.microbatch)
            network = bind(mesh, setup.network.system)
            yield Change(Option.MESH, mesh), replace(setup, mesh=mesh, network=network, microbatches=count)


def _with_policy(setup: TrainSetup, **changes: tuple[str, ...]) -> TrainSetup:
    policy = replace(setup.strategy.policy, **changes)
    return replace(setup, strategy=replace(setup.strategy, policy=policy))
