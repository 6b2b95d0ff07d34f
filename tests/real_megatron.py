"""The real Megatron-core, where it is installed: its distributed checkpoints, and a place to run its models on the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch


def checkpointing() -> Any:
    """`megatron.core.dist_checkpointing`; skips the test, and says why, where it cannot be imported."""
    try:
        return importlib.import_module("megatron.core.dist_checkpointing")
    except ImportError as error:
        pytest.skip(f"megatron-core cannot be imported ({error}); install it with: pip install 'ckptc[test-megatron]'")


@contextmanager
def on_one_rank(folder: Path) -> Iterator[None]:
    """Megatron-core set up for one process."""
    from megatron.core import parallel_state

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=0, world_size=1)
    try:
        parallel_state.initialize_model_parallel(1, 1)
        yield
    finally:
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets its models run on the CPU."""
    from megatron.core.fusions import fused_softmax
    from megatron.core.tensor_parallel.random import CudaRNGStatesTracker

    monkeypatch.setattr(torch.cuda, "current_device", lambda: "cpu")  # where rotary positions are put
    monkeypatch.setattr(fused_softmax, "get_sliding_window_causal_mask", _on_cpu(fused_softmax.get_sliding_window_causal_mask, monkeypatch))
    monkeypatch.setattr(CudaRNGStatesTracker, "fork", lambda *_: nullcontext())  # only dropout draws numbers, and there is none


def _on_cpu(made: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.Tensor]:
    """A function that says `device="cuda"` to torch.ones."""
    ones = torch.ones

    def mask(*args: Any) -> torch.Tensor:
        with monkeypatch.context() as patched:
            patched.setattr(torch, "ones", lambda *given, **said: ones(*given, **said | {"device": "cpu"}))
            return made(*args)

    return mask


def load(model: Any, folder: Path) -> None:
    """Fills a model from a distributed checkpoint, strictly."""
    loaded = checkpointing().load(model.sharded_state_dict(), str(folder))
    model.load_state_dict({k: v for k, v in loaded.items() if k not in ("checkpoint_version", "iteration")}, strict=True)


class Attention(torch.nn.Module):
    """Softmax attention, in the place of the module that takes heads of two sizes only in some releases."""

    def __init__(self, *_: Any, softmax_scale: float, **__: Any) -> None:
        super().__init__()
        self.scale = softmax_scale

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, **_: Any) -> torch.Tensor:
        scores = torch.einsum("qbhd,kbhd->bhqk", query, key) * self.scale
        return torch.einsum("bhqk,kbhd->qbhd", scores.masked_fill(mask, float("-inf")).softmax(-1), value).flatten(2)
