"""A target and the config that goes with it in; what that config cannot say of the model, as faults, out.

The config is read back as its framework would read it, without the checkpoint: whatever comes out otherwise than it went
in would make another model of the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...dsl.diagnostic import Diagnostic, Label, MappingError
from ...dsl.tree import Bind
from ..link.flat import Family
from ..values.scope import same, shown
from .resolve import Side
from .sizes import Sizes, bind_sizes
from .write_config import config_values, set_keys


def check_said(
    target: Side, family: Family, texts: Iterable[tuple[str, str]], accepted: frozenset[str] = frozenset(), given: bool = False
) -> tuple[str, ...]:
    """Raises `MappingError` for each setting, size, parameter or tensor that the target's config does not say.

    `texts` are the files that are written; where the config is not one of them, it is solved from its block. A layout
    without a block, or with one that says a part alone, has nothing to be held to. A config that was `given`, and is
    written as it is, is the user's own word: what it does not say is returned as notes.
    """
    layout = family.layout(target.layout)
    block = layout.config
    if block is None or block.partial:
        return ()
    text = dict(texts).get(block.file)
    keys: dict[str, Any] = {}
    if text is None:
        set_keys(keys, config_values(block, target))
    else:
        keys = _parsed(text, block.file)
    known = target.sizes.values
    exists = target.sizes.tensors.keys() | target.sizes.tied.keys()
    try:
        back = bind_sizes(
            family, layout, keys, {}, lambda name: False, block.file,
            infer=lambda axis, _: (known[axis], "") if isinstance(known.get(axis), int) else None, accepted=accepted, lacks=lambda name: name not in target.sizes.tensors,
        )  # fmt: skip
    except MappingError as error:
        raise MappingError(*(_cannot(target, d.title, d.notes) for d in error.diagnostics)) from None
    bound = {x.name for x in block.items if isinstance(x, Bind)}
    faults = [*_settings(target, family, back, accepted), *_params(target, back, bound, accepted)]
    optional = {t.name for t in family.model.tensors if t.optional}
    if text is None:  # which layers have a tensor is said in ways that are not solved for
        optional |= {t.name for t in family.model.tensors if t.where is not None}
    expected = (back.tensors.keys() | back.tied.keys()) - {*target.omitted, *optional}
    for name in sorted(((exists - optional) ^ expected) - accepted):
        says = "does not say that the model has it" if name in exists else "says that the model has it, which it has not"
        faults.append(_cannot(target, f"the config of layout `{target.layout}` cannot say all of this model: of `{name}` it {says}", (), name))
    for name in sorted((exists & expected) - accepted):
        here, there = target.sizes.tensors.get(name), back.tensors.get(name)
        if here is not None and there is not None and here.picked != there.picked:
            faults.append(_cannot(target, f"the config of layout `{target.layout}` cannot say which layers have `{name}`", (), name))
    if faults and not given:
        raise MappingError(*faults)
    return tuple(fault.title for fault in faults)


def _settings(target: Side, family: Family, back: Sizes, accepted: frozenset[str]) -> Iterator[Diagnostic]:
    """Settings and sizes that come out otherwise."""
    optional = {t.name for t in family.model.tensors if t.optional}  # they tell their own sizes, where they are
    used = {axis for name, tensor in target.sizes.tensors.items() if name not in optional for axis in tensor.axes}
    names = [s.name for s in family.model.settings if not s.hint] + [a.name for a in family.model.axes if a.name in used]
    for name in names:
        value, read = target.sizes.values.get(name), back.values.get(name)
        if value is None or name in accepted or same(value, read):
            continue
        origin = target.sizes.origins.get(name)
        notes = (f"{name} = {shown(value)}" + (f" comes from {origin}" if origin else ""), f"the result would be read with {name} = {shown(read)}")
        yield _cannot(target, f"layout `{target.layout}` cannot say that {name} is {shown(value)}", notes, name)


def _params(target: Side, back: Sizes, bound: set[str], accepted: frozenset[str]) -> Iterator[Diagnostic]:
    """Parameters of the layout that its config says, and says otherwise."""
    for name, value in {**target.params, **target.ranks}.items():
        if name in bound and name not in accepted and name in back.params and not same(back.params[name], value):
            notes = (f"the result would be read with {name} = {shown(back.params[name])}",)
            yield _cannot(target, f"the config of layout `{target.layout}` cannot say that {name} is {shown(value)}", notes, name)


def _cannot(target: Side, title: str, notes: tuple[str, ...], name: str = "") -> Diagnostic:
    help = f"if it makes no difference to this model, --accept {name} writes it all the same" if name else ""
    return Diagnostic("unsayable", title, (Label(target.span),), notes, help)


def _parsed(text: str, file: str) -> dict[str, Any]:
    import yaml

    data = json.loads(text) if file.endswith(".json") else yaml.safe_load(text)
    return dict(data) if isinstance(data, Mapping) else {}
