"""What the shell offers at TAB: names of models, strategies, hardware, precisions, and the words options take.

A name is offered from the files that carry it, or from a table of names; nothing is parsed and no model is built, since
someone waits at the prompt. Words that live in a module of the library are read from it when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

Complete: TypeAlias = Callable[[str], list[str]]

PACKAGE = Path(__file__).parents[1]


def models(incomplete: str) -> list[str]:
    """Models known by name."""
    return _starting(incomplete, _stems("models", "presets", ".json"))


def strategies(incomplete: str) -> list[str]:
    """Strategies known by name."""
    return _starting(incomplete, _stems("strategy", "named", ".toml"))


def hardware(incomplete: str) -> list[str]:
    """Hardware known by name."""
    return _starting(incomplete, _stems("hardware", "systems", ".toml"))


def precisions(incomplete: str) -> list[str]:
    """Presets of element types; after a comma, what of them may be changed."""
    from einscale.dtypes import BITS
    from einscale.precision import FIELDS, PRESETS

    first, comma, last = incomplete.rpartition(",")
    if not comma:
        return _starting(incomplete, PRESETS)
    key, equals, _ = last.partition("=")
    words = [f"{key}={dtype}" for dtype in BITS] if equals else [f"{field}=" for field in FIELDS]
    return [f"{first},{word}" for word in _starting(last, words)]


def dtypes(incomplete: str) -> list[str]:
    """Element types."""
    from einscale.dtypes import BITS

    return _starting(incomplete, BITS)


def schedules(incomplete: str) -> list[str]:
    """Pipeline schedules."""
    from einscale.schedule.catalogue import schedule_names

    return _starting(incomplete, schedule_names())


def optimizers(incomplete: str) -> list[str]:
    """Optimizers."""
    from einscale.program.optimizers import OPTIMIZERS

    return _starting(incomplete, OPTIMIZERS)


def executions(incomplete: str) -> list[str]:
    """Ways to run kernels."""
    from einscale.efficiency import EXECUTIONS

    return _starting(incomplete, EXECUTIONS)


def losses(incomplete: str) -> list[str]:
    """Ways to run the loss."""
    from einscale.program.loss import LOSSES

    return _starting(incomplete, LOSSES)


def overlaps(incomplete: str) -> list[str]:
    """Kinds of collectives that may be hidden, the last of a list."""
    from einscale.price.overlap import OVERLAPS

    return _listed(incomplete, OVERLAPS)


def dialects(incomplete: str) -> list[str]:
    """Notations of layouts."""
    from einscale.notation.detect import DIALECTS

    return _starting(incomplete, DIALECTS)


def collectives(incomplete: str) -> list[str]:
    """Collectives that have a time."""
    from einscale.topology.formulas import MOVES

    return _starting(incomplete, MOVES)


def documents(incomplete: str) -> list[str]:
    """Documents that have a JSON Schema."""
    return _starting(incomplete, _stems("schemas", "", ".json"))


def words(*known: str, several: bool = False) -> Complete:
    """A completion from words that are written at the option itself.

    >>> words("iec", "si")("s")
    ['si']
    >>> words("none", "full", several=True)("none,f")
    ['none,full']
    """
    return lambda incomplete: _listed(incomplete, known) if several else _starting(incomplete, known)


def _starting(incomplete: str, known: Iterable[str]) -> list[str]:
    """The names that begin as what was typed."""
    return [name for name in known if name.casefold().startswith(incomplete.casefold())]


def _listed(incomplete: str, known: Iterable[str]) -> list[str]:
    """The same for the last word of a list that commas part."""
    first, comma, last = incomplete.rpartition(",")
    return [f"{first}{comma}{word}" for word in _starting(last, known)]


def _stems(package: str, folder: str, ending: str) -> list[str]:
    """Names of the files that a package carries, without importing it."""
    return sorted(path.stem for path in (PACKAGE / package / folder).glob(f"*{ending}"))
