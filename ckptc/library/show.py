"""Names of a layout and a family in, the layout's text with all that it inherits out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..choices.settings import of_layout
from ..compiler.identify.by_default import settings_by_default
from ..compiler.say.show_layout import shown_layout
from ..compiler.settle.resolve import bind_params
from ..dsl.nearest import nearest
from ..runtime.fault import Fault
from . import mapping_files as library


def shown(layout: str, family: str, mapping: str | None, given: Mapping[str, Any]) -> str:
    """`given` are values of parameters. Raises `Fault` or `MappingError` for what there is not."""
    families = {each.name: each for each in library.families(mapping)}
    if family not in families:
        near = nearest(family, list(families))
        raise Fault("unknown-family", f"no family is called `{family}`", help=f"did you mean `{near}`?" if near else "see `ckptc list`")
    flat = families[family].layout(layout)
    params = bind_params(flat, of_layout(dict(given), flat), settings_by_default(families[family].model))
    return shown_layout(families[family], flat, params)
