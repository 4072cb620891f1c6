"""What the sides of a comparison do, in words."""

from __future__ import annotations

from einscale.comparison.values import About, Divided, Doing, MemoryTerm, Moves, Rests, Runs, Term
from einscale.price.footprint import MemoryPart

FEW_NAMES = 2
"""Names of tensors or results that a term gives where not all are asked for."""


def doing_words(doing: Doing) -> str:
    """What one side does in a term; "" for nothing.

    >>> doing_words((Moves("all-gather", ("model",), 2), Moves("all-reduce", ("data",))))
    '2 x all-gather over model, all-reduce over data'
    >>> from einscale.comparison.values import WorkDivision
    >>> doing_words(WorkDivision(8, (("b", ("data",)),), repeated=2, padding=0.25))
    '8 ways (b/data), repeated 2 times, 25 % padding'
    """
    if doing is None:
        return ""
    if isinstance(doing, Runs):
        return f"{doing.layers} layers x {doing.microbatches} microbatches"
    if isinstance(doing, tuple):
        return ", ".join(_moves(moves) for moves in doing)
    words = [f"{doing.ways} ways ({_slashed(doing.divided)})" if doing.ways > 1 else "whole"]
    if doing.repeated > 1:
        words.append(f"repeated {doing.repeated} times")
    if doing.partial_sums > 1:
        words.append(f"in {doing.partial_sums} partial sums")
    if doing.padding > 0:
        words.append(f"{100 * doing.padding:.2g} % padding")
    return ", ".join(words)


def _moves(moves: Moves) -> str:
    name = f"{moves.kind} over {','.join(moves.axes)}"
    return f"{moves.count} x {name}" if moves.count > 1 else name


def holding_words(holding: Rests | None) -> str:
    """How one side holds the tensors of a memory term; "" for not at all.

    >>> holding_words(Rests((("b", ("data",)),), 3)), holding_words(Rests(()))
    ('b/data, 3 times', 'whole')
    """
    if holding is None:
        return ""
    times = f", {holding.copies} times" if holding.copies > 1 else ""
    return f"{_slashed(holding.divided) or 'whole'}{times}"


def _slashed(divided: Divided) -> str:
    """Divided indices in slash notation."""
    return " ".join("/".join((index, *axes)) for index, axes in divided)


def term_name(term: Term, *, detail: bool = True) -> str:
    """What a term is about; of many names the first two, where not all are asked for."""
    names = ", ".join(term.names)
    if not detail and len(term.names) > FEW_NAMES + 1:
        names = f"{', '.join(term.names[:FEW_NAMES])} and {len(term.names) - FEW_NAMES} more"
    where = f"{term.layer} {term.phase}".strip()
    if term.about is About.PART:
        return " ".join((term.what, *(["of"] if where else []), where)).strip()
    what = f"{term.what}s" if term.about is About.COMPUTE and len(term.names) > 1 else term.what
    return f"{where}: {what} {names}" if where else f"{what}: {names}"


def memory_name(term: MemoryTerm, *, detail: bool) -> str:
    """What a term of memory is about; its tensors where all are asked for."""
    if term.part is None:
        return "written out to the host"
    if term.part is MemoryPart.OVERHEAD:
        return "runtime"
    return f"{term.part} of {term.layer}" + (f": {', '.join(term.names)}" if detail else "")
