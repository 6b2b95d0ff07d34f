"""The format `bin`: HuggingFace's older checkpoints, torch files called `pytorch_model.bin`."""

from __future__ import annotations

from functools import partial

from ...files.format import Contents, Format, Found, LaidOut, Tensors
from ..megatron.rank_file import chunks_of
from ..torch.lay_out import lay_out_torch_files
from ..torch.torch_file import read_torch_file
from .find import compare_index, find_flat

STEM, SUFFIX = "pytorch_model", "bin"


def _read(found: Found) -> Contents:
    entries, others = [], []
    for file in found.files:
        content = read_torch_file(*found.place(file)[:1], file, chunks_of=chunks_of)
        compare_index(found, file, content.entries)
        entries += content.entries
        others += [(file, key) for key in content.others]
    holding = {entry.file for entry in entries}
    return Contents(found.format, entries, others, [file for file in found.files if file not in holding])


def _lay_out(tensors: Tensors) -> LaidOut:
    return lay_out_torch_files(tensors, STEM, SUFFIX)


FORMAT = Format("bin", _lay_out, partial(find_flat, format=SUFFIX, stem=STEM), _read, suffixes=(".bin",))
