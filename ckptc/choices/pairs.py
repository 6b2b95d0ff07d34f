"""What was typed as KEY=VALUE, often repeated, in; names with their texts or values, out, and the texts of values again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn


def split(pairs: Iterable[str] | None) -> dict[str, str]:
    """`KEY=VALUE` texts by key. Raises `ValueError`, with a sentence, for one of no such form, or a key that stands twice."""
    found: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(f"`{pair}` is not of the form key=value")
        if name in found:
            raise ValueError(f"`{name}` is given twice")
        found[name] = text.strip()
    return found


def config_value(text: str) -> Any:
    """A config's value as it is typed: JSON where it is JSON (`7`, `true`, `null`, `[1, 2]`), else the text itself."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except ValueError:
        return {"true": True, "false": False}.get(text.lower(), text)


def typed(value: Any) -> str:
    """The text that `config_value` reads as `value`."""
    return value if isinstance(value, str) and config_value(value) == value else json.dumps(value)


def _no_number(word: str) -> NoReturn:
    raise ValueError(word)  # NaN and Infinity are no JSON
