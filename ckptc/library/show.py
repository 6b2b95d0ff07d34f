"""Names of a layout and a family in, the layout's text with all that it inherits out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..choices.settings import of_layout
from ..compiler.identify.by_default import settings_by_default
from ..compiler.say.show_layout import shown_layout
from ..compiler.settle.resolve import bind_params
from . import mapping_files as library
from .families import family_named


def shown(layout: str, family: str, mapping: str | None, given: Mapping[str, Any]) -> str:
    """`given` are values of parameters. Raises `Fault` or `MappingError` for what there is not."""
    its = family_named(family, library.families(mapping))
    flat = its.layout(layout)
    params = bind_params(flat, of_layout(dict(given), flat), settings_by_default(its.model))
    return shown_layout(its, flat, params)
