"""Requests as they are asked for, every input resolved."""

from __future__ import annotations

from msgspec import Struct

from einscale.efficiency import EXECUTIONS, system_under
from einscale.hardware import System
from einscale.mesh import Mesh
from einscale.models import Model
from einscale.precision import Precision
from einscale.serving.instance import make_instance
from einscale.serving.values import Instance
from einscale.serving.ways import ahead_instance
from einscale.strategy import Strategy


class Serving(Struct, frozen=True):
    """An instance as it is asked for.

    Args:
        model: its layers as programs.
        mesh: the devices.
        system: chips and links.
        strategy: compute and store tables; None for one that suits the mesh.
        precision: element types.
        page: tokens in a page of the cache.
        memory_share: share of the chip's memory that may be used.
        overhead: bytes of each device that a runtime takes beside tensors.
        execution: one of `EXECUTIONS`.
    """

    model: Model
    mesh: Mesh
    system: System
    strategy: Strategy | None
    precision: Precision
    page: int
    memory_share: float
    overhead: int
    execution: str

    def instance(self) -> Instance:
        """The instance, its parts checked against each other."""
        return make_instance(
            self.model,
            self.mesh,
            system_under(self.execution, self.system),
            self.strategy,
            precision=self.precision,
            page=self.page,
            memory_share=self.memory_share,
            execution=EXECUTIONS[self.execution],
            overhead=self.overhead,
        )


class Speculation(Struct, frozen=True):
    """Speculative decoding as it is asked for.

    Args:
        draft: the smaller model; None for the model's own layer that predicts a token further ahead.
        guesses: tokens it guesses in a row.
        acceptance: probability that a guess is accepted.
    """

    draft: Model | None
    guesses: int
    acceptance: float


class Apart(Struct, frozen=True):
    """Prefill on instances of their own, as it is asked for.

    Args:
        serving: an instance for prefill.
        batch: prompts that it reads at a time; None for one a data-parallel replica.
        link: bytes/s from one prefill instance to a decode instance; None for the network's.
        prefill_instances: how many there are; None with `decode_instances` for the numbers that serve most a device.
        decode_instances: how many there are.
        price_per_hour: of one of its devices; None for the price of the others.
    """

    serving: Serving
    batch: int | None = None
    link: float | None = None
    prefill_instances: int | None = None
    decode_instances: int | None = None
    price_per_hour: float | None = None


class Points(Struct, frozen=True):
    """Points of a sweep: every batch at every context."""

    batches: tuple[int, ...]
    contexts: tuple[int, ...]


class AskedRequests(Struct, frozen=True):
    """A request as it is asked for, every input resolved.

    Args:
        serving: what answers.
        batch: requests at the same time, all data-parallel replicas together.
        prompt: tokens of each prompt.
        output: tokens generated of each.
        chunk: tokens of each prompt that are read at a time; None for all at once.
        microbatches: parts the batch is divided into; None for as many as there are pipeline stages.
        speculation: a draft guesses; None if nothing does.
        apart: instances of their own for prefill; None for the same ones.
        points: points of a sweep.
        price_per_hour: of one device.
        notes: what was decided where nothing was given.
    """

    serving: Serving
    batch: int
    prompt: int
    output: int
    chunk: int | None = None
    microbatches: int | None = None
    speculation: Speculation | None = None
    apart: Apart | None = None
    points: Points | None = None
    price_per_hour: float | None = None
    notes: tuple[str, ...] = ()


def draft_instance(target: Instance, serving: Serving, speculation: Speculation) -> Instance:
    """The draft, on the devices of its target and under the same strategy, in the same types."""
    if speculation.draft is None:
        return ahead_instance(target)
    named = Serving(
        speculation.draft,
        serving.mesh,
        serving.system,
        serving.strategy,
        serving.precision,
        serving.page,
        serving.memory_share,
        serving.overhead,
        serving.execution,
    )
    return named.instance()
