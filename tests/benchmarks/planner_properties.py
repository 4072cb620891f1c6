"""What must hold of every answer of the einsum planner, tried on random questions for as long as asked.

    python tests/benchmarks/planner_properties.py [--questions N] [--seed S] [--operands 2] [--devices 64]

Every plan is run on the emulated mesh; it receives no less than its lower bounds; no alternative listed beside it is
cheaper; names, the order of operands and axes of one device change nothing. Prints what was counted and the shortest
question of every fault, and ends with status 1 if there is one.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from random_questions import Asking, random_question, relatives

import einscale
from einscale.errors import EinscaleError, HardwareError

TOLERANCE = 1e-9
"""Relative difference of times that is rounding."""

Faults = dict[str, tuple[int, str]]


class Trial:
    """Questions tried so far.

    Args:
        seed: of everything random.
    """

    def __init__(self, seed: int) -> None:
        """Nothing is tried yet."""
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.faults: Faults = {}
        self.slowest: list[tuple[float, str]] = []

    def fault(self, kind: str, asking: Asking, objective: str, found: object) -> None:
        """Remember a fault by its shortest question."""
        count, text = self.faults.get(kind, (0, ""))
        call = (
            f"einscale.plan({asking.spec!r}, mesh={asking.mesh}, sizes={asking.sizes}, objective={objective!r}, "
            f"hardware={asking.chip!r})  # {found}"
        )
        self.faults[kind] = (count + 1, call if not text or len(call) < len(text) else text)

    def ask(self, asking: Asking, objective: str) -> einscale.PlanResult | None:
        """The answer; None where the question is refused, as for a type the chip does not multiply."""
        start = time.process_time()
        try:
            result = einscale.plan(
                asking.spec, mesh=asking.mesh, sizes=asking.sizes, objective=objective, hardware=asking.chip
            )
        except HardwareError:
            self.counts["refused"] += 1
            return None
        self.slowest.append((time.process_time() - start, f"{objective} {asking.spec} {asking.mesh} {asking.sizes}"))
        self.slowest = sorted(self.slowest, reverse=True)[:5]
        return result

    def check(self, asking: Asking, objective: str) -> None:
        """Everything that must hold of one answer."""
        result = self.ask(asking, objective)
        if result is None:
            return
        self.counts["planned"] += 1
        self.counts["exact"] += result.exact
        try:
            result.verify()
        except EinscaleError as error:
            self.fault("does not verify", asking, objective, error)
        for bound in result.lower_bound.all:
            if result.bytes_received < bound.bytes:
                self.fault(f"below its {bound.name} bound", asking, objective, (result.bytes_received, bound.bytes))
        mine = cost(result, objective)
        for alternative in result.alternatives:
            self.counts["alternatives"] += 1
            if objective == "bytes" and alternative.priced.flops > result.flops:
                continue
            other = cost(alternative.priced, objective)
            if other < mine * (1 - TOLERANCE):
                kind = f"an alternative is cheaper by {objective}" + ("" if result.exact else ", not said to be exact")
                self.fault(kind, asking, objective, (other, mine, str(alternative)))
        for change, relative in relatives(self.rng, asking).items():
            again = self.ask(relative, objective)
            self.counts["relatives"] += 1
            if again is None or abs(cost(again, objective) - mine) > TOLERANCE * mine:
                theirs = None if again is None else cost(again, objective)
                self.fault(f"{change}: another cost by {objective}", asking, objective, (theirs, mine, relative.spec))


def cost(priced: object, objective: str) -> float:
    """What a plan costs by an objective."""
    return float(priced.seconds if objective == "time" else priced.bytes_received)  # type: ignore[attr-defined]


def main() -> int:
    """Try as many questions as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--operands", type=int, default=2, help="at most so many")
    parser.add_argument("--devices", type=int, default=64, help="at most so many")
    parser.add_argument("--indices", type=int, default=4, help="at most so many")
    chosen = parser.parse_args()
    trial = Trial(chosen.seed)
    for _ in range(chosen.questions):
        asking = random_question(
            trial.rng, most_operands=chosen.operands, most_devices=chosen.devices, most_indices=chosen.indices
        )
        for objective in ("time", "bytes"):
            trial.check(asking, objective)
    print(dict(trial.counts))
    for took, text in trial.slowest:
        print(f"{took:6.2f} s  {text}")
    for kind, (count, text) in sorted(trial.faults.items()):
        print(f"{count:5} {kind}\n      {text}")
    return 1 if trial.faults else 0


if __name__ == "__main__":
    sys.exit(main())
