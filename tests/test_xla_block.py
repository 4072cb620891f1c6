"""One Transformer block in the layouts XLA and Shardy compiled it with: never more memory, FLOPs or bytes than they."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from einscale.collectives import received_total
from einscale.layout import Layout, Tensor, local_bytes, make_layout
from einscale.mesh import make_mesh
from einscale.planner.planned import PlannedProgram
from einscale.planner.program import plan_program
from einscale.program import backward, parse_program
from einscale.steps import LocalEinsum, work_flops
from einscale.strategy import parse_strategy

RUNS = json.loads((Path(__file__).parent / "data" / "xla_block.json").read_text())["runs"]
ANNOTATED = [run for run in RUNS if run["mode"] == "annotated"]

BLOCK = """program block
composite h = (n g)
input x: fp32[b s d]
param n1: fp32[d]
param wq: fp32[d n g k]
param wk: fp32[d n k]
param wv: fp32[d n k]
param wo: fp32[n g k d]
param n2: fp32[d]
param wg: fp32[d f]
param wu: fp32[d f]
param wd: fp32[f d]
y = norm(x, n1, axis=d, variant=rms)
q = einsum("b s d, d n g k -> b s n g k", y, wq)
key = einsum("b s d, d n k -> b s n k", y, wk)
value = einsum("b s d, d n k -> b s n k", y, wv)
scores = einsum("b s n g k, b t n k -> b n g s t", q, key)
masked = mask(scores, causal=1)
probs = softmax(masked, axis=t)
o = einsum("b n g s t, b t n k -> b s n g k", probs, value)
z = einsum("b s n g k, n g k d -> b s d", o, wo)
mid = add(x, z)
m = norm(mid, n2, axis=d, variant=rms)
gate = einsum("b s d, d f -> b s f", m, wg)
up = einsum("b s d, d f -> b s f", m, wu)
hid = swiglu(gate, up)
down = einsum("b s f, f d -> b s d", hid, wd)
out = add(mid, down)
return out
"""


def dims(text: str) -> list[tuple[str, ...]]:
    """Mesh axes per dim of a `P(...)` as printed."""
    inner = re.fullmatch(r"P\((.*)\)", text)[1]
    parts = re.findall(r"\(([^)]*)\)|'(\w+)'|(None)", inner)
    return [tuple(re.findall(r"\w+", group)) if group else ((one,) if one else ()) for group, one, _ in parts]


def strategy_of(run: dict[str, Any]) -> str:
    """The annotations as rules: where inner tensors are divided is where their indices are computed."""
    rules: dict[str, tuple[str, ...]] = {}
    inner = {"act": run["act"], **run["inner"]}
    for name, labels in (("act", ("b", "", "")), ("q", ("b", "", "h", "")), ("hid", ("b", "", "f"))):
        for label, axes in zip(labels, dims(inner[name]) if name in inner else (), strict=False):
            if label and axes:
                rules.setdefault(label, axes)
    lines = [f'{index} = "{"/".join(axes)}"' for index, axes in rules.items()]
    return "\n".join(
        ['name = "annotated"', "[compute]", *lines, "[policy]", "fuse = []", "reshard_after_forward = false"]
    )


def pins_of(run: dict[str, Any]) -> dict[str, Layout]:
    """Layouts of the arguments; a head dim is kv heads by group."""
    pinned = {name: make_layout(dims(text)) for name, text in run["weights"].items()}
    q, o = dims(run["weights"]["wq"]), dims(run["weights"]["wo"])
    pinned["wq"] = make_layout([q[0], q[1], (), q[2]])
    pinned["wo"] = make_layout([o[0], (), o[1], o[2]])
    act = make_layout(dims(run["act"]))
    return {**pinned, **dict.fromkeys(("x", "z", "mid", "down", "out"), act)}


def planned_run(run: dict[str, Any]) -> PlannedProgram:
    program = parse_program(BLOCK)
    given = run["sizes"]
    sizes = {"b": given["b"], "s": given["s"], "t": given["s"], "d": given["d"], "f": given["f"]}
    sizes |= {"n": given["kv"], "g": given["h"] // given["kv"], "k": given["k"]}
    whole = backward(program) if run["what"] == "grad" else program
    return plan_program(whole, parse_strategy(strategy_of(run)), make_mesh(run["mesh"]), sizes, pins_of(run))


def held(plan: PlannedProgram, names: tuple[str, ...]) -> int:
    table = plan.program.table
    return sum(
        local_bytes(Tensor(n, table[n].axes, table[n].dtype), plan.resting[n], plan.sizes, plan.mesh.degrees)
        for n in names
    )


@pytest.mark.parametrize("run", ANNOTATED, ids=lambda run: f"{run['layout']}-{run['what']}-{run['size']}")
def test_the_block_is_no_worse_than_compiled(run: dict[str, Any]) -> None:
    plan = planned_run(run)
    program = plan.program
    arguments = ("x", *(value.name for value in program.parameters))
    assert held(plan, arguments) == run["xla"]["argument_bytes"]
    if run["what"] == "grad":
        # XLA's results beside the gradients: the loss scalar, and a pointer for each of the 11 outputs.
        assert held(plan, program.outputs) == run["xla"]["output_bytes"] - 4 - 8 * 11
    else:
        assert held(plan, program.outputs) == run["xla"]["output_bytes"]
    degrees = plan.mesh.degrees
    flops = sum(
        work_flops(row.work, plan.sizes, degrees) for row in plan.statements if isinstance(row.work, LocalEinsum)
    )
    assert flops <= run["xla"]["dot_flops"]
    total = sum(received_total(step, plan.sizes, plan.mesh) for step in plan.collectives)
    assert total / plan.mesh.devices <= min(run["xla"]["bytes"], run["shardy"]["bytes"]) + 64
