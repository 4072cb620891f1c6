"""Strategies: where work runs and where tensors rest, from which the collectives follow."""

from einscale.strategy.defaults import default_serving_strategy, default_strategy
from einscale.strategy.load import MOVED, list_strategies, load_strategy, parse_strategy
from einscale.strategy.place import bind_strategy, divide_composite, place, stored_layout
from einscale.strategy.values import CLASSES, LARGEST, ROLES, Policy, Rule, Strategy
from einscale.strategy.zero import replicas, with_zero

__all__ = [
    "CLASSES",
    "LARGEST",
    "MOVED",
    "ROLES",
    "Policy",
    "Rule",
    "Strategy",
    "bind_strategy",
    "default_serving_strategy",
    "default_strategy",
    "divide_composite",
    "list_strategies",
    "load_strategy",
    "parse_strategy",
    "place",
    "replicas",
    "stored_layout",
    "with_zero",
]
