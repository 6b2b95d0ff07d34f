"""A checkpoint whose tensors have the names of a wrapper around the model in, one with the model's own names out.

DistributedDataParallel and Megatron's Float16Module put `module.` before names, torch.compile `_orig_mod.`; training loops
save {"model": ...}, which distributed checkpoints spell as a prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..compiler.identify.match import Found, Names
from ..compiler.link.flat import Family
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.files.indexed import by_index
from ..runtime.files.window import Entry
from .glance import whole_fits

_WRAPPER = re.compile(r"(?:(?<=\.)|^)(?:(?:_orig_mod|module)\.)+")
_AROUND = ("model.", "state_dict.")


def without_wrappers(checkpoint: Checkpoint, families: Iterable[Family], patterns: Iterable[str] = ()) -> Checkpoint:
    """The checkpoint under the first names that some layout spells all of: its own, else those without wrappers.

    Where none does, it is as it was. `patterns` are of stacked tensors, as `by_index` has them."""
    forms = tuple(_unwrapped(checkpoint.entries))
    if not forms:
        return checkpoint
    known, spelled = tuple(families), tuple(patterns)
    for entries, said in ((checkpoint.entries, ""), *forms):
        found = Names(Found(e.file, e.name, e.dtype, e.shape) for e in by_index(entries, spelled))
        if whole_fits(known, found):
            note = f"names of tensors are read without {said}, of a wrapper around the model"
            return replace(checkpoint, entries=entries, notes=(*checkpoint.notes, note)) if said else checkpoint
    return checkpoint


def _unwrapped(entries: tuple[Entry, ...]) -> Iterator[tuple[tuple[Entry, ...], str]]:
    """The entries under other names, and what these lack; none where two would have one name."""
    wrapped = any("_orig_mod." in e.name or "module." in e.name for e in entries)
    bare = tuple(replace(e, name=_WRAPPER.sub("", e.name)) for e in entries) if wrapped else entries
    said = sorted({part for e in entries for hit in _WRAPPER.finditer(e.name) for part in re.findall(r"_orig_mod\.|module\.", hit[0])}) if wrapped else []
    if said and _differ(bare):
        yield bare, " and ".join(f"`{each}`" for each in said)
    for prefix in _AROUND:
        if all(e.name.startswith(prefix) for e in bare):
            inner = tuple(replace(e, name=e.name.removeprefix(prefix)) for e in bare)
            if _differ(inner):
                yield inner, " and ".join(f"`{each}`" for each in (*said, prefix))


def _differ(entries: tuple[Entry, ...]) -> bool:
    return len({(e.file, e.name) for e in entries}) == len(entries) and all(e.name for e in entries)
