"""A family in, the settings and the tensors of a model that is as the family is by default out."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ...dsl.diagnostic import MappingError
from ...dsl.tree import Model, Ref, TensorDecl
from ..link.flat import Family
from ..values.pick import axes_of, empty, pick
from ..values.scope import Scope, holds

LAYERS = 4  # of such a model; any other axis has as many


def settings_by_default(model: Model) -> dict[str, Any]:
    """The settings that have a value where no config says anything."""
    scope, found = _scope(model), dict[str, Any]()
    for each in model.settings:
        with suppress(MappingError):  # it follows from sizes
            found[each.name] = scope.lookup(Ref(each.name, each.span))
    return found


def tensors_by_default(family: Family) -> tuple[TensorDecl, ...]:
    """Those that exist, at some index, where no config says anything. Tied and optional ones are none."""
    scope = _scope(family.model)
    return tuple(each for each in family.model.tensors if not each.optional and each.tied_to is None and _exists(each, family, scope))


def _scope(model: Model) -> Scope:
    return Scope(lazy={each.name: each.value for each in model.settings}, functions={"stored": lambda name: False})


def _exists(decl: TensorDecl, family: Family, scope: Scope) -> bool:
    selects = {each.name: each for each in family.model.selects}
    try:
        if not holds(decl.when, scope):
            return False
        if decl.where is None:
            return True
        sizes = dict.fromkeys(axes_of(decl.where, selects), LAYERS)
        return not empty(pick(decl.where, sizes, selects, scope, decl.span))
    except MappingError:
        return False
