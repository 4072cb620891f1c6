"""`einscale.sweep`: one question asked at every point of a grid -> a row of figures for each, and its full answer."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

from einscale.api.answer import Figure, Shown
from einscale.errors import EinscaleError, UsageError, did_you_mean
from einscale.request.common import SYNONYMS

if TYPE_CHECKING:
    from einscale.api.many import PriceColumns
    from einscale.report.table import Cell, Report

Point: TypeAlias = Mapping[str, Any]
"""Arguments of one question."""

BATCH = 256
"""Training steps that are priced together between two signs of progress."""

COUNTS = ("memory_bytes", "capacity_bytes", "devices")
"""Figures that are whole numbers."""


class SweepResult(Shown, frozen=True, eq=False):
    """One question at every point of a grid, in the grid's order; refused ones are rows with an error.

    Args:
        function: what was asked.
        points: the arguments of each question.
        found: the answers, None where one was refused, or only its figures were wanted yet.
        figures: the main figures of each answer; empty where it was refused.
        errors: why a question was refused; None where it was not.
    """

    function: Callable[..., Any]
    points: tuple[Point, ...]
    found: tuple[Any, ...]
    figures: tuple[Mapping[str, Figure], ...]
    errors: tuple[EinscaleError | None, ...]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, number: int) -> Any:
        """The full answer at one point; of training steps it is worked out now.

        Raises:
            EinscaleError: the question was refused.
            IndexError: there is no such point.
        """
        error = self.errors[number]
        if error is not None:
            raise error
        found = self.found[number]
        return self.function(**self.points[number]) if found is None else found

    @property
    def answers(self) -> tuple[Any, ...]:
        """The full answers, None for those that were refused; those of training steps are worked out now."""
        return tuple(None if error else self[number] for number, error in enumerate(self.errors))

    @property
    def table(self) -> list[dict[str, Cell]]:
        """A flat dict for each point: its arguments, the main figures, and `error`; ready for pandas or polars."""
        from einscale.report.render.rows import answer_rows

        return answer_rows(self.points, self.figures, self.errors)

    def ranked(self, key: str = "seconds") -> list[int]:
        """Numbers of the points by one figure, the best first; what does not fit or was refused is left out.

        Args:
            key: of a figure; of rates and utilisations more is better, of everything else less.

        Raises:
            UsageError: no answer has such a figure.
        """
        from einscale.report.render.rows import more_is_better

        known = dict.fromkeys(name for figures in self.figures for name in figures)
        if key not in known:
            raise UsageError(f"no answer has a figure `{key}`", hint=did_you_mean(key, known, "the figures are"))
        values: dict[int, float] = {}
        for number, figures in enumerate(self.figures):
            value = figures.get(key)
            if isinstance(value, int | float) and figures.get("fits", True):
                values[number] = float(value)
        return sorted(values, key=lambda number: -values[number] if more_is_better(key) else values[number])

    def best(self, key: str = "seconds") -> Any:
        """The full answer that is best by one figure, of those that fit.

        Args:
            key: of a figure, as for `ranked`.

        Raises:
            UsageError: no answer has such a figure, or none fits.
        """
        ranked = self.ranked(key)
        if not ranked:
            raise UsageError("none of the answers fits")
        return self[ranked[0]]

    def to_report(
        self, *, detail: bool = False, explain: bool = False, advice: bool = True, units: str = "iec"
    ) -> Report:
        """The rows as a table, the fastest first; `detail` has all of them."""
        from einscale.report.render.rows import rows_report

        subject, figures = self.headline
        return rows_report(f"{subject}: {figures}", self.points, self.table, detail=detail)

    def to_dict(self) -> dict[str, Any]:
        """The rows as plain values for JSON."""
        from einscale.report.document import head

        return {**head("sweep"), "function": called(self.function), "rows": self.table}

    @property
    def headline(self) -> tuple[str, str]:
        """What was asked, and how often it was answered."""
        from einscale.report.render.rows import varied

        over = ", ".join(name for name, several in varied(self.points).items() if several)
        fits = [figures["fits"] for figures in self.figures if "fits" in figures]
        refused = sum(error is not None for error in self.errors)
        words = [f"{len(self)} points"]
        words += [f"{sum(map(bool, fits))} fit"] if fits else []
        words += [f"{refused} refused"] if refused else []
        return f"{called(self.function)} over {over or 'one point'}", ", ".join(words)


def called(fn: Callable[..., Any]) -> str:
    """The name of a function."""
    return str(getattr(fn, "__name__", type(fn).__name__))


def sweep(
    fn: Callable[..., Any], grid: Mapping[str, Any] | Iterable[Mapping[str, Any]], *, progress: bool = True
) -> SweepResult:
    """Ask one question at every point of a grid.

    Training steps are priced together, as by `price_many`; the full answer of one is worked out when it is taken.

    >>> from einscale import train_step
    >>> meshes = ["data=8", "data=4,model=2"]
    >>> grid = {"model": "llama3-8b", "mesh": meshes, "microbatch": [1, 2], "batch": 64}
    >>> found = sweep(train_step, grid)
    >>> found
    <SweepResult train_step over mesh, microbatch: 4 points, 4 fit>
    >>> found.best("memory_bytes").step.setup.mesh.degrees, found.table[0]["fits"]
    ({'data': 4, 'model': 2}, True)

    Args:
        fn: `train_step`, `infer`, `layer`, `plan`, ...: anything that takes arguments by name and gives an answer.
        grid: argument -> its values, of which every combination is taken; a list, a tuple, a range or a set is several
            values, anything else is one. Or the combinations themselves, each a mapping of arguments.
        progress: how far it is, on stderr, if that is a terminal.

    Raises:
        UsageError: an argument that `fn` does not have, or a grid without points. What `fn` refuses is a row.
    """
    points = tuple(_renamed(point, fn) for point in _points(grid))
    if not points:
        raise UsageError("the grid has no points", expected="a mapping of arguments to their values")
    with _shown(len(points), progress) as advance:
        if _is_train_step(fn):
            return _priced(fn, points, advance)
        return _asked(fn, points, advance)


def _points(grid: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> list[Point]:
    """The combinations of a grid, the last name varying fastest."""
    if not isinstance(grid, Mapping):
        if isinstance(grid, str) or not isinstance(grid, Iterable):
            raise UsageError(f"a grid cannot be {type(grid).__name__}", expected="a mapping, or a list of mappings")
        listed = list(grid)
        for point in listed:
            if not isinstance(point, Mapping):
                raise UsageError(f"a point of a grid cannot be {type(point).__name__}", expected="a mapping")
        return [dict(point) for point in listed]
    values = {name: _values(name, given) for name, given in grid.items()}
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())] if values else []


def _values(name: str, given: object) -> list[object]:
    """The values of one argument."""
    several = given.tolist() if type(given).__module__ == "numpy" and hasattr(given, "tolist") else given
    if not isinstance(several, list | tuple | range | set | frozenset):
        return [several]
    if not several:
        raise UsageError(f"`{name}` has no values")
    return list(several)


def _is_train_step(fn: Callable[..., Any]) -> bool:
    from einscale.api.train import train_step

    return fn is train_step


def _names(fn: Callable[..., Any]) -> tuple[str, ...] | None:
    """Names of the arguments of a function; None if it takes any."""
    parameters = inspect.signature(fn).parameters.values()
    named = tuple(one.name for one in parameters if one.kind is not one.VAR_KEYWORD)
    rest = next((one for one in parameters if one.kind is one.VAR_KEYWORD), None)
    if rest is None:
        return named
    options = re.fullmatch(r"Unpack\[(\w+)\]", str(rest.annotation))
    home = getattr(getattr(fn, "func", fn), "__globals__", {})
    known = getattr(home.get(options[1]), "__annotations__", None) if options else None
    return None if known is None else (*named, *known)


def _renamed(point: Point, fn: Callable[..., Any]) -> Point:
    """Arguments by the names that the function has for them."""
    names = _names(fn)
    if names is None:
        return point
    found: dict[str, Any] = {}
    for given, value in point.items():
        other = SYNONYMS.get(given, given)
        name = other if other in names else given
        if name not in names:
            raise UsageError(
                f"`{called(fn)}` has no argument `{given}`", hint=did_you_mean(str(given), names, "it has")
            )
        if name in found:
            raise UsageError(f"`{name}` is given twice")
        found[name] = value
    return found


def _asked(fn: Callable[..., Any], points: tuple[Point, ...], advance: Callable[[int], None]) -> SweepResult:
    """Every question asked one after the other."""
    found: list[Any] = []
    errors: list[EinscaleError | None] = []
    for point in points:
        try:
            found.append(fn(**point))
            errors.append(None)
        except EinscaleError as error:
            found.append(None)
            errors.append(error)
        advance(1)
    figures = tuple({} if answer is None else getattr(answer, "figures", {}) for answer in found)
    return SweepResult(fn, points, tuple(found), figures, tuple(errors))


def _priced(fn: Callable[..., Any], points: tuple[Point, ...], advance: Callable[[int], None]) -> SweepResult:
    """Training steps priced together, those of one model at a time; their answers are left for later."""
    from einscale.api.many import price_many

    figures: list[Mapping[str, Figure]] = [{}] * len(points)
    errors: list[EinscaleError | None] = [None] * len(points)
    for numbers in _of_one_model(points):
        for first in range(0, len(numbers), BATCH):
            some = numbers[first : first + BATCH]
            model, sizes = points[some[0]].get("model"), points[some[0]].get("sizes")
            requests = [
                {name: value for name, value in points[number].items() if name not in ("model", "sizes")}
                for number in some
            ]
            try:
                prices = price_many(model, requests, sizes=sizes)  # type: ignore[arg-type]
            except EinscaleError as error:
                for number in some:
                    errors[number] = error
            else:
                for row, number in enumerate(some):
                    errors[number] = prices.errors[row]
                    figures[number] = _figures(prices, row)
            advance(len(some))
    return SweepResult(fn, points, (None,) * len(points), tuple(figures), tuple(errors))


def _of_one_model(points: tuple[Point, ...]) -> list[list[int]]:
    """Numbers of the points of one model, by model."""
    groups: dict[str, list[int]] = {}
    for number, point in enumerate(points):
        groups.setdefault(repr((point.get("model"), point.get("sizes"))), []).append(number)
    return list(groups.values())


def _figures(prices: PriceColumns, row: int) -> dict[str, Figure]:
    """What `TrainResult.figures` has of the same step."""
    from einscale.api.many import MAIN

    if prices.errors[row] is not None:
        return {}
    found = {key: prices.columns[name][row].item() for key, name in MAIN.items()}
    return {key: int(value) if key in COUNTS else value for key, value in found.items()}


@contextmanager
def _shown(total: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """Progress on stderr where that is a terminal; gives what to call with the number of points that are done."""
    if not (wanted and total > 1 and sys.stderr is not None and sys.stderr.isatty()):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sweep", total=total)
        yield lambda done: bar.advance(task, done)
