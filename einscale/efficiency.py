"""How long one local operation really takes: matrix products in tiles and waves, fused attention, maps that move data.

A roofline (`roofline`) says what no operation is faster than. Beneath it, a product of m x k by k x n is made in tiles
of its result; a chip's units take them in waves, the last of which may be half empty, and each tile first fills its
pipeline and at last is written out. What remains is the rate that a chip keeps up under its limits of power and clock.
All constants are those of the chip's description (`chip.kernels`), each with its source; docs/efficiency.md says how
they were found and how far off they are. They are used where a step or a request is timed, never for plans.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from msgspec import Struct

from einscale.errors import UsageError, did_you_mean
from einscale.hardware import Chip, Kernels, System, peak, rooflines
from einscale.layout import shards
from einscale.numeric import (
    Condition,
    Number,
    as_float,
    ceil_div,
    is_array,
    least,
    maximum,
    minimum,
    not_,
    product,
    rounded,
    tabulated,
    truncate,
    where,
)
from einscale.roofline import LocalTime, local_seconds
from einscale.steps import LocalEinsum, chosen_indices
from einscale.vocabulary import MODELLED

INSTRUCTION_WIDTHS = (8, 16, 32)
"""Narrow sides of tiles below those of a library's table: `mma.m16n8k16` takes 8 columns (PTX ISA, matrix multiply)."""

SPLITS = (1, 2, 4, 8)
"""Parts that a library divides the contracted dim into where a product has fewer tiles than the chip has units."""

LEAST_DEPTH = 256
"""Elements of the contracted dim that it leaves to each part."""

QUERIES = 128
"""Queries that one unit attends with at a time (FlashAttention-2, arXiv 2307.08691)."""

ENOUGH, GOOD = 0.8, 0.85
"""FlashAttention divides keys between units where it has fewer blocks of queries than 0.8 a unit, into the fewest parts
that keep units busy 0.85 of the best share (Dao-AILab/flash-attention, flash_api.cpp, num_splits_heuristic)."""

MOST_PARTS = 128
"""Parts it divides keys into at most (the same)."""

PARTIAL_BYTES = 4
"""Bytes of an element of a part's result, in fp32: written, then read and added up."""


CALLS = 4
"""Calls of an eager framework for each kernel: its launch, and views, allocations, copies, bookkeeping of gradients.

Found on the twelve-layer models among vTrain's measured steps with one sequence a microbatch, where the host is the
limit: 60 us for each kernel of a planned layer, at 15 us a call.
"""


class Execution(Struct, frozen=True):
    """How the local operations of a program are run.

    Args:
        launch: `eager`: the host sends every kernel by itself, and a pass is never shorter than that takes; `compiled`:
            the host is ahead (CUDA graphs, XLA), so only a kernel's own start counts.
        elementwise: `eager`: every map is a kernel, which reads and writes memory; `fused`: neighbouring maps are one
            kernel, up to and including the first that reduces rows (a softmax, a norm), and values that nothing else
            reads stay on chip.
        attention: library of fused attention: the chip vendor's, or FlashAttention-2, which PyTorch brings along; one
            figure stands for both where a chip's description has no other.
    """

    launch: Literal["eager", "compiled"] = "eager"
    elementwise: Literal["eager", "fused"] = "fused"
    attention: Literal["vendor", "flash2"] = "vendor"


class Product(Struct, frozen=True):
    """A local matrix product, or a batch of them: rows x depth by depth x columns; numbers, or arrays of one shape.

    >>> Product(1, 4096, 14336, 4096).flops
    481036337152
    """

    batch: Number
    rows: Number
    columns: Number
    depth: Number

    @property
    def flops(self) -> Number:
        """Multiplications and additions."""
        return 2 * self.batch * self.rows * self.columns * self.depth


def local_product(work: LocalEinsum, sizes: Mapping[str, Number], degrees: Mapping[str, Number]) -> Product | None:
    """The matrix product that a local einsum of two operands is; None for any other number of operands.

    Labels of both operands and the result make the batch; of one operand and the result, rows and columns; the rest is
    contracted. Of an axis whose elements are chosen (a token's experts) only the share of rows that exists is counted,
    and only the experts that any token takes, which are not all where tokens are few (`plan.untouched`).

    >>> from einscale.layout import Tensor, make_layout
    >>> x, w, y = Tensor("x", ("b", "s", "d")), Tensor("w", ("d", "f")), Tensor("y", ("b", "s", "f"))
    >>> layouts = make_layout([("data",), (), ()]), make_layout([(), ("model",)])
    >>> work = LocalEinsum((x, w), layouts, y, make_layout([("data",), (), ("model",)]))
    >>> local_product(work, {"b": 8, "s": 512, "d": 256, "f": 1024}, {"data": 4, "model": 2})
    Product(batch=1, rows=1024, columns=512, depth=256)
    """
    if len(work.inputs) != 2:
        return None
    left, right = (set(tensor.indices) for tensor in work.inputs)
    made = set(work.output.indices)
    local = {name: ceil_div(sizes[name], shards(axes, degrees)) for name, axes in work.placement.items()}

    def of(labels: set[str]) -> Number:
        return product(local[name] for name in labels)

    both = left & right & made
    rows, columns, depth = of((left - right) & made), of((right - left) & made), of((left | right) - made)
    batch = of(both)
    for index, count in chosen_indices(work.inputs):
        routed = [bool(tensor.chosen) for tensor in work.inputs]
        share = count / sizes[index]
        if all(routed):
            depth = maximum(1, rounded(depth * share))
            continue
        taken = 1 - (1 - share) ** (rows if routed[0] else columns)
        batch = maximum(1, rounded(batch * taken))
        if routed[0]:
            rows = maximum(1, rounded(rows * share / taken))
        else:
            columns = maximum(1, rounded(columns * share / taken))
    return Product(batch, rows, columns, depth)


def product_seconds(shape: Product, written: Number, traffic: Number, dtype: str, chip: Chip) -> LocalTime:
    """Time of a matrix product on a chip: the best of the tiles and splits that a library would choose among.

    A tile of a x b takes 2 a b (k + fill) FLOPs at the rate the chip sustains, longer where it is small, for then it
    reads more for each product: by (1 + edge / h) with h = 2ab/(a + b). The units take tiles in whole waves. Part of
    the time to write the result is added. The chip's memory bounds all of it.

    >>> from einscale.hardware import load_chip
    >>> chip = load_chip("h100")
    >>> for rows in (4096, 4224, 64):
    ...     product = Product(1, rows, 4096, 4096)
    ...     time = product_seconds(product, 2 * rows * 4096, 2 * (2 * rows + 4096) * 4096, "bf16", chip)
    ...     print(rows, time.bound, f"{product.flops / time.seconds / 989e12:.2f} of peak")
    4096 compute 0.65 of peak
    4224 compute 0.67 of peak
    64 memory 0.14 of peak

    Args:
        shape: its sizes on one device.
        written: bytes of its result, written once.
        traffic: bytes read and written altogether.
        dtype: element type it is computed in.
        chip: the chip; without `kernels` in its description the roofline is all that is known.

    Raises:
        HardwareError: the chip has no FLOP/s figure for the dtype.
    """
    numbers = (shape.batch, shape.rows, shape.columns, shape.depth, written, traffic)
    if any(map(is_array, numbers)):
        return _product_seconds(shape, written, traffic, dtype, chip)
    return _scalar_product_seconds(shape, as_float(written), as_float(traffic), dtype, chip)


def _product_seconds(shape: Product, written: Number, traffic: Number, dtype: str, chip: Chip) -> LocalTime:
    """The same, elementwise."""
    kernels = chip.kernels
    if kernels is None:
        return local_seconds(shape.flops, traffic, dtype, chip)
    rate = peak(chip, dtype).datasheet * kernels.matmul.value
    bandwidth = memory_rate(chip)
    thin, flat = minimum(shape.rows, shape.columns), shape.rows <= shape.columns

    def seconds(way: _Way) -> Number:
        turned = way.narrow & (not_(flat))
        rows, columns = where(turned, way.second, way.first), where(turned, way.first, way.second)
        made = _tiled(shape, rows, columns, way.split, kernels) * way.longer / rate
        out = kernels.epilogue.value * (written + _partial(shape, way.split)) / bandwidth
        possible = (thin <= way.widest) & ((way.split == 1) | (shape.depth >= way.split * LEAST_DEPTH))
        return where(possible, made + out, math.inf)

    numbers = (shape.batch, shape.rows, shape.columns, shape.depth, written, traffic)
    best = least(seconds, _ways(kernels), next(filter(is_array, numbers), 0))
    memory = traffic / bandwidth
    return LocalTime(maximum(best, memory) + kernels.start.used, best, memory, MODELLED)


_scalar_product_seconds = lru_cache(maxsize=65536)(_product_seconds)


ROOFLINE = "roofline"
"""Local work by the roofline of the chip, whatever is known of its kernels."""

EXECUTIONS = {
    "eager": Execution("eager", "eager"),
    "fused": Execution("eager", "fused"),
    "compiled": Execution("compiled", "fused"),
    ROOFLINE: Execution("compiled", "eager"),
}
"""How local work runs: kernel by kernel as the host sends them, the same with neighbouring maps fused, captured once
and replayed with maps fused, or as fast as nothing can beat."""

FUSED_MAPS, COMPILED = EXECUTIONS["fused"], EXECUTIONS["compiled"]
"""How training steps run where nothing is said, and how engines that serve run theirs: captured, then replayed."""


def find_execution(name: str) -> Execution:
    """A way to run local work, by name.

    >>> find_execution("fused").launch
    'eager'

    Raises:
        UsageError: no such way, with the near miss.
    """
    if name not in EXECUTIONS:
        raise UsageError(f"unknown execution `{name}`", hint=did_you_mean(name, EXECUTIONS, "it is one of"))
    return EXECUTIONS[name]


def system_under(execution: str | Execution, system: System) -> System:
    """The system as an execution has it: without what is known of its kernels for a roofline.

    >>> from einscale.hardware import load_system
    >>> system = load_system("h100")
    >>> system_under("eager", system) is system, system_under("roofline", system) is system
    (True, False)
    """
    return rooflines(system) if execution == ROOFLINE else system


class _Way(Struct, frozen=True):
    """A way in which a library may run a product; or all of them, as columns.

    Args:
        first: rows of a tile; its narrow side where it is `narrow`.
        second: columns of a tile; its long side where it is `narrow`.
        longer: how many times longer its products take than in the best tile.
        narrow: a tile for few rows or columns, as in decoding: its narrow side lies along whichever is fewer.
        widest: fewer of rows and columns that it is for.
        split: parts that the contracted dim is divided into.
    """

    first: Number
    second: Number
    longer: Number
    narrow: Condition
    widest: Number
    split: Number


@lru_cache(maxsize=64)
def _ways(kernels: Kernels) -> tuple[_Way, ...]:
    """Every tile of a chip's library, and narrow ones down to what matrix instructions allow, with every split.

    A narrow tile only serves products that it holds all of the few of: every element of the other operand (the weights)
    is then read once, which the memory's bandwidth bounds already, so it is not slower for being small.
    """
    edge = kernels.edge.value
    best = min(1 + edge / _side(tile) for tile in kernels.tiles)
    narrowest, longest = min(min(tile) for tile in kernels.tiles), max(max(tile) for tile in kernels.tiles)
    wide = [(*tile, (1 + edge / _side(tile)) / best, False, math.inf) for tile in kernels.tiles]
    thin = [
        (width, length, 1.0, True, width)
        for width in INSTRUCTION_WIDTHS
        if width < narrowest
        for length in (longest, longest // 2)
    ]
    return tuple(_Way(*tile, split) for tile in (*wide, *thin) for split in SPLITS)


def _side(tile: tuple[int, int]) -> float:
    """Side of the square tile that reads as much for each product: the harmonic mean of both."""
    rows, columns = tile
    return 2 * rows * columns / (rows + columns)


def _tiled(shape: Product, rows: Number, columns: Number, split: Number, kernels: Kernels) -> Number:
    """FLOPs that all units would do in the time a product takes with tiles of one shape: those of empty places too."""
    count = shape.batch * ceil_div(shape.rows, rows) * ceil_div(shape.columns, columns) * split
    if kernels.units is not None:
        count = ceil_div(count, kernels.units.value) * kernels.units.value
    return truncate(count * 2 * rows * columns * (ceil_div(shape.depth, split) + kernels.fill.value))


def _partial(shape: Product, split: Number) -> Number:
    """Bytes of the parts' results, written and read again."""
    return where(split > 1, 2 * split * shape.batch * shape.rows * shape.columns * PARTIAL_BYTES, 0)


def attention_seconds(
    flops: Number,
    traffic: Number,
    dtype: str,
    chip: Chip,
    *,
    block: Number = 0,
    blocks: Number = 0,
    backward: bool = False,
    library: str = "vendor",
) -> LocalTime:
    """Time of fused attention's kernel, forward or backward, at the fraction of peak that the chip reaches in it.

    Units take blocks of queries; when the others are done, one is still busy with its block (`attention_block`).
    Kernels that attend to a cache divide the keys between units where there are few blocks (FlashDecoding, Dao et al.
    2023).

    Args:
        flops: FLOPs of both products, of the pairs that the mask lets through.
        traffic: bytes read and written.
        dtype: element type it is computed in.
        chip: the chip; without `kernels` in its description the roofline is all that is known.
        block: FLOPs of one block of queries against all keys.
        blocks: how many blocks there are, where the kernel may divide the keys; 0 where it may not.
        backward: it is the backward pass.
        library: `vendor` or `flash2`.

    >>> from einscale.hardware import load_chip
    >>> time = attention_seconds(10**12, 0, "bf16", load_chip("a100"))
    >>> f"{1e12 / time.seconds / 312e12:.2f} of peak"
    '0.70 of peak'

    Raises:
        HardwareError: the chip has no FLOP/s figure for the dtype.
    """
    kernels = chip.kernels
    if kernels is None:
        return local_seconds(flops, traffic, dtype, chip)
    share = kernels.attention_backward if backward else kernels.attention
    if library == "flash2":
        share = (kernels.flash2_backward if backward else kernels.flash2) or share
    alone = 0.0 if kernels.units is None else block * _waiting(blocks, int(kernels.units.value))
    compute = (flops + alone) / (peak(chip, dtype).datasheet * share.value)
    memory = traffic / memory_rate(chip)
    return LocalTime(maximum(compute, memory) + kernels.start.used, compute, memory, MODELLED)


@tabulated
def _waiting(blocks: int, units: int) -> float:
    """Blocks that all units would do while only the last of them work; all of one where keys are not divided."""
    if not blocks:
        return units

    def waves(parts: int) -> float:
        return int(ceil_div(blocks * parts, units)) / parts

    parts = 1
    if blocks < ENOUGH * units:
        best = min(waves(count) for count in range(1, MOST_PARTS + 1))
        parts = next(count for count in range(1, MOST_PARTS + 1) if waves(count) * GOOD <= best)
    return min(units, waves(parts) * units - blocks)


def attention_blocks(scores: Product) -> Number:
    """Blocks of queries of all heads and sequences.

    >>> attention_blocks(Product(8, 4096, 98304, 128))
    256
    """
    return scores.batch * ceil_div(scores.rows, QUERIES)


def attention_block(scores: Product) -> Number:
    """FLOPs of one block of queries against all keys: what one unit works on while the others have nothing left.

    Both of attention's products are counted. Where there are fewer queries than a block has, as in decoding, libraries
    divide the keys instead, and no unit is alone.

    >>> attention_block(Product(8, 4096, 4096, 128)), attention_block(Product(8, 4, 4096, 128))
    (268435456, 0)
    """
    return where(scores.rows < QUERIES, 0, 4 * QUERIES * scores.columns * scores.depth)


def moving_seconds(traffic: Number, chip: Chip) -> LocalTime:
    """Time of a kernel that only moves data.

    >>> from einscale.hardware import load_chip
    >>> f"{moving_seconds(2 * 10**9, load_chip('a100')).seconds * 1e3:.3f} ms"
    '1.238 ms'
    """
    if chip.kernels is None:
        return local_seconds(0, traffic, "fp32", chip)
    memory = traffic / memory_rate(chip)
    return LocalTime(memory + chip.kernels.start.used, 0.0, memory, MODELLED)


def memory_rate(chip: Chip) -> float:
    """Bytes/s that a kernel which only moves data reaches.

    >>> from einscale.hardware import load_chip
    >>> memory_rate(load_chip("a100")) / 1e9
    1620.0
    """
    if chip.kernels is None:
        return chip.memory_bandwidth.used
    return chip.memory_bandwidth.datasheet * chip.kernels.moving.value


def launches(execution: Execution, chip: Chip) -> bool:
    """Whether the host sends every kernel by itself, at a pace that the chip's description states."""
    return chip.kernels is not None and execution.launch == "eager"


def launch_seconds(kernels: int, execution: Execution, chip: Chip) -> float:
    """Time in which the host sends so many kernels; 0 where it is ahead.

    >>> from einscale.hardware import load_chip
    >>> round(launch_seconds(100, Execution(), load_chip("h100")) * 1e6)
    6000
    """
    if chip.kernels is None or not launches(execution, chip):
        return 0.0
    return kernels * CALLS * chip.kernels.launch.used
