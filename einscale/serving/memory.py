"""What an instance holds while it answers requests, and how many sequences fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from einscale.numeric import Number, as_int, largest
from einscale.planner.planned import PlannedProgram
from einscale.price.footprint import Memory, fullest
from einscale.price.memory import parameters_held, peak
from einscale.serving.cache import device_cache_bytes
from einscale.serving.step import Planner

MOST_SEQUENCES = 2**40
"""Beyond it nobody asks how many sequences fit."""


def serving_memory(planner: Planner, plans: Mapping[str, PlannedProgram], batch: Number, tokens: Number) -> Memory:
    """Bytes on each device of the pipeline stage that needs most.

    Args:
        planner: plans of the instance.
        plans: every kind of layer in the pass at hand, of one microbatch, the head among them.
        batch: sequences whose caches are held, all microbatches together; of many passes an array.
        tokens: tokens of each in the cache; of many passes an array.
    """
    weights = {kind: sum(held.bytes for held in parameters_held(planned)) for kind, planned in plans.items()}
    tied = tied_bytes(plans["head"]) if "head" in plans else 0
    working = {kind: peak(planned).bytes for kind, planned in plans.items()}
    stages = [
        Memory(
            parameters=sum(weights[kind] * count for kind, count in stage)
            + tied * ("head" in dict(stage) and "embedding" not in dict(stage)),
            cache=device_cache_bytes(plans, batch, tokens, planner.instance.page, stage),
            working=largest([0, *(working[kind] for kind, _ in stage if kind in working)]),
            capacity=planner.instance.capacity,
            overhead=planner.instance.overhead,
        )
        for stage in planner.stages
    ]
    return fullest(stages)


def tied_bytes(planned: PlannedProgram) -> Number:
    """Bytes on one device of parameters a program reads that live in another: the embedding's table, in the head."""
    table = planned.program.table
    return sum(planned.held(table[name].tensor, planned.resting[name]) for name in planned.program.tied)


def largest_batch(planner: Planner, tokens: int, *, new: int = 1, microbatches: int = 1) -> int:
    """The most sequences whose caches fit beside the weights, a multiple of the ways the batch is divided; 0 for none.

    Found by bisection: what is needed never falls with the batch.

    Args:
        planner: plans of the instance.
        tokens: tokens of each sequence in the cache.
        new: tokens of each that a step runs on.
        microbatches: parts the batch is divided into.

    >>> from einscale.hardware import load_system
    >>> from einscale.serving.instance import make_instance
    >>> from einscale.mesh import parse_mesh
    >>> from einscale.models import load_model
    >>> instance = make_instance(load_model("llama3-8b"), parse_mesh("model=1"), load_system("h100"))
    >>> largest_batch(Planner(instance), 8192)
    59
    """
    unit = planner.instance.ways * microbatches

    def needed(units: int) -> int:
        batch = units * unit
        plans = planner.all_plans(batch // microbatches, new, max(0, tokens - new), logits=1)
        return as_int(serving_memory(planner, plans, batch, tokens).needed)

    return most(needed, planner.instance.capacity) * unit


def most(needed: Callable[[int], int], capacity: int, limit: int = MOST_SEQUENCES) -> int:
    """The largest whole number up to a limit that needs no more than there is; 0 for none.

    What is needed never falls and is nearly a straight line, on which the next number to try is found; where that does
    not halve what is left, the middle is tried.

    Args:
        needed: what a number needs.
        capacity: what there is.
        limit: numbers that are tried at most.

    >>> most(lambda n: 3 * n + 7, 118), most(lambda n: 3 * n + 7, 118, 20), most(lambda n: n * n, 0)
    (37, 20, 0)
    """
    low, high = 0, limit + 1  # the one fits, the other does not
    known: dict[int, int] = {}
    guess = 1
    while high - low > 1:
        before = high - low
        known[guess] = needed(guess)
        low, high = (guess, high) if known[guess] <= capacity else (low, guess)
        if low in known and high in known:
            straight = low + (capacity - known[low]) * (high - low) // (known[high] - known[low])
            guess = straight if high - low < before // 2 or high - low <= 2 else (low + high) // 2
        elif low in known and low > 1:
            grown = known[low] - known[1]
            guess = low + (capacity - known[low]) * (low - 1) // grown + 1 if grown else low * 2
        else:
            guess = low * 2 if low else (low + high) // 2
        guess = min(max(guess, low + 1), high - 1)
    return low
