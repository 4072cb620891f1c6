"""Rules: index -> mesh axes, applied to the axes that a spec writes without a slash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from einscale.errors import NotationError, did_you_mean
from einscale.notation.check import check_mesh_axis, known_names
from einscale.notation.slash import Cursor, read_mesh_axis
from einscale.notation.syntax import ELLIPSIS, Axis, Group, Shard, Spec, TensorSpec, claim
from einscale.notation.tokens import Token, check_text, shorten

Rules: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""Pairs of an index and the mesh axes that divide it, major to minor; an earlier rule has the first choice."""

_EXPECTED = "INDEX=AXIS, for example `B=data,F=pod/model`"


def parse_rules(
    rules: str | Mapping[str, str | Iterable[str] | None] | Iterable[tuple[str, Iterable[str]]],
    mesh_axes: Sequence[str] | None = None,
) -> Rules:
    """Read rules from text, `B=data,F=pod/model` (or `pod+model`), or from a mapping of indices to mesh axes.

    >>> parse_rules("B=data,F=pod/model")
    (('B', ('data',)), ('F', ('pod', 'model')))
    >>> parse_rules({"B": ("pod", "data"), "S": None})
    (('B', ('pod', 'data')),)

    Raises:
        NotationError: malformed, an index or a mesh axis given twice, or a mesh axis that `mesh_axes` does not have.
    """
    text = check_text(rules, "the rules") if isinstance(rules, str) else _rules_text(rules)
    if not text.strip():
        return ()
    cursor = Cursor(text.replace("+", "/"))
    cursor.text = text
    found: dict[str, tuple[str, ...]] = {}
    while True:
        token, axes = _rule(cursor)
        if token.text in found:
            raise cursor.fail(f"two rules for index `{token.text}`", token, expected="one: `B=pod/data`")
        for shard in axes:
            check_mesh_axis(text, shard, mesh_axes)
        found[token.text] = tuple(shard.name for shard in axes)
        if cursor.peek().kind == "end":
            return tuple(found.items())
        if not cursor.accept(","):
            raise cursor.fail(f"unexpected `{cursor.peek().text}` in the rules", expected=_EXPECTED)


def expand(spec: Spec, rules: Rules) -> Spec:
    """The spec with the rules applied to each axis written without a slash, in operands and in a written output.

    A mesh axis that a tensor already uses, by a slash, by `{U:...}` or by an earlier rule, is left out of it there.

    Raises:
        NotationError: a rule names an index that the spec does not have.
    """
    indices = {name: None for operand in spec.operands for name in operand.indices}
    for index, _ in rules:
        if index not in indices:
            text = ",".join(f"{name}={'/'.join(axes)}" for name, axes in rules)
            start = text.index(f",{index}=") + 1 if not text.startswith(f"{index}=") else 0
            known = known_names(name for name in indices if name != ELLIPSIS)
            raise NotationError(
                f"a rule for index `{index}`, which the spec does not have",
                text=text,
                span=(start, start + len(index)),
                hint=did_you_mean(index, known, "the spec has"),
            )
    if not rules:
        return spec
    ranked = {index: (rank, axes) for rank, (index, axes) in enumerate(rules)}
    operands = tuple(_expand_tensor(operand, ranked) for operand in spec.operands)
    return replace(spec, operands=operands, output=spec.output and _expand_tensor(spec.output, ranked))


def _rule(cursor: Cursor) -> tuple[Token, tuple[Shard, ...]]:
    token = cursor.peek()
    if token.kind not in {"name", "number"}:
        raise cursor.fail("an index is missing in the rules", expected=_EXPECTED)
    cursor.take()
    equals = cursor.accept("=")
    if equals is None:
        raise cursor.fail(f"`=` is missing after `{shorten(token.text)}`", expected=_EXPECTED)
    axes = [read_mesh_axis(cursor, equals, "after `=`")]
    used: dict[str, list[Shard]] = {}
    claim(axes[0], used)
    while slash := cursor.accept("/"):
        axes.append(read_mesh_axis(cursor, slash, "after `/`"))
        if claim(axes[-1], used):
            raise cursor.fail(f"mesh axis `{axes[-1]}` is used twice", axes[-1].span, expected="each at most once")
    return token, tuple(axes)


def _rules_text(rules: Mapping[str, str | Iterable[str] | None] | Iterable[tuple[str, Iterable[str]]]) -> str:
    """Rules given as values, as the text that would say the same; rules without mesh axes say nothing."""
    words = []
    try:
        pairs = list(rules.items() if isinstance(rules, Mapping) else rules)
        for index, axes in pairs:
            joined = axes if isinstance(axes, str) else "/".join(axes or ())
            if joined:
                words.append(f"{index}={joined}")
    except (TypeError, ValueError) as error:
        message = "rules must map an index to mesh axes"
        raise NotationError(message, expected="text such as `B=data`, or a mapping: {'B': ('pod', 'data')}") from error
    return check_text(",".join(words), "the rules")


def _expand_tensor(tensor: TensorSpec, rules: dict[str, tuple[int, tuple[str, ...]]]) -> TensorSpec:
    """The tensor with rules (index -> rank of the rule, mesh axes) applied in the order of the rules."""
    bare = {axis.name for axis in tensor.axes if not axis.shards and not axis.open and axis.name in rules}
    used: dict[str, list[Shard]] = {}
    for shard in [shard for axis in tensor.axes for shard in axis.shards] + list(
        tensor.partial.axes if tensor.partial else ()
    ):
        claim(shard, used)
    given: dict[str, tuple[str, ...]] = {}
    for index in sorted(bare, key=lambda name: rules[name][0]):
        given[index] = tuple(axis for axis in rules[index][1] if claim(Shard(axis), used) is None)
    dims = tuple(
        Group(tuple(_expand_axis(axis, given) for axis in dim.axes), dim.span)
        if isinstance(dim, Group)
        else _expand_axis(dim, given)
        for dim in tensor.dims
    )
    return replace(tensor, dims=dims)


def _expand_axis(axis: Axis, given: Mapping[str, tuple[str, ...]]) -> Axis:
    if axis.shards or axis.open or axis.name not in given:
        return axis
    return replace(axis, shards=tuple(Shard(name, axis.span) for name in given[axis.name]))
