"""ckptc, the checkpoint compiler: a mapping file becomes a proved plan, and the plan streams LLM weights between frameworks.

The names below are all that there is to the Python face; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Plan, compile, convert, load_plan, plan
    from .dsl.diagnostic import MappingError
    from .error import Error
    from .hub import open_source as open
    from .reshard_zero1 import zero1
    from .runtime.fault import Fault
    from .runtime.tokenizer.sentencepiece_model import add_special_tokens
    from .survey import survey as inspect

__version__ = "0.1.0"

_HOMES = {
    "Error": ("error", "Error"),
    "Fault": ("runtime.fault", "Fault"),
    "MappingError": ("dsl.diagnostic", "MappingError"),
    "Plan": ("api", "Plan"),
    "add_special_tokens": ("runtime.tokenizer.sentencepiece_model", "add_special_tokens"),
    "compile": ("api", "compile"),
    "convert": ("api", "convert"),
    "inspect": ("survey", "survey"),
    "load_plan": ("api", "load_plan"),
    "open": ("hub", "open_source"),
    "plan": ("api", "plan"),
    "zero1": ("reshard_zero1", "zero1"),
}

__all__ = [
    "Error",
    "Fault",
    "MappingError",
    "Plan",
    "__version__",
    "add_special_tokens",
    "compile",
    "convert",
    "inspect",
    "load_plan",
    "open",
    "plan",
    "zero1",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `ckptc` has no attribute `{name}`")
    module, attribute = _HOMES[name]
    value = getattr(import_module(f".{module}", __name__), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
