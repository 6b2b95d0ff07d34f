"""ckptc, the checkpoint compiler: a mapping file becomes a proved plan, and the plan streams LLM weights between frameworks.

The names below are all that there is to the Python face; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import compile, convert, plan
    from .checking.diff import diff
    from .checking.report import Diff, Difference, Verification
    from .checking.verify import verify
    from .dsl.diagnostic import MappingError
    from .error import Error
    from .hub import open_source as open
    from .planning.planned import Plan, load_plan
    from .reshard_zero1 import zero1
    from .runtime.fault import Fault
    from .runtime.tokenizer.sentencepiece_model import add_special_tokens
    from .survey import survey as inspect

__version__ = "0.1.0"

_HOMES = {
    "Diff": ("checking.report", "Diff"),
    "Difference": ("checking.report", "Difference"),
    "Error": ("error", "Error"),
    "Fault": ("runtime.fault", "Fault"),
    "MappingError": ("dsl.diagnostic", "MappingError"),
    "Plan": ("planning.planned", "Plan"),
    "Verification": ("checking.report", "Verification"),
    "add_special_tokens": ("runtime.tokenizer.sentencepiece_model", "add_special_tokens"),
    "compile": ("api", "compile"),
    "convert": ("api", "convert"),
    "diff": ("checking.diff", "diff"),
    "inspect": ("survey", "survey"),
    "load_plan": ("planning.planned", "load_plan"),
    "open": ("hub", "open_source"),
    "plan": ("api", "plan"),
    "verify": ("checking.verify", "verify"),
    "zero1": ("reshard_zero1", "zero1"),
}

__all__ = [
    "Diff",
    "Difference",
    "Error",
    "Fault",
    "MappingError",
    "Plan",
    "Verification",
    "__version__",
    "add_special_tokens",
    "compile",
    "convert",
    "diff",
    "inspect",
    "load_plan",
    "open",
    "plan",
    "verify",
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
