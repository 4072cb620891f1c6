"""Strategies: presets, files, roles on a mesh, placement of iteration spaces and stored layouts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einscale.errors import StrategyError
from einscale.layout import check_layout, shards
from einscale.mesh import parse_mesh
from einscale.strategy import (
    Rule,
    bind_strategy,
    list_strategies,
    load_strategy,
    parse_strategy,
    place,
    stored_layout,
)

SIZES = {"b": 16, "s": 128, "d": 64, "n": 8, "g": 8, "k": 16, "f": 256, "v": 1000}
HEADS = {"h": ("n", "g")}


def test_every_preset_says_what_it_is_and_where_it_comes_from() -> None:
    for strategy in list_strategies():
        assert strategy.summary.endswith(".")
        assert "arXiv" in strategy.source
        assert strategy.expect
        assert load_strategy(strategy.name) == strategy


def test_roles_are_bound_to_the_axes_of_the_mesh_by_alias() -> None:
    bound = bind_strategy(load_strategy("megatron-sp"), parse_mesh("dp=2,tp=4"))
    everywhere = {rule.index: rule.axes for rule in bound.compute if not rule.scope}
    assert everywhere == {"b": ("dp",), "h": ("tp",), "f": ("tp",), "v": ("tp",)}
    assert [str(rule) for rule in bound.compute if rule.scope] == ["experts:e -> tp", "routing:s -> tp"]
    assert bound.store_rules("residual") == (Rule("s", ("tp",)),)


def test_an_axis_of_one_device_divides_nothing() -> None:
    bound = bind_strategy(load_strategy("megatron"), parse_mesh("data=1,model=4"))
    assert "b" not in {rule.index for rule in bound.compute}


def test_gradients_and_optimizer_rest_where_the_parameters_do() -> None:
    fsdp = load_strategy("fsdp")
    assert fsdp.store_rules("gradients") == fsdp.store_rules("optimizer") == fsdp.store_rules("parameters")
    own = parse_strategy('[compute]\nb="data"\n[store.optimizer]\nd="data"\n')
    assert own.store_rules("gradients") == ()
    assert own.store_rules("optimizer") == (Rule("d", ("data",)),)


def test_heads_are_divided_over_kv_heads_first_then_over_the_group() -> None:
    rules = (Rule("h", ("model",)),)
    mesh = parse_mesh("model=16")
    queries = place(("b", "s", "n", "g", "k"), rules, SIZES, mesh, HEADS)
    keys = place(("b", "s", "n", "k"), rules, SIZES, mesh, HEADS)
    assert (queries["n"], queries["g"]) == (("model:(1)8",), ("model:(8)2",))
    assert keys["n"] == ("model:(1)8",)


def test_one_mesh_axis_is_used_once_and_the_first_rule_wins() -> None:
    rules = (Rule("f", ("model",)), Rule("d", ("model",)))
    placed = place(("b", "s", "d", "f"), rules, SIZES, parse_mesh("model=4"), {})
    assert placed["f"] == ("model",)
    assert placed["d"] == ()
    assert place(("b", "s", "d"), rules, SIZES, parse_mesh("model=4"), {})["d"] == ("model",)


def test_a_rule_whose_axes_are_partly_used_applies_the_rest() -> None:
    rules = (Rule("e", ("expert",)), Rule("b", ("data", "expert")))
    mesh = parse_mesh("data=2,expert=4")
    placed = place(("e", "b"), rules, {**SIZES, "e": 8}, mesh, {})
    assert placed == {"e": ("expert",), "b": ("data",)}


def test_a_scoped_rule_holds_in_its_section_alone() -> None:
    strategy = parse_strategy('[compute]\n"attention:h" = "model"\n')
    mesh = parse_mesh("model=4")
    inside = place(("n", "g"), strategy.compute, SIZES, mesh, HEADS, ("attention",))
    outside = place(("n", "g"), strategy.compute, SIZES, mesh, HEADS, ("mlp",))
    assert (inside["n"], outside["n"]) == (("model",), ())


def test_store_rules_go_behind_the_compute_layout() -> None:
    mesh = parse_mesh("data=4,model=2")
    rules = (Rule("d", ("data",)), Rule("*", ("data",)))
    assert stored_layout(("d", "f"), {"f": ("model",)}, rules, SIZES, mesh).dims == (("data",), ("model",))
    assert stored_layout(("n", "g", "k"), {"n": ("model",)}, rules, SIZES, mesh).dims == (("model",), (), ("data",))


def test_a_store_rule_never_makes_more_parts_than_elements() -> None:
    mesh = parse_mesh("data=128")
    assert stored_layout(("d",), {}, (Rule("d", ("data",)),), SIZES, mesh).dims == ((),)


@given(
    heads=st.sampled_from([1, 2, 3, 4, 6, 8, 12]),
    group=st.sampled_from([1, 2, 3, 4, 8]),
    devices=st.sampled_from([1, 2, 3, 4, 6, 8, 16]),
)
def test_dividing_heads_uses_the_whole_axis_or_says_why_not(heads: int, group: int, devices: int) -> None:
    mesh = parse_mesh(f"model={devices}")
    sizes = {"n": heads, "g": group}
    rules = (Rule("h", ("model",)),)
    if devices > heads * group:
        with pytest.raises(StrategyError, match="cannot be divided"):
            place(("n", "g"), rules, sizes, mesh, HEADS)
        return
    placed = place(("n", "g"), rules, sizes, mesh, HEADS)
    assert shards((*placed["n"], *placed["g"]), mesh.degrees) == devices
    check_layout(stored_layout(("n", "g"), placed, (), sizes, mesh), mesh)


MALFORMED = {
    "not TOML at all": ("= 3", "own.toml is not TOML: Invalid statement (at line 1, column 1)"),
    "no compute table": (
        "name = 'x'",
        "own.toml does not describe a strategy: Object missing required field `compute`\n"
        '  expected a [compute] table such as `h = "model"`, and optionally [store.CLASS] tables and a [policy]',
    ),
    "unknown key": (
        '[compute]\nb="data"\n[stroe]\n',
        "unknown key `stroe` in own.toml\n  did you mean `store`?",
    ),
    "unknown class": (
        '[compute]\nb="data"\n[store.paramters]\nd="data"\n',
        "unknown class `paramters` in [store.paramters] of own.toml\n  did you mean `parameters`?",
    ),
    "a number for an axis": (
        "[compute]\nb=3\n",
        "`b` in [compute] of own.toml is 3\n"
        '  expected the name of a mesh axis, or a list of names, for example `h = "model"`',
    ),
    "an empty axis": (
        '[compute]\nb=""\n',
        "cannot read the rule `b = ''` in own.toml\n"
        '  expected INDEX = "AXIS", "AXIS/AXIS" or ["AXIS", ...], major to minor',
    ),
    "unknown policy": (
        '[compute]\nb="data"\n[policy]\nfused=["x"]\n',
        "unknown key `fused` in [policy] of own.toml\n  did you mean `fuse`?",
    ),
}


@pytest.mark.parametrize(("text", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_gets_one_clear_message(text: str, message: str) -> None:
    with pytest.raises(StrategyError) as caught:
        parse_strategy(text, "own.toml")
    assert str(caught.value) == message


def test_an_unknown_name_gets_its_near_miss() -> None:
    with pytest.raises(StrategyError) as caught:
        load_strategy("megatron-ps")
    assert str(caught.value) == (
        "unknown strategy `megatron-ps`\n  expected a name, or the path of a .toml file\n  did you mean `megatron-sp`?"
    )


def test_unreadable_files_are_told_apart(tmp_path) -> None:
    with pytest.raises(StrategyError, match="No such file"):
        load_strategy(str(tmp_path / "none.toml"))
    with pytest.raises(StrategyError, match="is a directory"):
        load_strategy(f"{tmp_path}/")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StrategyError, match="is not UTF-8 text"):
        load_strategy(str(binary))


def test_a_mesh_axis_without_a_role_is_refused() -> None:
    with pytest.raises(StrategyError) as caught:
        bind_strategy(load_strategy("megatron"), parse_mesh("data=2,modle=4"))
    assert str(caught.value) == (
        "mesh axis `modle` has no role in strategy `megatron`: its devices would only repeat work\n"
        "  data=2,modle=4\n"
        "         ^^^^^\n"
        "  expected axes that play data (data, dp, fsdp), model (model, tp, tensor), expert (expert, ep)\n"
        "  did you mean `model`?"
    )


def test_a_misspelt_role_is_blamed_and_not_the_axis_it_means() -> None:
    own = parse_strategy('name = "own"\n[compute]\nb = "data"\nh = "modle"\n')
    with pytest.raises(StrategyError) as caught:
        bind_strategy(own, parse_mesh("data=2,model=4"))
    assert str(caught.value) == (
        "strategy `own` divides over `modle`, which is no axis of the mesh data=2,model=4 and no role\n"
        "  did you mean `model`?"
    )


@pytest.mark.parametrize("entry", ["allreduce model activations", "all-reduce modle activation", "all-gather"])
def test_an_expectation_that_cannot_be_met_is_refused(entry: str) -> None:
    with pytest.raises(StrategyError, match=r"in the `expect` list of own\.toml"):
        parse_strategy(f'expect = ["{entry}"]\n[compute]\nb = "data"\n', "own.toml")


def test_an_expectation_may_use_an_alias_of_a_role() -> None:
    own = parse_strategy('expect = ["all-reduce tp activations"]\n[compute]\nh = "tp"\n')
    assert own.expect == ("all-reduce model activations",)
