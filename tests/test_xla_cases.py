"""What XLA's partitioner and Shardy chose for the same questions: at no more FLOPs than XLA we move no more bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from einscale.collectives import check_move
from einscale.dtypes import dtype
from einscale.emulate import verify_plan
from einscale.layout import Tensor, make_layout
from einscale.mesh import make_mesh
from einscale.planner.einsum import PlannedEinsum, Wanted, plan_einsum

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "data" / "xla_cases.jsonl").read_text().splitlines()
]


def axes(spec: list[Any]) -> tuple[tuple[str, ...], ...]:
    """A PartitionSpec as mesh axes per dim."""
    return tuple(() if dim is None else (dim,) if isinstance(dim, str) else tuple(dim) for dim in spec)


def plan(case: dict[str, Any]) -> PlannedEinsum:
    """Our plan by bytes, at XLA's FLOPs; one operand has nothing to trade."""
    left, right = case["einsum"].split("->")
    element = dtype(case["dtype"])
    operands = left.split(",")
    return plan_einsum(
        tuple(Tensor("ABC"[k], tuple(indices), element) for k, indices in enumerate(operands)),
        tuple(make_layout(axes(spec)) for spec in case["in_specs"]),
        Tensor("out", tuple(right), element),
        Wanted(axes(case["out_spec"])),
        case["sizes"],
        make_mesh(case["mesh"]),
        max_flops=case["xla"]["flops"] if len(operands) > 1 else None,
    )


@pytest.mark.parametrize("case", [case for case in CASES if len(case["in_specs"]) < 3], ids=lambda case: case["id"])
def test_no_more_bytes_than_xla_shardy_or_the_reference(case: dict[str, Any]) -> None:
    planned = plan(case)
    if len(case["in_specs"]) > 1:
        assert planned.flops <= case["xla"]["flops"]
    assert planned.received <= case["xla"]["bytes"]
    if case["shardy"]["flops"] <= case["xla"]["flops"]:
        assert planned.received <= case["shardy"]["bytes"]
    assert planned.received <= case["reference"]["at_xla_flops_split_axes"]["bytes"]
    mesh = make_mesh(case["mesh"])
    for step in planned.plan.collectives:
        check_move(step, mesh)
        assert step.cause
    verify_plan(planned.plan, case["sizes"], mesh)


@pytest.mark.parametrize("case", [case for case in CASES if len(case["in_specs"]) == 3], ids=lambda case: case["id"])
def test_three_operands_move_no_more_than_xla(case: dict[str, Any]) -> None:
    planned = plan(case)
    assert planned.flops <= case["xla"]["flops"]
    assert planned.received <= case["xla"]["bytes"]
    verify_plan(planned.plan, case["sizes"], make_mesh(case["mesh"]))


def test_there_are_all_cases() -> None:
    assert len(CASES) == 418
    assert sum(len(case["in_specs"]) < 3 for case in CASES) == 378
