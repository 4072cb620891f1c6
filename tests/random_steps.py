"""Random training steps: models, meshes, strategies, schedules, ZeRO, recompute, overlap, offload, precision, hardware.

A seed gives the same requests on every machine. Most can be met; those that cannot are part of what is compared.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

Question = tuple[str, dict[str, Any]]
"""A model, and arguments of `train_step`."""

DENSE = ("llama3-70b", "gpt3-175b", "gemma2-9b")
EXPERTS = ("mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v3")
MODELS = DENSE + EXPERTS

TENSOR = ("megatron", "megatron-sp", "fsdp+tp", "batch-attention", "weight-gathered")
"""Strategies of meshes with an axis `model`."""

CONTEXT = ("context", "ring", "ulysses")
DATA = ("dp", "zero1", "zero2", "fsdp")
SCHEDULES = ("1f1b", "gpipe", "interleaved", "zb-h1", "zb-h2", "zb-v", "dualpipe", "dualpipev")
RECOMPUTE = (None, "none", "selective", "full", "alternate", ("attention", "mlp"))
OVERLAP = (
    None,
    "none",
    "parameters",
    ("parameters", "gradients"),
    "activations",
    ("activations", "gradients", "routed"),
    ("parameters", "gradients", "activations"),
)
HARDWARE = ("h100", "h200", "b200", "tpu-v5p", "mi300x")
"""With kernel figures and without."""

PRECISION = ("bf16", "fp8", "bf16,gradients=bf16", "bf16,communication=bf16", "fp8,dispatch=fp8")
OPTIMIZERS = ("adamw", "adamw", "adamw", "adam8bit", "adafactor", "muon", "sgd")


def random_step(rng: random.Random, models: Sequence[str] = MODELS, hardware: Sequence[str] = HARDWARE) -> Question:
    """A request; degrees are powers of two and, now and then, numbers that little divides by."""
    model = rng.choice(models)
    given: dict[str, Any] = {
        "hardware": rng.choice(hardware),
        "sequence": rng.choice((2048, 2048, 1000) if model == "gpt3-175b" else (2048, 4096, 1000)),
        "microbatch": rng.choice((1, 1, 2, 3, 4)),
        "recompute": rng.choice(RECOMPUTE),
        "overlap": rng.choice(OVERLAP),
        "zero": rng.choice((None, None, 0, 1, 2, 3)),
        "offload_optimizer": rng.random() < 0.2,
        "offload_activations": rng.choice((0, 0, 0, 0.5, 0.37, 1)),
        "precision": rng.choice(PRECISION),
        "optimizer": rng.choice(OPTIMIZERS),
        "loss": rng.choice(("fused", "compiled", "eager")),
        "attention": rng.choice(("causal", "full")),
    }
    mesh = {"pipe": rng.choice((1, 1, 2, 4, 8)), "data": rng.choice((1, 2, 4, 8, 16, 3))}
    mesh |= _inside(rng, model, given)
    stages = mesh["pipe"]
    if stages > 1:
        _pipeline(rng, stages, given)
    ways = mesh["data"] * mesh.get("expert", 1) * (mesh["model"] if given["strategy"] == "weight-gathered" else 1)
    given["batch"] = given["microbatch"] * ways * rng.choice((2, 8, 16, 32) if stages == 1 else (16, 32, 64))
    given["mesh"] = ",".join(f"{name}={size}" for name, size in mesh.items())
    return model, {name: value for name, value in given.items() if value is not None}


def _inside(rng: random.Random, model: str, given: dict[str, Any]) -> dict[str, int]:
    """The mesh axes beside pipeline and data, and a strategy that gives them work."""
    drawn = rng.random()
    if model in EXPERTS and drawn < 0.5:
        given["strategy"] = rng.choice(("megatron", "megatron-sp", "megatron-sp+etp", "fsdp+tp"))
        if rng.random() < 0.3:
            given["capacity"] = 1.25
        return {"expert": rng.choice((1, 2, 4, 8)), "model": rng.choice((1, 2, 4))}
    if drawn < 0.7:
        given["strategy"] = rng.choice(TENSOR)
        return {"model": rng.choice((1, 2, 4, 8, 16, 3))}
    if drawn < 0.85:
        given["strategy"] = rng.choice(CONTEXT)
        return {"context": rng.choice((1, 2, 4))}
    given["strategy"] = rng.choice(DATA)
    return {}


def _pipeline(rng: random.Random, stages: int, given: dict[str, Any]) -> None:
    """A schedule, chunks and, now and then, uneven stages."""
    given["schedule"] = rng.choice(SCHEDULES)
    if given["schedule"] == "interleaved":
        given["chunks"] = rng.choice((2, 4, 5))
    if rng.random() < 0.25:
        given["first_layers"] = rng.choice((1, 3, 6))
    if rng.random() < 0.25:
        given["last_layers"] = rng.choice((1, 2, 5))


def varied(rng: random.Random, question: Question) -> Question:
    """The same request at another point: of other degrees, microbatches and batch, and often of the same structure."""
    model, given = question
    mesh = {name: int(size) for name, _, size in (axis.partition("=") for axis in given["mesh"].split(","))}
    for name, size in mesh.items():
        if size > 1 and name != "pipe":
            mesh[name] = rng.choice((2, 4, 8, 16, 32, 6))
    microbatch = rng.choice((1, 2, 4, 8, 5))
    ways = mesh["data"] * mesh.get("expert", 1) * (mesh["model"] if given["strategy"] == "weight-gathered" else 1)
    batch = microbatch * ways * (rng.choice((16, 32, 48)) if mesh["pipe"] > 1 else rng.randint(1, 40))
    axes = ",".join(f"{name}={size}" for name, size in mesh.items())
    return model, {**given, "mesh": axes, "microbatch": microbatch, "batch": batch}


def random_steps(count: int, seed: int = 0, alike: int = 8, **choices: Sequence[str]) -> list[Question]:
    """So many requests, in families that differ in their numbers.

    Args:
        count: of requests.
        seed: of the generator.
        alike: requests of a family.
        choices: `models` and `hardware` to choose from.
    """
    rng = random.Random(seed)
    found: list[Question] = []
    while len(found) < count:
        first = random_step(rng, **choices)
        found += [first, *(varied(rng, first) for _ in range(alike - 1))]
    return found[:count]
