"""A training step as a value: what it costs, what the run costs that it is one of, and what to change."""

from __future__ import annotations

from msgspec import Struct

from einscale.price.footprint import Memory
from einscale.training.advice import Advice, advise
from einscale.training.levers import levers
from einscale.training.reserved import reserved_memory, reserves
from einscale.training.values import TrainReport


class TrainRun(Struct, frozen=True):
    """One optimizer step, priced, with the whole run that it is one of.

    Args:
        step: layers, stages, times and memory.
        price_per_hour: of one device, None if not given; in whatever money it was given in.
        training_tokens: tokens of the whole training run, None if not given.
    """

    step: TrainReport
    price_per_hour: float | None = None
    training_tokens: int | None = None

    @property
    def seconds(self) -> float:
        """Time of a step."""
        return self.step.step_seconds

    @property
    def memory(self) -> Memory:
        """Bytes on each device of the stage that needs most."""
        return self.step.fullest.memory

    @property
    def fits(self) -> bool:
        """Whether every stage fits in the memory of its devices."""
        return self.step.fits

    @property
    def step_price(self) -> float | None:
        """Money for one step on all devices, None without a price."""
        if self.price_per_hour is None:
            return None
        return self.price_per_hour * self.step.setup.mesh.devices * self.step.step_seconds / 3600

    @property
    def training_steps(self) -> int | None:
        """Steps of the whole training run, the last one perhaps not full; None without its tokens."""
        return None if self.training_tokens is None else -(-self.training_tokens // self.step.setup.tokens)

    @property
    def training_days(self) -> float | None:
        """Days of the whole training run, nothing ever failing; None without its tokens."""
        return None if self.training_steps is None else self.training_steps * self.step.step_seconds / 86400

    @property
    def training_price(self) -> float | None:
        """Money for the whole training run, None without its tokens or a price."""
        if self.training_steps is None or self.step_price is None:
            return None
        return self.training_steps * self.step_price

    @property
    def reserved(self) -> int | None:
        """Bytes that PyTorch's caching allocator reserves on each device of the fullest stage, the runtime's with them.

        None on TPUs, where the compiler plans memory and nothing is reserved, and with activations on the host.

        More than what is needed: what it cannot use again for other tensors is in. It is what a monitor of the device
        shows. Whether a step `fits` goes by what is needed, for an allocator that runs out gives back what it caches.
        """
        report = self.step
        return reserved_memory(report) + report.setup.overhead if reserves(report) else None

    @property
    def advice(self) -> tuple[Advice, ...]:
        """The nearest changes that would fit, each priced; worked out when asked for."""
        return advise(self.step)

    @property
    def faster(self) -> tuple[Advice, ...]:
        """Nearby changes on as many devices that make a step that fits faster, each priced; worked out when asked."""
        return levers(self.step)
