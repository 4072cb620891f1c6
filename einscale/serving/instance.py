"""An instance: a model, a mesh and a strategy that fit each other, resolved once for every question about requests."""

from __future__ import annotations

from einscale.checks import batch_ways, check_divides, check_names
from einscale.efficiency import COMPILED, Execution
from einscale.errors import SizeError, StrategyError, UsageError
from einscale.hardware import System
from einscale.mesh import Mesh
from einscale.models import Model, block_order
from einscale.models.values import Positions
from einscale.precision import Precision, parse_precision
from einscale.program.cache import KEYS, SEQUENCE
from einscale.serving.values import PAGE, Instance
from einscale.stages import held_layers, in_stages, pipe_axis
from einscale.strategy import Strategy, default_serving_strategy, load_strategy
from einscale.topology import bind
from einscale.units import check_size


def make_instance(
    model: Model,
    mesh: Mesh,
    system: System,
    strategy: Strategy | str | None = None,
    *,
    precision: Precision | str = "bf16",
    page: int = PAGE,
    memory_share: float = 1.0,
    execution: Execution = COMPILED,
    overhead: int = 0,
) -> Instance:
    """An instance, once its parts are checked against each other.

    Args:
        model: its layers as programs.
        mesh: the devices; an axis that plays the role `pipe` divides the layers.
        system: chips and links.
        strategy: compute and store tables, or their name; by default one that suits the mesh.
        precision: element types, or a preset's name; the cache has a type of its own, `kv_cache`.
        page: tokens in a page of the cache; 1 for a cache without pages.
        memory_share: share of the chip's memory that may be used, in (0, 1].
        execution: how local work is run; by default as serving engines do, which capture a step once and replay it
            (CUDA graphs, XLA), neighbouring maps fused.
        overhead: bytes of each device that a runtime takes beside tensors.

    >>> from einscale.hardware import load_system
    >>> from einscale.mesh import parse_mesh
    >>> from einscale.models import load_model
    >>> instance = make_instance(load_model("llama3-70b"), parse_mesh("data=2,model=4"), load_system("h100"))
    >>> instance.strategy.name, instance.ways
    ('megatron', 2)

    Raises:
        StrategyError: the strategy does not fit the mesh or the model, or there are more stages than layers.
        SizeError, UsageError: a page or a share that cannot be; a model that fixes batch or sequence.
    """
    chosen = strategy if isinstance(strategy, Strategy) else load_strategy(strategy or default_serving_strategy(mesh))
    pipe = pipe_axis(mesh)
    layered = in_stages(chosen, pipe)
    check_names(layered, model)
    _check_model(model)
    if not 0 < memory_share <= 1:
        raise UsageError(f"a share of {memory_share:g} of the memory cannot be used", expected="more than 0, at most 1")
    instance = Instance(
        model,
        layered,
        bind(mesh, system),
        parse_precision(precision),
        batch_ways(layered, mesh),
        pipe,
        check_size(page, "page"),
        memory_share,
        execution,
        overhead,
    )
    _check_stages(instance)
    return instance


def _check_stages(instance: Instance) -> None:
    """Every stage has a layer.

    Raises:
        StrategyError: there are more stages than layers.
    """
    model, blocks = instance.model, block_order(instance.model)
    if instance.stages > len(blocks):
        raise StrategyError(
            f"{model.name} has {len(blocks)} layers and cannot be divided into {instance.stages} pipeline stages",
            text=str(instance.mesh),
            hint=f"use at most {len(blocks)} devices along {instance.pipe}",
        )


def stage_layers(model: Model, stages: int) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Kinds of layers of each pipeline stage and how many: blocks as evenly as they go, embedding and head at the ends.

    >>> from einscale.models import load_model
    >>> stage_layers(load_model("llama3-8b"), 3)
    ((('embedding', 1), ('block', 11)), (('block', 11),), (('block', 10), ('head', 1)))
    """
    least, more = divmod(len(block_order(model)), stages)
    return held_layers(model, [least + (stage < more) for stage in range(stages)])


def _check_model(model: Model) -> None:
    """Raise where a program of one's own fixes a size that requests decide."""
    for layer in model.layers:
        for axis, size in layer.program.sizes:
            if axis in ("b", SEQUENCE, KEYS):
                raise SizeError(
                    f"program `{layer.program.name}` fixes axis `{axis}` at {size}: requests decide how many run",
                    hint=f"leave out the line `size {axis} = {size}`",
                )


def check_batch(instance: Instance, batch: int, microbatches: int = 1) -> int:
    """The batch, if it divides over the data-parallel devices and the microbatches.

    Raises:
        SizeError: it is no positive whole number, or does not divide; the message names the nearest that does.
    """
    sequences = check_size(batch, "batch")
    ways = instance.ways * microbatches
    over = f"{instance.ways} data-parallel device{'s' if instance.ways > 1 else ''}"
    check_divides(sequences, ways, over + (f" in {microbatches} microbatches" if microbatches > 1 else ""))
    return sequences


def check_positions(instance: Instance, tokens: int) -> None:
    """Raise where a sequence would be longer than the positions a model has learned.

    Raises:
        SizeError: it would.
    """
    config = instance.model.config
    if config is not None and config.positions == Positions.LEARNED and tokens > config.max_positions:
        raise SizeError(
            f"{instance.model.name} has {config.max_positions} learned positions, fewer than a sequence of"
            f" {tokens} tokens",
            hint=f"prompt and output together may have at most {config.max_positions}",
        )


def default_microbatches(instance: Instance, batch: int) -> int:
    """Parts a batch is divided into when nobody says: as many as there are stages, or the most below that divide it.

    >>> from einscale.hardware import load_system
    >>> from einscale.mesh import parse_mesh
    >>> from einscale.models import load_model
    >>> piped = make_instance(load_model("llama3-8b"), parse_mesh("pipe=4"), load_system("h100"))
    >>> default_microbatches(piped, 8), default_microbatches(piped, 6), default_microbatches(piped, 1)
    (4, 3, 1)
    """
    rest = batch // instance.ways
    return max((parts for parts in range(1, instance.stages + 1) if rest % parts == 0), default=1)
