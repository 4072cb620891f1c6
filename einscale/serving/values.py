"""What answering requests costs, as frozen values: steps, where their time goes, memory, reports."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from einscale.efficiency import COMPILED, Execution
from einscale.hardware import System, flop_rate, sustained
from einscale.mesh import Mesh
from einscale.models import Model
from einscale.numeric import Number
from einscale.planner.planned import PlannedProgram
from einscale.precision import Precision
from einscale.price.footprint import Memory
from einscale.price.program import PricedStatement, Totals, total
from einscale.price.spent import Spent
from einscale.strategy import Strategy
from einscale.topology import Network

PAGE = 16
"""Tokens in a page of the cache when none is given: vLLM's block size (Kwon et al. 2023, arXiv 2309.06180)."""


class Instance(Struct, frozen=True):
    """A model on a mesh, ready to answer requests.

    Args:
        model: its layers as programs.
        strategy: compute and store tables, roles not yet bound.
        network: the mesh bound to the links of a system.
        precision: element types; weights rest in the type they are read in, keys and values in `kv_cache`.
        ways: how many ways the strategy divides the batch.
        pipe: mesh axis of the pipeline, "" for none.
        page: tokens in a page of the cache: a sequence holds whole pages.
        memory_share: share of the chip's memory that may be used.
        execution: how local work is run, timed by what the chip's kernels reach; a chip whose kernels nobody measured
            is priced by its rooflines.
        overhead: bytes of each device that a runtime takes beside tensors.
    """

    model: Model
    strategy: Strategy
    network: Network
    precision: Precision
    ways: int = 1
    pipe: str = ""
    page: int = PAGE
    memory_share: float = 1.0
    execution: Execution = COMPILED
    overhead: int = 0

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        return self.network.mesh

    @property
    def system(self) -> System:
        """Chips and links."""
        return self.network.system

    @property
    def timed_by(self) -> Network:
        """The network at the bandwidth that collectives reach, where kernels are timed by what they reach."""
        return replace(self.network, system=sustained(self.network.system))

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.mesh.devices

    @property
    def stages(self) -> int:
        """Pipeline stages; 1 without a pipeline."""
        return self.mesh.size(self.pipe) if self.pipe else 1

    @property
    def capacity(self) -> int:
        """Bytes of memory of a device that may be used."""
        return int(self.system.chip.memory_bytes * self.memory_share)


class KindStep(Struct, frozen=True):
    """One layer of a kind in one step.

    Args:
        kind: as the model calls it.
        repeat: how many layers of this kind the model has.
        planned: the program of the new tokens, with layouts.
        rows: priced statements, in order.
        spent: where the time of one layer goes.
        kernels: how many kernels one layer launches.
    """

    kind: str
    repeat: int
    planned: PlannedProgram
    rows: tuple[PricedStatement, ...]
    spent: Spent
    kernels: Number

    @property
    def totals(self) -> Totals:
        """Sums over the statements of one layer."""
        return total(self.rows)


class StepReport(Struct, frozen=True):
    """One pass of new tokens through the model, beside those that are cached; or many that share their structures.

    Args:
        batch: sequences; of many passes an array, as every number is then.
        new: new tokens of each.
        cached: tokens of each that are in the cache before.
        kinds: every kind of layer that runs.
        stages: (kind, how many) of each pipeline stage.
        hop_seconds: time of the residual stream to the next stage; 0 without a pipeline.
        spent: where the time goes, all stages one after the other, transfers between them left out.
    """

    batch: Number
    new: int
    cached: Number
    kinds: tuple[KindStep, ...]
    stages: tuple[tuple[tuple[str, int], ...], ...]
    hop_seconds: Number
    spent: Spent

    @property
    def seconds(self) -> Number:
        """Time from the first stage's start to the last one's end."""
        return self.spent.seconds + (len(self.stages) - 1) * self.hop_seconds

    @property
    def stage_seconds(self) -> tuple[Number, ...]:
        """Time of each stage."""
        times = {kind.kind: kind.spent.seconds for kind in self.kinds}
        return tuple(sum((times.get(kind, 0.0) * count for kind, count in stage), 0.0) for stage in self.stages)

    @property
    def flops(self) -> Number:
        """FLOPs of one device that holds every layer, repeated and padded work included."""
        return sum(kind.totals.flops * kind.repeat for kind in self.kinds)

    @property
    def traffic(self) -> Number:
        """Bytes of HBM that one device that holds every layer reads and writes."""
        return sum(kind.totals.traffic * kind.repeat for kind in self.kinds)

    @property
    def received(self) -> Number:
        """Bytes that one device that holds every layer receives."""
        return sum(kind.totals.received * kind.repeat for kind in self.kinds)

    @property
    def plans(self) -> dict[str, PlannedProgram]:
        """Kind of layer -> its planned program."""
        return {kind.kind: kind.planned for kind in self.kinds}

    @property
    def kernels(self) -> Number:
        """Kernels launched."""
        return sum(kind.kernels * kind.repeat for kind in self.kinds)


class PrefillReport(Struct, frozen=True):
    """Prompts read into the cache, and the first token of each.

    Args:
        instance: what answers.
        batch: sequences.
        prompt: tokens of each.
        chunk: tokens of each that are read at a time; the prompt for all at once.
        cached: tokens of each that were in the cache before (a shared prefix).
        microbatches: parts the batch is divided into, so that pipeline stages work at the same time.
        first: the first chunk of one microbatch.
        last: the last chunk of one microbatch, with the head.
        spent: where the time goes.
        memory: once the prompts are cached.
    """

    instance: Instance
    batch: int
    prompt: int
    chunk: int
    cached: int
    microbatches: int
    first: StepReport
    last: StepReport
    spent: Spent
    memory: Memory

    @property
    def chunks(self) -> int:
        """How many chunks each prompt is read in."""
        return -(-self.prompt // self.chunk)

    @property
    def seconds(self) -> float:
        """Time to first token of the last sequence of the batch, without queueing."""
        return float(self.spent.seconds)

    @property
    def tokens_per_second(self) -> float:
        """Prompt tokens a second."""
        return self.batch * self.prompt / self.seconds

    @property
    def tokens_per_second_per_device(self) -> float:
        """Prompt tokens a second, one device's share."""
        return self.tokens_per_second / self.instance.devices

    @property
    def flops_utilization(self) -> float | None:
        """FLOPs over those the datasheet promises in that time; None where prompts are read in chunks."""
        if self.chunks > 1:
            return None
        instance = self.instance
        rate = flop_rate(instance.system.ideal().chip, instance.precision.compute)
        return float(self.last.flops * self.microbatches / (instance.stages * self.seconds * rate))


class DecodeReport(Struct, frozen=True):
    """Tokens generated one after the other, one of every sequence in each step.

    Args:
        instance: what answers.
        batch: sequences.
        context: tokens of each in the cache before the first step.
        output: tokens generated of each; the cache grows by one in each step.
        microbatches: parts the batch is divided into, so that pipeline stages work at the same time.
        step: a step of one microbatch in the middle of the output.
        first_seconds: time of the first step.
        last_seconds: time of the last one.
        spent: where the time of a step goes, the mean over the output.
        memory: after the last step.
    """

    instance: Instance
    batch: int
    context: int
    output: int
    microbatches: int
    step: StepReport
    first_seconds: float
    last_seconds: float
    spent: Spent
    memory: Memory

    @property
    def seconds_per_token(self) -> float:
        """Time per output token (of one sequence): the mean over the output."""
        return float(self.spent.seconds)

    @property
    def seconds(self) -> float:
        """Time of all steps."""
        return self.seconds_per_token * self.output

    @property
    def tokens_per_second(self) -> float:
        """Output tokens a second, all sequences together."""
        return self.batch / self.seconds_per_token

    @property
    def tokens_per_second_per_device(self) -> float:
        """The same for each device."""
        return self.tokens_per_second / self.instance.devices

    @property
    def weights_seconds(self) -> float:
        """Time in which a device reads the weights it holds once, at its datasheet's bandwidth."""
        return float(self.memory.parameters / self.instance.system.chip.memory_bandwidth.datasheet)

    @property
    def flops_utilization(self) -> float:
        """FLOPs spent over those that the chip's datasheet promises in the same time, for the compute dtype."""
        rate = flop_rate(self.instance.system.ideal().chip, self.instance.precision.compute)
        return float(self.step.flops * self.microbatches / (self.instance.stages * self.seconds_per_token * rate))

    @property
    def bandwidth_utilization(self) -> float:
        """Bytes moved over those that the datasheet's memory bandwidth would move in the same time."""
        rate = self.instance.system.chip.memory_bandwidth.datasheet
        return float(self.step.traffic * self.microbatches / (self.instance.stages * self.seconds_per_token * rate))


class RequestReport(Struct, frozen=True):
    """A batch of requests from prompt to last token: a prefill, which makes the first token, and the decode steps.

    Args:
        prefill: the prompts.
        decode: the other output tokens; None where only one is wanted.
    """

    prefill: PrefillReport
    decode: DecodeReport | None

    @property
    def output(self) -> int:
        """Tokens generated of each sequence."""
        return 1 + (self.decode.output if self.decode else 0)

    @property
    def first_token_seconds(self) -> float:
        """Time to first token."""
        return self.prefill.seconds

    @property
    def seconds_per_token(self) -> float:
        """Time per output token after the first; 0 where there is none."""
        return self.decode.seconds_per_token if self.decode else 0.0

    @property
    def seconds(self) -> float:
        """Time of the whole request, without queueing."""
        return self.prefill.seconds + (self.decode.seconds if self.decode else 0.0)

    @property
    def tokens_per_second(self) -> float:
        """Output tokens a second where one batch follows on the other."""
        return self.prefill.batch * self.output / self.seconds

    @property
    def memory(self) -> Memory:
        """The fuller of both phases, the larger of their working sets beside the full cache."""
        if self.decode is None:
            return self.prefill.memory
        return replace(self.decode.memory, working=max(self.prefill.memory.working, self.decode.memory.working))


class SweepRow(Struct, frozen=True):
    """One decode step at a batch and a context.

    Args:
        batch: sequences.
        context: tokens of each in the cache.
        seconds_per_token: time of a step.
        tokens_per_second: of all sequences.
        tokens_per_second_per_device: of each device.
        memory: bytes on a device.
        pareto: it fits, and no other row of the same context that fits is faster a token and cheaper a token.
    """

    batch: int
    context: int
    seconds_per_token: float
    tokens_per_second: float
    tokens_per_second_per_device: float
    memory: Memory
    pareto: bool = False

    @property
    def tokens_per_second_per_user(self) -> float:
        """Tokens a second of one sequence."""
        return 1 / self.seconds_per_token
