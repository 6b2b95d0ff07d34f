"""The text of a YAML file in, a tree of plain values out."""

from __future__ import annotations

from typing import Any

MOST_VALUES = 1_000_000  # of a config that is written out


def load_yaml(text: str) -> Any:
    """What `yaml.safe_load` reads. Raises `ValueError`, or its own `yaml.YAMLError`, for what is no config.

    Aliases may repeat a value. A tree in which they do so without end, or more often than any config does, is refused: whoever
    walks it, or prints it, would do so without end.
    """
    import yaml

    tree = yaml.safe_load(text)
    if "*" in text and _values(tree, {}) > MOST_VALUES:
        raise ValueError(f"its aliases (`*name`) repeat values to more than {MOST_VALUES:,}")
    return tree


def _values(node: Any, known: dict[int, int]) -> int:
    """How many values there are in a tree, those of an alias as often as it stands there."""
    if not isinstance(node, dict | list):
        return 1
    if id(node) not in known:
        known[id(node)] = 0
        known[id(node)] = 1 + sum(_values(each, known) for each in (node.values() if isinstance(node, dict) else node))
    elif not known[id(node)]:
        raise ValueError("an alias (`*name`) stands within the value that it repeats")
    return known[id(node)]
