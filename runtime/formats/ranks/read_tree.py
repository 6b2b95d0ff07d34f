"""A torch file in, of this container or of xser; its value as a tree and its tensors as entries, out."""

from __future__ import annotations

from typing import Any

from ...fault import Fault
from ...files.window import Entry
from ..torch.pickle_names import Malformed, Reference, Size, TensorRef, Token
from ..torch.tensor_tree import Leaf
from ..torch.torch_file import entry_of, read_value
from .xser import read_references


def read_tree(path: str, file: str, prefix: str = "", known: dict[bytes, Any] | None = None) -> tuple[Any, list[Entry], bool]:
    """The tree, the tensors in its order, and whether they lie in files of their own.

    A tensor is called by the keys that lead to it, joined with dots, after `prefix`. `known` is kept between files of one
    checkpoint: many hold the same pickle.
    """
    records, top = read_value(path, file, known=known)
    tensors: dict[str, TensorRef | Reference] = {}

    def walk(value: Any, name: str) -> Any:
        match value:
            case TensorRef() | Reference():
                if name in tensors:
                    raise Fault("duplicate-tensor", f"`{name}` occurs twice in `{file}`")
                tensors[name] = value
                return Leaf(prefix + name)
            case dict() if all(isinstance(key, (str, int, float, type(None))) for key in value):
                return {key: walk(item, f"{name}.{key}" if name else str(key)) for key, item in value.items()}
            case None | bool() | int() | float() | str() | Token() | Size():
                return value
            case list():
                return [walk(item, f"{name}.{i}") for i, item in enumerate(value)]
            case tuple():
                return tuple(walk(item, f"{name}.{i}") for i, item in enumerate(value))
        raise Fault(
            "odd-value", f"`{name}` in `{file}` is neither a tensor nor a plain value, and would be lost",
            help="save it elsewhere: numbers, texts, lists and dicts are kept",
        )  # fmt: skip

    try:
        tree = walk(top, "")
        inside = [entry_of(path, file, prefix + n, t, records) for n, t in tensors.items() if isinstance(t, TensorRef)]
    except (Malformed, RecursionError) as problem:
        reason = str(problem) if isinstance(problem, Malformed) else "it is nested too deeply"
        raise Fault("bad-pickle", f"`{file}` is damaged or not a file of tensors: {reason}") from None
    references = {prefix + name: each.tid for name, each in tensors.items() if isinstance(each, Reference)}
    outside = read_references(path, file, references)
    absent = references.keys() - {entry.name for entry in outside}
    if absent:
        raise Fault("missing-file", f"`{file}` has no file of its own for {len(absent)} of its tensors", notes=tuple(sorted(absent)[:5]))
    by_name = {entry.name: entry for entry in (*inside, *outside)}
    return tree, [by_name[prefix + name] for name in tensors], bool(references)
