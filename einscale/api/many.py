"""`einscale.price_many`: one model under many strategies -> columns of numbers, and the full report of any row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from einscale.api.answer import Shown
from einscale.api.train import TrainResult, train_step
from einscale.errors import EinscaleError, UsageError
from einscale.hardware import peak as peak_rate
from einscale.models import Model, model_flops
from einscale.numeric import Array, Number
from einscale.request.common import chosen_model
from einscale.request.training import TrainOptions, train_request, train_setup
from einscale.strategy import Strategy
from einscale.training.many import price_setups
from einscale.training.values import TrainSetup

if TYPE_CHECKING:
    from einscale.report.table import Cell, Report

Given: TypeAlias = str | Strategy | Mapping[str, Any]
"""A strategy by name or as a value, or a mapping of `train_step`'s arguments."""


MAIN = {
    "seconds": "seconds",
    "memory_bytes": "memory",
    "capacity_bytes": "capacity",
    "devices": "devices",
    "tokens_per_second": "tokens_per_second",
    "mfu": "mfu",
    "fits": "fits",
}
"""Figure of `TrainResult.figures` -> the column that has it."""


class Reason(IntEnum):
    """Whether a strategy can be run, and if not, why."""

    FITS = 0
    """It fits in the memory of its devices."""

    OUT_OF_MEMORY = 1
    """It is priced, but its fullest stage needs more memory than a device has."""

    REFUSED = 2
    """The request cannot be met: `PriceColumns.errors` says why, and its numbers are not numbers (nan)."""


class PriceColumns(Shown, frozen=True, eq=False):
    """Prices of many strategies, a numpy array for each quantity, in the order they were given.

    Args:
        columns: name -> array: `seconds` of a step, `passes_seconds` (all forward and backward passes, bubbles
            included), `tail_seconds` (what is done once a step), `memory` (bytes that the fullest stage needs), `host`
            (bytes in the host's memory), `capacity` (bytes of a device), `devices`, `tokens_per_second`, `mfu`, `fits`,
            `reason` (codes of `Reason`).
        errors: per row, why the request cannot be met; None where it can.
        model: whose strategies they are.
        requests: per row, the arguments of `train_step`.
    """

    columns: Mapping[str, Array]
    errors: tuple[EinscaleError | None, ...]
    model: Model
    requests: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, name: str) -> Array:
        if name not in self.columns:
            raise UsageError(f"there is no column `{name}`", hint=f"the columns are: {', '.join(self.columns)}")
        return self.columns[name]

    def row(self, number: int) -> TrainResult:
        """The full report of one strategy; it has the numbers of its row.

        Raises:
            EinscaleError: the request cannot be met, as `errors` says; or there is no such row.
        """
        try:
            request = self.requests[number]
        except IndexError:
            raise UsageError(f"there is no row {number}", expected=f"a number below {len(self)}") from None
        return train_step(self.model, **request)

    @property
    def table(self) -> list[dict[str, Any]]:
        """A flat dict for each row, of Python numbers, for pandas or polars."""
        plain = {name: column.tolist() for name, column in self.columns.items()}
        return [{name: values[number] for name, values in plain.items()} for number in range(len(self))]

    @property
    def seconds(self) -> Number:
        """The column of times of a step."""
        return self.columns["seconds"]

    @property
    def memory(self) -> Number:
        """The column of bytes that the fullest stage needs."""
        return self.columns["memory"]

    def to_report(
        self, *, detail: bool = False, explain: bool = False, advice: bool = True, units: str = "iec"
    ) -> Report:
        """The rows with what differs between their requests, the fastest first; `detail` has all of them."""
        from einscale.report.render.rows import rows_report

        subject, figures = self.headline
        return rows_report(f"{subject}: {figures}", self.requests, self._rows(), detail=detail)

    def to_dict(self) -> dict[str, Any]:
        """The requests and their main figures as plain values for JSON."""
        from einscale.report.document import head

        return {**head("price_many"), "model": self.model.name, "rows": self._rows()}

    def _rows(self) -> list[dict[str, Cell]]:
        """The requests and the main columns; None where there is no number."""
        from einscale.report.render.rows import answer_rows

        rows = zip(self.table, self.errors, strict=True)
        figures = ({key: row[name] for key, name in MAIN.items()} if error is None else {} for row, error in rows)
        return answer_rows(self.requests, figures, self.errors)

    @property
    def headline(self) -> tuple[str, str]:
        """The model, and how many of its strategies fit."""
        fitting = int(self.columns["fits"].sum())
        return self.model.name, f"{len(self)} {'strategy' if len(self) == 1 else 'strategies'}, {fitting} fit"


def price_many(model: str | Model, strategies: Iterable[Given], **common: Unpack[TrainOptions]) -> PriceColumns:
    """Price training steps of one model under many strategies, those of one structure together.

    Each row gets the numbers that `train_step` gives it; a request that cannot be met is a row of its own, with its
    error, and does not stop the others.

    >>> full = {"strategy": "megatron-sp", "microbatch": 2, "recompute": "full"}
    >>> strategies = ["fsdp", "megatron-sp", full, "2d"]
    >>> prices = price_many("llama3-8b", strategies, mesh="data=4,model=2", batch=64, sequence=2048)
    >>> prices["reason"].tolist(), prices["seconds"].tolist()[1] == prices.row(1).seconds
    ([2, 0, 0, 2], True)

    Args:
        model: a preset, the path of a `config.json` or of a program of your own (`.ein`, `.py`), or a `Model`.
        strategies: each a name, a `Strategy`, or a mapping of `train_step`'s arguments.
        common: arguments of `train_step` for all of them; a strategy's own come first.

    Raises:
        EinscaleError: a model that cannot be read, strategies that are not several, or an argument that `train_step`
            does not have.
    """
    loaded = chosen_model(model, common.get("sizes"))
    train_request(common)
    requests = tuple(_request(given, common) for given in _listed(strategies))
    setups: dict[int, TrainSetup] = {}
    errors: list[EinscaleError | None] = [None] * len(requests)
    for number, request in enumerate(requests):
        try:
            setups[number] = train_setup(loaded, train_request(request))[0]
        except EinscaleError as error:
            errors[number] = error
    return PriceColumns(_columns(setups, errors), tuple(errors), loaded, requests)


def _listed(strategies: Iterable[Given]) -> Iterable[Given]:
    """The strategies; one by itself would be read letter by letter.

    Raises:
        UsageError: one strategy, or nothing that can be gone through.
    """
    if isinstance(strategies, (str, Mapping, Strategy)) or not isinstance(strategies, Iterable):
        found = "one strategy" if isinstance(strategies, (str, Mapping, Strategy)) else type(strategies).__name__
        raise UsageError(f"price_many takes a list of strategies, not {found}", expected='["fsdp", {"zero": 1}]')
    return strategies


def _request(given: Given, common: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments of `train_step` for one row; of the right names, whatever their values."""
    own = given if isinstance(given, Mapping) else {"strategy": given}
    request = {name: value for name, value in {**common, **own}.items() if name != "sizes"}
    train_request(request)
    return request


def _columns(setups: Mapping[int, TrainSetup], errors: list[EinscaleError | None]) -> dict[str, Array]:
    """Columns of every row; those that cannot be priced are told to `errors`."""
    import numpy as np

    priced = price_setups(tuple(setups.values()))
    for number, error in zip(setups, priced.errors, strict=True):
        errors[number] = error
    good = np.array([error is None for error in errors], dtype=bool)
    at = np.array(list(setups), dtype=np.int64)

    def spread(values: Number) -> Array:
        column = np.full(len(errors), np.nan)
        column[at] = values
        return np.where(good, column, np.nan)

    def of(what: Callable[[TrainSetup], float]) -> Array:
        """A number of each request that is priced; of the others it may not even be known."""
        known = (what(setup) if good[number] else np.nan for number, setup in setups.items())
        return spread(np.fromiter(known, np.float64, len(setups)))

    seconds, memory, capacity = spread(priced.seconds), spread(priced.needed), of(_capacity)
    fits = good & (memory <= capacity)
    reason = np.where(good, np.where(fits, Reason.FITS, Reason.OUT_OF_MEMORY), Reason.REFUSED)
    return {
        "seconds": seconds,
        "passes_seconds": spread(priced.passes),
        "tail_seconds": spread(priced.tail),
        "memory": memory,
        "host": spread(priced.host),
        "capacity": capacity,
        "devices": of(lambda setup: setup.mesh.devices),
        "tokens_per_second": of(lambda setup: setup.tokens) / seconds,
        "mfu": of(_useful_seconds) / seconds,
        "fits": fits,
        "reason": reason.astype(np.int8),
    }


def _capacity(setup: TrainSetup) -> int:
    return setup.network.system.chip.memory_bytes


def _useful_seconds(setup: TrainSetup) -> float:
    """Seconds in which the mesh would do the model FLOPs of a step at what its datasheet promises."""
    counted = model_flops(setup.model, setup.sequence, convention=setup.attention).total * setup.batch
    rate = peak_rate(setup.network.system.chip, setup.precision.compute).datasheet
    return counted / (setup.mesh.devices * rate)
