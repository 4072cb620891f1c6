"""parse and str are inverses: Hypothesis over specs with every feature of the notation."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from einscale.errors import NotationError
from einscale.notation import Axis, Group, Partial, Shard, Spec, TensorSpec, lower, parse_spec, parse_tensor

INDICES = ("B", "d_model", "x1", "λ", "heads", "U", "bf16")
SHARDS = ("x", "data", "pod_2", "z:(1)2", "z:(2)4", "z:(8)2")
"""Mesh axes, and parts of one that may stand beside each other."""

SIZES = {"B": 32, "d_model": 10**18, "x1": 1, "rest": 7}
DTYPES = (None, None, "bf16", "fp32", "int4")


@st.composite
def tensors(
    draw: st.DrawFn,
    indices: tuple[str, ...],
    name: str | None,
    *,
    output: bool = False,
    reduction: str = "sum",
    owed: tuple[str, ...] = (),
) -> TensorSpec:
    """A tensor with these indices: random sizes, shards, groups; an output may be open."""
    free = list(draw(st.permutations([shard for shard in SHARDS if shard not in owed])))
    axes = []
    for index in indices:
        repeated = indices.count(index) > 1
        shards: tuple[Shard, ...] = ()
        is_open = False
        if index != "..." and not repeated:
            shards = tuple(Shard(free.pop()) for _ in range(min(len(free), draw(st.integers(0, 2)))))
            is_open = output and draw(st.booleans())
        size = 128 if index == "128" else SIZES.get(index) if draw(st.booleans()) else None
        axes.append(Axis(index, size, shards, is_open, index == "rest"))
    dims: list[Axis | Group] = []
    while axes:
        grouped = 0
        while grouped < min(3, len(axes)) and axes[grouped].name not in {"...", "rest"}:
            grouped += 1
        if grouped and draw(st.booleans()):
            count = draw(st.integers(1, grouped))
            dims.append(Group(tuple(axes[:count])))
            del axes[:count]
        else:
            dims.append(axes.pop(0))
    partial = Partial(reduction, tuple(Shard(shard) for shard in sorted(owed))) if owed else None
    if output and partial is None and draw(st.booleans()):
        partial = Partial(reduction, (), True)
    dtype = draw(st.sampled_from(DTYPES))
    if not dims and not output and name is None and dtype is None:
        dtype = "bf16"
    return TensorSpec(tuple(dims), name, dtype, partial, output and draw(st.booleans()))


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """A valid spec: one to three operands, an output or none."""
    pool = [*INDICES, "128", "rest", "..."]
    count = draw(st.integers(1, 3))
    owed = list(draw(st.permutations(SHARDS)))
    operands = []
    for position in range(count):
        indices = list(draw(st.lists(st.sampled_from(pool), max_size=4, unique=True)))
        if indices and indices[0] not in {"...", "rest"} and draw(st.integers(0, 4)) == 0:
            indices.append(indices[0])
        owes = tuple(owed.pop() for _ in range(draw(st.integers(0, 1))))
        name = draw(st.sampled_from([None, f"t{position}"]))
        operands.append(draw(tensors(tuple(indices), name, owed=owes)))
    if draw(st.booleans()):
        return Spec(tuple(operands))
    known = list(dict.fromkeys(index for operand in operands for index in operand.indices))
    kept = [index for index in known if index == "..." or draw(st.booleans())]
    indices = tuple(draw(st.permutations(kept)))
    owes = tuple(owed[: draw(st.integers(0, 1))])
    output = draw(tensors(indices, draw(st.sampled_from([None, "y"])), output=True, owed=owes))
    return Spec(tuple(operands), output)


@settings(max_examples=120, deadline=None)
@given(specs())
def test_str_of_a_spec_parses_back(spec: Spec) -> None:
    again = parse_spec(str(spec))
    assert again.canonical == spec
    assert str(again) == str(spec)
    assert lower(again) == lower(spec)


@settings(max_examples=120, deadline=None)
@given(specs())
def test_every_span_of_an_axis_is_its_text(spec: Spec) -> None:
    again = parse_spec(str(spec))
    for tensor in (*again.operands, *([again.output] if again.output else [])):
        for axis in tensor.axes:
            assert again.text[slice(*axis.span)] == str(axis)
            assert [again.text[slice(*shard.span)] for shard in axis.shards] == [shard.name for shard in axis.shards]
        assert again.text[slice(*tensor.span)] == str(tensor)


@settings(max_examples=120, deadline=None)
@given(specs(), st.data())
def test_a_filled_in_output_is_what_it_lowers_to(spec: Spec, data: st.DataObject) -> None:
    free = list(data.draw(st.permutations(SHARDS)))
    dims = tuple(
        tuple(free.pop() for _ in range(min(len(free), data.draw(st.integers(0, 2))))) if axis.name != "..." else ()
        for axis in spec.output_axes
    )
    unreduced = tuple(sorted(free[: data.draw(st.integers(0, 1))]))
    question = lower(parse_spec(str(spec.with_output(dims, unreduced))))
    assert (question.output, question.output_dims) == (lower(spec).output, dims)
    assert (question.output_unreduced, question.output_unreduced_open) == (unreduced, False)


@settings(max_examples=120, deadline=None)
@given(tensors(("B", "...", "d_model", "128"), "w", output=True, owed=("x",), reduction="max"))
def test_str_of_a_tensor_parses_back(tensor: TensorSpec) -> None:
    again = Spec((parse_tensor(str(tensor)),)).canonical.operands[0]
    assert again == tensor


@settings(max_examples=150, deadline=None)
@given(st.text("Bdx/?{}U:,->()[]=.*12 \n→é", max_size=14), st.sampled_from([None, "slash", "numpy", "book"]))
def test_any_text_is_read_or_refused_with_a_clear_error(text: str, syntax: str | None) -> None:
    try:
        spec = parse_spec(text, syntax=syntax)
    except NotationError as error:
        assert error.span is None or 0 <= error.span[0] <= error.span[1] <= len(text) + 1
        assert str(error).splitlines()[0] == error.message
    else:
        assert parse_spec(str(spec)).canonical == spec.canonical


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=12))
def test_any_unicode_is_read_or_refused_with_a_clear_error(text: str) -> None:
    try:
        spec = parse_spec(text)
    except NotationError as error:
        assert str(error).isprintable() or "\n" in str(error)
    else:
        assert parse_spec(str(spec)).canonical == spec.canonical
