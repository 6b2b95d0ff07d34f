"""A linked layout in, its `config` block out; and whether an expression reads a config."""

from __future__ import annotations

from ...dsl.tree import Config, Expr
from ..values.walk_expr import keys
from .link import FlatLayout


def config_of(layout: FlatLayout) -> Config | None:
    return next((x for x in layout.items if isinstance(x, Config)), None)


def own_config_of(layout: FlatLayout) -> Config | None:
    """The config that a checkpoint of this layout has with it."""
    config = config_of(layout)
    return config if config is not None and not config.read_only else None


def reads_keys(expr: Expr) -> bool:
    """Whether a requirement is about the config file, and so is checked where the config is read."""
    return bool(keys(expr))
