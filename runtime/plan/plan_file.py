"""Plans as files: one JSON document with a magic word and a version. What is not understood is refused."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from ..fault import Fault
from ..path_names import refuse_remote_target
from .check_plan import check_plan
from .plan import VERSION, Plan

MAGIC = "ckptc-plan"


def dump_plan(plan: Plan) -> str:
    """The plan as text; `parse_plan` gives an equal plan back."""
    return json.dumps({"format": MAGIC, "version": plan.version, "plan": _plain(plan)}, separators=(",", ":")) + "\n"


def save_plan(plan: Plan, path: str | Path) -> None:
    write_text(path, dump_plan(plan))


def write_text(path: str | Path, text: str) -> None:
    """Writes a text of ours to a local path, and replaces a file of that name. Raises `Fault` where it cannot be written."""
    refuse_remote_target(path)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Fault("write-failed", f"{path}: {error.strerror}") from None


def load_plan(path: str | Path) -> Plan:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise Fault("unreadable-plan", f"{path}: {e.strerror}") from None
    except UnicodeDecodeError:
        raise Fault("bad-plan", f"{path} is not a plan file", help="make one with: ckptc compile MAPPING -o plan.ckplan") from None
    return parse_plan(text, str(path))


def parse_plan(text: str, path: str = "<plan>") -> Plan:
    """Raises `Fault` for anything but a whole plan of this version."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("format") != MAGIC:
        raise Fault("bad-plan", f"{path} is not a plan file", help="make one with: ckptc compile MAPPING -o plan.ckplan")
    if document.get("version") != VERSION:
        raise Fault(
            "plan-version", f"{path} is a plan of version {document.get('version')}; this ckptc knows version {VERSION}",
            help="compile the plan again with this ckptc",
        )  # fmt: skip
    try:
        plan = _typed(Plan, document["plan"])
        check_plan(plan)
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise Fault("bad-plan", f"{path} is damaged: {e}", help="compile the plan again") from None
    assert isinstance(plan, Plan)
    return plan


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if getattr(value, f.name) != f.default}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


def _typed(kind: Any, value: Any) -> Any:
    """`value` from JSON as `kind`: a dataclass, a tuple or a scalar, checked all the way down."""
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise TypeError(f"{getattr(kind, '__name__', kind)} is not an object")
        hints = get_type_hints(kind)
        unknown = set(value) - set(hints)
        if unknown:
            raise TypeError(f"it has an unknown field `{sorted(unknown)[0]}`")
        return kind(**{k: _typed(hints[k], v) for k, v in value.items()})  # type: ignore[operator]
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{value!r} is not a list")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_typed(args[0], v) for v in value)
        if len(args) != len(value):
            raise TypeError(f"{value!r} has not {len(args)} members")
        return tuple(_typed(a, v) for a, v in zip(args, value, strict=True))
    options = args or (kind,)
    if any(_is(value, o) for o in options):
        return float(value) if options == (float,) else value
    raise TypeError(f"{value!r} is not {' or '.join(getattr(o, '__name__', str(o)) for o in options)}")


def _is(value: Any, kind: Any) -> bool:
    if kind in (None, type(None)):
        return value is None
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind
