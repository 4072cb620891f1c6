"""Requests as values: reports with money, and what follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from einscale.layout import shards
from einscale.numeric import product
from einscale.price.footprint import Memory
from einscale.serving.asked import AskedRequests
from einscale.serving.cache import fed_caches, kv_bytes, kv_bytes_per_token
from einscale.serving.largest import most_requests
from einscale.serving.requests import most_sequences
from einscale.serving.values import DecodeReport, Instance, PrefillReport, RequestReport, StepReport, SweepRow
from einscale.serving.ways import DisaggregatedReport, SpeculativeReport, cost_per_million_tokens

if TYPE_CHECKING:
    from einscale.serving.advice import ServingAdvice


class PrefillRun(Struct, frozen=True):
    """Prompts read into the cache, priced, with money.

    Args:
        prefill: the passes, where their time goes, memory.
        price_per_hour: of one device, None if not given.
        notes: what was decided where nothing was given.
    """

    prefill: PrefillReport
    price_per_hour: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Time until every prompt is read and the first token of each is made."""
        return self.prefill.seconds

    @property
    def memory(self) -> Memory:
        """Bytes on each device of the fullest pipeline stage."""
        return self.prefill.memory

    @property
    def fits(self) -> bool:
        """Whether it fits in the memory of the devices."""
        return bool(self.prefill.memory.fits)

    @property
    def cost_per_million_tokens(self) -> float | None:
        """Money for a million tokens of prompts, None without a price."""
        return _cost(self.price_per_hour, self.prefill.instance.devices, self.prefill.tokens_per_second)


class DecodeRun(Struct, frozen=True):
    """Tokens generated one after the other, priced, with money.

    Args:
        decode: a step, where its time goes, memory.
        price_per_hour: of one device, None if not given.
        notes: what was decided where nothing was given.
    """

    decode: DecodeReport
    price_per_hour: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Time of all tokens of a sequence."""
        return self.decode.seconds

    @property
    def memory(self) -> Memory:
        """Bytes on each device of the fullest pipeline stage."""
        return self.decode.memory

    @property
    def fits(self) -> bool:
        """Whether it fits in the memory of the devices."""
        return bool(self.decode.memory.fits)

    @property
    def largest_batch(self) -> int:
        """The most sequences that fit until their last token; 0 if none does."""
        report = self.decode
        return most_sequences(report.instance, prompt=max(1, report.context), output=report.output)

    @property
    def cost_per_million_tokens(self) -> float | None:
        """Money for a million output tokens, None without a price."""
        return _cost(self.price_per_hour, self.decode.instance.devices, self.decode.tokens_per_second)


class InferRun(Struct, frozen=True):
    """A batch of requests from prompt to last token, priced, with money.

    Args:
        asked: the request, every input resolved.
        request: prefill and decode on the same devices, nothing guessed.
        speculative: decoding with a draft, None if not asked for.
        draft_prefill: the draft reads the prompts too.
        disaggregated: prefill on instances of their own, None if not asked for.
        sweep: decode steps at the points of a sweep.
    """

    asked: AskedRequests
    request: RequestReport
    speculative: SpeculativeReport | None = None
    draft_prefill: PrefillReport | None = None
    disaggregated: DisaggregatedReport | None = None
    sweep: tuple[SweepRow, ...] = ()

    @property
    def instance(self) -> Instance:
        """What answers; what decodes, where prefill has instances of its own."""
        return self.request.prefill.instance

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided where nothing was given, and remarks on the model."""
        last = self.request.decode.step if self.request.decode else self.request.prefill.last
        return (*self.asked.notes, *repeated_cache_notes(self.instance, last), *self.instance.model.notes)

    @property
    def first_token_seconds(self) -> float:
        """Time to first token, without queueing."""
        found = self.disaggregated or self.request
        return found.first_token_seconds

    @property
    def seconds_per_token(self) -> float:
        """Time per output token of one sequence after the first, expected where guesses are accepted."""
        found = self.speculative or self.disaggregated or self.request
        return found.seconds_per_token

    @property
    def seconds(self) -> float:
        """Time of the whole request, without queueing."""
        if self.disaggregated is not None:
            return self.disaggregated.seconds
        if self.speculative is None:
            return self.request.seconds
        reading = self.draft_prefill.seconds if self.draft_prefill else 0.0
        return self.first_token_seconds + reading + (self.asked.output - 1) * self.speculative.seconds_per_token

    @property
    def tokens_per_second(self) -> float:
        """Output tokens a second: one batch follows on the other, or prefill and decode run at the same time apart."""
        if self.disaggregated is not None:
            return self.disaggregated.tokens_per_second
        return self.asked.batch * self.asked.output / self.seconds

    @property
    def devices(self) -> int:
        """Devices of all instances."""
        return self.disaggregated.devices if self.disaggregated is not None else self.instance.devices

    @property
    def tokens_per_second_per_device(self) -> float:
        """Output tokens a second for each device."""
        return self.tokens_per_second / self.devices

    @property
    def tokens_per_second_per_user(self) -> float | None:
        """Output tokens a second that one request sees after its first; None where there is one token only."""
        return 1 / self.seconds_per_token if self.seconds_per_token else None

    @property
    def memory(self) -> Memory:
        """Of `memories`, what fills most of its devices."""
        return max(self.memories, key=lambda memory: memory.needed / memory.capacity)

    @property
    def memories(self) -> tuple[Memory, ...]:
        """Bytes on a device: of the instance; of the one that prefills and the one that decodes where they are two."""
        if self.disaggregated is not None:
            return self.disaggregated.prefill.memory, self.disaggregated.decode.memory
        if self.speculative is not None and self.draft_prefill is not None:
            reading = (self.request.prefill.memory.working, self.draft_prefill.memory.working)
            return (replace(self.speculative.memory, working=max(self.speculative.memory.working, *reading)),)
        return (self.request.memory,)

    @property
    def fits(self) -> bool:
        """Whether it fits in the memory of the devices."""
        return all(memory.fits for memory in self.memories)

    @property
    def largest_batch(self) -> int:
        """The most requests that fit at once, all prompts read in the same pass; 0 if none does."""
        asked = self.asked
        return most_requests(
            self.instance,
            prompt=asked.prompt,
            output=asked.output,
            chunk=asked.chunk,
            microbatches=asked.microbatches,
        )

    @property
    def largest_decode_batch(self) -> int:
        """The most sequences that fit until their last token, prompts read elsewhere or bit by bit; 0 for none."""
        return most_sequences(self.instance, prompt=self.asked.prompt, output=self.asked.output - 1)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one more token of one sequence adds to the caches of all layers, all devices together."""
        return kv_bytes_per_token(self.instance.model, self.instance.precision)

    @property
    def kv_bytes_per_sequence(self) -> int:
        """Bytes of one sequence's cache before its last token, in whole pages, all devices together."""
        tokens = self.asked.prompt + self.asked.output - 1
        return kv_bytes(self.instance.model, self.instance.precision, tokens, page=self.instance.page)

    @property
    def price_per_second(self) -> float | None:
        """Money for a second of all devices, None without a price."""
        price = self.asked.price_per_hour
        if price is None:
            return None
        apart, split = self.asked.apart, self.disaggregated
        if split is None or apart is None:
            return price * self.devices / 3600
        other = price if apart.price_per_hour is None else apart.price_per_hour
        prefills = split.prefill_instances * split.prefill.instance.devices
        decodes = split.decode_instances * split.decode.instance.devices
        return (prefills * other + decodes * price) / 3600

    @property
    def cost_per_million_tokens(self) -> float | None:
        """Money for a million output tokens, the reading of their prompts in it; None without a price."""
        return None if self.price_per_second is None else self.price_per_second / self.tokens_per_second * 1e6

    @property
    def advice(self) -> tuple[ServingAdvice, ...]:
        """The nearest changes with which it would fit, each priced; worked out when asked for."""
        from einscale.serving.advice import advise

        return advise(self)

    @property
    def cheaper(self) -> tuple[ServingAdvice, ...]:
        """Nearby changes on as many devices that serve more tokens/s, each priced; worked out when asked for."""
        from einscale.serving.levers import levers

        return levers(self)


def repeated_cache_notes(instance: Instance, step: StepReport) -> tuple[str, ...]:
    """A note where several devices hold the same keys and values, or latents.

    Args:
        instance: what answers.
        step: any pass of it.
    """
    most, divided = 1, True
    for kind in step.kinds:
        for value in fed_caches(kind.planned.program):
            layout, degrees = kind.planned.resting[value.name], instance.mesh.degrees
            ways = product(shards(axes, degrees) for axes in layout.dims)
            copies = int(instance.devices // instance.stages // ways)
            if copies > most:
                most, divided = copies, "n" in value.axes
    if most == 1:
        return ()
    why = "the mesh has more ways than there are key and value heads" if divided else "a latent has no heads to divide"
    return (
        f"cache: each part is on {most} devices, for {why}; strategies batch-attention, split-kv and dp-attention"
        " divide it otherwise",
    )


def _cost(price: float | None, devices: int, tokens_per_second: float) -> float | None:
    """Money for a million tokens, None without a price."""
    return None if price is None else cost_per_million_tokens(price, devices, tokens_per_second)
