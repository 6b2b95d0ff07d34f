"""Names of a layout and a family in, the layout's text with all that it inherits out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..choices.settings import of_layout
from ..compiler.say.show_layout import shown_layout
from ..compiler.settle.resolve import bind_params
from ..dsl.tree import Literal
from . import mapping_files as library
from .families import family_named


def shown(layout: str, family: str, mapping: str | None, given: Mapping[str, Any]) -> str:
    """`given` are values of parameters. Raises `Fault` or `MappingError` for what there is not."""
    its = family_named(family, library.families(mapping))
    flat = its.layout(layout)
    of_model = {x.name: x.value.value for x in its.model.settings if isinstance(x.value, Literal)}
    params = bind_params(flat, of_layout(dict(given), flat), of_model)
    return shown_layout(its, flat, params)
