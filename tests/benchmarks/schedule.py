"""Times of the pipeline simulation, alone and on arrays, and of compiling an order.

    python tests/benchmarks/schedule.py [--microbatches N]

Prints, per schedule, nanoseconds per event and problem of the scalar simulation, and what share of it thousands of
problems at once take; microseconds to compile an event, and how many simulations of it that is. The ratios are taken in
one run, so that runs on different machines can be compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from einscale.schedule import order, pipeline_times, schedule_names, simulate
from einscale.schedule.compiled import compile_order, compile_schedule
from einscale.schedule.timeline import evaluate

STAGES = 8
CHUNKS = {"interleaved": 4, "zb-v": 2, "dualpipev": 2}
COUNTS = (500, 2000, 4000)


def seconds(call: Callable[[], Any], turns: int = 3) -> float:
    """CPU seconds of the fastest of a few turns."""
    found = []
    for _ in range(turns):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


def problems(parts: int, count: int) -> tuple[list[Any], list[Any], list[Any], Any]:
    """Seconds of `count` pipelines whose first and last chunk differ from those between, and of their hops."""
    rng = np.random.default_rng(0)
    forward, inputs, weight = rng.uniform(1, 2, (3, count))
    first, last = rng.uniform(0, 0.5, count), rng.uniform(1, 1.5, count)
    forwards, backwards = [forward] * parts, [inputs + weight] * parts
    forwards[0], backwards[0] = forward + first, backwards[0] + first
    forwards[-1], backwards[-1] = forward * last, backwards[1] * last
    return forwards, backwards, [weight] * parts, rng.uniform(0, 0.1, count)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--microbatches", type=int, default=64)
    microbatches = parser.parse_args().microbatches
    ratios = "".join(f"{f'N={count}':>18}" for count in COUNTS)
    print(f"{STAGES} stages, {microbatches} microbatches; ns per event and problem, share of the scalar simulation")
    print(f"{'schedule':<12} {'events':>7} {'compile us':>11} {'scalar ns':>10}{ratios}")
    for name in schedule_names():
        chunks = CHUNKS.get(name, 1)
        numbers = (name, STAGES, microbatches, chunks)
        tasks = order(*numbers)
        compiled = compile_order(tasks)
        events = len(compiled.events)
        compiling = seconds(lambda tasks=tasks: compile_order(tasks)) / events  # type: ignore[misc]
        scalar = seconds(lambda compiled=compiled: evaluate(compiled, 1.0, 2.5, 0.7, send=0.01)) / events  # type: ignore[misc]
        shares = ""
        compile_schedule(*numbers)
        for count in COUNTS:
            *times, send = problems(STAGES * chunks, count)
            each = seconds(lambda: pipeline_times(*numbers, *times, send=send)) / events / count  # noqa: B023
            shares += f"{each * 1e9:>9.2f} = 1/{scalar / each:<5.0f}"
        assert simulate(tasks, 1.0, 2.5, 0.7).makespan == pipeline_times(*numbers, 1.0, 2.5, 0.7).makespan
        print(f"{name:<12} {events:>7} {compiling * 1e6:>11.2f} {scalar * 1e9:>10.0f}{shares}")


if __name__ == "__main__":
    main()
