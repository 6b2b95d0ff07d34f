"""What both backends of distributed checkpoints have in common: all tensors lie in one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...fault import Fault
from ...files.file_layout import TargetFile
from ...files.format import Contents, Found, LaidOut, Tensors
from .torch_dist_read import Distributed
from .torch_dist_write import Files, Texts

Described = Sequence[tuple[str, str, tuple[int, ...]]]


def lay_out_folder(tensors: Tensors, format: str, backend: Callable[[str, Described], tuple[Files, Texts]]) -> LaidOut:
    """`backend` lays out the files of tensors (name, dtype, shape) in a folder, which is empty or ends in `/`."""
    folders = sorted(set(tensors.places)) or [""]
    if len(folders) > 1 or (folders[0] and not folders[0].endswith("/")):
        raise Fault(
            "bad-files", f"layout `{tensors.layout}` is written to {format} files, which all lie in one folder",
            notes=tuple(folders[:5]), help='give the layout one folder, as in: files "weights/"',
        )  # fmt: skip
    laid_out, texts = backend(folders[0], [tensors.described(i) for i in tensors.order])
    files = tuple(TargetFile(name, layout, tuple(tensors.order[k] for k in members)) for name, layout, members in laid_out)
    spots = [(-1, 0)] * len(tensors.names)
    for number, file in enumerate(files):
        for region, i in enumerate(file.targets):
            spots[i] = (number, region)
    return LaidOut(files, spots, tuple(texts))


def contents(found: Found, held: Distributed) -> Contents:
    """What a distributed checkpoint holds, as every format says it."""
    return Contents(found.format, held.entries, [(found.folder or "", key) for key in held.others])
