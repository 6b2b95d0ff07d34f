"""A model and a layout in, a tensor that the model certainly has and the layout has no place for out."""

from __future__ import annotations

from ...dsl.tree import Model, TensorDecl
from ..values.lets import labels
from ..values.scope import Scope
from ..values.settled import settled
from .flat import FlatLayout


def lacked(model: Model, layout: FlatLayout) -> str | None:
    """The first such tensor, or None. What a config or a checkpoint decides is not certain."""
    if not layout.rules:
        return None
    bound = {entry.name for entry in layout.config.entries} if layout.config is not None else set()
    said = {setting.name: setting.value for setting in model.settings if setting.name not in bound and setting.when is None}
    scope = Scope(lazy=said)
    held = {name for flat in layout.rules for name in (flat.rule.tensor, *(r.tensor for r in flat.rule.renames)) if name}
    held |= labels((dim for flat in layout.rules for dim in flat.rule.dims), layout.lets).keys()
    held |= {name for omit in layout.omits for name in omit.tensors}
    return next((t.name for t in model.tensors if t.name not in held and _certain(t, scope)), None)


def _certain(tensor: TensorDecl, scope: Scope) -> bool:
    """Whether every checkpoint of the model has it, whatever its sizes are."""
    if tensor.optional or tensor.tied_to is not None or tensor.where is not None:
        return False
    return settled(tensor.when, scope) is True
