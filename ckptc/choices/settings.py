"""Settings as a person or a program gives them, in; values of the types that layouts and models declare, out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compiler.link.flat import Family, FlatLayout
from ..compiler.settle.sizes import Scalar
from ..dsl.tree import Expr, Literal, Param
from ..runtime.fault import Fault
from .typed_text import Text, value

Settings = Mapping[str, Scalar]


# The keywords that may stand beside `settings`: no argument has, or will have, one of these names.
DEGREES = ("tp", "pp", "vpp", "ep", "etp")


def joined(settings: Settings | None, degrees: Mapping[str, Any]) -> dict[str, Scalar]:
    """`settings`, and the degrees that stand as keywords beside it. A name may stand in one of them only.

    Raises `Fault` for a keyword that is no degree: parameters have a name space of their own.
    """
    out = dict(settings or {})
    if others := {name: value for name, value in degrees.items() if name not in DEGREES}:
        raise Fault(
            "unknown-argument", f"there is no argument `{next(iter(others))}`: only {', '.join(DEGREES)} may be given as keywords",
            help=f"a parameter of a layout or of the model is given so: settings={others!r}",
        )  # fmt: skip
    for name, degree in degrees.items():
        if name in out:
            raise Fault("given-twice", f"`{name}` is given as a keyword and in `settings`", help="leave one of them out")
        out[name] = degree
    return out


def of_layout(settings: Settings, layout: FlatLayout) -> dict[str, Scalar]:
    """Texts of a command line read as the layout's parameters are declared; other values, and other names, as they are."""
    params = {p.name: p for p in layout.params}
    return {name: _param(params[name], given) if name in params else given for name, given in settings.items()}


def of_model(settings: Settings, family: Family) -> dict[str, Scalar]:
    """Those settings that are axes or settings of the model, read as these are declared."""
    declared: dict[str, Expr | None] = {a.name: None for a in family.model.axes} | {s.name: s.value for s in family.model.settings}
    return {name: _declared(declared[name], given) for name, given in settings.items() if name in declared}


def _param(param: Param, given: Scalar) -> Scalar:
    return str(given) if param.choices and isinstance(given, Text) else _declared(param.default, given)


def _declared(default: Expr | None, given: Scalar) -> Scalar:
    """A text that is declared as one stays so; what else it may be shows in how it is written."""
    if not isinstance(given, Text):
        return given
    return str(given) if isinstance(default, Literal) and isinstance(default.value, str) else value(given)
