"""Zero1 optimizer state with plain torch: made, written in both containers, read back, merged and split."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

SHAPES = {0: [11, 3], 1: [2, 5], 2: [7], 3: [12, 4]}  # rows that nothing divides, fewer than ranks, one dimension, even


def whole(seed: int = 0, shapes: Mapping[int, Sequence[int]] = SHAPES, master: bool = True) -> dict[str, Any]:
    """The uncut state of one group."""
    made = torch.Generator().manual_seed(seed)
    state: dict[str, Any] = {
        "state": {}, "param_groups": [{"lr": 1e-3, "betas": [0.9, 0.95], "params": list(shapes)}], "base_state": {},
        "shape_info": {i: list(shape) for i, shape in shapes.items()}, "loss_scale": 2.0, "note": None,
    }  # fmt: skip
    for i, shape in shapes.items():
        kinds = ("exp_avg", torch.float32), ("exp_avg_sq", torch.bfloat16)
        state["base_state"][i] = {"step": torch.tensor(float(seed + 7))} | {
            name: torch.randn(*shape, generator=made).to(dtype) for name, dtype in kinds
        }
    if master:
        state["sharded_master_weights"] = {i: torch.randn(*shape, generator=made).double() for i, shape in shapes.items()}
    return state


def _mapped(state: dict[str, Any], change: Any) -> dict[str, Any]:
    """`change(index, keys, tensor)` for each tensor that is cut."""
    out = copy.deepcopy(state)
    for i, each in out["base_state"].items():
        for key in each:
            if key != "step":
                each[key] = change(i, ("base_state", i, key), each[key])
    for i, tensor in out.get("sharded_master_weights", {}).items():
        out["sharded_master_weights"][i] = change(i, ("sharded_master_weights", i), tensor)
    return out


def split(state: dict[str, Any], dp: int) -> list[dict[str, Any]]:
    def part(rank: int) -> Any:
        def cut(i: int, keys: Any, tensor: torch.Tensor) -> torch.Tensor:
            rows = -(-tensor.shape[0] // dp)
            padded = torch.cat([tensor, tensor.new_zeros(rows * dp - tensor.shape[0], *tensor.shape[1:])])
            return padded[rank * rows : (rank + 1) * rows].clone()

        return cut

    return [_mapped(state, part(rank)) for rank in range(dp)]


def merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def joined(i: int, keys: Any, tensor: torch.Tensor) -> torch.Tensor:
        found = []
        for each in parts:
            for key in keys:
                each = each[key]
            found.append(each)
        return torch.cat(found)[: parts[0]["shape_info"][i][0]]

    return _mapped(parts[0], joined)


def name_of(dp: int | None, tp: int, pp: int, ep: int | None = None) -> str:
    start = "full" if dp is None else f"dp_rank_{dp:02}"
    return start + ("" if ep is None else f"_ep_rank_{ep:02}") + f"_tp_rank_{tp:02}_pp_rank_{pp:02}.pt"


def write(folder: Path, states: Mapping[tuple[Any, ...], dict[str, Any]], dp: int | None, xser: bool = False) -> Path:
    """The files of whole states by (tp, pp) or (tp, pp, ep), cut for `dp`."""
    (folder / "optim").mkdir(parents=True)
    for key, state in states.items():
        for rank, part in enumerate(split(state, dp)) if dp else [(None, state)]:
            (save_xser if xser else torch.save)(part, folder / "optim" / name_of(rank, *key))
    return folder


class TensorReference:
    """Stands for the class of torch_xla.utils.serialization of this name."""

    def __init__(self, tid: int) -> None:
        self.tid = tid


TensorReference.__module__ = "torch_xla.utils.serialization"


def save_xser(state: Any, path: Path) -> None:
    """As the framework's training does: references, their tensors in files of their own, and what they are."""
    import sys
    import types

    tensors: list[torch.Tensor] = []

    def walk(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors.append(value)
            return TensorReference(len(tensors) - 1)
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, (list, tuple)) else value

    out = walk(state)
    module = types.ModuleType(TensorReference.__module__)
    module.TensorReference = TensorReference  # type: ignore[attr-defined]
    names = "torch_xla", "torch_xla.utils", TensorReference.__module__
    sys.modules.update({n: module if n == names[-1] else types.ModuleType(n) for n in names})
    try:
        torch.save(out, path)
    finally:
        for n in names:
            del sys.modules[n]
    torch.save({i: {"dtype": t.dtype, "shape": t.shape, "expert_model_parallel": False} for i, t in enumerate(tensors)}, f"{path}.info.pt")
    (path.parent / f"{path.name}.tensors").mkdir()
    for i, tensor in enumerate(tensors):
        torch.save(tensor, path.parent / f"{path.name}.tensors" / f"tensor_{i}.pt")


def load(path: Path) -> Any:
    """A file of either container, read by torch."""
    folder = path.parent / f"{path.name}.tensors"
    if not folder.is_dir() or not any(folder.iterdir()):
        return torch.load(path, weights_only=False)
    import pickle

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return TensorReference if name == "TensorReference" else super().find_class(module, name)

    reading = type("reading", (), {"Unpickler": Reader, "load": staticmethod(pickle.load)})
    value = torch.load(path, weights_only=False, pickle_module=reading)

    def walk(value: Any) -> Any:
        if isinstance(value, TensorReference):
            return torch.load(folder / f"tensor_{value.tid}.pt", weights_only=True)
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    return walk(value)


def files(folder: Path) -> list[Path]:
    return [f for f in sorted(folder.glob("*.pt")) if not f.name.endswith(".info.pt") and f.is_file()]


def same(one: Any, other: Any) -> bool:
    """Equal in keys and their order, values, dtypes, shapes and bits."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other
