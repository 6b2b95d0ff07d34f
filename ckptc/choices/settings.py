"""Settings as a person or a program gives them, in; values of the types that layouts and models declare, out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..compiler.link.flat import Family, FlatLayout
from ..compiler.settle.sizes import Scalar
from ..runtime.fault import Fault
from .declared import ANY, NUMBER, WHOLE, Declared, of_expression, of_param, read

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
    """Settings read as the layout's parameters are declared; those of other names as they are.

    Raises `MappingError` for a value that a parameter cannot have."""
    known: dict[str, Declared] = {}
    for param in layout.params:
        known[param.name] = of_param(param, layout.words, known)
    of = f"layout `{layout.name}`"
    return {name: read(given, known[name], name, of) if name in known else given for name, given in settings.items()}


def of_model(settings: Settings, family: Family) -> dict[str, Scalar]:
    """Those settings that are axes or settings of the model, read as these are declared. Raises `MappingError`.

    A setting that is declared as a whole number may be any number: configs say `1e6`."""
    known = {axis.name: Declared(ANY) for axis in family.model.axes}  # its size is held against the tensors, which say more
    for setting in family.model.settings:
        if setting.name not in known:
            known[setting.name] = of_expression(setting.value, known)
    number = {name: replace(declared, kind=NUMBER) if declared.kind == WHOLE else declared for name, declared in known.items()}
    return {name: read(given, number[name], name, f"model `{family.name}`") for name, given in settings.items() if name in number}
