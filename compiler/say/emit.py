"""A plan in, a Python module out: self-contained and readable, with Numba kernels whose strides are constants."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from ...runtime.plan.plan import Loop, Plan, Step
from .explain import describe, summary


def emit_python(plan: Plan) -> str:
    """The text of a module that imports only `ckptc.runtime`: `python plan.py SRC DST`, or import it and use PLAN."""
    kernels, used = _kernels(plan)
    title = summary(plan)
    return _template().render(
        title=title,
        description=describe(plan).replace("\\", "\\\\").replace('"""', "'''"),
        source=_side(plan.source),
        target=_side(plan.target),
        steps=[(_literal(s), _note(plan, s)) for s in plan.steps],
        checks=[(_literal(s), s.origin) for s in plan.checks],
        kernels=kernels,
        used=used,
        plan={f.name: _literal(getattr(plan, f.name)) for f in fields(plan)},
    )


@cache
def _template() -> jinja2.Template:
    text = (files(__package__) / "plan.py.j2").read_text(encoding="utf-8")
    return jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False).from_string(text)


def _side(side: Any) -> dict[str, Any]:
    others = [(f.name, _literal(getattr(side, f.name))) for f in fields(side) if f.name != "stored"]
    return {"fields": others, "stored": [(_literal(s), s.origin) for s in side.stored]}


def _literal(value: Any) -> str:
    """Python source for a value: dataclasses by their required fields in order, then what differs from a default."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = []
        for f in fields(value):
            item = getattr(value, f.name)
            if f.default is MISSING:
                parts.append(_literal(item))
            elif item != f.default:
                parts.append(f"{f.name}={_literal(item)}")
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, tuple):
        inside = ", ".join(_literal(v) for v in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return repr(value)


def _note(plan: Plan, step: Step) -> str:
    source = plan.source.stored[step.source].name if step.source is not None else "zeros"
    return f"{source} -> {plan.target.stored[step.target].name}   {step.origin}"


def _kernels(plan: Plan) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    """One kernel per distinct nest of loops; whole runs need none. Also which step uses which."""
    names: dict[tuple[Loop, ...], str] = {}
    kernels: list[dict[str, Any]] = []
    used: list[tuple[int, str]] = []
    for i, step in enumerate(plan.steps):
        if step.kernel not in ("rows", "transpose"):
            continue
        if step.loops not in names:
            names[step.loops] = f"{step.kernel}_{len(names)}"
            kernels.append(_kernel(names[step.loops], step))
        used.append((i, names[step.loops]))
    return kernels, used


def _kernel(name: str, step: Step) -> dict[str, Any]:
    lines = []
    order = list(enumerate(step.loops))
    for depth, (i, loop) in enumerate(order):
        bounds = "begin, end" if depth == 0 else str(loop.extent)
        lines.append("    " * (depth + 1) + f"for i{i} in range({bounds}):")
    source = " + ".join(["source_at", *(_term(i, x.source) for i, x in order if x.source)])
    target = " + ".join(["target_at", *(_term(i, x.target) for i, x in order if x.target)])
    lines.append("    " * (len(order) + 1) + f"target[{target}] = source[{source}]")
    extents = " x ".join(str(x.extent) for x in step.loops)
    return {"name": name, "doc": f"{extents} elements; the outermost loop runs from begin to end.", "lines": lines}


def _term(i: int, stride: int) -> str:
    return f"i{i}" if stride == 1 else f"i{i} * {stride}"
