"""Tensors in, torch files with several tensors each out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ...files.file_layout import FileLayout
from ...files.format import LaidOut, Tensors
from ...files.shards import lay_out_files
from .pickle_write import Slot, pickle_value
from .tensor_tree import fill
from .zip_write import lay_out, without_tensors


def lay_out_torch_files(
    tensors: Tensors, stem: str, suffix: str, tree_of: Callable[[str, Sequence[str]], Any] | None = None, one: bool = False
) -> LaidOut:
    """Files whose tensors stand in a dict, or at the leaves of a tree: that of `tensors.trees`, or what `tree_of` makes of the
    file's name and the names of its tensors. Files of `tensors.bare` and trees without tensors are texts."""

    def tree(file: str, names: Sequence[str]) -> Any:
        return tree_of(file, names) if tree_of is not None else tensors.trees.get(file)

    known: dict[Any, tuple[Any, bytes]] = {}  # ranks that hold one tree with tensors of equal shapes have one pickle

    def pickled(around: Any, described: Sequence[tuple[str, str, tuple[int, ...]]]) -> bytes:
        key = id(around), tuple(described)
        if key not in known:
            slots = {each[0]: Slot(str(i), each[1], each[2]) for i, each in enumerate(described)}
            known.clear()
            known[key] = around, pickle_value(fill(around, slots))
        return known[key][1]

    def layout_of(file: str, members: Sequence[int]) -> FileLayout:
        described = [tensors.described(i) for i in members]
        around = tree(file, [each[0] for each in described])
        value = pickled(around, described) if around is not None else None
        return lay_out(described, file.rsplit("/", 1)[-1].split(".")[0], pickled=value)

    found = lay_out_files(tensors, stem, suffix, layout_of, one)
    written = {file.name for file in found.files}
    texts = [(name, whole_file(value, name)) for name, value in tensors.trees.items() if name not in written]
    bare = [(name, whole_file(tree(name, []) or {}, name)) for name in tensors.bare]
    return replace(found, texts=(*found.texts, *texts, *bare))


def whole_file(value: object, name: str) -> bytes:
    """A torch file of a value without tensors; `name` is the file's."""
    return without_tensors(value, name.rsplit("/", 1)[-1].removesuffix(".pt"))
