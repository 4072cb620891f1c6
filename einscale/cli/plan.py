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
    from einscale.api.plan import PlanResult


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
    result = _ask(spec, mesh, size, dtype, objective, max_flops, hardware, shard, syntax)
    proof = result.verify() if verify else None
    emit(
        destination,
        lambda: result.to_dict(proof=proof),
        lambda: result.report(proof=proof, units=units),
    )


def explain(
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
    """Plan one sharded einsum and say why: causes, formulas filled in, what avoids each move, alternatives.

    einscale explain 'B/x D, D/x F -> B/x F' --mesh x=4 -s B=64,D=128,F=256
    """
    from einscale.cli.output import choose, emit

    destination = choose(output_format=output_format, json=as_json, output=output, units=units)
    result = _ask(spec, mesh, size, dtype, objective, max_flops, hardware, shard, syntax)
    proof = result.verify() if verify else None
    emit(
        destination,
        lambda: result.to_dict(explain=True, proof=proof),
        lambda: result.report(explain=True, proof=proof, units=units),
    )


def _ask(
    spec: str,
    mesh: str,
    size: list[str] | None,
    dtype: str,
    objective: str,
    max_flops: str | None,
    hardware: str | None,
    shard: list[str] | None,
    syntax: str | None,
) -> PlanResult:
    """The answer to the question that the flags ask."""
    from einscale.api.plan import plan as ask
    from einscale.cli.arguments import read_flops, read_sizes, read_spec

    return ask(
        read_spec(spec),
        mesh=mesh,
        sizes=read_sizes(size or ()),
        dtype=dtype,
        hardware=hardware,
        objective=objective,
        max_flops=None if max_flops is None else read_flops(max_flops),
        syntax=syntax,
        rules=",".join(shard) if shard else None,
    )
