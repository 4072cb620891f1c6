"""Verify a plan: its result against numpy.einsum of the global operands, its bytes against those its steps claim."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from einscale.collectives import Collective, received_total
from einscale.dtypes import BITS, SCALES, bytes_of
from einscale.einsum import Einsum, check_einsum
from einscale.emulate.cuts import Placed, count, local_length, local_shape
from einscale.emulate.moves import IDENTITY, block_ids, misfit, move
from einscale.emulate.shrink import Small, shrink
from einscale.errors import EinscaleError, PlanError, VerificationError
from einscale.layout import Layout, Tensor, check_layout
from einscale.mesh import Mesh
from einscale.steps import LocalEinsum, Plan, Step
from einscale.vocabulary import SUM

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]
    Environment: TypeAlias = dict[tuple[str, Placed], Array]

LABELS = 52
"""Labels numpy.einsum knows; one stands for the device."""

EXACT = 2**53
"""Integers of a float64 are exact up to this."""


class Verification(Struct, frozen=True):
    """What a successful verification ran, and what it counted.

    Args:
        mesh: the emulated mesh: the one asked about, or a smaller one that keeps the plan's meaning.
        devices: devices emulated.
        sizes: the size of each index it ran at, at which everything was proved.
        elements: elements of the result compared, over all devices.
        bytes_received: per step, bytes received at those sizes, added up over all devices; 0 for local work.
        seed: what the operands were drawn from.
        padded: uneven indices that were taken padded, because permutes exchange blocks of them (see `shrink`).
        asked: the size of each index of the question; the larger ones were shrunk, every division kept what it is.
        asked_mesh: the mesh of the question.
    """

    mesh: Mesh
    devices: int
    sizes: tuple[tuple[str, int], ...]
    elements: int
    bytes_received: tuple[int, ...]
    seed: int
    padded: tuple[str, ...] = ()
    asked: tuple[tuple[str, int], ...] = ()
    asked_mesh: Mesh | None = None

    @property
    def total_received(self) -> int:
        """Bytes received over all steps and devices, at the sizes it ran at."""
        return sum(self.bytes_received)

    @property
    def shrunk(self) -> bool:
        """Whether it ran at smaller sizes, or on fewer devices, than those of the question."""
        return self.sizes != self.asked or self.mesh != self.asked_mesh

    def __str__(self) -> str:
        sizes = " ".join(f"{index}={size}{' (padded)' if index in self.padded else ''}" for index, size in self.sizes)
        return (
            f"verified on {self.devices} emulated devices ({self.mesh}) at {sizes or 'no indices'}{self._instead()}: "
            f"{len(self.bytes_received)} steps, {self.elements} elements exact, "
            f"{self.total_received} bytes received as claimed"
        )

    def _instead(self) -> str:
        """What it ran in place of, in words; "" where it ran what was asked."""
        if not self.shrunk or self.asked_mesh is None:
            return ""
        ran = dict(self.sizes)
        sizes = [f"{index}={size}" for index, size in self.asked if ran.get(index) != size]
        mesh = [f"mesh {self.asked_mesh}"] if self.mesh != self.asked_mesh else []
        return f", which divide as {', '.join((*mesh, *([' '.join(sizes)] if sizes else [])))} do"


def verify_plan(plan: Plan, sizes: Mapping[str, int], mesh: Mesh, *, seed: int = 0) -> Verification:
    """Run a plan on an emulated mesh and check everything it claims.

    Operands are drawn as small integers in float64, so equality is exact; an operand that owes a sum is split into
    random parts. After every step the shards of every device are compared with the blocks of the global tensor, and the
    elements that devices received with the claim of `collectives.received_total`.

    Args:
        plan: what to run.
        sizes: the real size of every index; each is shrunk first, see `shrink`.
        mesh: the mesh it was planned for.
        seed: for the operands.

    Returns:
        What was run and counted.

    Raises:
        PlanError: the question is malformed, or cannot be made small enough to run.
        VerificationError: a step is not what it claims; the first such step is named.

    >>> from einscale.collectives import ALL_REDUCE
    >>> from einscale.layout import make_layout
    >>> from einscale.mesh import parse_mesh
    >>> x, y = Tensor("x", ("i", "j")), Tensor("y", ("i",))
    >>> local = LocalEinsum((x,), (make_layout([(), ("m",)]),), y, make_layout([()], ["m"]))
    >>> reduce = Collective(ALL_REDUCE, y, ("m",), make_layout([()], ["m"]), make_layout([()]))
    >>> plan = Plan((x,), (make_layout([(), ("m",)]),), (local, reduce), y, make_layout([()]))
    >>> print(verify_plan(plan, {"i": 512, "j": 4096}, parse_mesh("m=4")))  # doctest: +NORMALIZE_WHITESPACE
    verified on 4 emulated devices (m=4) at i=2 j=4, which divide as i=512 j=4096 do:
    2 steps, 8 elements exact, 24 bytes received as claimed
    """
    _check_question(plan, mesh)
    small = shrink(plan, sizes, mesh)
    run = _Run(small, small.digits.radices)
    globals_ = _operands(plan, small, seed)
    truth = _evaluate(plan, [globals_[tensor.name] for tensor in plan.inputs])
    environment: Environment = {}
    for position, (tensor, layout) in enumerate(zip(plan.inputs, plan.input_layouts, strict=True)):
        placed = small.original.place(layout)
        environment[tensor.name, placed] = run.lay_out(globals_[tensor.name], tensor, placed, seed + position + 1)
    globals_.setdefault(plan.output.name, truth)
    received = _run_steps(plan, run, environment, globals_)
    final = small.original.place(plan.output_layout)
    shards = environment.get((plan.output.name, final))
    if shards is None:
        wanted = plan.output_layout.text(plan.output.indices)
        raise VerificationError(f"no step leaves the result `{plan.output.name}` in its layout {wanted}")
    try:
        elements = run.compare(shards, truth, plan.output, final)
    except _Wrong as wrong:
        raise VerificationError(f"the result {wrong}") from None
    devices = count(range(len(run.radices)), run.radices)
    ran = tuple(small.sizes.items())
    asked = tuple((index, sizes[index]) for index in small.sizes)
    return Verification(
        small.digits.mesh, devices, ran, elements, tuple(received), seed, small.whole, asked=asked, asked_mesh=mesh
    )


def _run_steps(plan: Plan, run: _Run, environment: Environment, globals_: dict[str, Array]) -> list[int]:
    """Elements that each step receives.

    Raises:
        VerificationError: a step is not what it claims.
    """
    received = []
    for number, step in enumerate(plan.steps, 1):
        try:
            received.append(run.run(step, environment, globals_))
        except _Wrong as wrong:
            raise VerificationError(f"step {number} of {len(plan.steps)} {wrong}: {step}") from None
    return received


class _Wrong(Exception):  # noqa: N818  (not an error of its own: the caller names the step)
    """What is wrong with a step, as the rest of a sentence that begins with it."""


def _check_question(plan: Plan, mesh: Mesh) -> None:
    """Raise unless the plan's ends are well formed; its steps are looked at one by one when they run."""
    einsum = Einsum(tuple(tensor.indices for tensor in plan.inputs), plan.output.indices)
    check_einsum(einsum)
    if len(einsum.indices) >= LABELS:
        raise PlanError(f"numpy.einsum cannot check more than {LABELS - 1} indices")
    names = [tensor.name for tensor in plan.inputs]
    for name in names:
        if names.count(name) > 1:
            raise PlanError(f"two operands are called `{name}`")
    ends = [*zip(plan.inputs, plan.input_layouts, strict=True), (plan.output, plan.output_layout)]
    for tensor, layout in ends:
        _check_fit(tensor, layout, mesh)
    for number, step in enumerate(plan.steps, 1):
        try:
            for tensor, layout in _touched(step):
                _check_fit(tensor, layout, mesh)
        except EinscaleError as error:
            message = f"step {number} of {len(plan.steps)} has an impossible layout: {error.message}"
            raise VerificationError(message) from error


def _check_fit(tensor: Tensor, layout: Layout, mesh: Mesh) -> None:
    """Raise unless the layout has the tensor's rank and the mesh's axes, each once."""
    if len(layout.dims) != len(tensor.indices):
        raise PlanError(f"the layout of `{tensor.name}` has {len(layout.dims)} dims, its tensor {len(tensor.indices)}")
    check_layout(layout, mesh, f"`{tensor.name}`")


def _touched(step: Step) -> list[tuple[Tensor, Layout]]:
    """The tensors of a step with their layouts."""
    if isinstance(step, LocalEinsum):
        return [*zip(step.inputs, step.layouts, strict=True), (step.output, step.output_layout)]
    return [(step.tensor, step.before), (step.tensor, step.after)]


def _operands(plan: Plan, small: Small, seed: int) -> dict[str, Array]:
    """Global operands: integers without zero, small enough that every product and sum of the einsum is exact."""
    import numpy as np

    terms = math.prod(small.sizes.values())
    bound = 9
    while bound > 2 and bound ** len(plan.inputs) * terms >= EXACT // 16:
        bound -= 1
    if bound ** len(plan.inputs) * terms >= EXACT:
        raise PlanError(f"an einsum of {len(plan.inputs)} operands is too large to check exactly in float64")
    generator = np.random.default_rng(seed)
    operands = {}
    for tensor in plan.inputs:
        shape = tuple(small.sizes[index] for index in tensor.indices)
        signs = generator.choice(np.array([-1.0, 1.0]), size=shape)
        operands[tensor.name] = signs * generator.integers(1, bound + 1, size=shape)
    return operands


def _evaluate(work: Plan | LocalEinsum, operands: list[Array]) -> Array:
    """The einsum of global operands."""
    einsum = Einsum(tuple(tensor.indices for tensor in work.inputs), work.output.indices)
    return _numpy_einsum(einsum, operands, batch=False)


def _numpy_einsum(einsum: Einsum, operands: list[Array], *, batch: bool) -> Array:
    """numpy.einsum with words as indices; with `batch`, the leading axis of everything is the device."""
    import numpy as np

    labels = {index: number + 1 for number, index in enumerate(einsum.indices)}
    lead = [0] if batch else []
    arguments: list[Any] = []
    for operand, indices in zip(operands, einsum.inputs, strict=True):
        arguments += [operand, lead + [labels[index] for index in indices]]
    result = np.einsum(*arguments, lead + [labels[index] for index in einsum.output], optimize=len(operands) > 2)
    return np.asarray(result)


class _Run:
    """One emulation: the small question, and the blocks of its layouts, which many steps share."""

    def __init__(self, small: Small, radices: tuple[int, ...]) -> None:
        import numpy as np

        self.small = small
        self.radices = radices
        self.devices = count(range(len(radices)), radices)
        self.coordinates = np.indices(radices).reshape(len(radices), self.devices)

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        """Global shape."""
        return tuple(self.small.sizes[index] for index in tensor.indices)

    def padded(self, tensor: Tensor) -> tuple[int, ...]:
        """Global shape as it is divided."""
        return tuple(self.small.padded[index] for index in tensor.indices)

    def local(self, tensor: Tensor, placed: Placed) -> tuple[int, ...]:
        """Shape of every device's shard."""
        return local_shape(placed, self.shape(tensor), self.padded(tensor), self.radices)

    def blocks(self, tensor: Tensor, placed: Placed) -> list[tuple[slice, ...]]:
        """For every device, which part of the global tensor it holds, padding left out."""
        bounds = [
            self._interval(size, padded, dim)
            for size, padded, dim in zip(self.shape(tensor), self.padded(tensor), placed.dims, strict=True)
        ]
        return [tuple(slice(low[device], high[device]) for low, high in bounds) for device in range(self.devices)]

    def _interval(self, size: int, padded: int, dim: tuple[int, ...]) -> tuple[list[int], list[int]]:
        """First and last-plus-one element of each device along a dim divided digit by digit, rounding up."""
        import numpy as np

        low = np.zeros(self.devices, dtype=np.int64)
        high = np.full(self.devices, padded, dtype=np.int64)
        for position, digit in enumerate(dim):
            length = local_length(padded, dim[: position + 1], self.radices)
            low = np.minimum(low + self.coordinates[digit] * length, high)
            high = np.minimum(low + length, high)
        return np.minimum(low, size).tolist(), np.minimum(high, size).tolist()

    def lay_out(self, whole: Array, tensor: Tensor, placed: Placed, seed: int) -> Array:
        """The shards of a global tensor; one that owes a reduction is split into random parts that give it."""
        import numpy as np

        parts = [whole]
        if placed.unreduced:
            parts = _random_parts(whole, count(placed.unreduced, self.radices), placed.reduction, seed)
        part = block_ids([placed.unreduced], self.coordinates, self.radices)[0].tolist()
        local = self.local(tensor, placed)
        shards = np.full((self.devices, *local), IDENTITY[placed.reduction])
        for device, block in enumerate(self.blocks(tensor, placed)):
            held = parts[part[device]][block]
            shards[_corner(device, held.shape)] = held
        return shards.reshape(self.radices + local)

    def compare(self, shards: Array, whole: Array, tensor: Tensor, placed: Placed) -> int:
        """Elements of all devices' shards, after adding up what is owed, that equal the global tensor's blocks.

        Raises:
            _Wrong: one differs.
        """
        import numpy as np

        if whole.shape != self.shape(tensor):
            raise _Wrong(f"makes a tensor of another shape than `{tensor.name}`")
        if placed.unreduced:
            operation = {"sum": np.add, "max": np.maximum, "min": np.minimum}[placed.reduction]
            shards = np.broadcast_to(operation.reduce(shards, axis=placed.unreduced, keepdims=True), shards.shape)
        flat = shards.reshape((self.devices, *shards.shape[len(self.radices) :]))
        compared = 0
        for device, block in enumerate(self.blocks(tensor, placed)):
            wanted = whole[block]
            held = flat[_corner(device, wanted.shape)]
            if not np.array_equal(held, wanted):
                raise _Wrong(self._difference(device, block, held, wanted, tensor))
            compared += wanted.size
        return compared

    def _difference(self, device: int, block: tuple[slice, ...], held: Array, wanted: Array, tensor: Tensor) -> str:
        """Where a shard is wrong, in words."""
        import numpy as np

        at = ", ".join(
            f"{axis.name}={c}" for axis, c in zip(self.small.digits.mesh.axes, self._axes(device), strict=True)
        )
        if held.shape != wanted.shape:
            return f"is wrong: device ({at}) holds a shard of `{tensor.name}` of another shape"
        first = np.argwhere(held != wanted)[0]
        place = ", ".join(
            f"{index}={part.start + offset}" for index, part, offset in zip(tensor.indices, block, first, strict=True)
        )
        have, want = float(held[tuple(first)]), float(wanted[tuple(first)])
        return f"is wrong: on device ({at}) element ({place}) of `{tensor.name}` is {have:g}, must be {want:g}"

    def _axes(self, device: int) -> list[int]:
        """Coordinates of a device along the mesh axes."""
        places = []
        for axis in reversed(self.small.digits.mesh.axes):
            device, place = divmod(device, axis.size)
            places.append(place)
        return places[::-1]

    def run(self, step: Step, environment: Environment, globals_: dict[str, Array]) -> int:
        """Run one step, check its result and its bytes; bytes received over all devices.

        Raises:
            _Wrong: it is not what it claims.
        """
        if isinstance(step, LocalEinsum):
            self._run_einsum(step, environment, globals_)
            return 0
        return self._run_move(step, environment, globals_)

    def _read(self, tensor: Tensor, layout: Layout, environment: Environment) -> tuple[Array, Placed]:
        """The shards a step reads."""
        placed = self.small.original.place(layout)
        shards = environment.get((tensor.name, placed))
        if shards is None:
            raise _Wrong(f"reads `{tensor.name}` in a layout it is not in, {layout.text(tensor.indices)}")
        if shards.shape[len(self.radices) :] != self.local(tensor, placed):
            raise _Wrong(f"reads `{tensor.name}` under other indices than it was made with")
        return shards, placed

    def _run_einsum(self, step: LocalEinsum, environment: Environment, globals_: dict[str, Array]) -> None:
        """A local einsum: every device on its own shards."""
        read = [self._read(*pair, environment) for pair in zip(step.inputs, step.layouts, strict=True)]
        wanted = self._einsum_layout(step)
        claimed = self.small.original.place(step.output_layout)
        if wanted != claimed:
            raise _Wrong("claims another layout than its operands give")
        flat = [shards.reshape((self.devices, *shards.shape[len(self.radices) :])) for shards, _ in read]
        result = _numpy_einsum(step.einsum, flat, batch=True)
        result = result.reshape(self.radices + result.shape[1:])
        whole = _evaluate(step, [globals_[tensor.name] for tensor in step.inputs])
        whole = globals_.setdefault(step.output.name, whole)
        self.compare(result, whole, step.output, claimed)
        environment[step.output.name, claimed] = result

    def _einsum_layout(self, step: LocalEinsum) -> Placed:
        """The layout a local einsum leaves its result in: what its operands say, not what the step says."""
        placement: dict[str, tuple[int, ...]] = {}
        owed: list[int] = []
        reduction = SUM
        copies = len(step.inputs) == 1 and not step.einsum.contracted
        for tensor, layout in zip(step.inputs, step.layouts, strict=True):
            placed = self.small.original.place(layout)
            if placed.reduction != SUM and copies:
                reduction = placed.reduction
            elif placed.reduction != SUM:
                raise _Wrong(f"reads `{tensor.name}`, which still owes a {placed.reduction}")
            for index, dim in zip(tensor.indices, placed.dims, strict=True):
                if placement.setdefault(index, dim) != dim:
                    raise _Wrong(f"divides index `{index}` in two ways")
                if dim and tensor.indices.count(index) > 1:
                    raise _Wrong(f"takes a diagonal over the divided index `{index}`")
            owed += placed.unreduced
        for index in step.einsum.contracted:
            owed += placement[index]
        dims = tuple(placement[index] for index in step.output.indices)
        used = owed + [digit for dim in dims for digit in dim]
        if len(set(used)) != len(used):
            raise _Wrong("uses one mesh axis for two things at once")
        return Placed(dims, tuple(sorted(owed)), reduction)

    def _run_move(self, step: Collective, environment: Environment, globals_: dict[str, Array]) -> int:
        """A move: the data, then the bytes."""
        shards, before = self._read(step.tensor, step.before, environment)
        after = self.small.original.place(step.after)
        axes = frozenset(self.small.original.expand(step.axes))
        reason = misfit(step.kind, axes, before, after, self.radices)
        if reason is not None:
            raise _Wrong(f"is not a move: {reason}")
        try:
            moved, elements = move(
                step.kind, axes, shards, before, after, self.shape(step.tensor), self.padded(step.tensor), self.radices
            )
        except ValueError as error:
            raise _Wrong(f"cannot run: {error}") from None
        self.compare(moved, globals_[step.tensor.name], step.tensor, after)
        environment[step.tensor.name, after] = moved
        return self._check_bytes(step, elements)

    def _check_bytes(self, step: Collective, elements: int) -> int:
        """Bytes of the elements received, if the step claims just as many."""
        small = self.small.step(step)
        if BITS[step.tensor.dtype] % 8 or step.tensor.dtype in SCALES:
            # Parts of a byte and of a block are rounded up per shard; count those in whole elements instead.
            small = replace(small, tensor=replace(small.tensor, dtype="int8"))
        claimed = received_total(small, self.small.sizes, self.small.digits.mesh)
        counted = bytes_of(elements, small.tensor.dtype)
        if claimed != counted:
            raise _Wrong(f"claims {claimed} bytes over all devices, but devices receive {counted}")
        return int(bytes_of(elements, step.tensor.dtype))


def _corner(device: int, shape: tuple[int, ...]) -> tuple[int | slice, ...]:
    """Where in an array of shards a device keeps a block of this shape, the rest being padding."""
    return (device, *(slice(0, length) for length in shape))


def _random_parts(whole: Array, parts: int, reduction: str, seed: int) -> list[Array]:
    """Integer parts whose sum, maximum or minimum is `whole`."""
    import numpy as np

    generator = np.random.default_rng(seed)
    if reduction == SUM:
        drawn = [np.asarray(generator.integers(-9, 10, size=whole.shape), dtype=np.float64) for _ in range(parts - 1)]
        rest: Array = whole.copy()
        for part in drawn:
            rest -= part
        return [*drawn, rest]
    sign = -1.0 if reduction == "max" else 1.0
    worse = [whole + sign * generator.integers(0, 10, size=whole.shape) for _ in range(parts)]
    exact = generator.integers(0, parts, size=whole.shape)
    return [np.where(exact == number, whole, part) for number, part in enumerate(worse)]
