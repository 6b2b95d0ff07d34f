"""The format `pt`: torch files, one for each rank. Reads those of NxD (xser's too), Megatron-LM and NeMo's training runs."""

from __future__ import annotations

from dataclasses import replace

from ...files.format import Contents, Format, Found, LaidOut, Tensors
from ...files.window import Entry
from ..megatron.rank_file import chunks_of
from ..nemo.training_run import called_as_in_archives, is_of_training, settings_of_ranks
from ..torch.lay_out import lay_out_torch_files
from ..torch.torch_file import read_torch_file
from .find import SUFFIXES, find_ranks
from .xser import read_references


def _read(found: Found) -> Contents:
    entries: list[Entry] = []
    others: list[tuple[str, str]] = []
    format = found.format
    for file in found.files:
        path = found.place(file)[0]
        content = read_torch_file(path, file, chunks_of=chunks_of)
        entries += content.entries
        others += [(file, key) for key in content.others]
        if content.references:
            format = "xser"
            entries += read_references(path, file, content.references)
    holding = {entry.file for entry in entries}
    bare = [file for file in found.files if file not in holding]
    if format == found.format and is_of_training(found.files, others):
        entries = [replace(entry, file=called_as_in_archives(entry.file)) for entry in entries]
        bare = [called_as_in_archives(file) for file in bare]
    return Contents(format, entries, others, bare)


def _lay_out(tensors: Tensors) -> LaidOut:
    return lay_out_torch_files(tensors, "pytorch_model", "bin")


FORMAT = Format("pt", _lay_out, find_ranks, _read, suffixes=SUFFIXES, settings_file=settings_of_ranks)
