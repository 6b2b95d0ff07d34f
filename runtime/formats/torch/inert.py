"""What may stand beside weights in a pickle, whatever file it is in: classes of which nothing is made, and keys of modules.

Each stands as a `Stray`. Nothing is imported for it, nothing is called, and what it holds is never taken for a weight.
"""

from __future__ import annotations

from typing import Any

_DCP = "torch.distributed.checkpoint"
# Beside weights these are welcome in every container. All else that is off the allow-list may stand there in the files of
# training runs alone, whose settings and counters are of any class.
INERT = frozenset((
    "_io.BytesIO", "io.BytesIO",  # `_extra_state` of Transformer Engine 1.x (get_extra_state, transformer_engine/pytorch/module/base.py)
    "argparse.Namespace", "types.SimpleNamespace",
    "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib._local.PosixPath",
    "datetime.datetime", "datetime.date", "datetime.timedelta", "collections.defaultdict", "collections.Counter", "collections.deque",
    "torch.torch_version.TorchVersion", "numpy.dtype", "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    # What `.metadata` of distributed checkpoints consists of (torch/distributed/checkpoint/metadata.py, filesystem.py).
    *(f"{_DCP}.metadata.{name}" for name in (
        "Metadata", "MetadataIndex", "ChunkStorageMetadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties",
        "StorageMeta", "_MEM_FORMAT_ENCODING",
    )),
    f"{_DCP}.filesystem._StorageInfo", f"{_DCP}.filesystem._StoragePrefix", "megatron.core.dist_checkpointing.strategies.torch.MCoreMetadata",
))  # fmt: skip


def is_state(key: Any) -> bool:
    """Whether a key is that of what modules keep beside their tensors, which may be of any class."""
    return isinstance(key, str) and key.endswith("_extra_state")
