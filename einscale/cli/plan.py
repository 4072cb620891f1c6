"""`einscale plan` and `einscale explain`: one sharded einsum, planned, priced, proven, and told why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.cli.options import (
    Dtype,
    Format,
    Hardware,
    Json,
    MaxFlops,
    MeshText,
    Objective,
    Output,
    Shard,
    Sizes,
    Spec,
    Syntax,
    Units,
    Verify,
)

if TYPE_CHECKING:
    from einscale.api import PlanResult


def plan(
    spec: Spec,
    mesh: MeshText,
    size: Sizes = None,
    dtype: Dtype = "bf16",
    objective: Objective = "time",
    max_flops: MaxFlops = None,
    hardware: Hardware = None,
    shard: Shard = None,
    syntax: Syntax = None,
    verify: Verify = False,
    as_json: Json = False,
    output_format: Format = "auto",
    output: Output = None,
    units: Units = "iec",
) -> None:
    """Plan one sharded einsum: its collectives, FLOPs, bytes and time on each device.

    einscale plan 'B/x D, D/x F -> B/x F' --mesh x=4 -s B=64,D=128,F=256
    """
    from einscale.cli.output import choose, emit

    destination = choose(output_format=output_format, json=as_json, output=output, units=units)
    answer = _ask(spec, mesh, size, dtype, objective, max_flops, hardware, shard, syntax)
    proof = answer.verify() if verify else None

    def report() -> object:
        from einscale.report.plan import plan_report

        return plan_report(answer.priced, proof=proof, units=units)

    emit(destination, lambda: answer.to_dict(proof=proof), report)
