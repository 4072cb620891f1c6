"""From what a caller gives to what the planner takes: sizes completed, layouts made, contradictions refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations, product
from math import prod

from msgspec import Struct

from einscale.dtypes import BITS
from einscale.errors import PlanError, SizeError, did_you_mean
from einscale.layout import Layout, Tensor, check_layout, make_layout, shards
from einscale.mesh import Mesh, split_name
from einscale.notation import Axis, EinsumQuestion, Spec, lower
from einscale.planner.question import Wanted
from einscale.units import check_size

ANYTHING = "?"
"""Mark of a wanted dim that may be divided further."""

MOST_CHOICES = 256
"""Most readings of `/?` after named axes that are planned."""


class AskedEinsum(Struct, frozen=True):
    """A question with every name resolved.

    Args:
        spec: the spec as read.
        question: what it asks.
        sizes: index -> size, every index once, in order of appearance.
        mesh: the devices.
        tensors: the operands.
        layouts: the layouts they are given in.
        output: the result, without its layout.
    """

    spec: Spec
    question: EinsumQuestion
    sizes: dict[str, int]
    mesh: Mesh
    tensors: tuple[Tensor, ...]
    layouts: tuple[Layout, ...]
    output: Tensor


def resolve(spec: Spec, mesh: Mesh, sizes: Mapping[str, int], dtype: str) -> AskedEinsum:
    """Complete a question.

    Args:
        spec: the spec as read.
        mesh: the devices.
        sizes: index -> size, beside those the spec writes.
        dtype: canonical element type of operands that name none. The result has the type its operands share, or the
            widest.

    Raises:
        SizeError: a size is missing, given twice differently, or belongs to no index.
        LayoutError: a mesh axis is not what the spec says it is.
        PlanError: a dim is divided over more devices than it has elements.
    """
    question = lower(spec)
    resolved = _sizes(spec, question, sizes)
    dtypes = [given or dtype for given in question.dtypes]
    tensors = tuple(map(Tensor, _names(spec, question), question.inputs, dtypes))
    layouts = tuple(
        make_layout(dims, owed, reduction)
        for dims, owed, reduction in zip(
            question.input_dims, question.input_unreduced, question.reductions, strict=True
        )
    )
    widest = max(dtypes, key=lambda name: BITS[name])
    output = Tensor(question.output_name, question.output, question.output_dtype or widest)
    wanted = make_layout([_fixed(dim) for dim in question.output_dims], question.output_unreduced)
    for tensor, layout in zip((*tensors, output), (*layouts, wanted), strict=True):
        check_layout(layout, mesh, f"`{tensor.name}`")
    _check_degrees(spec, resolved, mesh)
    return AskedEinsum(spec, question, resolved, mesh, tensors, layouts, output)


def _names(spec: Spec, question: EinsumQuestion) -> tuple[str, ...]:
    """Names of the operands. Where a default name is also an index (`B`), all defaults give way to `lhs`, `rhs`."""
    unnamed = [operand.name is None for operand in spec.operands]
    taken = {index for operand in question.inputs for index in operand}
    if not any(name in taken for name, free in zip(question.names, unnamed, strict=True) if free):
        return question.names
    taken |= {operand.name for operand in spec.operands if operand.name is not None} | {question.output_name}
    count = len(unnamed)
    plain = {1: ["operand"], 2: ["lhs", "rhs"]}.get(count, [f"in{number}" for number in range(1, count + 1)])
    while taken.intersection(plain):
        plain = [f"{name}_" for name in plain]
    return tuple(default if free else name for name, default, free in zip(question.names, plain, unnamed, strict=True))


def _fixed(dim: tuple[str, ...] | None) -> tuple[str, ...]:
    """Mesh axes that a wanted dim names, whatever it leaves open."""
    return tuple(axis for axis in dim or () if axis != ANYTHING)


def wanted_choices(asked: AskedEinsum) -> Iterator[Wanted]:
    """The wanted layouts of the output: one, or where a dim reads `B/x/?` one for each way to go on after `x`.

    Raises:
        PlanError: so many ways that planning each would take too long.
    """
    question, mesh = asked.question, asked.mesh
    named = {split_name(axis)[0] for dim in question.output_dims for axis in _fixed(dim)}
    named |= {split_name(axis)[0] for axis in question.output_unreduced}
    free = [axis.name for axis in mesh.axes if axis.size > 1 and axis.name not in named]
    endings = [ending for count in range(len(free) + 1) for ending in permutations(free, count)]
    options = [
        [(*_fixed(dim), *ending) for ending in endings] if dim and dim[-1] == ANYTHING else [dim]
        for dim in question.output_dims
    ]
    if prod(map(len, options)) > MOST_CHOICES:
        raise PlanError(
            "the output leaves too many layouts open",
            text=asked.spec.text,
            span=asked.spec.output.span if asked.spec.output else None,
            expected=f"at most {MOST_CHOICES} ways to read its `/?`",
        )
    for dims in product(*options):
        given = [axis for dim in dims for axis in dim or ()]
        if len(given) == len(set(given)) and _fit(asked, dims):
            yield Wanted(dims, question.output_unreduced, question.output_unreduced_open)


def _fit(asked: AskedEinsum, dims: Sequence[tuple[str, ...] | None]) -> bool:
    """Whether no dim of the output is divided over more devices than it has elements."""
    return all(
        shards(dim or (), asked.mesh.degrees) <= asked.sizes[index]
        for index, dim in zip(asked.output.indices, dims, strict=True)
    )


def _sizes(spec: Spec, question: EinsumQuestion, given: Mapping[str, int]) -> dict[str, int]:
    """A size for every index."""
    written = dict(question.sizes)
    indices = tuple(dict.fromkeys(index for operand in question.inputs for index in operand))
    for name, value in given.items():
        if name not in indices:
            raise SizeError(
                f"a size is given for index `{name}`, which the spec does not have",
                hint=did_you_mean(name, indices, "the spec has"),
            )
        size = check_size(value, f"size of `{name}`")
        if written.setdefault(name, size) != size:
            axis = next(axis for axis in _axes(spec) if axis.name == name and axis.size is not None)
            message = f"index `{name}` has size {written[name]} in the spec and {size} beside it"
            raise SizeError(message, text=spec.text, span=axis.size_span, hint="sizes in the spec need not be repeated")
    missing = [index for index in indices if index not in written]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        axis = next(axis for axis in _axes(spec) if axis.name == missing[0])
        first, example = missing[0], f"{missing[0]}=4096"
        write = "" if first == "..." else f"write `{example}` in the spec, or "
        raise SizeError(
            f"the size of {names} is missing" if len(missing) == 1 else f"the sizes of {names} are missing",
            text=spec.text,
            span=axis.span,
            hint=f"{write}pass `--size {example}` (in Python `sizes={{{first!r}: 4096}}`)",
        )
    return {index: written[index] for index in indices}


def _axes(spec: Spec) -> list[Axis]:
    """Every axis of a spec as written."""
    tensors = (*spec.operands, spec.output) if spec.output is not None else spec.operands
    return [axis for tensor in tensors for axis in tensor.axes]


def _check_degrees(spec: Spec, sizes: Mapping[str, int], mesh: Mesh) -> None:
    """Raise where a dim is divided over more devices than it has elements: some would hold nothing but padding."""
    for axis in _axes(spec):
        names = [shard.name for shard in axis.shards]
        count = int(shards(names, mesh.degrees))
        if count > sizes[axis.name]:
            over = ", ".join(f"{name}={mesh.size(name)}" for name in names)
            raise PlanError(
                f"index `{axis.name}` has {sizes[axis.name]} elements and is divided over {count} devices ({over})",
                text=spec.text,
                span=axis.span,
                expected="at most one device for each element",
            )
