"""Ways to serve: speculative decoding, prefill and decode on instances of their own, and what tokens cost."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from einscale.errors import UsageError
from einscale.models import Model
from einscale.price.footprint import Memory
from einscale.serving.cache import kv_bytes
from einscale.serving.requests import cycle, decode_report
from einscale.serving.step import Planner
from einscale.serving.values import DecodeReport, Instance, PrefillReport, StepReport
from einscale.units import check_size

MOST_INSTANCES = 32
"""Instances of one kind at most, where nobody says how many there are."""


class SpeculativeReport(Struct, frozen=True):
    """Speculative decoding (Leviathan et al. 2023, arXiv 2211.17192): a draft guesses, the target checks all at once.

    Args:
        target: a decode step of the target alone.
        verify: the target's pass over the last token and the draft's guesses.
        draft: a decode step of the draft.
        length: tokens the draft guesses in a row (gamma).
        acceptance: probability that a guess is accepted (alpha), taken as independent of its place.
        verify_seconds: time of the target's pass.
        memory: of both models.
    """

    target: DecodeReport
    verify: StepReport
    draft: DecodeReport
    length: int
    acceptance: float
    verify_seconds: float
    memory: Memory

    @property
    def tokens_per_round(self) -> float:
        """Tokens gained in a round, expected: (1 - alpha^(gamma + 1)) / (1 - alpha)."""
        return expected_tokens(self.length, self.acceptance)

    @property
    def round_seconds(self) -> float:
        """Time of a round: the draft's guesses one after the other, then the target's pass."""
        return self.length * self.draft.seconds_per_token + self.verify_seconds

    @property
    def seconds_per_token(self) -> float:
        """Time per output token, expected."""
        return self.round_seconds / self.tokens_per_round

    @property
    def tokens_per_second(self) -> float:
        """Output tokens a second, all sequences together."""
        return self.target.batch / self.seconds_per_token

    @property
    def speedup(self) -> float:
        """The target's own time per token over this one."""
        return self.target.seconds_per_token / self.seconds_per_token


def expected_tokens(length: int, acceptance: float) -> float:
    """Tokens a round of speculative decoding gains, expected (Leviathan et al. 2023, arXiv 2211.17192, equation 1).

    >>> round(expected_tokens(5, 0.8), 3), expected_tokens(3, 1.0), expected_tokens(3, 0.0)
    (3.689, 4.0, 1.0)
    """
    return sum((acceptance**k for k in range(length + 1)), 0.0)


class DisaggregatedReport(Struct, frozen=True):
    """Prefill and decode on instances of their own, the cache sent from one to the other.

    Args:
        prefill: a batch of prompts on a prefill instance.
        decode: a batch of sequences on a decode instance.
        transfer_bytes: bytes of one sequence's cache that are sent.
        transfer_seconds: time of that, at the bandwidth between two instances.
        prefill_instances: how many there are.
        decode_instances: how many there are.
    """

    prefill: PrefillReport
    decode: DecodeReport
    transfer_bytes: int
    transfer_seconds: float
    prefill_instances: int
    decode_instances: int

    @property
    def prefill_rate(self) -> float:
        """Requests a second that one prefill instance reads; it sends a cache while it reads the next prompts."""
        return self.prefill.batch / max(self.prefill.seconds, self.prefill.batch * self.transfer_seconds)

    @property
    def decode_rate(self) -> float:
        """Requests a second that one decode instance finishes."""
        return self.decode.batch / self.decode.seconds

    @property
    def balance(self) -> float:
        """Prefill instances for each decode instance, such that none waits for the other."""
        return self.decode_rate / self.prefill_rate

    @property
    def requests_per_second(self) -> float:
        """Requests a second of all instances together."""
        return min(self.prefill_instances * self.prefill_rate, self.decode_instances * self.decode_rate)

    @property
    def devices(self) -> int:
        """Devices of all instances."""
        prefill, decode = self.prefill.instance.devices, self.decode.instance.devices
        return self.prefill_instances * prefill + self.decode_instances * decode

    @property
    def output(self) -> int:
        """Tokens generated of each sequence, the first by the prefill."""
        return 1 + self.decode.output

    @property
    def first_token_seconds(self) -> float:
        """Time to first token: the prefill makes it."""
        return self.prefill.seconds

    @property
    def second_token_seconds(self) -> float:
        """Time from the first token to the second: the transfer, and a step."""
        return self.transfer_seconds + self.decode.first_seconds

    @property
    def seconds_per_token(self) -> float:
        """Time per output token once decoding has begun."""
        return self.decode.seconds_per_token

    @property
    def seconds(self) -> float:
        """Time of a request, without queueing."""
        return self.prefill.seconds + self.transfer_seconds + self.decode.seconds

    @property
    def tokens_per_second(self) -> float:
        """Output tokens a second of all instances together."""
        return self.requests_per_second * self.output

    @property
    def tokens_per_second_per_device(self) -> float:
        """The same for each device."""
        return self.tokens_per_second / self.devices


def speculative_report(
    target: Instance,
    draft: Instance,
    *,
    length: int,
    acceptance: float,
    batch: int,
    context: int,
    output: int = 1,
    shared: bool = False,
) -> SpeculativeReport:
    """Speculative decoding: the draft guesses `length` tokens one after the other, the target checks them in one pass.

    The target's pass runs on length + 1 new tokens of each sequence: the last one and the guesses (Leviathan et al.
    2023, arXiv 2211.17192). The time of a step at `context` and over `output` is taken as `decode_report` takes it.

    Args:
        target: the model whose tokens are wanted.
        draft: a smaller model on the same devices, or `ahead_instance(target)`.
        length: guesses in a row.
        acceptance: probability that a guess is accepted.
        batch: sequences.
        context: tokens of each in the cache.
        output: tokens generated of each.
        shared: the draft reads the target's own embedding and head, which are held once.

    Raises:
        SizeError: sizes that cannot be.
        UsageError: the acceptance is no probability, or both models are not on the same devices.
    """
    guesses = check_size(length, "number of guesses")
    if not 0 <= acceptance <= 1:
        raise UsageError(f"{acceptance:g} is not the probability that a guess is accepted", expected="0 to 1")
    if target.network != draft.network:
        raise UsageError("target and draft are not on the same devices", expected="one mesh and one system for both")
    planner = Planner(target)
    alone = decode_report(target, batch=batch, context=context, output=output, planner=planner)
    guessing = decode_report(draft, batch=batch, context=context, output=output)
    middle = (2 * context + output - 1) // 2
    verify = planner.step(batch // alone.microbatches, guesses + 1, middle)
    seconds = cycle(verify, alone.microbatches, planner.back_seconds()).seconds
    twice = _shared_bytes(draft, batch, context) if shared else 0
    one, other = alone.memory, guessing.memory
    memory = Memory(
        parameters=one.parameters + other.parameters - twice,
        cache=one.cache + other.cache,
        working=max(one.working, other.working),
        capacity=one.capacity,
        overhead=one.overhead,
    )
    return SpeculativeReport(alone, verify, guessing, guesses, acceptance, seconds, memory)


def _shared_bytes(draft: Instance, batch: int, context: int) -> int:
    """Bytes of the draft's embedding and head, which are the target's."""
    from einscale.price.memory import parameters_held

    plans = Planner(draft).all_plans(batch, 1, context)
    return sum(held.bytes for kind in ("embedding", "head") if kind in plans for held in parameters_held(plans[kind]))


def ahead_instance(instance: Instance) -> Instance:
    """A layer that predicts a token further ahead (multi-token prediction) as a draft, with the embedding and the head.

    Raises:
        UsageError: the model has none.
    """
    model = instance.model
    if not model.ahead:
        raise UsageError(
            f"{model.name} has no layers that predict tokens further ahead", expected="a draft model of its own"
        )
    ends = {layer.kind: layer for layer in model.layers if layer.kind in ("embedding", "head")}
    first = replace(model.ahead[0], repeat=1)
    layers = tuple(layer for layer in (ends.get("embedding"), first, ends.get("head")) if layer is not None)
    return replace(instance, model=Model(f"{model.name}-ahead", layers, model.source))


def disaggregated_report(
    prefill: PrefillReport,
    decode: DecodeReport,
    *,
    bandwidth: float | None = None,
    prefill_instances: int | None = None,
    decode_instances: int | None = None,
) -> DisaggregatedReport:
    """Prefill on some instances, decode on others, the cache sent between them (Zhong et al. 2024, arXiv 2401.09670).

    Args:
        prefill: a batch of prompts on a prefill instance.
        decode: a batch of sequences on a decode instance, after the same prompts; maybe another mesh or system.
        bandwidth: bytes/s from one prefill instance to a decode instance; by default the outermost network level of the
            slower side times the devices of the smaller instance: every device sends its own part.
        prefill_instances: how many there are; by default the pair of numbers with most tokens/s for each device.
        decode_instances: how many there are.

    Raises:
        UsageError: the two do not belong to the same requests, or a bandwidth that cannot be.
        SizeError: numbers of instances that cannot be.
    """
    one, other = prefill.instance, decode.instance
    if one.model.name != other.model.name or one.precision.kv_cache != other.precision.kv_cache:
        raise UsageError("prefill and decode are not of one model and one cache", expected="the same on both sides")
    if decode.context != prefill.prompt + prefill.cached:
        raise UsageError(
            f"decoding begins with {decode.context} tokens in the cache, and the prefill leaves"
            f" {prefill.prompt + prefill.cached}"
        )
    rate = bandwidth if bandwidth is not None else default_bandwidth(one, other)
    if not rate > 0:
        raise UsageError(f"a bandwidth of {rate:g} bytes/s sends nothing", expected="more than 0, as 50e9")
    sent = kv_bytes(one.model, one.precision, prefill.prompt + prefill.cached, page=one.page)
    report = DisaggregatedReport(prefill, decode, sent, sent / rate, 1, 1)
    if prefill_instances is not None or decode_instances is not None:
        return replace(
            report,
            prefill_instances=check_size(1 if prefill_instances is None else prefill_instances, "prefill instances"),
            decode_instances=check_size(1 if decode_instances is None else decode_instances, "decode instances"),
        )
    pairs = [(p, d) for p in range(1, MOST_INSTANCES + 1) for d in range(1, MOST_INSTANCES + 1)]
    candidates = [replace(report, prefill_instances=p, decode_instances=d) for p, d in pairs]
    most = max(candidate.tokens_per_second_per_device for candidate in candidates)
    good = [one for one in candidates if one.tokens_per_second_per_device >= 0.98 * most]
    return min(good, key=lambda candidate: candidate.devices)


def default_bandwidth(one: Instance, other: Instance) -> float:
    """Bytes/s between two instances: the slower outermost network level times the devices of the smaller one.

    It is the bandwidth that collectives reach there, or the datasheet's where kernels are priced by the roofline.
    """
    levels = [instance.timed_by.system.levels[-1] for instance in (one, other)]
    return min(level.links * level.bandwidth.used for level in levels) * min(one.devices, other.devices)


def cost_per_million_tokens(price_per_hour: float, devices: int, tokens_per_second: float) -> float:
    """Money for a million tokens, in the currency of the price.

    Args:
        price_per_hour: of one device.
        devices: how many.
        tokens_per_second: of all devices together.

    >>> round(cost_per_million_tokens(2.0, 8, 4000.0), 3)
    1.111

    Raises:
        UsageError: a negative price, or no tokens.
    """
    if price_per_hour < 0 or not tokens_per_second > 0:
        raise UsageError(
            f"{price_per_hour:g} an hour and {tokens_per_second:g} tokens/s have no cost a token",
            expected="a price of 0 or more and tokens/s above 0",
        )
    return price_per_hour * check_size(devices, "number of devices") / 3600 / tokens_per_second * 1e6
