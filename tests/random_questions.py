"""Random planning questions in slash notation, and ways to write one of them differently."""

from __future__ import annotations

import random
import re
from math import prod

from msgspec import Struct

DEGREES = (1, 2, 2, 2, 3, 4, 4, 6, 8, 12)
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 24, 30, 48, 60, 64, 96, 100, 128, 512, 1000, 4096, 16384)
DTYPES = ("", "", "", "fp32", "fp8", "int8", "int4")
CHIPS = ("h100", "a100", "tpu-v5p", "tpu-v5e")
INDICES = "abcdef"
AXES = ("x", "y", "z")


class Asking(Struct, frozen=True):
    """A question as a caller puts it.

    Args:
        operands: in slash notation.
        output: the same, or `?` behind its axes; None leaves it out.
        mesh: axis -> devices, major to minor.
        sizes: index -> size.
        chip: name of a system.
    """

    operands: tuple[str, ...]
    output: str | None
    mesh: dict[str, int]
    sizes: dict[str, int]
    chip: str

    @property
    def spec(self) -> str:
        """The question in one line."""
        return ", ".join(self.operands) + ("" if self.output is None else f" -> {self.output}")


def random_question(
    rng: random.Random, *, most_operands: int = 2, most_devices: int = 64, most_axes: int = 3, most_indices: int = 4
) -> Asking:
    """A question; uneven sizes, owed sums, diagonals, small types and open results are all likely."""
    while True:
        mesh = {name: rng.choice(DEGREES) for name in AXES[: rng.randint(1, most_axes)]}
        if prod(mesh.values()) <= most_devices:
            break
    letters = INDICES[: rng.randint(1, most_indices)]
    lengths = {letter: rng.choice(LENGTHS) for letter in letters}
    operands: list[str] = []
    used: list[str] = []
    free = set(mesh)  # a product of two sums is no sum of products: no two operands owe over one axis
    for k in range(rng.choice([1] + [2] * 3 + [3, 4][: max(0, most_operands - 2)]) if most_operands > 1 else 1):
        indices = rng.sample(letters, rng.randint(0, len(letters)))
        if indices and rng.random() < 0.08:
            indices.append(rng.choice(indices))
        used = list(dict.fromkeys(used + indices))
        operands.append(_tensor(rng, indices, mesh, lengths, f"T{k}", free))
        free -= set(re.findall(r"\w+", operands[-1].partition("{U:")[2]))
    output: str | None = None
    if rng.random() > 0.07:
        kept = [index for index in used if rng.random() < 0.5]
        rng.shuffle(kept)
        if rng.random() < 0.25:
            output = " ".join([*kept, "?"])
        else:
            output = _tensor(rng, kept, mesh, lengths, "out", set(mesh) if rng.random() < 0.3 else set())
    sizes = {index: lengths[index] for index in used}
    return Asking(tuple(operands), output, mesh, sizes, rng.choice(CHIPS))


def _tensor(
    rng: random.Random, indices: list[str], mesh: dict[str, int], lengths: dict[str, int], name: str, free: set[str]
) -> str:
    """One tensor: each axis of the mesh divides a dim, is owed if it is free for that, or neither."""
    dims: dict[str, list[str]] = {index: [] for index in indices}
    owes = []
    axes = list(mesh)
    rng.shuffle(axes)
    for axis in axes:
        where = rng.random()
        if where < 0.5 and indices:
            index = rng.choice(indices)
            if indices.count(index) == 1 and prod(mesh[a] for a in dims[index]) * mesh[axis] <= lengths[index]:
                dims[index].append(axis)
        elif where < 0.6 and axis in free:
            owes.append(axis)
    words = ["/".join([index, *dims[index]]) for index in indices]
    if owes:
        words.append("{U:" + ",".join(sorted(owes)) + "}")
    return f"{name}: {rng.choice(DTYPES) or 'bf16'}[{' '.join(words)}]"


def _renamed(text: str, names: dict[str, str]) -> str:
    """A tensor with other names for its indices and mesh axes; its own name and type stay."""
    head, bracket, body = text.partition("[") if "[" in text else ("", "", text)
    return head + bracket + re.sub(r"\w+", lambda match: names.get(match[0], match[0]), body)


def relatives(rng: random.Random, asking: Asking) -> dict[str, Asking]:
    """The same question in other words: its cheapest plan costs the same."""
    indices, axes = list(asking.sizes), list(asking.mesh)
    fresh = [f"q{k}" for k in range(len(indices))]
    others = [f"m{k}" for k in range(len(axes))]
    rng.shuffle(fresh)
    rng.shuffle(others)
    index_names = dict(zip(indices, fresh, strict=True))
    axis_names = dict(zip(axes, others, strict=True))

    def put(names: dict[str, str]) -> Asking:
        return Asking(
            tuple(_renamed(text, names) for text in asking.operands),
            None if asking.output is None else _renamed(asking.output, names),
            {names.get(axis, axis): size for axis, size in asking.mesh.items()},
            {names.get(index, index): size for index, size in asking.sizes.items()},
            asking.chip,
        )

    result = {"indices renamed": put(index_names), "axes renamed": put(axis_names)}
    at = rng.randint(0, len(axes))
    longer = [*asking.mesh.items()]
    longer.insert(at, ("one", 1))
    result["an axis of size 1"] = Asking(asking.operands, asking.output, dict(longer), asking.sizes, asking.chip)
    if len(asking.operands) > 1 and asking.output is not None:
        order = list(asking.operands)
        rng.shuffle(order)
        result["operands permuted"] = Asking(tuple(order), asking.output, asking.mesh, asking.sizes, asking.chip)
    return result
