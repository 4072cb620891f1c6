"""What einscale knows by name, as reports and documents: models and strategies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import to_builtins

from einscale.models import Experts, LayerKind, Model, ModelConfig, list_models, load_model, parameter_counts
from einscale.report.document import head
from einscale.report.table import Cell, Column, Report, Row, Table
from einscale.strategy import Rule, Strategy, list_strategies
from einscale.units import format_count


def _shape(config: ModelConfig) -> str:
    """The sizes of a model in words."""
    heads = f"{config.heads} heads" + (f" ({config.kv_heads} kv)" if config.kv_heads != config.heads else "")
    latent, experts = config.latent, config.experts
    size = f"{config.head_dim}" if latent is None else f"{config.head_dim} + {latent.rotated} rotated"
    parts = [f"{config.layers} layers", f"{config.hidden} wide", f"{heads} of {size}"]
    if experts is None or "d" in config.mlps:
        parts.append(f"MLP {config.intermediate}")
    if experts is not None:
        shared = f" and {experts.shared} shared" if experts.shared else ""
        parts.append(f"{experts.top} of {experts.count} experts of {experts.hidden}{shared}")
    return ", ".join(parts)


def _facts(config: ModelConfig) -> list[str]:
    """What a model does besides: latents, routing, linear layers, windows, further tokens."""
    lines, latent, experts, delta = [], config.latent, config.experts, config.delta
    if latent is not None:
        queries = f", queries through {latent.queries}" if latent.queries else ""
        lines.append(
            f"latent attention: {latent.keys} for keys and values and {latent.rotated} rotated are kept of a token"
            f"{queries}; value heads of {latent.value}"
        )
    if experts is not None:
        lines.append(_routing(config, experts))
    if delta is not None:
        lines.append(
            f"linear layers (gated delta net): {config.pattern.count('l')} of {config.layers}, {delta.heads} key heads"
            f" of {delta.key}, {delta.value_heads} value heads of {delta.value}, convolution over {delta.taps} tokens"
        )
    if config.windowed_layers and config.window:
        lines.append(f"window of {config.window} in {config.windowed_layers} of {config.layers} layers")
    if config.sinks:
        lines.append("each head has an attention sink")
    return lines


def _routing(config: ModelConfig, experts: Experts) -> str:
    """How tokens choose experts, and in which layers."""
    layers = config.mlps.count("e")
    words = [f"experts in {'every layer' if layers == config.layers else f'{layers} of {config.layers} layers'}"]
    words.append(f"chosen by {experts.scoring}{', weights normalised' if experts.normalise else ''}")
    if experts.top_groups < experts.groups:
        words.append(f"from {experts.top_groups} of {experts.groups} groups")
    if experts.factor != 1:
        words.append(f"weights times {experts.factor:g}")
    if experts.shared:
        words.append("a shared expert" + (" with a gate" if experts.shared_gate else ""))
    return ", ".join(words)


def models_report() -> Report:
    """Every preset, one line each."""
    columns = (
        Column("name", "model"),
        Column("parameters", "parameters", "count"),
        Column("active", "active", "count"),
        Column("shape", "shape", wrap=True),
        Column("source", "source", detail=True),
    )
    rows = tuple(_model_row(load_model(name)) for name in list_models())
    hint = "every MODEL is one of these, or the path of a Hugging Face config.json or of a program (.ein)"
    return Report((), (Table("models", "", columns, rows),), (hint,))


def _model_row(model: Model) -> Row:
    counts = parameter_counts(model)
    shape = _shape(model.config) if model.config else ""
    return Row((model.name, counts.total, counts.active if counts.routed else None, shape, model.source))


def models_document() -> dict[str, Any]:
    """Every preset."""
    models = [(model, parameter_counts(model)) for model in map(load_model, list_models())]
    return {
        **head("models"),
        "models": [
            {"name": model.name, "params": {"total": counts.total, "active": counts.active}, "source": model.source}
            for model, counts in models
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
        rows += _layer_rows(layer, program_parameters(layer.program))
    counts = parameter_counts(model)
    rows.append(Row(("total", None, None, counts.total), 0, "total"))
    for layer in model.ahead:
        rows += _layer_rows(layer, program_parameters(layer.program), " (training only, not in the total)")
    met = f", {format_count(counts.active)} active for one token" if counts.routed else ""
    heading = [f"{model.name}: {format_count(counts.total)} parameters{met}"]
    if model.config is not None:
        heading.append(f"{model.config.class_name}: {_shape(model.config)}, vocabulary {model.config.vocab}")
        heading += _facts(model.config)
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


def _layer_rows(layer: LayerKind, held: Mapping[str, int], note: str = "") -> list[Row]:
    """A kind of layer, and under it each of its parameters."""
    table, one = layer.program.table, sum(held.values())
    rows = [Row((layer.kind + note, layer.repeat, one, one * layer.repeat))]
    return rows + [
        Row((f"{name}: {' '.join(table[name].axes)}", None, count, count * layer.repeat), 1)
        for name, count in held.items()
    ]


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
            "routed": counts.routed,
            "ahead": counts.ahead,
        },
        "config": None if config is None else to_builtins(config),
        "layers": [_layer_facts(layer) for layer in model.layers],
        "ahead": [_layer_facts(layer) for layer in model.ahead],
        "defaults": dict(model.defaults),
        "notes": list(model.notes),
    }


def _layer_facts(layer: LayerKind) -> dict[str, Any]:
    return {"kind": layer.kind, "repeat": layer.repeat, "sizes": dict(layer.program.sizes)}


def strategies_report() -> Report:
    """Every named strategy, one line each."""
    columns = (Column("name", "strategy"), Column("summary", "summary", wrap=True))
    rows = tuple(Row((strategy.name, strategy.summary)) for strategy in list_strategies())
    hint = (
        "`einscale strategies NAME` shows its tables; --strategy also takes the path of a TOML file that says the same"
    )
    return Report((), (Table("strategies", "", columns, rows),), (hint,))


RULES = (
    Column("rules", "table"),
    Column("layer_section", "section"),
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
        + ("; gathered activations are put in order" if policy.ordered else "")
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
            "ordered": policy.ordered,
        },
    }


def _rule(rule: Rule) -> dict[str, Cell | list[str]]:
    return {"index": rule.index, "axes": list(rule.axes), "scope": rule.scope}
