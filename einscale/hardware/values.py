"""What a machine is: figures with unit and source, a chip, network levels, and the system they make."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from einscale.dtypes import dtype as canonical_dtype
from einscale.errors import HardwareError
from einscale.numeric import Number

RATE_UNITS = {"FLOP/s": 1.0, "GFLOP/s": 1e9, "TFLOP/s": 1e12, "PFLOP/s": 1e15}
BANDWIDTH_UNITS = {
    "B/s": 1.0,
    "MB/s": 1e6,
    "GB/s": 1e9,
    "TB/s": 1e12,
    "GiB/s": 2.0**30,
    "Gb/s": 1e9 / 8,
    "Tb/s": 1e12 / 8,
}
CAPACITY_UNITS = {"B": 1.0, "MB": 1e6, "GB": 1e9, "TB": 1e12, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
POWER_UNITS = {"W": 1.0, "kW": 1e3}

RateUnit = Literal["FLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s"]
BandwidthUnit = Literal["B/s", "MB/s", "GB/s", "TB/s", "GiB/s", "Gb/s", "Tb/s"]
CapacityUnit = Literal["B", "MB", "GB", "TB", "MiB", "GiB", "TiB"]
TimeUnit = Literal["s", "ms", "us", "ns"]
PowerUnit = Literal["W", "kW"]

Positive = Annotated[float, Meta(ge=1e-9, lt=1e30)]
NotNegative = Annotated[float, Meta(ge=0, lt=1e30)]
Devices = Annotated[int, Meta(ge=1, le=10**12)]
Name = Annotated[str, Meta(min_length=1, max_length=80)]


class Attainable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stated source measured in place of a datasheet's figure, in the unit of the figure it belongs to."""

    value: Positive
    source: str
    date: str = ""
    note: str = ""


class Measurable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A datasheet's figure with its source, and what a stated source measured in its place; each kind adds its unit."""

    value: NotNegative
    source: str
    date: str = ""
    note: str = ""
    attainable: Attainable | None = None

    @property
    def scale(self) -> float:
        """What one unit of the figure is in SI base units, dense and one-way."""
        raise TypeError(f"{type(self).__name__} has no unit of its own")

    @property
    def datasheet(self) -> float:
        """The figure as the datasheet states it, in SI base units, dense and one-way."""
        return self.value * self.scale

    @property
    def used(self) -> float:
        """The figure that pricing uses: the attainable one where a source measured it."""
        return (self.value if self.attainable is None else self.attainable.value) * self.scale


class Rate(Measurable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """FLOP/s of matrix products in one element type.

    `sparsity` says which of a datasheet's two figures it is: `dense`, or `2:4`, which counts the zeros of a 2:4
    structured sparse operand and is halved before use.
    """

    dtype: str
    value: Positive
    unit: RateUnit
    sparsity: Literal["dense", "2:4"]

    @property
    def scale(self) -> float:
        """Dense FLOP/s of one unit."""
        return RATE_UNITS[self.unit] * (0.5 if self.sparsity == "2:4" else 1.0)


class Bandwidth(Measurable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bandwidth of a link, `one-way`, or `two-way` (both directions added, halved before use)."""

    value: Positive
    unit: BandwidthUnit
    direction: Literal["one-way", "two-way"]

    @property
    def scale(self) -> float:
        """One-way bytes/s of one unit."""
        return BANDWIDTH_UNITS[self.unit] * (0.5 if self.direction == "two-way" else 1.0)


class MemoryBandwidth(Measurable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bandwidth of a memory: reads and writes share it."""

    value: Positive
    unit: BandwidthUnit

    @property
    def scale(self) -> float:
        """Bytes/s of one unit."""
        return BANDWIDTH_UNITS[self.unit]


class Capacity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size of a memory."""

    value: Positive
    unit: CapacityUnit
    source: str
    date: str = ""
    note: str = ""

    @property
    def bytes(self) -> int:
        """Whole bytes."""
        return int(self.value * CAPACITY_UNITS[self.unit])


class Latency(Measurable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fixed time; zero is allowed."""

    unit: TimeUnit

    @property
    def scale(self) -> float:
        """Seconds of one unit."""
        return TIME_UNITS[self.unit]


class Power(Measurable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one device draws at most, its memory included: TDP, TGP or TBP; not its host, its network, its cooling.

    The attainable figure is what a source measured under load.
    """

    value: Positive
    unit: PowerUnit

    @property
    def scale(self) -> float:
        """Watts of one unit."""
        return POWER_UNITS[self.unit]


class Count(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many of something: cores in a chip, chips in a host."""

    value: Devices
    unit: Literal["cores", "chips", "SMs", "elements"]
    source: str
    date: str = ""
    note: str = ""


class Share(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of a datasheet's figure lasts while a program runs, under the limits of power and clock."""

    value: Annotated[float, Meta(ge=0.01, le=1)]
    unit: Literal["of peak", "of datasheet", "of write"]
    source: str
    date: str = ""
    note: str = ""


class Kernels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, cache_hash=True):
    """How local operations run on a chip: what `efficiency` prices them by. Plans do not use it.

    Args:
        tiles: (rows, columns) of a product that one unit makes at a time; a library picks the best.
        units: units (SMs) that work on tiles at once; None where a compiler divides each product evenly over all.
        matmul: FLOP/s of a long matrix product of the best tile, of the datasheet's peak.
        attention: the same for the forward kernel of fused attention, the pairs that a mask hides left out.
        attention_backward: the same for its backward kernel, the scores it makes again among its FLOPs.
        flash2: as `attention`, of FlashAttention-2, where that is another; `flash2_backward` likewise.
        moving: bandwidth that a kernel which only moves data reaches, of the datasheet's.
        fill: elements of the contracted dim that go by before a tile's pipeline is full.
        edge: elements that a tile's sides count as longer than they are, for what it reads.
        epilogue: what of the time to write a product no other work hides.
        start: time of a kernel's start and end on the device.
        launch: time of one call of a framework that runs eagerly.
    """

    tiles: tuple[tuple[Devices, Devices], ...]
    units: Count | None = None
    matmul: Share
    attention: Share
    attention_backward: Share
    flash2: Share | None = None
    flash2_backward: Share | None = None
    moving: Share
    fill: Count
    edge: Count
    epilogue: Share
    start: Latency
    launch: Latency


class Chip(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, cache_hash=True):
    """One device of a mesh: matrix FLOP/s per element type, HBM size and bandwidth, link to its host, power.

    `host_bandwidth` is the device's own share where several sit on one link, so that all may move at once.
    `cores` are the TensorCores of a TPU chip, by which Google names slices of some generations; `host_chips` the chips
    that one host drives.
    """

    name: Name
    peaks: tuple[Rate, ...]
    memory: Capacity
    memory_bandwidth: MemoryBandwidth
    host_bandwidth: Bandwidth | None = None
    power: Power | None = None
    cores: Count | None = None
    host_chips: Count | None = None
    kernels: Kernels | None = None
    note: str = ""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Element types whose matrix FLOP/s are known."""
        return tuple(peak.dtype for peak in self.peaks)

    @property
    def memory_bytes(self) -> int:
        """Bytes of HBM."""
        return self.memory.bytes


class NetworkKind(StrEnum):
    """How the devices of a network level are linked; `Level` says what each is."""

    SWITCH = "switch"
    FULL = "full"
    TORUS = "torus"
    RING = "ring"
    LINE = "line"


class Level(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, cache_hash=True):
    """One level of the network.

    Args:
        name: what it is called: nvlink, ib, ici, dcn. A mesh axis is bound to it by `axis=8@name`.
        kind: `switch` (any device to any, each at full bandwidth), `full` (a direct link between every two devices),
            `torus`, `ring`, `line`.
        domain: devices that one such network joins; None is unbounded. For a torus it follows from `shape`.
        bandwidth: per device for a switch; per link for the others. A torus has two links for each dim with
            wraparound.
        launch: fixed time of one collective.
        hop: time of one step of a collective's algorithm.
        shape: extents of a whole torus (a TPU pod); its length is the number of torus dims.
        wrap_multiple: a torus dim wraps around if its extent is a multiple of this; None is never.
        in_network_reduction: the switch adds while it forwards (SHARP), so an all-reduce sends its bytes once.
        sustained: what of the datasheet's bandwidth collectives reach where no measured figure stands in its place; see
            `sustained`.
    """

    name: Name
    kind: NetworkKind
    bandwidth: Bandwidth
    launch: Latency
    hop: Latency
    domain: Devices | None = None
    shape: tuple[Devices, ...] = ()
    wrap_multiple: Devices | None = None
    in_network_reduction: bool = False
    sustained: Share | None = None
    note: str = ""

    @property
    def links(self) -> int:
        """Links that one device can send over at once: two for each torus dim, one for each other device if `full`."""
        if self.kind == "switch":
            return 1
        if self.kind == "full":
            return max((self.domain or 2) - 1, 1)
        return 2 * max(len(self.shape), 1)


class Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where figures come from: title, place (repository, file, commit or page), and the day they were taken from it."""

    key: str
    title: str
    where: str = ""
    date: str = ""


class System(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, cache_hash=True):
    """A chip and the network levels that join many of it, fast to slow."""

    name: Name
    title: str
    chip: Chip
    levels: tuple[Level, ...]
    aliases: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    path: str = ""

    def ideal(self) -> System:
        """The same system at its datasheet figures, measured ones left out."""
        return ideal(self)


@lru_cache(maxsize=256)
def ideal(system: System) -> System:
    """The same system at its datasheet figures, measured ones left out.

    >>> from einscale.hardware import load_system
    >>> h100 = load_system("h100")
    >>> h100.levels[0].bandwidth.used / 1e9, ideal(h100).levels[0].bandwidth.used / 1e9
    (370.0, 450.0)
    """
    chip = system.chip
    host, power = chip.host_bandwidth, chip.power
    chip = replace(
        chip,
        peaks=tuple(replace(peak, attainable=None) for peak in chip.peaks),
        memory_bandwidth=replace(chip.memory_bandwidth, attainable=None),
        host_bandwidth=None if host is None else replace(host, attainable=None),
        power=None if power is None else replace(power, attainable=None),
        kernels=None,
    )
    levels = tuple(
        replace(
            level,
            bandwidth=replace(level.bandwidth, attainable=None),
            launch=replace(level.launch, attainable=None),
            hop=replace(level.hop, attainable=None),
            sustained=None,
        )
        for level in system.levels
    )
    return replace(system, chip=chip, levels=levels)


@lru_cache(maxsize=256)
def rooflines(system: System) -> System:
    """The same system without what is known of its kernels: local work by its roofline, links at their own figures.

    What no run is faster than, as far as attainable figures do not stand in place of the datasheet's.

    >>> from einscale.hardware import load_system
    >>> rooflines(load_system("h100")).chip.kernels is None
    True
    """
    levels = tuple(replace(level, sustained=None) for level in system.levels)
    return replace(system, chip=replace(system.chip, kernels=None), levels=levels)


@lru_cache(maxsize=256)
def sustained(system: System) -> System:
    """The same system at the bandwidth that collectives reach, on levels that state a share and no measured figure.

    >>> from einscale.hardware import load_system
    >>> h100 = load_system("h100")
    >>> [level.bandwidth.used / 1e9 for level in (*h100.levels, *sustained(h100).levels)]
    [370.0, 50.0, 370.0, 35.0]
    """
    levels = tuple(
        level
        if level.sustained is None or level.bandwidth.attainable is not None
        else replace(
            level,
            bandwidth=replace(
                level.bandwidth,
                attainable=Attainable(
                    value=level.bandwidth.value * level.sustained.value,
                    source=level.sustained.source,
                    date=level.sustained.date,
                    note=level.sustained.note,
                ),
            ),
        )
        for level in system.levels
    )
    return replace(system, levels=levels)


RUNS_AS = {"fp8b": "fp8", "nvfp4": "fp4", "mxfp4": "fp4"}
"""Element type -> the one whose figure it takes, on a chip that states none of its own.

- fp8b: products of one tile of 128 run as fp8 and are scaled as they are added up (DeepSeek-V3, arXiv 2412.19437,
  section 3.3), so any fp8 tensor cores will do.
- nvfp4, mxfp4: what data sheets call fp4 is block-scaled (CUTLASS, Blackwell SM100 GEMMs).

mxfp8 is not here: a scale for 32 elements needs tensor cores that apply it, which H100 and H200 lack (Transformer
Engine user guide, datatype and hardware support matrix). Nor is fp6: only a chip that has it states it.
"""


@lru_cache(maxsize=1024)
def peak(chip: Chip, dtype: str) -> Rate:
    """The figure for matrix FLOP/s in an element type; its own `dtype` says what the type runs as (`RUNS_AS`).

    fp32 means true fp32 products, PyTorch's default: the chip's `fp32` figure (vector units on NVIDIA and AMD, six bf16
    passes on a TPU). Ask for `tf32` to price tf32.

    >>> from einscale.hardware import load_chip
    >>> peak(load_chip("h100"), "fp8b").dtype, peak(load_chip("b200"), "mxfp8").dtype
    ('fp8', 'mxfp8')

    Raises:
        HardwareError: the chip has no such rate; the message lists those it has, and what runs as one of them.
    """
    name = canonical_dtype(dtype)
    for wanted in (name, RUNS_AS.get(name)):
        for rate in chip.peaks:
            if rate.dtype == wanted:
                return rate
    also = [
        f"{one} runs as {other}" for one, other in RUNS_AS.items() if other in chip.dtypes and one not in chip.dtypes
    ]
    raise HardwareError(
        f"{chip.name} has no matrix FLOP/s figure for {name}",
        hint="; ".join((f"it has: {', '.join(chip.dtypes)}", *also)),
    )


def flop_rate(chip: Chip, dtype: str) -> float:
    """Dense FLOP/s that pricing uses for matrix products in an element type.

    >>> from einscale.hardware import load_chip
    >>> flop_rate(load_chip("a100"), "bf16") / 1e12
    271.2
    >>> flop_rate(load_chip("a100"), "fp8")
    Traceback (most recent call last):
    einscale.errors.HardwareError: A100-SXM-80GB has no matrix FLOP/s figure for fp8
      it has: bf16, fp16, tf32, fp32, int8

    Raises:
        HardwareError: the chip has no such rate; the message lists those it has.
    """
    return peak(chip, dtype).used


def hosts(system: System, devices: int) -> int:
    """Hosts that drive so many devices, rounded up.

    >>> from einscale.hardware import load_system
    >>> hosts(load_system("tpu-v5p"), 16 * 20 * 28)
    2240

    Raises:
        HardwareError: the system does not say how many chips a host drives.
    """
    return -(-devices // _count(system, "host_chips", "how many chips a host drives"))


def cores(system: System, devices: int) -> int:
    """Cores of so many devices.

    >>> from einscale.hardware import load_system
    >>> cores(load_system("tpu-v5p"), 8960)
    17920

    Raises:
        HardwareError: the system does not say how many cores a chip has.
    """
    return devices * _count(system, "cores", "how many cores a chip has")


def _count(system: System, key: str, words: str) -> int:
    count: Count | None = getattr(system.chip, key)
    if count is None:
        raise HardwareError(f"{system.name} does not say {words}", expected=f"a table [chip.{key}] in its file")
    return count.value


def energy(system: System, devices: int, seconds: Number) -> Number | None:
    """Joules that so many devices draw in a time at their power; None where no source states it.

    Devices alone, as if always under full load: hosts, network, cooling and losses come on top.

    >>> from einscale.hardware import load_system
    >>> energy(load_system("h100"), 8, 3600) / 3.6e6  # kWh
    5.6
    >>> energy(load_system("tpu-v5p"), 8, 3600) is None
    True
    """
    power = system.chip.power
    return None if power is None else power.used * devices * seconds
