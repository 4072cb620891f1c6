"""numpy's einsum strings, `bsd,df->bsf`: one letter an axis, no layouts (those come from rules)."""

from __future__ import annotations

from msgspec.structs import replace

from einscale.errors import NotationError
from einscale.notation.syntax import ELLIPSIS, Axis, Spec, TensorSpec, default_name
from einscale.notation.tokens import bad_arrow, bad_character

_ARROW = "->"


def parse_numpy(text: str) -> Spec:
    """Syntax of an einsum string as `numpy.einsum` and opt_einsum read it, blanks ignored.

    `...` becomes one index: operands that have it are taken to have the same axes there, of the same sizes. An operand
    without letters is a scalar; it gets a name, since in slash notation an empty operand is an error. Any letter of
    Unicode may be an index, as in opt_einsum.

    >>> str(parse_numpy("bsd,df->bsf"))
    'b s d, d f -> b s f'

    Raises:
        NotationError: neither numpy nor opt_einsum would read it.
    """
    stop = text.find(_ARROW)
    operands: list[TensorSpec] = []
    start, end = 0, len(text) if stop < 0 else stop
    while True:
        comma = text.find(",", start, end)
        operand = _operand(text, start, end if comma < 0 else comma)
        if not operand.dims:
            operand = replace(operand, name=default_name(len(operands)))
        operands.append(operand)
        if comma < 0:
            break
        start = comma + 1
    output = None
    if stop >= 0:
        output = _operand(text, stop + len(_ARROW), len(text), output=True)
        if not any(ELLIPSIS in operand.indices for operand in operands):  # numpy: an ellipsis of no axes
            output = replace(output, dims=tuple(axis for axis in output.axes if axis.name != ELLIPSIS))
    return Spec(tuple(operands), output, text, "numpy")


def complete_numpy(spec: Spec) -> Spec:
    """Write numpy's implicit output, `...` first and then the indices that occur once in alphabetical order.

    Slash notation keeps the order of appearance, so the canonical form has to say it. The layout stays open.
    """
    if spec.output is not None:
        return spec
    axes = spec.output_axes
    ordered = [axis for axis in axes if axis.name == ELLIPSIS]
    ordered += sorted((axis for axis in axes if axis.name != ELLIPSIS), key=lambda axis: axis.name)
    return replace(spec, output=TensorSpec(tuple(ordered), open=True))


def _operand(text: str, start: int, stop: int, *, output: bool = False) -> TensorSpec:
    axes: list[Axis] = []
    position = start
    while position < stop:
        character = text[position]
        width = 1
        if character == ".":
            width = 3
            if text[position:stop][:3] != ELLIPSIS:
                raise bad_character(text, position)
            if any(axis.name == ELLIPSIS for axis in axes):
                raise NotationError("a second `...` in one operand", text=text, span=(position, position + 3))
            axes.append(_axis(ELLIPSIS, position))
        elif character.isalpha():
            axes.append(_axis(character, position))
        elif not character.isspace():
            raise _unexpected(text, position, output=output)
        position += width
    return TensorSpec(tuple(axes), span=(start, stop))


def _axis(name: str, position: int) -> Axis:
    span = (position, position + len(name))
    return Axis(name, span=span, name_span=span)


def _unexpected(text: str, position: int, *, output: bool) -> NotationError:
    character, span = text[position], (position, position + 1)
    if output and character == ",":
        return NotationError("a `,` after `->`", text=text, span=span, expected="one output")
    if output and text[position:].startswith(_ARROW):
        return NotationError("a second `->`", text=text, span=(position, position + 2), expected="one output")
    if character in "-–—−<>" or text[position:].startswith("=>"):
        return bad_arrow(text, position)
    if character.isdigit() or character == "_":
        message = f"character `{character}` in an einsum string"
        hint = "words are axes in slash notation: `--syntax slash`"
        return NotationError(message, text=text, span=span, expected="one letter an axis", hint=hint)
    if character in "/{}?:=()[]*":
        message = f"character `{character}` in an einsum string"
        expected, hint = "letters, `...`, `,` and `->`", "layouts come from rules: `--shard b=data,f=model`"
        return NotationError(message, text=text, span=span, expected=expected, hint=hint)
    return bad_character(text, position)
