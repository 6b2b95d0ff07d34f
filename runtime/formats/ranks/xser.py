"""xser checkpoints: a rank file holds references, each tensor lies in a file of its own. Both ways.

    dp_rank_00_tp_rank_00_pp_rank_00.pt                       dict: name -> TensorReference(tid)
    dp_rank_00_tp_rank_00_pp_rank_00.pt.info.pt               dict: tid -> {dtype, shape, expert_model_parallel}
    dp_rank_00_tp_rank_00_pp_rank_00.pt.tensors/tensor_<tid>.pt   one tensor

Source: torch_xla.utils.serialization and neuronx_distributed/trainer/checkpoint.py. Expert parallel ranks above 0
reference all their tensors, but have files only for those that are cut by experts: all others are in the folder of
ep_rank_00. The framework's own converter writes whole tensors and an empty folder; that is an ordinary rank file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...fault import Fault
from ...files.file_layout import FileLayout, TargetFile
from ...files.format import Format, LaidOut, Tensors
from ...files.shards import by_file
from ...files.window import Entry
from ..torch.lay_out import whole_file
from ..torch.pickle_names import Reference, Size, Token
from ..torch.pickle_write import Slot
from ..torch.tensor_tree import fill
from ..torch.torch_file import read_torch_file, read_value
from ..torch.zip_write import lay_out

FOLDER, INFO = ".tensors", ".info.pt"
_EXPERT_RANK = re.compile(r"ep_rank_(\d+)")


def tensor_file(file: str, tid: int) -> str:
    """The file of tensor `tid` that rank file `file` references."""
    return f"{file}{FOLDER}/tensor_{tid}.pt"


def read_references(path: str, file: str, references: Mapping[str, int]) -> list[Entry]:
    """The entries of the tensors that the rank file at `path` references, without those of ep_rank_00's folder."""
    info = _info(path, file)
    shared = file_of_shared(file) != file
    found: list[Entry] = []
    missing: list[str] = []
    for name, tid in references.items():
        at = tensor_file(path, tid)
        if not os.path.isfile(at):
            if shared and not info.get(tid, {}).get("expert_model_parallel"):
                continue
            missing.append(f"{tensor_file(file, tid)}: {name}")
            continue
        held = read_torch_file(at, tensor_file(file, tid)).entries
        if len(held) != 1:
            raise Fault("bad-xser", f"`{tensor_file(file, tid)}` holds {len(held)} tensors, not the one of `{name}`")
        entry = replace(held[0], name=name, file=file)
        _compare(entry, info.get(tid), tensor_file(file, tid))
        found.append(entry)
    if missing:
        more = (f"... and {len(missing) - 5} more",) if len(missing) > 5 else ()
        raise Fault(
            "missing-file", f"`{file}` references {len(missing)} tensor file{'s' * (len(missing) > 1)} that are not there",
            notes=(*missing[:5], *more), help="copy the folder of its tensors whole, beside it",
        )  # fmt: skip
    return found


def file_of_shared(file: str) -> str:
    """The rank file in whose folder the tensors are that expert parallel ranks share with it."""
    folder, slash, name = file.rpartition("/")
    return folder + slash + _EXPERT_RANK.sub(lambda m: f"ep_rank_{0:0{len(m[1])}}" if int(m[1]) else m[0], name)


def _info(path: str, file: str) -> dict[int, dict[str, object]]:
    """What the info file says of each tensor; older checkpoints have none."""
    if not os.path.isfile(path + INFO):
        return {}
    _, top = read_value(path + INFO, file + INFO)
    if not isinstance(top, dict) or not all(type(tid) is int and isinstance(each, dict) for tid, each in top.items()):
        raise Fault("bad-xser", f"`{file + INFO}` does not describe tensors by number")
    return top


def _compare(entry: Entry, said: Mapping[str, object] | None, file: str) -> None:
    """The info file and the tensor's own file tell the same."""
    if said is None:
        return
    shape, dtype = said.get("shape"), said.get("dtype")
    if shape != entry.shape or dtype not in (None, Token(f"torch.{entry.dtype}")):
        name = dtype.name if isinstance(dtype, Token) else dtype
        raise Fault(
            "bad-xser", f"`{file}` holds a {entry.dtype} of shape {list(entry.shape)}",
            notes=(f"the info file says {name} of shape {list(shape) if isinstance(shape, tuple) else shape}",),
            help="the checkpoint is damaged, or mixed from two: copy it again",
        )  # fmt: skip


def lay_out_tensor(name: str, dtype: str, shape: tuple[int, ...], tid: int) -> FileLayout:
    """The file of one tensor."""
    return lay_out([(name, dtype, shape)], f"tensor_{tid}", Slot("0", dtype, shape))


def reference_files(
    file: str, tensors: Sequence[tuple[str, str, tuple[int, ...], bool]], tree: Any = None
) -> list[tuple[str, bytes]]:
    """The rank file that references `tensors` (name, dtype, shape, cut by experts), in this order, and its info file.

    The references stand in a dict, or at the leaves of `tree`.
    """
    names = {name: Reference(tid) for tid, (name, *_) in enumerate(tensors)}
    info = {
        tid: {"dtype": Token(f"torch.{dtype}"), "shape": Size(shape), "expert_model_parallel": by_experts}
        for tid, (_, dtype, shape, by_experts) in enumerate(tensors)
    }
    stem = file.rsplit("/", 1)[-1]
    return [(file, whole_file(names if tree is None else fill(tree, names), stem)), (file + INFO, whole_file(info, stem + INFO))]


def _lay_out(tensors: Tensors) -> LaidOut:
    """The files of each rank: those of its references, and one for each tensor that it does not share with ep_rank_00."""
    groups, texts = by_file(tensors, "pytorch_model", "pt")
    texts += [(name, whole_file(tree, name)) for name, tree in tensors.trees.items() if name not in groups]
    copies, cut = tensors.copies(), tensors.cut()
    files: list[TargetFile] = []
    spots = [(-1, 0)] * len(tensors.names)
    for name, members in groups.items():
        if all(copies[i] for i in members):
            raise Fault(
                "empty-rank", f"`{name}` would only reference tensors of another rank's folder, and no reader could tell that it is there",
                help="write it with --format pt",
            )  # fmt: skip
        described = [tensors.described(i) for i in members]
        references = [(*each, cut[i]) for each, i in zip(described, members, strict=True)]
        texts += reference_files(name, references, tensors.trees.get(name))
        for tid, (i, tensor) in enumerate(zip(members, described, strict=True)):
            if not copies[i]:
                spots[i] = (len(files), 0)
                files.append(TargetFile(tensor_file(name, tid), lay_out_tensor(*tensor, tid), (i,)))
    return LaidOut(tuple(files), spots, tuple(texts))


FORMAT = Format("xser", _lay_out, names_files=False)
