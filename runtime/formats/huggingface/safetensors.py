"""The format `safetensors`: HuggingFace's checkpoints."""

from __future__ import annotations

from functools import partial

from ...files.format import Contents, Format, Found, LaidOut, Tensors
from ...files.shards import lay_out_files
from .find import compare_index, find_flat
from .safetensors_read import read_safetensors
from .safetensors_write import lay_out_safetensors

STEM, SUFFIX = "model", "safetensors"


def _read(found: Found) -> Contents:
    entries, bare = [], []
    metadata = {}
    for file in found.files:
        header = read_safetensors(found.place(file)[0], file)
        held, metadata[file] = list(header.entries), dict(header.metadata)
        compare_index(found, file, held)
        entries += held
        if not held:
            bare.append(file)
    return Contents(found.format, entries, bare=bare, metadata=metadata)


def _lay_out(tensors: Tensors) -> LaidOut:
    return lay_out_files(tensors, STEM, SUFFIX, lambda _, members: lay_out_safetensors([tensors.described(i) for i in members], tensors.metadata))


FORMAT = Format("safetensors", _lay_out, partial(find_flat, format=SUFFIX, stem=STEM), _read, suffixes=(".safetensors",), has_metadata=True)
