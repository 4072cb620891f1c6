"""What one optimizer step costs, as frozen values: layers, stages, times, memory."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from einscale.efficiency import FUSED_MAPS, Execution
from einscale.hardware import Chip, energy, sustained
from einscale.hardware import peak as peak_rate
from einscale.mesh import Mesh
from einscale.models import Model
from einscale.numeric import Number, as_float, as_int, maximum
from einscale.planner.planned import PlannedProgram
from einscale.precision import Precision
from einscale.price.footprint import Memory, MemoryPart
from einscale.price.memory import Held, HoldReason, Peak
from einscale.price.overlap import Window
from einscale.price.program import PricedCollective, PricedStatement, Totals, total
from einscale.price.spent import Spent
from einscale.program.loss import LossForm
from einscale.schedule import find_schedule
from einscale.strategy import Strategy
from einscale.topology import Network
from einscale.vocabulary import BACKWARD, FORWARD, PARAMETER, RECOMPUTE, Convention, Phase


class Offload(Struct, frozen=True):
    """What rests in the host's memory, and is moved over the link to it every step.

    Args:
        optimizer: the optimizer state, updated on the host: gradients go there, new parameters come back.
        activations: share of the saved activations (0 to 1) that is written out forward and read back in the backward.
    """

    optimizer: bool = False
    activations: float = 0.0


class TrainSetup(Struct, frozen=True):
    """A request for one optimizer step, everything resolved.

    Args:
        model: its layers as programs.
        strategy: compute and store tables, roles not yet bound.
        mesh: the devices, pipeline axis included.
        network: the mesh bound to the links of a system.
        pipe: name of the pipeline axis, "" for none.
        batch: sequences of the global batch.
        sequence: tokens in a sequence.
        microbatch: sequences a data-parallel replica works on at a time.
        microbatches: how many of them a step has on each replica.
        schedule: name of the pipeline schedule.
        chunks: model chunks on each device (virtual stages).
        first: blocks of the first model chunk, None to divide evenly.
        last: blocks of the last one.
        precision: element types.
        optimizer: name of the optimizer.
        offload: what rests on the host.
        attention: how attention counts in model FLOPs: `causal` or `full`.
        overhead: bytes that the runtime takes on every device beside tensors.
        execution: how local work is run, timed by what the chip's kernels reach.
        loss: how the software stack runs the loss: `fused`, `compiled` or `eager` (see `program.loss`).
        capacity: rows each expert has room for, in even shares of those the tokens chose (see `program.capacity`).
    """

    model: Model
    strategy: Strategy
    mesh: Mesh
    network: Network
    pipe: str
    batch: int
    sequence: int
    microbatch: int
    microbatches: int
    schedule: str
    chunks: int
    first: int | None
    last: int | None
    precision: Precision
    optimizer: str
    offload: Offload
    attention: Convention
    overhead: int
    execution: Execution = FUSED_MAPS
    loss: LossForm = LossForm.FUSED
    capacity: float = 1.0

    @property
    def timed_by(self) -> Network:
        """The network at the bandwidth that collectives reach, where kernels are timed by what they reach."""
        return replace(self.network, system=sustained(self.network.system))

    @property
    def stages(self) -> int:
        """Pipeline stages."""
        return self.mesh.size(self.pipe) if self.pipe else 1

    @property
    def copies(self) -> int:
        """Copies of the model in the pipeline, each with its own microbatches: two in `dualpipe`."""
        return find_schedule(self.schedule).copies if self.stages > 1 else 1

    @property
    def each(self) -> int:
        """Microbatches that run through each copy of the model."""
        return self.microbatches // self.copies

    @property
    def replicas(self) -> int:
        """Data-parallel replicas: how many ways the batch is divided."""
        return self.batch // (self.microbatch * self.microbatches)

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch * self.sequence


class LayerCost(Struct, frozen=True):
    """One layer of a kind: what it costs for one microbatch, and what it holds.

    Args:
        kind: as the model calls it.
        planned: forward and backward statements with layouts, parameter gradients left as they are accumulated.
        rows: priced statements, what overlap hides taken off the collectives.
        windows: the work that hides collectives.
        update: the optimizer step of its parameters, priced.
        updated: the planned update.
        parameters: as they rest.
        gradients: as they are accumulated.
        optimizer: the optimizer's state as it rests.
        saved: what one microbatch saves for its backward pass.
        gathered: parameters that are gathered and kept from the forward pass to the backward.
        fetched: its parameters as they are gathered ahead, while another layer works; none if they are not.
        peak: the most it holds while it runs, parameters and gradients at rest left out.
        accumulate_seconds: time to read back the gradients that a microbatch's are added to.
        launch: seconds in which the host sends one kernel; 0 where it is ahead.
    """

    kind: str
    planned: PlannedProgram
    rows: tuple[PricedStatement, ...]
    windows: tuple[Window, ...]
    update: tuple[PricedStatement, ...]
    updated: PlannedProgram
    parameters: tuple[Held, ...]
    gradients: tuple[Held, ...]
    optimizer: tuple[Held, ...]
    saved: tuple[Held, ...]
    gathered: tuple[Held, ...]
    fetched: tuple[Held, ...]
    peak: Peak
    accumulate_seconds: Number
    launch: float = 0.0

    def totals(self, phase: str = "") -> Totals:
        """Sums over the statements of one pass for one microbatch, or of both."""
        return total(row for row in self.rows if not phase or row.planned.phase == phase)

    @property
    def forward_seconds(self) -> Number:
        """Time of one microbatch's forward pass, exposed communication included."""
        return self.totals(FORWARD).seconds

    @property
    def backward_seconds(self) -> Number:
        """Time of one microbatch's backward pass: recomputation, exposed communication, gradients added up included."""
        return self.totals(BACKWARD).seconds + self.accumulate_seconds

    @property
    def weight_seconds(self) -> Number:
        """What of the backward pass makes gradients of parameters: the part that may wait (zero-bubble schedules)."""
        rows = (row for row in self.rows if makes_gradient(self.planned, row))
        return total(rows).seconds + self.accumulate_seconds

    @property
    def recompute_seconds(self) -> Number:
        """What of the backward pass repeats forward work."""
        return total(row for row in self.rows if row.planned.statement.phase == RECOMPUTE).seconds

    @property
    def parameter_bytes(self) -> Number:
        """Bytes of its parameters at rest."""
        return sum(held.bytes for held in self.parameters)

    @property
    def prefetched(self) -> Number:
        """Bytes of its parameters that are gathered ahead."""
        return sum(held.bytes for held in self.fetched)

    @property
    def saved_bytes(self) -> Number:
        """Bytes one microbatch saves."""
        return sum(held.bytes for held in self.saved)

    @property
    def working_bytes(self) -> Number:
        """Bytes one layer needs while it runs, beside what it saves."""
        return maximum(0, self.peak.bytes - self.saved_bytes)


def makes_gradient(planned: PlannedProgram, row: PricedStatement) -> bool:
    """Whether a statement of a backward pass makes a gradient of a parameter."""
    table = planned.program.table
    of = table.get(table[row.planned.statement.output].of or "")
    return row.planned.phase == BACKWARD and of is not None and of.kind == PARAMETER


def accumulating(gradients: Number, microbatches: Number, chip: Chip) -> Number:
    """Seconds a microbatch, on average, to read back the gradients its own are added to; the first finds none.

    Args:
        gradients: their bytes on one device.
        microbatches: of a step.
        chip: the chip.
    """
    return (microbatches - 1) / microbatches * gradients / chip.memory_bandwidth.used


class Alive(Struct, frozen=True):
    """Tensors of one sort that a device holds at its peak.

    Args:
        what: the part of the memory it belongs to.
        kind: kind of layer they belong to.
        held: the tensor, its layout, and why it is held.
        copies: how many are held: layers times microbatches in flight.
        shape: of the part that one device holds.
    """

    what: MemoryPart
    kind: str
    held: Held
    copies: int
    shape: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """The tensor in slash notation with its element type."""
        return self.held.text

    @property
    def bytes(self) -> int:
        """Bytes of one copy on one device."""
        return as_int(self.held.bytes)

    @property
    def reason(self) -> HoldReason:
        """Why it is held."""
        return self.held.reason

    @property
    def dtype(self) -> str:
        """Its element type."""
        return self.held.tensor.dtype

    @property
    def total(self) -> int:
        """Bytes of all copies."""
        return self.bytes * self.copies


class AtWork(Struct, frozen=True):
    """The statement that runs when a device holds most.

    Args:
        phase: its phase.
        statement: its first output.
        kind: kind of the layer it belongs to.
    """

    phase: Phase | Literal[""]
    statement: str
    kind: str


class StageReport(Struct, frozen=True):
    """One pipeline stage: its layers, its times for one microbatch and for the step, its memory.

    Args:
        stage: its number, from 0.
        layers: (kind, count) it holds, each model chunk's together.
        in_flight: microbatches of each of its chunks whose activations it holds at its peak, as a sum over chunks in
            units of chunks.
        forward_seconds: forward pass of one microbatch through all its chunks.
        backward_seconds: the backward pass of one.
        busy_seconds: work of all microbatches of the step.
        memory: bytes at its peak.
        moment: the statement and pass at the peak; None where nothing runs then.
        alive: what is held then, largest first.
    """

    stage: int
    layers: tuple[tuple[str, int], ...]
    in_flight: float
    forward_seconds: float
    backward_seconds: float
    busy_seconds: float
    memory: Memory
    moment: AtWork | None
    alive: tuple[Alive, ...]


class ChunkSeconds(Struct, frozen=True):
    """Seconds of one microbatch in every model chunk, in the order it passes them.

    Args:
        forward: of the forward pass.
        backward: of the whole backward pass.
        weight: of the gradients of weights in it; 0 where the schedule does not part them from the others.
    """

    forward: tuple[Number, ...]
    backward: tuple[Number, ...]
    weight: tuple[Number, ...]


class TrainReport(Struct, frozen=True):
    """One optimizer step on a cluster.

    Args:
        setup: the request.
        layers: one for each kind of layer.
        stages: one for each pipeline stage.
        spent: parts of the step's time on the busiest stage; they add up to `step_seconds`.
        step_seconds: time of the step.
        sent: the transfer between stages for one microbatch, None without a pipeline.
        model_flops: of the whole step and mesh: forward and backward, nothing recomputed, no padding.
        hardware_flops: what the devices really spend, recomputation and padding included.
        chunks: seconds of one microbatch in every model chunk.
        notes: what was chosen where nothing was given, and what is approximate.
        passes_seconds: of the step, from the first forward task of any stage to the last backward task of any.
    """

    setup: TrainSetup
    layers: tuple[LayerCost, ...]
    stages: tuple[StageReport, ...]
    spent: Spent
    step_seconds: float
    sent: PricedCollective | None
    model_flops: int
    hardware_flops: int
    chunks: ChunkSeconds
    notes: tuple[str, ...] = ()
    passes_seconds: float = 0.0

    @property
    def fullest(self) -> StageReport:
        """The stage that needs most memory."""
        return max(self.stages, key=lambda stage: stage.memory.needed)

    @property
    def busiest(self) -> StageReport:
        """The stage that works longest in a step, whose time `spent` takes apart."""
        return max(self.stages, key=lambda stage: stage.busy_seconds)

    @property
    def capacity(self) -> int:
        """Bytes of memory of one device."""
        return self.setup.network.system.chip.memory_bytes

    @property
    def fits(self) -> bool:
        """Whether every stage fits in the memory of its devices."""
        return bool(self.fullest.memory.fits)

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second, the whole mesh together."""
        return self.setup.tokens / self.step_seconds

    @property
    def tokens_per_second_per_device(self) -> float:
        """Tokens a second, one device's share."""
        return self.tokens_per_second / self.setup.mesh.devices

    def idle_seconds(self, stage: StageReport) -> float:
        """Time that a stage is idle between the first forward task of any stage and the last backward task of any."""
        return max(0.0, self.passes_seconds - stage.busy_seconds)

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: model FLOPs over what the chips' datasheets promise in the compute type."""
        return self._utilisation(self.model_flops)

    @property
    def hfu(self) -> float:
        """Hardware FLOPs utilisation: recomputed and repeated work counts too."""
        return self._utilisation(self.hardware_flops)

    def _utilisation(self, flops: int) -> float:
        chip = self.setup.network.system.chip
        rate = peak_rate(chip, self.setup.precision.compute).datasheet
        return flops / (self.step_seconds * self.setup.mesh.devices * rate)

    @property
    def joules(self) -> float | None:
        """Energy of the step at the chips' stated power, None where none is stated."""
        joules = energy(self.setup.network.system, self.setup.mesh.devices, self.step_seconds)
        return None if joules is None else as_float(joules)

    def layer(self, kind: str) -> LayerCost:
        """The cost of one kind of layer."""
        return next(layer for layer in self.layers if layer.kind == kind)
