"""A path in; the torch files of ranks, or the one torch file, out.

    model/dp_rank_00_tp_rank_00_pp_rank_00.pt        NxD
    mp_rank_00/model_optim_rng.pt                    Megatron-LM
    mp_rank_00/NAME.ckpt                             a training run with NeMo
"""

from __future__ import annotations

import os
import re

from ...files.format import Found
from ...files.places import Place, is_hidden
from ...situations.situations import PARTS, refuse_names
from ..megatron.rank_file import RANK_FOLDER, STATE_FILES
from ..nemo.training_run import COMMON, RUN_SUFFIX, rank_files, refuse_several

SUFFIXES = (".pt", ".pth", ".ckpt")
DEPTH = 3  # how many folders deep rank files are looked for, the last one holding them
_OLD_RANK = re.compile(r"tp_rank_\d+_pp_rank_\d+")  # a rank file of NxD's first interface, saved with xser


def find_ranks(place: Place) -> Found | None:
    """A torch file, or all rank files of a folder; or those of a training run that are called as `place` would be."""
    path = place.path
    if place.is_folder:
        return _in_folder(place)
    folder, name = os.path.split(path)
    if not os.path.exists(path):
        ranks = rank_files(folder, name) if name.endswith(RUN_SUFFIX) else []
        return Found(folder or ".", "pt", tuple(ranks), flat=False) if ranks else None
    if not place.is_file or not (_OLD_RANK.fullmatch(name) or name.endswith(SUFFIXES)):
        return None
    refuse_names(path, [name], PARTS)
    return Found(folder, "pt", (name,), flat=True, one=True)


def _in_folder(place: Place) -> Found | None:
    ranks = _ranks(place.path, "model", 2) if "model" in place.names() else []
    ranks = ranks or _ranks(place.path, "", 1)
    if not ranks:
        return None
    refuse_names(place.path, ranks, PARTS)
    refuse_several(place.path, ranks)
    return Found(place.path, "pt", tuple(ranks), flat=False)


def _ranks(root: str, folder: str, depth: int) -> list[str]:
    """Torch files in `folder` and below it, without those of optimizers, of xser tensors, of their infos and of what is
    beside distributed tensors."""
    found: list[str] = []
    state = STATE_FILES if RANK_FOLDER.fullmatch(folder.rpartition("/")[2]) else ()
    for name in sorted(os.listdir(os.path.join(root, folder))):
        file = f"{folder}/{name}" if folder else name
        if is_hidden(name) or name in state:
            continue
        if os.path.isdir(os.path.join(root, file)):
            if depth < DEPTH and not name.endswith(".tensors") and name != "optim":
                found += _ranks(root, file, depth + 1)
        elif _OLD_RANK.fullmatch(name) or (name.endswith(SUFFIXES) and not name.endswith(".info.pt") and name != COMMON):
            found.append(file)
    return found
