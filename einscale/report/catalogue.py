"""What einscale knows by name, as reports and documents: models and strategies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from einscale.models import Model, ModelConfig, list_models, load_model, parameter_counts
from einscale.report.document import head
from einscale.report.table import Cell, Column, Report, Row, Table
from einscale.strategy import Rule, Strategy, list_strategies
from einscale.units import format_count


def _shape(config: ModelConfig) -> str:
    """The sizes of a model in words."""
    heads = f"{config.heads} heads" + (f" ({config.kv_heads} kv)" if config.kv_heads != config.heads else "")
    return f"{config.layers} layers, {config.hidden} wide, {heads} of {config.head_dim}, MLP {config.intermediate}"


def models_report() -> Report:
    """Every preset, one line each."""
    columns = (
        Column("name", "model"),
        Column("parameters", "parameters", "count"),
        Column("shape", "shape", wrap=True),
        Column("source", "source", detail=True),
    )
    rows = tuple(_model_row(load_model(name)) for name in list_models())
    hint = "every MODEL is one of these, or the path of a Hugging Face config.json or of a program (.ein)"
    return Report((), (Table("models", "", columns, rows),), (hint,))


def _model_row(model: Model) -> Row:
    return Row((model.name, parameter_counts(model).total, _shape(model.config) if model.config else "", model.source))


def models_document() -> dict[str, Any]:
    """Every preset."""
    models = (load_model(name) for name in list_models())
    return {
        **head("models"),
        "models": [
            {"name": model.name, "params": {"total": parameter_counts(model).total}, "source": model.source}
            for model in models
        ],
    }


def model_report(model: Model) -> Report:
    """One model: parameters of each kind of layer, and where its facts come from."""
    from einscale.models import program_parameters

    columns = (
        Column("layer", "layer", wrap=True),
        Column("repeat", "layers", "integer"),
        Column("parameters", "parameters", "integer"),
        Column("all", "all layers", "integer"),
    )
    rows: list[Row] = []
    for layer in model.layers:
        held = program_parameters(layer.program)
        one = sum(held.values())
        rows.append(Row((layer.kind, layer.repeat, one, one * layer.repeat)))
        table = layer.program.table
        rows += [
            Row((f"{name}: {' '.join(table[name].axes)}", None, count, count * layer.repeat), 1)
            for name, count in held.items()
        ]
    counts = parameter_counts(model)
    rows.append(Row(("total", None, None, counts.total), 0, "total"))
    heading = [f"{model.name}: {format_count(counts.total)} parameters"]
    if model.config is not None:
        heading.append(f"{model.config.class_name}: {_shape(model.config)}, vocabulary {model.config.vocab}")
    heading += [f"from {model.source}", *model.notes]
    defaults = ", ".join(f"{key} = {value}" for key, value in model.defaults)
    return Report(
        tuple(heading),
        (Table("parameters", "", columns, tuple(rows)),),
        (f"not in the file, the class's documented default: {defaults}",) if defaults else (),
        (
            f"embedding tables {counts.embedding:,}, others {counts.non_embedding:,};"
            f" active for one token {counts.active:,}; a tied table counts once",
        ),
    )


def model_document(model: Model) -> dict[str, Any]:
    """One model: exact parameter counts, facts, sizes of each kind of layer."""
    counts, config = parameter_counts(model), model.config
    return {
        **head("model"),
        "name": model.name,
        "source": model.source,
        "params": {
            "total": counts.total,
            "active": counts.active,
            "embedding": counts.embedding,
            "non_embedding": counts.non_embedding,
        },
        "config": None if config is None else {name: getattr(config, name) for name in config.__struct_fields__},
        "layers": [
            {"kind": layer.kind, "repeat": layer.repeat, "sizes": dict(layer.program.sizes)} for layer in model.layers
        ],
        "defaults": dict(model.defaults),
        "notes": list(model.notes),
    }


def strategies_report() -> Report:
    """Every named strategy, one line each."""
    columns = (Column("name", "strategy"), Column("summary", "summary", wrap=True))
    rows = tuple(Row((strategy.name, strategy.summary)) for strategy in list_strategies())
    hint = (
        "`einscale strategies NAME` shows its tables; --strategy also takes the path of a TOML file that says the same"
    )
    return Report((), (Table("strategies", "", columns, rows),), (hint,))


RULES = (
    Column("table", "table"),
    Column("section", "section"),
    Column("index", "index"),
    Column("axes", "divided over"),
)


def strategy_report(strategy: Strategy) -> Report:
    """One strategy: its two tables, its policy, what it is known to need."""
    rows = [*_rules("compute", strategy.compute)]
    for kind, rules in strategy.store:
        rows += _rules(f"store.{kind}", rules)
    policy = strategy.policy
    lines = [
        f"reshard_after_forward: {str(policy.reshard_after_forward).lower()}; fuse: {_listed(policy.fuse)};"
        f" recompute: {_listed(policy.recompute)}"
    ]
    if strategy.expect is not None:
        lines.append(f"expects: {_listed(strategy.expect)}")
    heading = (f"{strategy.name}: {strategy.summary}", strategy.source)
    return Report(
        tuple(filter(None, heading)),
        (Table("rules", "", RULES, tuple(rows)),),
        tuple(lines),
        (
            "first match wins, each mesh axis at most once per tensor; roles stand for mesh axes: model is tp, tensor;"
            " data is dp, fsdp",
        ),
    )


def _rules(table: str, rules: Iterable[Rule]) -> list[Row]:
    return [Row((table, rule.scope, rule.index, "/".join(rule.axes))) for rule in rules]


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "nothing"


def strategies_document() -> dict[str, Any]:
    """Every named strategy."""
    return {
        **head("strategies"),
        "strategies": [{"name": strategy.name, "summary": strategy.summary} for strategy in list_strategies()],
    }


def strategy_document(strategy: Strategy) -> dict[str, Any]:
    """One strategy."""
    policy = strategy.policy
    return {
        **head("strategy"),
        "name": strategy.name,
        "summary": strategy.summary,
        "source": strategy.source,
        "compute": [_rule(rule) for rule in strategy.compute],
        "store": {kind: [_rule(rule) for rule in rules] for kind, rules in strategy.store},
        "expect": None if strategy.expect is None else list(strategy.expect),
        "policy": {
            "reshard_after_forward": policy.reshard_after_forward,
            "fuse": list(policy.fuse),
            "recompute": list(policy.recompute),
        },
    }


def _rule(rule: Rule) -> dict[str, Cell | list[str]]:
    return {"index": rule.index, "axes": list(rule.axes), "scope": rule.scope}
