"""No schedule's passes get shorter on a slower chip, whatever the host can send: each task alone is no shorter."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

import einscale
from einscale.errors import EinscaleError
from einscale.hardware import System, load_system
from einscale.schedule import schedule_names

SLOWER = ("flops", "memory", "links")


def slower(system: System, what: str, factor: float) -> System:
    """The system with one of its figures lowered."""
    kernels = system.chip.kernels
    assert kernels is not None
    if what == "links":
        levels = []
        for level in system.levels:
            bandwidth, found = level.bandwidth, level.bandwidth.attainable
            attainable = None if found is None else replace(found, value=found.value * factor)
            bandwidth = replace(bandwidth, value=bandwidth.value * factor, attainable=attainable)
            levels.append(replace(level, bandwidth=bandwidth))
        return replace(system, levels=tuple(levels))
    name = {"flops": "matmul", "memory": "moving"}[what]
    share = getattr(kernels, name)
    changed = replace(kernels, **{name: replace(share, value=share.value * factor)})
    return replace(system, chip=replace(system.chip, kernels=changed))


@pytest.mark.parametrize("schedule", [name for name in schedule_names() if name != "gpipe"])
def test_passes_are_never_shorter_on_slower_hardware(schedule: str) -> None:
    rng, system, tried = random.Random(schedule), load_system("h100"), 0
    while tried < 6:
        stages, model = rng.choice([2, 4]), rng.choice(["llama3-8b", "gemma2-9b", "qwen3-0.6b"])
        request = {
            "mesh": f"pipe={stages},data={rng.choice([1, 2])},model={rng.choice([1, 2, 8])}",
            "strategy": "megatron-sp",
            "sequence": rng.choice([256, 512, 2048]),  # short ones are limited by the host
            "schedule": schedule,
            "batch": 2 * 8,
        }
        changed = slower(system, rng.choice(SLOWER), rng.choice([0.999, 0.99, 0.5]))
        try:
            fast = einscale.train_step(model, **request, hardware=system).step  # type: ignore[arg-type]
            slow = einscale.train_step(model, **request, hardware=changed).step  # type: ignore[arg-type]
        except EinscaleError:
            continue
        tried += 1
        assert slow.passes_seconds >= fast.passes_seconds * (1 - 1e-12)
