"""`einscale.convert`: one layout, or a whole einsum, in every notation; XLA's warnings decoded to names and moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from einscale.api.answer import Shown
from einscale.conversion import NOTATIONS, Converted, ConvertedText, Written
from einscale.errors import MeshError, NotationError, UsageError, did_you_mean
from einscale.layout import check_layout, make_layout
from einscale.mesh import Mesh, MeshAxis, make_mesh
from einscale.notation import DIALECTS, LAYOUTS, parse_spec, parse_tensor
from einscale.notation.check import check_tensors
from einscale.notation.detect import detect, detect_layout
from einscale.notation.foreign import Dims, MeshAxes, Reading, default_dims
from einscale.notation.layouts import parse_layout, write_layout, write_with_layouts
from einscale.notation.objects import given
from einscale.notation.syntax import Axis, Group, Spec, TensorSpec
from einscale.notation.tokens import check_text
from einscale.notation.writers import write_book, write_book_tensor, write_numpy, write_numpy_tensor
from einscale.notation.xla_warning import has_warning

if TYPE_CHECKING:
    from einscale.report.table import Report


_MOST_TEXT = 1_000_000


class Conversion(ConvertedText, Shown, frozen=True):
    """A layout or an einsum in every notation, or the warnings of a log decoded.

    Args:
        source: the text that was read.
        syntax: the notation it was read in: one of `einscale.notation.DIALECTS`, or `xla-warning`.
        mesh: the devices, if they are known.
        item: the layout or einsum; None for warnings.
        warnings: the warnings of XLA that the text holds.
    """

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain values for JSON."""
        from msgspec import to_builtins

        from einscale.report.document import head

        mesh = None if self.mesh is None else {"text": str(self.mesh), "axes": self.mesh.degrees}
        return {
            **head("notation"),
            "source": self.source,
            "syntax": self.syntax,
            "mesh": mesh,
            "item": to_builtins(self.item),
            "warnings": to_builtins(self.warnings),
        }

    def to_report(
        self, *, detail: bool = False, explain: bool = False, advice: bool = True, units: str = "iec"
    ) -> Report:
        """The tables that are printed; there is nothing that the short report leaves out."""
        from einscale.report.notation import conversion_report

        return conversion_report(self)

    @property
    def headline(self) -> tuple[str, str]:
        """What was read, and what it is."""
        if self.item is not None:
            return repr(self.source), f"{self.item.canonical}, read as {self.syntax}"
        return "warnings of XLA", f"{len(self.warnings)} kinds decoded"


def convert(
    source: object,
    *,
    mesh: Mesh | str | Mapping[str, int] | object | None = None,
    syntax: str | None = None,
    indices: str | Sequence[str] | None = None,
) -> Conversion:
    """Write a layout, or a whole einsum with its layouts, in every notation that can say it.

    >>> answer = convert("P('x', None, ('y', 'z'))", mesh="x=2,y=4,z=2", indices="B S D")
    >>> answer["slash"], answer["dtensor"]
    ('B/x S D/y/z', '[Shard(0), Shard(2), Shard(2)]')
    >>> convert("{devices=[2,1,4]<=[4,2]T(1,0)}", mesh="x=4,y=2")["jax"]
    "P('y', None, 'x')"

    Args:
        source: text in any dialect: one tensor's layout, an einsum with layouts, or XLA's warnings; or an object: a
            `PartitionSpec`, a tuple like one, a `NamedSharding`, a list of placements, a `DTensor`, a `jax.Array`.
        mesh: its axes, major to minor: text, a mapping, a `Mesh` of einscale, JAX or PyTorch. Objects may bring theirs.
        syntax: the dialect where it cannot be told.
        indices: names of the tensor's dims, `"B S D"` or `"B=32 S D"`, where the notation has none; else i, j, k, ...

    Raises:
        NotationError, MeshError: an argument cannot be understood; the guilty characters are underlined.
        UsageError: arguments that do not fit together.
    """
    if syntax is not None and syntax not in DIALECTS:
        raise UsageError(f"unknown syntax `{syntax}`", hint=did_you_mean(str(syntax), DIALECTS, "dialects"))
    named = named_dims(indices)
    if not isinstance(source, str):
        known = given(source)
        if syntax not in {None, known.notation}:
            raise UsageError(f"the object is of notation `{known.notation}`, not `{syntax}`")
        source, syntax = known.text, known.notation
        mesh = known.mesh if mesh is None else mesh
        named = named or _shaped(known.shape, known.dtype)
    devices = None if mesh is None else make_mesh(mesh)
    if len(source) > _MOST_TEXT:
        raise NotationError(f"the text is absurdly long: {len(source)} characters")
    if syntax is None and has_warning(source):
        if devices is None:
            raise MeshError("a warning of XLA numbers devices, and the mesh that names them is not given")
        from einscale.api.xla_warning import decode_warnings

        return Conversion(source, "xla-warning", devices, None, decode_warnings(source, devices, named))
    return _converted(check_text(source), devices, syntax, named)


def _converted(text: str, mesh: Mesh | None, syntax: str | None, named: TensorSpec | None) -> Conversion:
    """One tensor or one einsum in every notation."""
    pairs = mesh_pairs(mesh)
    notation = syntax or (None if ";" in text else detect_layout(text))
    if notation in LAYOUTS and ";" not in text:
        reading = read_one(text, notation, named, pairs)
        return Conversion(text, notation, mesh, in_all("tensor", reading.tensor, pairs, reading.lost))
    if named is not None:
        raise UsageError("the text names its indices itself", hint="leave out `indices` (`--indices`)")
    dialect = detect(text, syntax)
    names = None if mesh is None else mesh.names
    if dialect == "slash" and "->" not in text and not _is_list(text):
        tensor = parse_tensor(text, mesh_axes=names)
        _check_parts(tensor, pairs)
        return Conversion(text, dialect, mesh, in_all("tensor", tensor, pairs))
    sizes = None if mesh is None else [axis.size for axis in mesh.axes]
    spec = parse_spec(text, syntax=dialect, mesh_axes=names, mesh_sizes=sizes)
    for tensor in (*spec.operands, *((spec.output,) if spec.output is not None else ())):
        _check_parts(tensor, pairs)
    return Conversion(text, dialect, mesh, _spec_in_all(spec, pairs))


def _is_list(text: str) -> bool:
    """Whether a text in slash notation has a comma between tensors."""
    depth = 0
    for character in text:
        depth += (character in "{[(") - (character in "}])")
        if character == "," and depth == 0:
            return True
    return False


def named_dims(indices: str | Sequence[str] | None) -> TensorSpec | None:
    """A tensor with the indices given and no layout."""
    if indices is None:
        return None
    tensor = parse_tensor(indices if isinstance(indices, str) else " ".join(map(str, indices)))
    if tensor.partial is not None or tensor.open or any(axis.shards or axis.open for axis in tensor.axes):
        raise UsageError("indices with a layout", expected='names alone, such as `"B S D"` or `"B=32 S D"`')
    return tensor


def _shaped(shape: Sequence[int] | None, element: str | None) -> TensorSpec | None:
    """A tensor of this shape and element type, its indices i, j, k, ..."""
    if shape is None or any(size < 1 for size in shape):
        return None
    axes = default_dims(len(shape))
    return TensorSpec(tuple(replace(axis, size=size) for axis, size in zip(axes, shape, strict=True)), dtype=element)


def mesh_pairs(mesh: Mesh | None) -> MeshAxes | None:
    """(name, size) of every mesh axis."""
    return None if mesh is None else tuple((axis.name, axis.size) for axis in mesh.axes)


def read_one(
    text: str, notation: str, named: TensorSpec | None, mesh: MeshAxes | None, rank: int | None = None
) -> Reading:
    """The layout of one tensor, its dims named."""
    dims: Dims | None = named.dims if named is not None else default_dims(rank) if rank is not None else None
    reading = parse_layout(text, notation, dims, mesh)
    tensor = reading.tensor
    if named is not None:
        tensor = replace(tensor, name=named.name, dtype=tensor.dtype or named.dtype)
    check_tensors(text, (tensor,), None if mesh is None else [name for name, _ in mesh])
    _check_parts(tensor, mesh)
    return Reading(tensor, reading.lost)


def _check_parts(tensor: TensorSpec, mesh: MeshAxes | None) -> None:
    """Raise if a part of a mesh axis is none on this mesh."""
    if mesh is not None:
        devices = Mesh(tuple(MeshAxis(name, size) for name, size in mesh))
        check_layout(make_layout(tensor.layout, tensor.unreduced), devices, str(tensor))


def in_all(role: str, tensor: TensorSpec, mesh: MeshAxes | None, lost: tuple[str, ...] = ()) -> Converted:
    """One tensor in every notation."""
    written = [Written("slash", str(tensor))]
    for notation in NOTATIONS:
        if notation == "slash":
            continue
        rules = ""
        try:
            if notation == "numpy":
                text, rules = write_numpy_tensor(tensor)
            elif notation == "book":
                text = write_book_tensor(tensor, tensor.name or "A")
            else:
                text = write_layout(tensor, notation, mesh)
        except NotationError as error:
            written.append(Written(notation, None, note=why_not(error)))
        else:
            written.append(Written(notation, text, rules, _unsaid((tensor,), notation, mesh)))
    return Converted(role, str(tensor), (tensor.layout,), tuple(written), lost)


def _spec_in_all(spec: Spec, mesh: MeshAxes | None) -> Converted:
    """One einsum in every notation."""
    tensors = spec.operands if spec.output is None else (*spec.operands, spec.output)
    written = [Written("slash", str(spec))]
    for notation in NOTATIONS:
        if notation == "slash":
            continue
        rules = ""
        try:
            if notation == "numpy":
                text, rules = write_numpy(spec)
            elif notation == "book":
                text = write_book(spec)
            else:
                text = write_with_layouts(_sized(spec), notation, mesh)
        except NotationError as error:
            written.append(Written(notation, None, note=why_not(error)))
        else:
            written.append(Written(notation, text, rules, _unsaid(tensors, notation, mesh)))
    return Converted("spec", str(spec), tuple(tensor.layout for tensor in tensors), tuple(written))


def _sized(spec: Spec) -> Spec:
    """The spec with the sizes it writes anywhere written everywhere."""
    tensors = spec.operands if spec.output is None else (*spec.operands, spec.output)
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes |= tensor.sizes
    filled = [replace(tensor, dims=tuple(_fill(dim, sizes) for dim in tensor.dims)) for tensor in tensors]
    operands = tuple(filled[: len(spec.operands)])
    return replace(spec, operands=operands, output=None if spec.output is None else filled[-1])


def _fill(dim: Axis | Group, sizes: Mapping[str, int]) -> Axis | Group:
    if isinstance(dim, Group):
        return replace(dim, axes=tuple(replace(axis, size=sizes.get(axis.name)) for axis in dim.axes))
    return replace(dim, size=sizes.get(dim.name))


def why_not(error: NotationError) -> str:
    """Why something cannot be said, in one line."""
    return f"{error.message}; {error.hint}" if error.hint else error.message


def _unsaid(tensors: Sequence[TensorSpec], notation: str, mesh: MeshAxes | None) -> str:
    """What of these tensors a notation leaves out, in words."""
    missing = []
    if notation != "book" and any(tensor.name for tensor in tensors):
        missing.append("names of tensors")
    if notation != "jax-type" and any(tensor.sizes for tensor in tensors):
        missing.append("sizes")
    if notation != "jax-type" and any(tensor.dtype for tensor in tensors):
        missing.append("element types")
    if notation != "book" and any(isinstance(dim, Group) for tensor in tensors for dim in tensor.dims):
        missing.append("factors of a dim")
    if notation == "hlo":
        used = {shard for tensor in tensors for dim in tensor.layout for shard in dim}
        if any(size == 1 and name in used for name, size in mesh or ()):
            missing.append("mesh axes of size 1")
    return f"leaves out {', '.join(missing)}" if missing else ""
