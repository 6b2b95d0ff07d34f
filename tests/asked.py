"""Options as tests hand them on, in one dictionary, in; the arguments of `ckptc.plan` and the like, out."""

from __future__ import annotations

import inspect
from typing import Any

from ckptc import api

ARGUMENTS = {
    name
    for function in (api.plan, api.compile, api.Plan.run)
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
}


def asked(**options: Any) -> dict[str, Any]:
    """What is no argument is a setting."""
    settings = {name: value for name, value in options.items() if name not in ARGUMENTS}
    return {**{name: value for name, value in options.items() if name in ARGUMENTS}, "settings": settings}
