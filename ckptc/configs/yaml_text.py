"""A YAML text with one value changed, and all else of it, comments too, as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..runtime.formats.nemo.archive import WRAPPERS

Keys = tuple[str, ...]
_PLAIN = re.compile(r"[A-Za-z_][\w.+-]*(:[\w.+-]+)*", re.ASCII)
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def set_scalar(text: str, keys: Keys, value: str | int | float | bool | None) -> str:
    """The text with `value` at a path that has a scalar. A path of one key is added at the end where it is missing."""
    import yaml

    node = _node(text, keys)
    if node is None:
        if len(keys) != 1:
            raise KeyError(".".join(keys))
        return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{keys[0]}: {_spell(value)}\n"
    begin, end = node.start_mark.index, node.end_mark.index
    space = "" if begin and text[begin - 1] in " \n" else " "
    made = text[:begin] + space + _spell(value) + text[end:]
    wanted = _changed(yaml.safe_load(text), keys, value)
    alone = not any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader))
    return made if alone and yaml.safe_load(made) == wanted else yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)


def _changed(config: Any, keys: Keys, value: Any) -> Any:
    """The parsed config with the value at a path, which it has. What else refers to the same place does not change."""
    if not keys:
        return value
    if keys[0] not in config:
        inner = next(key for key in WRAPPERS if isinstance(config.get(key), dict) and keys[0] in config[key])
        return {**config, inner: _changed(config[inner], keys, value)}
    return {**config, keys[0]: _changed(config[keys[0]], keys[1:], value)}


def has_scalar(text: str, keys: Keys) -> bool:
    return _node(text, keys) is not None


def value_at(config: Any, keys: Keys) -> Any:
    """The value at a path of a parsed config, which may stand below a node of NeMo's training configs."""
    for start in (config, *(config.get(key) for key in WRAPPERS if isinstance(config, dict))):
        value = start
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def _spell(value: str | int | float | bool | None) -> str:
    """JSON is YAML, but for texts that need no quotes."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    text = json.dumps(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text


def _node(text: str, keys: Keys) -> Any:
    """The scalar at a path, with its place in the text; None where there is none."""
    import yaml

    def child(node: Any, key: str) -> Any:
        pairs = node.value if node is not None and node.id == "mapping" else ()
        return next((value for name, value in pairs if name.value == key), None)

    top = yaml.compose(text, yaml.SafeLoader)
    for start in (top, *(child(top, key) for key in WRAPPERS)):
        node = start
        for key in keys:
            node = child(node, key)
        if node is not None and node.id == "scalar":
            return node
    return None


def dump(config: Mapping[str, Any]) -> str:
    """A config as YAML, its keys in their order."""
    import yaml

    return str(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def put(config: Mapping[str, Any], keys: Keys, value: Any) -> dict[str, Any]:
    """The parsed config with the value at a path, which need not be there yet."""
    if len(keys) == 1:
        return {**config, keys[0]: value}
    inner = config.get(keys[0])
    return {**config, keys[0]: put(inner if isinstance(inner, Mapping) else {}, keys[1:], value)}


def set_value(text: str, keys: Keys, value: Any) -> str:
    """The text with `value` at a path. Where a scalar takes the place of a scalar, or a new key stands at the end, all else stays
    as it was; else the text is written anew."""
    import yaml

    config = yaml.safe_load(text) or {}
    scalar = not isinstance(value, list | dict)
    if scalar and (has_scalar(text, keys) or (len(keys) == 1 and keys[0] not in config)):
        return set_scalar(text, keys, value)
    return dump(put(config, keys, value))
