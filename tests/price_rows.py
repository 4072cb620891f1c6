"""Rows of `price_many` against `train_step`, one by one: `python tests/price_rows.py --strategies 10000 --seed 1`.

Both go by the same formulas, on arrays and on Python numbers; sums come in the same order, so that times differ by
roundings alone and bytes not at all.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

TIMES = ("seconds", "passes_seconds", "tail_seconds", "tokens_per_second", "mfu")
RELATIVE = 1e-12
"""Most by which a time of a row may be off, as a share of it."""


class Comparison(Struct, frozen=True):
    """What came of comparing rows.

    Args:
        priced: rows with numbers, by model.
        refused: rows with errors.
        worst: largest relative difference of a time.
        faults: what differs by more than it may, in words.
        scalar_seconds: processor time of the scalar path.
        many_seconds: processor time of the other.
    """

    priced: dict[str, int]
    refused: int
    worst: float
    faults: tuple[str, ...]
    scalar_seconds: float
    many_seconds: float


def compare_rows(questions: Sequence[tuple[str, dict[str, object]]]) -> Comparison:
    """Price questions together, model by model, and each alone."""
    import einscale
    from einscale.errors import EinscaleError

    by_model: dict[str, list[dict[str, object]]] = {}
    for model, given in questions:
        by_model.setdefault(model, []).append(given)
    priced: Counter[str] = Counter()
    refused, worst = 0, 0.0
    faults: list[str] = []
    spent = [0.0, 0.0]
    for name, requests in by_model.items():
        model = einscale.load_model(name)
        started = time.process_time()
        prices = einscale.price_many(model, requests)
        spent[0] += time.process_time() - started
        for number, given in enumerate(requests):
            started = time.process_time()
            try:
                alone: object = einscale.train_step(model, **given)  # type: ignore[arg-type]
            except EinscaleError as error:
                alone = error
            spent[1] += time.process_time() - started
            where = f"{name} {given}"
            if isinstance(alone, EinscaleError):
                refused += 1
                faults += _refusal_faults(where, prices, number, alone)
                continue
            if prices.errors[number] is not None:
                faults.append(f"{where}: refused, {prices.errors[number]}")
                continue
            priced[name] += 1
            off, wrong = _differences(prices, number, alone)
            worst = max(worst, off)
            faults += [f"{where}: {one}" for one in wrong]
    return Comparison(dict(priced), refused, worst, tuple(faults), spent[1], spent[0])


def _refusal_faults(where: str, prices: object, number: int, error: Exception) -> list[str]:
    found = prices.errors[number]  # type: ignore[attr-defined]
    if type(found) is type(error) and str(found) == str(error):
        return []
    return [f"{where}: alone {type(error).__name__} {error}, among many {type(found).__name__} {found}"]


def _differences(prices: object, number: int, alone: object) -> tuple[float, list[str]]:
    """The largest relative difference of times, and what differs more than it may."""
    report = alone.step  # type: ignore[attr-defined]
    wanted = {
        "seconds": report.step_seconds,
        "passes_seconds": report.passes_seconds,
        "tail_seconds": report.step_seconds - report.passes_seconds,
        "tokens_per_second": report.tokens_per_second,
        "mfu": report.mfu,
        "memory": report.fullest.memory.needed,
        "host": max(stage.memory.host for stage in report.stages),
        "capacity": report.capacity,
        "devices": report.setup.mesh.devices,
        "fits": report.fits,
        "reason": 0 if report.fits else 1,
    }
    worst, faults = 0.0, []
    for name, value in wanted.items():
        found = prices[name][number].item()  # type: ignore[index]
        if name in TIMES:
            scale = report.step_seconds if name.endswith("seconds") else value
            off = abs(found - value) / scale
            worst = max(worst, off)
            if not off <= RELATIVE:
                faults.append(f"{name} {found} for {value}")
        elif found != value:
            faults.append(f"{name} {found} for {value}")
    return worst, faults


def main() -> int:
    """Compare as many random strategies as asked for."""
    from random_steps import MODELS, random_steps

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategies", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--alike", type=int, default=8, help="requests that differ in degrees and batch alone")
    asked = parser.parse_args()
    found = compare_rows(random_steps(asked.strategies, asked.seed, asked.alike, models=asked.models))
    print(f"priced {found.priced}, refused {found.refused}; largest relative difference of a time {found.worst:.2g}")
    print(f"many {found.many_seconds:.2f} s, one by one {found.scalar_seconds:.2f} s of processor time")
    for fault in found.faults[:20]:
        print(fault)
    print(f"{len(found.faults)} differences")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    sys.exit(main())
