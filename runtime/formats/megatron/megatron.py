"""The format `megatron`: rank files of Megatron-LM as it writes them. The format `pt` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...files.format import Format, LaidOut, Tensors
from ..torch.lay_out import lay_out_torch_files
from .rank_file import QKV_ORDERS, rank_file


def _lay_out(tensors: Tensors) -> LaidOut:
    """A file says by its version how rows of query, key and value are ordered, which layouts call `qkv_order`."""
    version = QKV_ORDERS.get(str(tensors.params.get("qkv_order", "groups")), QKV_ORDERS["groups"])
    turns = tensors.params.get("vpp", 1)
    modules = [pattern for pattern, _ in tensors.objects]

    def tree(_: str, names: Sequence[str]) -> Any:
        return rank_file(names, modules, version, turns if isinstance(turns, int) else 1)

    return lay_out_torch_files(tensors, "model_optim_rng", "pt", tree)


FORMAT = Format("megatron", _lay_out)
