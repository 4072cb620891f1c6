"""Time of measured matrix products and attention kernels: the constants of a chip's description, and a fit of them.

    python tests/benchmarks/op_efficiency.py [--fit]

Reads tests/data/op_efficiency.jsonl (tests/data/steps.md says where it comes from). A third of the shapes, drawn with a
fixed seed and with all their layouts, is held out; errors on it are printed beside those of one flat fraction. `--fit`
finds the five constants again on the rest, by coordinate descent on the mean absolute logarithm of the ratio.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from einscale.efficiency import Product, attention_block, attention_seconds, product_seconds
from einscale.hardware import Chip, load_chip

DATA = Path(__file__).parent.parent / "data" / "op_efficiency.jsonl"

FIELDS = ("matmul", "fill", "edge", "epilogue", "start")
START = (0.6, 48.0, 20.0, 0.45, 3.0)
STEPS = (0.04, 16.0, 16.0, 0.2, 1.0)
LARGEST = (1.0, 1e4, 1e4, 1.0, 100.0)
SMALLEST = (0.05, 1.0, 1.0, 0.01, 0.0)


def chip_of(hardware: str) -> Chip:
    """The chip that was measured; A100-PCIe is A100-SXM with slower memory and 300 W."""
    if hardware == "B200-SXM":
        return load_chip("b200")
    chip = load_chip("a100-80gb")
    assert chip.kernels is not None
    kernels = replace(chip.kernels, matmul=replace(chip.kernels.matmul, value=0.78))
    return replace(chip, memory_bandwidth=replace(chip.memory_bandwidth, value=1935.0), kernels=kernels)


def with_constants(chip: Chip, values: Sequence[float]) -> Chip:
    """The chip with its five constants of products replaced."""
    kernels = chip.kernels
    assert kernels is not None
    for field, value in zip(FIELDS, values, strict=True):
        number = round(value) if field in ("fill", "edge") else value
        kernels = replace(kernels, **{field: replace(getattr(kernels, field), value=number)})
    return replace(chip, kernels=kernels)


def product_of(row: dict[str, Any]) -> tuple[Product, int, int]:
    """Sizes of a row's product, bytes of its result, and all bytes."""
    if row["op"] == "group_matmul":
        rows, columns, depth = row["M"], row["N"], row["K"]
        if row["stage"] == "bwd_grad_act":
            columns, depth = depth, columns
        elif row["stage"] == "bwd_grad_w":
            rows, depth = depth, rows
        shape = Product(row["ng"], rows, columns, depth)
        wide = 8 if row["stage"] == "bwd_grad_w" else 2
    else:
        shape = Product(row["b"], row["m"], row["n"], row["k"])
        wide = (4 if row["out_dtype"] == "fp32" else 2) * (2 if row["accumulate"] == "True" else 1)
    written = shape.batch * shape.rows * shape.columns * wide
    return shape, written, written + 2 * shape.batch * shape.depth * (shape.rows + shape.columns)


def error(row: dict[str, Any], chip: Chip) -> float:
    """Logarithm of the predicted over the measured time of a row."""
    peak = row["peak_tflops"] * 1e12
    if row["op"].startswith("sdp"):
        backward = row["op"] == "sdp_bwd"
        flops = row["batch"] * row["seq_len"] ** 2 * row["head_num"] * (row["qk_head_dim"] + row["v_head_dim"])
        flops *= 5 if backward else 2
        measured = flops / peak / row["efficiency"]
        block = attention_block(
            Product(1, row["seq_len"], row["seq_len"], (row["qk_head_dim"] + row["v_head_dim"]) // 2)
        )
        time = attention_seconds(flops // 2, 0, "bf16", chip, block=block, backward=backward)
        return math.log(time.seconds / measured)
    shape, written, traffic = product_of(row)
    measured = shape.flops / peak / row["efficiency"]
    return math.log(product_seconds(shape, written, traffic, "bf16", chip).seconds / measured)


def split(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows to fit and rows held out, by shape."""
    key = {row["id"]: tuple(sorted((row["m"], row["n"], row["k"]))) for row in rows}
    shapes = sorted(set(key.values()))
    random.Random(0).shuffle(shapes)
    held = set(shapes[::3])
    return [row for row in rows if key[row["id"]] not in held], [row for row in rows if key[row["id"]] in held]


def fitted(rows: Sequence[dict[str, Any]], chip: Chip) -> tuple[float, ...]:
    """Constants with the least mean absolute logarithm of the ratio."""

    def loss(values: Sequence[float]) -> float:
        return statistics.mean(abs(error(row, with_constants(chip, values))) for row in rows)

    values, steps = list(START), list(STEPS)
    best = loss(values)
    while steps[0] > 0.002:
        better = False
        for place in range(len(values)):
            for sign in (1, -1):
                trial = list(values)
                trial[place] = min(max(trial[place] + sign * steps[place], SMALLEST[place]), LARGEST[place])
                found = loss(trial)
                if found < best - 1e-7:
                    values, best, better = trial, found, True
                    break
        if not better:
            steps = [step / 2 for step in steps]
    return tuple(values)


def measured() -> list[dict[str, Any]]:
    """Every measured operation."""
    return [json.loads(text) for text in DATA.read_text("utf-8").splitlines()]


def median_error(errors: Sequence[float]) -> float:
    """Median absolute error, from logarithms of ratios."""
    return statistics.median(abs(math.expm1(one)) for one in errors)


def line(what: str, errors: Sequence[float]) -> str:
    """Median and mean absolute error, and the median with its sign."""
    sizes = [abs(math.expm1(one)) for one in errors]
    middle, mean, signed = statistics.median(sizes), statistics.mean(sizes), math.expm1(statistics.median(errors))
    return f"  {what:34} {len(errors):4} median {middle:6.1%} mean {mean:6.1%} signed {signed:+6.1%}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="find the constants again (about a minute)")
    options = parser.parse_args()
    rows = measured()
    for hardware in ("A100-PCIe-80GB", "B200-SXM"):
        chip = chip_of(hardware)
        mine = [row for row in rows if row["hardware"] == hardware]
        fit, held = split([row for row in mine if row["op"] == "matmul"])
        print(hardware)
        print(line("products, held out", [error(row, chip) for row in held]))
        print(line("products, the others", [error(row, chip) for row in fit]))
        flat = statistics.median(row["efficiency"] for row in fit)
        print(line(f"one flat fraction {flat:.3f}, held out", [math.log(row["efficiency"] / flat) for row in held]))
        for what in ("group_matmul", "sdp_fwd", "sdp_bwd"):
            print(line(what, [error(row, chip) for row in mine if row["op"] == what]))
        if options.fit:
            values = fitted(fit, chip)
            print("  fit:", ", ".join(f"{name} {value:.3g}" for name, value in zip(FIELDS, values, strict=True)))
            print(line("fit, held out", [error(row, with_constants(chip, values)) for row in held]))


if __name__ == "__main__":
    main()
