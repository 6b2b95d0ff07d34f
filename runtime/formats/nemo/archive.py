"""A .nemo archive in, its members out, without unpacking it: a tar of a config, artifacts and one torch file per rank.

    model_config.yaml                                the model's config
    <32 hex digits>_tokenizer.model                  an artifact; the config says `nemo:` and this name
    model_weights.ckpt                               the weights, or of each rank
    mp_rank_01/model_weights.ckpt                    where only tensor parallel ranks divide them
    tp_rank_01_pp_rank_002/model_weights.ckpt        where stages do too
    model_weights/metadata.json                      or a distributed checkpoint

Archives of old releases are compressed: they are decompressed to a temporary file, which goes when nobody holds it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any
from weakref import WeakValueDictionary

from ...fault import Fault
from ...files.places import Archive
from .gunzip import GZIP, decompress
from .tar_members import read_members

SUFFIX, CONFIG, WEIGHTS = ".nemo", "model_config.yaml", "model_weights.ckpt"
WRAPPERS = ("model", "cfg")
_RANK = re.compile(r"(?:(?:mp_rank_\d+|tp_rank_\d+_pp_rank_\d+)/)?model_weights\.ckpt")
_SHARDED = re.compile(r"(?:\w+_)?fsdp_shard_\d+/model_weights\.ckpt")
_NUMBER = re.compile(r"[0-9a-f]{32}_(?=.)")


_decompressed: WeakValueDictionary[tuple[str, int, int], Archive] = WeakValueDictionary()


def open_archive(path: str) -> Archive:
    """The archive at `path`; a compressed one is decompressed once, as long as anyone holds what this returns."""
    try:
        with open(path, "rb") as file:
            start, facts = file.read(len(GZIP)), os.fstat(file.fileno())
    except OSError as problem:
        raise Fault("unreadable-file", f"`{path}` cannot be opened: {problem.strerror}") from None
    if start != GZIP:
        return Archive(path, read_members(path))
    key = os.path.realpath(path), facts.st_size, facts.st_mtime_ns
    known = _decompressed.get(key)
    if known is None:
        spool = decompress(path)
        note = f"{path} is compressed, as by NeMo before 1.7: {spool.nbytes:,} bytes of it stand in {spool.folder} meanwhile"
        known = _decompressed[key] = Archive(spool.path, read_members(spool.path, path), (note,), spool)
    return known


def weights_of(path: str, names: Iterable[str]) -> tuple[str, ...]:
    """The torch files among the members, or the files of a folder that an archive was unpacked to; faults for other kinds."""
    every = list(names)
    found = tuple(sorted(name for name in every if _RANK.fullmatch(name)))
    sharded = next((name for name in every if _SHARDED.fullmatch(name)), None)
    if sharded is not None:
        raise Fault(
            "fsdp-checkpoint", f"`{path}` holds `{sharded}`, a shard of FSDP, which does not hold whole tensors",
            help="save it with NeMo as a full checkpoint first",
        )  # fmt: skip
    return found


def plain_name(name: str) -> str:
    """An artifact's own name, without the number that NeMo puts before it."""
    return _NUMBER.sub("", name, count=1) if _NUMBER.match(name) else name


def unwrap(config: dict[str, Any]) -> dict[str, Any]:
    """The model's own settings; whole training configs have them under `model`, a run's hparams.yaml under `cfg`."""
    inner = (config.get(key) for key in WRAPPERS)
    return next((each for each in inner if isinstance(each, dict)), config)
