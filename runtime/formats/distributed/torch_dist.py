"""The format `torch_dist`: distributed checkpoints of Megatron-core and NeMo, saved by torch.distributed.checkpoint."""

from __future__ import annotations

from functools import partial

from ...files.format import Contents, Format, Found, LaidOut, Tensors
from ..nemo.training_run import settings_beside
from .find import find_backend
from .lay_out import contents, lay_out_folder
from .torch_dist_read import read_torch_dist


def _read(found: Found) -> Contents:
    return contents(found, read_torch_dist(found.source.place, found.folder or ""))


def _lay_out(tensors: Tensors) -> LaidOut:
    from .torch_dist_write import lay_out_torch_dist

    return lay_out_folder(
        tensors, "torch_dist", lambda folder, each: lay_out_torch_dist(folder, each, tensors.objects, tensors.max_shard_bytes)
    )


FORMAT = Format("torch_dist", _lay_out, partial(find_backend, backend="torch_dist"), _read, in_folder=True, settings_file=settings_beside)
