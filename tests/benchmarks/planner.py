"""Times of the einsum planner on the layouts that Transformers use, and on adversarial ones.

    python tests/benchmarks/planner.py [--adversarial N]

Prints, per mesh and objective, the median and the largest time of a fresh plan, of a repeated one, and the ratio of the
median to a fixed loop of plain Python run in between, so that runs on different machines can be compared.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from einscale.hardware import load_system
from einscale.layout import Layout, Tensor, make_layout
from einscale.mesh import Mesh, parse_mesh
from einscale.planner import einsum
from einscale.planner.einsum import PlannedEinsum, Wanted, plan_einsum
from einscale.reshard import answers
from einscale.topology import bind

SIZES = {"b": 64, "s": 4096, "t": 4096, "d": 8192, "f": 28672, "h": 8192, "n": 8, "g": 8, "k": 128, "v": 131072}

MATMULS: dict[str, list[tuple[str, str]]] = {
    "data=64,model=8": [
        ("megatron column", "b/data s d, d f/model -> b/data s f/model"),
        ("megatron row", "b/data s f/model, f/model d -> b/data s d"),
        ("sp column", "b/data s/model d, d f/model -> b/data s f/model"),
        ("sp row", "b/data s f/model, f/model d -> b/data s/model d"),
        ("fsdp", "b/data s d, d/data f -> b/data s f"),
        ("fsdp two axes", "b/data/model s d, d/data/model f -> b/data/model s f"),
        ("fsdp+tp column", "b/data s d, d/data f/model -> b/data s f/model"),
        ("fsdp+tp row", "b/data s f/model, f/model d/data -> b/data s d"),
        ("fsdp+tp+sp column", "b/data s/model d, d/data f/model -> b/data s f/model"),
        ("fsdp+tp+sp row", "b/data s f/model, f/model d/data -> b/data s/model d"),
        ("2d weight-stationary", "b s d/data, d/data f/model -> b s f/model"),
        ("weight gradient", "b/data s d, b/data s f/model -> d/data f/model"),
    ],
    "pod=4,data=16,model=8": [
        ("multi-pod column", "b/pod/data s d, d f/model -> b/pod/data s f/model"),
        ("multi-pod row", "b/pod/data s f/model, f/model d -> b/pod/data s d"),
        ("multi-pod sp column", "b/pod/data s/model d, d f/model -> b/pod/data s f/model"),
        ("multi-pod sp row", "b/pod/data s f/model, f/model d -> b/pod/data s/model d"),
        ("fsdp in pod", "b/pod/data s d, d/data f -> b/pod/data s f"),
        ("fsdp+tp+sp column", "b/pod/data s/model d, d/data f/model -> b/pod/data s f/model"),
        ("fsdp+tp+sp row", "b/pod/data s f/model, f/model d/data -> b/pod/data s/model d"),
        ("fsdp over pods", "b/pod/data s d, d/pod/data f/model -> b/pod/data s f/model"),
        ("2d + batch", "b/pod s d/data, d/data f/model -> b/pod s f/model"),
        ("weight gradient", "b/pod/data s d, b/pod/data s f/model -> d/data f/model"),
        ("attention q", "b/pod/data s/model d, d/data n/model g k -> b/pod/data s n/model g k"),
        ("attention scores", "b/pod/data s n/model g k, b/pod/data t n/model k -> b/pod/data n/model g s t"),
    ],
    "pod=8,data=4,context=4,model=2": [
        ("column", "b/pod/data s/context d, d f/model -> b/pod/data s/context f/model"),
        ("row", "b/pod/data s/context f/model, f/model d -> b/pod/data s/context d"),
        ("sp column", "b/pod/data s/context/model d, d f/model -> b/pod/data s/context f/model"),
        ("sp row", "b/pod/data s/context f/model, f/model d -> b/pod/data s/context/model d"),
        ("fsdp+cp", "b/pod/data s/context d, d/data/context f -> b/pod/data s/context f"),
        ("fsdp+tp+sp column", "b/pod/data s/context/model d, d/data/context f/model -> b/pod/data s/context f/model"),
        ("fsdp+tp+sp row", "b/pod/data s/context f/model, f/model d/data/context -> b/pod/data s/context/model d"),
        ("2d", "b/pod s/context d/data, d/data f/model -> b/pod s/context f/model"),
        ("weight gradient", "b/pod/data s/context d, b/pod/data s/context f/model -> d/data f/model"),
        ("scores, context", "b/data s/context n/model g k, b/data t/context n/model k -> b/data n/model g s/context t"),
    ],
}  # fmt: skip
"""Mesh -> (name, einsum with layouts)."""


def operand(text: str) -> tuple[tuple[str, ...], Layout]:
    """Indices and layout of `b/data s d`."""
    words = [word.split("/") for word in text.split()]
    return tuple(word[0] for word in words), make_layout(word[1:] for word in words)


def plan(spec: str, mesh: Mesh, objective: str) -> PlannedEinsum:
    """Plan a spec in slash notation."""
    left, right = spec.split("->")
    operands = [operand(text) for text in left.split(",")]
    indices, wanted = operand(right)
    tensors = tuple(Tensor("ABC"[k], names) for k, (names, _) in enumerate(operands))
    return plan_einsum(
        tensors,
        tuple(layout for _, layout in operands),
        Tensor("out", indices),
        Wanted(wanted.dims),
        SIZES,
        mesh,
        objective=objective,
        network=bind(mesh, load_system("h100")),
    )


def forget() -> None:
    """Forget every answer, as a fresh process would."""
    einsum.forget()
    answers.forget()


def seconds(spec: str, mesh: Mesh, objective: str) -> tuple[float, PlannedEinsum]:
    """Seconds of one plan, and the plan."""
    start = time.perf_counter()
    result = plan(spec, mesh, objective)
    return time.perf_counter() - start, result


def calibration() -> float:
    """Seconds of a fixed loop of plain Python."""
    start = time.perf_counter()
    total: dict[tuple[int, int], int] = {}
    for k in range(20_000):
        total[k & 15, k & 7] = total.get((k & 7, k & 15), 0) + k
    return time.perf_counter() - start


def adversarial(count: int, seed: int) -> list[tuple[str, Mesh]]:
    """Random layouts of rank 4 and 5 on four axes."""
    generator = random.Random(seed)
    einsums = ["b s n g k, b t n k -> b n g s t", "b s d f, d f k h -> b s k h", "b n s t, b t n g k -> b s n g k"]
    meshes = ["x=8,y=4,z=4,w=2", "x=4,y=4,z=4,w=4", "x=2,y=8,z=2,w=8"]
    result = []
    for _ in range(count):
        mesh = parse_mesh(generator.choice(meshes))
        tensors = []
        for text in generator.choice(einsums).replace("->", ",").split(","):
            words = text.split()
            for axis in generator.sample(mesh.names, len(mesh.names)):
                if generator.random() < 0.8:
                    k = generator.randrange(len(words))
                    if words[k][0] not in "ng" or "/" not in words[k]:
                        words[k] += f"/{axis}"
            tensors.append(" ".join(words))
        result.append((f"{', '.join(tensors[:-1])} -> {tensors[-1]}", mesh))
    return result


def report(name: str, questions: list[tuple[str, Mesh]], objective: str, *, repeats: int = 5) -> None:
    """Print the figures of some questions."""
    fresh: list[float] = []
    repeated: list[float] = []
    loop: list[float] = []
    cut = 0
    slowest = (0.0, "")
    for spec, mesh in questions:
        times = []
        for _ in range(repeats):
            forget()
            took, result = seconds(spec, mesh, objective)
            times.append(took)
            loop.append(calibration())
        fresh.append(min(times))
        slowest = max(slowest, (min(times), spec))
        cut += not result.exact
        repeated.append(seconds(spec, mesh, objective)[0])
    median, base = statistics.median(fresh) * 1e3, statistics.median(loop) * 1e3
    print(
        f"{name:32} {objective:5} fresh median {median:7.2f} ms max {max(fresh) * 1e3:8.2f} ms, repeated "
        f"{statistics.median(repeated) * 1e6:6.1f} us, {median / base:5.2f} loops of {base:.2f} ms"
    )
    print(f"    {cut} of {len(fresh)} cut short; slowest: {slowest[1]}")


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adversarial", type=int, default=20, help="random questions")
    chosen = parser.parse_args()
    for text, matmuls in MATMULS.items():
        mesh = parse_mesh(text)
        for objective in ("bytes", "time"):
            report(text, [(spec, mesh) for _, spec in matmuls], objective)
    for objective in ("bytes", "time"):
        report("adversarial", adversarial(chosen.adversarial, 1), objective, repeats=1)


if __name__ == "__main__":
    main()
