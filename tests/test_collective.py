"""One collective on its own: what is held and received, every algorithm against its formula, the size that tips it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import einscale
from einscale import CollectiveResult, collective
from einscale.collectives import received
from einscale.errors import EinscaleError, HardwareError, MeshError, SizeError, UsageError
from einscale.hardware import load_system
from einscale.topology import MOVES, bind, coefficients

GIB = 2**30
H100 = load_system("h100").ideal()
V5P = load_system("tpu-v5p").ideal()
MI300X = load_system("mi300x").ideal()


def names(result: CollectiveResult) -> list[str]:
    return [way.name for way in result.algorithms]


def test_what_a_device_holds_and_receives() -> None:
    before_after = {
        "all-gather": (GIB // 8, GIB, GIB * 7 // 8),
        "reduce-scatter": (GIB, GIB // 8, GIB * 7 // 8),
        "all-reduce": (GIB, GIB, 2 * GIB * 7 // 8),
        "all-to-all": (GIB // 8, GIB // 8, GIB * 7 // 64),
        "permute": (GIB // 8, GIB // 8, GIB // 8),
    }
    for kind, (held, after, got) in before_after.items():
        alone = collective(kind, GIB, mesh="data=8,model=8", axes="model").alone
        assert (alone.held, alone.after, alone.received) == (held, after, got), kind


@pytest.mark.parametrize("kind", MOVES)
@pytest.mark.parametrize(
    ("mesh", "axes"), [("data=8,model=8", "model"), ("data=8,model=8", "data,model"), ("x=6", "x")]
)
@pytest.mark.parametrize("system", [H100, V5P, MI300X, load_system("h100")], ids=["h100", "v5p", "mi300x", "measured"])
def test_the_first_algorithm_is_what_plans_are_priced_with(kind: str, mesh: str, axes: str, system: Any) -> None:
    answer = collective(kind, 3 * GIB, mesh=mesh, axes=axes, hardware=system)
    alpha, beta = coefficients(kind, tuple(axes.split(",")), bind(einscale.make_mesh(mesh), system))
    assert answer.seconds == alpha + beta * answer.alone.held
    assert (answer.latency_seconds, answer.bandwidth_seconds) == (alpha, beta * answer.alone.held)
    assert [way.priced for way in answer.algorithms] == [True] + [False] * (len(answer.algorithms) - 1)
    assert len(set(names(answer))) == len(answer.algorithms)
    assert answer.seconds == pytest.approx(answer.alone.formula.seconds)


def test_a_plan_charges_the_same() -> None:
    plan = einscale.plan("d/x f -> d f", mesh="x=8", sizes={"d": 8192, "f": 8192})
    (step,) = (step for step in plan.steps if step.received)
    alone = collective("all-gather", 2 * 8192 * 8192, mesh="x=8")
    assert step.seconds == alone.seconds
    assert step.received == alone.bytes_received == received(step.step, plan.sizes, plan.mesh)


V, W, HOP, LAUNCH = 2.0**30, 450e9, 0.6e-6, 6.6e-6
ON_NVLINK = {
    ("all-gather", "ring"): (7, V * 7 / 8),
    ("all-gather", "bidirectional ring"): (4, V * 7 / 8),
    ("all-gather", "tree"): (3, V * 7 / 8),
    ("all-gather", "switch one-shot"): (1, V * 7 / 8),
    ("all-reduce", "ring"): (14, 2 * V * 7 / 8),
    ("all-reduce", "tree"): (6, 2 * V * 7 / 8),
    ("all-reduce", "tree, whole array"): (3, 3 * V),
    ("all-reduce", "switch two-shot"): (2, 2 * V * 7 / 8),
    ("all-reduce", "switch one-shot"): (1, 7 * V),
    ("all-to-all", "pairwise"): (7, V * 7 / 64),
    ("all-to-all", "tree"): (3, 3 * V / 16),
    ("permute", "direct"): (1, V / 8),
}
"""(steps, bytes over a port) of each algorithm for V = 1 GiB on 8 devices."""


@pytest.mark.parametrize(("kind", "name"), ON_NVLINK)
def test_algorithms_through_a_switch(kind: str, name: str) -> None:
    steps, sent = ON_NVLINK[kind, name]
    way = collective(kind, GIB, mesh="x=8", hardware=H100).algorithm(name)
    assert way.alpha == pytest.approx(LAUNCH + steps * HOP)
    assert way.seconds == pytest.approx(LAUNCH + steps * HOP + sent / W)


def test_algorithms_on_a_ring() -> None:
    gather = collective("all-gather", GIB, mesh="x=16,y=20,z=28", axes="x", hardware=V5P)
    assert names(gather) == ["bidirectional ring", "one-way ring"]
    both, one = gather.algorithms
    assert both.seconds == pytest.approx(8e-6 + V * 15 / 16 / 180e9)
    assert one.seconds == pytest.approx(15e-6 + V * 15 / 16 / 90e9)
    assert names(collective("all-gather", GIB, mesh="x=2,y=2,z=3", axes="z", hardware=V5P)) == ["line"]


def test_dims_of_a_torus_one_after_the_other() -> None:
    for kind, whole in (("all-gather", V), ("reduce-scatter", V), ("all-reduce", 2 * V)):
        answer = collective(kind, GIB, mesh="x=4,y=4,z=4", hardware=V5P)
        assert names(answer) == ["torus", "torus, one dim after the other"]
        together, in_turn = answer.algorithms
        assert together.beta * together.held == pytest.approx(whole * 63 / 64 / (6 * 90e9))
        assert in_turn.beta * in_turn.held == pytest.approx(whole * 63 / 64 / (2 * 90e9))  # a third of the links
        assert together.alpha == in_turn.alpha
    answer = collective("all-to-all", GIB, mesh="x=4,y=4,z=4", hardware=V5P)
    assert answer.algorithms[1].beta == pytest.approx(3 * answer.algorithms[0].beta)


def test_a_scatter_is_a_gather_backwards_on_any_torus() -> None:
    for mesh in ("x=8,y=4", "x=4,y=2,z=3", "x=6,y=4"):
        gather, scatter = (
            collective(kind, 24 * GIB, mesh=mesh, hardware=V5P).algorithms[1]
            for kind in ("all-gather", "reduce-scatter")
        )
        assert gather.name == "torus, one dim after the other"
        assert gather.seconds == pytest.approx(scatter.seconds)


def test_over_nodes() -> None:
    answer = collective("all-gather", GIB, mesh="data=4,model=8", hardware=H100)
    assert names(answer) == ["hierarchical", "hierarchical, one level after the other", "ring through all devices"]
    together, in_turn, flat = answer.algorithms
    inside, outside = V * 7 / 8 / 450e9, V * 3 / 4 / (8 * 50e9)
    latency = LAUNCH + 7 * HOP + 3 * 2.7e-6
    assert together.seconds == pytest.approx(latency + max(inside, outside))
    assert in_turn.seconds == pytest.approx(latency + inside + outside)
    assert flat.seconds == pytest.approx(LAUNCH + 28 * HOP + 3 * 2.7e-6 + V * 31 / 32 / min(450e9, 8 * 50e9))
    assert names(collective("all-reduce", GIB, mesh="data=4,model=8", axes="data", hardware=H100))[0] == "tree"
    assert names(collective("permute", GIB, mesh="data=4,model=8", hardware=H100)) == ["direct"]


def test_every_link_of_a_full_graph() -> None:
    answer = collective("all-reduce", GIB, mesh="x=8", hardware=MI300X)
    assert names(answer) == ["direct", "ring", "tree"]
    assert answer.algorithm("ring").beta == pytest.approx(7 * answer.algorithms[0].beta)


def test_a_switch_that_adds(tmp_path: Any) -> None:
    path = tmp_path / "sharp.toml"
    path.write_text('base = "h100"\n[levels.nvlink]\nin_network_reduction = true\n', "utf-8")
    answer = collective("all-reduce", GIB, mesh="x=8", hardware=load_system(path).ideal())
    assert answer.algorithms[0].name == "reduced in the switch"
    assert answer.bandwidth_seconds == pytest.approx(V / 450e9)
    assert "ring" in names(answer)


@given(st.sampled_from(MOVES), st.sampled_from(["data=8,model=8", "x=3", "x=5,y=7"]), st.integers(1, 2**40))
def test_latency_is_half_where_it_says(kind: str, mesh: str, whole: int) -> None:
    answer = collective(kind, whole, mesh=mesh)
    for way in answer.algorithms:
        assert way.at(way.even_held) == pytest.approx(2 * way.alpha)
        assert way.seconds == pytest.approx(way.at(answer.alone.held))
        assert way.at(2 * way.held) > way.seconds > way.alpha > 0
    even = round(answer.bandwidth_bound_bytes)
    assert collective(kind, even, mesh=mesh).algorithms[0].latency_share == pytest.approx(0.5, rel=1e-3)


def test_uneven_shards_are_padded() -> None:
    alone = collective("all-gather", 1000, mesh="x=3").alone
    assert (alone.held, alone.after, alone.received) == (334, 1002, 668)


@pytest.mark.parametrize("kind", MOVES)
def test_a_group_of_one_moves_nothing(kind: str) -> None:
    answer = collective(kind, GIB, mesh="data=8,model=1", axes="model")
    assert (answer.seconds, answer.bytes_received, answer.algorithms) == (0.0, 0, ())
    assert answer.bandwidth_bound_bytes == 0
    assert "nothing moves" in str(answer)
    assert answer.to_dict()["algorithms"] == []


def test_arguments_in_other_forms() -> None:
    usual = collective("all-reduce", GIB, mesh="data=8,model=8", axes="data,model", hardware="h100")
    for kind in ("AllReduce", "all_reduce", "psum", " ALL-REDUCE ", "ar"):
        assert collective(kind, "1GiB", mesh={"data": 8, "model": 8}, axes=["model", "data"]).alone == usual.alone
    assert collective("all-reduce", mesh="data=8,model=8").alone == usual.alone
    part = collective("all-gather", GIB, mesh="x=8", axes="x:(2)4")
    assert (part.devices, part.axes) == (4, ("x:(2)4",))
    assert repr(usual) == "<CollectiveResult all-reduce of 1 GiB over data,model: 5.11 ms, 1.97 GiB received>"
    assert "all-reduce of V = 1 GiB" in usual._repr_html_()
    assert hash(usual) == hash(collective("all-reduce", mesh="data=8,model=8"))
    with pytest.raises(AttributeError):
        usual.alone = usual.alone  # type: ignore[misc]


REFUSED: list[tuple[dict[str, Any], type[EinscaleError], str]] = [
    ({"kind": "all-reduec"}, UsageError, "no collective is called `all-reduec`\n  did you mean `all-reduce`?"),
    ({"kind": "allgathr"}, UsageError, "did you mean `all-gather`?"),
    ({"kind": "scan"}, UsageError, "collectives: all-gather, reduce-scatter, all-reduce, all-to-all, permute"),
    ({"kind": "x" * 10_000}, UsageError, "…`"),
    ({"kind": 3}, UsageError, "the collective must be text, not int"),
    ({"size": 0}, SizeError, "the number of bytes must be at least 1"),
    ({"size": "-1GiB"}, SizeError, "the number of bytes must be at least 1"),
    ({"size": "1e30"}, SizeError, "the number of bytes is absurd: more than 1e+18"),
    ({"size": "9" * 5000}, SizeError, "the number of bytes is absurd: a number of 5000 digits"),
    ({"size": 1.5}, SizeError, "the number of bytes must be a whole number"),
    ({"size": float("nan")}, SizeError, "the number of bytes must be a whole number"),
    ({"size": "1GX"}, SizeError, "the number of bytes is not a number"),
    ({"size": None}, SizeError, "must be a whole number, not NoneType"),
    ({"axes": "modle"}, MeshError, "has no axis `modle`\n  modle\n  ^^^^^\n  did you mean `model`?"),
    ({"axes": "data, modle"}, MeshError, "  data, modle\n        ^^^^^\n"),
    ({"axes": "data,data"}, MeshError, "mesh axis `data` is named twice\n  data,data\n       ^^^^"),
    ({"axes": "data,,model"}, MeshError, "a mesh axis is missing"),
    ({"axes": ""}, MeshError, "a mesh axis is missing"),
    ({"axes": "model:(3)2"}, MeshError, "mesh axis `model` of 8 has no part `model:(3)2`"),
    ({"axes": 3}, UsageError, "axes must be names of mesh axes"),
    ({"axes": [3]}, UsageError, "axes must be names of mesh axes"),
    ({"mesh": "data=8,model=0"}, MeshError, "must have at least 1 device"),
    ({"mesh": 8}, UsageError, "the mesh must be text, a mapping or a Mesh, not int"),
    ({"hardware": "h1000"}, HardwareError, "did you mean `h100`?"),
    ({"hardware": 100}, UsageError, "the hardware must be a name, a path or a System, not int"),
    ({"mesh": "data=8,model=16@nvlink"}, HardwareError, "does not fit on nvlink"),
]


@pytest.mark.parametrize(("change", "error", "words"), REFUSED, ids=[str(change)[:40] for change, _, _ in REFUSED])
def test_what_cannot_be_understood(change: dict[str, Any], error: type[EinscaleError], words: str) -> None:
    arguments: dict[str, Any] = {"kind": "all-reduce", "size": GIB, "mesh": "data=8,model=8", "axes": None, **change}
    with pytest.raises(error) as caught:
        collective(arguments.pop("kind"), arguments.pop("size"), **arguments)
    assert words in str(caught.value)


def test_an_algorithm_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no algorithm here is called `rings`\n  did you mean `ring`"):
        collective("all-reduce", mesh="x=8").algorithm("rings")
