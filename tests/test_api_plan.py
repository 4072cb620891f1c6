"""`einscale.plan`: the result's numbers, its memory by hand, its alternatives, what it refuses."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from msgspec.structs import replace

import einscale
from einscale.api.plan import PlanResult
from einscale.collectives import ALL_GATHER, ALL_REDUCE, REDUCE_SCATTER
from einscale.errors import (
    EinscaleError,
    HardwareError,
    MeshError,
    NotationError,
    PlanError,
    SizeError,
    UsageError,
    VerificationError,
)
from einscale.hardware import load_system
from einscale.layout import Tensor, make_layout
from einscale.price.plan import price_plan
from einscale.steps import Plan

SIZES = {"B": 4096, "D": 1024, "F": 1024}


def ask(
    spec: str = "B/x D, D/x F -> B/x F", mesh: str = "x=4", sizes: dict[str, int] | None = None, **more
) -> PlanResult:  # type: ignore[no-untyped-def]
    return einscale.plan(spec, mesh=mesh, sizes=SIZES if sizes is None else sizes, **more)


def kinds(result: PlanResult) -> list[str]:
    return [step.step.kind if step.collective else "einsum" for step in result.steps]


def test_the_numbers_of_a_gathered_weight() -> None:
    result = ask()
    weight = 1024 * 1024 * 2
    assert kinds(result) == [ALL_GATHER, "einsum"]
    assert result.flops == 2 * 1024 * 1024 * 1024
    assert result.bytes_received == weight * 3 // 4
    assert result.seconds == pytest.approx(sum(step.seconds for step in result.steps))
    assert result.lower_bound.placement.bytes == result.bytes_received
    assert result.lower_bound.placement.ratio == 1.0
    assert result.lower_bound.layout_free is not None
    assert result.lower_bound.layout_free.bytes <= result.bytes_received
    assert result.spec == "B/x D, D/x F -> B/x F"
    assert result.exact


def test_memory_is_operands_result_and_temporaries_at_the_peak() -> None:
    memory = ask().priced.memory
    x, weight, out = 1024 * 1024 * 2, 1024 * 1024 * 2, 1024 * 1024 * 2
    assert memory.operands == x + weight // 4
    assert (memory.step, memory.result, memory.temporaries) == (2, out, weight)
    assert memory.peak == ask().memory_bytes == x + weight // 4 + weight + out


def test_a_temporary_is_dropped_after_its_last_reader() -> None:
    result = ask("B D/x, D/x F -> B F", sizes={"B": 1024, "D": 4096, "F": 1024}, objective="bytes")
    assert kinds(result)[0] == "einsum"
    memory = result.priced.memory
    partial = whole = 1024 * 1024 * 2
    assert memory.operands == 2 * 1024 * 1024 * 2
    assert memory.peak == memory.operands + partial + whole


def test_a_plan_without_steps_holds_its_operands() -> None:
    tensor, layout = Tensor("A", ("B", "D")), make_layout([("x",), ()])
    plan = Plan((tensor,), (layout,), (), tensor, layout)
    priced = price_plan(plan, {"B": 8, "D": 4}, ask().priced.network)
    assert (priced.memory.peak, priced.memory.operands, priced.memory.step) == (2 * 4 * 2, 2 * 4 * 2, 0)
    assert (priced.bytes_received, priced.flops, priced.seconds, priced.redundancy) == (0, 0, 0, 1.0)


@pytest.mark.parametrize(
    ("output", "kind"), [("B S D", ALL_REDUCE), ("B S/t D", REDUCE_SCATTER), ("B S D {U:t}", "einsum")]
)
def test_the_three_ends_of_a_sum(output: str, kind: str) -> None:
    sizes = {"B": 8, "S": 512, "F": 65536, "D": 512}
    result = ask(f"B S F/t, F/t D -> {output}", "t=8", sizes, objective="bytes")
    assert kinds(result)[-1] == kind
    assert result.spec.endswith(f"-> {output}")


def test_redundant_flops_are_a_choice() -> None:
    free = ask("B D, D F -> B F", sizes=SIZES)
    assert free.bytes_received == 0
    assert free.priced.redundancy == 4.0
    least = ask("B D, D F -> B F", sizes=SIZES, objective="bytes")
    assert least.priced.redundancy == 1.0
    capped = ask("B D, D F -> B F", sizes=SIZES, objective="bytes", max_flops=free.flops)
    assert capped.bytes_received == 0


@pytest.mark.parametrize("objective", ["time", "bytes"])
@pytest.mark.parametrize(
    ("spec", "mesh"),
    [
        ("B/x D, D/x F -> B/x F", "x=4"),
        ("B/x D/y, D/y F -> B/x F", "x=2,y=4"),
        ("B D/x, D/x F -> B/x F", "x=8"),
        ("B/x D, D F/x -> B F/x", "x=8"),
    ],
)
def test_alternatives_differ_and_are_not_better(spec: str, mesh: str, objective: str) -> None:
    result = ask(spec, mesh, objective=objective)
    alternatives = result.alternatives
    assert alternatives
    assert len({alternative.placement for alternative in alternatives}) == len(alternatives)
    for alternative in alternatives:
        if objective == "time":
            assert alternative.priced.seconds >= result.seconds * (1 - 1e-3)
        elif alternative.priced.flops <= result.flops:
            assert alternative.priced.bytes_received >= result.bytes_received
        assert alternative.priced.plan.output_layout == result.plan.output_layout
        assert einscale_verify(alternative.priced) > 0


def einscale_verify(priced) -> int:  # type: ignore[no-untyped-def]
    from einscale.emulate import verify_plan

    return verify_plan(priced.plan, priced.sizes, priced.mesh).elements


def test_doing_what_avoids_a_move_avoids_it() -> None:
    result = ask("B/d S F/t, F/t D -> B/d S D", "d=2,t=4", {"B": 8, "S": 512, "F": 8192, "D": 512})
    assert {avoidance.tensor for avoidance in result.avoidances} == {
        step.step.tensor.name for step in result.steps if step.collective and step.received
    }
    for avoidance in result.avoidances:
        assert avoidance.priced.bytes_received < result.bytes_received
        again = ask(avoidance.spec, "d=2,t=4", {"B": 8, "S": 512, "F": 8192, "D": 512})
        assert again.spec == avoidance.spec
        assert again.bytes_received == avoidance.priced.bytes_received


def test_verify_returns_what_it_ran_and_raises_what_it_finds() -> None:
    result = ask()
    assert result.verify(seed=3).seed == 3
    step = result.plan.steps[0]
    wrong = replace(result.plan, steps=(replace(step, kind=REDUCE_SCATTER), *result.plan.steps[1:]))
    broken = replace(result, priced=replace(result.priced, plan=wrong))
    with pytest.raises(VerificationError, match="step 1 of 2"):
        broken.verify()


def test_mesh_forms() -> None:
    by_text = ask()
    assert ask(mesh={"x": 4}).to_dict() == by_text.to_dict()  # type: ignore[arg-type]
    assert ask(mesh=einscale.make_mesh("x=4")).to_dict() == by_text.to_dict()  # type: ignore[arg-type]


def test_hardware_forms(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('base = "h100"\n')
    named = ask(hardware="H100")
    assert ask().seconds == named.seconds == ask(hardware=load_system("h100")).seconds == ask(hardware=file).seconds


def test_rules_divide_axes_without_a_slash() -> None:
    assert ask("B D, D F -> B F", "x=2,y=2", rules={"B": "x", "F": ("y",)}).spec == "B/x D, D F/y -> B/x F/y"
    assert ask("B D, D F -> B F", "x=2,y=2", rules="B=x,F=y").spec == "B/x D, D F/y -> B/x F/y"


def test_names_sizes_and_dtypes_in_the_spec() -> None:
    result = einscale.plan("x: int8[B=64/x D=32], w: bf16[D F=16] -> y: fp32[B/x F]", mesh="x=4")
    assert [str(tensor) for tensor in (*result.plan.inputs, result.plan.output)] == [
        "x: int8[B D]",
        "w: bf16[D F]",
        "y: fp32[B F]",
    ]
    assert result.sizes == {"B": 64, "D": 32, "F": 16}
    assert einscale.plan("x: int8[B=8], w: fp32[B] -> B", mesh="x=4").plan.output.dtype == "fp32"


def test_unnamed_operands_never_have_the_name_of_an_index() -> None:
    assert [tensor.name for tensor in ask().plan.inputs] == ["lhs", "rhs"]
    assert [tensor.name for tensor in ask("b d, d f -> b f", sizes={"b": 4, "d": 4, "f": 4}).plan.inputs] == ["A", "B"]
    three = ask("A B, B C, C D -> A D", sizes=dict.fromkeys("ABCD", 8))
    assert [tensor.name for tensor in three.plan.inputs] == ["in1", "in2", "in3"]
    assert ask("x: B D, D F", sizes=SIZES).plan.inputs[0].name == "x"


def test_three_operands_are_planned_and_verified() -> None:
    result = ask("a/x b, b c/y, c/y d -> a/x d", "x=2,y=2", dict.fromkeys("abcd", 64))
    assert "einsum" in kinds(result)
    assert result.verify().total_received > 0
    assert result.alternatives == ()


def test_text_forms() -> None:
    result = ask()
    assert repr(result) == (
        "<PlanResult 'B/x D, D/x F -> B/x F': "
        f"{result.priced.seconds * 1e6:.3g} µs, 1.5 MiB received, 2.15 GFLOP in 2 steps>"
    )
    assert str(result).startswith("B/x D, D/x F -> B/x F\nmesh x=4, 4 devices of h100")
    assert "how to avoid what moves" in result.explain()
    assert max(map(len, result.explain(width=80).splitlines())) <= 80
    assert "B/x D, D/x F -&gt; B/x F</div>" in result._repr_html_()


def test_documents_are_plain_json_and_results_pickle() -> None:
    result = ask()
    document = replace(result, proof=result.verify()).to_dict(explain=True)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert pickle.loads(pickle.dumps(result)).to_dict() == result.to_dict()


def test_a_ratio_that_is_no_number_is_null() -> None:
    for spec in ("B/x D -> B/x D", "B/x D, D F -> B/x F"):
        document = ask(spec, sizes={name: SIZES[name] for name in "BDF" if name in spec}).to_dict()
        assert document["lower_bound"]["placement"] == {"bytes": 0, "ratio": 1.0}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sizes": {"B": 8, "D": 8}}, SizeError, "the size of `F` is missing"),
        ({"sizes": {**SIZES, "G": 8}}, SizeError, "index `G`, which the spec does not have"),
        ({"sizes": {**SIZES, "B": "8"}}, SizeError, "the size of `B` must be a whole number, not str"),
        ({"sizes": {**SIZES, "B": 8.5}}, SizeError, "the size of `B` must be a whole number"),
        ({"sizes": {**SIZES, "B": float("nan")}}, SizeError, "the size of `B` must be a whole number"),
        ({"sizes": {**SIZES, "B": 2}}, PlanError, "index `B` has 2 elements and is divided over 4 devices"),
        ({"sizes": [("B", 8)]}, UsageError, "sizes must map an index to its size, not list"),
        ({"mesh": {"x": 4.0}}, MeshError, "mesh axis `x` needs a whole number of devices"),
        ({"mesh": None}, UsageError, "the mesh must be text, a mapping or a Mesh, not NoneType"),
        ({"mesh": ["x"]}, UsageError, "the mesh must be text, a mapping or a Mesh, not list"),
        ({"mesh": "y=4"}, NotationError, "unknown mesh axis `x`"),
        ({"spec": 7}, UsageError, "the spec must be text, not int"),
        ({"dtype": "bf17"}, NotationError, "did you mean `bf16`?"),
        ({"dtype": 16}, UsageError, "the dtype must be text, not int"),
        ({"hardware": "h1000"}, HardwareError, "did you mean `h100`?"),
        ({"hardware": 100}, UsageError, "the hardware must be a name, a path or a System, not int"),
        ({"objective": "speed"}, UsageError, "unknown objective `speed`"),
        ({"max_flops": -1}, SizeError, "max_flops must not be negative"),
        ({"max_flops": "much"}, SizeError, "max_flops must be a whole number of FLOPs"),
        ({"max_flops": 1, "objective": "bytes"}, PlanError, "no placement keeps within 1 FLOPs per device"),
        ({"spec": "B/x D, D/x F -> B/x:(1)3 F"}, EinscaleError, "mesh axis `x` of 4 devices"),
    ],
)
def test_what_is_refused(arguments: dict[str, object], error: type[EinscaleError], message: str) -> None:
    with pytest.raises(error) as raised:
        ask(**arguments)  # type: ignore[arg-type]
    assert message in str(raised.value)
    assert isinstance(raised.value, ValueError)


def test_every_public_name_is_there_and_the_functions_hide_no_module() -> None:
    import einscale.api.layer
    from einscale.steps import Plan

    for name in einscale.__all__:
        assert getattr(einscale, name) is not None
        assert name in dir(einscale)
    assert callable(einscale.plan)
    assert callable(einscale.layer)
    assert Plan.__module__ == "einscale.steps"
    with pytest.raises(AttributeError, match="has no attribute 'plna'"):
        einscale.plna  # type: ignore[attr-defined]  # noqa: B018


def test_the_version_is_that_of_the_project() -> None:
    import tomllib

    project = Path(__file__).parents[1] / "pyproject.toml"
    if not project.exists():
        pytest.skip("installed without its project file")
    assert tomllib.loads(project.read_text())["project"]["version"] == einscale.__version__
