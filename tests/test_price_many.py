"""Many steps at once: rows are what `train_step` says, on arrays and on numbers; structures hold where they say so."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from price_rows import compare_rows
from random_steps import MODELS, SCHEDULES, random_steps

import einscale
from einscale.api.many import Reason
from einscale.errors import EinscaleError, UsageError
from einscale.layout import Layout
from einscale.mesh import parse_mesh, split_name
from einscale.models import LayerKind
from einscale.planner.planned import Structure
from einscale.price.spent import TimePart
from einscale.request.training import train_request, train_setup
from einscale.strategy import parse_strategy
from einscale.topology import Network, Networks, bind
from einscale.training import many
from einscale.training.cells import LayerCell, layer_cell
from einscale.training.layers import layer_cost, overlapped, price_layer, trained
from einscale.training.price import shared_tables, stage_tail
from einscale.training.structure import (
    Trained,
    _planned,
    layer_structure,
    trained_program,
    training_sizes,
)
from einscale.training.values import TrainSetup


def setup_of(model: str, **given: Any) -> TrainSetup:
    return train_setup(model, train_request(given))[0]


def block_of(setup: TrainSetup) -> LayerKind:
    """The first kind of layer between embedding and head."""
    return setup.model.layers[1]


@pytest.mark.parametrize("few", [1, many.FEW], ids=["on arrays", "as it comes"])
def test_rows_are_what_train_step_says(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study's check; 400 and 10,000 strategies: `python tests/price_rows.py --strategies 10000`."""
    monkeypatch.setattr(many, "FEW", few)
    found = compare_rows(random_steps(108, seed=few, alike=4))
    assert found.faults == ()
    assert found.worst <= 1e-12
    assert sum(found.priced.values()) >= 75
    assert set(found.priced) == set(MODELS)


def test_every_schedule_alone_and_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "FEW", 1)
    rows = [
        ("gpt2", {"mesh": f"pipe=2,data={data}", "batch": 16 * data * micro, "microbatch": micro, "zero": zero, **more})
        for schedule in SCHEDULES
        for more in ({"schedule": schedule, "sequence": 256, **({"chunks": 3} if schedule == "interleaved" else {})},)
        for data, micro, zero in ((2, 1, 1), (4, 2, 2), (2, 3, 1))
    ]
    found = compare_rows(rows)
    assert found.faults == ()
    assert found.priced == {"gpt2": len(rows)}


H100 = einscale.load_system("h100")
NO_HOST = replace(H100, chip=replace(H100.chip, host_bandwidth=None))
STRATEGIES: list[Any] = [
    "fsdp+tp",
    {"strategy": "megatron", "hardware": "v100", "precision": "fp16"},
    {"strategy": "megatron", "hardware": "b200"},
    {"batch": 7},
    {"strategy": "megatrn"},
    {"precision": "fp8", "hardware": "a100-80gb"},
    einscale.load_strategy("megatron-sp"),
    {"offload_optimizer": True, "hardware": NO_HOST},
    {"microbatch": 0},
    {"strategy": "fsdp"},
]
REFUSED = {
    3: "does not divide",
    4: "did you mean",
    5: "no matrix FLOP/s figure for fp8",
    7: "bandwidth to the host",
    8: "microbatch",
    9: "has no role",
}


@cache
def prices() -> einscale.PriceColumns:
    return einscale.price_many("llama3-8b", STRATEGIES, mesh="data=4,model=2", batch=64, sequence=2048)


@pytest.mark.parametrize("number", range(len(STRATEGIES)))
def test_a_row_is_the_report_or_the_error_of_its_request(number: int) -> None:
    columns = prices()
    error = columns.errors[number]
    if error is None:
        alone = columns.row(number)
        assert alone.seconds == columns["seconds"][number]
        assert alone.memory.needed == columns["memory"][number]
        assert columns["reason"][number] == (Reason.FITS if alone.fits else Reason.OUT_OF_MEMORY)
        assert columns["fits"][number] == alone.fits
        return
    with pytest.raises(type(error)) as caught:
        columns.row(number)
    assert str(caught.value) == str(error)
    assert columns["reason"][number] == Reason.REFUSED
    assert not columns["fits"][number]
    for name in set(columns.columns) - {"fits", "reason"}:
        assert np.isnan(columns[name][number]), name


def test_reasons_of_every_kind_are_shown() -> None:
    errors = {number: str(error) for number, error in enumerate(prices().errors) if error is not None}
    assert set(errors) == set(REFUSED)
    for number, words in REFUSED.items():
        assert words in errors[number]
    assert prices()["reason"].tolist() == [0, 1, 0, 2, 2, 2, 0, 2, 2, 2]


def test_the_table_is_a_flat_dict_of_python_numbers_for_each_row() -> None:
    table = prices().table
    assert len(table) == len(prices()) == len(STRATEGIES)
    assert all(list(row) == list(prices().columns) for row in table)
    assert {type(value) for row in table for value in row.values()} == {float, int, bool}
    assert table[0]["seconds"] == prices().row(0).seconds
    with pytest.raises(UsageError, match="there is no column `second`"):
        prices()["second"]
    assert repr(prices()) == "<PriceColumns llama3-8b: 10 strategies, 3 fit>"


def test_names_of_arguments_are_checked_before_anything_is_priced() -> None:
    with pytest.raises(UsageError, match="no argument `batches`") as caught:
        einscale.price_many("gpt2", ["dp", {"batches": 8}])
    assert "batch" in str(caught.value.hint)
    with pytest.raises(UsageError, match="no argument `precison`"):
        einscale.price_many("gpt2", ["dp"], precison="fp8")  # type: ignore[call-arg]
    assert len(einscale.price_many("gpt2", [])) == 0


def test_what_a_strategy_says_comes_before_what_is_common() -> None:
    found = einscale.price_many("gpt2", [{"batch": 4}, {}, {"sequence": 128}], batch=2, sequence=256)
    assert [request.get("batch") for request in found.requests] == [4, 2, 2]
    assert found["tokens_per_second"][0] * found["seconds"][0] == pytest.approx(4 * 256)
    assert found["tokens_per_second"][2] * found["seconds"][2] == pytest.approx(2 * 128)


# Layer cells on arrays.

KINDS = {
    "dense": ("llama3-8b", "fsdp+tp", "data,model"),
    "heads": ("gpt2", "megatron", "data,model"),
    "sequence": ("gemma2-9b", "ring", "data,context"),
    "experts": ("mixtral-8x7b", "megatron-sp", "data,expert,model"),
}
DEGREES = st.sampled_from((2, 3, 4, 6, 8, 16))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_cells_on_arrays_are_the_cells_of_each_point(kind: str, data: st.DataObject) -> None:
    model, strategy, axes = KINDS[kind]
    hiding = data.draw(st.sampled_from(((), ("parameters", "gradients"), ("activations", "gradients"))))
    hardware = data.draw(st.sampled_from(("h100", "tpu-v5p", "mi300x")))
    drawn = st.tuples(*[DEGREES for _ in axes.split(",")], st.integers(1, 6))
    points = data.draw(st.lists(drawn, min_size=2, max_size=7, unique=True))
    sequence = data.draw(st.sampled_from((512, 1000)))
    found: dict[int, list[tuple[Network, int]]] = {}
    kept: dict[int, tuple[TrainSetup, Trained, Any]] = {}
    for *degrees, microbatch in points:
        mesh = ",".join(f"{name}={degree}" for name, degree in zip(axes.split(","), degrees, strict=True))
        try:
            setup = setup_of(
                model, mesh=mesh, strategy=strategy, hardware=hardware, sequence=sequence, microbatch=microbatch
            )
            layer = block_of(setup)
            asked, batch = trained(layer.program, setup), setup.microbatch * setup.replicas
            structure = layer_structure(asked, setup.timed_by, batch, sequence)
        except EinscaleError:
            continue
        found.setdefault(id(structure), []).append((setup.timed_by, batch))
        kept[id(structure)] = setup, asked, structure
    assume(found)
    for number, here in found.items():
        setup, asked, structure = kept[number]
        sizes = training_sizes(asked, 1, sequence)
        members = tuple(dict.fromkeys(network for network, _ in here))
        networks = Networks(members, np.array([members.index(network) for network, _ in here]))
        batches = np.array([float(batch) for _, batch in here])
        columns = layer_cell(
            overlapped(price_layer("block", structure, {**sizes, "b": batches}, networks, setup), hiding)
        )
        for place, (network, batch) in enumerate(here):
            alone = layer_cell(
                overlapped(price_layer("block", structure, {**sizes, "b": batch}, network, setup), hiding)
            )
            assert_equal_cells(columns.take(np.array([place])), alone)


EXACT = {"flops", "parameters", "gradients", "optimizer", "gathered", "fetched", "saved", "working", "stream", "tied"}


def assert_equal_cells(columns: LayerCell, alone: LayerCell) -> None:
    """One column of cells against the cell of that point: counts are the same, times to roundings."""
    for name in set(LayerCell.__struct_fields__) - {"once"}:
        one, other = np.broadcast_to(getattr(columns, name), 1)[0], getattr(alone, name)
        assert one == other if name in EXACT else abs(one - other) <= 1e-12 * abs(other), name
    several, once = dict(columns.once), dict(alone.once)
    assert set(several) >= set(once)
    for key, seconds in several.items():
        assert abs(np.broadcast_to(seconds, 1)[0] - once.get(key, 0.0)) <= 1e-12 * once.get(key, 0.0), key


# Where structures hold.

PLANNED = (
    ("llama3-8b", "megatron-sp", "data,model"),
    ("llama3-8b", "fsdp+tp", "data,model"),
    ("gpt2", "fsdp", "data"),
    ("gpt2", "zero2", "data"),
    ("gpt2", "ulysses", "data,context"),
    ("gpt2", "batch-attention", "data,model"),
    ("gemma2-9b", "2d", "x,y"),
    ("mixtral-8x7b", "fsdp+tp", "data,expert,model"),
)
ODD = (2, 3, 4, 5, 8, 12, 16, 64)
"""Degrees that heads, kv heads and experts are multiples of, divisors of, or neither."""

SMALL = (1, 2, 3, 4, 6, 8, 12, 16, 48, 64)
"""Sizes that some degrees divide, others do not, and some are larger than."""


def plan_for(case: tuple[str, str, str], degrees: tuple[int, ...], batch: int, sequence: int) -> Any:
    """A layer's question at a point: what is asked, its network and its sizes; None if the strategy cannot be bound."""
    model, strategy, axes = case
    mesh = parse_mesh(",".join(f"{name}={degree}" for name, degree in zip(axes.split(","), degrees, strict=True)))
    setup = setup_of(model, mesh="data=1", strategy="dp", sequence=sequence)
    setup = replace(
        setup, strategy=einscale.load_strategy(strategy), mesh=mesh, network=bind(mesh, setup.network.system)
    )
    layer = block_of(setup)
    asked = trained(layer.program, setup)
    return asked, setup.network, training_sizes(asked, batch, sequence)


def steps_of(structure: Structure) -> tuple[object, ...]:
    return structure.statements, tuple(structure.resting.items()), tuple(structure.optimizer.items())


@settings(max_examples=36, deadline=None)
@given(data=st.data())
def test_a_structure_holds_exactly_where_planning_anew_gives_the_same(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(PLANNED))
    degrees = st.tuples(*[st.sampled_from(ODD) for _ in case[2].split(",")])

    def point() -> Any:
        asked, network, sizes = plan_for(case, data.draw(degrees), 1, 1)
        drawn = st.dictionaries(st.sampled_from(sorted(sizes)), st.sampled_from(SMALL), min_size=2)
        sizes |= {"b": 64, "s": 64, "t": 64} | data.draw(drawn)
        return asked, network, {**sizes, "t": sizes["s"]}

    first = point()
    second = (first[0], first[1], {**first[2], **point()[2]}) if data.draw(st.booleans()) else point()
    try:
        one = _planned(*first)
    except EinscaleError:
        assume(False)
    asked, network, sizes = second
    holds = one.holds(sizes, network.mesh)
    try:
        other = _planned(asked, network, sizes)
    except EinscaleError:
        assert not holds
        return
    same = steps_of(one.passes) == steps_of(other.passes) and steps_of(one.update) == steps_of(other.update)
    assert holds == same
    assert one.holds(first[2], first[1].mesh)


def test_heads_that_no_longer_divide_are_planned_anew() -> None:
    """8 kv heads of 32 heads: 16 ways the group is divided, too, and keys are held twice; 3 ways they are padded."""
    case = ("llama3-8b", "megatron-sp", "data,model")
    asked, network, sizes = plan_for(case, (2, 8), 2, 1024)
    eight = _planned(asked, network, sizes)
    for model, same in ((2, True), (4, True), (8, True), (3, True), (16, False), (32, False)):
        _, other, sizes = plan_for(case, (2, model), 2, 1024)
        assert eight.holds(sizes, other.mesh) == same, model


def test_links_decide_where_the_planner_is_free() -> None:
    """A statement planned freely is planned by time: another system's links may choose otherwise."""
    free = parse_strategy('name = "own"\n[compute]\nb = "data"\nf = "model"\n[policy]\nauto = ["mlp"]\n')
    fast, slow = (
        setup_of("gpt2", mesh="data=2,model=4", strategy=free, hardware=hardware, sequence=128)
        for hardware in ("gb200-nvl72", "a10g")
    )
    layer = block_of(fast)
    asked = trained(layer.program, fast)
    assert asked == trained(layer.program, slow)
    structures = [layer_structure(asked, setup.timed_by, setup.replicas, 128) for setup in (fast, slow)]
    assert structures[0] is not structures[1]
    assert structures[0] is layer_structure(asked, fast.timed_by, fast.replicas, 128)


def test_backward_leaves_the_forward_program_as_it_was() -> None:
    """The table of a program is made once, for all who read it."""
    setup = setup_of("gpt2", sequence=128)
    program = setup.model.layers[1].program
    names = set(program.table)
    trained_program(trained(program, setup))
    assert set(program.table) == names == {value.name for value in program.values}
    with pytest.raises(TypeError):
        program.table["x2"] = program.values[0]  # type: ignore[index]


# Defects that a study of ten million strategies found.


def mesh_axes(cost: Any) -> Iterator[str]:
    """Axes that divide anything of a layer, or that it communicates over."""
    for planned in (cost.planned, cost.updated):
        layouts: list[Layout] = [*planned.resting.values(), *planned.optimizer.values()]
        for row in planned.statements:
            layouts += row.work.layouts
            yield from (axis for step in row.collectives for axis in step.axes)
        yield from (axis for layout in layouts for axis in (*layout.axes, *layout.unreduced))


@pytest.mark.parametrize("model", ["gpt3-175b", "llama3-70b", "mixtral-8x7b"])
@pytest.mark.parametrize("strategy", ["megatron-sp", "fsdp+tp"])
def test_no_work_is_divided_over_the_pipeline(model: str, strategy: str) -> None:
    report = einscale.train_step(model, mesh="pipe=2,data=8,model=4", strategy=strategy, batch=64, sequence=2048).step
    for cost in report.layers:
        names = {split_name(axis)[0] for axis in mesh_axes(cost)}
        assert names == {"data", "model"}, cost.kind


def test_a_shared_table_is_exchanged_at_the_bandwidth_that_links_reach() -> None:
    """The first and the last stage of gemma2 hold the embedding: its gradient crosses once, as activations do."""
    setup = setup_of("gemma2-9b", mesh="pipe=2,data=8", strategy="dp", zero=1, hardware="h100", batch=64)
    cells = {
        layer.kind: layer_cell(layer_cost(layer, setup), frozenset(shared_tables(setup)))
        for layer in many.trained_layers(setup)
    }
    content = (("embedding", 1), ("block", 21))
    hides = {"gradients": False, "parameters": False}

    def shared(network: Network) -> float:
        (part,) = [
            part for part in stage_tail(content, cells, setup, network, hides) if part.what is TimePart.SHARED_TABLE
        ]
        return part.seconds

    report = einscale.train_step(
        "gemma2-9b", mesh="pipe=2,data=8", strategy="dp", zero=1, hardware="h100", batch=64
    ).step
    told = [part.seconds for part in report.spent if part.what is TimePart.SHARED_TABLE]
    assert told == [shared(setup.timed_by)]
    assert shared(setup.timed_by) == pytest.approx(shared(setup.network) / 0.7, rel=1e-4)  # of the datasheet's
    table = cells["head"].tied
    assert table == 4 * 256000 * 3584  # fp32, whole on every device
    assert shared(setup.timed_by) == pytest.approx(table / (0.7 * 50e9), rel=1e-4)


def test_the_moment_is_chosen_after_activations_went_to_the_host() -> None:
    """With all of them away a stage's peak is the layer that works in most memory, wherever activations pile up."""
    asked: dict[str, Any] = {"mesh": "pipe=4", "batch": 64, "sequence": 4096, "recompute": "full", "overhead": 0}
    here, away = (
        einscale.train_step("llama3-8b", offload_activations=share, hardware="h100", **asked).step for share in (0, 1)
    )
    last = away.stages[-1]
    costs = {layer.kind: layer for layer in away.layers}
    at_once = {kind: costs[kind].working_bytes + costs[kind].saved_bytes for kind, _ in last.layers}
    assert last.moment is not None
    assert last.moment.kind == max(at_once, key=lambda kind: at_once[kind]) == "head"
    assert last.memory.saved + last.memory.working == at_once["head"]
    first = away.stages[0]
    assert first.moment is not None
    assert first.memory.saved + first.memory.working == max(
        costs[kind].working_bytes + costs[kind].saved_bytes for kind, _ in first.layers
    )
    assert here.stages[0].memory.saved > first.memory.saved + first.memory.host / 2


def test_a_plan_with_tensor_parallelism_is_not_used_without_it() -> None:
    """A collective over one device is no step of a plan; a layout that names its axis is another layout."""
    wide = setup_of("llama3-8b", mesh="data=4,model=4", strategy="megatron-sp", batch=16, sequence=1024)
    narrow = setup_of("llama3-8b", mesh="data=4,model=1", strategy="megatron-sp", batch=16, sequence=1024)
    costs = {}
    for setup in (wide, narrow, wide):
        for layer in setup.model.layers:
            cost = costs.setdefault((setup.mesh, layer.kind), layer_cost(layer, setup))
            assert layer_cost(layer, setup).planned.structure is cost.planned.structure
    for kind in ("embedding", "block", "head"):
        one, other = costs[wide.mesh, kind], costs[narrow.mesh, kind]
        assert one.planned.structure is not other.planned.structure
        assert "model" in set(mesh_axes(one))
        assert "model" not in set(mesh_axes(other))
    without = setup_of("llama3-8b", mesh="data=4", strategy="megatron-sp", batch=16, sequence=1024)
    for layer in without.model.layers:
        assert layer_cell(layer_cost(layer, without)) == layer_cell(costs[narrow.mesh, layer.kind])


def test_no_strategy_is_an_empty_answer() -> None:
    none = einscale.price_many("gpt2", [])
    assert (len(none), none.table, none.to_dict()["rows"]) == (0, [], [])
    assert none.to_text().startswith("gpt2: 0 strategies, 0 fit")


@pytest.mark.parametrize(
    ("given", "common", "words"),
    [
        ("fsdp", {}, "takes a list of strategies, not one strategy"),
        ({"strategy": "fsdp"}, {}, "takes a list of strategies, not one strategy"),
        (None, {}, "takes a list of strategies, not NoneType"),
        ([], {"nosuch": 1}, "no argument `nosuch`"),
    ],
)
def test_what_is_no_list_of_strategies(given: Any, common: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        einscale.price_many("gpt2", given, **common)


def test_a_row_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no row 7"):
        einscale.price_many("gpt2", ["dp"]).row(7)
