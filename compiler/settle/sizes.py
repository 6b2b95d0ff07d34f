"""A family and a config in; axis sizes, settings and the tensors that exist out.

Sizes come from a config file through the layout that has a `config` block for it, and each remembers the key
that gave it. Guards of the model are settled here: what comes out holds only tensors that exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ...dsl.diagnostic import Diagnostic, Label, MappingError, fault
from ...dsl.nearest import did_you_mean
from ...dsl.tree import AxisDecl, Binary, Bind, Conditional, Config, Expr, Ref, Require, Setting, TensorDecl
from ..check.check_config import check_identity, check_only, unknown_keys
from ..identify.infer import Infer
from ..link.flat import Family, FlatLayout
from ..values.pick import Picked, axes_of, check_where, empty, foreign_indices, named, pick
from ..values.scope import LARGEST, Scope, holds, shown
from ..values.walk_expr import reads_keys, refs

Scalar = int | float | str | bool | None


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model: its axes and their sizes, row-major. `picked`: of these axes it has only those indices."""

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    picked: Picked = ()

    @property
    def elements(self) -> int:
        """How many elements it has."""
        fewer = {axis: len(indices) for axis, indices in self.picked}
        return math.prod(fewer.get(axis, n) for axis, n in zip(self.axes, self.shape, strict=True))


@dataclass(frozen=True)
class Sizes:
    """What the config says of the model: axis sizes, settings, and where each came from."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    tied: Mapping[str, str]
    absent: frozenset[str]
    params: Mapping[str, Any] = field(default_factory=dict)  # parameters of the config's layout that the config says
    unknown: tuple[str, ...] = ()  # keys of the config that its block does not mention


def bind_sizes(
    family: Family,
    config_layout: FlatLayout | None,
    keys: Mapping[str, Any] | None,
    given: Mapping[str, Scalar],
    stored: Callable[[str], bool],
    key_file: str = "",
    may_be_absent: frozenset[str] = frozenset(),
    infer: Infer = lambda axis, known: None,
    accepted: frozenset[str] = frozenset(),
    lacks: Callable[[str], bool] | None = None,
) -> Sizes:
    """Evaluate the config block of `config_layout` on `keys`; `given` (from the command line) wins over both.

    `may_be_absent`: tensors that do not exist unless they are `stored`, beside those that the model calls optional.
    `infer` tells the size of an axis that all of these leave open. `accepted`: config keys that may have any value.
    `lacks` says which tensors a checkpoint has not, where that is more than that they are not `stored`.
    """
    model = family.model
    config = config_layout.config if config_layout else None
    names = [*(a.name for a in model.axes), *(s.name for s in model.settings)]
    params = {p.name: p for p in config_layout.params if p.name not in names} if config_layout else {}
    scope = Scope(
        keys=keys or {}, key_file=key_file or (config.file if config else "config"), functions={"stored": stored, "lacks": lacks or (lambda name: not stored(name))},
        words=config_layout.words if config_layout else frozenset(), accepted=accepted,
    )  # fmt: skip
    if config is not None:
        check_identity(config, scope)
    bound = _bound(config, [*names, *params], model.name)
    scope.lazy = {name: param.default for name, param in params.items()} | {name: bind.value for name, bind in bound.items() if bind.value}
    for setting in model.settings:
        scope.lazy[setting.name] = _of_setting(setting, bound.get(setting.name))
    for name, value in given.items():
        scope.names[name] = value
        scope.origins[name] = f"--set {name}"
    for require in _requires(model.requires, config_layout):
        check_requirement(require, scope)
    faults: MappingError | None = None
    try:
        axes = {axis.name for axis in model.axes}  # an axis' size may follow from others that only the tensors tell
        for setting in model.settings:
            if setting.name not in axes:
                scope.lookup(Ref(setting.name, setting.span))
        if config is not None and keys is not None:
            check_only(config, scope)
    except MappingError as error:
        faults = error
    optional = may_be_absent | {t.name for t in model.tensors if t.optional}
    try:
        tensors, tied, absent = _tensors(family, scope, lambda name: name in optional and not stored(name), infer)
    except MappingError as error:
        if faults is None or any(d.code == "bad-size" for d in error.diagnostics):
            raise  # a setting that is calculated from a size fails with it
        raise faults from None
    if faults is not None:
        raise faults
    for axis in model.axes:  # sizes that no tensor here needs are known where the config tells them
        if axis.name in scope.lazy:
            with suppress(MappingError):
                scope.lookup(Ref(axis.name, axis.span))
    said = {name: scope.lookup(Ref(name, bind.span)) for name, bind in bound.items() if name in params} if keys is not None else {}
    scope.functions = {}
    values = {n: scope.names[n] for n in names if n in scope.names}
    unknown = unknown_keys(config, config_layout, keys) if config is not None and config_layout is not None and keys else ()
    return Sizes(values, dict(scope.origins), tensors, tied, absent, {n: v for n, v in said.items() if v is not None}, unknown)


def _bound(config: Config | None, names: list[str], model: str) -> dict[str, Bind]:
    """The config's entries by the names that they bind."""
    for entry in config.entries if config else ():
        if entry.name not in names:
            raise fault(
                "unknown-entry", f"`{model}` has no axis or setting `{entry.name}`, nor the layout a parameter", entry.span,
                help=did_you_mean(entry.name, sorted(names), "declare it in the model's `axes` or `settings`"),
            )  # fmt: skip
    return {entry.name: entry for entry in config.entries} if config else {}


def _of_setting(setting: Setting, bind: Bind | None) -> Expr:
    """Its value from the config, else its own; its own wherever its `when` does not hold."""
    value = setting.value if bind is None or bind.value is None else Binary("??", bind.value, setting.value, bind.span)
    return value if setting.when is None else Conditional(setting.when, value, setting.value, setting.span)


def _requires(of_model: tuple[Require, ...], layout: FlatLayout | None) -> tuple[Require, ...]:
    """The model's own, and those of the config's layout that read the config."""
    of_layout = tuple(x for x in layout.requires if reads_keys(x.test)) if layout else ()
    return of_model + of_layout


def check_requirement(require: Require, scope: Scope) -> None:
    if holds(require.when, scope) and not holds(require.test, scope):
        used = [r for r in dict.fromkeys(refs(require.test)) if r in scope.names]
        notes = tuple(
            f"{name} = {scope.names[name]}" + (f" comes from {scope.origins[name]}" if scope.origins.get(name) else "")
            for name in used
        )
        raise MappingError(
            Diagnostic("unmet-requirement", require.message, (Label(require.test.span, "does not hold"),), notes, require.help)
        )


def _tensors(
    family: Family, scope: Scope, missing: Callable[[str], bool], infer: Infer
) -> tuple[dict[str, Tensor], dict[str, str], frozenset[str]]:
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    absent: set[str] = set()
    axes = {a.name for a in family.model.axes}
    declared = {t.name for t in family.model.tensors}
    faults: list[Diagnostic] = []
    for decl in family.model.tensors:
        exists = holds(decl.when, scope)
        if decl.tied_to is not None and exists:
            if decl.tied_to not in declared:
                raise fault(
                    "unknown-tied", f"`{decl.name}` is tied to `{decl.tied_to}`, which the model does not have", decl.span,
                    help=did_you_mean(decl.tied_to, sorted(declared), "tie it to a tensor of this model"),
                )  # fmt: skip
            tied[decl.name] = decl.tied_to
            continue
        if (decl.tied_to is None and not exists) or missing(decl.name):
            absent.add(decl.name)
            continue
        try:
            picked = _picked(decl, family, scope, infer)
        except MappingError as error:
            faults.extend(error.diagnostics)
            continue
        if empty(picked):
            absent.add(decl.name)
            continue
        shape = []
        for axis in decl.axes:
            if axis.name not in axes:
                raise fault("undeclared-axis", f"the model has no axis `{axis.name}`", axis.span, help=did_you_mean(axis.name, sorted(axes), "declare it in `axes`"))
            try:
                shape.append(_size_of(axis, decl, scope, infer))
            except MappingError as error:
                faults.extend(error.diagnostics)
        if math.prod(shape) >= LARGEST:
            faults.append(Diagnostic("too-many-elements", f"`{decl.name}` has more elements than any checkpoint", (Label(decl.span),), tuple(_origins(decl, scope))))
        tensors[decl.name] = Tensor(decl.name, tuple(a.name for a in decl.axes), tuple(shape), picked)
    if faults:
        raise MappingError(*dict.fromkeys(faults))
    return tensors, {name: _end_of(name, tied, family) for name in tied}, frozenset(absent)


def _picked(decl: TensorDecl, family: Family, scope: Scope, infer: Infer) -> Picked:
    """The indices at which the tensor exists, if not at all."""
    if decl.where is None:
        return ()
    selects = {s.name: s for s in family.model.selects}
    check_where(decl.where, selects, decl.span)
    if wrong := tuple(foreign_indices(decl, selects)):
        raise MappingError(*wrong)
    axes = {a.name: a for a in (*family.model.axes, *decl.axes)}
    sizes = {name: _size_of(axes[name], decl, scope, infer) for name in (*axes_of(decl.where, selects), *named(decl.where, selects)) if name in axes}
    return pick(decl.where, sizes, selects, scope, decl.span)


def _size_of(axis: AxisDecl, decl: TensorDecl, scope: Scope, infer: Infer) -> int:
    size = scope.lookup(Ref(axis.name, axis.span)) if axis.name in scope.names or axis.name in scope.lazy else None
    if size is None and (told := infer(axis.name, scope.names)) is not None:
        size, scope.origins[axis.name] = told
        scope.names[axis.name] = size
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    why, help = f"`{decl.name}` needs it", f"pass a config that gives it with --config, or --set {axis.name}=N"
    if size is None:
        raise fault("unbound-axis", f"axis `{axis.name}` has no size", axis.span, why, help=help)
    origin = scope.origins.get(axis.name)
    notes = (f"{axis.name} = {shown(size)} comes from {origin}",) if origin else ()
    title = f"axis `{axis.name}` is {shown(size)}, not a whole number from 1"
    raise fault("bad-size", title, axis.span, why, notes=notes, help=help)


def _origins(decl: TensorDecl, scope: Scope) -> list[str]:
    return [f"{a.name} = {shown(scope.names.get(a.name))} comes from {scope.origins.get(a.name) or 'the mapping'}" for a in decl.axes]


def _end_of(name: str, tied: Mapping[str, str], family: Family) -> str:
    """The tensor that a tie, or a chain of ties, ends at."""
    at, seen = name, {name}
    while at in tied:
        at = tied[at]
        if at in seen:
            decl = next(t for t in family.model.tensors if t.name == name)
            raise fault("circular-tie", f"`{name}` is tied to itself", decl.span, help="tie it to a tensor that is stored on its own")
        seen.add(at)
    return at
