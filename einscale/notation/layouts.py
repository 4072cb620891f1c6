"""Notations that lay out one tensor: readers and writers by name, and whole einsums with a layout for every tensor.

A whole einsum is written `EQUATION; LAYOUT, LAYOUT -> LAYOUT`: an einsum without layouts, as numpy or slash notation,
and then for each tensor its layout in one of these notations. Without `-> LAYOUT` the output's layout is the planner's
choice.
"""

from __future__ import annotations

from msgspec.structs import replace

from einscale.errors import NotationError
from einscale.notation.detect import looks_like_numpy
from einscale.notation.dtensor import read_dtensor, write_dtensor
from einscale.notation.foreign import Dims, MeshAxes, Reading, Scanner
from einscale.notation.hlo_sharding import read_hlo, write_hlo
from einscale.notation.jax_spec import read_jax, write_spec, write_type
from einscale.notation.numpy_dialect import complete_numpy, parse_numpy
from einscale.notation.shardy import read_shardy, write_shardy
from einscale.notation.slash import parse_slash
from einscale.notation.syntax import ELLIPSIS, Axis, Group, Spec, TensorSpec

EXAMPLES = {
    "jax": "P('x', None), P(None, 'y') -> P('x', 'y')",
    "dtensor": "[Shard(0), Replicate()], [Replicate(), Shard(1)] -> [Shard(0), Shard(1)]",
    "shardy": '[{"x"}, {}], [{}, {"y"}] -> [{"x"}, {"y"}]',
    "hlo": "{devices=[2,1,4]<=[8] last_tile_dim_replicate}, {replicated} -> {replicated}",
}
"""Layouts of `ij,jk->ik` in each of them."""


def read_layout(scanner: Scanner, notation: str, dims: Dims | None = None, mesh: MeshAxes | None = None) -> Reading:
    """The layout of one tensor in the notation named.

    Args:
        scanner: where it stands; left behind it.
        notation: one of `einscale.notation.LAYOUTS`.
        dims: dims of the tensor, whose names it takes; None names them i, j, k, ...
        mesh: (name, size) of every mesh axis, which `dtensor` and `hlo` cannot be read without.

    Raises:
        NotationError: it is malformed, or says what no layout can.
    """
    if notation == "jax":
        return read_jax(scanner, dims)
    if notation == "dtensor":
        return read_dtensor(scanner, dims, mesh)
    if notation == "shardy":
        return read_shardy(scanner, dims)
    return read_hlo(scanner, dims, mesh)


def parse_layout(text: str, notation: str, dims: Dims | None = None, mesh: MeshAxes | None = None) -> Reading:
    """The layout of one tensor, which is the whole text.

    >>> print(parse_layout("P('x', None)", "jax").tensor)
    i/x j

    Raises:
        NotationError: it is malformed, or says what no layout can.
    """
    scanner = Scanner(text)
    if scanner.peek().kind == "end":
        raise NotationError("the layout is empty", expected=f"one such as `{EXAMPLES[notation].split(', ')[-1]}`")
    reading = read_layout(scanner, notation, dims, mesh)
    if scanner.peek().kind != "end":
        raise scanner.fail(f"unexpected `{scanner.peek().text}` after a layout", expected="one layout")
    return reading


def parse_with_layouts(text: str, notation: str, mesh: MeshAxes | None = None) -> Spec:
    """An einsum with a layout for every tensor, as `EQUATION; LAYOUT, LAYOUT -> LAYOUT`.

    >>> print(parse_with_layouts("bsd,df->bsf; P('x', None, None), P(None, 'y') -> P('x', None, 'y')", "jax"))
    b/x s d, d f/y -> b/x s f/y

    Raises:
        NotationError: it is malformed, or a layout says what a spec cannot hold.
    """
    at = text.find(";")
    if at < 0:
        raise NotationError(
            f"an einsum in syntax {notation} has its layouts behind a `;`",
            text=text,
            span=(0, max(1, len(text))),
            expected=f"`ij,jk->ik; {EXAMPLES[notation]}`",
        )
    equation = _equation(text[:at])
    scanner = Scanner(text, at + 1)
    operands = []
    for position, operand in enumerate(equation.operands):
        if position and not scanner.accept(","):
            message = f"{position} layout{'s' * (position > 1)} for {len(equation.operands)} operands"
            raise scanner.fail(message, expected="`,` and a layout for each operand")
        operands.append(_with(scanner, operand, notation, mesh))
    if scanner.peek().kind == ",":
        raise scanner.fail(f"a layout too many for {len(operands)} operands", expected="`->` or the end")
    output = equation.output
    if output is None:
        output = TensorSpec(equation.output_axes)
    output = _with(scanner, output, notation, mesh) if scanner.accept("->") else replace(output, open=True)
    if scanner.peek().kind != "end":
        raise scanner.fail(f"unexpected `{scanner.peek().text}` after the layouts", expected="`,`, `->` or the end")
    return Spec(tuple(operands), output, text, notation)


def _equation(text: str) -> Spec:
    """The einsum without layouts: numpy's letters if every tensor is one word, else slash notation."""
    if looks_like_numpy(text) or not text.strip():
        return complete_numpy(parse_numpy(text))
    spec = parse_slash(text)
    for tensor in (*spec.operands, *((spec.output,) if spec.output else ())):
        found = [axis for axis in tensor.axes if axis.shards or axis.open]
        if found or tensor.partial or tensor.open:
            span = found[0].span if found else tensor.span
            raise NotationError(
                "a layout before the `;`", text=text, span=span, expected="the einsum alone, its layouts behind the `;`"
            )
    return spec


def _with(scanner: Scanner, tensor: TensorSpec, notation: str, mesh: MeshAxes | None) -> TensorSpec:
    """The tensor with the layout to come."""
    start = scanner.peek()
    reading = read_layout(scanner, notation, tensor.dims, mesh)
    if reading.lost:
        raise scanner.fail(reading.lost[0], scanner.since(start), expected="a layout that says no more than a spec can")
    read = reading.tensor
    element = tensor.dtype if read.dtype is None else read.dtype
    if tensor.dtype not in {None, element}:
        raise scanner.fail(f"element types `{tensor.dtype}` and `{element}` of one tensor", read.span, expected="one")
    return replace(tensor, dims=read.dims, partial=read.partial, dtype=element, span=read.span, name_span=read.span)


def write_layout(tensor: TensorSpec, notation: str, mesh: MeshAxes | None = None) -> str:
    """The layout of one tensor in the notation named: one of `einscale.notation.LAYOUTS`, or `jax-type`.

    Raises:
        NotationError: the notation cannot say it; the message says why.
    """
    if notation == "jax":
        return write_spec(tensor, mesh)
    if notation == "jax-type":
        return write_type(tensor, mesh)
    if notation == "shardy":
        return write_shardy(tensor, mesh)
    if mesh is None:
        what = "lists placements by mesh dim" if notation == "dtensor" else "numbers the devices of a mesh"
        raise NotationError(f"it {what}, and the mesh is not given")
    return write_dtensor(tensor, mesh) if notation == "dtensor" else write_hlo(tensor, mesh)


def write_with_layouts(spec: Spec, notation: str, mesh: MeshAxes | None = None) -> str:
    """An einsum with a layout for every tensor, which `parse_with_layouts` reads back.

    Names of tensors are not said, nor sizes and element types.

    >>> from einscale.notation import parse_spec
    >>> write_with_layouts(parse_spec("B/x D, D F/y -> B F ?"), "shardy")
    'BD,DF->BF; #sdy.sharding<@mesh, [{"x"}, {}]>, #sdy.sharding<@mesh, [{}, {"y"}]>'

    Raises:
        NotationError: the notation cannot say it; the message says why.
    """
    tensors = [write_layout(operand, notation, mesh) for operand in spec.operands]
    output = "" if spec.output is None or _wholly_open(spec) else f" -> {write_layout(spec.output, notation, mesh)}"
    return f"{equation_of(spec)}; {', '.join(tensors)}{output}"


def _wholly_open(spec: Spec) -> bool:
    """Whether nothing is said of the output's layout."""
    output = spec.output
    if output is None or not output.open or output.partial is not None:
        return output is None
    return not any(axis.shards for axis in output.axes)


def equation_of(spec: Spec) -> str:
    """The einsum without layouts, in letters if every index is one letter, else in words.

    >>> from einscale.notation import parse_spec
    >>> equation_of(parse_spec("B/x S D, D F -> B S F")), equation_of(parse_spec("b (h k/t), h k d"))
    ('BSD,DF->BSF', 'b (h k), h k d -> b d')
    """
    tensors = [[_plain(dim) for dim in operand.dims] for operand in spec.operands]
    output = [_plain(dim) for dim in (spec.output.dims if spec.output is not None else spec.output_axes)]
    words = [word for tensor in (*tensors, output) for word in tensor]
    letters = all((len(word) == 1 and word.isalpha()) or word == ELLIPSIS for word in words)
    if letters and max(map(len, tensors), default=0) > 1:
        return f"{','.join(map(''.join, tensors))}->{''.join(output)}"
    pairs = zip(tensors, spec.operands, strict=True)
    named = [" ".join(tensor) or f"{operand.name or 'scalar'}:" for tensor, operand in pairs]
    return f"{', '.join(named)} -> {' '.join(output)}".rstrip()


def _plain(dim: Axis | Group) -> str:
    """A dim without sizes and layouts."""
    if isinstance(dim, Group):
        return f"({' '.join(map(_plain, dim.axes))})"
    return f"*{dim.name}" if dim.family else dim.name
