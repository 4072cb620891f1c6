"""Specs written in numpy's notation with rules, and in the scaling book's: where they can say them."""

from __future__ import annotations

from collections.abc import Sequence

from einscale.errors import NotationError
from einscale.notation.foreign import whole_axes
from einscale.notation.syntax import ELLIPSIS, Axis, Group, Spec, TensorSpec, default_name
from einscale.vocabulary import SUM

_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def write_numpy(spec: Spec) -> tuple[str, str]:
    """(einsum string, rules) that say the spec: numpy's strings have no layouts, and rules divide an index everywhere.

    >>> from einscale.notation import parse_spec
    >>> write_numpy(parse_spec("batch/x d, d f/y -> batch/x f/y"))
    ('bd,df->bf', 'b=x,f=y')

    Raises:
        NotationError: no rules say it; the message says why.
    """
    from einscale.notation import parse_spec

    output = spec.output
    is_open = output is None or (output.open and not any(axis.shards for axis in output.axes))
    settled = (output,) if output is not None and not is_open else ()
    tensors = (*spec.operands, *settled)
    for tensor in tensors:
        _check_numpy(tensor)
    names = [axis.name for axis in spec.output_axes]
    letters = _letters([axis.name for tensor in tensors for axis in tensor.axes])
    words = ["".join(letters[axis.name] for axis in tensor.axes) for tensor in spec.operands]
    arrow = "" if is_open else f"->{''.join(letters[name] for name in names)}"
    text, rules = f"{','.join(words)}{arrow}", _rules(tensors, letters)
    read = parse_spec(text, syntax="numpy", rules=rules or None)
    if [axis.name for axis in read.output_axes] != [letters[name] for name in names]:
        raise NotationError("an einsum string without `->`, whose layout is open, sorts the output's indices")
    again = [tensor.layout for tensor in (*read.operands, *((read.output,) if settled and read.output else ()))]
    if again != [tensor.layout for tensor in tensors]:
        raise NotationError("rules divide an index alike in every tensor, and this spec does not")
    return text, rules


def write_numpy_tensor(tensor: TensorSpec) -> tuple[str, str]:
    """(letters, rules) of one tensor.

    >>> from einscale.notation import parse_tensor
    >>> write_numpy_tensor(parse_tensor("batch/x d"))
    ('bd', 'b=x')

    Raises:
        NotationError: no rules say it; the message says why.
    """
    _check_numpy(tensor)
    letters = _letters(tensor.indices)
    return "".join(letters[name] for name in tensor.indices), _rules([tensor], letters)


def _check_numpy(tensor: TensorSpec) -> None:
    if tensor.partial is not None:
        raise NotationError(f"an einsum string has no word for a sum that is owed, `{tensor.partial}`")
    if any(axis.family for axis in tensor.axes):
        raise NotationError("an einsum string has no names for several axes, `*name`")
    if tensor.open or any(axis.open for axis in tensor.axes):
        raise NotationError("rules cannot leave the layout of some axes open")


def _letters(indices: Sequence[str]) -> dict[str, str]:
    """Index -> its letter: itself, else one of its letters that is free, else any that is."""
    names = list(dict.fromkeys(indices))
    letters = {name: name for name in names if name == ELLIPSIS or (len(name) == 1 and name.isalpha())}
    for name in names:
        if name in letters:
            continue
        wanted = [letter for letter in (*name.lower(), *name.upper(), *_ALPHABET) if letter in _ALPHABET]
        free = [letter for letter in wanted if letter not in letters.values()]
        if not free:
            raise NotationError("an einsum string has a letter an index, and there are more indices than letters")
        letters[name] = free[0]
    return letters


def _rules(tensors: Sequence[TensorSpec], letters: dict[str, str]) -> str:
    """The longest layout that each index has, as rules; in order of appearance."""
    found: dict[str, tuple[str, ...]] = {}
    for tensor in tensors:
        for axis in tensor.axes:
            names = tuple(shard.name for shard in axis.shards)
            if len(names) > len(found.get(axis.name, ())):
                found[axis.name] = names
    return ",".join(f"{letters[name]}={'/'.join(names)}" for name, names in found.items())


def write_book(spec: Spec) -> str:
    """A spec in the scaling book's notation.

    >>> from einscale.notation import parse_spec
    >>> write_book(parse_spec("B/X D, D/Y F/data/model -> B/X F {U:Y}"))
    'A[B_X, D] * B[D_Y, F_{data,model}] -> C[B_X, F] {U_Y}'

    Raises:
        NotationError: the notation cannot say it; the message says why.
    """
    taken = {tensor.name for tensor in (*spec.operands, *((spec.output,) if spec.output else ()))}
    free = iter(name for name in map(default_name, range(200)) if name not in taken)
    operands = " * ".join(write_book_tensor(tensor, tensor.name or next(free)) for tensor in spec.operands)
    output = spec.output
    if output is None:
        return operands
    if output.open or any(axis.open for axis in output.axes):
        raise NotationError("the book's notation has no open layouts; without an output it leaves all of it open")
    return f"{operands} -> {write_book_tensor(output, output.name or next(free))}"


def write_book_tensor(tensor: TensorSpec, name: str) -> str:
    """One tensor in the scaling book's notation.

    >>> from einscale.notation import parse_tensor
    >>> write_book_tensor(parse_tensor("I/x J {U:y,z}"), "A")
    'A[I_x, J] {U_{y,z}}'

    Raises:
        NotationError: the notation cannot say it; the message says why.
    """
    if tensor.open or any(axis.open for axis in tensor.axes):
        raise NotationError("the book's notation has no open layouts")
    words = ", ".join(_book_axis(dim) for dim in tensor.dims)
    owed = ""
    if tensor.partial is not None:
        if tensor.partial.open or tensor.reduction != SUM:
            raise NotationError(f"the book's notation owes sums over named axes only, and this is `{tensor.partial}`")
        owed = f" {{U{_subscript(tensor.unreduced)}}}"
    return f"{name}[{words}]{owed}"


def _book_axis(dim: Axis | Group) -> str:
    if isinstance(dim, Group):
        raise NotationError(f"the book's notation has no dims of several indices, `{dim}`")
    if dim.name == ELLIPSIS or dim.family or not dim.name.isalnum() or dim.fixed:
        raise NotationError(
            f"an index is a word of letters and digits in the book's notation, and `{dim.name}` is none"
        )
    return f"{dim.name}{_subscript([shard.name for shard in dim.shards])}"


def _subscript(names: Sequence[str]) -> str:
    """`_X` or `_{data,model}`."""
    names = whole_axes(names, "the book's notation")
    if not names:
        return ""
    return f"_{names[0]}" if len(names) == 1 and len(names[0]) == 1 else f"_{{{','.join(names)}}}"
