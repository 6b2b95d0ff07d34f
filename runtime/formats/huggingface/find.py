"""A folder in; the files of tensors that lie directly in it, as HuggingFace has them, out.

    model.safetensors                                          one file
    model-00001-of-00002.safetensors, ...                      shards
    model.safetensors.index.json                               which tensor is in which shard
"""

from __future__ import annotations

import json
import os
import re

from ...fault import Fault
from ...files.format import Found
from ...files.places import Place
from ...files.window import Entry
from ...situations.situations import PARTS, refuse_names

_NUMBERED = re.compile(r"(.+)-(\d+)-of-(\d+)(\.\w+)$")
_NO_WEIGHTS = {"training_args.bin", "optimizer.bin", "scheduler.bin"}
_MIXED = "the index and the files are of two checkpoints: download or copy both again, or remove the index to take the files as they are"


def find_flat(place: Place, format: str, stem: str) -> Found | None:
    """The files `*.format` of a folder: those of its index, or the file called `stem`, or its shards, or all. Or a file."""
    suffix = f".{format}"
    if place.is_file and place.path.endswith(suffix):
        folder, name = os.path.split(place.path)
        refuse_names(place.path, [name], PARTS)
        return Found(folder, format, (name,), flat=True, one=True)
    if not place.is_folder:
        return None
    plain = [name for name in place.names() if os.path.isfile(os.path.join(place.path, name))]
    index = f"{stem}{suffix}.index.json"
    if index in plain:
        return _indexed(place.path, format, index)
    files = [name for name in plain if name.endswith(suffix) and name not in _NO_WEIGHTS]
    if f"{stem}{suffix}" in files:
        files = [f"{stem}{suffix}"]
    files = [name for name in files if name.startswith(f"{stem}-")] or files
    if not files:
        return None
    _refuse_missing_numbers(place.path, files)
    return Found(place.path, format, tuple(files), flat=True)


def compare_index(found: Found, file: str, held: list[Entry]) -> None:
    """Raises `Fault` where the index and a file list different tensors."""
    if file not in found.index:
        return
    names, path = {entry.name for entry in held}, found.root
    absent, unlisted = sorted(found.index[file] - names), sorted(names - found.index[file])
    if absent:
        title = f"the index of `{path}` places `{absent[0]}` in `{file}`, which does not have it"
        raise Fault("index-mismatch", title, notes=tuple(absent[1:6]), help=_MIXED)
    if unlisted:
        title = f"`{file}` of `{path}` has `{unlisted[0]}`, which the index does not place there"
        raise Fault("index-mismatch", title, notes=tuple(unlisted[1:6]), help=_MIXED)


def _indexed(root: str, format: str, index: str) -> Found:
    """The files of an index, all of them there."""
    place = os.path.join(root, index)
    try:
        with open(place, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError, RecursionError) as problem:
        raise Fault("bad-index", f"`{place}` is not JSON ({type(problem).__name__})") from None
    weights = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(file, str) for file in weights.values()):
        raise Fault("bad-index", f"`{place}` has no `weight_map` from tensors to files")
    expected: dict[str, set[str]] = {}
    for name, file in weights.items():
        expected.setdefault(file, set()).add(name)
    for file in expected:
        if os.path.isabs(file) or ".." in file.split("/") or "\0" in file or not file:
            raise Fault("bad-index", f"`{place}` names file {file!r}, which is not one beside it")
    missing = sorted(file for file in expected if not os.path.isfile(os.path.join(root, file)))
    if missing:
        beside = f"{len(missing):,} of the {len(expected):,} files that it lists are missing"
        more = (f"... and {len(missing) - 6} more",) if len(missing) > 6 else ()
        raise Fault(
            "missing-file", f"`{place}` lists `{missing[0]}`, which is not there", notes=(beside, *missing[1:6], *more),
            help="download or copy them too; they have all to be in the folder of the index",
        )  # fmt: skip
    return Found(root, format, tuple(sorted(expected)), True, {k: frozenset(v) for k, v in expected.items()})


def _refuse_missing_numbers(root: str, files: list[str]) -> None:
    """Shards `x-00001-of-0000N` come in full."""
    series: dict[tuple[str, int, str], set[int]] = {}
    for match in filter(None, map(_NUMBERED.match, files)):
        series.setdefault((match[1], int(match[3]), match[4]), set()).add(int(match[2]))
    for (stem, count, suffix), numbers in series.items():
        if len(numbers) != count:
            have = f"{len(numbers)} of {count} shards"
            raise Fault("missing-file", f"`{root}` holds {have} of `{stem}-*-of-{count:05}{suffix}`")
