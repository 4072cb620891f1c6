"""From what is asked of a training step to a setup: microbatches, stages, policies, every number checked."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from einscale.checks import batch_ways, check_divides, check_experts, check_names
from einscale.efficiency import FUSED_MAPS, Execution
from einscale.errors import ScheduleError, SizeError, StrategyError, UsageError, did_you_mean
from einscale.hardware import System
from einscale.mesh import Mesh
from einscale.models import Model
from einscale.models.flops import find_convention
from einscale.numeric import nearest_divisors
from einscale.precision import Precision
from einscale.price.memory import FRAMEWORK
from einscale.price.overlap import OVERLAPS, ROUTED
from einscale.program.capacity import check_capacity
from einscale.program.loss import FUSED, find_loss
from einscale.program.optimizers import find_optimizer
from einscale.program.recompute import WHOLE
from einscale.schedule import check_schedule, find_schedule
from einscale.stages import in_stages, pipe_axis
from einscale.strategy import Policy, Strategy, bind_strategy, with_zero
from einscale.topology import bind
from einscale.training.values import Offload, TrainSetup

PAIRED = ("dualpipe", "dualpipev")
"""Schedules whose blocks work on two microbatches, so that tokens travel to experts behind the work of the other."""

SELECTIVE = "selective"
"""Recompute of the attention core alone (Korthikanti et al. 2022, arXiv 2205.05198)."""


def make_setup(
    model: Model,
    strategy: Strategy,
    mesh: Mesh,
    system: System,
    *,
    batch: int | None,
    sequence: int,
    precision: Precision,
    microbatch: int | None = None,
    schedule: str | None = None,
    chunks: int | None = None,
    first: int | None = None,
    last: int | None = None,
    optimizer: str = "adamw",
    zero: int | None = None,
    recompute: Iterable[str] | None = None,
    overlap: Iterable[str] | None = None,
    offload: Offload | None = None,
    attention: str = "causal",
    overhead: int = FRAMEWORK,
    loss: str = FUSED,
    capacity: float = 1.0,
    execution: Execution = FUSED_MAPS,
    notes: list[str] | None = None,
) -> TrainSetup:
    """A request, resolved: what is not given gets a default, which `notes` is told.

    Args:
        model: its layers.
        strategy: its rules, roles not yet bound.
        mesh: the devices; an axis with the role `pipe` holds the stages of a pipeline.
        system: chips and links.
        batch: sequences of the global batch; by default one microbatch a replica, four a stage in a pipeline.
        sequence: tokens in a sequence.
        precision: element types.
        microbatch: sequences a replica works on at a time, 1 by default.
        schedule: pipeline schedule; by default `1f1b`, or `interleaved` for several chunks.
        chunks: model chunks on each stage.
        first: blocks of the first model chunk, where they are not divided evenly.
        last: blocks of the last one.
        optimizer: by name.
        zero: ZeRO stage that is added to the strategy.
        recompute: `none`, `selective` (the attention core), `full` (blocks), `alternate`, or statement groups.
        overlap: kinds of collectives that are hidden, of `OVERLAPS`; the strategy's own by default.
        offload: what rests on the host.
        attention: how attention counts in model FLOPs: `causal` or `full`.
        overhead: bytes a runtime takes beside tensors.
        loss: how the software stack runs the loss: `fused`, `compiled` or `eager`.
        capacity: rows each expert has room for, in even shares of those the tokens chose; 1 is dropless.
        execution: how local work is run.
        notes: collects what was chosen.

    Raises:
        StrategyError, ScheduleError, SizeError, UsageError, ProgramError: a request that cannot be met; the message
            names the nearest numbers that could.
    """
    said: list[str] = [] if notes is None else notes
    pipe = pipe_axis(mesh)
    stages = mesh.size(pipe) if pipe else 1
    name, held = _schedule(schedule, chunks, stages)
    if overlap is None and name in PAIRED:
        overlap = (*strategy.policy.overlap, ROUTED)
    chosen = _policies(in_stages(strategy, pipe), zero, recompute, overlap)
    bound = bind_strategy(chosen, mesh)
    if recompute is not None:
        check_recompute(chosen.policy.recompute, model)
    check_names(chosen, model)
    check_experts(bound, mesh, model)
    along = dict.fromkeys(axis for rule in bound.compute if rule.index == "s" and not rule.scope for axis in rule.axes)
    if along:
        said.append(
            f"sequence divided over {'/'.join(along)}: causal attention is taken as balanced, early and late parts in"
            " pairs (zigzag)"
        )
    find_optimizer(optimizer)
    ways, micro = batch_ways(chosen, mesh), 1 if microbatch is None else microbatch
    if batch is None:
        batch = _default_batch(ways, micro, stages, said)
    elif microbatch is None and stages == 1 and batch % ways == 0:
        said.append("microbatch: 1 sequence (none was given)")
    microbatches = _microbatches(batch, ways, micro)
    if stages > 1:
        check_schedule(name, stages, microbatches, held)
        if schedule is None:
            said.append(f"schedule: {name} (none was given)")
    elif schedule is not None or held > 1:
        raise ScheduleError(
            f"a schedule{f' of {held} chunks' if held > 1 else ''} is given, but the mesh {mesh} has no pipeline",
            expected="a mesh axis for its stages, such as pipe=4",
        )
    return TrainSetup(
        model=model,
        strategy=chosen,
        mesh=mesh,
        network=bind(mesh, system),
        pipe=pipe,
        batch=batch,
        sequence=sequence,
        microbatch=micro,
        microbatches=microbatches,
        schedule=name,
        chunks=held,
        first=first,
        last=last,
        precision=precision,
        optimizer=optimizer,
        offload=Offload() if offload is None else offload,
        overhead=overhead,
        loss=find_loss(loss),
        capacity=check_capacity(capacity),
        execution=execution,
        attention=find_convention(attention),
    )


def _default_batch(ways: int, microbatch: int, stages: int, said: list[str]) -> int:
    """Sequences of a batch where none is given: one microbatch a replica, in a pipeline four for each stage."""
    copies = 4 * stages if stages > 1 else 1
    batch = ways * microbatch * copies
    each = f"{copies} microbatches" if copies > 1 else "one microbatch"
    what = f"{batch} sequence{'s' if batch > 1 else ''}"
    said.append(f"batch: {what}, {each} of {microbatch} for each data-parallel replica (none was given)")
    return batch


def _policies(
    strategy: Strategy, zero: int | None, recompute: Iterable[str] | None, overlap: Iterable[str] | None
) -> Strategy:
    """The strategy with ZeRO, recompute and overlap as they are asked for."""
    policy = strategy.policy
    if recompute is not None:
        words = tuple(dict.fromkeys(recompute))
        if "none" in words and len(words) > 1:
            raise UsageError(
                f"recompute is both `none` and `{next(word for word in words if word != 'none')}`",
                expected="one of the two",
            )
        groups = tuple("attention" if word == SELECTIVE else word for word in words if word != "none")
        policy = replace(policy, recompute=(WHOLE,) if WHOLE in groups else groups)
    if overlap is not None:
        kinds = tuple(kind for kind in dict.fromkeys(overlap) if kind != "none")
        for kind in kinds:
            if kind not in OVERLAPS:
                raise UsageError(
                    f"nothing called `{kind}` can be overlapped", hint=did_you_mean(kind, (*OVERLAPS, "none"), "known")
                )
        policy = replace(policy, overlap=kinds)
    changed = replace(strategy, policy=policy)
    return changed if zero is None else with_zero(changed, zero)


def _schedule(schedule: str | None, chunks: int | None, stages: int) -> tuple[str, int]:
    """Name of the schedule and the chunks each stage holds, either from the other where one is not given."""
    if schedule is None:
        held = 1 if chunks is None else chunks
        return ("interleaved" if held > 1 and stages > 1 else "1f1b"), held
    found = find_schedule(schedule)
    return found.name, (found.chunks_fixed or 2) if chunks is None else chunks


def _microbatches(batch: int, ways: int, microbatch: int) -> int:
    """Microbatches of each replica.

    Raises:
        SizeError: the batch does not divide.
    """
    if batch % (ways * microbatch) == 0:
        return batch // (ways * microbatch)
    if batch % ways:
        parts = f" in microbatches of {microbatch}" if microbatch > 1 else ""
        check_divides(batch, ways * microbatch, f"{ways} data-parallel replicas{parts}")
    each = batch // ways
    raise SizeError(
        f"microbatches of {microbatch} sequences do not divide the {each} that each of {ways} replicas has of a batch "
        f"of {batch}",
        hint=f"use microbatches of {' or '.join(str(near) for near in nearest_divisors(each, microbatch))}",
    )


def check_recompute(words: Iterable[str], model: Model) -> None:
    """Raise where something to be recomputed is no group, section or result of any layer.

    Raises:
        StrategyError: with the near miss.
    """
    for word in words:
        try:
            check_names(Strategy("", (), policy=Policy(recompute=(word,))), model)
        except StrategyError as error:
            raise StrategyError(
                f"recompute names `{word}`, which no layer of {model.name} has", hint=error.hint
            ) from None
