"""The format `zarr`: distributed checkpoints of Megatron-core up to 0.15 and of NeMo."""

from __future__ import annotations

from functools import partial

from ...files.format import Contents, Format, Found, LaidOut, Tensors
from ..nemo.training_run import settings_beside
from .find import find_backend
from .lay_out import contents, lay_out_folder


def _read(found: Found) -> Contents:
    from .zarr_read import read_zarr

    folder = found.folder or ""
    return contents(found, read_zarr(found.source.place, folder, found.source.names(folder)))


def _lay_out(tensors: Tensors) -> LaidOut:
    from .zarr_write import lay_out_zarr

    return lay_out_folder(tensors, "zarr", lambda folder, each: lay_out_zarr(folder, each, tensors.objects))


FORMAT = Format("zarr", _lay_out, partial(find_backend, backend="zarr"), _read, in_folder=True, settings_file=settings_beside)
