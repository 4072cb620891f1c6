"""Times of planning a whole model, forward and backward, under each named strategy.

    python tests/benchmarks/program.py [--model llama3-70b] [--processes 3] [--repeats 15]

Every strategy runs in processes of its own, each planning every kind of layer three ways: cold (imports done and the
model read, every cache empty), again with them emptied, and repeatedly with them full. "Plan" is the backward pass
derived and both passes planned; "report" also prices every statement and counts the memory, as `einscale layer` does.
Beside milliseconds it prints the ratio to a fixed loop of plain Python run in the same process, so that runs on other
machines can be compared. Targets: 150 ms cold, 20 ms with the plans of einsums and moves kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

DEVICES = {1: (64,), 2: (8, 8), 3: (4, 4, 4)}
"""Sizes of the mesh axes for so many roles."""

COLD, KEPT = 150.0, 20.0
"""Most milliseconds a plan may take: cold, and with cached plans of einsums and moves."""


def calibration() -> float:
    """Seconds of a fixed loop of plain Python."""
    start = time.perf_counter()
    total: dict[tuple[int, int], int] = {}
    for k in range(20_000):
        total[k & 15, k & 7] = total.get((k & 7, k & 15), 0) + k
    return time.perf_counter() - start


def clocked(work: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def forget() -> None:
    """Empty every cache that planning and pricing fill, as a fresh process would have them."""
    import gc
    from functools import _lru_cache_wrapper

    from einscale.planner import einsum
    from einscale.reshard import answers

    einsum.forget()
    answers.forget()
    for thing in gc.get_objects():
        if isinstance(thing, _lru_cache_wrapper) and str(thing.__module__).startswith("einscale"):
            thing.cache_clear()


def measure(model_name: str, name: str, auto: bool, repeats: int) -> dict[str, float]:
    """Milliseconds of one strategy in this process."""
    from msgspec.structs import replace

    from einscale.api.train import TrainRequest, train_setup
    from einscale.checks import batch_ways, program_sizes
    from einscale.hardware import load_system
    from einscale.layers import layer_report
    from einscale.mesh import make_mesh
    from einscale.models import load_model
    from einscale.planner.program import plan_program
    from einscale.program.backward import backward
    from einscale.strategy import load_strategy
    from einscale.topology import bind

    model, strategy, system = load_model(model_name), load_strategy(name), load_system("h100")
    if auto:
        strategy = replace(strategy, policy=replace(strategy.policy, auto=("mlp",)))
    roles = [role for role in strategy.roles if role != "expert"]  # the models here have none
    mesh = make_mesh(dict(zip(roles, DEVICES[len(roles)], strict=True)))
    batch, network, policy = batch_ways(strategy, mesh), bind(mesh, system), strategy.policy

    def plan() -> None:
        for layer in model.layers:
            whole = backward(layer.program, frozenset(policy.recompute), frozenset(policy.fuse))
            plan_program(whole, strategy, mesh, program_sizes(whole, batch, 4096), network=network)

    def report() -> None:
        asked = TrainRequest(mesh=mesh, strategy=strategy, hardware=system, batch=batch, sequence=4096)
        layer_report(train_setup(model, asked)[0])

    cold = clocked(plan)
    cold_report = clocked(report)
    emptied, kept, reports, loops = [], [], [], []
    for _ in range(repeats):
        loops.append(calibration() * 1e3)
        forget()
        emptied.append(clocked(plan))
        kept.append(clocked(plan))
        report()
        reports.append(clocked(report))
    return {
        "cold": cold,
        "emptied": statistics.median(emptied),
        "kept": statistics.median(kept),
        "cold report": cold_report,
        "report": statistics.median(reports),
        "loop": statistics.median(loops),
    }


def in_processes(arguments: argparse.Namespace, name: str, auto: bool) -> dict[str, float]:
    """Medians over fresh processes."""
    words = [sys.executable, __file__, "--model", arguments.model, "--repeats", str(arguments.repeats), "--one", name]
    runs = [
        json.loads(subprocess.run(words + ["--auto"] * auto, check=True, capture_output=True, text=True).stdout)
        for _ in range(arguments.processes)
    ]
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def main() -> None:
    """Run every strategy, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama3-70b")
    parser.add_argument("--processes", type=int, default=3, help="fresh processes a strategy")
    parser.add_argument("--repeats", type=int, default=15, help="repeated plans in each")
    parser.add_argument("--one", help="measure this strategy here and print JSON")
    parser.add_argument("--auto", action="store_true", help="with --one: leave the einsums of the MLP to the planner")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.model, chosen.one, chosen.auto, chosen.repeats)))
        return

    from einscale.strategy import list_strategies

    keys = ("cold", "emptied", "kept", "cold report", "report")
    print(f"{chosen.model}, forward and backward, 64 devices; milliseconds (loops of plain Python)")
    print(f"{'strategy':24}" + "".join(f"{key:>18}" for key in keys))
    worst = dict.fromkeys(keys, 0.0)
    plain = [(strategy.name, False) for strategy in list_strategies()]
    for name, auto in [*plain, ("fsdp+tp", True)]:
        took = in_processes(chosen, name, auto)
        cells = "".join(f"{took[key]:9.2f} ({took[key] / took['loop']:6.2f})" for key in keys)
        print(f"{name + (', MLP auto' if auto else ''):24}{cells}")
        worst = {key: max(worst[key], took[key]) for key in keys}
    for key, target in (("cold", COLD), ("kept", KEPT)):
        print(
            f"slowest {key}: {worst[key]:.1f} ms, target {target:.0f} ms: {'met' if worst[key] <= target else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
