"""What prices cost, as ratios to the scalar path in the same run: `python tests/benchmarks/price.py [--quick]`.

One warm `train_step` is the unit. Times are of the processor (user and system), the least of several runs, since wall
time on a shared machine measures its other users. Exit status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE)]

import numpy as np  # noqa: E402
from random_steps import random_steps  # noqa: E402
from startup import TRIVIAL, cpu_seconds  # noqa: E402

import einscale  # noqa: E402
from einscale.request.training import train_request, train_setup  # noqa: E402
from einscale.topology import Network, Networks  # noqa: E402
from einscale.training import many  # noqa: E402
from einscale.training.cells import layer_cell  # noqa: E402
from einscale.training.layers import overlapped, price_layer, trained  # noqa: E402
from einscale.training.structure import layer_structure, training_sizes  # noqa: E402

STEP: dict[str, Any] = {"mesh": "data=8,model=8", "strategy": "megatron-sp", "batch": 64, "sequence": 4096, "zero": 1}
WARM_BAR, COLD_BAR, CELL_BAR = 12e-3, 2.5, 100e-6


def least(action: Callable[[], object], runs: int) -> float:
    """Processor seconds of the quickest of several runs, after one that fills caches."""
    action()
    times = []
    for _ in range(runs):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return min(times)


def warm_step(runs: int) -> float:
    """One report of llama3-70b, everything that is planned planned before."""
    model = einscale.load_model("llama3-70b")
    return least(lambda: einscale.train_step(model, **STEP), runs)


def cold_ratio(runs: int) -> tuple[float, float]:
    """Seconds of a new process that answers `train --json`, and how many times those of a trivial typer app."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "trivial.py").write_text(TRIVIAL)
        environment["PYTHONPATH"] = os.pathsep.join([folder, str(HERE.parents[1])])
        question = ["train", "llama3-70b", "--mesh", "data=8,model=8", "--strategy", "megatron-sp", "--json"]
        answer = [sys.executable, "-m", "einscale", *question, "--hardware", "b200", "--batch", "64"]
        times = []
        for run in range(runs + 1):
            one, other = (cpu_seconds(c, environment) for c in ([sys.executable, "-m", "trivial"], answer))
            if run:  # the first run compiles
                times.append((one, other))
    trivial, ours = (min(column) for column in zip(*times, strict=True))
    return ours, ours / trivial


def points() -> Iterator[tuple[int, int, int]]:
    """(data, model, microbatch) without end, all of one structure."""
    data = 2
    while True:
        for model in (2, 4, 8):
            for microbatch in range(1, 9):
                yield data, model, microbatch
        data = data + 1 if data < 128 else 2


def cell_seconds(count: int, runs: int) -> tuple[float, float]:
    """Seconds a point of one block's cell, on arrays of so many points; and on numbers."""
    given = {**STEP, "hardware": "h100"}
    setup = train_setup("llama3-70b", train_request(given))[0]
    layer = setup.model.layers[1]
    asked = trained(layer.program, setup)
    structure = layer_structure(asked, setup.timed_by, 8, setup.sequence)
    places, batches = [], []
    networks: dict[tuple[int, int], Network] = {}
    for _, (data, model, microbatch) in zip(range(count), points(), strict=False):
        if (data, model) not in networks:
            mesh = f"data={data},model={model}"
            other = train_setup("llama3-70b", train_request({**given, "mesh": mesh, "batch": data}))[0]
            networks[data, model] = other.timed_by
        places.append(list(networks).index((data, model)))
        batches.append(float(data * microbatch))
    sizes = training_sizes(asked, 1, setup.sequence)
    for network, batch in zip((list(networks.values())[place] for place in places), batches, strict=True):
        assert structure.holds({**sizes, "b": int(batch)}, network.mesh)

    def at(network: Any, batch: Any) -> object:
        cost = price_layer(layer.kind, structure, {**sizes, "b": batch}, network, setup)
        return layer_cell(overlapped(cost, setup.strategy.policy.overlap))

    several = Networks(tuple(networks.values()), np.array(places))
    return least(lambda: at(several, np.array(batches)), runs) / count, least(lambda: at(setup.timed_by, 8), runs)


def many_seconds(count: int, alike: int, runs: int) -> tuple[float, float]:
    """Seconds a strategy of `price_many` on random strategies, and of `train_step` on those of them that are priced."""
    model = einscale.load_model("llama3-70b")
    requests = [given for _, given in random_steps(count, 1, alike, models=("llama3-70b",))]
    prices = einscale.price_many(model, requests)
    together = least(lambda: einscale.price_many(model, requests), runs) / count
    good = [given for given, error in zip(requests, prices.errors, strict=True) if error is None][:200]
    alone = least(lambda: [einscale.train_step(model, **given) for given in good], 1) / len(good)
    return together, alone


def crossover(runs: int) -> int:
    """The least number of points from which a cell on arrays takes less than one after the other."""
    for count in range(1, 41):
        each, alone = cell_seconds(count, runs)
        if each < alone:
            return count
    return 41


def main() -> int:
    """Measure, print one line per case, and say whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs, and no 10,000 points")
    quick = parser.parse_args().quick
    runs = 5 if quick else 15
    met = True
    step = warm_step(runs)
    met &= step <= WARM_BAR
    print(f"warm train_step of llama3-70b   {1e3 * step:8.2f} ms; bar {1e3 * WARM_BAR:.0f} ms")
    cold, ratio = cold_ratio(runs)
    met &= ratio <= COLD_BAR
    print(f"cold train --json               {1e3 * cold:8.2f} ms, {ratio:.2f} times a trivial app; bar {COLD_BAR}")
    for count in (1, 10, 100, 1_000, *(() if quick else (10_000,))):
        each, alone = cell_seconds(count, max(2, runs // 3))
        met &= count != 1_000 or each <= CELL_BAR
        bar = f"; bar {1e6 * CELL_BAR:.0f} us" if count == 1_000 else ""
        print(f"cell on arrays of {count:6,} points {1e6 * each:8.2f} us a point, {each / alone:.4f} of alone{bar}")
    print(f"arrays are faster from {crossover(max(2, runs // 3))} points on; train.many.FEW is {many.FEW}")
    for count, alike in ((400, 8), (400, 50), (2_000, 8), (2_000, 50)):
        together, alone = many_seconds(count, alike, 2)
        print(
            f"price_many of {count:5,}, {alike:2} alike   {1e3 * together:8.3f} ms a strategy,"
            f" {together / alone:.3f} of train_step's {1e3 * alone:.2f} ms"
        )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
