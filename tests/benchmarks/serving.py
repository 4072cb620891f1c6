"""What prices of requests cost, and arrays against one point after the other: `python tests/benchmarks/serving.py`.

Times are of the processor (user and system), the least of several runs after one that fills caches.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import einscale
from einscale.serving import Planner, decode_report, sweep
from einscale.serving.places import bends
from einscale.serving.requests import cycle

MODEL, MESH, BATCH = "llama3-70b", "model=8", 32
BATCHES, CONTEXTS = tuple(2**k for k in range(10)), tuple(1024 * k for k in range(1, 11))


def least(action: Callable[[], object], runs: int = 7) -> float:
    """Processor milliseconds of the quickest of several runs."""
    action()
    times = []
    for _ in range(runs):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def main() -> None:
    """Print every figure."""
    answer = einscale.infer(MODEL, mesh=MESH, batch=BATCH)
    one = answer.instance
    print(f"infer {MODEL} warm: {least(lambda: einscale.infer(MODEL, mesh=MESH, batch=BATCH)):.1f} ms")
    document = least(lambda: einscale.infer(MODEL, mesh=MESH, batch=BATCH).to_dict())
    print(f"the same with both largest batches, as a document: {document:.1f} ms")

    def singly() -> None:
        planner = Planner(one)
        for batch in BATCHES:
            for context in CONTEXTS:
                decode_report(one, batch=batch, context=context, planner=planner)

    columns, points = least(lambda: sweep(one, batches=BATCHES, contexts=CONTEXTS)), least(singly, 3)
    count = len(BATCHES) * len(CONTEXTS)
    print(f"sweep of {count} points: {columns:.1f} ms, one by one {points:.1f} ms: {points / columns:.0f} times faster")

    def bent() -> None:
        planner = Planner(one)
        bends(lambda cached: cycle(planner.step(BATCH, 1, cached), 1, 0.0).seconds, 2048, 4047)

    exact = least(lambda: decode_report(one, batch=BATCH, context=2048, output=2000))
    print(f"2000 decode steps: every one {exact:.1f} ms, where they bend {least(bent):.1f} ms")


if __name__ == "__main__":
    main()
